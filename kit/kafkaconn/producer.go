package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/segmentio/kafka-go"
)

// Producer writes records with acks=all. It is safe for concurrent use; concurrent calls share requests.
//
// It stands on kafka-go's Transport and not on its Writer, which sends one request for each partition and waits a fixed time to fill
// it: with pushes to single users, spread over all partitions, each then costs a request of its own. Here a
// broker has one request of a topic under way, for all the partitions that it leads, and what comes meanwhile makes the next one: a lone record
// goes at once, and the more there is the more go together. A partition's records are never in two requests, so their order holds.
// A partition whose last write failed goes in requests of its own, so that it holds up no others.
//
// Goroutines, while there is something to write: one for each topic and leader, one for each partition whose last write failed, and one for each
// topic whose leaders are looked for; Close waits for them.
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
	running sync.WaitGroup
}

// WriteErrors is what Produce returns for several messages of which some were not acknowledged: one error for each message, in order, nil for
// those that were. Every error in it wraps ErrUnavailable.
type WriteErrors []error

func (e WriteErrors) Error() string {
	failed := e.Unwrap()
	return fmt.Sprintf("%d of %d records not written: %v", len(failed), len(e), failed[0])
}

// Unwrap returns the errors of the messages that were not acknowledged.
func (e WriteErrors) Unwrap() []error {
	var out []error
	for _, err := range e {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}

// Each returns what the error of a Produce of n messages says of each of them: nil of those that were acknowledged.
func Each(err error, n int) []error {
	var each WriteErrors
	if errors.As(err, &each) && len(each) == n {
		return each
	}
	return slices.Repeat([]error{err}, n)
}

// TooLarge reports whether an error of a message says that Kafka doesn't take one so large: no other try will do better.
func TooLarge(err error) bool {
	return errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge)
}

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

// NewProducer returns a Producer. It connects when it is first used. The caller closes it.
func NewProducer(c Config, log *slog.Logger, opts ...ProducerOption) *Producer {
	p := &Producer{
		cfg: c, log: log, client: newClient(c, c.topics()...), ids: partitionIDs(c.Partitions), topics: map[string]*topicQueue{},
	}
	for _, o := range opts {
		o(p)
	}
	return p
}

func partitionIDs(n int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = i
	}
	return ids
}

// Produce writes msgs, whose Topic has no prefix, and returns nil only when all are acknowledged by all
// replicas in sync. ctx is cut to the configured write timeout. An error wraps ErrUnavailable; that of several messages is WriteErrors.
// A message with an error may have been written all the same: consumers know records by their ids.
func (p *Producer) Produce(ctx context.Context, msgs ...kafka.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	c := newCall(len(msgs))
	if p.gate != nil {
		if err := p.gate(); err != nil {
			return c.failed(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.WriteTimeout)
	defer cancel()
	bytes := int64(0)
	for i := range msgs {
		bytes += size(&msgs[i])
	}
	if err := p.reserve(bytes); err != nil {
		return c.failed(err)
	}
	for i := range msgs {
		if err := p.know(ctx, p.cfg.Topic(msgs[i].Topic)); err != nil {
			p.release(bytes)
			return c.failed(err)
		}
	}
	if err := p.enqueue(c, msgs); err != nil {
		p.release(bytes)
		return c.failed(err)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.over = true
	if c.left == 0 {
		return c.failed(nil)
	}
	return c.failed(ctx.Err())
}

// Partition returns the partition of a key in any topic with the configured number of partitions.
func (p *Producer) Partition(key []byte) int {
	return balancer.Balance(kafka.Message{Key: key}, p.ids...)
}

// Close waits for what is under way and ends the Producer. Nothing is tried once its callers have left, so that takes
// two write timeouts at most: a try and what waited for it.
func (p *Producer) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.running.Wait()
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
				p.topics[topic] = newTopicQueue(topic, leaders)
			}
			return nil
		}
		if !sleep(ctx, wait) {
			return errors.Join(ctx.Err(), err)
		}
		wait = min(2*wait, p.cfg.RetryMax)
	}
}

// reserve takes room for bytes in the queue.
func (p *Producer) reserve(bytes int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return errClosed
	case p.bytes > 0 && p.bytes+bytes > p.cfg.QueueBytes:
		return errQueueFull
	}
	p.bytes += bytes
	return nil
}

// release gives room back that reserve took.
func (p *Producer) release(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes -= bytes
}
