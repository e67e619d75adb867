package store

import (
	"database/sql"
	"fmt"

	"github.com/halley-im/halley/store/conversation"
)

// The tables, each with its key's columns first.
var (
	conversationsTable = table{"conversations", []string{
		"tenant", "conversation", "type", "dissolved", "title", "avatar", "announcement", "owner", "join_policy", "mute_all", "history_open",
		"fanout", "members", "last_seq", "last_msg_no", "last_msg_seq", "last_at", "last_msg_at", "rejected_at", "created_at", "created_by",
	}, 2}
	membersTable = table{"members", []string{
		"tenant", "conversation", "uid", "role", "joined_seq", "changed_seq", "read_seq", "read_msg_no", "delivered_seq", "muted_until",
		"joined_at", "invited_by",
	}, 3}
	entriesTable = table{"entries", []string{
		"tenant", "conversation", "seq", "kind", "sender", "client_msg_id", "hash", "msg_no", "changed_seq", "target_seq", "flags",
		"accepted_at", "body", "detail", "address",
	}, 3}
	rejectionsTable = table{"rejections", []string{
		"tenant", "conversation", "sender", "client_msg_id", "hash", "code", "reason", "rejected_at",
	}, 4}
	mentionsTable  = table{"mentions", []string{"tenant", "conversation", "uid", "seq"}, 4}
	reactionsTable = table{"reactions", []string{"tenant", "conversation", "seq", "reaction", "uid", "changed_seq"}, 5}
	pinsTable      = table{"pins", []string{"tenant", "conversation", "seq", "changed_seq", "pinned_by", "pinned_at"}, 3}
)

// Entry is a stored entry: a message as it is now, or a change.
type Entry struct {
	Seq  int64
	Kind conversation.Kind
	// Sender is empty for the system.
	Sender      string
	ClientMsgID string
	// MsgNo is the number of messages up to it and including it.
	MsgNo int64
	// ChangedSeq is the last entry that changed this one; its own seq if there is none. Changes up to it are in the row.
	ChangedSeq int64
	// Target is the seq of the message that it changes; 0: none.
	Target int64
	Flags  conversation.Flags
	AtMs   int64
	// Body and Detail of a message are as the last edit left them, empty after a recall. An edit's are those of its message, as
	// they are now.
	Body   []byte
	Detail conversation.Detail
	// Address is where the sender was, where that is kept; for administrators alone.
	Address string
	// Reactions are those to a message, in no order.
	Reactions []Reaction
}

// Reaction is one reaction to a message.
type Reaction struct {
	Reaction string
	// Count is how many gave it.
	Count int64
	// UIDs are who gave it. Fewer than Count where a message has very many reactions: Reactors lists them in pages.
	UIDs []string
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func conversationRow(c *conversation.Conversation) []any {
	return []any{
		c.Tenant, c.ID, c.Type, b2i(c.Dissolved), c.Title, c.Avatar, c.Announcement, c.Owner, c.JoinPolicy, b2i(c.MuteAll), b2i(c.HistoryOpen),
		c.Fanout, c.Members, c.LastSeq, c.LastMsgNo, c.LastMsgSeq, c.LastAtMs, c.LastMsgAtMs, c.RejectedAtMs, c.CreatedAtMs, c.CreatedBy,
	}
}

func scanConversation(r *sql.Rows, c *conversation.Conversation) error {
	return r.Scan(
		&c.Tenant, &c.ID, &c.Type, &c.Dissolved, &c.Title, &c.Avatar, &c.Announcement, &c.Owner, &c.JoinPolicy, &c.MuteAll, &c.HistoryOpen,
		&c.Fanout, &c.Members, &c.LastSeq, &c.LastMsgNo, &c.LastMsgSeq, &c.LastAtMs, &c.LastMsgAtMs, &c.RejectedAtMs, &c.CreatedAtMs, &c.CreatedBy,
	)
}

func memberRow(tenant, conv string, m *conversation.Membership) []any {
	return []any{
		tenant, conv, m.UID, m.Role, m.JoinedSeq, m.ChangedSeq, m.ReadSeq, m.ReadMsgNo, m.DeliveredSeq, m.MutedUntilMs, m.JoinedAtMs, m.InvitedBy,
	}
}

func scanMember(r *sql.Rows, tenant, conv *string, m *conversation.Membership) error {
	return r.Scan(
		tenant, conv, &m.UID, &m.Role, &m.JoinedSeq, &m.ChangedSeq, &m.ReadSeq, &m.ReadMsgNo, &m.DeliveredSeq, &m.MutedUntilMs, &m.JoinedAtMs,
		&m.InvitedBy,
	)
}

const entrySelect = "SELECT conversation, seq, kind, sender, client_msg_id, msg_no, changed_seq, target_seq, flags, accepted_at, body, detail, address FROM entries"

func scanEntry(r *sql.Rows, conv *string, e *Entry) error {
	var detail []byte
	var address sql.NullString
	if err := r.Scan(
		conv, &e.Seq, &e.Kind, &e.Sender, &e.ClientMsgID, &e.MsgNo, &e.ChangedSeq, &e.Target, &e.Flags, &e.AtMs, &e.Body, &detail, &address,
	); err != nil {
		return err
	}
	e.Address = address.String
	var err error
	if e.Detail, err = conversation.ParseDetail(detail); err != nil {
		return fmt.Errorf("detail of %s %d: %w", *conv, e.Seq, err)
	}
	return nil
}

// bytesOrNull keeps an empty value from being told apart from none.
func bytesOrNull(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

func textOrNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
