package machine

import (
	"slices"
	"time"

	"github.com/halley-im/halley/proto/errcode"
)

// Who gives a command. Session is his connection; Key is his session's key.
type Who struct {
	UID, Session, Key, Device, Platform string
}

// Callee is who is to be asked.
type Callee struct {
	UID string
	// Silent: he blocks who asks. Busy: he is in another call. Offline: he has no session.
	Silent, Busy, Offline bool
	// Guest: he is asked though he is no member of the group that calls.
	Guest bool
	// Branches are his devices that have a session.
	Branches []Branch
}

// Verb is what a command asks for.
type Verb int

// Verbs.
const (
	DoRinging Verb = iota + 1
	DoAccept
	DoDecline
	DoCancel
	DoConnected
	DoUpdate
	DoHangup
	DoLeaving
	DoAdd
	DoRemove
	DoHeartbeat
	DoEnd
)

// Command is what somebody wants.
type Command struct {
	Verb Verb
	// ID is its giver's; empty: none, and it may be repeated with effect.
	ID string
	By Who
	// Sends: accept and update.
	Sends Sends
	// Quiet: ringing. Take: accept. Busy: decline.
	Quiet, Take, Busy bool
	// Member: accept by somebody who is a member of the group that calls. Stranger: by somebody who isn't, or not any more.
	Member, Stranger bool
	// Admin: remove by an admin of the group that calls.
	Admin bool
	// Generation: connected, leaving, heartbeat.
	Generation uint32
	// Callees: add.
	Callees []Callee
	// UID: remove.
	UID string
}

// Stop says that sessions of a user must not ring.
type Stop struct {
	UID    string
	Reason string
	// Except is the key of a session that isn't told; Only of one that alone is.
	Except, Only string
}

// Step is what a step changed, that is, what is to be told.
type Step struct {
	// Changed: the call must be kept. Told: parties must hear of it, and Version has grown.
	Changed, Told bool
	// State: the whole call is told; else Leg alone.
	State bool
	Leg   *Leg
	// Ended: it is over now.
	Ended bool
	// Incoming are users to be asked, Wake those whom webhooks are to wake.
	Incoming, Wake []string
	Stops          []Stop
	// Unwake are woken ones for whom it is over, with why.
	Unwake []Stop
	// Audience are the users who hear of State, Leg or Ended.
	Audience []string
	// StateChanged: the state isn't what it was.
	StateChanged bool
	// First: it is active for the first time.
	First bool
}

// step is one under way.
type step struct {
	c    *Call
	p    *Policy
	now  int64
	out  Step
	legs map[string]bool // changed ones
	was  State
	live map[string]bool // before
	// notice: the whole call is to be told although its state is the same.
	whole bool
}

func begin(c *Call, now int64, p *Policy) *step {
	s := &step{c: c, p: p, now: now, legs: map[string]bool{}, was: c.State, live: map[string]bool{}}
	for _, l := range c.Legs {
		if l.Live() {
			s.live[l.UID] = true
		}
	}
	return s
}

func (s *step) after(d time.Duration) int64 { return s.now + d.Milliseconds() }

// touch marks a leg as changed in what others see.
func (s *step) touch(l *Leg) {
	s.legs[l.UID] = true
	s.out.Changed = true
}

// finish settles the call and says what is to be told.
func (s *step) finish() Step {
	s.settle()
	if s.c.State != s.was {
		s.out.StateChanged = true
		s.out.Changed = true
	}
	if len(s.legs) == 0 && !s.out.StateChanged && !s.whole {
		return s.out
	}
	s.out.Told = true
	s.c.Version++
	s.out.State = s.out.StateChanged || s.whole || len(s.legs) > 1
	s.out.Ended = s.out.StateChanged && !s.c.Live()
	for _, l := range s.c.Legs {
		if l.Silent {
			continue
		}
		if s.out.Ended || l.Live() || s.live[l.UID] {
			s.out.Audience = append(s.out.Audience, l.UID)
		}
		if !s.out.State && s.legs[l.UID] {
			m := *l
			s.out.Leg = &m
		}
	}
	if !s.out.State && s.out.Leg == nil {
		// A silent leg alone has changed: its caller still sees it.
		for _, l := range s.c.Legs {
			if s.legs[l.UID] {
				m := *l
				s.out.Leg = &m
			}
		}
	}
	return s.out
}

// Invite makes a call; the caller's leg has the session that asks.
type Invite struct {
	Tenant, ID, Kind, Media, Conversation string
	By                                    Who
	Sends                                 Sends
	Callees                               []Callee
	Resumed                               bool
}

// New returns the call that in makes, and what is to be told.
func New(in *Invite, now int64, p *Policy) (*Call, Step) {
	c := &Call{
		Tenant: in.Tenant, ID: in.ID, Kind: in.Kind, Media: in.Media, Conversation: in.Conversation, Caller: in.By.UID, State: Inviting,
		Created: now, Resumed: in.Resumed, Orders: 1, Limit: p.In,
	}
	s := begin(c, now, p)
	l := &Leg{
		UID: in.By.UID, State: LegAccepted, Session: in.By.Session, Key: in.By.Key, Device: in.By.Device, Platform: in.By.Platform, Generation: 1, Order: 1,
		Sends: Sends{Audio: in.Sends.Audio, Video: in.Sends.Video}, LeaseUntil: s.after(p.Lease),
	}
	c.Legs = append(c.Legs, l)
	s.touch(l)
	for i := range in.Callees {
		s.ask(&in.Callees[i])
	}
	s.whole = true
	return c, s.finish()
}

// ask makes, or takes up again, a callee's leg.
func (s *step) ask(e *Callee) {
	l := s.c.Leg(e.UID)
	if l == nil {
		l = &Leg{UID: e.UID}
		s.c.Legs = append(s.c.Legs, l)
	}
	s.touch(l)
	ring := s.p.Ring
	if s.c.Kind == KindGroup {
		ring = s.p.RingGroup
	}
	l.State, l.Reason, l.Silent, l.Woken, l.Delivered, l.RingAt, l.ReachUntil = LegInvited, "", e.Silent, false, false, 0, 0
	l.Branches, l.Guest = e.Branches[:min(len(e.Branches), mostBranches)], e.Guest
	l.RingUntil = s.after(ring)
	s.c.RingUntil = max(s.c.RingUntil, l.RingUntil)
	switch {
	case e.Silent:
		// Whom he blocks must not find out, not even by his being busy.
		l.Branches, l.RingAt = nil, s.after(s.p.PretendAfter)
		return
	case e.Busy:
		l.State, l.RingUntil, l.Branches = LegBusy, 0, nil
		return
	}
	s.out.Incoming = append(s.out.Incoming, e.UID)
	l.ReachUntil = s.after(s.p.Reach)
	if e.Offline {
		s.wake(l)
	}
}

// wake has webhooks wake the user. Where nobody listens to them he isn't waited for.
func (s *step) wake(l *Leg) {
	l.Woken = true
	s.out.Wake = append(s.out.Wake, l.UID)
	if s.p.Wake {
		l.ReachUntil = 0
	}
}

// mostCommands bounds the ids that are remembered of a leg: a client repeats its last ones, not those of an hour ago.
const mostCommands = 24

// Do takes a command at time now. Errors carry a code, and then nothing has changed. Who comes too late gets no error: he sees what is so.
func Do(c *Call, cmd *Command, now int64, p *Policy) (Step, error) {
	s := begin(c, now, p)
	l := c.Leg(cmd.By.UID)
	// A device that asks again since its connection was lost meanwhile hasn't got by that one what it asked for: the leg goes to its new one.
	lost := cmd.Verb == DoAccept && l != nil && l.In() && !l.Holds(cmd.By.Session) && l.Of(cmd.By)
	if l != nil && cmd.ID != "" && slices.Contains(l.Commands, cmd.ID) && !lost {
		return Step{}, nil
	}
	if cmd.Verb != DoEnd {
		if l != nil && l.Silent && !(cmd.Verb == DoAccept && cmd.Member) {
			// He isn't asked, as far as he knows.
			return Step{}, errcode.CallUnknown
		}
		if l == nil && !(cmd.Verb == DoAccept && cmd.Member && c.Kind == KindGroup) {
			return Step{}, errcode.Forbidden.Errorf("not asked to this call")
		}
	}
	if !c.Live() {
		return Step{}, nil
	}
	if err := s.do(l, cmd); err != nil {
		return Step{}, err
	}
	out := s.finish()
	if l = c.Leg(cmd.By.UID); l != nil && cmd.ID != "" {
		l.Commands = append(l.Commands, cmd.ID)
		if n := len(l.Commands) - mostCommands; n > 0 {
			l.Commands = slices.Delete(l.Commands, 0, n)
		}
		out.Changed = true
	}
	return out, nil
}

func (s *step) do(l *Leg, cmd *Command) error {
	switch cmd.Verb {
	case DoRinging:
		s.ringing(l, cmd)
	case DoAccept:
		return s.accept(l, cmd)
	case DoDecline:
		s.decline(l, cmd)
	case DoCancel:
		return s.cancel(l)
	case DoConnected, DoUpdate, DoLeaving, DoAdd:
		return s.hold(l, cmd)
	case DoHeartbeat:
		if l.Holds(cmd.By.Session) && l.Generation == cmd.Generation {
			s.renew(l)
		}
	case DoHangup:
		return s.hangup(l, cmd)
	case DoRemove:
		return s.remove(l, cmd)
	case DoEnd:
		s.end(EndedByHost)
	default:
		return errcode.UnknownMethod
	}
	return nil
}

// hold are the commands that need the leg.
func (s *step) hold(l *Leg, cmd *Command) error {
	if !l.Holds(cmd.By.Session) {
		return errcode.CallTaken
	}
	if (cmd.Verb == DoConnected || cmd.Verb == DoLeaving) && cmd.Generation != l.Generation {
		return errcode.CallTaken.Errorf("another generation has the leg")
	}
	switch cmd.Verb {
	case DoLeaving:
		s.away(l, s.p.Leaving)
		return nil
	case DoAdd:
		if err := s.add(cmd); err != nil {
			return err
		}
	case DoUpdate:
		if l.Sends != cmd.Sends {
			l.Sends = cmd.Sends
			s.touch(l)
		}
	}
	s.renew(l)
	if cmd.Verb == DoConnected && l.State == LegAccepted {
		l.State, l.MediaUntil = LegJoined, 0
		if l.Joined == 0 {
			l.Joined = s.now
		}
		s.touch(l)
	}
	return nil
}

// renew lengthens the lease, and brings an away leg back.
func (s *step) renew(l *Leg) {
	if l.State == LegAway {
		l.State, l.Was, l.AwayUntil = l.Was, "", 0
		s.touch(l)
	}
	// A heartbeat soon after another one isn't worth a write.
	if until := s.after(s.p.Lease); until-l.LeaseUntil > s.p.Lease.Milliseconds()/8 {
		l.LeaseUntil = until
		s.out.Changed = true
	}
}

func (s *step) away(l *Leg, grace time.Duration) {
	until := s.after(grace)
	if l.State == LegAway {
		if until < l.AwayUntil {
			l.AwayUntil = until
			s.out.Changed = true
		}
		return
	}
	l.Was, l.State, l.AwayUntil = l.State, LegAway, until
	s.touch(l)
}

func (s *step) ringing(l *Leg, cmd *Command) {
	if !l.Asked() {
		return
	}
	state := BranchRinging
	if cmd.Quiet {
		state = BranchDelivered
	}
	if b := l.branch(cmd.By); b.State != state {
		b.State = state
		s.out.Changed = true
	}
	if !l.Delivered {
		l.Delivered = true
		s.out.Changed = true
	}
	if l.State == LegInvited && !cmd.Quiet {
		l.State = LegRinging
		s.touch(l)
	}
}

// mostBranches bounds the devices that are kept of a callee.
const mostBranches = 32

// branch returns the one of a session, or of the device's session before.
func (l *Leg) branch(by Who) *Branch {
	for i := range l.Branches {
		b := &l.Branches[i]
		if b.Key == by.Key || by.Device != "" && b.Device == by.Device {
			b.Key = by.Key
			return b
		}
	}
	if len(l.Branches) >= mostBranches {
		return &Branch{}
	}
	l.Branches = append(l.Branches, Branch{Key: by.Key, Device: by.Device, Platform: by.Platform, State: BranchPending})
	return &l.Branches[len(l.Branches)-1]
}

func (s *step) accept(l *Leg, cmd *Command) error {
	switch {
	case l == nil:
		if len(s.c.Legs) >= s.p.Legs {
			return errcode.TooManyMembers
		}
		l = &Leg{UID: cmd.By.UID, State: LegInvited}
		if err := s.enter(l, cmd); err != nil {
			return err
		}
		s.c.Legs = append(s.c.Legs, l)
		return nil
	case l.Removed:
		return errcode.Forbidden.Errorf("removed from this call")
	case cmd.Stranger && !l.Guest:
		return errcode.NotMember
	case !l.In():
		if s.c.Kind == KindDirect && !l.Asked() {
			return nil
		}
		return s.enter(l, cmd)
	case l.Session == cmd.By.Session:
		s.renew(l)
	case cmd.Take || l.Of(cmd.By):
		s.take(l, cmd)
	}
	return nil
}

// enter lets somebody in who isn't.
func (s *step) enter(l *Leg, cmd *Command) error {
	if s.count((*Leg).In) >= s.c.Limit {
		return errcode.CallFull
	}
	if l.Asked() {
		s.stop(l, StopAnswered, cmd.By.Key)
		if b := l.branch(cmd.By); b.State != BranchWon {
			b.State, b.Reason = BranchWon, ""
		}
	}
	s.c.Orders++
	l.State, l.Reason, l.Silent, l.Order, l.Left = LegAccepted, "", false, s.c.Orders, 0
	l.Guest = l.Guest && !cmd.Member
	s.give(l, cmd)
	for _, o := range s.c.Legs {
		if (o.State == LegAccepted || o.State == LegAway && o.Was == LegAccepted) && o.MediaUntil == 0 {
			o.MediaUntil = s.after(s.p.Media)
		}
	}
	l.MediaUntil = s.after(s.p.Media)
	if s.c.EndsAt == 0 {
		s.c.EndsAt = s.after(s.p.Longest)
		s.c.NoticeAt = s.c.EndsAt - min(s.p.Notice, s.p.Longest/2).Milliseconds()
	}
	return nil
}

// give gives the leg to the session.
func (s *step) give(l *Leg, cmd *Command) {
	l.Session, l.Key, l.Device, l.Platform = cmd.By.Session, cmd.By.Key, cmd.By.Device, cmd.By.Platform
	l.Generation++
	l.Sends = Sends{Audio: cmd.Sends.Audio, Video: cmd.Sends.Video}
	l.LeaseUntil = s.after(s.p.Lease)
	s.touch(l)
}

// take gives the leg to another session of its user.
func (s *step) take(l *Leg, cmd *Command) {
	if l.Key != cmd.By.Key {
		// Else it is the same session by another connection: the one before is gone.
		s.out.Stops = append(s.out.Stops, Stop{UID: l.UID, Reason: StopTaken, Only: l.Key})
	}
	if l.State == LegAway {
		l.State, l.Was, l.AwayUntil = l.Was, "", 0
	}
	s.give(l, cmd)
}
