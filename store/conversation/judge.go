package conversation

import (
	"slices"
	"time"

	"github.com/halley-im/halley/proto/errcode"
)

// Key names a proposal among those of its conversation.
type Key struct {
	Sender      string
	ClientMsgID string
}

// Key returns p's.
func (p *Proposal) Key() Key { return Key{p.Sender, p.ClientMsgID} }

// First is the outcome that a client_msg_id had when it was judged first. Whoever repeats it gets the same.
type First struct {
	Hash Hash
	// Code is the name of the code that it was rejected with; empty: it was stored.
	Code   string
	Detail string
	Seq    int64
	MsgNo  int64
	AtMs   int64
	// ChangedSeq and Flags are what the stored entry has become since.
	ChangedSeq int64
	Flags      Flags
}

// State is what the judge must know of one conversation. Needs says what has to be in the maps for a proposal; what is missing
// there doesn't exist.
type State struct {
	// Exists is whether the conversation has begun. If not, Conversation holds its tenant, id and RejectedAtMs only.
	Exists       bool
	Conversation Conversation
	Members      map[string]Membership
	Targets      map[int64]Target
	Outcomes     map[Key]First
}

// NewState returns the state of a conversation that has not begun.
func NewState(tenant, id string) *State {
	return &State{
		Conversation: Conversation{Tenant: tenant, ID: id, Type: TypeOf(id)},
		Members:      map[string]Membership{}, Targets: map[int64]Target{}, Outcomes: map[Key]First{},
	}
}

// Needs returns which members and which entry Judge looks at for p. The conversation's own row must be in s already.
func (s *State) Needs(p *Proposal) (members []string, target int64) {
	if !s.Exists {
		// It begins with p or not at all: nobody is a member yet.
		return nil, 0
	}
	if p.Sender != "" {
		members = append(members, p.Sender)
	}
	switch p.Kind {
	case Joined, Removed, RoleChanged, Muted, Created:
		members = append(members, p.Detail.Members...)
		if p.Detail.Owner != "" {
			members = append(members, p.Detail.Owner)
		}
		if p.Kind == RoleChanged && p.Detail.Role == Owner && s.Conversation.Owner != "" {
			members = append(members, s.Conversation.Owner)
		}
	case Marker:
		return members, p.ReadSeq
	}
	return members, p.Target
}

// Verdict is what is to be done with a proposal, and what the conversation is then.
type Verdict struct {
	// Code is why it is rejected; nil: it is accepted.
	Code *errcode.Code
	// Reason is told with the code; empty: the code's own text.
	Reason string
	// Repeated is whether an earlier outcome is told again. Nothing changes then.
	Repeated bool
	// Remember is whether the rejection has to be kept, so that a repeat is rejected too.
	Remember bool
	Hash     Hash
	// Seq, MsgNo and AtMs are the entry's place, the number of messages up to it, and its time; Seq 0: no entry.
	Seq   int64
	MsgNo int64
	AtMs  int64
	// ChangedSeq and Flags are those of the entry now: more than Seq and 0 only for a repeat.
	ChangedSeq int64
	Flags      Flags
	// Detail is the entry's: the proposal's, its Members being those that were changed.
	Detail Detail
	// Next is the conversation after it.
	Next Conversation
	// Members are the rows that change.
	Members []Membership
	// Reader is the sender's row after an accepted Marker, also where that changed nothing.
	Reader *Membership
	// Target is the changed entry's next state; nil: none is changed.
	Target *Target
	// Listings are the members whose own lists of conversations must learn of it, at repeats too.
	Listings []Membership
}

// Judge returns the verdict on p in state s, and changes neither. Rules: the sender is a member, his role, the limits of time,
// the target's state; whoever repeats a client_msg_id gets its first outcome, or conflict if he asks for something else by it.
// Blocks and rates are not judged here.
func Judge(s *State, p *Proposal, r *Rules) Verdict {
	if err := p.Check(r); err != nil {
		e := errcode.From(err)
		// The same at every repeat: nothing to remember.
		return Verdict{Code: e.Code, Reason: e.Detail, Next: s.Conversation}
	}
	j := judge{s: s, p: p, r: r}
	if !p.Kind.TakesSeq() {
		return j.small()
	}
	hash := p.Hash()
	if first, ok := s.Outcomes[p.Key()]; ok {
		return j.repeat(first, hash)
	}
	j.v = Verdict{Hash: hash, Detail: p.Detail, Next: s.Conversation}
	// Clocks of those who accept may differ; within a conversation time never goes back.
	j.v.AtMs = max(p.AcceptedAtMs, s.Conversation.LastAtMs)
	if err := j.judge(); err != nil {
		e := errcode.From(err)
		v := Verdict{Code: e.Code, Reason: e.Detail, Hash: hash, Remember: true, AtMs: j.v.AtMs, Next: s.Conversation}
		v.Next.RejectedAtMs = max(v.Next.RejectedAtMs, j.v.AtMs)
		return v
	}
	return j.v
}

// Apply makes s the state after v, the verdict on p.
func (s *State) Apply(p *Proposal, v *Verdict) {
	if v.Repeated {
		return
	}
	s.Conversation = v.Next
	switch {
	case v.Code != nil:
		if v.Remember {
			s.Outcomes[p.Key()] = First{Hash: v.Hash, Code: v.Code.Name, Detail: v.Reason, AtMs: v.AtMs}
		}
		return
	case v.Seq > 0:
		s.Exists = true
		s.Outcomes[p.Key()] = First{Hash: v.Hash, Seq: v.Seq, MsgNo: v.MsgNo, AtMs: v.AtMs, ChangedSeq: v.Seq}
		s.Targets[v.Seq] = Target{Seq: v.Seq, Kind: p.Kind, Sender: p.Sender, MsgNo: v.MsgNo, ChangedSeq: v.Seq, AtMs: v.AtMs}
	}
	for _, m := range v.Members {
		s.Members[m.UID] = m
	}
	if t := v.Target; t != nil {
		s.Targets[t.Seq] = *t
	}
}

// judge is one proposal under judgement.
type judge struct {
	s *State
	p *Proposal
	r *Rules
	v Verdict
}

// system is the rank of who has no uid.
const system = Owner + 1

func (j *judge) rank() Role {
	if j.p.Sender == "" {
		return system
	}
	return j.s.Members[j.p.Sender].Role
}

// repeat tells the first outcome again.
func (j *judge) repeat(f First, hash Hash) Verdict {
	if f.Hash != hash {
		return Verdict{Code: errcode.Conflict, Hash: hash, Next: j.s.Conversation}
	}
	v := Verdict{
		Repeated: true, Hash: hash, Seq: f.Seq, MsgNo: f.MsgNo, AtMs: f.AtMs, ChangedSeq: f.ChangedSeq, Flags: f.Flags,
		Detail: j.p.Detail, Next: j.s.Conversation,
	}
	if f.Code != "" {
		v.Code, v.Reason = errcode.ByName(f.Code), f.Detail
		return v
	}
	if t, ok := j.s.Targets[f.Seq]; ok {
		// A change of the same batch is in none of the rows that were read.
		v.ChangedSeq, v.Flags = t.ChangedSeq, t.Flags
	}
	// Who wrote the entry may have died before the lists by uid knew of it.
	switch j.p.Kind {
	case Created, Joined, Removed, Left:
		told := map[string]bool{}
		for _, uid := range append([]string{j.p.Sender, j.p.Detail.Owner}, j.p.Detail.Members...) {
			if m, ok := j.s.Members[uid]; ok && !told[uid] {
				told[uid] = true
				v.Listings = append(v.Listings, m)
			}
		}
	case Message:
		if f.Seq == 1 {
			for _, uid := range Parties(j.s.Conversation.ID) {
				v.Listings = append(v.Listings, Membership{UID: uid, Role: Member, JoinedSeq: 1, ChangedSeq: 1})
			}
		}
	}
	return v
}

// small judges what takes no seq.
func (j *judge) small() Verdict {
	s, p := j.s, j.p
	v := Verdict{AtMs: p.AcceptedAtMs, Next: s.Conversation}
	reject := func(c *errcode.Code) Verdict { return Verdict{Code: c, Next: s.Conversation} }
	if !s.Exists {
		return reject(errcode.NotFound)
	}
	if p.Kind == FanoutChanged {
		v.Next.Fanout = p.Fanout
		return v
	}
	m, ok := s.Members[p.Sender]
	if !ok || m.Role == None {
		return reject(errcode.NotMember)
	}
	if max(p.ReadSeq, p.DeliveredSeq) > s.Conversation.LastSeq {
		return reject(errcode.InvalidRequest)
	}
	was := m
	if p.ReadSeq > m.ReadSeq {
		no := s.Conversation.LastMsgNo
		if p.ReadSeq < s.Conversation.LastSeq {
			t, ok := s.Targets[p.ReadSeq]
			if !ok {
				return reject(errcode.InvalidRequest)
			}
			no = t.MsgNo
		}
		m.ReadSeq, m.ReadMsgNo = p.ReadSeq, no
	}
	m.DeliveredSeq = max(m.DeliveredSeq, p.DeliveredSeq, m.ReadSeq)
	if m != was {
		v.Members = []Membership{m}
	}
	v.Reader = &m
	return v
}

// judge fills in the verdict, or returns why not.
func (j *judge) judge() error {
	s, p, next := j.s, j.p, &j.v.Next
	if !s.Exists {
		if err := j.begin(); err != nil {
			return err
		}
	} else {
		if s.Conversation.Dissolved {
			return errcode.Dissolved
		}
		// A group may be joined by who isn't in it.
		if j.rank() == None && p.Kind != Joined {
			return errcode.NotMember
		}
	}
	next.LastSeq++
	next.LastAtMs = j.v.AtMs
	j.v.Seq, j.v.ChangedSeq = next.LastSeq, next.LastSeq
	var err error
	switch p.Kind {
	case Message:
		err = j.message()
	case Edit, Recall, Reaction, Pin:
		err = j.change()
	default:
		err = j.group()
	}
	j.v.MsgNo = next.LastMsgNo
	return err
}

// begin starts a conversation by its first entry.
func (j *judge) begin() error {
	p, next := j.p, &j.v.Next
	next.CreatedAtMs, next.CreatedBy = j.v.AtMs, p.Sender
	switch {
	case next.Type == Group && p.Kind == Created:
		return nil
	case next.Type == Group || p.Kind != Message:
		return errcode.NotFound
	}
	parties := Parties(next.ID)
	if p.Sender != "" && !slices.Contains(parties, p.Sender) {
		return errcode.NotMember
	}
	for _, uid := range parties {
		j.v.Members = append(j.v.Members, Membership{UID: uid, Role: Member, JoinedSeq: 1, ChangedSeq: 1, JoinedAtMs: j.v.AtMs})
	}
	next.Members = int64(len(parties))
	j.v.Listings = slices.Clone(j.v.Members)
	return nil
}

// member returns the row of uid as the verdict has it, to be changed in place.
func (j *judge) member(uid string) *Membership {
	for i := range j.v.Members {
		if j.v.Members[i].UID == uid {
			return &j.v.Members[i]
		}
	}
	m := j.s.Members[uid]
	m.UID = uid
	j.v.Members = append(j.v.Members, m)
	return &j.v.Members[len(j.v.Members)-1]
}

// speak returns why the sender may not send now.
func (j *judge) speak() error {
	c := &j.s.Conversation
	switch rank := j.rank(); {
	case rank == system:
		return nil
	case c.Type == Inbox:
		return errcode.Forbidden
	case c.MuteAll && rank < Admin:
		return errcode.Muted
	}
	if j.s.Members[j.p.Sender].MutedUntilMs > j.v.AtMs {
		return errcode.Muted
	}
	return nil
}

func (j *judge) message() error {
	if err := j.speak(); err != nil {
		return err
	}
	if err := j.mentionAll(); err != nil {
		return err
	}
	next := &j.v.Next
	next.LastMsgNo++
	next.LastMsgSeq, next.LastMsgAtMs = next.LastSeq, j.v.AtMs
	if j.p.Sender != "" {
		// Sending marks read up to one's own message.
		m := j.member(j.p.Sender)
		m.ReadSeq, m.ReadMsgNo, m.DeliveredSeq = next.LastSeq, next.LastMsgNo, next.LastSeq
	}
	return nil
}

func (j *judge) mentionAll() error {
	if j.p.Detail.MentionAll && j.s.Conversation.Type == Group && j.rank() < Admin {
		return errcode.Forbidden.Errorf("only owner and admins mention everybody")
	}
	return nil
}

// change judges what changes a message.
func (j *judge) change() error {
	c, p, rank := &j.s.Conversation, j.p, j.rank()
	if c.Type == Inbox && rank != system {
		return errcode.Forbidden
	}
	t, ok := j.s.Targets[p.Target]
	if !ok || t.Kind != Message {
		return errcode.NotFound
	}
	if rank != system {
		m := j.s.Members[p.Sender]
		if p.Target < m.VisibleFrom(c) {
			return errcode.NotFound
		}
	}
	if t.Flags.Has(Recalled) {
		return errcode.Recalled
	}
	late := func(within time.Duration) bool { return within > 0 && j.v.AtMs-t.AtMs > within.Milliseconds() }
	t.ChangedSeq = j.v.Seq
	j.v.Target = &t
	switch p.Kind {
	case Edit:
		if rank == system {
			break
		}
		if t.Sender != p.Sender {
			return errcode.Forbidden
		}
		if late(j.r.EditWithin) {
			return errcode.TooLate
		}
		if err := j.speak(); err != nil {
			return err
		}
		if err := j.mentionAll(); err != nil {
			return err
		}
	case Recall:
		switch {
		case rank >= Admin:
		case t.Sender != p.Sender:
			return errcode.Forbidden
		case late(j.r.RecallWithin):
			return errcode.TooLate
		}
	case Pin:
		if c.Type == Group && rank < Admin {
			return errcode.Forbidden
		}
	}
	switch p.Kind {
	case Edit:
		t.Flags |= Edited
	case Recall:
		t.Flags = t.Flags&^Pinned | Recalled
	case Reaction:
		t.Flags |= Reacted
	case Pin:
		if t.Flags |= Pinned; p.Detail.Off {
			t.Flags &^= Pinned
		}
	}
	return nil
}
