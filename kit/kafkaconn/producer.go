package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	produceapi "github.com/segmentio/kafka-go/protocol/produce"
)

// Producer writes records with acks=all. It is safe for concurrent use; concurrent calls share requests.
//
// It stands on kafka-go's Transport and not on its Writer, which sends one request for each partition and waits a fixed time to fill
// it: with pushes to single users, spread over all partitions, each then costs a request of its own. Here a
// broker has one request of a topic under way, for all the partitions that it leads, and what comes meanwhile makes the next one: a lone record
// goes at once, and the more there is the more go together. A partition's records are never in two requests, so their order holds.
//
// Goroutines: one for each topic and leader while there is something to write; Close waits for them.
type Producer struct {
	cfg    Config
	log    *slog.Logger
	client *kafka.Client
	ids    []int
	gate   func() error

	mu      sync.Mutex
	topics  map[string]*topicQueue // by full name
	bytes   int64                  // of all that waits or is under way
	closed  bool
	senders sync.WaitGroup
}

// topicQueue is what waits for one topic.
type topicQueue struct {
	name    string
	ids     []int
	parts   []partQueue
	sending map[int]bool // by leader: its sender runs
}

// partQueue is what waits for one partition, in order.
type partQueue struct {
	leader  int
	records []*record
	busy    bool // in a request
}

// record is one message on its way.
type record struct {
	msg  kafka.Message
	size int64
	call *call
}

// call is one Produce. Its fields are under the Producer's mu, but for done.
type call struct {
	left int
	over bool // nobody waits for it any more: what is not sent need not be
	err  error
	done chan struct{}
}

// noLeader stands for the leader of partitions that have none now.
const noLeader = -1

const (
	// recordOverhead is about what a record takes in a batch besides its bytes.
	recordOverhead = 64
	// A partition's share of a request, below what brokers take by default (message.max.bytes, 1 MiB), and a whole request.
	maxBatchBytes   = 900 << 10
	maxRequestBytes = 8 << 20
)

// errClosed is what Produce meets after Close.
var errClosed = errors.New("producer is closed")

// errQueueFull says that as much waits for Kafka as may.
var errQueueFull = errors.New("too much waits to be written")

// ProducerOption changes a Producer.
type ProducerOption func(*Producer)

// WithGate has every Produce ask gate first and fail with its error: for brokers in this process whose disk is
// nearly full.
func WithGate(gate func() error) ProducerOption { return func(p *Producer) { p.gate = gate } }

// balancer is kafka-go's murmur2, the same as Java's default, so that other tools find a key's partition.
var balancer = kafka.Murmur2Balancer{Consistent: true}

// idleTimeout is after how long an idle connection to a broker is closed: it costs a descriptor, and a new one a few milliseconds.
const idleTimeout = time.Minute

// NewProducer returns a Producer. It connects when it is first used. The caller closes it.
func NewProducer(c Config, log *slog.Logger, opts ...ProducerOption) *Producer {
	p := &Producer{
		cfg: c, log: log, client: newClient(c), ids: partitionIDs(c.Partitions), topics: map[string]*topicQueue{},
	}
	for _, o := range opts {
		o(p)
	}
	return p
}

// newClient returns a client with connections and knowledge of the cluster of its own.
func newClient(c Config) *kafka.Client {
	return &kafka.Client{
		Addr: kafka.TCP(c.Brokers...), Timeout: c.WriteTimeout,
		Transport: &kafka.Transport{DialTimeout: c.WriteTimeout, IdleTimeout: idleTimeout, MetadataTTL: c.MetadataTTL},
	}
}

func closeClient(c *kafka.Client) { c.Transport.(*kafka.Transport).CloseIdleConnections() }

func partitionIDs(n int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = i
	}
	return ids
}

// Produce writes msgs, whose Topic has no prefix, and returns nil only when all are acknowledged by all
// replicas in sync. ctx is cut to the configured write timeout. An error wraps ErrUnavailable, and any of msgs
// may have been written: consumers know records by their ids.
func (p *Producer) Produce(ctx context.Context, msgs ...kafka.Message) error {
	if p.gate != nil {
		if err := p.gate(); err != nil {
			return unavailable(err)
		}
	}
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.WriteTimeout)
	defer cancel()
	for i := range msgs {
		if err := p.know(ctx, p.cfg.Topic(msgs[i].Topic)); err != nil {
			return unavailable(err)
		}
	}
	c := &call{left: len(msgs), done: make(chan struct{})}
	if err := p.enqueue(c, msgs); err != nil {
		return unavailable(err)
	}
	select {
	case <-c.done:
		return unavailable(c.err)
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		c.over = true
		return unavailable(errors.Join(ctx.Err(), c.err))
	}
}

// unavailable wraps an error, nil included.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Partition returns the partition of a key in any topic with the configured number of partitions.
func (p *Producer) Partition(key []byte) int {
	return balancer.Balance(kafka.Message{Key: key}, p.ids...)
}

// Close waits for what is under way, up to the write timeout, and ends the Producer.
func (p *Producer) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.senders.Wait()
	closeClient(p.client)
	return nil
}

// know makes sure that a topic's partitions are known.
func (p *Producer) know(ctx context.Context, topic string) error {
	p.mu.Lock()
	q := p.topics[topic]
	p.mu.Unlock()
	if q != nil {
		return nil
	}
	wait := p.cfg.RetryMin
	for {
		leaders, err := leaders(ctx, p.client, topic)
		if err == nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.topics[topic] == nil {
				q := &topicQueue{name: topic, ids: partitionIDs(len(leaders)), parts: make([]partQueue, len(leaders)), sending: map[int]bool{}}
				for i, l := range leaders {
					q.parts[i].leader = l
				}
				p.topics[topic] = q
			}
			return nil
		}
		if !sleep(ctx, wait) {
			return errors.Join(ctx.Err(), err)
		}
		wait = min(2*wait, p.cfg.RetryMax)
	}
}

// leaders returns the leader of each partition of a topic, from the transport's knowledge of the cluster, which it
// renews by itself.
func leaders(ctx context.Context, client *kafka.Client, topic string) ([]int, error) {
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil, err
	}
	for _, t := range meta.Topics {
		if t.Name != topic {
			continue
		}
		if t.Error != nil {
			return nil, fmt.Errorf("topic %s: %w", topic, t.Error)
		}
		ids := make([]int, len(t.Partitions))
		for i := range ids {
			ids[i] = noLeader
		}
		for _, part := range t.Partitions {
			if part.ID < len(ids) && part.Error == nil && part.Leader.Host != "" {
				ids[part.ID] = part.Leader.ID
			}
		}
		if len(ids) > 0 {
			return ids, nil
		}
	}
	return nil, fmt.Errorf("topic %s is not there", topic)
}

// sleep waits and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *Producer) enqueue(c *call, msgs []kafka.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosed
	}
	total := int64(0)
	for i := range msgs {
		total += size(&msgs[i])
	}
	if p.bytes > 0 && p.bytes+total > p.cfg.QueueBytes {
		return errQueueFull
	}
	p.bytes += total
	for i := range msgs {
		q := p.topics[p.cfg.Topic(msgs[i].Topic)]
		part := &q.parts[balancer.Balance(kafka.Message{Key: msgs[i].Key}, q.ids...)]
		part.records = append(part.records, &record{msg: msgs[i], size: size(&msgs[i]), call: c})
		if !part.busy {
			p.start(q, part.leader)
		}
	}
	return nil
}

func size(m *kafka.Message) int64 {
	n := int64(recordOverhead + len(m.Key) + len(m.Value))
	for _, h := range m.Headers {
		n += int64(len(h.Key) + len(h.Value))
	}
	return n
}

// start has a sender run for what a leader is to get. With mu held.
func (p *Producer) start(q *topicQueue, leader int) {
	if q.sending[leader] {
		return
	}
	q.sending[leader] = true
	p.senders.Go(func() { p.send(q, leader) })
}

// send writes what waits for the partitions that a broker leads, a request at a time, until nothing does. Each round ends: with the
// broker's answer or the write timeout.
func (p *Producer) send(q *topicQueue, leader int) {
	wait := p.cfg.RetryMin
	for {
		batches := p.collect(q, leader)
		if batches == nil {
			return
		}
		failed := p.write(q, leader, batches)
		if failed == nil {
			p.settle(q, batches)
			wait = p.cfg.RetryMin
			continue
		}
		p.log.Debug("kafka write", "err", failed)
		// The records of these partitions wait before all that came later; another leader may have them by then.
		time.Sleep(wait)
		wait = min(2*wait, p.cfg.RetryMax)
		ctx, cancel := context.WithTimeout(context.Background(), p.cfg.WriteTimeout)
		now, err := leaders(ctx, p.client, q.name)
		cancel()
		p.mu.Lock()
		if err == nil && len(now) == len(q.parts) {
			for i := range q.parts {
				q.parts[i].leader = now[i]
			}
		}
		p.mu.Unlock()
		p.settle(q, batches)
	}
}

// batch is a partition's share of a request.
type batch struct {
	part    int
	records []*record
	err     error // what became of it
	again   bool  // and whether to write it once more
}

// collect takes what is to be written to a leader. Without anything it ends the leader's sender and returns nil.
func (p *Producer) collect(q *topicQueue, leader int) []batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	var batches []batch
	whole := int64(0)
	for i := range q.parts {
		part := &q.parts[i]
		if part.leader != leader || part.busy || len(part.records) == 0 || whole > maxRequestBytes {
			continue
		}
		var take []*record
		bytes, n := int64(0), 0
		for _, r := range part.records {
			if r.call.over {
				p.end(r, nil)
				n++
				continue
			}
			if bytes+r.size > maxBatchBytes && bytes > 0 {
				break
			}
			bytes += r.size
			take = append(take, r)
			n++
		}
		part.records = slices.Delete(part.records, 0, n)
		if len(take) > 0 {
			part.busy = true
			whole += bytes
			batches = append(batches, batch{part: i, records: take})
		}
	}
	if batches == nil {
		delete(q.sending, leader)
	}
	return batches
}

// write sends one request and notes in each batch what became of it; it returns the first error after which something is to be
// written again.
func (p *Producer) write(q *topicQueue, leader int, batches []batch) error {
	if leader == noLeader {
		return retryAll(batches, kafka.LeaderNotAvailable)
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.WriteTimeout)
	defer cancel()
	req := &produceapi.Request{
		Acks: int16(kafka.RequireAll), Timeout: int32(p.cfg.WriteTimeout.Milliseconds()),
		Topics: []produceapi.RequestTopic{{Topic: q.name, Partitions: make([]produceapi.RequestPartition, len(batches))}},
	}
	for i, b := range batches {
		records := make([]kafka.Record, len(b.records))
		for j, r := range b.records {
			records[j] = kafka.Record{
				Key: protocol.NewBytes(r.msg.Key), Value: protocol.NewBytes(r.msg.Value), Headers: r.msg.Headers, Time: r.msg.Time,
			}
		}
		req.Topics[0].Partitions[i] = produceapi.RequestPartition{
			Partition: int32(b.part), RecordSet: protocol.RecordSet{Records: protocol.NewRecordReader(records...)},
		}
	}
	resp, err := p.client.Transport.RoundTrip(ctx, p.client.Addr, req)
	if err != nil {
		return retryAll(batches, err)
	}
	codes := make(map[int]kafka.Error, len(batches))
	for _, t := range resp.(*produceapi.Response).Topics {
		for _, part := range t.Partitions {
			codes[int(part.Partition)] = kafka.Error(part.ErrorCode)
		}
	}
	var first error
	for i := range batches {
		b := &batches[i]
		code, answered := codes[b.part]
		switch {
		case !answered:
			b.err, b.again = fmt.Errorf("no answer for partition %d of %s", b.part, q.name), true
		case code != 0:
			b.err, b.again = code, code.Temporary()
		}
		if b.again && first == nil {
			first = b.err
		}
	}
	return first
}

func retryAll(batches []batch, err error) error {
	for i := range batches {
		batches[i].err, batches[i].again = err, true
	}
	return err
}

// settle ends the records of a request that are done and puts the others back in front, for the leaders that their
// partitions have now.
func (p *Producer) settle(q *topicQueue, batches []batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range batches {
		b := &batches[i]
		part := &q.parts[b.part]
		part.busy = false
		if b.again {
			for _, r := range b.records {
				r.call.err = b.err // told if the time is over before another try
			}
			part.records = append(b.records, part.records...)
		} else {
			for _, r := range b.records {
				p.end(r, b.err)
			}
		}
		if len(part.records) > 0 {
			p.start(q, part.leader)
		}
	}
}

// end is the end of one record; the last one, or an error, ends its call. With mu held.
func (p *Producer) end(r *record, err error) {
	p.bytes -= r.size
	c := r.call
	if c.left == 0 {
		return
	}
	if c.left--; err != nil || c.left == 0 {
		c.left, c.over, c.err = 0, true, err
		close(c.done)
	}
}
