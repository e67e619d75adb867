package conf_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/halley-im/halley/kit/conf"
)

type cometConfig struct {
	// TCPAddr is where clients connect.
	TCPAddr string `name:"tcp-addr" help:"Address for TCP clients." default:"127.0.0.1:3101"`
	// IdleTimeout ends silent sessions.
	IdleTimeout time.Duration `name:"idle-timeout" help:"How long a silent session lives" default:"8m"`
	// OutboxBytes bounds a session's queue.
	OutboxBytes int64 `name:"outbox-bytes" help:"Most bytes queued for a session." default:"262144"`
	// Origins are the allowed ones.
	Origins []string `name:"origins" help:"Allowed origins." default:"a.example,b.example"`
	// Labels are free.
	Labels map[string]string `name:"labels" help:"Labels."`
	// Compat is of the whole.
	Compat string `name:"compat" env:"HALLEY_COMPAT" help:"Be like others." default:"off"`
	// Fast is a switch.
	Fast bool `name:"fast" help:"Be fast."`
}

func (c cometConfig) Validate() error {
	if c.OutboxBytes < 1 {
		return errors.New("comet.outbox_bytes must be at least 1")
	}
	if c.TCPAddr == "secret" {
		return errors.New("comet: tcp-addr has no port")
	}
	return nil
}

type shared struct {
	DataDir string `name:"data-dir" group:"general" help:"Where data is kept." default:"data"`
	Mode    string `name:"mode" group:"general" help:"How strict." enum:"off,open" default:"off"`
}

type grammar struct {
	Config string `name:"config" help:"File."`
	Comet  struct {
		Shared shared      `embed:""`
		Comet  cometConfig `embed:"" prefix:"comet-" group:"comet"`
	} `cmd:""`
	All struct {
		Shared shared      `embed:""`
		Comet  cometConfig `embed:"" prefix:"comet-" group:"comet"`
	} `cmd:""`
	Token struct {
		UID string `name:"uid" help:"Whose."`
	} `cmd:""`
}

func loader(t *testing.T, g *grammar) (*conf.Loader, *kong.Kong) {
	t.Helper()
	l := conf.New("HALLEY", []conf.Section{
		{Key: conf.General, Title: "General", Help: "For all."},
		{Key: "comet", Title: "Comet", Help: "Holds connections."},
	})
	k, err := kong.New(g, append(l.Options(), kong.Name("halley"), kong.Writers(io.Discard, io.Discard))...)
	if err != nil {
		t.Fatal(err)
	}
	return l, k
}

// parse runs `halley comet` with a file of this text (none if empty) and these arguments.
func parse(t *testing.T, file string, args ...string) (*grammar, error) {
	t.Helper()
	g := &grammar{}
	_, k := loader(t, g)
	args = append([]string{"comet"}, args...)
	if file != "" {
		name := filepath.Join(t.TempDir(), "halley.yaml")
		if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", name)
	}
	_, err := k.Parse(args)
	return g, err
}

func TestFlagWinsOverEnvironmentOverFileOverDefault(t *testing.T) {
	file := "comet:\n  tcp_addr: file:1\n  idle_timeout: 2m\n  outbox_bytes: 7\n"
	t.Setenv("HALLEY_COMET_TCP_ADDR", "env:1")
	t.Setenv("HALLEY_COMET_IDLE_TIMEOUT", "3m")
	g, err := parse(t, file, "--comet-tcp-addr", "flag:1")
	if err != nil {
		t.Fatal(err)
	}
	if got := g.Comet.Comet.TCPAddr; got != "flag:1" {
		t.Errorf("tcp_addr: got %q, want the flag's", got)
	}
	if got := g.Comet.Comet.IdleTimeout; got != 3*time.Minute {
		t.Errorf("idle_timeout: got %v, want the environment's 3m", got)
	}
	if got := g.Comet.Comet.OutboxBytes; got != 7 {
		t.Errorf("outbox_bytes: got %d, want the file's 7", got)
	}
	if got := g.Comet.Shared.DataDir; got != "data" {
		t.Errorf("data_dir: got %q, want the default", got)
	}
}

func TestFileHoldsEveryKindOfValue(t *testing.T) {
	g, err := parse(t, "data_dir: /d\nmode: open\ncomet:\n  origins: [x, 'y,z']\n  labels: {a: '1', b: two}\n  fast: true\n")
	if err != nil {
		t.Fatal(err)
	}
	c := g.Comet.Comet
	if len(c.Origins) != 2 || c.Origins[0] != "x" || c.Origins[1] != "y,z" {
		t.Errorf("origins: got %q, want x and y,z", c.Origins)
	}
	if len(c.Labels) != 2 || c.Labels["a"] != "1" || c.Labels["b"] != "two" {
		t.Errorf("labels: got %v", c.Labels)
	}
	if !c.Fast || g.Comet.Shared.DataDir != "/d" || g.Comet.Shared.Mode != "open" {
		t.Errorf("got fast %v, data_dir %q, mode %q", c.Fast, g.Comet.Shared.DataDir, g.Comet.Shared.Mode)
	}
	if g, err = parse(t, "comet: {origins: []}\n"); err != nil || len(g.Comet.Comet.Origins) != 0 {
		t.Errorf("an empty list: got %v, %v, want the default replaced by nothing", g.Comet.Comet.Origins, err)
	}
}

func TestFieldWithItsOwnVariableIsASettingOfTheWhole(t *testing.T) {
	if g, err := parse(t, "compat: open\n"); err != nil || g.Comet.Comet.Compat != "open" {
		t.Errorf("file: got %q, %v, want open", g.Comet.Comet.Compat, err)
	}
	if g, err := parse(t, "", "--compat", "ajar"); err != nil || g.Comet.Comet.Compat != "ajar" {
		t.Errorf("flag: got %q, %v, want ajar", g.Comet.Comet.Compat, err)
	}
	t.Setenv("HALLEY_COMPAT", "env")
	if g, err := parse(t, "compat: open\n"); err != nil || g.Comet.Comet.Compat != "env" {
		t.Errorf("environment: got %q, %v, want env", g.Comet.Comet.Compat, err)
	}
	if _, err := parse(t, "comet: {compat: open}\n"); !errors.Is(err, conf.ErrUnknownKey) || !strings.Contains(err.Error(), "did you mean compat?") {
		t.Errorf("in the section: got %v, want an unknown key that names the right one", err)
	}
}

func TestIsSetTellsADefaultFromTheSameValueGiven(t *testing.T) {
	name := filepath.Join(t.TempDir(), "halley.yaml")
	if err := os.WriteFile(name, []byte("comet: {outbox_bytes: 262144}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HALLEY_DATA_DIR", "data")
	l, k := loader(t, &grammar{})
	ctx, err := k.Parse([]string{"comet", "--config", name, "--mode", "off"})
	if err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]bool{"comet-outbox-bytes": true, "data-dir": true, "mode": true, "comet-tcp-addr": false} {
		if got := l.IsSet(ctx, flag); got != want {
			t.Errorf("--%s: got %v, want %v", flag, got, want)
		}
	}
}

func TestBadFileIsOneLineThatNamesPlaceKeyAndReason(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"typo", "comet:\n  tcp_adr: x\n", "halley.yaml:2: comet.tcp_adr: unknown key; did you mean comet.tcp_addr?"},
		{"wrong section", "tcp_addr: x\n", "halley.yaml:1: tcp_addr: unknown key; did you mean comet.tcp_addr?"},
		{"typo in a section's name", "commet:\n  tcp_addr: x\n", "halley.yaml:1: commet: unknown key; did you mean comet?"},
		{"nothing near", "zzzzzzzzzzzz: x\n", "halley.yaml:1: zzzzzzzzzzzz: unknown key; `halley config` prints all that there are"},
		{"twice", "mode: off\nmode: open\n", "halley.yaml:2: mode: the key is there twice"},
		{"wrong duration", "comet: {idle_timeout: 8 hours}\n", `halley.yaml:1: comet.idle_timeout: "8 hours" is no duration`},
		{"wrong number", "comet:\n  outbox_bytes: many\n", "halley.yaml:2: comet.outbox_bytes: "},
		{"not in the enum", "mode: ajar\n", `halley.yaml:1: mode: must be one of off, open but is "ajar"`},
		{"list for one value", "data_dir: [a]\n", "halley.yaml:1: data_dir: takes one value, not a list"},
		{"no value", "data_dir:\n", "halley.yaml:1: data_dir: has no value"},
		{"section with a value", "comet: 3\n", "halley.yaml:1: comet: is a section"},
		{"not a mapping", "- a\n", "halley.yaml:1: the file must hold keys and values"},
		{"not YAML", "a: [\n", "halley.yaml: yaml: "},
		{"two documents", "mode: off\n---\nmode: off\n", "only one YAML document"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(t, tt.file)
			if err == nil {
				t.Fatal("got no error")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestBadValueIsToldWithItsPlaceAndWhatIsAllowed(t *testing.T) {
	for _, tt := range []struct {
		name      string
		env, file string
		args      []string
		want      string
	}{
		{"duration in the environment", "HALLEY_COMET_IDLE_TIMEOUT=soon", "", nil, `environment: HALLEY_COMET_IDLE_TIMEOUT: "soon" is no duration: write it like 250ms, 10s or 1h30m`},
		{"number in the environment", "HALLEY_COMET_OUTBOX_BYTES=1e3", "", nil, `environment: HALLEY_COMET_OUTBOX_BYTES: "1e3" is no whole number, or too large a one`},
		{"switch in the environment", "HALLEY_COMET_FAST=quite", "", nil, `environment: HALLEY_COMET_FAST: "quite" is neither true nor false`},
		{"list of values in the environment", "HALLEY_MODE=ajar", "", nil, `environment: HALLEY_MODE: must be one of off, open but is "ajar"`},
		{"duration on the command line", "", "", []string{"--comet-idle-timeout", "soon"}, `command line: --comet-idle-timeout: "soon" is no duration: write it like 250ms, 10s or 1h30m`},
		{"list of values on the command line", "", "", []string{"--mode", "ajar"}, `command line: --mode: must be one of off, open but is "ajar"`},
		{"refused value of the environment", "HALLEY_COMET_OUTBOX_BYTES=0", "", nil, `comet.outbox_bytes must be at least 1 (set: HALLEY_COMET_OUTBOX_BYTES=0)`},
		{"refused value of the command line", "HALLEY_COMET_OUTBOX_BYTES=7", "", []string{"--comet-outbox-bytes=-1"}, `(set: --comet-outbox-bytes=-1)`},
		{"refused value of the file", "", "comet: {outbox_bytes: 0}", nil, `(set: in the file comet.outbox_bytes=0)`},
		{"refused text, which may be secret", "HALLEY_COMET_TCP_ADDR=secret", "", nil, `comet: tcp-addr has no port (set: HALLEY_COMET_TCP_ADDR)`},
		{"no setting", "", "", []string{"--nonsense"}, `unknown flag --nonsense`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if name, value, ok := strings.Cut(tt.env, "="); ok {
				t.Setenv(name, value)
			}
			g := &grammar{}
			l, k := loader(t, g)
			args := append([]string{"comet"}, tt.args...)
			if tt.file != "" {
				name := filepath.Join(t.TempDir(), "halley.yaml")
				if err := os.WriteFile(name, []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--config", name)
			}
			_, err := k.Parse(args)
			if err == nil {
				t.Fatal("got no error")
			}
			err = l.Explain(err)
			if !strings.HasSuffix(err.Error(), tt.want) || strings.Contains(err.Error(), "--help") || strings.Contains(err.Error(), "comet: comet: ") {
				t.Errorf("got %q, want it to end with %q", err, tt.want)
			}
		})
	}
}

func TestValidateOfAnEmbeddedConfigIsCalled(t *testing.T) {
	_, err := parse(t, "comet: {outbox_bytes: 0}\n")
	if err == nil || !strings.Contains(err.Error(), "comet.outbox_bytes must be at least 1") {
		t.Errorf("got %v, want Validate's error", err)
	}
}

func TestMissingFileIsAnError(t *testing.T) {
	_, err := parse(t, "", "--config", filepath.Join(t.TempDir(), "none.yaml"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want not-exist", err)
	}
}

func TestSampleUncommentedIsTheDefaults(t *testing.T) {
	l, _ := loader(t, &grammar{})
	var b strings.Builder
	if err := l.WriteSample(&b); err != nil {
		t.Fatal(err)
	}
	if values, err := l.Parse("sample", []byte(b.String())); err != nil || len(values) != 0 {
		t.Fatalf("as printed: got %v, %v, want no values", values, err)
	}
	active := regexp.MustCompile(`(?m)^( *)#(\w+:)`).ReplaceAllString(b.String(), "$1$2")
	values, err := l.Parse("sample", []byte(active))
	if err != nil {
		t.Fatalf("%v in\n%s", err, active)
	}
	if len(values) != len(l.Settings()) {
		t.Errorf("got %d values, want one for each of %d settings", len(values), len(l.Settings()))
	}
	for _, s := range l.Settings() {
		got := values[s.Path()]
		if got != s.Default && !(s.Default == "" && got == "false") {
			t.Errorf("%s: got %q, want the default %q", s.Path(), got, s.Default)
		}
	}
}

func TestMarkdownHasARowForEverySetting(t *testing.T) {
	l, _ := loader(t, &grammar{})
	var b strings.Builder
	if err := l.WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	want := "| `comet.idle_timeout` | `HALLEY_COMET_IDLE_TIMEOUT` | `--comet-idle-timeout` | `8m` | How long a silent session lives. |"
	if !strings.Contains(b.String(), want) {
		t.Errorf("got\n%s\nwant the row\n%s", b.String(), want)
	}
	if got := strings.Count(b.String(), "| `HALLEY_"); got != len(l.Settings()) {
		t.Errorf("got %d rows, want %d", got, len(l.Settings()))
	}
}

func TestArgumentsOfACommandAreNoSettings(t *testing.T) {
	l, _ := loader(t, &grammar{})
	for _, s := range l.Settings() {
		if s.Flag == "uid" || s.Flag == "config" {
			t.Errorf("--%s is taken for a setting", s.Flag)
		}
	}
	if got := len(l.Settings()); got != 9 {
		t.Errorf("got %d settings, want 9, each once", got)
	}
}

func TestUnknownEnvironmentIsFoundButNotThatOfKubernetes(t *testing.T) {
	l, _ := loader(t, &grammar{})
	got := l.UnknownEnv([]string{
		"HALLEY_COMET_TPC_ADDR=x", "HALLEY_COMET_TCP_ADDR=x", "HALLEY_COMET_SERVICE_HOST=10.0.0.1",
		"HALLEY_COMET_PORT=tcp://10.0.0.1:3101", "HALLEY_COMET_PORT_3101_TCP=tcp://10.0.0.1:3101", "HALLEY_CONFIG=f", "PATH=/bin",
	}, "HALLEY_CONFIG")
	if len(got) != 1 || got["HALLEY_COMET_TPC_ADDR"] != "HALLEY_COMET_TCP_ADDR" {
		t.Errorf("got %v, want only HALLEY_COMET_TPC_ADDR with its neighbour", got)
	}
}

func TestTwoCommandsMustAgreeOnADefault(t *testing.T) {
	var g struct {
		A struct {
			X string `name:"x" group:"general" default:"1"`
		} `cmd:""`
		B struct {
			X string `name:"x" group:"general" default:"2"`
		} `cmd:""`
	}
	l := conf.New("HALLEY", []conf.Section{{Key: conf.General}})
	if _, err := kong.New(&g, l.Options()...); err == nil || !strings.Contains(err.Error(), "--x") {
		t.Errorf("got %v, want an error that names --x", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "comet:\n  tcp_addr: x\n", "a: &x [1]\nb: *x\n", "? [a]\n: b\n", "comet: {labels: {a: {b: c}}}", "<<: {mode: off}", "null"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, _ := loader(t, &grammar{})
		values, err := l.Parse("f", text)
		if err != nil && (values != nil || strings.Contains(err.Error(), "\n")) {
			t.Errorf("got %v with values %v, want one line and no values", err, values)
		}
	})
}
