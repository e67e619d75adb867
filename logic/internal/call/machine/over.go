package machine

import (
	"cmp"
	"slices"

	"github.com/halley-im/halley/proto/errcode"
)

// stop has all devices of an asked user stop but one.
func (s *step) stop(l *Leg, reason, except string) {
	s.out.Stops = append(s.out.Stops, Stop{UID: l.UID, Reason: reason, Except: except})
	for i := range l.Branches {
		if b := &l.Branches[i]; b.Key != except {
			b.State, b.Reason = BranchStopped, reason
		}
	}
	if l.Woken {
		s.out.Unwake = append(s.out.Unwake, Stop{UID: l.UID, Reason: reason})
		l.Woken = false
	}
	l.RingAt, l.ReachUntil, l.RingUntil = 0, 0, 0
}

// refuse ends an asked leg.
func (s *step) refuse(l *Leg, state LegState, reason, except string) {
	if l.Silent {
		l.RingAt, l.ReachUntil, l.RingUntil = 0, 0, 0
	} else {
		s.stop(l, reason, except)
	}
	l.State = state
	s.touch(l)
}

// leave ends a leg that is in.
func (s *step) leave(l *Leg, reason string) {
	l.State, l.Was, l.Reason, l.Left = LegLeft, "", reason, s.now
	l.MediaUntil, l.LeaseUntil, l.AwayUntil = 0, 0, 0
	s.touch(l)
}

func (s *step) decline(l *Leg, cmd *Command) {
	if !l.Asked() {
		return
	}
	state := LegDeclined
	if cmd.Busy {
		state = LegBusy
	}
	s.refuse(l, state, StopDeclined, cmd.By.Key)
}

// unanswered reports whether nobody but the caller is or was in.
func (s *step) unanswered() bool {
	return s.c.Activated == 0 && (s.c.State == Inviting || s.c.State == Ringing)
}

func (s *step) cancel(l *Leg) error {
	if l.UID != s.c.Caller {
		return errcode.Forbidden.Errorf("only the caller cancels")
	}
	if s.unanswered() {
		s.end(Cancelled)
	}
	return nil
}

func (s *step) hangup(l *Leg, cmd *Command) error {
	switch {
	case l.Asked():
		s.decline(l, cmd)
	case l.In() && l.UID == s.c.Caller && s.unanswered():
		return s.cancel(l)
	case l.Holds(cmd.By.Session):
		s.leave(l, LeftHangup)
	case l.In():
		return errcode.CallTaken
	}
	return nil
}

func (s *step) remove(l *Leg, cmd *Command) error {
	if l.Removed {
		return errcode.Forbidden.Errorf("removed from this call")
	}
	if cmd.UID == l.UID || l.UID != s.c.Caller && !(cmd.Admin && s.c.Kind == KindGroup) {
		return errcode.Forbidden.Errorf("only the caller, and admins of the group, remove others")
	}
	o := s.c.Leg(cmd.UID)
	if o == nil {
		return errcode.NotFound.Errorf("not in this call")
	}
	o.Removed = true
	s.out.Changed = true
	switch {
	case o.Asked():
		s.refuse(o, LegCancelled, StopRemoved, "")
	case o.In():
		s.out.Stops = append(s.out.Stops, Stop{UID: o.UID, Reason: StopRemoved})
		s.leave(o, LeftRemoved)
	}
	return nil
}

func (s *step) add(cmd *Command) error {
	n := len(s.c.Legs)
	for i := range cmd.Callees {
		if s.c.Leg(cmd.Callees[i].UID) == nil {
			n++
		}
	}
	if n > s.p.Legs {
		return errcode.TooManyMembers
	}
	for i := range cmd.Callees {
		e := &cmd.Callees[i]
		if o := s.c.Leg(e.UID); o != nil && o.Live() {
			continue
		}
		s.c.Kind = KindGroup
		s.ask(e)
		s.c.Leg(e.UID).Removed = false
		s.whole = true
	}
	return nil
}

func (s *step) count(is func(*Leg) bool) int {
	n := 0
	for _, l := range s.c.Legs {
		if is(l) {
			n++
		}
	}
	return n
}

func (s *step) any(state LegState) bool {
	return slices.ContainsFunc(s.c.Legs, func(l *Leg) bool { return l.State == state })
}

// Tick does what is due at time now.
func Tick(c *Call, now int64, p *Policy) Step {
	if !c.Live() {
		return Step{}
	}
	s := begin(c, now, p)
	s.tick()
	return s.finish()
}

func (s *step) tick() {
	past := func(at int64) bool { return at > 0 && at <= s.now }
	c := s.c
	if past(c.EndsAt) {
		s.end(Completed)
		return
	}
	if past(c.NoticeAt) && !c.Ending {
		c.Ending, s.whole, s.out.Changed = true, true, true
	}
	// Who came last goes first: who waits for others meanwhile isn't to be put out for what one of them could not do.
	legs := slices.Clone(c.Legs)
	slices.SortStableFunc(legs, func(a, b *Leg) int { return cmp.Compare(b.Order, a.Order) })
	for _, l := range legs {
		if l.Asked() {
			s.tickAsked(l, past)
		}
		if l.State == LegAway && past(l.AwayUntil) {
			s.leave(l, LeftLost)
		}
		if (l.State == LegAccepted || l.State == LegAway && l.Was == LegAccepted) && past(l.MediaUntil) {
			if s.count((*Leg).In) > 1 {
				s.leave(l, LeftMedia)
			} else {
				l.MediaUntil, s.out.Changed = 0, true
			}
		}
		if (l.State == LegAccepted || l.State == LegJoined) && past(l.LeaseUntil) {
			s.away(l, s.p.Away)
		}
	}
	if past(c.EmptyUntil) {
		reason := Completed
		if c.Activated == 0 {
			reason = Cancelled
		}
		s.end(reason)
	}
}

func (s *step) tickAsked(l *Leg, past func(int64) bool) {
	switch {
	case past(l.RingUntil):
		s.refuse(l, LegMissed, StopTimeout, "")
	case past(l.ReachUntil) && !l.Delivered:
		if s.p.Wake && !l.Woken {
			// His session may be a dead phone's: wake it after all.
			s.wake(l)
			s.out.Changed = true
			return
		}
		s.refuse(l, LegUnreachable, StopTimeout, "")
	case past(l.RingAt) && l.State == LegInvited:
		l.State, l.RingAt = LegRinging, 0
		s.touch(l)
	}
}

// settle finds the call's state from its legs', and its end.
func (s *step) settle() {
	c := s.c
	if !c.Live() {
		return
	}
	if reason := s.over(); reason != "" {
		s.end(reason)
		return
	}
	in, joined := s.count((*Leg).In), s.count(func(l *Leg) bool { return l.State == LegJoined })
	switch {
	case c.Activated > 0 && joined < 2:
		c.State = Reconnecting
	case joined >= 2:
		c.State = Active
		if c.Activated == 0 {
			c.Activated = s.now
			s.out.First = true
		}
	case in >= 2:
		c.State = Connecting
	case s.any(LegRinging) || c.State == Ringing:
		// Once it has rung the caller hears that until it is over.
		c.State = Ringing
	case c.State == Connecting:
		c.State = Ringing
	default:
		c.State = Inviting
	}
	there := s.count(func(l *Leg) bool { return l.State == LegAccepted || l.State == LegJoined })
	switch {
	case there > 0 && c.EmptyUntil > 0:
		c.EmptyUntil, s.out.Changed = 0, true
	case there == 0 && c.EmptyUntil == 0 && c.Kind == KindGroup:
		c.EmptyUntil, s.out.Changed = s.after(s.p.Empty), true
	}
}

// over returns why the call is over; empty: it isn't.
func (s *step) over() Reason {
	if s.c.Kind == KindDirect {
		return s.directOver()
	}
	in, asked := s.count((*Leg).In), s.count((*Leg).Asked)
	switch {
	case in == 0 && (s.c.Activated == 0 || asked == 0):
		if s.c.Activated > 0 {
			return Completed
		}
		if s.lost(LeftMedia) {
			return FailedMedia
		}
		return Cancelled
	case in <= 1 && asked == 0:
		if s.c.Activated > 0 {
			return Completed
		}
		return s.refusal()
	}
	return ""
}

func (s *step) lost(reason string) bool {
	return slices.ContainsFunc(s.c.Legs, func(l *Leg) bool { return l.State == LegLeft && l.Reason == reason })
}

// refusal is why nobody came to a group's call.
func (s *step) refusal() Reason {
	if s.lost(LeftMedia) {
		return FailedMedia
	}
	if s.lost(LeftLost) {
		return ConnectionLost
	}
	all := func(state LegState) bool {
		n := s.count(func(l *Leg) bool { return l.UID != s.c.Caller && l.State == state })
		return n > 0 && n == s.count(func(l *Leg) bool { return l.UID != s.c.Caller })
	}
	for state, reason := range map[LegState]Reason{LegDeclined: Declined, LegBusy: Busy, LegUnreachable: Unreachable} {
		if all(state) {
			return reason
		}
	}
	if s.any(LegMissed) || s.any(LegUnreachable) {
		return NoAnswer
	}
	if s.any(LegDeclined) || s.any(LegBusy) {
		return Declined
	}
	return Completed
}

func (s *step) directOver() Reason {
	for _, l := range s.c.Legs {
		switch l.State {
		case LegDeclined:
			return Declined
		case LegBusy:
			return Busy
		case LegMissed:
			return NoAnswer
		case LegUnreachable:
			return Unreachable
		case LegCancelled:
			return Cancelled
		case LegLeft:
			switch {
			case l.Reason == LeftMedia:
				return FailedMedia
			case s.unanswered() && l.UID == s.c.Caller:
				return Cancelled
			case l.Reason == LeftLost:
				return ConnectionLost
			}
			return Completed
		}
	}
	return ""
}

// end ends the call, and whatever legs are live.
func (s *step) end(reason Reason) {
	c := s.c
	if !c.Live() {
		return
	}
	state, stop := LegCancelled, StopEnded
	switch reason {
	case Cancelled:
		stop = StopCancelled
	case NoAnswer:
		state, stop = LegMissed, StopTimeout
	case Completed, ConnectionLost, FailedMedia:
		state = LegMissed
	}
	for _, l := range c.Legs {
		switch {
		case l.Asked():
			s.refuse(l, state, stop, "")
		case l.In():
			s.leave(l, LeftEnded)
		}
	}
	c.State, c.Reason, c.EndedAt, c.EmptyUntil = Ended, reason, s.now, 0
	s.out.Changed = true
}
