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

	// at is what the list was sorted by when it was read.
	at int64
}

// Cursor returns where a page ends whose last conversation is s.
func (s *Summary) Cursor() Cursor { return Cursor{s.at, s.Conversation.ID} }

// Cursor is where a page of conversations ended; the zero value is before the first one.
type Cursor struct {
	ActivityMs   int64
	Conversation string
}

func (c Cursor) compare(o Cursor) int {
	return cmp.Or(cmp.Compare(o.ActivityMs, c.ActivityMs), cmp.Compare(c.Conversation, o.Conversation))
}

// spot is a conversation of somebody's list, as far as it takes to know where in the list it is, and whether there is anything new
// in it: of ten thousand only a page is read whole.
type spot struct {
	id      string
	lastSeq int64
	// activity is what lists are sorted by: the last message's time, or when it began.
	activity int64
	// room is whether its members' sessions are to be in a room.
	room bool
}

func (s *spot) cursor() Cursor { return Cursor{s.activity, s.id} }

// between is a range of ids: above one, up to another; empty: from the first, to the last.
type between struct{ above, upTo string }

// spots returns uid's list, the newest first. It asks the uid's shard once and then those of the conversations.
func spots(ctx context.Context, c *conn, tenant, uid string, b between) ([]spot, error) {
	text, args := "SELECT conversation FROM user_conversations WHERE tenant = ? AND uid = ? AND role > 0", []any{tenant, uid}
	if b.above != "" {
		text, args = text+" AND conversation > ?", append(args, b.above)
	}
	if b.upTo != "" {
		text, args = text+" AND conversation <= ?", append(args, b.upTo)
	}
	ids, err := c.texts(ctx, text, args...)
	if err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	keys := make([][]any, len(ids))
	for i, id := range ids {
		keys[i] = []any{tenant, id}
	}
	out := make([]spot, 0, len(ids))
	err = c.each(ctx, "SELECT conversation, last_seq, last_msg_at, created_at, fanout, dissolved FROM conversations", "tenant = ? AND conversation = ?", "", keys,
		func(r *sql.Rows) error {
			var v spot
			var created int64
			var fanout conversation.Fanout
			var dissolved bool
			if err := r.Scan(&v.id, &v.lastSeq, &v.activity, &created, &fanout, &dissolved); err != nil {
				return err
			}
			if v.activity == 0 {
				v.activity = created
			}
			v.room = fanout != conversation.FanoutUID && !dissolved
			out = append(out, v)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	slices.SortFunc(out, func(a, b spot) int { return a.cursor().compare(b.cursor()) })
	return out, nil
}

// summaries returns uid's view of the conversations of which he is a member, in the order given, without what fillIn fills in.
func summaries(ctx context.Context, c *conn, tenant, uid string, of []spot) ([]Summary, error) {
	ids := make([]string, len(of))
	for i := range of {
		ids[i] = of[i].id
	}
	found, err := conversations(ctx, c, tenant, ids)
	if err != nil {
		return nil, err
	}
	rows, err := memberships(ctx, c, tenant, uid, ids)
	if err != nil {
		return nil, err
	}
	out := make([]Summary, 0, len(of))
	for i := range of {
		// The member's row decides: the list may be behind it for a moment.
		if v, m := found[of[i].id], rows[of[i].id]; v.ID != "" && m.Role != conversation.None {
			out = append(out, Summary{Conversation: v, Member: m, Unread: m.Unread(&v), at: of[i].activity})
		}
	}
	return out, nil
}

// memberships returns uid's rows in these conversations, by conversation.
func memberships(ctx context.Context, c *conn, tenant, uid string, ids []string) (map[string]conversation.Membership, error) {
	out := make(map[string]conversation.Membership, len(ids))
	keys := make([][]any, len(ids))
	for i, id := range ids {
		keys[i] = []any{tenant, id, uid}
	}
	err := c.each(ctx, membersTable.selects(), "tenant = ? AND conversation = ? AND uid = ?", "", keys, func(r *sql.Rows) error {
		var t, id string
		var m conversation.Membership
		if err := scanMember(r, &t, &id, &m); err != nil {
			return err
		}
		out[id] = m
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	return out, nil
}

// Conversations returns uid's conversations behind a cursor, those with the newest message first, at most limit, and the cursor
// of the next page, nil if this is the last one.
func (s *Store) Conversations(ctx context.Context, tenant, uid string, behind Cursor, limit int) ([]Summary, *Cursor, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	c := s.reader()
	all, err := spots(ctx, c, tenant, uid, between{})
	if err != nil {
		return nil, nil, err
	}
	if behind != (Cursor{}) {
		from, _ := slices.BinarySearchFunc(all, behind, func(s spot, cur Cursor) int {
			if s.cursor().compare(cur) <= 0 {
				return -1
			}
			return 1
		})
		all = all[from:]
	}
	var page []Summary
	var last Cursor
	for len(all) > 0 && len(page) < limit {
		part := all[:min(len(all), limit-len(page))]
		all, last = all[len(part):], part[len(part)-1].cursor()
		list, err := summaries(ctx, c, tenant, uid, part)
		if err != nil {
			return nil, nil, err
		}
		page = append(page, list...)
	}
	if err := fillIn(ctx, c, tenant, uid, page, nil); err != nil {
		return nil, nil, err
	}
	if len(all) == 0 {
		return page, nil, nil
	}
	return page, &last, nil
}

// fillIn fills in last messages, those known among them not read again, and mentions.
func fillIn(ctx context.Context, c *conn, tenant, uid string, page []Summary, known map[string][]Entry) error {
	var spans []span
	var unread [][]any
	at := make(map[string]*Summary, len(page))
	for i := range page {
		v := &page[i]
		id := v.Conversation.ID
		at[id] = v
		if last := v.Conversation.LastMsgSeq; last > 0 && last >= v.Member.VisibleFrom(&v.Conversation) {
			if i := slices.IndexFunc(known[id], func(e Entry) bool { return e.Seq == last }); i >= 0 {
				v.Last = &known[id][i]
			} else {
				spans = append(spans, span{id, last, last})
			}
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

// Summaries returns uid's view of those of these conversations of which he is a member, the newest first.
func (s *Store) Summaries(ctx context.Context, tenant, uid string, ids []string) ([]Summary, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	c := s.reader()
	of := make([]spot, len(ids))
	for i, id := range ids {
		of[i] = spot{id: id}
	}
	list, err := summaries(ctx, c, tenant, uid, of)
	if err != nil {
		return nil, err
	}
	for i := range list {
		v := &list[i].Conversation
		if list[i].at = v.LastMsgAtMs; v.LastMsgAtMs == 0 {
			list[i].at = v.CreatedAtMs
		}
	}
	slices.SortFunc(list, func(a, b Summary) int { return a.Cursor().compare(b.Cursor()) })
	return list, fillIn(ctx, c, tenant, uid, list, nil)
}

// UnreadTotal returns how many messages uid has not read in all his conversations, without those in except (the muted ones).
func (s *Store) UnreadTotal(ctx context.Context, tenant, uid string, except []string) (int64, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	c := s.reader()
	all, err := spots(ctx, c, tenant, uid, between{})
	if err != nil {
		return 0, err
	}
	list, err := summaries(ctx, c, tenant, uid, slices.DeleteFunc(all, func(v spot) bool { return slices.Contains(except, v.id) }))
	var n int64
	for i := range list {
		n += list[i].Unread
	}
	return n, err
}

// Positions returns the last seq of each of the conversations on uid's list, and the number of his newest user change: the cheap
// answer to whether he has missed anything. The number is not newer than the list: a conversation that comes on the list, or leaves
// it, is a user change too.
func (s *Store) Positions(ctx context.Context, tenant, uid string) (seqs map[string]int64, change int64, err error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	c := s.reader()
	if change, err = lastNumber(ctx, c, tenant, uid); err != nil {
		return nil, 0, err
	}
	all, err := spots(ctx, c, tenant, uid, between{})
	if err != nil {
		return nil, 0, err
	}
	seqs = make(map[string]int64, len(all))
	for i := range all {
		seqs[all[i].id] = all[i].lastSeq
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
