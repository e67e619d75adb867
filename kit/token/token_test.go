package token_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/halley-im/halley/kit/token"
)

var now = time.Date(2026, 5, 4, 3, 2, 1, 500e6, time.UTC)

var secret = []byte("0123456789abcdef0123456789abcdef")

// rsaKey is made once: it takes long.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func hs(t testing.TB, id string, secret []byte) *token.Key {
	t.Helper()
	k, err := token.NewHS256(id, secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func verifier(t testing.TB, r token.Rules, keys ...*token.Key) *token.Verifier {
	t.Helper()
	r.Now = func() time.Time { return now }
	v, err := token.NewVerifier(keys, r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSignedTokenIsVerifiedWithAllItsClaims(t *testing.T) {
	_, edKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := token.NewRS256Signer("r", rsaKey())
	if err != nil {
		t.Fatal(err)
	}
	ed, err := token.NewEdDSASigner("e", edKey)
	if err != nil {
		t.Fatal(err)
	}
	keys := []*token.Key{hs(t, "h", secret), rs, ed}
	v := verifier(t, token.Rules{}, keys...)
	want := token.Claims{
		Tenant: "acme", UID: "ann", DeviceID: "phone-1", Platform: "ios", Key: "k-1", Rooms: []string{"chat://*"}, Accepts: []int32{1000, 1001}, Watch: token.WatchNobody,
		IssuedAt: now.Add(-time.Second), NotBefore: now.Add(-time.Second), ExpiresAt: now.Add(time.Hour),
	}
	for _, k := range keys {
		t.Run(k.Alg(), func(t *testing.T) {
			s, err := token.Sign(k, want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := v.Verify(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range []*time.Time{&got.IssuedAt, &got.NotBefore, &got.ExpiresAt} {
				*d = d.UTC()
			}
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("got %+v, want %+v", *got, want)
			}
		})
	}
}

// forge makes a token of any header and claims, signed with secret as HMAC unless sign says otherwise.
func forge(t testing.TB, header, claims map[string]any, sign func(method jwt.SigningMethod, input string) []byte) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	input := part(header) + "." + part(claims)
	return input + "." + base64.RawURLEncoding.EncodeToString(sign(nil, input))
}

func hmacWith(t testing.TB, secret []byte, m *jwt.SigningMethodHMAC) func(jwt.SigningMethod, string) []byte {
	return func(_ jwt.SigningMethod, input string) []byte {
		b, err := m.Sign(input, secret)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func TestBadTokenIsRefused(t *testing.T) {
	rs, err := token.NewRS256("r", &rsaKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	rsPEM := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)})
	acme := hs(t, "acme", []byte(strings.Repeat("a", 32)))
	acme.Tenant = "acme"
	v := verifier(t, token.Rules{MaxLifetime: 24 * time.Hour, MaxBytes: 2048}, hs(t, "h", secret), rs, acme)

	exp := now.Add(time.Hour).Unix()
	header := func(kv ...any) map[string]any {
		m := map[string]any{"alg": "HS256", "typ": "JWT", "kid": "h"}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	}
	claims := func(kv ...any) map[string]any {
		m := map[string]any{"sub": "ann", "exp": exp}
		for i := 0; i < len(kv); i += 2 {
			if kv[i+1] == nil {
				delete(m, kv[i].(string))
				continue
			}
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	}
	good := hmacWith(t, secret, jwt.SigningMethodHS256)
	none := func(jwt.SigningMethod, string) []byte { return nil }
	if _, err := v.Verify(forge(t, header(), claims(), good)); err != nil {
		t.Fatalf("the token that the others are made from: %v", err)
	}
	tampered := forge(t, header(), claims(), good)
	tampered = tampered[:len(tampered)-4] + "AAAA"

	for _, tt := range []struct {
		name  string
		token string
		want  error
	}{
		{"empty", "", token.ErrInvalid},
		{"no token", "hello", token.ErrInvalid},
		{"two parts", "a.b", token.ErrInvalid},
		{"alg none", forge(t, header("alg", "none"), claims(), none), token.ErrInvalid},
		{"alg None", forge(t, header("alg", "None"), claims(), none), token.ErrInvalid},
		{"alg missing", forge(t, map[string]any{"kid": "h"}, claims(), good), token.ErrInvalid},
		{"HS512 with the right secret", forge(t, header("alg", "HS512"), claims(), hmacWith(t, secret, jwt.SigningMethodHS512)), token.ErrInvalid},
		{"RSA public key taken for a secret", forge(t, header("kid", "r"), claims(), hmacWith(t, rsPEM, jwt.SigningMethodHS256)), token.ErrInvalid},
		{"RS256 named for an HMAC key", forge(t, header("alg", "RS256"), claims(), good), token.ErrInvalid},
		{"other key", forge(t, header(), claims(), hmacWith(t, []byte(strings.Repeat("x", 32)), jwt.SigningMethodHS256)), token.ErrInvalid},
		{"unknown kid", forge(t, header("kid", "z"), claims(), good), token.ErrInvalid},
		{"kid missing among several", forge(t, map[string]any{"alg": "HS256"}, claims(), good), token.ErrInvalid},
		{"kid a number", forge(t, header("kid", 7), claims(), good), token.ErrInvalid},
		{"signature changed", tampered, token.ErrInvalid},
		{"no signature", forge(t, header(), claims(), none), token.ErrInvalid},
		{"expired", forge(t, header(), claims("exp", now.Add(-time.Minute).Unix()), good), token.ErrExpired},
		{"expired and of another key", forge(t, header(), claims("exp", 1), hmacWith(t, rsPEM, jwt.SigningMethodHS256)), token.ErrInvalid},
		{"no exp", forge(t, header(), claims("exp", nil), good), token.ErrInvalid},
		{"exp a string", forge(t, header(), claims("exp", "tomorrow"), good), token.ErrInvalid},
		{"exp beyond all dates", forge(t, header(), claims("exp", 1e300), good), token.ErrInvalid},
		{"not yet", forge(t, header(), claims("nbf", now.Add(time.Minute).Unix()), good), token.ErrInvalid},
		{"lives too long", forge(t, header(), claims("exp", now.Add(48*time.Hour).Unix()), good), token.ErrInvalid},
		{"lives too long, dated ahead", forge(t, header(), claims("iat", now.Add(40*time.Hour).Unix(), "exp", now.Add(48*time.Hour).Unix()), good), token.ErrInvalid},
		{"rooms a string", forge(t, header(), claims("rooms", "chat://a"), good), token.ErrInvalid},
		{"huge", forge(t, header(), claims("pad", strings.Repeat("x", 4096)), good), token.ErrTooLarge},
		{"another tenant than the key's", forge(t, header("kid", "acme"), claims("tenant", "other"),
			hmacWith(t, []byte(strings.Repeat("a", 32)), jwt.SigningMethodHS256)), token.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := v.Verify(tt.token)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %+v, %v, want %v", c, err, tt.want)
			}
			if len(tt.token) > 20 && strings.Contains(err.Error(), tt.token[len(tt.token)-10:]) {
				t.Error("the error shows the token")
			}
		})
	}
}

func TestKeyOfOneTenantSpeaksForItAlone(t *testing.T) {
	k := hs(t, "k", secret)
	k.Tenant = "acme"
	v := verifier(t, token.Rules{}, k)
	s := forge(t, map[string]any{"alg": "HS256"}, map[string]any{"sub": "ann", "exp": now.Add(time.Hour).Unix()}, hmacWith(t, secret, jwt.SigningMethodHS256))
	c, err := v.Verify(s)
	if err != nil {
		t.Fatal(err)
	}
	if c.Tenant != "acme" {
		t.Errorf("tenant of a token without the claim: got %q, want the key's", c.Tenant)
	}
	if _, err := token.Sign(k, token.Claims{UID: "ann", Tenant: "other", ExpiresAt: now.Add(time.Hour)}); err == nil {
		t.Error("the key signed for another tenant")
	}
}

func TestTokenWithoutExpiryPassesWhereAllowed(t *testing.T) {
	k := hs(t, "k", secret)
	s, err := token.Sign(k, token.Claims{UID: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier(t, token.Rules{}, k).Verify(s); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("by default: got %v, want %v", err, token.ErrInvalid)
	}
	if c, err := verifier(t, token.Rules{OptionalExpiry: true}, k).Verify(s); err != nil || !c.ExpiresAt.IsZero() {
		t.Errorf("where allowed: got %+v, %v", c, err)
	}
}

func TestDeviceIDIsTakenForDevice(t *testing.T) {
	s := forge(t, map[string]any{"alg": "HS256"}, map[string]any{"sub": "ann", "device_id": "d1", "exp": now.Add(time.Hour).Unix()},
		hmacWith(t, secret, jwt.SigningMethodHS256))
	c, err := verifier(t, token.Rules{}, hs(t, "k", secret)).Verify(s)
	if err != nil || c.DeviceID != "d1" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestTwoKeysWithOneIDAreAnError(t *testing.T) {
	if _, err := token.NewVerifier([]*token.Key{hs(t, "k", secret), hs(t, "k", secret)}, token.Rules{}); err == nil {
		t.Error("no error")
	}
}

func TestParseKey(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	pkix, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	edPub := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix})
	edPriv := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	rsPriv := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey())})
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weakPEM := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(weak)})
	b64 := base64.StdEncoding.EncodeToString(secret)

	for _, tt := range []struct {
		name, spec string
		tenant     string
		signs      bool
		wantErr    bool
	}{
		{name: "secret", spec: "k:HS256:" + b64, signs: true},
		{name: "secret of a tenant", spec: "acme/k:HS256:" + b64, tenant: "acme", signs: true},
		{name: "secret in a file, base64", spec: "k:HS256:@" + file("b64", []byte(b64+"\n")), signs: true},
		{name: "secret in a file, raw", spec: "k:HS256:@" + file("raw", []byte("#"+strings.Repeat("!", 40))), signs: true},
		{name: "Ed25519 public", spec: "k:EdDSA:@" + file("ed.pub", edPub)},
		{name: "Ed25519 private", spec: "k:EdDSA:@" + file("ed.key", edPriv), signs: true},
		{name: "PEM in line", spec: "k:EdDSA:" + strings.ReplaceAll(string(edPub), "\n", `\n`)},
		{name: "RSA private", spec: "k:RS256:@" + file("rsa.key", rsPriv), signs: true},
		{name: "RSA too short", spec: "k:RS256:@" + file("weak.key", weakPEM), wantErr: true},
		{name: "key of another algorithm", spec: "k:RS256:@" + file("ed2.pub", edPub), wantErr: true},
		{name: "short secret", spec: "k:HS256:c2hvcnQ=", wantErr: true},
		{name: "secret not base64", spec: "k:HS256:" + strings.Repeat("!", 40), wantErr: true},
		{name: "no such file", spec: "k:HS256:@" + filepath.Join(dir, "none"), wantErr: true},
		{name: "alg none", spec: "k:none:" + b64, wantErr: true},
		{name: "alg HS512", spec: "k:HS512:" + b64, wantErr: true},
		{name: "no id", spec: ":HS256:" + b64, wantErr: true},
		{name: "bad tenant", spec: "Acme/k:HS256:" + b64, wantErr: true},
		{name: "no material", spec: "k:HS256:", wantErr: true},
		{name: "nothing", spec: "", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := token.ParseKey(tt.spec)
			if (err != nil) != tt.wantErr {
				t.Fatalf("got %v, want error %t", err, tt.wantErr)
			}
			if err != nil {
				if strings.Contains(err.Error(), b64) {
					t.Error("the error shows the secret")
				}
				return
			}
			if k.ID != "k" || k.Tenant != tt.tenant || k.CanSign() != tt.signs {
				t.Errorf("got %s, %s, signs %t", k.ID, k.Tenant, k.CanSign())
			}
		})
	}
}

func FuzzVerify(f *testing.F) {
	k, err := token.NewHS256("k", secret)
	if err != nil {
		f.Fatal(err)
	}
	v := verifier(f, token.Rules{}, k)
	good, err := token.Sign(k, token.Claims{UID: "ann", ExpiresAt: now.Add(time.Hour)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := v.Verify(s)
		if err == nil && s != good {
			t.Errorf("%q passes as %+v", s, c)
		}
	})
}

func BenchmarkVerifyHS256(b *testing.B) {
	k := hs(b, "k", secret)
	v := verifier(b, token.Rules{}, k)
	s, err := token.Sign(k, token.Claims{UID: "ann", DeviceID: "d", Platform: "web", Rooms: []string{"chat://*"}, IssuedAt: now, ExpiresAt: now.Add(time.Hour)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(s); err != nil {
			b.Fatal(err)
		}
	}
}
