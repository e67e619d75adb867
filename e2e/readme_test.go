package e2e

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// defaultPorts are those that the README's commands listen on.
var defaultPorts = []string{"3101", "3102", "3108", "3109", "3111", "3118", "3119", "3128", "3129", "3138", "3478",
	"3201", "3202", "3208", "3209", "3211", "3218", "3219", "3228", "3229", "3238"}

// TestReadme types what README.md shows in its shell blocks, as it stands, in a copy of the repository: nothing of the developer's own is
// touched. A block that it doesn't know fails it.
func TestReadme(t *testing.T) {
	for _, port := range defaultPorts {
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Skipf("the README's commands need port %s: %v", port, err)
		}
		_ = l.Close()
	}
	r := &reader{T: t, dir: copyOfTree(t)}
	page, err := os.ReadFile(filepath.Join(r.dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, b := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(page, -1) {
		blocks = append(blocks, string(b[1]))
	}
	take := func(begins, contains string) string {
		t.Helper()
		i := slices.IndexFunc(blocks, func(b string) bool { return strings.HasPrefix(b, begins) && strings.Contains(b, contains) })
		if i < 0 {
			t.Fatalf("README.md has no shell block that begins with %q and has %q", begins, contains)
		}
		b := blocks[i]
		blocks = slices.Delete(blocks, i, i+1)
		return b
	}
	run, push, listens, pushes := take("make run", ""), take("KEY=", "curl"), take("TOKEN=", "bin/halley listen"), take("bin/halley push", "--uid ann")
	cluster, goim, tests := take("make up", "make down"), take("HALLEY_GOIM_COMPAT=open", "all"), take("make test", "make help")
	for _, b := range blocks {
		t.Errorf("nobody tries these commands of README.md:\n%s", b)
	}

	t.Run("five minutes", func(t *testing.T) {
		r := r.in(t)
		all := r.background(run)
		all.prints("http://localhost:3111", 4*time.Minute)
		r.answers("http://localhost:3111/")
		if out := r.shell(push); !strings.Contains(out, `"id"`) {
			t.Errorf("the push answers %s", out)
		}
		listen := r.background(listens)
		listen.prints("chat://lobby", time.Minute)
		within(t, 20*time.Second, "the listener shows a push", func() (bool, string) {
			r.shell(push)
			return strings.Contains(listen.out.String(), "hello, room"), listen.out.String()
		})
		within(t, 20*time.Second, "the listener shows what the tools push", func() (bool, string) {
			r.shell(pushes)
			out := listen.out.String()
			return strings.Contains(out, "hello again") && strings.Contains(out, "only for you"), out
		})
		listen.interrupt()
		all.interrupt()
	})
	t.Run("goim's clients", func(t *testing.T) {
		r := r.in(t)
		all := r.background(goim)
		all.prints("http://localhost:3111", time.Minute)
		resp, err := http.Post("http://localhost:3111/goim/push/keys?operation=1000&keys=a", "", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("goim's API without a key: HTTP %d", resp.StatusCode)
		}
		all.interrupt()
	})
	t.Run("a cluster to play with", func(t *testing.T) {
		r := r.in(t)
		up, down, _ := strings.Cut(cluster, "\n")
		t.Cleanup(func() { r.shell(down) })
		out := r.shell(up)
		for _, url := range []string{"http://127.0.0.1:3111", "http://127.0.0.1:3211"} {
			r.answers(url + "/")
		}
		// And what it prints itself.
		told := regexp.MustCompile(`(?m)^ +(bin/halley push .*)$`).FindStringSubmatch(out)
		if told == nil {
			t.Fatalf("make up tells no command to push:\n%s", out)
		}
		r.shell(told[1])
	})
	t.Run("help", func(t *testing.T) {
		r := r.in(t)
		if !strings.Contains(tests, "\nmake help") {
			t.Fatalf("no make help in\n%s", tests)
		}
		if out := r.shell("make help"); !strings.Contains(out, " test ") {
			t.Errorf("make help prints %s", out)
		}
	})
}

// reader is somebody who types commands in a folder.
type reader struct {
	*testing.T
	dir string
}

func (r *reader) in(t *testing.T) *reader { return &reader{T: t, dir: r.dir} }

// copyOfTree copies what git knows of, and what is new, into a folder of its own. What installing takes long is shared.
func copyOfTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c",
		`git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' f; do if [ -e "$f" ]; then printf '%s\0' "$f"; fi; done | xargs -0 cp --parents -t "$1"
		mkdir -p .cache; ln -s "$PWD/.cache" "$1/.cache"`, "-", dir)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copy the repository: %v\n%s", err, out)
	}
	return dir
}

func (r *reader) command(script string) *exec.Cmd {
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = r.dir, environ(nil)
	// A group of its own, as a terminal makes it: Ctrl-C is for all in it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// shell types commands and waits until they end, which they must do well.
func (r *reader) shell(script string) string {
	r.Helper()
	// A file, not a pipe: servers that are left running would keep a pipe open.
	f, err := os.CreateTemp(r.TempDir(), "out")
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	cmd := r.command(script)
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	out, rerr := os.ReadFile(f.Name())
	if err != nil || rerr != nil {
		r.Fatalf("%s\n%v %v\n%s", script, err, rerr, out)
	}
	return string(out)
}

// typed is a command that runs until it is interrupted.
type typed struct {
	r    *reader
	cmd  *exec.Cmd
	out  *lockedBuffer
	done chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (r *reader) background(script string) *typed {
	r.Helper()
	c := &typed{r: r, cmd: r.command(script), out: &lockedBuffer{}, done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	if err := c.cmd.Start(); err != nil {
		r.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait() // an interrupt is no success
		close(c.done)
	}()
	r.Cleanup(func() {
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // mostly it has ended
		<-c.done
	})
	return c
}

// prints waits until the command has printed a text.
func (c *typed) prints(text string, limit time.Duration) {
	c.r.Helper()
	within(c.r, limit, "it prints "+text, func() (bool, string) {
		select {
		case <-c.done:
			c.r.Fatalf("it has ended:\n%s", c.out)
		default:
		}
		return strings.Contains(c.out.String(), text), c.out.String()
	})
}

// interrupt is Ctrl-C.
func (c *typed) interrupt() {
	c.r.Helper()
	if err := syscall.Kill(-c.cmd.Process.Pid, syscall.SIGINT); err != nil {
		c.r.Error(err)
	}
	select {
	case <-c.done:
	case <-time.After(30 * time.Second):
		c.r.Fatalf("it does not end on Ctrl-C:\n%s", c.out)
	}
}

// answers waits until a page is there.
func (r *reader) answers(url string) {
	r.Helper()
	within(r, 20*time.Second, url+" answers", func() (bool, string) {
		resp, err := http.Get(url)
		if err != nil {
			return false, err.Error()
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK, resp.Status
	})
}
