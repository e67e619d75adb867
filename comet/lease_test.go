package comet_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

func TestNothingIsAcceptedBeforeTheEpochIsTaken(t *testing.T) {
	n := start(t, func(_ *comet.Config, _ *comet.Deps, n *node) { n.router.refuse = 5 })
	n.router.with(func() {
		if n.router.refuse != 0 || len(n.router.epochs) != 1 {
			t.Errorf("ready with %d refusals to come and %d epochs", n.router.refuse, len(n.router.epochs))
		}
	})
	n.login("tcp", `{}`).barrier()
}

func TestEnrolmentThatFailedIsTriedInTheSameEpoch(t *testing.T) {
	n := start(t, func(_ *comet.Config, _ *comet.Deps, n *node) { n.router.refuse = 3 })
	n.router.with(func() {
		if tried := slices.Compact(slices.Clone(n.router.tried)); len(n.router.tried) != 4 || len(tried) != 1 {
			t.Errorf("enrolled %d times in %v, want 4 times in one epoch", len(n.router.tried), tried)
		}
	})
}

func TestLeaseIsRenewedWithLoad(t *testing.T) {
	n := start(t)
	n.login("tcp", `{"token":"a","rooms":["live://1"]}`)
	renews := func() (k int) { n.router.with(func() { k = n.router.renews }); return k }
	before := renews()
	eventually(t, func() bool { return renews() > before+3 }, "lease renewed")
}

func TestDeadEpochMakesANewOne(t *testing.T) {
	n := start(t)
	var cs []*client
	for i := range 30 {
		cs = append(cs, n.login("tcp", fmt.Sprintf(`{"token":"u%d","key":"k%d","rooms":["live://1"]}`, i, i)))
	}
	plain := n.login("ws", `{"mid":1,"room_id":"live://2"}`)
	old := n.epoch()
	j, idle := n.job(halleyv1.Lane_LANE_PUSH), n.job(halleyv1.Lane_LANE_CHAT)
	n.router.with(func() {
		n.router.dead[old] = true
		clear(n.router.rooms)
		clear(n.router.members)
		clear(n.router.numbers)
	})
	eventually(t, func() bool { return n.epoch() != old }, "a new epoch")
	for _, c := range cs {
		c.expectEvent("resync")
	}
	eventually(t, func() bool {
		n.router.mu.Lock()
		defer n.router.mu.Unlock()
		return len(n.router.registered) == 31
	}, "all sessions registered again")
	eventually(t, func() bool { return n.router.count("live://1") == 30 && n.router.count("live://2") == 1 }, "all rooms stored again")
	if got := len(n.router.listed("live://1")); got != 30 {
		t.Errorf("%d uids listed, want 30", got)
	}
	n.router.with(func() {
		for id, s := range n.router.registered {
			if s.GetConn().GetEpoch() == old {
				t.Errorf("%s is registered in the dead epoch", id)
			}
		}
		if want := []bool{false, true}; !slices.Equal(n.router.holding, want) {
			t.Errorf("enrolled as holding sessions: got %v, want %v", n.router.holding, want)
		}
	})
	// Nothing is marked in the new epoch until it is rewritten.
	eventually(t, func() (all bool) {
		n.router.with(func() {
			whole := map[uint32]bool{}
			for _, r := range n.router.rewrites {
				if r.GetLast() && r.GetEpoch() != old {
					whole[r.GetBucket()] = true
				}
			}
			all = len(whole) == name.Buckets
		})
		return all
	}, "every bucket rewritten in the new epoch")
	// The streams of the old epoch are refused: job must look up again.
	if _, err := idle.stream.Recv(); err == nil || !strings.Contains(err.Error(), "FailedPrecondition") {
		t.Errorf("got %v, want FAILED_PRECONDITION without being asked", err)
	}
	j.stream.Send(&halleyv1.DeliverRequest{Message: &halleyv1.DeliverRequest_Batch{Batch: &halleyv1.DeliverBatch{
		Deliveries: []*halleyv1.Delivery{{Number: 1, Tenant: "default", Room: "live://1", Content: push(1000, "old")}},
	}}})
	if _, err := j.stream.Recv(); err == nil || !strings.Contains(err.Error(), "FailedPrecondition") {
		t.Errorf("got %v, want FAILED_PRECONDITION", err)
	}
	n.job(halleyv1.Lane_LANE_PUSH).send(&halleyv1.Delivery{Room: "live://1", Content: push(1000, "new")})
	cs[0].expect(1000, "new")
	plain.barrier()
}

// Who was taken out of a conversation while its epoch was dead was not found here.
func TestConversationsAreLeftWithADeadEpoch(t *testing.T) {
	n := start(t)
	a := n.dial("ws")
	a.auth(`{"token":"a","rooms":["live://1"]}`)
	j := n.job(halleyv1.Lane_LANE_URGENT)
	for _, room := range []string{"conversation://7", "conversation://open/7"} {
		j.send(&halleyv1.Delivery{Uids: []string{"a"}, Content: &halleyv1.Delivery_Control{Control: &halleyv1.Control{
			Control: &halleyv1.Control_Rooms{Rooms: &halleyv1.RoomsChange{Join: []string{room}}},
		}}})
		a.expectEvent("resync")
		eventually(t, func() bool { return n.router.count(room) == 1 }, room)
	}
	old := n.epoch()
	n.router.with(func() {
		n.router.dead[old] = true
		clear(n.router.rooms)
		clear(n.router.members)
		clear(n.router.numbers)
	})
	eventually(t, func() bool { return n.epoch() != old }, "a new epoch")
	a.expectEvent("resync")
	eventually(t, func() bool { return n.router.count("live://1") == 1 && n.router.count("conversation://open/7") == 1 }, "the other rooms stored again")
	j = n.job(halleyv1.Lane_LANE_PUSH)
	j.send(&halleyv1.Delivery{Room: "conversation://7", Content: push(1000, "not for a")}, &halleyv1.Delivery{Room: "live://1", Content: push(1000, "for a")})
	a.expect(1000, "for a")
	if got := n.router.count("conversation://7"); got != 0 {
		t.Errorf("%d sessions are in the conversation", got)
	}
}

func TestAllIsRegisteredInANewEpochAtThePaceOfRewrites(t *testing.T) {
	t.Parallel()
	const sessions, rate = 40, 80
	n := start(t, with(func(c *comet.Config) { c.RewriteRate, c.RewriteInterval = rate, time.Hour }))
	var cs []*client
	for i := range sessions {
		cs = append(cs, n.login("tcp", fmt.Sprintf(`{"token":"u%d","rooms":["live://%d"]}`, i, i)))
	}
	old := n.epoch()
	var renews, early int // early: sessions that were registered when the last room was stored
	begun := time.Now()
	n.router.with(func() {
		n.router.dead[old] = true
		clear(n.router.rooms)
		clear(n.router.numbers)
		renews = n.router.renews
		n.router.changed = func() {
			if len(n.router.rooms) == sessions {
				n.router.changed, early = nil, len(n.router.registered)
			}
		}
	})
	// stored returns how long it took since the epoch died. That is a little more than its pace asks for: when the first one is stored may be
	// noticed late.
	stored := func(what string, count func() int) time.Duration {
		t.Helper()
		eventually(t, func() (ok bool) { n.router.with(func() { ok = count() >= sessions }); return ok }, "all "+what)
		return time.Since(begun)
	}
	const each = sessions * time.Second / rate
	if took := stored("rooms", func() int { return len(n.router.rooms) }); took < each/2 {
		t.Errorf("%d rooms at %d a second took %v", sessions, rate, took)
	}
	if took := stored("sessions", func() int { return len(n.router.registered) }); took < each+each/2 {
		t.Errorf("%d rooms and sessions at %d a second took %v", sessions, rate, took)
	}
	n.router.with(func() {
		if early > sessions/4 {
			t.Errorf("%d sessions registered before the last room", early)
		}
		// Every 50 ms.
		if got := n.router.renews - renews; got < 3 {
			t.Errorf("the lease was renewed %d times meanwhile", got)
		}
	})
	for _, c := range cs {
		c.expectEvent("resync")
	}
}

// TestSessionThatCameDuringALongRewriteIsNamedByIt: what a rewrite doesn't name, and isn't new any more, is removed.
func TestSessionThatCameDuringALongRewriteIsNamedByIt(t *testing.T) {
	t.Parallel()
	n := start(t, with(func(c *comet.Config) { c.RewriteRate, c.RewriteInterval = 20, 256*100*time.Millisecond }))
	keyIn := func(from, to uint32, i int) string {
		for {
			key := fmt.Sprintf("k%d", i)
			if b := name.Bucket("default", key); b >= from && b < to {
				return key
			}
			i += 100
		}
	}
	for i := range 20 {
		n.login("tcp", fmt.Sprintf(`{"key":%q}`, keyIn(0, 200, i)))
	}
	old := n.epoch()
	// It does not go on beyond a quarter until the late one is there.
	there := make(chan struct{})
	let := sync.OnceFunc(func() { close(there) })
	defer let()
	var written atomic.Int32
	n.router.with(func() {
		n.router.dead[old] = true
		n.router.rewriting = func(r *halleyv1.RewriteRequest) {
			if r.GetEpoch() == old || len(r.GetSessions()) == 0 {
				return
			}
			if written.Add(1) >= 5 {
				<-there
			}
		}
	})
	eventually(t, func() bool { return written.Load() >= 5 }, "a quarter of all written")
	late := keyIn(250, 256, 0)
	n.login("tcp", fmt.Sprintf(`{"key":%q}`, late))
	let()
	named := func() (done, in bool) {
		n.router.with(func() {
			for _, r := range n.router.rewrites {
				if r.GetEpoch() != old && r.GetBucket() == name.Bucket("default", late) && !done {
					done = true
					in = slices.ContainsFunc(r.GetSessions(), func(s *halleyv1.Session) bool { return s.GetKey() == late })
				}
			}
		})
		return done, in
	}
	eventually(t, func() bool { done, _ := named(); return done }, "its bucket written")
	if _, in := named(); !in {
		t.Error("its bucket was written without it")
	}
}

// TestRoomThatEmptiesDuringARewriteIsToldToBeEmpty: a rewrite names what is there.
func TestRoomThatEmptiesDuringARewriteIsToldToBeEmpty(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.RewriteInterval = time.Hour }))
	a := n.login("tcp", `{"token":"a","rooms":["live://1"]}`)
	// So many calls are under way that the next change waits.
	let := make(chan struct{})
	held := make(chan struct{}, 100)
	n.router.with(func() {
		n.router.hold = func() {
			held <- struct{}{}
			<-let
		}
	})
	for i := range 4 {
		c := n.dial("tcp")
		c.send(frame.Frame{Op: frame.OpAuth, Seq: 1, Body: fmt.Appendf(nil, `{"token":"b%d","rooms":["other://%d"]}`, i, i)})
		<-held
	}
	a.conn.Close()
	eventually(t, func() bool { return n.metric("halley_comet_sessions") == 4 }, "the room's last member gone")
	bucket := name.Bucket("default", "live://1")
	n.router.with(func() { n.router.lost, n.router.rewrites = []uint32{bucket}, nil })
	eventually(t, func() (ok bool) { n.router.with(func() { ok = len(n.router.rewrites) > 0 }); return ok }, "its bucket written")
	n.router.with(func() { n.router.hold = nil })
	close(let)
	eventually(t, func() bool { return n.router.count("live://1") == 0 }, "router knows that nobody is there")
	eventually(t, func() bool { return n.metric("halley_comet_rooms") == 4 }, "the room is forgotten")
}

func TestRoomThatASessionMayNotJoinIsNotKept(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.MaxRooms, c.RewriteInterval = 1, time.Hour }))
	n.onRequest(func(_ context.Context, r *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
		return &halleyv1.SessionResponse{Effects: &halleyv1.Effects{Join: []string{string(r.GetBody())}}}, nil
	})
	c := n.login("tcp", `{"token":"a","rooms":["live://1"]}`)
	for i := range 5 {
		c.send(frame.Frame{Op: frame.OpRequest, Seq: 7, Body: fmt.Appendf(nil, "live://x%d", i)})
		if code := errorOf(t, c.next()); code != "too_many_rooms" {
			t.Fatalf("got %s, want too_many_rooms", code)
		}
	}
	if got := n.metric("halley_comet_rooms"); got != 1 {
		t.Errorf("%v rooms are kept, want 1", got)
	}
}

func TestSessionThatConnectedOverADyingEpochIsRegisteredAgain(t *testing.T) {
	n := start(t)
	old := n.epoch()
	n.logic.mu.Lock()
	n.logic.connect = func(r *halleyv1.ConnectRequest, _ *halleyv1.ConnectResponse) error {
		n.router.with(func() { n.router.dead[old] = true })
		eventually(t, func() bool { return n.epoch() != old }, "a new epoch")
		return nil
	}
	n.logic.mu.Unlock()
	c := n.login("tcp", `{"token":"a"}`)
	eventually(t, func() bool {
		n.router.mu.Lock()
		defer n.router.mu.Unlock()
		for _, s := range n.router.registered {
			if s.GetUid() == "a" && s.GetConn().GetEpoch() != old {
				return true
			}
		}
		return false
	}, "registered in the new epoch")
	c.trySend(frame.Frame{Op: frame.OpHeartbeat})
}

// TestSessionThatConnectedOverALossIsRegisteredAgain: logic registered it, presence lost that, and comet wrote the bucket again, marker
// and all, before it knew whose the session is.
func TestSessionThatConnectedOverALossIsRegisteredAgain(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.RewriteInterval = time.Hour }))
	var all []uint32
	for b := range uint32(name.Buckets) {
		all = append(all, b)
	}
	n.duringLogIn(func(string) {
		n.router.with(func() { n.router.lost, n.router.rewrites = all, nil })
		eventually(t, func() (ok bool) {
			n.router.with(func() { ok = len(n.router.rewrites) >= name.Buckets })
			return ok
		}, "every bucket written")
	})
	n.login("tcp", `{"token":"a"}`)
	eventually(t, func() (ok bool) { n.router.with(func() { ok = len(n.router.registered) == 1 }); return ok }, "registered again")
	n.duringLogIn(func(string) {})
	n.login("tcp", `{"token":"b"}`).barrier()
	n.router.with(func() {
		for _, s := range n.router.registered {
			if s.GetUid() == "b" {
				t.Error("one that nothing happened to was registered again")
			}
		}
	})
}

func TestReplacedSessionIsClosedWhenRegisteredAgain(t *testing.T) {
	n := start(t)
	a := n.dial("tcp")
	id := connID(a.auth(`{"token":"a"}`))
	b := n.login("tcp", `{"token":"b"}`)
	old := n.epoch()
	n.router.with(func() { n.router.replaced, n.router.dead[old] = id, true })
	for {
		f := a.next()
		if strings.Contains(string(f.Body), `"replaced"`) {
			break
		}
	}
	a.closed()
	b.expectEvent("resync")
	b.barrier()
}

func TestLostBucketsAreWrittenRoomsFirst(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.RewriteInterval = time.Hour }))
	for i := range 20 {
		n.login("tcp", fmt.Sprintf(`{"token":"u%d","key":"k%d","rooms":["live://%d"]}`, i, i, i))
	}
	var all []uint32
	for b := range uint32(name.Buckets) {
		all = append(all, b)
	}
	n.router.with(func() { n.router.lost, n.router.rewrites = all, nil })
	eventually(t, func() bool {
		n.router.mu.Lock()
		defer n.router.mu.Unlock()
		last := map[uint32]bool{}
		for _, r := range n.router.rewrites {
			if r.GetLast() {
				last[r.GetBucket()] = true
			}
		}
		return len(last) == name.Buckets
	}, "every bucket written")
	n.router.with(func() {
		keys, uids, rooms := map[string]bool{}, map[string]bool{}, map[string]bool{}
		sessionsIn := map[uint32]bool{}
		for _, r := range n.router.rewrites {
			for _, c := range r.GetRooms() {
				if sessionsIn[r.GetBucket()] {
					t.Error("a room came after sessions")
				}
				if name.Bucket("default", c.GetRoom()) != r.GetBucket() || !c.GetListed() || len(c.GetJoined()) != 1 {
					t.Errorf("bucket %d has %v", r.GetBucket(), c)
				}
				rooms[c.GetRoom()] = true
			}
			for _, s := range r.GetSessions() {
				sessionsIn[r.GetBucket()] = true
				k, u := name.Bucket("default", s.GetKey()) == r.GetBucket(), name.Bucket("default", s.GetUid()) == r.GetBucket()
				if !k && !u {
					t.Errorf("bucket %d has a stranger: %v", r.GetBucket(), s)
				}
				keys[s.GetKey()] = keys[s.GetKey()] || k
				uids[s.GetUid()] = uids[s.GetUid()] || u
			}
		}
		for _, m := range []map[string]bool{keys, uids, rooms} {
			if len(m) != 20 {
				t.Errorf("%d names written, want 20", len(m))
			}
			for k, in := range m {
				if !in {
					t.Errorf("%s is not in its own bucket", k)
				}
			}
		}
	})
}

func TestEveryBucketIsWrittenInTurn(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.RewriteInterval = 256 * 2 * time.Millisecond }))
	eventually(t, func() bool {
		n.router.mu.Lock()
		defer n.router.mu.Unlock()
		seen := map[uint32]bool{}
		for _, r := range n.router.rewrites {
			seen[r.GetBucket()] = true
		}
		return len(seen) == name.Buckets
	}, "every bucket written")
}

func TestRouterAwayHarmsNoSession(t *testing.T) {
	n := start(t, func(_ *comet.Config, _ *comet.Deps, n *node) {
		n.router.ttl = 100 * time.Millisecond
	})
	a := n.login("tcp", `{"token":"a","rooms":["live://1"]}`)
	b := n.login("tcp", `{"token":"b","rooms":["live://1"]}`)
	n.router.with(func() { n.router.down = true })
	eventually(t, func() bool { return n.metric("halley_comet_lease_lapsed") == 1 }, "the comet knows that its lease may be over")
	a.barrier()
	j := n.job(halleyv1.Lane_LANE_PUSH)
	j.send(&halleyv1.Delivery{Room: "live://1", Content: push(1000, "still here")})
	a.expect(1000, "still here")
	b.conn.Close()
	eventually(t, func() bool { return n.metric("halley_comet_sessions") == 1 }, "b is gone")
	n.router.with(func() { n.router.down = false })
	eventually(t, func() bool { return len(n.goneConns()) == 1 && n.router.count("live://1") == 1 }, "what happened meanwhile is told")
	eventually(t, func() bool { return n.metric("halley_comet_lease_lapsed") == 0 }, "the lease is renewed")
	if n.metric("halley_comet_epochs") != 1 {
		t.Error("the epoch changed though nobody declared it dead")
	}
	a.barrier()
}

func TestRoomsListUIDsUpTo200(t *testing.T) {
	n := start(t)
	var cs []*client
	for i := range 201 {
		cs = append(cs, n.login("tcp", fmt.Sprintf(`{"token":"u%03d","rooms":["live://1"]}`, i)))
		if i == 0 {
			// A second session of the same uid.
			cs = append(cs, n.login("tcp", `{"token":"u000","rooms":["live://1"]}`))
		}
		if i == 197 {
			if got := n.router.listed("live://1"); len(got) != 198 || got[0] != "u000" || n.router.count("live://1") != 199 {
				t.Fatalf("%d uids listed, count %d; want 198 and 199", len(got), n.router.count("live://1"))
			}
		}
	}
	if got := n.router.listed("live://1"); len(got) != 0 || n.router.count("live://1") != 202 {
		t.Errorf("%d uids listed of %d", len(got), n.router.count("live://1"))
	}
	cs[0].conn.Close()
	cs[5].conn.Close()
	eventually(t, func() bool { return len(n.router.listed("live://1")) == 200-0 && n.router.count("live://1") == 200 }, "200 uids listed again")
	cs[1].conn.Close()
	eventually(t, func() bool { return !slices.Contains(n.router.listed("live://1"), "u000") }, "the last session of u000 has left")
}
