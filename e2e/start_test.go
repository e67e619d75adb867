package e2e

import (
	"errors"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStartThatCannotBe starts processes that can't run: each says in one line what to do, and its exit code isn't 0.
func TestStartThatCannotBe(t *testing.T) {
	if _, err := Binary(); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	takenUDP, err := net.ListenPacket("udp", freeAddr(t)) // by TCP it is free
	if err != nil {
		t.Fatal(err)
	}
	defer takenUDP.Close()
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	notAFolder := file("file", "x")
	nobody := freeAddr(t) // where no Kafka is
	cases := []struct {
		name string
		args []string
		env  map[string]string
		// want are words that the line must have.
		want []string
	}{
		{"comet, port in use", []string{"comet"}, map[string]string{"HALLEY_COMET_TCP_ADDR": taken.Addr().String()}, []string{taken.Addr().String(), "in use", "HALLEY_COMET_TCP_ADDR"}},
		{"logic, port in use", []string{"logic"}, map[string]string{"HALLEY_LOGIC_HTTP_ADDR": taken.Addr().String()}, []string{"in use", "HALLEY_LOGIC_HTTP_ADDR"}},
		{"router, port in use", []string{"router"}, map[string]string{"HALLEY_ROUTER_GRPC_ADDR": taken.Addr().String()}, []string{"in use", "HALLEY_ROUTER_GRPC_ADDR"}},
		{"job, port in use", []string{"job"}, map[string]string{"HALLEY_JOB_PRIVATE_ADDR": taken.Addr().String()}, []string{"in use", "HALLEY_JOB_PRIVATE_ADDR"}},
		{"all, port in use", []string{"all"}, map[string]string{"HALLEY_COMET_WS_ADDR": taken.Addr().String()}, []string{"in use", "HALLEY_COMET_WS_ADDR"}},
		{"all, TURN's port in use", []string{"all"}, map[string]string{"HALLEY_ALL_TURN_ADDR": taken.Addr().String()}, []string{"in use", "HALLEY_ALL_TURN_ADDR"}},
		{"all, TURN's port in use by UDP", []string{"all"}, map[string]string{"HALLEY_ALL_TURN_ADDR": takenUDP.LocalAddr().String()}, []string{"by UDP", "in use", "HALLEY_ALL_TURN_ADDR"}},
		{"unknown key in the file", []string{"comet", "--config", file("a.yaml", "comet:\n  tcp_adr: 127.0.0.1:1\n")}, nil, []string{"tcp_adr"}},
		{"file that is no YAML", []string{"comet", "--config", file("b.yaml", "comet: [\n")}, nil, []string{"b.yaml"}},
		{"file that isn't there", []string{"comet", "--config", "/nowhere/halley.yaml"}, nil, []string{"/nowhere/halley.yaml"}},
		{"value that can't be read", []string{"router"}, map[string]string{"HALLEY_ROUTER_LEASE_TTL": "soon"}, []string{"HALLEY_ROUTER_LEASE_TTL", "soon"}},
		{"value that can't be", []string{"job"}, map[string]string{"HALLEY_JOB_RETRY_MAX": "1h"}, []string{"retry-max"}},
		{"unknown flag", []string{"comet", "--tpc-addr", "x"}, nil, []string{"tpc-addr"}},
		{"unknown command", []string{"commet"}, nil, []string{"commet"}},
		{"certificate that isn't there", []string{"comet"}, map[string]string{"HALLEY_COMET_TLS_CERT": "/nowhere.pem", "HALLEY_COMET_TLS_KEY": "/nowhere.pem"}, []string{"/nowhere.pem"}},
		{"token key that is none", []string{"all"}, map[string]string{"HALLEY_LOGIC_TOKEN_KEYS": "a:HS256:@/nowhere"}, []string{"/nowhere"}},
		{"API key that is none", []string{"logic"}, map[string]string{"HALLEY_LOGIC_HTTP_API_KEYS": "nonsense"}, []string{"key"}},
		{"cluster secret that can be guessed", []string{"router"}, map[string]string{"HALLEY_CLUSTER_SECRET": "secret"}, []string{"openssl"}},
		{"internal listener open to the world without a secret", []string{"router"}, map[string]string{"HALLEY_ROUTER_GRPC_ADDR": "0.0.0.0:0"}, []string{"HALLEY_CLUSTER_SECRET"}},
		{"goim's tokens trusted in the open", []string{"all"}, map[string]string{"HALLEY_GOIM_COMPAT": "open", "HALLEY_COMET_TCP_ADDR": "0.0.0.0:0"}, []string{"open-anywhere"}},
		{"data folder that is a file", []string{"all"}, map[string]string{"HALLEY_DATA_DIR": notAFolder}, []string{notAFolder}},
		// No disk is as large as that.
		{"data folder on a disk nearly full", []string{"all"}, map[string]string{"HALLEY_ALL_MIN_FREE_BYTES": strconv.Itoa(math.MaxInt64)}, []string{"space", "HALLEY_DATA_DIR"}},
		{"no Kafka", []string{"job"}, map[string]string{"HALLEY_KAFKA_BROKERS": nobody}, []string{nobody, "HALLEY_KAFKA_BROKERS"}},
	}
	if dir := fullDisk(t); dir != "" {
		full := cases[0]
		full.name, full.args, full.env, full.want = "data folder on a disk without any room", []string{"all"}, map[string]string{"HALLEY_DATA_DIR": dir}, []string{"space"}
		cases = append(cases, full)
	}
	t.Run("cases", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				env := map[string]string{
					"HALLEY_DATA_DIR": filepath.Join(t.TempDir(), "data"), "HALLEY_KAFKA_BROKERS": nobody, "HALLEY_REDIS_ADDRS": nobody,
					"HALLEY_COMET_TCP_ADDR": "127.0.0.1:0", "HALLEY_COMET_WS_ADDR": "127.0.0.1:0", "HALLEY_COMET_GRPC_ADDR": "127.0.0.1:0",
					"HALLEY_LOGIC_HTTP_ADDR": "127.0.0.1:0", "HALLEY_LOGIC_GRPC_ADDR": "127.0.0.1:0", "HALLEY_ROUTER_GRPC_ADDR": "127.0.0.1:0",
					"HALLEY_ALL_TURN_ADDR": "127.0.0.1:0",
				}
				for _, role := range []string{"COMET", "LOGIC", "ROUTER", "JOB", "ALL"} {
					env["HALLEY_"+role+"_PRIVATE_ADDR"] = "127.0.0.1:0"
				}
				for k, v := range c.env {
					env[k] = v
				}
				code, out := runToEnd(t, c.args, env, 75*time.Second)
				if code <= 0 {
					t.Errorf("exit code %d, want above 0", code)
				}
				last := complaint(out)
				if len(last) != 1 {
					t.Fatalf("want one line that begins with \"halley:\", got:\n%s", out)
				}
				for _, word := range c.want {
					if !strings.Contains(last[0], word) {
						t.Errorf("the line has no %q: %s", word, last[0])
					}
				}
				if fatalLog.MatchString(out) {
					t.Errorf("it crashed:\n%s", out)
				}
			})
		}
	})
}

// complaint returns the lines that the command says itself, as opposed to its log.
func complaint(out string) []string {
	var lines []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "halley: ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// runToEnd runs the binary until it ends by itself.
func runToEnd(t *testing.T, args []string, env map[string]string, limit time.Duration) (code int, out string) {
	t.Helper()
	path, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.Dir = environ(env), t.TempDir()
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the exit code is looked at below
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
		_ = cmd.Process.Kill()
		<-done
		t.Fatalf("it runs on:\n%s", b.String())
	}
	return cmd.ProcessState.ExitCode(), b.String()
}

// fullDisk mounts a small file system, fills it and returns a folder in it, or "" where mounting isn't allowed: it adds the
// kernel's own refusal to the case that needs no mount.
func fullDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return ""
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	return filepath.Join(dir, "data")
}
