package job_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store/conversation"
)

// TestConversationsSurviveChaos has random faults at every step while people talk, and then counts: each message is stored once, in
// the order in which its sender sent it, without a gap; and every member was told of everything, first in the order of seq.
func TestConversationsSurviveChaos(t *testing.T) {
	t.Parallel()
	c := newChat(t)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	comets := []*cometServer{startComet(t, c.router, "a"), startComet(t, c.router, "b")}
	uids := []string{"ann", "bob", "cat"}
	for i, uid := range uids {
		comets[0].login(tenant, uid, conn(i))
		comets[1].login(tenant, uid, conn(10+i))
	}
	group := newGroup()
	convs := []string{group, conversation.DirectID("ann", "bob"), conversation.DirectID("bob", "cat"), conversation.DirectID("ann", "cat")}
	members := map[string][]string{group: uids}
	for _, id := range convs[1:] {
		members[id] = conversation.Parties(id)
	}

	redis := &gate{UniversalClient: c.redis}
	start := func() *running {
		cfg := testConfig()
		cfg.BatchRecords = 20
		return c.start(cfg, func(d *job.Deps) { d.Redis = redis })
	}
	jobs := []*running{start()}
	all := slices.Clone(jobs)
	sent := map[string][]string{} // by conversation and sender: ids in order
	n, repeats := 0, 0
	say := func(p conversation.Proposal) {
		c.send(p)
		n++
		k := p.Conversation + " " + p.Sender
		if slices.Contains(sent[k], p.ClientMsgID) {
			repeats++
			return
		}
		sent[k] = append(sent[k], p.ClientMsgID)
	}
	say(c.people(conversation.Created, group, "ann", "bob", "cat"))
	var last conversation.Proposal
	for range 60 {
		for range rng.IntN(12) {
			id := convs[rng.IntN(len(convs))]
			from := members[id][rng.IntN(len(members[id]))]
			last = c.say(id, from, fmt.Sprint(n))
			say(last)
		}
		switch rng.IntN(9) {
		case 0:
			c.store.set(failing([]string{"append", "appended", "listings", "rosters"}[rng.IntN(4)]))
		case 1, 2:
			c.store.set(nil)
		case 3:
			comets[rng.IntN(2)].breakStreams()
		case 4:
			held := comets[rng.IntN(2)]
			held.with(func() { held.hold = !held.hold })
		case 5:
			redis.shut.Store(!redis.shut.Load())
		case 6:
			c.router.with(func() { c.router.away = !c.router.away })
		case 7:
			if len(jobs) < 2 {
				j := start()
				jobs, all = append(jobs, j), append(all, j)
			} else {
				jobs[0].stop()
				jobs = jobs[1:]
			}
		case 8:
			if last.ClientMsgID != "" {
				say(last) // its sender has no answer yet
			}
		}
		time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond) // the faults' own time; nothing is waited for
	}
	c.store.set(nil)
	redis.shut.Store(false)
	c.router.with(func() { c.router.away = false })
	for _, a := range comets {
		a.with(func() { a.hold = false })
	}
	c.waitCommitted(topic.Chat, int64(n))
	balanced(t, all...)

	told := 0
	for _, id := range convs {
		list, err := c.store.Entries(t.Context(), tenant, id, 1, int64(n)+1, n+1)
		if err != nil {
			t.Fatal(err)
		}
		stored := map[string][]string{}
		for i, e := range list {
			if e.Seq != int64(i)+1 {
				t.Fatalf("%s: entry %d has seq %d", id, i+1, e.Seq)
			}
			k := id + " " + e.Sender
			stored[k] = append(stored[k], e.ClientMsgID)
		}
		for _, uid := range members[id] {
			k := id + " " + uid
			if !slices.Equal(stored[k], sent[k]) {
				t.Errorf("%s: stored\n%v\nsent\n%v", k, stored[k], sent[k])
			}
			for i, a := range comets {
				var seqs, want []string
				for _, e := range list {
					want = append(want, fmt.Sprint(e.Seq))
				}
				for _, line := range c.told(a, conn(10*i+slices.Index(uids, uid)), id) {
					seq, _, _ := strings.Cut(line, " ")
					seqs = append(seqs, seq)
				}
				checkFirsts(t, seqs, want)
				told += len(seqs)
			}
		}
	}
	t.Logf("%d messages, %d of them repeats, told %d times, by %d jobs", n, repeats, told, len(all))
	// What a job that ended could not write to Redis may be missing there for a while; what is there is never too high.
	for id, mark := range c.marks("ann", convs...).Seqs {
		if v, err := c.store.Conversation(t.Context(), tenant, id.ID); err != nil || mark > v.LastSeq {
			t.Errorf("the mark of %s is %d, its last seq %d, %v", id.ID, mark, v.LastSeq, err)
		}
	}
	kittest.Eventually(t, patience, func() bool { return jobs[0].Ready(t.Context()) == nil }, "not ready")
}
