package web_test

import (
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/halley-im/halley/web"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := fs.ReadFile(web.Files(), name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPagesNameFilesThatAreThere(t *testing.T) {
	for _, page := range []string{"index.html", "playground.html", "admin.html"} {
		names := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(read(t, page), -1)
		var scripts int
		for _, m := range names {
			if len(read(t, path.Clean(m[1]))) == 0 {
				t.Errorf("%s: %s is empty", page, m[1])
			}
			if strings.HasSuffix(m[1], ".js") {
				scripts++
			}
		}
		if scripts == 0 {
			t.Errorf("%s names no script: the app isn't built", page)
		}
	}
}

// The policy under which the pages are served (Files' comment) allows none of it; a browser would refuse it in
// silence.
func TestPagesHoldToTheirPolicy(t *testing.T) {
	inline := regexp.MustCompile(`(?i)<script(?:\s[^>]*)?>\s*[^<\s]|<style|\sstyle=|\son\w+=|javascript:`)
	foreign := regexp.MustCompile(`(?i)(?:src|href)="(?:https?:)?//|@import|url\(\s*["']?(?:https?:)?//`)
	var pages int
	if err := fs.WalkDir(web.Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		switch path.Ext(name) {
		case ".html":
			pages++
			if found := inline.FindString(read(t, name)); found != "" {
				t.Errorf("%s: %q is inline", name, found)
			}
			fallthrough
		case ".css", ".svg":
			if found := foreign.FindString(read(t, name)); found != "" {
				t.Errorf("%s: %q comes from elsewhere", name, found)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if pages == 0 {
		t.Error("no page was looked at")
	}
}

func TestAssetsHaveTheirHashInTheirName(t *testing.T) {
	names, err := fs.Glob(web.Files(), "assets/*")
	if err != nil || len(names) == 0 {
		t.Fatalf("got %v, %v, want files below assets", names, err)
	}
	for _, name := range names {
		if !regexp.MustCompile(`-[\w-]{8}\.\w+$`).MatchString(name) {
			t.Errorf("%s is cached for ever and has no hash", name)
		}
	}
}
