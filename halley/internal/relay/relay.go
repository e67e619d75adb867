// Package relay is the STUN and TURN server inside halley all: how calls get through NATs where nothing else is installed. It listens by UDP, TCP
// and TLS, and relays UDP over IPv4. It knows no users: credentials are those of kit/turnrest. pion/turn speaks the protocol; this package bounds what
// it may take (relays, connections, bytes, peers), keeps it alive over passing errors, and ends all that it started. A cluster has coturn instead.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-im/halley/kit/turnrest"
)

// Deps is what a relay is given.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// UDP, TCP and TLS are what it listens at; those that are nil it does without. It closes them. TLS hands out connections that speak TLS already.
	UDP net.PacketConn
	TCP net.Listener
	TLS net.Listener
	// External is the IPv4 address that relays are reached at.
	External netip.Addr
	// Secret checks credentials.
	Secret []byte
	// Clock is what credentials expire by; nil: time.Now.
	Clock func() time.Time
}

// Server is a STUN and TURN server.
type Server struct {
	cfg      Config
	d        Deps
	log      *slog.Logger
	metrics  *metrics
	external netip.Addr
	bind     netip.Addr
	peers    peers
	quota    *quota
	contacts *contacts

	mu       sync.Mutex
	stopping bool
	relays   int
	streams  map[string]*stream
	wg       sync.WaitGroup // streams and relays that pion has to do with
}

// New makes a server, and starts nothing.
func New(cfg Config, d Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if len(d.Secret) < turnrest.MinSecret {
		return nil, fmt.Errorf("relay: the secret must have at least %d bytes", turnrest.MinSecret)
	}
	s := &Server{
		cfg: cfg, d: d, log: d.Log.With("component", "relay"), metrics: newMetrics(d.Metrics), external: d.External.Unmap(),
		quota: newQuota(cfg.MaxPerUser), contacts: newContacts(), streams: map[string]*stream{},
	}
	if d.Clock == nil {
		s.d.Clock = time.Now
	}
	if !s.external.Is4() || s.external.IsUnspecified() || s.external.IsMulticast() {
		return nil, fmt.Errorf("relay: %v is no address that others could reach relays at: set all.turn_external to an IPv4 address", d.External)
	}
	allow, err := prefixes(cfg.AllowPeers)
	if err != nil {
		return nil, err
	}
	deny, err := prefixes(cfg.DenyPeers)
	if err != nil {
		return nil, err
	}
	own, err := ownAddrs()
	if err != nil {
		return nil, err
	}
	s.peers = peers{external: s.external, own: own, allow: allow, deny: deny, minPort: cfg.MinPort, maxPort: cfg.MaxPort}
	listening := s.listening()
	if len(listening) == 0 {
		return nil, errors.New("relay: nothing to listen at")
	}
	// Relays are opened where the server listens.
	s.bind = netip.IPv4Unspecified()
	if a := listening[0]; a.Is4() {
		s.bind = a
	}
	if s.external.IsLoopback() {
		for _, a := range listening {
			// With such an external address all of this machine's own services are peers.
			if !a.IsLoopback() {
				return nil, fmt.Errorf("all.turn_external is %s, but the relay listens at %s, where others reach it: that would let them into this machine", s.external, a)
			}
		}
	}
	return s, nil
}

// listening returns the addresses of the listeners, UDP's first.
func (s *Server) listening() []netip.Addr {
	var out []netip.Addr
	if s.d.UDP != nil {
		out = append(out, s.d.UDP.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap())
	}
	for _, l := range []net.Listener{s.d.TCP, s.d.TLS} {
		if l != nil {
			if a, ok := l.Addr().(*net.TCPAddr); ok {
				out = append(out, a.AddrPort().Addr().Unmap())
			}
		}
	}
	return out
}

// URLs returns what clients are told: STUN and TURN servers (RFC 7064, RFC 7065).
func (s *Server) URLs() (stuns, turns []string) {
	host := s.cfg.Host
	if host == "" {
		host = s.external.String()
	}
	at := func(a net.Addr) string {
		_, port, _ := net.SplitHostPort(a.String())
		return net.JoinHostPort(host, port)
	}
	if s.d.UDP != nil {
		stuns = append(stuns, "stun:"+at(s.d.UDP.LocalAddr()))
		turns = append(turns, "turn:"+at(s.d.UDP.LocalAddr())+"?transport=udp")
	}
	if s.d.TCP != nil {
		turns = append(turns, "turn:"+at(s.d.TCP.Addr())+"?transport=tcp")
	}
	if s.d.TLS != nil {
		turns = append(turns, "turns:"+at(s.d.TLS.Addr())+"?transport=tcp")
	}
	return stuns, turns
}

// Run serves until ctx is done, and has ended all relays and connections when it returns.
func (s *Server) Run(ctx context.Context) error {
	c := turn.ServerConfig{
		Realm: s.cfg.Realm, AuthHandler: s.authenticate, QuotaHandler: s.takePlace, LoggerFactory: logger{s.log}, InboundMTU: inboundMTU,
		StrictAddressFamily: true, // IPv4 where nothing else is asked for, also for who comes by IPv6
		EventHandler: turn.EventHandler{
			OnAuth: func(_, _ net.Addr, _, _, _, _ string, ok bool) {
				if !ok {
					s.metrics.logins.WithLabelValues("wrong_secret").Inc()
				}
			},
			OnAllocationCreated: func(src, dst net.Addr, _, _, _ string, _ net.Addr, _ int) {
				s.metrics.logins.WithLabelValues("ok").Inc()
				s.quota.keep(src, dst)
				s.hasRelay(src, dst, 1)
			},
			OnAllocationDeleted: func(src, dst net.Addr, _, _, _ string) {
				s.quota.release(src, dst)
				s.hasRelay(src, dst, -1)
			},
			OnAllocationError: func(src, _ net.Addr, _, _ string) { s.quota.failed(src) },
			OnPermissionCreated: func(src, _ net.Addr, _, _, _ string, _ net.Addr, peer net.IP) {
				s.contacts.add(src, contact{peer: addrOf(peer)})
			},
			OnPermissionDeleted: func(src, _ net.Addr, _, _, _ string, _ net.Addr, peer net.IP) {
				s.contacts.remove(src, contact{peer: addrOf(peer)})
			},
			OnChannelCreated: func(src, _ net.Addr, _, _, _ string, _, _ net.Addr, channel uint16) {
				s.contacts.add(src, contact{channel: channel})
			},
			OnChannelDeleted: func(src, _ net.Addr, _, _, _ string, _, _ net.Addr, channel uint16) {
				s.contacts.remove(src, contact{channel: channel})
			},
		},
	}
	if s.d.UDP != nil {
		c.PacketConnConfigs = []turn.PacketConnConfig{{PacketConn: packets{s.d.UDP}, RelayAddressGenerator: allocator{s}, PermissionHandler: s.permit}}
	}
	for _, l := range []net.Listener{s.d.TCP, s.d.TLS} {
		if l != nil {
			c.ListenerConfigs = append(c.ListenerConfigs, turn.ListenerConfig{Listener: s.listener(l), RelayAddressGenerator: allocator{s}, PermissionHandler: s.permit})
		}
	}
	server, err := turn.NewServer(c)
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	_, urls := s.URLs()
	s.log.Info("relay", "urls", urls, "ports", strconv.Itoa(int(s.cfg.MinPort))+"-"+strconv.Itoa(int(s.cfg.MaxPort)))
	<-ctx.Done()

	err = server.Close()
	s.mu.Lock()
	s.stopping = true
	for _, st := range s.streams {
		st.cut() // pion then ends what it does for it, and closes st
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() { s.wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(s.cfg.StopTimeout):
		s.log.Warn("not all relays ended")
	}
	return err
}

// authenticate returns the uid in a user name that is still good, and its key. Whoever comes with another secret has another key: his requests fail
// pion's check. pion lets nobody but the uid that made a relay use it, with whichever credential he has by now.
func (s *Server) authenticate(r *turn.RequestAttributes) (uid string, key []byte, ok bool) {
	expires, uid, ok := turnrest.Parse(r.Username)
	switch {
	case !ok:
		s.metrics.logins.WithLabelValues("malformed").Inc()
		return "", nil, false
	case !s.d.Clock().Before(expires):
		s.metrics.logins.WithLabelValues("expired").Inc()
		return "", nil, false
	}
	return uid, turn.GenerateAuthKey(r.Username, r.Realm, turnrest.Password(s.d.Secret, r.Username)), true
}

// takePlace is asked before a relay is made. The quota is the user's, not the credential's: he gets a new one whenever he asks.
func (s *Server) takePlace(uid, _ string, src net.Addr) bool {
	if s.quota.take(src, uid) {
		return true
	}
	s.metrics.refused.WithLabelValues("user").Inc()
	return false
}

// permit is asked before a client may talk to a peer.
func (s *Server) permit(src net.Addr, peer net.IP) bool {
	switch ip := addrOf(peer); {
	case !s.peers.allowed(ip):
		s.metrics.refused.WithLabelValues("peer").Inc()
	case !s.contacts.room(src, ip):
		s.metrics.refused.WithLabelValues("peers").Inc()
	default:
		return true
	}
	return false
}

// hasRelay notes how many relays a connection has: with one it may be silent for longer.
func (s *Server) hasRelay(src, dst net.Addr, n int32) {
	s.mu.Lock()
	st := s.streams[place(src)+" "+dst.String()]
	s.mu.Unlock()
	if st == nil {
		return
	}
	if st.relays.Add(n) == 0 {
		login := time.Now().Add(s.cfg.LoginTimeout)
		st.login.Store(login.UnixNano())
		st.SetReadDeadline(login) //nolint:errcheck // It is closed then.
	}
}

// metrics are what the operator sees.
type metrics struct {
	allocations, connections        prometheus.Gauge
	logins, refused, dropped, bytes *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "halley_relay_" + name, Help: help})
	}
	vec := func(name, label, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "halley_relay_" + name, Help: help}, []string{label})
	}
	m := &metrics{
		allocations: gauge("allocations", "Relays that are there."),
		connections: gauge("connections", "TCP and TLS connections."),
		logins:      vec("logins_total", "result", "Credentials shown, by outcome: ok, expired, wrong_secret, malformed."),
		refused:     vec("refused_total", "reason", "What was refused for want of: allocations, ports, user (his quota), connections, peer (an address that may not be relayed to), peers (one client has too many)."),
		dropped:     vec("dropped_packets_total", "reason", "Packets that were not relayed: rate, port (not a relay's, on the relay's own address), send."),
		bytes:       vec("bytes_total", "way", "Bytes relayed: in from peers, out to them."),
	}
	if r != nil {
		r.MustRegister(m.allocations, m.connections, m.logins, m.refused, m.dropped, m.bytes)
	}
	return m
}

// logger gives pion's log, which has a line a packet and names users and addresses, to nobody but those who look for a fault in it.
type logger struct{ log *slog.Logger }

// NewLogger is for pion.
func (l logger) NewLogger(string) logging.LeveledLogger { return l }

func (logger) Trace(string)          {}
func (logger) Tracef(string, ...any) {}
func (logger) Debug(string)          {}
func (logger) Debugf(string, ...any) {}
func (logger) Info(string)           {}
func (logger) Infof(string, ...any)  {}

func (l logger) Warn(msg string)                { l.log.Debug("pion", "err", msg) }
func (l logger) Warnf(format string, a ...any)  { l.debugf(format, a) }
func (l logger) Error(msg string)               { l.log.Debug("pion", "err", msg) }
func (l logger) Errorf(format string, a ...any) { l.debugf(format, a) }

func (l logger) debugf(format string, a []any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("pion", "err", fmt.Sprintf(format, a...))
	}
}
