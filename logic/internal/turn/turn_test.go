package turn_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/logic/internal/turn"
)

const secret = "north-and-south-by-east"

func TestServersForAUser(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	cfg := turn.Config{StunURLs: []string{"stun:s.example:3478"}, URLs: []string{"turn:t.example:3478?transport=udp", "turns:t.example:5349?transport=tcp"}, Secret: secret, Extra: 10 * time.Minute}
	m, err := turn.New(cfg, 4*time.Hour, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	got := m.For("ann", false)
	expires := now.Add(4*time.Hour + 10*time.Minute)
	if len(got.Servers) != 2 || got.Servers[0].Username != "" || got.Servers[1].Username != "1700015000:ann" || !got.TURN || got.RelayOnly ||
		got.ExpiresAt != expires.UnixMilli() || got.RenewAt != now.Add(200*time.Minute).UnixMilli() {
		t.Errorf("got %+v", got)
	}
	if got = m.For("ann", true); len(got.Servers) != 1 || !got.RelayOnly || len(got.Servers[0].URLs) != 2 {
		t.Errorf("relays only: got %+v", got)
	}
	if m, err = turn.New(turn.Config{}, time.Hour, nil); err != nil {
		t.Fatal(err)
	}
	if got = m.For("ann", false); got.TURN || len(got.Servers) != 0 || got.Servers == nil || got.ExpiresAt != 0 {
		t.Errorf("none configured: got %+v", got)
	}
}

func TestSecretFromAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := turn.New(turn.Config{URLs: []string{"turn:t.example"}, Secret: "@" + file}, time.Hour, func() time.Time { return time.Unix(1_700_000_000-3600, 0) })
	if err != nil {
		t.Fatal(err)
	}
	if got := m.For("ann", false).Servers[0].Credential; got != knownPassword {
		t.Errorf("got %s, want %s", got, knownPassword)
	}
}

func TestBadConfigurationsAreRefused(t *testing.T) {
	for name, cfg := range map[string]turn.Config{
		"no secret":      {URLs: []string{"turn:t.example:3478"}},
		"short secret":   {URLs: []string{"turn:t.example:3478"}, Secret: "short"},
		"scheme":         {URLs: []string{"stun:t.example:3478"}, Secret: secret},
		"web URL":        {URLs: []string{"turn://t.example:3478"}, Secret: secret},
		"port":           {URLs: []string{"turn:t.example:99999"}, Secret: secret},
		"transport":      {URLs: []string{"turn:t.example:3478?transport=sctp"}, Secret: secret},
		"no host":        {StunURLs: []string{"stun::3478"}},
		"negative extra": {Extra: -1},
	} {
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), "turn: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestRelaysOnlyNeedARelay(t *testing.T) {
	if _, err := turn.New(turn.Config{RelayOnly: true}, time.Hour, nil); err == nil || !strings.Contains(err.Error(), "nobody could call") {
		t.Errorf("got %v", err)
	}
}

const knownPassword = "a1GBfoZkgo3oCy/n4p7HLQYd4bk="
