package client

import (
	"encoding/json"
	"slices"
	"strings"
)

// Kinds of entries.
const (
	KindMessage   = "message"
	KindEdit      = "edit"
	KindRecall    = "recall"
	KindReaction  = "reaction"
	KindPin       = "pin"
	KindCreated   = "created"
	KindJoined    = "joined"
	KindLeft      = "left"
	KindRemoved   = "removed"
	KindRole      = "role"
	KindMuted     = "muted"
	KindInfo      = "info"
	KindDissolved = "dissolved"
)

// Entry is a stored entry: a message as it was when it was read, or a change. The JSON is the wire's.
type Entry struct {
	Seq int64 `json:"seq"`
	// Kind is one of the constants.
	Kind string `json:"kind"`
	// From is empty where the system wrote it.
	From        string `json:"from,omitempty"`
	ClientMsgID string `json:"client_msg_id,omitempty"`
	// ServerTime is in milliseconds since 1970.
	ServerTime int64 `json:"server_time"`
	// MsgNo counts the messages up to this entry and including it.
	MsgNo int64 `json:"msg_no,omitempty"`
	// ChangedSeq is the last entry that changed this one: changes up to it are in here already.
	ChangedSeq int64 `json:"changed_seq"`
	// Target is the seq of the message that a change changes.
	Target     int64           `json:"target,omitempty"`
	Body       json.RawMessage `json:"body,omitempty"`
	Mentions   []string        `json:"mentions,omitempty"`
	MentionAll bool            `json:"mention_all,omitempty"`
	Members    []string        `json:"members,omitempty"`
	Role       string          `json:"role,omitempty"`
	MutedUntil int64           `json:"muted_until,omitempty"`
	Reaction   string          `json:"reaction,omitempty"`
	Off        bool            `json:"off,omitempty"`
	Info       *GroupInfo      `json:"info,omitempty"`
	Edited     bool            `json:"edited,omitempty"`
	Recalled   bool            `json:"recalled,omitempty"`
	Pinned     bool            `json:"pinned,omitempty"`
	Reactions  []Reaction      `json:"reactions,omitempty"`
}

// Reaction is how often a message was reacted to so.
type Reaction struct {
	Reaction string `json:"reaction"`
	Count    int64  `json:"count"`
	// UIDs are some of who did.
	UIDs []string `json:"uids,omitempty"`
}

// GroupInfo is what an entry sets of a group; nil leaves a field as it is.
type GroupInfo struct {
	Title        *string `json:"title,omitempty"`
	Avatar       *string `json:"avatar,omitempty"`
	Announcement *string `json:"announcement,omitempty"`
	JoinPolicy   *string `json:"join_policy,omitempty"`
	MuteAll      *bool   `json:"mute_all,omitempty"`
	HistoryOpen  *bool   `json:"history_open,omitempty"`
}

// Apply returns message e after change, or e itself if the change is none of it or is in it already: ranges return messages as they
// are now, so older changes come once more.
func (e Entry) Apply(change *Entry) Entry {
	if change.Target != e.Seq || change.Seq <= e.ChangedSeq {
		return e
	}
	switch change.Kind {
	case KindEdit:
		e.Body, e.Mentions, e.MentionAll, e.Edited = change.Body, change.Mentions, change.MentionAll, true
	case KindRecall:
		e.Body, e.Mentions, e.MentionAll, e.Reactions, e.Recalled, e.Pinned = nil, nil, false, nil, true, false
	case KindPin:
		e.Pinned = !change.Off
	case KindReaction:
		e.Reactions = react(e.Reactions, change)
	default:
		return e
	}
	e.ChangedSeq = change.Seq
	return e
}

func react(all []Reaction, change *Entry) []Reaction {
	out := slices.Clone(all)
	i := slices.IndexFunc(out, func(r Reaction) bool { return r.Reaction == change.Reaction })
	if i < 0 {
		out = append(out, Reaction{Reaction: change.Reaction})
		i = len(out) - 1
	}
	r := &out[i]
	// The list of uids may be a part: who isn't in it and takes a reaction away is one of the rest.
	mine, rest := slices.Contains(r.UIDs, change.From), r.Count > int64(len(r.UIDs))
	r.UIDs = slices.DeleteFunc(slices.Clone(r.UIDs), func(uid string) bool { return uid == change.From })
	switch {
	case !change.Off:
		r.UIDs = append(r.UIDs, change.From)
		if !mine {
			r.Count++
		}
	case mine || rest:
		r.Count--
	}
	if r.Count <= 0 {
		out = slices.Delete(out, i, i+1)
	}
	// As servers order them: the most frequent first.
	slices.SortFunc(out, func(a, b Reaction) int {
		if a.Count != b.Count {
			return int(b.Count - a.Count)
		}
		return strings.Compare(a.Reaction, b.Reaction)
	})
	return out
}
