package grpcconn

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
)

// policy is how the connections that Dial makes balance: round robin, as gRPC's own, but a Spread's streams go one to each server.
const policy = "halley_round_robin"

func init() { balancer.Register(policyBuilder{}) }

// Spread places one caller's streams, one on each server of a connection that Dial made. The zero value is ready. Safe for concurrent use.
type Spread struct {
	mu    sync.Mutex
	taken map[*server]*Seat
}

// Seat is the place of one stream.
type Seat struct {
	spread *Spread
	server *server // nil: none yet
}

// server is one server of a connection, from when it is connected until it takes no more calls there.
type server struct {
	conn    balancer.SubConn
	leaving chan struct{}
}

type seatKey struct{}

// Seat returns a place, and the context of the call that opens the stream. The call waits for a server without a stream of the Spread's;
// that one is taken until the stream has ended. Who waits already isn't told of that, but of servers that come: call again.
func (s *Spread) Seat(ctx context.Context) (context.Context, *Seat) {
	seat := &Seat{spread: s}
	return context.WithValue(ctx, seatKey{}, seat), seat
}

// Leaving is closed when the server takes no more calls: it stops, or ends the connection for its age, or the connection broke. In the first two
// cases what was begun on the stream goes on. It is nil before the stream is open.
func (s *Seat) Leaving() <-chan struct{} {
	s.spread.mu.Lock()
	defer s.spread.mu.Unlock()
	if s.server == nil {
		return nil
	}
	return s.server.leaving
}

// Free gives the place back at once: gRPC does it by itself, but after a stream that was cancelled in its own time.
func (s *Seat) Free() {
	s.spread.mu.Lock()
	defer s.spread.mu.Unlock()
	s.free(s.server)
}

// free is called with mu held.
func (s *Seat) free(sv *server) {
	if s.spread.taken[sv] == s {
		delete(s.spread.taken, sv)
	}
}

// take chooses a server. gRPC may ask again for the same call, after it has given the first one back: that one had just left.
func (s *Seat) take(servers []*server) (balancer.PickResult, error) {
	s.spread.mu.Lock()
	defer s.spread.mu.Unlock()
	for _, sv := range servers {
		if s.spread.taken[sv] != nil {
			continue
		}
		if s.spread.taken == nil {
			s.spread.taken = map[*server]*Seat{}
		}
		s.spread.taken[sv] = s
		s.server = sv
		return balancer.PickResult{SubConn: sv.conn, Done: func(balancer.DoneInfo) {
			s.spread.mu.Lock()
			defer s.spread.mu.Unlock()
			s.free(sv)
		}}, nil
	}
	// gRPC asks again when servers have come or gone.
	return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
}

type policyBuilder struct{}

func (policyBuilder) Name() string { return policy }

func (policyBuilder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	return base.NewBalancerBuilder(policy, servers{}, base.Config{}).Build(cc, opts)
}

// servers are those of one connection that take calls.
type servers map[balancer.SubConn]*server

// Build is called one at a time, whenever one is connected or leaves.
func (s servers) Build(info base.PickerBuildInfo) balancer.Picker {
	for sc, sv := range s {
		if _, ok := info.ReadySCs[sc]; !ok {
			close(sv.leaving)
			delete(s, sc)
		}
	}
	for sc := range info.ReadySCs {
		if s[sc] == nil {
			s[sc] = &server{conn: sc, leaving: make(chan struct{})}
		}
	}
	if len(s) == 0 {
		return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
	}
	p := &picker{servers: slices.Collect(maps.Values(s))}
	// Else all callers would begin with the same one.
	p.next.Store(rand.Uint32())
	return p
}

type picker struct {
	servers []*server
	next    atomic.Uint32
}

func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	if seat, ok := info.Ctx.Value(seatKey{}).(*Seat); ok {
		return seat.take(p.servers)
	}
	return balancer.PickResult{SubConn: p.servers[p.next.Add(1)%uint32(len(p.servers))].conn}, nil
}
