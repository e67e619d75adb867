package job_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/kit/kittest"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

// numbered makes n records to a target.
func numbered(prefix string, n int, to *halleyv1.Target) []*halleyv1.PushRecord {
	var recs []*halleyv1.PushRecord
	for _, id := range ids(prefix, n) {
		recs = append(recs, record(id, to))
	}
	return recs
}

func TestStalledCometHoldsUpOthersNoLongerThanTheStallTime(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	slow, fast := startComet(t, c.router, "slow"), startComet(t, c.router, "fast")
	slow.login("default", "anna", conn(1), "chat://1")
	fast.login("default", "bert", conn(2), "chat://1")
	cfg := testConfig()
	cfg.StallAfter = 2 * time.Second // longer than the fast one may stand still
	r := c.start(cfg)
	slow.with(func() { slow.deaf = true })

	// One partition, so that both comets' pushes are one worker's: a window of 64 and far more pushes than that.
	const n = 400
	c.push(topic.Push, numbered("r", n, toRoom("chat://1"))...)
	start := time.Now()
	kittest.Eventually(t, patience, func() bool { return len(fast.bodies(conn(2))) == n }, "the fast comet did not get all")
	if took := time.Since(start); took > patience/2 { // held up by the slow one it would wait for it to be condemned
		t.Errorf("the fast comet waited %v for the slow one, stall time is %v", took, cfg.StallAfter)
	}
	if n := r.count("stalls_total", "lane=push"); n != 1 {
		t.Errorf("stalled %v times, want once", n)
	}
	if n := r.count("streams", "lane=push", "state=stalled"); n != 1 {
		t.Errorf("%v streams stalled, want 1", n)
	}

	// A control delivery waits instead; the offset waits with it.
	c.push(topic.Push, control("ctl", toUID("anna")))
	kittest.Eventually(t, patience, func() bool { return r.count("targets_total") == n+1 }, "control record was not taken")

	// Pushes to the fast one go on.
	c.push(topic.Push, record("more", toUID("bert")))
	kittest.Eventually(t, patience, func() bool { return slices.Contains(fast.bodies(conn(2)), "more") }, "the fast comet is held up")
	if n := len(slow.bodies(conn(1))); n > 64+1 {
		t.Errorf("%d pushes went to the stalled comet, its window is 64", n)
	}
	if done := c.committed(topic.Push); done > n {
		t.Errorf("committed up to %d, past unacknowledged deliveries", done)
	}

	// It acknowledges again: control arrives, everything ends, pushes flow.
	slow.with(func() { slow.deaf = false })
	slow.breakStreams()
	c.waitCommitted(topic.Push, n+2)
	c.push(topic.Push, record("again", toUID("anna")))
	kittest.Eventually(t, patience, func() bool { return slices.Contains(slow.bodies(conn(1)), "again") }, "the comet is stalled for ever")
	balanced(t, r)
	missed, delivered := r.count("missed_total", "reason=stalled"), r.count("delivered_total")
	if delivered != n+3 {
		t.Errorf("delivered %v, want %d: the room's were delivered by the fast comet", delivered, n+3)
	}
	if missed < n-64-cfgSlack || missed > n {
		t.Errorf("missed for the stall %v, want about %d", missed, n-64)
	}
}

// cfgSlack is what a stalled stream's window may have let through besides.
const cfgSlack = 64

func TestStalledPushesToOneUserAreDroppedAndCounted(t *testing.T) {
	c := newCluster(t)
	slow := startComet(t, c.router, "slow")
	slow.login("default", "anna", conn(1))
	cfg := testConfig()
	cfg.StallAfter = ms(300)
	r := c.start(cfg)
	slow.with(func() { slow.hold = true })
	const n = 300
	c.push(topic.Push, numbered("p", n, toUID("anna"))...)
	kittest.Eventually(t, patience, func() bool { return r.count("targets_total") == n && r.count("dropped_total", "reason=stalled") > 0 }, "nothing was dropped")
	slow.with(func() { slow.hold = false })
	c.waitCommitted(topic.Push, n)
	balanced(t, r)
	delivered, stalled := r.count("delivered_total"), r.count("dropped_total", "reason=stalled")
	if delivered+stalled != n || int(delivered) != len(slow.bodies(conn(1))) {
		t.Errorf("delivered %v + stalled %v, received %d, sent %d", delivered, stalled, len(slow.bodies(conn(1))), n)
	}
}

func TestSilentCometIsCondemnedAndItsDeliveriesLookedUpAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	mute, other := startComet(t, c.router, "mute"), startComet(t, c.router, "other")
	mute.login("default", "anna", conn(1))
	mute.login("default", "bert", conn(2))
	other.with(func() { other.sessions[conn(3)] = map[string]bool{"default/uid/anna": true} })
	cfg := testConfig()
	cfg.CondemnAfter = 4 * time.Second // longer than the other one may stand still
	r := c.start(cfg)
	mute.with(func() { mute.hold = true })
	epoch := mute.epoch
	start := time.Now()
	c.push(topic.Push, record("p", toUID("anna")), record("q", toUID("bert")))
	c.push(topic.Urgent, control("c", toUID("anna")))
	// anna comes back elsewhere meanwhile.
	c.router.seat("default", "uid", "anna", other.epoch, conn(3))
	kittest.Eventually(t, patience, func() bool { return len(c.router.condemnedEpochs()) > 0 }, "not condemned")
	if took := time.Since(start); took < cfg.CondemnAfter-cfg.CheckInterval {
		t.Errorf("condemned after %v, before a lease of %v was over", took, cfg.CondemnAfter)
	}
	c.waitCommitted(topic.Push, 2)
	c.waitCommitted(topic.Urgent, 1)
	for _, id := range []string{"p", "c"} {
		if got := deliveredIDs(other, conn(3)); !slices.Contains(got, id) {
			t.Errorf("anna got %v at her new place, %s is missing", got, id)
		}
	}
	balanced(t, r)
	if got := c.router.condemnedEpochs(); !slices.Equal(got, []string{epoch}) {
		t.Errorf("condemned %v, want %s once", got, epoch)
	}
	if n := r.count("dropped_total", "lane=push"); n != 1 {
		t.Errorf("dropped %v, want bert's push", n)
	}
}

func deliveredIDs(c *cometServer, conn string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, g := range c.received[conn] {
		out = append(out, g.id)
	}
	return out
}

func TestOneMuteJobDoesNotCondemnEveryCometAtOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a, b := startComet(t, c.router, "a"), startComet(t, c.router, "b")
	a.login("default", "anna", conn(1))
	b.login("default", "bert", conn(2))
	cfg := testConfig()
	cfg.CondemnAfter = ms(500)
	r := c.start(cfg)
	for _, x := range []*cometServer{a, b} {
		x.with(func() { x.hold = true })
	}
	start := time.Now()
	c.push(topic.Push, record("p", toUID("anna")), record("q", toUID("bert")))
	kittest.Eventually(t, patience, func() bool { return len(c.router.condemnedEpochs()) > 0 }, "never condemned")
	if took := time.Since(start); took < 3*cfg.CondemnAfter-2*cfg.CheckInterval {
		t.Errorf("condemned after %v though no comet at all answered: the job itself may be cut off", took)
	}
	balanced(t, r)
}

func TestCometThatPacesPushesToAllIsNotCondemned(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	cfg := testConfig()
	cfg.CondemnAfter = ms(300)
	r := c.start(cfg)
	// Its queue of pushes to all is full: it reads nothing more of this stream until there is room.
	a.with(func() { a.hold = true })
	c.push(topic.Bulk, record("u", toUID("anna")), record("all", toAll()))
	kittest.Eventually(t, patience, func() bool { return r.count("deliveries_total") == 2 }, "not on their way")
	before := r.count("locate_seconds")
	kittest.Eventually(t, patience, func() bool { return r.count("locate_seconds") > before+10 }, "a silent comet is not checked")
	if got := c.router.condemnedEpochs(); len(got) > 0 {
		t.Errorf("condemned %v", got)
	}
	a.with(func() { a.hold = false })
	c.waitCommitted(topic.Bulk, 2)
	balanced(t, r)
}

func TestWhatBecomesTooLateInTheWindowIsNotSent(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	var reach atomic.Bool
	r := c.start(testConfig(), unreachable(&reach))
	late, fresh := record("late", toUID("anna")), record("fresh", toUID("anna"))
	late.ExpiresAtMs = time.Now().Add(ms(200)).UnixMilli()
	c.push(topic.Push, late, fresh)
	kittest.Eventually(t, patience, func() bool { return time.Now().UnixMilli() > late.ExpiresAtMs })
	reach.Store(true)
	c.waitCommitted(topic.Push, 2)
	if got := a.bodies(conn(1)); !slices.Equal(got, []string{"fresh"}) {
		t.Errorf("got %v, want fresh only", got)
	}
	balanced(t, r)
	if n := r.count("dropped_total", "reason=expired"); n != 1 {
		t.Errorf("expired %v, want 1", n)
	}
}

func TestRoomIsNotRepeatedWhereItWasDelivered(t *testing.T) {
	c := newCluster(t)
	a, b := startComet(t, c.router, "a"), startComet(t, c.router, "b")
	a.login("default", "anna", conn(1), "chat://1")
	b.login("default", "bert", conn(2), "chat://1")
	r := c.start(testConfig())
	a.with(func() { a.hold = true })
	c.push(topic.Push, record("p", toRoom("chat://1")))
	kittest.Eventually(t, patience, func() bool { return len(b.bodies(conn(2))) == 1 && r.count("acknowledged_total") == 1 }, "b did not get it")
	c.router.die(a.epoch)
	c.waitCommitted(topic.Push, 1)
	balanced(t, r)
	if got := b.bodies(conn(2)); len(got) != 1 {
		t.Errorf("bert got %v, want it once though the room was looked up again", got)
	}
	if n := r.count("located_again_total"); n != 1 {
		t.Errorf("looked up again %v times, want once", n)
	}
}

func TestEndWaitsForAcknowledgementsAndCommitsThem(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	cfg := testConfig()
	cfg.DrainTimeout, cfg.WaitMax = patience, patience // it ends when all is acknowledged
	r := c.start(cfg)
	a.with(func() { a.hold = true })
	c.push(topic.Push, numbered("p", 5, toUID("anna"))...)
	kittest.Eventually(t, patience, func() bool { return r.count("deliveries_total") == 5 }, "not on their way")
	r.cancel()
	kittest.Eventually(t, patience, func() bool { return r.Ready(t.Context()) != nil }, "ready while it ends")
	a.with(func() { a.hold = false })
	r.stop()
	if n := c.committed(topic.Push); n != 5 {
		t.Errorf("committed up to %d, want 5: the acknowledgements came while the job ended", n)
	}
	balanced(t, r)
}

// unreachable has a job reach no comet until reach is set.
func unreachable(reach *atomic.Bool) func(*job.Deps) {
	return func(deps *job.Deps) {
		deps.Dial = func(addr string) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
					if !reach.Load() {
						return nil, errors.New("no route")
					}
					return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
				}))
		}
	}
}

func TestLostPartitionsPushesAreLeftToTheirNewOwner(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	var want []string
	var recs []*halleyv1.PushRecord
	for u := range 40 { // in all partitions
		uid := fmt.Sprintf("u%d", u)
		a.login("default", uid, conn(u))
		recs = append(recs, record(uid, toUID(uid)))
		want = append(want, uid)
	}
	var reach atomic.Bool
	first := c.start(testConfig(), unreachable(&reach))
	c.push(topic.Push, recs...)
	kittest.Eventually(t, patience, func() bool { return first.count("deliveries_total") == 40 }, "not on their way")
	before := first.count("rebalances_total", "lane=push")
	second := c.start(testConfig())
	kittest.Eventually(t, patience, func() bool {
		return first.count("rebalances_total", "lane=push") > before && second.count("rebalances_total", "lane=push") > 0
	}, "partitions not shared")
	reach.Store(true)
	c.waitCommitted(topic.Push, 40)
	balanced(t, first, second)
	for u, id := range want {
		if got := a.bodies(conn(u)); !slices.Equal(got, []string{id}) {
			t.Errorf("%s got %v, want it once: what the first job had not sent belongs to whoever has the partition now", id, got)
		}
	}
	if n := first.count("handed_over_total"); n != 40 {
		t.Errorf("handed over %v, want 40", n)
	}
}

func TestRecordsThatWaitForRouterAreHandedOver(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	c.router.with(func() { c.router.away = true })
	first := c.start(testConfig())
	c.push(topic.Push, numbered("p", 5, toUID("anna"))...)
	kittest.Eventually(t, patience, func() bool { return first.count("targets_total") == 5 }, "not taken")
	first.stop()
	balanced(t, first)
	if n := c.committed(topic.Push); n != 0 {
		t.Errorf("committed up to %d though nothing was delivered", n)
	}
	c.router.with(func() { c.router.away = false })
	second := c.start(testConfig())
	c.waitCommitted(topic.Push, 5)
	if got := a.bodies(conn(1)); !slices.Equal(got, ids("p", 5)) {
		t.Errorf("got %v, want all five", got)
	}
	balanced(t, first, second)
}

func TestFullWindowGoesOnWithTheFirstAcknowledgement(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	cfg := testConfig()
	r := c.start(cfg)
	a.with(func() { a.hold = true })
	const n = 500
	c.push(topic.Push, numbered("p", n, toUID("anna"))...)
	kittest.Eventually(t, patience, func() bool { return r.count("deliveries_total") == float64(cfg.WindowCount) }, "the window is not full")
	a.with(func() { a.hold = false })
	c.waitCommitted(topic.Push, n)
	if got := a.bodies(conn(1)); !slices.Equal(got, ids("p", n)) {
		t.Errorf("got %v", got)
	}
	balanced(t, r)
}

func TestKilledCometsPushesAreLookedUpAgainWhenItsLeaseIsOver(t *testing.T) {
	c := newCluster(t)
	a, b := startComet(t, c.router, "a"), startComet(t, c.router, "b")
	a.login("default", "anna", conn(1), "chat://1")
	a.login("default", "bert", conn(2))
	b.with(func() {
		b.sessions[conn(3)] = map[string]bool{"default/uid/anna": true, "default/room/chat://1": true}
	})
	r := c.start(testConfig())
	c.push(topic.Push, record("first", toUID("anna")))
	c.waitCommitted(topic.Push, 1)
	a.kill()
	c.push(topic.Push, record("p", toUID("anna")), record("q", toUID("bert")), record("r", toRoom("chat://1")))
	kittest.Eventually(t, patience, func() bool { return r.count("deliveries_total") == 4 }, "not on their way")
	b.register("default", "anna", conn(3), "chat://1")
	c.router.die(a.epoch)
	c.waitCommitted(topic.Push, 4)
	if got := b.bodies(conn(3)); !slices.Contains(got, "p") || !slices.Contains(got, "r") || len(got) != 2 {
		t.Errorf("anna got %v at her new place, want p and r", got)
	}
	balanced(t, r)
	if d, n := r.count("delivered_total"), r.count("dropped_total", "reason=no_recipient"); d != 3 || n != 1 {
		t.Errorf("delivered %v and no_recipient %v, want 3 and 1", d, n)
	}
	kittest.Eventually(t, patience, func() bool { return r.count("streams") == 1 }, "other streams are left than b's")
}

func TestNewEpochIsLookedUpAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	r := c.start(testConfig())
	c.push(topic.Push, record("p0", toUID("anna")))
	c.waitCommitted(topic.Push, 1)

	// The comet has a new epoch; router notices a little later, as its cache allows.
	old := a.epoch
	a.with(func() { a.epoch = "e2" })
	c.push(topic.Push, numbered("q", 20, toUID("anna"))...)
	kittest.Eventually(t, patience, func() bool { return r.count("located_again_total") > 0 }, "not looked up again")
	c.router.with(func() {
		delete(c.router.comets, old)
		c.router.comets["e2"] = &halleyv1.CometInfo{Comet: "a", Epoch: "e2", Addr: a.addr}
		c.router.seats["default/uid/anna"] = []seat{{"e2", conn(1)}}
	})
	c.waitCommitted(topic.Push, 21)
	if got, want := a.bodies(conn(1)), append([]string{"p0"}, ids("q", 20)...); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	balanced(t, r)
	if n := r.count("dropped_total"); n != 0 {
		t.Errorf("dropped %v, want none", n)
	}
}

func TestEpochThatCometTakesALittleLateIsTriedAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	cfg := testConfig()
	cfg.RefusedFor = patience / 12 // It is waited for in full.
	r := c.start(cfg)
	// Router tells of e2 already, the comet still refuses it.
	c.router.with(func() {
		delete(c.router.comets, a.epoch)
		c.router.comets["e2"] = &halleyv1.CometInfo{Comet: "a", Epoch: "e2", Addr: a.addr}
		c.router.seats["default/uid/anna"] = []seat{{"e2", conn(1)}}
	})
	c.push(topic.Push, record("p", toUID("anna")))
	kittest.Eventually(t, patience, func() bool { return r.count("located_again_total") > 0 }, "not refused")
	a.with(func() { a.epoch = "e2" })
	c.waitCommitted(topic.Push, 1)
	if got := a.bodies(conn(1)); !slices.Equal(got, []string{"p"}) {
		t.Errorf("got %v, want p", got)
	}
	balanced(t, r)
}

func TestRefusedForGoodIsDroppedAsDeadEpoch(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	cfg := testConfig()
	cfg.RefusedFor = ms(300)
	r := c.start(cfg)
	a.with(func() { a.epoch = "never told" })
	c.push(topic.Push, record("p", toUID("anna")))
	c.push(topic.Urgent, control("c", toUID("anna")))
	c.waitCommitted(topic.Push, 1)
	if n := r.count("dropped_total", "lane=push", "reason=dead_epoch"); n != 1 {
		t.Errorf("dead_epoch %v, want 1", n)
	}
	// The control delivery is not dropped while router calls the epoch alive.
	if n := c.committed(topic.Urgent); n != 0 {
		t.Errorf("the offset passed a control delivery to a live epoch")
	}
	for e := range c.router.comets {
		c.router.die(e)
	}
	c.waitCommitted(topic.Urgent, 1)
	balanced(t, r)
}

func TestBrokenStreamSendsAgainInOrder(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	r := c.start(testConfig())
	a.with(func() { a.deaf = true })
	const n = 50
	c.push(topic.Push, numbered("p", n, toUID("anna"))...)
	kittest.Eventually(t, patience, func() bool { return len(a.bodies(conn(1))) == n }, "not delivered")
	if done := c.committed(topic.Push); done != 0 {
		t.Errorf("committed up to %d without any acknowledgement", done)
	}
	a.with(func() { a.deaf = false })
	a.breakStreams()
	c.waitCommitted(topic.Push, n)
	if got, want := a.bodies(conn(1)), append(ids("p", n), ids("p", n)...); !slices.Equal(got, want) {
		t.Errorf("got %v, want all twice in order", got)
	}
	balanced(t, r)
	if got := r.count("resent_total"); got != n {
		t.Errorf("resent %v, want %d", got, n)
	}
}

func TestWhatWasNotAcknowledgedIsReadAgainByTheNextJob(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	first := c.start(testConfig())
	c.push(topic.Push, numbered("p", 10, toUID("anna"))...)
	c.waitCommitted(topic.Push, 10)
	a.with(func() { a.deaf = true })
	c.push(topic.Push, numbered("q", 40, toUID("anna"))...)
	kittest.Eventually(t, patience, func() bool { return len(a.bodies(conn(1))) == 50 }, "not delivered")
	first.stop()
	if done := c.committed(topic.Push); done != 10 {
		t.Errorf("committed up to %d, want 10", done)
	}
	balanced(t, first)
	if n := first.count("handed_over_total"); n != 40 {
		t.Errorf("handed over %v, want 40", n)
	}
	a.with(func() { a.deaf = false })
	second := c.start(testConfig())
	c.waitCommitted(topic.Push, 50)
	if got, want := a.bodies(conn(1)), slices.Concat(ids("p", 10), ids("q", 40), ids("q", 40)); !slices.Equal(got, want) {
		t.Errorf("got %v, want the last 40 twice", got)
	}
	balanced(t, first, second)
}

func TestJobsJoinAndLeaveUnderLoad(t *testing.T) {
	c := newCluster(t)
	comets := []*cometServer{startComet(t, c.router, "a"), startComet(t, c.router, "b")}
	const users = 24
	for i := range users {
		comets[i%2].login("default", fmt.Sprintf("u%d", i), conn(i))
	}
	jobs := []*running{c.start(testConfig())}
	each, moved, pushed := 0, make(chan struct{}), make(chan struct{})
	stop := sync.OnceFunc(func() { close(moved); <-pushed })
	defer stop()
	go func() { // there is load until the last one has moved
		defer close(pushed)
		for i := 0; ; i++ {
			select {
			case <-moved:
				each = i
				return
			default:
			}
			var recs []*halleyv1.PushRecord
			for u := range users {
				recs = append(recs, record(fmt.Sprintf("%d-%d", u, i), toUID(fmt.Sprintf("u%d", u))))
			}
			c.push(topic.Push, recs...)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	// A second joins, the first leaves, a third joins, the second leaves.
	for i := range 2 {
		jobs = append(jobs, c.start(testConfig()))
		kittest.Eventually(t, patience, func() bool { return jobs[i+1].count("records_total", "lane=push") > 0 }, "the new job gets nothing")
		jobs[i].stop()
	}
	stop()
	c.waitCommitted(topic.Push, int64(users*each))
	for u := range users {
		checkFirsts(t, comets[u%2].bodies(conn(u)), ids(fmt.Sprintf("%d-", u), each))
	}
	balanced(t, jobs...)
	n := 0.0
	for _, r := range jobs {
		n += r.count("dropped_total")
	}
	if n != 0 {
		t.Errorf("dropped %v, want none", n)
	}
}

// checkFirsts checks that every one of want arrived, and first arrived in that order; repeats are allowed.
func checkFirsts(t *testing.T, got, want []string) {
	t.Helper()
	seen := map[string]bool{}
	var firsts []string
	for _, id := range got {
		if !seen[id] {
			seen[id] = true
			firsts = append(firsts, id)
		}
	}
	if !slices.Equal(firsts, want) {
		t.Errorf("first arrivals %v, want %v", firsts, want)
	}
}
