package conversation

import (
	"encoding/json"

	"github.com/halley-im/halley/store"
	entry "github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// The JSON of what is read, for clients (halley/v1/client.proto) and for backends alike. Written by hand as package
// wire's is, and held against the contract by a test.

// Conversation is a conversation as one of its members sees it; to a backend that asks for nobody without what is the member's.
type Conversation struct {
	ID           string          `json:"id"`
	Type         string          `json:"type" doc:"direct, group or inbox."`
	Title        string          `json:"title,omitempty"`
	Avatar       string          `json:"avatar,omitempty"`
	Announcement string          `json:"announcement,omitempty"`
	Owner        string          `json:"owner,omitempty"`
	Dissolved    bool            `json:"dissolved,omitempty"`
	MuteAll      bool            `json:"mute_all,omitempty" doc:"Only owner and admins may send."`
	Members      int64           `json:"members" doc:"How many there are."`
	LastSeq      int64           `json:"last_seq" doc:"The last entry's seq."`
	LastAt       int64           `json:"last_at"`
	Last         *wire.EntryJSON `json:"last,omitempty" doc:"The last message, if the member may see it."`
	Unread       int64           `json:"unread,omitempty" doc:"Messages after the member's read marker."`
	Mentions     int64           `json:"mentions,omitempty" doc:"How many of them mention him or everybody."`
	FirstMention int64           `json:"first_mention,omitempty" doc:"Seq of the first of these."`
	ReadSeq      int64           `json:"read_seq,omitempty" doc:"The member's read marker."`
	DeliveredSeq int64           `json:"delivered_seq,omitempty" doc:"What his devices have got."`
	Role         string          `json:"role,omitempty" doc:"The member's: none, member, admin or owner."`
	VisibleFrom  int64           `json:"visible_from,omitempty" doc:"The first seq that he may read."`
	JoinPolicy   string          `json:"join_policy,omitempty" doc:"by_admins, by_members or open."`
	HistoryOpen  bool            `json:"history_open,omitempty" doc:"Whether members see what was before they joined."`
}

// Page is a page of a user's conversations.
type Page struct {
	Conversations []Conversation `json:"conversations" doc:"Those with the newest message first."`
	Next          string         `json:"next,omitempty" doc:"Cursor of the next page; not there: this is the last."`
}

// Entries are entries in the order of their seqs.
type Entries struct {
	Entries []wire.EntryJSON `json:"entries" doc:"In the order of seq."`
}

// Member is a member as the others see him.
type Member struct {
	UID          string `json:"uid"`
	Role         string `json:"role" doc:"member, admin or owner."`
	ReadSeq      int64  `json:"read_seq,omitempty" doc:"He has read up to here."`
	DeliveredSeq int64  `json:"delivered_seq,omitempty" doc:"His devices have got up to here."`
	MutedUntil   int64  `json:"muted_until,omitempty" doc:"Until when he may not send."`
	JoinedAt     int64  `json:"joined_at,omitempty"`
}

// MemberPage is a page of members.
type MemberPage struct {
	Members []Member `json:"members" doc:"In the order of their uids."`
	Next    string   `json:"next,omitempty" doc:"Cursor of the next page; not there: this is the last."`
}

// Audit is what a message said before.
type Audit struct {
	Replaced []Replaced `json:"replaced" doc:"Oldest first."`
	Next     string     `json:"next,omitempty" doc:"Cursor of the next page; not there: this is the last."`
}

// Replaced is what a message said before a change of it.
type Replaced struct {
	ChangedSeq int64           `json:"changed_seq" doc:"The entry that replaced it."`
	Kind       string          `json:"kind" doc:"edit or recall."`
	ChangedBy  string          `json:"changed_by,omitempty" doc:"Left out: the system."`
	At         int64           `json:"at"`
	Body       json.RawMessage `json:"body,omitempty"`
	Mentions   []string        `json:"mentions,omitempty"`
	MentionAll bool            `json:"mention_all,omitempty"`
}

// UIDs is a page of users.
type UIDs struct {
	UIDs []string `json:"uids" doc:"In order."`
	Next string   `json:"next,omitempty" doc:"Cursor of the next page; not there: this is the last."`
}

// Cursor is the cheap answer to whether anything was missed.
type Cursor struct {
	Seqs       int64 `json:"seqs" doc:"Sum of the last seqs of the user's conversations."`
	UserChange int64 `json:"user_change" doc:"Number of his newest user change."`
}

// User is a profile.
type User struct {
	UID     string          `json:"uid"`
	Name    string          `json:"name,omitempty"`
	Avatar  string          `json:"avatar,omitempty"`
	Profile json.RawMessage `json:"profile,omitempty" doc:"Whatever else the host keeps."`
	// Visibility and Disabled are not for others.
	Visibility string `json:"visibility,omitempty" doc:"Who may see his presence: contacts, all or nobody."`
	Disabled   bool   `json:"disabled,omitempty" doc:"Isn't found by a search."`
}

// Users are profiles.
type Users struct {
	Users []User `json:"users"`
}

// Contact is what a user keeps of another one.
type Contact struct {
	UID       string `json:"uid"`
	State     string `json:"state" doc:"requested (by the user), asked (by the other one) or accepted."`
	Remark    string `json:"remark,omitempty" doc:"The user's own name for him."`
	Note      string `json:"note,omitempty" doc:"What was said with the request."`
	ChangedAt int64  `json:"changed_at,omitempty"`
}

// ContactPage is a page of contacts.
type ContactPage struct {
	Contacts []Contact `json:"contacts" doc:"In the order of their uids."`
	Next     string    `json:"next,omitempty" doc:"Cursor of the next page; not there: this is the last."`
}

// Change is a user change.
type Change struct {
	Number int64           `json:"number"`
	Kind   string          `json:"kind"`
	Object string          `json:"object,omitempty"`
	Value  json.RawMessage `json:"value,omitempty"`
}

// SyncPage is what is new for a device.
type SyncPage struct {
	Conversations []SyncConversation `json:"conversations"`
	UserChanges   []Change           `json:"user_changes"`
	More          bool               `json:"more"`
	// Rooms are those that the user's sessions have to be in to be told of entries of his large groups.
	Rooms []string `json:"-"`
}

// SyncConversation is what is new in one conversation.
type SyncConversation struct {
	Conversation Conversation     `json:"conversation"`
	Entries      []wire.EntryJSON `json:"entries"`
	Reset        bool             `json:"reset,omitempty"`
}

func viewOf(c *entry.Conversation) Conversation {
	v := Conversation{
		ID: c.ID, Type: wire.Type(c.Type), Title: c.Title, Avatar: c.Avatar, Announcement: c.Announcement, Owner: c.Owner,
		Dissolved: c.Dissolved, MuteAll: c.MuteAll, Members: c.Members, LastSeq: c.LastSeq, LastAt: c.LastAtMs, HistoryOpen: c.HistoryOpen,
	}
	if c.Type == entry.Group {
		v.JoinPolicy = wire.JoinPolicy(c.JoinPolicy)
	}
	return v
}

func summaryView(s *store.Summary) Conversation {
	v := viewOf(&s.Conversation)
	m := &s.Member
	v.JoinPolicy = wire.JoinPolicy(s.Conversation.JoinPolicy)
	v.Unread, v.Mentions, v.FirstMention = s.Unread, s.Mentions, s.FirstMention
	v.ReadSeq, v.DeliveredSeq, v.Role, v.VisibleFrom = m.ReadSeq, m.DeliveredSeq, wire.Role(m.Role), m.VisibleFrom(&s.Conversation)
	if s.Last != nil {
		last := wire.JSONOf(s.Last)
		v.Last = &last
	}
	return v
}

func memberViews(ms []entry.Membership) []Member {
	out := make([]Member, len(ms))
	for i := range ms {
		m := &ms[i]
		out[i] = Member{
			UID: m.UID, Role: wire.Role(m.Role), ReadSeq: m.ReadSeq, DeliveredSeq: m.DeliveredSeq, MutedUntil: m.MutedUntilMs, JoinedAt: m.JoinedAtMs,
		}
	}
	return out
}

func entryViews(es []store.Entry) []wire.EntryJSON {
	out := make([]wire.EntryJSON, len(es))
	for i := range es {
		out[i] = wire.JSONOf(&es[i])
	}
	return out
}

func changeViews(us []store.UserChange) []Change {
	out := make([]Change, len(us))
	for i := range us {
		c := wire.UserChanged(&us[i])
		out[i] = Change{Number: us[i].Number, Kind: c.GetKind(), Object: c.GetObject()}
		if c.GetValue() != nil {
			// What wire took from JSON goes back to it.
			out[i].Value, _ = c.GetValue().MarshalJSON()
		}
	}
	return out
}

// Sizes of what is around the texts of an entry and of a conversation in JSON, about.
const (
	entryFrame        = 320
	conversationFrame = 480
	uidWidth          = 40
)

// width is about how many bytes an entry takes in JSON: enough to bound a page.
func width(e *store.Entry) int64 {
	n := entryFrame + len(e.Body) + textWidth(e.ClientMsgID) + uidWidth*(len(e.Detail.Mentions)+len(e.Detail.Members)) + textWidth(e.Detail.Reaction)
	if i := e.Detail.Info; i != nil {
		for _, t := range []*string{i.Title, i.Avatar, i.Announcement} {
			if t != nil {
				n += textWidth(*t)
			}
		}
	}
	for _, r := range e.Reactions {
		n += uidWidth*(1+len(r.UIDs)) + textWidth(r.Reaction)
	}
	return int64(n)
}

func summaryWidth(s *store.Summary) int64 {
	c := &s.Conversation
	n := int64(conversationFrame + textWidth(c.Title) + textWidth(c.Avatar) + textWidth(c.Announcement))
	if s.Last != nil {
		n += width(s.Last)
	}
	return n
}

// textWidth is how many bytes a text takes in JSON, at most. Not its length: of control characters each takes six, and who
// names his groups so must not make others' pages too large for them.
func textWidth(s string) int {
	n := len(s)
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ':
			n += 5
		case c == '"' || c == '\\':
			n++
		case c == 0xe2:
			// The two separators of lines that JavaScript had trouble with begin so.
			n += 3
		}
	}
	return n
}
