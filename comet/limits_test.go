package comet_test

import (
	"errors"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
)

func netDial(addr string) (net.Conn, error) { return net.DialTimeout("tcp", addr, 5*time.Second) }

// refused expects a clear error, then the end.
func (c *client) refused(code string, closeCode int) {
	c.t.Helper()
	if e := c.expectEvent("closing"); e["error"].(map[string]any)["code"] != code {
		c.t.Errorf("closing %v, want %s", e, code)
	}
	if got := c.closed(); c.ws != nil && got != closeCode {
		c.t.Errorf("close code %d, want %d", got, closeCode)
	}
}

func TestTooManyConnectionsAreToldSo(t *testing.T) {
	for _, x := range []struct {
		name string
		set  func(*comet.Config)
	}{
		{"in all", func(c *comet.Config) { c.MaxConnections = 2 }},
		{"from one address", func(c *comet.Config) { c.MaxConnectionsPerAddress = 2 }},
	} {
		t.Run(x.name, func(t *testing.T) {
			n := start(t, withTLS, with(x.set))
			a := n.login("tcp", `{}`)
			n.login("ws", `{}`).barrier()
			for _, tr := range transports {
				n.dial(tr).refused("too_many_connections", 4503)
			}
			a.barrier()
			a.conn.Close()
			eventually(t, func() bool { return n.metric("halley_comet_connections") == 1 }, "one has left")
			n.login("tls", `{}`).barrier()
			if n.metric("halley_comet_handshakes_total", "result", "too_many_connections") != 4 {
				t.Error("refusals are not counted")
			}
		})
	}
}

func TestTooManyHandshakesAreToldSo(t *testing.T) {
	t.Parallel()
	n := start(t, with(func(c *comet.Config) { c.HandshakeRate = 1 }))
	n.login("tcp", `{}`)
	for try := 0; ; try++ {
		c := n.dial("ws")
		c.trySend(frame.Frame{Ver: 1, Op: frame.OpAuth, Body: []byte(`{}`)})
		f := c.next()
		if f.Op == frame.OpAuthReply && try < 30 {
			continue // a second has gone by
		}
		c.inner = append(c.inner, f)
		c.refused("rate_limited", 4501)
		break
	}
	eventually(t, func() bool {
		c := n.dial("tcp")
		defer c.conn.Close()
		c.trySend(frame.Frame{Ver: 1, Op: frame.OpAuth, Body: []byte(`{}`)})
		f, err := c.read(5 * time.Second)
		return err == nil && f.Op == frame.OpAuthReply
	}, "let in again")
}

// As many as come in a second may come at once, but always one.
func TestFirstHandshakeIsLetInHoweverFewMayCome(t *testing.T) {
	for _, rate := range []float64{1e-300, 0.001} {
		n := start(t, with(func(c *comet.Config) { c.HandshakeRate = rate }))
		n.login("tcp", `{}`)
		n.dial("tcp").refused("rate_limited", 4501)
	}
}

func TestTooManyFramesEndTheSession(t *testing.T) {
	opts := []option{with(func(c *comet.Config) { c.RequestRate, c.RequestBurst = 1, 20 })}
	onAll(t, opts, func(t *testing.T, n *node, tr string) {
		c := n.login(tr, `{"token":"a"}`)
		go func() {
			for i := range 40 {
				if c.trySend(frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: int32(i)}) != nil {
					return
				}
			}
		}()
		answered := 0
		for {
			f := c.next()
			if f.Op == frame.OpHeartbeatReply {
				answered++
				continue
			}
			if !strings.Contains(string(f.Body), "rate_limited") {
				t.Fatalf("got op %v %s", f.Op, f.Body)
			}
			break
		}
		if answered < 15 || answered > 25 {
			t.Errorf("%d answers before the limit of 20", answered)
		}
		if code := c.closed(); c.ws != nil && code != 4501 {
			t.Errorf("close code %d, want 4501", code)
		}
	})
}

func TestConfigNamesItsMistakes(t *testing.T) {
	for name, set := range map[string]func(*comet.Config){
		"flush-max":       func(c *comet.Config) { c.FlushMax = time.Second },
		"outbox-bytes":    func(c *comet.Config) { c.OutboxBytes = 0 },
		"tls-key":         func(c *comet.Config) { c.TLSCert = "x" },
		"trusted-proxies": func(c *comet.Config) { c.TrustedProxies = []string{"10.0.0.0/99"} },
		"renew-interval":  func(c *comet.Config) { c.RenewInterval = 0 },
	} {
		c := defaults(t)
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		set(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a comet takes is told to the others, which add it up: only 0 stands for no limit.
func TestOnlyZeroIsNoLimit(t *testing.T) {
	for _, x := range []struct {
		name string
		set  func(*comet.Config)
	}{
		{"handshake-rate", func(c *comet.Config) { c.HandshakeRate = -1 }},
		{"handshake-rate", func(c *comet.Config) { c.HandshakeRate = math.NaN() }},
		{"handshake-rate", func(c *comet.Config) { c.HandshakeRate = math.Inf(1) }},
		{"max-connections and max-connections-per-address", func(c *comet.Config) { c.MaxConnections = -1 }},
		{"max-connections and max-connections-per-address", func(c *comet.Config) { c.MaxConnectionsPerAddress = -1 }},
	} {
		c := defaults(t)
		x.set(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "comet: "+x.name+" must") {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	c := defaults(t)
	c.HandshakeRate, c.MaxConnections, c.MaxConnectionsPerAddress = 0, 0, 0
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

// flaky fails every other Accept.
type flaky struct {
	net.Listener
	n int
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.n++; f.n%2 == 1 {
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}

func TestAcceptGoesOnAfterErrors(t *testing.T) {
	n := start(t, func(_ *comet.Config, d *comet.Deps, _ *node) {
		d.TCP = &flaky{Listener: d.TCP}
		d.Log = quiet()
	})
	for range 5 {
		n.login("tcp", `{}`).barrier()
	}
}
