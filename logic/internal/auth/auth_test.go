package auth_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic/internal/auth"
	"github.com/halley-im/halley/proto/errcode"
)

var now = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func clock() time.Time { return now }

func config() auth.Config {
	return auth.Config{MaxBytes: 4096, MaxLifetime: 24 * time.Hour, DefaultTTL: time.Hour}
}

func key(t testing.TB, id, tenant string) *token.Key {
	t.Helper()
	k, err := token.NewHS256(id, []byte(strings.Repeat(id, 32)))
	if err != nil {
		t.Fatal(err)
	}
	k.Tenant = tenant
	return k
}

func verifier(t testing.TB, keys ...*token.Key) *auth.Verifier {
	t.Helper()
	v, err := auth.NewVerifier(config(), keys, clock)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func sign(t testing.TB, k *token.Key, c auth.Claims) string {
	t.Helper()
	if c.ExpiresAt.IsZero() {
		c.ExpiresAt = now.Add(time.Hour)
	}
	s, err := token.Sign(k, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVerifyChecksNamesAndTellsCodes(t *testing.T) {
	k := key(t, "k", "")
	v := verifier(t, k)
	for _, tt := range []struct {
		name  string
		token string
		want  *errcode.Code
	}{
		{"good", sign(t, k, auth.Claims{UID: "ann", Rooms: []string{"chat://*", "chat://a"}}), nil},
		{"nothing", "", errcode.Unauthenticated},
		{"expired", sign(t, k, auth.Claims{UID: "ann", ExpiresAt: now.Add(-time.Minute)}), errcode.TokenExpired},
		{"other key", sign(t, key(t, "x", ""), auth.Claims{UID: "ann"}), errcode.Unauthenticated},
		{"huge", sign(t, k, auth.Claims{UID: strings.Repeat("a", 5000)}), errcode.TooLarge},
		{"no uid", sign(t, k, auth.Claims{}), errcode.Unauthenticated},
		{"uid with a blank", sign(t, k, auth.Claims{UID: "a b"}), errcode.Unauthenticated},
		{"uid with a NUL", sign(t, k, auth.Claims{UID: "a\x00b"}), errcode.Unauthenticated},
		{"tenant", sign(t, k, auth.Claims{UID: "ann", Tenant: "Acme"}), errcode.Unauthenticated},
		{"device", sign(t, k, auth.Claims{UID: "ann", DeviceID: "a/b"}), errcode.Unauthenticated},
		{"platform", sign(t, k, auth.Claims{UID: "ann", Platform: "\n"}), errcode.Unauthenticated},
		{"key", sign(t, k, auth.Claims{UID: "ann", Key: "a b"}), errcode.Unauthenticated},
		{"room", sign(t, k, auth.Claims{UID: "ann", Rooms: []string{"lobby"}}), errcode.Unauthenticated},
		{"watch", sign(t, k, auth.Claims{UID: "ann", Watch: "friends"}), errcode.Unauthenticated},
		{"reserved room", sign(t, k, auth.Claims{UID: "ann", Rooms: []string{"conversation://7"}}), errcode.Unauthenticated},
		{"reserved pattern", sign(t, k, auth.Claims{UID: "ann", Rooms: []string{"presence://*"}}), errcode.Unauthenticated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := v.Verify(tt.token)
			if tt.want == nil {
				if err != nil || c.Tenant != "default" {
					t.Fatalf("got %+v, %v", c, err)
				}
				return
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestVerifierWithoutKeysRefusesAll(t *testing.T) {
	if _, err := verifier(t).Verify(sign(t, key(t, "k", ""), auth.Claims{UID: "ann"})); !errors.Is(err, errcode.Unauthenticated) {
		t.Errorf("got %v", err)
	}
}

func TestMintedTokenIsVerified(t *testing.T) {
	k := key(t, "k", "")
	m, err := auth.NewMinter(config(), []*token.Key{k}, clock)
	if err != nil {
		t.Fatal(err)
	}
	s, expires, err := m.Mint(auth.Claims{UID: "ann", Tenant: "acme", Platform: "web"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := verifier(t, k).Verify(s)
	if err != nil {
		t.Fatal(err)
	}
	if c.UID != "ann" || c.Tenant != "acme" || !c.IssuedAt.Equal(now) || !c.ExpiresAt.Equal(now.Add(time.Hour)) || !expires.Equal(c.ExpiresAt) {
		t.Errorf("got %+v, expires %s", c, expires)
	}
}

func TestMinterRefusesWhatNoVerifierTakes(t *testing.T) {
	m, err := auth.NewMinter(config(), []*token.Key{key(t, "k", "")}, clock)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		c    auth.Claims
		ttl  time.Duration
		want *errcode.Code
	}{
		"no uid":        {auth.Claims{}, 0, errcode.InvalidRequest},
		"reserved room": {auth.Claims{UID: "a", Rooms: []string{"meeting://*"}}, 0, errcode.RoomReserved},
		"watch":         {auth.Claims{UID: "a", Watch: "friends"}, 0, errcode.InvalidRequest},
		"ttl too long":  {auth.Claims{UID: "a"}, 25 * time.Hour, errcode.InvalidRequest},
		"negative ttl":  {auth.Claims{UID: "a"}, -time.Hour, errcode.InvalidRequest},
		"too large":     {auth.Claims{UID: "a", Rooms: []string{"chat://" + strings.Repeat("a", 200), "chat://" + strings.Repeat("b", 200)}, Accepts: make([]int32, 3000)}, 0, errcode.TooLarge},
	} {
		if _, _, err := m.Mint(tt.c, tt.ttl); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}

func TestMinterSignsWithTheTenantsKeyFirst(t *testing.T) {
	any, acme := key(t, "a", ""), key(t, "b", "acme")
	m, err := auth.NewMinter(config(), []*token.Key{any, acme}, clock)
	if err != nil {
		t.Fatal(err)
	}
	for tenant, k := range map[string]*token.Key{"acme": acme, "other": any} {
		s, _, err := m.Mint(auth.Claims{UID: "ann", Tenant: tenant}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verifier(t, k).Verify(s); err != nil {
			t.Errorf("tenant %s: not signed with %s: %v", tenant, k.ID, err)
		}
	}
	only, err := auth.NewMinter(config(), []*token.Key{acme}, clock)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := only.Mint(auth.Claims{UID: "ann", Tenant: "other"}, 0); !errors.Is(err, errcode.NotFound) || only.CanMint("other") {
		t.Errorf("tenant without a key: got %v", err)
	}
}

func TestSigningKeyMustBeThere(t *testing.T) {
	cfg := config()
	cfg.SigningKey = "z"
	if _, err := auth.NewMinter(cfg, []*token.Key{key(t, "k", "")}, clock); err == nil {
		t.Error("no error")
	}
}

func TestParseBodyTellsTheForms(t *testing.T) {
	for _, tt := range []struct {
		name, body   string
		halley, goim bool
		wantErr      bool
	}{
		{name: "token", body: `{"token":"x","rooms":["chat://a"],"accepts":[1,2],"resume":{"replaces":"a.1"}}`, halley: true},
		{name: "token and unknown fields", body: `{"token":"x","key":7,"mid":"me","more":{}}`, halley: true},
		{name: "token of a wrong type", body: `{"token":7}`, halley: true, wantErr: true},
		{name: "token null", body: `{"token":null}`, halley: true},
		{name: "rooms of a wrong type", body: `{"token":"x","rooms":"chat://a"}`, halley: true, wantErr: true},
		{name: "too many ops", body: `{"token":"x","accepts":[` + strings.Repeat("1,", 300) + `1]}`, halley: true, wantErr: true},
		{name: "goim", body: `{"mid":123,"key":"k","room_id":"live://1000","platform":"web","accepts":[1000,1001,1002]}`, goim: true},
		{name: "goim, empty", body: `{}`, goim: true},
		{name: "goim, unknown field", body: `{"x":[{}]}`, goim: true},
		{name: "goim, mid a string", body: `{"mid":"123"}`, goim: true, wantErr: true},
		{name: "goim, mid a fraction", body: `{"mid":1.5}`, goim: true, wantErr: true},
		{name: "goim, mid too large", body: `{"mid":9223372036854775808}`, goim: true, wantErr: true},
		{name: "goim, key a number", body: `{"key":1}`, goim: true, wantErr: true},
		{name: "goim, key with a blank", body: `{"key":"a b"}`, goim: true, wantErr: true},
		{name: "goim, accepts a string", body: `{"accepts":"1000"}`, goim: true, wantErr: true},
		{name: "goim, accepts too large", body: `{"accepts":[2147483648]}`, goim: true, wantErr: true},
		{name: "no JSON", body: `hello`, wantErr: true},
		{name: "nothing", body: ``, wantErr: true},
		{name: "null", body: `null`, wantErr: true},
		{name: "list", body: `[]`, wantErr: true},
		{name: "number", body: `7`, wantErr: true},
		{name: "two objects", body: `{}{}`, wantErr: true},
		{name: "not UTF-8", body: "{\"key\":\"\xff\"}", wantErr: true},
		{name: "huge", body: `{"token":"` + strings.Repeat("x", 16<<10) + `"}`, wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := auth.ParseBody([]byte(tt.body))
			if (err != nil) != tt.wantErr || (b.Halley != nil) != tt.halley || (b.Goim != nil) != tt.goim {
				t.Errorf("got %+v, %v", b, err)
			}
		})
	}
}

func TestGoimRoomThatNobodyCanPushToIsNone(t *testing.T) {
	for _, room := range []string{"lobby", "presence://ann", "://x", "a://", "a\x00://b"} {
		b, err := auth.ParseBody([]byte(`{"room_id":` + quote(room) + `}`))
		if err != nil || b.Goim.RoomID != "" {
			t.Errorf("%q: got %+v, %v", room, b.Goim, err)
		}
	}
}

func FuzzParseBody(f *testing.F) {
	for _, s := range []string{
		`{"token":"x","rooms":["chat://a"],"accepts":[1,2],"resume":{"replaces":"a.1"}}`, `{"mid":1,"key":"k","room_id":"live://1","accepts":[1]}`, `{}`, `null`, `{"Token":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		body, err := auth.ParseBody(b)
		if body.Halley != nil && body.Goim != nil {
			t.Error("both forms")
		}
		if err == nil && body.Halley == nil && body.Goim == nil {
			t.Error("neither a form nor an error")
		}
		if err != nil && errcode.From(err).Code == errcode.Internal {
			t.Errorf("a stranger's mistake is ours: %v", err)
		}
	})
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}
