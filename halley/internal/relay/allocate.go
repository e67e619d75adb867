package relay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/turn/v5"
)

// tries is how many ports are tried for a relay before it is said that there are none.
const tries = 64

// network is that of all relays: they have IPv4 addresses.
const network = "udp4"

var (
	errFull   = errors.New("no relay left")
	errNoPort = errors.New("no relay port free")
	errTCP    = errors.New("no TCP relays")
	errIPv6   = errors.New("no IPv6 relays")
)

// allocator opens the sockets of relays. It is pion's RelayAddressGenerator.
type allocator struct{ s *Server }

// Validate is there for pion.
func (allocator) Validate() error { return nil }

// AllocateListener and AllocateConn refuse: WebRTC relays UDP only, and a relay that opened connections would be a way into other machines' services.
func (allocator) AllocateListener(turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	return nil, nil, errTCP
}

// AllocateConn refuses, as AllocateListener does.
func (allocator) AllocateConn(turn.AllocateConnConfig) (net.Conn, error) { return nil, errTCP }

// AllocatePacketConn opens a relay's socket on a port of the range, at random: a port that can be foretold can be sent to.
func (a allocator) AllocatePacketConn(asked turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	s := a.s
	if asked.Network != network {
		return nil, nil, errIPv6
	}
	s.mu.Lock()
	full := s.stopping || s.relays >= s.cfg.MaxAllocations
	if !full {
		s.relays++
		s.wg.Add(1)
	}
	s.mu.Unlock()
	if full {
		s.metrics.refused.WithLabelValues("allocations").Inc()
		return nil, nil, errFull
	}
	c, err := s.open(asked.RequestedPort)
	if err != nil {
		s.metrics.refused.WithLabelValues("ports").Inc()
		s.relayGone()
		return nil, nil, err
	}
	s.metrics.allocations.Inc()
	at := c.LocalAddr().(*net.UDPAddr)
	return &relayed{PacketConn: c, s: s}, &net.UDPAddr{IP: s.external.AsSlice(), Port: at.Port}, nil
}

// open opens a relay's socket: at port, one beside another that a client reserved, or, where that is 0, at any of the range.
func (s *Server) open(port int) (net.PacketConn, error) {
	if port != 0 && (port < int(s.cfg.MinPort) || port > int(s.cfg.MaxPort)) {
		return nil, errNoPort
	}
	span := int(s.cfg.MaxPort) - int(s.cfg.MinPort) + 1
	var last error
	for range tries {
		at := port
		if at == 0 {
			at = int(s.cfg.MinPort) + rand.IntN(span)
		}
		//nolint:noctx // A socket of this machine's: nothing to wait for.
		c, err := net.ListenPacket(network, net.JoinHostPort(s.bind.String(), fmt.Sprint(at)))
		if err == nil {
			return c, nil
		}
		last = err
		if port != 0 {
			break
		}
	}
	return nil, fmt.Errorf("%w: %w", errNoPort, last)
}

func (s *Server) relayGone() {
	s.mu.Lock()
	s.relays--
	s.mu.Unlock()
	s.wg.Done()
}

// relayed is a relay's socket.
type relayed struct {
	net.PacketConn
	s       *Server
	in, out rate
	once    sync.Once
}

// ReadFrom returns the next packet of a peer that is within the limit.
func (c *relayed) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(p)
		switch {
		case errors.Is(err, net.ErrClosed):
			return 0, nil, err
		case err != nil:
			// pion would take any error for the relay's end.
			time.Sleep(acceptPause / 100)
			continue
		case !c.in.pass(n, c.s.cfg.MaxRateBytes):
			c.s.metrics.dropped.WithLabelValues("rate").Inc()
			continue
		}
		c.s.metrics.bytes.WithLabelValues("in").Add(float64(n))
		return n, from, nil
	}
}

// WriteTo sends a client's packet to a peer. What may not go there is dropped, and counted.
func (c *relayed) WriteTo(p []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok || !c.s.peers.port(netip.AddrPortFrom(addrOf(udp.IP), uint16(udp.Port))) {
		c.s.metrics.dropped.WithLabelValues("port").Inc()
		return len(p), nil
	}
	if !c.out.pass(len(p), c.s.cfg.MaxRateBytes) {
		c.s.metrics.dropped.WithLabelValues("rate").Inc()
		return len(p), nil
	}
	n, err := c.PacketConn.WriteTo(p, to)
	if err != nil {
		c.s.metrics.dropped.WithLabelValues("send").Inc()
		return n, err
	}
	c.s.metrics.bytes.WithLabelValues("out").Add(float64(n))
	return n, nil
}

// Close ends the relay.
func (c *relayed) Close() error {
	var err error
	c.once.Do(func() {
		err = c.PacketConn.Close()
		c.s.metrics.allocations.Dec()
		c.s.relayGone()
	})
	return err
}

// rate counts the bytes of the second that it is.
type rate struct {
	mu     sync.Mutex
	second int64
	bytes  int64
}

// pass takes n bytes; false if they are more than most a second. 0: no limit.
func (r *rate) pass(n int, most int64) bool {
	if most == 0 {
		return true
	}
	now := time.Now().Unix()
	r.mu.Lock()
	defer r.mu.Unlock()
	if now != r.second {
		r.second, r.bytes = now, 0
	}
	if r.bytes+int64(n) > most {
		return false
	}
	r.bytes += int64(n)
	return true
}
