package client

import (
	"encoding/json"
	"slices"
	"strings"
)

// Conversation is a conversation as its user sees it. The JSON is the wire's, with what the client adds.
type Conversation struct {
	ID           string `json:"id"`
	Type         string `json:"type"`
	Title        string `json:"title,omitempty"`
	Avatar       string `json:"avatar,omitempty"`
	Announcement string `json:"announcement,omitempty"`
	Owner        string `json:"owner,omitempty"`
	Dissolved    bool   `json:"dissolved,omitempty"`
	MuteAll      bool   `json:"mute_all,omitempty"`
	Members      int64  `json:"members,omitempty"`
	LastSeq      int64  `json:"last_seq"`
	LastAt       int64  `json:"last_at,omitempty"`
	// Last is the last message.
	Last *Entry `json:"last,omitempty"`
	// Unread counts messages after the read marker, Mentions those of them that mention the user or everybody; FirstMention is
	// the first of these.
	Unread       int64 `json:"unread,omitempty"`
	Mentions     int64 `json:"mentions,omitempty"`
	FirstMention int64 `json:"first_mention,omitempty"`
	ReadSeq      int64 `json:"read_seq,omitempty"`
	DeliveredSeq int64 `json:"delivered_seq,omitempty"`
	// Role is the user's: none, member, admin or owner.
	Role        string `json:"role,omitempty"`
	VisibleFrom int64  `json:"visible_from,omitempty"`
	JoinPolicy  string `json:"join_policy,omitempty"`
	HistoryOpen bool   `json:"history_open,omitempty"`

	// PeerReadSeq and PeerDeliveredSeq are how far the other side has read and got it; of direct conversations only.
	PeerReadSeq      int64 `json:"peer_read_seq,omitempty"`
	PeerDeliveredSeq int64 `json:"peer_delivered_seq,omitempty"`
	// LastNo is the number of the last message, ReadNo of messages up to the read marker; -1: not known yet.
	LastNo int64 `json:"last_no,omitempty"`
	ReadNo int64 `json:"read_no,omitempty"`
	// WantRead is a read marker that the server hasn't taken yet; 0: none.
	WantRead int64 `json:"want_read,omitempty"`
}

// DirectID returns the id of the direct conversation of two users.
func DirectID(a, b string) string { return "d/" + min(a, b) + "/" + max(a, b) }

// peerOf returns the other side of a direct conversation; "" for others.
func peerOf(id, me string) string {
	parties, ok := strings.CutPrefix(id, "d/")
	if !ok {
		return ""
	}
	a, b, _ := strings.Cut(parties, "/")
	if a == me {
		return b
	}
	return a
}

// parseConversation reads what a server says of one.
func parseConversation(raw json.RawMessage) (Conversation, error) {
	c := Conversation{LastNo: -1, ReadNo: -1}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, err
	}
	if c.Last != nil {
		c.LastNo = c.Last.MsgNo
		c.ReadNo = c.LastNo - c.Unread
	}
	return c, nil
}

// merge returns what a server's summary makes of what is known: counts that are older than ours don't count.
func (c *Conversation) merge(fresh Conversation) Conversation {
	out := fresh
	out.PeerReadSeq, out.PeerDeliveredSeq, out.WantRead = c.PeerReadSeq, c.PeerDeliveredSeq, c.WantRead
	if fresh.LastSeq < c.LastSeq {
		// It was read before what came meanwhile.
		out.LastSeq, out.LastAt, out.Last, out.LastNo = c.LastSeq, c.LastAt, c.Last, c.LastNo
		out.Unread, out.Mentions, out.FirstMention = c.Unread, c.Mentions, c.FirstMention
		out.ReadSeq, out.ReadNo, out.DeliveredSeq = c.ReadSeq, c.ReadNo, c.DeliveredSeq
		return out
	}
	if fresh.LastSeq == c.LastSeq && c.Last != nil && (fresh.Last == nil || c.Last.ChangedSeq >= fresh.Last.ChangedSeq) {
		out.Last = c.Last
	}
	if c.ReadSeq > fresh.ReadSeq {
		out.read(c.ReadSeq, c.ReadNo)
	}
	return out
}

// read puts the read marker at seq, up to which there are msgNo messages; -1: that isn't known.
func (c *Conversation) read(seq, msgNo int64) {
	if seq <= c.ReadSeq && c.ReadNo >= 0 {
		return
	}
	switch {
	case seq >= c.LastSeq:
		c.ReadNo, c.Unread = c.LastNo, 0
	case msgNo >= 0:
		c.ReadNo = msgNo
		fallthrough
	default:
		if c.ReadNo >= 0 && c.LastNo >= 0 {
			c.Unread = max(0, c.LastNo-c.ReadNo)
		}
	}
	c.ReadSeq, c.DeliveredSeq = max(c.ReadSeq, seq), max(c.DeliveredSeq, seq)
	switch {
	case c.Unread == 0:
		c.Mentions, c.FirstMention = 0, 0
	case c.FirstMention > 0 && c.FirstMention <= seq:
		// Which of several mentions are still ahead the server tells with its next summary.
		c.Mentions, c.FirstMention = min(max(0, c.Mentions-1), c.Unread), 0
	}
}

// follow is what an entry that comes next makes of it.
func (c *Conversation) follow(e *Entry, me string) {
	before := c.LastSeq
	c.LastSeq, c.LastAt = max(c.LastSeq, e.Seq), max(c.LastAt, e.ServerTime)
	mine := slices.Contains(e.Members, me)
	switch e.Kind {
	case KindMessage:
		c.followMessage(e, me)
	case KindCreated, KindInfo:
		if i := e.Info; i != nil {
			set(&c.Title, i.Title)
			set(&c.Avatar, i.Avatar)
			set(&c.Announcement, i.Announcement)
			set(&c.JoinPolicy, i.JoinPolicy)
			set(&c.MuteAll, i.MuteAll)
			set(&c.HistoryOpen, i.HistoryOpen)
		}
	case KindJoined:
		// A summary that was ahead has counted them.
		if e.Seq > before {
			c.Members += int64(len(e.Members))
		}
		if mine && (c.Role == "" || c.Role == "none") {
			c.Role = "member"
		}
	case KindLeft, KindRemoved:
		gone := e.Members
		if e.Kind == KindLeft {
			gone = []string{e.From}
		}
		if e.Seq > before {
			c.Members = max(0, c.Members-int64(len(gone)))
		}
		if slices.Contains(gone, me) {
			c.Role = "none"
		}
	case KindRole:
		if e.Role == "owner" && len(e.Members) > 0 {
			// Who hands it over stays as an admin.
			if c.Role == "owner" && !mine {
				c.Role = "admin"
			}
			c.Owner = e.Members[0]
		}
		if mine {
			c.Role = e.Role
		}
	case KindDissolved:
		c.Dissolved = true
	default:
		if c.Last != nil {
			last := c.Last.Apply(e)
			c.Last = &last
		}
	}
}

func (c *Conversation) followMessage(e *Entry, me string) {
	if c.Last != nil && c.Last.Seq > e.Seq {
		// The summary was ahead of it and has counted it.
		if e.From == me {
			c.read(e.Seq, e.MsgNo)
		}
		return
	}
	counted := c.Last != nil && c.Last.Seq == e.Seq
	if c.ReadNo < 0 {
		c.ReadNo = e.MsgNo - c.Unread
		if !counted {
			c.ReadNo--
		}
	}
	c.LastNo = e.MsgNo
	if !counted || e.ChangedSeq > c.Last.ChangedSeq {
		last := *e
		c.Last = &last
	}
	if e.From == me {
		c.read(e.Seq, e.MsgNo)
		return
	}
	if e.Seq <= c.ReadSeq {
		c.ReadNo, c.Unread = e.MsgNo, 0
		return
	}
	c.Unread = max(0, e.MsgNo-c.ReadNo)
	if !counted && (e.MentionAll || slices.Contains(e.Mentions, me)) {
		c.Mentions++
		if c.FirstMention == 0 {
			c.FirstMention = e.Seq
		}
	}
}

func set[T any](v *T, to *T) {
	if to != nil {
		*v = *to
	}
}
