// Package turn tells clients of STUN and TURN servers, with credentials that those check by a secret that they share with Halley. It talks to
// none of them, keeps nothing and starts no goroutines. Safe for concurrent use.
package turn

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/halley-im/halley/kit/turnrest"
)

// Config says which servers there are.
type Config struct {
	// StunURLs and URLs are given to clients as they are.
	StunURLs []string `name:"stun-urls" help:"STUN servers that clients are told: stun:HOST:PORT."`
	URLs     []string `name:"urls" help:"TURN servers that clients are told: turn:HOST:PORT?transport=udp, …=tcp, turns:HOST:PORT?transport=tcp."`
	// Secret is shared with the TURN servers: coturn's static-auth-secret.
	Secret string `help:"Secret shared with the TURN servers (coturn: use-auth-secret, static-auth-secret), or @FILE. There is no default."`
	// RelayOnly tells all clients to use relays only.
	RelayOnly bool `help:"Tell all clients to use relays only, so that nobody learns another one's address. A token's claim relay_only does it for one user."`
	// Extra is how much longer than the longest call a credential is good.
	Extra time.Duration `help:"How much longer than the longest call (call-max-length) a credential is good." default:"10m"`
}

// Validate checks the servers' URLs and that there is a secret where one is needed. That there is a server at all where only relays are to be used
// is for New to check: halley all adds its own between the two.
func (c Config) Validate() error {
	for _, u := range c.StunURLs {
		if err := checkURL(u, "stun", "stuns"); err != nil {
			return fmt.Errorf("turn: stun-urls: %w", err)
		}
	}
	for _, u := range c.URLs {
		if err := checkURL(u, "turn", "turns"); err != nil {
			return fmt.Errorf("turn: urls: %w", err)
		}
	}
	switch {
	case len(c.URLs) > 0 && c.Secret == "":
		return errors.New("turn: urls need a secret, the one that the TURN servers have")
	case c.Secret != "" && !strings.HasPrefix(c.Secret, "@") && len(c.Secret) < turnrest.MinSecret:
		return fmt.Errorf("turn: secret must have at least %d bytes", turnrest.MinSecret)
	case c.Extra < 0:
		return errors.New("turn: extra must not be less than 0")
	}
	return nil
}

// checkURL reads a URL as RFC 7064 and RFC 7065 have it.
func checkURL(u string, schemes ...string) error {
	scheme, rest, ok := strings.Cut(u, ":")
	if !ok || !slices.Contains(schemes, scheme) || strings.HasPrefix(rest, "//") {
		return fmt.Errorf("%q: must be %s:HOST:PORT", u, strings.Join(schemes, ": or "))
	}
	host, query, has := strings.Cut(rest, "?")
	if has && query != "transport=udp" && query != "transport=tcp" {
		return fmt.Errorf("%q: transport must be udp or tcp", u)
	}
	if h, port, err := net.SplitHostPort(host); err == nil {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("%q: no port", u)
		}
		host = h
	}
	if host == "" || strings.ContainsAny(host, "/ ") {
		return fmt.Errorf("%q: no host", u)
	}
	return nil
}

// Server is a halleyv1.IceServer.
type Server struct {
	URLs       []string `json:"urls"`
	Username   string   `json:"username,omitempty"`
	Credential string   `json:"credential,omitempty"`
}

// Servers is a halleyv1.IceServerList.
type Servers struct {
	Servers   []Server `json:"servers"`
	RelayOnly bool     `json:"relay_only,omitempty"`
	ExpiresAt int64    `json:"expires_at,omitempty"`
	RenewAt   int64    `json:"renew_at,omitempty"`
	TURN      bool     `json:"turn,omitempty"`
}

// Minter makes credentials.
type Minter struct {
	cfg    Config
	secret []byte
	ttl    time.Duration
	now    func() time.Time
}

// New makes a Minter whose credentials outlive a call of length longest. now is the clock; nil: time.Now.
func New(cfg Config, longest time.Duration, now func() time.Time) (*Minter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.RelayOnly && len(cfg.URLs) == 0 {
		return nil, errors.New("turn: relay-only without urls: nobody could call")
	}
	m := &Minter{cfg: cfg, secret: []byte(cfg.Secret), ttl: longest + cfg.Extra, now: now}
	if file, ok := strings.CutPrefix(cfg.Secret, "@"); ok {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("turn: secret: %w", err)
		}
		if m.secret = []byte(strings.TrimSpace(string(b))); len(m.secret) < turnrest.MinSecret {
			return nil, fmt.Errorf("turn: secret of %s must have at least %d bytes", file, turnrest.MinSecret)
		}
	}
	if now == nil {
		m.now = time.Now
	}
	return m, nil
}

// RelayOnly reports whether a user's addresses are to be kept from others; claimed: his token says so.
func (m *Minter) RelayOnly(claimed bool) bool { return m.cfg.RelayOnly || claimed }

// For returns the servers for a user. Who may use relays only is told of no STUN server: he has no use for one.
func (m *Minter) For(uid string, relayOnly bool) *Servers {
	out := &Servers{Servers: []Server{}, RelayOnly: m.RelayOnly(relayOnly)}
	if len(m.cfg.StunURLs) > 0 && !out.RelayOnly {
		out.Servers = append(out.Servers, Server{URLs: m.cfg.StunURLs})
	}
	if len(m.cfg.URLs) == 0 {
		return out
	}
	now := m.now()
	expires := now.Add(m.ttl)
	user, password := turnrest.Credential(m.secret, uid, expires)
	out.Servers = append(out.Servers, Server{URLs: m.cfg.URLs, Username: user, Credential: password})
	out.TURN, out.ExpiresAt, out.RenewAt = true, expires.UnixMilli(), now.Add(m.ttl*renewPercent/100).UnixMilli()
	return out
}

// renewPercent is how far through its life clients take a new credential.
const renewPercent = 80
