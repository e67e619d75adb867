package deliver

import (
	"context"
	"sync"
	"time"

	"github.com/halley-im/halley/job/internal/backoff"
	"github.com/halley-im/halley/job/internal/locate"
	"github.com/halley-im/halley/job/internal/meter"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Lane is one lane's way to all comets. Its methods are safe for concurrent use.
type Lane struct {
	hub   *Hub
	lane  halleyv1.Lane
	name  string
	meter *meter.Lane
	joint *locate.Joint

	mu      sync.Mutex
	streams map[string]*stream // by epoch
	again   []task             // to be looked up again, in order
	later   []task             // the same, when due
	over    bool               // nobody looks up again any more
	signal  chan struct{}
}

func newLane(h *Hub, lane halleyv1.Lane, m *meter.Lane) *Lane {
	return &Lane{hub: h, lane: lane, name: meter.LaneName(lane), meter: m, joint: h.locator.Join(), streams: map[string]*stream{}, signal: make(chan struct{}, 1)}
}

// Deliver finds where the items' targets are and puts deliveries for them into the comets' windows, in order. It returns when
// all are there, dropped, or ctx has ended; then what is not there is handed over. It waits while router can't answer,
// and while a comet's window is full, up to the stall time. The items end later, when comets acknowledge. w is the caller's to
// use for one call at a time. Items of one target that one caller delivers stay in order.
func (l *Lane) Deliver(ctx context.Context, items []*Item, w *Work) {
	w.tasks = w.tasks[:0]
	for _, it := range items {
		for i := range it.targets {
			w.tasks = append(w.tasks, task{target: &it.targets[i]})
		}
	}
	l.deliver(ctx, w)
}

// deliver does w's tasks. It takes over what they hold.
func (l *Lane) deliver(ctx context.Context, w *Work) {
	retry := backoff.Backoff{Min: l.hub.cfg.RetryMin, Max: l.hub.cfg.RetryMax}
	for {
		w.tasks = current(w.tasks, time.Now())
		if len(w.tasks) == 0 {
			w.reset()
			return
		}
		after, err := w.locate(ctx, l)
		if err == nil {
			break
		}
		// Not the records' fault: they wait, and their ttl runs.
		if !retry.Wait(ctx, after) {
			for _, t := range w.tasks {
				t.target.release(meter.HandedOver)
			}
			w.reset()
			return
		}
	}
	w.route(l)
	l.push(ctx, w)
	w.reset()
}

// current returns the tasks that are still to be done and ends the others.
func current(tasks []task, now time.Time) []task {
	left := tasks[:0]
	for _, t := range tasks {
		switch {
		case t.target.item.expired(now):
			t.target.release(meter.Expired)
		case t.again && t.target.item.owner.Lost():
			t.target.release(meter.HandedOver)
		default:
			left = append(left, t)
		}
	}
	clear(tasks[len(left):])
	return left
}

// push offers w's flights to their comets' streams: first what each takes at once, so that a full one holds up
// nobody else, then the rest as there is room.
func (l *Lane) push(ctx context.Context, w *Work) {
	for i := range w.groups {
		g := &w.groups[i]
		g.flights, g.wait, g.until = l.offer(g.comet, g.flights)
	}
	for i := range w.groups {
		g := &w.groups[i]
		for len(g.flights) > 0 {
			if !waitFor(ctx, g.wait, g.until) {
				for _, f := range g.flights {
					f.release(meter.HandedOver)
				}
				break
			}
			g.flights, g.wait, g.until = l.offer(g.comet, g.flights)
		}
	}
}

// waitFor waits for c or the time until, and reports false if ctx ended first.
func waitFor(ctx context.Context, c <-chan struct{}, until time.Time) bool {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-c:
	case <-t.C:
	}
	return ctx.Err() == nil
}

// offer hands flights to the comet's stream and returns those that it has no room for now, and when to offer them again.
func (l *Lane) offer(c comet, fs []*flight) ([]*flight, <-chan struct{}, time.Time) {
	for len(fs) > 0 {
		if l.hub.avoids(c.epoch) {
			l.lost(fs)
			return nil, nil, time.Time{}
		}
		s := l.stream(c)
		if s == nil {
			for _, f := range fs {
				f.release(meter.HandedOver)
			}
			return nil, nil, time.Time{}
		}
		rest, wait, until, ok := s.offer(fs, time.Now())
		if ok {
			return rest, wait, until
		}
		fs = rest
	}
	return nil, nil, time.Time{}
}

// stream returns the stream to an epoch, a new one if there is none; nil when the hub has ended.
func (l *Lane) stream(c comet) *stream {
	l.mu.Lock()
	s := l.streams[c.epoch]
	if s != nil && !s.ended() {
		l.mu.Unlock()
		return s
	}
	s = newStream(l, c)
	l.streams[c.epoch] = s
	l.mu.Unlock()
	if !l.hub.launch(s) {
		l.remove(s)
		for _, f := range s.close() {
			f.release(meter.HandedOver)
		}
		return nil
	}
	return s
}

func (l *Lane) remove(s *stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams[s.comet.epoch] == s {
		delete(l.streams, s.comet.epoch)
	}
}

// all returns the streams there are.
func (l *Lane) all() []*stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	ss := make([]*stream, 0, len(l.streams))
	for _, s := range l.streams {
		ss = append(ss, s)
	}
	return ss
}
