package apikey

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"
)

// TemporaryPrefix begins every temporary key.
const TemporaryPrefix = "ht_"

// Signer makes and checks temporary keys: keys that carry what they are, signed, so that any logic with the same secret
// can check one that another made, without asking anybody. A temporary key can't be taken back: keep its life short.
//
// A key is "ht_" and, in base64url, a version byte, scopes, expiry in Unix seconds (8 bytes), length of the tenant,
// tenant, name, and the first 16 bytes of HMAC-SHA256 over all before.
type Signer struct{ secret []byte }

// NewSigner returns a Signer; secret should hold 32 random bytes.
func NewSigner(secret []byte) *Signer { return &Signer{secret: append([]byte(nil), secret...)} }

const (
	temporaryVersion = 1
	temporaryHead    = 1 + 1 + 8 + 1
	temporaryMAC     = 16
	// temporaryMost bounds what Check decodes: head, tenant (32), name (64) and MAC are 123 bytes.
	temporaryMost = 256
)

// Make returns the text of a key for a tenant that ends at expires. who becomes part of the key's id, "temporary:WHO",
// and so of its limits.
func (s *Signer) Make(tenant, who string, scopes Scope, expires time.Time) string {
	b := make([]byte, 0, temporaryHead+len(tenant)+len(who)+temporaryMAC)
	b = append(b, temporaryVersion, byte(scopes))
	b = binary.BigEndian.AppendUint64(b, uint64(expires.Unix()))
	b = append(b, byte(len(tenant)))
	b = append(b, tenant...)
	b = append(b, who...)
	return TemporaryPrefix + base64.RawURLEncoding.EncodeToString(append(b, s.mac(b)...))
}

// Check returns the key that text is, if this Signer's secret made it and now is before its end.
func (s *Signer) Check(text string, now time.Time) (*Key, bool) {
	rest, ok := strings.CutPrefix(text, TemporaryPrefix)
	if !ok || len(rest) > temporaryMost {
		return nil, false
	}
	b, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil || len(b) < temporaryHead+temporaryMAC {
		return nil, false
	}
	body, mac := b[:len(b)-temporaryMAC], b[len(b)-temporaryMAC:]
	if !hmac.Equal(mac, s.mac(body)) || body[0] != temporaryVersion {
		return nil, false
	}
	if now.Unix() >= int64(binary.BigEndian.Uint64(body[2:10])) {
		return nil, false
	}
	n := int(body[10])
	if len(body) < temporaryHead+n {
		return nil, false
	}
	return &Key{
		ID: "temporary:" + string(body[temporaryHead+n:]), Tenant: string(body[temporaryHead : temporaryHead+n]), Scopes: Scope(body[1]),
	}, true
}

func (s *Signer) mac(b []byte) []byte {
	h := hmac.New(sha256.New, s.secret)
	h.Write([]byte("halley temporary key\x00"))
	h.Write(b)
	return h.Sum(nil)[:temporaryMAC]
}
