package transport

import (
	"sync"

	"golang.org/x/time/rate"

	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/proto/errcode"
)

// Gate limits how many connections there are, in all and per address, and how many come in a second. 0 means
// no limit.
type Gate struct {
	maxConns, maxPerAddr int
	handshakes           *rate.Limiter

	mu     sync.Mutex
	conns  int
	addrs  map[string]int
	closed bool
}

// NewGate returns a gate that lets perSecond connections in a second, and as many at once.
func NewGate(maxConns, maxPerAddr int, perSecond float64) *Gate {
	g := &Gate{maxConns: maxConns, maxPerAddr: maxPerAddr, handshakes: rate.NewLimiter(rate.Inf, 0), addrs: make(map[string]int)}
	if perSecond > 0 {
		g.handshakes = rate.NewLimiter(rate.Limit(perSecond), max(int(perSecond), 1))
	}
	return g
}

// Enter admits one more connection, or says why not.
func (g *Gate) Enter() *errcode.Code {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errcode.GoingAway
	}
	if g.maxConns > 0 && g.conns >= g.maxConns {
		return errcode.TooManyConnections
	}
	if !g.handshakes.Allow() {
		return errcode.RateLimited
	}
	g.conns++
	return nil
}

// Admit counts a connection for its address, or says why it can't stay.
func (g *Gate) Admit(s *session.Session) *errcode.Code {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.maxPerAddr > 0 && g.addrs[s.Remote] >= g.maxPerAddr {
		return errcode.TooManyConnections
	}
	g.addrs[s.Remote]++
	s.Admitted = true
	return nil
}

// Leave ends what Enter and Admit counted.
func (g *Gate) Leave(s *session.Session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.Entered {
		g.conns--
		s.Entered = false
	}
	if s.Admitted {
		s.Admitted = false
		if g.addrs[s.Remote]--; g.addrs[s.Remote] <= 0 {
			delete(g.addrs, s.Remote)
		}
	}
}

// Close lets nobody in any more.
func (g *Gate) Close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

// Addresses returns the number of distinct client addresses.
func (g *Gate) Addresses() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.addrs)
}
