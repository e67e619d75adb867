package client

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// ahead is how many frames a connection may have read that weren't looked at: then its reader waits, and with it the server.
const ahead = 256

// link is one logged-in connection, from its reply to its end. Its fields belong to the loop.
type link struct {
	c     *Client
	url   string
	conn  *Conn
	reply *halleyv1.AuthReply
	// asked are the rooms that the log-in named.
	asked   []string
	pending map[int32]*pending
	over    bool
	// closing is what the server's last event said.
	closing *Error
	slots   chan struct{}
}

type pending struct {
	method string
	timer  *timer
	done   func(json.RawMessage, error)
}

// dial opens a link. It belongs to a goroutine of its own.
func (c *Client) dial(ctx context.Context, url string, auth *halleyv1.Auth) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.HandshakeTimeout)
	defer cancel()
	conn, err := Dial(ctx, url, auth, DialOptions{TLS: c.o.TLS, HeartbeatTimeout: c.o.HeartbeatTimeout})
	if err != nil {
		return nil, err
	}
	return &link{c: c, url: url, conn: conn, reply: conn.Reply, pending: map[int32]*pending{}, slots: make(chan struct{}, ahead)}, nil
}

// read hands frames to the loop until the connection ends.
func (l *link) read() {
	loop := l.c.loop
	for {
		f, err := l.conn.Read()
		if err != nil {
			loop.post(func() { l.end(asError(err)) })
			return
		}
		f.Body = bytes.Clone(f.Body)
		select {
		case l.slots <- struct{}{}:
		case <-loop.done:
			return
		}
		if !loop.post(func() { <-l.slots; l.frame(f) }) {
			return
		}
	}
}

func (l *link) frame(f frame.Frame) {
	if l.over {
		return
	}
	switch f.Op {
	case frame.OpReply:
		p := l.pending[f.Seq]
		if p == nil {
			return // Answered too late.
		}
		delete(l.pending, f.Seq)
		p.timer.stop()
		p.done(parseReply(p.method, f.Body))
	case frame.OpEvent:
		name, raw, err := only(f.Body)
		if err != nil {
			l.end(errorOf(errcode.InvalidFrame, "the server sent what can't be read"))
			return
		}
		if name == "closing" {
			// The last event tells more than how the connection ends.
			var closing struct {
				Error *wireError `json:"error"`
			}
			if json.Unmarshal(raw, &closing) == nil && closing.Error != nil {
				l.closing = closing.Error.err()
			}
		}
		l.c.incoming(l, held{name: name, raw: raw})
	default:
		if f.Op.Pushable() {
			l.c.incoming(l, held{op: f.Op, raw: f.Body})
		}
	}
}

// request sends one; done is called once, on the loop.
func (l *link) request(method string, body []byte, op frame.Op, timeout time.Duration, done func(json.RawMessage, error)) {
	if l.over {
		done(nil, errorOf(errcode.Unavailable, "not connected"))
		return
	}
	if len(body) > frame.ClientLimit(op) {
		done(nil, errorOf(errcode.TooLarge, "a request may have %d bytes, this one has %d", frame.ClientLimit(op), len(body)))
		return
	}
	// A write that fails shows in the reader as well.
	seq, _ := l.conn.Send(op, body)
	p := &pending{method: method, done: done}
	p.timer = l.c.loop.after(timeout, func() {
		delete(l.pending, seq)
		done(nil, errorOf(errcode.Unknown, "not answered in time"))
	})
	l.pending[seq] = p
}

// end is told once: by the reader, or by who leaves it.
func (l *link) end(err *Error) {
	if l.over {
		return
	}
	l.over = true
	if l.closing != nil {
		err = l.closing
	}
	l.c.spawn(func(context.Context) { _ = l.conn.Close() })
	// First of all, so that nobody asks this link once more.
	l.c.ended(l, err)
	pending := l.pending
	l.pending = nil
	var unknown error = errorOf(errcode.Unknown, "the connection ended before the answer")
	if l.c.over {
		unknown = ErrClosed
	}
	for _, p := range pending {
		p.timer.stop()
		p.done(nil, unknown)
	}
}
