package conversation_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/fake"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/store"
	entry "github.com/halley-im/halley/store/conversation"
)

// groups is a service whose outcomes can be asked for, and what is done in its groups.
type groups struct {
	*conversation.Service
	t *testing.T
	j *fake.Judge
	// soon gives up soon what job doesn't come to.
	soon *conversation.Service
}

func newGroups(t *testing.T) *groups {
	t.Helper()
	rdb, prefix := kittest.Redis(t)
	var deps conversation.Deps
	s, j := newService(t, func(_ *conversation.Config, d *conversation.Deps) {
		d.Redis, d.RedisPrefix = rdb, prefix
		deps = *d
	})
	j.Redis, j.Prefix = rdb, prefix
	return &groups{s, t, j, hasty(t, deps)}
}

func (g *groups) create(owner string, members ...string) string {
	g.t.Helper()
	a, err := g.CreateGroup(g.t.Context(), backend, tenant, owner, "made by "+owner, entry.Detail{Members: members})
	if err != nil {
		g.t.Fatal(err)
	}
	return a.Conversation
}

func (g *groups) change(id string, kind entry.Kind, by, clientMsgID string, d entry.Detail) {
	g.t.Helper()
	a, err := g.Propose(g.t.Context(), backend, entry.Proposal{Tenant: tenant, Conversation: id, Kind: kind, Sender: by, ClientMsgID: clientMsgID, Detail: d})
	if err != nil {
		g.t.Fatal(err)
	}
	if code, _ := g.j.Outcome(a.ID); code != "" {
		g.t.Fatalf("%s: %s", clientMsgID, code)
	}
}

func (g *groups) ask(uid, id string) error {
	_, err := g.AskGroup(g.t.Context(), backend, tenant, uid, id, "please")
	return err
}

func (g *groups) answer(by, id, clientMsgID, uid string, accept bool) error {
	_, err := g.AnswerGroup(g.t.Context(), backend, tenant, by, id, clientMsgID, uid, accept)
	return err
}

// request is how uid's request to be added stands, as whom sees it.
func (g *groups) request(whom, id, uid string) string {
	g.t.Helper()
	u, err := g.j.Store.UserChangeOf(g.t.Context(), tenant, whom, store.ChangeGroupRequest, id+"/"+uid)
	if err != nil {
		g.t.Fatal(err)
	}
	var v struct{ State string }
	if u.Number > 0 && json.Unmarshal(u.Value, &v) != nil {
		g.t.Fatalf("value: %s", u.Value)
	}
	return v.State
}

func (g *groups) want(err error, code *errcode.Code) {
	g.t.Helper()
	if code == nil && err != nil || code != nil && !errors.Is(err, code) {
		g.t.Errorf("got %v, want %v", err, code)
	}
}

func TestRequestIsAcceptedWhenItsUserIsAMember(t *testing.T) {
	g := newGroups(t)
	id := g.create("ann", "bob")
	g.want(g.ask("joe", id), nil)
	// Job is behind: it isn't known whether he is one.
	g.j.Hold()
	_, err := g.soon.AnswerGroup(t.Context(), backend, tenant, "ann", id, "a1", "joe", true)
	g.want(err, errcode.Unknown)
	g.j.Release()
	if got := g.request("joe", id, "joe"); got != "asked" {
		t.Errorf("before it is known: got %q", got)
	}
	g.want(g.answer("ann", id, "a1", "joe", true), nil)
	if got := g.request("joe", id, "joe") + " " + g.request("ann", id, "joe"); got != "accepted accepted" {
		t.Errorf("got %q", got)
	}
	// What was lost on its way back is asked for under another id.
	g.want(g.answer("ann", id, "a2", "joe", true), nil)
	g.want(g.answer("ann", id, "", "joe", false), errcode.AlreadyMember)
	if got := g.request("joe", id, "joe"); got != "accepted" {
		t.Errorf("a member: got %q", got)
	}

	// What job refuses leaves the request as it is.
	g.want(g.ask("eve", id), nil)
	g.change(id, entry.Dissolved, "ann", "end", entry.Detail{})
	g.want(g.answer("ann", id, "a3", "eve", true), errcode.Dissolved)
	if got := g.request("eve", id, "eve"); got != "asked" {
		t.Errorf("after it was refused: got %q", got)
	}
}

func TestRequestIsAnsweredByWhoIsOwnerNow(t *testing.T) {
	g := newGroups(t)
	id := g.create("ann", "bob")
	g.want(g.ask("joe", id), nil)
	g.change(id, entry.RoleChanged, "ann", "hand over", entry.Detail{Members: []string{"bob"}, Role: entry.Owner})
	g.change(id, entry.Left, "ann", "go", entry.Detail{})
	g.want(g.answer("ann", id, "a1", "joe", true), errcode.NotMember)
	g.want(g.answer("bob", id, "a1", "joe", true), nil)
	if got := g.request("joe", id, "joe"); got != "accepted" {
		t.Errorf("got %q", got)
	}
}

func TestWhoIsBlockedSendsNoRequests(t *testing.T) {
	g := newGroups(t)
	id := g.create("ann", "bob")
	block := func(uid string) {
		if _, err := g.Block(t.Context(), backend, tenant, uid, "joe", false); err != nil {
			t.Fatal(err)
		}
	}
	block("ann")
	g.want(g.ask("joe", id), errcode.Blocked)
	g.change(id, entry.RoleChanged, "ann", "admin", entry.Detail{Members: []string{"bob"}, Role: entry.Admin})
	g.want(g.ask("joe", id), nil)
	if got := []string{g.request("ann", id, "joe"), g.request("bob", id, "joe")}; !slices.Equal(got, []string{"", "asked"}) {
		t.Errorf("got %q", got)
	}
	block("bob")
	g.want(g.ask("joe", id), errcode.Blocked)
}

func TestNobodyHidesWhatIsNotWrittenYet(t *testing.T) {
	g := newGroups(t)
	send(t, g.Service, "d/ann/bob", "bob", "1", "1")
	const beyond = 1 << 50
	set := func(conv string, clear int64) error {
		_, err := g.Set(t.Context(), backend, tenant, "ann", conv, conversation.Settings{Clear: &clear})
		return err
	}
	hide := func(conv string, seq int64) error {
		_, err := g.Delete(t.Context(), backend, tenant, "ann", conv, seq)
		return err
	}
	for _, err := range []error{
		set("d/ann/bob", 2), set("d/ann/bob", beyond), set("d/ann/eve", 1), hide("d/ann/bob", 2),
	} {
		g.want(err, errcode.InvalidRequest)
	}
	for _, err := range []error{set("d/ann/bob", 1), set("d/ann/bob", 0), hide("d/ann/bob", 1)} {
		g.want(err, nil)
	}
	// What was refused stands in nobody's way.
	send(t, g.Service, "d/ann/bob", "bob", "2", "1")
	g.want(set("d/ann/bob", 2), nil)
	page, err := g.Sync(t.Context(), tenant, "ann", conversation.Have{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range page.UserChanges {
		if u.Kind == "clear" {
			got = append(got, u.Kind+strings.ReplaceAll(string(u.Value), " ", ""))
		}
	}
	if want := []string{`clear{"seq":2}`}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Logics' clocks differ: what is set later counts, by whichever.
func TestLaterSettingCountsWhateverTheClockSays(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	s, j := newService(t, func(_ *conversation.Config, d *conversation.Deps) { d.Now = func() time.Time { return at } })
	send(t, s, "d/ann/bob", "ann", "1", "1")
	for i, on := range []bool{true, false, true} {
		draft := fmt.Sprint(i)
		if _, err := s.Set(t.Context(), backend, tenant, "ann", "d/ann/bob", conversation.Settings{Mute: &on, Draft: &draft}); err != nil {
			t.Fatal(err)
		}
		at = at.Add(-time.Second)
	}
	for kind, want := range map[string]string{store.ChangeMute: `{"on":true}`, store.ChangeDraft: `{"text":"2"}`} {
		if u, err := j.Store.UserChangeOf(t.Context(), tenant, "ann", kind, "d/ann/bob"); err != nil || string(u.Value) != want {
			t.Errorf("%s: got %s, %v", kind, u.Value, err)
		}
	}
}
