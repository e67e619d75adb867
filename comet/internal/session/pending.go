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

// heard is what a session keeps of pushes to all of a tenant while it isn't known whose it is. They are not in its outbox: another
// tenant's must not push its own out of there.
type heard struct {
	messages []*outbox.Message
	bytes    int
	// missed is what there was no room for, by tenant.
	missed map[string]outbox.Gap
}

// Authenticating says that the auth frame is there: the handshake is no longer the client's to end in time. From now on the
// session may be registered at router, and what is sent to all is sent to it too; before it was nobody.
func (s *Session) Authenticating() {
	s.due.Store(0)
	s.mu.Lock()
	s.asked = true
	s.mu.Unlock()
}

// Present reports whether the session is authenticated or about to be.
func (s *Session) Present() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == live || s.state == pending && s.asked
}

// Resyncable reports whether a resync means something to the session, as far as it is known yet who that is.
func (s *Session) Resyncable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == live && s.who.Signed || s.state == pending && s.asked && (!s.known() || s.who.Signed)
}

// hear keeps a push to all, at most as many bytes as an outbox may hold; s.mu is held.
func (s *Session) hear(m *outbox.Message) {
	if !s.asked {
		return
	}
	x := s.extra()
	if x.heard == nil {
		x.heard = &heard{missed: make(map[string]outbox.Gap)}
	}
	h := x.heard
	if h.bytes > 0 && h.bytes+m.Size() > s.host.OutboxBytes {
		g := h.missed[m.Tenant]
		if m.Class() == outbox.Stored {
			g.Resync = true
		} else {
			g.Dropped++
		}
		h.missed[m.Tenant] = g
		return
	}
	h.messages = append(h.messages, m)
	h.bytes += m.Size()
}

// recall puts what was heard and is meant for the session into its outbox, and returns how many messages that were; s.mu is held.
func (s *Session) recall() (n int) {
	if s.more == nil || s.more.heard == nil {
		return 0
	}
	h := s.more.heard
	s.more.heard = nil
	if s.state != pending {
		return 0
	}
	for _, m := range h.messages {
		if s.meant(m) {
			s.push(m)
			n++
		}
	}
	g := h.missed[s.who.Tenant]
	s.host.Count.DroppedVolatile.Add(int64(g.Dropped))
	if g.Resync {
		s.host.Count.ReplacedRest.Add(1)
	}
	s.q.Miss(g)
	return n
}

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
