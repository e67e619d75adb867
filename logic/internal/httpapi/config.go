package httpapi

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/goim"
	"github.com/halley-im/halley/logic/internal/idempotency"
)

// Config is what can be set of the HTTP API.
type Config struct {
	// APIKeys are the keys of backends, as package apikey reads them: hashes, never keys.
	APIKeys []string `name:"api-keys" help:"API keys of backends: id:sha256hex:scope+scope[:tenant[:rate]]; scopes are push, token, chat, read, admin; tenant * is all."`
	// APIKeysFile holds further ones, one a line.
	APIKeysFile string `name:"api-keys-file" help:"File with further API keys, one a line; # begins a comment." default:""`
	// Rate is the requests a second that one API key may make, over all logic processes; a key's own rate goes before.
	Rate float64 `help:"Requests a second of one API key, over all logic processes; 0: no limit." default:"50000"`
	// Burst is how many requests may come at once; 0: a second's worth.
	Burst int `help:"Requests of one API key that may come at once; 0: a second's worth." default:"0"`
	// RateTimeout is how long a request waits for Redis to count it; then it is let through.
	RateTimeout time.Duration `help:"How long Redis may take to count a request against its rate; then the request is let through." default:"200ms"`
	// MaxRequestBytes is the largest body of a request.
	MaxRequestBytes int64 `help:"Largest body of a request, in bytes." default:"1048576"`
	// MaxPushBytes is the largest body of a push, decoded.
	MaxPushBytes int64 `help:"Largest body of a push, in bytes, once decoded." default:"65536"`
	// MaxBatch is the most pushes of one batch.
	MaxBatch int `help:"Most pushes in one batch." default:"1000"`
	// RequestTimeout ends a request that waits for other parts.
	RequestTimeout time.Duration `help:"Time limit of a request." default:"20s"`
	// ReadHeaderTimeout, ReadTimeout and WriteTimeout end callers that are slow, or mean to be.
	ReadHeaderTimeout time.Duration `help:"How long a request's header may take to arrive." default:"5s"`
	ReadTimeout       time.Duration `help:"How long a whole request may take to arrive." default:"30s"`
	WriteTimeout      time.Duration `help:"How long a request may take from its header's end until its answer is written; above request_timeout." default:"60s"`
	// IdleTimeout ends connections that nobody uses.
	IdleTimeout time.Duration `help:"How long a connection may wait for its next request." default:"2m"`
	// NodesCache is how old the list of comets may be that clients are sent by.
	NodesCache time.Duration `help:"How old the list of comets may be that clients are sent by; routers cache it for 1s, too." default:"1s"`
	// ReadyTimeout bounds all checks of /readyz?verbose.
	ReadyTimeout time.Duration `help:"How long shared needs may take to answer when /readyz?verbose asks." default:"1s"`
	// CORSOrigins are origins of web pages that may use /v1 from a browser; "*" is any. API keys don't belong into web pages: this is for
	// short-lived ones.
	CORSOrigins []string `name:"cors-origins" help:"Origins of web pages that may call /v1 from a browser, as https://example.org, or * for any; none: no CORS."`
	// DemoTTL is the life of a token that the demo log-in gives.
	DemoTTL time.Duration `name:"demo-ttl" help:"Life of a token of the demo log-in." default:"12h"`
	// DemoKeyTTL is the life of the push key that it gives.
	DemoKeyTTL time.Duration `name:"demo-key-ttl" help:"Life of a push key of the demo log-in." default:"1h"`

	Idempotency idempotency.Config `embed:"" prefix:"idempotency-"`
	Goim        goim.Config        `embed:"" prefix:"goim-"`
}

// Validate checks the bounds and reads what grants something, so that a typing error stops the start and opens nothing.
func (c Config) Validate() error {
	switch {
	case c.Rate < 0 || c.Burst < 0:
		return errors.New("http: rate and burst must not be less than 0")
	case c.RateTimeout <= 0:
		return errors.New("http: rate-timeout must be more than 0")
	case c.MaxPushBytes < 1 || c.MaxBatch < 1:
		return errors.New("http: max-push-bytes and max-batch must be at least 1")
	case c.MaxRequestBytes < 2*c.MaxPushBytes:
		return errors.New("http: max-request-bytes must be at least twice max-push-bytes: base64 and JSON make a body larger")
	case c.RequestTimeout <= 0 || c.DemoTTL < time.Second || c.DemoKeyTTL < time.Second:
		return errors.New("http: request-timeout must be more than 0, demo-ttl and demo-key-ttl at least 1s")
	case c.ReadHeaderTimeout <= 0 || c.ReadTimeout <= 0 || c.IdleTimeout <= 0 || c.ReadyTimeout <= 0 || c.NodesCache < 0:
		return errors.New("http: read-header-timeout, read-timeout, idle-timeout and ready-timeout must be more than 0, nodes-cache not less")
	case c.WriteTimeout <= c.RequestTimeout:
		return errors.New("http: write-timeout must be more than request-timeout: else callers are cut off before they have an answer")
	}
	for _, o := range c.CORSOrigins {
		if o == "*" {
			continue
		}
		u, err := url.Parse(o)
		if err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
			return fmt.Errorf(`http: cors-origins: %q must be "https://host[:port]" or "*"`, o)
		}
	}
	if _, err := apikey.Parse(c.APIKeys); err != nil {
		return fmt.Errorf("http: %w", err)
	}
	if err := c.Idempotency.Validate(); err != nil {
		return fmt.Errorf("http: %w", err)
	}
	if c.Idempotency.Progress <= c.RequestTimeout {
		return errors.New("http: idempotency-progress must be more than request-timeout: else a repeat is carried out beside the first")
	}
	return c.Goim.Validate()
}

// keys reads all configured keys.
func (c Config) keys(more []string) (*apikey.Set, error) {
	lines := append(append([]string(nil), c.APIKeys...), more...)
	if c.APIKeysFile != "" {
		file, err := apikey.ReadFile(c.APIKeysFile)
		if err != nil {
			return nil, err
		}
		lines = append(lines, file...)
	}
	return apikey.Parse(lines)
}
