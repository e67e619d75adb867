package httpapi_test

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/halley-im/halley/logic/internal/httpapi"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func demo(open httpapi.Openness) option {
	return func(_ *httpapi.Config, d *httpapi.Deps) { d.Demo = open }
}

func TestDemoLoginGivesTokenAndPushKey(t *testing.T) {
	clock := now
	s := newServer(t, demo(httpapi.Loopback), func(_ *httpapi.Config, d *httpapi.Deps) { d.Now = func() time.Time { return clock } })
	s.router.comets = []*halleyv1.CometInfo{{Comet: "c1", Endpoints: &halleyv1.Endpoints{Host: "127.0.0.1", WsPort: 3102}}}
	m := s.do("POST", "/v1/demo/login", "", `{"name":"ann"}`).want(t, 200, "").json(t)
	c, err := s.verify.Verify(m["token"].(string))
	if err != nil || c.UID != "ann" || c.Tenant != "default" || m["uid"] != "ann" {
		t.Fatalf("got %+v, %v", c, err)
	}
	if m["push_key_expires_at"] != float64(now.Add(time.Hour).UnixMilli()) {
		t.Errorf("the key ends at %v", m["push_key_expires_at"])
	}
	if e := m["endpoints"].([]any); len(e) != 1 || e[0].(map[string]any)["ws"] != "ws://127.0.0.1:3102/sub" {
		t.Errorf("got %v", e)
	}
	s.keys["demo"] = m["push_key"].(string)
	s.do("POST", "/v1/push", "demo", `{"uids":["bob"],"text":"x"}`).want(t, 200, "")
	s.do("POST", "/v1/presence", "demo", `{"uids":["bob"]}`).want(t, 200, "")
	s.do("POST", "/v1/tokens", "demo", `{"uid":"bob"}`).want(t, 403, "forbidden")
	s.do("POST", "/v1/sessions/kick", "demo", `{"uid":"bob"}`).want(t, 403, "forbidden")
	s.do("POST", "/v1/push", "demo", `{"uids":["bob"]}`, "Halley-Tenant", "shop").want(t, 403, "forbidden")

	other := newServer(t)
	other.keys["demo"] = s.keys["demo"]
	other.do("POST", "/v1/push", "demo", `{"uids":["bob"]}`).want(t, 401, "unauthenticated")

	clock = now.Add(time.Hour)
	s.do("POST", "/v1/push", "demo", `{"uids":["bob"]}`).want(t, 401, "unauthenticated")
}

func TestDemoLoginIsForThisMachineUnlessOpenedAnywhere(t *testing.T) {
	body := `{"name":"ann"}`
	newServer(t).do("POST", "/v1/demo/login", "", body).want(t, 403, "forbidden")
	s := newServer(t, demo(httpapi.Loopback))
	s.do("POST", "/v1/demo/login", "", body, "Origin", s.url).want(t, 200, "")
	s.do("POST", "/v1/demo/login", "", body, "Host", "localhost:3111").want(t, 200, "")
	s.do("POST", "/v1/demo/login", "", body, "Host", "[::1]:3111").want(t, 200, "")
	s.do("POST", "/v1/demo/login", "", body, "Origin", "https://evil.example").want(t, 403, "forbidden")
	s.do("POST", "/v1/demo/login", "", body, "Origin", "null").want(t, 403, "forbidden")
	// DNS rebinding: a name of theirs that points here.
	s.do("POST", "/v1/demo/login", "", body, "Host", "evil.example", "Origin", "http://evil.example").want(t, 403, "forbidden")
	s.do("POST", "/v1/demo/login", "", body, "Host", "localhost.evil.example").want(t, 403, "forbidden")
	anywhere := newServer(t, demo(httpapi.Anywhere))
	anywhere.do("POST", "/v1/demo/login", "", body, "Host", "im.example.org", "Origin", "https://im.example.org").want(t, 200, "")
	anywhere.do("POST", "/v1/demo/login", "", body, "Origin", "https://evil.example").want(t, 403, "forbidden")
	for _, bad := range []string{`{}`, `{"name":""}`, `{"name":"a b"}`, `{"name":"` + strings.Repeat("x", 65) + `"}`} {
		s.do("POST", "/v1/demo/login", "", bad).want(t, 400, "invalid_request")
	}
	s.do("POST", "/v1/demo/login", "", `{"name":"`+strings.Repeat("x", 5000)+`"}`).want(t, 413, "too_large")
}

func TestDemoLoginsOfOneAddressAreLimited(t *testing.T) {
	rdb, prefix := redisFor(t)
	s := newServer(t, demo(httpapi.Loopback), withRedis(rdb, prefix))
	// 20 at once pass, and 5 more in each second: of 100 that come together some are refused, unless the machine takes 16 s for them.
	var limited atomic.Int64
	for deadline := time.Now().Add(patience); limited.Load() == 0 && time.Now().Before(deadline); {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for range 10 {
					switch a := s.do("POST", "/v1/demo/login", "", `{"name":"ann"}`); {
					case a.status == 429 && a.code(t) == "rate_limited":
						limited.Add(1)
					case a.status != 200:
						t.Errorf("got %d %s", a.status, a.body)
					}
				}
			})
		}
		wg.Wait()
	}
	if limited.Load() == 0 {
		t.Error("100 log-ins at once always passed")
	}
}

var app = fstest.MapFS{
	"index.html":         {Data: []byte("<!doctype html><title>app</title>")},
	"rooms.html":         {Data: []byte("<!doctype html><title>app</title>")},
	"assets/page.html":   {Data: []byte("<!doctype html>")},
	"assets/app-1a2b.js": {Data: []byte(strings.Repeat("console.log(1);\n", 200))},
	"favicon.svg":        {Data: []byte("<svg/>")},
	".hidden":            {Data: []byte("x")},
}

func TestWebAppIsServed(t *testing.T) {
	s := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) { d.Web = app })
	for _, path := range []string{"/", "/index.html", "/rooms", "/rooms.html"} {
		a := s.do("GET", path, "", "")
		if a.status != 200 || !strings.Contains(a.body, "<title>app</title>") || a.header.Get("Content-Type") != "text/html; charset=utf-8" || a.header.Get("Cache-Control") != "no-cache" {
			t.Fatalf("%s: got %d %v", path, a.status, a.header)
		}
		csp := a.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "connect-src 'self' ws: wss:", "frame-ancestors 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("policy %q lacks %s", csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("got %v", a.header)
		}
		if b := s.do("GET", path, "", "", "If-None-Match", a.header.Get("ETag")); b.status != 304 || b.body != "" {
			t.Errorf("%s unchanged: got %d", path, b.status)
		}
	}
	js := s.do("GET", "/assets/app-1a2b.js", "", "", "Accept-Encoding", "gzip, br")
	if js.header.Get("Cache-Control") != "public, max-age=31536000, immutable" || js.header.Get("Content-Encoding") != "gzip" || js.header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("got %v", js.header)
	}
	zr, err := gzip.NewReader(strings.NewReader(js.body))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(zr); err != nil || string(b) != string(app["assets/app-1a2b.js"].Data) {
		t.Errorf("unpacked: %d bytes, %v", len(b), err)
	}
	if a := s.do("GET", "/assets/app-1a2b.js", "", "", "Accept-Encoding", "gzip;q=0"); a.header.Get("Content-Encoding") != "" || a.header.Get("ETag") == js.header.Get("ETag") {
		t.Errorf("got %v", a.header)
	}
	if a := s.do("HEAD", "/", "", ""); a.status != 200 || a.body != "" || a.header.Get("Content-Length") == "" {
		t.Errorf("HEAD: got %d %q", a.status, a.body)
	}
	for _, path := range []string{"/.hidden", "/assets", "/assets/", "/index", "/rooms/", "/assets/page", "/app.js", "/..%2fetc/passwd", "/%00"} {
		if a := s.do("GET", path, "", ""); a.status != 404 {
			t.Errorf("%s: got %d", path, a.status)
		}
	}
}

func TestWithoutWebAppAPageSaysSo(t *testing.T) {
	if a := newServer(t).do("GET", "/", "", ""); a.status != 200 || !strings.Contains(a.body, "not built") {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestCORSIsOffUnlessConfigured(t *testing.T) {
	preflight := []string{"Origin", "https://app.example", "Access-Control-Request-Method", "POST"}
	off := newServer(t)
	if a := off.do("OPTIONS", "/v1/push", "", "", preflight...); a.header.Get("Access-Control-Allow-Origin") != "" || a.status != 405 {
		t.Errorf("got %d %v", a.status, a.header)
	}
	s := newServer(t, func(c *httpapi.Config, _ *httpapi.Deps) { c.CORSOrigins = []string{"https://app.example"} })
	a := s.do("OPTIONS", "/v1/push", "", "", preflight...)
	if a.status != 204 || a.header.Get("Access-Control-Allow-Origin") != "https://app.example" || !strings.Contains(a.header.Get("Access-Control-Allow-Headers"), "Idempotency-Key") {
		t.Errorf("got %d %v", a.status, a.header)
	}
	a = s.do("POST", "/v1/push", "push", `{"uids":["ann"]}`, "Origin", "https://app.example").want(t, 200, "")
	if a.header.Get("Access-Control-Allow-Origin") != "https://app.example" || a.header.Get("Access-Control-Allow-Credentials") != "" || a.header.Get("Vary") != "Origin" {
		t.Errorf("got %v", a.header)
	}
	if a := s.do("OPTIONS", "/v1/push", "", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("got %v", a.header)
	}
	if a := s.do("GET", "/goim/online/total", "admin", "", "Origin", "https://app.example"); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("goim: got %v", a.header)
	}
}

func TestHealthTellsOfThisProcessAndVerboselyOfItsNeeds(t *testing.T) {
	var unready error
	s := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) {
		d.Ready = func(context.Context) error { return unready }
		d.Needs = []httpapi.Need{
			{Name: "kafka", Check: func(context.Context) error { return nil }},
			{Name: "redis", Check: func(context.Context) error { return errors.New("dial tcp 10.0.0.9:6379: refused") }},
			{Name: "slow", Check: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		}
	})
	for _, path := range []string{"/healthz", "/readyz"} {
		if a := s.do("GET", path, "", ""); a.status != 200 || a.body != "ok" {
			t.Errorf("%s: got %d %s", path, a.status, a.body)
		}
	}
	a := s.do("GET", "/readyz?verbose", "", "")
	if a.status != 200 || strings.Contains(a.body, "10.0.0.9") {
		t.Errorf("got %d %s", a.status, a.body)
	}
	var got []string
	for _, n := range a.json(t)["needs"].([]any) {
		n := n.(map[string]any)
		if n["ok"] == true {
			got = append(got, n["name"].(string))
		}
	}
	if len(got) != 1 || got[0] != "kafka" {
		t.Errorf("got %v", got)
	}
	unready = errors.New("not yet")
	if a := s.do("GET", "/readyz", "", ""); a.status != 503 || a.body != "not ready" {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if a := s.do("GET", "/healthz", "", ""); a.status != 200 {
		t.Errorf("healthz: got %d", a.status)
	}
}

func TestMetricsAreForLoopbackOrAKey(t *testing.T) {
	s := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) {
		d.MetricsHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "metrics") })
	})
	if a := s.do("GET", "/metrics", "", ""); a.status != 200 || a.body != "metrics" {
		t.Errorf("loopback: got %d", a.status)
	}
	for name, change := range map[string]func(*http.Request){
		"far":     func(r *http.Request) { r.RemoteAddr = "192.0.2.1:5" },
		"proxied": func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") },
		"rebound": func(r *http.Request) { r.Host = "evil.example" },
	} {
		for key, want := range map[string]int{"": 401, "push": 403, "read": 403, "any": 200} {
			r := httptest.NewRequest("GET", "http://127.0.0.1/metrics", nil)
			r.RemoteAddr = "127.0.0.1:5"
			change(r)
			if key != "" {
				r.Header.Set("Authorization", "Bearer "+s.keys[key])
			}
			w := httptest.NewRecorder()
			s.handler.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s with key %q: got %d, want %d", name, key, w.Code, want)
			}
		}
	}
	if a := newServer(t).do("GET", "/metrics", "", ""); a.status != 404 {
		t.Errorf("without a handler: got %d", a.status)
	}
}
