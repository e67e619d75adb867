package comet_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/halley-im/halley/proto/frame"
)

// client is a client over any of the transports.
type client struct {
	t    testing.TB
	conn net.Conn
	ws   *websocket.Conn
	buf  []byte
	// inner holds the frames of an op 9 batch that were not returned yet.
	inner []frame.Frame
	// outer counts WebSocket messages.
	outer int
}

var transports = []string{"tcp", "ws", "tls", "wss"}

func (n *node) dial(transport string) *client {
	n.t.Helper()
	c := &client{t: n.t}
	switch transport {
	case "tcp":
		conn, err := net.Dial("tcp", n.tcp)
		if err != nil {
			n.t.Fatal(err)
		}
		c.conn = conn
	case "tls":
		conn, err := tls.Dial("tcp", n.tls, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			n.t.Fatal(err)
		}
		c.conn = conn
	case "ws", "wss":
		d := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		url := "ws://" + n.ws + "/sub"
		if transport == "wss" {
			url = "wss://" + n.wss + "/sub"
		}
		ws, _, err := d.Dial(url, nil)
		if err != nil {
			n.t.Fatal(err)
		}
		c.ws, c.conn = ws, ws.UnderlyingConn()
	}
	n.t.Cleanup(func() { c.conn.Close() })
	return c
}

// login dials and authenticates.
func (n *node) login(transport, auth string) *client {
	n.t.Helper()
	c := n.dial(transport)
	c.auth(auth)
	return c
}

func (c *client) auth(body string) frame.Frame {
	c.t.Helper()
	c.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 77, Body: []byte(body)})
	f := c.next()
	if f.Op != frame.OpAuthReply || f.Seq != 77 {
		c.t.Fatalf("first frame is op %v seq %d, want the auth reply", f.Op, f.Seq)
	}
	return f
}

func (c *client) send(f frame.Frame) {
	c.t.Helper()
	if err := c.trySend(f); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) trySend(f frame.Frame) error { return c.raw(frame.Append(nil, f)) }

// raw sends bytes: as they are over TCP, as one message over WebSocket.
func (c *client) raw(b []byte) error {
	if c.ws != nil {
		return c.ws.WriteMessage(websocket.BinaryMessage, b)
	}
	_, err := c.conn.Write(b)
	return err
}

// read returns the next frame; pushes over WebSocket are unwrapped.
func (c *client) read(limit time.Duration) (frame.Frame, error) {
	if len(c.inner) > 0 {
		f := c.inner[0]
		c.inner = c.inner[1:]
		return f, nil
	}
	c.conn.SetReadDeadline(time.Now().Add(limit))
	if c.ws == nil {
		for {
			f, n, err := frame.Parse(c.buf, nil)
			if err == nil {
				f.Body = append([]byte(nil), f.Body...)
				c.buf = c.buf[n:]
				return f, nil
			}
			if !errors.Is(err, frame.ErrIncomplete) {
				return f, err
			}
			chunk := make([]byte, 64<<10)
			got, err := c.conn.Read(chunk)
			c.buf = append(c.buf, chunk[:got]...)
			if err != nil && got == 0 {
				return f, err
			}
		}
	}
	typ, b, err := c.ws.ReadMessage()
	if err != nil {
		return frame.Frame{}, err
	}
	c.outer++
	if typ != websocket.BinaryMessage {
		return frame.Frame{}, errors.New("not a binary message")
	}
	f, n, err := frame.Parse(b, nil)
	if err != nil {
		return f, err
	}
	if n != len(b) {
		return f, errors.New("message is longer than its outer frame")
	}
	if f.Op != frame.OpBatch || len(f.Body) == 0 {
		return f, nil
	}
	if f.Ver != 1 || f.Seq != 0 {
		return f, errors.New("op 9 header is not ver 1 seq 0")
	}
	err = frame.ParseBatch(f.Body, func(in frame.Frame) bool {
		c.inner = append(c.inner, in)
		return true
	})
	if err != nil {
		return f, err
	}
	return c.read(limit)
}

func (c *client) next() frame.Frame {
	c.t.Helper()
	f, err := c.read(patience)
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return f
}

// expect reads one frame and compares its op and body.
func (c *client) expect(op frame.Op, body string) frame.Frame {
	c.t.Helper()
	f := c.next()
	if f.Op != op || string(f.Body) != body {
		c.t.Fatalf("got op %v body %.200q, want op %v body %.200q", f.Op, f.Body, op, body)
	}
	return f
}

// event reads one op 102 and returns the name and value of what it is.
func (c *client) event() (string, map[string]any) {
	c.t.Helper()
	f := c.next()
	if f.Op != frame.OpEvent {
		c.t.Fatalf("got op %v body %.200q, want an event", f.Op, f.Body)
	}
	var e map[string]map[string]any
	if err := json.Unmarshal(f.Body, &e); err != nil {
		c.t.Fatalf("event %s: %v", f.Body, err)
	}
	for name, v := range e {
		return name, v
	}
	return "", nil
}

func (c *client) expectEvent(want string) map[string]any {
	c.t.Helper()
	got, v := c.event()
	if got != want {
		c.t.Fatalf("got event %s, want %s", got, want)
	}
	return v
}

// barrier proves that nothing came before the answer to a heartbeat.
func (c *client) barrier() {
	c.t.Helper()
	c.send(frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: 4711})
	if f := c.next(); f.Op != frame.OpHeartbeatReply || f.Seq != 4711 {
		c.t.Fatalf("got op %v body %.100q, want nothing before the heartbeat's answer", f.Op, f.Body)
	}
}

// closed reads until the connection ends and returns the WebSocket close code, or 0; a frame fails the test.
func (c *client) closed() int {
	c.t.Helper()
	f, err := c.read(patience)
	if err == nil {
		c.t.Fatalf("got op %v body %.100q, want the end", f.Op, f.Body)
	}
	return c.ended(err)
}

func (c *client) ended(err error) int {
	c.t.Helper()
	var ce *websocket.CloseError
	if errors.As(err, &ce) {
		return ce.Code
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		c.t.Fatal("connection is still open")
	}
	if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "EOF") {
		c.t.Fatalf("ended with %v", err)
	}
	return 0
}
