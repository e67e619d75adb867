// Package conversation holds what a conversation is and the one judge of its entries: a pure function from a
// conversation's state and a proposal to the next state and a seq, or to a code. It knows no SQL, no network and no
// clock; package store reads the state from the tables and writes back what the verdict says.
package conversation

import (
	"time"

	"github.com/halley-im/halley/proto/name"
)

// Type is what sort of conversation it is; its id says it.
type Type uint8

// Types of conversations.
const (
	// Direct is between two uids, or one uid with itself. It begins with its first message.
	Direct Type = 1
	// Group has members with roles. It begins with an entry of kind Created.
	Group Type = 2
	// Inbox is one uid's notifications; only the system writes to it. It begins with its first message.
	Inbox Type = 3
)

// Role is what a member may do. The greater one may do all that the smaller may.
type Role uint8

// Roles. A row whose role is None is of someone who was a member.
const (
	None   Role = 0
	Member Role = 1
	Admin  Role = 2
	Owner  Role = 3
)

// Kind is what an entry does.
type Kind uint8

// Kinds of entries: a message, or a change. Each of them takes the next seq.
const (
	Message Kind = 1 + iota
	// Edit puts another body in the place of a message's.
	Edit
	// Recall empties a message.
	Recall
	// Reaction adds the sender's reaction to a message, or takes it away.
	Reaction
	// Pin puts a message on the conversation's board, or takes it down.
	Pin
	// Created begins a group: its members, its title.
	Created
	// Joined adds members: the sender himself, or whom he invites.
	Joined
	// Left takes the sender out.
	Left
	// Removed takes others out.
	Removed
	// RoleChanged gives members a role; Owner hands the group over.
	RoleChanged
	// Muted forbids members to send until a time.
	Muted
	// InfoChanged sets title, avatar, announcement and rules of a group.
	InfoChanged
	// Dissolved ends a group: nothing is accepted after it.
	Dissolved
)

// Kinds of proposals that take no seq and leave no entry.
const (
	// Marker raises a member's read and delivered markers.
	Marker Kind = 100 + iota
	// FanoutChanged turns the way in which entries are delivered.
	FanoutChanged
)

// TakesSeq reports whether a proposal of this kind becomes an entry.
func (k Kind) TakesSeq() bool { return k >= Message && k <= Dissolved }

// JoinPolicy says who may add members to a group.
type JoinPolicy uint8

// Policies of a group.
const (
	// JoinByAdmins lets only owner and admins add members; others ask them.
	JoinByAdmins JoinPolicy = 0
	// JoinByMembers lets every member invite.
	JoinByMembers JoinPolicy = 1
	// JoinOpen lets anybody join by himself, and every member invite.
	JoinOpen JoinPolicy = 2
)

// Fanout says how entries reach the members' sessions.
type Fanout uint8

// Ways of delivery.
const (
	// FanoutUID looks up each member.
	FanoutUID Fanout = 0
	// FanoutRoom uses the room conversation://ID, which the members' sessions are in.
	FanoutRoom Fanout = 1
	// FanoutJoining looks up each member, while all sessions of members are put into the room.
	FanoutJoining Fanout = 2
)

// Room returns the room that the sessions of a group's members are in where its Fanout isn't FanoutUID.
func Room(id string) string { return name.RoomTypeConversation + "://" + id }

// Conversation is a conversation's own row: everything about it that isn't a member's or an entry's.
type Conversation struct {
	Tenant string
	ID     string
	Type   Type
	// Dissolved conversations can be read, and accept nothing.
	Dissolved    bool
	Title        string
	Avatar       string
	Announcement string
	// Owner is the uid of the member with role Owner; empty for other types and for groups of the system.
	Owner      string
	JoinPolicy JoinPolicy
	// MuteAll lets only owner and admins send.
	MuteAll bool
	// HistoryOpen lets members see what was before they joined.
	HistoryOpen bool
	Fanout      Fanout
	// Members is how many there are.
	Members int64
	// LastSeq is the last entry's seq; 0: nothing is stored yet.
	LastSeq int64
	// LastMsgNo is how many messages there were, recalled ones included.
	LastMsgNo int64
	// LastMsgSeq is the last message's seq; 0: there is none.
	LastMsgSeq int64
	// LastAtMs is the time of the last entry, LastMsgAtMs that of the last message, milliseconds since 1970.
	LastAtMs    int64
	LastMsgAtMs int64
	// RejectedAtMs is when a proposal was last rejected; 0: never. It spares looking for a rejection where none can be.
	RejectedAtMs int64
	CreatedAtMs  int64
	CreatedBy    string
}

// Membership is a member's row.
type Membership struct {
	UID  string
	Role Role
	// JoinedSeq is the entry that made him a member; he sees from there, unless the history is open.
	JoinedSeq int64
	// ChangedSeq is the entry that last changed his role: the guard of the list by uid.
	ChangedSeq int64
	// ReadSeq is his read marker, ReadMsgNo the number of messages up to it.
	ReadSeq   int64
	ReadMsgNo int64
	// DeliveredSeq is what his devices have got; never less than ReadSeq.
	DeliveredSeq int64
	// MutedUntilMs is until when he may not send.
	MutedUntilMs int64
	JoinedAtMs   int64
	// InvitedBy is who added him; empty: himself or the system.
	InvitedBy string
}

// VisibleFrom returns the first seq that m may read in c; 0 if he may read nothing.
func (m Membership) VisibleFrom(c *Conversation) int64 {
	switch {
	case m.Role == None:
		return 0
	case c.HistoryOpen:
		return 1
	}
	return m.JoinedSeq
}

// Unread returns how many messages of c are after m's read marker.
func (m Membership) Unread(c *Conversation) int64 { return max(0, c.LastMsgNo-m.ReadMsgNo) }

// Flags are what happened to a message after it was stored, besides its body.
type Flags uint8

// Flags of an entry.
const (
	Recalled Flags = 1 << iota
	Edited
	Pinned
	// Reacted messages have, or had, reactions.
	Reacted
)

// Has reports whether all of g are set.
func (f Flags) Has(g Flags) bool { return f&g == g }

// Target is what the judge must know of the entry that a proposal names.
type Target struct {
	Seq        int64
	Kind       Kind
	Sender     string
	MsgNo      int64
	ChangedSeq int64
	AtMs       int64
	Flags      Flags
}

// Info is what InfoChanged and Created set; nil leaves a field as it is.
type Info struct {
	Title        *string     `json:"title,omitempty"`
	Avatar       *string     `json:"avatar,omitempty"`
	Announcement *string     `json:"announcement,omitempty"`
	JoinPolicy   *JoinPolicy `json:"join_policy,omitempty"`
	MuteAll      *bool       `json:"mute_all,omitempty"`
	HistoryOpen  *bool       `json:"history_open,omitempty"`
}

// Detail is what an entry says besides its body; which fields count depends on its kind. It is stored as JSON.
type Detail struct {
	// Mentions are the uids that a message or edit mentions, MentionAll says that it mentions everybody.
	Mentions   []string `json:"mentions,omitempty"`
	MentionAll bool     `json:"mention_all,omitempty"`
	// Members are whom Created, Joined, Left, Removed, RoleChanged and Muted are about. In an entry: whom it changed.
	Members []string `json:"members,omitempty"`
	// Owner is the owner of a group that the system creates; else the sender is.
	Owner string `json:"owner,omitempty"`
	// Role is what RoleChanged gives.
	Role Role `json:"role,omitempty"`
	// MutedUntilMs is what Muted sets; 0 lifts it.
	MutedUntilMs int64 `json:"muted_until_ms,omitempty"`
	// Reaction is 1 to 64 bytes, an emoji as a rule.
	Reaction string `json:"reaction,omitempty"`
	// Off takes a reaction or a pin away.
	Off  bool  `json:"off,omitempty"`
	Info *Info `json:"info,omitempty"`
}

// empty reports whether there is nothing to store.
func (d *Detail) empty() bool {
	return len(d.Mentions) == 0 && !d.MentionAll && len(d.Members) == 0 && d.Owner == "" && d.Role == None && d.MutedUntilMs == 0 &&
		d.Reaction == "" && !d.Off && d.Info == nil
}

// Rules are the limits that the operator sets.
type Rules struct {
	// EditWithin is how long after a message its sender may edit it; 0: always.
	EditWithin time.Duration `help:"How long after sending a message may be edited; 0: always." default:"24h"`
	// RecallWithin is how long after a message its sender may recall it; 0: always. Owner and admins may always.
	RecallWithin time.Duration `help:"How long after sending a message may be recalled by its sender; 0: always." default:"2m"`
	// MaxMembers is the most members of a group.
	MaxMembers int64 `help:"Most members of a group." default:"100000"`
	// MaxNamed is the most members that one entry may name.
	MaxNamed int `help:"Most members that one entry may add, remove or change." default:"500"`
	// MaxMentions is the most uids that one message may mention, @all apart.
	MaxMentions int `help:"Most users that one message may mention." default:"50"`
}

// DefaultRules returns what the rules are where nothing is said.
func DefaultRules() Rules {
	return Rules{EditWithin: 24 * time.Hour, RecallWithin: 2 * time.Minute, MaxMembers: 100_000, MaxNamed: 500, MaxMentions: 50}
}
