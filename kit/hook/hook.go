// Package hook makes the records of halley.hooks: what roles tell the host's backend by webhooks. It knows the events and what is
// in them; where they go, and whether anybody wants them, is job's to know.
package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

// Events that there are.
const (
	// MessageOffline is a message that did not reach some of those whom it is for: they have no session.
	MessageOffline = "message.offline"
	// UserOnline and UserOffline are a user's first session and the end of his last one.
	UserOnline  = "user.online"
	UserOffline = "user.offline"
	// CallIncoming is a call for users who have no session, CallStop that it no longer rings for them; CallState and CallEnded are what becomes of
	// a call.
	CallIncoming = "call.incoming"
	CallStop     = "call.stop"
	CallState    = "call.state"
	CallEnded    = "call.ended"
)

// Events are all of them.
var Events = []string{MessageOffline, UserOnline, UserOffline, CallIncoming, CallStop, CallState, CallEnded}

// MaxData is the most bytes of an event's data.
const MaxData = 256 << 10

// usersPerRecord bounds the users of one message.offline: with the longest names they take 60 KB.
const usersPerRecord = 500

// Offline is a message that did not reach some of its conversation's members.
type Offline struct {
	Tenant       string
	Conversation string
	Seq          int64
	// AtMs is when the message was accepted.
	AtMs int64
	// Entry is the message as clients get it, JSON.
	Entry json.RawMessage
	Users []OfflineUser
}

// OfflineUser is whom it did not reach.
type OfflineUser struct {
	UID string `json:"uid"`
	// Unread is how many messages of the conversation he has not read, this one included.
	Unread int64 `json:"unread"`
	// Mentioned is whether the message mentions him, or everybody.
	Mentioned bool `json:"mentioned,omitempty"`
	// Muted is whether he has muted the conversation.
	Muted bool `json:"muted,omitempty"`
}

type offlineData struct {
	Conversation string          `json:"conversation"`
	Entry        json.RawMessage `json:"entry"`
	Users        []OfflineUser   `json:"users"`
}

// Messages returns the records of o: one for each 500 users, none for nobody. Events of a conversation are told in order. Their
// ids are the same for a repeat with the same users.
func (o *Offline) Messages() ([]kafka.Message, error) {
	var out []kafka.Message
	for first := 0; first < len(o.Users); first += usersPerRecord {
		users := o.Users[first:min(first+usersPerRecord, len(o.Users))]
		data, err := json.Marshal(offlineData{o.Conversation, o.Entry, users})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", MessageOffline, err)
		}
		m, err := message(MessageOffline, o.Tenant, "conv", o.Conversation, o.AtMs, data, strconv.FormatInt(o.Seq, 10), users[0].UID)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// Presence is a change of whether a user is there.
type Presence struct {
	Tenant string
	UID    string
	Online bool
	// AtMs is when it was found.
	AtMs int64
	// Platforms of his sessions, where he is online.
	Platforms []string
	// LastSeenMs is when his last session ended, where he is not.
	LastSeenMs int64
	// Mark is the same for a repeat of this change alone.
	Mark string
}

type presenceData struct {
	UID       string   `json:"uid"`
	Platforms []string `json:"platforms,omitempty"`
	LastSeen  int64    `json:"last_seen,omitempty"`
}

// Message returns the record of p. Those of a uid are told in order.
func (p *Presence) Message() (kafka.Message, error) {
	kind, d := UserOffline, presenceData{UID: p.UID, LastSeen: p.LastSeenMs}
	if p.Online {
		kind, d = UserOnline, presenceData{UID: p.UID, Platforms: p.Platforms}
	}
	data, err := json.Marshal(d)
	if err != nil {
		return kafka.Message{}, fmt.Errorf("%s: %w", kind, err)
	}
	return message(kind, p.Tenant, "uid", p.UID, p.AtMs, data, p.Mark)
}

// Call is what becomes of a call.
type Call struct {
	// Type is one of CallIncoming, CallStop, CallState and CallEnded.
	Type   string
	Tenant string
	Call   string
	AtMs   int64
	// Data is a JSON object.
	Data []byte
	// Mark is the same for a repeat of this event alone.
	Mark []string
}

// Message returns the record of c. Those of a call are told in order.
func (c *Call) Message() (kafka.Message, error) {
	return message(c.Type, c.Tenant, "call", c.Call, c.AtMs, c.Data, c.Mark...)
}

// space is that of the ids' UUIDv5.
var space = uuid.MustParse("6ac5f3a4-9a3e-4c0b-8c53-5d1c7f0b2e11")

func message(kind, tenant, of, name string, atMs int64, data []byte, mark ...string) (kafka.Message, error) {
	if len(data) > MaxData {
		return kafka.Message{}, fmt.Errorf("%s: %w", kind, ErrTooLarge)
	}
	id := uuid.NewSHA1(space, topic.Join(append([]string{kind, tenant, name}, mark...)...))
	v, err := proto.Marshal(&halleyv1.HookRecord{
		Id: "msg_" + strings.ReplaceAll(id.String(), "-", ""), Tenant: tenant, Type: kind, AtMs: atMs, Key: of + "/" + name, Data: data,
	})
	if err != nil {
		return kafka.Message{}, fmt.Errorf("%s: %w", kind, err)
	}
	return kafka.Message{Topic: topic.Hooks, Key: topic.HookKey(tenant, of, name), Value: v}, nil
}

// ErrTooLarge says that an event's data has more than MaxData bytes.
var ErrTooLarge = errors.New("event too large")
