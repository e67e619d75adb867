package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/store/conversation"
)

// Conversation returns a conversation; errcode.NotFound if it has not begun.
func (s *Store) Conversation(ctx context.Context, tenant, id string) (conversation.Conversation, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	found, err := conversations(ctx, s.reader(), tenant, []string{id})
	if err != nil {
		return conversation.Conversation{}, err
	}
	c, ok := found[id]
	if !ok {
		return c, errcode.NotFound
	}
	return c, nil
}

// Groups returns a tenant's groups with an id above after, in the order of their ids, at most limit. It is for administrators: where the
// conversations are divided, it asks every part.
func (s *Store) Groups(ctx context.Context, tenant, after string, limit int) ([]conversation.Conversation, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	var out []conversation.Conversation
	// '0' comes after '/'.
	err := s.reader().query(ctx, func(r *sql.Rows) error {
		var v conversation.Conversation
		err := scanConversation(r, &v)
		out = append(out, v)
		return err
	}, conversationsTable.selects()+" WHERE tenant = ? AND conversation > ? AND conversation < ? ORDER BY conversation LIMIT ?",
		tenant, max(after, "g/"), "g0", limit)
	if err != nil {
		return nil, fmt.Errorf("read groups: %w", err)
	}
	return out, nil
}

// conversations returns those of ids that have begun.
func conversations(ctx context.Context, c *conn, tenant string, ids []string) (map[string]conversation.Conversation, error) {
	out := make(map[string]conversation.Conversation, len(ids))
	keys := make([][]any, len(ids))
	for i, id := range ids {
		keys[i] = []any{tenant, id}
	}
	err := c.each(ctx, conversationsTable.selects(), "tenant = ? AND conversation = ?", "", keys, func(r *sql.Rows) error {
		var v conversation.Conversation
		if err := scanConversation(r, &v); err != nil {
			return err
		}
		out[v.ID] = v
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read conversations: %w", err)
	}
	return out, nil
}

// Membership returns a conversation and uid's row in it, whose Role is conversation.None if he is no member. errcode.NotFound if
// the conversation has not begun.
func (s *Store) Membership(ctx context.Context, tenant, id, uid string) (conversation.Conversation, conversation.Membership, error) {
	c, err := s.Conversation(ctx, tenant, id)
	if err != nil {
		return c, conversation.Membership{}, err
	}
	found, err := s.MembersOf(ctx, tenant, id, []string{uid})
	m := found[uid]
	m.UID = uid
	return c, m, err
}

// Stored reports whether what sender asked for under clientMsgID has become an entry of a conversation.
func (s *Store) Stored(ctx context.Context, tenant, id, sender, clientMsgID string) (bool, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	found := false
	err := s.reader().query(ctx, func(r *sql.Rows) error {
		var seq int64
		found = true
		return r.Scan(&seq)
	}, "SELECT seq FROM entries WHERE tenant = ? AND conversation = ? AND sender = ? AND client_msg_id = ?", tenant, id, sender, clientMsgID)
	if err != nil {
		return false, fmt.Errorf("look for an entry: %w", err)
	}
	return found, nil
}

// Entries returns the entries with from ≤ seq ≤ to in their order, the first limit of them. Seqs have no gaps: a page that is
// shorter ends at to, or at the conversation's end.
func (s *Store) Entries(ctx context.Context, tenant, id string, from, to int64, limit int) ([]Entry, error) {
	return s.page(ctx, tenant, id, from, min(to, from+int64(limit)-1))
}

// EntriesBefore returns the last limit entries with from ≤ seq < before, in their order: a page of history backwards. Before 0
// is the end.
func (s *Store) EntriesBefore(ctx context.Context, tenant, id string, from, before int64, limit int) ([]Entry, error) {
	if before == 0 {
		c, err := s.Conversation(ctx, tenant, id)
		if err != nil {
			return nil, err
		}
		before = c.LastSeq + 1
	}
	return s.page(ctx, tenant, id, max(from, before-int64(limit)), before-1)
}

func (s *Store) page(ctx context.Context, tenant, id string, from, to int64) ([]Entry, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	from = max(from, 1)
	if from > to {
		return nil, nil
	}
	found, err := entries(ctx, s.reader(), tenant, []span{{id, from, to}})
	return found[id], err
}

// span is a range of one conversation, both ends included.
type span struct {
	id       string
	from, to int64
}

// located is an entry and where it is.
type located struct {
	id string
	e  *Entry
}

// entries returns the entries of these spans, at most one of each conversation, in order and complete.
func entries(ctx context.Context, c *conn, tenant string, spans []span) (map[string][]Entry, error) {
	out := make(map[string][]Entry, len(spans))
	keys := make([][]any, len(spans))
	for i, s := range spans {
		keys[i] = []any{tenant, s.id, s.from, s.to}
	}
	err := c.each(ctx, entrySelect, "tenant = ? AND conversation = ? AND seq >= ? AND seq <= ?", "", keys, func(r *sql.Rows) error {
		var id string
		var e Entry
		if err := scanEntry(r, &id, &e); err != nil {
			return err
		}
		out[id] = append(out[id], e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	var all []located
	for id, list := range out {
		slices.SortFunc(list, func(a, b Entry) int { return int(a.Seq - b.Seq) })
		for i := range list {
			all = append(all, located{id, &list[i]})
		}
	}
	if err := complete(ctx, c, tenant, all); err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	return out, nil
}

// complete fills in what isn't in the entries' own rows: the text of edits, and reactions.
func complete(ctx context.Context, c *conn, tenant string, all []located) error {
	type at struct {
		id  string
		seq int64
	}
	edits := map[at][]*Entry{}
	reacted := map[at]*Entry{}
	var targets, messages [][]any
	for _, l := range all {
		switch {
		case l.e.Kind == conversation.Edit:
			k := at{l.id, l.e.Target}
			if edits[k] == nil {
				targets = append(targets, []any{tenant, l.id, l.e.Target})
			}
			edits[k] = append(edits[k], l.e)
		case l.e.Flags.Has(conversation.Reacted) && !l.e.Flags.Has(conversation.Recalled):
			reacted[at{l.id, l.e.Seq}] = l.e
			messages = append(messages, []any{tenant, l.id, l.e.Seq})
		}
	}
	const match = "tenant = ? AND conversation = ? AND seq = ?"
	if err := c.each(ctx, entrySelect, match, "", targets, func(r *sql.Rows) error {
		var k at
		var t Entry
		if err := scanEntry(r, &k.id, &t); err != nil {
			return err
		}
		k.seq = t.Seq
		for _, e := range edits[k] {
			// As the message is now: who reads two edits gets the last one's text twice, and after a recall none.
			e.Body, e.Detail, e.Flags = t.Body, t.Detail, t.Flags&conversation.Recalled
		}
		return nil
	}); err != nil {
		return err
	}
	var few [][]any
	total := map[at]int64{}
	if err := c.each(ctx, "SELECT conversation, seq, reaction, COUNT(*) FROM reactions", match, " GROUP BY conversation, seq, reaction", messages,
		func(r *sql.Rows) error {
			var k at
			var one Reaction
			if err := r.Scan(&k.id, &k.seq, &one.Reaction, &one.Count); err != nil {
				return err
			}
			total[k] += one.Count
			reacted[k].Reactions = append(reacted[k].Reactions, one)
			return nil
		}); err != nil {
		return err
	}
	for k, n := range total {
		reacted[k].Reactions = mostFrequent(reacted[k].Reactions)
		if n <= reactorsInEntry {
			few = append(few, []any{tenant, k.id, k.seq})
		}
	}
	return c.each(ctx, "SELECT conversation, seq, reaction, uid FROM reactions", match, "", few, func(r *sql.Rows) error {
		var k at
		var reaction, uid string
		if err := r.Scan(&k.id, &k.seq, &reaction, &uid); err != nil {
			return err
		}
		list := reacted[k].Reactions
		for i := range list {
			if list[i].Reaction == reaction {
				list[i].UIDs = append(list[i].UIDs, uid)
			}
		}
		return nil
	})
}

// mostReactions is the most different reactions that an entry names: anybody may add as many as he likes, and one message must not
// outgrow a page, or what a frame may hold.
const mostReactions = 50

// mostFrequent returns those of a message's reactions that most gave.
func mostFrequent(all []Reaction) []Reaction {
	if len(all) <= mostReactions {
		return all
	}
	slices.SortFunc(all, func(a, b Reaction) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reaction, b.Reaction))
	})
	return slices.Clone(all[:mostReactions])
}

// reactorsInEntry is up to how many reactions of a message an entry names those who gave them.
const reactorsInEntry = 50

// Reactors returns who gave a reaction to a message: uids above after, in order, at most limit.
func (s *Store) Reactors(ctx context.Context, tenant, id string, seq int64, reaction, after string, limit int) ([]string, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	out, err := s.reader().texts(ctx, "SELECT uid FROM reactions"+atPlace+" AND reaction = ? AND uid > ? ORDER BY uid LIMIT ?",
		tenant, id, seq, reaction, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read reactors: %w", err)
	}
	return out, nil
}

// Pinned returns the messages on a conversation's board in the order of their seqs, at most limit, those pinned last first to stay.
func (s *Store) Pinned(ctx context.Context, tenant, id string, limit int) ([]Entry, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	var seqs []int64
	c := s.reader()
	if err := c.query(ctx, func(r *sql.Rows) error {
		var seq int64
		err := r.Scan(&seq)
		seqs = append(seqs, seq)
		return err
	}, "SELECT seq FROM pins WHERE tenant = ? AND conversation = ? ORDER BY changed_seq DESC LIMIT ?", tenant, id, limit); err != nil {
		return nil, fmt.Errorf("read pins: %w", err)
	}
	spans := make([]span, len(seqs))
	for i, seq := range seqs {
		spans[i] = span{id, seq, seq}
	}
	found, err := entries(ctx, c, tenant, spans)
	return found[id], err
}

// Replaced is what a message said before a change of it; for the audit.
type Replaced struct {
	// ChangedSeq is the entry that replaced it: an edit or a recall, by ChangedBy.
	ChangedSeq int64
	Kind       conversation.Kind
	ChangedBy  string
	AtMs       int64
	Body       []byte
	Detail     conversation.Detail
}

// Audit returns what a message said before each of its edits and its recall, those after an entry, in their order, at most limit.
func (s *Store) Audit(ctx context.Context, tenant, id string, seq, after int64, limit int) ([]Replaced, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	var out []Replaced
	err := s.reader().query(ctx, func(r *sql.Rows) error {
		var v Replaced
		var detail []byte
		err := r.Scan(&v.ChangedSeq, &v.Kind, &v.ChangedBy, &v.AtMs, &v.Body, &detail)
		if err == nil {
			v.Detail, err = conversation.ParseDetail(detail)
		}
		out = append(out, v)
		return err
	}, "SELECT changed_seq, kind, changed_by, changed_at, body, detail FROM audit"+atPlace+" AND changed_seq > ? ORDER BY changed_seq LIMIT ?",
		tenant, id, seq, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read audit: %w", err)
	}
	return out, nil
}

// purged is how many rows go in one transaction.
const purged = 500

// Purge removes the copies of replaced and recalled texts that were made before auditMs, and the first outcomes of rejections from before
// rejectionsMs, milliseconds since 1970, of all tenants, in portions; none where that is 0. It returns how many went, also with an error.
func (s *Store) Purge(ctx context.Context, auditMs, rejectionsMs int64) (gone int64, err error) {
	for _, t := range []struct {
		from  string
		key   []string
		age   string
		until int64
	}{
		{"audit", []string{"conversation", "seq", "changed_seq"}, "changed_at", auditMs},
		{"rejections", []string{"conversation", "sender", "client_msg_id"}, "rejected_at", rejectionsMs},
	} {
		if t.until <= 0 {
			continue
		}
		for tenant := ""; ; {
			if tenant, err = s.tenantAfter(ctx, t.from, tenant); err != nil {
				return gone, fmt.Errorf("purge %s: %w", t.from, err)
			}
			if tenant == "" {
				break
			}
			for n := int64(purged); n == purged; gone += n {
				if n, err = s.purge(ctx, t.from, t.key, t.age, tenant, t.until); err != nil {
					return gone, fmt.Errorf("purge %s: %w", t.from, err)
				}
			}
		}
	}
	return gone, nil
}

// tenantAfter returns the next tenant that has rows in a table; "" if there is none.
func (s *Store) tenantAfter(ctx context.Context, from, tenant string) (string, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	var next sql.NullString
	err := s.reader().query(ctx, func(r *sql.Rows) error { return r.Scan(&next) }, "SELECT MIN(tenant) FROM "+from+" WHERE tenant > ?", tenant)
	return next.String, err
}

func (s *Store) purge(ctx context.Context, from string, key []string, age, tenant string, until int64) (int64, error) {
	var n int64
	err := s.retry(ctx, func(ctx context.Context, c *conn) error {
		// By key: SQLite has no DELETE with LIMIT.
		var keys [][]any
		sel, match := "SELECT ", ""
		for i, k := range key {
			if i > 0 {
				sel += ", "
			}
			sel += k
			match += " AND " + k + " = ?"
		}
		if err := c.query(ctx, func(r *sql.Rows) error {
			vals := make([]any, len(key))
			to := make([]any, len(key))
			for i := range vals {
				to[i] = &vals[i]
			}
			err := r.Scan(to...)
			keys = append(keys, append([]any{tenant}, vals...))
			return err
		}, sel+" FROM "+from+" WHERE tenant = ? AND "+age+" < ? ORDER BY "+age+" LIMIT ?", tenant, until, purged); err != nil {
			return err
		}
		n = int64(len(keys))
		for _, k := range keys {
			if _, err := c.exec(ctx, "DELETE FROM "+from+" WHERE tenant = ?"+match, k...); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}
