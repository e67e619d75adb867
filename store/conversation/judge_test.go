package conversation_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/store/conversation"
)

const start = int64(1_700_000_000_000)

// room is a conversation that exists only here.
type room struct {
	t     *testing.T
	s     *conversation.State
	rules conversation.Rules
	n     int
	now   int64
}

func newRoom(t *testing.T, id string) *room {
	return &room{t: t, s: conversation.NewState("default", id), rules: conversation.DefaultRules(), now: start}
}

const groupID = "g/01890000-0000-7000-8000-000000000000"

func (r *room) do(kind conversation.Kind, sender string, f func(*conversation.Proposal)) conversation.Verdict {
	r.t.Helper()
	r.n++
	r.now += 1000
	p := conversation.Proposal{Tenant: "default", Conversation: r.s.Conversation.ID, Kind: kind, Sender: sender, AcceptedAtMs: r.now}
	if kind.TakesSeq() {
		p.ClientMsgID = fmt.Sprint(r.n)
	}
	if f != nil {
		f(&p)
	}
	v := conversation.Judge(r.s, &p, &r.rules)
	r.s.Apply(&p, &v)
	return v
}

func (r *room) must(kind conversation.Kind, sender string, f func(*conversation.Proposal)) conversation.Verdict {
	r.t.Helper()
	v := r.do(kind, sender, f)
	if v.Code != nil {
		r.t.Fatalf("kind %d of %s: got %v %s", kind, sender, v.Code, v.Reason)
	}
	return v
}

func members(uids ...string) func(*conversation.Proposal) {
	return func(p *conversation.Proposal) { p.Detail.Members = uids }
}

func target(seq int64) func(*conversation.Proposal) {
	return func(p *conversation.Proposal) { p.Target = seq }
}

func role(to conversation.Role, uids ...string) func(*conversation.Proposal) {
	return func(p *conversation.Proposal) { p.Detail.Role, p.Detail.Members = to, uids }
}

func info(f func(*conversation.Info)) func(*conversation.Proposal) {
	return func(p *conversation.Proposal) {
		p.Detail.Info = &conversation.Info{}
		f(p.Detail.Info)
	}
}

func ptr[T any](v T) *T { return &v }

// team is a group of owner, admin, two members, and a message of each, seqs 3 to 6.
func team(t *testing.T) *room {
	r := newRoom(t, groupID)
	r.must(conversation.Created, "owner", members("admin", "ann", "ben"))
	r.must(conversation.RoleChanged, "owner", role(conversation.Admin, "admin"))
	for _, uid := range []string{"owner", "admin", "ann", "ben"} {
		r.must(conversation.Message, uid, nil)
	}
	return r
}

func TestWhoMayDoWhatInAGroup(t *testing.T) {
	joinPolicy := func(p conversation.JoinPolicy) func(*room) {
		return func(r *room) {
			r.must(conversation.InfoChanged, "owner", info(func(i *conversation.Info) { i.JoinPolicy = &p }))
		}
	}
	muteAll := func(r *room) {
		r.must(conversation.InfoChanged, "owner", info(func(i *conversation.Info) { i.MuteAll = ptr(true) }))
	}
	muted := func(r *room) {
		r.must(conversation.Muted, "admin", func(p *conversation.Proposal) {
			p.Detail.Members, p.Detail.MutedUntilMs = []string{"ann"}, r.now+60_000
		})
	}
	recalled := func(r *room) { r.must(conversation.Recall, "ann", target(5)) }
	later := func(ms int64) func(*room) { return func(r *room) { r.now += ms } }
	edit := func(seq int64) func(*conversation.Proposal) {
		return func(p *conversation.Proposal) { p.Target, p.Body = seq, []byte("better") }
	}
	reaction := func(seq int64) func(*conversation.Proposal) {
		return func(p *conversation.Proposal) { p.Target, p.Detail.Reaction = seq, "👍" }
	}
	all := func(p *conversation.Proposal) { p.Detail.MentionAll = true }
	const system = ""
	for _, c := range []struct {
		name   string
		before func(*room)
		kind   conversation.Kind
		sender string
		f      func(*conversation.Proposal)
		want   *errcode.Code
	}{
		{"member sends", nil, conversation.Message, "ann", nil, nil},
		{"stranger sends", nil, conversation.Message, "zoe", nil, errcode.NotMember},
		{"system sends", nil, conversation.Message, system, nil, nil},
		{"muted member sends", muted, conversation.Message, "ann", nil, errcode.Muted},
		{"muted member edits", muted, conversation.Edit, "ann", edit(5), errcode.Muted},
		{"mute is over", func(r *room) { muted(r); r.now += 60_000 }, conversation.Message, "ann", nil, nil},
		{"muted member comes back", func(r *room) {
			muted(r)
			r.must(conversation.Left, "ann", nil)
			r.must(conversation.Joined, "admin", members("ann"))
		}, conversation.Message, "ann", nil, errcode.Muted},
		{"member sends while all are muted", muteAll, conversation.Message, "ann", nil, errcode.Muted},
		{"admin sends while all are muted", muteAll, conversation.Message, "admin", nil, nil},
		{"member mentions all", nil, conversation.Message, "ann", all, errcode.Forbidden},
		{"admin mentions all", nil, conversation.Message, "admin", all, nil},
		{"member mentions all by an edit", nil, conversation.Edit, "ann", func(p *conversation.Proposal) { p.Target, p.Detail.MentionAll = 5, true }, errcode.Forbidden},

		{"edit of one's own", nil, conversation.Edit, "ann", edit(5), nil},
		{"edit of another's", nil, conversation.Edit, "owner", edit(5), errcode.Forbidden},
		{"edit too late", later(24*3600_000 + 1000), conversation.Edit, "ann", edit(5), errcode.TooLate},
		{"system edits late", later(24*3600_000 + 1000), conversation.Edit, system, edit(5), nil},
		{"edit of what isn't there", nil, conversation.Edit, "ann", edit(99), errcode.NotFound},
		{"edit of no message", nil, conversation.Edit, "owner", edit(1), errcode.NotFound},
		{"edit of what was recalled", recalled, conversation.Edit, "ann", edit(5), errcode.Recalled},

		{"recall of one's own", nil, conversation.Recall, "ann", target(5), nil},
		{"recall too late", later(120_000), conversation.Recall, "ann", target(5), errcode.TooLate},
		{"recall of another's", nil, conversation.Recall, "ann", target(6), errcode.Forbidden},
		{"admin recalls another's late", later(120_000), conversation.Recall, "admin", target(5), nil},
		{"recall twice", recalled, conversation.Recall, "ann", target(5), errcode.Recalled},
		{"reaction", nil, conversation.Reaction, "ben", reaction(5), nil},
		{"reaction to what was recalled", recalled, conversation.Reaction, "ben", reaction(5), errcode.Recalled},
		{"reaction to what was before one's time", func(r *room) { r.must(conversation.Joined, "admin", members("zoe")) }, conversation.Reaction, "zoe", reaction(5), errcode.NotFound},
		{"reaction where the history is open", func(r *room) {
			r.must(conversation.InfoChanged, "owner", info(func(i *conversation.Info) { i.HistoryOpen = ptr(true) }))
			r.must(conversation.Joined, "admin", members("zoe"))
		}, conversation.Reaction, "zoe", reaction(5), nil},
		{"member pins", nil, conversation.Pin, "ann", target(5), errcode.Forbidden},
		{"admin pins", nil, conversation.Pin, "admin", target(5), nil},

		{"member invites", nil, conversation.Joined, "ann", members("zoe"), errcode.Forbidden},
		{"member invites where he may", joinPolicy(conversation.JoinByMembers), conversation.Joined, "ann", members("zoe"), nil},
		{"admin invites", nil, conversation.Joined, "admin", members("zoe"), nil},
		{"stranger joins", joinPolicy(conversation.JoinByMembers), conversation.Joined, "zoe", members("zoe"), errcode.Forbidden},
		{"stranger joins an open group", joinPolicy(conversation.JoinOpen), conversation.Joined, "zoe", members("zoe"), nil},
		{"stranger brings another", joinPolicy(conversation.JoinOpen), conversation.Joined, "zoe", members("yan"), errcode.NotMember},
		{"invites who is in", nil, conversation.Joined, "admin", members("ann"), errcode.AlreadyMember},
		{"too many", func(r *room) { r.rules.MaxMembers = 5 }, conversation.Joined, "admin", members("x", "y"), errcode.TooManyMembers},
		{"just enough", func(r *room) { r.rules.MaxMembers = 6 }, conversation.Joined, "admin", members("x", "y", "x"), nil},
		{"member leaves", nil, conversation.Left, "ann", nil, nil},
		{"owner leaves", nil, conversation.Left, "owner", nil, errcode.Forbidden},
		{"member removes", nil, conversation.Removed, "ann", members("ben"), errcode.Forbidden},
		{"admin removes a member", nil, conversation.Removed, "admin", members("ben"), nil},
		{"admin removes the owner", nil, conversation.Removed, "admin", members("ben", "owner"), errcode.Forbidden},
		{"admin removes a stranger", nil, conversation.Removed, "admin", members("zoe"), errcode.NotFound},
		{"owner removes an admin", nil, conversation.Removed, "owner", members("admin"), nil},
		{"admin makes an admin", nil, conversation.RoleChanged, "admin", role(conversation.Admin, "ann"), errcode.Forbidden},
		{"owner hands over", nil, conversation.RoleChanged, "owner", role(conversation.Owner, "ann"), nil},
		{"owner hands over to two", nil, conversation.RoleChanged, "owner", role(conversation.Owner, "ann", "ben"), errcode.InvalidRequest},
		{"admin mutes the owner", nil, conversation.Muted, "admin", members("owner"), errcode.Forbidden},
		{"member renames", nil, conversation.InfoChanged, "ann", info(func(i *conversation.Info) { i.Title = ptr("x") }), errcode.Forbidden},
		{"title too long", nil, conversation.InfoChanged, "owner", info(func(i *conversation.Info) { i.Title = ptr(strings.Repeat("x", 256)) }), errcode.InvalidRequest},
		{"admin dissolves", nil, conversation.Dissolved, "admin", nil, errcode.Forbidden},
		{"owner dissolves", nil, conversation.Dissolved, "owner", nil, nil},
		{"after the end", func(r *room) { r.must(conversation.Dissolved, "owner", nil) }, conversation.Message, "ann", nil, errcode.Dissolved},
		{"marker after the end", func(r *room) { r.must(conversation.Dissolved, "owner", nil) }, conversation.Marker, "ann", func(p *conversation.Proposal) { p.ReadSeq = 7 }, nil},
		{"a second beginning", nil, conversation.Created, "owner", nil, errcode.Conflict},
		{"user turns the fan-out", nil, conversation.FanoutChanged, "owner", nil, errcode.InvalidRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := team(t)
			if c.before != nil {
				c.before(r)
			}
			before := r.s.Conversation
			v := r.do(c.kind, c.sender, c.f)
			if v.Code != c.want {
				t.Fatalf("got %v (%s), want %v", v.Code, v.Reason, c.want)
			}
			if v.Code != nil && (r.s.Conversation.LastSeq != before.LastSeq || v.Seq != 0) {
				t.Fatalf("rejected, and seq %d taken", r.s.Conversation.LastSeq)
			}
		})
	}
}

func TestHandingOverLeavesOneOwner(t *testing.T) {
	for _, by := range []string{"owner", ""} {
		r := team(t)
		r.must(conversation.RoleChanged, by, role(conversation.Owner, "ann"))
		if r.s.Members["owner"].Role != conversation.Admin || r.s.Members["ann"].Role != conversation.Owner || r.s.Conversation.Owner != "ann" {
			t.Fatalf("by %q: got %+v", by, r.s.Members)
		}
		r.must(conversation.Left, "owner", nil)
		r.must(conversation.Removed, "", members("ann"))
		if r.s.Conversation.Owner != "" || r.s.Conversation.Members != 2 {
			t.Fatalf("got %+v", r.s.Conversation)
		}
	}
}

func TestDirectAndInboxHaveNoRoles(t *testing.T) {
	d := newRoom(t, conversation.DirectID("bob", "ann"))
	if v := d.do(conversation.Reaction, "ann", func(p *conversation.Proposal) { p.Target, p.Detail.Reaction = 1, "x" }); v.Code != errcode.NotFound {
		t.Fatalf("got %v: a direct conversation begins with a message", v.Code)
	}
	d.must(conversation.Message, "ann", nil)
	d.must(conversation.Pin, "bob", target(1))
	for _, kind := range []conversation.Kind{conversation.Left, conversation.Dissolved, conversation.Created} {
		if v := d.do(kind, "ann", nil); v.Code != errcode.Forbidden {
			t.Errorf("kind %d: got %v", kind, v.Code)
		}
	}
	if v := d.do(conversation.Recall, "bob", target(1)); v.Code != errcode.Forbidden {
		t.Errorf("recall of the other's: got %v", v.Code)
	}
	self := newRoom(t, conversation.DirectID("ann", "ann"))
	if self.must(conversation.Message, "ann", nil); self.s.Conversation.Members != 1 {
		t.Errorf("got %+v", self.s.Conversation)
	}
	in := newRoom(t, conversation.InboxID("ann"))
	if v := in.do(conversation.Message, "ann", nil); v.Code != errcode.Forbidden {
		t.Errorf("got %v", v.Code)
	}
	in.must(conversation.Message, "", nil)
	if v := in.do(conversation.Message, "ann", nil); v.Code != errcode.Forbidden {
		t.Errorf("got %v", v.Code)
	}
	in.must(conversation.Marker, "ann", func(p *conversation.Proposal) { p.ReadSeq = 1 })
}

func TestWhoJoinsStartsUnreadThere(t *testing.T) {
	r := team(t)
	r.must(conversation.Joined, "admin", members("zoe"))
	m := r.s.Members["zoe"]
	if m.VisibleFrom(&r.s.Conversation) != 7 || m.Unread(&r.s.Conversation) != 0 || m.InvitedBy != "admin" {
		t.Fatalf("got %+v", m)
	}
	r.must(conversation.Message, "ann", nil)
	if m.Unread(&r.s.Conversation) != 1 {
		t.Fatalf("got %d unread", m.Unread(&r.s.Conversation))
	}
}

// TestJudgeChangesNothing runs random proposals and holds the state before a verdict to what it was.
func TestJudgeChangesNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	r := team(t)
	uids := []string{"owner", "admin", "ann", "ben", "zoe", ""}
	for range 800 {
		r.n++
		r.now += 1000
		p := conversation.Proposal{
			Tenant: "default", Conversation: groupID, Kind: conversation.Kind(1 + rng.IntN(12)), Sender: uids[rng.IntN(6)],
			ClientMsgID: fmt.Sprint(rng.IntN(r.n)), AcceptedAtMs: r.now, Target: int64(rng.IntN(r.n)),
			Detail: conversation.Detail{Members: []string{uids[rng.IntN(5)], uids[rng.IntN(5)]}, Role: conversation.Role(rng.IntN(4)), Reaction: "x"},
		}
		before := conversation.State{
			Exists: r.s.Exists, Conversation: r.s.Conversation, Members: maps.Clone(r.s.Members), Targets: maps.Clone(r.s.Targets), Outcomes: maps.Clone(r.s.Outcomes),
		}
		v := conversation.Judge(r.s, &p, &r.rules)
		if !reflect.DeepEqual(before, *r.s) {
			t.Fatalf("the verdict on %+v changed the state", p)
		}
		if again := conversation.Judge(r.s, &p, &r.rules); !reflect.DeepEqual(v, again) {
			t.Fatalf("two verdicts on %+v: %+v and %+v", p, v, again)
		}
		r.s.Apply(&p, &v)
		owners := 0
		var in int64
		for _, m := range r.s.Members {
			if m.Role == conversation.Owner {
				owners++
			}
			if m.Role > conversation.None {
				in++
			}
		}
		if c := r.s.Conversation; owners > 1 || in != c.Members || owners == 0 != (c.Owner == "") {
			t.Fatalf("%d owners, %d members: %+v after %+v", owners, in, c, p)
		}
	}
}

func TestIDs(t *testing.T) {
	if conversation.DirectID("b", "a") != "d/a/b" {
		t.Fatal("a direct conversation has one id")
	}
	g := conversation.GroupID("default", "a", "c1")
	if g != conversation.GroupID("default", "a", "c1") || g == conversation.GroupID("default", "a", "c2") || g == conversation.GroupID("other", "a", "c1") {
		t.Error("a repeat makes the same group, and nothing else does")
	}
	for id, ok := range map[string]bool{
		"d/a/b": true, "d/a/a": true, "d/b/a": false, "d/a": false, "d/a/": false, "d//a": false, "d/a/b/c": false, "i/a": true, "i/": false,
		"i/a/b": false, g: true, groupID: true, "g/x": false, "g/01890000000070008000000000000000": false, "": false, "x/a": false, "d/ä/b": false,
		"g/" + strings.ToUpper(groupID[2:]): strings.ToUpper(groupID[2:]) == groupID[2:], "g/{01890000-0000-7000-8000-000000000000}": false,
	} {
		if err := conversation.CheckID(id); (err == nil) != ok {
			t.Errorf("%q: got %v", id, err)
		}
	}
	// UUIDv5 of what the protocol says; computed by another implementation.
	if got, want := conversation.MessageID("default", "d/a/b", "a", "m1"), "d0bc5018-c2d0-590f-ad94-574978b2e150"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestHashTellsProposalsApart(t *testing.T) {
	base := conversation.Proposal{Kind: conversation.Message, Body: []byte("x"), ClientMsgID: "1", AcceptedAtMs: 1}
	later := base
	later.AcceptedAtMs, later.Address = 2, "192.0.2.1"
	if base.Hash() != later.Hash() {
		t.Fatal("a repeat is later, from elsewhere, and the same")
	}
	seen := map[conversation.Hash]int{base.Hash(): -1}
	for i, f := range []func(*conversation.Proposal){
		func(p *conversation.Proposal) { p.Kind = conversation.Edit },
		func(p *conversation.Proposal) { p.Target = 1 },
		func(p *conversation.Proposal) { p.Body = []byte("y") },
		func(p *conversation.Proposal) { p.Body = []byte(`x{"off":true}`) },
		func(p *conversation.Proposal) { p.Detail.Off = true },
		func(p *conversation.Proposal) { p.Detail.Mentions = []string{"a"} },
		func(p *conversation.Proposal) { p.Detail.Members = []string{"a"} },
		func(p *conversation.Proposal) { p.Detail.MutedUntilMs = 1 },
		func(p *conversation.Proposal) { p.Detail.Info = &conversation.Info{Title: ptr("")} },
	} {
		p := base
		f(&p)
		if j, ok := seen[p.Hash()]; ok {
			t.Errorf("%d and %d have one hash", i, j)
		}
		seen[p.Hash()] = i
	}
}
