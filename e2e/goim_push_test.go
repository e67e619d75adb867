package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/halley-im/halley/proto/frame"
)

// numbered is the body of the n-th push of a series.
func numbered(n int) []byte { return []byte(fmt.Sprintf(`{"n":%d}`, n)) }

// number reads a numbered body, or returns -1.
func number(body []byte) int {
	s := strings.TrimSuffix(strings.TrimPrefix(string(bytes.TrimRight(body, " ")), `{"n":`), "}")
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

// inOrder reads pushes 0 to n-1, which must come in this order.
func (g *goim) inOrder(c *Conn, op frame.Op, n int) {
	g.Helper()
	for i := range n {
		f := g.next(c)
		g.isPush(c, f, op)
		if got := number(f.Body); got != i {
			g.Fatalf("push %d: got number %d", i, got)
		}
	}
}

// anyOrder reads pushes 0 to n-1, each once.
func (g *goim) anyOrder(c *Conn, op frame.Op, n int) {
	g.Helper()
	seen := map[int]bool{}
	for range n {
		f := g.next(c)
		g.isPush(c, f, op)
		k := number(f.Body)
		if k < 0 || k >= n || seen[k] {
			g.Fatalf("got number %d, unknown or twice", k)
		}
		seen[k] = true
	}
}

// pushers posts bodies 0 to n-1 of size bytes at least from several goroutines at once.
func (g *goim) pushers(count, n, size int, path string, query url.Values) {
	g.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, count)
	for p := range count {
		wg.Go(func() {
			for i := p; i < n; i += count {
				body := numbered(i)
				if size > len(body) {
					body = append(body, bytes.Repeat([]byte(" "), size-len(body))...)
				}
				a, err := g.tryCall("POST", path, query, "", body)
				if err == nil && (a.status != 200 || a.Code == nil || *a.Code != 0) {
					err = fmt.Errorf("push %d: HTTP %d %s", i, a.status, a.body)
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		g.Error(err)
	}
}

var pushCases = []goimCase{
	{"P01", "a push to a key arrives intact, in a batch over WebSocket", "TW", func(g *goim) {
		key := freshKey()
		c := g.login(tok{"mid": fresh(), "key": key, "accepts": []int{1000}})
		body := []byte(`{"text":"grüß \u0000 dich"}`)
		g.pushKeys(1000, body, key)
		g.hears(c, 1000, body)
	}},
	{"P02", "a push to nobody is code 0", "-", func(g *goim) {
		g.pushKeys(1000, []byte("x"), freshKey())
	}},
	{"P03", "a push reaches just the keys named", "-", func(g *goim) {
		keys := []string{freshKey(), freshKey(), freshKey()}
		var conns []*Conn
		for i, k := range keys {
			conns = append(conns, g.loginOver([]string{"tcp", "ws", "tcp"}[i], tok{"mid": fresh(), "key": k, "accepts": []int{1000}}))
		}
		g.pushKeys(1000, []byte("two"), keys[0], keys[1])
		g.hears(conns[0], 1000, []byte("two"))
		g.hears(conns[1], 1000, []byte("two"))
		g.quiet(conns...)
	}},
	{"P04", "an op that isn't accepted is not delivered", "TW", func(g *goim) {
		key := freshKey()
		c := g.login(tok{"mid": fresh(), "key": key, "accepts": []int{1000}})
		g.pushKeys(1999, []byte("x"), key)
		g.quiet(c)
	}},
	{"P06", "a push without keys is code -400", "-", func(g *goim) {
		a := g.call("POST", "/goim/push/keys", url.Values{"operation": {"1000"}}, "", []byte("x"))
		if a.Code == nil || *a.Code != -400 {
			g.Fatalf("got HTTP %d %s, want code -400", a.status, a.body)
		}
	}},
	{"P07", "a push to mids reaches all their keys once", "-", func(g *goim) {
		one, two := fresh(), fresh()
		conns := []*Conn{
			g.loginOver("tcp", tok{"mid": one, "key": freshKey(), "accepts": []int{1000}}),
			g.loginOver("ws", tok{"mid": one, "key": freshKey(), "accepts": []int{1000}}),
			g.loginOver("tcp", tok{"mid": two, "key": freshKey(), "accepts": []int{1000}}),
		}
		g.pushMids(1000, []byte("all three"), one, two)
		for _, c := range conns {
			g.hears(c, 1000, []byte("all three"))
		}
		g.quiet(conns...)
	}},
	{"P08", "mids that are no numbers are refused", "-", func(g *goim) {
		for _, mids := range []string{"abc", "1,2"} {
			g.refused("mids="+mids, g.call("POST", "/goim/push/mids", url.Values{"operation": {"1000"}, "mids": {mids}}, "", []byte("x")))
		}
	}},
	{"P10", "a room push reaches members whatever they accept, and nobody else", "TW", func(g *goim) {
		id := freshName()
		member := g.login(tok{"mid": fresh(), "room_id": "live://" + id})
		outsider := g.login(tok{"mid": fresh(), "room_id": "live://" + freshName(), "accepts": []int{1000}})
		var took time.Duration
		for range 3 { // one of them at least: a pause of the machine may be as long
			begin := time.Now()
			g.pushRoom(1000, []byte("goal"), "live", id)
			g.hears(member, 1000, []byte("goal"))
			if took = time.Since(begin); took <= 3*time.Second {
				break
			}
		}
		if took > 3*time.Second {
			g.Errorf("came after %v, want 3 s at most", took)
		}
		g.quiet(outsider)
	}},
	{"P11", "a room push with a parameter missing or wrong is refused", "-", func(g *goim) {
		for _, q := range []string{"operation=1000&type=live", "operation=1000&room=1", "type=live&room=1", "operation=0&type=live&room=1", "operation=x&type=live&room=1"} {
			v, _ := url.ParseQuery(q)
			g.refused(q, g.call("POST", "/goim/push/room", v, "", []byte("x")))
		}
	}},
	{"P13", "five quick room pushes all arrive", "TW", func(g *goim) {
		id := freshName()
		c := g.login(tok{"mid": fresh(), "room_id": "live://" + id})
		for i := range 5 {
			g.pushRoom(1000, numbered(i), "live", id)
		}
		g.inOrder(c, 1000, 5)
	}},
	{"P14", "a push to all reaches whoever accepts the op", "TW", func(g *goim) {
		op := freshOp()
		in, out := g.login(tok{"mid": fresh(), "accepts": []frame.Op{op}}), g.login(tok{"mid": fresh(), "accepts": []int{999}})
		g.done(g.call("POST", "/goim/push/all", url.Values{"operation": {opText(op)}}, "", []byte("bye")))
		g.hears(in, op, []byte("bye"))
		g.quiet(out)
	}},
	{"P15", "a push to all with a speed arrives as well", "TW", func(g *goim) {
		op := freshOp()
		in, out := g.login(tok{"mid": fresh(), "accepts": []frame.Op{op}}), g.login(tok{"mid": fresh(), "accepts": []int{999}})
		g.done(g.call("POST", "/goim/push/all", url.Values{"operation": {opText(op)}, "speed": {"100000"}}, "", []byte("bye")))
		g.hears(in, op, []byte("bye"))
		g.quiet(out)
	}},
	{"P16", "a push to all with a parameter missing or wrong is refused", "-", func(g *goim) {
		for _, q := range []string{"", "operation=0", "operation=x", "operation=1000&speed=x"} {
			v, _ := url.ParseQuery(q)
			g.refused(q, g.call("POST", "/goim/push/all", v, "", []byte("x")))
		}
	}},
	{"P17", "an empty body arrives", "TW", func(g *goim) { g.roundTrip([]byte{}) }},
	{"P18", "all byte values arrive", "TW", func(g *goim) {
		var b []byte
		for i := range 256 {
			b = append(b, byte(i))
		}
		g.roundTrip(b)
	}},
	{"P19", "64 KiB arrive", "TW", func(g *goim) { g.roundTrip(bytes.Repeat([]byte("0123456789abcdef"), 4096)) }},
	{"P20", "a wrong method and an unknown path are 404 or 405", "-", func(g *goim) {
		for _, path := range []string{"/goim/push/keys", "/goim/push/room", "/goim/push/nothing", "/goim/push/mids=1"} {
			method := "GET"
			if strings.Contains(path, "nothing") || strings.Contains(path, "=") {
				method = "POST"
			}
			if a := g.call(method, path, nil, "", nil); a.status != 404 && a.status != 405 {
				g.Errorf("%s %s: got HTTP %d, want 404 or 405", method, path, a.status)
			}
		}
	}},
	{"P21", "a form content type changes nothing", "TW", func(g *goim) {
		mid := fresh()
		c := g.login(tok{"mid": mid, "accepts": []int{1000}})
		body := []byte(`{"m":"%41+b&c=d","u":[1]}`)
		q := url.Values{"operation": {"1000"}, "mids": {strconv.FormatInt(mid, 10)}}
		g.done(g.call("POST", "/goim/push/mids", q, "application/x-www-form-urlencoded", body))
		g.hears(c, 1000, body)
	}},
	{"P22", "300 pushes to a key arrive in order", "TW", func(g *goim) {
		key := freshKey()
		c := g.login(tok{"mid": fresh(), "key": key, "accepts": []int{1000}})
		for i := range 300 {
			g.pushKeys(1000, numbered(i), key)
		}
		g.inOrder(c, 1000, 300)
	}},
	{"P23", "200 pushes to a key from 8 pushers all arrive", "TW", func(g *goim) {
		key := freshKey()
		c := g.login(tok{"mid": fresh(), "key": key, "accepts": []int{1000}})
		g.pushers(8, 200, 0, "/goim/push/keys", url.Values{"operation": {"1000"}, "keys": {key}})
		g.anyOrder(c, 1000, 200)
	}},
	{"P24", "200 pushes to a room arrive in order", "TW", func(g *goim) {
		id := freshName()
		c := g.login(tok{"mid": fresh(), "room_id": "live://" + id})
		for i := range 200 {
			g.pushRoom(1000, numbered(i), "live", id)
		}
		g.inOrder(c, 1000, 200)
	}},
	{"P25", "400 pushes to a room from 16 pushers all arrive", "TW", func(g *goim) {
		id := freshName()
		c := g.login(tok{"mid": fresh(), "room_id": "live://" + id})
		g.pushers(16, 400, 0, "/goim/push/room", roomQuery(1000, "live", id))
		g.anyOrder(c, 1000, 400)
	}},
	{"P27", "a client that stops reading gets all in order, or a prefix and a close", "TW", func(g *goim) {
		key := freshKey()
		c := g.login(tok{"mid": fresh(), "key": key, "accepts": []int{1000}})
		receive(g, c, 32<<10)
		g.pushers(1, 300, 4096, "/goim/push/keys", url.Values{"operation": {"1000"}, "keys": {key}})
		time.Sleep(2 * time.Second) // the case: it does not read for two seconds
		for i := range 300 {
			f, err := c.Next(waitTime)
			if Closed(err) {
				g.Logf("closed after %d of 300", i)
				return
			}
			if err != nil {
				g.Fatalf("push %d: %v", i, err)
			}
			g.isPush(c, f, 1000)
			if got := number(f.Body); got != i {
				g.Fatalf("push %d: got number %d; a gap must not be silent", i, got)
			}
		}
	}},
	{"P28", "a client that stops reading harms nobody else in the push", "TW", func(g *goim) {
		bad, good := freshKey(), freshKey()
		stalled := g.login(tok{"mid": fresh(), "key": bad, "accepts": []int{1000}})
		receive(g, stalled, 32<<10)
		c := g.login(tok{"mid": fresh(), "key": good, "accepts": []int{1000}})
		var pushing sync.WaitGroup
		pushing.Go(func() {
			g.pushers(1, 300, 4096, "/goim/push/keys", url.Values{"operation": {"1000"}, "keys": {bad, good}})
		})
		g.inOrder(c, 1000, 300) // it reads meanwhile
		pushing.Wait()
	}},
}

// roundTrip pushes a body to a key and hears it unchanged.
func (g *goim) roundTrip(body []byte) {
	g.Helper()
	key := freshKey()
	c := g.login(tok{"mid": fresh(), "key": key, "accepts": []int{1000}})
	g.pushKeys(1000, body, key)
	g.hears(c, 1000, body)
}

// receive sets how much the kernel holds for a client that doesn't read: little, so that the server feels it.
func receive(g *goim, c *Conn, size int) {
	g.Helper()
	if err := c.Raw.(*net.TCPConn).SetReadBuffer(size); err != nil {
		g.Fatal(err)
	}
}
