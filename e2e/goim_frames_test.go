package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/proto/frame"
)

// wire is frames as the case's transport carries them, end to end.
func (g *goim) wire(frames ...frame.Frame) []byte {
	var b []byte
	for _, f := range frames {
		if g.transport == "ws" {
			b = append(b, wsFrame(true, wsBinary, frame.Append(nil, f))...)
		} else {
			b = frame.Append(b, f)
		}
	}
	return b
}

var frameCases = []goimCase{
	{"F01", "auth is answered first, with its ver and seq", "TW", func(g *goim) {
		c := g.dial()
		if err := c.SendVer(7, frame.OpAuth, 77, jsonBytes(tok{"mid": fresh(), "key": freshKey(), "room_id": "live://" + freshName(), "platform": "web", "accepts": []int{1000, 1001, 1002}})); err != nil {
			g.Fatal(err)
		}
		if f := g.expect(c, frame.OpAuthReply, 77); f.Ver != 7 || len(f.Body) != 0 {
			g.Fatalf("got %v, want ver 7 and no body", f)
		}
	}},
	{"F02", "an empty object is a token", "TW", func(g *goim) {
		g.alive(g.login(tok{}))
	}},
	{"F03", "a token that is no JSON closes", "TW", func(g *goim) {
		c := g.dial()
		g.send(c, frame.OpAuth, 1, []byte("not json"))
		g.closed(c)
	}},
	{"F04", "a mid that is a string closes", "TW", func(g *goim) {
		c := g.dial()
		g.send(c, frame.OpAuth, 1, []byte(`{"mid":"12","key":"x"}`))
		g.closed(c)
	}},
	{"F05", "frames before auth are dropped", "TW", func(g *goim) {
		c := g.dial()
		g.send(c, frame.OpHeartbeat, 5, nil)
		g.send(c, frame.OpSendMsg, 6, []byte("early"))
		if f, err := c.Next(quietTime); !errors.Is(err, ErrTimeout) {
			g.Fatalf("got %v, %v; want no frame", f, err)
		}
		g.auth(c, tok{"mid": fresh()})
		g.alive(c)
	}},
	{"F06", "silence before auth is closed between 2 and 15 s", "TW", func(g *goim) {
		c := g.dial()
		begin := time.Now()
		g.closedWithin(c, 15*time.Second)
		if took := time.Since(begin); took < 2*time.Second {
			g.Fatalf("closed after %v, want 2 s at least", took)
		}
	}},
	{"F07", "heartbeat without a room counts 0", "TW", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		if err := c.SendVer(5, frame.OpHeartbeat, 901, []byte("ignored")); err != nil {
			g.Fatal(err)
		}
		f := g.expect(c, frame.OpHeartbeatReply, 901)
		if n := online(g, f); f.Ver != 5 || n != 0 {
			g.Fatalf("got %v, want ver 5 and four zero bytes", f)
		}
	}},
	{"F08", "heartbeat in a room counts its members", "TW", func(g *goim) {
		c := g.login(tok{"mid": fresh(), "room_id": "live://" + freshName()})
		if n := g.alive(c); n < 1 {
			g.Fatalf("got %d, want 1 or more", n)
		}
	}},
	{"F09", "op 4 is answered without a body", "TW", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		g.send(c, frame.OpSendMsg, 55, []byte("hello"))
		if f := g.next(c); f.Op != frame.OpSendMsg && f.Op != frame.OpMsg || f.Seq != 55 || len(f.Body) != 0 || f.Wrapped {
			g.Fatalf("got %v, want op 4 or 5, seq 55, no body", f)
		}
	}},
	{"F10", "an application op is echoed without its body", "TW", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		g.send(c, 4321, 56, []byte("hello"))
		if f := g.expect(c, 4321, 56); len(f.Body) != 0 {
			g.Fatalf("got %v, want no body", f)
		}
		g.alive(c)
	}},
	{"F11", "a body of 4096 bytes is taken", "TW", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		g.send(c, frame.OpSendMsg, 57, bytes.Repeat([]byte("x"), 4096))
		g.expect(c, frame.OpSendMsg, 57)
		g.alive(c)
	}},
	{"F12", "a body of 4097 bytes closes", "TW", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		g.send(c, frame.OpSendMsg, 58, bytes.Repeat([]byte("x"), 4097))
		g.closed(c)
	}},
	{"F13", "a header length of 20 closes", "TW", func(g *goim) {
		for _, early := range []bool{true, false} {
			c := g.dial()
			if !early {
				g.auth(c, tok{"mid": fresh()})
			}
			b := frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: 1, Body: []byte("abcd")})
			binary.BigEndian.PutUint16(b[4:], 20)
			if err := c.WriteRaw(b); err != nil {
				g.Fatal(err)
			}
			g.closed(c)
		}
	}},
	{"F14", "auth byte by byte", "TW", func(g *goim) {
		c := g.dial()
		for _, b := range g.wire(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 3, Body: jsonBytes(tok{"mid": fresh()})}) {
			if err := c.write([]byte{b}); err != nil {
				g.Fatal(err)
			}
		}
		g.expect(c, frame.OpAuthReply, 3)
	}},
	{"F15", "auth, heartbeat and sub in one write", "TW", func(g *goim) {
		c := g.dial()
		if err := c.write(g.wire(
			frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: jsonBytes(tok{"mid": fresh()})},
			frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: 2},
			frame.Frame{Ver: 1, Op: frame.OpSubscribe, Seq: 3, Body: []byte("1000")},
		)); err != nil {
			g.Fatal(err)
		}
		g.expect(c, frame.OpAuthReply, 1)
		g.expect(c, frame.OpHeartbeatReply, 2)
		g.expect(c, frame.OpSubscribeReply, 3)
	}},
	{"F16", "64 heartbeats in one write", "TW", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		var frames []frame.Frame
		for i := range 64 {
			frames = append(frames, frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: int32(i)})
		}
		if err := c.write(g.wire(frames...)); err != nil {
			g.Fatal(err)
		}
		for i := range 64 {
			g.expect(c, frame.OpHeartbeatReply, int32(i))
		}
	}},
	{"F17", "48 subs in one write, each echoed with its own body", "TW", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		var frames []frame.Frame
		var bodies [][]byte
		for i := range 48 {
			list := strings.TrimSuffix(strings.Repeat(fmt.Sprintf("10000%02d00,", i), 40), ",")
			bodies = append(bodies, []byte(list+"0"))
			frames = append(frames, frame.Frame{Ver: 1, Op: frame.OpSubscribe, Seq: int32(i), Body: bodies[i]})
		}
		if err := c.write(g.wire(frames...)); err != nil {
			g.Fatal(err)
		}
		for i := range 48 {
			if f := g.expect(c, frame.OpSubscribeReply, int32(i)); !bytes.Equal(f.Body, bodies[i]) {
				g.Fatalf("reply %d: got %v, want its request's body", i, f)
			}
		}
	}},
	{"F18", "a pack length of 5 closes", "TW", func(g *goim) {
		for _, early := range []bool{true, false} {
			c := g.dial()
			if !early {
				g.auth(c, tok{"mid": fresh()})
			}
			b := frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: 1})
			binary.BigEndian.PutUint32(b, 5)
			if err := c.WriteRaw(b); err != nil {
				g.Fatal(err)
			}
			g.closed(c)
		}
	}},
}

// TestGoimIdle is case F19: only heartbeats keep goim's clients alive. It has servers of its own, with a short time.
func TestGoimIdle(t *testing.T) {
	t.Parallel()
	idle := 6 * time.Second
	if s, ok := siteFromEnv(); ok {
		seconds, err := strconv.Atoi(os.Getenv("HALLEY_E2E_IDLE"))
		if err != nil {
			t.Skip("HALLEY_E2E_IDLE does not say after how many seconds the server closes silent connections")
		}
		runIdle(t, s, time.Duration(seconds)*time.Second)
		return
	}
	t.Run("one node", func(t *testing.T) {
		t.Parallel()
		n := StartAll(t, Open(), GoimIdle(idle))
		runIdle(t, site{tcp: []string{n.TCP}, ws: []string{n.WS}, http: n.HTTP}, idle)
	})
	t.Run("two comets", func(t *testing.T) {
		t.Parallel()
		c := StartCluster(t, Size{Comets: 2, Logics: 1, Routers: 1, Jobs: 1}, Open(), GoimIdle(idle))
		runIdle(t, c.site(), idle)
	})
}

func runIdle(t *testing.T, s site, idle time.Duration) {
	t.Run("F19 only op 2 extends a connection's life", func(t *testing.T) {
		for _, transport := range []string{"tcp", "ws"} {
			t.Run(transport, func(t *testing.T) {
				t.Parallel()
				start(t, s, transport).onlyHeartbeatsExtend(idle)
			})
		}
	})
}

func (g *goim) onlyHeartbeatsExtend(idle time.Duration) {
	// Who is silent is counted from his log-in: the next one's may take a while.
	conns, began := map[string]*Conn{}, map[string]time.Time{}
	for _, name := range []string{"silent", "busy"} {
		began[name] = time.Now()
		conns[name] = g.login(tok{"mid": fresh()})
	}
	beating := g.login(tok{"mid": fresh()})
	begin := time.Now()
	ends := map[string]time.Duration{}
	// Longer only where the machine stands still; not for as long as it would take a server that counts twice the time.
	const late = 5500 * time.Millisecond
	for since := time.Duration(0); since < idle+4*time.Second || len(ends) < 2 && since < idle+late; since = time.Since(begin) {
		for name, c := range conns {
			if _, over := ends[name]; over {
				continue
			}
			if name == "busy" {
				_ = c.Send(4321, 9, []byte("x")) // it may be closed already: Next tells
			}
			for {
				_, err := c.Next(5 * time.Millisecond)
				if Closed(err) {
					ends[name] = time.Since(began[name])
				}
				if err != nil {
					break
				}
			}
		}
		g.alive(beating)
		time.Sleep(500 * time.Millisecond) // the pace of the case
	}
	for name := range conns {
		took, over := ends[name]
		if _, err := conns[name].Next(5 * time.Millisecond); !over && Closed(err) {
			took, over = time.Since(began[name]), true // while this goroutine stood still
		}
		if !over {
			g.Errorf("%s: not closed within %v", name, idle+late)
		} else if took < idle-time.Second {
			g.Errorf("%s: closed after %v, want %v at least", name, took, idle)
		}
	}
	g.alive(beating)
}
