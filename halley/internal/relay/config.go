package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config is all that can be set in the relay of halley all.
type Config struct {
	// Addr and TLSAddr are where it listens. The composition opens them and hands them in.
	Addr    string `name:"addr" help:"Address of STUN and TURN, by UDP and TCP: how calls get through NATs. Empty: none. Not opened where logic.turn_urls names other servers." default:"127.0.0.1:3478"`
	TLSAddr string `name:"tls-addr" help:"Address of TURN with TLS, where there is a certificate." default:"127.0.0.1:5349"`
	// External is what clients and their peers reach it at.
	External string `name:"external" help:"IPv4 address that others reach the relay at, a name of it, or stun:HOST:PORT, a server that tells it. Empty: the address listened at, or, where that is all of them, this machine's own."`
	// Host stands in the URLs that clients get.
	Host string `name:"host" help:"Name in the URLs that clients get, which the certificate must be good for. Empty: the external address."`
	// Realm is what the protocol wants one for; users never see it.
	Realm string `name:"realm" help:"TURN realm." default:"halley"`
	// MinPort and MaxPort bound the UDP ports of relays.
	MinPort uint16 `name:"min-port" help:"Lowest UDP port of relays. A firewall must let the whole range in." default:"49152"`
	MaxPort uint16 `name:"max-port" help:"Highest UDP port of relays." default:"65535"`
	// MaxAllocations and MaxPerUser bound how many relays there are at a time.
	MaxAllocations int `name:"max-allocations" help:"Relays at a time, of all users together." default:"2000"`
	MaxPerUser     int `name:"max-per-user" help:"Relays at a time of one user. A call needs one for each peer, transport and network of his." default:"64"`
	// MaxConnections bounds TCP and TLS connections.
	MaxConnections int `name:"max-connections" help:"TCP and TLS connections at a time." default:"4000"`
	// MaxRateBytes bounds what a relay passes a second.
	MaxRateBytes int64 `name:"max-rate-bytes" help:"Bytes a second that one relay passes, each way; what is more is dropped and counted. 0: no limit." default:"2500000"`
	// AllowPeers and DenyPeers are prefixes, parsed at start.
	AllowPeers []string `name:"allow-peers" help:"Networks (CIDR) that may be relayed to although they are private, as in a company's own network."`
	DenyPeers  []string `name:"deny-peers" help:"Networks (CIDR) that are never relayed to, besides private, loopback, link-local, multicast and reserved ones."`
	// LoginTimeout, IdleTimeout and WriteTimeout bound a connection.
	LoginTimeout time.Duration `name:"login-timeout" help:"How long a TCP or TLS connection may be without a relay." default:"15s"`
	IdleTimeout  time.Duration `name:"idle-timeout" help:"How long one with a relay may be silent; relays themselves end after 10 minutes without a refresh." default:"11m"`
	WriteTimeout time.Duration `name:"write-timeout" help:"How long a write to one may take." default:"10s"`
	// StopTimeout bounds the end.
	StopTimeout time.Duration `name:"stop-timeout" help:"How long the end of all relays may take when the process stops." default:"2s"`
}

// Validate checks what can be checked without the network.
func (c Config) Validate() error {
	switch {
	case c.MinPort < 1024 || c.MaxPort < c.MinPort:
		return errors.New("all: turn-min-port must be at least 1024, and turn-max-port not below it")
	case c.MaxAllocations <= 0 || c.MaxPerUser <= 0 || c.MaxConnections <= 0:
		return errors.New("all: turn-max-allocations, turn-max-per-user and turn-max-connections must be greater than 0")
	case c.MaxRateBytes < 0:
		return errors.New("all: turn-max-rate-bytes must not be less than 0")
	case c.LoginTimeout <= 0 || c.IdleTimeout <= 0 || c.WriteTimeout <= 0 || c.StopTimeout <= 0:
		return errors.New("all: turn timeouts must be greater than 0")
	case c.Realm == "":
		return errors.New("all: turn-realm must not be empty")
	}
	if _, err := prefixes(c.AllowPeers); err != nil {
		return fmt.Errorf("all: turn-allow-peers: %w", err)
	}
	if _, err := prefixes(c.DenyPeers); err != nil {
		return fmt.Errorf("all: turn-deny-peers: %w", err)
	}
	return nil
}

// prefixes reads networks. One that can't be read is an error: a list that denies must not fail open.
func prefixes(of []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(of))
	for _, s := range of {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is no network such as 10.1.0.0/16", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
