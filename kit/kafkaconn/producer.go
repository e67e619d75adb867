package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/segmentio/kafka-go"
)

// Producer writes records with acks=all. It is safe for concurrent use; concurrent calls share batches.
type Producer struct {
	cfg  Config
	w    *kafka.Writer
	ids  []int
	gate func() error
}

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
		cfg: c,
		w: &kafka.Writer{
			Addr:         kafka.TCP(c.Brokers...),
			Balancer:     balancer,
			RequiredAcks: kafka.RequireAll,
			BatchTimeout: c.BatchTimeout,
			BatchSize:    1000,
			BatchBytes:   1 << 20,
			WriteTimeout: c.WriteTimeout,
			ReadTimeout:  c.WriteTimeout,
			// Retries are cut short by the deadline that Produce sets, WriteTimeout: attempts times timeouts are no bound, and the
			// waits between them need no setting.
			MaxAttempts:     10,
			WriteBackoffMin: 20 * time.Millisecond,
			WriteBackoffMax: 250 * time.Millisecond,
			ErrorLogger: kafka.LoggerFunc(func(format string, args ...any) {
				log.Debug("kafka write", "err", fmt.Sprintf(format, args...))
			}),
			Transport: &kafka.Transport{DialTimeout: c.WriteTimeout, IdleTimeout: idleTimeout, MetadataTTL: c.MetadataTTL},
		},
		ids: make([]int, c.Partitions),
	}
	for i := range p.ids {
		p.ids[i] = i
	}
	for _, o := range opts {
		o(p)
	}
	return p
}

// Produce writes msgs, whose Topic has no prefix, and returns nil only when all are acknowledged by all
// replicas in sync. ctx is cut to the configured write timeout. An error wraps ErrUnavailable, and any of msgs
// may have been written: consumers know records by their ids.
func (p *Producer) Produce(ctx context.Context, msgs ...kafka.Message) error {
	if p.gate != nil {
		if err := p.gate(); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.WriteTimeout)
	defer cancel()
	if p.cfg.Prefix != "" {
		named := make([]kafka.Message, len(msgs))
		for i, m := range msgs {
			m.Topic = p.cfg.Topic(m.Topic)
			named[i] = m
		}
		msgs = named
	}
	if err := p.w.WriteMessages(ctx, msgs...); err != nil {
		var each kafka.WriteErrors
		if errors.As(err, &each) {
			for _, e := range each {
				if e != nil {
					err = e
					break
				}
			}
		}
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// Partition returns the partition of a key in any topic with the configured number of partitions.
func (p *Producer) Partition(key []byte) int {
	return balancer.Balance(kafka.Message{Key: key}, p.ids...)
}

// Close writes what is under way and ends the Producer.
func (p *Producer) Close() error { return p.w.Close() }
