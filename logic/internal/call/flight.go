package call

import (
	"context"
	"slices"
	"sync"
)

// flights has steps of one call tell one after the other, as far as this process takes them: else a step that is taken while the one before is
// still being told would tell that, too, and the slower Kafka is the more would be told again.
type flights struct {
	mu sync.Mutex
	m  map[string]*flight
}

// flight is what is being told of one call.
type flight struct {
	turn chan struct{} // holds one while somebody tells
	in   int           // who tells, waits to, or forgets what was told; under flights.mu
	sent int64         // number of the last event that Kafka has; whoever has the turn owns it
	// own are the numbers of the events that this process has kept with the call and tells; under flights.mu.
	own map[int64]bool
}

func (f *flights) join(call string) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m == nil {
		f.m = map[string]*flight{}
	}
	x := f.m[call]
	if x == nil {
		x = &flight{turn: make(chan struct{}, 1)}
		f.m[call] = x
	}
	x.in++
	return x
}

// hold keeps what is known of a call's telling until the returned function is called. Who holds it before he reads the call doesn't take for
// unsent what is being forgotten while he reads.
func (f *flights) hold(call string) (leave func()) {
	x := f.join(call)
	return func() { f.leave(call, x) }
}

// keeps notes that who holds the call has kept events with it that he is about to tell: those of unsent that come after last.
func (f *flights) keeps(call string, unsent []event, last int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.m[call]
	for _, e := range unsent {
		if e.number <= last {
			continue
		}
		if x.own == nil {
			x.own = map[int64]bool{}
		}
		x.own[e.number] = true
	}
}

// foreign reports whether another process kept some of what is unsent of the call, which whoever asks holds.
func (f *flights) foreign(call string, unsent []event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.m[call]
	return slices.ContainsFunc(unsent, func(e event) bool { return !x.own[e.number] })
}

// forget drops what was noted of events that were told.
func (f *flights) forget(x *flight, told []event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range told {
		delete(x.own, e.number)
	}
}

func (f *flights) leave(call string, x *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x.in--; x.in == 0 {
		delete(f.m, call)
	}
}

// take waits for the turn, while ctx lasts.
func (x *flight) take(ctx context.Context) error {
	select {
	case x.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *flight) give() { <-x.turn }

// left returns those of the events that Kafka hasn't. It belongs to whoever has the turn.
func (x *flight) left(unsent []event) []event {
	for i, e := range unsent {
		if e.number > x.sent {
			return unsent[i:]
		}
	}
	return nil
}
