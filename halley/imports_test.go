package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePrefix = "github.com/halley-im/halley/"

// mayImport is the rule of docs/architecture.md: which of our modules a module's packages, tests included, may
// import besides its own. Roles speak gRPC or Kafka with each other, never Go.
var mayImport = map[string][]string{
	"proto":  {},
	"kit":    {"proto"},
	"web":    {},
	"comet":  {"proto", "kit"},
	"store":  {"proto"},
	"logic":  {"proto", "kit", "store"},
	"router": {"proto", "kit"},
	"job":    {"proto", "kit", "store"},
	"halley": {"proto", "kit", "store", "web", "comet", "logic", "router", "job"},
	"e2e":    {"proto"},
}

// pure are packages that must be testable alone: they import no network, Redis or Kafka.
var pure = []string{"proto/frame", "proto/name", "comet/internal/outbox"}

// impure is what they may not import.
var impure = []string{"net", "net/http", "github.com/redis/go-redis/v9", "github.com/segmentio/kafka-go"}

func TestModulesImportOnlyWhatTheyMay(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for module, may := range mayImport {
		err := filepath.WalkDir(filepath.Join(root, module), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			if d.IsDir() || !strings.HasSuffix(path, ".go") {
				return nil
			}
			files++
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			checkImports(t, rel, module, may)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 50 {
		t.Errorf("only %d files were looked at", files)
	}
}

func checkImports(t *testing.T, rel, module string, may []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", rel), nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	for _, spec := range f.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(pure, filepath.ToSlash(filepath.Dir(rel))) && !strings.HasSuffix(rel, "_test.go") && slices.Contains(impure, path) {
			t.Errorf("%s imports %s: its package must be testable without", rel, path)
		}
		ours, ok := strings.CutPrefix(path, modulePrefix)
		if !ok {
			continue
		}
		other, _, _ := strings.Cut(ours, "/")
		if other != module && !slices.Contains(may, other) {
			t.Errorf("%s imports %s: %s may import %s only", rel, path, module, strings.Join(append([]string{module}, may...), ", "))
		}
	}
}
