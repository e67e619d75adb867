package sequence

import (
	"time"

	"github.com/halley-im/halley/kit/logs"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// markerLife is for how long a marker is worth telling the others: they find it when they ask for members.
const markerLife = 5 * time.Second

// marker is one that was accepted.
type marker struct {
	p *conversation.Proposal
	o *store.Outcome
}

// marked tells of an accepted marker, or leaves that to the change of the reader's own that follows from it, which the batch takes.
// That is stored after the conversation and before the record's offset is passed, as lists are; at repeats too, for who stored the
// marker may have died before it.
func (t *teller) marked(src *source, p *conversation.Proposal, o *store.Outcome) {
	m := &marker{p, o}
	if u, ok := wire.ReadChange(p, o); ok {
		t.b.changes = append(t.b.changes, u)
		t.b.changers = append(t.b.changers, source{src.rec, src.seq, m})
		return
	}
	t.told = t.told[:0]
	defer t.end(src)
	t.others(src, m)
}

// others tells the others of a marker: the one of a direct conversation, in a group those who have it open.
func (t *teller) others(src *source, m *marker) {
	to, except := []*halleyv1.Target(nil), []string(nil)
	if id := m.p.Conversation; conversation.TypeOf(id) == conversation.Group {
		to = []*halleyv1.Target{{Target: &halleyv1.Target_Room{Room: name.OpenRoom(id)}}}
		except = []string{m.p.Sender}
	} else {
		for _, uid := range conversation.Parties(id) {
			if uid != m.p.Sender {
				to = append(to, toUID(uid))
			}
		}
	}
	body, err := wire.MarkerEvent(m.p, m.o)
	switch {
	case err != nil:
		t.h.log.Error("event not encoded", logs.Err, err) // numbers and checked names
		return
	case body == nil || len(to) == 0:
		return
	}
	t.told = append(t.told, told{rec: &halleyv1.PushRecord{
		Id: src.rec.GetId(), Tenant: src.rec.GetTenant(), Class: halleyv1.Class_CLASS_VOLATILE, Targets: to, ExcludeUids: except,
		AcceptedAtMs: src.rec.GetAcceptedAtMs(), ExpiresAtMs: time.Now().Add(markerLife).UnixMilli(),
		Content: &halleyv1.PushRecord_Push{Push: &halleyv1.Push{Op: wire.EventOp, Body: body}},
	}})
}
