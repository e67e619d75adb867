package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// handshakeTimeout is TestOneOfEach's: no log-in may need it on a machine that does all of that at once, and each handshake that never ends does.
const handshakeTimeout = 8 * time.Second

// TestOneOfEach is what needs a cluster but no faults in it.
func TestOneOfEach(t *testing.T) {
	c := StartCluster(t, Size{1, 1, 1, 1}, Open(),
		Setting("HALLEY_COMET_HANDSHAKE_TIMEOUT", handshakeTimeout.String()), Setting("HALLEY_COMET_MAX_ROOMS", "100"), Setting("HALLEY_LOGIC_ROOM_PER_SESSION", "100"))
	t.Run("tenants", func(t *testing.T) { testTenants(t, c) })
	t.Run("protocol page's client", func(t *testing.T) { testPythonClient(t, c) })
	t.Run("bad input", func(t *testing.T) { testBadInput(t, c) })
}

// testPythonClient runs the client that docs/protocol.md shows.
func testPythonClient(t *testing.T, c *Cluster) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)## A client in 30 lines.*?```python\n(.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("docs/protocol.md shows no client in 30 lines")
	}
	if lines := strings.Count(string(block[1]), "\n"); lines > 34 {
		t.Errorf("the client has %d lines", lines)
	}
	script := filepath.Join(t.TempDir(), "client.py")
	if err := os.WriteFile(script, block[1], 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(c.Comets[0].TCP, ":")
	cmd := exec.CommandContext(t.Context(), "python3", script, host, port, c.Token("snake", nil), "public://python")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	lines := make(chan string)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-t.Context().Done():
				return
			}
		}
	})
	expect := func(pattern string) {
		t.Helper()
		re, limit := regexp.MustCompile(pattern), time.After(30*time.Second)
		for {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("the client ended before it printed %q", pattern)
				}
				if re.MatchString(line) {
					return
				}
			case <-limit:
				t.Fatalf("the client did not print %q", pattern)
			}
		}
	}
	expect(`^auth .*'uid': 'snake'`)
	expect(`^reply 2 .*room\.join`)
	expect(`^(reply 3 .*room\.send|event .*room\.message.*hello)`)
	expect(`^(reply 3 .*room\.send|event .*room\.message.*hello)`)
	c.API().Push(t, Push{UIDs: []string{"snake"}, Op: 1234, Text: "hiss"})
	expect(`^push 1234 .*hiss`)
	_ = cmd.Process.Kill()
	for range lines { // until the client's end
	}
}

// login opens a session that the test closes.
func login(t *testing.T, n *Node, transport string, auth *halleyv1.Auth) *Session {
	t.Helper()
	s, err := n.Login(transport, auth)
	if err != nil {
		t.Fatalf("login: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// heard checks that the next push of op has this body.
func heard(t *testing.T, s *Session, op int32, want string) {
	t.Helper()
	f, err := s.Await(waitTime, func(f Frame) bool { return int32(f.Op) == op })
	if err != nil || string(f.Body) != want {
		t.Fatalf("%s: got %q, %v; want %q", s.Auth.GetUid(), f.Body, err, want)
	}
}

// nothing checks that no push of op comes up to a later one that reaches the session for certain.
func nothing(t *testing.T, s *Session, api *API, op int32) {
	t.Helper()
	mark := fmt.Sprintf("mark %d", fresh())
	api.Push(t, Push{Keys: []string{s.Auth.GetKey()}, Op: 9999, Text: mark})
	for {
		f, err := s.Await(waitTime, func(f Frame) bool { return int32(f.Op) == op || f.Op == 9999 })
		if err != nil {
			t.Fatal(err)
		}
		if int32(f.Op) == op {
			t.Fatalf("%s/%s got %v, which was for another tenant", s.Auth.GetTenant(), s.Auth.GetUid(), f)
		}
		if string(f.Body) == mark {
			return
		}
	}
}
