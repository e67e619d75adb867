package client_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/proto/frame"
)

// chaos is a server of conversations that keeps its promises and nothing beyond them: it loses answers and events, tells things
// twice, cuts pages, stores late, refuses, and breaks connections.
type chaos struct {
	*scripted
	t   *testing.T
	rng *rand.Rand // under mu
	// calm is when no more faults are wanted.
	calm     bool
	members  map[string][]string
	entries  map[string][]client.Entry
	outcomes map[string]int64 // conversation, sender, id → seq; 0: rejected
	queue    []chaosRecord    // accepted, not judged yet
	uids     map[*scriptedConn]string
}

type chaosRecord struct {
	conversation, from, id string
	body                   json.RawMessage
}

func (c *chaos) chance(percent int) bool { return !c.calm && c.rng.IntN(100) < percent }

// turn answers what was asked and judges what was accepted; it is called again and again.
func (c *chaos) turn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		if conn.auth != nil && !conn.accepted {
			conn.accepted = true
			var auth struct {
				Token string `json:"token"`
			}
			_ = json.Unmarshal(conn.auth.Body, &auth)
			if c.chance(10) {
				conn.drop()
				continue
			}
			c.uids[conn] = auth.Token
			conn.answer(frame.OpAuthReply, conn.auth.Seq, map[string]any{"uid": auth.Token, "connection": fmt.Sprint(len(c.uids)), "heartbeat": 30})
		}
	}
	asked := c.asked
	c.asked = nil
	for _, a := range asked {
		c.answer(a)
	}
	for len(c.queue) > 0 && !c.chance(30) {
		c.judge(c.queue[0])
		c.queue = c.queue[1:]
	}
	if c.chance(2) && len(c.conns) > 0 {
		c.conns[c.rng.IntN(len(c.conns))].drop()
	}
}

func (c *chaos) answer(a *asked) {
	uid := c.uids[a.conn]
	b, _ := json.Marshal(a.body)
	var q struct {
		Send *struct {
			Conversation string          `json:"conversation"`
			ID           string          `json:"client_msg_id"`
			Body         json.RawMessage `json:"body"`
		} `json:"message.send"`
		Sync *struct {
			Conversations map[string]int64 `json:"conversations"`
			Above         string           `json:"above"`
			UpTo          string           `json:"up_to"`
		} `json:"sync"`
		History *client.Range   `json:"conversation.history"`
		Cursor  json.RawMessage `json:"sync.cursor"`
		Read    json.RawMessage `json:"conversation.read"`
		Members json.RawMessage `json:"conversation.members"`
	}
	if err := json.Unmarshal(b, &q); err != nil {
		c.t.Errorf("request %s: %v", b, err)
		return
	}
	reply := func(m any) {
		if !c.chance(5) {
			a.conn.answer(frame.OpReply, a.seq, m)
		}
	}
	if c.chance(10) {
		reply(map[string]any{"error": map[string]any{"code": "unavailable", "message": "not now", "retry": true}})
		return
	}
	switch {
	case q.Send != nil:
		c.queue = append(c.queue, chaosRecord{q.Send.Conversation, uid, q.Send.ID, q.Send.Body})
		if c.chance(20) {
			reply(map[string]any{"error": map[string]any{"code": "unknown", "message": "who knows", "retry": true}})
		} else {
			reply(map[string]any{"message.send": map[string]any{"id": "x"}})
		}
	case q.Sync != nil:
		reply(map[string]any{"sync": c.page(uid, q.Sync.Conversations, q.Sync.Above, q.Sync.UpTo)})
	case q.History != nil:
		all := c.entries[q.History.Conversation]
		list := all[min(len(all), int(q.History.From)-1):min(len(all), int(q.History.To))]
		if len(list) > 1 && c.chance(50) {
			list = list[:1+c.rng.IntN(len(list)-1)]
		}
		reply(map[string]any{"conversation.history": map[string]any{"entries": list}})
	case q.Cursor != nil:
		var sum int
		for id, all := range c.entries {
			if slices.Contains(c.members[id], uid) {
				sum += len(all)
			}
		}
		reply(map[string]any{"sync.cursor": map[string]any{"seqs": sum}})
	case q.Read != nil:
		reply(map[string]any{"conversation.read": map[string]any{}})
	default:
		reply(map[string]any{"conversation.members": map[string]any{}})
	}
}

func (c *chaos) page(uid string, have map[string]int64, above, upTo string) any {
	var list []any
	more := false
	for id, all := range c.entries {
		from := int(have[id])
		if !slices.Contains(c.members[id], uid) || from >= len(all) || id <= above || upTo != "" && id > upTo {
			continue
		}
		if len(list) > 0 && c.chance(30) {
			more = true
			continue
		}
		entries := all[from:]
		if len(entries) > 3 && c.chance(50) {
			// Cut: with a word about it, or with the summary alone to tell.
			entries, more = entries[:3], more || c.chance(50)
		}
		last := all[len(all)-1]
		list = append(list, map[string]any{
			"conversation": map[string]any{"id": id, "last_seq": len(all), "last": last, "role": "member", "visible_from": 1, "unread": 0},
			"entries":      entries,
		})
	}
	return map[string]any{"conversations": list, "more": more}
}

func (c *chaos) judge(r chaosRecord) {
	key := r.conversation + "\x00" + r.from + "\x00" + r.id
	seq, repeated := c.outcomes[key]
	if !repeated {
		if c.chance(10) {
			c.outcomes[key] = 0
		} else {
			seq = int64(len(c.entries[r.conversation]) + 1)
			c.outcomes[key] = seq
			c.entries[r.conversation] = append(c.entries[r.conversation], client.Entry{
				Seq: seq, Kind: client.KindMessage, From: r.from, ClientMsgID: r.id, Body: r.body, MsgNo: seq, ChangedSeq: seq, ServerTime: seq,
			})
		}
	}
	for conn, uid := range c.uids {
		var event any
		switch {
		case seq == 0 && uid == r.from:
			event = map[string]any{"message.rejected": map[string]any{
				"conversation": r.conversation, "client_msg_id": r.id, "error": map[string]any{"code": "muted"},
			}}
		case seq > 0 && slices.Contains(c.members[r.conversation], uid):
			event = map[string]any{"message.stored": map[string]any{"conversation": r.conversation, "entry": c.entries[r.conversation][seq-1]}}
		default:
			continue
		}
		for n := 1; n > 0 && !c.chance(20); n-- {
			conn.events([]any{event}, nil)
			if c.chance(20) {
				n++
			}
		}
	}
}

// person is a client, and what it was handed.
type person struct {
	uid    string
	chat   *client.Chat
	mu     sync.Mutex
	handed map[string][]client.Entry
	stages map[string]client.Stage
	sent   map[string][]string // ids by conversation, in their order
}

func (p *person) check(t *testing.T, id string, want []client.Entry) {
	t.Helper()
	got := p.handed[id]
	if !slices.EqualFunc(got, want, func(a, b client.Entry) bool { return a.Seq == b.Seq && a.ClientMsgID == b.ClientMsgID }) {
		t.Errorf("%s was handed %d entries of %s, want %d, each once and in order", p.uid, len(got), id, len(want))
	}
}

// TestNothingIsLostDoubledOrReordered lets people talk over a server that does everything that a server may do to them.
func TestNothingIsLostDoubledOrReordered(t *testing.T) {
	for i := range 4 {
		seed := uint64(time.Now().UnixNano()) + uint64(i)
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			transport := []string{"ws", "tcp"}[i%2]
			talk(t, seed, transport)
		})
	}
}

func talk(t *testing.T, seed uint64, transport string) {
	const group = "g/tea"
	c := &chaos{
		scripted: newScripted(t, transport), t: t, rng: rand.New(rand.NewPCG(seed, 1)), entries: map[string][]client.Entry{},
		outcomes: map[string]int64{}, uids: map[*scriptedConn]string{},
		members: map[string][]string{"d/ann/bob": {"ann", "bob"}, "d/ann/cy": {"ann", "cy"}, group: {"ann", "bob", "cy"}},
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for ctx.Err() == nil {
			c.turn()
			select {
			case <-c.wake:
			case <-time.After(2 * time.Millisecond):
			}
		}
	})
	var people []*person
	var talking sync.WaitGroup
	// Two of ann's devices.
	for i, uid := range []string{"ann", "ann", "bob", "cy"} {
		// One asks for all that is new in one go, the next one in parts.
		p := newPerson(t, uid, c.url, i%3)
		people = append(people, p)
		wg.Go(func() {
			if err := p.chat.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		})
		rng := rand.New(rand.NewPCG(seed, uint64(i)+2))
		talking.Go(func() { p.talk(t, c, rng) })
	}
	time.Sleep(1500 * time.Millisecond) // The time for faults; longer on a machine that stood still.
	const enough = 50
	c.until(20*time.Second, func() bool { return sentBy(people) >= enough })
	c.mu.Lock()
	c.calm = true
	for conn := range c.uids {
		conn.events([]any{map[string]any{"resync": map[string]any{}}}, nil)
	}
	c.mu.Unlock()
	talking.Wait()
	settled := c.until(30*time.Second, func() bool {
		if len(c.queue) > 0 {
			return false
		}
		return !slices.ContainsFunc(people, func(p *person) bool { return !p.settled(c) })
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if !settled {
		t.Error("not settled in time")
	}
	for _, p := range people {
		p.mu.Lock()
		for id, members := range c.members {
			if slices.Contains(members, p.uid) {
				p.check(t, id, c.entries[id])
				p.checkSent(t, c, id)
			}
		}
		p.mu.Unlock()
	}
	if total := sentBy(people); total < enough {
		t.Errorf("only %d were sent: that proves little", total)
	}
}

// sentBy is how much people have sent.
func sentBy(people []*person) int {
	total := 0
	for _, p := range people {
		p.mu.Lock()
		for _, ids := range p.sent {
			total += len(ids)
		}
		p.mu.Unlock()
	}
	return total
}

func newPerson(t *testing.T, uid, url string, named int) *person {
	t.Helper()
	p := &person{uid: uid, handed: map[string][]client.Entry{}, stages: map[string]client.Stage{}, sent: map[string][]string{}}
	chat, err := client.NewChat(client.ChatOptions{
		Options: client.Options{
			URL: url, Token: func(context.Context, client.TokenReason) (string, error) { return uid, nil },
			Backoff: client.Backoff{Base: 5 * time.Millisecond, Max: 20 * time.Millisecond}, RequestTimeout: 200 * time.Millisecond,
		},
		AskEvery: 300 * time.Millisecond, SyncFirst: 100 * time.Millisecond, DeliveredAfter: 20 * time.Millisecond, SyncNamed: named,
		OnEntries: func(id string, entries []client.Entry, reset bool) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if reset {
				t.Errorf("%s: a reset that nobody made", uid)
			}
			p.handed[id] = append(p.handed[id], entries...)
		},
		OnOutgoing: func(o client.Outgoing) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.stages[o.ID] = o.Stage
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.chat = chat
	return p
}

// talk sends until the faults are over.
func (p *person) talk(t *testing.T, c *chaos, rng *rand.Rand) {
	c.mu.Lock()
	var mine []string
	for id, members := range c.members {
		if slices.Contains(members, p.uid) {
			mine = append(mine, id)
		}
	}
	c.mu.Unlock()
	slices.SortFunc(mine, cmp.Compare[string])
	for n := 0; n < 60; n++ {
		c.mu.Lock()
		calm := c.calm
		c.mu.Unlock()
		if calm {
			return
		}
		id := mine[rng.IntN(len(mine))]
		p.mu.Lock()
		msg, err := p.chat.Send(id, n, client.SendOptions{})
		p.sent[id] = append(p.sent[id], msg)
		p.mu.Unlock()
		if err != nil {
			t.Error(err)
		}
		time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
	}
}

// settled is whether all has come and all that was sent has an outcome. The caller has c.mu.
func (p *person) settled(c *chaos) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, members := range c.members {
		if slices.Contains(members, p.uid) && len(p.handed[id]) < len(c.entries[id]) {
			return false
		}
		for _, msg := range p.sent[id] {
			if s := p.stages[msg]; s == client.Sending || s == client.Accepted || s == "" {
				return false
			}
		}
	}
	return true
}

// checkSent holds each outcome against the server's, and the order of what was stored against the order of sending.
func (p *person) checkSent(t *testing.T, c *chaos, id string) {
	t.Helper()
	var last int64
	for _, msg := range p.sent[id] {
		seq, known := c.outcomes[id+"\x00"+p.uid+"\x00"+msg]
		stage := p.stages[msg]
		switch {
		case !known, seq == 0 && stage != client.Failed, seq > 0 && (stage == client.Failed || stage == client.Sending || stage == client.Accepted):
			t.Errorf("%s thinks that %s is %s; it is known: %v, seq %d", p.uid, msg, stage, known, seq)
		case seq > 0 && seq < last:
			t.Errorf("%s of %s has seq %d, the one sent before it %d", msg, p.uid, seq, last)
		}
		last = max(last, seq)
	}
}
