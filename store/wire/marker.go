package wire

import (
	"encoding/json"

	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

type readJSON struct {
	ReadSeq   int64 `json:"read_seq"`
	ReadMsgNo int64 `json:"read_msg_no"`
}

// ReadChange returns the change of a user's own that follows from his accepted marker, for his other devices; false if none does: it
// moved what was delivered alone, or the reader is further by now. It is to be stored again at a repeat, where the same one changes
// nothing.
func ReadChange(p *conversation.Proposal, o *store.Outcome) (store.UserChange, bool) {
	m := o.Reader
	if m == nil || p.ReadSeq == 0 || m.ReadSeq != p.ReadSeq {
		return store.UserChange{}, false
	}
	// Numbers: it can't fail.
	value, _ := json.Marshal(readJSON{m.ReadSeq, m.ReadMsgNo})
	// The guard is the seq: an older marker can't undo a newer one.
	return store.UserChange{
		Tenant: p.Tenant, UID: p.Sender, Kind: store.ChangeRead, Object: p.Conversation, Guard: m.ReadSeq, AtMs: p.AcceptedAtMs, Value: value,
	}, true
}

type markerJSON struct {
	Conversation string `json:"conversation"`
	UID          string `json:"uid"`
	ReadSeq      int64  `json:"read_seq,omitempty"`
	DeliveredSeq int64  `json:"delivered_seq,omitempty"`
	ReadMsgNo    *int64 `json:"read_msg_no,omitempty"`
}

// MarkerEvent returns the body of the frame that tells the others of an accepted marker; nil if it is old news.
func MarkerEvent(p *conversation.Proposal, o *store.Outcome) ([]byte, error) {
	m := o.Reader
	if m == nil {
		return nil, nil
	}
	e := markerJSON{Conversation: p.Conversation, UID: p.Sender}
	if p.ReadSeq > 0 && m.ReadSeq == p.ReadSeq {
		e.ReadSeq, e.ReadMsgNo = m.ReadSeq, &m.ReadMsgNo
	}
	if p.DeliveredSeq > 0 && m.DeliveredSeq == p.DeliveredSeq {
		e.DeliveredSeq = m.DeliveredSeq
	}
	if e.ReadSeq == 0 && e.DeliveredSeq == 0 {
		return nil, nil
	}
	return json.Marshal(eventJSON{Marker: &e})
}
