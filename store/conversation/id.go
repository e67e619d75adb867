package conversation

import (
	"strings"

	"github.com/google/uuid"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/proto/topic"
)

// MaxID is the longest id of a conversation in bytes: "d/", two uids and the slash between them.
const MaxID = 2 + 2*name.MaxUID + 1

// MaxClientMsgID is the longest client_msg_id in bytes.
const MaxClientMsgID = 64

// DirectID returns the id of the direct conversation of two uids, which may be the same: "d/min/max".
func DirectID(a, b string) string {
	if b < a {
		a, b = b, a
	}
	return "d/" + a + "/" + b
}

// InboxID returns the id of uid's inbox.
func InboxID(uid string) string { return "i/" + uid }

// groups is the name space of GroupID.
var groups = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://github.com/halley-im/halley/group"))

// GroupID returns the id of the group that sender makes under clientMsgID: "g/" and the UUIDv5 of tenant, sender and clientMsgID with NUL bytes
// between. It is made of them, and not of the time, so that a repeat makes no second group.
func GroupID(tenant, sender, clientMsgID string) string {
	return "g/" + uuid.NewSHA1(groups, topic.Join(tenant, sender, clientMsgID)).String()
}

// messages is the name space of MessageID.
var messages = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://github.com/halley-im/halley/message"))

// MessageID returns the id of the entry that sender asked for under clientMsgID: UUIDv5 of tenant, conversation, sender
// and clientMsgID with NUL bytes between. It is the same in every role and at every repeat, and therefore not stored.
func MessageID(tenant, conv, sender, clientMsgID string) string {
	return uuid.NewSHA1(messages, topic.Join(tenant, conv, sender, clientMsgID)).String()
}

// TypeOf returns the type that an id says; 0 if it is none.
func TypeOf(id string) Type {
	if len(id) < 3 || id[1] != '/' {
		return 0
	}
	switch id[0] {
	case 'd':
		return Direct
	case 'g':
		return Group
	case 'i':
		return Inbox
	}
	return 0
}

// CheckID checks a conversation's id: "d/min/max", "g/" and a UUID, or "i/uid".
func CheckID(id string) error {
	if !possible(id) {
		return errcode.InvalidRequest.Errorf("conversation: no such id")
	}
	return nil
}

func possible(id string) bool {
	switch TypeOf(id) {
	case Direct:
		a, b, ok := strings.Cut(id[2:], "/")
		return ok && name.UID(a) == nil && name.UID(b) == nil && a <= b
	case Group:
		u, err := uuid.Parse(id[2:])
		return err == nil && u.String() == id[2:]
	case Inbox:
		return name.UID(id[2:]) == nil
	}
	return false
}

// Parties returns the uids that a direct conversation's or an inbox's id names, in order, each once; nil for a group.
func Parties(id string) []string {
	switch TypeOf(id) {
	case Direct:
		a, b, ok := strings.Cut(id[2:], "/")
		switch {
		case !ok:
			return nil
		case a == b:
			return []string{a}
		}
		return []string{a, b}
	case Inbox:
		return []string{id[2:]}
	}
	return nil
}
