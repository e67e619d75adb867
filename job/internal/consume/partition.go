package consume

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/job/internal/window"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/logs"
)

// Partition is one partition during one generation.
type Partition struct {
	ID int

	c       *Consumer
	inbox   *inbox
	handler Handler
	lost    atomic.Bool
	behind  prometheus.Gauge
	lag     prometheus.Gauge
	oldest  prometheus.Gauge

	mu      sync.Mutex
	offsets window.Offsets
	changed chan struct{} // has a signal after a record is done while wanted
	wanted  bool
}

// newPartition returns the partition; eased is called when its inbox was full and is not any more.
func newPartition(c *Consumer, id int, eased func()) *Partition {
	label := strconv.Itoa(id)
	p := &Partition{
		ID: id, c: c, inbox: newInbox(c.cfg.BatchRecords, c.cfg.BatchBytes, eased), changed: make(chan struct{}, 1),
		lag:    c.meter.Lag.WithLabelValues(c.topic, label),
		oldest: c.meter.OldestLag.WithLabelValues(c.topic, label),
		behind: c.meter.Behind.WithLabelValues(c.topic, label),
	}
	p.handler = c.newHandler(p)
	return p
}

// unmeasure removes the gauges of a partition that is another job's now.
func (p *Partition) unmeasure() {
	label := strconv.Itoa(p.ID)
	p.c.meter.Lag.DeleteLabelValues(p.c.topic, label)
	p.c.meter.OldestLag.DeleteLabelValues(p.c.topic, label)
	p.c.meter.Behind.DeleteLabelValues(p.c.topic, label)
}

// Done says that nothing of a record is owed any more. Repeating it is harmless.
func (p *Partition) Done(seq uint64) {
	p.mu.Lock()
	p.offsets.Done(seq)
	wanted := p.wanted
	p.mu.Unlock()
	if wanted {
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
}

// Lost reports whether the partition's generation has ended, the wait for what was in flight included.
func (p *Partition) Lost() bool { return p.lost.Load() }

// run handles what is read until ctx ends, then waits for what is in flight.
func (p *Partition) run(ctx context.Context) {
	drain, end := context.WithCancel(context.WithoutCancel(ctx))
	if r, ok := p.handler.(Runner); ok {
		var beside sync.WaitGroup
		beside.Go(func() { r.Run(drain) })
		defer beside.Wait()
	}
	defer end()
	var msgs []kafka.Message
	for p.below(ctx, p.c.cfg.InFlight, p.c.cfg.InFlightBytes) {
		if msgs = p.inbox.take(ctx, msgs); len(msgs) == 0 {
			break
		}
		p.c.lane.BatchRecords.Observe(float64(len(msgs)))
		last := &msgs[len(msgs)-1]
		if !last.Time.IsZero() {
			p.lag.Set(max(0, time.Since(last.Time).Seconds()))
		}
		p.behind.Set(float64(max(0, last.HighWaterMark-last.Offset-1)))
		p.handler.Handle(ctx, p.add(msgs), msgs)
	}
	// The group waits for this one meanwhile: no longer than needed.
	late := time.AfterFunc(p.c.cfg.DrainTimeout, end)
	defer late.Stop()
	p.below(drain, 1, 0)
}

// add takes records in and returns the first one's sequence number.
func (p *Partition) add(msgs []kafka.Message) (first uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range msgs {
		seq := p.offsets.Add(msgs[i].Offset, msgs[i].Time.UnixNano(), size(&msgs[i]))
		if i == 0 {
			first = seq
		}
	}
	return first
}

// below waits until fewer than n records and bytes are in flight, and reports false if ctx ended first. bytes 0: any number.
func (p *Partition) below(ctx context.Context, n int, bytes int64) bool {
	for ctx.Err() == nil {
		p.mu.Lock()
		ok := p.offsets.Len() < n && (bytes == 0 || p.offsets.Bytes() < bytes)
		p.wanted = !ok
		p.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-ctx.Done():
		case <-p.changed:
		}
	}
	return false
}

// commit returns the offset to commit and whether it has moved, and measures what is in flight.
func (p *Partition) commit(now time.Time) (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at, ok := p.offsets.Oldest(); ok {
		p.oldest.Set(max(0, now.Sub(time.Unix(0, at)).Seconds()))
	} else {
		p.oldest.Set(0)
	}
	return p.offsets.Commit()
}

// again has commit return its offset once more.
func (p *Partition) again() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offsets.Again()
}

// source is the partition as a Fetcher reads it.
func (p *Partition) source(offset int64) kafkaconn.Source {
	return kafkaconn.Source{
		Partition: p.ID, Offset: offset, Take: p.inbox.put, Full: p.inbox.full,
		OutOfRange: func(offset int64) {
			// What the group committed is not there any more, or not yet: the topic was made anew, or retention was faster.
			p.c.lane.Resets.Inc()
			p.c.log.Warn("offset out of range, reading from the oldest record", logs.Partition, p.ID, logs.Offset, offset)
		},
	}
}
