package keys_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/halley-im/halley/halley/internal/keys"
	"github.com/halley-im/halley/kit/token"
)

func TestSecretsAreMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	a, made, err := keys.Ensure(dir)
	if err != nil || !made {
		t.Fatalf("first: made %v, %v", made, err)
	}
	b, made, err := keys.Ensure(dir)
	if err != nil || made {
		t.Fatalf("second: made %v, %v", made, err)
	}
	if a.API != b.API || a.Cluster != b.Cluster || a.APISpec() != b.APISpec() {
		t.Error("the second start has other secrets")
	}
	other, _, err := keys.Ensure(t.TempDir())
	if err != nil || other.API == a.API || other.Cluster == a.Cluster {
		t.Errorf("two folders have the same secrets (%v)", err)
	}
	if !strings.HasPrefix(a.API, "hk_local_") || strings.Contains(a.APISpec(), a.API) {
		t.Error("the API key has another form, or its setting shows it")
	}
}

func TestSecretFilesAreTheOwnersAlone(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := keys.Ensure(dir); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 4 {
		t.Fatalf("got %d files, %v, want 4", len(files), err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v, want 0600", f.Name(), info.Mode(), err)
		}
	}
	if err := os.Chmod(keys.APIFile(dir), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := keys.Ensure(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a readable secret: got %v, want an error that says what to do", err)
	}
}

func TestSigningKeySignsWhatItVerifies(t *testing.T) {
	s, _, err := keys.Ensure(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.SigningKey()
	if err != nil {
		t.Fatal(err)
	}
	jwt, err := token.Sign(k, token.Claims{UID: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := token.NewVerifier([]*token.Key{k}, token.Rules{OptionalExpiry: true})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := v.Verify(jwt); err != nil || c.UID != "alice" {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestEmptySecretIsRefused(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := keys.Ensure(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keys.APIFile(dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := keys.Ensure(dir); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("got %v, want an error", err)
	}
}
