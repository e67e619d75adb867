package e2e

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// RefusedError is an auth reply or reply that is an error.
type RefusedError struct{ Err *halleyv1.Error }

// Error names the code, and when to try again.
func (e *RefusedError) Error() string {
	text := "refused: " + e.Err.GetCode() + ": " + e.Err.GetMessage()
	if e.Err.GetRetry() {
		text += fmt.Sprintf(" (again after %d ms)", e.Err.GetRetryAfterMs())
	}
	return text
}

// Code returns the error code of a RefusedError, or "".
func Code(err error) string {
	var r *RefusedError
	if errors.As(err, &r) {
		return r.Err.GetCode()
	}
	return ""
}

// Session is a signed session. It has no goroutine; frames that came while something else was waited for are kept.
type Session struct {
	*Conn
	Auth *halleyv1.AuthReply

	kept []Frame
}

// Dial connects to a node over "tcp" or "ws".
func (n *Node) Dial(transport string) (*Conn, error) {
	if transport == "ws" {
		return DialWS(n.WS, "/sub", nil)
	}
	return DialTCP(n.TCP)
}

// Login connects and authenticates. A refusal is a RefusedError.
func (n *Node) Login(transport string, auth *halleyv1.Auth) (*Session, error) {
	c, err := n.Dial(transport)
	if err != nil {
		return nil, err
	}
	s, err := Authenticate(c, auth)
	if err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

// Authenticate sends the auth frame over a fresh connection and reads the reply, which must be the first frame.
func Authenticate(c *Conn, auth *halleyv1.Auth) (*Session, error) {
	body, err := protojson.Marshal(auth)
	if err != nil {
		return nil, err
	}
	if err := c.Send(frame.OpAuth, 1, body); err != nil {
		return nil, err
	}
	f, err := c.Next(15 * time.Second)
	if err != nil {
		return nil, fmt.Errorf("waiting for the auth reply: %w", err)
	}
	if f.Op != frame.OpAuthReply || f.Seq != 1 {
		return nil, fmt.Errorf("the first frame is %v, want the auth reply", f)
	}
	s := &Session{Conn: c, Auth: &halleyv1.AuthReply{}}
	if err := protojson.Unmarshal(f.Body, s.Auth); err != nil {
		return nil, fmt.Errorf("auth reply %s: %w", f.Body, err)
	}
	if e := s.Auth.GetError(); e != nil {
		return nil, &RefusedError{Err: e}
	}
	return s, nil
}

// Request sends a request and waits for its reply.
func (s *Session) Request(r *halleyv1.Request) (*halleyv1.Reply, error) {
	body, err := protojson.Marshal(r)
	if err != nil {
		return nil, err
	}
	return s.RequestRaw(frame.OpRequest, body)
}

// RequestRaw sends a body as a request and waits for its reply.
func (s *Session) RequestRaw(op frame.Op, body []byte) (*halleyv1.Reply, error) {
	seq := s.NextSeq() + 1
	if err := s.Send(op, seq, body); err != nil {
		return nil, err
	}
	f, err := s.await(waitTime, func(f Frame) bool { return f.Op == frame.OpReply && f.Seq == seq })
	if err != nil {
		return nil, fmt.Errorf("waiting for the reply: %w", err)
	}
	reply := &halleyv1.Reply{}
	if err := protojson.Unmarshal(f.Body, reply); err != nil {
		return nil, fmt.Errorf("reply %s: %w", f.Body, err)
	}
	if e := reply.GetError(); e != nil {
		return nil, &RefusedError{Err: e}
	}
	return reply, nil
}

// Join puts the session into a room.
func (s *Session) Join(room string) error {
	_, err := s.Request(&halleyv1.Request{Method: &halleyv1.Request_RoomJoin{RoomJoin: &halleyv1.RoomJoin{Room: room}}})
	return err
}

// Leave takes the session out of a room.
func (s *Session) Leave(room string) error {
	_, err := s.Request(&halleyv1.Request{Method: &halleyv1.Request_RoomLeave{RoomLeave: &halleyv1.RoomLeave{Room: room}}})
	return err
}

// Beat sends a heartbeat and waits for the answer.
func (s *Session) Beat() error {
	seq := s.NextSeq() + 1
	if err := s.Send(frame.OpHeartbeat, seq, nil); err != nil {
		return err
	}
	_, err := s.await(waitTime, func(f Frame) bool { return f.Op == frame.OpHeartbeatReply && f.Seq == seq })
	return err
}

// Await returns the first frame, of those kept or to come, for which want says yes; the others are kept.
func (s *Session) Await(limit time.Duration, want func(Frame) bool) (Frame, error) {
	for i, f := range s.kept {
		if want(f) {
			s.kept = append(s.kept[:i:i], s.kept[i+1:]...)
			return f, nil
		}
	}
	return s.await(limit, want)
}

func (s *Session) await(limit time.Duration, want func(Frame) bool) (Frame, error) {
	for end := time.Now().Add(limit); ; {
		f, err := s.Conn.Next(time.Until(end))
		if err != nil {
			return Frame{}, err
		}
		if want(f) {
			return f, nil
		}
		s.kept = append(s.kept, f)
	}
}

// AwaitPush returns the body of the next push of op.
func (s *Session) AwaitPush(limit time.Duration, op frame.Op) ([]byte, error) {
	f, err := s.Await(limit, func(f Frame) bool { return f.Op == op })
	return f.Body, err
}

// AwaitEvent returns the next event for which want says yes.
func (s *Session) AwaitEvent(limit time.Duration, want func(*halleyv1.Event) bool) (*halleyv1.Event, error) {
	var got *halleyv1.Event
	_, err := s.Await(limit, func(f Frame) bool {
		if f.Op != frame.OpEvent {
			return false
		}
		e, err := ParseEvent(f.Body)
		if err == nil && want(e) {
			got = e
			return true
		}
		return false
	})
	return got, err
}

// ParseEvent reads the body of an op 102.
func ParseEvent(body []byte) (*halleyv1.Event, error) {
	e := &halleyv1.Event{}
	if err := protojson.Unmarshal(body, e); err != nil {
		return nil, fmt.Errorf("event %.200s: %w", body, err)
	}
	return e, nil
}

// AwaitClose reads until the server closes the connection, and returns the error of the closing event that came before, if
// any.
func (s *Session) AwaitClose(limit time.Duration) (*halleyv1.Error, error) {
	var why *halleyv1.Error
	for end := time.Now().Add(limit); ; {
		f, err := s.Conn.Next(time.Until(end))
		if errors.Is(err, ErrTimeout) {
			return why, err
		}
		if err != nil {
			if !Closed(err) {
				return why, err
			}
			return why, nil
		}
		if f.Op == frame.OpEvent {
			if e, err := ParseEvent(f.Body); err == nil && e.GetClosing() != nil {
				why = e.GetClosing().GetError()
			}
		}
	}
}
