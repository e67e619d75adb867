package call_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/proto/errcode"
)

// Whoever is in a call rings nobody oftener by asking him in, and putting him out, than by calling him.
func TestAskingInIsLimitedAsInvitingIs(t *testing.T) {
	t.Parallel()
	_, ann, bob := pairOf(t, func(c *call.Config) { c.InviteRate = 3 })
	id := ann.call("bob")
	bob.accept(id)
	limited := 0
	for range 6 {
		_, err := ann.try(id, machine.Command{Verb: machine.DoAdd, Callees: []machine.Callee{{UID: "cy"}}})
		if errors.Is(err, errcode.RateLimited) {
			limited++
			continue
		}
		ann.do(id, machine.Command{Verb: machine.DoRemove, UID: "cy"})
	}
	if limited != 4 {
		t.Errorf("%d of 6 were refused after an invitation, want 4", limited)
	}
}

// Whoever goes on giving commands while Kafka is away makes the call larger to an end only, and all of it is told when Kafka is back.
func TestWhatIsUntoldOfACallIsBounded(t *testing.T) {
	t.Parallel()
	// Nobody's lease is renewed while nothing is told, however long that takes here.
	w, ann, bob := pairOf(t, func(c *call.Config) { c.Lease = 10 * time.Minute })
	id := talk(w, ann, bob)
	w.beats(id, bob)
	for _, n := range w.nodes {
		n.broken.Store(true)
	}
	refused := 0
	for i := range 400 {
		if _, err := ann.try(id, machine.Command{Verb: machine.DoUpdate, Sends: machine.Sends{Hand: i%2 == 0}}); errors.Is(err, errcode.Unavailable) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if fields := w.redis.HLen(context.Background(), w.prefix+":{call:default/"+id+"}").Val(); refused < 100 || fields > 300 {
		t.Errorf("%d of 400 were refused, the call has %d fields", refused, fields)
	}
	for _, n := range w.nodes {
		n.broken.Store(false)
	}
	ann.verb(id, machine.DoHangup)
	bob.waitEnd(id, machine.Completed)
	if n := bob.count("call.leg"); n < 200 {
		t.Errorf("bob was told of %d changes", n)
	}
}

// Whoever comes back to a long call finds it, however many have called him meanwhile.
func TestManyCallersDoNotHideTheCallThatOneIsIn(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	id := talk(w, ann, bob)
	w.beats(id, ann, bob)
	for i := range 55 {
		other := w.device(fmt.Sprintf("u%d", i), "phone")
		other.call("bob")
	}
	back := bob.again()
	if now := back.current(); len(now) == 0 || now[0].Call.Call != id {
		t.Errorf("bob finds %d calls", len(now))
	}
}

func TestRelayOnlyHidesAddresses(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	id := ann.call("bob")
	bob.accept(id)
	who := bob.who()
	who.RelayOnly = true
	g := &call.Signal{
		Call: id, To: "ann", Generation: 1, ToGeneration: 1, Description: &call.Description{Type: "answer", SDP: sdp},
		Candidates: []call.Candidate{{Candidate: "candidate:1 1 udp 1 192.0.2.1 50000 typ host"}, {Candidate: "candidate:2 1 udp 1 198.51.100.7 3479 typ relay raddr 192.0.2.1 rport 50000"}, {}},
	}
	if sent, err := bob.node.Signal(context.Background(), who, g); !sent || err != nil {
		t.Fatal(sent, err)
	}
	e := ann.wait("call.signal", nil)
	if len(e.Body.Candidates) != 2 || strings.Contains(e.Body.Description.SDP, "192.0.2.1") || !strings.Contains(e.Body.Description.SDP, "198.51.100.7") ||
		!strings.Contains(e.Body.Description.SDP, "o=- 1 2 IN IP4 0.0.0.0\r\nc=IN IP4 0.0.0.0\r\na=rtcp:50000 IN IP4 0.0.0.0\r\n") || !strings.HasSuffix(e.Body.Description.SDP, "a=end\r\n") || strings.Contains(e.Body.Candidates[0].Candidate, "192.0.2.1") {
		t.Errorf("got %+v", e.Body)
	}
	_ = w
}

// Numbers that no network has must neither end the process, which could not write them as JSON, nor spoil what is counted.
func TestReportsOfImpossibleNumbers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ann, bob := w.device("ann", "phone"), w.device("bob", "phone")
	id := talk(w, ann, bob)
	for range 3 {
		p := call.PeerStats{
			UID: "bob", Loss: math.MaxFloat64, JitterMs: math.MaxFloat64, RoundTripMs: math.MaxFloat64, SentBitrate: math.MaxFloat64, ReceivedBitrate: -1, FrozenSeconds: -math.MaxFloat64,
		}
		if err := ann.node.Stats(context.Background(), ann.who(), id, 1, []call.PeerStats{p}); err != nil {
			t.Fatal(err)
		}
	}
	q := w.get(id).Quality
	if len(q) != 1 || q[0].Mean.Loss != 1 || q[0].Worst.RoundTripMs > 1e12 || q[0].Mean.FrozenSeconds != 0 || q[0].Worst.ReceivedBitrate != 0 {
		t.Errorf("quality: %+v", q)
	}
}

// Whoever is blocked leaves nothing in the conversation of the two by asking others in either.
func TestABlockedCallerLeavesNothingByAGroup(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	w.blocks[[2]string{"bob", "ann"}] = true
	cy, dee := w.device("cy", "c"), w.device("dee", "d")
	added := ann.call("bob")
	ann.do(added, machine.Command{Verb: machine.DoAdd, Callees: []machine.Callee{{UID: "cy"}}})
	cy.accept(added)
	_, err := ann.invite(call.Invitation{Conversation: "d/ann/bob", To: []string{"cy", "dee"}, Resumed: true})
	wantCode(t, err, errcode.InCall)
	ann.verb(added, machine.DoHangup)
	cy.verb(added, machine.DoHangup)
	ann.waitState(added, machine.Ended)
	r, err := ann.invite(call.Invitation{Conversation: "d/ann/bob", To: []string{"cy", "dee"}, Resumed: true})
	if err != nil {
		t.Fatal(err)
	}
	resumed := r.Call.Call
	if now, err := bob.node.Current(context.Background(), bob.who(), "d/ann/bob"); err != nil || len(now.Calls) != 0 {
		t.Errorf("bob sees %+v, %v", now, err)
	}
	cy.verb(resumed, machine.DoDecline)
	dee.verb(resumed, machine.DoDecline)
	ann.waitState(resumed, machine.Ended)
	for _, id := range []string{added, resumed} {
		if got := w.entry(id); got != "" {
			t.Errorf("entry %s", got)
		}
	}
	if n := len(bob.events()); n != 0 {
		t.Errorf("bob got %d events", n)
	}
	w.free()
}

// putOut takes somebody out of the group.
func (w *world) putOut(uid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.groups[tea] = slices.DeleteFunc(slices.Clone(w.groups[tea]), func(u string) bool { return u == uid })
}

// Who is put out of the group doesn't come (back) into its call: neither whom it rings for, nor who was in, with his leg or without. Guests come and
// go, for they never were of the group.
func TestWhoIsPutOutOfTheGroupStaysOutOfItsCall(t *testing.T) {
	t.Parallel()
	w, d := teaTime(t, 4)
	guest := w.device("guest", "phone")
	id := d[0].callGroup()
	d[0].connected(id, 1)
	d[1].join(id)
	d[2].join(id)
	d[0].do(id, machine.Command{Verb: machine.DoAdd, Callees: []machine.Callee{{UID: "guest"}}})
	for _, uid := range []string{"u1", "u2", "u3"} {
		w.putOut(uid)
	}
	d[1].verb(id, machine.DoHangup)
	for _, x := range []*device{d[1], d[2].again(), d[3]} {
		_, err := x.try(id, machine.Command{Verb: machine.DoAccept, Take: true})
		wantCode(t, err, errcode.NotMember)
		if r, err := x.invite(call.Invitation{Call: id, Conversation: tea}); err == nil && r.Generation != 0 {
			t.Errorf("%s is in by an invitation", x.UID)
		}
	}
	for range 2 {
		if r := guest.join(id); r.Generation == 0 {
			t.Errorf("the guest isn't in: %+v", r)
		}
		guest.verb(id, machine.DoHangup)
	}
	w.mu.Lock()
	w.groups[tea] = append(w.groups[tea], "u1")
	w.mu.Unlock()
	if r := d[1].join(id); r.Generation == 0 {
		t.Errorf("u1 is of the group again, and not in: %+v", r)
	}
}
