package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/halley-im/halley/proto/frame"
)

// ErrTimeout says that nothing came within the time given.
var ErrTimeout = errors.New("e2e: nothing came in time")

// Frame is one frame that a client got.
type Frame struct {
	frame.Frame
	// Wrapped tells that it came inside an op 9 frame.
	Wrapped bool
	// Text tells that it came in a WebSocket text message, which no server may send.
	Text bool
	// BatchVer and BatchSeq are those of the op 9 frame around it.
	BatchVer int16
	BatchSeq int32
}

// String prints the frame without its whole body.
func (f Frame) String() string {
	body := f.Body
	if len(body) > 60 {
		body = body[:60]
	}
	return fmt.Sprintf("op %d ver %d seq %d body %q (%d bytes)", f.Op, f.Ver, f.Seq, body, len(f.Body))
}

// Conn is a client's connection. It has no goroutine: what nobody asks for stays in the socket, so that a test
// can stop reading. Not safe for concurrent use, but one goroutine may write while another one reads.
type Conn struct {
	Transport string
	Raw       net.Conn
	// Control holds the WebSocket control frames that came, as opcode and payload.
	Control []Control

	buf   []byte
	ready []Frame
	// partial is what came of a fragmented WebSocket message; partialOp its opcode, 0 when there is none.
	partial   []byte
	partialOp byte
	seq       int32
	err       error
}

// Control is a WebSocket control frame.
type Control struct {
	Op   byte
	Body []byte
}

// DialTCP connects to a comet's TCP listener.
func DialTCP(addr string) (*Conn, error) {
	raw, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &Conn{Transport: "tcp", Raw: raw}, nil
}

// WriteRaw writes bytes as they are, over WebSocket as one binary message.
func (c *Conn) WriteRaw(b []byte) error {
	if c.Transport == "ws" {
		return c.WriteMessage(wsBinary, b)
	}
	return c.write(b)
}

func (c *Conn) write(b []byte) error {
	if err := c.Raw.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	_, err := c.Raw.Write(b)
	return err
}

// Send writes one frame with ver 1.
func (c *Conn) Send(op frame.Op, seq int32, body []byte) error {
	return c.SendVer(1, op, seq, body)
}

// SendVer writes one frame.
func (c *Conn) SendVer(ver int16, op frame.Op, seq int32, body []byte) error {
	return c.WriteRaw(frame.Append(nil, frame.Frame{Ver: ver, Op: op, Seq: seq, Body: body}))
}

// Next returns the next frame. It returns ErrTimeout when none came within limit, and any other error when the
// connection has ended.
func (c *Conn) Next(limit time.Duration) (Frame, error) {
	deadline := time.Now().Add(limit)
	for {
		if len(c.ready) > 0 {
			f := c.ready[0]
			c.ready = c.ready[1:]
			return f, nil
		}
		if c.err != nil {
			return Frame{}, c.err
		}
		if err := c.parse(); err != nil {
			c.err = err
			continue
		}
		if len(c.ready) > 0 {
			continue
		}
		if err := c.Raw.SetReadDeadline(deadline); err != nil {
			return Frame{}, err
		}
		chunk := make([]byte, 32<<10)
		n, err := c.Raw.Read(chunk)
		c.buf = append(c.buf, chunk[:n]...)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if n > 0 {
				continue
			}
			return Frame{}, ErrTimeout
		}
		if err != nil {
			if perr := c.parse(); perr != nil {
				err = perr
			}
			c.err = err
		}
	}
}

// parse moves whole frames from buf to ready.
func (c *Conn) parse() error {
	if c.Transport == "ws" {
		return c.parseWS()
	}
	for {
		f, n, err := frame.Parse(c.buf, nil)
		if errors.Is(err, frame.ErrIncomplete) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the server's bytes are no frame: %w", err)
		}
		f.Body = bytes.Clone(f.Body)
		c.ready = append(c.ready, Frame{Frame: f})
		c.buf = c.buf[n:]
	}
}

// Closed reports whether an error of Next means that the server ended the connection in an orderly way or by
// a reset, rather than by sending nonsense.
func Closed(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.As(err, &op)
}

// NextSeq returns 1, 2, 3 … for requests that are told apart by seq.
func (c *Conn) NextSeq() int32 {
	c.seq++
	return c.seq
}

// Close closes the socket without more ado.
func (c *Conn) Close() { _ = c.Raw.Close() }
