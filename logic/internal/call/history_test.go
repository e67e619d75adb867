package call_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/call/machine"
)

// life is what one device does at random: it calls, answers, signals, drops and comes back, until it is told to be quiet.
func (w *world) life(ctx context.Context, uid, name string, rnd *rand.Rand, others []string) {
	d := w.device(uid, name)
	calls := []string{}
	for ctx.Err() == nil {
		w.mu.Lock()
		for len(w.nodes) > 0 && d.node.dead.Load() {
			d.node = w.nodes[rnd.IntN(len(w.nodes))]
		}
		for _, e := range d.got[max(0, len(d.got)-10):] {
			if id := e.id(); id != "" {
				calls = append(calls[max(0, len(calls)-3):], id)
			}
		}
		w.mu.Unlock()
		id := uuid.NewString()
		if len(calls) > 0 {
			id = calls[rnd.IntN(len(calls))]
		}
		generation := uint32(1 + rnd.IntN(2))
		switch rnd.IntN(12) {
		case 0, 1:
			if r, err := d.invite(call.Invitation{To: []string{others[rnd.IntN(len(others))]}}); err == nil {
				calls = append(calls, r.Call.Call)
			}
		case 2:
			if r, err := d.invite(call.Invitation{Conversation: tea}); err == nil {
				calls = append(calls, r.Call.Call)
			}
		case 3:
			d = d.again()
		case 4:
			_, _ = d.node.Current(ctx, d.who(), "")
		case 5:
			_, _ = d.try(id, machine.Command{Verb: machine.DoAdd, Callees: []machine.Callee{{UID: others[rnd.IntN(len(others))]}}})
		case 6:
			_, _ = d.node.Signal(ctx, d.who(), &call.Signal{Call: id, To: others[0], Generation: generation, ToGeneration: 1, Done: true})
		default:
			verbs := []machine.Verb{
				machine.DoRinging, machine.DoAccept, machine.DoAccept, machine.DoConnected, machine.DoConnected, machine.DoHeartbeat, machine.DoHeartbeat,
				machine.DoUpdate, machine.DoHangup, machine.DoDecline, machine.DoCancel, machine.DoLeaving, machine.DoRemove,
			}
			_, _ = d.try(id, machine.Command{
				Verb: verbs[rnd.IntN(len(verbs))], Generation: generation, Take: rnd.IntN(3) == 0, UID: others[0], Sends: machine.Sends{Audio: true},
			})
		}
	}
}

// TestRandomLives lets people do everything to each other at once, while logic processes die and Kafka fails them, and then go silent. In the end:
// every call has ended, and was told to have, once; each version of a call is one thing to all who hear of it; nobody rings, nobody is busy; one
// entry at most.
func TestRandomLives(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	short := func(c *call.Config) {
		c.Ring, c.RingGroup, c.ReachTimeout, c.MediaTimeout = 500*time.Millisecond, 500*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
		c.Lease, c.Away, c.Leaving, c.Empty = 300*time.Millisecond, 300*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond
		c.Hold, c.LostAfter, c.PretendAfter = 500*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	}
	w := newWorld(t, short)
	people := []string{"ann", "bob", "cy", "dee", "eve"}
	w.groups[tea] = people
	w.blocks[[2]string{"eve", "ann"}] = true
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for i, uid := range people {
		var others []string
		for _, o := range people {
			if o != uid {
				others = append(others, o)
			}
		}
		for n := range 2 {
			wg.Go(func() { w.life(ctx, uid, fmt.Sprint(uid, n), rand.New(rand.NewPCG(seed, uint64(i*10+n))), others) })
		}
	}
	rnd := rand.New(rand.NewPCG(seed, 99))
	for range 6 {
		time.Sleep(250 * time.Millisecond)
		w.mu.Lock()
		victim := w.nodes[rnd.IntN(len(w.nodes))]
		w.mu.Unlock()
		if rnd.IntN(2) == 0 {
			victim.broken.Store(true)
			time.Sleep(50 * time.Millisecond)
			victim.broken.Store(false)
			continue
		}
		fresh := w.newNode(w.redis)
		w.mu.Lock()
		w.nodes = append([]*node{fresh}, w.nodes[:1]...)
		w.mu.Unlock()
		victim.kill()
	}
	cancel()
	wg.Wait()
	s := w.newNode(w.redis)
	var all []call.Report
	kittest.Eventually(t, 30*time.Second, func() bool {
		page, err := s.List(context.Background(), "default", call.Question{State: "live"})
		return err == nil && len(page.Calls) == 0
	}, "some call never ends")
	for cursor := ""; ; {
		page, err := s.List(context.Background(), "default", call.Question{Cursor: cursor, Limit: 200})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Calls...)
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	w.free()
	// What was not sent when its process died is sent by a timer.
	kittest.Eventually(t, 30*time.Second, func() bool {
		n := 0
		keys, _ := w.redis.Keys(context.Background(), w.prefix+":{call:*}").Result()
		for _, k := range keys {
			fields, _ := w.redis.HKeys(context.Background(), k).Result()
			for _, f := range fields {
				if f[0] == 'e' {
					n++
				}
			}
		}
		return n == 0
	}, "some events were never sent")
	w.judge(all)
	reasons := map[machine.Reason]int{}
	for _, c := range all {
		reasons[c.Reason]++
	}
	t.Logf("%d calls: %v", len(all), reasons)
	if len(all) < 5 {
		t.Error("that proves little")
	}
}

// judge checks what devices were told against how the calls ended.
func (w *world) judge(all []call.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ends := map[string]call.Report{}
	for _, c := range all {
		ends[c.Call] = c
		// What the one who blocks mustn't hear of isn't where he reads. Once others were asked in it goes by who asked him last.
		blocked := c.Conversation == "d/ann/eve"
		silent := blocked && c.Kind == "direct" && c.Caller == "ann"
		if _, has := w.entries["call:"+c.Call]; has != (!silent && c.Conversation != "") && !(blocked && c.Kind == "group") {
			w.t.Errorf("%s (%s, %s): entry %v", c.Call, c.Conversation, c.Caller, has)
		}
	}
	versions := map[string]string{}
	for _, d := range w.devices {
		rings := map[string]bool{}
		for _, e := range d.got {
			id := e.id()
			switch e.Name {
			case "call.incoming":
				rings[id] = true
			case "call.stop", "call.ended":
				delete(rings, id)
			}
			if e.Name == "call.state" || e.Name == "call.ended" {
				v := e.view()
				b, _ := json.Marshal(v)
				key := fmt.Sprint(id, " ", v.Version)
				if have, ok := versions[key]; ok && have != string(b) {
					w.t.Errorf("version %d of %s is two things: %s %s", v.Version, id, have, b)
				}
				versions[key] = string(b)
				if e.Name == "call.ended" && (v.State != machine.Ended || v.Version != ends[id].Version && ends[id].Call != "" || v.Reason != ends[id].Reason) {
					w.t.Errorf("%s was told to end as %s in version %d, and did as %s in %d", id, v.Reason, v.Version, ends[id].Reason, ends[id].Version)
				}
			}
		}
		if !d.online {
			continue
		}
		for id := range rings {
			w.t.Errorf("%s still rings for %s, which %s", d.UID, id, ends[id].State)
		}
	}
}
