package revoke

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/kafkaconn"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

// Run reads the topic from its begin and follows it until ctx ends; it returns nil then. While Kafka is away
// it keeps what it knows and tries again.
func (r *Registry) Run(ctx context.Context) error {
	failing := false
	for {
		err := r.follow(ctx, func() { failing = false })
		if ctx.Err() != nil {
			return nil
		}
		r.metrics.failures.Inc()
		if !failing {
			r.log.WarnContext(ctx, "revocations can't be read", "err", err)
			failing = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(r.cfg.Retry):
		}
	}
}

// follow reads until something fails. It always begins at the begin: reading twice changes nothing, and a topic that was
// made anew is then read, too.
func (r *Registry) follow(ctx context.Context, alive func()) error {
	first, end, err := r.bounds(ctx)
	if err != nil {
		return err
	}
	reader := kafkaconn.NewReader(r.kafka, topic.Revoked, 0, r.log)
	// Close waits for the fetch in hand, kafkaconn.Config.MaxWait at most; what it returns is of no use to anybody.
	defer func() { _ = reader.Close() }()
	if err := reader.SetOffset(first); err != nil {
		return err
	}
	next := first
	moved := time.Now() // when something came last, or nothing was to come
	lastSweep := r.now()
	for {
		if next >= end {
			r.markRead(ctx)
			alive()
		}
		// The limit lets the sweep run where nothing is ever revoked.
		readCtx, cancel := context.WithTimeout(ctx, r.cfg.Sweep)
		m, err := reader.ReadMessage(readCtx)
		cancel()
		if now := r.now(); now.Sub(lastSweep) >= r.cfg.Sweep {
			r.sweep()
			lastSweep = now
		}
		switch {
		case err == nil:
			next, moved = m.Offset+1, time.Now()
			r.apply(ctx, m)
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			// kafka-go tries again by itself and tells nobody: as long as it does, what others revoke isn't known here.
			if next < end && time.Since(moved) > r.cfg.Timeout {
				return fmt.Errorf("read revocations: %w", errStuck)
			}
			if _, end, err = r.bounds(ctx); err != nil {
				return err
			}
			if next >= end {
				moved = time.Now()
			}
		default:
			return fmt.Errorf("read revocations: %w", err)
		}
	}
}

// errStuck says that there are records which don't come.
var errStuck = errors.New("there are more, and they don't come")

// bounds returns the topic's first offset and the one after its last.
func (r *Registry) bounds(ctx context.Context) (first, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	client := &kafka.Client{Addr: kafka.TCP(r.kafka.Brokers...), Timeout: r.cfg.Timeout, Transport: &kafka.Transport{DialTimeout: r.cfg.Timeout}}
	defer client.Transport.(*kafka.Transport).CloseIdleConnections()
	name := r.kafka.Topic(topic.Revoked)
	resp, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{name: {kafka.FirstOffsetOf(0), kafka.LastOffsetOf(0)}},
	})
	if err != nil {
		return 0, 0, fmt.Errorf("bounds of %s: %w", name, err)
	}
	for _, p := range resp.Topics[name] {
		if p.Error != nil {
			return 0, 0, fmt.Errorf("bounds of %s: %w", name, p.Error)
		}
		if p.Partition == 0 {
			return max(p.FirstOffset, 0), p.LastOffset, nil
		}
	}
	return 0, 0, fmt.Errorf("bounds of %s: no answer", name)
}

func (r *Registry) markRead(ctx context.Context) {
	r.mu.Lock()
	was := r.read
	r.read = true
	n := len(r.entries)
	r.mu.Unlock()
	if !was {
		r.log.InfoContext(ctx, "revocations read", "entries", n)
	}
}

func (r *Registry) apply(ctx context.Context, m kafka.Message) {
	var rec halleyv1.RevokedRecord
	if err := proto.Unmarshal(m.Value, &rec); err != nil {
		r.log.ErrorContext(ctx, "revocation can't be decoded", "offset", m.Offset, "err", err)
		r.metrics.undecodable.Inc()
		return
	}
	r.put(&rec)
}

type metrics struct {
	entries     prometheus.Gauge
	failures    prometheus.Counter
	undecodable prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		entries: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "halley_logic_revocation_entries", Help: "Uids and devices with revoked tokens.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_revocation_read_failures_total", Help: "Times that following the revocations broke off.",
		}),
		undecodable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_revocations_undecodable_total", Help: "Records of revocations that could not be decoded.",
		}),
	}
	if reg != nil {
		for _, c := range []prometheus.Collector{m.entries, m.failures, m.undecodable} {
			if err := reg.Register(c); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}
