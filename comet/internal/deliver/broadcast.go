package deliver

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/comet/internal/flush"
	"github.com/halley-im/halley/comet/internal/meter"
	"github.com/halley-im/halley/comet/internal/outbox"
	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/comet/internal/table"
)

// Broadcast is a push to all sessions of the message's tenant.
type Broadcast struct {
	Message *outbox.Message
	// Speed is the sessions a second; 0: the comet's own pace.
	Speed int
}

// Broadcaster sends pushes to all, one after another, each at its pace. Use NewBroadcaster, then Run.
type Broadcaster struct {
	queue chan Broadcast
	rate  int
	table *table.Table
	f     *flush.Flusher
	m     *meter.Metrics
}

// NewBroadcaster returns a broadcaster with a queue of n pushes and a pace of rate sessions a second.
func NewBroadcaster(n, rate int, t *table.Table, f *flush.Flusher, m *meter.Metrics) *Broadcaster {
	return &Broadcaster{queue: make(chan Broadcast, n), rate: rate, table: t, f: f, m: m}
}

// TryPut queues a push if the queue has room.
func (c *Broadcaster) TryPut(b Broadcast) bool {
	select {
	case c.queue <- b:
		return true
	default:
		return false
	}
}

// Put queues a push. While the queue is full it waits, and with it the stream: job's window is the bound.
func (c *Broadcaster) Put(ctx context.Context, done <-chan struct{}, b Broadcast) error {
	select {
	case c.queue <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return status.Error(codes.Unavailable, "this comet has left")
	}
}

// Run works until ctx ends.
func (c *Broadcaster) Run(ctx context.Context) {
	batch := c.f.Batch()
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-c.queue:
			if !c.send(ctx, batch, b) {
				return
			}
		}
	}
}

// send goes through the table at the push's pace; false: ctx ended.
func (c *Broadcaster) send(ctx context.Context, batch *flush.Batch, b Broadcast) bool {
	rate := b.Speed
	if rate <= 0 {
		rate = c.rate
	}
	// Sessions that are reached in ten milliseconds: fine enough to be smooth, coarse enough to cost nothing.
	step := max(rate/100, 1)
	begun := time.Now()
	done, unwanted := 0, 0
	var conns []*session.Session
	batch.Begin()
	hand := func() bool {
		batch.Done()
		c.m.Messages.WithLabelValues("bulk").Add(float64(batch.Messages))
		ahead := time.Duration(float64(done)/float64(rate)*float64(time.Second)) - time.Since(begun)
		if ahead > 0 && !wait(ctx, ahead) {
			return false
		}
		batch.Begin()
		return ctx.Err() == nil
	}
	inStep := 0
	for i := range table.Shards {
		conns = c.table.Conns(conns[:0], i)
		for _, s := range conns {
			// Those whose log-in is under way keep it until they know whether they are meant.
			r := s.Enqueue(b.Message, batch.Now, batch.Window())
			if !batch.Add(s, r) {
				if r == session.Unwanted || r == session.Foreign {
					unwanted++
				}
				continue
			}
			done++
			if inStep++; inStep >= step {
				inStep = 0
				if !hand() {
					return false
				}
			}
		}
	}
	batch.Done()
	c.m.Messages.WithLabelValues("bulk").Add(float64(batch.Messages))
	c.m.Dropped.WithLabelValues("not_accepted").Add(float64(unwanted))
	return true
}

// Resyncer tells all sessions to resync, spread over a time. Asking for it while it is going on makes it go
// round once more. Use NewResyncer, then Run.
type Resyncer struct {
	spread time.Duration
	table  *table.Table
	f      *flush.Flusher
	m      *meter.Metrics
	wanted chan struct{}
}

// NewResyncer returns a resyncer that spreads its events over a time.
func NewResyncer(spread time.Duration, t *table.Table, f *flush.Flusher, m *meter.Metrics) *Resyncer {
	return &Resyncer{spread: spread, table: t, f: f, m: m, wanted: make(chan struct{}, 1)}
}

// All asks for a resync of all sessions.
func (r *Resyncer) All() {
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (r *Resyncer) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wanted:
		}
		batch := r.f.Batch()
		var conns []*session.Session
		for i := range table.Shards {
			conns = r.table.Conns(conns[:0], i)
			batch.Begin()
			for _, s := range conns {
				if s.Resyncable() {
					batch.Add(s, s.Enqueue(session.ResyncEvent(), batch.Now, batch.Window()))
				}
			}
			batch.Done()
			r.m.Resyncs.Add(float64(batch.Messages))
			if !wait(ctx, r.spread/table.Shards) {
				return
			}
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
