package session

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/halley-im/halley/comet/internal/outbox"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Scratch is what a goroutine needs to flush sessions: room to put small messages together, and a write that
// allocates nothing.
type Scratch struct {
	buf []byte
	out []byte
	n   int
	err error
	fn  func(uintptr) bool
	// Time is the walker's clock; 0: read it.
	Time int64
}

// NewScratch returns a scratch with room for size bytes.
func NewScratch(size int) *Scratch {
	w := &Scratch{buf: make([]byte, 0, size)}
	w.fn = func(fd uintptr) bool {
		for {
			w.n, w.err = syscall.Write(int(fd), w.out)
			if w.err != syscall.EINTR {
				return true
			}
		}
	}
	return w
}

// write writes what the socket takes at once. It returns 0 and no error when the socket is full.
func (w *Scratch) write(raw syscall.RawConn, out []byte) (int, error) {
	w.out, w.n, w.err = out, 0, nil
	err := raw.Write(w.fn)
	w.out = nil
	switch {
	case err != nil:
		return 0, err
	case w.err == syscall.EAGAIN:
		return 0, nil
	case w.err != nil:
		return 0, w.err
	}
	return w.n, nil
}

var scratches = sync.Pool{New: func() any { return NewScratch(16 << 10) }}

// Flush writes what is queued as far as the socket takes it, in the caller's goroutine, and never waits: what
// the socket doesn't take is left to a goroutine of its own, and so is everything of a TLS session. It does nothing if
// somebody else is writing: that one takes what was queued meanwhile. w may be nil.
func (s *Session) Flush(w *Scratch) {
	s.mu.Lock()
	s.queued, s.urgent = false, false
	if s.writing || s.held || s.q.Empty() || s.state >= shut {
		s.mu.Unlock()
		return
	}
	s.writing = true
	if s.raw == nil {
		s.mu.Unlock()
		s.background()
		return
	}
	if w == nil {
		w = scratches.Get().(*Scratch)
		w.Time = 0
		defer scratches.Put(w)
	}
	for {
		out, n := s.gather(w.buf)
		s.mu.Unlock()
		wrote, err := w.write(s.raw, out)
		c := s.host.Count
		c.Writes.Add(1)
		c.Messages.Add(int64(n))
		c.Bytes.Add(int64(wrote))
		if err != nil {
			s.CloseNow("write")
			return
		}
		if wrote < len(out) {
			c.Blocked.Add(1)
			rest := append([]byte(nil), out[wrote:]...)
			s.mu.Lock()
			s.extra().rest = rest
			s.mu.Unlock()
			s.background()
			return
		}
		now := w.Time
		if now == 0 {
			now = Now()
		}
		s.mu.Lock()
		s.lastWrite = now
		if s.written() {
			return
		}
	}
}

// written ends the writing if nothing is left, and reports whether it did; s.mu is held and, if so, released.
func (s *Session) written() bool {
	s.wake()
	if !s.q.Empty() && !s.held {
		return false
	}
	s.writing = false
	shutNow := s.state == closing
	if shutNow {
		s.state = shut
		s.wake()
	}
	s.mu.Unlock()
	if shutNow {
		s.shutdown()
	}
	return true
}

// gather takes what comes next from the queue, what the client must be told about a gap first; s.mu is held.
func (s *Session) gather(buf []byte) ([]byte, int) {
	if s.q.HasGap() {
		g := s.q.Gap()
		if s.who.Signed {
			if g.Dropped > 0 {
				s.q.Push(Event(&halleyv1.Event{Event: &halleyv1.Event_Lagged{Lagged: &halleyv1.Lagged{Dropped: g.Dropped}}}), s.host.OutboxBytes)
			}
			if g.Resync {
				s.q.Push(ResyncEvent(), s.host.OutboxBytes)
			}
		}
	}
	return s.q.Gather(buf, s.Transport.WS)
}

// background hands the session's writing to a goroutine that may wait for the socket.
func (s *Session) background() {
	s.host.Background.Add(1)
	go func() {
		defer s.host.Background.Done()
		s.writeWaiting()
	}()
}

// writeWaiting writes until the outbox is empty, waiting for the socket. It ends the session when the socket
// takes nothing for the write timeout. s.writing is set.
func (s *Session) writeWaiting() {
	w := scratches.Get().(*Scratch)
	defer scratches.Put(w)
	sock := s.sock()
	defer sock.SetWriteDeadline(time.Time{})
	var out []byte
	s.mu.Lock()
	if s.more != nil {
		out, s.more.rest = s.more.rest, nil
	}
	s.mu.Unlock()
	c := s.host.Count
	for {
		if len(out) > 0 {
			if err := s.writeAll(sock, out); err != nil {
				var ne net.Error
				if errors.As(err, &ne) && ne.Timeout() {
					s.abort("slow_consumer", true)
				} else {
					s.CloseNow("write")
				}
				return
			}
		}
		// An expired deadline would fail the raw writes that come after.
		sock.SetWriteDeadline(time.Time{})
		s.mu.Lock()
		s.lastWrite = Now()
		if s.state >= shut {
			s.writing = false
			s.wake()
			s.mu.Unlock()
			return
		}
		if s.written() {
			return
		}
		var n int
		out, n = s.gather(w.buf)
		s.mu.Unlock()
		c.Writes.Add(1)
		c.Messages.Add(int64(n))
		c.Bytes.Add(int64(len(out)))
	}
}

// writeChunk is the most that is written under one deadline, write_timeout: so much in that time is progress. No setting: a share of
// what is in the outbox, not a rate to tune.
const writeChunk = 16 << 10

func (s *Session) writeAll(sock net.Conn, out []byte) error {
	for len(out) > 0 {
		sock.SetWriteDeadline(time.Now().Add(s.host.WriteTimeout))
		chunk := out[:min(len(out), writeChunk)]
		if s.raw == nil {
			if _, err := s.conn.Write(chunk); err != nil {
				return err
			}
			out = out[len(chunk):]
			continue
		}
		var n int
		var werr error
		err := s.raw.Write(func(fd uintptr) bool {
			n, werr = syscall.Write(int(fd), chunk)
			return werr != syscall.EAGAIN && werr != syscall.EINTR
		})
		if err == nil {
			err = werr
		}
		if err != nil {
			return err
		}
		out = out[n:]
	}
	return nil
}

// Cause says why a session is closed.
type Cause struct {
	// Code's close code is in the WebSocket close frame; its name is the reason in metrics.
	Code *errcode.Code
	// Error is told to signed sessions by a closing event before; nil: Code's own.
	Error *halleyv1.Error
	// Quiet leaves the closing event out.
	Quiet bool
	// CloseCode replaces the close code; -1 leaves it out.
	CloseCode int
	// Reason replaces Code's name in metrics.
	Reason string
}

// Told is the error that the client is told.
func (c Cause) Told() *halleyv1.Error {
	if c.Error != nil {
		return c.Error
	}
	return errcode.Proto(c.Code)
}

// Raced is how a session ends whose place went to one whose connection is the older one, or that came to nothing: nobody may be left who
// uses that one, so the client of this one comes again.
var Raced = Cause{
	Code: errcode.Unavailable, Error: errcode.Proto(errcode.Unavailable.Errorf("another connection of this device was let in")), Reason: "raced",
}

// Close ends the session: it isn't addressable from now on; what is queued is written, then signed sessions
// get a closing event, WebSocket ones a close frame, then the connection is shut. It never waits. A second
// call does nothing.
func (s *Session) Close(c Cause) {
	s.mu.Lock()
	if s.state >= closing {
		s.mu.Unlock()
		return
	}
	var final []*outbox.Message
	if s.state == pending {
		// Nothing may come before the auth reply, and there won't be one.
		s.host.Count.Discarded.Add(int64(s.q.Clear()))
	} else if s.who.Signed && !c.Quiet {
		final = append(final, Event(&halleyv1.Event{Event: &halleyv1.Event_Closing{Closing: &halleyv1.Closing{Error: c.Told()}}}))
	}
	s.finish(c, final)
}

// Refuse answers a connection that can't be let in, and closes it. reply may be nil.
func (s *Session) Refuse(reply *outbox.Message, c Cause) {
	s.mu.Lock()
	if s.state != pending {
		s.mu.Unlock()
		return
	}
	s.host.Count.Discarded.Add(int64(s.q.Clear()))
	var final []*outbox.Message
	if reply != nil {
		final = append(final, reply)
	}
	s.finish(c, final)
}

// finish begins the end; s.mu is held and released.
func (s *Session) finish(c Cause, final []*outbox.Message) {
	if s.Transport.WS {
		code, reason := c.Code.Close, c.Code.Name
		if c.CloseCode != 0 {
			code, reason = max(c.CloseCode, 0), ""
		}
		final = append(final, outbox.NewClose(code, reason))
	}
	s.state = closing
	s.held = false
	if s.more != nil {
		s.more.heard, s.more.deferred = nil, nil
	}
	s.closeDue = Now() + int64(s.host.CloseGrace)
	s.redue(0)
	s.q.Finish(final...)
	s.wake()
	empty := s.q.Empty() && !s.writing
	if empty {
		s.state = shut
	}
	s.mu.Unlock()
	// Whoever ends leaves the table, so no scan looks at it again: a client that doesn't hang up is cut off by this.
	time.AfterFunc(s.host.CloseGrace, func() { s.CloseNow("close_grace") })
	reason := c.Reason
	if reason == "" {
		reason = c.Code.Name
	}
	s.host.Ended(s, reason)
	if empty {
		if s.raw != nil {
			s.shutdown()
			return
		}
		// TLS says goodbye by a write, which may have to wait.
		s.host.Background.Add(1)
		go func() {
			defer s.host.Background.Done()
			s.shutdown()
		}()
		return
	}
	s.Flush(nil)
}

// shutdown tells the client that nothing more comes. The socket is closed when the client hangs up too, or
// the grace has passed: closing it while the client's bytes are unread would reset the connection, and take
// what is on its way to the client with it.
func (s *Session) shutdown() {
	sock := s.sock()
	if t, ok := s.conn.(*tls.Conn); ok {
		sock.SetWriteDeadline(time.Now().Add(s.host.CloseGrace))
		t.CloseWrite()
	}
	if cw, ok := sock.(interface{ CloseWrite() error }); ok {
		cw.CloseWrite()
		return
	}
	sock.Close()
}

// CloseNow ends the session without a word.
func (s *Session) CloseNow(reason string) { s.abort(reason, false) }

// Overflowed ends a session that can't be told of the gap that its full outbox made.
func (s *Session) Overflowed() { s.abort("slow_consumer", true) }

// abort closes the socket; reset drops what the kernel holds of it too, instead of keeping it for a client
// that takes nothing.
func (s *Session) abort(reason string, reset bool) {
	s.mu.Lock()
	was := s.state
	s.state = closed
	n := s.q.Clear()
	if s.more != nil {
		s.more.heard, s.more.deferred, s.more.rest = nil, nil, nil
	}
	s.wake()
	s.mu.Unlock()
	if was == closed {
		return
	}
	s.host.Count.Discarded.Add(int64(n))
	if was < closing {
		s.host.Ended(s, reason)
	}
	sock := s.sock()
	if t, ok := sock.(*net.TCPConn); ok && reset {
		t.SetLinger(0)
	}
	sock.Close()
}

// Finished is called by the reader when it returns: the socket is closed, whoever waits is let go.
func (s *Session) Finished(reason string) {
	s.abort(reason, false)
	s.host.Closed(s)
}

var events = protojson.MarshalOptions{}

// Event makes a message of what the server tells a client on its own.
func Event(e *halleyv1.Event) *outbox.Message {
	return outbox.NewPush(frame.OpEvent, EventBody(e), outbox.RankUrgent, outbox.Control)
}

// EventBody encodes an event.
func EventBody(e *halleyv1.Event) []byte {
	body, err := events.Marshal(e)
	if err != nil {
		// The only way to fail: a text that isn't UTF-8, in an error that came from elsewhere.
		body, _ = events.Marshal(&halleyv1.Event{Event: &halleyv1.Event_Resync{Resync: &halleyv1.Resync{}}})
	}
	return body
}

var resync = sync.OnceValue(func() *outbox.Message {
	return Event(&halleyv1.Event{Event: &halleyv1.Event_Resync{Resync: &halleyv1.Resync{}}})
})

// ResyncEvent returns the event that says that something may have been missed.
func ResyncEvent() *outbox.Message { return resync() }

// Send queues an event and writes it at once, as far as the socket takes it. It returns false if the session
// has ended.
func (s *Session) Send(m *outbox.Message) bool {
	switch s.Enqueue(m, Now(), 0) {
	case Gone:
		return false
	case WriteNow, WriteLater:
		s.Flush(nil)
	case Overflow:
		s.Overflowed()
		return false
	}
	return true
}
