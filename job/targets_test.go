package job_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/kit/kittest"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

func TestRecordForManyIsOneDeliveryForEachComet(t *testing.T) {
	c := newCluster(t)
	a, b := startComet(t, c.router, "a"), startComet(t, c.router, "b")
	a.login("default", "anna", conn(1))
	a.login("default", "anna", conn(2))
	a.login("default", "carl", conn(3))
	b.login("default", "anna", conn(4))
	a.login("other", "anna", conn(5))
	r := c.start(testConfig())
	rec := record("p", toUID("anna"), toUID("carl"), toKey(conn(2)), toUID("nobody"))
	rec.ExcludeUids, rec.ExcludeKeys = []string{"x"}, []string{"y", "z"}
	c.push(topic.Urgent, rec)
	c.waitCommitted(topic.Urgent, 1)
	got := a.deliveries()
	if len(got) != 1 {
		t.Fatalf("comet a got %d deliveries, want 1: %v", len(got), got)
	}
	d := got[0]
	if want := []string{conn(1), conn(2), conn(3)}; !slices.Equal(d.GetConnIds(), want) {
		t.Errorf("connections %v, want %v: each once", d.GetConnIds(), want)
	}
	if d.GetTenant() != "default" || d.GetId() != "p" || d.GetClass() != halleyv1.Class_CLASS_VOLATILE || d.GetPush().GetOp() != 1000 {
		t.Errorf("delivery lost something: %v", d)
	}
	if !slices.Equal(d.GetExcludeUids(), rec.ExcludeUids) || !slices.Equal(d.GetExcludeKeys(), rec.ExcludeKeys) {
		t.Errorf("exclusions %v %v", d.GetExcludeUids(), d.GetExcludeKeys())
	}
	if got := b.bodies(conn(4)); len(got) != 1 {
		t.Errorf("comet b delivered %v, want one", got)
	}
	balanced(t, r)
	if n := r.count("dropped_total", "lane=urgent", "reason=no_recipient"); n != 1 {
		t.Errorf("no_recipient %v, want 1", n)
	}
	if n := r.count("delivered_total", "lane=urgent"); n != 3 {
		t.Errorf("delivered %v, want 3", n)
	}
	if n := r.count("reached_total"); n != 4 {
		t.Errorf("reached %v sessions, want 4", n)
	}
}

func TestDeliveryToVeryManyIsSplit(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	var targets []*halleyv1.Target
	for i := range 25 {
		a.login("default", "u"+strconv.Itoa(i), conn(i))
		targets = append(targets, toUID("u"+strconv.Itoa(i)))
	}
	cfg := testConfig() // 10 connections a delivery
	cfg.LocateNames = 7
	r := c.start(cfg)
	c.push(topic.Push, record("p", targets...))
	c.waitCommitted(topic.Push, 1)
	if n := len(a.deliveries()); n != 3 {
		t.Errorf("%d deliveries, want 3", n)
	}
	for i := range 25 {
		if got := a.bodies(conn(i)); len(got) != 1 {
			t.Errorf("connection %d got %v, want one", i, got)
		}
	}
	balanced(t, r)
	if c.router.locates != 4 {
		t.Errorf("%d questions to router, want 4 of at most 7 names", c.router.locates)
	}
}

func TestPushToAllSplitsItsSpeedByConnections(t *testing.T) {
	c := newCluster(t)
	a, b := startComet(t, c.router, "a"), startComet(t, c.router, "b")
	c.router.with(func() {
		c.router.comets[a.epoch].Load = &halleyv1.CometLoad{Connections: 300}
		c.router.comets[b.epoch].Load = &halleyv1.CometLoad{Connections: 100}
	})
	a.login("default", "anna", conn(1))
	b.login("default", "bert", conn(2))
	r := c.start(testConfig())
	rec := record("p", toAll())
	rec.Speed = 1000
	c.push(topic.Bulk, rec)
	c.waitCommitted(topic.Bulk, 1)
	for _, x := range []struct {
		c     *cometServer
		speed uint32
	}{{a, 750}, {b, 250}} {
		d := x.c.deliveries()
		if len(d) != 1 || !d[0].GetAll() || d[0].GetSpeed() != x.speed {
			t.Errorf("comet %s got %v, want one to all at %d/s", x.c.name, d, x.speed)
		}
	}
	balanced(t, r)
}

func TestConnectionIsNotLookedUp(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.with(func() { a.sessions[conn(1)] = map[string]bool{} })
	cfg := testConfig()
	cfg.RefusedFor = ms(300)
	r := c.start(cfg)
	c.push(topic.Urgent, control("close", toConn("a", a.epoch, conn(1))), control("gone", toConn("a", a.epoch, conn(9))), control("dead", toConn("x", "no-such-epoch", conn(7))))
	c.waitCommitted(topic.Urgent, 3)
	if got := a.bodies(conn(1)); len(got) != 1 {
		t.Errorf("connection got %v, want one", got)
	}
	balanced(t, r)
	for reason, want := range map[string]float64{"no_recipient": 1, "dead_epoch": 1} {
		if n := r.count("dropped_total", "reason="+reason); n != want {
			t.Errorf("dropped as %s %v, want %v", reason, n, want)
		}
	}
}

// TestConnectionOfACometThatNotEveryRouterKnowsYetIsFound: a look-up of all may be answered by one that has read the leases before.
func TestConnectionOfACometThatNotEveryRouterKnowsYetIsFound(t *testing.T) {
	c := newCluster(t)
	startComet(t, c.router, "a")
	b := startComet(t, c.router, "b")
	b.with(func() { b.sessions[conn(1)] = map[string]bool{} })
	var info *halleyv1.CometInfo
	c.router.with(func() { info = c.router.comets[b.epoch] })
	c.router.die(b.epoch)
	r := c.start(testConfig())
	c.push(topic.Urgent, control("close", toConn("b", b.epoch, conn(1))))
	kittest.Eventually(t, patience, func() (asked bool) {
		c.router.with(func() { asked = c.router.locates > 0 })
		return asked
	}, "comets not asked for")
	c.router.with(func() { c.router.comets[b.epoch] = info })
	c.waitCommitted(topic.Urgent, 1)
	if got := b.bodies(conn(1)); len(got) != 1 {
		t.Errorf("connection got %v, want one", got)
	}
	balanced(t, r)
}

func TestByNameWhereTheCometIsOnlyACandidate(t *testing.T) {
	c := newCluster(t)
	a, b := startComet(t, c.router, "a"), startComet(t, c.router, "b")
	a.login("default", "anna", conn(1))
	b.login("default", "bert", conn(2))
	c.router.with(func() { c.router.byName[a.epoch] = true })
	r := c.start(testConfig())
	// Carl is registered, but his log-in isn't answered yet: his names find nobody.
	a.with(func() { a.pending[conn(3)] = true })
	a.register("default", "carl", conn(3))
	// Of what is registered for dora nothing is left.
	a.register("default", "dora", conn(4))
	c.push(topic.Push, record("p", toUID("anna")), record("q", toKey(conn(2))), record("n", toUID("nobody")), record("c", toUID("carl")), record("k", toKey(conn(3))), record("d", toUID("dora")))
	c.waitCommitted(topic.Push, 6)
	if got := a.bodies(conn(3)); !slices.Equal(got, []string{"c", "k"}) && !slices.Equal(got, []string{"k", "c"}) {
		t.Errorf("carl got %v, want c and k", got)
	}
	if got := a.bodies(conn(1)); !slices.Equal(got, []string{"p"}) {
		t.Errorf("anna got %v, want p", got)
	}
	if got := b.bodies(conn(2)); !slices.Equal(got, []string{"q"}) {
		t.Errorf("bert got %v, want q", got)
	}
	balanced(t, r)
	if d, n := r.count("delivered_total"), r.count("dropped_total", "reason=no_recipient"); d != 4 || n != 2 {
		t.Errorf("delivered %v and no_recipient %v, want 4 and 2", d, n)
	}
	if n := r.count("located_again_total"); n != 0 {
		t.Errorf("%v looked up again: a candidate without the session is a normal answer", n)
	}
}

func TestExpiredIsDroppedBeforeFanOut(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	r := c.start(testConfig())
	late, fresh := record("late", toUID("anna"), toUID("bert")), record("fresh", toUID("anna"))
	late.ExpiresAtMs = time.Now().Add(-time.Second).UnixMilli()
	fresh.ExpiresAtMs = time.Now().Add(time.Minute).UnixMilli()
	c.push(topic.Push, late, fresh)
	c.waitCommitted(topic.Push, 2)
	if got := a.bodies(conn(1)); !slices.Equal(got, []string{"fresh"}) {
		t.Errorf("got %v, want fresh only", got)
	}
	balanced(t, r)
	if n := r.count("dropped_total", "reason=expired"); n != 2 {
		t.Errorf("expired %v, want 2", n)
	}
}

func TestNotHeldIsLookedUpOnceMore(t *testing.T) {
	c := newCluster(t)
	a, b := startComet(t, c.router, "a"), startComet(t, c.router, "b")
	// Router believes that both are at a. anna has moved, bert has left, carl has one session of two left.
	a.register("default", "anna", conn(1))
	b.login("default", "anna", conn(2))
	c.router.with(func() {
		c.router.seats["default/uid/anna"] = c.router.seats["default/uid/anna"][:1]
	})
	a.register("default", "bert", conn(3))
	a.login("default", "carl", conn(4))
	a.register("default", "carl", conn(5))
	asked := make(chan struct{})
	a.with(func() { a.hold = true })
	go func() { // ends when the test has seen the first look-up
		defer close(asked)
		for {
			c.router.mu.Lock()
			n := c.router.locates
			c.router.mu.Unlock()
			if n > 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		c.router.with(func() { c.router.seats["default/uid/anna"] = []seat{{b.epoch, conn(2)}} })
		a.with(func() { a.hold = false })
	}()
	r := c.start(testConfig())
	c.push(topic.Push, record("p", toUID("anna"), toUID("bert"), toUID("carl")))
	<-asked
	c.waitCommitted(topic.Push, 1)
	if got := b.bodies(conn(2)); !slices.Equal(got, []string{"p"}) {
		t.Errorf("anna got %v at her new place, want p", got)
	}
	if got := a.bodies(conn(4)); !slices.Equal(got, []string{"p"}) {
		t.Errorf("carl got %v, want p once", got)
	}
	balanced(t, r)
	if d, n := r.count("delivered_total"), r.count("dropped_total", "reason=no_recipient"); d != 2 || n != 1 {
		t.Errorf("delivered %v and no_recipient %v, want 2 and 1", d, n)
	}
	if n := r.count("located_again_total"); n != 3 {
		t.Errorf("%v looked up again, want 3", n)
	}
}

// flaky is a producer that fails a few times.
type flaky struct {
	job.Producer
	fails atomic.Int32
}

func (f *flaky) Produce(ctx context.Context, msgs ...kafka.Message) error {
	if f.fails.Add(-1) >= 0 {
		return errors.New("not now")
	}
	return f.Producer.Produce(ctx, msgs...)
}

func TestUndecodableRecordIsPutAsideWithItsReason(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	dead := &flaky{Producer: c.prod}
	dead.fails.Store(3)
	r := c.start(testConfig(), func(d *job.Deps) { d.Producer = dead })
	key := topic.Key("default", toUID("anna"))
	c.push(topic.Push, record("before", toUID("anna")))
	c.produce(kafka.Message{Topic: topic.Push, Key: key, Value: []byte{0xff, 1, 2}, Headers: []kafka.Header{{Key: "own", Value: []byte("kept")}}})
	c.push(topic.Push, record("after", toUID("anna")))
	c.waitCommitted(topic.Push, 3)
	if got := a.bodies(conn(1)); !slices.Equal(got, []string{"before", "after"}) {
		t.Errorf("got %v, want before, after", got)
	}
	letter := c.read(topic.Dead, key)
	if string(letter.Key) != string(key) || string(letter.Value) != "\xff\x01\x02" {
		t.Errorf("dead letter %q = %q is not the record", letter.Key, letter.Value)
	}
	want := map[string]string{"own": "kept", topic.HeaderReason: "malformed", topic.HeaderTopic: topic.Push, topic.HeaderOffset: "1",
		topic.HeaderPartition: strconv.Itoa(c.prod.Partition(key))}
	for _, h := range letter.Headers {
		if v, ok := want[h.Key]; !ok || v != string(h.Value) {
			t.Errorf("header %s = %q, want %q", h.Key, h.Value, v)
		}
		delete(want, h.Key)
	}
	if len(want) > 0 {
		t.Errorf("headers are missing: %v", want)
	}
	if n, f := r.count("dead_letters_total", "lane=push"), r.count("dead_letter_failures_total"); n != 1 || f != 3 {
		t.Errorf("dead letters %v after %v failures, want 1 after 3", n, f)
	}
	balanced(t, r)
}

// read returns the first record of the partition that key is in.
func (c *cluster) read(name string, key []byte) kafka.Message {
	c.t.Helper()
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: c.kafka.Brokers, Topic: c.kafka.Topic(name), Partition: c.prod.Partition(key), MinBytes: 1, MaxBytes: 1 << 20, MaxWait: ms(200),
	})
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := r.FetchMessage(ctx)
	if err != nil {
		c.t.Fatalf("read %s: %v", name, err)
	}
	return m
}

func TestRouterAwayIsNotTheRecordsFault(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	r := c.start(testConfig())
	c.router.with(func() { c.router.away = true })
	short, long := record("short", toUID("anna")), record("long", toUID("anna"))
	short.ExpiresAtMs = time.Now().Add(150 * time.Millisecond).UnixMilli()
	c.push(topic.Push, short, long)
	kittest.Eventually(t, patience, func() bool { return r.count("dropped_total", "reason=expired") == 1 }, "ttl does not run while router is away")
	c.router.with(func() { c.router.away, c.router.learning = false, true })
	kittest.Eventually(t, patience, func() bool { return r.count("locate_failures_total", "reason=learning") > 1 }, "router was not asked again")
	c.waitCommitted(topic.Push, 1) // no more, while presence is unknown
	c.router.with(func() { c.router.learning = false })
	c.waitCommitted(topic.Push, 2)
	if got := a.bodies(conn(1)); !slices.Equal(got, []string{"long"}) {
		t.Errorf("got %v, want long", got)
	}
	balanced(t, r)
	if n := r.count("dropped_total"); n != 1 {
		t.Errorf("dropped %v, want the expired one only", n)
	}
}
