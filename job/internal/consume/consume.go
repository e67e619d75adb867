// Package consume reads topics: one consumer group for each, one worker for each partition, in order; partitions in
// parallel. It owns joining and leaving, batches, and offsets: a record is passed by the committed offset when its Handler has said
// that it, and every one before it, is done. What is in a record, and when it is done, is the Handler's.
//
// It uses kafka-go's ConsumerGroup and reads partitions by itself, not by its group reader: that one keeps one queue over
// rebalances and hands out records of partitions that it lost (kafka-go issue 1398).
//
// Goroutines: those of Run (a generation; for each of its partitions a worker, and a Runner's; those that read; one that asks for ends) end
// before Run returns.
package consume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/job/internal/meter"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/proto/topic"
)

// Config are the bounds and times of reading.
type Config struct {
	// A worker takes what is there, at most so many records and no further one once it has so many bytes.
	BatchRecords int
	BatchBytes   int64
	// InFlight is how many records may lie between the committed offset and the one read last; then the worker waits.
	InFlight int
	// InFlightBytes is the same for their size; 0: any.
	InFlightBytes int64
	// CommitInterval is the time between two commits.
	CommitInterval time.Duration
	// DrainTimeout is how long the end of a generation waits for records in flight.
	DrainTimeout time.Duration
	// LagInterval is how often Kafka is asked for the end of a partition from which nothing comes.
	LagInterval time.Duration
}

// Handler does the work of one partition. Its calls come one at a time.
type Handler interface {
	// Handle takes records, in order, whose sequence numbers are first, first+1 …, and returns when it is ready for the next
	// ones. It calls Partition.Done for each of them, then or later; for those that it does not, since ctx has
	// ended, the next owner of the partition does the work. It must return soon after ctx ends. The slice is the caller's,
	// the bytes in it the Handler's.
	Handle(ctx context.Context, first uint64, msgs []kafka.Message)
}

// Runner is a Handler with work of its own beside Handle: what it has taken in and not ended yet.
type Runner interface {
	Handler
	// Run works until ctx ends, which goes on after the generation's while the partition waits for what is in flight. The
	// partition waits for it.
	Run(ctx context.Context)
}

// Consumer reads one topic.
type Consumer struct {
	cfg        Config
	kafka      kafkaconn.Config
	topic      string
	log        *slog.Logger
	meter      *meter.Meter
	lane       *meter.Lane
	newHandler func(*Partition) Handler
	joined     atomic.Bool
}

// New returns a Consumer of a topic, whose name has no prefix. newHandler is called for each partition that is assigned.
func New(cfg Config, k kafkaconn.Config, topic string, log *slog.Logger, m *meter.Meter, lane *meter.Lane, newHandler func(*Partition) Handler) *Consumer {
	m.Assigned.WithLabelValues(topic).Set(0)
	return &Consumer{
		cfg: cfg, kafka: k, topic: topic, meter: m, lane: lane, newHandler: newHandler,
		log: log.With(logs.Component, "consume", logs.Topic, topic),
	}
}

// Joined reports whether the consumer has been a member of its group.
func (c *Consumer) Joined() bool { return c.joined.Load() }

// Run consumes until ctx ends, then leaves the group. Kafka's absence is no error: it joins when Kafka is back.
func (c *Consumer) Run(ctx context.Context) error {
	group, err := kafkaconn.NewGroup(c.kafka, c.topic, topic.Group(c.topic), c.log)
	if err != nil {
		return err
	}
	fetcher := kafkaconn.NewFetcher(c.kafka, c.topic, c.log)
	defer func() { _ = fetcher.Close() }()
	transport := &kafka.Transport{DialTimeout: c.kafka.GroupTimeout, MetadataTTL: c.kafka.MetadataTTL, MetadataTopics: []string{c.kafka.Topic(c.topic)}}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(c.kafka.Brokers...), Timeout: c.kafka.GroupTimeout, Transport: transport}
	defer func() { _ = group.Close() }() // waits for the generation
	away := false
	for {
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, kafka.ErrGroupClosed):
			return nil
		case err != nil:
			// kafka-go tries again after its back-off; one line says that it does.
			if !away && !errors.Is(err, kafka.RebalanceInProgress) {
				c.log.Warn("group not joined, will try again", logs.Err, err)
				away = true
			}
			continue
		}
		away = false
		gen.Start(func(ctx context.Context) { c.generation(ctx, gen, fetcher, client) })
	}
}

// generation works on the assigned partitions until ctx ends, then waits a little for what is in flight and commits
// what is done.
func (c *Consumer) generation(ctx context.Context, gen *kafka.Generation, fetcher *kafkaconn.Fetcher, client *kafka.Client) {
	// kafka-go's context is none of the standard library's: deriving from it costs a goroutine each time, from this one nothing.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.lane.Rebalances.Inc()
	name := c.kafka.Topic(c.topic)
	var parts []*Partition
	var sources []kafkaconn.Source
	var reading *kafkaconn.Reading
	for _, a := range gen.Assignments[name] {
		p := newPartition(c, a.ID, a.Offset, func() { reading.Wake() })
		parts = append(parts, p)
		sources = append(sources, p.source(a.Offset))
	}
	reading = fetcher.Read(ctx, sources)
	var working sync.WaitGroup
	for _, p := range parts {
		working.Go(func() { p.run(ctx) })
	}
	working.Go(func() { c.ask(ctx, client, name, parts) })
	assigned := c.meter.Assigned.WithLabelValues(c.topic)
	assigned.Set(float64(len(parts)))
	c.log.Info("partitions assigned", "count", len(parts), "generation", gen.ID)
	c.joined.Store(true)

	done := make(chan struct{})
	go func() {
		working.Wait()
		close(done)
	}()
	tick := time.NewTicker(c.cfg.CommitInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.commit(gen, name, parts)
			continue
		case <-done:
		}
		break
	}
	c.commit(gen, name, parts)
	assigned.Set(0)
	for _, p := range parts {
		p.lost.Store(true)
		p.unmeasure()
	}
	c.log.Info("partitions given back", "count", len(parts), "generation", gen.ID)
}

// commit sets the gauges, and commits the partitions that have moved, in one request.
func (c *Consumer) commit(gen *kafka.Generation, name string, parts []*Partition) {
	var moved map[int]int64
	now := time.Now()
	for _, p := range parts {
		p.measure(now)
		offset, ok := p.commit()
		if !ok {
			continue
		}
		if moved == nil {
			moved = map[int]int64{}
		}
		moved[p.ID] = offset
	}
	if moved == nil {
		return
	}
	if err := gen.CommitOffsets(map[string]map[int]int64{name: moved}); err != nil {
		c.lane.CommitFail.Inc()
		c.log.Warn("offsets not committed, will try again", logs.Err, err)
		for _, p := range parts {
			if _, ok := moved[p.ID]; ok {
				p.again()
			}
		}
		return
	}
	c.lane.Commits.Inc()
}

// String names the consumer in errors.
func (c *Consumer) String() string { return fmt.Sprintf("consumer of %s", c.topic) }
