package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/halley-im/halley/store/conversation"
)

// Summary is a conversation as one of its members sees it in his list.
type Summary struct {
	Conversation conversation.Conversation
	// Member is his own row.
	Member conversation.Membership
	// Last is the last message, if he may see it.
	Last *Entry
	// Unread is how many messages are after his read marker.
	Unread int64
	// Mentions is how many of them mention him or everybody, FirstMention the first one's seq; 0: none.
	Mentions     int64
	FirstMention int64
}

// activity is what lists are sorted by: the last message's time, or when it began.
func (s *Summary) activity() int64 {
	if s.Conversation.LastMsgAtMs > 0 {
		return s.Conversation.LastMsgAtMs
	}
	return s.Conversation.CreatedAtMs
}

// Cursor is where a page of conversations ended; the zero value is before the first one.
type Cursor struct {
	ActivityMs   int64
	Conversation string
}

func (c Cursor) compare(o Cursor) int {
	return cmp.Or(cmp.Compare(o.ActivityMs, c.ActivityMs), cmp.Compare(c.Conversation, o.Conversation))
}

func (s *Summary) cursor() Cursor { return Cursor{s.activity(), s.Conversation.ID} }

// Conversations returns uid's conversations behind a cursor, those with the newest message first, at most limit, and the cursor
// of the next page, nil if this is the last one.
func (s *Store) Conversations(ctx context.Context, tenant, uid string, behind Cursor, limit int) ([]Summary, *Cursor, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	c := s.reader()
	all, err := mine(ctx, c, tenant, uid)
	if err != nil {
		return nil, nil, err
	}
	from := 0
	if behind != (Cursor{}) {
		from, _ = slices.BinarySearchFunc(all, behind, func(s Summary, cur Cursor) int {
			if s.cursor().compare(cur) <= 0 {
				return -1
			}
			return 1
		})
	}
	page := all[from:min(len(all), from+limit)]
	if err := fillIn(ctx, c, tenant, uid, page); err != nil {
		return nil, nil, err
	}
	if from+len(page) == len(all) || len(page) == 0 {
		return page, nil, nil
	}
	next := page[len(page)-1].cursor()
	return page, &next, nil
}

// mine returns all of uid's conversations and his rows in them, the newest first, without what fillIn fills in. It asks the
// uid's shard once and then those of the conversations.
func mine(ctx context.Context, c *conn, tenant, uid string) ([]Summary, error) {
	ids, err := c.texts(ctx, "SELECT conversation FROM user_conversations WHERE tenant = ? AND uid = ? AND role > 0", tenant, uid)
	if err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	found, err := conversations(ctx, c, tenant, ids)
	if err != nil {
		return nil, err
	}
	keys := make([][]any, len(ids))
	for i, id := range ids {
		keys[i] = []any{tenant, id, uid}
	}
	out := make([]Summary, 0, len(ids))
	err = c.each(ctx, membersTable.selects(), "tenant = ? AND conversation = ? AND uid = ?", "", keys, func(r *sql.Rows) error {
		var t, id string
		var m conversation.Membership
		if err := scanMember(r, &t, &id, &m); err != nil {
			return err
		}
		// The member's row decides: the list may be behind it for a moment.
		if v, ok := found[id]; ok && m.Role != conversation.None {
			out = append(out, Summary{Conversation: v, Member: m, Unread: m.Unread(&v)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	slices.SortFunc(out, func(a, b Summary) int { return a.cursor().compare(b.cursor()) })
	return out, nil
}

// fillIn fills in last messages and mentions.
func fillIn(ctx context.Context, c *conn, tenant, uid string, page []Summary) error {
	var spans []span
	var unread [][]any
	at := make(map[string]*Summary, len(page))
	for i := range page {
		v := &page[i]
		id := v.Conversation.ID
		at[id] = v
		if last := v.Conversation.LastMsgSeq; last > 0 && last >= v.Member.VisibleFrom(&v.Conversation) {
			spans = append(spans, span{id, last, last})
		}
		if v.Unread > 0 {
			unread = append(unread, []any{tenant, id, uid, v.Member.ReadSeq})
		}
	}
	last, err := entries(ctx, c, tenant, spans)
	if err != nil {
		return err
	}
	for id, list := range last {
		at[id].Last = &list[0]
	}
	err = c.each(ctx, "SELECT conversation, COUNT(DISTINCT seq), MIN(seq) FROM mentions",
		"tenant = ? AND conversation = ? AND uid IN (?, '') AND seq > ?", " GROUP BY conversation", unread, func(r *sql.Rows) error {
			var id string
			var n, first int64
			if err := r.Scan(&id, &n, &first); err != nil {
				return err
			}
			at[id].Mentions, at[id].FirstMention = n, first
			return nil
		})
	if err != nil {
		return fmt.Errorf("read mentions: %w", err)
	}
	return nil
}

// Summaries returns uid's view of these conversations, of which he is a member, the newest first.
func (s *Store) Summaries(ctx context.Context, tenant, uid string, ids []string) ([]Summary, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	c := s.reader()
	all, err := mine(ctx, c, tenant, uid)
	if err != nil {
		return nil, err
	}
	wanted := make(map[string]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	all = slices.DeleteFunc(all, func(v Summary) bool { return !wanted[v.Conversation.ID] })
	return all, fillIn(ctx, c, tenant, uid, all)
}

// UnreadTotal returns how many messages uid has not read in all his conversations, without those in except (the muted ones).
func (s *Store) UnreadTotal(ctx context.Context, tenant, uid string, except []string) (int64, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	all, err := mine(ctx, s.reader(), tenant, uid)
	var n int64
	for i := range all {
		if !slices.Contains(except, all[i].Conversation.ID) {
			n += all[i].Unread
		}
	}
	return n, err
}

// Positions returns the last seq of each of uid's conversations, and the number of his newest user change: the cheap answer to
// whether he has missed anything. The number is not newer than the list: a conversation that comes on the list, or leaves it, is a
// user change too.
func (s *Store) Positions(ctx context.Context, tenant, uid string) (seqs map[string]int64, change int64, err error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	c := s.reader()
	if change, err = lastNumber(ctx, c, tenant, uid); err != nil {
		return nil, 0, err
	}
	all, err := mine(ctx, c, tenant, uid)
	if err != nil {
		return nil, 0, err
	}
	seqs = make(map[string]int64, len(all))
	for i := range all {
		seqs[all[i].Conversation.ID] = all[i].Conversation.LastSeq
	}
	return seqs, change, nil
}

// SyncCursor is Positions added up. Both only grow, unless he leaves a conversation, which is a user change.
func (s *Store) SyncCursor(ctx context.Context, tenant, uid string) (seqs, change int64, err error) {
	all, change, err := s.Positions(ctx, tenant, uid)
	for _, seq := range all {
		seqs += seq
	}
	return seqs, change, err
}

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
	all, err := mine(ctx, c, tenant, uid)
	if err != nil {
		return page, err
	}
	for i := range all {
		if c := &all[i].Conversation; c.Fanout != conversation.FanoutUID && !c.Dissolved {
			page.Rooms = append(page.Rooms, c.ID)
		}
	}
	var spans []span
	var resets []bool
	var news []Summary
	room := int64(q.Limit)
	for _, v := range all {
		sp, reset := q.span(&v)
		if sp.from > sp.to {
			continue
		}
		if room <= 0 {
			page.More = true
			break
		}
		if n := sp.to - sp.from + 1; n > room && reset {
			if len(news) > 0 {
				// Cut at its older end it would leave a gap: it comes first in the next page.
				page.More = true
				break
			}
			sp.from = sp.to - room + 1
		} else if n > room {
			sp.to, page.More = sp.from+room-1, true
		}
		room -= sp.to - sp.from + 1
		spans, resets, news = append(spans, sp), append(resets, reset), append(news, v)
	}
	found, err := entries(ctx, c, tenant, spans)
	if err != nil {
		return page, err
	}
	if err := fillIn(ctx, c, tenant, uid, news); err != nil {
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
