package e2e

import (
	"fmt"
	"time"

	"github.com/halley-im/halley/proto/frame"
)

// changeRoom sends op 12 and checks the echo.
func (g *goim) changeRoom(c *Conn, room string) {
	g.Helper()
	seq := c.NextSeq()
	g.send(c, frame.OpChangeRoom, seq, []byte(room))
	if f := g.expect(c, frame.OpChangeRoomReply, seq); string(f.Body) != room {
		g.Fatalf("got %v, want the room echoed", f)
	}
}

// ops sends op 14 or 16 and checks the echo.
func (g *goim) ops(c *Conn, op frame.Op, list string) {
	g.Helper()
	seq := c.NextSeq()
	g.send(c, op, seq, []byte(list))
	if f := g.expect(c, op+1, seq); string(f.Body) != list {
		g.Fatalf("got %v, want the list echoed", f)
	}
}

// takeover connects with a key that a connection of the first transport has, over the second one, and returns
// both.
func (g *goim) takeover(first, second string, token tok) (old, new *Conn) {
	g.Helper()
	old = g.loginOver(first, token)
	new = g.loginOver(second, token)
	g.closed(old)
	g.alive(new)
	return old, new
}

func (g *goim) otherTransport() string {
	if g.transport == "ws" {
		return "tcp"
	}
	return "ws"
}

var sessionCases = []goimCase{
	{"S01", "op 12 changes the room", "TW", func(g *goim) {
		a, b := freshName(), freshName()
		c := g.login(tok{"mid": fresh(), "room_id": "live://" + a})
		g.changeRoom(c, "live://"+b)
		g.pushRoom(1000, []byte("to b"), "live", b)
		g.hears(c, 1000, []byte("to b"))
		g.pushRoom(1000, []byte("to a"), "live", a)
		g.quiet(c)
	}},
	{"S02", "op 12 without a room leaves", "TW", func(g *goim) {
		a := freshName()
		c := g.login(tok{"mid": fresh(), "room_id": "live://" + a})
		g.changeRoom(c, "")
		g.pushRoom(1000, []byte("to a"), "live", a)
		g.quiet(c)
	}},
	{"S03", "changing to the room one is in keeps one in", "TW", func(g *goim) {
		a := freshName()
		c := g.login(tok{"mid": fresh(), "room_id": "live://" + a})
		g.changeRoom(c, "live://"+a)
		g.pushRoom(1000, []byte("still here"), "live", a)
		g.hears(c, 1000, []byte("still here"))
	}},
	{"S04", "ops are subscribed and unsubscribed", "TW", func(g *goim) {
		key := freshKey()
		c := g.login(tok{"mid": fresh(), "key": key, "accepts": []int{1000, 1001}})
		g.ops(c, frame.OpSubscribe, "2001,2002")
		g.ops(c, frame.OpUnsubscribe, "1000")
		for _, op := range []frame.Op{1001, 2001, 2002} {
			g.pushKeys(op, []byte("yes"), key)
			g.hears(c, op, []byte("yes"))
		}
		g.pushKeys(1000, []byte("no"), key)
		g.quiet(c)
	}},
	{"S05", "a malformed list of ops changes nothing", "TW", func(g *goim) {
		key := freshKey()
		c := g.login(tok{"mid": fresh(), "key": key, "accepts": []int{1000}})
		g.ops(c, frame.OpSubscribe, "2001,x")
		g.ops(c, frame.OpUnsubscribe, "1000,x")
		g.pushKeys(1000, []byte("yes"), key)
		g.hears(c, 1000, []byte("yes"))
		g.pushKeys(2001, []byte("no"), key)
		g.quiet(c)
	}},
	{"S06", "the same key again closes the older connection", "TW", func(g *goim) {
		g.takeover(g.transport, g.transport, tok{"mid": fresh(), "key": freshKey()})
	}},
	{"S07", "the same key over the other transport closes the older connection", "TW", func(g *goim) {
		g.takeover(g.transport, g.otherTransport(), tok{"mid": fresh(), "key": freshKey()})
	}},
	{"S08", "the newer connection of a key is reachable by key and mid", "TW", func(g *goim) {
		for _, second := range []string{g.transport, g.otherTransport()} {
			mid, key := fresh(), freshKey()
			_, c := g.takeover(g.transport, second, tok{"mid": mid, "key": key, "accepts": []int{1000}})
			g.pushKeys(1000, []byte("by key"), key)
			g.hears(c, 1000, []byte("by key"))
			g.pushMids(1000, []byte("by mid"), mid)
			g.hears(c, 1000, []byte("by mid"))
		}
	}},
	{"S09", "eight connections of one key in a room, the last one is reachable", "TW", func(g *goim) {
		mid, key, id := fresh(), freshKey(), freshName()
		token := tok{"mid": mid, "key": key, "room_id": "live://" + id, "accepts": []int{1000}}
		c := g.login(token)
		for range 7 {
			next := g.login(token)
			g.closed(c)
			c = next
		}
		g.pushKeys(1000, []byte("by key"), key)
		g.hears(c, 1000, []byte("by key"))
		g.pushMids(1000, []byte("by mid"), mid)
		g.hears(c, 1000, []byte("by mid"))
		g.pushRoom(1000, []byte("by room"), "live", id)
		g.hears(c, 1000, []byte("by room"))
	}},
	{"S10", "one of a mid's two connections leaves, the other is still reached", "TW", func(g *goim) {
		mid := fresh()
		one := g.login(tok{"mid": mid, "key": freshKey(), "accepts": []int{1000}})
		two := g.loginOver(g.otherTransport(), tok{"mid": mid, "key": freshKey(), "accepts": []int{1000}})
		g.pushMids(1000, []byte("both"), mid)
		g.hears(one, 1000, []byte("both"))
		g.hears(two, 1000, []byte("both"))
		one.Close()
		for i := range 5 {
			body := []byte(fmt.Sprintf("left %d", i))
			g.pushMids(1000, body, mid)
			g.hears(two, 1000, body)
		}
		g.quiet(two)
	}},
	{"S11", "a key that reconnects is reached", "TW", func(g *goim) {
		key := freshKey()
		g.login(tok{"mid": fresh(), "key": key, "accepts": []int{1000}}).Close()
		c := g.login(tok{"mid": fresh(), "key": key, "accepts": []int{1000}})
		g.pushKeys(1000, []byte("back"), key)
		g.hears(c, 1000, []byte("back"))
	}},
	{"S12", "a room has members over TCP and WebSocket", "-", func(g *goim) {
		id := freshName()
		one := g.loginOver("tcp", tok{"mid": fresh(), "room_id": "live://" + id})
		two := g.loginOver("ws", tok{"mid": fresh(), "room_id": "live://" + id})
		g.pushRoom(1000, []byte("both"), "live", id)
		g.hears(one, 1000, []byte("both"))
		g.hears(two, 1000, []byte("both"))
	}},
}

// twoCometCases need two comets.
var twoCometCases = []goimCase{
	{"C01", "a room has members on both comets", "TW", func(g *goim) {
		id := freshName()
		one := g.loginTo(0, g.transport, tok{"mid": fresh(), "room_id": "live://" + id})
		two := g.loginTo(1, g.transport, tok{"mid": fresh(), "room_id": "live://" + id})
		g.pushRoom(1000, []byte("both"), "live", id)
		g.hears(one, 1000, []byte("both"))
		g.hears(two, 1000, []byte("both"))
	}},
	{"C02", "a mid has devices on both comets", "TW", func(g *goim) {
		mid := fresh()
		one := g.loginTo(0, g.transport, tok{"mid": mid, "key": freshKey(), "accepts": []int{1000}})
		two := g.loginTo(1, g.transport, tok{"mid": mid, "key": freshKey(), "accepts": []int{1000}})
		g.pushMids(1000, []byte("both"), mid)
		g.hears(one, 1000, []byte("both"))
		g.hears(two, 1000, []byte("both"))
	}},
	{"C03", "one push to keys on both comets", "TW", func(g *goim) {
		k1, k2 := freshKey(), freshKey()
		one := g.loginTo(0, g.transport, tok{"mid": fresh(), "key": k1, "accepts": []int{1000}})
		two := g.loginTo(1, g.transport, tok{"mid": fresh(), "key": k2, "accepts": []int{1000}})
		g.pushKeys(1000, []byte("both"), k1, k2)
		g.hears(one, 1000, []byte("both"))
		g.hears(two, 1000, []byte("both"))
	}},
	{"C04", "a key that moves to another comet is closed on the first", "TW", func(g *goim) {
		token := tok{"mid": fresh(), "key": freshKey()}
		old := g.loginTo(0, g.transport, token)
		now := g.loginTo(1, g.transport, token)
		g.closed(old)
		g.alive(now)
	}},
	{"C05", "a key that moved to another comet is reached there", "TW", func(g *goim) {
		mid, key := fresh(), freshKey()
		token := tok{"mid": mid, "key": key, "accepts": []int{1000}}
		old := g.loginTo(0, g.transport, token)
		now := g.loginTo(1, g.transport, token)
		g.closed(old)
		g.pushKeys(1000, []byte("by key"), key)
		g.hears(now, 1000, []byte("by key"))
		g.pushMids(1000, []byte("by mid"), mid)
		g.hears(now, 1000, []byte("by mid"))
	}},
	{"C06", "a room's members on both comets are counted together", "-", func(g *goim) {
		id := freshName()
		for i := range 5 {
			g.loginTo(i%2, []string{"tcp", "ws"}[i/3], tok{"mid": fresh(), "room_id": "live://" + id})
		}
		g.within(45*time.Second, "online/room says 5", func() bool { return g.roomCounts("live", id)[id] == 5 })
	}},
}
