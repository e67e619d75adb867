package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
)

// Visibility says who may see a user's presence and when he was last seen.
type Visibility uint8

// Visibilities.
const (
	VisibleToContacts Visibility = 0
	VisibleToAll      Visibility = 1
	VisibleToNobody   Visibility = 2
)

// User is a person's profile.
type User struct {
	Tenant string
	UID    string
	// Name is what others see; at most 255 bytes.
	Name   string
	Avatar string
	// Profile is whatever else the host keeps, opaque here; at most 64 KiB.
	Profile    []byte
	Visibility Visibility
	// Disabled users can't log in, and aren't found by a search.
	Disabled    bool
	CreatedAtMs int64
	UpdatedAtMs int64
}

func (u *User) check() error {
	if err := name.Tenant(u.Tenant); err != nil {
		return err
	}
	if err := name.UID(u.UID); err != nil {
		return err
	}
	switch {
	case len(u.Name) > 255 || !utf8.ValidString(u.Name):
		return errcode.InvalidRequest.Errorf("name: at most 255 bytes of UTF-8")
	case len(u.Avatar) > 1024 || !utf8.ValidString(u.Avatar):
		return errcode.InvalidRequest.Errorf("avatar: at most 1024 bytes of UTF-8")
	case len(u.Profile) > 65535:
		return errcode.InvalidRequest.Errorf("profile: at most 65535 bytes")
	case u.Visibility > VisibleToNobody:
		return errcode.InvalidRequest.Errorf("visibility: unknown")
	}
	return nil
}

// ContactState is how far two people are.
type ContactState uint8

// States of a contact, as uid sees it.
const (
	// ContactRequested: uid has asked the other one.
	ContactRequested ContactState = 1
	// ContactAsked: the other one has asked uid.
	ContactAsked ContactState = 2
	// ContactAccepted: they are contacts.
	ContactAccepted ContactState = 3
)

// Contact is what one uid keeps of another one. It is written by a user change of kind ChangeContact.
type Contact struct {
	// Peer is the other uid.
	Peer  string
	State ContactState
	// Remark is uid's own name for him, Note what was said with the request.
	Remark      string
	Note        string
	ChangedAtMs int64
}

func (c *Contact) check() error {
	if len(c.Remark) > 255 || len(c.Note) > 1024 || !utf8.ValidString(c.Remark) || !utf8.ValidString(c.Note) || c.State > ContactAccepted {
		return errcode.InvalidRequest.Errorf("contact: remark at most 255, note at most 1024 bytes of UTF-8")
	}
	return nil
}

var (
	usersTable = table{"users", []string{
		"tenant", "uid", "created_at", "name", "name_folded", "avatar", "profile", "visibility", "disabled", "updated_at",
	}, 2}
	contactsTable = table{"contacts", []string{"tenant", "uid", "peer", "state", "remark", "note", "changed_at"}, 3}
	blocksTable   = table{"blocks", []string{"tenant", "uid", "peer", "blocked_at"}, 3}
)

// fold makes names that differ in case alone the same. Both databases compare the bytes that come out: their own rules of
// collation differ.
func fold(s string) string { return strings.ToLower(s) }

// PutUsers keeps profiles, new ones and those that are there; CreatedAtMs of the latter stays. One that can't be is an error of
// errcode.InvalidRequest, and none of them is kept.
func (s *Store) PutUsers(ctx context.Context, users []User) error {
	// In order: two imports of the same people wait for each other and don't deadlock. Of one who is there twice the last counts.
	users = slices.Clone(users)
	slices.SortStableFunc(users, func(a, b User) int { return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.UID, b.UID)) })
	rows := make([][]any, len(users))
	for i := range users {
		if err := users[i].check(); err != nil {
			return err
		}
		rows[i] = userRow(&users[i])
	}
	if err := s.retry(ctx, func(ctx context.Context, c *conn) error { return putUsers(ctx, c, rows) }); err != nil {
		return fmt.Errorf("put users: %w", err)
	}
	return nil
}

func putUsers(ctx context.Context, c *conn, rows [][]any) error {
	t := &usersTable
	return c.insert(ctx, t.name, t.columns, rows, c.s.dialect.upsert(t.columns[:t.keys], t.columns[t.keys+1:]))
}

func userRow(u *User) []any {
	return []any{u.Tenant, u.UID, u.CreatedAtMs, u.Name, fold(u.Name), u.Avatar, bytesOrNull(u.Profile), u.Visibility, b2i(u.Disabled), u.UpdatedAtMs}
}

// ChangeUsers has change make new profiles of those that are there, or of empty ones with a tenant and a uid alone, and keeps them; nobody
// else changes them meanwhile. It returns them. change may be called several times for one user; its error is returned, and
// nothing is kept. uids are each there once.
func (s *Store) ChangeUsers(ctx context.Context, tenant string, uids []string, change func(*User) error) (map[string]User, error) {
	uids = slices.Sorted(slices.Values(uids))
	keys := make([][]any, len(uids))
	for i, uid := range uids {
		keys[i] = []any{tenant, uid}
	}
	var out map[string]User
	err := s.retry(ctx, func(ctx context.Context, c *conn) error {
		out = make(map[string]User, len(uids))
		if err := users(ctx, c, keys, s.dialect.forUpdate, out); err != nil {
			return err
		}
		var fresh, there [][]any
		for _, uid := range uids {
			u, ok := out[uid]
			if !ok {
				u = User{Tenant: tenant, UID: uid}
			}
			if err := change(&u); err != nil {
				return err
			}
			if err := u.check(); err != nil {
				return err
			}
			if out[uid] = u; ok {
				there = append(there, userRow(&u))
			} else {
				fresh = append(fresh, userRow(&u))
			}
		}
		// A clash is another one who made him first; it begins again.
		if err := usersTable.add(ctx, c, fresh); err != nil {
			return err
		}
		return putUsers(ctx, c, there)
	})
	if err != nil {
		return nil, fmt.Errorf("change users: %w", err)
	}
	return out, nil
}

func users(ctx context.Context, c *conn, keys [][]any, tail string, out map[string]User) error {
	return c.each(ctx, usersTable.selects(), "tenant = ? AND uid = ?", tail, keys, func(r *sql.Rows) error {
		var u User
		err := scanUser(r, &u)
		out[u.UID] = u
		return err
	})
}

func scanUser(r *sql.Rows, u *User) error {
	var folded []byte
	return r.Scan(&u.Tenant, &u.UID, &u.CreatedAtMs, &u.Name, &folded, &u.Avatar, &u.Profile, &u.Visibility, &u.Disabled, &u.UpdatedAtMs)
}

// Users returns the profiles of those of uids that have one, by uid.
func (s *Store) Users(ctx context.Context, tenant string, uids []string) (map[string]User, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	out := map[string]User{}
	keys := make([][]any, len(uids))
	for i, uid := range uids {
		keys[i] = []any{tenant, uid}
	}
	if err := users(ctx, s.reader(), keys, "", out); err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	return out, nil
}

// SearchUsers returns users whose uid or name begins with prefix: those found by uid first, then by name, each in order, at most
// limit. Case counts in uids, not in names. Disabled users aren't found. An empty prefix finds nobody.
func (s *Store) SearchUsers(ctx context.Context, tenant, prefix string, limit int) ([]User, error) {
	if prefix == "" || limit <= 0 {
		return nil, nil
	}
	ctx, cancel := s.reading(ctx)
	defer cancel()
	var out []User
	seen := map[string]bool{}
	for _, by := range []struct{ column, prefix string }{{"uid", prefix}, {"name_folded", fold(prefix)}} {
		text := usersTable.selects() + " WHERE tenant = ? AND " + by.column + " >= ? AND " + by.column + " < ? AND disabled = 0 ORDER BY " +
			by.column + ", uid LIMIT ?"
		if err := s.reader().query(ctx, func(r *sql.Rows) error {
			var u User
			if err := scanUser(r, &u); err != nil {
				return err
			}
			if !seen[u.UID] && len(out) < limit {
				seen[u.UID] = true
				out = append(out, u)
			}
			return nil
		}, text, tenant, by.prefix, by.prefix+"\xf4\x8f\xbf\xbf", limit); err != nil {
			return nil, fmt.Errorf("search users: %w", err)
		}
	}
	return out, nil
}

// Contacts returns what uid keeps of peers above after, in their order, at most limit.
func (s *Store) Contacts(ctx context.Context, tenant, uid, after string, limit int) ([]Contact, error) {
	return s.contacts(ctx, " WHERE tenant = ? AND uid = ? AND peer > ? ORDER BY peer LIMIT ?", tenant, uid, after, limit)
}

// Contact returns what uid keeps of peer; its State is 0 if there is nothing.
func (s *Store) Contact(ctx context.Context, tenant, uid, peer string) (Contact, error) {
	list, err := s.contacts(ctx, " WHERE tenant = ? AND uid = ? AND peer = ?", tenant, uid, peer)
	if err != nil || len(list) == 0 {
		return Contact{Peer: peer}, err
	}
	return list[0], nil
}

// ContactsAmong returns what uid keeps of those of peers of whom he keeps something, in no order.
func (s *Store) ContactsAmong(ctx context.Context, tenant, uid string, peers []string) ([]Contact, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	keys := make([][]any, len(peers))
	for i, peer := range peers {
		keys[i] = []any{tenant, uid, peer}
	}
	var out []Contact
	err := s.reader().each(ctx, contactsTable.selects(), "tenant = ? AND uid = ? AND peer = ?", "", keys, scanContacts(&out))
	if err != nil {
		return nil, fmt.Errorf("read contacts: %w", err)
	}
	return out, nil
}

func scanContacts(out *[]Contact) func(*sql.Rows) error {
	return func(r *sql.Rows) error {
		var tenant, uid string
		var c Contact
		if err := r.Scan(&tenant, &uid, &c.Peer, &c.State, &c.Remark, &c.Note, &c.ChangedAtMs); err != nil {
			return err
		}
		*out = append(*out, c)
		return nil
	}
}

func (s *Store) contacts(ctx context.Context, tail string, args ...any) ([]Contact, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	var out []Contact
	err := s.reader().query(ctx, scanContacts(&out), contactsTable.selects()+tail, args...)
	if err != nil {
		return nil, fmt.Errorf("read contacts: %w", err)
	}
	return out, nil
}

// Blocked reports whether uid blocks peer.
func (s *Store) Blocked(ctx context.Context, tenant, uid, peer string) (bool, error) {
	list, err := s.blocks(ctx, "SELECT peer FROM blocks WHERE tenant = ? AND uid = ? AND peer = ?", tenant, uid, peer)
	return len(list) > 0, err
}

// BlockedBy returns those of uids who block peer, in no order.
func (s *Store) BlockedBy(ctx context.Context, tenant string, uids []string, peer string) ([]string, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	keys := make([][]any, len(uids))
	for i, uid := range uids {
		keys[i] = []any{tenant, uid, peer}
	}
	var out []string
	err := s.reader().each(ctx, "SELECT uid FROM blocks", "tenant = ? AND uid = ? AND peer = ?", "", keys, func(r *sql.Rows) error {
		var uid string
		err := r.Scan(&uid)
		out = append(out, uid)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read blocks: %w", err)
	}
	return out, nil
}

// Blocks returns whom uid blocks: uids above after, in order, at most limit.
func (s *Store) Blocks(ctx context.Context, tenant, uid, after string, limit int) ([]string, error) {
	return s.blocks(ctx, "SELECT peer FROM blocks WHERE tenant = ? AND uid = ? AND peer > ? ORDER BY peer LIMIT ?", tenant, uid, after, limit)
}

func (s *Store) blocks(ctx context.Context, text string, args ...any) ([]string, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	out, err := s.reader().texts(ctx, text, args...)
	if err != nil {
		return nil, fmt.Errorf("read blocks: %w", err)
	}
	return out, nil
}

// texts returns the one column of all rows.
func (c *conn) texts(ctx context.Context, text string, args ...any) ([]string, error) {
	var out []string
	err := c.query(ctx, func(r *sql.Rows) error {
		var v string
		if err := r.Scan(&v); err != nil {
			return err
		}
		out = append(out, v)
		return nil
	}, text, args...)
	return out, err
}
