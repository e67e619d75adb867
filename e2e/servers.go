package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
)

// Servers are the real Kafka and Redis of this test run, in one folder under the cache.
type Servers struct {
	Kafka, Redis string // host:port
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

// servers runs scripts/servers.sh.
func servers(command string, names ...string) error {
	args := append([]string{command, cache("servers")}, names...)
	if out, err := exec.Command(filepath.Join(root, "scripts", "servers.sh"), args...).CombinedOutput(); err != nil {
		return fmt.Errorf("servers.sh %s %v: %w\n%s", command, names, err, out)
	}
	return nil
}

// Down stops a server with SIGKILL: "kafka" or "redis".
func (s *Servers) Down(t testing.TB, name string) {
	t.Helper()
	if err := servers("kill", name); err != nil {
		t.Fatal(err)
	}
}

// Up starts a server again at its old address. Redis comes back empty, Kafka with its records.
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
