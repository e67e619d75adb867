package e2e

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/halley-im/halley/proto/frame"
)

var webSocketCases = []goimCase{
	{"W01", "upgrade at /sub, replies are binary", "W", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		g.send(c, frame.OpHeartbeat, 4, nil)
		if f := g.expect(c, frame.OpHeartbeatReply, 4); f.Text {
			g.Fatal("the reply is a text message")
		}
	}},
	{"W02", "no upgrade elsewhere", "W", func(g *goim) {
		for _, path := range []string{"/other", "/sub/x", "/subway"} {
			if c, err := DialWS(g.site.ws[g.nextComet()], path, nil); err == nil {
				c.Close()
				g.Errorf("%s: upgraded, want a refusal", path)
			}
		}
	}},
	{"W03", "a refused upgrade is told by HTTP", "W", func(g *goim) {
		c, err := DialWS(g.site.ws[g.nextComet()], "/other", nil)
		if err == nil {
			c.Close()
		}
		var refused *UpgradeError
		if !errors.As(err, &refused) || refused.Status < 400 {
			g.Fatalf("got %v, want an HTTP status of 400 or above", err)
		}
	}},
	{"W04", "auth in a text message", "W", func(g *goim) {
		c := g.dial()
		if err := c.WriteMessage(wsText, frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 2, Body: jsonBytes(tok{"mid": fresh()})})); err != nil {
			g.Fatal(err)
		}
		g.expect(c, frame.OpAuthReply, 2)
	}},
	{"W05", "auth in fragments of 24 bytes", "W", func(g *goim) {
		c := g.dial()
		auth := frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 2, Body: jsonBytes(tok{"mid": fresh(), "key": freshKey(), "platform": "web"})})
		if err := c.WriteFragments(auth, 24); err != nil {
			g.Fatal(err)
		}
		g.expect(c, frame.OpAuthReply, 2)
		g.alive(c)
	}},
	{"W06", "ping is answered", "W", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		if err := c.WriteMessage(wsPing, []byte("abc")); err != nil {
			g.Fatal(err)
		}
		g.within(waitTime, "pong", func() bool {
			if f, err := c.Next(50 * time.Millisecond); !errors.Is(err, ErrTimeout) {
				g.Fatalf("got %v, %v; want no frame", f, err)
			}
			return c.Got(wsPong)
		})
		if got := string(c.Control[0].Body); got != "abc" {
			g.Fatalf("pong carries %q, want the ping's body", got)
		}
	}},
	{"W07", "pong comes with or before the next reply", "W", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		if err := c.WriteMessage(wsPing, nil); err != nil {
			g.Fatal(err)
		}
		g.alive(c)
		g.within(waitTime, "pong", func() bool {
			if c.Got(wsPong) {
				return true
			}
			if f, err := c.Next(50 * time.Millisecond); !errors.Is(err, ErrTimeout) {
				g.Fatalf("got %v, %v; want no frame", f, err)
			}
			return c.Got(wsPong)
		})
	}},
	{"W08", "bytes after the frame are ignored", "W", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		b := frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: 8})
		if err := c.WriteRaw(append(b, "trailing bytes"...)); err != nil {
			g.Fatal(err)
		}
		g.expect(c, frame.OpHeartbeatReply, 8)
		g.alive(c)
	}},
	{"W09", "a message of 5 bytes closes", "W", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		if err := c.WriteRaw([]byte("12345")); err != nil {
			g.Fatal(err)
		}
		g.closed(c)
	}},
	{"W10", "a pack length beyond the message closes and shows nothing", "W", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		b := frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpSubscribe, Seq: 8, Body: []byte("1000")})
		binary.BigEndian.PutUint32(b, uint32(len(b)+40))
		if err := c.WriteRaw(b); err != nil {
			g.Fatal(err)
		}
		g.closed(c)
	}},
	{"W11", "a close frame ends the connection", "W", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		if err := c.WriteMessage(wsClose, []byte{0x03, 0xe8}); err != nil {
			g.Fatal(err)
		}
		g.closed(c)
	}},
	{"W12", "a close frame is answered with one", "W", func(g *goim) {
		c := g.login(tok{"mid": fresh()})
		if err := c.WriteMessage(wsClose, []byte{0x03, 0xe8}); err != nil {
			g.Fatal(err)
		}
		g.closed(c)
		if got := c.CloseCode(); got != 1000 {
			g.Fatalf("close code: got %d, want 1000 echoed", got)
		}
	}},
}
