package httpapi_test

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite openapi.yaml")

func TestOpenAPIFileIsWhatTheCodeSays(t *testing.T) {
	s := newServer(t)
	got := s.do("GET", "/openapi.yaml", "", "")
	if got.status != 200 {
		t.Fatalf("got %d", got.status)
	}
	if *update {
		if err := os.WriteFile("openapi.yaml", []byte(got.body+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got.body+"\n" != string(file) {
		t.Error("openapi.yaml differs from the code: go test ./internal/httpapi -run OpenAPI -update")
	}
	if !strings.HasPrefix(got.body, "components:") || !strings.Contains(got.body, "openapi: 3.1.0") {
		t.Errorf("got %.100s", got.body)
	}
}

func TestDocsNeedNothingFromElsewhere(t *testing.T) {
	s := newServer(t)
	page := s.do("GET", "/docs", "", "")
	if page.status != 200 || !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") {
		t.Fatalf("got %d %s", page.status, page.header.Get("Content-Type"))
	}
	if csp := page.header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; style-src 'self';") {
		t.Errorf("got policy %q", csp)
	}
	for _, bad := range []string{"<script", "http://", "https://", "<style", "style="} {
		if strings.Contains(page.body, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	for _, want := range []string{"/v1/push/batch", "/v1/sessions/kick", `id="forbidden"`, `id="rate_limited"`, "exclude_uids", "items[].base64", "states[].last_seen"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if css := s.do("GET", "/docs.css", "", ""); css.status != 200 || !strings.HasPrefix(css.header.Get("Content-Type"), "text/css") {
		t.Errorf("style: got %d %s", css.status, css.header.Get("Content-Type"))
	}
	if j := s.do("GET", "/openapi.json", "", ""); j.status != 200 || j.json(t)["openapi"] != "3.1.0" {
		t.Errorf("openapi.json: got %d", j.status)
	}
}
