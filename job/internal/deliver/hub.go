// Package deliver brings items to comets: it asks where their targets are, groups them by comet, and streams them, one
// ordered stream for each comet epoch and lane, shared by all partitions of the lane. It owns the streams, their windows and
// connections, the second look-up, and the judgement that a comet is stalled or dead. Where items come from, and what their
// end means for an offset, is their Owner's.
//
// Classes: volatile deliveries are dropped, and counted, where a comet is stalled or a second look-up fails. Control ones wait: their
// record ends when comet acknowledged them, when nobody is there, or when their epoch is dead. So do stored ones, unless the
// comet is stalled: then it is told to resync all its sessions, and they end when it has acknowledged that.
//
// Goroutines: those of Hub.Run (one watcher, one second look-up a lane, three a stream) end before Run returns. Lane.Deliver runs in
// its caller's. Locks: Lane.mu, Hub.mu and stream.mu are never held together, nor while a target is released.
package deliver

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/halley-im/halley/job/internal/locate"
	"github.com/halley-im/halley/job/internal/meter"
	"github.com/halley-im/halley/kit/logs"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Config are the bounds and times of deliveries.
type Config struct {
	// Name of the job process, told to comets for their logs.
	Name string
	// A stream's window is full at so many unacknowledged deliveries or bytes.
	WindowCount int
	WindowBytes int64
	// Reserve is how many control and stored deliveries fit in beyond that.
	Reserve int
	// A message of a stream carries at most so many deliveries, and no further one once it has so many bytes.
	MessageCount int
	MessageBytes int64
	// StallAfter is how long a window may be full before the comet is stalled.
	StallAfter time.Duration
	// CondemnAfter is how long a comet may owe every acknowledgement before router is asked to declare it dead: a lease.
	CondemnAfter time.Duration
	// CheckInterval is how often silent comets are looked at.
	CheckInterval time.Duration
	// RefusedFor is how long an epoch that comet or router gave up is avoided; longer than router caches who lives. After twice
	// that a volatile delivery that still finds only such epochs is dropped.
	RefusedFor time.Duration
	// ConnectTimeout bounds opening a stream.
	ConnectTimeout time.Duration
	// Spacing of retries.
	RetryMin, RetryMax time.Duration
	// Conns is the most connections that one delivery names.
	Conns int
}

// comet is where an epoch is reached.
type comet struct {
	name, epoch, addr string
}

// Hub holds what all lanes share: connections to comets and what is known of epochs.
type Hub struct {
	cfg     Config
	log     *slog.Logger
	meter   *meter.Meter
	locator *locate.Locator
	dialer  func(addr string) (*grpc.ClientConn, error)
	lanes   []*Lane

	// avoided are epochs that were given up, and until when they are avoided. Copied on write: nearly always nil, and read
	// for every place.
	avoided atomic.Pointer[map[string]time.Time]
	acks    atomic.Uint64 // acknowledgements of any comet

	start chan *stream
	ended chan struct{}

	mu    sync.Mutex
	conns map[string]*sharedConn
	known map[string]comet // by epoch: live comets as of the last answer that named them
}

type sharedConn struct {
	cc    *grpc.ClientConn
	users int
}

// New returns a Hub with one Lane for each of lanes.
func New(cfg Config, log *slog.Logger, m *meter.Meter, locator *locate.Locator, dial func(addr string) (*grpc.ClientConn, error), lanes []halleyv1.Lane) *Hub {
	h := &Hub{
		cfg: cfg, log: log.With(logs.Component, "deliver"), meter: m, locator: locator, dialer: dial,
		start: make(chan *stream), ended: make(chan struct{}),
		conns: map[string]*sharedConn{}, known: map[string]comet{},
	}
	for _, lane := range lanes {
		h.lanes = append(h.lanes, newLane(h, lane, m.Lanes[lane]))
	}
	return h
}

// Lane returns the hub's lane; nil if New was not told of it.
func (h *Hub) Lane(lane halleyv1.Lane) *Lane {
	for _, l := range h.lanes {
		if l.lane == lane {
			return l
		}
	}
	return nil
}

// Run serves the lanes until ctx ends. What has not ended by then is handed over.
func (h *Hub) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { h.watch(ctx) })
	for _, l := range h.lanes {
		wg.Go(func() { l.runAgain(ctx) })
	}
	for {
		select {
		case s := <-h.start:
			wg.Go(func() { s.run(ctx) })
			continue
		case <-ctx.Done():
		}
		break
	}
	close(h.ended)
	wg.Wait()
	for _, l := range h.lanes {
		l.joint.Wait()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for addr, c := range h.conns {
		_ = c.cc.Close()
		delete(h.conns, addr)
	}
}

// launch has Run start s; false if Run has ended.
func (h *Hub) launch(s *stream) bool {
	select {
	case h.start <- s:
		return true
	case <-h.ended:
		return false
	}
}

// dial returns the connection to addr, shared by the lanes' streams; the caller hangs up when done.
func (h *Hub) dial(addr string) (*grpc.ClientConn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.conns[addr]; c != nil {
		c.users++
		return c.cc, nil
	}
	// Dialling does not connect, so the lock is not held over a wait.
	cc, err := h.dialer(addr)
	if err != nil {
		return nil, err
	}
	h.conns[addr] = &sharedConn{cc: cc, users: 1}
	return cc, nil
}

func (h *Hub) hangUp(addr string) {
	h.mu.Lock()
	c := h.conns[addr]
	last := false
	if c != nil {
		if c.users--; c.users == 0 {
			last = true
			delete(h.conns, addr)
		}
	}
	h.mu.Unlock()
	if last {
		_ = c.cc.Close()
	}
}

// learn notes where comets are, for connections that are not looked up. whole: these are all.
func (h *Hub) learn(infos []*halleyv1.CometInfo, whole bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if whole {
		clear(h.known)
	}
	for _, c := range infos {
		if _, ok := h.known[c.GetEpoch()]; !ok {
			h.known[c.GetEpoch()] = comet{name: c.GetComet(), epoch: c.GetEpoch(), addr: c.GetAddr()}
		}
	}
}

func (h *Hub) knows(epoch string) (comet, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.known[epoch]
	return c, ok
}

func (h *Hub) forget(epoch string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.known, epoch)
}

// refuse has an epoch avoided for a while. Not for ever: a comet may be asked in the moment before it takes the epoch
// that router already tells of, and one that Redis forgot comes back under the same epoch.
func (h *Hub) refuse(epoch string) {
	now := time.Now()
	for {
		old := h.avoided.Load()
		next := map[string]time.Time{epoch: now.Add(h.cfg.RefusedFor)}
		if old != nil {
			maps.Copy(next, *old)
			next[epoch] = now.Add(h.cfg.RefusedFor)
			maps.DeleteFunc(next, func(_ string, until time.Time) bool { return now.After(until) })
		}
		if h.avoided.CompareAndSwap(old, &next) {
			break
		}
	}
	h.forget(epoch)
}

func (h *Hub) avoids(epoch string) bool {
	m := h.avoided.Load()
	if m == nil {
		return false
	}
	until, ok := (*m)[epoch]
	return ok && time.Now().Before(until)
}
