package sequence

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"github.com/halley-im/halley/job/internal/deliver"
	"github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// absence is the owner of a message's item where somebody wants to know whom it did not reach: the record is done when he was told.
type absence struct {
	owner deliver.Owner
	item  *deliver.Item
	h     *handler
	id    store.ID
	entry *store.Entry
	seq   uint64
}

// absence returns what watches an entry; nil if nobody wants to know.
func (h *handler) absence(id store.ID, e *store.Entry) *absence {
	if h.Hooks == nil || e.Kind != conversation.Message || e.Flags.Has(conversation.Recalled) || !h.Hooks.Wanted(id.Tenant, hook.MessageOffline) {
		return nil
	}
	return &absence{h: h, id: id, entry: e}
}

// Done is called when all that could be told was told.
func (a *absence) Done(seq uint64) {
	if len(a.item.Unreached()) == 0 {
		a.owner.Done(seq)
		return
	}
	a.seq = seq
	a.h.absent.put(a)
}

// Lost is the owner's.
func (a *absence) Lost() bool { return a.owner.Lost() }

// absences wait to be told. They have no bound of their own: all of them are in flight, which the consumer bounds.
type absences struct {
	signal chan struct{}
	mu     sync.Mutex
	list   []*absence
}

func newAbsences() *absences { return &absences{signal: make(chan struct{}, 1)} }

func (q *absences) put(a *absence) {
	q.mu.Lock()
	q.list = append(q.list, a)
	q.mu.Unlock()
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

// mostAbsences is how many are told at once.
const mostAbsences = 200

// mostMembers is how many members are read at once: of a group of 100,000 the database would not tell in time.
const mostMembers = 2000

// take waits for some; none when ctx has ended.
func (q *absences) take(ctx context.Context) []*absence {
	for ctx.Err() == nil {
		q.mu.Lock()
		n := min(len(q.list), mostAbsences)
		part := slices.Clone(q.list[:n])
		q.list = slices.Delete(q.list, 0, n)
		q.mu.Unlock()
		if n > 0 {
			return part
		}
		select {
		case <-q.signal:
		case <-ctx.Done():
		}
	}
	return nil
}

// tellAbsent has the host's backend told whom messages did not reach, until ctx ends.
func (h *handler) tellAbsent(ctx context.Context) {
	for {
		list := h.absent.take(ctx)
		if len(list) == 0 {
			return
		}
		slices.SortStableFunc(list, func(a, b *absence) int { return cmp.Compare(a.seq, b.seq) })
		uids := map[store.ID]map[string]bool{}
		for _, a := range list {
			if uids[a.id] == nil {
				uids[a.id] = map[string]bool{}
			}
			for _, uid := range a.item.Unreached() {
				uids[a.id][uid] = true
			}
		}
		members, muters := map[store.ID]map[string]conversation.Membership{}, map[store.ID]map[string]bool{}
		for id, set := range uids {
			all := make([]string, 0, len(set))
			for uid := range set {
				all = append(all, uid)
			}
			members[id], muters[id] = map[string]conversation.Membership{}, map[string]bool{}
			for part := range slices.Chunk(all, mostMembers) {
				found, ok := insist(ctx, h, "members", func(ctx context.Context) (map[string]conversation.Membership, error) {
					return h.Store.MembersOf(ctx, id.Tenant, id.Conversation, part)
				})
				if !ok {
					return
				}
				maps.Copy(members[id], found)
				muted, ok := insist(ctx, h, "muters", func(ctx context.Context) (map[string]bool, error) {
					return h.Store.Muters(ctx, id.Tenant, id.Conversation, part)
				})
				if !ok {
					return
				}
				maps.Copy(muters[id], muted)
			}
		}
		var events []hook.Offline
		for _, a := range list {
			if o, ok := a.offline(members[a.id], muters[a.id]); ok {
				events = append(events, o)
			}
		}
		if !h.Hooks.Offline(ctx, events...) {
			return
		}
		for _, a := range list {
			a.owner.Done(a.seq)
		}
	}
}

// offline returns the event; false if nobody has missed anything: the sender himself has not, nor who has read it meanwhile or is no
// member any more. The latter two matter where a message is told again long after.
func (a *absence) offline(members map[string]conversation.Membership, muters map[string]bool) (hook.Offline, bool) {
	e := a.entry
	o := hook.Offline{Tenant: a.id.Tenant, Conversation: a.id.Conversation, Seq: e.Seq, AtMs: e.AtMs}
	for _, uid := range a.item.Unreached() {
		m, ok := members[uid]
		if !ok || uid == e.Sender || m.Role == conversation.None || m.ReadSeq >= e.Seq {
			continue
		}
		o.Users = append(o.Users, hook.OfflineUser{
			UID: uid, Unread: max(1, e.MsgNo-m.ReadMsgNo), Mentioned: e.Detail.MentionAll || slices.Contains(e.Detail.Mentions, uid), Muted: muters[uid],
		})
	}
	if len(o.Users) == 0 {
		return o, false
	}
	slices.SortFunc(o.Users, func(x, y hook.OfflineUser) int { return cmp.Compare(x.UID, y.UID) })
	var err error
	if o.Entry, err = json.Marshal(wire.JSONOf(e)); err != nil {
		a.h.log.Error("event not encoded", logs.Err, err) // it was encoded before
		return o, false
	}
	return o, true
}
