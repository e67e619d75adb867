package conversation

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"unicode/utf8"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
)

// Longest texts in bytes.
const (
	MaxTitle        = 255
	MaxAvatar       = 1024
	MaxAnnouncement = 16 << 10
	MaxReaction     = 64
	MaxAddress      = 64
)

// Proposal is what somebody wants to be done in a conversation: a record of halley.chat, before it is judged.
type Proposal struct {
	Tenant       string
	Conversation string
	Kind         Kind
	// Sender is the uid; empty: the system, which may do everything.
	Sender string
	// ClientMsgID is the sender's own id of what he asks for, 1 to 64 bytes; all that bear the same one have one outcome.
	// Empty for Marker and FanoutChanged.
	ClientMsgID string
	// AcceptedAtMs is when logic accepted it, milliseconds since 1970.
	AcceptedAtMs int64
	// Imported says that a Message is of the past, brought in by a backend: nobody is woken for it.
	Imported bool
	// Address is where the sender's request came from; empty where that isn't kept.
	Address string
	// Target is the seq of the message that Edit, Recall, Reaction and Pin change.
	Target int64
	// Body is a message's content, opaque here.
	Body   []byte
	Detail Detail
	// ReadSeq and DeliveredSeq are what Marker raises the sender's markers to; 0 leaves one.
	ReadSeq      int64
	DeliveredSeq int64
	// Fanout is what FanoutChanged sets.
	Fanout Fanout
}

// Hash is SHA-256 over all that a proposal asks for: the same client_msg_id with another hash is a conflict.
type Hash [sha256.Size]byte

// Hash returns the hash of what p asks for. When, from where and under which id isn't in it.
func (p *Proposal) Hash() Hash {
	h := sha256.New()
	var head [17]byte
	head[0] = byte(p.Kind)
	binary.BigEndian.PutUint64(head[1:], uint64(p.Target))
	binary.BigEndian.PutUint64(head[9:], uint64(len(p.Body)))
	h.Write(head[:])
	h.Write(p.Body)
	if d := p.Detail.JSON(); d != nil {
		h.Write(d)
	}
	var sum Hash
	h.Sum(sum[:0])
	return sum
}

// JSON returns the detail as it is stored; nil if there is nothing to say.
func (d *Detail) JSON() []byte {
	if d.empty() {
		return nil
	}
	b, err := json.Marshal(d)
	if err != nil {
		// Strings, numbers and bools only: it can't fail.
		panic(err)
	}
	return b
}

// ParseDetail reads what JSON wrote; nothing is the empty detail.
func ParseDetail(b []byte) (Detail, error) {
	var d Detail
	if len(b) == 0 {
		return d, nil
	}
	err := json.Unmarshal(b, &d)
	return d, err
}

// Check reports what is wrong with p by itself, whatever the conversation's state: an error of errcode.InvalidRequest. The
// size of the body is left to who accepts it.
func (p *Proposal) Check(r *Rules) error {
	if err := name.Tenant(p.Tenant); err != nil {
		return err
	}
	if err := CheckID(p.Conversation); err != nil {
		return err
	}
	if p.Sender != "" {
		if err := name.UID(p.Sender); err != nil {
			return err
		}
	}
	if len(p.Address) > MaxAddress {
		return errcode.InvalidRequest.Errorf("address: at most %d bytes", MaxAddress)
	}
	if p.AcceptedAtMs <= 0 {
		return errcode.InvalidRequest.Errorf("accepted_at is missing")
	}
	switch p.Kind {
	case Marker:
		if p.Sender == "" || p.ReadSeq < 0 || p.DeliveredSeq < 0 {
			return errcode.InvalidRequest.Errorf("marker: a user and a seq are needed")
		}
		return nil
	case FanoutChanged:
		if p.Sender != "" || p.Fanout > FanoutJoining {
			return errcode.InvalidRequest.Errorf("fanout: only the system changes it")
		}
		return nil
	}
	if !p.Kind.TakesSeq() {
		return errcode.InvalidRequest.Errorf("no such kind of entry")
	}
	if n := len(p.ClientMsgID); n == 0 || n > MaxClientMsgID || !utf8.ValidString(p.ClientMsgID) {
		return errcode.InvalidRequest.Errorf("client_msg_id: 1 to %d bytes of UTF-8", MaxClientMsgID)
	}
	return p.checkDetail(r)
}

func (p *Proposal) checkDetail(r *Rules) error {
	d := &p.Detail
	switch p.Kind {
	case Message, Edit:
		if err := uids("mentions", d.Mentions, r.MaxMentions); err != nil {
			return err
		}
	case Reaction:
		if n := len(d.Reaction); n == 0 || n > MaxReaction || !utf8.ValidString(d.Reaction) {
			return errcode.InvalidRequest.Errorf("reaction: 1 to %d bytes of UTF-8", MaxReaction)
		}
	case RoleChanged:
		if d.Role < Member || d.Role > Owner || d.Role == Owner && len(d.Members) != 1 {
			return errcode.InvalidRequest.Errorf("role: member or admin, or owner for one")
		}
	case Muted:
		if d.MutedUntilMs < 0 {
			return errcode.InvalidRequest.Errorf("muted_until: a time, or 0")
		}
	case InfoChanged:
		if d.Info == nil {
			return errcode.InvalidRequest.Errorf("info is missing")
		}
	}
	switch p.Kind {
	case Edit, Recall, Reaction, Pin:
		if p.Target <= 0 {
			return errcode.InvalidRequest.Errorf("target: the seq of a message")
		}
	case Joined, Removed, RoleChanged, Muted:
		if len(d.Members) == 0 {
			return errcode.InvalidRequest.Errorf("members are missing")
		}
	case Created:
		if d.Owner != "" {
			if err := name.UID(d.Owner); err != nil {
				return err
			}
		}
	}
	if err := uids("members", d.Members, r.MaxNamed); err != nil {
		return err
	}
	return d.Info.check()
}

func uids(what string, list []string, most int) error {
	if len(list) > most {
		return errcode.InvalidRequest.Errorf("%s: at most %d", what, most)
	}
	for _, u := range list {
		if err := name.UID(u); err != nil {
			return err
		}
	}
	return nil
}

func (i *Info) check() error {
	if i == nil {
		return nil
	}
	for _, f := range []struct {
		name string
		v    *string
		most int
	}{{"title", i.Title, MaxTitle}, {"avatar", i.Avatar, MaxAvatar}, {"announcement", i.Announcement, MaxAnnouncement}} {
		if f.v != nil && (len(*f.v) > f.most || !utf8.ValidString(*f.v)) {
			return errcode.InvalidRequest.Errorf("%s: at most %d bytes of UTF-8", f.name, f.most)
		}
	}
	if i.JoinPolicy != nil && *i.JoinPolicy > JoinOpen {
		return errcode.InvalidRequest.Errorf("join_policy: unknown")
	}
	return nil
}

// apply sets what i says.
func (i *Info) apply(c *Conversation) {
	if i == nil {
		return
	}
	set(&c.Title, i.Title)
	set(&c.Avatar, i.Avatar)
	set(&c.Announcement, i.Announcement)
	set(&c.JoinPolicy, i.JoinPolicy)
	set(&c.MuteAll, i.MuteAll)
	set(&c.HistoryOpen, i.HistoryOpen)
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}
