package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

// steps are where a fault is planted. After "committed" the writer dies without knowing that it is stored.
var steps = []string{"begun", "lock", "read", "judge", "entries", "rows", "commit", "committed"}

// history is what was asked of one conversation and what was answered.
type history struct {
	t    *testing.T
	rng  *rand.Rand
	talk *talk
	// writers both believe that the partition is theirs.
	writers []*store.Store
	asked   map[string]conversation.Proposal
	told    map[string]store.Outcome
}

var people = []string{"alice", "bob", "carol", "dave", "erin"}

// propose makes something up: right, wrong, or a repeat.
func (h *history) propose() conversation.Proposal {
	k, rng := h.talk, h.rng
	who := people[rng.IntN(len(people))]
	target := int64(1 + rng.IntN(max(1, len(h.told)+2)))
	switch rng.IntN(16) {
	case 0, 1:
		// A repeat, perhaps with another body.
		if len(h.asked) > 0 {
			ids := make([]string, 0, len(h.asked))
			for id := range h.asked {
				ids = append(ids, id)
			}
			slices.Sort(ids)
			p := h.asked[ids[rng.IntN(len(ids))]]
			if rng.IntN(4) == 0 {
				p.Body = []byte("not what it was")
			}
			return p
		}
	case 2:
		return k.make(conversation.Edit, who, func(p *conversation.Proposal) {
			p.Target, p.Body, p.Detail.Mentions = target, fmt.Appendf(nil, "edit %d", k.n), []string{people[rng.IntN(len(people))]}
		})
	case 3:
		return k.change(conversation.Recall, who, target)
	case 4, 5:
		return k.make(conversation.Reaction, who, func(p *conversation.Proposal) {
			p.Target, p.Detail.Reaction, p.Detail.Off = target, []string{"👍", "🎉"}[rng.IntN(2)], rng.IntN(3) == 0
		})
	case 6:
		return k.people(conversation.Joined, "alice", people[rng.IntN(len(people))], people[rng.IntN(len(people))])
	case 7:
		return k.people(conversation.Left, who)
	case 8:
		return k.people(conversation.Removed, "alice", who)
	case 9, 10:
		return k.make(conversation.Marker, who, func(p *conversation.Proposal) { p.ReadSeq, p.DeliveredSeq = target, target })
	case 11:
		return k.make(conversation.Pin, "alice", func(p *conversation.Proposal) { p.Target, p.Detail.Off = target, rng.IntN(3) == 0 })
	case 12:
		return k.make(conversation.RoleChanged, "alice", func(p *conversation.Proposal) {
			p.Detail.Members, p.Detail.Role = []string{who}, []conversation.Role{conversation.Member, conversation.Admin}[rng.IntN(2)]
		})
	}
	return k.make(conversation.Message, who, func(p *conversation.Proposal) {
		p.Body = fmt.Appendf(nil, "message %d", k.n)
		if rng.IntN(3) == 0 {
			p.Detail.Mentions = []string{people[rng.IntN(len(people))]}
		}
		// Clocks differ.
		p.AcceptedAtMs -= int64(rng.IntN(2000))
	})
}

func key(p *conversation.Proposal) string { return p.Sender + "/" + p.ClientMsgID }

// append hands a batch to a writer until it is through, with a fault on the way.
func (h *history) append(ps []conversation.Proposal) []store.Outcome {
	for try := range 50 {
		w := h.writers[h.rng.IntN(len(h.writers))]
		if try == 0 && h.rng.IntN(2) == 0 {
			at := steps[h.rng.IntN(len(steps))]
			w.SetFault(func(step string) error {
				if step == at {
					return errFault
				}
				return nil
			})
		}
		out, err := w.Append(h.t.Context(), ps)
		w.SetFault(nil)
		if err == nil {
			return out
		}
	}
	h.t.Fatal("no writer gets through")
	return nil
}

// note holds outcomes to what was told before.
func (h *history) note(ps []conversation.Proposal, out []store.Outcome) {
	h.t.Helper()
	for i := range ps {
		p, o := &ps[i], out[i]
		if !p.Kind.TakesSeq() {
			continue
		}
		first, ok := h.asked[key(p)]
		if ok && first.Hash() != p.Hash() {
			if o.Code == nil || o.Code.Name != "conflict" {
				h.t.Fatalf("%s asked for something else: got %+v", key(p), o)
			}
			continue
		}
		was, ok := h.told[key(p)]
		if !ok {
			h.asked[key(p)], h.told[key(p)] = *p, o
			continue
		}
		if o.Code != was.Code || o.Seq != was.Seq || o.MsgNo != was.MsgNo || o.AtMs != was.AtMs {
			h.t.Fatalf("%s: told %+v first, now %+v", key(p), was, o)
		}
	}
}

// check holds the tables to the invariants, by replaying what was accepted.
func (h *history) check(s *store.Store) {
	t, k := h.t, h.talk
	t.Helper()
	ctx := t.Context()
	c, err := s.Conversation(ctx, tenant, k.id)
	if err != nil {
		t.Fatal(err)
	}
	k.s = s
	rows := k.entries(1, c.LastSeq+10)
	if int64(len(rows)) != c.LastSeq {
		t.Fatalf("%d entries, last_seq %d", len(rows), c.LastSeq)
	}
	seen := map[string]bool{}
	texts, flags, changed := map[int64]string{}, map[int64]conversation.Flags{}, map[int64]int64{}
	reactions := map[int64]map[string][]string{}
	members := map[string]bool{}
	var msgNo, at int64
	for i, e := range rows {
		id := e.Sender + "/" + e.ClientMsgID
		p, o := h.asked[id], h.told[id]
		switch {
		case e.Seq != int64(i+1):
			t.Fatalf("entry %d has seq %d", i+1, e.Seq)
		case seen[id]:
			t.Fatalf("%s is stored twice", id)
		case o.Code != nil || o.Seq != e.Seq:
			t.Fatalf("%s is stored at %d; told %+v", id, e.Seq, o)
		case e.AtMs < at:
			t.Fatalf("entry %d is of a time before the last one's", e.Seq)
		}
		seen[id], at = true, e.AtMs
		changed[e.Seq] = e.Seq
		if p.Target > 0 {
			changed[p.Target] = e.Seq
		}
		switch e.Kind {
		case conversation.Message:
			msgNo++
			texts[e.Seq] = string(p.Body)
		case conversation.Edit:
			texts[p.Target] = string(p.Body)
			flags[p.Target] |= conversation.Edited
		case conversation.Recall:
			texts[p.Target] = ""
			flags[p.Target] = flags[p.Target]&^conversation.Pinned | conversation.Recalled
		case conversation.Pin:
			if flags[p.Target] |= conversation.Pinned; p.Detail.Off {
				flags[p.Target] &^= conversation.Pinned
			}
		case conversation.Reaction:
			flags[p.Target] |= conversation.Reacted
			if reactions[p.Target] == nil {
				reactions[p.Target] = map[string][]string{}
			}
			r := p.Detail.Reaction
			who := slices.DeleteFunc(slices.Clone(reactions[p.Target][r]), func(u string) bool { return u == p.Sender })
			if !p.Detail.Off {
				who = append(who, p.Sender)
			}
			if reactions[p.Target][r] = who; len(who) == 0 {
				delete(reactions[p.Target], r)
			}
		case conversation.Created, conversation.Joined:
			for _, u := range e.Detail.Members {
				members[u] = true
			}
		case conversation.Left, conversation.Removed:
			for _, u := range e.Detail.Members {
				delete(members, u)
			}
		}
		if e.MsgNo != msgNo {
			t.Fatalf("entry %d: msg_no %d, %d messages so far", e.Seq, e.MsgNo, msgNo)
		}
	}
	for id, o := range h.told {
		if o.Code == nil && !seen[id] {
			t.Fatalf("%s was told to be stored at %d and is lost", id, o.Seq)
		}
	}
	for _, e := range rows {
		if e.ChangedSeq != changed[e.Seq] {
			t.Fatalf("entry %d: changed_seq %d, want %d", e.Seq, e.ChangedSeq, changed[e.Seq])
		}
		want := texts[e.Seq]
		if e.Kind == conversation.Edit {
			want = texts[e.Target]
		}
		if e.Kind == conversation.Message || e.Kind == conversation.Edit {
			if string(e.Body) != want {
				t.Fatalf("entry %d says %q, want %q", e.Seq, e.Body, want)
			}
		}
		if e.Kind != conversation.Message {
			continue
		}
		if e.Flags != flags[e.Seq] {
			t.Fatalf("entry %d: flags %b, want %b", e.Seq, e.Flags, flags[e.Seq])
		}
		if e.Flags.Has(conversation.Recalled) {
			continue
		}
		got := map[string][]string{}
		for _, r := range e.Reactions {
			slices.Sort(r.UIDs)
			got[r.Reaction] = r.UIDs
		}
		want2 := map[string][]string{}
		for r, who := range reactions[e.Seq] {
			want2[r] = slices.Sorted(slices.Values(who))
		}
		if !reflect.DeepEqual(got, want2) {
			t.Fatalf("entry %d: reactions %v, want %v", e.Seq, got, want2)
		}
	}
	if c.LastMsgNo != msgNo || c.LastAtMs != at || c.Members != int64(len(members)) {
		t.Fatalf("%d messages, %d members, last at %d: got %+v", msgNo, len(members), at, c)
	}
	h.checkMembers(s, &c, rows, members)
}

// checkMembers counts what each of them has not read.
func (h *history) checkMembers(s *store.Store, c *conversation.Conversation, rows []store.Entry, members map[string]bool) {
	t := h.t
	t.Helper()
	got, err := s.Members(t.Context(), tenant, c.ID, "", 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(members) {
		t.Fatalf("got members %v, want %v", got, members)
	}
	for _, m := range got {
		if !members[m.UID] {
			t.Fatalf("%s is no member", m.UID)
		}
		var unread, mentions int64
		for _, e := range rows {
			if e.Kind != conversation.Message || e.Seq <= m.ReadSeq {
				continue
			}
			unread++
			if slices.Contains(e.Detail.Mentions, m.UID) {
				mentions++
			}
			if e.Sender == m.UID && e.Seq > m.JoinedSeq {
				t.Fatalf("%s has not read his own message %d", m.UID, e.Seq)
			}
		}
		if m.Unread(c) != unread || m.DeliveredSeq < m.ReadSeq || m.ReadSeq > c.LastSeq {
			t.Fatalf("%s: %d unread, want %d: %+v", m.UID, m.Unread(c), unread, m)
		}
		sum, err := s.Summaries(t.Context(), tenant, m.UID, []string{c.ID})
		if err != nil {
			t.Fatal(err)
		}
		if len(sum) != 1 || sum[0].Mentions != mentions || sum[0].Unread != unread {
			t.Fatalf("%s: got %+v, want %d mentions in %d", m.UID, sum, mentions, unread)
		}
	}
	// Who left is off his list.
	for _, uid := range people {
		if members[uid] {
			continue
		}
		if sum, err := s.Summaries(t.Context(), tenant, uid, []string{c.ID}); err != nil || len(sum) > 0 {
			t.Fatalf("%s is no member: got %+v, %v", uid, sum, err)
		}
	}
}

// TestRandomHistoriesKeepTheInvariants runs random histories of a group, with a fault planted between every two steps: nothing
// is lost or doubled, seqs have no gaps, outcomes stay what they were, and the rows are what a replay gives.
func TestRandomHistoriesKeepTheInvariants(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 6
	}
	both(t, func(t *testing.T, p *place) {
		p.cfg.Rules.RecallWithin, p.cfg.Rules.EditWithin = 0, 0
		writers := []*store.Store{p.open(t), p.open(t)}
		for range 3 {
			seed := rand.Uint64()
			h := &history{
				t: t, rng: rand.New(rand.NewPCG(seed, 1)), talk: group(t, writers[0]), writers: writers,
				asked: map[string]conversation.Proposal{}, told: map[string]store.Outcome{},
			}
			t.Logf("seed %d", seed)
			ps := []conversation.Proposal{h.talk.people(conversation.Created, "alice", "bob", "carol")}
			for range rounds {
				out := h.append(ps)
				h.note(ps, out)
				h.list(out)
				ps = nil
				for range 1 + h.rng.IntN(12) {
					ps = append(ps, h.propose())
				}
			}
			h.check(writers[h.rng.IntN(2)])
		}
	})
}

// list writes the lists by uid, sometimes twice and in the wrong order, as two jobs would.
func (h *history) list(out []store.Outcome) {
	h.t.Helper()
	var ls []store.Listing
	for _, o := range out {
		ls = append(ls, o.Listings...)
	}
	for range 1 + h.rng.IntN(2) {
		if _, err := h.writers[h.rng.IntN(2)].PutListings(h.t.Context(), ls); err != nil {
			h.t.Fatal(err)
		}
		if h.rng.IntN(2) == 0 {
			slices.Reverse(ls)
		}
	}
}

// TestTwoWritersOfOnePartitionGiveOneHistory lets two writers work at the same batches at the same time, each with faults: both
// believe that the partition is theirs.
func TestTwoWritersOfOnePartitionGiveOneHistory(t *testing.T) {
	rounds := 15
	if testing.Short() {
		rounds = 5
	}
	both(t, func(t *testing.T, p *place) {
		p.cfg.Rules.RecallWithin, p.cfg.Rules.EditWithin = 0, 0
		writers := []*store.Store{p.open(t), p.open(t)}
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		h := &history{
			t: t, rng: rand.New(rand.NewPCG(seed, 2)), talk: group(t, writers[0]), writers: writers,
			asked: map[string]conversation.Proposal{}, told: map[string]store.Outcome{},
		}
		var batches [][]conversation.Proposal
		ps := []conversation.Proposal{h.talk.people(conversation.Created, "alice", "bob", "carol")}
		for range rounds {
			batches = append(batches, ps)
			ps = nil
			for range 1 + h.rng.IntN(12) {
				ps = append(ps, h.propose())
			}
			for i := range ps {
				// Repeats come from what is asked, not from what is told: nothing is told yet.
				if ps[i].Kind.TakesSeq() && h.asked[key(&ps[i])].ClientMsgID == "" {
					h.asked[key(&ps[i])] = ps[i]
				}
			}
		}
		clear(h.asked)
		outs := make([][][]store.Outcome, 2)
		var wg sync.WaitGroup
		for w := range writers {
			rng := rand.New(rand.NewPCG(seed, uint64(10+w)))
			var mu sync.Mutex
			writers[w].SetFault(func(string) error {
				mu.Lock()
				defer mu.Unlock()
				if rng.IntN(60) == 0 {
					return errFault
				}
				return nil
			})
			wg.Go(func() { outs[w] = drain(t.Context(), writers[w], batches) })
		}
		wg.Wait()
		for _, w := range writers {
			w.SetFault(nil)
		}
		for i, batch := range batches {
			for w := range writers {
				if outs[w] == nil {
					t.Fatalf("writer %d did not get through", w)
				}
				h.note(batch, outs[w][i])
				h.list(outs[w][i])
			}
		}
		h.check(writers[0])
	})
}

// drain appends batches in their order, each until it is through; nil if one isn't.
func drain(ctx context.Context, s *store.Store, batches [][]conversation.Proposal) [][]store.Outcome {
	var outs [][]store.Outcome
	for _, ps := range batches {
		for try := 0; ; try++ {
			out, err := s.Append(ctx, ps)
			if err == nil {
				outs = append(outs, out)
				break
			}
			if try == 100 {
				return nil
			}
		}
	}
	return outs
}
