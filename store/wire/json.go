package wire

import (
	"encoding/json"

	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

// EventOp is the op of frames that carry events.
const EventOp = 102

// EntryJSON is a halleyv1.Entry, made by JSONOf, to be written by encoding/json.
type EntryJSON struct {
	Seq         int64           `json:"seq"`
	Kind        string          `json:"kind"`
	From        string          `json:"from,omitempty"`
	ClientMsgID string          `json:"client_msg_id,omitempty"`
	ServerTime  int64           `json:"server_time"`
	MsgNo       int64           `json:"msg_no,omitempty"`
	ChangedSeq  int64           `json:"changed_seq"`
	Target      int64           `json:"target,omitempty"`
	Body        json.RawMessage `json:"body,omitempty"`
	Mentions    []string        `json:"mentions,omitempty"`
	MentionAll  bool            `json:"mention_all,omitempty"`
	Members     []string        `json:"members,omitempty"`
	Role        string          `json:"role,omitempty"`
	MutedUntil  int64           `json:"muted_until,omitempty"`
	Reaction    string          `json:"reaction,omitempty"`
	Off         bool            `json:"off,omitempty"`
	Info        *InfoJSON       `json:"info,omitempty"`
	Edited      bool            `json:"edited,omitempty"`
	Recalled    bool            `json:"recalled,omitempty"`
	Pinned      bool            `json:"pinned,omitempty"`
	Reactions   []ReactionJSON  `json:"reactions,omitempty"`
}

// ReactionJSON is a halleyv1.Reaction.
type ReactionJSON struct {
	Reaction string   `json:"reaction"`
	Count    int64    `json:"count"`
	UIDs     []string `json:"uids,omitempty"`
}

// InfoJSON is what entries of kind created and info set; nil leaves a field as it is.
type InfoJSON struct {
	Title        *string `json:"title,omitempty"`
	Avatar       *string `json:"avatar,omitempty"`
	Announcement *string `json:"announcement,omitempty"`
	JoinPolicy   *string `json:"join_policy,omitempty"`
	MuteAll      *bool   `json:"mute_all,omitempty"`
	HistoryOpen  *bool   `json:"history_open,omitempty"`
}

func infoJSON(i *conversation.Info) *InfoJSON {
	if i == nil {
		return nil
	}
	out := &InfoJSON{Title: i.Title, Avatar: i.Avatar, Announcement: i.Announcement, MuteAll: i.MuteAll, HistoryOpen: i.HistoryOpen}
	if i.JoinPolicy != nil {
		name := JoinPolicy(*i.JoinPolicy)
		out.JoinPolicy = &name
	}
	return out
}

// JSONOf returns an entry as clients get it. It shares e's slices.
func JSONOf(e *store.Entry) EntryJSON {
	d := &e.Detail
	out := EntryJSON{
		Seq: e.Seq, Kind: Kind(e.Kind), From: e.Sender, ClientMsgID: e.ClientMsgID, ServerTime: e.AtMs, MsgNo: e.MsgNo,
		ChangedSeq: e.ChangedSeq, Target: e.Target, Body: e.Body, Mentions: d.Mentions, MentionAll: d.MentionAll, Members: d.Members,
		MutedUntil: d.MutedUntilMs, Reaction: d.Reaction, Off: d.Off, Info: infoJSON(d.Info), Edited: e.Flags.Has(conversation.Edited),
		Recalled: e.Flags.Has(conversation.Recalled), Pinned: e.Flags.Has(conversation.Pinned),
	}
	if d.Role != conversation.None {
		out.Role = Role(d.Role)
	}
	for _, r := range reactions(e) {
		out.Reactions = append(out.Reactions, ReactionJSON(r))
	}
	return out
}

type storedJSON struct {
	Conversation string    `json:"conversation"`
	Entry        EntryJSON `json:"entry"`
}

type eventJSON struct {
	Stored     *storedJSON   `json:"message.stored,omitempty"`
	Entry      *storedJSON   `json:"entry,omitempty"`
	Rejected   *rejectedJSON `json:"message.rejected,omitempty"`
	UserChange *changeJSON   `json:"user.change,omitempty"`
	Marker     *markerJSON   `json:"marker,omitempty"`
}

// StoredEvent returns the body of the frame that tells of a stored entry: message.stored for a message, entry for a change. An
// error means that the entry's body is no JSON.
func StoredEvent(conv string, e *store.Entry) ([]byte, error) {
	s := &storedJSON{Conversation: conv, Entry: JSONOf(e)}
	if e.Kind == conversation.Message {
		return json.Marshal(eventJSON{Stored: s})
	}
	return json.Marshal(eventJSON{Entry: s})
}

type rejectedJSON struct {
	Conversation string    `json:"conversation"`
	ClientMsgID  string    `json:"client_msg_id"`
	Error        errorJSON `json:"error"`
}

type errorJSON struct {
	Code         string `json:"code"`
	Message      string `json:"message"`
	Retry        bool   `json:"retry"`
	RetryAfterMs uint32 `json:"retry_after_ms,omitempty"`
}

// RejectedEvent returns the body of the frame that tells a sender that what was accepted became no entry.
func RejectedEvent(conv, clientMsgID string, reason error) ([]byte, error) {
	e := errcode.Proto(reason)
	return json.Marshal(eventJSON{Rejected: &rejectedJSON{conv, clientMsgID, errorOf(e)}})
}

func errorOf(e *halleyv1.Error) errorJSON {
	return errorJSON{Code: e.GetCode(), Message: e.GetMessage(), Retry: e.GetRetry(), RetryAfterMs: e.GetRetryAfterMs()}
}

type changeJSON struct {
	Number int64           `json:"number"`
	Kind   string          `json:"kind"`
	Object string          `json:"object,omitempty"`
	Value  json.RawMessage `json:"value,omitempty"`
}

// UserChangeEvent returns the body of the frame that tells a user of a change of his own. An error means that its value is no
// JSON.
func UserChangeEvent(u *store.UserChange) ([]byte, error) {
	return json.Marshal(eventJSON{UserChange: &changeJSON{u.Number, u.Kind, u.Object, changeValue(u)}})
}
