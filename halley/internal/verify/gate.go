package verify

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"time"
)

// gate stands between one device and the comets: it carries its connections, and cuts them or holds them up when it is told to.
type gate struct {
	l    net.Listener
	life context.Context

	mu     sync.Mutex
	to     string // where the next connection goes
	conns  map[net.Conn]bool
	resume time.Time // until then nothing is carried to the device
	over   bool
	wg     sync.WaitGroup
}

// newGate listens; the caller ends it by end once life has ended.
func newGate(life context.Context) (*gate, error) {
	l, err := new(net.ListenConfig).Listen(life, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gate{l: l, life: life, conns: map[net.Conn]bool{}}
	g.wg.Go(g.accept)
	return g, nil
}

// through returns the URL that leads through the gate to target.
func (g *gate) through(target string) (string, error) {
	u, err := url.Parse(target)
	if err != nil {
		return "", err
	}
	host := u.Host
	if u.Port() == "" {
		port := "80"
		if u.Scheme == "wss" {
			port = "443"
		}
		host = net.JoinHostPort(u.Hostname(), port)
	}
	g.mu.Lock()
	g.to = host
	g.mu.Unlock()
	u.Host = g.l.Addr().String()
	return u.String(), nil
}

func (g *gate) accept() {
	for {
		in, err := g.l.Accept()
		if err != nil {
			return // closed by end
		}
		g.mu.Lock()
		to := g.to
		g.mu.Unlock()
		g.wg.Go(func() { g.serve(in, to) })
	}
}

func (g *gate) serve(in net.Conn, to string) {
	defer in.Close()
	out, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(g.life, "tcp", to)
	if err != nil {
		return // The device sees the end of its connection and tries the next comet.
	}
	defer out.Close()
	if !g.keep(in, out) {
		return
	}
	defer g.forget(in, out)
	if c, ok := out.(*net.TCPConn); ok {
		// So that holding a device up is soon felt by the comet. A system that refuses it only makes the test a kinder one.
		_ = c.SetReadBuffer(16 << 10)
	}
	var ways sync.WaitGroup
	ways.Go(func() {
		_, _ = io.Copy(out, in) // an end of either side ends both
		_ = out.Close()
	})
	g.carry(out, in)
	_ = in.Close()
	_ = out.Close()
	ways.Wait()
}

// carry is the way from a comet to the device.
func (g *gate) carry(from, to net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			for wait := g.wait(); wait > 0; wait = g.wait() {
				time.Sleep(min(wait, 20*time.Millisecond))
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (g *gate) wait() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return 0
	}
	return time.Until(g.resume)
}

func (g *gate) keep(a, b net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return false
	}
	g.conns[a], g.conns[b] = true, true
	return true
}

func (g *gate) forget(a, b net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, a)
	delete(g.conns, b)
}

// cut breaks all connections, in the middle of whatever is on them.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		_ = c.Close()
	}
}

// slow carries nothing to the device for a time.
func (g *gate) slow(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resume = time.Now().Add(d)
}

// end closes everything and waits.
func (g *gate) end() {
	_ = g.l.Close()
	g.mu.Lock()
	g.over = true
	g.mu.Unlock()
	g.cut()
	g.wg.Wait()
}
