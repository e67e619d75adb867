package deliver

import (
	"context"
	"time"

	"github.com/halley-im/halley/job/internal/meter"
)

// settle ends deliveries that a comet acknowledged. Connections that it did not hold any more are looked up once more, by the
// target's name: their user may have come back elsewhere.
func (l *Lane) settle(acked []*flight) {
	for _, f := range acked {
		if f.nobody {
			f.release(meter.NoRecipient)
			continue
		}
		for _, p := range f.parts {
			missing := 0
			if len(f.notHeld) > 0 {
				missing = f.missing(p.conns)
			}
			if missing == 0 || missing < len(p.conns) {
				p.target.got.Store(true)
			}
			switch {
			case missing == 0:
				p.target.release(meter.NoReason)
			case f.again || p.target.to.GetConn() != nil:
				// Where it has none there is no other place: that connection is gone, and nothing is owed to it.
				p.target.release(meter.NoRecipient)
			default:
				l.enqueue(task{target: p.target, again: true, until: time.Now().Add(2 * l.hub.cfg.RefusedFor)})
			}
		}
	}
}

// lost is what becomes of deliveries that were not acknowledged when their epoch ended: their targets are looked up again,
// volatile ones once.
func (l *Lane) lost(fs []*flight) {
	until := time.Now().Add(2 * l.hub.cfg.RefusedFor)
	for _, f := range fs {
		for _, p := range f.parts {
			if f.again && f.item.volatile() {
				p.target.release(meter.DeadEpoch)
				continue
			}
			l.enqueue(task{target: p.target, again: true, failed: p, until: until})
		}
	}
}

// enqueue has a task looked up again. What waits here is bounded by the records in flight, which hold their partitions' workers.
func (l *Lane) enqueue(t task) {
	l.meter.Again.Inc()
	l.queue(t, false)
}

// postpone looks a task up later: router still tells of an epoch that was given up.
func (l *Lane) postpone(t task, now time.Time) {
	t.due = now.Add(l.hub.cfg.RefusedFor / 8)
	l.queue(t, true)
}

func (l *Lane) queue(t task, later bool) {
	l.mu.Lock()
	over := l.over
	switch {
	case over:
	case later:
		l.later = append(l.later, t)
	default:
		l.again = append(l.again, t)
	}
	l.mu.Unlock()
	if over {
		t.target.release(meter.HandedOver)
		return
	}
	select {
	case l.signal <- struct{}{}:
	default:
	}
}

// Look-ups again in one call: about as many as a batch of records has. No setting: they are rare, and what is left over goes with the next call at once.
const againBatch = 1024

// due moves tasks whose time has come to tasks, and tells how long it is until the next.
func (l *Lane) due(tasks []task, now time.Time) ([]task, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// All were postponed by the same time, so they are in order.
	n := 0
	for n < len(l.later) && len(tasks) < againBatch && !l.later[n].due.After(now) {
		tasks = append(tasks, l.later[n])
		n++
	}
	l.later = shorten(l.later, n)
	n = min(len(l.again), againBatch-len(tasks))
	tasks = append(tasks, l.again[:n]...)
	l.again = shorten(l.again, n)
	wait := time.Hour // for ever: a signal comes with whatever there is to do
	if len(l.later) > 0 {
		wait = l.later[0].due.Sub(now)
	}
	return tasks, wait
}

func shorten(ts []task, n int) []task {
	if n == len(ts) {
		clear(ts)
		return ts[:0]
	}
	clear(ts[:n])
	return ts[n:]
}

// runAgain looks up again until ctx ends. One goroutine for the lane, so that what is looked up again stays in order
// among itself.
func (l *Lane) runAgain(ctx context.Context) {
	var w Work
	for ctx.Err() == nil {
		var wait time.Duration
		w.tasks, wait = l.due(w.tasks[:0], time.Now())
		if len(w.tasks) > 0 {
			l.deliver(ctx, &w)
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-l.signal:
		case <-t.C:
		}
		t.Stop()
	}
	l.mu.Lock()
	l.over = true
	left := append(l.again, l.later...)
	l.again, l.later = nil, nil
	l.mu.Unlock()
	for _, t := range left {
		t.target.release(meter.HandedOver)
	}
}
