package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

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
		for try := 0; try < 3 && (try == 0 || args[1] != "idle" && args[1] != "connect" && r.Expected == 0); try++ {
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
