package comet

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime"
	"time"
)

// Config is what an operator can set of a comet. The zero value is not usable: take the defaults from the tags.
type Config struct {
	// Name is the comet's name in the cluster; empty: the host's name.
	Name string `name:"name" help:"Name of this comet in the cluster; it must be its own. Empty: the host's name."`
	// Public addresses, as far as this comet tells clients and other roles.
	Host  string `name:"host" help:"Host name or address by which clients reach this comet. Empty: the advertise address' host."`
	WSURL string `name:"ws-url" help:"Full URL for WebSocket clients, if it can't be made of host and port (behind a proxy)."`

	Origins        []string `name:"origins" help:"Origins that browsers' WebSocket connections may come from: hosts, \"*.example.org\", or \"*\". Empty: the host that was asked for, and this machine by any name if that is it."`
	TrustedProxies []string `name:"trusted-proxies" help:"Networks (CIDR) of proxies whose X-Forwarded-For is believed. Empty: none."`
	TLSCert        string   `name:"tls-cert" help:"File with the certificate chain (PEM) of the TLS listeners."`
	TLSKey         string   `name:"tls-key" help:"File with the private key (PEM) of the TLS listeners."`

	TLSReload time.Duration `name:"tls-reload" help:"How often the certificate's file is looked at for a newer one, when somebody connects." default:"1m"`

	MaxConnections           int     `name:"max-connections" help:"Most connections, authenticated or not; 0: no limit." default:"250000"`
	MaxConnectionsPerAddress int     `name:"max-connections-per-address" help:"Most connections from one client address; 0: no limit." default:"0"`
	HandshakeRate            float64 `name:"handshake-rate" help:"Most new connections a second; 0: no limit." default:"20000"`
	RequestRate              float64 `name:"request-rate" help:"Frames a second that a session may send in the long run; over it the session is closed; 0: no limit." default:"200"`
	RequestBurst             int     `name:"request-burst" help:"Frames that a session may send at once." default:"1000"`
	RequestQueue             int     `name:"request-queue" help:"Requests of a session that may wait or run at once, in each of its three queues." default:"32"`
	MaxRooms                 int     `name:"max-rooms" help:"Most rooms that a session may be in." default:"100"`
	MaxSystemRooms           int     `name:"max-system-rooms" help:"Most conversations and meetings, together, that a session may be in besides." default:"4096"`
	MaxWatched               int     `name:"max-watched" help:"Most users that a session may watch." default:"50"`

	KeepAlive        time.Duration `name:"keep-alive" help:"TCP keep-alive interval." default:"60s"`
	HandshakeTimeout time.Duration `name:"handshake-timeout" help:"Time from accept to the auth frame, the WebSocket upgrade included." default:"8s"`
	FrameTimeout     time.Duration `name:"frame-timeout" help:"Time that a frame may take from its first byte to its last." default:"15s"`
	WriteTimeout     time.Duration `name:"write-timeout" help:"Time for which a write may make no progress before the connection is closed." default:"10s"`
	CloseGrace       time.Duration `name:"close-grace" help:"Time that a closed session has to take what is left and hang up." default:"2s"`
	ConnectTimeout   time.Duration `name:"connect-timeout" help:"Time that logic has to verify and register a session." default:"5s"`
	RequestTimeout   time.Duration `name:"request-timeout" help:"Time that a request may take from its arrival, waiting included." default:"5s"`
	ScanInterval     time.Duration `name:"scan-interval" help:"How often idle times, expiries and deadlines of sessions are looked at." default:"1s"`

	OutboxBytes     int64         `name:"outbox-bytes" help:"Most bytes that wait to be written to one session." default:"524288"`
	SendBufferBytes int64         `name:"send-buffer-bytes" help:"Kernel buffer for what one client has not taken yet; 0: the kernel's choice." default:"131072"`
	FlushMax        time.Duration `name:"flush-max" help:"Longest time that pushes wait for more when there is much to write. A lone push never waits." default:"100ms"`
	Walkers         int           `name:"walkers" help:"Goroutines that write pushes; 0: half the processors." default:"0"`
	BroadcastRate   int           `name:"broadcast-rate" help:"Sessions a second that a push to all reaches on this comet, if it names no speed." default:"50000"`
	BroadcastQueue  int           `name:"broadcast-queue" help:"Pushes to all that may wait." default:"64"`
	ResyncSpread    time.Duration `name:"resync-spread" help:"Time over which a resync of all sessions is spread." default:"30s"`

	Upstream bool `name:"upstream" help:"Forward clients' frames with ops from 1000 up to logic, which puts them into the topic upstream."`

	RouterTimeout   time.Duration `name:"router-timeout" help:"Time that a call to router may take." default:"2s"`
	RetryInterval   time.Duration `name:"retry-interval" help:"First pause after a call to router that failed; it doubles up to twenty times that." default:"100ms"`
	RenewInterval   time.Duration `name:"renew-interval" help:"Time between two renewals of the lease; a third of the lease's length." default:"3s"`
	RewriteInterval time.Duration `name:"rewrite-interval" help:"Time in which all that router holds of this comet is written again, bit by bit." default:"10m"`
	RewriteRate     int           `name:"rewrite-rate" help:"Entries a second when buckets are written again, and rooms or sessions a second when all are registered in a new epoch." default:"5000"`
	CountInterval   time.Duration `name:"count-interval" help:"How often the online counts of rooms are asked for." default:"10s"`
	DeregisterQueue int           `name:"deregister-queue" help:"Ended sessions that may wait for router; over it they are left to the next rewrite." default:"500000"`

	DrainTimeout time.Duration `name:"drain-timeout" help:"Longest time that a drain takes; what is left is then closed. Where it is too short for drain_rate, sessions are asked faster: give it max_connections / drain_rate and drain_grace. Sessions for which no other comet has room are closed one after another in the last drain_grace of it." default:"5m"`
	DrainRate    float64       `name:"drain-rate" help:"Sessions a second that are asked to leave when draining; fewer where the other comets take fewer handshakes." default:"1000"`
	DrainGrace   time.Duration `name:"drain-grace" help:"Time that a session has to leave after it was asked to." default:"10s"`
}

// Validate checks what the types don't.
func (c *Config) Validate() error {
	positive := map[string]int64{
		"handshake-timeout": int64(c.HandshakeTimeout), "frame-timeout": int64(c.FrameTimeout), "write-timeout": int64(c.WriteTimeout),
		"close-grace": int64(c.CloseGrace), "connect-timeout": int64(c.ConnectTimeout), "request-timeout": int64(c.RequestTimeout),
		"scan-interval": int64(c.ScanInterval), "outbox-bytes": c.OutboxBytes, "broadcast-rate": int64(c.BroadcastRate),
		"broadcast-queue": int64(c.BroadcastQueue), "router-timeout": int64(c.RouterTimeout), "retry-interval": int64(c.RetryInterval),
		"renew-interval": int64(c.RenewInterval), "rewrite-interval": int64(c.RewriteInterval), "rewrite-rate": int64(c.RewriteRate),
		"count-interval": int64(c.CountInterval), "deregister-queue": int64(c.DeregisterQueue), "drain-timeout": int64(c.DrainTimeout),
		"request-queue": int64(c.RequestQueue), "max-rooms": int64(c.MaxRooms), "max-system-rooms": int64(c.MaxSystemRooms),
	}
	var errs []error
	for key, v := range positive {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("comet: %s must be greater than 0", key))
		}
	}
	// The others are told them, and add them up.
	if c.MaxConnections < 0 || c.MaxConnectionsPerAddress < 0 {
		errs = append(errs, errors.New("comet: max-connections and max-connections-per-address must not be less than 0"))
	}
	if r := c.HandshakeRate; r < 0 || math.IsNaN(r) || math.IsInf(r, 0) {
		errs = append(errs, errors.New("comet: handshake-rate must be a number, and not less than 0"))
	}
	// What waits for longer doesn't come at once any more, to people's eyes.
	if c.FlushMax < 0 || c.FlushMax > 400*time.Millisecond {
		errs = append(errs, errors.New("comet: flush-max must be from 0 to 400ms"))
	}
	// A queue counts its bytes in 32 bits.
	if c.OutboxBytes > 1<<30 {
		errs = append(errs, errors.New("comet: outbox-bytes must be at most 1 GiB"))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("comet: tls-cert and tls-key go together"))
	}
	if _, err := c.proxies(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *Config) proxies() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range c.TrustedProxies {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return nil, fmt.Errorf("comet: trusted-proxies: %w", err)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func (c *Config) name() string {
	if c.Name != "" {
		return c.Name
	}
	host, err := os.Hostname()
	if err != nil {
		return "comet"
	}
	return host
}

func (c *Config) walkers() int {
	if c.Walkers > 0 {
		return c.Walkers
	}
	return max(runtime.GOMAXPROCS(0)/2, 1)
}

// tls returns the configuration of the TLS listeners: base, or the certificate that is configured.
func (c *Config) tls(base *tls.Config) (*tls.Config, error) {
	if base == nil && c.TLSCert == "" {
		return nil, nil
	}
	if base == nil {
		base = &tls.Config{MinVersion: tls.VersionTLS12}
	} else {
		base = base.Clone()
	}
	if c.TLSCert != "" {
		certs := &certificate{certFile: c.TLSCert, keyFile: c.TLSKey, reload: c.TLSReload}
		if _, err := certs.get(nil); err != nil {
			return nil, err
		}
		base.Certificates = nil
		base.GetCertificate = certs.get
	}
	// WebSocket is a matter of HTTP/1.1 (RFC 6455 section 4.1).
	base.NextProtos = []string{"http/1.1"}
	return base, nil
}
