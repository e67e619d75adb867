package job_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/kit/kittest"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

// reEpoch gives a comet a new epoch, as after it was declared dead: it owed acknowledgements, sessions stay, router learns
// of it after a moment.
func (c *cometServer) reEpoch(owing, unaware time.Duration) {
	c.with(func() { c.hold = true })
	time.Sleep(owing)
	c.mu.Lock()
	old := c.epoch
	next := fmt.Sprintf("%s-%d", c.name, time.Now().UnixNano())
	c.epoch = next
	c.mu.Unlock()
	c.breakStreams()
	c.with(func() { c.hold = false })
	time.Sleep(unaware)
	c.r.with(func() {
		delete(c.r.comets, old)
		c.r.comets[next] = &halleyv1.CometInfo{Comet: c.name, Epoch: next, Addr: c.addr}
		for _, seats := range c.r.seats {
			for i := range seats {
				if seats[i].epoch == old {
					seats[i].epoch = next
				}
			}
		}
	})
}

// move takes a session from one comet to the other; router learns of it when it is gone.
func move(r *router, from, to *cometServer, uid, conn string, unaware time.Duration) {
	var names map[string]bool
	from.with(func() {
		names = from.sessions[conn]
		delete(from.sessions, conn)
	})
	if names == nil {
		return
	}
	time.Sleep(unaware)
	r.unseat("default", "uid", uid)
	to.with(func() { to.sessions[conn] = names })
	to.mu.Lock()
	epoch := to.epoch
	to.mu.Unlock()
	r.seat("default", "uid", uid, epoch, conn)
}

// TestNothingIsLostInSilence does to a cluster what happens to clusters, at random, while pushes to single users are
// sent. In the end each push was received, or is counted as dropped, or both (an acknowledgement was lost).
func TestNothingIsLostInSilence(t *testing.T) {
	const users, pushes = 16, 1600
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	c := newCluster(t)
	comets := []*cometServer{startComet(t, c.router, "a"), startComet(t, c.router, "b")}
	for u := range users {
		comets[u%2].login("default", fmt.Sprintf("u%d", u), conn(u))
	}
	cfg := testConfig()
	cfg.StallAfter, cfg.CondemnAfter, cfg.RefusedFor, cfg.LocateTimeout = ms(100), ms(800), ms(300), time.Second
	jobs := []*running{c.start(cfg)}

	var pushing sync.WaitGroup
	order := rng.Perm(pushes)
	pushing.Go(func() {
		for i := 0; i < pushes; i += 20 {
			var recs []*halleyv1.PushRecord
			for _, n := range order[i : i+20] {
				recs = append(recs, record(fmt.Sprintf("p%d", n), toUID(fmt.Sprintf("u%d", n%users))))
			}
			c.push(topic.Push, recs...)
			time.Sleep(25 * time.Millisecond)
		}
	})
	written := make(chan struct{})
	go func() { // ends when all is written
		pushing.Wait()
		close(written)
	}()
	for running := true; running; {
		x, y := comets[0], comets[1]
		if rng.IntN(2) == 0 {
			x, y = y, x
		}
		pause := time.Duration(rng.IntN(200)) * time.Millisecond
		switch rng.IntN(8) {
		case 0:
			x.breakStreams()
		case 1:
			x.with(func() { x.hold = true })
			time.Sleep(pause)
			x.with(func() { x.hold = false })
		case 2:
			// Acknowledgements are lost: those are sent again when the stream breaks.
			x.with(func() { x.deaf = true })
			time.Sleep(pause / 2)
			x.with(func() { x.deaf = false })
			x.breakStreams()
		case 3:
			c.router.with(func() { c.router.away = true })
			time.Sleep(pause)
			c.router.with(func() { c.router.away = false })
		case 4:
			c.router.with(func() { c.router.learning = true })
			time.Sleep(pause / 2)
			c.router.with(func() { c.router.learning = false })
		case 5:
			x.reEpoch(pause/2, pause/2)
		case 6:
			u := rng.IntN(users)
			move(c.router, x, y, fmt.Sprintf("u%d", u), conn(u), pause/4)
		case 7:
			if len(jobs) < 4 {
				jobs = append(jobs, c.start(cfg))
				jobs[len(jobs)-2].stop()
			}
		}
		for _, x := range comets {
			// One that was condemned has a new epoch at its next renewal. On a busy machine both are before long.
			var alive bool
			c.router.with(func() { alive = c.router.comets[x.epoch] != nil })
			if !alive {
				x.reEpoch(0, 0)
			}
		}
		select {
		case <-written:
			running = false
		case <-time.After(pause / 4):
		}
	}
	c.waitCommitted(topic.Push, pushes)
	balanced(t, jobs...)
	received := map[string]bool{}
	for _, x := range comets {
		for u := range users {
			for _, id := range x.bodies(conn(u)) {
				received[id] = true
			}
		}
	}
	var dropped, delivered, again, resent float64
	reasons := map[string]float64{}
	for _, r := range jobs {
		dropped += r.count("dropped_total")
		delivered += r.count("delivered_total")
		again += r.count("located_again_total")
		resent += r.count("resent_total")
		for _, reason := range []string{"no_recipient", "stalled", "dead_epoch", "expired"} {
			reasons[reason] += r.count("dropped_total", "reason="+reason)
		}
	}
	t.Logf("received %d, delivered %v, dropped %v %v, looked up again %v, resent %v, condemned %d", len(received), delivered, dropped, reasons, again, resent, len(c.router.condemnedEpochs()))
	if float64(len(received))+dropped < pushes {
		t.Errorf("received %d and dropped %v of %d: some were lost in silence", len(received), dropped, pushes)
	}
	if len(received) < pushes/4 { // a slow machine's comets are stalled again and again
		t.Errorf("received %d of %d only", len(received), pushes)
	}
}

// TestOrderHoldsThroughBrokenStreams breaks what leaves sessions where they are; then nothing may be lost or come out of order.
func TestOrderHoldsThroughBrokenStreams(t *testing.T) {
	const users, most = 8, 5000
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	for u := range users {
		a.login("default", fmt.Sprintf("u%d", u), conn(u))
	}
	cfg := testConfig()
	cfg.WindowCount = 1000
	r := c.start(cfg)
	var breaking sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer breaking.Wait()
	defer cancel()
	breaking.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			switch i % 3 {
			case 0:
				a.breakStreams()
			case 1:
				a.with(func() { a.deaf = true })
				time.Sleep(20 * time.Millisecond)
				a.with(func() { a.deaf = false })
				a.breakStreams()
			case 2:
				c.router.with(func() { c.router.away = true })
				time.Sleep(20 * time.Millisecond)
				c.router.with(func() { c.router.away = false })
			}
			time.Sleep(30 * time.Millisecond)
		}
	})
	each := 0
	// Until breaks have met something that was under way.
	for ; each < most && (each < 100 || r.count("resent_total") == 0); each++ {
		var recs []*halleyv1.PushRecord
		for u := range users {
			recs = append(recs, record(fmt.Sprintf("%d-%d", u, each), toUID(fmt.Sprintf("u%d", u))))
		}
		c.push(topic.Push, recs...)
	}
	c.waitCommitted(topic.Push, int64(users*each))
	for u := range users {
		checkFirsts(t, a.bodies(conn(u)), ids(fmt.Sprintf("%d-", u), each))
	}
	balanced(t, r)
	if n := r.count("resent_total"); n == 0 {
		t.Error("nothing was sent again: the test broke nothing")
	}
	if n := r.count("dropped_total"); n != 0 {
		t.Errorf("dropped %v, want none", n)
	}
}

func TestOffsetThatKafkaDoesNotHaveIsReset(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	c.push(topic.Push, record("p", toUID("anna")))
	partition := c.prod.Partition(topic.Key("default", toUID("anna")))
	client := &kafka.Client{Addr: kafka.TCP(c.kafka.Brokers...), Timeout: patience / 2, Transport: &kafka.Transport{}}
	defer client.Transport.(*kafka.Transport).CloseIdleConnections()
	// The group has read further than the topic, which was made anew, has records.
	name := c.kafka.Topic(topic.Push)
	resp, err := client.OffsetCommit(context.Background(), &kafka.OffsetCommitRequest{
		GroupID: c.kafka.Group(topic.Group(topic.Push)), GenerationID: -1,
		Topics: map[string][]kafka.OffsetCommit{name: {{Partition: partition, Offset: 1000}}},
	})
	if err != nil || resp.Topics[name][0].Error != nil {
		t.Fatal(err, resp)
	}
	r := c.start(testConfig())
	kittest.Eventually(t, patience, func() bool { return len(a.bodies(conn(1))) == 1 }, "the record is never read")
	kittest.Eventually(t, patience, func() bool { return c.committed(topic.Push) == 1 }, "not committed from the oldest record on")
	if n := r.count("offset_resets_total", "lane=push"); n != 1 {
		t.Errorf("%v resets, want 1", n)
	}
}

func TestWindowOfRecordsIsBounded(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	cfg := testConfig()
	cfg.InFlight, cfg.BatchRecords = 30, 10
	r := c.start(cfg)
	a.with(func() { a.deaf = true })
	c.push(topic.Urgent, control("c", toUID("anna")))
	c.push(topic.Urgent, numbered("p", 100, toUID("anna"))...)
	kittest.Eventually(t, patience, func() bool { return r.count("targets_total") >= 30 }, "records are not taken")
	time.Sleep(50 * time.Millisecond) // for what must not happen there is nothing to wait for
	if n := r.count("targets_total"); n > 40 {
		t.Errorf("%v records in flight, bound is 30 and a batch", n)
	}
	a.with(func() { a.deaf = false })
	a.breakStreams()
	c.waitCommitted(topic.Urgent, 101)
	balanced(t, r)
}
