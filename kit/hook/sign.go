package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Standard Webhooks wants 24 to 64 bytes: "Signature scheme" of its specification, version 1.0.0.
const (
	secretPrefix = "whsec_"
	minSecret    = 24
	maxSecret    = 64
)

// Secrets sign what one receiver gets, by the rules of Standard Webhooks 1.0.0. He takes a signature by any of them, so that a secret can be changed.
type Secrets []*standardwebhooks.Webhook

// ParseSecrets reads secrets joined by "|", each whsec_ and base64 of 24 to 64 bytes. Errors never repeat one.
func ParseSecrets(text string) (Secrets, error) {
	var out Secrets
	for s := range strings.SplitSeq(text, "|") {
		n := len(s) - len(secretPrefix)
		w, err := standardwebhooks.NewWebhook(s)
		if !strings.HasPrefix(s, secretPrefix) || err != nil || n < minSecret*4/3 || n > (maxSecret+2)/3*4 {
			return nil, fmt.Errorf("secret: want %s and base64 of %d to %d bytes", secretPrefix, minSecret, maxSecret)
		}
		out = append(out, w)
	}
	return out, nil
}

// NewRequest returns a signed POST of a body, JSON, under an id that a repeat has, too.
func (s Secrets) NewRequest(ctx context.Context, to, id string, at time.Time, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return nil, Plain(err)
	}
	signatures := make([]string, len(s))
	for i, w := range s {
		if signatures[i], err = w.Sign(id, at, body); err != nil {
			return nil, err
		}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Halley-Webhooks/1")
	req.Header.Set(standardwebhooks.HeaderWebhookID, id)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	return req, nil
}

// Plain is err without the URL, whose path may be a secret.
func Plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
