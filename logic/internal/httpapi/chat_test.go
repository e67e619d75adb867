package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/fake"
	"github.com/halley-im/halley/logic/internal/httpapi"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	entry "github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/storetest"
)

const (
	direct  = "/v1/conversations/d%2Fann%2Fbob"
	chatted = "chat"
)

// The group of chatServer, made by ann under g1.
var (
	groupID = entry.GroupID("default", "ann", "g1")
	group   = "/v1/conversations/" + url.PathEscape(groupID)
)

// chatCalls is one good call of each path of conversations and people, in an order in which they work. %d is another number each time.
var chatCalls = []pathCall{
	{"POST", direct + "/messages", `{"from":"ann","body":{"text":"x"}}`, []string{"chat"}},
	{"POST", direct + "/messages/1/edit", `{"from":"ann","body":{"text":"%d"}}`, []string{"chat"}},
	{"POST", direct + "/messages/1/reactions", `{"from":"bob","reaction":"👍"}`, []string{"chat"}},
	{"POST", direct + "/messages/1/pin", `{"from":"bob"}`, []string{"chat"}},
	{"POST", direct + "/import", `{"messages":[{"from":"ann","client_msg_id":"old%d","body":"x","accepted_at":1700000000000}]}`, nil},
	{"GET", direct + "/messages/1/audit", "", nil},
	{"GET", "/v1/conversations?limit=10", "", nil},
	{"GET", direct, "", []string{"chat", "read"}},
	{"GET", direct + "/entries?limit=3", "", []string{"chat", "read"}},
	{"GET", direct + "/members?read_seq=1", "", []string{"chat", "read"}},
	{"GET", direct + "/pins", "", []string{"chat", "read"}},
	{"GET", direct + "/messages/1/reactions?reaction=x", "", []string{"chat", "read"}},
	{"POST", direct + "/read", `{"uid":"bob","read_seq":1}`, []string{"chat"}},
	{"POST", direct + "/typing", `{"uid":"bob"}`, []string{"chat"}},
	{"POST", "/v1/conversations", `{"owner":"ann","members":["bob"],"title":"x"}`, []string{"chat"}},
	{"PATCH", group, `{"from":"ann","title":"%d","join_policy":"open"}`, []string{"chat"}},
	{"POST", group + "/members", `{"members":["u%d"]}`, []string{"chat"}},
	{"POST", group + "/members/role", `{"from":"ann","members":["bob"],"role":"admin"}`, []string{"chat"}},
	{"POST", group + "/members/mute", `{"from":"ann","members":["bob"],"until":0}`, []string{"chat"}},
	{"POST", group + "/requests", `{"uid":"joe","note":"please"}`, []string{"chat"}},
	{"POST", group + "/requests/answer", `{"from":"ann","uid":"joe","accept":false}`, []string{"chat"}},
	{"GET", "/v1/users?query=a", "", []string{"chat", "read"}},
	{"POST", "/v1/users", `{"users":[{"uid":"ann","name":"Ann"},{"uid":"bob","profile":{"x":1}}]}`, []string{"chat"}},
	{"PUT", "/v1/users/ann", `{"name":"Anna","visibility":"all"}`, []string{"chat"}},
	{"GET", "/v1/users/ann", "", []string{"chat", "read"}},
	{"GET", "/v1/users/ann/conversations", "", []string{"chat", "read"}},
	{"POST", "/v1/users/ann/sync", `{"conversations":{"d/ann/bob":1}}`, []string{"chat", "read"}},
	{"PUT", "/v1/users/ann/conversations/d%2Fann%2Fbob/settings", `{"mute":true}`, []string{"chat"}},
	{"DELETE", "/v1/users/ann/conversations/d%2Fann%2Fbob/messages/1", "", []string{"chat"}},
	{"PUT", "/v1/users/ann/contacts/bob", `{"act":"join"}`, []string{"chat"}},
	{"GET", "/v1/users/ann/contacts", "", []string{"chat", "read"}},
	{"DELETE", "/v1/users/ann/contacts/bob", "", []string{"chat"}},
	{"PUT", "/v1/users/ann/blocks/bob", "", []string{"chat"}},
	{"GET", "/v1/users/ann/blocks", "", []string{"chat", "read"}},
	{"DELETE", "/v1/users/ann/blocks/bob", "", []string{"chat"}},
	{"POST", direct + "/messages/1/recall", `{}`, []string{"chat"}},
	{"POST", group + "/members/remove", `{"members":["bob","u%d"]}`, []string{"chat"}},
	{"POST", group + "/leave", `{"from":"u%d"}`, []string{"chat"}},
	{"POST", group + "/dissolve", `{}`, []string{"chat"}},
}

// chatServer is a server with conversations.
type chatServer struct {
	*server
	judge *fake.Judge
}

func newChatServer(t testing.TB, opts ...func(*conversation.Config, *conversation.Deps)) *chatServer {
	t.Helper()
	s := &chatServer{}
	rdb, prefix := redisFor(t)
	s.judge = &fake.Judge{Producer: &fake.Producer{}, T: t, Store: storetest.Open(t, storetest.Config(t)), Redis: rdb, Prefix: prefix}
	s.server = newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) {
		cfg := defaults[conversation.Config](t)
		cfg.OutcomeWait, cfg.RedisTimeout = patience, patience
		deps := conversation.Deps{Store: s.judge.Store, Producer: s.judge, Push: d.Push.(conversation.Pusher), Redis: rdb, RedisPrefix: prefix, Now: d.Now}
		for _, o := range opts {
			o(&cfg, &deps)
		}
		chat, err := conversation.New(cfg, deps)
		if err != nil {
			t.Fatal(err)
		}
		d.Chat = chat
		// Its own keys: answers are kept.
		d.Redis, d.RedisPrefix = rdb, prefix
	})
	return s
}

// began has a direct conversation with a message, and a group.
func (s *chatServer) began() *chatServer {
	s.t.Helper()
	s.do("POST", direct+"/messages", chatted, `{"from":"ann","body":{"text":"first"}}`).want(s.t, 200, "")
	s.do("POST", "/v1/conversations", chatted, `{"client_msg_id":"g1","owner":"ann","members":["bob"],"title":"Team"}`).want(s.t, 200, "")
	return s
}

func TestEveryPathOfConversationsWantsItsScope(t *testing.T) {
	s := newChatServer(t).began()
	n := 0
	for _, c := range chatCalls {
		body := func() string {
			n++
			return strings.ReplaceAll(c.body, "%d", fmt.Sprint(n))
		}
		s.do(c.method, c.path, "", body()).want(t, 401, "unauthenticated")
		for _, key := range []string{"push", "token", "read", "chat"} {
			if slices.Contains(c.scopes, key) {
				continue
			}
			s.do(c.method, c.path, key, body()).want(t, 403, "forbidden")
		}
		if strings.HasSuffix(c.path, "/leave") {
			s.do("POST", group+"/members", chatted, fmt.Sprintf(`{"members":["u%d"]}`, n+1)).want(t, 200, "")
		}
		for i, key := range append(slices.Clone(c.scopes), "admin") {
			if i > 0 && c.method != "GET" {
				break // some work once only
			}
			if a := s.do(c.method, c.path, key, body()); a.status != 200 {
				t.Errorf("%s %s by %s: got %d %s", c.method, c.path, key, a.status, a.body)
			}
		}
	}
}

func TestEveryPathIsTried(t *testing.T) {
	s := newServer(t)
	var doc struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(s.do("GET", "/openapi.json", "", "").body), &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		re := regexp.MustCompile("^" + regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(path, "[^/]+") + "$")
		for method := range methods {
			if path == "/v1/demo/login" || path == "/v1/endpoints" {
				continue // without a key
			}
			if !slices.ContainsFunc(slices.Concat(calls, chatCalls, callCalls), func(c pathCall) bool {
				p, _, _ := strings.Cut(c.path, "?")
				return c.method == strings.ToUpper(method) && re.MatchString(p)
			}) {
				t.Errorf("%s %s isn't tried", method, path)
			}
		}
	}
}

func TestSendingTellsThePlace(t *testing.T) {
	s := newChatServer(t)
	a := s.do("POST", direct+"/messages", chatted, `{"from":"ann","client_msg_id":"c1","body":{"text":"hi <b>"},"mentions":["bob"]}`).want(t, 200, "").json(t)
	if a["seq"] != 1.0 || a["id"] != entry.MessageID("default", "d/ann/bob", "ann", "c1") || a["conversation"] != "d/ann/bob" || a["server_time"] != float64(now.UnixMilli()) {
		t.Errorf("got %v", a)
	}
	// A repeat has the same place, another body under the same id none.
	if b := s.do("POST", direct+"/messages", chatted, `{"from":"ann","client_msg_id":"c1","body":{"text":"hi <b>"},"mentions":["bob"]}`).want(t, 200, "").json(t); b["seq"] != 1.0 {
		t.Errorf("got %v", b)
	}
	s.do("POST", direct+"/messages", chatted, `{"from":"ann","client_msg_id":"c1","body":2}`).want(t, 409, "conflict")
	// The system speaks, too.
	s.do("POST", direct+"/messages", chatted, `{"body":"welcome"}`).want(t, 200, "")
	for uid, unread := range map[string]any{"ann": 1.0, "bob": 2.0} {
		if c := s.do("GET", direct+"?uid="+uid, "read", "").want(t, 200, "").json(t); c["unread"] != unread {
			t.Errorf("%s has %v", uid, c)
		}
	}
	if got := s.do("GET", direct+"?uid=eve", "read", "").code(t); got != "not_member" {
		t.Errorf("got %q", got)
	}
	es := s.do("GET", direct+"/entries?uid=bob", "read", "").want(t, 200, "").body
	if want := `{"entries":[{"seq":1,"kind":"message","from":"ann","client_msg_id":"c1","server_time":` + fmt.Sprint(now.UnixMilli()) +
		`,"msg_no":1,"changed_seq":1,"body":{"text":"hi <b>"},"mentions":["bob"]},{"seq":2,"kind":"message",`; !strings.HasPrefix(strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(es), want) {
		t.Errorf("got %s", es)
	}
}

func TestOutcomeThatIsLateIsAccepted(t *testing.T) {
	s := newChatServer(t, func(c *conversation.Config, _ *conversation.Deps) { c.OutcomeWait = 30 * time.Millisecond })
	s.judge.Hold()
	const body = `{"from":"ann","body":"x"}`
	a := s.do("POST", direct+"/messages", chatted, body, "Idempotency-Key", "k").want(t, 202, "").json(t)
	if a["seq"] != nil || a["id"] == "" || a["accepted_at"] == nil {
		t.Errorf("got %v", a)
	}
	s.judge.Release()
	// Not an answer for ever: the repeat learns the place, or a later one where 30 ms are too short for this machine.
	var b answer
	kittest.Eventually(t, patience, func() bool {
		b = s.do("POST", direct+"/messages", chatted, body, "Idempotency-Key", "k")
		return b.status != 202
	})
	if m := b.want(t, 200, "").json(t); m["seq"] != 1.0 || m["id"] != a["id"] {
		t.Errorf("got %v", m)
	}
	if b := s.do("POST", direct+"/messages", chatted, body, "Idempotency-Key", "k").want(t, 200, ""); b.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("got %v", b.header)
	}
}

func TestWhatTheConversationRefusesHasItsCode(t *testing.T) {
	s := newChatServer(t).began()
	for _, c := range []struct {
		path, body string
		status     int
		code       string
	}{
		{direct + "/messages", `{"from":"joe","body":1}`, 403, "not_member"},
		{direct + "/messages", `{"from":"a b","body":1}`, 400, "invalid_request"},
		{direct + "/messages", `{"from":"ann"}`, 400, "invalid_request"},
		{direct + "/messages", `{"from":"ann","body":1,"text":"x"}`, 400, "invalid_request"},
		{direct + "/messages", `{"from":"ann","body":"` + strings.Repeat("x", 32<<10) + `"}`, 413, "too_large"},
		{"/v1/conversations/d%2Fbob%2Fann/messages", `{"from":"ann","body":1}`, 400, "invalid_request"},
		{"/v1/conversations/g%2F11111111-1111-1111-1111-111111111111/messages", `{"from":"ann","body":1}`, 404, "not_found"},
		{"/v1/conversations/g%2F11111111-1111-1111-1111-111111111111/messages", `{"body":1}`, 404, "not_found"},
		{direct + "/messages/9/edit", `{"from":"ann","body":1}`, 404, "not_found"},
		{direct + "/messages/1/edit", `{"from":"bob","body":1}`, 403, "forbidden"},
		{direct + "/messages/0/recall", `{}`, 400, "invalid_request"},
		{group + "/members", `{"from":"bob","members":["joe"]}`, 403, "forbidden"},
		{group + "/members", `{"members":["bob"]}`, 409, "already_member"},
		{group + "/members", `{"members":[]}`, 400, "invalid_request"},
		{group + "/members/role", `{"members":["bob"],"role":"king"}`, 400, "invalid_request"},
		{group + "/leave", `{}`, 400, "invalid_request"},
		{direct + "/members", `{"members":["joe"]}`, 403, "forbidden"},
		{direct + "/import", `{"messages":[{"from":"ann","client_msg_id":"x","body":1,"accepted_at":9999999999999}]}`, 400, "invalid_request"},
		{direct + "/import", `{"messages":[{"from":"ann","body":1,"accepted_at":1}]}`, 400, "invalid_request"},
	} {
		s.do("POST", c.path, "admin", c.body).want(t, c.status, c.code)
	}
	s.do("PUT", "/v1/users/bob/blocks/ann", chatted, "").want(t, 200, "")
	s.do("POST", direct+"/messages", chatted, `{"from":"ann","body":1}`).want(t, 200, "") // within 10 s of a look at it
	s.do("PUT", "/v1/users/joe/blocks/ann", chatted, "").want(t, 200, "")
	s.do("POST", "/v1/conversations/d%2Fann%2Fjoe/messages", chatted, `{"from":"ann","body":1}`).want(t, 403, "blocked")
	s.do("POST", group+"/members/mute", chatted, fmt.Sprintf(`{"members":["bob"],"until":%d}`, now.Add(time.Hour).UnixMilli())).want(t, 200, "")
	s.do("POST", group+"/messages", chatted, `{"from":"bob","body":1}`).want(t, 403, "muted")
	s.judge.Fail(context.DeadlineExceeded)
	s.do("POST", direct+"/messages", chatted, `{"from":"ann","body":1}`).want(t, 503, "unknown")
}

func TestHistoryIsImportedWithItsTimes(t *testing.T) {
	s := newChatServer(t)
	body := `{"messages":[{"from":"ann","client_msg_id":"1","body":"a","accepted_at":1600000000000},{"from":"joe","client_msg_id":"2","body":"b","accepted_at":1600000001000},
		{"from":"bob","client_msg_id":"3","body":"c","accepted_at":1600000002000},{"from":"bob","client_msg_id":"4","body":"d","accepted_at":1500000000000}]}`
	for range 2 {
		a := s.do("POST", direct+"/import", "admin", body).want(t, 200, "").json(t)
		var got []string
		for _, m := range a["messages"].([]any) {
			m := m.(map[string]any)
			if e, ok := m["error"].(map[string]any); ok {
				got = append(got, e["code"].(string))
				continue
			}
			got = append(got, fmt.Sprint(m["seq"]))
		}
		if want := []string{"1", "not_member", "2", "3"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	es := s.do("GET", direct+"/entries", "read", "").json(t)["entries"].([]any)
	var times []any
	for _, e := range es {
		times = append(times, e.(map[string]any)["server_time"])
	}
	if want := []any{1600000000000.0, 1600000002000.0, 1600000002000.0}; !slices.Equal(times, want) {
		t.Errorf("got %v, want %v", times, want)
	}
	g := s.do("POST", "/v1/conversations", chatted, `{"client_msg_id":"old","owner":"ann","accepted_at":1600000000000}`).want(t, 200, "").json(t)
	if g["server_time"] != 1600000000000.0 {
		t.Errorf("got %v", g)
	}
	// And who came to it and went.
	group := "/v1/conversations/" + url.PathEscape(g["conversation"].(string))
	for i, call := range [][2]string{
		{"/members", `{"from":"ann","members":["bob","joe"],`}, {"/members/role", `{"from":"ann","members":["bob"],"role":"admin",`},
		{"/members/remove", `{"from":"bob","members":["joe"],`}, {"/leave", `{"from":"bob",`},
	} {
		at := 1600000001000 + float64(i)
		if e := s.do("POST", group+call[0], chatted, fmt.Sprintf(`%s"client_msg_id":"e%d","accepted_at":%.0f}`, call[1], i, at)).want(t, 200, "").json(t); e["server_time"] != at {
			t.Errorf("%s: got %v", call[0], e)
		}
		if got := s.do("POST", group+call[0], chatted, fmt.Sprintf(`%s"client_msg_id":"f%d","accepted_at":99999999999999}`, call[1], i)).code(t); got != "invalid_request" {
			t.Errorf("%s of the future: got %q", call[0], got)
		}
	}
	if recs := s.judge.Taken(); len(recs) == 0 || !recs[0].GetImported() || recs[len(recs)-1].GetImported() {
		t.Errorf("got %v", recs)
	}
}

func TestDurablePushIsKept(t *testing.T) {
	s := newChatServer(t)
	const body = `{"uids":["ann","bob"],"durable":true,"json":{"text":"your parcel"}}`
	a := s.do("POST", "/v1/push", "push", body, "Idempotency-Key", "k").want(t, 200, "").json(t)
	if recs := s.judge.Taken(); len(recs) != 2 || recs[0].GetProposal().GetClientMsgId() != a["id"] || recs[0].GetSender() != "" {
		t.Errorf("got %v", recs)
	}
	for _, uid := range []string{"ann", "bob"} {
		list := s.do("GET", "/v1/users/"+uid+"/conversations", chatted, "").want(t, 200, "").json(t)["conversations"].([]any)
		if len(list) != 1 || list[0].(map[string]any)["id"] != "i/"+uid || list[0].(map[string]any)["unread"] != 1.0 {
			t.Errorf("got %v", list)
		}
	}
	if recs := s.kafka.taken(); len(recs) != 0 {
		t.Errorf("it was pushed as well: %v", recs)
	}
	for body, code := range map[string]string{
		`{"durable":true,"text":"x"}`: "invalid_request", `{"all":true,"durable":true,"text":"x"}`: "invalid_request", `{"uids":["ann"],"rooms":["a://b"],"durable":true,"text":"x"}`: "invalid_request",
		`{"uids":["ann"],"durable":true}`: "invalid_request", `{"uids":["a b"],"durable":true,"text":"x"}`: "invalid_request", `{"uids":["ann"],"durable":true,"op":1000,"text":"x"}`: "invalid_request",
		`{"uids":["ann"],"durable":true,"text":"x","json":1}`: "invalid_request", `{"uids":["ann"],"durable":true,"text":"` + strings.Repeat("x", 33<<10) + `"}`: "too_large",
		`{"uids":["` + strings.Repeat(`a","`, 1000) + `a"],"durable":true,"text":"x"}`: "too_large",
	} {
		if got := s.do("POST", "/v1/push", "push", body).code(t); got != code {
			t.Errorf("%.80s: got %q, want %q", body, got, code)
		}
	}
	b := s.do("POST", "/v1/push/batch", "push", `{"items":[{"uids":["ann"],"durable":true,"text":"x"}]}`).want(t, 200, "").json(t)
	if b["failed"] != 1.0 {
		t.Errorf("got %v", b)
	}
}

func TestTenantsConversationsDoNotMeet(t *testing.T) {
	s := newChatServer(t).began()
	s.do("PUT", "/v1/users/ann", chatted, `{"name":"Ann"}`).want(t, 200, "")
	for _, c := range chatCalls {
		if c.method != "GET" || strings.HasPrefix(c.path, "/v1/users/ann/") || strings.HasPrefix(c.path, "/v1/users?") || strings.HasPrefix(c.path, "/v1/conversations?") {
			continue
		}
		if a := s.do(c.method, c.path, "shop", ""); a.status != 404 {
			t.Errorf("%s: got %d %s", c.path, a.status, a.body)
		}
	}
	if got := s.do("GET", "/v1/users/ann/conversations", "shop", "").want(t, 200, "").body; strings.Contains(got, "d/ann/bob") {
		t.Errorf("got %s", got)
	}
	s.do("POST", direct+"/messages", "shop", `{"from":"ann","body":"other"}`).want(t, 200, "")
	if got := s.do("GET", direct+"/entries", chatted, "").want(t, 200, "").body; strings.Contains(got, "other") {
		t.Errorf("got %s", got)
	}
}

func TestServerWithoutADatabaseHasNoConversations(t *testing.T) {
	s := newServer(t)
	for _, c := range chatCalls {
		s.do(c.method, c.path, "admin", strings.ReplaceAll(c.body, "%d", "1")).want(t, 404, "unknown_method")
	}
	s.do("POST", "/v1/push", "push", `{"uids":["ann"],"durable":true,"text":"x"}`).want(t, 404, "unknown_method")
}

func TestTypingOfABackendIsTold(t *testing.T) {
	s := newChatServer(t).began()
	s.kafka.taken()
	s.do("POST", direct+"/typing", chatted, `{"uid":"bob"}`).want(t, 200, "")
	recs := s.kafka.taken()
	if len(recs) != 1 || recs[0].GetTargets()[0].GetUid() != "ann" || string(recs[0].GetPush().GetBody()) != `{"typing":{"conversation":"d/ann/bob","uid":"bob"}}` || recs[0].GetClass() != halleyv1.Class_CLASS_VOLATILE {
		t.Errorf("got %v", recs)
	}
	s.do("POST", direct+"/typing", chatted, `{"uid":""}`).want(t, 400, "invalid_request")
}

func TestWhoLogsInByNameIsFound(t *testing.T) {
	s := newChatServer(t)
	// The server of the tests has its demo closed: another one on the same database.
	open := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) {
		chat, err := conversation.New(defaults[conversation.Config](t), conversation.Deps{Store: s.judge.Store, Producer: s.judge, Now: d.Now})
		if err != nil {
			t.Fatal(err)
		}
		d.Chat, d.Demo = chat, httpapi.Loopback
	})
	s.do("PUT", "/v1/users/bob", chatted, `{"name":"Bob the host's"}`).want(t, 200, "")
	for _, uid := range []string{"ann", "bob", "ann"} {
		open.do("POST", "/v1/demo/login", "", `{"name":"`+uid+`"}`).want(t, 200, "")
	}
	for uid, want := range map[string]string{"ann": `{"uid":"ann","name":"ann","visibility":"all"}`, "bob": `{"uid":"bob","name":"Bob the host's","visibility":"contacts"}`} {
		if got := s.do("GET", "/v1/users/"+uid, chatted, "").want(t, 200, "").body; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestAdministratorsSeeGroupsAndWhatWasSaid(t *testing.T) {
	s := newChatServer(t).began()
	for i := range 4 {
		s.do("POST", "/v1/conversations", chatted, fmt.Sprintf(`{"client_msg_id":"more%d","title":"T%d"}`, i, i)).want(t, 200, "")
	}
	s.do("POST", "/v1/conversations", "shop", `{"title":"theirs"}`).want(t, 200, "")
	titles := map[string]bool{}
	for cursor, pages := "", 1; ; pages++ {
		page := s.do("GET", "/v1/conversations?limit=2&cursor="+url.QueryEscape(cursor), "admin", "").want(t, 200, "").json(t)
		for _, c := range page["conversations"].([]any) {
			titles[c.(map[string]any)["title"].(string)] = true
		}
		if cursor, _ = page["next"].(string); cursor == "" {
			if pages != 3 {
				t.Errorf("got %d pages", pages)
			}
			break
		}
	}
	if len(titles) != 5 || titles["theirs"] {
		t.Errorf("got %v", titles)
	}
	s.do("GET", "/v1/conversations?cursor=d%2Fann%2Fbob", "admin", "").want(t, 400, "invalid_request")
	s.do("POST", direct+"/messages/1/edit", chatted, `{"from":"ann","body":"second"}`).want(t, 200, "")
	s.do("POST", direct+"/messages/1/recall", chatted, `{"from":"ann"}`).want(t, 200, "")
	at := now.UnixMilli()
	want := fmt.Sprintf(`{"replaced":[{"changed_seq":2,"kind":"edit","changed_by":"ann","at":%d,"body":{"text":"first"}},{"changed_seq":3,"kind":"recall","changed_by":"ann","at":%d,"body":"second"}]}`, at, at)
	if got := s.do("GET", direct+"/messages/1/audit", "admin", "").want(t, 200, "").body; got != want {
		t.Errorf("got %s", got)
	}
	first := s.do("GET", direct+"/messages/1/audit?limit=1", "admin", "").want(t, 200, "").json(t)
	rest := s.do("GET", direct+"/messages/1/audit?cursor="+first["next"].(string), "admin", "").want(t, 200, "").json(t)
	if list := rest["replaced"].([]any); len(first["replaced"].([]any)) != 1 || len(list) != 1 || list[0].(map[string]any)["changed_seq"] != 3.0 || rest["next"] != nil {
		t.Errorf("in pages: got %v, %v", first, rest)
	}
	for _, path := range []string{direct + "/messages/1/audit?cursor=x", direct + "/members?cursor=%FF", "/v1/users/ann/contacts?cursor=%FF", "/v1/users/ann/blocks?cursor=a%20b",
		direct + "/messages/1/reactions?reaction=%FF", direct + "/messages/1/reactions?reaction=x&cursor=%FF"} {
		s.do("GET", path, "admin", "").want(t, 400, "invalid_request")
	}
}

func TestDisabledUsersAreOut(t *testing.T) {
	s := newChatServer(t)
	s.do("POST", "/v1/tokens", "token", `{"uid":"eve"}`).want(t, 200, "")
	s.do("PUT", "/v1/users/eve", chatted, `{"name":"Eve","disabled":true}`).want(t, 200, "")
	if list := s.revoker.taken(); len(list) != 1 || list[0].uid != "eve" || list[0].before != now.UnixMilli() {
		t.Errorf("got %v", list)
	}
	if recs := s.kafka.taken(); len(recs) != 1 || recs[0].GetControl().GetKick() == nil || recs[0].GetTargets()[0].GetUid() != "eve" {
		t.Errorf("got %v", recs)
	}
	s.do("POST", "/v1/tokens", "token", `{"uid":"eve"}`).want(t, 403, "forbidden")
	s.do("PUT", "/v1/users/eve", chatted, `{"name":"Eve again"}`).want(t, 200, "")
	s.do("POST", "/v1/tokens", "token", `{"uid":"eve"}`).want(t, 403, "forbidden")
	s.do("PUT", "/v1/users/eve", chatted, `{"disabled":false}`).want(t, 200, "")
	s.do("POST", "/v1/tokens", "token", `{"uid":"eve"}`).want(t, 200, "")
	if list := s.revoker.taken(); len(list) != 0 {
		t.Errorf("got %v", list)
	}
}
