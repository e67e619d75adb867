package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	produceapi "github.com/segmentio/kafka-go/protocol/produce"
)

// call is one Produce. Its fields are under the Producer's mu once it is queued, but for done.
type call struct {
	left int
	over bool    // nobody waits for it any more: what is not sent need not be
	errs []error // by message; nil once it is acknowledged
	one  [1]error
	done chan struct{}
}

// errPending is the error of a message that nothing is known of yet.
var errPending = errors.New("not acknowledged")

func newCall(n int) *call {
	c := &call{left: n, done: make(chan struct{})}
	if c.errs = c.one[:]; n > 1 {
		c.errs = make([]error, n)
	}
	for i := range c.errs {
		c.errs[i] = errPending
	}
	return c
}

// failed returns the error that Produce returns, nil included; why is added for all messages that are not acknowledged.
func (c *call) failed(why error) error {
	some := false
	for i, err := range c.errs {
		switch {
		case err == nil:
			continue
		case why == nil:
		case errors.Is(err, errPending):
			err = why
		default:
			err = errors.Join(why, err)
		}
		c.errs[i], some = fmt.Errorf("%w: %w", ErrUnavailable, err), true
	}
	switch {
	case !some:
		return nil
	case len(c.errs) == 1:
		return c.errs[0]
	default:
		return WriteErrors(c.errs)
	}
}

// topicQueue is what waits for one topic.
type topicQueue struct {
	name    string
	ids     []int
	parts   []partQueue
	senders map[route]*sender
	most    int64 // bytes of a partition's share of a request
	looking bool  // for leaders
	told    bool  // that writes keep failing
	turn    int   // the partition that comes first in the next request
}

// partQueue is what waits for one partition, in order.
type partQueue struct {
	leader  int
	records []*record
	busy    bool      // in a request
	fails   int       // in a row
	due     time.Time // not to be tried before
}

// route is what one sender serves: of the partitions that a broker leads all that are well, or one whose last write failed. A broker answers a
// request when it is done with the slowest partition in it.
type route struct {
	broker int
	alone  int // a partition, or together
}

const together = -1

// route returns the one that a partition's records take. With mu held.
func (q *topicQueue) route(i int) route {
	if part := &q.parts[i]; part.fails > 0 {
		return route{part.leader, i}
	}
	return route{q.parts[i].leader, together}
}

// sender is a goroutine that writes.
type sender struct{ wake chan struct{} }

// record is one message on its way.
type record struct {
	msg  kafka.Message
	size int64
	call *call
	at   int // its place in the call
}

const (
	// recordOverhead is about what a record takes in a batch besides its bytes.
	recordOverhead = 64
	// A partition's share of a request, below what brokers take by default (message.max.bytes, 1 MiB), and a whole request. Where a broker takes
	// less the share becomes less.
	maxBatchBytes   = 900 << 10
	maxRequestBytes = 8 << 20
	// lastingFails is how many failures in a row of a partition are told of: fewer belong to every election of a leader.
	lastingFails = 5
)

func newTopicQueue(name string, leaders []int) *topicQueue {
	q := &topicQueue{
		name: name, ids: partitionIDs(len(leaders)), parts: make([]partQueue, len(leaders)), senders: map[route]*sender{}, most: maxBatchBytes,
	}
	for i, l := range leaders {
		q.parts[i].leader = l
	}
	return q
}

func size(m *kafka.Message) int64 {
	n := int64(recordOverhead + len(m.Key) + len(m.Value))
	for _, h := range m.Headers {
		n += int64(len(h.Key) + len(h.Value))
	}
	return n
}

func (p *Producer) enqueue(c *call, msgs []kafka.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosed
	}
	for i := range msgs {
		q := p.topics[p.cfg.Topic(msgs[i].Topic)]
		n := balancer.Balance(kafka.Message{Key: msgs[i].Key}, q.ids...)
		part := &q.parts[n]
		part.records = append(part.records, &record{msg: msgs[i], size: size(&msgs[i]), call: c, at: i})
		if !part.busy {
			p.start(q, n)
		}
	}
	return nil
}

// start has somebody see to what waits for a partition. With mu held.
func (p *Producer) start(q *topicQueue, i int) {
	r := q.route(i)
	if r.broker == noLeader {
		p.look(q)
		return
	}
	if s := q.senders[r]; s != nil {
		signal(s.wake)
		return
	}
	s := &sender{wake: make(chan struct{}, 1)}
	q.senders[r] = s
	p.running.Go(func() { p.send(q, r, s) })
}

// send writes what waits for the partitions of one route, a request at a time, until nothing does. Each round ends: with the
// broker's answer or the write timeout.
func (p *Producer) send(q *topicQueue, r route, s *sender) {
	for {
		batches, due := p.collect(q, r)
		switch {
		case len(batches) > 0:
			p.write(q, batches)
			p.settle(q, batches)
		case due.IsZero():
			return
		default:
			t := time.NewTimer(time.Until(due))
			select {
			case <-t.C:
			case <-s.wake:
			}
			t.Stop()
		}
	}
}

// batch is a partition's share of a request.
type batch struct {
	part    int
	records []*record
	err     error // what became of it
	again   bool  // and whether to write it once more
	split   bool  // in several
}

// collect takes what is to be written now, or returns when something is. Without anything it ends the sender.
func (p *Producer) collect(q *topicQueue, r route) (batches []batch, due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	whole := int64(0)
	for n := range q.parts {
		i := (q.turn + n) % len(q.parts)
		part := &q.parts[i]
		if part.busy || len(part.records) == 0 || q.route(i) != r {
			continue
		}
		if part.due.After(now) {
			if due.IsZero() || part.due.Before(due) {
				due = part.due
			}
			continue
		}
		take, bytes := p.take(part, q.most)
		if len(take) == 0 {
			continue
		}
		part.busy = true
		batches = append(batches, batch{part: i, records: take})
		if whole += bytes; whole > maxRequestBytes {
			q.turn = i + 1
			break
		}
	}
	if len(batches) == 0 && due.IsZero() {
		delete(q.senders, r)
	}
	return batches, due
}

// take takes a partition's share of a request out of its queue, most bytes or one record. With mu held.
func (p *Producer) take(part *partQueue, most int64) (take []*record, bytes int64) {
	n := 0
	for _, r := range part.records {
		if r.call.over {
			p.end(r, nil)
			n++
			continue
		}
		if bytes+r.size > most && bytes > 0 {
			break
		}
		bytes += r.size
		take = append(take, r)
		n++
	}
	part.records = slices.Delete(part.records, 0, n)
	return take, bytes
}

// write sends one request and notes in each batch what became of it.
func (p *Producer) write(q *topicQueue, batches []batch) {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.WriteTimeout)
	defer cancel()
	req := &produceapi.Request{
		// Replicas that don't follow in time are an answer for their partition alone, as long as that still comes in time itself.
		Acks: int16(kafka.RequireAll), Timeout: int32(p.cfg.WriteTimeout.Milliseconds() * 3 / 4),
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
		for i := range batches {
			batches[i].err, batches[i].again = err, true
		}
		return
	}
	codes := make(map[int]kafka.Error, len(batches))
	for _, t := range resp.(*produceapi.Response).Topics {
		for _, part := range t.Partitions {
			codes[int(part.Partition)] = kafka.Error(part.ErrorCode)
		}
	}
	for i := range batches {
		b := &batches[i]
		code, answered := codes[b.part]
		switch {
		case !answered:
			b.err, b.again = fmt.Errorf("no answer for partition %d of %s", b.part, q.name), true
		case code != 0:
			b.err, b.again, b.split = code, code.Temporary(), TooLarge(code) && len(b.records) > 1
		}
	}
}

// settle ends the records of a request that are done and puts the others back in front, to be tried later.
func (p *Producer) settle(q *topicQueue, batches []batch) {
	p.mu.Lock()
	var failed error
	for i := range batches {
		b := &batches[i]
		part := &q.parts[b.part]
		part.busy = false
		switch {
		case b.split:
			// None of them may be too large by itself.
			q.most = min(q.most, bytesOf(b.records)/2)
			part.records = append(b.records, part.records...)
		case b.again:
			failed = b.err
			for _, r := range b.records {
				r.call.met(r.at, b.err) // told if the time is over before another try
			}
			part.records = append(b.records, part.records...)
			part.failed(p.cfg)
			p.look(q)
		default:
			part.fails, part.due = 0, time.Time{}
			for _, r := range b.records {
				p.end(r, b.err)
			}
		}
		if len(part.records) > 0 {
			p.start(q, b.part)
		}
	}
	news := q.news()
	p.mu.Unlock()
	p.tell(q, news, failed)
}

func bytesOf(records []*record) (n int64) {
	for _, r := range records {
		n += r.size
	}
	return n
}

func (part *partQueue) failed(c Config) {
	part.due = time.Now().Add(min(c.RetryMax, c.RetryMin<<min(part.fails, 20)))
	part.fails++
}

// met notes an error of a message whose call somebody waits for.
func (c *call) met(at int, err error) {
	if !c.over {
		c.errs[at] = err
	}
}

// end is the end of one record; the last one ends its call. With mu held.
func (p *Producer) end(r *record, err error) {
	p.bytes -= r.size
	c := r.call
	c.met(r.at, err)
	if c.left--; c.left == 0 {
		close(c.done)
	}
}

// look has a goroutine ask for a topic's leaders as long as writes fail. With mu held.
func (p *Producer) look(q *topicQueue) {
	if q.looking {
		return
	}
	q.looking = true
	p.running.Go(func() {
		for wait := p.cfg.RetryMin; ; wait = min(2*wait, p.cfg.RetryMax) {
			time.Sleep(wait)
			ctx, cancel := context.WithTimeout(context.Background(), p.cfg.WriteTimeout)
			now, err := leaders(ctx, p.client, q.name)
			cancel()
			if !p.elect(q, now, err) {
				return
			}
		}
	})
}

// elect takes over what is known of leaders, and reports whether to look again.
func (p *Producer) elect(q *topicQueue, now []int, err error) bool {
	p.mu.Lock()
	q.looking = false
	failed := err
	for i := range q.parts {
		part := &q.parts[i]
		if err == nil && i < len(now) && now[i] != part.leader {
			part.leader, part.due = now[i], time.Time{}
		}
		part.records = slices.DeleteFunc(part.records, func(r *record) bool {
			if r.call.over {
				p.end(r, nil)
			}
			return r.call.over
		})
		if part.busy || len(part.records) == 0 {
			continue
		}
		if part.leader == noLeader {
			if failed == nil {
				failed = kafka.LeaderNotAvailable
			}
			part.failed(p.cfg)
			for _, r := range part.records {
				r.call.met(r.at, kafka.LeaderNotAvailable)
			}
		} else {
			p.start(q, i)
		}
		q.looking = q.looking || part.fails > 0
	}
	again, news := q.looking, q.news()
	p.mu.Unlock()
	p.tell(q, news, failed)
	return again
}

// news returns what is to be logged now about whether writes keep failing. With mu held.
func (q *topicQueue) news() string {
	lasting := false
	for i := range q.parts {
		lasting = lasting || q.parts[i].fails >= lastingFails
	}
	switch {
	case lasting == q.told:
		return ""
	case lasting:
		q.told = true
		return failing
	default:
		q.told = false
		return recovered
	}
}

const (
	failing   = "kafka writes keep failing"
	recovered = "kafka writes are acknowledged again"
)

// tell logs news and the error of one failure. Not with mu held.
func (p *Producer) tell(q *topicQueue, news string, err error) {
	if err != nil {
		p.log.Debug("kafka write", "topic", q.name, "err", err)
	}
	switch news {
	case failing:
		p.log.Warn(failing, "topic", q.name, "err", err)
	case recovered:
		p.log.Info(recovered, "topic", q.name)
	}
}
