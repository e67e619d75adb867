package revoke

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
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
	fetcher := kafkaconn.NewFetcher(r.kafka, topic.Revoked, r.log)
	defer func() { _ = fetcher.Close() }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var next atomic.Int64
	next.Store(first)
	came, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	fetcher.Read(ctx, []kafkaconn.Source{{
		Offset: first,
		Take: func(msgs []kafka.Message) {
			for _, m := range msgs {
				r.apply(ctx, m)
			}
			next.Store(msgs[len(msgs)-1].Offset + 1)
			signal(came)
		},
		Full:       func() bool { return false },
		OutOfRange: func(int64) { signal(gone) },
	}})
	sweep := time.NewTicker(r.cfg.Sweep)
	defer sweep.Stop()
	for moved := time.Now(); ; {
		if next.Load() >= end {
			moved = time.Now()
			r.markRead(ctx)
			alive()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gone:
			return errGone
		case <-came:
			moved = time.Now()
		case <-sweep.C:
			r.sweep()
			// Reading goes on by itself whatever fails: as long as something does, what others revoke isn't known here.
			if next.Load() < end && time.Since(moved) > r.cfg.Timeout {
				return errStuck
			}
			if _, end, err = r.bounds(ctx); err != nil {
				return err
			}
		}
	}
}

var (
	// errStuck says that there are records which don't come.
	errStuck = errors.New("there are more revocations, and they don't come")
	// errGone says that the topic was made anew, or that Kafka forgot what was to be read next.
	errGone = errors.New("the next revocation is not there any more")
)

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

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
