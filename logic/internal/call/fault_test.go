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
	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/proto/errcode"
)

// reach brings a call into a state.
func reach(w *world, ann, bob *device, s machine.State) string {
	w.t.Helper()
	id := ann.call("bob")
	switch s {
	case machine.Ringing:
		bob.verb(id, machine.DoRinging)
	case machine.Connecting:
		bob.accept(id)
	case machine.Active:
		bob.accept(id)
		ann.connected(id, 1)
		bob.connected(id, 1)
	}
	return id
}

// The callee's comet is killed in each state: his session is gone, what is told meanwhile he doesn't get; he comes back as the same device
// with another session and goes on where he was.
func TestCalleesCometKilledInEachState(t *testing.T) {
	t.Parallel()
	for _, s := range []machine.State{machine.Inviting, machine.Ringing, machine.Connecting, machine.Active} {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			w, ann, bob := pairOf(t)
			id := reach(w, ann, bob, s)
			stop := w.beats(id, ann)
			back := bob.again()
			now := back.current()
			if len(now) != 1 || now[0].Call.Call != id || now[0].Generation != 0 {
				t.Fatalf("back, and finds %+v", now)
			}
			want := uint32(2)
			if s == machine.Inviting || s == machine.Ringing {
				want = 1
				if !now[0].Rings {
					t.Fatal("it doesn't ring any more")
				}
				back.verb(id, machine.DoRinging)
			}
			r := back.accept(id)
			if r.Generation != want {
				t.Fatalf("generation %d, want %d", r.Generation, want)
			}
			if s == machine.Connecting || s == machine.Active {
				ann.wait("call.leg", func(e *event) bool { return e.Body.Leg.UID == "bob" && e.Body.Leg.Generation == 2 })
				if _, err := bob.try(id, machine.Command{Verb: machine.DoUpdate}); !errors.Is(err, errcode.CallTaken) {
					t.Errorf("the old session still has a say: %v", err)
				}
			}
			ann.connected(id, 1)
			if r = back.connected(id, want); r.Call.State != machine.Active {
				t.Errorf("it is %s", r.Call.State)
			}
			stop()
			ann.verb(id, machine.DoHangup)
			back.waitEnd(id, machine.Completed)
			w.free()
		})
	}
}

// A session that drops is not a hang-up: the leg is away when its lease runs out, comes back with its device, or is lost.
func TestADroppedSessionIsAwayThenBackOrLost(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{true, false} {
		t.Run(fmt.Sprint("back ", back), func(t *testing.T) {
			t.Parallel()
			w, ann, bob := pairOf(t, func(c *call.Config) {
				c.Lease = time.Second
				if !back {
					c.Away = 300 * time.Millisecond
				}
			})
			id := talk(w, ann, bob)
			w.beats(id, ann)
			bob.gone()
			ann.waitState(id, machine.Reconnecting)
			if l := w.leg(id, "bob"); l.State != machine.LegAway {
				t.Fatalf("bob is %s", l.State)
			}
			if !back {
				ann.waitEnd(id, machine.ConnectionLost)
				w.free()
				return
			}
			again := bob.again()
			if r := again.accept(id); r.Generation != 2 || r.Call.State != machine.Active {
				t.Errorf("back: %+v", r)
			}
			w.beats(id, again)
			again.verb(id, machine.DoHangup)
			ann.waitEnd(id, machine.Completed)
		})
	}
}

func TestLeavingPageComesBackOrEnds(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{true, false} {
		t.Run(fmt.Sprint("back ", back), func(t *testing.T) {
			t.Parallel()
			w, ann, bob := pairOf(t, func(c *call.Config) {
				if !back {
					c.Leaving = 300 * time.Millisecond
				}
			})
			id := talk(w, ann, bob)
			w.beats(id, ann)
			start := time.Now()
			bob.do(id, machine.Command{Verb: machine.DoLeaving, Generation: 1})
			ann.waitState(id, machine.Reconnecting)
			again := bob.again()
			if !back {
				ann.waitEnd(id, machine.ConnectionLost)
				if took := time.Since(start); took > 8*time.Second {
					t.Errorf("a closed tab was waited for for %s", took)
				}
				return
			}
			if r := again.accept(id); r.Generation != 2 || r.Call.State != machine.Active {
				t.Errorf("reloaded: %+v", r)
			}
		})
	}
}

// The logic process that took the invitation, or the command, dies between the state and the event: whoever touches the call first, or
// its timer, tells what it did not.
func TestLogicKilledInEachState(t *testing.T) {
	t.Parallel()
	for _, s := range []machine.State{machine.Inviting, machine.Ringing, machine.Connecting, machine.Active, machine.Ended} {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			w, ann, bob := pairOf(t)
			n := w.nodes[0]
			ann.node, bob.node = n, n
			var id string
			die := func() {
				n.dead.Store(true)
				n.stop()
				ann.node, bob.node = w.nodes[1], w.nodes[1]
			}
			switch s {
			case machine.Inviting:
				n.dead.Store(true)
				id = ann.call("bob")
				die()
				bob.wait("call.incoming", nil)
			case machine.Ringing:
				id = ann.call("bob")
				n.dead.Store(true)
				bob.verb(id, machine.DoRinging)
				die()
				ann.waitState(id, machine.Ringing)
			case machine.Connecting:
				laptop := w.device("bob", "b2")
				id = reach(w, ann, bob, machine.Ringing)
				n.dead.Store(true)
				bob.accept(id)
				die()
				laptop.waitStop(machine.StopAnswered)
				ann.waitState(id, machine.Connecting)
			case machine.Active:
				id = reach(w, ann, bob, machine.Connecting)
				ann.connected(id, 1)
				n.dead.Store(true)
				bob.connected(id, 1)
				die()
				ann.waitState(id, machine.Active)
			case machine.Ended:
				id = reach(w, ann, bob, machine.Active)
				n.dead.Store(true)
				ann.verb(id, machine.DoHangup)
				die()
				bob.waitEnd(id, machine.Completed)
				kittest.Eventually(t, 5*time.Second, func() bool { return w.entry(id) != "" && len(w.hooked("call.ended")) == 1 })
				return
			}
			// And goes on by the other process.
			ann.verb(id, machine.DoHangup)
			bob.wait("call.ended", nil)
			w.free()
		})
	}
}

// A timer that comes while nobody lives, and that its claimer doesn't come to do, is done by another.
func TestTimersOutliveTheirProcess(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t, func(c *call.Config) { c.Ring, c.Hold = 500*time.Millisecond, 300*time.Millisecond })
	id := ann.call("bob")
	bob.verb(id, machine.DoRinging)
	w.nodes[0].kill()
	w.nodes[1].kill()
	kittest.Eventually(t, 10*time.Second, func() bool {
		claimed, err := w.nodes[0].Claim(context.Background())
		return err == nil && claimed == 1
	}, "its time never comes")
	n := w.start()
	ann.node, bob.node = n, n
	ann.wait("call.ended", nil)
	bob.waitStop(machine.StopTimeout)
	w.free()
}

// Steps of one call that come fast while Kafka is slow are told once each, and in their order: by one process, and by two. What one of two
// needs longer for than the other waits, as where all stands still for a moment, the other tells as well.
func TestASlowKafkaIsToldNothingTwice(t *testing.T) {
	t.Parallel()
	t.Run("one process", func(t *testing.T) {
		t.Parallel()
		w, ann, bob := pairOf(t)
		ann.node, bob.node = w.nodes[0], w.nodes[0]
		w.nodes[1].kill() // Its timers would tell again what takes more than a second.
		if again := toldOnce(t, w, ann, bob, 30*time.Millisecond); len(again) > 0 {
			t.Errorf("told twice: versions %v", again)
		}
	})
	t.Run("two", func(t *testing.T) {
		t.Parallel()
		w, ann, bob := pairOf(t)
		if again := toldOnce(t, w, ann, bob, 10*time.Millisecond); len(again) > 0 && w.slowest < call.Patience {
			t.Errorf("told twice: versions %v", again)
		}
	})
}

// toldOnce returns the versions that were told again.
func toldOnce(t *testing.T, w *world, ann, bob *device, slow time.Duration) (again []int64) {
	t.Helper()
	for _, n := range w.nodes {
		n.slow.Store(int64(slow))
	}
	id := talk(w, ann, bob)
	for hand := range 10 {
		var wg sync.WaitGroup
		for i, d := range []*device{ann, bob} {
			wg.Go(func() { d.do(id, machine.Command{Verb: machine.DoUpdate, Sends: machine.Sends{Hand: hand%2 == i}}) })
		}
		wg.Wait()
	}
	ann.verb(id, machine.DoHangup)
	end := bob.waitEnd(id, machine.Completed).Version
	last := int64(0)
	for _, e := range bob.events() {
		version := e.Body.Version
		switch e.Name {
		case "call.state", "call.ended":
			version = e.view().Version
		case "call.leg":
		default:
			continue
		}
		switch {
		case version == last+1:
			last = version
		case version > last:
			t.Errorf("version %d came after %d", version, last)
		default:
			again = append(again, version)
		}
	}
	if last != end {
		t.Errorf("the last version is %d, it ended in %d", last, end)
	}
	return again
}

func TestKafkaAwayForAMoment(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	for _, n := range w.nodes {
		n.broken.Store(true)
	}
	id := ann.call("bob")
	if _, err := bob.node.Signal(context.Background(), bob.who(), &call.Signal{Call: id, To: "ann", Generation: 1, ToGeneration: 1, Done: true}); err == nil {
		t.Error("a signal was sent without Kafka")
	}
	for _, n := range w.nodes {
		n.broken.Store(false)
	}
	bob.wait("call.incoming", nil)
}

// beforeSave does something between what a process writes into the index of timers and what it writes into the call, once.
type beforeSave struct {
	once sync.Once
	do   func()
}

func (b *beforeSave) DialHook(next redis.DialHook) redis.DialHook { return next }
func (b *beforeSave) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (b *beforeSave) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if a := cmd.Args(); len(a) > 6 && a[0] == "evalsha" && strings.Contains(fmt.Sprint(a[3]), ":{call:") {
			b.once.Do(b.do)
		}
		return next(ctx, cmd)
	}
}

// A process stands still between index and call. Others look meanwhile, find nothing that is due, or nothing at all, and say so in the index: the
// call is looked after all the same.
func TestATimerIsNotLostToALookInBetween(t *testing.T) {
	t.Parallel()
	w, ann, _ := pairOf(t, func(c *call.Config) { c.RedisTimeout, c.ReachTimeout, c.Hold = time.Minute, 3*time.Second, time.Second })
	one, ok := w.redis.(*redis.Client)
	if !ok {
		t.Skip("a client of one server is watched")
	}
	rdb := redis.NewClient(&redis.Options{Addr: one.Options().Addr, Password: one.Options().Password})
	t.Cleanup(func() { _ = rdb.Close() })
	rdb.AddHook(&beforeSave{do: func() {
		kittest.Eventually(t, 10*time.Second, func() bool {
			keys, err := w.redis.Keys(context.Background(), w.prefix+":{calltimer:*").Result()
			return err == nil && len(keys) == 0
		}, "nobody looks")
	}})
	ann.node = w.newNode(rdb)
	id := ann.call("nobody")
	ann.node.kill()
	ann.waitEnd(id, machine.Unreachable)
}

// Redis forgets the call: whoever has media keeps it, one invites again with the same id, and the other's device that is in it answers.
func TestRedisLosesTheCall(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	id := talk(w, ann, bob)
	w.loseRedis()
	for _, d := range []*device{ann, bob} {
		_, err := d.try(id, machine.Command{Verb: machine.DoHeartbeat, Generation: 1})
		wantCode(t, err, errcode.CallUnknown)
	}
	r, err := bob.invite(call.Invitation{Call: id, To: []string{"ann"}, Resumed: true})
	if err != nil || r.Call.State != machine.Inviting || r.Generation != 1 {
		t.Fatalf("invited again: %+v, %v", r, err)
	}
	ann.wait("call.incoming", func(e *event) bool { return e.Body.Resumed })
	if r, err = ann.invite(call.Invitation{Call: id, To: []string{"bob"}, Resumed: true}); err != nil || r.Call.State != machine.Connecting || r.Generation != 1 {
		t.Errorf("both invite again: %+v, %v", r, err)
	}
	ann.connected(id, 1)
	bob.connected(id, 1)
	if s := w.get(id).State; s != machine.Active {
		t.Errorf("it is %s", s)
	}
}

// A group's call that is lost is found again with the guests that it had.
func TestRedisLosesAGroupsCallWithAGuest(t *testing.T) {
	t.Parallel()
	w, d := teaTime(t, 2)
	guest := w.device("guest", "phone")
	id := d[0].callGroup()
	d[1].join(id)
	d[0].do(id, machine.Command{Verb: machine.DoAdd, Callees: []machine.Callee{{UID: "guest"}}})
	guest.join(id)
	w.loseRedis()
	if _, err := d[1].invite(call.Invitation{Call: id, Conversation: tea, To: []string{"guest", "u0"}, Resumed: true}); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*device{guest, d[0]} {
		if r := x.join(id); r.Generation == 0 {
			t.Errorf("%s isn't in: %+v", x.UID, r)
		}
	}
}

func TestTakeOverByAnotherDevice(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	id := talk(w, ann, bob)
	w.beats(id, ann, bob)
	tablet := w.device("bob", "b2")
	if r := tablet.accept(id); r.Generation != 0 {
		t.Fatalf("took it without being asked to: %+v", r)
	}
	r := tablet.do(id, machine.Command{Verb: machine.DoAccept, Take: true, Sends: machine.Sends{Audio: true}})
	if r.Generation != 2 || r.Call.State != machine.Active {
		t.Fatalf("taken over: %+v", r)
	}
	bob.waitStop(machine.StopTaken)
	if tablet.count("call.stop") != 0 || ann.count("call.stop") != 0 {
		t.Error("others were told to stop")
	}
	ann.wait("call.leg", func(e *event) bool { return e.Body.Leg.Device == "b2" && e.Body.Leg.Generation == 2 })
	_, err := bob.try(id, machine.Command{Verb: machine.DoHangup})
	wantCode(t, err, errcode.CallTaken)
	if r, err := bob.try(id, machine.Command{Verb: machine.DoHeartbeat, Generation: 1}); err != nil || r.Generation != 0 {
		t.Errorf("the old device's heartbeat: %+v, %v", r, err)
	}
}

// sdp is a description of which only the candidates matter here.
const sdp = "v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\nc=IN IP4 192.0.2.1\r\na=rtcp:50000 IN IP4 192.0.2.1\r\na=candidate:1 1 udp 2113937151 192.0.2.1 50000 typ host\r\na=candidate:2 1 udp 41885439 198.51.100.7 3479 typ relay raddr 192.0.2.1 rport 50000\r\na=end\r\n"

func TestSignalsGoToTheLegThatIsMeant(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	eve, laptop := w.device("eve", "e"), w.device("bob", "b2")
	ctx := context.Background()
	id := ann.call("bob")
	offer := func() *call.Signal {
		return &call.Signal{Call: id, To: "ann", Generation: 1, ToGeneration: 1, Negotiation: 1, Description: &call.Description{Type: "offer", SDP: sdp}}
	}
	// Early: before the answer nobody has the leg.
	if _, err := bob.node.Signal(ctx, bob.who(), offer()); !errors.Is(err, errcode.CallTaken) {
		t.Errorf("a signal of who has not answered: %v", err)
	}
	bob.accept(id)
	send := func(d *device, g *call.Signal) (bool, error) { return d.node.Signal(ctx, d.who(), g) }
	// An early candidate goes before its description: it is the client that keeps it.
	if sent, err := send(bob, &call.Signal{Call: id, To: "ann", Generation: 1, ToGeneration: 1, Negotiation: 1, Candidates: []call.Candidate{{Candidate: "candidate:1 1 udp 1 192.0.2.1 5 typ host"}}}); !sent || err != nil {
		t.Fatalf("candidate: %v %v", sent, err)
	}
	for range 5 {
		if sent, err := send(bob, offer()); !sent || err != nil {
			t.Fatalf("offer: %v %v", sent, err)
		}
	}
	var order []string
	for _, e := range ann.events() {
		if e.Name == "call.signal" {
			order = append(order, map[bool]string{true: "description", false: "candidates"}[e.Body.Description != nil])
			if e.Body.From != "bob" || e.Body.Generation != 1 || e.Body.Negotiation != 1 {
				t.Errorf("signal: %+v", e.Body)
			}
		}
	}
	if got := strings.Join(order, " "); got != "candidates description description description description description" {
		t.Errorf("signals came as %s", got)
	}
	_, err := send(eve, offer())
	wantCode(t, err, errcode.Forbidden)
	g := offer()
	g.To = "eve"
	_, err = send(bob, g)
	wantCode(t, err, errcode.Forbidden)
	_, err = send(laptop, offer())
	wantCode(t, err, errcode.CallTaken)
	for _, change := range []func(*call.Signal){
		func(g *call.Signal) { g.Generation = 2 }, func(g *call.Signal) { g.ToGeneration = 0 },
	} {
		g := offer()
		change(g)
		if sent, err := send(bob, g); sent || err != nil {
			t.Errorf("another generation: %v %v", sent, err)
		}
	}
	for name, g := range map[string]*call.Signal{
		"description": {Call: id, To: "ann", Description: &call.Description{Type: "offer", SDP: strings.Repeat("x", 64<<10+1)}},
		"candidates":  {Call: id, To: "ann", Candidates: []call.Candidate{{Candidate: strings.Repeat("x", 16<<10)}}},
	} {
		if _, err := send(bob, g); !errors.Is(err, errcode.TooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, g := range map[string]*call.Signal{
		"nothing": {Call: id, To: "ann"}, "type": {Call: id, To: "ann", Description: &call.Description{Type: "wish"}}, "id": {Call: "x", To: "ann", Done: true},
	} {
		if _, err := send(bob, g); !errors.Is(err, errcode.InvalidRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	g = offer()
	g.Call = uuid.NewString()
	_, err = send(bob, g)
	wantCode(t, err, errcode.CallUnknown)
}

// An ICE restart after an address change: the same generations, a higher negotiation; and after a new session the new generation alone.
func TestICERestartAfterAnAddressChange(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t)
	id := talk(w, ann, bob)
	ctx := context.Background()
	restart := &call.Signal{Call: id, To: "ann", Generation: 1, ToGeneration: 1, Negotiation: 2, Description: &call.Description{Type: "offer", SDP: sdp}}
	if sent, err := bob.node.Signal(ctx, bob.who(), restart); !sent || err != nil {
		t.Fatalf("restart: %v %v", sent, err)
	}
	back := bob.again()
	back.accept(id)
	if sent, err := ann.node.Signal(ctx, ann.who(), &call.Signal{Call: id, To: "bob", Generation: 1, ToGeneration: 1, Done: true}); sent || err != nil {
		t.Errorf("to the old generation: %v %v", sent, err)
	}
	if sent, err := ann.node.Signal(ctx, ann.who(), &call.Signal{Call: id, To: "bob", Generation: 1, ToGeneration: 2, Negotiation: 3, Done: true}); !sent || err != nil {
		t.Errorf("to the new one: %v %v", sent, err)
	}
	if e := back.wait("call.signal", nil); e.Body.ToGeneration != 2 || !e.Body.Done {
		t.Errorf("got %+v", e.Body)
	}
}

func TestSessionsAreLimited(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t, func(c *call.Config) { c.InviteRate, c.SignalRate, c.SignalBurst = 3, 1, 30 })
	id := ann.call("bob")
	bob.accept(id)
	limited := 0
	for range 100 {
		_, err := bob.node.Signal(context.Background(), bob.who(), &call.Signal{Call: id, To: "ann", Generation: 1, ToGeneration: 1, Done: true})
		if errors.Is(err, errcode.RateLimited) {
			limited++
		}
	}
	if limited < 50 || limited > 75 {
		t.Errorf("%d of 100 signals at once were refused", limited)
	}
	cy := w.device("cy", "c")
	limited = 0
	for range 6 {
		if _, err := cy.invite(call.Invitation{To: []string{"dee"}}); errors.Is(err, errcode.RateLimited) {
			limited++
		}
	}
	if limited != 3 {
		t.Errorf("%d of 6 invitations were refused, want 3", limited)
	}
}
