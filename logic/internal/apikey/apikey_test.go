package apikey_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/proto/errcode"
)

func newKey(t *testing.T, id string, scopes apikey.Scope, tenant string) (text, line string) {
	t.Helper()
	text, line, err := apikey.New(id, scopes, tenant)
	if err != nil {
		t.Fatal(err)
	}
	return text, line
}

func TestKeyIsFoundByItsTextAlone(t *testing.T) {
	a, lineA := newKey(t, "a", apikey.Push|apikey.Read, "")
	b, lineB := newKey(t, "b-2", apikey.Admin, "shop")
	set, err := apikey.Parse([]string{lineA, lineB})
	if err != nil {
		t.Fatal(err)
	}
	k, ok := set.Check(a)
	if !ok || k.ID != "a" || k.Tenant != "default" || k.Scopes != apikey.Push|apikey.Read {
		t.Fatalf("got %+v, %v", k, ok)
	}
	if k, ok = set.Check(b); !ok || k.ID != "b-2" || k.Tenant != "shop" {
		t.Fatalf("got %+v, %v", k, ok)
	}
	wrong := []string{
		"", "hk_", "hk_a", "hk_a_", "hk__", a[:len(a)-1], a + "x", strings.Replace(a, "hk_a_", "hk_b-2_", 1),
		strings.Replace(a, "hk_a_", "hk_nobody_", 1), strings.ToUpper(a), "Bearer " + a, strings.TrimPrefix(a, "hk_"), lineA,
	}
	for _, text := range wrong {
		if k, ok := set.Check(text); ok {
			t.Errorf("%q was taken for %s", text, k.ID)
		}
	}
}

func TestUnknownKeyWithZeroHashIsRefused(t *testing.T) {
	// The stand-in for unknown ids has a hash of zeros; a configured key must not be confused with it.
	set, err := apikey.Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := set.Check("hk_x_y"); ok {
		t.Fatal("a key was found in an empty set")
	}
}

func TestParseRefuses(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for name, line := range map[string]string{
		"too few parts":    "a:" + hash,
		"too many parts":   "a:" + hash + ":push:x:1:2",
		"empty id":         ":" + hash + ":push",
		"id with _":        "a_b:" + hash + ":push",
		"id upper case":    "A:" + hash + ":push",
		"long id":          strings.Repeat("a", 33) + ":" + hash + ":push",
		"short hash":       "a:" + hash[2:] + ":push",
		"long hash":        "a:" + hash + "00:push",
		"no hexadecimal":   "a:" + strings.Repeat("zz", 32) + ":push",
		"unknown scope":    "a:" + hash + ":push+fly",
		"no scope":         "a:" + hash + ":",
		"bad tenant":       "a:" + hash + ":push:UPPER",
		"rate not number":  "a:" + hash + ":push:x:fast",
		"rate not above 0": "a:" + hash + ":push:x:0",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := apikey.Parse([]string{line})
			if err == nil {
				t.Fatalf("%q was taken", line)
			}
			if strings.Contains(err.Error(), "abab") {
				t.Fatalf("the error shows the hash: %v", err)
			}
		})
	}
	if _, err := apikey.Parse([]string{"a:" + hash + ":push", "a:" + hash + ":read"}); err == nil {
		t.Fatal("an id was taken twice")
	}
}

func TestParseReadsTenantAndRate(t *testing.T) {
	text, _ := newKey(t, "a", apikey.Push, "")
	for _, c := range []struct {
		tail, tenant string
		rate         int
	}{{"", "default", 0}, {":", "default", 0}, {":*", "*", 0}, {"::7", "default", 7}, {":shop:2000", "shop", 2000}} {
		line := strings.TrimSuffix(apikey.Line("a", text, apikey.Push, "default"), ":default") + c.tail
		set, err := apikey.Parse([]string{line})
		if err != nil {
			t.Fatalf("%q: %v", c.tail, err)
		}
		if k, ok := set.Check(text); !ok || k.Tenant != c.tenant || k.Rate != c.rate {
			t.Errorf("%q: got %+v, %v", c.tail, k, ok)
		}
	}
}

func TestReadFileSkipsCommentsAndEmptyLines(t *testing.T) {
	text, line := newKey(t, "a", apikey.Push, "")
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte("# keys\n\n  "+line+"  \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lines, err := apikey.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set, err := apikey.Parse(lines)
	if err != nil || set.Len() != 1 {
		t.Fatalf("got %d keys, %v", set.Len(), err)
	}
	if _, ok := set.Check(text); !ok {
		t.Fatal("the key of the file isn't found")
	}
	if _, err := apikey.ReadFile(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
}

func TestTenantComesFromTheKey(t *testing.T) {
	for _, c := range []struct{ key, named, want string }{
		{"shop", "", "shop"}, {"shop", "shop", "shop"}, {"*", "", "default"}, {"*", "game", "game"},
	} {
		got, err := (&apikey.Key{Tenant: c.key}).TenantFor(c.named)
		if err != nil || got != c.want {
			t.Errorf("%+v: got %q, %v", c, got, err)
		}
	}
	if _, err := (&apikey.Key{Tenant: "shop"}).TenantFor("game"); !errors.Is(err, errcode.Forbidden) {
		t.Errorf("got %v, want forbidden", err)
	}
	if _, err := (&apikey.Key{Tenant: "*"}).TenantFor("NO"); !errors.Is(err, errcode.InvalidRequest) {
		t.Errorf("got %v, want invalid_request", err)
	}
}

func TestAdminHoldsEveryScope(t *testing.T) {
	for _, s := range []apikey.Scope{apikey.Push, apikey.Token, apikey.Chat, apikey.Read, apikey.Admin} {
		if !apikey.Admin.Has(s) {
			t.Errorf("admin hasn't %s", s)
		}
		if s != apikey.Push && apikey.Push.Has(s) {
			t.Errorf("push has %s", s)
		}
	}
	if !apikey.Read.Has(apikey.Read|apikey.Push) || apikey.Chat.Has(apikey.Read|apikey.Push) {
		t.Error("one of several must do, none of them must not")
	}
}

func TestTemporaryKeyIsSignedAndEnds(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := apikey.NewSigner([]byte("secret"))
	text := s.Make("shop", "ann", apikey.Push|apikey.Read, now.Add(time.Hour))
	k, ok := apikey.NewSigner([]byte("secret")).Check(text, now)
	if !ok || k.ID != "temporary:ann" || k.Tenant != "shop" || k.Scopes != apikey.Push|apikey.Read {
		t.Fatalf("got %+v, %v", k, ok)
	}
	if _, ok := s.Check(text, now.Add(time.Hour)); ok {
		t.Error("it lives beyond its end")
	}
	if _, ok := apikey.NewSigner([]byte("other")).Check(text, now); ok {
		t.Error("another secret's key was taken")
	}
	// Each character but the last carries six bits of the signed bytes.
	for i := len(apikey.TemporaryPrefix); i < len(text)-1; i++ {
		c := byte('A')
		if text[i] == c {
			c = 'B'
		}
		if _, ok := s.Check(text[:i]+string(c)+text[i+1:], now); ok {
			t.Errorf("changed at %d it was taken", i)
		}
	}
}

func FuzzCheck(f *testing.F) {
	text, line, err := apikey.New("a", apikey.Push, "")
	if err != nil {
		f.Fatal(err)
	}
	set, err := apikey.Parse([]string{line})
	if err != nil {
		f.Fatal(err)
	}
	s := apikey.NewSigner([]byte("secret"))
	now := time.Unix(1_800_000_000, 0)
	temporary := s.Make("shop", "ann", apikey.Push, now.Add(time.Hour))
	f.Add(text)
	f.Add(temporary)
	f.Add("hk__")
	f.Fuzz(func(t *testing.T, in string) {
		if _, ok := set.Check(in); ok && in != text {
			t.Errorf("%q was taken", in)
		}
		if k, ok := s.Check(in, now); ok && k.ID != "temporary:ann" {
			t.Errorf("%q was taken", in)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	text, line, err := apikey.New("a", apikey.Push, "")
	if err != nil {
		b.Fatal(err)
	}
	set, err := apikey.Parse([]string{line})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, ok := set.Check(text); !ok {
			b.Fatal("not found")
		}
	}
}
