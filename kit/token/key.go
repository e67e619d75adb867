package token

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/halley-im/halley/proto/name"
)

// Algorithms. No other is ever accepted, "none" least of all.
const (
	HS256 = "HS256"
	RS256 = "RS256"
	EdDSA = "EdDSA"
)

// Shortest secrets: RFC 7518 section 3.2 for HS256, section 3.3 for RS256.
const (
	minSecretBytes = 32
	minRSABits     = 2048
)

// Key verifies tokens, and signs them where it has the private half. It is bound to one algorithm: a token
// whose header names another one is refused whatever the key's material is, so that an RSA public key can
// never be taken for an HMAC secret.
type Key struct {
	// ID is the token's kid.
	ID string
	// Tenant is the only tenant whose tokens the key may sign; empty: any. The customers of a shared cluster
	// sign with keys of their own, and none may speak for another.
	Tenant string

	alg    string
	method jwt.SigningMethod
	verify any
	sign   any
}

// Alg returns the algorithm that the key is bound to.
func (k *Key) Alg() string { return k.alg }

// CanSign reports whether the key has a private half.
func (k *Key) CanSign() bool { return k.sign != nil }

// NewHS256 makes a key of a shared secret of at least 32 bytes, which signs and verifies.
func NewHS256(id string, secret []byte) (*Key, error) {
	if len(secret) < minSecretBytes {
		return nil, fmt.Errorf("key %s: an HS256 secret has at least %d bytes", id, minSecretBytes)
	}
	secret = bytes.Clone(secret)
	return newKey(&Key{ID: id, alg: HS256, method: jwt.SigningMethodHS256, verify: secret, sign: secret})
}

// NewRS256 makes a key that verifies; with a private key, which must not be nil, use NewRS256Signer.
func NewRS256(id string, public *rsa.PublicKey) (*Key, error) {
	if public.N.BitLen() < minRSABits {
		return nil, fmt.Errorf("key %s: an RSA key has at least %d bits", id, minRSABits)
	}
	return newKey(&Key{ID: id, alg: RS256, method: jwt.SigningMethodRS256, verify: public})
}

// NewRS256Signer makes a key that signs and verifies.
func NewRS256Signer(id string, private *rsa.PrivateKey) (*Key, error) {
	k, err := NewRS256(id, &private.PublicKey)
	if err == nil {
		k.sign = private
	}
	return k, err
}

// NewEdDSA makes an Ed25519 key that verifies.
func NewEdDSA(id string, public ed25519.PublicKey) (*Key, error) {
	if len(public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("key %s: not an Ed25519 key", id)
	}
	return newKey(&Key{ID: id, alg: EdDSA, method: jwt.SigningMethodEdDSA, verify: public})
}

// NewEdDSASigner makes an Ed25519 key that signs and verifies.
func NewEdDSASigner(id string, private ed25519.PrivateKey) (*Key, error) {
	if len(private) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("key %s: not an Ed25519 key", id)
	}
	k, err := NewEdDSA(id, private.Public().(ed25519.PublicKey))
	if err == nil {
		k.sign = private
	}
	return k, err
}

func newKey(k *Key) (*Key, error) {
	if k.ID == "" || len(k.ID) > 64 || strings.ContainsAny(k.ID, "/: \t\r\n") {
		return nil, fmt.Errorf("key id %q: 1 to 64 bytes without blanks, slash and colon", k.ID)
	}
	return k, nil
}

// ParseKey reads a key as configuration writes it:
//
//	[TENANT/]KID:ALG:MATERIAL
//
// ALG is HS256, RS256 or EdDSA. MATERIAL is @FILE, or the material itself: for HS256 the secret in base64
// (with or without padding, either alphabet), for the others PEM with "\n" written as such or as a line's end. A
// file holds the same, for HS256 the bare secret if it isn't base64. PEM blocks may be PUBLIC KEY, RSA PUBLIC
// KEY, CERTIFICATE, PRIVATE KEY or RSA PRIVATE KEY; a private one signs as well. Errors don't show material.
func ParseKey(spec string) (*Key, error) {
	head, material, ok := cutTwice(spec)
	if !ok {
		return nil, errors.New("token key: must be [TENANT/]KID:ALG:MATERIAL")
	}
	id, alg := head[0], head[1]
	tenant := ""
	if t, rest, ok := strings.Cut(id, "/"); ok {
		if err := name.Tenant(t); err != nil {
			return nil, fmt.Errorf("token key %s: %w", id, err)
		}
		tenant, id = t, rest
	}
	raw := []byte(material)
	inline := true
	if path, ok := strings.CutPrefix(material, "@"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("token key %s: %w", id, err)
		}
		raw, inline = bytes.TrimSpace(b), false
	}
	var (
		k   *Key
		err error
	)
	switch alg {
	case HS256:
		secret, decErr := decodeBase64(string(raw))
		if decErr != nil {
			if inline {
				return nil, fmt.Errorf("token key %s: the secret must be base64", id)
			}
			secret = raw
		}
		k, err = NewHS256(id, secret)
	case RS256, EdDSA:
		if inline {
			raw = bytes.ReplaceAll(raw, []byte(`\n`), []byte("\n"))
		}
		k, err = parsePEM(id, alg, raw)
	default:
		return nil, fmt.Errorf("token key %s: algorithm must be HS256, RS256 or EdDSA", id)
	}
	if err != nil {
		return nil, err
	}
	k.Tenant = tenant
	return k, nil
}

func cutTwice(s string) ([2]string, string, bool) {
	a, rest, ok := strings.Cut(s, ":")
	if !ok {
		return [2]string{}, "", false
	}
	b, rest, ok := strings.Cut(rest, ":")
	return [2]string{a, b}, rest, ok && a != "" && rest != ""
}

func decodeBase64(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	if b, err := base64.RawURLEncoding.DecodeString(s); err == nil {
		return b, nil
	}
	return base64.RawStdEncoding.DecodeString(s)
}

func parsePEM(id, alg string, raw []byte) (*Key, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("token key %s: no PEM block", id)
	}
	var (
		v   any
		err error
	)
	switch block.Type {
	case "PUBLIC KEY":
		v, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		v, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			v = c.PublicKey
		}
	case "PRIVATE KEY":
		v, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		v, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("token key %s: PEM block %q isn't a key", id, block.Type)
	}
	if err != nil {
		// x509's errors name structures, never material.
		return nil, fmt.Errorf("token key %s: %w", id, err)
	}
	switch v := v.(type) {
	case *rsa.PublicKey:
		if alg == RS256 {
			return NewRS256(id, v)
		}
	case *rsa.PrivateKey:
		if alg == RS256 {
			return NewRS256Signer(id, v)
		}
	case ed25519.PublicKey:
		if alg == EdDSA {
			return NewEdDSA(id, v)
		}
	case ed25519.PrivateKey:
		if alg == EdDSA {
			return NewEdDSASigner(id, v)
		}
	}
	return nil, fmt.Errorf("token key %s: the PEM block's key isn't one for %s", id, alg)
}
