package transport

import (
	"sync"
	"time"

	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/proto/errcode"
)

// Gate limits how many connections there are, in all and per address, and how many come in a second. 0 means
// no limit.
type Gate struct {
	maxConns, maxPerAddr int
	rate                 float64

	mu     sync.Mutex
	conns  int
	tokens float64
	filled time.Time
	addrs  map[string]int
	closed bool
}

// NewGate returns a gate.
func NewGate(maxConns, maxPerAddr int, rate float64) *Gate {
	return &Gate{maxConns: maxConns, maxPerAddr: maxPerAddr, rate: rate, tokens: rate, filled: time.Now(), addrs: make(map[string]int)}
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
	if g.rate > 0 {
		now := time.Now()
		g.tokens = min(g.tokens+now.Sub(g.filled).Seconds()*g.rate, max(g.rate, 1))
		g.filled = now
		if g.tokens < 1 {
			return errcode.RateLimited
		}
		g.tokens--
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
