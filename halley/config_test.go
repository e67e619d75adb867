package main

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/halley-im/halley/kit/conf"
)

var update = flag.Bool("update", false, "rewrite docs/config.md")

func newTestParser(t *testing.T) (*kong.Kong, *conf.Loader, *commands) {
	t.Helper()
	g := &commands{}
	p, l, err := newParser(g, io.Discard, io.Discard, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	return p, l, g
}

// halleyRun runs a command line in this process and returns the exit code and what was printed.
func halleyRun(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestDocsConfigIsWhatTheTagsSay(t *testing.T) {
	const file = "../docs/config.md"
	code, got, errs := halleyRun(t, "config", "--markdown")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("docs/config.md is not what the Config structs say: run `go test -run DocsConfig ./halley -update`\nfirst difference: %s", firstDifference(got, string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return "got " + g[i] + "\nwant " + w[i]
		}
	}
	return "one ends earlier"
}

func TestEverySettingIsNamedByOneRule(t *testing.T) {
	_, l, _ := newTestParser(t)
	if len(l.Settings()) < 100 {
		t.Fatalf("only %d settings", len(l.Settings()))
	}
	envs := map[string]string{}
	key := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	for _, s := range l.Settings() {
		env := "HALLEY_" + strings.ToUpper(s.Key)
		if s.Section != conf.General {
			env = "HALLEY_" + strings.ToUpper(s.Section) + "_" + strings.ToUpper(s.Key)
		}
		if s.Env != env {
			t.Errorf("%s: variable %s, want %s", s.Path(), s.Env, env)
		}
		if !key.MatchString(s.Key) {
			t.Errorf("%s: not a key in snake_case", s.Path())
		}
		if s.Help == "" {
			t.Errorf("%s: has no help", s.Path())
		}
		if old := envs[s.Env]; old != "" {
			t.Errorf("%s is the variable of %s and of %s", s.Env, old, s.Path())
		}
		envs[s.Env] = s.Path()
		// Kubernetes sets such variables for a service named halley-comet: they must never be settings.
		if s.Key == "port" || strings.HasPrefix(s.Key, "port_") || strings.HasPrefix(s.Key, "service_") {
			t.Errorf("%s: Kubernetes may set it by itself", s.Env)
		}
	}
}

// TestSettingsThatOthersRelyOnKeepTheirNames lists those that documents, images and tests of other modules name.
func TestSettingsThatOthersRelyOnKeepTheirNames(t *testing.T) {
	_, l, _ := newTestParser(t)
	have := map[string]bool{}
	for _, s := range l.Settings() {
		have[s.Env] = true
	}
	for _, env := range []string{
		"HALLEY_KAFKA_BROKERS", "HALLEY_KAFKA_PREFIX", "HALLEY_REDIS_ADDRS", "HALLEY_REDIS_PREFIX", "HALLEY_DATA_DIR", "HALLEY_GOIM_COMPAT",
		"HALLEY_CLUSTER_SECRET", "HALLEY_CLUSTER_SECRET_FILE", "HALLEY_COMET_TCP_ADDR", "HALLEY_COMET_WS_ADDR", "HALLEY_COMET_GRPC_ADDR",
		"HALLEY_COMET_PRIVATE_ADDR", "HALLEY_COMET_NAME", "HALLEY_LOGIC_HTTP_ADDR", "HALLEY_LOGIC_GRPC_ADDR", "HALLEY_LOGIC_PRIVATE_ADDR",
		"HALLEY_LOGIC_TARGET", "HALLEY_ROUTER_GRPC_ADDR", "HALLEY_ROUTER_PRIVATE_ADDR", "HALLEY_ROUTER_TARGET", "HALLEY_JOB_PRIVATE_ADDR",
		"HALLEY_LOGIC_TOKEN_KEYS", "HALLEY_LOGIC_HTTP_API_KEYS", "HALLEY_TLS_CERT", "HALLEY_TLS_KEY", "HALLEY_TLS_SELF_SIGNED",
		"HALLEY_STORE_DRIVER", "HALLEY_STORE_DSN",
	} {
		if !have[env] {
			t.Errorf("%s is no setting any more", env)
		}
	}
}

func TestRolesStartWithDefaults(t *testing.T) {
	for _, role := range []string{"all", "comet", "logic", "router", "job"} {
		p, _, _ := newTestParser(t)
		if _, err := p.Parse([]string{role}); err != nil {
			t.Errorf("%s: the defaults are refused: %v", role, err)
		}
	}
}

func TestSampleUncommentedIsAcceptedByEveryRole(t *testing.T) {
	_, sample, _ := halleyRun(t, "config")
	active := regexp.MustCompile(`(?m)^( *)#(\w+:)`).ReplaceAllString(sample, "$1$2")
	file := filepath.Join(t.TempDir(), "halley.yaml")
	if err := os.WriteFile(file, []byte(active), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := halleyRun(t, "config", "--check", file); code != 0 {
		t.Fatalf("config --check: %s", errs)
	}
	for _, role := range []string{"all", "comet", "logic", "router", "job"} {
		p, _, _ := newTestParser(t)
		if _, err := p.Parse([]string{role, "--config", file}); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
}

func TestPrecedenceHoldsForARolesSetting(t *testing.T) {
	file := filepath.Join(t.TempDir(), "halley.yaml")
	text := "comet: {max_rooms: 1, max_watched: 1, request_burst: 1}\nkafka: {brokers: [a:1, b:2]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HALLEY_CONFIG", file)
	t.Setenv("HALLEY_COMET_MAX_WATCHED", "2")
	t.Setenv("HALLEY_COMET_REQUEST_BURST", "2")
	p, _, g := newTestParser(t)
	if _, err := p.Parse([]string{"all", "--comet-request-burst", "3"}); err != nil {
		t.Fatal(err)
	}
	c := g.All.Comet
	if c.MaxRooms != 1 || c.MaxWatched != 2 || c.RequestBurst != 3 {
		t.Errorf("got file %d, environment %d, flag %d, want 1, 2, 3", c.MaxRooms, c.MaxWatched, c.RequestBurst)
	}
	if got := g.All.Kafka.Brokers; len(got) != 2 || got[1] != "b:2" {
		t.Errorf("brokers: got %q", got)
	}
}

func TestBadConfigIsOneLineAndExitCode2(t *testing.T) {
	for _, tt := range []struct{ name, file, want string }{
		{"unknown key", "comet:\n  tcp_adr: x\n", "comet.tcp_adr: unknown key; did you mean comet.tcp_addr?"},
		{"another role's section is checked too", "job:\n  batch_records: many\n", "job.batch_records: "},
		{"a value that can't work", "comet: {outbox_bytes: 0}\n", "outbox-bytes must be greater than 0"},
		{"not in the list", "goim_compat: yes\n", `goim_compat: must be one of off, open, open-anywhere but is "yes"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "halley.yaml")
			if err := os.WriteFile(file, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			code, _, errs := halleyRun(t, "comet", "--config", file)
			if code != exitUsage || !strings.Contains(errs, tt.want) || strings.Count(errs, "\n") != 1 {
				t.Errorf("got exit code %d and %q, want %d and one line with %q", code, errs, exitUsage, tt.want)
			}
		})
	}
}

func TestHelpOfEveryCommandSaysSomething(t *testing.T) {
	for _, args := range [][]string{
		{}, {"all"}, {"comet"}, {"logic"}, {"router"}, {"job"}, {"token"}, {"push"}, {"listen"}, {"doctor"}, {"doctor", "turn"}, {"bench"}, {"bench", "room"}, {"config"}, {"version"},
	} {
		code, out, errs := halleyRun(t, append(args, "--help")...)
		if code != 0 || !strings.Contains(out, "Usage: halley") || errs != "" {
			t.Errorf("%v: exit code %d, %q, %q", args, code, out, errs)
		}
	}
}

func TestWrongCommandLinesAreOneLine(t *testing.T) {
	for _, args := range [][]string{{"commet"}, {"push"}, {"push", "--all", "--uid", "a"}, {"token"}, {"all", "--nonsense"}, {"all", "--tls-cert", "x"}} {
		code, _, errs := halleyRun(t, args...)
		if code != exitUsage || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "halley: ") {
			t.Errorf("%v: got exit code %d and %q, want %d and one line", args, code, errs, exitUsage)
		}
	}
}
