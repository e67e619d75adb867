package call_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/proto/errcode"
)

// pairOf returns ann's and bob's devices.
func pairOf(t *testing.T, change ...func(*call.Config)) (w *world, ann, bob *device) {
	t.Helper()
	w = newWorld(t, change...)
	return w, w.device("ann", "a1"), w.device("bob", "b1")
}

// talk has both connected, and returns the call.
func talk(w *world, ann, bob *device) string {
	w.t.Helper()
	id := ann.call(bob.UID)
	bob.verb(id, machine.DoRinging)
	g := bob.accept(id).Generation
	ann.connected(id, 1)
	if r := bob.connected(id, g); r.Call.State != machine.Active {
		w.t.Fatalf("both are connected, and it is %s", r.Call.State)
	}
	return id
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	id := ann.call("bob")
	in := bob.wait("call.incoming", nil)
	if v := in.view(); v.Call != id || v.Caller != "ann" || v.State != machine.Inviting || v.Conversation != "d/ann/bob" || v.Kind != "direct" {
		t.Errorf("incoming: %+v", v)
	}
	if bob.count("call.state") > 1 || len(ann.current()) != 1 || !bob.current()[0].Rings {
		t.Errorf("current: %+v %+v", ann.current(), bob.current())
	}
	bob.verb(id, machine.DoRinging)
	ann.waitState(id, machine.Ringing)
	r := bob.accept(id)
	if r.Generation != 1 || r.Call.State != machine.Connecting || r.Call.Legs[1].Order != 2 || !r.Call.Legs[1].Sends.Audio {
		t.Errorf("accepted: %+v", r)
	}
	ann.waitState(id, machine.Connecting)
	if n := bob.count("call.stop"); n != 0 {
		t.Errorf("the device that answered was told to stop %d times", n)
	}
	ann.connected(id, 1)
	ann.wait("call.leg", func(e *event) bool { return e.Body.Leg.UID == "ann" && e.Body.Leg.State == machine.LegJoined })
	bob.connected(id, 1)
	ann.waitState(id, machine.Active)
	ann.do(id, machine.Command{Verb: machine.DoUpdate, Sends: machine.Sends{Video: true, Screen: true}})
	bob.wait("call.leg", func(e *event) bool { return e.Body.Leg.Sends.Screen })
	ann.verb(id, machine.DoHangup)
	v := bob.waitEnd(id, machine.Completed)
	if v.ActiveAt == 0 || v.EndedAt < v.ActiveAt {
		t.Errorf("ended: %+v", v)
	}
	if got := w.entry(id); !strings.Contains(got, `"outcome":"answered"`) || !strings.Contains(got, `"uids":["ann","bob"]`) {
		t.Errorf("entry %s", got)
	}
	states := []string{}
	for _, h := range append(w.hooked("call.state"), w.hooked("call.ended")...) {
		states = append(states, h.Data["state"].(string))
	}
	if got := strings.Join(states, " "); got != "inviting ringing connecting active ended" {
		t.Errorf("hooks told %s", got)
	}
	w.free()
}

func TestDecline(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	other := w.device("bob", "b2")
	id := ann.call("bob")
	bob.verb(id, machine.DoDecline)
	ann.waitEnd(id, machine.Declined)
	other.waitStop(machine.StopDeclined)
	if got := w.entry(id); !strings.Contains(got, `"outcome":"declined"`) {
		t.Errorf("entry %s", got)
	}
	if len(bob.current())+len(ann.current()) != 0 {
		t.Error("somebody is in it still")
	}
	w.free()
}

func TestCancelWhileInviting(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	id := ann.call("bob")
	ann.verb(id, machine.DoCancel)
	bob.waitStop(machine.StopCancelled)
	bob.waitEnd(id, machine.Cancelled)
	if got := w.entry(id); !strings.Contains(got, `"outcome":"missed"`) {
		t.Errorf("entry %s", got)
	}
	if r := bob.accept(id); r.Call.State != machine.Ended || r.Generation != 0 {
		t.Errorf("accepting what was cancelled: %+v", r)
	}
	w.free()
}

func TestCancelAgainstAccept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 10 {
		ann, bob := w.device(fmt.Sprint("ann", i), "a1"), w.device(fmt.Sprint("bob", i), "b1")
		id := ann.call(bob.UID)
		var wg sync.WaitGroup
		var cancelled, accepted *call.Reply
		wg.Go(func() { cancelled = ann.verb(id, machine.DoCancel) })
		wg.Go(func() { accepted = bob.accept(id) })
		wg.Wait()
		end := w.get(id)
		if end.State == machine.Ended {
			if end.Reason != machine.Cancelled || cancelled.Call.State != machine.Ended {
				t.Errorf("cancelled: %+v, and the canceller was told %s", end.View, cancelled.Call.State)
			}
		} else if end.State != machine.Connecting || accepted.Generation != 1 || cancelled.Call.State != machine.Connecting {
			t.Errorf("%s; accept was told %+v, cancel %s", end.State, accepted, cancelled.Call.State)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t, func(c *call.Config) { c.Ring = 3 * time.Second })
	id := ann.call("bob")
	bob.verb(id, machine.DoRinging)
	w.beats(id, ann)
	ann.waitEnd(id, machine.NoAnswer)
	bob.waitStop(machine.StopTimeout)
	if l := w.leg(id, "bob"); l.State != machine.LegMissed {
		t.Errorf("bob is %s", l.State)
	}
	w.free()
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *call.Config) { c.ReachTimeout = 200 * time.Millisecond })
	ann := w.device("ann", "a1")
	id := ann.call("bob")
	ann.waitEnd(id, machine.Unreachable)
	if h := w.hooked("call.incoming"); len(h) != 1 || h[0].Data["uids"].([]any)[0] != "bob" || h[0].Data["caller"] != "ann" || h[0].Key != "call/"+id {
		t.Errorf("wake: %+v", h)
	}
	if h := w.hooked("call.stop"); len(h) != 1 || h[0].Data["reason"] != machine.StopTimeout {
		t.Errorf("wake over: %+v", h)
	}
	w.free()
}

// A phone that is woken has the whole ring time; what it finds when it comes is what is so.
func TestWakeAfterCancel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *call.Config) { c.Wake, c.ReachTimeout = true, 100*time.Millisecond })
	ann := w.device("ann", "a1")
	id := ann.call("bob")
	w.beats(id, ann)
	time.Sleep(300 * time.Millisecond) // Later than a callee without anybody to wake him is given up.
	if s := w.get(id).State; s != machine.Inviting {
		t.Fatalf("it is %s while the phone wakes", s)
	}
	bob := w.device("bob", "b1")
	if now := bob.current(); len(now) != 1 || !now[0].Rings || now[0].Call.Call != id {
		t.Fatalf("the phone is awake and finds %+v", now)
	}
	bob.verb(id, machine.DoRinging)
	ann.waitState(id, machine.Ringing)
	ann.verb(id, machine.DoCancel)
	if late := w.device("bob", "b2").current(); len(late) != 0 {
		t.Errorf("a phone that wakes late rings for %+v", late[0])
	}
	if h := w.hooked("call.stop"); len(h) != 1 || h[0].Data["reason"] != machine.StopCancelled {
		t.Errorf("wake over: %+v", h)
	}
	w.free()
}

func TestBusyFromAnotherConversation(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	cy := w.device("cy", "c1")
	id := talk(w, ann, bob)
	w.beats(id, ann, bob)
	second := cy.call("bob")
	cy.waitEnd(second, machine.Busy)
	if bob.count("call.incoming") != 1 {
		t.Error("it rang for who is busy")
	}
	if left := w.redis.PTTL(context.Background(), w.prefix+":{calluser:default/bob}:busy").Val(); left <= 0 || left > w.cfg.Lease {
		t.Errorf("who dies would be busy for %s", left)
	}
	if _, err := bob.invite(call.Invitation{To: []string{"cy"}}); !errors.Is(err, errcode.InCall) {
		t.Errorf("bob calls while he talks: %v", err)
	}
	ann.verb(id, machine.DoHangup)
	bob.waitEnd(id, machine.Completed)
	third := cy.call("bob")
	bob.wait("call.incoming", func(e *event) bool { return e.id() == third })
	bob.verb(third, machine.DoDecline)
	w.free()
}

func TestCallWaitingRingsForWhoIsInACall(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t, func(c *call.Config) { c.Waiting = true })
	cy := w.device("cy", "c1")
	id := talk(w, ann, bob)
	w.beats(id, ann, bob)
	second := cy.call("bob")
	bob.wait("call.incoming", func(e *event) bool { return e.id() == second })
	if _, err := bob.try(second, machine.Command{Verb: machine.DoAccept}); !errors.Is(err, errcode.InCall) {
		t.Errorf("accepting without leaving the first: %v", err)
	}
	bob.verb(id, machine.DoHangup)
	if r := bob.accept(second); r.Generation != 1 {
		t.Errorf("accepted: %+v", r)
	}
}

func TestTwoDevicesOneAnswersTheOtherStops(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	laptop := w.device("bob", "b2")
	id := ann.call("bob")
	bob.verb(id, machine.DoRinging)
	laptop.verb(id, machine.DoRinging)
	laptop.accept(id)
	if bob.count("call.stop") == 0 {
		t.Error("it was answered, and the other device not yet told to stop")
	}
	bob.waitStop(machine.StopAnswered)
	if laptop.count("call.stop") != 0 {
		t.Error("who answered was told to stop")
	}
	states := map[string]string{}
	for _, b := range w.get(id).Branches {
		states[b.Device] = b.State + " " + b.Reason
	}
	if states["b2"] != "won " || states["b1"] != "stopped answered_elsewhere" {
		t.Errorf("branches: %v", states)
	}
}

func TestAnsweredOnTwoAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 10 {
		ann, bob := w.device(fmt.Sprint("ann", i), "a1"), w.device(fmt.Sprint("bob", i), "b1")
		laptop := w.device(bob.UID, "b2")
		id := ann.call(bob.UID)
		var wg sync.WaitGroup
		replies := make([]*call.Reply, 2)
		for i, d := range []*device{bob, laptop} {
			wg.Go(func() { replies[i] = d.accept(id) })
		}
		wg.Wait()
		if replies[0].Generation+replies[1].Generation != 1 {
			t.Errorf("generations %d and %d: one must have won", replies[0].Generation, replies[1].Generation)
		}
		if g := w.leg(id, bob.UID).Generation; g != 1 {
			t.Errorf("bob's generation is %d", g)
		}
	}
}

func TestGlare(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for n := range 10 {
		ann, bob := w.device(fmt.Sprint("ann", n), "a1"), w.device(fmt.Sprint("bob", n), "b1")
		var wg sync.WaitGroup
		replies := make([]*call.Reply, 2)
		for i, d := range []*device{ann, bob} {
			wg.Go(func() {
				var err error
				if replies[i], err = d.invite(call.Invitation{To: []string{map[*device]string{ann: bob.UID, bob: ann.UID}[d]}}); err != nil {
					t.Errorf("%s: %v", d.UID, err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		id := replies[0].Call.Call
		if id != replies[1].Call.Call {
			t.Fatalf("two calls: %s and %s", id, replies[1].Call.Call)
		}
		if end := w.get(id); end.State != machine.Connecting || end.Legs[0].Generation != 1 || end.Legs[1].Generation != 1 {
			t.Errorf("after glare: %+v", end.View)
		}
		for _, d := range []*device{ann, bob} {
			if now := d.current(); len(now) != 1 || now[0].Generation != 1 {
				t.Errorf("%s is in %d calls", d.UID, len(now))
			}
		}
	}
}

// The pair's lease of a call that came to nothing must not keep two people from calling each other.
func TestALostPairIsReplaced(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t, func(c *call.Config) { c.LostAfter = 50 * time.Millisecond })
	ctx := context.Background()
	if err := w.redis.Set(ctx, w.prefix+":{callconv:default/d/ann/bob}:live", uuid.NewString(), time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.redis.Set(ctx, w.prefix+":{calluser:default/ann}:busy", uuid.NewString(), time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	id := ann.call("bob")
	bob.wait("call.incoming", func(e *event) bool { return e.id() == id })
}

func TestTheSameUserGetsHisOwnCallBack(t *testing.T) {
	t.Parallel()
	w, ann, _ := pairOf(t)
	id := ann.call("bob")
	tablet := w.device("ann", "a2")
	r, err := tablet.invite(call.Invitation{To: []string{"bob"}})
	if err != nil || r.Call.Call != id || r.Generation != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
	if r, err = ann.invite(call.Invitation{Call: id, To: []string{"bob"}}); err != nil || r.Call.Call != id || r.Generation != 1 {
		t.Errorf("repeated: %+v, %v", r, err)
	}
	// After a reload, or where the answer was lost with the connection, the device has its leg.
	for i, again := range []string{"", id} {
		ann = ann.again()
		if r, err = ann.invite(call.Invitation{Call: again, To: []string{"bob"}}); err != nil || r.Call.Call != id || int(r.Generation) != i+2 {
			t.Errorf("by another connection: %+v, %v", r, err)
		}
	}
	if _, err = w.device("cy", "c").invite(call.Invitation{Call: id, To: []string{"bob"}}); !errors.Is(err, errcode.Conflict) {
		t.Errorf("a stranger with the same id: %v", err)
	}
}

func TestBlockedCallerHearsRingingThenNoAnswer(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t, func(c *call.Config) { c.PretendAfter, c.Ring = 100*time.Millisecond, 2*time.Second })
	w.blocks[[2]string{"bob", "ann"}] = true
	id := ann.call("bob")
	w.beats(id, ann)
	ann.waitState(id, machine.Ringing)
	// bob can call her meanwhile: what he doesn't know of doesn't stand in his way.
	if _, err := bob.try(id, machine.Command{Verb: machine.DoAccept}); !errors.Is(err, errcode.CallUnknown) {
		t.Errorf("bob accepts what he isn't told of: %v", err)
	}
	ann.waitEnd(id, machine.NoAnswer)
	if n := len(bob.events()); n != 0 || len(bob.current()) != 0 {
		t.Errorf("bob got %d events", n)
	}
	if got := w.entry(id); got != "" {
		t.Errorf("entry %s", got)
	}
	w.free()
}

func TestMediaThatDoesNotComeEndsTheCall(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t, func(c *call.Config) { c.MediaTimeout = 500 * time.Millisecond })
	id := ann.call("bob")
	bob.accept(id)
	w.beats(id, ann, bob)
	ann.connected(id, 1)
	ann.waitEnd(id, machine.FailedMedia)
	if got := w.entry(id); !strings.Contains(got, `"outcome":"failed"`) {
		t.Errorf("entry %s", got)
	}
	w.free()
}

func TestACallDoesNotLastForEver(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t, func(c *call.Config) { c.MaxLength, c.EndingNotice = 5*time.Second, time.Minute })
	id := talk(w, ann, bob)
	w.beats(id, ann, bob)
	ann.wait("call.state", func(e *event) bool { return e.view().Ending })
	if v := ann.waitEnd(id, machine.Completed); v.EndedAt < v.EndsAt {
		t.Errorf("ended %d ms early", v.EndsAt-v.EndedAt)
	}
}

func TestBackendsEndListAndGet(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	ctx, s := context.Background(), w.nodes[0]
	id := talk(w, ann, bob)
	w.beats(id, ann, bob)
	for loss := range 3 {
		if err := ann.node.Stats(ctx, ann.who(), id, 1, []call.PeerStats{{UID: "bob", Local: "relay", Remote: "host", Protocol: "udp", Loss: float64(loss) / 10, Frames: 250}}); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, bob.node.Stats(ctx, bob.who(), id, 7, nil), errcode.CallTaken)
	r := w.get(id)
	if len(r.Quality) != 1 || r.Quality[0].From != "ann" || r.Quality[0].Reports != 3 || r.Quality[0].Worst.Loss != 0.2 || r.Quality[0].Mean.Frames != 750 ||
		r.Quality[0].Mean.Loss < 0.09 || r.Quality[0].Mean.Loss > 0.11 || r.Quality[0].Paths[0] != "relay/host/udp" {
		t.Errorf("quality: %+v", r.Quality)
	}
	for _, q := range []call.Question{{}, {UID: "bob"}, {Conversation: "d/ann/bob"}, {State: "live"}} {
		if page, err := s.List(ctx, "default", q); err != nil || len(page.Calls) != 1 || page.Calls[0].Call != id {
			t.Errorf("%+v: %+v, %v", q, page, err)
		}
	}
	for range 2 {
		if r, err := s.End(ctx, "default", id); err != nil || r.Reason != machine.EndedByHost {
			t.Errorf("ended: %+v, %v", r, err)
		}
	}
	ann.waitEnd(id, machine.EndedByHost)
	for range 4 {
		next := ann.call("bob")
		ann.verb(next, machine.DoCancel)
	}
	seen, cursor := map[string]bool{}, ""
	for range 10 {
		page, err := s.List(ctx, "default", call.Question{UID: "ann", State: "ended", Limit: 2, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page.Calls {
			if seen[c.Call] {
				t.Errorf("%s is on two pages", c.Call)
			}
			seen[c.Call] = true
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if len(seen) != 5 {
		t.Errorf("pages had %d calls, want 5", len(seen))
	}
	_, err := s.Get(ctx, "default", uuid.NewString())
	wantCode(t, err, errcode.CallUnknown)
	_, err = s.Get(ctx, "other", id)
	wantCode(t, err, errcode.CallUnknown)
	_, err = s.List(ctx, "default", call.Question{Cursor: "x"})
	wantCode(t, err, errcode.InvalidRequest)
	w.free()
}

func TestRepeatedCommandsHaveOneEffect(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	id := ann.call("bob")
	cmd := machine.Command{Verb: machine.DoAccept, ID: "one"}
	first := bob.do(id, cmd)
	bob.node = w.nodes[0]
	if again := bob.do(id, cmd); again.Call.Version != first.Call.Version || again.Generation != 1 {
		t.Errorf("repeated: %+v, first %+v", again, first)
	}
	bob = bob.again()
	if again := bob.do(id, cmd); again.Generation != 2 {
		t.Errorf("repeated by another connection, since the answer was lost with the one before: %+v", again)
	}
	if other := w.device("bob", "b2").do(id, cmd); other.Generation != 0 {
		t.Errorf("another device with the same id has it: %+v", other)
	}
	hang := machine.Command{Verb: machine.DoHangup, ID: "two"}
	first = bob.do(id, hang)
	if again := bob.do(id, hang); again.Call.Version != first.Call.Version {
		t.Errorf("repeated: version %d, first %d", again.Call.Version, first.Call.Version)
	}
	if again := bob.do(id, cmd); again.Generation != 0 {
		t.Errorf("who has left comes back by an old answer: %+v", again)
	}
	kittest.Eventually(t, patience, func() bool { return ann.count("call.ended") > 0 })
}
