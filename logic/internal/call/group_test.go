package call_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/proto/errcode"
)

// teaTime is a group and a device for each of its members.
func teaTime(t *testing.T, n int, change ...func(*call.Config)) (*world, []*device) {
	t.Helper()
	w := newWorld(t, change...)
	var ds []*device
	for i := range n {
		uid := fmt.Sprintf("u%d", i)
		w.groups[tea] = append(w.groups[tea], uid)
		ds = append(ds, w.device(uid, uid+"-phone"))
	}
	return w, ds
}

func (d *device) callGroup() string {
	d.w.t.Helper()
	r, err := d.invite(call.Invitation{Conversation: tea})
	if err != nil {
		d.w.t.Fatal(err)
	}
	return r.Call.Call
}

// join accepts and is connected.
func (d *device) join(id string) *call.Reply {
	d.w.t.Helper()
	r := d.accept(id)
	return d.connected(id, r.Generation)
}

func TestGroupLateJoinAndLeave(t *testing.T) {
	t.Parallel()
	w, d := teaTime(t, 4)
	id := d[0].callGroup()
	for _, x := range d[1:] {
		x.wait("call.incoming", nil)
	}
	d[1].verb(id, machine.DoRinging)
	d[2].verb(id, machine.DoDecline)
	d[3].wait("call.leg", func(e *event) bool { return e.Body.Leg.UID == "u2" && e.Body.Leg.State == machine.LegDeclined })
	d[0].connected(id, 1)
	if r := d[1].join(id); r.Call.State != machine.Active {
		t.Errorf("it is %s", r.Call.State)
	}
	w.beats(id, d[0], d[1], d[2], d[3])
	// Who has declined comes late all the same, by the conversation's call.
	now, err := d[2].node.Current(context.Background(), d[2].who(), tea)
	if err != nil || len(now.Calls) != 1 || now.Calls[0].Call.Call != id || now.Calls[0].Rings {
		t.Fatalf("the group's call: %+v, %v", now, err)
	}
	if r := d[2].join(id); r.Call.Legs[2].Order != 3 {
		t.Errorf("late: %+v", r.Call.Legs[2])
	}
	// So does who calls the group while it talks.
	if r, err := d[3].invite(call.Invitation{Conversation: tea}); err != nil || r.Call.Call != id || r.Generation != 1 {
		t.Errorf("calls the group: %+v, %v", r, err)
	}
	d[1].verb(id, machine.DoHangup)
	d[0].wait("call.leg", func(e *event) bool { return e.Body.Leg.UID == "u1" && e.Body.Leg.Reason == machine.LeftHangup })
	if r := d[1].accept(id); r.Generation != 2 || w.leg(id, "u1").Order != 5 {
		t.Errorf("comes again: %+v", r)
	}
	// A stranger has no business there.
	eve := w.device("eve", "e")
	_, err = eve.try(id, machine.Command{Verb: machine.DoAccept})
	wantCode(t, err, errcode.Forbidden)
	_, err = eve.node.Current(context.Background(), eve.who(), tea)
	wantCode(t, err, errcode.NotMember)
	_, err = eve.invite(call.Invitation{Conversation: tea})
	wantCode(t, err, errcode.NotMember)
	for _, x := range d[1:] {
		x.verb(id, machine.DoHangup)
	}
	d[0].waitEnd(id, machine.Completed)
	w.free()
}

func TestGroupGoesOnWhenItsHostLeaves(t *testing.T) {
	t.Parallel()
	w, d := teaTime(t, 3)
	id := d[0].callGroup()
	d[0].connected(id, 1)
	d[1].join(id)
	d[2].join(id)
	d[0].verb(id, machine.DoHangup)
	if s := w.get(id).State; s != machine.Active {
		t.Errorf("it is %s without its host", s)
	}
	d[1].verb(id, machine.DoHangup)
	d[2].waitEnd(id, machine.Completed)
	w.free()
}

// A ghost, whose process was killed, is away, then gone; the last but one who goes ends the call.
func TestGroupGhostAfterKill(t *testing.T) {
	t.Parallel()
	w, d := teaTime(t, 3, func(c *call.Config) { c.Lease, c.Away = 3*time.Second, time.Second })
	id := d[0].callGroup()
	d[0].connected(id, 1)
	d[1].join(id)
	d[2].join(id)
	w.beats(id, d[0], d[1])
	d[2].gone()
	d[0].wait("call.leg", func(e *event) bool { return e.Body.Leg.UID == "u2" && e.Body.Leg.State == machine.LegAway })
	w.waitLeg(id, "u2", machine.LegLeft)
	if l := w.leg(id, "u2"); l.Reason != machine.LeftLost {
		t.Errorf("the ghost left as %s", l.Reason)
	}
	if s := w.get(id).State; s != machine.Active {
		t.Errorf("it is %s", s)
	}
	d[1].verb(id, machine.DoHangup)
	d[0].waitEnd(id, machine.Completed)
	w.free()
}

func TestEmptyGroupCallEnds(t *testing.T) {
	t.Parallel()
	w, d := teaTime(t, 3, func(c *call.Config) {
		c.Lease, c.Away, c.Empty = 3*time.Second, 300*time.Millisecond, 300*time.Millisecond
	})
	id := d[0].callGroup()
	d[0].connected(id, 1)
	d[1].join(id)
	// Everybody's network is gone.
	for _, x := range d {
		x.again()
	}
	kittest.Eventually(t, patience, func() bool { return w.get(id).State == machine.Ended })
	if got := w.leg(id, "u2").State; got != machine.LegMissed {
		t.Errorf("who was still asked is %s", got)
	}
	w.free()
}

func TestThirdPersonJoinsADirectCall(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	cy := w.device("cy", "c1")
	id := talk(w, ann, bob)
	w.beats(id, ann, bob, cy)
	_, err := cy.try(id, machine.Command{Verb: machine.DoAccept})
	wantCode(t, err, errcode.Forbidden)
	bob.do(id, machine.Command{Verb: machine.DoAdd, Callees: []machine.Callee{{UID: "cy"}}})
	if v := cy.wait("call.incoming", nil).view(); v.Kind != "group" || v.Conversation != "d/ann/bob" || len(v.Legs) != 3 {
		t.Errorf("incoming: %+v", v)
	}
	ann.wait("call.state", func(e *event) bool { return len(e.view().Legs) == 3 })
	if r := cy.join(id); r.Call.Legs[2].Order != 3 || r.Call.State != machine.Active {
		t.Errorf("third: %+v", r)
	}
	ann.verb(id, machine.DoHangup)
	if s := w.get(id).State; s != machine.Active {
		t.Errorf("it is %s without ann", s)
	}
	cy.verb(id, machine.DoHangup)
	bob.waitEnd(id, machine.Completed)
	w.free()
}

func TestRemovedStaysOut(t *testing.T) {
	t.Parallel()
	w, d := teaTime(t, 4)
	id := d[0].callGroup()
	d[0].connected(id, 1)
	d[1].join(id)
	d[2].join(id)
	_, err := d[2].try(id, machine.Command{Verb: machine.DoRemove, UID: "u1"})
	wantCode(t, err, errcode.Forbidden)
	d[0].do(id, machine.Command{Verb: machine.DoRemove, UID: "u2"})
	d[2].waitStop(machine.StopRemoved)
	_, err = d[2].try(id, machine.Command{Verb: machine.DoAccept})
	wantCode(t, err, errcode.Forbidden)
	d[0].do(id, machine.Command{Verb: machine.DoRemove, UID: "u3"})
	d[3].waitStop(machine.StopRemoved)
	if l := w.leg(id, "u3"); l.State != machine.LegCancelled {
		t.Errorf("u3 is %s", l.State)
	}
	// An admin of the group may put out even who called, himself not.
	_, err = d[1].try(id, machine.Command{Verb: machine.DoRemove, UID: "u1"})
	wantCode(t, err, errcode.Forbidden)
	d[1].do(id, machine.Command{Verb: machine.DoAdd, Callees: []machine.Callee{{UID: "guest"}}})
	d[1].do(id, machine.Command{Verb: machine.DoRemove, UID: "u0"})
	d[0].waitStop(machine.StopRemoved)
	// Who was put out puts nobody out.
	_, err = d[0].try(id, machine.Command{Verb: machine.DoRemove, UID: "u1"})
	wantCode(t, err, errcode.Forbidden)
	d[1].do(id, machine.Command{Verb: machine.DoRemove, UID: "guest"})
	d[1].waitEnd(id, machine.Completed)
	w.free()
}

// Seven want into a mesh of six, at once.
func TestSeventhJoinsAMeshOfSix(t *testing.T) {
	t.Parallel()
	w, d := teaTime(t, 9)
	id := d[0].callGroup()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		in   = 1
		full = 0
	)
	for _, x := range d[1:] {
		wg.Go(func() {
			r, err := x.try(id, machine.Command{Verb: machine.DoAccept})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, errcode.CallFull):
				full++
			case err != nil:
				t.Error(err)
			case r.Generation == 1:
				in++
			}
		})
	}
	wg.Wait()
	if in != 6 || full != 3 {
		t.Errorf("%d are in, %d were told that it is full", in, full)
	}
	// Nobody who was refused is busy for it.
	for _, x := range d {
		l := w.leg(id, x.UID)
		busy, _ := w.redis.Exists(context.Background(), w.prefix+":{calluser:default/"+x.UID+"}:busy").Result()
		if isIn := l.State == machine.LegAccepted; isIn != (busy == 1) {
			t.Errorf("%s is %s, busy %d", x.UID, l.State, busy)
		}
	}
}

func TestGroupsOfOneCallAtOnce(t *testing.T) {
	t.Parallel()
	w, d := teaTime(t, 4)
	var wg sync.WaitGroup
	ids := make([]string, len(d))
	for i, x := range d {
		wg.Go(func() {
			r, err := x.invite(call.Invitation{Conversation: tea})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = r.Call.Call
		})
	}
	wg.Wait()
	for _, id := range ids[1:] {
		if id != ids[0] {
			t.Fatalf("more than one call: %v", ids)
		}
	}
	n := 0
	for _, l := range w.get(ids[0]).Legs {
		if l.State == machine.LegAccepted {
			n++
		}
	}
	if n != len(d) {
		t.Errorf("%d of %d are in", n, len(d))
	}
}

func TestGroupThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	w, d := teaTime(t, 3, func(c *call.Config) { c.RingGroup = 3 * time.Second })
	id := d[0].callGroup()
	w.beats(id, d[0])
	d[1].verb(id, machine.DoRinging)
	d[2].verb(id, machine.DoRinging)
	d[0].waitEnd(id, machine.NoAnswer)
	w.free()
}

func TestWhoMayBeCalled(t *testing.T) {
	t.Parallel()
	w, d := teaTime(t, 3, func(c *call.Config) { c.MaxLegs = 8 })
	for name, tt := range map[string]struct {
		a    call.Invitation
		want *errcode.Code
	}{
		"oneself":        {call.Invitation{To: []string{"u0"}}, errcode.Forbidden},
		"nobody":         {call.Invitation{}, errcode.InvalidRequest},
		"another's":      {call.Invitation{Conversation: "d/u1/u2"}, errcode.NotMember},
		"inbox":          {call.Invitation{Conversation: "i/u0"}, errcode.Forbidden},
		"not a member":   {call.Invitation{Conversation: tea, To: []string{"zoe"}}, errcode.NotMember},
		"media":          {call.Invitation{To: []string{"u1"}, Media: "smell"}, errcode.InvalidRequest},
		"id":             {call.Invitation{Call: "1", To: []string{"u1"}}, errcode.InvalidRequest},
		"not his uid":    {call.Invitation{Conversation: "d/u0/u1", To: []string{"u2"}}, errcode.InvalidRequest},
		"too many":       {call.Invitation{To: []string{"a", "b", "c", "d", "e", "f", "g", "h"}}, errcode.TooManyMembers},
		"malformed conv": {call.Invitation{Conversation: "x"}, errcode.InvalidRequest},
	} {
		_, err := d[0].invite(tt.a)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %s", name, err, tt.want.Name)
		}
	}
	// A group of nobody's conversation.
	r, err := d[0].invite(call.Invitation{To: []string{"u1", "u2"}})
	if err != nil || r.Call.Kind != "group" || r.Call.Conversation != "" {
		t.Errorf("got %+v, %v", r, err)
	}
	d[0].verb(r.Call.Call, machine.DoCancel)
	if got := w.entry(r.Call.Call); got != "" {
		t.Errorf("entry %s", got)
	}
	_, err = d[0].try(uuid.NewString(), machine.Command{Verb: machine.DoAccept})
	wantCode(t, err, errcode.CallUnknown)
	w.free()
}
