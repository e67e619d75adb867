package machine_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/halley-im/halley/logic/internal/call/machine"
)

var (
	seed = flag.Uint64("machine.seed", 0, "seed of the random histories; 0: by the time")
	runs = flag.Int("machine.runs", 1200, "random histories")
)

func policy() machine.Policy {
	return machine.Policy{
		Reach: 10 * time.Second, Ring: 45 * time.Second, RingGroup: 60 * time.Second, Media: 20 * time.Second, Lease: 25 * time.Second,
		Away: 30 * time.Second, Leaving: 5 * time.Second, Empty: 30 * time.Second, Longest: 4 * time.Hour, Notice: time.Minute,
		PretendAfter: time.Second, In: 6, Legs: 12,
	}
}

// history is one call under random commands, with what its parties were told.
type history struct {
	t     *testing.T
	rnd   *rand.Rand
	p     machine.Policy
	c     *machine.Call
	now   int64
	steps []string
	// rings: who was asked and wasn't told to stop. woken: whom webhooks were to wake, and not told that it is over.
	rings, woken map[string]bool
	ended        int
	generation   map[string]uint32
}

func (h *history) fail(format string, args ...any) {
	h.t.Helper()
	for _, s := range h.steps {
		h.t.Log(s)
	}
	h.t.Fatalf(format, args...)
}

func (h *history) device(uid string) machine.Who {
	n := h.rnd.IntN(3)
	return machine.Who{UID: uid, Session: fmt.Sprintf("%s-s%d", uid, h.rnd.IntN(2)*3+n), Key: fmt.Sprintf("%s-k%d", uid, n), Device: fmt.Sprintf("%s-d%d", uid, n)}
}

func (h *history) callee(uid string) machine.Callee {
	return machine.Callee{UID: uid, Silent: h.rnd.IntN(12) == 0, Busy: h.rnd.IntN(12) == 0, Offline: h.rnd.IntN(4) == 0}
}

// told checks a step that was taken on c before.
func (h *history) told(what string, before *machine.Call, s machine.Step) {
	h.t.Helper()
	c := h.c
	h.steps = append(h.steps, fmt.Sprintf("%6.1f %s: %s v%d %s", float64(h.now)/1000, what, c.State, c.Version, legs(c)))
	for _, uid := range s.Incoming {
		h.rings[uid] = true
	}
	for _, uid := range s.Wake {
		h.woken[uid] = true
	}
	for _, st := range s.Stops {
		if st.Only == "" {
			delete(h.rings, st.UID)
		}
	}
	for _, st := range s.Unwake {
		delete(h.woken, st.UID)
	}
	if s.Ended {
		h.ended++
	}
	if h.ended > 1 || (h.ended == 1) != !c.Live() {
		h.fail("ended %d times, state %s", h.ended, c.State)
	}
	if before != nil {
		grown := c.Version - before.Version
		if s.Told && grown != 1 || !s.Told && grown != 0 {
			h.fail("told %v, but the version grew by %d", s.Told, grown)
		}
		if !before.Live() && s.Changed {
			h.fail("an ended call changed")
		}
		if seen(before) != seen(c) && !s.Told {
			h.fail("nobody was told of %s → %s", seen(before), seen(c))
		}
		for _, l := range c.Legs {
			if was := before.Leg(l.UID); was != nil && was.In() && l.In() && was.Session != l.Session && l.Generation <= was.Generation {
				h.fail("%s's leg went to another session in generation %d", l.UID, l.Generation)
			}
		}
	}
	h.check()
}

// seen is what parties see.
func seen(c *machine.Call) string { return fmt.Sprint(c.State, c.Reason, c.Kind, c.Ending, legs(c)) }

func legs(c *machine.Call) string {
	out := ""
	for _, l := range c.Legs {
		out += fmt.Sprintf(" %s=%s/%d/%d/%v", l.UID, l.State, l.Generation, l.Order, l.Sends)
	}
	return out
}

// others reports whether somebody else is in.
func others(c *machine.Call, l *machine.Leg) bool {
	return slices.ContainsFunc(c.Legs, func(o *machine.Leg) bool { return o != l && o.In() })
}

func (h *history) check() {
	h.t.Helper()
	c := h.c
	uids, orders := map[string]bool{}, map[uint32]bool{}
	in, joined := 0, 0
	for _, l := range c.Legs {
		if uids[l.UID] {
			h.fail("%s has two legs", l.UID)
		}
		uids[l.UID] = true
		if l.Generation < h.generation[l.UID] {
			h.fail("%s's generation fell", l.UID)
		}
		h.generation[l.UID] = l.Generation
		if l.In() {
			in++
			if l.Order == 0 || orders[l.Order] {
				h.fail("%s's order %d is another's", l.UID, l.Order)
			}
			orders[l.Order] = true
			if l.Generation == 0 || l.Session == "" {
				h.fail("%s is in by no session", l.UID)
			}
		}
		if l.State == machine.LegJoined {
			joined++
		}
		won := 0
		for _, b := range l.Branches {
			if b.State == machine.BranchWon {
				won++
			}
		}
		if won > 1 {
			h.fail("%s answered on %d devices", l.UID, won)
		}
		if h.rings[l.UID] && !l.Asked() {
			h.fail("%s still rings as %s", l.UID, l.State)
		}
		if (l.State == machine.LegAccepted || l.Was == machine.LegAccepted) && l.MediaUntil == 0 && c.Live() && others(c, l) {
			h.fail("%s is waited for without end", l.UID)
		}
		if h.woken[l.UID] && !l.Asked() {
			h.fail("%s's phone still wakes as %s", l.UID, l.State)
		}
		if !c.Live() && l.Live() {
			h.fail("the call is over, %s is %s", l.UID, l.State)
		}
	}
	// No timer is lost: whatever must happen to a leg by itself, the call is looked at by then.
	for _, l := range c.Legs {
		until := map[machine.LegState]int64{
			machine.LegInvited: l.RingUntil, machine.LegRinging: l.RingUntil, machine.LegAccepted: l.LeaseUntil, machine.LegJoined: l.LeaseUntil, machine.LegAway: l.AwayUntil,
		}[l.State]
		if l.Live() && (until == 0 || c.Due() > until) {
			h.fail("%s is %s until %d, the call is due at %d", l.UID, l.State, until, c.Due())
		}
	}
	if due := c.Due(); due-1 > h.now {
		if s := machine.Tick(c.Clone(), due-1, &h.p); s.Changed {
			h.fail("due at %d, and something was due before", due)
		}
	}
	if in > c.Limit {
		h.fail("%d are in", in)
	}
	if c.Live() && (c.State == machine.Active) != (joined >= 2) {
		h.fail("%s with %d joined", c.State, joined)
	}
	if c.Live() && c.Due() == 0 {
		h.fail("a live call that is never looked at")
	}
	if !c.Live() && (c.Due() != 0 || c.Reason == "" || c.EndedAt == 0) {
		h.fail("ended, due %d, reason %q", c.Due(), c.Reason)
	}
}

func (h *history) do(cmd *machine.Command, what string) {
	before := h.c.Clone()
	s, err := machine.Do(h.c, cmd, h.now, &h.p)
	if err != nil {
		if fmt.Sprint(*before) != fmt.Sprint(*h.c.Clone()) && seen(before) != seen(h.c) {
			h.fail("%s was refused (%v) and changed the call", what, err)
		}
		h.steps = append(h.steps, fmt.Sprintf("%6.1f %s: %v", float64(h.now)/1000, what, err))
		return
	}
	h.told(what, before, s)
	for _, l := range h.c.Legs {
		was := before.Leg(l.UID)
		if was == nil || !was.In() || !l.In() || was.Session == l.Session {
			continue
		}
		if cmd.Verb != machine.DoAccept || l.Session != cmd.By.Session || !cmd.Take && (was.Device == "" || was.Device != l.Device) {
			h.fail("%s took %s's leg from %s", l.Session, l.UID, was.Session)
		}
	}
	if cmd.ID == "" || h.rnd.IntN(3) > 0 {
		return
	}
	// A repeat has no further effect.
	before = h.c.Clone()
	if s, err = machine.Do(h.c, cmd, h.now, &h.p); err != nil || s.Changed || s.Told {
		h.fail("%s repeated: %+v, %v", what, s, err)
	}
	h.told("repeat", before, s)
}

func (h *history) tick() {
	before := h.c.Clone()
	h.told("tick", before, machine.Tick(h.c, h.now, &h.p))
	if due := h.c.Due(); due != 0 && due <= h.now {
		h.fail("due at %d was not done at %d", due, h.now)
	}
}

func (h *history) random(n int) {
	uids := []string{"ann", "bob", "cy", "dee", "eve", "fay", "gus", "hal"}
	uid := uids[h.rnd.IntN(len(uids))]
	if h.rnd.IntN(2) == 0 {
		uid = uids[h.rnd.IntN(2)]
	}
	cmd := &machine.Command{Verb: machine.Verb(1 + h.rnd.IntN(int(machine.DoHeartbeat))), By: h.device(uid), ID: fmt.Sprint("c", n)}
	if l := h.c.Leg(uid); l != nil && h.rnd.IntN(3) > 0 {
		cmd.Generation = l.Generation
		if l.Session != "" {
			cmd.By.Session, cmd.By.Key, cmd.By.Device = l.Session, l.Key, l.Device
		}
	}
	// Else hardly any call becomes an active one: two people must have answered, and then say so, by their own sessions.
	for _, l := range h.c.Legs {
		if l.State == machine.LegAccepted && h.rnd.IntN(3) == 0 {
			cmd.Verb, cmd.Generation = machine.DoConnected, l.Generation
			cmd.By = machine.Who{UID: l.UID, Session: l.Session, Key: l.Key, Device: l.Device}
			break
		}
	}
	cmd.Take, cmd.Quiet, cmd.Busy = h.rnd.IntN(4) == 0, h.rnd.IntN(4) == 0, h.rnd.IntN(4) == 0
	cmd.Member, cmd.Admin = h.rnd.IntN(4) == 0, h.rnd.IntN(4) == 0
	cmd.Sends = machine.Sends{Audio: h.rnd.IntN(2) == 0, Video: h.rnd.IntN(2) == 0}
	cmd.UID = uids[h.rnd.IntN(len(uids))]
	switch cmd.Verb {
	case machine.DoAdd:
		for range 1 + h.rnd.IntN(3) {
			e := h.callee(uids[h.rnd.IntN(len(uids))])
			if e.UID != uid {
				cmd.Callees = append(cmd.Callees, e)
			}
		}
	case machine.DoHeartbeat:
		cmd.ID = ""
	case machine.DoHangup, machine.DoCancel, machine.DoRemove:
		// Else most calls are short.
		if h.rnd.IntN(3) > 0 {
			return
		}
	}
	h.do(cmd, fmt.Sprintf("%s does %d", cmd.By.Session, cmd.Verb))
}

// TestRandomHistories holds the machine to its invariants: one end, one winner, nobody has two legs, nothing that is seen changes untold, no
// timer is lost, nobody rings or is woken for ever.
func TestRandomHistories(t *testing.T) {
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	states := map[machine.State]int{}
	reasons := map[machine.Reason]int{}
	for i := range *runs {
		h := &history{
			t: t, rnd: rand.New(rand.NewPCG(first+uint64(i), 1)), p: policy(), now: 1000, rings: map[string]bool{}, woken: map[string]bool{},
			generation: map[string]uint32{},
		}
		h.steps = append(h.steps, fmt.Sprintf("seed %d", first+uint64(i)))
		h.p.Wake = h.rnd.IntN(2) == 0
		if h.rnd.IntN(4) == 0 {
			h.p.Longest, h.p.Notice = 25*time.Second, 8*time.Second
		}
		if h.rnd.IntN(4) == 0 {
			h.p.Empty = 3 * time.Second
		}
		if h.rnd.IntN(2) == 0 {
			h.p.In = 2 + h.rnd.IntN(2)
		}
		in := &machine.Invite{Tenant: "t", ID: "c", Kind: machine.KindDirect, Media: "video", By: h.device("ann"), Callees: []machine.Callee{h.callee("bob")}}
		if h.rnd.IntN(2) == 0 {
			in.Kind = machine.KindGroup
			in.Callees = append(in.Callees, h.callee("cy"), h.callee("dee"))
		}
		c, s := machine.New(in, h.now, &h.p)
		h.c = c
		h.told("invite", nil, s)
		for n := range 40 {
			if h.rnd.IntN(3) == 0 {
				h.now += h.rnd.Int64N(15_000)
				if due := h.c.Due(); due != 0 && due <= h.now {
					h.tick()
				}
			}
			h.random(n)
			states[h.c.State]++
		}
		// Everybody falls silent: it ends by itself.
		for n := 0; h.c.Live(); n++ {
			if n > 100 {
				h.fail("does not end")
			}
			h.now = max(h.now, h.c.Due())
			h.tick()
		}
		before := h.c.Clone()
		h.now += time.Hour.Milliseconds()
		h.told("after the end", before, machine.Tick(h.c, h.now, &h.p))
		if len(h.rings)+len(h.woken) > 0 {
			h.fail("over, and %v ring, %v are woken", h.rings, h.woken)
		}
		reasons[h.c.Reason]++
	}
	for _, s := range []machine.State{machine.Inviting, machine.Ringing, machine.Connecting, machine.Active, machine.Reconnecting, machine.Ended} {
		if states[s] == 0 {
			t.Errorf("no history came to %s: %v", s, states)
		}
	}
	for _, r := range []machine.Reason{
		machine.Completed, machine.Declined, machine.Busy, machine.NoAnswer, machine.Cancelled, machine.Unreachable, machine.FailedMedia, machine.ConnectionLost,
	} {
		if reasons[r] == 0 {
			t.Errorf("no history ended as %s: %v", r, reasons)
		}
	}
}
