package e2e

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// root is the repository.
var root = func() string {
	dir, err := filepath.Abs("..")
	if err != nil {
		panic(err) // the working directory is gone
	}
	return dir
}()

// cache is the git-ignored folder for what tests build, fetch and log.
func cache(parts ...string) string {
	return filepath.Join(append([]string{root, ".cache", "e2e"}, parts...)...)
}

// raceDetector tells that the binary is built with the race detector.
var raceDetector = os.Getenv("HALLEY_E2E_RACE") != ""

// Binary builds halley once and returns its path. HALLEY_E2E_BINARY names one that is there already.
var Binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("HALLEY_E2E_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	path := cache("halley")
	args := []string{"build"}
	if raceDetector {
		path += "-race"
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "-o", path, "./halley")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./halley: %w\n%s", err, out)
	}
	return path, nil
})

// Process is one process of the binary, with a log file of its own that grows over restarts.
type Process struct {
	Name string
	Args []string
	Env  map[string]string
	// Private is the address of /metrics and /readyz.
	Private string
	Log     string

	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start starts the process; it must not run.
func (p *Process) Start() {
	p.t.Helper()
	path, err := Binary()
	if err != nil {
		p.t.Fatal(err)
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	p.cmd = exec.Command(path, p.Args...)
	p.cmd.Env = environ(p.Env)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A test run that dies must not leave servers behind.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.Name, err)
	}
	done := make(chan struct{})
	p.done = done
	cmd := p.cmd
	go func() {
		p.err = cmd.Wait()
		close(done)
	}()
}

// environ is this process' environment without settings of Halley's, and env.
func environ(env map[string]string) []string {
	out := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "HALLEY_") })
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

// PID returns the process' id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Running tells whether the process was started and has not ended.
func (p *Process) Running() bool {
	if p.done == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal to a running process.
func (p *Process) Signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Errorf("signal %v to %s: %v", sig, p.Name, err)
	}
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	p.t.Helper()
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Stop asks the process to end (SIGTERM) and waits. It returns the exit code.
func (p *Process) Stop(limit time.Duration) int {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	code, ok := p.Wait(limit)
	if !ok {
		p.Signal(syscall.SIGQUIT) // the log then shows where it hangs
		if _, ok := p.Wait(5 * time.Second); !ok {
			p.Kill()
		}
		p.t.Errorf("%s did not end within %v of SIGTERM; see %s", p.Name, limit, p.Log)
	}
	return code
}

// Wait waits for the end of the process and returns its exit code; -1 for a signal.
func (p *Process) Wait(limit time.Duration) (code int, ok bool) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), true
	case <-time.After(limit):
		return 0, false
	}
}

// Ready waits until /readyz says so.
func (p *Process) Ready(limit time.Duration) {
	p.t.Helper()
	end := time.Now().Add(limit)
	for {
		if !p.Running() {
			p.t.Fatalf("%s ended at its start: %v\n%s", p.Name, p.err, p.Tail(15))
		}
		resp, err := privateHTTP.Get("http://" + p.Private + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			p.t.Fatalf("%s is not ready after %v (%v)\n%s", p.Name, limit, err, p.Tail(15))
		}
		time.Sleep(30 * time.Millisecond)
	}
}

// Tail returns the last lines of the log.
func (p *Process) Tail(lines int) string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// privateHTTP has no keep-alive: the servers behind it come and go. Its time limit is longer than any pause: what a process that runs doesn't
// tell is left out of sums, which others are compared with.
var privateHTTP = &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

var metricLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})? (\S+)`)

// Metrics returns the process' metrics by name and labels as they stand: `x_total{reason="full"}`. It returns an
// error when the process does not answer.
func (p *Process) Metrics() (map[string]float64, error) {
	resp, err := privateHTTP.Get("http://" + p.Private + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		if m := metricLine.FindStringSubmatch(line); m != nil {
			v, err := strconv.ParseFloat(m[3], 64)
			if err == nil {
				out[m[1]+m[2]] += v
			}
		}
	}
	return out, nil
}

// Metric returns the sum of a metric over its labels, of those that contain all of with, over the processes that
// answer.
func Metric(ps []*Process, name string, with ...string) float64 {
	var sum float64
	for _, p := range ps {
		if !p.Running() {
			continue
		}
		all, err := p.Metrics()
		if err != nil {
			continue
		}
		for k, v := range all {
			base, labels, _ := strings.Cut(k, "{")
			if base == name && !slices.ContainsFunc(with, func(w string) bool { return !strings.Contains(labels, w) }) {
				sum += v
			}
		}
	}
	return sum
}

// RSS returns the process' resident memory in bytes.
func (p *Process) RSS() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID()))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// fatalLog are lines that no log may have, whatever happened to the process.
var fatalLog = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE|goroutine \d+ \[running\]).*`)

// end stops the process if it runs and looks through its log.
func (p *Process) end() {
	if p.Running() {
		_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may be stopped
		p.Stop(30 * time.Second)
	}
	if b, err := os.ReadFile(p.Log); err == nil {
		if m := fatalLog.FindIndex(b); m != nil {
			p.t.Errorf("%s crashed or raced:\n%.2000s", p.Name, b[m[0]:])
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		p.t.Error(err)
	}
	if p.t.Failed() && os.Getenv("HALLEY_E2E_TAIL") != "" {
		p.t.Logf("%s:\n%s", p.Name, p.Tail(20))
	}
}

var (
	portMu   sync.Mutex
	nextPort = 12_000 + rand.IntN(7_000)
)

// freeAddr returns a loopback address that nothing listens on. It is below the ports that the kernel gives to
// clients, so that no connection takes it while its server is down.
func freeAddr(t testing.TB) string {
	t.Helper()
	portMu.Lock()
	defer portMu.Unlock()
	for range 1000 {
		nextPort++
		if nextPort >= 20_000 {
			nextPort = 12_000
		}
		addr := "127.0.0.1:" + strconv.Itoa(nextPort)
		l, err := net.Listen("tcp", addr)
		if err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}
