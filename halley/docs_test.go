package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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
	page, config, code := read(t, "../docs/operations.md")+read(t, "../docs/turn.md"), read(t, "../docs/config.md"), sources(t)
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
