package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
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

func TestAllCarriesAPushFromTheToolToAClient(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	i := startAll(t, dir)
	welcome := strings.Join(i.out, "\n")
	_, port, _ := net.SplitHostPort(i.api)
	if !strings.Contains(welcome, "http://localhost:"+port) || !strings.Contains(welcome, filepath.Join(dir, "api-key")) {
		t.Errorf("it does not say which URL to open and where the API key is:\n%s", welcome)
	}
	key, err := os.ReadFile(filepath.Join(dir, "api-key"))
	if err != nil {
		t.Fatal(err)
	}
	if secret := strings.TrimSpace(string(key)); strings.Contains(welcome, secret) || strings.Contains(i.log(), secret) {
		t.Error("the API key is printed")
	}

	ann, bob := i.dial("ann"), i.dial("bob")
	i.mustTool("push", "--uid", "ann", "--op", "1001", "--body", "to ann")
	if op, body := next(t, ann); op != 1001 || body != "to ann" {
		t.Errorf("ann got op %d %q", op, body)
	}
	i.mustTool("push", "--room", "test://1", "--op", "1002", "--body", `{"to":"the room"}`)
	// There is no order between targets: a room's push and a session's may overtake each other.
	if op, body := next(t, bob); op != 1002 || body != `{"to":"the room"}` {
		t.Errorf("bob got op %d %q, want the room's push", op, body)
	}
	i.mustTool("push", "--key", bob.Reply.GetKey(), "--body", "to bob's session")
	for _, want := range []struct {
		c    *client.Conn
		op   frame.Op
		body string
	}{{ann, 1002, `{"to":"the room"}`}, {bob, 1000, "to bob's session"}} {
		if op, body := next(t, want.c); op != want.op || body != want.body {
			t.Errorf("%s got op %d %q, want %d %q", want.c.Reply.GetUid(), op, body, want.op, want.body)
		}
	}
	if code, _, errs := i.tool("push", "--uid", "ann", "--op", "8"); code != 1 || !strings.Contains(errs, "op_reserved") {
		t.Errorf("a reserved op: got exit code %d, %q", code, errs)
	}
	if code, _, errs := i.tool("push", "--uid", "ann", "--api-key", "hk_local_wrong"); code != 1 || !strings.Contains(errs, "unauthenticated") {
		t.Errorf("a wrong key: got exit code %d, %q", code, errs)
	}

	// A check has a time limit, which a machine that does something else for a moment outlives.
	i.shows("http://"+i.private+"/readyz?verbose", "[+] comet", "[+] need kafka", "\nready\n")
	if metrics := i.get("http://" + i.private + "/metrics"); !strings.Contains(metrics, "halley_comet_") || !strings.Contains(metrics, "halley_job_") {
		t.Error("metrics of the roles are missing")
	}
	if code := i.signal(syscall.SIGTERM); code != 0 {
		t.Errorf("SIGTERM: exit code %d, want 0\n%s", code, i.log())
	}
	if strings.Contains(i.log(), "level=ERROR") {
		t.Errorf("errors in the log:\n%s", i.log())
	}
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

// TestRestartKeepsKeysAndUndeliveredPushes kills `halley all` while a push waits in its Kafka: after a start, look-ups wait
// until presence is known (warm-up), which the first instance's settings make longer than it lives.
func TestRestartKeepsKeysAndUndeliveredPushes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := startAll(t, dir, "HALLEY_ROUTER_WARM_UP=10m")
	jwt := first.mustTool("token", "--uid", "ann")
	first.mustTool("push", "--uid", "ann", "--body", "before the end", "--ttl", "5m")
	first.signal(syscall.SIGKILL)

	// Long enough for a start and a log-in on a machine that stands still for some seconds: nobody is nobody afterwards.
	second := startAll(t, dir, "HALLEY_ROUTER_WARM_UP=8s")
	c, err := client.Dial(t.Context(), "tcp://"+second.tcp, &halleyv1.Auth{Token: jwt}, client.DialOptions{})
	if err != nil {
		t.Fatalf("a token of before the restart: %v", err)
	}
	defer c.Close()
	if _, body := next(t, c); body != "before the end" {
		t.Errorf("got %q, want the push of before the restart", body)
	}
	for _, line := range second.out {
		if strings.Contains(line, "just made") {
			t.Error("the second start made new keys")
		}
	}
	if code := second.signal(syscall.SIGINT); code != 0 {
		t.Errorf("SIGINT: exit code %d, want 0", code)
	}
}

func TestStartFailuresAreOneLineThatSaysWhatToDo(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		env  string
		want []string
	}{
		{"port in use", "HALLEY_COMET_WS_ADDR=" + taken.Addr().String(), []string{taken.Addr().String() + " (comet.ws_addr) is in use", "HALLEY_COMET_WS_ADDR"}},
		{"no such address", "HALLEY_COMET_TCP_ADDR=nowhere", []string{"comet.tcp_addr", "HALLEY_COMET_TCP_ADDR"}},
		{"data folder is a file", "HALLEY_DATA_DIR=" + file, []string{"data folder", "HALLEY_DATA_DIR"}},
		{"no certificate", "HALLEY_TLS_CERT=/nowhere.pem", []string{"tls_cert and tls_key go together"}},
		{"goim's way for strangers", "HALLEY_GOIM_COMPAT=open HALLEY_COMET_TCP_ADDR=0.0.0.0:0", []string{"goim-compat", "open-anywhere"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			i := launch(t, t.TempDir(), strings.Fields(tt.env)...)
			i.begin()
			code := i.wait()
			last := ""
			for line := range strings.Lines(i.log()) {
				last = line
			}
			if code == 0 || !strings.HasPrefix(last, "halley: ") {
				t.Fatalf("exit code %d, last line %q", code, last)
			}
			for _, w := range tt.want {
				if !strings.Contains(last, w) {
					t.Errorf("got %q, want it to say %q", last, w)
				}
			}
		})
	}
}

func TestAnotherNumberOfPartitionsIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if code := startAll(t, dir).signal(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	i := launch(t, dir, "HALLEY_KAFKA_PARTITIONS=8")
	i.begin()
	if code := i.wait(); code != 1 || !strings.Contains(i.log(), "set kafka.partitions to 4") {
		t.Errorf("got exit code %d, %q", code, i.log())
	}
}

func TestRoleWithoutKafkaSaysSo(t *testing.T) {
	for _, env := range []string{"HALLEY_ROUTER_PRIVATE_ADDR", "HALLEY_ROUTER_GRPC_ADDR"} {
		t.Setenv(env, "127.0.0.1:0")
	}
	t.Setenv("HALLEY_KAFKA_BROKERS", freeAddr(t))
	t.Setenv("HALLEY_START_TIMEOUT", "300ms")
	code, _, errs := halleyRun(t, "router", "--log-level", "error")
	if code != 1 || !strings.Contains(errs, "HALLEY_KAFKA_BROKERS") || strings.Count(errs, "\n") != 1 {
		t.Errorf("got exit code %d, %q, want one line that names HALLEY_KAFKA_BROKERS", code, errs)
	}
}

func TestWhatIsWrongHereIsToldBeforeKafkaIsAsked(t *testing.T) {
	for _, env := range []string{"HALLEY_LOGIC_PRIVATE_ADDR", "HALLEY_LOGIC_GRPC_ADDR", "HALLEY_LOGIC_HTTP_ADDR", "HALLEY_JOB_PRIVATE_ADDR"} {
		t.Setenv(env, "127.0.0.1:0")
	}
	t.Setenv("HALLEY_KAFKA_BROKERS", freeAddr(t))
	t.Setenv("HALLEY_START_TIMEOUT", "1h") // who asks Kafka never comes back
	for _, tt := range []struct{ name, role, env, value, want string }{
		{"a file of a token key that is not there", "logic", "HALLEY_LOGIC_TOKEN_KEYS", "k:HS256:@/nonexistent/key", "/nonexistent/key"},
		{"a file of API keys that is not there", "logic", "HALLEY_LOGIC_HTTP_API_KEYS_FILE", "/nonexistent/keys", "/nonexistent/keys"},
		{"tokens that outlive their revocations", "logic", "HALLEY_KAFKA_REVOKED_RETENTION", "1h", "HALLEY_KAFKA_REVOKED_RETENTION"},
		{"an address without port", "job", "HALLEY_ROUTER_TARGET", "localhost", "router.target"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(tt.env, tt.value)
			code, _, errs := halleyRun(t, tt.role, "--log-level", "error")
			if code != 1 || !strings.Contains(errs, tt.want) || strings.Count(errs, "\n") != 1 {
				t.Errorf("got exit code %d, %q, want one line with %q", code, errs, tt.want)
			}
		})
	}
}

func TestTwoOnOneDataFolderAreRefused(t *testing.T) {
	t.Parallel()
	first := startAll(t, t.TempDir())
	second := launch(t, first.dir)
	second.begin()
	if code := second.wait(); code != 1 || !strings.Contains(second.log(), "in use by another") {
		t.Errorf("got exit code %d, %q", code, second.log())
	}
}

func TestRolesBeyondLoopbackWantAClusterSecret(t *testing.T) {
	t.Setenv("HALLEY_ROUTER_PRIVATE_ADDR", "127.0.0.1:0")
	t.Setenv("HALLEY_ROUTER_GRPC_ADDR", "0.0.0.0:0")
	code, _, errs := halleyRun(t, "router")
	if code != 1 || !strings.Contains(errs, "HALLEY_CLUSTER_SECRET") || strings.Count(errs, "\n") != 1 {
		t.Errorf("got exit code %d, %q, want one line that names HALLEY_CLUSTER_SECRET", code, errs)
	}
	t.Setenv("HALLEY_CLUSTER_SECRET", "short")
	if code, _, errs := halleyRun(t, "router"); code != 1 || !strings.Contains(errs, "at least 16") || strings.Contains(errs, "short") {
		t.Errorf("a short secret: got exit code %d, %q", code, errs)
	}
}

func TestSelfSignedServesClientsAndThePageByTLS(t *testing.T) {
	t.Parallel()
	tlsAddr, wss, https := freeAddr(t), freeAddr(t), freeAddr(t)
	i := startAll(t, t.TempDir(), "HALLEY_TLS_SELF_SIGNED=true", "HALLEY_ALL_TLS_ADDR="+tlsAddr, "HALLEY_ALL_WSS_ADDR="+wss, "HALLEY_ALL_HTTPS_ADDR="+https)
	config := &tls.Config{InsecureSkipVerify: true}
	jwt := i.mustTool("token", "--uid", "ann")
	for _, url := range []string{"tls://" + tlsAddr, "wss://" + wss + "/sub"} {
		c, err := client.Dial(t.Context(), url, &halleyv1.Auth{Token: jwt}, client.DialOptions{TLS: config})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		c.Close()
	}
	hc := http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	for _, url := range []string{"https://" + https, "http://" + i.api} {
		resp, err := hc.Get(url + "/healthz")
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: HTTP %s", url, resp.Status)
		}
	}
	cert := filepath.Join(i.dir, "tls-self-signed.crt")
	before, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := selfSigned(i.dir); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(cert); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a second start has another certificate (%v)", err)
	}
}

func TestListenPrintsWhatComes(t *testing.T) {
	t.Parallel()
	i := startAll(t, t.TempDir())
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "listen", "--uid", "ann", "--room", "test://1", "--comet", "tcp://"+i.tcp, "--json")
	cmd.Env = i.env
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	defer kill.Stop()
	sc := bufio.NewScanner(out)
	for pushed := false; sc.Scan(); {
		var line struct {
			Kind string
			Data struct {
				Op   int32
				Body any
			}
		}
		if err := json.Unmarshal(sc.Bytes(), &line); err != nil {
			t.Fatalf("%q: %v", sc.Text(), err)
		}
		if line.Kind == "session" && !pushed {
			pushed = true
			i.mustTool("push", "--room", "test://1", "--op", "1234", "--body", "seen")
		}
		if line.Kind == "push" {
			if line.Data.Op != 1234 || line.Data.Body != "seen" {
				t.Errorf("got %s", sc.Text())
			}
			cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("listen: %v, want exit code 0 after SIGTERM", err)
	}
}

func TestDoctorOfAllFindsWhatRunsAndWhatIsMissing(t *testing.T) {
	t.Parallel()
	i := startAll(t, t.TempDir())
	code, out, errs := i.tool("doctor", "--all")
	if code != 0 || !strings.Contains(out, "served") || !strings.Contains(out, "MB free") {
		t.Errorf("all: exit code %d\n%s%s", code, out, errs)
	}
	nowhere := freeAddr(t)
	i.env = append(i.env, "HALLEY_KAFKA_BROKERS="+nowhere, "HALLEY_REDIS_ADDRS="+nowhere)
	code, out, _ = i.tool("doctor")
	if code != 1 || !strings.Contains(out, "HALLEY_KAFKA_BROKERS") || !strings.Contains(out, "HALLEY_REDIS_ADDRS") {
		t.Errorf("no Kafka, no Redis: exit code %d\n%s", code, out)
	}
}

func TestBenchMeasuresWithoutLoss(t *testing.T) {
	t.Parallel()
	i := startAll(t, t.TempDir())
	pid := fmt.Sprintf("all=%d", i.cmd.Process.Pid)
	for _, args := range [][]string{
		{"room", "--members", "20", "--rate", "20", "--limit", "--comet", i.tcp},
		{"room", "--members", "20", "--rate", "20", "--ws", "--limit", "--comet", i.ws},
		{"lone", "--members", "10", "--every", "100ms", "--comet", i.tcp},
		{"users", "--users", "20", "--rate", "50", "--comet", i.ws, "--ws"},
		{"api", "--users", "20", "--in-flight", "4", "--comet", i.tcp},
		{"api", "--users", "20", "--in-flight", "2", "--batch", "10", "--comet", i.tcp},
		{"idle", "--sessions", "50", "--wait", "10ms", "--comet", i.tcp},
		{"connect", "--sessions", "50", "--comet", i.ws, "--ws"},
		{"calls", "--pairs", "10", "--rate", "20", "--bulk-members", "20", "--comet", i.tcp},
	} {
		args = append(append([]string{"bench"}, args...), "--pids", pid, "--json", "-", "--quiet", "--duration", "500ms", "--warm-up", "100ms")
		type result struct {
			Sessions, Lost, Duplicates int64
			OutOfOrder                 int64 `json:"out_of_order"`
			Deliveries                 int64
			Expected                   int64 `json:"expected_deliveries"`
			Processes                  []struct{ Role string }
			Latency                    struct {
				P99 float64 `json:"p99_ms"`
			}
			Accepted struct {
				P99 float64 `json:"p99_ms"`
			} `json:"accept_latency"`
			Beside *struct{ Deliveries, Lost int64 }
		}
		var r result
		// Half a second may pass before anything is sent, on a machine that does something else meanwhile: then there is nothing to be measured.
		for try := 0; try < 3 && (try == 0 || args[1] != "idle" && args[1] != "connect" && r.Deliveries == 0); try++ {
			r = result{}
			out := i.mustTool(args...)
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatalf("%v: %v in %q", args, err, out)
			}
		}
		if r.Lost != 0 || r.Duplicates != 0 || r.OutOfOrder != 0 || r.Deliveries != r.Expected || len(r.Processes) != 1 {
			t.Errorf("%v: got %+v, want all delivered once and in order", args, r)
		}
		if args[1] == "calls" && (r.Latency.P99 == 0 || r.Accepted.P99 == 0 || r.Beside == nil || r.Beside.Deliveries == 0 || r.Beside.Lost != 0) {
			t.Errorf("%v: got %+v, want both times, and the pushes beside them", args, r)
		}
		if args[1] != "idle" && args[1] != "connect" && r.Deliveries == 0 {
			t.Errorf("%v: nothing was delivered", args)
		}
	}
}
