package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/fake"
	"github.com/halley-im/halley/logic/internal/limit"
	"github.com/halley-im/halley/logic/internal/rpc"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/store"
	entry "github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/storetest"
)

// breakable is a database that can be away.
type breakable struct {
	*store.Store
	away bool
}

var errAway = errors.New("the database is away")

func (b *breakable) Membership(ctx context.Context, tenant, id, uid string) (entry.Conversation, entry.Membership, error) {
	if b.away {
		return entry.Conversation{}, entry.Membership{}, errAway
	}
	return b.Store.Membership(ctx, tenant, id, uid)
}

func (b *breakable) Blocked(ctx context.Context, tenant, uid, peer string) (bool, error) {
	if b.away {
		return false, errAway
	}
	return b.Store.Blocked(ctx, tenant, uid, peer)
}

func (b *breakable) Conversations(ctx context.Context, tenant, uid string, behind store.Cursor, limit int) ([]store.Summary, *store.Cursor, error) {
	if b.away {
		return nil, nil, errAway
	}
	return b.Store.Conversations(ctx, tenant, uid, behind, limit)
}

// chatRig is a rig with conversations, whose records are judged at once.
type chatRig struct {
	*rig
	judge *fake.Judge
	db    *breakable
	at    time.Time
	// told is how many pushes events has returned.
	told int
}

func chatConfig(t testing.TB) conversation.Config {
	t.Helper()
	var c conversation.Config
	p, err := kong.New(&c, kong.Exit(func(int) {}))
	if err == nil {
		_, err = p.Parse(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newChatRig(t testing.TB, change ...func(*conversation.Config, *conversation.Deps)) *chatRig {
	t.Helper()
	r := &chatRig{db: &breakable{Store: storetest.Open(t, storetest.Config(t))}, at: now}
	r.rig = newRig(t, func(_ *rpc.Config, d *rpc.Deps) {
		r.judge = &fake.Judge{Producer: d.Producer.(*fake.Producer), T: t, Store: r.db.Store}
		cfg := chatConfig(t)
		deps := conversation.Deps{Store: r.db, Producer: r.judge, Push: d.Push.(conversation.Pusher), Now: func() time.Time { return r.at }}
		for _, f := range change {
			f(&cfg, &deps)
		}
		chat, err := conversation.New(cfg, deps)
		if err != nil {
			t.Fatal(err)
		}
		d.Chat = chat
	})
	return r
}

// as asks as uid and returns the reply, which must not be an error.
func (r *chatRig) as(uid, format string, args ...any) *halleyv1.Reply {
	r.t.Helper()
	reply, _ := r.ask(member(uid), fmt.Sprintf(format, args...))
	if reply.GetError() != nil {
		r.t.Fatalf("%s, %s: got %v", uid, fmt.Sprintf(format, args...), reply.GetError())
	}
	return reply
}

// refused asks as uid for what is answered with an error.
func (r *chatRig) refused(code, uid, format string, args ...any) {
	r.t.Helper()
	reply, _ := r.ask(member(uid), fmt.Sprintf(format, args...))
	if got := reply.GetError().GetCode(); got != code {
		r.t.Errorf("%s, %.200s: got %v, want %s", uid, fmt.Sprintf(format, args...), reply, code)
	}
}

// does asks as uid for a change, and returns what came of it: "" or the code that it was rejected with.
func (r *chatRig) does(uid, method, args string) string {
	r.t.Helper()
	reply, _ := r.ask(member(uid), fmt.Sprintf(`{%q:{"client_msg_id":%q,%s}}`, method, fmt.Sprint("made-", r.next()), args))
	if reply.GetError() != nil {
		return "refused: " + reply.GetError().GetCode()
	}
	recs := r.judge.Taken()
	if len(recs) == 0 {
		r.t.Fatalf("%s %s: nothing was proposed", method, args)
	}
	code, _ := r.judge.Outcome(recs[len(recs)-1].GetId())
	return code
}

var counter int

func (r *chatRig) next() int {
	counter++
	r.at = r.at.Add(time.Second)
	return counter
}

const direct = "d/ann/bob"

func (r *chatRig) say(uid, conv, text string) {
	r.t.Helper()
	if got := r.does(uid, "message.send", fmt.Sprintf(`"conversation":%q,"body":{"text":%q}`, conv, text)); got != "" {
		r.t.Fatalf("%s to %s: %s", uid, conv, got)
	}
}

func texts(es []*halleyv1.Entry) []string {
	var out []string
	for _, e := range es {
		out = append(out, e.GetBody().GetStructValue().GetFields()["text"].GetStringValue())
	}
	return out
}

func TestTwoPeopleTalk(t *testing.T) {
	r := newChatRig(t)
	sent := r.as("ann", `{"message.send":{"conversation":"d/ann/bob","client_msg_id":"c1","body":{"text":"hello"}}}`).GetMessageSend()
	if sent.GetId() != entry.MessageID("default", direct, "ann", "c1") || sent.GetAcceptedAt() != float64(now.UnixMilli()) {
		t.Errorf("got %v", sent)
	}
	// The same again has the same id, and one place.
	if again := r.as("ann", `{"message.send":{"conversation":"d/ann/bob","client_msg_id":"c1","body":{"text":"hello"}}}`).GetMessageSend(); again.GetId() != sent.GetId() {
		t.Errorf("a repeat: got %v", again)
	}
	r.say("ann", direct, "you there?")
	list := r.as("bob", `{"conversation.list":{}}`).GetConversationList().GetConversations()
	if len(list) != 1 || list[0].GetId() != direct || list[0].GetUnread() != 2 || list[0].GetLastSeq() != 2 || list[0].GetLast().GetSeq() != 2 || list[0].GetRole() != "member" {
		t.Fatalf("got %v", list)
	}
	page := r.as("bob", `{"sync":{}}`).GetSync()
	if len(page.GetConversations()) != 1 || !slices.Equal(texts(page.GetConversations()[0].GetEntries()), []string{"hello", "you there?"}) || page.GetMore() {
		t.Fatalf("got %v", page)
	}
	r.as("bob", `{"conversation.read":{"conversation":"d/ann/bob","read_seq":1,"delivered_seq":2}}`)
	one := r.as("bob", `{"conversation.get":{"conversation":"d/ann/bob"}}`).GetConversationGet()
	if one.GetUnread() != 1 || one.GetReadSeq() != 1 || one.GetDeliveredSeq() != 2 {
		t.Errorf("got %v", one)
	}
	// His other device learns of it.
	page = r.as("bob", `{"sync":{"conversations":{"d/ann/bob":2},"user_change":%v}}`, page.GetUserChanges()[0].GetNumber()).GetSync()
	if len(page.GetConversations()) != 0 || len(page.GetUserChanges()) != 1 || page.GetUserChanges()[0].GetKind() != "read" {
		t.Errorf("got %v", page)
	}
	// Who has read.
	readers := r.as("ann", `{"conversation.members":{"conversation":"d/ann/bob","read_seq":1}}`).GetConversationMembers().GetMembers()
	if len(readers) != 2 || readers[1].GetUid() != "bob" || readers[1].GetReadSeq() != 1 {
		t.Errorf("got %v", readers)
	}
	if got := r.as("ann", `{"conversation.members":{"conversation":"d/ann/bob","read_seq":2}}`).GetConversationMembers().GetMembers(); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	cursor := r.as("bob", `{"sync.cursor":{}}`).GetSyncCursor()
	if cursor.GetSeqs() != 2 || cursor.GetUserChange() != page.GetUserChanges()[0].GetNumber() {
		t.Errorf("got %v", cursor)
	}
}

func TestHistoryGoesBackAndForth(t *testing.T) {
	r := newChatRig(t)
	for i := range 7 {
		r.say("ann", direct, fmt.Sprint(i+1))
	}
	for _, tt := range []struct{ args, want string }{
		{`"limit":3`, "5 6 7"}, {`"before":5,"limit":3`, "2 3 4"}, {`"before":2,"limit":3`, "1"}, {`"before":1`, ""}, {`"from":2,"to":4`, "2 3 4"},
		{`"from":2,"limit":2`, "2 3"}, {`"from":6,"to":100`, "6 7"}, {`"from":9`, ""}, {`"to":2.0`, "1 2"}, {`"before":1e2,"limit":1`, "7"},
	} {
		got := texts(r.as("bob", `{"conversation.history":{"conversation":"d/ann/bob",%s}}`, tt.args).GetConversationHistory().GetEntries())
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %v, want %s", tt.args, got, tt.want)
		}
	}
	for _, args := range []string{`"from":-1`, `"from":1.5`, `"from":1e300`, `"limit":201`, `"from":3,"to":2`, `"from":1,"before":3`, `"limit":-1`, `"from":"x"`} {
		r.refused("invalid_request", "bob", `{"conversation.history":{"conversation":"d/ann/bob",%s}}`, args)
	}
}

func TestMessagesAreChanged(t *testing.T) {
	r := newChatRig(t)
	r.say("ann", direct, "helo")
	r.say("ann", direct, "secret")
	for _, step := range []struct{ uid, method, args, want string }{
		{"ann", "message.edit", `"seq":1,"body":{"text":"hello"}`, ""},
		{"bob", "message.edit", `"seq":1,"body":{"text":"mine"}`, "forbidden"},
		{"bob", "message.react", `"seq":1,"reaction":"👍"`, ""},
		{"bob", "message.pin", `"seq":1`, ""},
		{"bob", "message.recall", `"seq":2`, "forbidden"},
		{"ann", "message.recall", `"seq":2`, ""},
		{"ann", "message.recall", `"seq":2`, "recalled"},
		{"ann", "message.edit", `"seq":99,"body":1`, "not_found"},
		{"ann", "message.react", `"seq":1`, "refused: invalid_request"},
		{"ann", "message.recall", `"seq":0`, "refused: invalid_request"},
	} {
		if got := r.does(step.uid, step.method, `"conversation":"d/ann/bob",`+step.args); got != step.want {
			t.Errorf("%s %s %s: got %q, want %q", step.uid, step.method, step.args, got, step.want)
		}
	}
	es := r.as("bob", `{"conversation.history":{"conversation":"d/ann/bob","to":2}}`).GetConversationHistory().GetEntries()
	if !slices.Equal(texts(es), []string{"hello", ""}) || !es[0].GetEdited() || !es[0].GetPinned() || !es[1].GetRecalled() || len(es[0].GetReactions()) != 1 || es[0].GetReactions()[0].GetUids()[0] != "bob" {
		t.Errorf("got %v", es)
	}
	if got := r.as("ann", `{"conversation.pinned":{"conversation":"d/ann/bob"}}`).GetConversationPinned().GetEntries(); len(got) != 1 || got[0].GetSeq() != 1 {
		t.Errorf("board: got %v", got)
	}
	if got := r.as("ann", `{"message.reactors":{"conversation":"d/ann/bob","seq":1,"reaction":"👍"}}`).GetMessageReactors(); !slices.Equal(got.GetUids(), []string{"bob"}) || got.GetNext() != "" {
		t.Errorf("reactors: got %v", got)
	}
	// The rule of 2 minutes.
	r.say("ann", direct, "late")
	r.at = r.at.Add(3 * time.Minute)
	if got := r.does("ann", "message.recall", `"conversation":"d/ann/bob","seq":7`); got != "too_late" {
		t.Errorf("got %q", got)
	}
}

func TestGroups(t *testing.T) {
	r := newChatRig(t)
	g := r.as("ann", `{"group.create":{"client_msg_id":"g1","title":"Team","members":["bob","eve"]}}`).GetGroupCreate().GetConversation()
	if again := r.as("ann", `{"group.create":{"client_msg_id":"g1","title":"Team","members":["bob","eve"]}}`).GetGroupCreate().GetConversation(); again != g {
		t.Fatalf("a repeat made another group: %s, %s", again, g)
	}
	r.judge.Taken()
	for _, step := range []struct{ uid, method, args, want string }{
		{"bob", "message.send", `"body":{"text":"hi"}`, ""},
		{"joe", "message.send", `"body":{"text":"hi"}`, "refused: not_member"},
		{"bob", "message.send", `"body":1,"mention_all":true`, "forbidden"},
		{"bob", "group.add", `"members":["joe"]`, "forbidden"},
		{"ann", "group.add", `"members":["joe"]`, ""},
		{"ann", "group.add", `"members":["joe"]`, "already_member"},
		{"ann", "group.role", `"members":["bob"],"role":"admin"`, ""},
		{"bob", "message.send", `"body":{"text":"all"},"mention_all":true`, ""},
		{"bob", "group.mute", `"members":["joe"],"until":9e12`, ""},
		{"joe", "message.send", `"body":1`, "muted"},
		{"bob", "group.mute", `"members":["joe"],"until":0`, ""},
		{"joe", "message.send", `"body":1`, ""},
		{"bob", "group.info", `"mute_all":true,"announcement":"quiet"`, ""},
		{"joe", "message.send", `"body":1`, "muted"},
		{"bob", "group.info", `"mute_all":false,"join_policy":"open"`, ""},
		{"tom", "group.add", `"members":["tom"]`, ""},
		{"bob", "group.remove", `"members":["tom"]`, ""},
		{"ann", "group.leave", ``, "forbidden"},
		{"ann", "group.role", `"members":["bob"],"role":"owner"`, ""},
		{"ann", "group.leave", ``, ""},
		{"ann", "group.leave", ``, "not_member"}, // logic believes that she is one for some seconds: job judges
		{"ann", "group.role", `"members":["bob"],"role":"king"`, "refused: invalid_request"},
		{"bob", "group.info", ``, "refused: invalid_request"},
		{"bob", "group.info", `"join_policy":"x"`, "refused: invalid_request"},
		{"joe", "group.dissolve", ``, "forbidden"},
		{"bob", "group.dissolve", ``, ""},
		{"bob", "message.send", `"body":1`, "dissolved"},
	} {
		args := fmt.Sprintf(`"conversation":%q,%s`, g, step.args)
		if got := r.does(step.uid, step.method, strings.TrimSuffix(args, ",")); got != step.want {
			t.Errorf("%s %s %s: got %q, want %q", step.uid, step.method, step.args, got, step.want)
		}
	}
	c := r.as("bob", `{"conversation.get":{"conversation":%q}}`, g).GetConversationGet()
	if c.GetTitle() != "Team" || c.GetOwner() != "bob" || !c.GetDissolved() || c.GetAnnouncement() != "quiet" || c.GetMembers() != 3 {
		t.Errorf("got %v", c)
	}
}

// Who was taken out before he was told what became of a message repeats it, as he must, and is told: it is stored, and no refusal may say otherwise.
func TestWhoHasGoneIsToldWhatBecameOfWhatHeSent(t *testing.T) {
	r := newChatRig(t)
	g := r.as("ann", `{"group.create":{"client_msg_id":"g1","title":"Team","members":["bob"]}}`).GetGroupCreate().GetConversation()
	const send = `{"message.send":{"conversation":%q,"client_msg_id":%q,"body":{"text":"hi"}}}`
	r.as("bob", send, g, "m1")
	if got := r.does("ann", "group.remove", fmt.Sprintf(`"conversation":%q,"members":["bob"]`, g)); got != "" {
		t.Fatal(got)
	}
	r.at = r.at.Add(time.Minute) // Nothing is believed any more.
	r.judge.Taken()
	r.as("bob", send, g, "m1")
	recs := r.judge.Taken()
	if len(recs) != 1 {
		t.Fatalf("%d proposals, want the repeat", len(recs))
	}
	if code, _ := r.judge.Outcome(recs[0].GetId()); code != "" {
		t.Errorf("the repeat was rejected: %s", code)
	}
	r.refused("not_member", "bob", send, g, "m2")
	r.refused("not_member", "eve", send, g, "m1")
}

func TestWhoWasBlockedIsToldWhatBecameOfWhatHeSent(t *testing.T) {
	r := newChatRig(t)
	const (
		send   = `{"message.send":{"conversation":"d/ann/bob","client_msg_id":%q,"body":{"text":"hi"}}}`
		create = `{"group.create":{"client_msg_id":%q,"title":"Team","members":["bob"]}}`
		add    = `{"group.add":{"conversation":%q,"client_msg_id":%q,"members":["bob"]}}`
	)
	r.as("ann", send, "m1")
	r.as("ann", create, "g1")
	g := r.as("ann", `{"group.create":{"client_msg_id":"g0","title":"Others"}}`).GetGroupCreate().GetConversation()
	r.as("ann", add, g, "a1")
	r.as("bob", `{"block.set":{"uid":"ann"}}`)
	r.at = r.at.Add(time.Minute) // Nothing is believed any more.
	r.judge.Taken()
	r.as("ann", send, "m1")
	r.as("ann", create, "g1")
	r.as("ann", add, g, "a1")
	recs := r.judge.Taken()
	if len(recs) != 3 {
		t.Fatalf("%d proposals, want the three repeats", len(recs))
	}
	for _, rec := range recs {
		if code, _ := r.judge.Outcome(rec.GetId()); code != "" {
			t.Errorf("a repeat was rejected: %s", code)
		}
	}
	r.refused("blocked", "ann", send, "m2")
	r.refused("blocked", "ann", create, "g2")
	r.refused("blocked", "ann", add, g, "a2")
}

func TestRequestsToJoinAreAnswered(t *testing.T) {
	r := newChatRig(t)
	g := r.as("ann", `{"group.create":{"client_msg_id":"g1","title":"Team","members":["bob"]}}`).GetGroupCreate().GetConversation()
	requests := func(uid string) []string {
		var out []string
		for _, u := range r.as(uid, `{"sync":{}}`).GetSync().GetUserChanges() {
			if u.GetKind() == "group_request" {
				out = append(out, u.GetObject()+" "+u.GetValue().GetStructValue().GetFields()["state"].GetStringValue())
			}
		}
		return out
	}
	r.refused("not_found", "ann", `{"group.answer":{"conversation":%q,"client_msg_id":"x","uid":"joe","accept":true}}`, g)
	r.as("joe", `{"group.ask":{"conversation":%q,"note":"please"}}`, g)
	for uid, want := range map[string][]string{"ann": {g + "/joe asked"}, "joe": {g + "/joe asked"}, "bob": nil} {
		if got := requests(uid); !slices.Equal(got, want) {
			t.Errorf("%s: got %v", uid, got)
		}
	}
	r.refused("forbidden", "bob", `{"group.answer":{"conversation":%q,"client_msg_id":"x","uid":"joe","accept":true}}`, g)
	r.refused("not_member", "joe", `{"group.answer":{"conversation":%q,"client_msg_id":"x","uid":"joe","accept":true}}`, g)
	r.as("ann", `{"group.answer":{"conversation":%q,"uid":"joe"}}`, g)
	if got := requests("joe"); !slices.Equal(got, []string{g + "/joe declined"}) {
		t.Errorf("got %v", got)
	}
	r.as("joe", `{"group.ask":{"conversation":%q,"note":"pretty please"}}`, g)
	r.as("ann", `{"group.answer":{"conversation":%q,"client_msg_id":"a1","uid":"joe","accept":true}}`, g)
	if got := requests("joe"); !slices.Equal(got, []string{g + "/joe accepted"}) {
		t.Errorf("got %v", got)
	}
	r.say("joe", g, "thanks")
	r.refused("already_member", "joe", `{"group.ask":{"conversation":%q}}`, g)
	r.refused("not_found", "joe", `{"group.ask":{"conversation":"g/00000000-0000-0000-0000-000000000000"}}`)
	r.refused("forbidden", "joe", `{"group.ask":{"conversation":"d/ann/joe"}}`)
	r.refused("invalid_request", "joe", `{"group.ask":{"conversation":%q,"note":%q}}`, g, strings.Repeat("x", 1025))
}

func TestWhatHasNoPlaceIsRefusedByStableCodes(t *testing.T) {
	r := newChatRig(t)
	r.say("ann", direct, "hello")
	g := r.as("ann", `{"group.create":{"client_msg_id":"g1"}}`).GetGroupCreate().GetConversation()
	for _, tt := range []struct{ code, conv, body string }{
		{"not_found", "g/00000000-0000-0000-0000-000000000000", "1"},
		{"not_member", "d/bob/eve", "1"},
		{"not_member", "i/bob", "1"},
		{"forbidden", "i/joe", "1"},
		{"invalid_request", "d/joe/ann", "1"},
		{"invalid_request", "", "1"},
		{"invalid_request", "g/x", "1"},
		{"not_member", g, "1"},
		{"too_large", "d/ann/joe", `"` + strings.Repeat("x", 32<<10) + `"`},
	} {
		r.refused(tt.code, "joe", `{"message.send":{"conversation":%q,"client_msg_id":"c","body":%s}}`, tt.conv, tt.body)
	}
	r.refused("invalid_request", "ann", `{"message.send":{"conversation":"d/ann/bob","client_msg_id":"c"}}`)
	r.refused("invalid_request", "ann", `{"message.send":{"conversation":"d/ann/bob","body":1}}`)
	r.refused("invalid_request", "ann", `{"message.send":{"conversation":"d/ann/bob","client_msg_id":%q,"body":1}}`, strings.Repeat("x", 65))
	r.refused("invalid_request", "ann", `{"message.send":{"conversation":"d/ann/bob","client_msg_id":"c","body":1,"mentions":["a b"]}}`)
	for _, method := range []string{"conversation.history", "conversation.members", "conversation.get", "conversation.pinned"} {
		r.refused("not_member", "joe", `{%q:{"conversation":"d/ann/bob"}}`, method)
		r.refused("not_member", "joe", `{%q:{"conversation":%q}}`, method, g)
	}
	r.refused("not_member", "joe", `{"conversation.read":{"conversation":"d/ann/bob","read_seq":1}}`)
	r.refused("not_member", "joe", `{"conversation.set":{"conversation":%q,"mute":true}}`, g)
	r.refused("not_member", "joe", `{"typing":{"conversation":%q}}`, g)
	r.refused("not_member", "joe", `{"conversation.open":{"conversation":%q}}`, g)
	r.refused("invalid_request", "joe", `{"conversation.list":{"cursor":"x"}}`)
	r.judge.Taken()
	if got := r.does("ann", "message.send", `"conversation":"d/ann/bob","client_msg_id":"same","body":1`); got != "" {
		t.Fatal(got)
	}
	if got := r.does("ann", "message.send", `"conversation":"d/ann/bob","client_msg_id":"same","body":2`); got != "conflict" {
		t.Errorf("another body under the same id: got %q", got)
	}
	// As deep as there is.
	deep := strings.Repeat("[", 100) + `"[[\"{"` + strings.Repeat("]", 100)
	if got := r.does("ann", "message.send", `"conversation":"d/ann/bob","body":`+deep); got != "" {
		t.Errorf("a deep one: got %q", got)
	}
	for _, body := range []string{"[" + deep + "]", `{"a":` + deep + `}`} {
		r.refused("invalid_request", "ann", `{"message.send":{"conversation":"d/ann/bob","client_msg_id":"deeper","body":%s}}`, body)
	}
	// The largest there is.
	if got := r.does("ann", "message.send", `"conversation":"d/ann/bob","body":"`+strings.Repeat("x", 32<<10-2)+`"`); got != "" {
		t.Errorf("the largest: got %q", got)
	}
}

func TestWhoIsBlockedIsRefused(t *testing.T) {
	r := newChatRig(t)
	r.as("bob", `{"block.set":{"uid":"ann"}}`)
	if got := r.as("bob", `{"block.list":{}}`).GetBlockList().GetUids(); !slices.Equal(got, []string{"ann"}) {
		t.Errorf("got %v", got)
	}
	r.refused("blocked", "ann", `{"message.send":{"conversation":"d/ann/bob","client_msg_id":"c","body":1}}`)
	r.refused("blocked", "ann", `{"typing":{"conversation":"d/ann/bob"}}`)
	r.refused("blocked", "ann", `{"contact.ask":{"uid":"bob"}}`)
	r.refused("blocked", "ann", `{"group.create":{"client_msg_id":"g","members":["eve","bob"]}}`)
	g := r.as("ann", `{"group.create":{"client_msg_id":"g1","members":["eve"]}}`).GetGroupCreate().GetConversation()
	r.refused("blocked", "ann", `{"group.add":{"conversation":%q,"client_msg_id":"g2","members":["bob"]}}`, g)
	r.say("bob", direct, "I may")
	r.as("bob", `{"block.set":{"uid":"ann","off":true}}`)
	r.say("ann", direct, "and now I may")
	r.refused("invalid_request", "ann", `{"block.set":{"uid":"ann"}}`)
	r.refused("invalid_request", "ann", `{"block.set":{"uid":"a b"}}`)
}

func TestTooManyMessagesAreRefused(t *testing.T) {
	rdb, prefix := kittest.Redis(t)
	r := newChatRig(t, func(c *conversation.Config, d *conversation.Deps) {
		c.Rate, c.Burst, c.ReadRate, c.ReadBurst = 0.001, 3, 0.001, 2
		d.Limiter = limit.New(rdb, prefix, long, nil)
	})
	limited := func(uid, body string) (n int) {
		for i := range 8 {
			reply, _ := r.ask(member(uid), fmt.Sprintf(body, i))
			if reply.GetError().GetCode() == "rate_limited" {
				if reply.GetError().GetRetryAfterMs() == 0 || !reply.GetError().GetRetry() {
					t.Errorf("got %v", reply)
				}
				n++
			}
		}
		return n
	}
	const send, list = `{"message.send":{"conversation":"d/ann/bob","client_msg_id":"c%d","body":1}}`, `{"conversation.list":{"limit":%d}}`
	if got := limited("ann", send); got != 5 {
		t.Errorf("messages: %d of 8 refused", got)
	}
	if got := limited("bob", send); got != 5 {
		t.Errorf("another one has his own: %d of 8 refused", got)
	}
	if got := limited("ann", list); got != 6 {
		t.Errorf("questions: %d of 8 refused", got)
	}
}

func TestKafkaThatDoesNotAnswerLeavesItUnknown(t *testing.T) {
	r := newChatRig(t)
	r.say("bob", direct, "1")
	r.kafka.Fail(context.DeadlineExceeded)
	for _, body := range []string{
		`{"message.send":{"conversation":"d/ann/bob","client_msg_id":"c","body":1}}`, `{"conversation.read":{"conversation":"d/ann/bob","read_seq":1}}`,
		`{"contact.ask":{"uid":"bob"}}`, `{"conversation.set":{"conversation":"d/ann/bob","mute":true}}`,
	} {
		reply, _ := r.ask(member("ann"), body)
		if e := reply.GetError(); e.GetCode() != "unknown" || !e.GetRetry() || e.GetRetryAfterMs() == 0 {
			t.Errorf("%s: got %v", body, reply)
		}
	}
}

func TestWhileTheDatabaseIsAwayMembersThatAreKnownSend(t *testing.T) {
	r := newChatRig(t)
	g := r.as("ann", `{"group.create":{"client_msg_id":"g1","members":["bob","eve"]}}`).GetGroupCreate().GetConversation()
	r.say("ann", g, "1")
	r.say("ann", direct, "1")
	r.db.away = true
	r.judge.Hold()
	r.at = r.at.Add(time.Minute)
	for _, conv := range []string{g, direct} {
		r.as("ann", `{"message.send":{"conversation":%q,"client_msg_id":"away","body":{"text":"2"}}}`, conv)
	}
	r.refused("unavailable", "eve", `{"message.send":{"conversation":%q,"client_msg_id":"away","body":1}}`, g)
	r.refused("unavailable", "joe", `{"message.send":{"conversation":"d/ann/joe","client_msg_id":"away","body":1}}`)
	r.refused("unavailable", "ann", `{"conversation.list":{}}`)
	r.refused("unavailable", "ann", `{"conversation.history":{"conversation":%q}}`, g)
	r.db.away = false
	r.judge.Release()
	r.at = r.at.Add(time.Second)
	if got := texts(r.as("bob", `{"conversation.history":{"conversation":%q,"from":2}}`, g).GetConversationHistory().GetEntries()); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("got %v", got)
	}
	// Not for ever.
	r.db.away = true
	r.at = r.at.Add(16 * time.Minute)
	r.refused("unavailable", "ann", `{"message.send":{"conversation":%q,"client_msg_id":"later","body":1}}`, g)
}

func TestMembershipIsBelievedForSecondsAndNonMembershipNever(t *testing.T) {
	r := newChatRig(t)
	g := r.as("ann", `{"group.create":{"client_msg_id":"g1","members":["bob"]}}`).GetGroupCreate().GetConversation()
	r.refused("not_member", "joe", `{"message.send":{"conversation":%q,"client_msg_id":"c","body":1}}`, g)
	if got := r.does("ann", "group.add", fmt.Sprintf(`"conversation":%q,"members":["joe"]`, g)); got == "refused: not_member" {
		t.Fatal(got)
	}
	r.judge.Taken()
	r.say("joe", g, "at once")
	r.as("ann", `{"group.remove":{"conversation":%q,"client_msg_id":"r","members":["joe"]}}`, g)
	r.judge.Taken()
	if got := r.does("joe", "message.send", fmt.Sprintf(`"conversation":%q,"body":1`, g)); got != "not_member" {
		t.Errorf("within the time job refuses: got %q", got)
	}
	r.at = r.at.Add(11 * time.Second)
	r.refused("not_member", "joe", `{"message.send":{"conversation":%q,"client_msg_id":"d","body":1}}`, g)
}

func TestChangesGoByTheOrderedOpOnly(t *testing.T) {
	r := newChatRig(t)
	r.say("ann", direct, "1")
	for body, want := range map[string]string{
		`{"conversation.list":{}}`: "", `{"sync":{}}`: "", `{"conversation.history":{"conversation":"d/ann/bob"}}`: "", `{"contact.list":{}}`: "", `{"user.search":{"query":"a"}}`: "",
		`{"message.send":{"conversation":"d/ann/bob","client_msg_id":"c","body":1}}`: "invalid_request", `{"conversation.read":{"conversation":"d/ann/bob","read_seq":1}}`: "invalid_request",
		`{"user.update":{"name":"x"}}`: "invalid_request", `{"typing":{"conversation":"d/ann/bob"}}`: "invalid_request", `{"group.create":{"client_msg_id":"g"}}`: "invalid_request",
	} {
		q := member("ann")
		q.Op = 103
		reply, _ := r.ask(q, body)
		if got := reply.GetError().GetCode(); got != want {
			t.Errorf("%s: got %q, want %q", body, got, want)
		}
	}
}

func TestServerWithoutADatabaseSaysSo(t *testing.T) {
	r := newChatRig(t, func(_ *conversation.Config, d *conversation.Deps) { d.Store = nil })
	for _, m := range everyMethod() {
		b := contract(t, m)
		reply, _ := r.ask(member("ann"), b)
		if e := reply.GetError(); e.GetCode() != "unknown_method" || e.GetRetry() {
			t.Errorf("%s: got %v", b, reply)
		}
	}
}

func TestSettingsAreKeptForEachDevice(t *testing.T) {
	r := newChatRig(t)
	r.say("ann", direct, "1")
	r.as("bob", `{"conversation.set":{"conversation":"d/ann/bob","mute":true,"draft":"half a","clear":1}}`)
	r.as("bob", `{"conversation.set":{"conversation":"d/ann/bob","pin":true,"hide":false}}`)
	r.at = r.at.Add(time.Second)
	r.as("bob", `{"conversation.set":{"conversation":"d/ann/bob","draft":"half a sentence","clear":0}}`)
	r.as("bob", `{"message.delete":{"conversation":"d/ann/bob","seq":1}}`)
	got := map[string]string{}
	for _, u := range r.as("bob", `{"sync":{}}`).GetSync().GetUserChanges() {
		b, err := u.GetValue().MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		got[u.GetKind()+" "+u.GetObject()] = strings.ReplaceAll(string(b), " ", "")
	}
	delete(got, "conversation "+direct)
	want := map[string]string{
		"mute d/ann/bob": `{"on":true}`, "pin d/ann/bob": `{"on":true}`, "hide d/ann/bob": `{"on":false}`, "draft d/ann/bob": `{"text":"halfasentence"}`,
		"clear d/ann/bob": `{"seq":1}`, "delete d/ann/bob/1": `{"on":true}`,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	r.refused("invalid_request", "bob", `{"conversation.set":{"conversation":"d/ann/bob"}}`)
	r.refused("invalid_request", "bob", `{"conversation.set":{"conversation":"d/ann/bob","draft":%q}}`, strings.Repeat("x", 4097))
	r.refused("invalid_request", "bob", `{"message.delete":{"conversation":"d/ann/bob"}}`)
}
