package errcode_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/proto/errcode"
)

var update = flag.Bool("update", false, "rewrite the table in docs/protocol.md")

const docs = "../../docs/protocol.md"

func markdown() string {
	var b strings.Builder
	b.WriteString("| code | meaning | HTTP | close | retry |\n|---|---|---|---|---|\n")
	for _, c := range errcode.All() {
		retry := "no"
		if c.Retry {
			retry = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %d | %d | %s |\n", c.Name, c.Text, c.HTTP, c.Close, retry)
	}
	return b.String()
}

func TestDocsHoldTheTable(t *testing.T) {
	const begin, end = "<!-- errors: begin; checked against proto/errcode by its test -->\n", "<!-- errors: end -->"
	page, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), begin)
	got, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("the marks of the table are missing")
	}
	if got == markdown() {
		return
	}
	if !*update {
		t.Fatal("the table is stale: run this test with -update")
	}
	if err := os.WriteFile(docs, []byte(head+begin+markdown()+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTableIsSound(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range errcode.All() {
		if !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(c.Name) || seen[c.Name] {
			t.Errorf("code %q: not lower case with underscores, or twice", c.Name)
		}
		seen[c.Name] = true
		if c.HTTP < 400 || c.Close < 1001 {
			t.Errorf("code %q: HTTP %d, close %d", c.Name, c.HTTP, c.Close)
		}
		if c.Close >= 4000 && c.Retry != (c.Close >= 4500) && c != errcode.IdempotencyBusy {
			t.Errorf("code %q: close %d and retry %v disagree", c.Name, c.Close, c.Retry)
		}
	}
}

func TestOnlyCodesShowThemselves(t *testing.T) {
	if p := errcode.Proto(errors.New("password is 1234")); p.GetCode() != "internal" || strings.Contains(p.GetMessage(), "1234") {
		t.Fatalf("got %v, want a bare internal", p)
	}
	p := errcode.Proto(fmt.Errorf("register: %w", errcode.Unavailable.After(1500*time.Millisecond)))
	if p.GetCode() != "unavailable" || !p.GetRetry() || p.GetRetryAfterMs() != 1500 {
		t.Fatalf("got %v, want unavailable after 1500 ms", p)
	}
	if e := errcode.FromProto(p); !errors.Is(e, errcode.Unavailable) || e.RetryAfter != 1500*time.Millisecond {
		t.Fatalf("got %v back", e)
	}
}

func TestUnavailableAlwaysSaysWhenToTryAgain(t *testing.T) {
	for _, err := range []error{errcode.Unavailable, errcode.Unavailable.Errorf("no router"), fmt.Errorf("join: %w", errcode.Unavailable)} {
		if p := errcode.Proto(err); !p.GetRetry() || p.GetRetryAfterMs() == 0 {
			t.Errorf("%v: got %v, want a time", err, p)
		}
	}
	if p := errcode.Proto(errcode.Busy); p.GetRetryAfterMs() != 0 {
		t.Errorf("busy: got %v, want the caller's own back-off", p)
	}
}
