// Package token makes and verifies the JWTs that clients log in with. A token is signed with HS256, RS256 or
// EdDSA by a key that its kid names; each key is bound to its algorithm, and optionally to a tenant. logic
// verifies, logic's HTTP API and `halley token` sign; a host's backend may sign by itself with any JWT
// library.
//
// The package starts no goroutines. Everything in it is safe for concurrent use once made.
package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Claims are what a token says of its bearer.
type Claims struct {
	// Tenant is the "tenant" claim, the key's own tenant if the claim is missing, else empty.
	Tenant string
	// UID is "sub".
	UID string
	// DeviceID is "device", or "device_id" where that is missing: the same device always replaces its own session.
	DeviceID string
	// Platform is "platform": what the session policy is looked up by.
	Platform string
	// Key is "key": the session key to be known by; empty: the server's choice.
	Key string
	// Rooms is "rooms": rooms that the bearer may join, or patterns of them ("chat://*").
	Rooms []string
	// Accepts is "accepts": ops that pushes may have to reach the session; nil: all.
	Accepts []int32
	// Watch is "watch": whether the bearer may watch presence, WatchEveryone or WatchNobody; empty: as the server's settings say.
	Watch string
	// RelayOnly is "relay_only": the bearer's calls go through relays only, so that nobody learns his address.
	RelayOnly bool
	// IssuedAt is "iat" to the millisecond where the token has fractions; zero if missing.
	IssuedAt time.Time
	// NotBefore is "nbf"; zero if missing.
	NotBefore time.Time
	// ExpiresAt is "exp"; zero if missing.
	ExpiresAt time.Time
}

// Values of Claims.Watch.
const (
	WatchEveryone = "everyone"
	WatchNobody   = "nobody"
)

// wire is the claims set as JSON has it.
type wire struct {
	Sub       string   `json:"sub"`
	Tenant    string   `json:"tenant,omitempty"`
	Device    string   `json:"device,omitempty"`
	DeviceID  string   `json:"device_id,omitempty"`
	Platform  string   `json:"platform,omitempty"`
	Key       string   `json:"key,omitempty"`
	Rooms     []string `json:"rooms,omitempty"`
	Accepts   []int32  `json:"accepts,omitempty"`
	Watch     string   `json:"watch,omitempty"`
	RelayOnly bool     `json:"relay_only,omitempty"`
	IssuedAt  *date    `json:"iat,omitempty"`
	NotBefore *date    `json:"nbf,omitempty"`
	ExpiresAt *date    `json:"exp,omitempty"`
}

// date is RFC 7519's NumericDate with milliseconds: seconds since 1970 as a number. jwt.NumericDate writes whole
// seconds unless a global says otherwise, and revocation wants to tell a token of before from one of after.
type date struct{ time.Time }

// farthest is 9999-12-31, in seconds since 1970: what is later is no date but a mistake.
const farthest = 253402300799

func (d date) MarshalJSON() ([]byte, error) {
	ms := d.UnixMilli()
	if ms%1000 == 0 {
		return fmt.Appendf(nil, "%d", ms/1000), nil
	}
	return fmt.Appendf(nil, "%d.%03d", ms/1000, ms%1000), nil
}

func (d *date) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	if !(f >= 0 && f <= farthest) {
		return errors.New("date out of range")
	}
	d.Time = time.UnixMilli(int64(math.Round(f * 1000)))
	return nil
}

func numeric(d *date) (*jwt.NumericDate, error) {
	if d == nil {
		return nil, nil
	}
	return &jwt.NumericDate{Time: d.Time}, nil
}

func (w *wire) GetExpirationTime() (*jwt.NumericDate, error) { return numeric(w.ExpiresAt) }
func (w *wire) GetIssuedAt() (*jwt.NumericDate, error)       { return numeric(w.IssuedAt) }
func (w *wire) GetNotBefore() (*jwt.NumericDate, error)      { return numeric(w.NotBefore) }
func (w *wire) GetIssuer() (string, error)                   { return "", nil }
func (w *wire) GetSubject() (string, error)                  { return w.Sub, nil }
func (w *wire) GetAudience() (jwt.ClaimStrings, error)       { return nil, nil }

// Sign makes a token of c with k, which must be able to sign. Times that are zero are left out.
func Sign(k *Key, c Claims) (string, error) {
	if !k.CanSign() {
		return "", fmt.Errorf("sign token: key %s has no private half", k.ID)
	}
	if k.Tenant != "" && c.Tenant != k.Tenant {
		return "", fmt.Errorf("sign token: key %s is of tenant %s", k.ID, k.Tenant)
	}
	w := &wire{
		Sub: c.UID, Tenant: c.Tenant, Device: c.DeviceID, Platform: c.Platform, Key: c.Key, Rooms: c.Rooms, Accepts: c.Accepts, Watch: c.Watch, RelayOnly: c.RelayOnly,
		IssuedAt: dateOf(c.IssuedAt), NotBefore: dateOf(c.NotBefore), ExpiresAt: dateOf(c.ExpiresAt),
	}
	t := jwt.NewWithClaims(k.method, w)
	t.Header["kid"] = k.ID
	s, err := t.SignedString(k.sign)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return s, nil
}

func dateOf(t time.Time) *date {
	if t.IsZero() {
		return nil
	}
	return &date{t}
}
