package conversation

import (
	"context"
	"encoding/json"
	"slices"
	"unicode/utf8"

	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/store"
)

// What clients call visibilities and states of contacts.
var (
	visibilities = map[store.Visibility]string{store.VisibleToContacts: "contacts", store.VisibleToAll: "all", store.VisibleToNobody: "nobody"}
	states       = map[store.ContactState]string{
		0: "none", store.ContactRequested: "requested", store.ContactAsked: "asked", store.ContactAccepted: "accepted",
	}
)

func parseVisibility(text string) (store.Visibility, error) {
	for v, t := range visibilities {
		if t == text {
			return v, nil
		}
	}
	return 0, errcode.InvalidRequest.Errorf("visibility: contacts, all or nobody")
}

func userView(u *store.User, private bool) User {
	v := User{UID: u.UID, Name: u.Name, Avatar: u.Avatar, Profile: u.Profile}
	if private {
		v.Visibility, v.Disabled = visibilities[u.Visibility], u.Disabled
	}
	return v
}

const (
	// MostUsers is how many profiles one question may ask for.
	MostUsers  = 200
	mostFound  = 50
	foundPage  = 20
	maxProfile = 65535
	maxQuery   = 255
)

// Users returns the profiles of those of uids that have one, in the order of uids. by asks, and sees more of his own; empty: a backend,
// which sees all of all.
func (s *Service) Users(ctx context.Context, tenant, by string, uids []string) (*Users, error) {
	if s.d.Store == nil {
		return nil, errNoStore
	}
	if len(uids) == 0 || len(uids) > MostUsers {
		return nil, errcode.InvalidRequest.Errorf("uids: 1 to %d", MostUsers)
	}
	for _, uid := range uids {
		if err := name.UID(uid); err != nil {
			return nil, err
		}
	}
	found, err := s.d.Store.Users(ctx, tenant, uids)
	if err != nil {
		return nil, storeError(err)
	}
	out := &Users{Users: []User{}}
	for _, uid := range uids {
		if u, ok := found[uid]; ok {
			out.Users = append(out.Users, userView(&u, by == "" || by == uid))
			delete(found, uid)
		}
	}
	return out, nil
}

// Enabled returns errcode.Forbidden for a user who is disabled. Whoever has no profile is not; and while the database doesn't answer
// nobody is: his tokens were made void when he was.
func (s *Service) Enabled(ctx context.Context, tenant, uid string) error {
	if s.d.Store == nil || name.UID(uid) != nil {
		return nil
	}
	found, err := s.d.Store.Users(ctx, tenant, []string{uid})
	if err != nil {
		s.d.Log.DebugContext(ctx, "not known whether a user is disabled", "err", err)
		return nil
	}
	if found[uid].Disabled {
		return errcode.Forbidden.Errorf("the user is disabled")
	}
	return nil
}

// Search returns users whose uid or name begins with query.
func (s *Service) Search(ctx context.Context, tenant, by, query string, limit uint32) (*Users, error) {
	if s.d.Store == nil {
		return nil, errNoStore
	}
	if query == "" || len(query) > maxQuery || !utf8.ValidString(query) {
		return nil, errcode.InvalidRequest.Errorf("query: 1 to %d bytes", maxQuery)
	}
	if limit > mostFound {
		return nil, errcode.InvalidRequest.Errorf("limit: at most %d", mostFound)
	}
	if limit == 0 {
		limit = foundPage
	}
	list, err := s.d.Store.SearchUsers(ctx, tenant, query, int(limit))
	if err != nil {
		return nil, storeError(err)
	}
	out := &Users{Users: make([]User, len(list))}
	for i := range list {
		out.Users[i] = userView(&list[i], by == "" || by == list[i].UID)
	}
	return out, nil
}

// UserUpdate sets what is given of a profile; nil leaves it.
type UserUpdate struct {
	UID                      string
	Name, Avatar, Visibility *string
	Profile                  json.RawMessage
	Disabled                 *bool
}

// UpdateUsers sets profiles, and makes those that aren't there. New users are visible to contacts.
func (s *Service) UpdateUsers(ctx context.Context, tenant string, updates []UserUpdate) (*Users, error) {
	if s.d.Store == nil {
		return nil, errNoStore
	}
	// By user, in the order in which they are named first.
	var uids []string
	of := map[string][]*UserUpdate{}
	for i := range updates {
		v := &updates[i]
		if err := v.check(); err != nil {
			return nil, err
		}
		if of[v.UID] == nil {
			uids = append(uids, v.UID)
		}
		of[v.UID] = append(of[v.UID], v)
	}
	at := s.d.Now().UnixMilli()
	// Not read and then written: of two who change different parts of a profile none undoes what the other did, a ban above all.
	changed, err := s.d.Store.ChangeUsers(ctx, tenant, uids, func(u *store.User) error {
		if u.CreatedAtMs == 0 {
			u.CreatedAtMs = at
		}
		u.UpdatedAtMs = at
		for _, v := range of[u.UID] {
			v.apply(u)
		}
		return nil
	})
	if err != nil {
		return nil, storeError(err)
	}
	out := &Users{Users: make([]User, len(uids))}
	for i, uid := range uids {
		u := changed[uid]
		out.Users[i] = userView(&u, true)
	}
	for _, uid := range uids {
		u := changed[uid]
		chose := slices.ContainsFunc(of[uid], func(v *UserUpdate) bool { return v.Visibility != nil })
		// Whatever was chosen before: who repeats a call that failed here must be hidden, too.
		if chose && u.Visibility != store.VisibleToAll {
			if err := s.hide(ctx, &u); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// UpdateOwn is a user's own change of his profile; errcode.Forbidden if that is the host's.
func (s *Service) UpdateOwn(ctx context.Context, tenant string, v UserUpdate) (*User, error) {
	if s.cfg.HostProfiles && (v.Name != nil || v.Avatar != nil) {
		return nil, errcode.Forbidden.Errorf("names and pictures are set by the host")
	}
	list, err := s.UpdateUsers(ctx, tenant, []UserUpdate{v})
	if err != nil {
		return nil, err
	}
	u := list.Users[0]
	// That is between the host and him.
	u.Disabled = false
	return &u, nil
}

func (v *UserUpdate) check() error {
	if err := name.UID(v.UID); err != nil {
		return err
	}
	if v.Visibility != nil {
		if _, err := parseVisibility(*v.Visibility); err != nil {
			return err
		}
	}
	if len(v.Profile) > maxProfile || v.Profile != nil && !(json.Valid(v.Profile) && utf8.Valid(v.Profile)) {
		return errcode.InvalidRequest.Errorf("profile: JSON, at most %d bytes", maxProfile)
	}
	return nil
}

// apply changes u; v was checked.
func (v *UserUpdate) apply(u *store.User) {
	set(&u.Name, v.Name)
	set(&u.Avatar, v.Avatar)
	set(&u.Disabled, v.Disabled)
	if v.Visibility != nil {
		u.Visibility, _ = parseVisibility(*v.Visibility)
	}
	if v.Profile != nil {
		if u.Profile = v.Profile; string(v.Profile) == "null" {
			u.Profile = nil
		}
	}
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// Contacts returns a page of what uid keeps of others.
func (s *Service) Contacts(ctx context.Context, tenant, uid, cursor string, limit uint32) (*ContactPage, error) {
	n, err := s.peoplePage(cursor, limit)
	if err != nil {
		return nil, err
	}
	list, err := s.d.Store.Contacts(ctx, tenant, uid, cursor, n+1)
	if err != nil {
		return nil, storeError(err)
	}
	page := &ContactPage{Contacts: []Contact{}}
	if len(list) > n {
		list = list[:n]
		page.Next = list[n-1].Peer
	}
	for _, c := range list {
		page.Contacts = append(page.Contacts, Contact{UID: c.Peer, State: states[c.State], Remark: c.Remark, Note: c.Note, ChangedAt: c.ChangedAtMs})
	}
	return page, nil
}

func (s *Service) peoplePage(cursor string, limit uint32) (int, error) {
	if s.d.Store == nil {
		return 0, errNoStore
	}
	if err := checkAfter(cursor); err != nil {
		return 0, err
	}
	return pageSize(limit, defaultMember)
}

// Blocks returns a page of whom uid blocks.
func (s *Service) Blocks(ctx context.Context, tenant, uid, cursor string, limit uint32) (*UIDs, error) {
	n, err := s.peoplePage(cursor, limit)
	if err != nil {
		return nil, err
	}
	list, err := s.d.Store.Blocks(ctx, tenant, uid, cursor, n+1)
	if err != nil {
		return nil, storeError(err)
	}
	return pageOf(list, n), nil
}

// Block has uid take nothing from peer any more, or with off again.
func (s *Service) Block(ctx context.Context, o Origin, tenant, uid, peer string, off bool) (Accepted, error) {
	if err := s.pair(ctx, o, tenant, uid, peer); err != nil {
		return Accepted{}, err
	}
	at, err := s.after(ctx, tenant, store.ChangeBlock, uid, peer)
	if err != nil {
		return Accepted{}, err
	}
	accepted, err := s.change(ctx, "", store.UserChange{
		Tenant: tenant, UID: uid, Kind: store.ChangeBlock, Object: peer, Guard: at, AtMs: at, Value: jsonOf(onValue{!off}), Blocked: !off,
	})
	if err != nil || off || s.d.Push == nil {
		return accepted, err
	}
	return accepted, s.endWatches(ctx, tenant, push.UIDTarget(peer), nil, uid)
}

// pair lets in who changes something between him and another one.
func (s *Service) pair(ctx context.Context, o Origin, tenant, uid, peer string) error {
	if s.d.Store == nil {
		return errNoStore
	}
	if err := name.UID(uid); err != nil {
		return err
	}
	if err := name.UID(peer); err != nil {
		return err
	}
	if uid == peer {
		return errcode.InvalidRequest.Errorf("uid: somebody else's")
	}
	return s.admitUser(ctx, o, tenant, uid)
}

// after returns a time that is after the newest change of an object: clocks of those who write differ, and what follows from the state
// as it is must not be taken for older.
func (s *Service) after(ctx context.Context, tenant, kind, uid, object string) (int64, error) {
	old, err := s.d.Store.UserChangeOf(ctx, tenant, uid, kind, object)
	if err != nil {
		return 0, storeError(err)
	}
	return max(s.d.Now().UnixMilli(), old.Guard+1), nil
}

// ContactAct is what is done to a contact.
type ContactAct int

// Acts.
const (
	// ContactAsk asks; it accepts if the other one has asked.
	ContactAsk ContactAct = iota
	ContactAccept
	ContactDecline
	// ContactRemark changes uid's own name for him.
	ContactRemark
	// ContactRemove ends it for both.
	ContactRemove
	// ContactJoin makes them contacts without asking; for backends.
	ContactJoin
)

// Contact changes what uid and peer are to each other. Both sides are written with one wait for Kafka; who gets errcode.Unknown
// repeats the call, which writes both again.
func (s *Service) Contact(ctx context.Context, o Origin, tenant, uid, peer string, act ContactAct, remark, note string) (Accepted, error) {
	if err := s.pair(ctx, o, tenant, uid, peer); err != nil {
		return Accepted{}, err
	}
	if len(remark) > 255 || len(note) > maxNote || !utf8.ValidString(remark) || !utf8.ValidString(note) {
		return Accepted{}, errcode.InvalidRequest.Errorf("remark: at most 255 bytes, note at most %d", maxNote)
	}
	mine, err := s.d.Store.Contact(ctx, tenant, uid, peer)
	if err != nil {
		return Accepted{}, storeError(err)
	}
	theirs, err := s.d.Store.Contact(ctx, tenant, peer, uid)
	if err != nil {
		return Accepted{}, storeError(err)
	}
	if act == ContactAsk {
		if err := s.unblocked(ctx, tenant, uid, peer); err != nil {
			return Accepted{}, err
		}
	}
	at, err := s.after(ctx, tenant, store.ChangeContact, uid, peer)
	if err != nil {
		return Accepted{}, err
	}
	back, err := s.after(ctx, tenant, store.ChangeContact, peer, uid)
	if err != nil {
		return Accepted{}, err
	}
	at = max(at, back)
	both, err := act.apply(&mine, &theirs, remark, note)
	if err != nil {
		return Accepted{}, err
	}
	changes := []store.UserChange{contactChange(tenant, uid, peer, mine, at)}
	if both {
		changes = append(changes, contactChange(tenant, peer, uid, theirs, at))
	}
	done, err := s.change(ctx, "", changes...)
	if err == nil && act == ContactRemove {
		err = s.part(ctx, tenant, uid, peer)
	}
	return done, err
}

// apply changes both sides; both is whether the other one's has to be written.
func (act ContactAct) apply(mine, theirs *store.Contact, remark, note string) (both bool, err error) {
	befriend := func() {
		mine.State, theirs.State = store.ContactAccepted, store.ContactAccepted
		if remark != "" {
			mine.Remark = remark
		}
	}
	switch act {
	case ContactAsk:
		switch mine.State {
		case store.ContactAsked, store.ContactAccepted:
			befriend()
		default:
			*mine = store.Contact{State: store.ContactRequested, Remark: remark, Note: note}
			*theirs = store.Contact{State: store.ContactAsked, Remark: theirs.Remark, Note: note}
		}
	case ContactAccept, ContactDecline:
		if mine.State != store.ContactAsked {
			return false, errcode.NotFound.Errorf("he has not asked")
		}
		if befriend(); act == ContactDecline {
			*mine, *theirs = store.Contact{}, store.Contact{}
		}
	case ContactRemark:
		if mine.State == 0 {
			return false, errcode.NotFound.Errorf("no such contact")
		}
		mine.Remark = remark
		return false, nil
	case ContactRemove:
		*mine, *theirs = store.Contact{}, store.Contact{}
	case ContactJoin:
		befriend()
	}
	return true, nil
}

type contactValue struct {
	State  string `json:"state"`
	Remark string `json:"remark,omitempty"`
	Note   string `json:"note,omitempty"`
}

func contactChange(tenant, uid, peer string, c store.Contact, at int64) store.UserChange {
	c.Peer = peer
	return store.UserChange{
		Tenant: tenant, UID: uid, Kind: store.ChangeContact, Object: peer, Guard: at, AtMs: at, Contact: &c,
		Value: jsonOf(contactValue{states[c.State], c.Remark, c.Note}),
	}
}
