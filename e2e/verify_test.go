package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// verifier is `halley verify` at work on a cluster.
type verifier struct {
	cmd    *exec.Cmd
	out    bytes.Buffer
	mu     sync.Mutex
	told   bytes.Buffer
	done   chan struct{}
	broken bool
}

// verdict is what it prints.
type verdict struct {
	Sent, Stored, Shown int
	Store, Handed       struct{ Lost, Duplicated, Reordered int }
	Late                int
	WireDuplicates      int `json:"wire_duplicates"`
	Cuts, Repeats       int
	Refused             map[string]int
	Unsettled           string
	Examples            []string
	P50                 float64 `json:"p50_ms"`
	P99                 float64 `json:"p99_ms"`
}

// Write collects what it tells.
func (v *verifier) Write(b []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.told.Write(b)
}

func (v *verifier) progress() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.told.String()
}

// startVerify starts it; it sends until it is interrupted.
func startVerify(t *testing.T, c *Cluster, more ...string) *verifier {
	t.Helper()
	path, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "token-key")
	if err := os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString(c.Secrets.Token)), 0o600); err != nil {
		t.Fatal(err)
	}
	var comets []string
	for _, n := range c.Comets {
		comets = append(comets, "ws://"+n.WS+"/sub", "tcp://"+n.TCP)
	}
	args := append([]string{
		"verify", "--json", "--duration", "0", "--comet", strings.Join(comets, ","), "--url", c.Logics[0].HTTP, "--more-urls", c.Logics[1].HTTP,
		"--key-file", c.Secrets.Kid + ":HS256:" + key, "--settle", "90s", "--journal", filepath.Join(c.dir, "journal.jsonl"),
	}, more...)
	v := &verifier{cmd: exec.Command(path, args...), done: make(chan struct{})}
	v.cmd.Env = environ(map[string]string{"HALLEY_API_KEY": c.Secrets.APIKey})
	v.cmd.Stdout, v.cmd.Stderr = &v.out, v
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(v.done)
		v.broken = v.cmd.Wait() != nil
	}()
	t.Cleanup(func() {
		_ = v.cmd.Process.Kill() // it has ended, unless the test has failed
		<-v.done
	})
	within(t, 90*time.Second, "verify sends", func() (bool, string) {
		select {
		case <-v.done:
			t.Fatalf("verify has ended:\n%s", v.progress())
		default:
		}
		told := v.progress()
		return strings.Contains(told, "sending "), told
	})
	return v
}

// end has it finish and returns what it says.
func (v *verifier) end(t *testing.T) verdict {
	t.Helper()
	if err := v.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-v.done:
	case <-time.After(3 * time.Minute):
		t.Fatalf("verify does not end:\n%s", v.progress())
	}
	var out verdict
	if err := json.Unmarshal(v.out.Bytes(), &out); err != nil {
		t.Fatalf("verify printed %q (%v):\n%s", v.out.Bytes(), err, v.progress())
	}
	t.Logf("%+v", out)
	return out
}

// verified is a cluster under verify.
type verified struct {
	*Cluster
	v *verifier
}

// flow waits until the jobs have taken so many further records of conversations.
func (f *verified) flow(t *testing.T, more float64) {
	t.Helper()
	count := func() map[string]float64 {
		out := map[string]float64{}
		for _, n := range f.Jobs {
			if n.Running() {
				out[fmt.Sprint(n.Name, n.PID())] = Metric([]*Process{n.Process}, "halley_job_records_total", `lane="chat"`)
			}
		}
		return out
	}
	from := count()
	within(t, 60*time.Second, "conversations go on", func() (bool, string) {
		select {
		case <-f.v.done:
			t.Fatalf("verify has ended:\n%s", f.v.progress())
		default:
		}
		var got float64
		for name, n := range count() {
			got += max(0, n-from[name])
		}
		return got >= more, fmt.Sprintf("%v of %v records", got, more)
	})
}

// pass lets a time pass in which things are away: what is tested is that nothing goes wrong meanwhile.
func (f *verified) pass(t *testing.T, d time.Duration) {
	t.Helper()
	end := time.Now().Add(d)
	within(t, d+5*time.Second, "the time is over", func() (bool, string) { return time.Now().After(end), "" })
}

func (f *verified) kill(t *testing.T, nodes []*Node) {
	for _, n := range nodes {
		n.Kill()
		f.flow(t, 30)
		f.Restart(n)
		f.flow(t, 30)
	}
}

// away takes a server away for a time and brings it back.
func (f *verified) away(t *testing.T, server string, d time.Duration) {
	f.Servers.Down(t, server)
	f.pass(t, d)
	f.Servers.Up(t, server)
	f.flow(t, 60)
}

// stop stops a process for longer than the others believe in it, and lets it go on.
func (f *verified) stop(t *testing.T, n *Node, d time.Duration) {
	n.Signal(syscall.SIGSTOP)
	f.pass(t, d)
	f.flow(t, 20)
	n.Signal(syscall.SIGCONT)
	f.flow(t, 60)
}

// TestVerify has halley verify hold a cluster of two of each role to the delivery contract through faults: a few of them, or with
// HALLEY_E2E_VERIFY all.
func TestVerify(t *testing.T) {
	all := os.Getenv("HALLEY_E2E_VERIFY") != ""
	c := StartCluster(t, Two, Conversations(), Setting("HALLEY_LOGIC_SESSION_HEARTBEAT", "3s"), Setting("HALLEY_LOGIC_SESSION_IDLE_TIMEOUT", "9s"),
		// As while the border is being changed: a partition's groups are told by room or by uid as its owner has it.
		SettingOf("job1", "HALLEY_JOB_CHAT_LARGE", "6"), Setting("HALLEY_JOB_CHAT_ROOM_AFTER", "1s"))
	f := &verified{Cluster: c, v: startVerify(t, c)}
	f.flow(t, 50)
	t.Run("job killed", func(t *testing.T) { f.kill(t, f.Jobs[:1]) })
	t.Run("two jobs believe to own a partition", func(t *testing.T) { f.stop(t, f.Jobs[1], 2*groupSession) })
	t.Run("comet killed", func(t *testing.T) { f.kill(t, f.Comets[:1]) })
	t.Run("database away", func(t *testing.T) { f.away(t, "mariadb", 3*time.Second) })
	if all {
		t.Run("the other job and comet killed", func(t *testing.T) { f.kill(t, []*Node{f.Jobs[1], f.Comets[1]}) })
		t.Run("routers killed", func(t *testing.T) { f.kill(t, f.Routers) })
		t.Run("logics killed", func(t *testing.T) { f.kill(t, f.Logics) })
		t.Run("the other job stopped", func(t *testing.T) { f.stop(t, f.Jobs[0], 2*groupSession) })
		t.Run("comet stopped for longer than its lease", func(t *testing.T) { f.stop(t, f.Comets[1], leaseTTL+2*time.Second) })
		t.Run("redis away, then empty", func(t *testing.T) { f.away(t, "redis", 3*time.Second) })
		t.Run("kafka away", func(t *testing.T) { f.away(t, "kafka", 3*time.Second) })
		t.Run("rebalances in the middle of batches", f.rebalances)
		t.Run("database away for a longer time", func(t *testing.T) { f.away(t, "mariadb", 20*time.Second) })
		t.Run("both jobs killed at once", f.bothJobs)
	}
	v := f.v.end(t)
	if v.Store.Lost+v.Store.Duplicated+v.Store.Reordered+v.Handed.Lost+v.Handed.Duplicated+v.Handed.Reordered > 0 || f.v.broken {
		t.Errorf("the contract is broken: %+v\n%s", v, strings.Join(v.Examples, "\n"))
	}
	if v.Unsettled != "" || len(v.Refused) > 0 {
		t.Errorf("unsettled: %q, refused: %v; want neither", v.Unsettled, v.Refused)
	}
	if v.Sent < 300 || v.Cuts == 0 || v.Repeats == 0 || v.WireDuplicates == 0 {
		t.Errorf("%d sent, %d cut, %d repeated, %d twice on the wire: that proves little", v.Sent, v.Cuts, v.Repeats, v.WireDuplicates)
	}
}

// rebalances has a job leave and come back again and again.
func (f *verified) rebalances(t *testing.T) {
	for range 3 {
		if code := f.Jobs[1].Stop(20 * time.Second); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
		f.flow(t, 20)
		f.Restart(f.Jobs[1])
		f.flow(t, 20)
	}
}

func (f *verified) bothJobs(t *testing.T) {
	for _, n := range f.Jobs {
		n.Kill()
	}
	f.pass(t, 2*time.Second)
	for _, n := range f.Jobs {
		f.Restart(n)
	}
	f.flow(t, 60)
}
