// Package auth says who a client is. It verifies tokens, mints them, and reads the two forms of an auth
// body: Halley's, which carries a token, and goim's unsigned JSON.
//
// The package starts no goroutines. All of it is safe for concurrent use.
package auth

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic/internal/room"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
)

// Claims are a token's, with tenant set and all names checked.
type Claims = token.Claims

// Config says which tokens are good.
type Config struct {
	// Keys verify tokens, and sign those of POST /v1/tokens where they can, each "[TENANT/]KID:ALG:MATERIAL". ALG is HS256,
	// RS256 or EdDSA; MATERIAL is @FILE, or base64 of an HS256 secret, or PEM. Several are for rotation.
	Keys []string `help:"Keys that verify tokens: [TENANT/]KID:ALG:MATERIAL, where ALG is HS256, RS256 or EdDSA, and MATERIAL is @FILE, a base64 secret or PEM."`
	// SigningKey is the kid of the key that signs new tokens; empty: the first of Keys that can, of the token's tenant first.
	SigningKey string `help:"Kid of the key that signs new tokens; empty: the first that can."`
	// MaxBytes is the longest token.
	MaxBytes int `help:"Longest token, in bytes." default:"8192"`
	// MaxLifetime is the longest time from a token's iat to its exp. Revocations are kept for as long.
	MaxLifetime time.Duration `help:"Longest life of a token; revocations are kept for as long." default:"720h"`
	// OptionalExpiry lets tokens without exp pass. Their revocations must be kept for ever, in Kafka too.
	OptionalExpiry bool `help:"Let tokens without exp pass. Their revocations must be kept for ever: logic starts only where kafka.revoked_retention is 0."`
	// Leeway is how far the clocks of those who sign may be off.
	Leeway time.Duration `help:"How far the clocks of signers may be off." default:"2s"`
	// DefaultTTL is the life of a minted token if its caller says nothing.
	DefaultTTL time.Duration `name:"default-ttl" help:"Life of a token from POST /v1/tokens, if the caller says nothing." default:"1h"`
}

// Validate checks what can be checked without reading keys.
func (c Config) Validate() error {
	switch {
	case c.MaxBytes < 64:
		return errors.New("token: max-bytes is less than any token needs")
	case c.MaxLifetime <= 0:
		return errors.New("token: max-lifetime must be more than 0")
	case c.DefaultTTL <= 0 || c.DefaultTTL > c.MaxLifetime:
		return errors.New("token: default-ttl must be more than 0 and at most max-lifetime")
	case c.Leeway < 0:
		return errors.New("token: leeway must not be less than 0")
	}
	return nil
}

// ParseKeys reads the configured keys.
func (c Config) ParseKeys() ([]*token.Key, error) {
	keys := make([]*token.Key, 0, len(c.Keys))
	for _, spec := range c.Keys {
		k, err := token.ParseKey(spec)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Verifier verifies tokens.
type Verifier struct{ v *token.Verifier }

// NewVerifier makes a Verifier. Without keys it refuses every token. now is the clock; nil: time.Now.
func NewVerifier(cfg Config, keys []*token.Key, now func() time.Time) (*Verifier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	v, err := token.NewVerifier(keys, token.Rules{
		MaxBytes: cfg.MaxBytes, MaxLifetime: cfg.MaxLifetime, OptionalExpiry: cfg.OptionalExpiry, Leeway: cfg.Leeway, Now: now,
	})
	if err != nil {
		return nil, err
	}
	return &Verifier{v: v}, nil
}

// Verify returns the claims of a good token; tenant is set, names are checked. Whether it was revoked is not
// looked at. Errors are errcode.Unauthenticated, TokenExpired and TooLarge; they never show the token.
func (v *Verifier) Verify(compact string) (*Claims, error) {
	c, err := v.v.Verify(compact)
	switch {
	case err == nil:
	case errors.Is(err, token.ErrExpired):
		return nil, errcode.TokenExpired
	case errors.Is(err, token.ErrTooLarge):
		return nil, errcode.TooLarge.Errorf("token: too long")
	default:
		return nil, errcode.Unauthenticated.Errorf("%s", strings.TrimPrefix(err.Error(), "token invalid: "))
	}
	if c.Tenant == "" {
		c.Tenant = name.DefaultTenant
	}
	if err := check(c); err != nil {
		return nil, errcode.Unauthenticated.Errorf("token claim: %s", errcode.From(err).Detail)
	}
	return c, nil
}

// check checks the names in c.
func check(c *Claims) error {
	for _, err := range [...]error{
		name.Tenant(c.Tenant), name.UID(c.UID), name.Device("device", c.DeviceID), name.Device("platform", c.Platform), name.Device("key", c.Key),
	} {
		if err != nil {
			return err
		}
	}
	for _, p := range c.Rooms {
		if err := room.CheckPattern(p); err != nil {
			return err
		}
	}
	switch c.Watch {
	case "", token.WatchEveryone, token.WatchNobody:
		return nil
	}
	// It is there to deny: one that isn't understood must not allow.
	return errcode.InvalidRequest.Errorf("watch: %s or %s", token.WatchEveryone, token.WatchNobody)
}

// Minter signs tokens.
type Minter struct {
	cfg  Config
	keys []*token.Key
	now  func() time.Time
}

// NewMinter makes a Minter of those keys that can sign; there may be none. now is the clock; nil: time.Now.
func NewMinter(cfg Config, keys []*token.Key, now func() time.Time) (*Minter, error) {
	if now == nil {
		now = time.Now
	}
	m := &Minter{cfg: cfg, now: now}
	for _, k := range keys {
		if k.CanSign() && (cfg.SigningKey == "" || cfg.SigningKey == k.ID) {
			m.keys = append(m.keys, k)
		}
	}
	if cfg.SigningKey != "" && len(m.keys) == 0 {
		return nil, fmt.Errorf("token: signing-key %s isn't one of keys, or can't sign", cfg.SigningKey)
	}
	return m, nil
}

// CanMint reports whether there is a key that signs for the tenant.
func (m *Minter) CanMint(tenant string) bool { return m.find(tenant) != nil }

func (m *Minter) find(tenant string) *token.Key {
	var anybodys *token.Key
	for _, k := range m.keys {
		switch k.Tenant {
		case tenant:
			return k
		case "":
			if anybodys == nil {
				anybodys = k
			}
		}
	}
	return anybodys
}

// Mint returns a token with c's claims and its expiry, ttl from now; ttl 0 is the configured default. IssuedAt and
// ExpiresAt of c are ignored; an empty tenant is the default one. Errors carry a code: InvalidRequest for claims or ttl that no
// Verifier would take, NotFound where no key signs for the tenant.
func (m *Minter) Mint(c Claims, ttl time.Duration) (compact string, expires time.Time, err error) {
	if c.Tenant == "" {
		c.Tenant = name.DefaultTenant
	}
	if err := check(&c); err != nil {
		return "", time.Time{}, err
	}
	if ttl == 0 {
		ttl = m.cfg.DefaultTTL
	}
	if ttl < time.Second || ttl > m.cfg.MaxLifetime {
		return "", time.Time{}, errcode.InvalidRequest.Errorf("ttl: 1 s to %s", m.cfg.MaxLifetime)
	}
	k := m.find(c.Tenant)
	if k == nil {
		return "", time.Time{}, errcode.NotFound.Errorf("no key is configured that signs tokens of this tenant")
	}
	c.IssuedAt = m.now().Truncate(time.Millisecond)
	c.ExpiresAt = c.IssuedAt.Add(ttl)
	compact, err = token.Sign(k, c)
	if err != nil {
		return "", time.Time{}, err
	}
	if len(compact) > m.cfg.MaxBytes {
		return "", time.Time{}, errcode.TooLarge.Errorf("claims: the token would be longer than %d bytes", m.cfg.MaxBytes)
	}
	return compact, c.ExpiresAt, nil
}
