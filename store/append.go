package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/store/conversation"
)

// Outcome is what became of a proposal.
type Outcome struct {
	// Code is why it was rejected; nil: it is stored, or done where it takes no seq.
	Code *errcode.Code
	// Reason is told with the code; empty: the code's own text.
	Reason string
	// Repeated is whether this is the outcome of an earlier proposal of the same client_msg_id, told again. What follows from it
	// (deliveries, lists by uid) has to be done again too: whoever stored it may have died before he did.
	Repeated bool
	// Seq, MsgNo and AtMs are the entry's place, the number of messages up to it, and its time; Seq 0: there is no entry.
	Seq   int64
	MsgNo int64
	AtMs  int64
	// ChangedSeq is more than Seq if a repeated message was changed meanwhile; Flags say how. What was recalled must not be
	// delivered again.
	ChangedSeq int64
	Flags      conversation.Flags
	// Detail is the entry's: Members are those that it changed.
	Detail conversation.Detail
	// Conversation is the conversation after this proposal; at a repeat, as it is now.
	Conversation conversation.Conversation
	// Members are the rows of members that it changed.
	Members []conversation.Membership
	// Reader is the sender's row after an accepted Marker, also where that changed nothing.
	Reader *conversation.Membership
	// Listings are what the lists by uid must learn, by PutListings, before the proposal counts as done; at repeats too.
	Listings []Listing
}

// Err returns the rejection as an error; nil if it is accepted.
func (o *Outcome) Err() error {
	switch {
	case o.Code == nil:
		return nil
	case o.Reason == "":
		return o.Code
	}
	return &errcode.Error{Code: o.Code, Detail: o.Reason}
}

// Append judges proposals in their order and keeps what is accepted, in one transaction. It returns an outcome for each. The
// proposals may be of many conversations and tenants; 100 to 500 at a time is what the database likes.
//
// One that the database itself refuses (SQLSTATE class 22 or 23), found by halving the batch, is rejected as invalid_request. An
// error is the database's own: some of the batch may be stored, the caller waits and repeats all of it.
func (s *Store) Append(ctx context.Context, proposals []conversation.Proposal) ([]Outcome, error) {
	out := make([]Outcome, len(proposals))
	if len(proposals) == 0 {
		return out, nil
	}
	if err := s.append(ctx, proposals, out); err != nil {
		return nil, err
	}
	for i := range out {
		s.metrics.entries.WithLabelValues(out[i].word()).Inc()
	}
	return out, nil
}

func (o *Outcome) word() string {
	switch {
	case o.Code != nil:
		return "rejected"
	case o.Repeated:
		return "repeated"
	case o.Seq == 0:
		return "done"
	}
	return "stored"
}

// append fills in out, by as many transactions as it takes.
func (s *Store) append(ctx context.Context, ps []conversation.Proposal, out []Outcome) error {
	for n := 1; ; n++ {
		began := time.Now()
		err := s.transact(ctx, func(ctx context.Context, c *conn) error {
			b := batch{c: c, proposals: ps, out: out}
			return b.run(ctx)
		})
		if err == nil {
			s.metrics.transactions.WithLabelValues(resultCommitted).Inc()
			s.metrics.seconds.Observe(time.Since(began).Seconds())
			return nil
		}
		switch faultOf(err) {
		case clash:
			// Another writer was faster. What was read is forgotten, and read again.
			s.metrics.transactions.WithLabelValues(resultClash).Inc()
			if n < tries {
				continue
			}
			// It is there at every try, and isn't seen when it is looked for: the record's own fault after all.
		case deadlocked:
			s.metrics.transactions.WithLabelValues(resultDeadlock).Inc()
			if n < tries {
				continue
			}
			return fmt.Errorf("append: %w", err)
		case records:
			s.metrics.transactions.WithLabelValues(resultRecord).Inc()
		case databases:
			s.metrics.transactions.WithLabelValues(resultDatabase).Inc()
			return fmt.Errorf("append: %w", err)
		}
		if len(ps) == 1 {
			// No need to remember it: the database refuses it every time.
			out[0] = Outcome{Code: errcode.InvalidRequest, Reason: "the database takes no such value"}
			s.log.Warn("entry refused by the database", "conv", ps[0].Conversation, "err", plain(err))
			return nil
		}
		half := len(ps) / 2
		if err := s.append(ctx, ps[:half], out[:half]); err != nil {
			return err
		}
		ps, out = ps[half:], out[half:]
		n = 0
	}
}

// plain is err without the values that the database repeats in its text.
func plain(err error) string {
	if n, ok := mysqlNumber(err); ok {
		return fmt.Sprintf("MySQL error %d", n)
	}
	for next := err; next != nil; next = errors.Unwrap(next) {
		err = next
	}
	return fmt.Sprintf("%T", err)
}

// convKey names a conversation in the cluster.
type convKey struct{ tenant, id string }

func (k convKey) compare(o convKey) int {
	return cmp.Or(cmp.Compare(k.tenant, o.tenant), cmp.Compare(k.id, o.id))
}

// place names an entry.
type place struct {
	convKey
	seq int64
}

// batch is one transaction of Append.
type batch struct {
	c         *conn
	proposals []conversation.Proposal
	out       []Outcome
	states    map[convKey]*conversation.State
	// found are the conversations as they were read; one that is missing had not begun.
	found map[convKey]conversation.Conversation
	keys  []convKey

	entries    [][]any
	mentions   [][]any
	rejections [][]any
	members    map[convKey]map[string]conversation.Membership
	targets    map[place]conversation.Target
	reactions  map[reactionKey]reactionChange
	changes    []change
}

// change is an edit, recall or pin: done one by one, after the entries are in.
type change struct {
	place
	p     *conversation.Proposal
	v     conversation.Verdict
	unpin bool
}

type reactionKey struct {
	place
	reaction, uid string
}

type reactionChange struct {
	seq int64
	off bool
}

func (b *batch) run(ctx context.Context) error {
	s := b.c.s
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"lock", b.lock}, {"read", b.read}, {"judge", b.judge}, {"entries", b.writeEntries}, {"rows", b.writeRows},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if err := s.step(step.name); err != nil {
			return err
		}
	}
	return nil
}

func keyOf(p *conversation.Proposal) convKey { return convKey{p.Tenant, p.Conversation} }

// lock reads and locks the conversations, in the order of their ids: two writers that want the same ones wait for each other
// and don't deadlock.
func (b *batch) lock(ctx context.Context) error {
	b.states, b.found = map[convKey]*conversation.State{}, map[convKey]conversation.Conversation{}
	for i := range b.proposals {
		k := keyOf(&b.proposals[i])
		if b.states[k] == nil {
			b.states[k] = conversation.NewState(k.tenant, k.id)
			b.keys = append(b.keys, k)
		}
	}
	slices.SortFunc(b.keys, convKey.compare)
	args := make([][]any, len(b.keys))
	for i, k := range b.keys {
		args[i] = []any{k.tenant, k.id}
	}
	tail := ""
	if f := b.c.s.dialect.forUpdate; f != "" {
		tail = " ORDER BY tenant, conversation" + f
	}
	return b.c.each(ctx, conversationsTable.selects(), "tenant = ? AND conversation = ?", tail, args, func(r *sql.Rows) error {
		var c conversation.Conversation
		if err := scanConversation(r, &c); err != nil {
			return err
		}
		k := convKey{c.Tenant, c.ID}
		st := b.states[k]
		if st == nil {
			return fmt.Errorf("conversation %s was not asked for", c.ID)
		}
		st.Exists, st.Conversation = true, c
		b.found[k] = c
		return nil
	})
}

// read fills the states with what the judge needs.
func (b *batch) read(ctx context.Context) error {
	var priors, fresh, members, targets [][]any
	type idKey struct {
		convKey
		conversation.Key
	}
	type memberKey struct {
		convKey
		uid string
	}
	ids, uids, seqs := map[idKey]bool{}, map[memberKey]bool{}, map[place]bool{}
	for _, k := range b.keys {
		if !b.states[k].Exists {
			fresh = append(fresh, []any{k.tenant, k.id})
		}
	}
	// What was rejected before the conversation began stays rejected.
	err := b.c.each(ctx, "SELECT tenant, conversation, MAX(rejected_at) FROM rejections", "tenant = ? AND conversation = ?",
		" GROUP BY tenant, conversation", fresh, func(r *sql.Rows) error {
			var k convKey
			var at int64
			if err := r.Scan(&k.tenant, &k.id, &at); err != nil {
				return err
			}
			b.states[k].Conversation.RejectedAtMs = at
			return nil
		})
	if err != nil {
		return err
	}
	var rejected [][]any
	for i := range b.proposals {
		p := &b.proposals[i]
		k := keyOf(p)
		st := b.states[k]
		if id := (idKey{k, p.Key()}); p.Kind.TakesSeq() && !ids[id] {
			ids[id] = true
			key := []any{k.tenant, k.id, p.Sender, p.ClientMsgID}
			if st.Exists {
				priors = append(priors, key)
			}
			if st.Conversation.RejectedAtMs > 0 {
				rejected = append(rejected, key)
			}
		}
		who, seq := st.Needs(p)
		for _, uid := range who {
			if m := (memberKey{k, uid}); !uids[m] {
				uids[m] = true
				members = append(members, []any{k.tenant, k.id, uid})
			}
		}
		if t := (place{k, seq}); seq > 0 && seq <= st.Conversation.LastSeq && !seqs[t] {
			seqs[t] = true
			targets = append(targets, []any{k.tenant, k.id, seq})
		}
	}
	const byID = "tenant = ? AND conversation = ? AND sender = ? AND client_msg_id = ?"
	if err := b.c.each(ctx, "SELECT tenant, conversation, sender, client_msg_id, hash, seq, msg_no, accepted_at, changed_seq, flags FROM entries", byID, "",
		priors, func(r *sql.Rows) error {
			var id idKey
			var f conversation.First
			var hash []byte
			if err := r.Scan(&id.tenant, &id.id, &id.Sender, &id.ClientMsgID, &hash, &f.Seq, &f.MsgNo, &f.AtMs, &f.ChangedSeq, &f.Flags); err != nil {
				return err
			}
			copy(f.Hash[:], hash)
			b.states[id.convKey].Outcomes[id.Key] = f
			return nil
		}); err != nil {
		return err
	}
	if err := b.c.each(ctx, rejectionsTable.selects(), byID, "", rejected, func(r *sql.Rows) error {
		var id idKey
		var f conversation.First
		var hash []byte
		if err := r.Scan(&id.tenant, &id.id, &id.Sender, &id.ClientMsgID, &hash, &f.Code, &f.Detail, &f.AtMs); err != nil {
			return err
		}
		copy(f.Hash[:], hash)
		b.states[id.convKey].Outcomes[id.Key] = f
		return nil
	}); err != nil {
		return err
	}
	if err := b.c.each(ctx, membersTable.selects(), "tenant = ? AND conversation = ? AND uid = ?", "", members, func(r *sql.Rows) error {
		var k convKey
		var m conversation.Membership
		if err := scanMember(r, &k.tenant, &k.id, &m); err != nil {
			return err
		}
		b.states[k].Members[m.UID] = m
		return nil
	}); err != nil {
		return err
	}
	return b.c.each(ctx, "SELECT tenant, conversation, seq, kind, sender, msg_no, changed_seq, accepted_at, flags FROM entries",
		"tenant = ? AND conversation = ? AND seq = ?", "", targets, func(r *sql.Rows) error {
			var k convKey
			var t conversation.Target
			if err := r.Scan(&k.tenant, &k.id, &t.Seq, &t.Kind, &t.Sender, &t.MsgNo, &t.ChangedSeq, &t.AtMs, &t.Flags); err != nil {
				return err
			}
			b.states[k].Targets[t.Seq] = t
			return nil
		})
}

// judge asks for a verdict on each proposal and collects the rows that follow from it.
func (b *batch) judge(context.Context) error {
	b.members = map[convKey]map[string]conversation.Membership{}
	b.targets = map[place]conversation.Target{}
	b.reactions = map[reactionKey]reactionChange{}
	for i := range b.proposals {
		p := &b.proposals[i]
		k := keyOf(p)
		st := b.states[k]
		v := conversation.Judge(st, p, &b.c.s.cfg.Rules)
		b.out[i] = outcome(k, &v)
		if !v.Repeated {
			b.collect(k, st, p, &v)
		}
		st.Apply(p, &v)
	}
	return nil
}

func outcome(k convKey, v *conversation.Verdict) Outcome {
	o := Outcome{
		Code: v.Code, Reason: v.Reason, Repeated: v.Repeated, Seq: v.Seq, MsgNo: v.MsgNo, AtMs: v.AtMs, ChangedSeq: v.ChangedSeq,
		Flags: v.Flags, Detail: v.Detail, Conversation: v.Next, Members: v.Members, Reader: v.Reader,
	}
	for _, m := range v.Listings {
		o.Listings = append(o.Listings, Listing{
			Tenant: k.tenant, UID: m.UID, Conversation: k.id, Role: m.Role, JoinedSeq: m.JoinedSeq, ChangedSeq: m.ChangedSeq,
		})
	}
	return o
}

// collect notes the rows of a verdict that changes something; st is the state before it.
func (b *batch) collect(k convKey, st *conversation.State, p *conversation.Proposal, v *conversation.Verdict) {
	if v.Code != nil {
		if v.Remember {
			b.rejections = append(b.rejections, []any{k.tenant, k.id, p.Sender, p.ClientMsgID, v.Hash[:], v.Code.Name, v.Reason, v.AtMs})
		}
		return
	}
	for _, m := range v.Members {
		if b.members[k] == nil {
			b.members[k] = map[string]conversation.Membership{}
		}
		b.members[k][m.UID] = m
	}
	if v.Seq == 0 {
		return
	}
	body := p.Body
	if p.Kind == conversation.Edit {
		body = nil
	}
	b.entries = append(b.entries, []any{
		k.tenant, k.id, v.Seq, p.Kind, p.Sender, p.ClientMsgID, v.Hash[:], v.MsgNo, v.Seq, p.Target, 0, v.AtMs,
		bytesOrNull(body), entryDetail(p, v), textOrNull(p.Address),
	})
	if p.Kind == conversation.Message {
		b.mentions = append(b.mentions, mentionRows(k, v.Seq, &v.Detail)...)
	}
	if v.Target == nil {
		return
	}
	at := place{k, v.Target.Seq}
	was := st.Targets[v.Target.Seq].Flags
	b.targets[at] = *v.Target
	if p.Kind == conversation.Reaction {
		b.reactions[reactionKey{at, p.Detail.Reaction, p.Sender}] = reactionChange{v.Seq, p.Detail.Off}
		return
	}
	b.changes = append(b.changes, change{place: at, p: p, v: *v, unpin: was.Has(conversation.Pinned) && !v.Target.Flags.Has(conversation.Pinned)})
}

// entryDetail is what the entry's own row says. An edit's is in the message's row, as its body is: a recall empties both.
func entryDetail(p *conversation.Proposal, v *conversation.Verdict) any {
	if p.Kind == conversation.Edit {
		return nil
	}
	return bytesOrNull(v.Detail.JSON())
}

func mentionRows(k convKey, seq int64, d *conversation.Detail) [][]any {
	var rows [][]any
	told := map[string]bool{}
	for _, uid := range d.Mentions {
		if !told[uid] {
			told[uid] = true
			rows = append(rows, []any{k.tenant, k.id, uid, seq})
		}
	}
	if d.MentionAll {
		rows = append(rows, []any{k.tenant, k.id, "", seq})
	}
	return rows
}

// writeEntries inserts what must not be there yet: a unique clash is another writer.
func (b *batch) writeEntries(ctx context.Context) error {
	var began [][]any
	for _, k := range b.keys {
		if _, ok := b.found[k]; !ok && b.states[k].Exists {
			began = append(began, conversationRow(&b.states[k].Conversation))
		}
	}
	if err := conversationsTable.add(ctx, b.c, began); err != nil {
		return err
	}
	if err := entriesTable.add(ctx, b.c, b.entries); err != nil {
		return err
	}
	if err := rejectionsTable.add(ctx, b.c, b.rejections); err != nil {
		return err
	}
	return b.overtaken(ctx)
}

// writeRows writes the rows that the locked conversations guard.
func (b *batch) writeRows(ctx context.Context) error {
	var convs, members [][]any
	for _, k := range b.keys {
		now := &b.states[k].Conversation
		if was, ok := b.found[k]; ok && was != *now {
			convs = append(convs, conversationRow(now))
		}
		for _, uid := range sorted(b.members[k]) {
			m := b.members[k][uid]
			members = append(members, memberRow(k.tenant, k.id, &m))
		}
	}
	if err := conversationsTable.put(ctx, b.c, convs); err != nil {
		return err
	}
	if err := membersTable.put(ctx, b.c, members); err != nil {
		return err
	}
	if err := mentionsTable.put(ctx, b.c, b.mentions); err != nil {
		return err
	}
	for i := range b.changes {
		if err := b.writeChange(ctx, &b.changes[i]); err != nil {
			return err
		}
	}
	return b.writeTargets(ctx)
}

// sorted returns the keys of m in order, for a stable order of locks.
func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

const atPlace = " WHERE tenant = ? AND conversation = ? AND seq = ?"

func (b *batch) writeChange(ctx context.Context, ch *change) error {
	c := b.c
	exec := func(text string, args ...any) error {
		_, err := c.exec(ctx, text, append(args, ch.tenant, ch.id, ch.seq)...)
		return err
	}
	if ch.unpin {
		if err := exec("DELETE FROM pins" + atPlace); err != nil {
			return err
		}
	}
	if ch.p.Kind == conversation.Pin {
		if ch.p.Detail.Off {
			return nil
		}
		return pinsTable.put(ctx, c, [][]any{{ch.tenant, ch.id, ch.seq, ch.v.Seq, ch.p.Sender, ch.v.AtMs}})
	}
	if err := exec("INSERT INTO audit (tenant, conversation, seq, changed_seq, kind, changed_by, changed_at, body, detail)"+
		" SELECT tenant, conversation, seq, ?, ?, ?, ?, body, detail FROM entries"+atPlace,
		ch.v.Seq, ch.p.Kind, ch.p.Sender, ch.v.AtMs); err != nil {
		return err
	}
	var body, detail any
	if ch.p.Kind == conversation.Edit {
		body, detail = bytesOrNull(ch.p.Body), bytesOrNull(ch.p.Detail.JSON())
	}
	if err := exec("UPDATE entries SET body = ?, detail = ?"+atPlace, body, detail); err != nil {
		return err
	}
	if err := exec("DELETE FROM mentions" + atPlace); err != nil {
		return err
	}
	if ch.p.Kind == conversation.Edit {
		return mentionsTable.put(ctx, c, mentionRows(ch.convKey, ch.seq, &ch.p.Detail))
	}
	return nil
}

// writeTargets writes the last state of each message that was changed, and the reactions.
func (b *batch) writeTargets(ctx context.Context) error {
	for at, t := range b.targets {
		if _, err := b.c.exec(ctx, "UPDATE entries SET changed_seq = ?, flags = ?"+atPlace, t.ChangedSeq, t.Flags, at.tenant, at.id, at.seq); err != nil {
			return err
		}
	}
	var given [][]any
	for k, ch := range b.reactions {
		if !ch.off {
			given = append(given, []any{k.tenant, k.id, k.seq, k.reaction, k.uid, ch.seq})
			continue
		}
		if _, err := b.c.exec(ctx, "DELETE FROM reactions"+atPlace+" AND reaction = ? AND uid = ?", k.tenant, k.id, k.seq, k.reaction, k.uid); err != nil {
			return err
		}
	}
	return reactionsTable.put(ctx, b.c, given)
}
