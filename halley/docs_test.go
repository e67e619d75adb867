package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sources returns the Go source of the roles, the store and the relay, without tests.
func sources(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, dir := range []string{"comet", "logic", "router", "job", "store", "halley/internal/relay"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, _ os.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				b.WriteString(read(t, path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestOperationsNameSettingsAndMetricsThatExist(t *testing.T) {
	page, config, code := read(t, "../docs/operations.md")+read(t, "../docs/turn.md")+read(t, "../docs/calls.md"), read(t, "../docs/config.md"), sources(t)
	settings := regexp.MustCompile("`((?:kafka|redis|store|comet|logic|router|job|all)\\.[a-z_]+)`").FindAllStringSubmatch(page, -1)
	if len(settings) < 10 {
		t.Fatalf("found %d settings in the page: is the pattern still right?", len(settings))
	}
	for _, m := range settings {
		if !strings.Contains(config, "`"+m[1]+"`") {
			t.Errorf("no setting %s in docs/config.md", m[1])
		}
	}
	metrics := regexp.MustCompile("`halley_([a-z]+)_([a-z_]+)").FindAllStringSubmatch(page, -1)
	if len(metrics) < 8 {
		t.Fatalf("found %d metrics in the page: is the pattern still right?", len(metrics))
	}
	for _, m := range metrics {
		// Roles write the name whole, or without what all of their metrics begin with.
		if !strings.Contains(code, `"halley_`+m[1]+"_"+m[2]+`"`) && !strings.Contains(code, `"`+m[2]+`"`) {
			t.Errorf("no metric halley_%s_%s in the code", m[1], m[2])
		}
	}
}

func TestCallsNameAllRequestsEventsErrorsAndTimers(t *testing.T) {
	page := read(t, "../docs/calls.md")
	for _, m := range []proto.Message{&halleyv1.Request{}, &halleyv1.Event{}} {
		fields, found := m.ProtoReflect().Descriptor().Fields(), 0
		for i := range fields.Len() {
			name := fields.Get(i).JSONName()
			if !strings.HasPrefix(name, "call.") && name != "ice.servers" {
				continue
			}
			found++
			// In the first column of a table, or in its first words.
			if !regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(name) + "`").MatchString(page) {
				t.Errorf("%s isn't in docs/calls.md", name)
			}
		}
		if found < 6 {
			t.Errorf("%T has %d names of calls: is the prefix still right?", m, found)
		}
	}
	codes := map[string]bool{}
	err := filepath.WalkDir("../logic/internal/call", func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			for _, m := range regexp.MustCompile(`errcode\.([A-Z]\w+)`).FindAllStringSubmatch(read(t, path), -1) {
				codes[strings.ToLower(regexp.MustCompile(`(.)([A-Z])`).ReplaceAllString(m[1], "${1}_$2"))] = true
			}
		}
		return err
	})
	delete(codes, "from")           // a function
	delete(codes, "unknown_method") // of a command that no method gives
	if err != nil || len(codes) < 8 {
		t.Fatalf("found %d codes, %v", len(codes), err)
	}
	_, list, _ := strings.Cut(page, "\nErrors: ")
	list, _, _ = strings.Cut(list, "## Events")
	for code := range codes {
		if !strings.Contains(list, "`"+code+"`") {
			t.Errorf("the error %s isn't in docs/calls.md", code)
		}
	}
	config := read(t, "../docs/config.md")
	_, timers, _ := strings.Cut(page, "## Timers")
	timers, _, _ = strings.Cut(timers, "\n## ")
	found := 0
	for _, line := range strings.Split(timers, "\n") {
		columns := strings.Split(line, "|")
		if len(columns) < 4 {
			continue
		}
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(columns[3], -1) {
			found++
			if !strings.Contains(config, "`logic.call_"+m[1]+"`") {
				t.Errorf("no setting logic.call_%s", m[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("found %d settings of timers: is the table still right?", found)
	}
}

func TestClustersConfigurationIsAcceptedByEveryRole(t *testing.T) {
	const file = "../deploy/cluster/halley.yaml"
	if code, _, errs := halleyRun(t, "config", "--check", file); code != 0 {
		t.Fatalf("config --check: %s", errs)
	}
	for _, role := range []string{"comet", "logic", "router", "job"} {
		p, _, _ := newTestParser(t)
		if _, err := p.Parse([]string{role, "--config", file}); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
}
