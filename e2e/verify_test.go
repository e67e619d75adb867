package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"
)

// verifier is `halley verify` at work on a cluster.
type verifier struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    bytes.Buffer
	mu     sync.Mutex
	told   bytes.Buffer
	done   chan struct{}
	broken bool
}

// verdict is what it prints.
type verdict struct {
	Sent, Stored, Shown, Moves, Marks, Leaked int
	Store, Handed                             struct{ Lost, Duplicated, Reordered int }
	Late                                      int
	Pushes                                    struct{ Sent, Came, Told, Unjudged int }
	WireDuplicates                            int `json:"wire_duplicates"`
	Cuts, Repeats, Resyncs, Closed            int
	Refused, Expected                         map[string]int
	Unsettled                                 string
	Examples                                  []string
	Seconds                                   float64
	P50                                       float64 `json:"p50_ms"`
	P99                                       float64 `json:"p99_ms"`
	Phases                                    []struct {
		Name       string
		Sent, Late int
		Seconds    float64
		P50        float64 `json:"p50_ms"`
		P99        float64 `json:"p99_ms"`
		Worst      float64 `json:"worst_ms"`
		Recovered  float64 `json:"recovered_s"`
	}
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
		"verify", "--json", "--phases", "--duration", "0", "--flood", "0", "--comet", strings.Join(comets, ","), "--url", c.Logics[0].HTTP, "--more-urls", c.Logics[1].HTTP,
		"--key-file", c.Secrets.Kid + ":HS256:" + key, "--settle", "90s", "--journal", filepath.Join(c.dir, "journal.jsonl"),
	}, more...)
	v := &verifier{cmd: exec.Command(path, args...), done: make(chan struct{})}
	v.cmd.Env = environ(map[string]string{"HALLEY_API_KEY": c.Secrets.APIKey})
	v.cmd.Stdout, v.cmd.Stderr = &v.out, v
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if v.in, err = v.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
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

// say tells it what is done to the cluster, and waits until it answers so many lines with one of the words.
func (v *verifier) say(t *testing.T, limit time.Duration, line string, words ...string) string {
	t.Helper()
	from := len(v.progress())
	if _, err := io.WriteString(v.in, line+"\n"); err != nil {
		t.Fatalf("%v:\n%s", err, v.progress())
	}
	answer := ""
	within(t, limit, "verify answers to "+line, func() (bool, string) {
		told := v.progress()[from:]
		for l := range strings.Lines(told) {
			for _, w := range words {
				if strings.HasPrefix(l, "verify: "+w) {
					answer = strings.TrimSpace(l)
					return true, ""
				}
			}
		}
		return false, told
	})
	return answer
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
	return out
}

// TestVerify has halley verify hold a cluster of two of each role to the delivery contract through faults: a few of them, or with
// HALLEY_E2E_VERIFY all.
func TestVerify(t *testing.T) {
	// Verify's groups have eight members, of whom up to four are out: with this they are large at times, and at times not. And the jobs
	// disagree, as while the border is being changed: a partition's groups are told by room or by uid as its owner has it.
	c := StartCluster(t, Two, Conversations(), Setting("HALLEY_LOGIC_SESSION_HEARTBEAT", "3s"), Setting("HALLEY_LOGIC_SESSION_IDLE_TIMEOUT", "9s"),
		SettingOf("job1", "HALLEY_JOB_CHAT_LARGE", "5"), Setting("HALLEY_JOB_CHAT_ROOM_AFTER", "1s"))
	f := &verified{Cluster: c, v: startVerify(t, c), proofs: map[string]string{}}
	f.flow(t, 50)
	all := os.Getenv("HALLEY_E2E_VERIFY") != ""
	if all {
		f.all(t)
	} else {
		f.some(t)
	}
	v := f.v.end(t)
	f.table(t, &v)
	if v.Store.Lost+v.Store.Duplicated+v.Store.Reordered+v.Handed.Lost+v.Handed.Duplicated+v.Handed.Reordered+v.Leaked > 0 || f.v.broken {
		t.Errorf("the contract is broken: %+v\n%s", v, strings.Join(v.Examples, "\n"))
	}
	if v.Unsettled != "" || len(v.Refused) > 0 {
		t.Errorf("unsettled: %q, refused: %v; want neither", v.Unsettled, v.Refused)
	}
	if v.Sent < 300 || v.Cuts == 0 || v.Repeats == 0 || v.WireDuplicates == 0 || v.Moves < 5 || v.Marks == 0 || v.Pushes.Told == 0 || v.Pushes.Unjudged > 0 {
		t.Errorf("%d sent, %d cut, %d repeated, %d twice on the wire, %d moves, %d marks, pushes %+v: that proves little",
			v.Sent, v.Cuts, v.Repeats, v.WireDuplicates, v.Moves, v.Marks, v.Pushes)
	}
}

// table prints what was done, how it is known that it had its effect, and how long things took.
func (f *verified) table(t *testing.T, v *verdict) {
	var b strings.Builder
	fmt.Fprintf(&b, "%d sent in %.0f s, %d stored, %d handed over: store %+v, handed %+v, leaked %d, late %d; p50 %.1f ms, p99 %.0f ms\n",
		v.Sent, v.Seconds, v.Stored, v.Shown, v.Store, v.Handed, v.Leaked, v.Late, v.P50, v.P99)
	fmt.Fprintf(&b, "%d moves, %d marks, %d repeats, %d cuts, %d resyncs, %d closed for good, %d twice on the wire, pushes %+v, rightly refused %v\n",
		v.Moves, v.Marks, v.Repeats, v.Cuts, v.Resyncs, v.Closed, v.WireDuplicates, v.Pushes, v.Expected)
	for line := range strings.Lines(f.v.progress()) {
		if strings.Contains(line, "closed for good") {
			b.WriteString(line)
		}
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "fault\tfor s\tsent\tlate\tp50 ms\tp99 ms\tworst ms\tcaught up after s\tproof")
	for _, p := range v.Phases {
		fmt.Fprintf(w, "%s\t%.1f\t%d\t%d\t%.1f\t%.0f\t%.0f\t%.1f\t%s\n", p.Name, p.Seconds, p.Sent, p.Late, p.P50, p.P99, p.Worst, p.Recovered, f.proofs[p.Name])
	}
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
	t.Log("\n" + b.String())
}
