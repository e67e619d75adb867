package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/halley-im/halley/store/conversation"
)

// Members returns the members of a conversation with a uid above after, in order, at most limit.
func (s *Store) Members(ctx context.Context, tenant, id, after string, limit int) ([]conversation.Membership, error) {
	return s.members(ctx, " WHERE tenant = ? AND conversation = ? AND uid > ? AND role > 0 ORDER BY uid LIMIT ?", tenant, id, after, limit)
}

// Admins returns a group's owner and admins, the owner first, at most limit.
func (s *Store) Admins(ctx context.Context, tenant, id string, limit int) ([]conversation.Membership, error) {
	var out []conversation.Membership
	// Role by role: to sort by both in one statement the database would read all of them, and a group may have thousands.
	for _, role := range []conversation.Role{conversation.Owner, conversation.Admin} {
		if len(out) >= limit {
			break
		}
		list, err := s.members(ctx, " WHERE tenant = ? AND conversation = ? AND role = ? ORDER BY uid LIMIT ?", tenant, id, role, limit-len(out))
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// Readers returns the members whose read marker is at seq or after it, with a uid above after, in order, at most limit.
func (s *Store) Readers(ctx context.Context, tenant, id string, seq int64, after string, limit int) ([]conversation.Membership, error) {
	return s.members(ctx, " WHERE tenant = ? AND conversation = ? AND uid > ? AND role > 0 AND read_seq >= ? ORDER BY uid LIMIT ?",
		tenant, id, after, seq, limit)
}

func (s *Store) members(ctx context.Context, tail string, args ...any) ([]conversation.Membership, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	var out []conversation.Membership
	err := s.reader().query(ctx, func(r *sql.Rows) error {
		var tenant, id string
		var m conversation.Membership
		if err := scanMember(r, &tenant, &id, &m); err != nil {
			return err
		}
		out = append(out, m)
		return nil
	}, membersTable.selects()+tail, args...)
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	return out, nil
}

// MembersOf returns the rows of those of uids that are or were members, by uid. Unread of each is Membership.Unread.
func (s *Store) MembersOf(ctx context.Context, tenant, id string, uids []string) (map[string]conversation.Membership, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	out := make(map[string]conversation.Membership, len(uids))
	keys := make([][]any, len(uids))
	for i, uid := range uids {
		keys[i] = []any{tenant, id, uid}
	}
	err := s.reader().each(ctx, membersTable.selects(), "tenant = ? AND conversation = ? AND uid = ?", "", keys, func(r *sql.Rows) error {
		var t, c string
		var m conversation.Membership
		if err := scanMember(r, &t, &c, &m); err != nil {
			return err
		}
		out[m.UID] = m
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	return out, nil
}

// MemberUIDs returns the uids of a conversation's members in order, at most limit: whom an entry is delivered to.
func (s *Store) MemberUIDs(ctx context.Context, tenant, id string, limit int) ([]string, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	out, err := s.reader().texts(ctx, "SELECT uid FROM members WHERE tenant = ? AND conversation = ? AND role > 0 ORDER BY uid LIMIT ?", tenant, id, limit)
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	return out, nil
}

// ID names a conversation in the cluster.
type ID struct{ Tenant, Conversation string }

// Roster is who is in a conversation, all as of one entry.
type Roster struct {
	// LastSeq is that entry.
	LastSeq int64
	// Members are, by uid, the seqs that made them members.
	Members map[string]int64
}

// rosterPage is how many members of one conversation are read at once: 100,000 take longer than a read may.
const rosterPage = 20_000

// Rosters returns who is in these conversations; one that has no members, or has not begun, is missing. Several are read at once: who
// is told that it took too long asks for fewer. One alone is read in pages.
func (s *Store) Rosters(ctx context.Context, ids []ID) (map[ID]Roster, error) {
	if len(ids) == 1 {
		return s.roster(ctx, ids[0], s.rosterPage)
	}
	ctx, cancel := s.reading(ctx)
	defer cancel()
	out := make(map[ID]Roster, len(ids))
	keys := make([][]any, len(ids))
	for i, id := range ids {
		keys[i] = []any{id.Tenant, id.Conversation}
	}
	// One statement, which sees one state: by two, an entry could come between them.
	err := s.reader().each(ctx, "SELECT m.tenant, m.conversation, c.last_seq, m.uid, m.joined_seq FROM members m"+
		" JOIN conversations c ON c.tenant = m.tenant AND c.conversation = m.conversation",
		"m.tenant = ? AND m.conversation = ?", " AND m.role > 0", keys, func(r *sql.Rows) error {
			var id ID
			var last, joined int64
			var uid string
			if err := r.Scan(&id.Tenant, &id.Conversation, &last, &uid, &joined); err != nil {
				return err
			}
			v, ok := out[id]
			if !ok {
				v = Roster{LastSeq: last, Members: map[string]int64{}}
				out[id] = v
			}
			v.Members[uid] = joined
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	return out, nil
}

var errMoved = errors.New("an entry came in between")

// roster reads one roster in pages, again if an entry came between two of them.
func (s *Store) roster(ctx context.Context, id ID, most int) (map[ID]Roster, error) {
	for n := 1; ; n++ {
		r, err := s.pages(ctx, id, most)
		switch {
		case err == nil && len(r.Members) == 0:
			return nil, nil
		case err == nil:
			return map[ID]Roster{id: r}, nil
		case n == tries || !errors.Is(err, errMoved):
			return nil, fmt.Errorf("read members: %w", err)
		}
	}
}

func (s *Store) pages(ctx context.Context, id ID, most int) (Roster, error) {
	r := Roster{Members: map[string]int64{}}
	for after, n := "", most; n == most; {
		n = 0
		moved := false
		page, cancel := s.reading(ctx)
		err := s.reader().query(page, func(rows *sql.Rows) error {
			var last, joined int64
			if err := rows.Scan(&last, &after, &joined); err != nil {
				return err
			}
			moved = moved || len(r.Members) > 0 && last != r.LastSeq
			r.LastSeq = last
			r.Members[after] = joined
			n++
			return nil
		}, "SELECT c.last_seq, m.uid, m.joined_seq FROM members m JOIN conversations c ON c.tenant = m.tenant AND c.conversation = m.conversation"+
			" WHERE m.tenant = ? AND m.conversation = ? AND m.uid > ? AND m.role > 0 ORDER BY m.uid LIMIT ?", id.Tenant, id.Conversation, after, most)
		cancel()
		if err != nil {
			return r, err
		}
		if moved {
			return r, errMoved
		}
	}
	return r, nil
}

// RoomsOf returns those of uid's groups whose members' sessions are to be in a room, conversation.Room: whoever connects is put
// into them.
func (s *Store) RoomsOf(ctx context.Context, tenant, uid string) ([]string, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	c := s.reader()
	ids, err := c.texts(ctx, "SELECT conversation FROM user_conversations WHERE tenant = ? AND uid = ? AND role > 0 AND conversation LIKE 'g/%'", tenant, uid)
	if err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	keys := make([][]any, len(ids))
	for i, id := range ids {
		keys[i] = []any{tenant, id}
	}
	var out []string
	err = c.each(ctx, "SELECT conversation FROM conversations", "tenant = ? AND conversation = ?", " AND fanout <> 0", keys, func(r *sql.Rows) error {
		var id string
		err := r.Scan(&id)
		out = append(out, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read rooms: %w", err)
	}
	slices.Sort(out)
	return out, nil
}

// Reached returns how many members have read up to seq, and to how many it was delivered, the sender's own marks included.
func (s *Store) Reached(ctx context.Context, tenant, id string, seq int64) (read, delivered int64, err error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	err = s.reader().query(ctx, func(r *sql.Rows) error { return r.Scan(&read, &delivered) },
		"SELECT COALESCE(SUM(CASE WHEN read_seq >= ? THEN 1 ELSE 0 END), 0), COALESCE(SUM(CASE WHEN delivered_seq >= ? THEN 1 ELSE 0 END), 0)"+
			" FROM members WHERE tenant = ? AND conversation = ? AND role > 0", seq, seq, tenant, id)
	if err != nil {
		return 0, 0, fmt.Errorf("count readers: %w", err)
	}
	return read, delivered, nil
}
