package job_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/kit/cursor"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store/conversation"
)

var errAway = errors.New("the database is away")

// failing returns a fault of these calls.
func failing(calls ...string) func(string) error {
	return func(call string) error {
		if slices.Contains(calls, call) {
			return errAway
		}
		return nil
	}
}

// once returns a fault of each of these calls' first one.
func once(calls ...string) func(string) error {
	return func(call string) error {
		if i := slices.Index(calls, call); i >= 0 {
			calls[i] = ""
			return errAway
		}
		return nil
	}
}

func TestDatabaseAwayIsWaitedOut(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	a.login(tenant, "ann", conn(1))
	a.login(tenant, "bob", conn(2))
	r := c.start(testConfig())
	c.store.set(failing("append"))
	id := newGroup()
	ps := []conversation.Proposal{c.people(conversation.Created, id, "ann", "bob")}
	want := []string{"1 created ann ann bob"}
	for i := range 200 {
		ps = append(ps, c.say(id, "bob", fmt.Sprint(i)))
		want = append(want, fmt.Sprintf("%d message bob %d", i+2, i))
	}
	c.send(ps[:100]...)
	kittest.Eventually(t, patience, func() bool { return c.store.count("append") > 3 }, "it isn't tried again")
	c.send(ps[100:]...)
	// The other lanes don't care.
	c.push(topic.Push, record("p", toKey(conn(1))))
	kittest.Eventually(t, patience, func() bool { return len(a.bodies(conn(1))) == 1 }, "the push waits for the database")
	c.waitCommitted(topic.Push, 1)
	if n := c.committed(topic.Chat); n != 0 {
		t.Fatalf("%d records were passed, though nothing is stored", n)
	}
	// Back, but the lists fail, and then the members.
	c.store.set(failing("listings"))
	kittest.Eventually(t, patience, func() bool { return c.store.count("listings") > 2 }, "lists aren't tried again")
	if n := c.committed(topic.Chat); n != 0 {
		t.Fatalf("%d records were passed, though a list is not stored", n)
	}
	c.store.set(nil)
	c.waitLines(a, conn(2), want...)
	c.waitCommitted(topic.Chat, 201)
	balanced(t, r)
	if n := r.count("store_failures_total", "call=append"); n < 3 {
		t.Errorf("%v failures counted", n)
	}
}

// TestNothingIsTwiceOrMissingAfterAFault has each step fail once before it is done, or just after.
func TestNothingIsTwiceOrMissingAfterAFault(t *testing.T) {
	for _, step := range []string{"append", "appended", "listings", "rosters", "changes"} {
		t.Run(step, func(t *testing.T) {
			c := newChat(t)
			a := startComet(t, c.router, "a")
			a.login(tenant, "bob", conn(2))
			id := newGroup()
			// Made by another job: who is in it has to be read.
			if _, err := c.store.Store.Append(t.Context(), []conversation.Proposal{c.people(conversation.Created, id, "ann", "bob")}); err != nil {
				t.Fatal(err)
			}
			ps := []conversation.Proposal{c.people(conversation.Joined, id, "ann", "cat")}
			want := []string{"2 joined ann cat"}
			for i := range 30 {
				ps = append(ps, c.say(id, "ann", fmt.Sprint(i)))
				want = append(want, fmt.Sprintf("%d message ann %d", i+3, i))
			}
			c.send(ps...)
			c.sendRecords(mute("bob", id, 1, "true"))
			c.store.set(once(step))
			r := c.start(testConfig())
			c.waitCommitted(topic.Chat, 32)
			balanced(t, r)
			got := c.lines(a, conn(2), false)
			change := "change 1 mute " + id + " true"
			if i := slices.Index(got, change); i < 0 {
				t.Errorf("bob was not told of his change: %q", got)
			} else if got = slices.Delete(got, i, i+1); !slices.Equal(got, want) {
				t.Errorf("bob was told\n%q\nwant\n%q", got, want)
			}
			if n := c.store.count(step); n < 2 {
				t.Errorf("%s was called %d times: nothing has failed", step, n)
			}
		})
	}
}

// TestManyLargeGroupsAreReadFewAtOnce has a database that can't read two groups in its time.
func TestManyLargeGroupsAreReadFewAtOnce(t *testing.T) {
	c := newChat(t)
	c.store.rosters = 1
	a := startComet(t, c.router, "a")
	a.login(tenant, "bob", conn(2))
	const n = 12
	for i := range n {
		id := newGroup()
		if _, err := c.store.Store.Append(t.Context(), []conversation.Proposal{c.people(conversation.Created, id, "ann", "bob")}); err != nil {
			t.Fatal(err)
		}
		c.send(c.say(id, "ann", fmt.Sprint(i)))
	}
	r := c.start(testConfig())
	kittest.Eventually(t, patience, func() bool { return len(c.lines(a, conn(2), false)) == n }, "bob was not told of all")
	c.waitCommitted(topic.Chat, n)
	balanced(t, r)
}

// TestAGroupMayTurnInTheMiddleOfABatch has another writer turn a group to its room between two transactions of one batch.
func TestAGroupMayTurnInTheMiddleOfABatch(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	id := newGroup()
	a.login(tenant, "bob", conn(2), conversation.Room(id))
	appends := 0
	c.store.set(func(call string) error {
		if call != "append" {
			return nil
		}
		switch appends++; appends {
		case 1:
			return errAway // from now on one at a time
		case 3:
			turn := c.propose(conversation.FanoutChanged, id, "", func(p *conversation.Proposal) { p.Fanout = conversation.FanoutRoom })
			_, err := c.store.Store.Append(t.Context(), []conversation.Proposal{turn})
			return err
		}
		return nil
	})
	c.send(c.people(conversation.Created, id, "ann", "bob"), c.say(id, "ann", "hi"))
	cfg := testConfig()
	cfg.ChatLarge = 3
	r := c.start(cfg) // now: both are one batch
	c.waitLines(a, conn(2), "1 created ann ann bob", "2 message ann hi")
	c.waitCommitted(topic.Chat, 2)
	balanced(t, r)
}

// TestNextJobTellsWhatTheLastOneDidNot stops a job whose comet takes nothing.
func TestNextJobTellsWhatTheLastOneDidNot(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	a.login(tenant, "ann", conn(1))
	a.with(func() { a.hold = true })
	first := c.start(testConfig())
	id := conversation.DirectID("ann", "bob")
	var want []string
	for i := range 50 {
		c.send(c.say(id, "bob", fmt.Sprint(i)))
		want = append(want, fmt.Sprintf("%d message bob %d", i+1, i))
	}
	kittest.Eventually(t, patience, func() bool {
		v, err := c.store.Conversation(t.Context(), tenant, id)
		return err == nil && v.LastSeq == 50
	}, "storing waits for the comet")
	first.stop()
	if n := c.committed(topic.Chat); n != 0 {
		t.Fatalf("%d records were passed, though nobody was told", n)
	}
	a.with(func() { a.hold = false })
	second := c.start(testConfig())
	c.waitCommitted(topic.Chat, 50)
	// What was on its way to the comet may have come as well.
	checkFirsts(t, c.lines(a, conn(1), false), want)
	balanced(t, first, second)
	list, err := c.store.Entries(t.Context(), tenant, id, 1, 100, 100)
	if err != nil || len(list) != 50 {
		t.Errorf("%d entries are stored, %v", len(list), err)
	}
}

// TestStoringRunsAheadOnlySoFar holds the only comet.
func TestStoringRunsAheadOnlySoFar(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	a.login(tenant, "ann", conn(1))
	a.with(func() { a.hold = true })
	cfg := testConfig()
	// The window is 64, and the comet isn't stalled.
	cfg.ChatInFlight, cfg.BatchRecords = 300, 50
	r := c.start(cfg)
	id := conversation.DirectID("ann", "bob")
	var ps []conversation.Proposal
	for i := range 600 {
		ps = append(ps, c.say(id, "bob", fmt.Sprint(i)))
	}
	c.send(ps...)
	stored := func() int64 {
		v, err := c.store.Conversation(t.Context(), tenant, id)
		if err != nil && !errors.Is(err, errcode.NotFound) {
			t.Fatal(err)
		}
		return v.LastSeq
	}
	kittest.Eventually(t, patience, func() bool { return stored() >= 300 }, "storing waits for the comet's window")
	if n := stored(); n > 350 {
		t.Fatalf("%d are stored ahead, the bound is 300", n)
	}
	a.with(func() { a.hold = false })
	kittest.Eventually(t, patience, func() bool { return len(a.bodies(conn(1))) >= 600 }, "not all are told")
	c.waitCommitted(topic.Chat, 600)
	balanced(t, r)
}

// TestStalledCometIsToldToResync has one comet that takes nothing more from the stream of conversations, and one that does.
func TestStalledCometIsToldToResync(t *testing.T) {
	t.Parallel()
	c := newChat(t)
	slow, fast := startComet(t, c.router, "slow"), startComet(t, c.router, "fast")
	slow.login(tenant, "ann", conn(1))
	fast.login(tenant, "bob", conn(2))
	cfg := testConfig()
	cfg.ChatInFlight, cfg.BatchRecords, cfg.StallAfter = 300, 50, 2*time.Second // longer than the fast one may stand still
	r := c.start(cfg)
	id := conversation.DirectID("ann", "bob")
	var want []string
	send := func(n int) {
		var ps []conversation.Proposal
		for range n {
			ps = append(ps, c.say(id, "bob", fmt.Sprint(len(want))))
			want = append(want, fmt.Sprintf("%d message bob %d", len(want)+1, len(want)))
		}
		c.send(ps...)
	}
	send(1)
	c.waitLines(slow, conn(1), want...)
	// The stream that is open hangs; others work.
	slow.with(func() { slow.stuck = slow.streams })
	send(600)
	c.waitLines(fast, conn(2), want...)
	resynced := func() int {
		n := 0
		for _, d := range slow.deliveries() {
			if d.GetAll() && d.GetControl().GetResync() != nil {
				n++
			}
		}
		return n
	}
	kittest.Eventually(t, patience, func() bool { return resynced() > 0 }, "the stalled comet is not told to resync")
	// All is stored and passed, though it was not told to ann: she knows that she has to ask.
	c.waitCommitted(topic.Chat, 601)
	balanced(t, r)
	before := resynced()
	slow.with(func() { slow.stuck = 0 })
	kittest.Eventually(t, patience, func() bool { return r.count("streams", "lane=chat", "state=stalled") == 0 }, "stalled for ever")
	send(10)
	c.waitCommitted(topic.Chat, 611)
	kittest.Eventually(t, patience, func() bool {
		got := c.lines(slow, conn(1), false)
		return len(got) >= 10 && slices.Equal(got[len(got)-10:], want[601:])
	}, "what came after the stall isn't told")
	got := c.lines(slow, conn(1), false)
	seen := map[string]bool{}
	for _, line := range got {
		if seen[line] {
			t.Errorf("told twice: %s", line)
		}
		seen[line] = true
	}
	if len(got) == len(want) {
		t.Error("nothing was left out: the comet was not stalled")
	}
	if n := resynced(); n != before || float64(n) != r.count("resyncs_total", "lane=chat") {
		t.Errorf("told to resync %d times, %d before the end", n, before)
	}
	balanced(t, r)
}

// TestWhatAStalledCometOwedGoesToTheNextOne has a comet die that was stalled: what it had no room for goes to where its sessions are now.
func TestWhatAStalledCometOwedGoesToTheNextOne(t *testing.T) {
	t.Parallel()
	c := newChat(t)
	slow, next := startComet(t, c.router, "slow"), startComet(t, c.router, "next")
	slow.login(tenant, "ann", conn(1))
	slow.with(func() { slow.hold = true })
	cfg := testConfig()
	cfg.ChatInFlight, cfg.BatchRecords = 1000, 50
	// The next one may stand still for as long, and the session has to come there before the slow one is condemned.
	cfg.StallAfter, cfg.CondemnAfter = 2*time.Second, 7*time.Second
	r := c.start(cfg)
	id := conversation.DirectID("ann", "bob")
	var ps []conversation.Proposal
	for i := range 300 {
		ps = append(ps, c.say(id, "bob", fmt.Sprint(i)))
	}
	c.send(ps...)
	kittest.Eventually(t, patience, func() bool { return r.count("stalls_total", "lane=chat") == 1 }, "not stalled")
	if n := c.committed(topic.Chat); n != 0 {
		t.Fatalf("%d records were passed, and nobody was told to resync", n)
	}
	next.login(tenant, "ann", conn(2))
	// It acknowledges nothing, so it is condemned.
	c.waitCommitted(topic.Chat, 300)
	balanced(t, r)
	if got := c.lines(next, conn(2), false); len(got) != 300 {
		t.Errorf("ann was told %d of 300 at her next comet", len(got))
	}
	if len(c.router.condemnedEpochs()) != 1 {
		t.Errorf("condemned: %v", c.router.condemnedEpochs())
	}
}

// TestTwoJobsMayBelieveThatTheyOwnAPartition has the same records in two Kafkas, with a job for each, on one database.
func TestTwoJobsMayBelieveThatTheyOwnAPartition(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	uids := []string{"ann", "bob", "cat"}
	for i, uid := range uids {
		a.login(tenant, uid, conn(i))
	}
	log := slog.New(slog.DiscardHandler)
	kafka := kittest.Kafka(t)
	prod := kafkaconn.NewProducer(kafka, log)
	t.Cleanup(func() { _ = prod.Close() })
	other := &chat{
		cluster: &cluster{t: t, kafka: kafka, router: c.router, prod: prod, log: log},
		store:   newStore(t, c.cfg), cfg: c.cfg, redis: c.redis, prefix: c.prefix,
	}
	const n = 200
	group, direct := newGroup(), conversation.DirectID("ann", "bob")
	ps := []conversation.Proposal{c.people(conversation.Created, group, "ann", "bob")}
	for i := range n {
		ps = append(ps, c.say(group, "ann", fmt.Sprint(i)), c.say(direct, "bob", fmt.Sprint(i)))
		if i == n/2 {
			ps = append(ps, c.people(conversation.Joined, group, "ann", "cat"))
		}
	}
	r1, r2 := c.start(testConfig()), other.start(testConfig())
	for i := 0; i < len(ps); i += 10 {
		part := ps[i:min(i+10, len(ps))]
		c.send(part...)
		other.send(part...)
	}
	c.waitCommitted(topic.Chat, int64(len(ps)))
	other.waitCommitted(topic.Chat, int64(len(ps)))
	balanced(t, r1, r2)
	for id, want := range map[string]int{group: n + 2, direct: n} {
		list, err := c.store.Entries(t.Context(), tenant, id, 1, int64(want)+10, want+10)
		if err != nil || len(list) != want {
			t.Fatalf("%s: %d entries, %v, want %d", id, len(list), err, want)
		}
		var told []string
		for _, e := range list {
			told = append(told, e.ClientMsgID)
		}
		var sent []string
		for i := range ps {
			if ps[i].Conversation == id {
				sent = append(sent, ps[i].ClientMsgID)
			}
		}
		if !slices.Equal(told, sent) {
			t.Errorf("%s: stored in another order than sent", id)
		}
	}
	// Everybody was told everything that was his to see, and nothing in two places.
	for i, uid := range uids {
		seen := map[string]bool{}
		for _, line := range c.lines(a, conn(i), false) {
			seen[line] = true
		}
		want := map[string]int{"ann": 2*n + 2, "bob": 2*n + 2, "cat": n/2 + 1 - 1}[uid]
		if len(seen) != want {
			t.Errorf("%s was told %d different things, want %d", uid, len(seen), want)
		}
	}
}

func TestRedisAwayHoldsNothingUp(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	a.login(tenant, "ann", conn(1))
	id := conversation.DirectID("ann", "bob")
	cfg := testConfig()
	gate := &gate{UniversalClient: c.redis}
	gate.shut.Store(true)
	r := c.start(cfg, func(d *job.Deps) { d.Redis = gate })
	c.send(c.say(id, "bob", "1"), c.say(id, "bob", "2"))
	c.waitLines(a, conn(1), "1 message bob 1", "2 message bob 2")
	c.waitCommitted(topic.Chat, 2)
	if n := r.count("outcome_failures_total"); n == 0 {
		t.Error("no failure counted: Redis is not away")
	}
	gate.shut.Store(false)
	// Nothing else is said: the mark is owed.
	kittest.Eventually(t, patience, func() bool { return c.marks("ann", id).Seqs[cursor.Conversation{Tenant: tenant, ID: id}] == 2 }, "the mark is never written")
}

// TestAJobThatEndsWritesTheMarksItOwes has Redis back a moment before the job ends: nobody else would raise them.
func TestAJobThatEndsWritesTheMarksItOwes(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	a.login(tenant, "ann", conn(1))
	id := conversation.DirectID("ann", "bob")
	cfg := testConfig()
	cfg.WaitMax, cfg.RetryMax = time.Hour, time.Hour
	gate := &gate{UniversalClient: c.redis}
	gate.shut.Store(true)
	r := c.start(cfg, func(d *job.Deps) { d.Redis = gate })
	c.send(c.say(id, "bob", "1"))
	c.waitLines(a, conn(1), "1 message bob 1")
	c.waitCommitted(topic.Chat, 1)
	gate.shut.Store(false)
	r.stop()
	if n := c.marks("ann", id).Seqs[cursor.Conversation{Tenant: tenant, ID: id}]; n != 1 {
		t.Errorf("the mark is %d, want 1", n)
	}
}

// gate is a Redis whose pipelines fail while it is shut.
type gate struct {
	redis.UniversalClient
	shut atomic.Bool
}

func (g *gate) Pipeline() redis.Pipeliner {
	p := g.UniversalClient.Pipeline()
	if g.shut.Load() {
		return shutPipeline{p}
	}
	return p
}

type shutPipeline struct{ redis.Pipeliner }

func (shutPipeline) Exec(context.Context) ([]redis.Cmder, error) {
	return nil, errors.New("redis is away")
}
