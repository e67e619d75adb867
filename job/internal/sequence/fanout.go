package sequence

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/halley-im/halley/job/internal/deliver"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

// Large groups. Up to Large members each of them is looked up for every entry; above, entries go to the room of the group, which
// the members' sessions are in. From half of that on they are being put there: the conversation's Fanout says so first, so that
// logic puts in whoever connects from then on, then a control delivery does it to those who are connected; then, one by one, to
// members who come, and it puts out those who go. Fanout turns to the room when there are enough members and all that was
// acknowledged, some time ago: router hears of a comet's rooms a moment later, and while it doesn't know one, entries miss it.

// fresh is for how long a member who has come is told by uid besides, since router may not know yet that his comet has the room, and
// for how long one who has gone is left out by name.
const fresh = 30 * time.Second

// mostLeftOut is the most uids that one delivery leaves out.
const mostLeftOut = 1000

// mostControls is the most uids in one control delivery.
const mostControls = 2000

// room is what a partition remembers of a group that has one.
type room struct {
	told    bool         // all members were told to join, by this handler
	since   time.Time    // when they were
	waiting atomic.Int32 // deliveries that put members in, not acknowledged
	moved   []move
}

// move is a member who came or went a moment ago.
type move struct {
	uid string
	in  bool
	at  time.Time
	// waiting is above 0 until it is acknowledged.
	waiting *atomic.Int32
}

func (m *move) over(now time.Time) bool { return now.Sub(m.at) > fresh && m.waiting.Load() <= 0 }

// recent returns who came or went a moment ago, and forgets who did so long ago: else each entry of a group that 100,000 have joined would
// go through them, until the next one comes.
func (r *room) recent(now time.Time) []move {
	if len(r.moved) > 0 && r.moved[0].over(now) {
		r.moved = slices.Clip(slices.DeleteFunc(r.moved, func(m move) bool { return m.over(now) }))
	}
	return r.moved
}

// note remembers who came or went, and forgets who did so long ago. It returns what counts until that is acknowledged.
func (r *room) note(now time.Time, uids []string, in bool) *atomic.Int32 {
	r.moved = slices.DeleteFunc(r.moved, func(m move) bool { return m.over(now) || slices.Contains(uids, m.uid) })
	waiting := &atomic.Int32{}
	waiting.Add(1)
	for _, uid := range uids {
		r.moved = append(r.moved, move{uid, in, now, waiting})
	}
	return waiting
}

func (h *handler) room(id store.ID) *room {
	r := h.rooms[id]
	if r == nil {
		r = &room{}
		h.rooms[id] = r
	}
	return r
}

// fanoutOf returns how an outcome's entry is told.
func fanoutOf(p *conversation.Proposal, o *store.Outcome) conversation.Fanout {
	if conversation.TypeOf(p.Conversation) != conversation.Group {
		return conversation.FanoutUID
	}
	return o.Conversation.Fanout
}

// moves reports whether an entry of this kind changes who is a member.
func moves(k conversation.Kind) bool {
	switch k {
	case conversation.Created, conversation.Joined, conversation.Left, conversation.Removed:
		return true
	}
	return false
}

// leaves reports whether an entry of this kind takes members out.
func leaves(k conversation.Kind) bool { return k == conversation.Left || k == conversation.Removed }

// standing reads which of those that repeated entries were about are members now; false if ctx ended first.
func (h *handler) standing(ctx context.Context, b *batch, outcomes []store.Outcome, rows map[place]*store.Entry) (map[place][]conversation.Membership, bool) {
	now := map[place][]conversation.Membership{}
	for i := range outcomes {
		p, o := &b.proposals[i], &outcomes[i]
		if !o.Repeated || o.Code != nil || !moves(p.Kind) || fanoutOf(p, o) == conversation.FanoutUID && !leaves(p.Kind) {
			continue
		}
		at := place{idOf(p), o.Seq}
		e := rows[at]
		if e == nil {
			continue
		}
		found, ok := insist(ctx, h, "members", func(ctx context.Context) (map[string]conversation.Membership, error) {
			return h.Store.MembersOf(ctx, p.Tenant, p.Conversation, e.Detail.Members)
		})
		if !ok {
			return nil, false
		}
		for _, uid := range e.Detail.Members {
			m := found[uid]
			m.UID = uid
			now[at] = append(now[at], m)
		}
	}
	return now, true
}

// moved returns who is to be put into the room and out of it because of an outcome. Of a repeat it is by what they are now: what came
// after it may have been told already.
func moved(o *store.Outcome, now []conversation.Membership) (in, out []string) {
	if o.Repeated {
		for _, m := range now {
			if m.Role == conversation.None {
				out = append(out, m.UID)
			} else {
				in = append(in, m.UID)
			}
		}
		return in, out
	}
	for _, m := range o.Members {
		switch {
		case m.Role == conversation.None:
			out = append(out, m.UID)
		case m.JoinedSeq == o.Seq:
			in = append(in, m.UID)
		}
	}
	return in, out
}

// toRoom returns whom an outcome's entry is told to in a group whose entries go to its room, and who is left out.
func (a *audience) toRoom(p *conversation.Proposal, o *store.Outcome, e *store.Entry, r *room) (to []*halleyv1.Target, except []string) {
	id := idOf(p)
	inRoom := &halleyv1.Target{Target: &halleyv1.Target_Room{Room: conversation.Room(p.Conversation)}}
	told := map[string]bool{"": true}
	add := func(uid string) {
		if !told[uid] {
			told[uid] = true
			to = append(to, toUID(uid))
		}
	}
	if o.Repeated {
		add(p.Sender)
		if moves(p.Kind) {
			for _, uid := range e.Detail.Members {
				add(uid)
			}
		}
		for uid, since := range a.m.groups[id].since {
			if since > o.Seq && !told[uid] {
				except = append(except, uid)
			}
		}
		if len(except) > mostLeftOut {
			// It is old: whoever may see it was told then.
			return to, nil
		}
	}
	now := time.Now()
	for _, m := range r.recent(now) {
		switch {
		case told[m.uid] || m.over(now):
		case m.in && !slices.Contains(except, m.uid):
			add(m.uid)
		case !m.in:
			except = append(except, m.uid)
		}
	}
	return append(to, inRoom), except
}

// want returns how a group's entries are to be told from now on.
func (h *handler) want(id store.ID, c *conversation.Conversation) conversation.Fanout {
	large := h.Large
	switch {
	case large == 0:
		return conversation.FanoutUID
	case c.Fanout == conversation.FanoutUID && c.Members >= (large+1)/2:
		return conversation.FanoutJoining
	case c.Fanout == conversation.FanoutJoining && c.Members < large/4, c.Fanout == conversation.FanoutRoom && c.Members < large/2:
		return conversation.FanoutUID
	case c.Fanout == conversation.FanoutJoining && c.Members > large:
		if r := h.rooms[id]; r != nil && r.told && r.waiting.Load() == 0 && time.Since(r.since) >= h.RoomAfter {
			return conversation.FanoutRoom
		}
	}
	return c.Fanout
}

// turn changes how the groups of a batch are told from now on, where their size wants it; false if ctx ended first.
func (h *handler) turn(ctx context.Context, b *batch, outcomes []store.Outcome, t *teller) bool {
	latest := map[store.ID]*conversation.Conversation{}
	for i := range outcomes {
		p, o := &b.proposals[i], &outcomes[i]
		switch {
		case conversation.TypeOf(p.Conversation) != conversation.Group || o.Conversation.LastSeq == 0:
		case o.Conversation.Dissolved:
			delete(h.rooms, idOf(p))
			delete(latest, idOf(p))
		default:
			latest[idOf(p)] = &o.Conversation
		}
	}
	var turns []conversation.Proposal
	var joins, leaves []store.ID
	for id, c := range latest {
		want := h.want(id, c)
		if want != c.Fanout {
			turns = append(turns, conversation.Proposal{
				Tenant: id.Tenant, Conversation: id.Conversation, Kind: conversation.FanoutChanged, Fanout: want, AcceptedAtMs: max(1, c.LastAtMs),
			})
		}
		switch {
		case want == conversation.FanoutJoining && !h.room(id).told:
			joins = append(joins, id)
		case want == conversation.FanoutUID && c.Fanout != want:
			leaves = append(leaves, id)
		case want == conversation.FanoutUID:
			delete(h.rooms, id)
		}
	}
	// Stored first: whoever connects from now on is put in by logic, and who was connected before is found by Locate.
	if _, ok := inParts(ctx, h, "fanout", turns, h.Store.Append); !ok {
		return false
	}
	if len(joins)+len(leaves) == 0 {
		return true
	}
	if !h.read(ctx, slices.Concat(joins, leaves)) {
		return false
	}
	for _, id := range joins {
		r := h.room(id)
		r.told, r.since = true, time.Now()
		t.all(id, &halleyv1.RoomsChange{Join: []string{conversation.Room(id.Conversation)}}, &r.waiting)
	}
	for _, id := range leaves {
		delete(h.rooms, id)
		t.all(id, &halleyv1.RoomsChange{Leave: []string{conversation.Room(id.Conversation)}}, &atomic.Int32{})
	}
	return true
}

// all has the rooms of all members' sessions changed. No offset waits for that: what isn't acknowledged when the partition is given
// back is done again by the next owner, for Fanout says that it may not be done.
func (t *teller) all(id store.ID, c *halleyv1.RoomsChange, waiting *atomic.Int32) {
	uids := slices.Sorted(maps.Keys(t.h.members.groups[id].since))
	for part := range slices.Chunk(uids, mostControls) {
		waiting.Add(1)
		t.r.items = append(t.r.items, t.h.Lane.NewItem(control(id, c, part, 0), &waited{t.h.owner, []*atomic.Int32{waiting}, true}, 0))
		t.r.targets += len(part)
	}
}

// putOut takes the sessions of who has gone out of both rooms of a group: that of who has it open tells who types and who has read.
func putOut(id store.ID, uids []string, acceptedAtMs int64) *halleyv1.PushRecord {
	return control(id, &halleyv1.RoomsChange{Leave: []string{conversation.Room(id.Conversation), name.OpenRoom(id.Conversation)}}, uids, acceptedAtMs)
}

func control(id store.ID, c *halleyv1.RoomsChange, uids []string, acceptedAtMs int64) *halleyv1.PushRecord {
	to := make([]*halleyv1.Target, len(uids))
	for i, uid := range uids {
		to[i] = toUID(uid)
	}
	return &halleyv1.PushRecord{
		Id: "rooms", Tenant: id.Tenant, Class: halleyv1.Class_CLASS_CONTROL, Targets: to, AcceptedAtMs: acceptedAtMs,
		Content: &halleyv1.PushRecord_Control{Control: &halleyv1.Control{Control: &halleyv1.Control_Rooms{Rooms: c}}},
	}
}

// waited is the owner of a control delivery that is counted until it is acknowledged.
type waited struct {
	deliver.Owner
	waiting []*atomic.Int32
	// free: no record waits for it.
	free bool
}

// Done is called once.
func (w *waited) Done(seq uint64) {
	for _, n := range w.waiting {
		n.Add(-1)
	}
	if !w.free {
		w.Owner.Done(seq)
	}
}
