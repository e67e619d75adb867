package httpapi_test

import (
	"context"
	"net/http"
	"slices"
	"testing"

	"github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/fake"
	"github.com/halley-im/halley/logic/internal/httpapi"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

const oneCall = "22222222-2222-4222-8222-222222222222"

// callCalls are the paths of calls.
var callCalls = []pathCall{
	{method: http.MethodGet, path: "/v1/calls", scopes: []string{"read"}},
	{method: http.MethodGet, path: "/v1/calls/" + oneCall, scopes: []string{"read"}},
	{method: http.MethodPost, path: "/v1/calls/" + oneCall + "/end", scopes: []string{"chat"}},
}

func TestCallsAreListedShownAndEnded(t *testing.T) {
	rdb, prefix := redisFor(t)
	var calls *call.Service
	s := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) {
		chat, err := conversation.New(defaults[conversation.Config](t), conversation.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		cfg := defaults[call.Config](t)
		cfg.RedisTimeout = patience
		if calls, err = call.New(cfg, call.Deps{
			Redis: rdb, RedisPrefix: prefix, Producer: &fake.Producer{}, Router: halleyv1.NewRouterClient((&fake.Router{}).Dial(t)), RouterTimeout: patience, People: chat,
		}); err != nil {
			t.Fatal(err)
		}
		d.Calls = calls
	})
	for _, c := range callCalls {
		s.do(c.method, c.path, "", "").want(t, 401, "unauthenticated")
		for _, key := range []string{"push", "token", "read", "chat"} {
			if !slices.Contains(c.scopes, key) {
				s.do(c.method, c.path, key, "").want(t, 403, "forbidden")
			}
		}
	}
	s.do("GET", "/v1/calls/"+oneCall, "read", "").want(t, 404, "call_unknown")
	s.do("POST", "/v1/calls/"+oneCall+"/end", "chat", "").want(t, 404, "call_unknown")
	s.do("GET", "/v1/calls/x", "read", "").want(t, 400, "invalid_request")
	s.do("GET", "/v1/calls?uid=a&conversation=d/a/b", "read", "").want(t, 400, "invalid_request")

	who := call.Who{Tenant: "default", Who: machine.Who{UID: "ann", Session: "s", Device: "phone"}}
	if _, err := calls.Invite(context.Background(), who, &call.Invitation{Call: oneCall, To: []string{"bob"}, Media: "audio"}); err != nil {
		t.Fatal(err)
	}
	list := s.do("GET", "/v1/calls?uid=bob&state=live", "read", "").want(t, 200, "").json(t)["calls"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["call"] != oneCall {
		t.Errorf("live: %v", list)
	}
	if c := s.do("GET", "/v1/calls/"+oneCall, "read", "").want(t, 200, "").json(t); c["state"] != "inviting" || c["media"] != "audio" {
		t.Errorf("got %v", c)
	}
	for range 2 {
		if c := s.do("POST", "/v1/calls/"+oneCall+"/end", "chat", "").want(t, 200, "").json(t); c["state"] != "ended" || c["reason"] != "ended_by_host" {
			t.Errorf("ended: %v", c)
		}
	}
	if list := s.do("GET", "/v1/calls?state=live", "read", "").want(t, 200, "").json(t)["calls"].([]any); len(list) != 0 {
		t.Errorf("live: %v", list)
	}
	newServer(t).do("GET", "/v1/calls", "read", "").want(t, 404, "unknown_method")
}
