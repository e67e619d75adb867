package sequence

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/job/internal/deliver"
	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// teller collects in a round what is to be told of a batch.
type teller struct {
	h    *handler
	r    *round
	b    *batch
	rows map[place]*store.Entry
	who  *audience
	// standing is what those are now that repeated entries are about.
	standing map[place][]conversation.Membership
	told     []told // of one record
}

// told is a delivery.
type told struct {
	rec *halleyv1.PushRecord
	// waiting counts until it is acknowledged.
	waiting []*atomic.Int32
	// absence watches whom it does not reach. Nil: nothing does.
	absence *absence
}

// proposal tells of a proposal's outcome; listed are the outcomes of its listings.
func (t *teller) proposal(src *source, p *conversation.Proposal, o *store.Outcome, listed []store.ChangeOutcome) {
	t.outcome(src, o.Err(), o.Seq, o.AtMs)
	if p.Kind == conversation.Marker && o.Code == nil {
		t.marked(src, p, o)
		return
	}
	t.told = t.told[:0]
	defer t.end(src)
	if o.Code != nil {
		t.rejected(src, p, o)
		return
	}
	if o.Conversation.LastSeq > 0 {
		t.r.marks.Seq(p.Tenant, p.Conversation, o.Conversation.LastSeq)
	}
	// New members hear of the conversation before the entry, which is of one that they don't know; those who go after it, when they no
	// longer know it.
	t.listed(src, o, listed, false)
	if o.Seq > 0 {
		t.entry(src, p, o)
	}
	t.listed(src, o, listed, true)
}

// listed tells who is on the list now, or who is off it.
func (t *teller) listed(src *source, o *store.Outcome, listed []store.ChangeOutcome, off bool) {
	for i := range listed {
		if l := &o.Listings[i]; off == (l.Role == conversation.None) {
			t.changed(src, &listed[i], wire.Listed(l, listed[i].Number))
		}
	}
}

// entry tells of an entry.
func (t *teller) entry(src *source, p *conversation.Proposal, o *store.Outcome) {
	id := idOf(p)
	e := t.rows[place{id, o.Seq}]
	if e == nil {
		e = entryOf(p, o)
	}
	body, err := wire.StoredEvent(p.Conversation, e)
	fanout := fanoutOf(p, o)
	if fanout == conversation.FanoutUID {
		t.toEach(src, id, e, body, err, t.who.of(p, o, e))
		if leaves(p.Kind) {
			// A session may still be in the room of when the group was larger, or have been put in by a sync that had read so: who goes must
			// not be there when the group is large again.
			if _, out := moved(o, t.standing[place{id, o.Seq}]); len(out) > 0 {
				t.told = append(t.told, told{rec: putOut(id, out, src.rec.GetAcceptedAtMs())})
			}
		}
		return
	}
	// Who comes is in the room before the entry, who goes is out of it before the next one.
	r, at := t.h.room(id), conversation.Room(p.Conversation)
	in, out := moved(o, t.standing[place{id, o.Seq}])
	if len(in) > 0 {
		r.waiting.Add(1)
		rec := control(id, &halleyv1.RoomsChange{Join: []string{at}}, in, src.rec.GetAcceptedAtMs())
		t.told = append(t.told, told{rec: rec, waiting: []*atomic.Int32{r.note(time.Now(), in, true), &r.waiting}})
	}
	if fanout == conversation.FanoutJoining {
		t.toEach(src, id, e, body, err, t.who.of(p, o, e))
	} else {
		to, except := t.who.toRoom(p, o, e, r)
		t.tell(src, body, err, to, except)
	}
	if len(out) > 0 {
		rec := putOut(id, out, src.rec.GetAcceptedAtMs())
		t.told = append(t.told, told{rec: rec, waiting: []*atomic.Int32{r.note(time.Now(), out, false)}})
	}
}

// toEach tells of an entry those who are looked up one by one, and has it watched whom it does not reach.
func (t *teller) toEach(src *source, id store.ID, e *store.Entry, body []byte, err error, to []*halleyv1.Target) {
	n := len(t.told)
	t.tell(src, body, err, to, nil)
	if len(t.told) > n && !src.rec.GetImported() {
		t.told[n].absence = t.h.absence(id, e)
	}
}

// rejected tells the sender. Nobody waits for what becomes of markers.
func (t *teller) rejected(src *source, p *conversation.Proposal, o *store.Outcome) {
	if p.Kind == conversation.Marker || name.UID(p.Sender) != nil {
		return
	}
	body, err := wire.RejectedEvent(p.Conversation, p.ClientMsgID, o.Err())
	t.tell(src, body, err, []*halleyv1.Target{toUID(p.Sender)}, nil)
}

// userChange tells of a user change's outcome.
func (t *teller) userChange(src *source, u *store.UserChange, o *store.ChangeOutcome) {
	t.told = t.told[:0]
	defer t.end(src)
	var err error
	if o.Code != nil {
		err = &errcode.Error{Code: o.Code, Detail: o.Reason}
	}
	if src.marker == nil {
		t.outcome(src, err, o.Number, u.AtMs)
	}
	if err == nil {
		c := *u
		c.Number = o.Number
		t.changed(src, o, c)
	}
	if src.marker != nil {
		t.others(src, src.marker)
	}
}

// changed tells a user of a change. One that came too late isn't told: the newer one is, by its own record.
func (t *teller) changed(src *source, o *store.ChangeOutcome, u store.UserChange) {
	if o.Code != nil {
		// What was stored is in order: that its list isn't can't be.
		t.h.log.Error("list of a user refused", logs.UID, u.UID, logs.Conv, u.Object, "code", o.Code.Name)
		return
	}
	t.r.marks.Change(u.Tenant, u.UID, o.Number)
	if !o.Applied && !o.Repeated {
		return
	}
	body, err := wire.UserChangeEvent(&u)
	t.tell(src, body, err, []*halleyv1.Target{toUID(u.UID)}, nil)
}

func (t *teller) tell(src *source, body []byte, err error, to []*halleyv1.Target, except []string) {
	if len(to) == 0 {
		return
	}
	if err != nil {
		// Bodies were checked when the record was decoded.
		t.h.log.Error("event not encoded", logs.Err, err)
		return
	}
	t.told = append(t.told, told{rec: &halleyv1.PushRecord{
		Id: src.rec.GetId(), Tenant: src.rec.GetTenant(), Class: halleyv1.Class_CLASS_STORED, Targets: to, AcceptedAtMs: src.rec.GetAcceptedAtMs(),
		ExcludeUids: except,
		Content:     &halleyv1.PushRecord_Push{Push: &halleyv1.Push{Op: wire.EventOp, Body: body}},
	}})
}

// outcome notes what becomes of a record that somebody waits for.
func (t *teller) outcome(src *source, rejected error, seq, atMs int64) {
	if !src.rec.GetOutcome() {
		return
	}
	o := &halleyv1.ChatOutcome{Seq: seq, AtMs: atMs}
	if rejected != nil {
		o = &halleyv1.ChatOutcome{Error: errcode.Proto(rejected)}
	}
	value, err := proto.Marshal(o)
	if err != nil {
		t.h.log.Error("outcome not encoded", logs.Err, err)
		return
	}
	t.r.outcomes = append(t.r.outcomes, outcome{wire.OutcomeKey(t.h.Prefix, src.rec.GetId()), value})
}

// end makes items of what was told of a record.
func (t *teller) end(src *source) {
	owner := t.h.owner
	switch n := len(t.told); n {
	case 0:
		t.r.done = append(t.r.done, src.seq)
		return
	case 1:
	default:
		s := &several{owner: owner}
		s.open.Store(int32(n))
		owner = s
	}
	for _, d := range t.told {
		by := owner
		switch {
		case d.waiting != nil:
			by = &waited{Owner: owner, waiting: d.waiting}
		case d.absence != nil:
			d.absence.owner, by = owner, d.absence
		}
		item := t.h.Lane.NewItem(d.rec, by, src.seq)
		if d.absence != nil {
			d.absence.item = item
		}
		t.r.items = append(t.r.items, item)
		t.r.targets += len(d.rec.GetTargets())
	}
}

// several is the owner of a record's items where there are several: the record is done when all of them are.
type several struct {
	owner deliver.Owner
	open  atomic.Int32
}

// Done is called once for each item.
func (s *several) Done(seq uint64) {
	if s.open.Add(-1) == 0 {
		s.owner.Done(seq)
	}
}

// Lost is the owner's.
func (s *several) Lost() bool { return s.owner.Lost() }

// place names an entry.
type place struct {
	store.ID
	seq int64
}

// entryOf returns the entry that a proposal has become.
func entryOf(p *conversation.Proposal, o *store.Outcome) *store.Entry {
	return &store.Entry{
		Seq: o.Seq, Kind: p.Kind, Sender: p.Sender, ClientMsgID: p.ClientMsgID, MsgNo: o.MsgNo, ChangedSeq: max(o.Seq, o.ChangedSeq),
		Target: p.Target, Flags: o.Flags, AtMs: o.AtMs, Body: p.Body, Detail: o.Detail,
	}
}

// nearby is how far two entries may be apart to be read together.
const nearby = 8

// mostEntries is the most entries that are read at once.
const mostEntries = 200

// rows reads the entries of repeated proposals that may be something else by now than what was proposed: what was recalled
// must not be told again. False if ctx ended first.
func (h *handler) rows(ctx context.Context, b *batch, outcomes []store.Outcome) (map[place]*store.Entry, bool) {
	var wanted map[store.ID][]int64
	for i := range outcomes {
		p, o := &b.proposals[i], &outcomes[i]
		// A message that nothing has changed is as it was proposed: after a crash that is nearly all there is.
		if !o.Repeated || o.Code != nil || o.Seq == 0 || p.Kind == conversation.Message && o.ChangedSeq == o.Seq {
			continue
		}
		if wanted == nil {
			wanted = map[store.ID][]int64{}
		}
		wanted[idOf(p)] = append(wanted[idOf(p)], o.Seq)
	}
	rows := map[place]*store.Entry{}
	for id, seqs := range wanted {
		slices.Sort(seqs)
		for len(seqs) > 0 {
			n := 1
			for n < len(seqs) && seqs[n]-seqs[n-1] <= nearby && seqs[n]-seqs[0] < mostEntries {
				n++
			}
			from, to := seqs[0], seqs[n-1]
			seqs = seqs[n:]
			list, ok := insist(ctx, h, "entries", func(ctx context.Context) ([]store.Entry, error) {
				return h.Store.Entries(ctx, id.Tenant, id.Conversation, from, to, int(to-from+1))
			})
			if !ok {
				return nil, false
			}
			for i := range list {
				rows[place{id, list[i].Seq}] = &list[i]
			}
		}
	}
	return rows, true
}
