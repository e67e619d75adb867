package httpapi_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/halley-im/halley/proto/errcode"
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

// The page of the API in docs names every path and every error that the API can answer.
func TestDocsPageIsComplete(t *testing.T) {
	b, err := os.ReadFile("../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, c := range append(slices.Clone(calls), chatCalls...) {
		path, _, _ := strings.Cut(c.path, "?")
		// The page has rooms, users, conversations and messages of its own.
		for part := range strings.SplitSeq(strings.TrimPrefix(path, "/v1/"), "/") {
			if part != "chat%3A%2F%2Flobby" && part != "ann" && part != "bob" && part != "1" && !strings.Contains(part, "%2F") && !strings.Contains(page, part) {
				t.Errorf("%s isn't there: %s", c.path, part)
			}
		}
	}
	for _, code := range []*errcode.Code{
		errcode.InvalidRequest, errcode.OpReserved, errcode.Unauthenticated, errcode.Forbidden, errcode.RoomReserved, errcode.UnknownMethod, errcode.NotFound,
		errcode.MethodNotAllowed, errcode.IdempotencyBusy, errcode.TooLarge, errcode.IdempotencyReuse, errcode.RateLimited, errcode.Internal, errcode.Unavailable,
		errcode.NotMember, errcode.AlreadyMember, errcode.TooManyMembers, errcode.Muted, errcode.Blocked, errcode.Conflict, errcode.TooLate, errcode.Recalled,
		errcode.Dissolved, errcode.Unknown,
	} {
		retry := map[bool]string{true: "yes", false: "no"}[code.Retry]
		row := regexp.MustCompile(fmt.Sprintf("(?m)^\\| `%s` \\| %d \\| .* \\| %s \\|$", code.Name, code.HTTP, retry))
		if !row.MatchString(page) {
			t.Errorf("no row for %s, %d, retry %s", code.Name, code.HTTP, retry)
		}
	}
}
