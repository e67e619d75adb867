package sequence

import (
	"context"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

// members remembers who is in groups. Each group is as of one entry, and good for the next one only: where an entry of another writer
// has come between, it is read again.
type members struct {
	groups map[store.ID]*group
	most   int
	size   int
}

type group struct {
	last    int64            // the entry that it is as of
	since   map[string]int64 // members, by the entry that made them so
	newest  int64            // the highest of since
	targets []*halleyv1.Target
}

func newMembers(most int) *members { return &members{groups: map[store.ID]*group{}, most: most} }

func (m *members) put(id store.ID, g *group) {
	m.drop(id)
	for _, joined := range g.since {
		g.newest = max(g.newest, joined)
	}
	m.groups[id] = g
	m.size += len(g.since)
}

func (m *members) drop(id store.ID) {
	if g := m.groups[id]; g != nil {
		m.size -= len(g.since)
		delete(m.groups, id)
	}
}

// shrink forgets some groups, any, if there are too many members.
func (m *members) shrink() {
	for id := range m.groups {
		if m.size <= m.most {
			return
		}
		m.drop(id)
	}
}

// apply brings a group from the entry before o to o.
func (m *members) apply(g *group, o *store.Outcome) {
	g.last = o.Seq
	for _, u := range o.Members {
		was, in := g.since[u.UID]
		switch {
		case u.Role == conversation.None && in:
			delete(g.since, u.UID)
			m.size--
		case u.Role == conversation.None || in && was == u.JoinedSeq:
			continue
		default:
			if !in {
				m.size++
			}
			g.since[u.UID] = u.JoinedSeq
			g.newest = max(g.newest, u.JoinedSeq)
		}
		g.targets = nil
	}
}

// all returns the members as targets, to be shared and not changed.
func (g *group) all() []*halleyv1.Target {
	if g.targets == nil {
		g.targets = make([]*halleyv1.Target, 0, len(g.since))
		for uid := range g.since {
			g.targets = append(g.targets, toUID(uid))
		}
	}
	return g.targets
}

func toUID(uid string) *halleyv1.Target {
	return &halleyv1.Target{Target: &halleyv1.Target_Uid{Uid: uid}}
}

// leaver was a member from one entry to another, which took him out.
type leaver struct {
	uid          string
	joined, left int64
}

// audience tells who gets the entries of one batch.
type audience struct {
	m *members
	// gone are those whom the batch's own entries take out of groups: up to that entry they get all.
	gone map[store.ID][]leaver
}

func idOf(p *conversation.Proposal) store.ID {
	return store.ID{Tenant: p.Tenant, Conversation: p.Conversation}
}

// toGroup reports whether an outcome is an entry that the members of a group are told of.
func toGroup(p *conversation.Proposal, o *store.Outcome) bool {
	return o.Code == nil && o.Seq > 0 && conversation.TypeOf(p.Conversation) == conversation.Group
}

// audience reads the groups of a batch that are not remembered as they must be; false if ctx ended first.
func (h *handler) audience(ctx context.Context, b *batch, outcomes []store.Outcome) (*audience, bool) {
	a := &audience{m: h.members, gone: map[store.ID][]leaver{}}
	last := map[store.ID]int64{}
	unknown, needed := map[store.ID]bool{}, map[store.ID]bool{}
	var ask []store.ID
	for i := range outcomes {
		p, o := &b.proposals[i], &outcomes[i]
		if !toGroup(p, o) {
			continue
		}
		id := idOf(p)
		if !o.Repeated && o.Conversation.Fanout == conversation.FanoutRoom {
			// Nobody is looked up, and what is remembered is out of date by it.
			h.members.drop(id)
			delete(last, id)
			continue
		}
		at, ok := last[id]
		if g := h.members.groups[id]; !ok && g != nil {
			at, ok = g.last, true
		}
		fits := ok && at == o.Conversation.LastSeq
		needed[id] = true
		if !o.Repeated {
			fits = ok && at == o.Seq-1
			if !ok && o.Seq == 1 {
				h.members.put(id, &group{since: map[string]int64{}})
				fits = true
			}
			for _, u := range o.Members {
				if u.Role == conversation.None {
					a.gone[id] = append(a.gone[id], leaver{u.UID, u.JoinedSeq, o.Seq})
				}
			}
			last[id] = o.Seq
		}
		if !fits && !unknown[id] {
			unknown[id] = true
			ask = append(ask, id)
		}
	}
	// A later entry of the batch may have dropped what an earlier one goes by, where another writer turned the group in between.
	for id := range needed {
		if h.members.groups[id] == nil && !unknown[id] {
			ask = append(ask, id)
		}
	}
	return a, h.read(ctx, ask)
}

// mostRosters is how many groups are read at once: they may be large.
const mostRosters = 32

// read reads groups, fewer at once where that takes the database too long; false if ctx ended first.
func (h *handler) read(ctx context.Context, ids []store.ID) bool {
	for size := mostRosters; len(ids) > 0; {
		var part []store.ID
		found, ok := insist(ctx, h, "rosters", func(ctx context.Context) (map[store.ID]store.Roster, error) {
			part = ids[:min(size, len(ids))]
			size = max(1, len(part)/2)
			return h.Store.Rosters(ctx, part)
		})
		if !ok {
			return false
		}
		size = min(mostRosters, 4*size)
		ids = ids[len(part):]
		h.Meter.Chat.Rosters.Add(float64(len(part)))
		for _, id := range part {
			r := found[id]
			if r.Members == nil {
				r.Members = map[string]int64{}
			}
			h.members.put(id, &group{last: r.LastSeq, since: r.Members})
		}
	}
	return true
}

// of returns whom an outcome's entry is told to. It is called for the outcomes of the batch in their order.
func (a *audience) of(p *conversation.Proposal, o *store.Outcome, e *store.Entry) []*halleyv1.Target {
	if conversation.TypeOf(p.Conversation) != conversation.Group {
		var to []*halleyv1.Target
		for _, uid := range conversation.Parties(p.Conversation) {
			to = append(to, toUID(uid))
		}
		return to
	}
	id := idOf(p)
	g := a.m.groups[id]
	if !o.Repeated && o.Seq > g.last {
		a.m.apply(g, o)
	}
	var extra []string
	for _, l := range a.gone[id] {
		if since, in := g.since[l.uid]; l.joined <= o.Seq && o.Seq <= l.left && !(in && since <= o.Seq) {
			extra = append(extra, l.uid)
		}
	}
	if o.Repeated {
		// Who asked is told the outcome that he didn't know of, though he may have left; and whoever was taken out, that he is.
		extra = append(extra, p.Sender)
		if p.Kind == conversation.Removed || p.Kind == conversation.Left {
			extra = append(extra, e.Detail.Members...)
		}
	}
	if len(extra) == 0 && g.newest <= o.Seq {
		return g.all()
	}
	to := make([]*halleyv1.Target, 0, len(g.since)+len(extra))
	told := map[string]bool{"": true}
	for uid, since := range g.since {
		if since <= o.Seq {
			to = append(to, toUID(uid))
			told[uid] = true
		}
	}
	for _, uid := range extra {
		if !told[uid] {
			told[uid] = true
			to = append(to, toUID(uid))
		}
	}
	return to
}
