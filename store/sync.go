package store

import (
	"context"
	"slices"

	"github.com/halley-im/halley/store/conversation"
)

// SyncQuery is what a device has and how much it takes.
type SyncQuery struct {
	// Have is the last seq of each conversation up to which the device has everything.
	Have map[string]int64
	// UserChange is the number up to which it has all user changes.
	UserChange int64
	// Limit is the most entries, and the most user changes, in a page.
	Limit int
	// Newest is how many entries it gets of a conversation that it doesn't have, or of which it has missed more than MaxGap.
	Newest int
	// MaxGap is how far it may be behind to get all that it missed.
	MaxGap int64
	// Above and UpTo say which conversations it asks about, by their ids: those above the one and up to the other; empty: from the
	// first, to the last. For who has more than one question can name.
	Above, UpTo string
}

// SyncPage is what is new. The next page is asked for by a query that has what this one brought.
type SyncPage struct {
	// Conversations are those with something new, the newest first.
	Conversations []SyncConversation
	// UserChanges are the next ones, in order.
	UserChanges []UserChange
	// More is whether there is more than fits into this page.
	More bool
	// Rooms are those of all his groups whose members' sessions are to be in a room, conversation.Room.
	Rooms []string
}

// SyncConversation is what is new in a conversation.
type SyncConversation struct {
	Summary
	// Entries follow, without a gap, what the device has; unless Reset.
	Entries []Entry
	// Reset says that Entries are the newest ones, and that what the device may have of before is stale: to be read again by
	// ranges, whose rows hold every change.
	Reset bool
}

// Sync returns what is newer than what a device of uid has: entries of all his conversations, and his user changes.
func (s *Store) Sync(ctx context.Context, tenant, uid string, q SyncQuery) (SyncPage, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	var page SyncPage
	// First the changes: a conversation that comes on the list after this is told by a later change.
	changes, err := s.UserChangesSince(ctx, tenant, uid, q.UserChange, q.Limit+1)
	if err != nil {
		return page, err
	}
	if len(changes) > q.Limit {
		changes, page.More = changes[:q.Limit], true
	}
	page.UserChanges = changes
	c := s.reader()
	all, err := spots(ctx, c, tenant, uid, between{q.Above, q.UpTo})
	if err != nil {
		return page, err
	}
	if page.Rooms, err = rooms(ctx, c, tenant, uid, all); err != nil {
		return page, err
	}
	var spans []span
	var resets []bool
	var news []Summary
	room, more := int64(q.Limit), false
	for len(all) > 0 && !more {
		var part []spot
		part, all = q.cut(all, room)
		list, err := summaries(ctx, c, tenant, uid, part)
		if err != nil {
			return page, err
		}
		for i := range list {
			v := &list[i]
			sp, reset := q.span(v)
			if sp.from > sp.to {
				continue
			}
			n := sp.to - sp.from + 1
			if room <= 0 || n > room && reset && len(news) > 0 {
				// Cut at its older end it would leave a gap: it comes first in the next page.
				more = true
				break
			}
			switch {
			case n > room && reset:
				sp.from = sp.to - room + 1
			case n > room:
				sp.to, more = sp.from+room-1, true
			}
			room -= sp.to - sp.from + 1
			spans, resets, news = append(spans, sp), append(resets, reset), append(news, *v)
			if more {
				break
			}
		}
	}
	page.More = page.More || more
	found, err := entries(ctx, c, tenant, spans)
	if err != nil {
		return page, err
	}
	if err := fillIn(ctx, c, tenant, uid, news, found); err != nil {
		return page, err
	}
	for i, v := range news {
		page.Conversations = append(page.Conversations, SyncConversation{Summary: v, Entries: found[v.Conversation.ID], Reset: resets[i]})
	}
	return page, nil
}

// span returns which entries of a conversation are new for the device; from is above to if none are.
func (q *SyncQuery) span(v *Summary) (_ span, reset bool) {
	c := &v.Conversation
	first := v.Member.VisibleFrom(c)
	have, ok := q.Have[c.ID]
	sp := span{c.ID, max(first, have+1), c.LastSeq}
	if ok && have >= c.LastSeq {
		return sp, false
	}
	gap := sp.to - sp.from + 1
	if !ok && gap > int64(q.Newest) || gap > max(q.MaxGap, int64(q.Newest)) {
		sp.from, reset = max(first, sp.to-int64(q.Newest)+1), true
	}
	return sp, reset
}

// cut returns the first of a list in which there may be something new, about as many as room entries are in, and the rest of it.
func (q *SyncQuery) cut(all []spot, room int64) (part, rest []spot) {
	for i := range all {
		v := &all[i]
		have, ok := q.Have[v.id]
		n := v.lastSeq - have
		switch {
		case ok && n <= 0:
			continue
		case !ok || n > max(q.MaxGap, int64(q.Newest)):
			n = min(v.lastSeq, int64(q.Newest))
		}
		part = append(part, *v)
		// One more than fits: it tells whether there is more.
		if room -= n; room < 0 || len(part) == perStatement {
			return part, all[i+1:]
		}
	}
	return part, nil
}

// rooms returns those of a list whose members' sessions are to be in a room, if uid is one.
func rooms(ctx context.Context, c *conn, tenant, uid string, all []spot) ([]string, error) {
	var ids []string
	for i := range all {
		if all[i].room {
			ids = append(ids, all[i].id)
		}
	}
	rows, err := memberships(ctx, c, tenant, uid, ids)
	return slices.DeleteFunc(ids, func(id string) bool { return rows[id].Role == conversation.None }), err
}
