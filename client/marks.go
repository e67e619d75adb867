package client

import (
	"encoding/json"

	"github.com/halley-im/halley/proto/frame"
)

type markParams struct {
	Conversation string `json:"conversation"`
	ReadSeq      int64  `json:"read_seq,omitempty"`
	DeliveredSeq int64  `json:"delivered_seq,omitempty"`
}

// mark tells the server how far this user is.
func (ch *Chat) mark(t *talk) {
	if t.marking || !ch.online() {
		return
	}
	p := markParams{Conversation: t.ID}
	if t.WantRead > t.toldRead {
		p.ReadSeq = t.WantRead
	}
	direct := peerOf(t.ID, ch.uid) != "" && ch.o.DeliveredAfter >= 0
	if direct && !t.markTimer.waiting() && t.log.have > max(t.toldDelivered, t.toldRead, t.WantRead, t.DeliveredSeq) {
		p.DeliveredSeq = t.log.have
	}
	if p.ReadSeq == 0 && p.DeliveredSeq == 0 {
		return
	}
	t.marking = true
	ch.ask("conversation.read", p, frame.OpRequest, func(_ json.RawMessage, err error) {
		t.marking = false
		if ch.talks[t.ID] != t {
			return
		}
		if err != nil {
			if e := asError(err); e.Retry || e.ofToken() {
				if !t.markTimer.waiting() {
					t.markTimer = ch.loop.after(ch.wait(3, e), func() { ch.mark(t) })
				}
				return
			}
		}
		t.toldRead = max(t.toldRead, p.ReadSeq)
		t.toldDelivered = max(t.toldDelivered, p.DeliveredSeq, t.toldRead)
		if t.WantRead > 0 && t.WantRead <= t.toldRead {
			t.WantRead = 0
			ch.update(t)
		}
		ch.mark(t)
	})
}

type marker struct {
	Conversation string `json:"conversation"`
	UID          string `json:"uid"`
	ReadSeq      int64  `json:"read_seq"`
	DeliveredSeq int64  `json:"delivered_seq"`
	ReadMsgNo    *int64 `json:"read_msg_no"`
}

func (ch *Chat) marker(m marker) {
	t := ch.talks[m.Conversation]
	switch {
	case t == nil:
	case m.UID == ch.uid:
		ch.ownRead(t, m.ReadSeq, m.ReadMsgNo)
	case m.UID == peerOf(t.ID, ch.uid):
		read := max(t.PeerReadSeq, m.ReadSeq)
		got := max(t.PeerDeliveredSeq, read, m.DeliveredSeq)
		if read == t.PeerReadSeq && got == t.PeerDeliveredSeq {
			return
		}
		t.PeerReadSeq, t.PeerDeliveredSeq = read, got
		ch.update(t)
		ch.progress(t)
	}
}

// ownRead: another device of the user's has read up to seq.
func (ch *Chat) ownRead(t *talk, seq int64, msgNo *int64) {
	if seq <= t.ReadSeq {
		return
	}
	t.toldRead = max(t.toldRead, seq)
	done := func(no int64) {
		t.read(seq, no)
		ch.update(t)
	}
	switch {
	case msgNo != nil:
		done(*msgNo)
	case seq >= t.LastSeq:
		done(-1)
	default:
		// How many messages there are up to it only the entry tells.
		ch.history(Range{Conversation: t.ID, From: seq, To: seq, Limit: 1}, func(list []Entry, err error) {
			no := int64(-1)
			if err == nil && len(list) > 0 {
				no = list[0].MsgNo
			}
			done(no)
		})
	}
}

// peers asks how far the other side of direct conversations is, of one after the other.
func (ch *Chat) peers(ids []string) {
	if len(ids) == 0 || !ch.online() {
		return
	}
	id := ids[0]
	ch.ask("conversation.members", map[string]string{"conversation": id}, frame.OpRequestUnordered, func(raw json.RawMessage, err error) {
		var page struct {
			Members []marker `json:"members"`
		}
		defer ch.peers(ids[1:])
		if err != nil || json.Unmarshal(raw, &page) != nil {
			return
		}
		for _, m := range page.Members {
			if m.UID != ch.uid {
				m.Conversation = id
				ch.marker(m)
			}
		}
	})
}
