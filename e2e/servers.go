package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Servers are the real Kafka and Redis of this test run, and MariaDB where a test wants it, in one folder under the cache.
type Servers struct {
	Kafka, Redis string // host:port

	mariadb string // host:port, once it was started
}

var (
	serversMu  sync.Mutex
	theServers *Servers
	serverLock *os.File
)

// RealServers starts Kafka and Redis the first time, and returns where they are.
func RealServers(t testing.TB) *Servers {
	t.Helper()
	serversMu.Lock()
	defer serversMu.Unlock()
	if theServers != nil {
		return theServers
	}
	s, err := startServers()
	if err != nil {
		t.Fatal(err)
	}
	theServers = s
	return s
}

func startServers() (*Servers, error) {
	dir := cache("servers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, errors.New("another run of these tests uses the servers in .cache/e2e/servers")
	}
	serverLock = lock
	// What a run that died left there would fill the disk.
	if err := servers("stop"); err != nil {
		return nil, err
	}
	if err := servers("wipe", "kafka"); err != nil {
		return nil, err
	}
	if err := servers("start"); err != nil {
		return nil, err
	}
	out, err := exec.Command(filepath.Join(root, "scripts", "servers.sh"), "env", dir).Output()
	if err != nil {
		return nil, err
	}
	m := regexp.MustCompile(`HALLEY_TEST_KAFKA=(\S+)\s[\s\S]*HALLEY_TEST_REDIS=(\S+)`).FindSubmatch(out)
	if m == nil {
		return nil, fmt.Errorf("servers.sh env printed %q", out)
	}
	return &Servers{Kafka: string(m[1]), Redis: string(m[2])}, nil
}

// Database starts MariaDB the first time, and makes a database that the test drops. It returns the DSN.
func (s *Servers) Database(t testing.TB, name string) string {
	t.Helper()
	serversMu.Lock()
	defer serversMu.Unlock()
	if s.mariadb == "" {
		if err := servers("start", "mariadb"); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(filepath.Join(root, "scripts", "servers.sh"), "env", cache("servers"), "mariadb").Output()
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`HALLEY_TEST_MYSQL='root@tcp\((\S+)\)/'`).FindSubmatch(out)
		if m == nil {
			t.Fatalf("servers.sh env printed %q", out)
		}
		s.mariadb = string(m[1])
	}
	s.admin(t, "create", name)
	t.Cleanup(func() { s.admin(t, "--force", "drop", name) })
	return "root@tcp(" + s.mariadb + ")/" + name
}

func (s *Servers) admin(t testing.TB, args ...string) {
	t.Helper()
	host, port, _ := strings.Cut(s.mariadb, ":")
	args = append([]string{"--no-defaults", "-h", host, "-P", port, "-u", "root"}, args...)
	if out, err := exec.Command("mariadb-admin", args...).CombinedOutput(); err != nil {
		t.Errorf("mariadb-admin %v: %v\n%s", args, err, out)
	}
}

// servers runs scripts/servers.sh.
func servers(command string, names ...string) error {
	args := append([]string{command, cache("servers")}, names...)
	if out, err := exec.Command(filepath.Join(root, "scripts", "servers.sh"), args...).CombinedOutput(); err != nil {
		return fmt.Errorf("servers.sh %s %v: %w\n%s", command, names, err, out)
	}
	return nil
}

// Down stops a server with SIGKILL: "kafka", "redis" or "mariadb".
func (s *Servers) Down(t testing.TB, name string) {
	t.Helper()
	if err := servers("kill", name); err != nil {
		t.Fatal(err)
	}
}

// Restart stops a server in order and starts it again.
func (s *Servers) Restart(t testing.TB, name string) {
	t.Helper()
	if err := servers("stop", name); err != nil {
		t.Fatal(err)
	}
	s.Up(t, name)
}

// Pause stops a server with SIGSTOP: it holds its connections and answers nothing. A test that ends meanwhile lets it go on.
func (s *Servers) Pause(t testing.TB, name string) {
	t.Helper()
	if err := servers("pause", name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Resume(t, name) })
}

// Resume lets a paused server go on. One that isn't paused doesn't mind.
func (s *Servers) Resume(t testing.TB, name string) {
	t.Helper()
	if err := servers("resume", name); err != nil {
		t.Error(err)
	}
}

// Query asks MariaDB; it returns what it prints, columns between tabs.
func (s *Servers) Query(t testing.TB, database, text string) string {
	t.Helper()
	out, err := s.client(database, "-e", text).Output()
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return strings.TrimSpace(string(out))
}

func (s *Servers) client(database string, args ...string) *exec.Cmd {
	host, port, _ := strings.Cut(s.mariadb, ":")
	return exec.Command("mariadb", append([]string{"--no-defaults", "-h", host, "-P", port, "-u", "root", "-N", "-B", "-n", database}, args...)...)
}

// Hold locks all conversations of a database in a transaction of its own until release: whoever writes waits in the middle of what it does.
func (s *Servers) Hold(t testing.TB, database string) (release func()) {
	t.Helper()
	cmd := s.client(database)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		_, _ = io.WriteString(in, "COMMIT;\n") // its end does the same
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("hold: %v", err)
		}
	})
	t.Cleanup(release)
	if _, err := io.WriteString(in, "BEGIN;\nSELECT COUNT(conversation) FROM conversations FOR UPDATE;\n"); err != nil {
		t.Fatal(err)
	}
	return release
}

// Waiting is how many transactions wait for a lock. It takes a moment: InnoDB goes on telling what it told before to whom asks again
// within a tenth of a second.
func (s *Servers) Waiting(t testing.TB) int {
	t.Helper()
	time.Sleep(150 * time.Millisecond)
	n, err := strconv.Atoi(s.Query(t, "information_schema", "SELECT COUNT(*) FROM innodb_trx WHERE trx_state = 'LOCK WAIT'"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Up starts a server again at its old address. Redis comes back empty, the others with what they had.
func (s *Servers) Up(t testing.TB, name string) {
	t.Helper()
	if err := servers("start", name); err != nil {
		t.Fatal(err)
	}
}

// stopServers ends what RealServers started.
func stopServers() error {
	serversMu.Lock()
	defer serversMu.Unlock()
	if theServers == nil {
		return nil
	}
	theServers = nil
	err := servers("stop")
	return errors.Join(err, serverLock.Close())
}
