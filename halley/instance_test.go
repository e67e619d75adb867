package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// limit is how long anything in these tests may take before they fail.
const limit = 30 * time.Second

// binary is the halley command, built once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "halley-test-*")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "halley")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// instance is a `halley all` that runs.
type instance struct {
	t    *testing.T
	dir  string
	env  []string
	cmd  *exec.Cmd
	done chan error
	gone chan struct{} // closed once it has ended

	mu     sync.Mutex
	errors bytes.Buffer

	tcp, ws, api, private string
	out                   []string // what it printed when it was ready
}

// startAll starts `halley all` on a data folder and waits until it says that it runs.
func startAll(t *testing.T, dir string, env ...string) *instance {
	t.Helper()
	i := launch(t, dir, env...)
	i.awaitWelcome()
	return i
}

func launch(t *testing.T, dir string, env ...string) *instance {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	i := &instance{
		t: t, dir: dir, done: make(chan error, 1), gone: make(chan struct{}),
		tcp: freeAddr(t), ws: freeAddr(t), api: freeAddr(t), private: freeAddr(t),
	}
	i.env = append(cleanEnv(),
		"HALLEY_DATA_DIR="+dir, "HALLEY_COMET_TCP_ADDR="+i.tcp, "HALLEY_COMET_WS_ADDR="+i.ws, "HALLEY_LOGIC_HTTP_ADDR="+i.api,
		"HALLEY_ALL_PRIVATE_ADDR="+i.private, "HALLEY_ALL_TURN_ADDR=127.0.0.1:0", "HALLEY_ALL_TURN_TLS_ADDR=127.0.0.1:0", "HALLEY_URL=http://"+i.api)
	i.env = append(i.env, env...)
	i.cmd = exec.Command(path, "all")
	i.cmd.Env = i.env
	i.cmd.Stderr = i
	return i
}

// Write collects the log.
func (i *instance) Write(b []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.errors.Write(b)
}

func (i *instance) log() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.errors.String()
}

// begin starts the process without waiting for more.
func (i *instance) begin() io.Reader {
	i.t.Helper()
	// A pipe of our own: Wait would close that of StdoutPipe while it is read.
	r, w, err := os.Pipe()
	if err != nil {
		i.t.Fatal(err)
	}
	i.cmd.Stdout = w
	if err := i.cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	w.Close()
	go func() {
		defer close(i.gone)
		i.done <- i.cmd.Wait()
	}()
	i.t.Cleanup(func() {
		r.Close()
		i.cmd.Process.Kill()
		// Its folder goes next, and can't while something is being written into it.
		<-i.gone
		if i.t.Failed() {
			i.t.Logf("log of halley all:\n%s", i.log())
		}
	})
	return r
}

func (i *instance) awaitWelcome() {
	i.t.Helper()
	out := i.begin()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			lines <- sc.Text()
		}
	}()
	late := time.After(limit)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				i.t.Fatalf("halley all ended before it was ready:\n%s", i.log())
			}
			i.out = append(i.out, line)
			if strings.HasPrefix(line, "Stop it") {
				return
			}
		case <-late:
			i.t.Fatalf("halley all is not ready:\n%s", i.log())
		}
	}
}

// signal sends a signal and returns the exit code.
func (i *instance) signal(s syscall.Signal) int {
	i.t.Helper()
	if err := i.cmd.Process.Signal(s); err != nil {
		i.t.Fatal(err)
	}
	return i.wait()
}

func (i *instance) wait() int {
	i.t.Helper()
	select {
	case <-i.done:
		return i.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		i.t.Fatal("it does not end")
		return -1
	}
}

// tool runs another halley command with the instance's environment.
func (i *instance) tool(args ...string) (code int, stdout, stderr string) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), limit)
	defer cancel()
	path, err := binary()
	if err != nil {
		i.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = i.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		i.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), strings.TrimSpace(out.String()), errs.String()
}

func (i *instance) mustTool(args ...string) string {
	i.t.Helper()
	code, out, errs := i.tool(args...)
	if code != 0 {
		i.t.Fatalf("halley %v: exit code %d: %s", args, code, errs)
	}
	return out
}

// dial connects by WebSocket with a token of `halley token`.
func (i *instance) dial(uid string) *client.Conn {
	i.t.Helper()
	jwt := i.mustTool("token", "--uid", uid, "--rooms", "test://*")
	c, err := client.Dial(i.t.Context(), "ws://"+i.ws+"/sub", &halleyv1.Auth{Token: jwt, Rooms: []string{"test://1"}}, client.DialOptions{})
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() { c.Close() })
	return c
}

// next returns the body of the next push.
func next(t *testing.T, c *client.Conn) (frame.Op, string) {
	t.Helper()
	// The read below ends with the connection, at the latest.
	timer := time.AfterFunc(limit, func() { c.Close() })
	defer timer.Stop()
	for {
		f, err := c.Read()
		if err != nil {
			t.Fatalf("no push came: %v", err)
		}
		if f.Op != frame.OpEvent {
			return f.Op, string(f.Body)
		}
	}
}

// given are the ports that freeAddr has given out.
var (
	givenMu sync.Mutex
	given   = map[int]bool{}
)

// freeAddr returns an address on which nothing listens, another one each time: those who asked before may not have taken theirs yet.
func freeAddr(t *testing.T) string {
	t.Helper()
	givenMu.Lock()
	defer givenMu.Unlock()
	// Below the ports that the kernel gives to clients (32768 and up): between here and the process' start one of those could be
	// taken by any connection that is made.
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		if given[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			defer l.Close()
			given[port] = true
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// cleanEnv is the environment without settings.
func cleanEnv() []string {
	var out []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "HALLEY_") {
			out = append(out, e)
		}
	}
	return out
}

// shows waits until a page has these words.
func (i *instance) shows(url string, words ...string) {
	i.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		page := i.get(url)
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(page, w) }) {
			return
		}
		if time.Now().After(end) {
			i.t.Fatalf("%s shows %q, want %q", url, page, words)
		}
	}
}

func (i *instance) get(url string) string {
	i.t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	return string(b)
}
