package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"
)

// Claims are a token's claims; what isn't set is left out.
type Claims map[string]any

// Token signs claims with HS256 as they are, right or wrong.
func Token(kid string, secret []byte, claims Claims) string {
	return TokenAlg("HS256", kid, secret, claims)
}

// TokenAlg is Token with any algorithm named in the header; the signature is HMAC-SHA256 all the same, or empty
// for "none".
func TokenAlg(alg, kid string, secret []byte, claims Claims) string {
	header := map[string]string{"alg": alg, "typ": "JWT"}
	if kid != "" {
		header["kid"] = kid
	}
	signed := encodePart(header) + "." + encodePart(claims)
	if alg == "none" {
		return signed + "."
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func encodePart(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of plain values always encode
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// UserClaims returns what a token needs: who, since when and until when.
func UserClaims(uid string, life time.Duration) Claims {
	now := time.Now()
	return Claims{"sub": uid, "iat": now.Unix(), "exp": now.Add(life).Unix()}
}
