package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/store/conversation"
)

// Kinds of user changes that the store itself knows. Others are the caller's to choose: the store keeps them as they are.
const (
	// ChangeConversation is about a user's list of conversations; the object is the conversation. Only PutListings writes it.
	ChangeConversation = "conversation"
	// ChangeContact is a contact; the object is the other uid. UserChange.Contact is kept with it.
	ChangeContact = "contact"
	// ChangeBlock is a block; the object is the other uid. UserChange.Blocked is kept with it.
	ChangeBlock = "block"
)

// Kinds of user changes that the store keeps as they are, with their values in JSON. The object is the conversation unless said otherwise.
const (
	// ChangeRead is the user's own read marker, for his other devices: {"read_seq": n, "read_msg_no": m}, of which m is the number of
	// messages up to n. It follows from a Marker that was accepted, as a list does from its entry.
	ChangeRead = "read"
	// ChangeMute keeps a conversation from notifying him, ChangePin keeps it at the top, ChangeHide off the list until its next
	// message: {"on": bool}.
	ChangeMute = "mute"
	ChangePin  = "pin"
	ChangeHide = "hide"
	// ChangeDraft is what he has typed and not sent: {"text": string}.
	ChangeDraft = "draft"
	// ChangeClear hides all entries up to one from him: {"seq": n}.
	ChangeClear = "clear"
	// ChangeDelete hides one message from him; the object is CONVERSATION/SEQ: {"on": true}.
	ChangeDelete = "delete"
	// ChangeGroupRequest is a request to be added to a group, as its owner, its admins and who asks have it; the object is
	// CONVERSATION/UID: {"state": asked, accepted or declined, "note": string}.
	ChangeGroupRequest = "group_request"
)

// Longest parts of a user change in bytes.
const (
	MaxChangeKind   = 32
	MaxChangeObject = 160
	MaxChangeValue  = 65535
)

// UserChange is what concerns one uid alone: the newest of its kind and object. Its number is the uid's next one, so that who
// knows all up to a number asks for those above it.
type UserChange struct {
	Tenant string
	UID    string
	Kind   string
	Object string
	// Number is given by the store.
	Number int64
	// Guard orders the changes of one object: one with a smaller guard than the stored one's is too late and changes nothing,
	// an equal one with an equal value is a repeat.
	Guard int64
	AtMs  int64
	Value []byte
	// Contact is kept as a contact's row of UID with Object; for ChangeContact. State 0 removes it.
	Contact *Contact
	// Blocked is whether UID blocks Object; for ChangeBlock.
	Blocked bool

	listing *Listing
}

// ChangeOutcome is what became of a user change.
type ChangeOutcome struct {
	// Code is why it was rejected; nil: it is kept, or nothing had to be done.
	Code   *errcode.Code
	Reason string
	// Number is that of the object's newest change, this one or another.
	Number int64
	// Applied is whether this one changed something: false for a repeat and for what came too late.
	Applied bool
	// Repeated is whether the object's newest change is an equal one: whoever kept it may have died before he told of it.
	Repeated bool
}

// Listing is a conversation's place in the list of one uid.
type Listing struct {
	Tenant       string
	UID          string
	Conversation string
	// Role None takes it off the list.
	Role      conversation.Role
	JoinedSeq int64
	// ChangedSeq is the entry that it follows from: an older one can't undo a newer one.
	ChangedSeq int64
}

// PutListings brings the lists by uid up to date, after the commit of the entries that they follow from. Repeats and what is
// older than the list change nothing. Each change is a user change of kind ChangeConversation too, whose outcome is returned.
func (s *Store) PutListings(ctx context.Context, ls []Listing) ([]ChangeOutcome, error) {
	changes := make([]UserChange, len(ls))
	for i := range ls {
		l := &ls[i]
		value, err := json.Marshal(struct {
			Role      conversation.Role `json:"role"`
			JoinedSeq int64             `json:"joined_seq"`
		}{l.Role, l.JoinedSeq})
		if err != nil {
			return nil, err
		}
		changes[i] = UserChange{Tenant: l.Tenant, UID: l.UID, Kind: ChangeConversation, Object: l.Conversation, Guard: l.ChangedSeq, Value: value, listing: l}
	}
	return s.putChanges(ctx, changes)
}

// PutUserChanges keeps user changes in their order, in one transaction, and returns an outcome for each. An error is the
// database's own: the caller repeats the batch, which does no harm.
func (s *Store) PutUserChanges(ctx context.Context, changes []UserChange) ([]ChangeOutcome, error) {
	return s.putChanges(ctx, changes)
}

// check reports what is wrong with a change by itself. What passes, the tables take.
func (u *UserChange) check() error {
	if err := name.Tenant(u.Tenant); err != nil {
		return err
	}
	if err := name.UID(u.UID); err != nil {
		return err
	}
	if len(u.Kind) == 0 || len(u.Kind) > MaxChangeKind || len(u.Object) > MaxChangeObject || len(u.Value) > MaxChangeValue {
		return errcode.InvalidRequest.Errorf("change: kind, object or value is too long")
	}
	switch u.Kind {
	case ChangeConversation:
		if u.listing == nil {
			return errcode.Forbidden
		}
	case ChangeContact, ChangeBlock:
		if err := name.UID(u.Object); err != nil {
			return err
		}
		if u.Contact != nil {
			return u.Contact.check()
		}
	}
	return nil
}

// supersedes reports whether a change takes the place of the stored one.
func (u *UserChange) supersedes(old *UserChange) bool {
	return u.Guard > old.Guard || u.Guard == old.Guard && !bytes.Equal(u.Value, old.Value)
}

type uidKey struct{ tenant, uid string }

func (k uidKey) compare(o uidKey) int {
	return cmp.Or(cmp.Compare(k.tenant, o.tenant), cmp.Compare(k.uid, o.uid))
}

type changeKey struct {
	uidKey
	kind, object string
}

var (
	userNumbersTable = table{"user_numbers", []string{"tenant", "uid", "last_number"}, 2}
	userChangesTable = table{"user_changes", []string{"tenant", "uid", "kind", "object", "number", "guard", "changed_at", "value"}, 4}
	listingsTable    = table{"user_conversations", []string{"tenant", "uid", "conversation", "role", "joined_seq", "changed_seq"}, 3}
)

func (s *Store) putChanges(ctx context.Context, changes []UserChange) ([]ChangeOutcome, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	var out []ChangeOutcome
	err := s.retry(ctx, func(ctx context.Context, c *conn) error {
		out = make([]ChangeOutcome, len(changes))
		return writeChanges(ctx, c, changes, out)
	})
	if err != nil {
		return nil, fmt.Errorf("user changes: %w", err)
	}
	return out, nil
}

func writeChanges(ctx context.Context, c *conn, changes []UserChange, out []ChangeOutcome) error {
	newest := map[changeKey]*UserChange{}
	var uids []uidKey
	var keys [][]any
	for i := range changes {
		u := &changes[i]
		if err := u.check(); err != nil {
			e := errcode.From(err)
			out[i] = ChangeOutcome{Code: e.Code, Reason: e.Detail}
			continue
		}
		k := changeKey{uidKey{u.Tenant, u.UID}, u.Kind, u.Object}
		if _, ok := newest[k]; !ok {
			newest[k] = nil
			uids = append(uids, k.uidKey)
			keys = append(keys, []any{k.tenant, k.uid, k.kind, k.object})
		}
	}
	slices.SortFunc(uids, uidKey.compare)
	numbers, err := lockNumbers(ctx, c, slices.Compact(uids))
	if err != nil {
		return err
	}
	err = c.each(ctx, userChangesTable.selects(), "tenant = ? AND uid = ? AND kind = ? AND object = ?", "", keys, func(r *sql.Rows) error {
		var u UserChange
		if err := scanChange(r, &u); err != nil {
			return err
		}
		newest[changeKey{uidKey{u.Tenant, u.UID}, u.Kind, u.Object}] = &u
		return nil
	})
	if err != nil {
		return err
	}
	applied := map[changeKey]*UserChange{}
	raised := map[uidKey]bool{}
	for i := range changes {
		if out[i].Code != nil {
			continue
		}
		u := changes[i]
		k := changeKey{uidKey{u.Tenant, u.UID}, u.Kind, u.Object}
		if old := newest[k]; old != nil && !u.supersedes(old) {
			out[i].Number, out[i].Repeated = old.Number, u.Guard == old.Guard
			continue
		}
		numbers[k.uidKey]++
		raised[k.uidKey] = true
		u.Number = numbers[k.uidKey]
		newest[k], applied[k] = &u, &u
		out[i] = ChangeOutcome{Number: u.Number, Applied: true}
	}
	var rows [][]any
	for _, u := range applied {
		rows = append(rows, []any{u.Tenant, u.UID, u.Kind, u.Object, u.Number, u.Guard, u.AtMs, bytesOrNull(u.Value)})
	}
	if err := userChangesTable.put(ctx, c, rows); err != nil {
		return err
	}
	rows = nil
	for k := range raised {
		rows = append(rows, []any{k.tenant, k.uid, numbers[k]})
	}
	if err := userNumbersTable.put(ctx, c, rows); err != nil {
		return err
	}
	return writeKept(ctx, c, applied)
}

// lockNumbers reads and locks the numbers of these uids, which are in order.
func lockNumbers(ctx context.Context, c *conn, uids []uidKey) (map[uidKey]int64, error) {
	numbers := map[uidKey]int64{}
	read := func(keys []uidKey) error {
		args := make([][]any, len(keys))
		for i, k := range keys {
			args[i] = []any{k.tenant, k.uid}
		}
		return c.each(ctx, userNumbersTable.selects(), "tenant = ? AND uid = ?", c.s.dialect.forUpdate, args, func(r *sql.Rows) error {
			var k uidKey
			var n int64
			if err := r.Scan(&k.tenant, &k.uid, &n); err != nil {
				return err
			}
			numbers[k] = n
			return nil
		})
	}
	if err := read(uids); err != nil {
		return nil, err
	}
	var fresh [][]any
	for _, k := range uids {
		if _, ok := numbers[k]; !ok {
			fresh = append(fresh, []any{k.tenant, k.uid, 0})
			numbers[k] = 0
		}
	}
	// A clash is another writer who was faster; the transaction begins again.
	return numbers, userNumbersTable.add(ctx, c, fresh)
}

// writeKept writes the rows that are kept beside the numbered list, to be asked in other ways.
func writeKept(ctx context.Context, c *conn, applied map[changeKey]*UserChange) error {
	var listings, contacts, blocks [][]any
	for _, u := range applied {
		var gone string
		switch {
		case u.Kind == ChangeConversation:
			l := u.listing
			listings = append(listings, []any{l.Tenant, l.UID, l.Conversation, l.Role, l.JoinedSeq, l.ChangedSeq})
		case u.Kind == ChangeContact && u.Contact != nil:
			if u.Contact.State == 0 {
				gone = "contacts"
				break
			}
			contacts = append(contacts, []any{u.Tenant, u.UID, u.Object, u.Contact.State, u.Contact.Remark, u.Contact.Note, u.AtMs})
		case u.Kind == ChangeBlock && u.Blocked:
			blocks = append(blocks, []any{u.Tenant, u.UID, u.Object, u.AtMs})
		case u.Kind == ChangeBlock:
			gone = "blocks"
		}
		if gone != "" {
			if _, err := c.exec(ctx, "DELETE FROM "+gone+" WHERE tenant = ? AND uid = ? AND peer = ?", u.Tenant, u.UID, u.Object); err != nil {
				return err
			}
		}
	}
	if err := listingsTable.put(ctx, c, listings); err != nil {
		return err
	}
	if err := contactsTable.put(ctx, c, contacts); err != nil {
		return err
	}
	return blocksTable.put(ctx, c, blocks)
}

func scanChange(r *sql.Rows, u *UserChange) error {
	return r.Scan(&u.Tenant, &u.UID, &u.Kind, &u.Object, &u.Number, &u.Guard, &u.AtMs, &u.Value)
}

// UserChangesSince returns uid's changes with a number above after, in the order of their numbers, at most limit.
func (s *Store) UserChangesSince(ctx context.Context, tenant, uid string, after int64, limit int) ([]UserChange, error) {
	return s.userChanges(ctx, " WHERE tenant = ? AND uid = ? AND number > ? ORDER BY number LIMIT ?", tenant, uid, after, limit)
}

// UserChangesOf returns uid's changes of one kind with an object above after, in the order of their objects, at most limit.
func (s *Store) UserChangesOf(ctx context.Context, tenant, uid, kind, after string, limit int) ([]UserChange, error) {
	return s.userChanges(ctx, " WHERE tenant = ? AND uid = ? AND kind = ? AND object > ? ORDER BY object LIMIT ?", tenant, uid, kind, after, limit)
}

// UserChangeOf returns uid's newest change of one kind and object; its Number is 0 if there is none.
func (s *Store) UserChangeOf(ctx context.Context, tenant, uid, kind, object string) (UserChange, error) {
	list, err := s.userChanges(ctx, " WHERE tenant = ? AND uid = ? AND kind = ? AND object = ?", tenant, uid, kind, object)
	if err != nil || len(list) == 0 {
		return UserChange{}, err
	}
	return list[0], nil
}

// Muters returns those of uids who have muted a conversation.
func (s *Store) Muters(ctx context.Context, tenant, id string, uids []string) (map[string]bool, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	keys := make([][]any, len(uids))
	for i, uid := range uids {
		keys[i] = []any{tenant, uid, ChangeMute, id}
	}
	out := map[string]bool{}
	err := s.reader().each(ctx, userChangesTable.selects(), "tenant = ? AND uid = ? AND kind = ? AND object = ?", "", keys, func(r *sql.Rows) error {
		var u UserChange
		if err := scanChange(r, &u); err != nil {
			return err
		}
		var v struct{ On bool }
		if json.Unmarshal(u.Value, &v) == nil && v.On {
			out[u.UID] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read who has muted: %w", err)
	}
	return out, nil
}

func (s *Store) userChanges(ctx context.Context, tail string, args ...any) ([]UserChange, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	var out []UserChange
	err := s.reader().query(ctx, func(r *sql.Rows) error {
		var u UserChange
		if err := scanChange(r, &u); err != nil {
			return err
		}
		out = append(out, u)
		return nil
	}, userChangesTable.selects()+tail, args...)
	if err != nil {
		return nil, fmt.Errorf("read user changes: %w", err)
	}
	return out, nil
}

// LastUserChange returns the number of uid's newest change; 0: there is none.
func (s *Store) LastUserChange(ctx context.Context, tenant, uid string) (int64, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	return lastNumber(ctx, s.reader(), tenant, uid)
}

func lastNumber(ctx context.Context, c *conn, tenant, uid string) (int64, error) {
	var n int64
	err := c.query(ctx, func(r *sql.Rows) error { return r.Scan(&n) },
		"SELECT last_number FROM user_numbers WHERE tenant = ? AND uid = ?", tenant, uid)
	if err != nil {
		return 0, fmt.Errorf("read last user change: %w", err)
	}
	return n, nil
}
