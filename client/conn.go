package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Times and sizes of a connection.
const (
	// DialTimeout is how long Dial may take, the log-in included.
	DialTimeout   = 10 * time.Second
	writeTimeout  = 10 * time.Second
	maxFrameBytes = 64 << 20
	// silence is how long a server may take to answer a heartbeat, unless DialOptions says otherwise.
	silence = 10 * time.Second
)

// DialOptions say how to connect.
type DialOptions struct {
	// TLS is used for wss and tls; nil: the system's authorities.
	TLS *tls.Config
	// HeartbeatTimeout is how long the server may take to answer a heartbeat; then the connection is closed. 0: 10 s.
	HeartbeatTimeout time.Duration
}

// ErrSilent is the end of a connection whose server answered no heartbeat.
var ErrSilent = errors.New("the server doesn't answer heartbeats")

// Conn is a logged-in connection. Read belongs to one goroutine; the others are safe for any.
type Conn struct {
	// Reply is what the server said to the log-in.
	Reply *halleyv1.AuthReply

	t     transport
	batch []byte
	// heard is when the last frame came, in nanoseconds since start.
	heard  atomic.Int64
	start  time.Time
	silent atomic.Bool

	mu   sync.Mutex
	seq  int32
	stop context.CancelFunc
	done chan struct{}
}

// transport carries whole frames.
type transport interface {
	// read returns one frame; its body is good until the next call.
	read() (frame.Frame, error)
	write(b []byte) error
	deadline(t time.Time) error
	close() error
}

// Dial connects to a comet at tcp://host:port, tls://host:port, ws://host:port/sub or wss://…, and logs in.
// A refused log-in is an *errcode.Error.
func Dial(ctx context.Context, target string, auth *halleyv1.Auth, o DialOptions) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	t, err := open(ctx, target, o)
	if err != nil {
		return nil, err
	}
	c := &Conn{t: t, done: make(chan struct{}), start: time.Now()}
	if err := c.login(ctx, auth); err != nil {
		t.close()
		return nil, err
	}
	var beat context.Context
	beat, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	limit := o.HeartbeatTimeout
	if limit <= 0 {
		limit = silence
	}
	go c.heartbeats(beat, limit)
	return c, nil
}

func open(ctx context.Context, target string, o DialOptions) (transport, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", target, err)
	}
	switch u.Scheme {
	case "tcp":
		var d net.Dialer
		nc, err := d.DialContext(ctx, "tcp", u.Host)
		if err != nil {
			return nil, err
		}
		return newTCP(nc), nil
	case "tls":
		d := tls.Dialer{Config: o.TLS}
		nc, err := d.DialContext(ctx, "tcp", u.Host)
		if err != nil {
			return nil, err
		}
		return newTCP(nc), nil
	case "ws", "wss":
		d := websocket.Dialer{TLSClientConfig: o.TLS}
		ws, resp, err := d.DialContext(ctx, target, http.Header{})
		if err != nil {
			if resp != nil {
				return nil, fmt.Errorf("connect to %s: %w: HTTP %s", target, err, resp.Status)
			}
			return nil, fmt.Errorf("connect to %s: %w", target, err)
		}
		ws.SetReadLimit(maxFrameBytes)
		return &wsTransport{ws: ws}, nil
	}
	return nil, fmt.Errorf("address %q: must begin with ws://, wss://, tcp:// or tls://", target)
}

func (c *Conn) login(ctx context.Context, auth *halleyv1.Auth) error {
	body, err := protojson.Marshal(auth)
	if err != nil {
		return err
	}
	end, _ := ctx.Deadline()
	if err := c.t.deadline(end); err != nil {
		return err
	}
	if err := c.t.write(frame.Append(nil, frame.Frame{Ver: frame.Ver, Op: frame.OpAuth, Seq: 1, Body: body})); err != nil {
		return fmt.Errorf("send the log-in: %w", err)
	}
	f, err := c.t.read()
	if err != nil {
		return fmt.Errorf("wait for the log-in's answer: %w", err)
	}
	if f.Op != frame.OpAuthReply {
		return fmt.Errorf("the first frame has op %v instead of an answer to the log-in", f.Op)
	}
	c.seq = 1
	c.Reply = &halleyv1.AuthReply{}
	if len(f.Body) > 0 {
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(f.Body, c.Reply); err != nil {
			return fmt.Errorf("answer to the log-in: %w", err)
		}
	}
	if e := errcode.FromProto(c.Reply.GetError()); e != nil {
		return e
	}
	return c.t.deadline(time.Time{})
}

// heartbeats sends op 2 as often as the server advised, until ctx is done or one isn't answered within limit.
func (c *Conn) heartbeats(ctx context.Context, limit time.Duration) {
	defer close(c.done)
	every := time.Duration(c.Reply.GetHeartbeat() * float64(time.Second))
	if every <= 0 {
		every = 30 * time.Second
	}
	wait := func(d time.Duration) bool {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			return true
		}
	}
	for wait(every) {
		sent := time.Since(c.start).Nanoseconds()
		// A write that fails shows in Read as well.
		_, _ = c.Send(frame.OpHeartbeat, nil)
		if !wait(limit) {
			return
		}
		// Anything that came is as good as an answer.
		if c.heard.Load() < sent {
			c.silent.Store(true)
			_ = c.t.close()
			return
		}
	}
}

// Read returns the next frame other than heartbeat replies; the frames of a batch come one by one. The body is
// good until the next call. When the server closed the connection the error is io.EOF or says why.
func (c *Conn) Read() (frame.Frame, error) {
	for {
		if len(c.batch) > 0 {
			f, n, err := frame.Parse(c.batch, nil)
			if err != nil {
				return frame.Frame{}, fmt.Errorf("batch: %w", err)
			}
			c.batch = c.batch[n:]
			return f, nil
		}
		f, err := c.t.read()
		if err != nil {
			if c.silent.Load() {
				return frame.Frame{}, ErrSilent
			}
			return frame.Frame{}, err
		}
		c.heard.Store(time.Since(c.start).Nanoseconds())
		switch f.Op {
		case frame.OpBatch:
			c.batch = f.Body
		case frame.OpHeartbeatReply:
		default:
			return f, nil
		}
	}
}

// Send sends a frame and returns the seq that it was given.
func (c *Conn) Send(op frame.Op, body []byte) (int32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	return c.seq, c.t.write(frame.Append(nil, frame.Frame{Ver: frame.Ver, Op: op, Seq: c.seq, Body: body}))
}

// Request sends a request; the reply comes from Read, with op 101 and the returned seq.
func (c *Conn) Request(r *halleyv1.Request) (int32, error) {
	body, err := protojson.Marshal(r)
	if err != nil {
		return 0, err
	}
	return c.Send(frame.OpRequest, body)
}

// Close ends the connection and the heartbeats; a Read in another goroutine returns.
func (c *Conn) Close() error {
	c.stop()
	err := c.t.close()
	<-c.done
	return err
}

// CloseError is the end of a WebSocket that its server closed.
type CloseError struct {
	Code   int
	Reason string
}

// Error names code and reason.
func (e *CloseError) Error() string {
	return fmt.Sprintf("closed by the server: %d %s", e.Code, e.Reason)
}

// tcpTransport reads frames off a stream.
type tcpTransport struct {
	nc   net.Conn
	buf  []byte
	used int // bytes of buf that the frame returned last took
}

func newTCP(nc net.Conn) *tcpTransport { return &tcpTransport{nc: nc, buf: make([]byte, 0, 4096)} }

func (t *tcpTransport) read() (frame.Frame, error) {
	t.buf = t.buf[:copy(t.buf, t.buf[t.used:])]
	t.used = 0
	for {
		f, n, err := frame.Parse(t.buf, func(frame.Op) int { return maxFrameBytes })
		if err == nil {
			t.used = n
			return f, nil
		}
		if !errors.Is(err, frame.ErrIncomplete) {
			return frame.Frame{}, err
		}
		if want := max(n, 2*len(t.buf), 4096); want > cap(t.buf) {
			t.buf = append(make([]byte, 0, want), t.buf...)
		}
		got, err := t.nc.Read(t.buf[len(t.buf):cap(t.buf)])
		t.buf = t.buf[:len(t.buf)+got]
		if err != nil && got == 0 {
			return frame.Frame{}, err
		}
	}
}

func (t *tcpTransport) write(b []byte) error {
	if err := t.nc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := t.nc.Write(b)
	return err
}

func (t *tcpTransport) deadline(at time.Time) error { return t.nc.SetReadDeadline(at) }
func (t *tcpTransport) close() error                { return t.nc.Close() }

// wsTransport reads frames out of WebSocket messages, one in each.
type wsTransport struct{ ws *websocket.Conn }

func (t *wsTransport) read() (frame.Frame, error) {
	_, b, err := t.ws.ReadMessage()
	if err != nil {
		var ce *websocket.CloseError
		if errors.As(err, &ce) {
			if ce.Code == websocket.CloseNormalClosure || ce.Code == websocket.CloseAbnormalClosure {
				return frame.Frame{}, io.EOF
			}
			return frame.Frame{}, &CloseError{Code: ce.Code, Reason: ce.Text}
		}
		return frame.Frame{}, err
	}
	f, _, err := frame.Parse(b, nil)
	return f, err
}

func (t *wsTransport) write(b []byte) error {
	if err := t.ws.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return t.ws.WriteMessage(websocket.BinaryMessage, b)
}

func (t *wsTransport) deadline(at time.Time) error { return t.ws.SetReadDeadline(at) }

func (t *wsTransport) close() error {
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = t.ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
	return t.ws.Close()
}
