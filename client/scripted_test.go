package client_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/halley-im/halley/proto/frame"
)

// scripted is a server that does what a scenario says, and nothing else but answering heartbeats.
type scripted struct {
	url string

	mu    sync.Mutex
	conns []*scriptedConn
	asked []*asked
	wake  chan struct{}
	// mute: heartbeats aren't answered.
	mute bool
	wg   sync.WaitGroup
	stop func()
}

// asked is a request that a client sent and no step has expected yet.
type asked struct {
	conn *scriptedConn
	op   frame.Op
	seq  int32
	body any
}

type scriptedConn struct {
	s        *scripted
	raw      net.Conn
	ws       *websocket.Conn // nil over TCP
	auth     *frame.Frame
	accepted bool
	writing  sync.Mutex
}

func newScripted(t *testing.T, transport string) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{wake: make(chan struct{}, 1)}
	if transport == "ws" {
		s.url = "ws://" + l.Addr().String() + "/sub"
		up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ws, err := up.Upgrade(w, r, nil)
			if err == nil {
				s.serve(&scriptedConn{s: s, raw: ws.NetConn(), ws: ws})
			}
		})}
		s.wg.Go(func() { _ = srv.Serve(l) })
		s.stop = func() { _ = srv.Close() }
	} else {
		s.url = "tcp://" + l.Addr().String()
		s.wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				s.wg.Go(func() { s.serve(&scriptedConn{s: s, raw: c}) })
			}
		})
		s.stop = func() { _ = l.Close() }
	}
	t.Cleanup(func() {
		s.stop()
		s.mu.Lock()
		for _, c := range s.conns {
			_ = c.raw.Close()
		}
		s.mu.Unlock()
		s.wg.Wait()
	})
	return s
}

func (s *scripted) changed() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// until waits for look to be true; it is called under the server's lock.
func (s *scripted) until(limit time.Duration, look func() bool) bool {
	end := time.After(limit)
	for {
		s.mu.Lock()
		ok := look()
		s.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-s.wake:
		case <-time.After(20 * time.Millisecond):
		case <-end:
			return false
		}
	}
}

func (s *scripted) serve(c *scriptedConn) {
	s.mu.Lock()
	s.conns = append(s.conns, c)
	s.mu.Unlock()
	var buf []byte
	chunk := make([]byte, 64<<10)
	for {
		if c.ws != nil {
			_, b, err := c.ws.ReadMessage()
			if err != nil {
				_ = c.raw.Close()
				return
			}
			buf = append(buf, b...)
		} else {
			n, err := c.raw.Read(chunk)
			buf = append(buf, chunk[:n]...)
			if err != nil && n == 0 {
				_ = c.raw.Close()
				return
			}
		}
		for {
			f, n, err := frame.Parse(buf, nil)
			if err != nil {
				if !errors.Is(err, frame.ErrIncomplete) {
					_ = c.raw.Close()
					return
				}
				break
			}
			f.Body = bytes.Clone(f.Body)
			buf = buf[n:]
			c.got(f)
		}
	}
}

func (c *scriptedConn) got(f frame.Frame) {
	defer c.s.changed()
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	switch f.Op {
	case frame.OpAuth:
		c.auth = &f
	case frame.OpHeartbeat:
		if c.s.mute {
			return
		}
		c.write(frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpHeartbeatReply, Seq: f.Seq}), nil)
	default:
		var body any
		_ = json.Unmarshal(f.Body, &body)
		c.s.asked = append(c.s.asked, &asked{c, f.Op, f.Seq, body})
	}
}

func (c *scriptedConn) answer(op frame.Op, seq int32, body any) {
	b, _ := json.Marshal(body)
	c.write(frame.Append(nil, frame.Frame{Ver: 1, Op: op, Seq: seq, Body: b}), nil)
}

// events sends events: over WebSocket in one batch.
func (c *scriptedConn) events(events []any, cut []int) {
	var inner []byte
	for _, e := range events {
		b, _ := json.Marshal(e)
		inner = frame.Append(inner, frame.Frame{Ver: 1, Op: frame.OpEvent, Body: b})
	}
	if c.ws != nil {
		inner = append(frame.AppendBatchHeader(nil, len(inner)), inner...)
	}
	c.write(inner, cut)
}

// write writes the bytes, cut at these places: over WebSocket into fragments of one message, over TCP into writes of their own.
func (c *scriptedConn) write(b []byte, cut []int) {
	c.writing.Lock()
	defer c.writing.Unlock()
	cut = slices.DeleteFunc(slices.Clone(cut), func(at int) bool { return at >= len(b) })
	from := 0
	for i, to := range append(cut, len(b)) {
		part := b[from:to]
		if c.ws != nil {
			part = fragment(part, i == 0, i == len(cut))
		}
		_, _ = c.raw.Write(part)
		from = to
	}
}

// fragment is an unmasked WebSocket frame (RFC 6455 section 5.2).
func fragment(b []byte, first, last bool) []byte {
	var head byte
	if first {
		head = websocket.BinaryMessage
	}
	if last {
		head |= 0x80
	}
	out := []byte{head}
	switch {
	case len(b) < 126:
		out = append(out, byte(len(b)))
	case len(b) < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, 126), uint16(len(b)))
	default:
		out = binary.BigEndian.AppendUint64(append(out, 127), uint64(len(b)))
	}
	return append(out, b...)
}

// end ends the connection in an orderly way; over TCP there is no code to tell.
func (c *scriptedConn) end(code int) {
	if c.ws != nil {
		_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(time.Second))
	}
	_ = c.raw.Close()
}

// drop breaks it off.
func (c *scriptedConn) drop() {
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.raw.Close()
}
