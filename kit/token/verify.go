package token

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Reasons why a token is refused. The text of an error that wraps them never shows the token.
var (
	ErrInvalid  = errors.New("token invalid")
	ErrExpired  = errors.New("token expired")
	ErrTooLarge = errors.New("token too large")
)

// Rules are what a Verifier asks of a token besides its signature. Zero values mean the default.
type Rules struct {
	// MaxBytes is the longest token; 8 KiB.
	MaxBytes int
	// MaxLifetime is the longest time from iat (from now, where that is missing) to exp; 0: any.
	MaxLifetime time.Duration
	// OptionalExpiry lets tokens without exp pass.
	OptionalExpiry bool
	// Leeway is how far the clocks of signer and verifier may be apart.
	Leeway time.Duration
	// Now is the clock; time.Now.
	Now func() time.Time
}

const defaultMaxBytes = 8 << 10

// Verifier checks tokens against a set of keys.
type Verifier struct {
	keys   map[string]*Key
	only   *Key
	rules  Rules
	parser *jwt.Parser
}

// NewVerifier makes a Verifier. Two keys with one ID are an error: which of them was meant could not be told.
func NewVerifier(keys []*Key, r Rules) (*Verifier, error) {
	if r.MaxBytes <= 0 {
		r.MaxBytes = defaultMaxBytes
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	v := &Verifier{keys: make(map[string]*Key, len(keys)), rules: r}
	for _, k := range keys {
		if v.keys[k.ID] != nil {
			return nil, fmt.Errorf("token keys: %s is there twice", k.ID)
		}
		v.keys[k.ID] = k
	}
	if len(keys) == 1 {
		v.only = keys[0]
	}
	opts := []jwt.ParserOption{
		jwt.WithValidMethods([]string{HS256, RS256, EdDSA}), jwt.WithTimeFunc(r.Now), jwt.WithLeeway(r.Leeway), jwt.WithStrictDecoding(),
	}
	if !r.OptionalExpiry {
		opts = append(opts, jwt.WithExpirationRequired())
	}
	v.parser = jwt.NewParser(opts...)
	return v, nil
}

// Verify checks a token in compact form and returns its claims. Names in it are not checked for their form;
// that they are what the key may say (its tenant) is. Errors wrap ErrExpired, ErrTooLarge or ErrInvalid.
func (v *Verifier) Verify(compact string) (*Claims, error) {
	if len(compact) > v.rules.MaxBytes {
		return nil, ErrTooLarge
	}
	var (
		w   wire
		key *Key
	)
	_, err := v.parser.ParseWithClaims(compact, &w, func(t *jwt.Token) (any, error) {
		k, err := v.find(t)
		if err != nil {
			return nil, err
		}
		key = k
		return k.verify, nil
	})
	switch {
	case err == nil:
	case errors.Is(err, jwt.ErrTokenExpired) && errors.Is(err, jwt.ErrTokenInvalidClaims):
		// Claims are looked at only after the signature held, so this says nothing to a forger.
		return nil, ErrExpired
	default:
		return nil, fmt.Errorf("%w: %w", ErrInvalid, reason(err))
	}
	c := &Claims{
		Tenant: w.Tenant, UID: w.Sub, DeviceID: w.Device, Platform: w.Platform, Key: w.Key, Rooms: w.Rooms, Accepts: w.Accepts, Watch: w.Watch, RelayOnly: w.RelayOnly,
		IssuedAt: timeOf(w.IssuedAt), NotBefore: timeOf(w.NotBefore), ExpiresAt: timeOf(w.ExpiresAt),
	}
	if c.DeviceID == "" {
		c.DeviceID = w.DeviceID
	}
	if key.Tenant != "" {
		if c.Tenant == "" {
			c.Tenant = key.Tenant
		}
		if c.Tenant != key.Tenant {
			return nil, fmt.Errorf("%w: the key is not the tenant's", ErrInvalid)
		}
	}
	if most := v.rules.MaxLifetime; most > 0 && !c.ExpiresAt.IsZero() {
		from := c.IssuedAt
		// A token dated ahead could else live for longer than most.
		if now := v.rules.Now(); from.IsZero() || from.After(now) {
			from = now
		}
		if c.ExpiresAt.Sub(from) > most+v.rules.Leeway {
			return nil, fmt.Errorf("%w: it lives for longer than %s", ErrInvalid, most)
		}
	}
	return c, nil
}

// find returns the key that the header's kid names, if the header's algorithm is the key's own. A token
// without kid means the only key, where there is but one.
func (v *Verifier) find(t *jwt.Token) (*Key, error) {
	k := v.only
	if kid, ok := t.Header["kid"]; ok {
		id, isString := kid.(string)
		if !isString {
			return nil, errors.New("kid is not a string")
		}
		k = v.keys[id]
	}
	if k == nil {
		return nil, errors.New("unknown kid")
	}
	if t.Method.Alg() != k.alg {
		return nil, errors.New("not the key's algorithm")
	}
	return k, nil
}

// reason reduces a parser's error, whose text may quote parts of the token, to what was wrong.
func reason(err error) error {
	for _, known := range []error{
		jwt.ErrTokenMalformed, jwt.ErrTokenUnverifiable, jwt.ErrTokenSignatureInvalid, jwt.ErrTokenNotValidYet, jwt.ErrTokenRequiredClaimMissing,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	return jwt.ErrTokenInvalidClaims
}

func timeOf(d *date) time.Time {
	if d == nil {
		return time.Time{}
	}
	return d.Time
}
