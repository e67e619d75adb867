package call

import (
	"context"
	"hash/maphash"
	"maps"
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
	// sent are the last events that Kafka has; whoever has the turn owns it.
	sent map[eventID]bool
	// own are the events that this process has kept with the call and tells; under flights.mu.
	own map[eventID]bool
}

// eventID tells the events of a call apart. Their numbers alone don't: they begin anew where Redis has forgotten the call and it is made again,
// or has lost its last changes.
type eventID struct {
	number int64
	record uint64
}

var eventSeed = maphash.MakeSeed()

func (e event) id() eventID {
	return eventID{e.number, maphash.Bytes(eventSeed, e.record.Value)}
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
	// What comes before them another process has told.
	maps.DeleteFunc(x.own, func(id eventID, _ bool) bool { return len(unsent) > 0 && id.number < unsent[0].number })
	for _, e := range unsent {
		if e.number <= last {
			continue
		}
		if x.own == nil {
			x.own = map[eventID]bool{}
		}
		x.own[e.id()] = true
	}
}

// foreign reports whether another process kept some of what is unsent of the call, which whoever asks holds.
func (f *flights) foreign(call string, unsent []event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.m[call]
	return slices.ContainsFunc(unsent, func(e event) bool { return !x.own[e.id()] })
}

// forget drops what was noted of events that were told.
func (f *flights) forget(x *flight, told []event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range told {
		delete(x.own, e.id())
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

// mostSent bounds what is known of what Kafka has: as much as anybody can be behind who waits for the turn.
const mostSent = 4 * mostUnsent

// wrote notes that Kafka has events, one at least. It belongs to whoever has the turn.
func (x *flight) wrote(events []event) {
	if x.sent == nil {
		x.sent = map[eventID]bool{}
	}
	for _, e := range events {
		x.sent[e.id()] = true
	}
	if len(x.sent) > mostSent {
		last := events[len(events)-1].number
		maps.DeleteFunc(x.sent, func(id eventID, _ bool) bool { return id.number <= last-mostSent/2 || id.number > last })
	}
}

// left returns those of the events that Kafka hasn't. It belongs to whoever has the turn.
func (x *flight) left(unsent []event) []event {
	return slices.DeleteFunc(slices.Clone(unsent), func(e event) bool { return x.sent[e.id()] })
}
