// Package wire turns what is stored into what clients are told, and records of halley.chat into what the store takes: the one
// place for both, since job tells of an entry when it is stored and logic when it is asked for, and a client must not see a
// difference.
//
// What clients are told has two forms. The functions that return messages of halleyv1 are for who works with those; they take
// a body apart into a google.protobuf.Value. The JSON structs write the same without protojson, at a tenth of its cost, and
// leave a body as it was sent, large numbers and order of keys included. A test holds both against each other.
package wire

import (
	"cmp"
	"encoding/json"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

var kinds = map[conversation.Kind]string{
	conversation.Message: "message", conversation.Edit: "edit", conversation.Recall: "recall", conversation.Reaction: "reaction",
	conversation.Pin: "pin", conversation.Created: "created", conversation.Joined: "joined", conversation.Left: "left",
	conversation.Removed: "removed", conversation.RoleChanged: "role", conversation.Muted: "muted", conversation.InfoChanged: "info",
	conversation.Dissolved: "dissolved",
}

// Kind returns what clients call a kind of entries; "" for what is none.
func Kind(k conversation.Kind) string { return kinds[k] }

var roles = []string{conversation.None: "none", conversation.Member: "member", conversation.Admin: "admin", conversation.Owner: "owner"}

// Role returns what clients call a role.
func Role(r conversation.Role) string { return nameOf(roles, r) }

// ParseRole is the way back; false: there is no such role.
func ParseRole(name string) (conversation.Role, bool) { return parse[conversation.Role](roles, name) }

var policies = []string{
	conversation.JoinByAdmins: "by_admins", conversation.JoinByMembers: "by_members", conversation.JoinOpen: "open",
}

// JoinPolicy returns what clients call a policy.
func JoinPolicy(p conversation.JoinPolicy) string { return nameOf(policies, p) }

// ParseJoinPolicy is the way back; false: there is no such policy.
func ParseJoinPolicy(name string) (conversation.JoinPolicy, bool) {
	return parse[conversation.JoinPolicy](policies, name)
}

var types = []string{conversation.Direct: "direct", conversation.Group: "group", conversation.Inbox: "inbox"}

// Type returns what clients call a type of conversations.
func Type(t conversation.Type) string { return nameOf(types, t) }

func nameOf[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return ""
}

func parse[T ~uint8](names []string, name string) (T, bool) {
	i := slices.Index(names, name)
	return T(max(i, 0)), i >= 0 && name != ""
}

// Entry returns an entry as clients get it.
func Entry(e *store.Entry) *halleyv1.Entry {
	d := &e.Detail
	out := &halleyv1.Entry{
		Seq: float64(e.Seq), Kind: Kind(e.Kind), From: e.Sender, ClientMsgId: e.ClientMsgID, ServerTime: float64(e.AtMs),
		MsgNo: float64(e.MsgNo), ChangedSeq: float64(e.ChangedSeq), Target: float64(e.Target), Body: value(e.Body),
		Mentions: d.Mentions, MentionAll: d.MentionAll, Members: d.Members, MutedUntil: float64(d.MutedUntilMs), Reaction: d.Reaction,
		Off: d.Off, Info: infoValue(d.Info), Edited: e.Flags.Has(conversation.Edited), Recalled: e.Flags.Has(conversation.Recalled),
		Pinned: e.Flags.Has(conversation.Pinned),
	}
	if d.Role != conversation.None {
		out.Role = Role(d.Role)
	}
	for _, r := range reactions(e) {
		out.Reactions = append(out.Reactions, &halleyv1.Reaction{Reaction: r.Reaction, Count: uint32(r.Count), Uids: r.UIDs})
	}
	return out
}

// reactions returns an entry's reactions, the most frequent first, always in the same order.
func reactions(e *store.Entry) []store.Reaction {
	if len(e.Reactions) == 0 {
		return nil
	}
	list := slices.Clone(e.Reactions)
	slices.SortFunc(list, func(a, b store.Reaction) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reaction, b.Reaction))
	})
	return list
}

// Entries is Entry for a list.
func Entries(list []store.Entry) []*halleyv1.Entry {
	out := make([]*halleyv1.Entry, len(list))
	for i := range list {
		out[i] = Entry(&list[i])
	}
	return out
}

// Conversation returns a conversation as one of its members gets it.
func Conversation(s *store.Summary) *halleyv1.Conversation {
	c, m := &s.Conversation, &s.Member
	out := &halleyv1.Conversation{
		Id: c.ID, Type: Type(c.Type), Title: c.Title, Avatar: c.Avatar, Announcement: c.Announcement, Owner: c.Owner,
		Dissolved: c.Dissolved, MuteAll: c.MuteAll, Members: uint32(c.Members), LastSeq: float64(c.LastSeq), LastAt: float64(c.LastAtMs),
		Unread: uint32(s.Unread), Mentions: uint32(s.Mentions), FirstMention: float64(s.FirstMention), ReadSeq: float64(m.ReadSeq),
		DeliveredSeq: float64(m.DeliveredSeq), Role: Role(m.Role), VisibleFrom: float64(m.VisibleFrom(c)),
		JoinPolicy: JoinPolicy(c.JoinPolicy), HistoryOpen: c.HistoryOpen,
	}
	if s.Last != nil {
		out.Last = Entry(s.Last)
	}
	return out
}

// Member returns a member as the others get him.
func Member(m *conversation.Membership) *halleyv1.ConversationMember {
	return &halleyv1.ConversationMember{
		Uid: m.UID, Role: Role(m.Role), ReadSeq: float64(m.ReadSeq), DeliveredSeq: float64(m.DeliveredSeq),
		MutedUntil: float64(m.MutedUntilMs), JoinedAt: float64(m.JoinedAtMs),
	}
}

// UserChanged returns a user change as that user gets it.
func UserChanged(u *store.UserChange) *halleyv1.UserChanged {
	return &halleyv1.UserChanged{Number: float64(u.Number), Kind: u.Kind, Object: u.Object, Value: value(changeValue(u))}
}

// listed is the value of a change of kind conversation: as the store keeps it, and as clients get it.
type listed struct {
	Role      conversation.Role `json:"role"`
	JoinedSeq int64             `json:"joined_seq"`
}

type listedJSON struct {
	Role      string `json:"role"`
	JoinedSeq int64  `json:"joined_seq"`
}

// changeValue returns a change's value; that of the list of conversations has the role's name in the place of its number.
func changeValue(u *store.UserChange) []byte {
	var l listed
	if u.Kind != store.ChangeConversation || json.Unmarshal(u.Value, &l) != nil {
		return u.Value
	}
	// Strings and numbers: it can't fail.
	b, _ := json.Marshal(listedJSON{Role(l.Role), l.JoinedSeq})
	return b
}

// Listed returns the user change that a listing is kept as, with the number that it got.
func Listed(l *store.Listing, number int64) store.UserChange {
	value, _ := json.Marshal(listed{l.Role, l.JoinedSeq})
	return store.UserChange{
		Tenant: l.Tenant, UID: l.UID, Kind: store.ChangeConversation, Object: l.Conversation, Number: number, Guard: l.ChangedSeq, Value: value,
	}
}

// value returns JSON as a Value; nil for nothing, and for what is no JSON.
func value(b []byte) *structpb.Value {
	if len(b) == 0 {
		return nil
	}
	v := &structpb.Value{}
	if protojson.Unmarshal(b, v) != nil {
		return nil
	}
	return v
}

func infoValue(i *conversation.Info) *structpb.Value {
	info := infoJSON(i)
	if info == nil {
		return nil
	}
	b, err := json.Marshal(info)
	if err != nil {
		return nil
	}
	return value(b)
}
