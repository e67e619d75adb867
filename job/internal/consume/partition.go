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
	lag     *lag
	behind  prometheus.Gauge
	late    prometheus.Gauge
	oldest  prometheus.Gauge

	mu      sync.Mutex
	offsets window.Offsets
	changed chan struct{} // has a signal after a record is done while wanted
	wanted  bool
}

// newPartition returns the partition, to be read from offset on; eased is called when its inbox was full and is not any more.
func newPartition(c *Consumer, id int, offset int64, eased func()) *Partition {
	label := strconv.Itoa(id)
	p := &Partition{
		ID: id, c: c, inbox: newInbox(c.cfg.BatchRecords, c.cfg.BatchBytes, eased), changed: make(chan struct{}, 1),
		lag:    newLag(offset, time.Now()),
		late:   c.meter.Lag.WithLabelValues(c.topic, label),
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
		p.lag.begin(&msgs[0], &msgs[len(msgs)-1])
		p.handler.Handle(ctx, p.add(msgs), msgs)
		p.lag.finish()
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

// measure sets the gauges.
func (p *Partition) measure(now time.Time) {
	late, behind := p.lag.measure(now, p.inbox.oldest())
	p.late.Set(late.Seconds())
	p.behind.Set(float64(behind))
	p.mu.Lock()
	at, ok := p.offsets.Oldest()
	p.mu.Unlock()
	if !ok {
		p.oldest.Set(0)
		return
	}
	p.oldest.Set(max(0, now.Sub(time.Unix(0, at)).Seconds()))
}

// commit returns the offset to commit and whether it has moved.
func (p *Partition) commit() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
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
		Partition: p.ID, Offset: offset, Full: p.inbox.full,
		Take: func(msgs []kafka.Message) {
			p.lag.arrived(&msgs[len(msgs)-1])
			p.inbox.put(msgs)
		},
		OutOfRange: func(offset int64) {
			p.lag.reset()
			// What the group committed is not there any more, or not yet: the topic was made anew, or retention was faster.
			p.c.lane.Resets.Inc()
			p.c.log.Warn("offset out of range, reading from the oldest record", logs.Partition, p.ID, logs.Offset, offset)
		},
	}
}
