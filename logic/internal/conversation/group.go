package conversation

import (
	"context"
	"errors"
	"slices"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/store"
	entry "github.com/halley-im/halley/store/conversation"
)

// CreateGroup proposes a new group of sender, or of the system.
func (s *Service) CreateGroup(ctx context.Context, o Origin, tenant, sender, clientMsgID string, d entry.Detail) (Accepted, error) {
	return s.Propose(ctx, o, entry.Proposal{
		Tenant: tenant, Conversation: entry.GroupID(tenant, sender, clientMsgID), Kind: entry.Created, Sender: sender, ClientMsgID: clientMsgID, Detail: d,
	})
}

// Requests to be added to a group. They are user changes of owner, admins and who asks: nothing of the conversation's, since
// others don't see them.
const (
	requestAsked    = "asked"
	requestAccepted = "accepted"
	requestDeclined = "declined"

	maxNote = 1024
	// mostAsked is how many of owner and admins get a request, the owner first.
	mostAsked = 50
)

type requestValue struct {
	State string `json:"state"`
	Note  string `json:"note,omitempty"`
}

// AskGroup asks owner and admins of a group to add uid.
func (s *Service) AskGroup(ctx context.Context, o Origin, tenant, uid, id, note string) (Accepted, error) {
	if s.d.Store == nil {
		return Accepted{}, errNoStore
	}
	if err := s.admitUser(ctx, o, tenant, uid); err != nil {
		return Accepted{}, err
	}
	if len(note) > maxNote || !utf8.ValidString(note) {
		return Accepted{}, errcode.InvalidRequest.Errorf("note: at most %d bytes", maxNote)
	}
	if err := checkGroup(id); err != nil {
		return Accepted{}, err
	}
	c, m, err := s.d.Store.Membership(ctx, tenant, id, uid)
	switch {
	case err != nil:
		return Accepted{}, storeError(err)
	case c.Dissolved:
		return Accepted{}, errcode.Dissolved
	case m.Role != entry.None:
		return Accepted{}, errcode.AlreadyMember
	}
	told, err := s.approachable(ctx, tenant, id, uid)
	if err != nil {
		return Accepted{}, err
	}
	at, err := s.after(ctx, tenant, store.ChangeGroupRequest, uid, requestObject(id, uid))
	if err != nil {
		return Accepted{}, err
	}
	return s.change(ctx, id, requestChanges(tenant, id, uid, told, requestValue{State: requestAsked, Note: note}, at)...)
}

// approachable returns owner and admins of a group whom uid may ask: those who block him aren't told.
func (s *Service) approachable(ctx context.Context, tenant, id, uid string) ([]string, error) {
	admins, err := s.admins(ctx, tenant, id)
	if err != nil || len(admins) == 0 {
		return nil, err
	}
	blocked, err := s.d.Store.BlockedBy(ctx, tenant, admins, uid)
	if err != nil {
		return nil, storeError(err)
	}
	if admins = slices.DeleteFunc(admins, func(a string) bool { return slices.Contains(blocked, a) }); len(admins) == 0 {
		return nil, errcode.Blocked.Errorf("nobody of those who could answer takes requests from this user")
	}
	return admins, nil
}

// AnswerGroup answers the request of uid to be added to a group, in the name of by, who must be its owner or an admin. Accepting adds
// the new member: the request is accepted when he is one, and stays as it is where job refuses to make him one. errcode.Unknown says
// that this isn't known in time: the caller repeats it under the same clientMsgID.
func (s *Service) AnswerGroup(ctx context.Context, o Origin, tenant, by, id, clientMsgID, uid string, accept bool) (Accepted, error) {
	if s.d.Store == nil {
		return Accepted{}, errNoStore
	}
	if err := errors.Join(checkGroup(id), name.UID(uid)); err != nil {
		return Accepted{}, err
	}
	if err := s.admitUser(ctx, o, tenant, by); err != nil {
		return Accepted{}, err
	}
	// Not by the cache, which knows nothing of requests.
	_, m, err := s.d.Store.Membership(ctx, tenant, id, by)
	switch {
	case err != nil:
		return Accepted{}, storeError(err)
	case m.Role == entry.None:
		return Accepted{}, errcode.NotMember
	case m.Role < entry.Admin:
		return Accepted{}, errcode.Forbidden.Errorf("only owner and admins answer")
	}
	// As who asks has it: owner and admins may be others by now than those who were told.
	old, err := s.d.Store.UserChangeOf(ctx, tenant, uid, store.ChangeGroupRequest, requestObject(id, uid))
	if err != nil {
		return Accepted{}, storeError(err)
	}
	if old.Number == 0 {
		return Accepted{}, errcode.NotFound.Errorf("%s has not asked", uid)
	}
	accepted := Accepted{ID: uuid.NewString(), AcceptedAtMs: s.d.Now().UnixMilli(), Conversation: id}
	state := requestDeclined
	if accept {
		state = requestAccepted
		// He was counted.
		o.Backend = true
		accepted, err = s.addAsked(ctx, o, entry.Proposal{
			Tenant: tenant, Conversation: id, Kind: entry.Joined, Sender: by, ClientMsgID: clientMsgID, Detail: entry.Detail{Members: []string{uid}},
		})
	} else {
		err = s.notIn(ctx, tenant, id, uid)
	}
	if err != nil {
		return Accepted{}, err
	}
	told, err := s.admins(ctx, tenant, id)
	if err != nil {
		return Accepted{}, err
	}
	_, err = s.change(ctx, id, requestChanges(tenant, id, uid, told, requestValue{State: state}, max(s.d.Now().UnixMilli(), old.Guard+1))...)
	return accepted, err
}

// addAsked proposes to add somebody who asked for it, and returns when he is a member.
func (s *Service) addAsked(ctx context.Context, o Origin, p entry.Proposal) (Accepted, error) {
	o.Wait = s.d.Redis != nil
	a, err := s.Propose(ctx, o, p)
	if err != nil || !o.Wait {
		return a, err
	}
	switch out := s.Outcomes(ctx, []string{a.ID})[0]; {
	case errors.Is(out.Err, errcode.AlreadyMember):
		// Another one's answer was faster, or this one's was lost on its way to him.
		return a, nil
	case out.Known:
		return a, out.Err
	}
	// Redis may be what is away.
	_, m, err := s.d.Store.Membership(ctx, p.Tenant, p.Conversation, p.Detail.Members[0])
	if err == nil && m.Role != entry.None {
		return a, nil
	}
	return Accepted{}, errcode.Unknown.Errorf("not known to be done: repeat it with the same client_msg_id")
}

// notIn refuses to decline the request of who is a member already.
func (s *Service) notIn(ctx context.Context, tenant, id, uid string) error {
	_, m, err := s.d.Store.Membership(ctx, tenant, id, uid)
	switch {
	case err != nil:
		return storeError(err)
	case m.Role != entry.None:
		return errcode.AlreadyMember
	}
	return nil
}

// admins returns owner and admins of a group, the owner first: at most mostAsked.
func (s *Service) admins(ctx context.Context, tenant, id string) ([]string, error) {
	list, err := s.d.Store.Admins(ctx, tenant, id, mostAsked)
	uids := make([]string, len(list))
	for i := range list {
		uids[i] = list[i].UID
	}
	return uids, storeError(err)
}

// requestChanges are the user changes that tell uid and others of his request's state.
func requestChanges(tenant, id, uid string, others []string, v requestValue, at int64) []store.UserChange {
	changes := make([]store.UserChange, 0, len(others)+1)
	for _, to := range append([]string{uid}, others...) {
		if to == uid && len(changes) > 0 {
			continue
		}
		changes = append(changes, store.UserChange{
			Tenant: tenant, UID: to, Kind: store.ChangeGroupRequest, Object: requestObject(id, uid), Guard: at, AtMs: at, Value: jsonOf(v),
		})
	}
	return changes
}

func requestObject(id, uid string) string { return id + "/" + uid }

func checkGroup(id string) error {
	if err := entry.CheckID(id); err != nil {
		return err
	}
	if entry.TypeOf(id) != entry.Group {
		return errcode.Forbidden.Errorf("only groups have that")
	}
	return nil
}

// peersOf returns the other parties of a conversation whose id names them.
func peersOf(id, uid string) []string {
	return slices.DeleteFunc(entry.Parties(id), func(p string) bool { return p == uid })
}
