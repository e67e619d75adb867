package session

import (
	"errors"

	"github.com/halley-im/halley/comet/internal/outbox"
)

// maxDeferred bounds the controls that wait for one session's log-in. It is no setting: a log-in takes milliseconds, in which a
// session is the target of one or two; more come only while logic hangs, and then the client is better off logging in anew.
const maxDeferred = 64

// What WhenLive may answer.
var (
	// ErrEnded: the session has ended.
	ErrEnded = errors.New("session has ended")
	// ErrTooManyControls: as many wait for the session's log-in as may. The caller closes it: a control is never lost for a session
	// that stays.
	ErrTooManyControls = errors.New("too many controls wait for a log-in")
)

// Open makes the session live: reply is the first thing that the client sees, then what queued up for it. It
// returns false if the session has ended meanwhile.
func (s *Session) Open(reply *outbox.Message) bool {
	now := Now()
	s.mu.Lock()
	if s.state != pending {
		s.mu.Unlock()
		return false
	}
	s.state = live
	s.held = false
	unaccepted := s.q.Retain(s.wants)
	s.q.Push(reply, s.host.OutboxBytes)
	s.alive.Store(now)
	s.redue(now)
	catch := s.more != nil && len(s.more.deferred) > 0
	if catch {
		s.more.catching = true
	}
	gap := !s.who.Signed && s.q.HasGap()
	s.mu.Unlock()
	s.host.Unaccepted(unaccepted)
	if gap {
		s.Overflowed()
		return false
	}
	s.Flush(nil)
	if catch {
		s.catchUp()
	}
	return true
}

// catchUp carries out what was deferred, in its order; what comes meanwhile queues behind it.
func (s *Session) catchUp() {
	for {
		s.mu.Lock()
		list := s.more.deferred
		s.more.deferred = nil
		s.more.catching = len(list) > 0
		s.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for _, f := range list {
			f()
		}
	}
}

// WhenLive calls f now, or, if the session isn't authenticated yet, once it is, in the order of the calls: controls need to know
// who it is. It returns ErrEnded or ErrTooManyControls if f won't be called.
func (s *Session) WhenLive(f func()) error {
	s.mu.Lock()
	switch {
	case s.state >= closing:
		s.mu.Unlock()
		return ErrEnded
	case s.state == live && (s.more == nil || !s.more.catching):
		s.mu.Unlock()
		f()
		return nil
	}
	defer s.mu.Unlock()
	x := s.extra()
	if len(x.deferred) >= maxDeferred {
		return ErrTooManyControls
	}
	x.deferred = append(x.deferred, f)
	return nil
}
