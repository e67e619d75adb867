package comet_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// onAll runs a test over every transport of one comet.
func onAll(t *testing.T, opts []option, f func(t *testing.T, n *node, transport string)) {
	n := start(t, append([]option{withTLS}, opts...)...)
	for _, tr := range transports {
		t.Run(tr, func(t *testing.T) {
			sub := *n
			sub.t = t
			f(t, &sub, tr)
		})
	}
}

func TestAuthReplyEchoesVerAndSeqWithoutBody(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		c := n.dial(tr)
		c.send(frame.Frame{Ver: 7, Op: frame.OpAuth, Seq: 77, Body: []byte(`{}`)})
		if f := c.expect(frame.OpAuthReply, ""); f.Ver != 7 || f.Seq != 77 {
			t.Errorf("ver %d seq %d, want 7 and 77", f.Ver, f.Seq)
		}
		c.barrier()
	})
}

func TestBadGoimTokenIsClosedWithoutFrame(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		c := n.dial(tr)
		c.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Body: []byte(`not json`)})
		if code := c.closed(); c.ws != nil && code != 4001 {
			t.Errorf("close code %d, want 4001", code)
		}
	})
}

func TestBadTokenIsAnsweredThenClosed(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		c := n.dial(tr)
		c.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 3, Body: []byte(`{"token":"bad"}`)})
		f := c.next()
		if f.Op != frame.OpAuthReply || f.Seq != 3 || !strings.Contains(string(f.Body), `"unauthenticated"`) {
			t.Errorf("got op %v seq %d body %s", f.Op, f.Seq, f.Body)
		}
		if code := c.closed(); c.ws != nil && code != 4001 {
			t.Errorf("close code %d, want 4001", code)
		}
	})
}

func TestFramesBeforeAuthAreDroppedInSilence(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		c := n.dial(tr)
		c.send(frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: 1})
		c.send(frame.Frame{Ver: 1, Op: frame.OpSendMsg, Seq: 2})
		c.auth(`{}`)
		c.barrier()
	})
}

func TestOpsAreEchoedAsGoimDoes(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		c := n.login(tr, `{}`)
		for _, x := range []struct {
			op, want frame.Op
			body     string
			reply    string
		}{
			{frame.OpSendMsg, frame.OpSendMsg, "body", ""},
			{4321, 4321, "body", ""},
			{0, 0, "", ""}, {1, 1, "", ""}, {9, 9, "x", ""},
			{frame.OpRequest, frame.OpRequest, "{}", ""}, // unknown to unsigned sessions
			{frame.OpAuth, frame.OpAuth, `{}`, ""},
			{frame.OpSubscribe, frame.OpSubscribeReply, "2001,2002", "2001,2002"},
			{frame.OpSubscribe, frame.OpSubscribeReply, "2001,x", "2001,x"},
			{frame.OpUnsubscribe, frame.OpUnsubscribeReply, "2001", "2001"},
			{frame.OpChangeRoom, frame.OpChangeRoomReply, "live://9", "live://9"},
			{frame.OpHeartbeatReply, frame.OpHeartbeatReply, "", "\x00\x00\x00\x01"},
			{frame.OpSendMsg, frame.OpSendMsg, strings.Repeat("x", 4096), ""},
		} {
			c.send(frame.Frame{Ver: 3, Op: x.op, Seq: 55, Body: []byte(x.body)})
			if f := c.expect(x.want, x.reply); f.Ver != 3 || f.Seq != 55 {
				t.Errorf("op %v: ver %d seq %d, want 3 and 55", x.op, f.Ver, f.Seq)
			}
			// All sessions of the subtests share the room: it is left again.
			if x.op == frame.OpHeartbeatReply {
				c.send(frame.Frame{Ver: 3, Op: frame.OpChangeRoom})
				c.expect(frame.OpChangeRoomReply, "")
			}
		}
	})
}

func TestMalformedFramesClose(t *testing.T) {
	header := func(pack uint32, head uint16, op uint32) []byte {
		b := binary.BigEndian.AppendUint32(nil, pack)
		b = binary.BigEndian.AppendUint16(b, head)
		b = binary.BigEndian.AppendUint16(b, 1)
		b = binary.BigEndian.AppendUint32(b, op)
		return binary.BigEndian.AppendUint32(b, 1)
	}
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		for _, x := range []struct {
			name string
			raw  []byte
			code int
		}{
			{"body of 4097", frame.Append(nil, frame.Frame{Op: 4, Body: make([]byte, 4097)}), 1009},
			{"header length 20", append(header(20, 20, 4), 0, 0, 0, 0), 1002},
			{"pack length 5", header(5, 16, 4), 1002},
			{"negative pack length", header(0xffffff00, 16, 4), 1002},
			{"pack length of 2 GiB", header(0x7fffffff, 16, 4), 1009},
			{"request of more than 256 KiB", header(16+256<<10+1, 16, 100), 1009},
		} {
			t.Run(x.name, func(t *testing.T) {
				sub := *n
				sub.t = t
				c := sub.login(tr, `{}`)
				if err := c.raw(x.raw); err != nil {
					t.Fatal(err)
				}
				if code := c.closed(); c.ws != nil && code != x.code {
					t.Errorf("close code %d, want %d", code, x.code)
				}
			})
		}
	})
}

func TestAuthBodyHasItsOwnLimit(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		pad := func(size int) string {
			s := `{"x":"` + strings.Repeat("y", size)
			return s[:size-2] + `"}`
		}
		n.login(tr, pad(16<<10)).barrier()
		c := n.dial(tr)
		c.raw(frame.Append(nil, frame.Frame{Op: frame.OpAuth, Body: []byte(pad(16<<10 + 1))}))
		c.closed()
	})
}

func TestPiecesAndRunsOfFramesAreRead(t *testing.T) {
	run := frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: []byte(`{}`)})
	run = frame.Append(run, frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: 2})
	run = frame.Append(run, frame.Frame{Ver: 1, Op: frame.OpSubscribe, Seq: 3, Body: []byte("1")})
	n := start(t, withTLS)
	for _, tr := range []string{"tcp", "tls"} {
		for _, size := range []int{1, 7, 16, 17, len(run)} {
			t.Run(fmt.Sprint(tr, " in pieces of ", size), func(t *testing.T) {
				sub := *n
				sub.t = t
				c := sub.dial(tr)
				if tcp, ok := c.conn.(*net.TCPConn); ok {
					tcp.SetNoDelay(true)
				}
				for b := run; len(b) > 0; {
					k := min(size, len(b))
					if err := c.raw(b[:k]); err != nil {
						t.Fatal(err)
					}
					b = b[k:]
				}
				c.expect(frame.OpAuthReply, "")
				c.expect(frame.OpHeartbeatReply, "\x00\x00\x00\x00")
				c.expect(frame.OpSubscribeReply, "1")
			})
		}
	}
}

func TestManyRequestsInOneWriteAreAnsweredInOrder(t *testing.T) {
	n := start(t, withTLS)
	for _, tr := range []string{"tcp", "tls"} {
		c := n.login(tr, `{}`)
		var b []byte
		for i := range 64 {
			b = frame.Append(b, frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: int32(i)})
		}
		for i := range 48 {
			b = frame.Append(b, frame.Frame{Ver: 1, Op: frame.OpSubscribe, Seq: int32(i), Body: bytes.Repeat([]byte{byte('0' + i%10)}, 400)})
		}
		c.raw(b)
		for i := range 64 {
			if f := c.next(); f.Op != frame.OpHeartbeatReply || f.Seq != int32(i) {
				t.Fatalf("%s: got op %v seq %d, want heartbeat %d", tr, f.Op, f.Seq, i)
			}
		}
		for i := range 48 {
			if f := c.next(); f.Seq != int32(i) || !bytes.Equal(f.Body, bytes.Repeat([]byte{byte('0' + i%10)}, 400)) {
				t.Fatalf("%s: reply %d has another's body", tr, i)
			}
		}
	}
}

func TestLargeRequestIsRead(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		c := n.login(tr, `{"token":"alice"}`)
		body := strings.Repeat("z", 256<<10)
		c.send(frame.Frame{Ver: 1, Op: frame.OpRequest, Seq: 9, Body: []byte(body)})
		if f := c.next(); f.Op != frame.OpReply || f.Seq != 9 || string(f.Body) != body {
			t.Errorf("got op %v seq %d with %d bytes", f.Op, f.Seq, len(f.Body))
		}
		c.barrier()
	})
}

func TestHalfFrameEndsTheConnection(t *testing.T) {
	t.Parallel()
	opts := []option{with(func(c *comet.Config) { c.FrameTimeout = 150 * time.Millisecond })}
	whole := frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpRequest, Body: make([]byte, 6000)})
	onAll(t, opts, func(t *testing.T, n *node, tr string) {
		for _, have := range []int{3, 16, 30, 5000} {
			c := n.login(tr, `{"token":"alice"}`)
			if c.ws != nil {
				// A message that says it is longer than what comes.
				c.conn.Write(append([]byte{0x82, 0x80 | 126, 0x17, 0x80, 0, 0, 0, 0}, whole[:have]...))
			} else {
				c.conn.Write(whole[:have])
			}
			if code := c.closed(); code != 0 && code != websocket.CloseAbnormalClosure {
				t.Errorf("close code %d", code)
			}
		}
	})
}

func TestHandshakeTimesOut(t *testing.T) {
	t.Parallel()
	// In this time they must have come as far as a first frame.
	n := start(t, withTLS, with(func(c *comet.Config) { c.HandshakeTimeout = 3 * time.Second }))
	var cs []*client
	for _, tr := range transports {
		c := n.dial(tr)
		c.send(frame.Frame{Ver: 1, Op: frame.OpHeartbeat})
		cs = append(cs, c)
	}
	for i, c := range cs {
		if code := c.closed(); c.ws != nil && code != 4504 {
			t.Errorf("%s: close code %d, want 4504", transports[i], code)
		}
	}
}

func TestSlowUpgradeAndTLSHandshakeTimeOut(t *testing.T) {
	n := start(t, withTLS, with(func(c *comet.Config) { c.HandshakeTimeout = 150 * time.Millisecond }))
	for name, addr := range map[string]string{"upgrade": n.ws, "tls": n.tls, "tls of wss": n.wss} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "GET /sub HTTP/1.1\r\nHost: x\r\nX-Slow: ")
			conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Error("connection is still open")
			}
		})
	}
}

func TestWebSocketTextFragmentsAndTrailingBytes(t *testing.T) {
	n := start(t)
	c := n.dial("ws")
	auth := frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 5, Body: []byte(`{"mid":1,"accepts":[1000]}`)})
	c.ws.WriteMessage(websocket.TextMessage, auth)
	c.expect(frame.OpAuthReply, "")

	// Fragments of 24 bytes, with a ping between them.
	c = n.dial("ws")
	pongs := make(chan string, 4)
	c.ws.SetPongHandler(func(s string) error { pongs <- s; return nil })
	for i := 0; i < len(auth); i += 24 {
		end := min(i+24, len(auth))
		op, fin := byte(0), byte(0)
		if i == 0 {
			op = 2
		}
		if end == len(auth) {
			fin = 0x80
		}
		c.conn.Write(maskedFrame(fin|op, auth[i:end]))
		if i == 0 {
			c.conn.Write(maskedFrame(0x89, []byte("mid")))
		}
	}
	c.expect(frame.OpAuthReply, "")
	if got := <-pongs; got != "mid" {
		t.Errorf("pong %q, want mid", got)
	}

	c.ws.WriteMessage(websocket.BinaryMessage, append(frame.Append(nil, frame.Frame{Ver: 1, Op: 4, Seq: 8}), bytes.Repeat([]byte("trailing"), 300)...))
	c.expect(4, "")
	c.barrier()

	c.ws.WriteMessage(websocket.BinaryMessage, []byte("short"))
	if code := c.closed(); code != 1002 {
		t.Errorf("5-byte message: close code %d, want 1002", code)
	}
	c = n.login("ws", `{}`)
	sub := frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpSubscribe, Body: []byte("1000")})
	binary.BigEndian.PutUint32(sub, uint32(len(sub)+40))
	c.ws.WriteMessage(websocket.BinaryMessage, sub)
	if code := c.closed(); code != 1002 {
		t.Errorf("pack length beyond the message: close code %d, want 1002", code)
	}
}

// maskedFrame makes a client's WebSocket frame with a mask of zeros.
func maskedFrame(first byte, payload []byte) []byte {
	return append([]byte{first, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
}

func TestPingIsAnsweredAtOnce(t *testing.T) {
	n := start(t, withTLS, with(func(c *comet.Config) { c.FrameTimeout = 100 * time.Millisecond }))
	for _, tr := range []string{"ws", "wss"} {
		for _, authed := range []bool{false, true} {
			c := n.dial(tr)
			if authed {
				c.auth(`{}`)
			}
			pongs := make(chan string, 1)
			c.ws.SetPongHandler(func(s string) error { pongs <- s; return io.EOF })
			c.ws.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(patience))
			if _, err := c.read(5 * time.Second); err == nil {
				t.Fatalf("%s: a frame instead of a pong", tr)
			}
			if got := <-pongs; got != "are you there" {
				t.Errorf("%s: pong %q", tr, got)
			}
		}
		// A lone ping is no half frame: the connection outlives the frame's deadline.
		c := n.login(tr, `{}`)
		pong := make(chan struct{}, 1)
		c.ws.SetPongHandler(func(string) error { pong <- struct{}{}; return nil })
		c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(patience))
		end := time.Now().Add(300 * time.Millisecond)
		for time.Now().Before(end) {
			time.Sleep(50 * time.Millisecond)
		}
		c.barrier()
		<-pong
	}
}

func TestCloseFrameIsAnswered(t *testing.T) {
	n := start(t, withTLS)
	for _, tr := range []string{"ws", "wss"} {
		for _, code := range []int{1000, 4321, websocket.CloseNoStatusReceived} {
			c := n.login(tr, `{}`)
			var msg []byte
			if code != websocket.CloseNoStatusReceived {
				msg = websocket.FormatCloseMessage(code, "bye")
			}
			c.ws.WriteControl(websocket.CloseMessage, msg, time.Now().Add(patience))
			if got := c.closed(); got != code {
				t.Errorf("%s: close code %d, want %d", tr, got, code)
			}
		}
	}
	eventually(t, func() bool { return n.metric("halley_comet_connections") == 0 }, "connections are gone")
}

func TestWebSocketProtocolErrorsAreNamed(t *testing.T) {
	n := start(t)
	for name, raw := range map[string][]byte{
		"unmasked frame":   {0x82, 0x01, 'x'},
		"reserved bits":    maskedFrame(0xf2, []byte("x")),
		"unknown opcode":   maskedFrame(0x83, nil),
		"lone fragment":    maskedFrame(0x80, []byte("x")),
		"fragmented ping":  maskedFrame(0x09, nil),
		"close code of 99": maskedFrame(0x88, []byte{0, 99}),
	} {
		c := n.login("ws", `{}`)
		c.conn.Write(raw)
		if code := c.closed(); code != 1002 {
			t.Errorf("%s: close code %d, want 1002", name, code)
		}
	}
	c := n.login("ws", `{}`)
	c.ws.WriteMessage(websocket.BinaryMessage, make([]byte, 300<<10))
	if code := c.closed(); code != 1009 && code != 1002 {
		t.Errorf("300 KiB message: close code %d, want 1009", code)
	}
}

// upgrade asks for a WebSocket and returns the status of the answer.
func (n *node) upgrade(path, host, origin, extra string) int {
	n.t.Helper()
	conn, err := net.Dial("tcp", n.ws)
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	if origin != "" {
		extra = "Origin: " + origin + "\r\n" + extra
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", path, host, extra)
	conn.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestUpgradeIsRefusedWhereItMustBe(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.Origins = nil }))
	for _, x := range []struct {
		name, path, origin, extra string
		want                      int
	}{
		{"/sub", "/sub", "", "", 101},
		{"/", "/", "", "", 101},
		{"/sub with a query", "/sub?x=1", "", "", 101},
		{"elsewhere", "/chat", "", "", 404},
		{"same host", "/sub", "http://" + n.ws, "", 101},
		{"same host, other port", "/sub", "http://127.0.0.1:8080", "", 101},
		{"other host", "/sub", "https://evil.example", "", 403},
		{"data before the answer", "/sub", "", "\r\nxxxx", 400},
	} {
		if got := n.upgrade(x.path, n.ws, x.origin, x.extra); got != x.want {
			t.Errorf("%s: status %d, want %d", x.name, got, x.want)
		}
	}
	conn, _ := net.Dial("tcp", n.ws)
	defer conn.Close()
	io.WriteString(conn, "GET /sub HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 400 {
		t.Errorf("no upgrade: %v, want 400", err)
	}
	for _, junk := range []string{"\x16\x03\x01garbage\r\n\r\n", strings.Repeat("x", 40000)} {
		conn, _ := net.Dial("tcp", n.ws)
		conn.Write([]byte(junk))
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Error("garbage: connection is still open")
		}
		conn.Close()
	}
}

func TestOriginListIsKept(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.Origins = []string{"app.example.org", "*.example.com"} }))
	for origin, want := range map[string]bool{
		"https://app.example.org": true, "https://a.example.com": true, "https://a.b.example.com": true,
		"https://example.com": false, "https://evilexample.com": false, "https://app.example.org.evil.net": false, "http://" + n.ws: false, "null": false,
	} {
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+n.ws+"/sub", http.Header{"Origin": {origin}})
		if (err == nil) != want {
			t.Errorf("origin %s: got in %v, want %v", origin, err == nil, want)
		}
		if err == nil {
			ws.Close()
		}
	}
}

// http://localhost:3111 is what people open, ws://127.0.0.1:3102 is what the page is told.
func TestPagesOfThisMachineComeByAnyOfItsNames(t *testing.T) {
	n := start(t)
	for origin, want := range map[string]bool{
		"http://localhost:3111": true, "http://127.0.0.1:3111": true, "http://[::1]:3111": true, "http://LOCALHOST": true,
		"http://localhost.example.org": false, "http://127.0.0.1.example.org:3111": false, "http://example.org": false, "null": false,
	} {
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+n.ws+"/sub", http.Header{"Origin": {origin}})
		if (err == nil) != want {
			t.Errorf("origin %s: got in %v, want %v", origin, err == nil, want)
		}
		if err == nil {
			ws.Close()
		}
	}
}

func TestForwardedAddressIsBelievedFromProxiesOnly(t *testing.T) {
	remote := func(proxies []string, forwarded ...string) string {
		t.Helper()
		n := start(t, with(func(c *comet.Config) { c.TrustedProxies = proxies }))
		got := make(chan string, 1)
		n.logic.mu.Lock()
		n.logic.connect = func(r *halleyv1.ConnectRequest, _ *halleyv1.ConnectResponse) error {
			got <- r.GetRemoteAddr()
			return nil
		}
		n.logic.mu.Unlock()
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+n.ws+"/sub", http.Header{"X-Forwarded-For": forwarded})
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		ws.WriteMessage(websocket.BinaryMessage, frame.Append(nil, frame.Frame{Op: frame.OpAuth, Body: []byte(`{}`)}))
		return <-got
	}
	for _, x := range []struct {
		name    string
		proxies []string
		header  []string
		want    string
	}{
		{"nobody trusted", nil, []string{"203.0.113.9"}, "127.0.0.1"},
		{"one proxy", []string{"127.0.0.0/8"}, []string{"203.0.113.9"}, "203.0.113.9"},
		{"forged first entry", []string{"127.0.0.0/8"}, []string{"6.6.6.6, 203.0.113.9"}, "203.0.113.9"},
		{"two proxies", []string{"127.0.0.0/8", "10.1.0.0/16"}, []string{"6.6.6.6, 203.0.113.9, 10.1.2.3"}, "203.0.113.9"},
		{"two headers", []string{"127.0.0.1"}, []string{"6.6.6.6", "2001:db8::1"}, "2001:db8::1"},
		{"garbage", []string{"127.0.0.1"}, []string{"unknown"}, "127.0.0.1"},
		{"none", []string{"127.0.0.1"}, nil, "127.0.0.1"},
	} {
		t.Run(x.name, func(t *testing.T) {
			if got := remote(x.proxies, x.header...); got != x.want {
				t.Errorf("remote address %s, want %s", got, x.want)
			}
		})
	}
}
