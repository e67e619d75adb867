package consume

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/job/internal/backoff"
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

func newPartition(c *Consumer, id int) *Partition {
	label := strconv.Itoa(id)
	p := &Partition{
		ID: id, c: c, inbox: newInbox(c.cfg.BatchRecords, c.cfg.BatchBytes), changed: make(chan struct{}, 1),
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

// run reads and handles from offset until ctx ends, then waits for what is in flight.
func (p *Partition) run(ctx context.Context, offset int64) {
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() { p.read(ctx, offset) })
	var msgs []kafka.Message
	for p.below(ctx, p.c.cfg.InFlight) {
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
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.c.cfg.DrainTimeout)
	defer cancel()
	p.below(drain, 1)
}

// add takes records in and returns the first one's sequence number.
func (p *Partition) add(msgs []kafka.Message) (first uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range msgs {
		seq := p.offsets.Add(msgs[i].Offset, msgs[i].Time.UnixNano())
		if i == 0 {
			first = seq
		}
	}
	return first
}

// below waits until fewer than n records are in flight, and reports false if ctx ended first.
func (p *Partition) below(ctx context.Context, n int) bool {
	for ctx.Err() == nil {
		p.mu.Lock()
		ok := p.offsets.Len() < n
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

// read puts records into the inbox until ctx ends.
func (p *Partition) read(ctx context.Context, offset int64) {
	defer p.inbox.close()
	retry := backoff.Backoff{Min: p.c.cfg.RetryMin, Max: p.c.cfg.RetryMax}
	for ctx.Err() == nil {
		if !p.readFrom(ctx, offset) {
			return
		}
		// What the group committed is not there any more, or not yet: the topic was made anew, or retention was faster.
		p.c.lane.Resets.Inc()
		p.c.log.Warn("offset out of range, reading from the oldest record", logs.Partition, p.ID, logs.Offset, offset)
		offset = kafka.FirstOffset
		if !retry.Wait(ctx, 0) {
			return
		}
	}
}

// readFrom reads from offset until ctx ends; true if that offset is out of range.
func (p *Partition) readFrom(ctx context.Context, offset int64) bool {
	r := kafkaconn.NewReader(p.c.kafka, p.c.topic, p.ID, p.c.log)
	// Close waits for the fetch that the broker holds, up to MaxWait: the rebalance need not.
	defer p.c.closing.Go(func() { _ = r.Close() })
	if err := r.SetOffset(offset); err != nil {
		p.c.log.Error("reader without offset", logs.Partition, p.ID, logs.Offset, offset, logs.Err, err)
		return false
	}
	for {
		m, err := r.FetchMessage(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, io.EOF):
			return false
		case errors.Is(err, kafka.OffsetOutOfRange):
			return true
		case err != nil:
			// The reader goes on by itself.
			p.c.log.Warn("reading fails", logs.Partition, p.ID, logs.Err, err)
		case !p.inbox.put(ctx, m):
			return false
		}
	}
}
