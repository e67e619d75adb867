package conversation

import (
	"context"
	"errors"
	"slices"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store"
	entry "github.com/halley-im/halley/store/conversation"
)

// groups is the name space of GroupID.
var groups = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://github.com/halley-im/halley/group"))

// GroupID returns the id of the group that sender makes under clientMsgID. It is made of them, and not of the time, so that a
// repeat makes no second group.
func GroupID(tenant, sender, clientMsgID string) string {
	return "g/" + uuid.NewSHA1(groups, topic.Join(tenant, sender, clientMsgID)).String()
}

// CreateGroup proposes a new group of sender, or of the system.
func (s *Service) CreateGroup(ctx context.Context, o Origin, tenant, sender, clientMsgID string, d entry.Detail) (Accepted, error) {
	return s.Propose(ctx, o, entry.Proposal{
		Tenant: tenant, Conversation: GroupID(tenant, sender, clientMsgID), Kind: entry.Created, Sender: sender, ClientMsgID: clientMsgID, Detail: d,
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
	at, err := s.after(ctx, tenant, store.ChangeGroupRequest, uid, requestObject(id, uid))
	if err != nil {
		return Accepted{}, err
	}
	changes, err := s.requestChanges(ctx, tenant, id, uid, requestValue{State: requestAsked, Note: note}, at)
	if err != nil {
		return Accepted{}, err
	}
	return s.change(ctx, id, changes...)
}

// AnswerGroup answers the request of uid to be added to a group, in the name of by, who must be its owner or an admin. Accepting proposes the
// new member too.
func (s *Service) AnswerGroup(ctx context.Context, o Origin, tenant, by, id, clientMsgID, uid string, accept bool) (Accepted, error) {
	if s.d.Store == nil {
		return Accepted{}, errNoStore
	}
	if err := errors.Join(checkGroup(id), name.UID(uid)); err != nil {
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
	old, err := s.d.Store.UserChangeOf(ctx, tenant, by, store.ChangeGroupRequest, requestObject(id, uid))
	if err != nil {
		return Accepted{}, storeError(err)
	}
	if old.Number == 0 {
		return Accepted{}, errcode.NotFound.Errorf("%s has not asked", uid)
	}
	state := requestDeclined
	var msgs []kafka.Message
	var accepted Accepted
	if accept {
		state = requestAccepted
		p := entry.Proposal{
			Tenant: tenant, Conversation: id, Kind: entry.Joined, Sender: by, ClientMsgID: clientMsgID, Detail: entry.Detail{Members: []string{uid}},
		}
		var msg kafka.Message
		if msg, accepted, err = s.check(ctx, o, &p); err != nil {
			return Accepted{}, err
		}
		msgs = append(msgs, msg)
	} else if err := s.admitUser(ctx, o, tenant, by); err != nil {
		return Accepted{}, err
	}
	changes, err := s.requestChanges(ctx, tenant, id, uid, requestValue{State: state}, max(s.d.Now().UnixMilli(), old.Guard+1))
	if err != nil {
		return Accepted{}, err
	}
	for i := range changes {
		msg, err := s.changeRecord(&changes[i])
		if err != nil {
			return Accepted{}, err
		}
		msgs = append(msgs, msg)
	}
	if !accept {
		accepted = Accepted{ID: uuid.NewString(), AcceptedAtMs: s.d.Now().UnixMilli(), Conversation: id}
	}
	return accepted, s.write(ctx, msgs...)
}

// requestChanges are the user changes that tell of a request's state.
func (s *Service) requestChanges(ctx context.Context, tenant, id, uid string, v requestValue, at int64) ([]store.UserChange, error) {
	admins, err := s.d.Store.Admins(ctx, tenant, id)
	if err != nil {
		return nil, storeError(err)
	}
	told := []string{uid}
	for _, m := range admins[:min(len(admins), mostAsked)] {
		told = append(told, m.UID)
	}
	changes := make([]store.UserChange, len(told))
	for i, to := range told {
		changes[i] = store.UserChange{
			Tenant: tenant, UID: to, Kind: store.ChangeGroupRequest, Object: requestObject(id, uid), Guard: at, AtMs: at, Value: jsonOf(v),
		}
	}
	return changes, nil
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
