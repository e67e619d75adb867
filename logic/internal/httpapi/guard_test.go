package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/httpapi"
)

// pathCall is a call of a path, and the scopes that may make it besides admin.
type pathCall struct {
	method, path, body string
	scopes             []string
}

// calls is one good call of each path, with the scopes that may make it.
var calls = []pathCall{
	{"POST", "/v1/push", `{"uids":["ann"],"text":"x"}`, []string{"push"}},
	{"POST", "/v1/push/batch", `{"items":[{"uids":["ann"],"text":"x"}]}`, []string{"push"}},
	{"POST", "/v1/tokens", `{"uid":"ann"}`, []string{"token"}},
	{"POST", "/v1/tokens/revoke", `{"uid":"ann"}`, []string{"token"}},
	{"POST", "/v1/presence", `{"uids":["ann"]}`, []string{"read"}},
	{"GET", "/v1/presence", "", []string{"read"}},
	{"GET", "/v1/rooms?type=chat", "", []string{"read"}},
	{"POST", "/v1/rooms/count", `{"rooms":["chat://lobby"]}`, []string{"read"}},
	{"GET", "/v1/rooms/chat%3A%2F%2Flobby/members", "", []string{"read"}},
	{"PUT", "/v1/rooms/chat%3A%2F%2Flobby/members/ann", "", nil},
	{"DELETE", "/v1/rooms/chat%3A%2F%2Flobby/members/ann", "", nil},
	{"DELETE", "/v1/rooms/chat%3A%2F%2Flobby", "", nil},
	{"POST", "/v1/rooms/chat%3A%2F%2Flobby/messages", `{"body":{"text":"x"}}`, []string{"push"}},
	{"GET", "/v1/sessions?uid=ann", "", []string{"read"}},
	{"POST", "/v1/sessions/kick", `{"uid":"ann"}`, nil},
	{"GET", "/v1/cluster", "", []string{"read"}},
}

func TestEveryPathWantsItsScope(t *testing.T) {
	s := newServer(t)
	for _, c := range calls {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			a := s.do(c.method, c.path, "", c.body).want(t, 401, "unauthenticated")
			if a.header.Get("WWW-Authenticate") != `Bearer realm="halley"` {
				t.Errorf("got WWW-Authenticate %q", a.header.Get("WWW-Authenticate"))
			}
			for _, key := range []string{"push", "token", "read", "chat", "admin"} {
				may := key == "admin"
				for _, scope := range c.scopes {
					may = may || scope == key
				}
				if a := s.do(c.method, c.path, key, c.body); may {
					a.want(t, 200, "")
				} else {
					a.want(t, 403, "forbidden")
				}
			}
		})
	}
}

func TestBadCredentialsAreRefused(t *testing.T) {
	s := newServer(t)
	good := s.keys["push"]
	for name, header := range map[string]string{
		"none": "", "no scheme": good, "basic": "Basic " + good, "empty": "Bearer ", "wrong": "Bearer " + good + "x", "unknown": "Bearer hk_nobody_x",
		"hash": "Bearer push", "huge": "Bearer " + strings.Repeat("x", 20_000), "temporary without demo": "Bearer ht_" + strings.Repeat("A", 80),
	} {
		t.Run(name, func(t *testing.T) {
			s.do("POST", "/v1/push", "", `{"uids":["ann"]}`, "Authorization", header).want(t, 401, "unauthenticated")
		})
	}
	// The scheme's name has no case (RFC 9110 section 11.1).
	s.do("POST", "/v1/push", "", `{"uids":["ann"]}`, "Authorization", "bearer "+good).want(t, 200, "")
	// A key belongs into no URL.
	s.do("POST", "/v1/push?key="+good, "", `{"uids":["ann"]}`).want(t, 401, "unauthenticated")
}

func TestTenantHeaderIsForKeysOfAllTenants(t *testing.T) {
	s := newServer(t)
	for _, c := range []struct {
		key, header string
		status      int
		code, want  string
	}{
		{"push", "", 200, "", "default"}, {"push", "default", 200, "", "default"}, {"push", "shop", 403, "forbidden", ""},
		{"shop", "", 200, "", "shop"}, {"shop", "default", 403, "forbidden", ""},
		{"any", "", 200, "", "default"}, {"any", "game", 200, "", "game"}, {"any", "NO GOOD", 400, "invalid_request", ""},
	} {
		s.do("POST", "/v1/push", c.key, `{"uids":["ann"]}`, "Halley-Tenant", c.header).want(t, c.status, c.code)
		recs := s.kafka.taken()
		if c.want == "" && len(recs) > 0 || c.want != "" && (len(recs) != 1 || recs[0].GetTenant() != c.want) {
			t.Errorf("%+v: got %v", c, recs)
		}
	}
}

func TestRateLimitSaysWhenToComeBack(t *testing.T) {
	rdb, prefix := kittest.Redis(t)
	text, line, err := apikey.New("slow", apikey.Push, "default")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, func(c *httpapi.Config, d *httpapi.Deps) {
		d.Redis, d.RedisPrefix = rdb, prefix
		d.APIKeys = []string{line + ":1"}
	})
	s.keys["slow"] = text
	// Of two that come in one second the second one is refused. On a slow machine they may take longer.
	refused := func(path, body string) (a answer) {
		t.Helper()
		kittest.Eventually(t, patience, func() bool {
			a = s.do("POST", path, "slow", body)
			return a.status != 200
		}, path, "always passes, with a limit of 1 a second")
		return a
	}
	if a := refused("/v1/push", `{"uids":["ann"]}`).want(t, 429, "rate_limited"); a.header.Get("Retry-After") != "1" {
		t.Errorf("got Retry-After %q", a.header.Get("Retry-After"))
	}
	if a := refused("/goim/push/mids?operation=1000&mids=1", "x"); a.status != 429 || a.header.Get("Retry-After") == "" {
		t.Errorf("goim: got %d", a.status)
	}
	s.do("POST", "/v1/push", "push", `{"uids":["ann"]}`).want(t, 200, "")
}

func TestIdempotencyKeyHasOneEffect(t *testing.T) {
	rdb, prefix := kittest.Redis(t)
	s := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) { d.Redis, d.RedisPrefix = rdb, prefix })
	body := `{"uids":["ann"],"text":"x"}`
	first := s.do("POST", "/v1/push", "push", body, "Idempotency-Key", "k").want(t, 200, "")
	again := s.do("POST", "/v1/push", "push", body, "Idempotency-Key", "k").want(t, 200, "")
	if first.body != again.body || again.header.Get("Idempotency-Replayed") != "true" || first.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("got %s then %s", first.body, again.body)
	}
	if n := len(s.kafka.taken()); n != 1 {
		t.Errorf("got %d records, want 1", n)
	}
	s.do("POST", "/v1/push", "push", `{"uids":["ann"],"text":"y"}`, "Idempotency-Key", "k").want(t, 422, "idempotency_mismatch")
	s.do("POST", "/v1/push", "push", body, "Idempotency-Key", "bad\tkey").want(t, 400, "invalid_request")
	s.do("POST", "/v1/push", "push", body, "Idempotency-Key", strings.Repeat("k", 256)).want(t, 400, "invalid_request")
	// A refusal is final as well.
	bad := s.do("POST", "/v1/push", "push", `{"uids":["a b"]}`, "Idempotency-Key", "bad").want(t, 400, "invalid_request")
	if a := s.do("POST", "/v1/push", "push", `{"uids":["a b"]}`, "Idempotency-Key", "bad").want(t, 400, "invalid_request"); a.header.Get("Idempotency-Replayed") != "true" || bad.body != a.body {
		t.Errorf("got %s", a.body)
	}
}

func TestIdempotencyKeyAfterFailureTriesAgainWithTheSameID(t *testing.T) {
	rdb, prefix := kittest.Redis(t)
	s := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) { d.Redis, d.RedisPrefix = rdb, prefix })
	body := `{"uids":["ann"],"text":"x"}`
	s.kafka.fail(errKafka)
	s.do("POST", "/v1/push", "push", body, "Idempotency-Key", "k").want(t, 503, "unavailable")
	s.kafka.fail(nil)
	id := s.do("POST", "/v1/push", "push", body, "Idempotency-Key", "k").want(t, 200, "").json(t)["id"]

	// Without Redis it is carried out again; the same id tells the backend so, clients see none.
	bare := newServer(t, func(c *httpapi.Config, _ *httpapi.Deps) { c.APIKeys = nil }, func(c *httpapi.Config, d *httpapi.Deps) {
		text, line, err := apikey.New("push", apikey.Push, "default")
		if err != nil {
			t.Fatal(err)
		}
		d.APIKeys = []string{line}
		s.keys["bare"] = text
	})
	bare.keys["bare"] = s.keys["bare"]
	for range 2 {
		if a := bare.do("POST", "/v1/push", "bare", body, "Idempotency-Key", "k").want(t, 200, ""); a.json(t)["id"] != id {
			t.Errorf("got id %v, want %v", a.json(t)["id"], id)
		}
	}
	if n := len(bare.kafka.taken()); n != 2 {
		t.Errorf("got %d records, want 2", n)
	}
	// Items of a batch have ids of their own.
	items := bare.do("POST", "/v1/push/batch", "bare", `{"items":[`+body+`,`+body+`]}`, "Idempotency-Key", "k").want(t, 200, "").json(t)["items"].([]any)
	a, b := items[0].(map[string]any)["id"], items[1].(map[string]any)["id"]
	if a == b || a == id {
		t.Errorf("got ids %v and %v", a, b)
	}
}

func TestIdempotencyKeyInProgressIs409(t *testing.T) {
	rdb, prefix := kittest.Redis(t)
	s := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) { d.Redis, d.RedisPrefix = rdb, prefix })
	hold := make(chan struct{})
	s.kafka.hold = hold
	var wg sync.WaitGroup
	wg.Go(func() {
		if a := s.do("POST", "/v1/push", "push", `{"uids":["ann"]}`, "Idempotency-Key", "k"); a.status != 200 {
			t.Errorf("first: got %d %s", a.status, a.body)
		}
	})
	kittest.Eventually(t, patience/2, func() bool {
		return slices.ContainsFunc(keysOf(t, rdb, prefix), func(k string) bool { return strings.Contains(k, ":idem:") })
	})
	s.do("POST", "/v1/push", "push", `{"uids":["ann"]}`, "Idempotency-Key", "k").want(t, 409, "idempotency_in_progress")
	close(hold)
	wg.Wait()
}

func TestTokensAreNotKeptUnderAnIdempotencyKey(t *testing.T) {
	rdb, prefix := kittest.Redis(t)
	s := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) { d.Redis, d.RedisPrefix = rdb, prefix })
	s.do("POST", "/v1/tokens", "token", `{"uid":"ann"}`, "Idempotency-Key", "k").want(t, 200, "")
	for _, k := range keysOf(t, rdb, prefix) {
		if strings.Contains(k, ":idem:") {
			t.Errorf("a token is in Redis, under %s", k)
		}
	}
}

func TestTooLargeBodiesAreRefusedUnread(t *testing.T) {
	s := newServer(t)
	for _, c := range calls {
		if c.method == "GET" {
			continue
		}
		for _, length := range []int64{10 << 20, -1} {
			body := &counted{left: 10 << 20}
			req := httptest.NewRequest(c.method, c.path, body)
			req.ContentLength = length
			req.Header.Set("Authorization", "Bearer "+s.keys["admin"])
			w := httptest.NewRecorder()
			s.handler.ServeHTTP(w, req)
			answer{w.Code, w.Header(), w.Body.String()}.want(t, 413, "too_large")
			if length > 0 && body.read > 0 || body.read > 2<<20 {
				t.Errorf("%s: %d bytes were read", c.path, body.read)
			}
		}
	}
	for _, path := range []string{"/goim/push/mids?operation=1000&mids=1", "/1/push?uid=1", "/1/pushs"} {
		for _, length := range []int64{10 << 20, -1} {
			body := &counted{left: 10 << 20}
			req := httptest.NewRequest("POST", path, body)
			req.ContentLength = length
			req.Header.Set("Authorization", "Bearer "+s.keys["admin"])
			w := httptest.NewRecorder()
			s.handler.ServeHTTP(w, req)
			if strings.HasPrefix(path, "/1/") && w.Body.String() != `{"ret":65535}` || strings.HasPrefix(path, "/goim/") && (w.Code != 413 || !strings.Contains(w.Body.String(), `"code":-400`)) {
				t.Errorf("%s: got %d %s", path, w.Code, w.Body)
			}
			if body.read > 1<<20 {
				t.Errorf("%s: %d bytes were read", path, body.read)
			}
		}
	}
	if n := len(s.kafka.taken()); n > 0 {
		t.Errorf("got %d records", n)
	}
}

// counted is a body that says how much of it was read.
type counted struct{ left, read int }

func (c *counted) Read(b []byte) (int, error) {
	n := min(len(b), c.left)
	if n == 0 {
		return 0, io.EOF
	}
	c.left -= n
	c.read += n
	for i := range n {
		b[i] = 'x'
	}
	return n, nil
}

func TestBadJSONIs400Everywhere(t *testing.T) {
	s := newServer(t)
	for _, c := range calls {
		if c.body == "" {
			continue
		}
		for _, body := range []string{"", "{", "null", "[]", `"x"`, `{"nonsense":1}`, "\x00\xff", strings.Repeat("[", 100_000)} {
			a := s.do(c.method, c.path, "admin", body)
			if a.status != 400 || a.code(t) != "invalid_request" {
				t.Errorf("%s %.20q: got %d %.200s", c.path, body, a.status, a.body)
			}
		}
	}
}

func TestManyFaultsAreCutShort(t *testing.T) {
	s := newServer(t)
	a := s.do("POST", "/v1/presence", "read", `{"uids":[`+strings.Repeat(`1,`, 500)+`1]}`).want(t, 400, "invalid_request")
	if n := len(a.json(t)["errors"].([]any)); n != 20 {
		t.Errorf("got %d faults, want 20", n)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	s := newServer(t)
	s.do("GET", "/v1/nothing", "admin", "").want(t, 404, "unknown_method")
	s.do("GET", "/v1/", "", "").want(t, 404, "unknown_method")
	for path, allow := range map[string]string{
		"/v1/push": "POST", "/v1/rooms": "GET", "/v1/rooms/chat%3A%2F%2Fx/members/ann": "PUT, DELETE", "/v1/sessions/kick": "POST", "/v1/endpoints": "GET",
	} {
		a := s.do("PATCH", path, "admin", "").want(t, 405, "method_not_allowed")
		if a.header.Get("Allow") != allow {
			t.Errorf("%s: got Allow %q, want %q", path, a.header.Get("Allow"), allow)
		}
	}
	s.do("GET", "/v1/push", "admin", "").want(t, 405, "method_not_allowed")
	s.do("GET", "/v1/cluster?verbos=1", "read", "").want(t, 400, "invalid_request")
	if a := s.do("GET", "/nothing", "", ""); a.status != 404 {
		t.Errorf("got %d", a.status)
	}
	if a := s.do("POST", "/", "", "x"); a.status != 405 {
		t.Errorf("got %d", a.status)
	}
	if a := s.do("POST", "/healthz", "", ""); a.status != 405 {
		t.Errorf("got %d", a.status)
	}
}

func TestRequestIDIsTheCallersIfItIsGood(t *testing.T) {
	s := newServer(t)
	if id := s.do("GET", "/v1/endpoints", "", "", "X-Request-Id", "abc-1._").header.Get("X-Request-Id"); id != "abc-1._" {
		t.Errorf("got %q", id)
	}
	for _, bad := range []string{"", "a b", strings.Repeat("x", 65), "a\"b"} {
		if id := s.do("GET", "/v1/endpoints", "", "", "X-Request-Id", bad).header.Get("X-Request-Id"); len(id) != 24 {
			t.Errorf("%q: got %q", bad, id)
		}
	}
}

func TestPanicIsAnAnswerAndNoCrash(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) { d.Metrics, d.Rooms = reg, nil })
	for range 2 {
		a := s.do("DELETE", "/v1/rooms/chat%3A%2F%2Fx", "admin", "").want(t, 500, "internal")
		if strings.Contains(a.body, "nil pointer") || a.json(t)["request_id"] == "" {
			t.Errorf("got %s", a.body)
		}
	}
	if got := metric(t, reg, "halley_logic_http_panics_total"); got != 2 {
		t.Errorf("counted %v panics, want 2", got)
	}
}

func TestRouterAwayIs503(t *testing.T) {
	s := newServer(t)
	s.router.fail(away)
	for _, c := range calls {
		if len(c.scopes) == 1 && c.scopes[0] == "read" {
			a := s.do(c.method, c.path, "read", c.body).want(t, 503, "unavailable")
			if a.header.Get("Retry-After") == "" {
				t.Errorf("%s: no Retry-After", c.path)
			}
		}
	}
	s.do("GET", "/v1/endpoints", "", "").want(t, 503, "unavailable")
}

func TestSlowBackendEndsInTime(t *testing.T) {
	s := newServer(t, func(c *httpapi.Config, _ *httpapi.Deps) { c.RequestTimeout = 50 * time.Millisecond })
	s.kafka.hold = make(chan struct{})
	start := time.Now()
	s.do("POST", "/v1/push", "push", `{"uids":["ann"]}`).want(t, 503, "unavailable")
	if took := time.Since(start); took > patience {
		t.Errorf("took %v", took)
	}
}

func TestIncompleteBodyIsNoCall(t *testing.T) {
	s := newServer(t)
	for _, path := range []string{"/v1/push", "/goim/push/mids?operation=1000&mids=1"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\n{\"uids\":", path, s.keys["push"])
		conn.(*net.TCPConn).CloseWrite()
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		conn.Close()
		if res.StatusCode != 400 {
			t.Errorf("%s: got %d", path, res.StatusCode)
		}
	}
	if n := len(s.kafka.taken()); n > 0 {
		t.Errorf("got %d records", n)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*httpapi.Config){
		"rate":             func(c *httpapi.Config) { c.Rate = -1 },
		"batch":            func(c *httpapi.Config) { c.MaxBatch = 0 },
		"sizes":            func(c *httpapi.Config) { c.MaxRequestBytes = c.MaxPushBytes },
		"timeout":          func(c *httpapi.Config) { c.RequestTimeout = 0 },
		"progress":         func(c *httpapi.Config) { c.Idempotency.Progress = c.RequestTimeout },
		"origin path":      func(c *httpapi.Config) { c.CORSOrigins = []string{"https://example.org/"} },
		"origin no scheme": func(c *httpapi.Config) { c.CORSOrigins = []string{"example.org"} },
		"key":              func(c *httpapi.Config) { c.APIKeys = []string{"x"} },
		"key file":         func(c *httpapi.Config) { c.APIKeysFile = "/nonexistent" },
		"idempotency":      func(c *httpapi.Config) { c.Idempotency.Keep = 0 },
		"goim room type":   func(c *httpapi.Config) { c.Goim.RoomType = "presence" },
		"goim heartbeat":   func(c *httpapi.Config) { c.Goim.Heartbeat = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			c := defaults[httpapi.Config](t)
			if err := c.Validate(); err != nil {
				t.Fatalf("the defaults: %v", err)
			}
			change(&c)
			if _, err := httpapi.New(c, httpapi.Deps{Router: newRouter(), RouterTimeout: time.Second}); err == nil {
				t.Error("taken")
			}
		})
	}
}
