package relay_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/pion/stun/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/halley-im/halley/halley/internal/relay"
	"github.com/halley-im/halley/halley/internal/turnprobe"
	"github.com/halley-im/halley/kit/turnrest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret = "north-and-south-by-east"
	wait   = 20 * time.Second // for what takes no time
)

var local = netip.MustParseAddr("127.0.0.1")

// bench is a relay that runs, on loopback.
type bench struct {
	*relay.Server
	metrics *prometheus.Registry
	turns   []string
	roots   *x509.CertPool
	stop    func() error
}

// defaults is what the tags say.
func defaults(t *testing.T) relay.Config {
	t.Helper()
	var c relay.Config
	p, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(nil); err != nil {
		t.Fatal(err)
	}
	return c
}

func start(t *testing.T, change func(*relay.Config, *relay.Deps)) *bench {
	t.Helper()
	b := &bench{metrics: prometheus.NewRegistry(), roots: x509.NewCertPool()}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, tlsL := listenTCP(t), listenTCP(t)
	https := httptest.NewUnstartedServer(nil) // for its certificate
	https.StartTLS()
	b.roots.AddCert(https.Certificate())
	pair := https.TLS.Certificates
	https.Close()
	c := defaults(t)
	d := relay.Deps{
		Log: slog.New(slog.DiscardHandler), Metrics: b.metrics, UDP: udp, TCP: tcp, TLS: tls.NewListener(tlsL, &tls.Config{Certificates: pair, MinVersion: tls.VersionTLS12}),
		External: local, Secret: []byte(secret),
	}
	if change != nil {
		change(&c, &d)
	}
	if b.Server, err = relay.New(c, d); err != nil {
		t.Fatal(err)
	}
	_, b.turns = b.URLs()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	b.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Errorf("end: %v", err)
		}
	})
	return b
}

func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (b *bench) dial(t *testing.T, url string) *turnprobe.Conn {
	t.Helper()
	s, err := turnprobe.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c, err := turnprobe.Dial(t.Context(), s, wait, &tls.Config{RootCAs: b.roots, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Hello(t.Context()); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return c
}

func (b *bench) allocate(t *testing.T, url, uid string) (*turnprobe.Conn, error) {
	t.Helper()
	c := b.dial(t, url)
	user, password := turnrest.Credential([]byte(secret), uid, time.Now().Add(time.Hour))
	return c, c.Allocate(t.Context(), user, password)
}

func (b *bench) must(t *testing.T, url, uid string) *turnprobe.Conn {
	t.Helper()
	c, err := b.allocate(t, url, uid)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return c
}

// metric returns a sample's value, labels as in the text format.
func (b *bench) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	all, err := b.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			if f.GetName() == "halley_relay_"+name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func (b *bench) await(t *testing.T, name, label string, want float64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); b.metric(t, name, label) != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s %s is %v, want %v", name, label, b.metric(t, name, label), want)
		}
	}
}

func refused(err error) int {
	if r := (*turnprobe.RefusedError)(nil); errors.As(err, &r) {
		return r.Code
	}
	return -1
}

func TestRelaysOverEachTransport(t *testing.T) {
	b := start(t, nil)
	if len(b.turns) != 3 || !strings.HasPrefix(b.turns[2], "turns:127.0.0.1:") {
		t.Fatalf("URLs %q", b.turns)
	}
	var all []*turnprobe.Conn
	for _, url := range b.turns {
		all = append(all, b.must(t, url, "ann"))
	}
	b.await(t, "allocations", "", 3)
	b.await(t, "connections", "", 2)
	for i, from := range all {
		to := all[(i+1)%len(all)]
		for _, c := range []*turnprobe.Conn{from, to} {
			if err := c.Permit(t.Context(), local); err != nil {
				t.Fatal(err)
			}
		}
		if err := from.Send(to.Relay, []byte(from.Relay.String())); err != nil {
			t.Fatal(err)
		}
		p, err := to.Receive(time.Now().Add(wait))
		if err != nil || p.From != from.Relay || string(p.Data) != from.Relay.String() {
			t.Fatalf("%s: got %+v, %v", b.turns[i], p, err)
		}
		if err := from.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range all {
		c.Close()
	}
	b.await(t, "allocations", "", 0)
	b.await(t, "connections", "", 0)
}

func TestCredentialsAreHeldToSecretAndClock(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	b := start(t, func(_ *relay.Config, d *relay.Deps) {
		d.Clock = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	for _, tt := range []struct{ name, secret, uid, metric string }{
		{"wrong secret", "another-secret-of-length", "ann", "wrong_secret"},
		{"expired", secret, "ann", "expired"},
	} {
		c := b.dial(t, b.turns[0])
		expires := now.Add(time.Hour)
		if tt.metric == "expired" {
			expires = now.Add(-time.Second)
		}
		user, password := turnrest.Credential([]byte(tt.secret), tt.uid, expires)
		if err := c.Allocate(t.Context(), user, password); refused(err) < 400 {
			t.Errorf("%s: got %v", tt.name, err)
		}
		b.await(t, "logins_total", tt.metric, 1)
	}
	c := b.dial(t, b.turns[0])
	if err := c.Allocate(t.Context(), "ann", "x"); refused(err) < 400 {
		t.Errorf("no credential of the scheme: got %v", err)
	}
	b.await(t, "logins_total", "malformed", 1)

	// A relay that outlives its credential isn't refreshed any more: clients come with a new one before that.
	c = b.must(t, b.turns[0], "ann")
	mu.Lock()
	now = now.Add(2 * time.Hour)
	mu.Unlock()
	if err := c.Refresh(t.Context()); refused(err) < 400 {
		t.Errorf("refresh after the credential's end: got %v", err)
	}
}

func TestPeersInsideAreRefused(t *testing.T) {
	// 192.0.2.1 is an address that nobody has: relays are opened on loopback all the same.
	b := start(t, func(c *relay.Config, d *relay.Deps) {
		d.External = netip.MustParseAddr("192.0.2.1")
		c.AllowPeers, c.DenyPeers = []string{"10.9.0.0/16"}, []string{"8.8.4.0/24", "10.9.1.0/24"}
	})
	c := b.must(t, b.turns[1][:len("turn:")]+strings.Replace(b.turns[1][len("turn:"):], "192.0.2.1", "127.0.0.1", 1), "ann")
	if c.Relay.Addr() != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("relay at %v", c.Relay)
	}
	for peer, want := range map[string]bool{
		"8.8.8.8": true, "192.0.2.1": true, "10.9.3.4": true,
		"127.0.0.1": false, "127.8.8.8": false, "10.1.2.3": false, "172.20.1.1": false, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false,
		"0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "8.8.4.4": false, "10.9.1.1": false, "192.0.2.2": false, "::1": false, "::ffff:127.0.0.1": false, "2001:db8::1": false,
	} {
		err := c.Permit(t.Context(), netip.MustParseAddr(peer))
		if (err == nil) != want || err != nil && refused(err) < 0 {
			t.Errorf("%s: got %v, want allowed %v", peer, err, want)
		}
	}
	b.await(t, "refused_total", "peer", 14) // IPv6 ones pion refuses by itself
	// The relay's own address is for relays, not for what else runs on it.
	if err := c.Send(netip.MustParseAddrPort("192.0.2.1:53"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	b.await(t, "dropped_packets_total", "port", 1)
}

func TestOneClientsPeersAndChannelsAreBounded(t *testing.T) {
	const most = 128
	b := start(t, nil)
	peer := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 9)
	}
	c := b.must(t, b.turns[1], "ann")
	for i := range most {
		if err := c.Permit(t.Context(), peer(i).Addr()); err != nil {
			t.Fatalf("peer %d: %v", i, err)
		}
	}
	if err := c.Permit(t.Context(), peer(most).Addr()); refused(err) != 403 {
		t.Errorf("one too many: got %v, want 403", err)
	}
	if err := c.Permit(t.Context(), peer(0).Addr()); err != nil {
		t.Errorf("one that he has: %v", err)
	}
	for i := range most {
		if err := c.Bind(t.Context(), uint16(0x4000+i), peer(i)); err != nil {
			t.Fatalf("channel %d: %v", i, err)
		}
	}
	if err := c.Bind(t.Context(), 0x4fff, netip.AddrPortFrom(peer(0).Addr(), 10)); refused(err) < 400 {
		t.Errorf("one channel too many: got %v", err)
	}
	b.await(t, "refused_total", "peers", 2)
	// The others have theirs, and so has he when he comes again.
	b.permit(t, b.must(t, b.turns[1], "ann"))
	b.permit(t, b.must(t, b.turns[0], "bob"))
}

func (b *bench) permit(t *testing.T, c *turnprobe.Conn) {
	t.Helper()
	if err := c.Permit(t.Context(), local); err != nil {
		t.Error(err)
	}
}

func TestARelayIsItsUsersAlone(t *testing.T) {
	b := start(t, nil)
	c := b.must(t, b.turns[1], "ann")
	c.Use(turnrest.Credential([]byte(secret), "bob", time.Now().Add(time.Hour)))
	for what, ask := range map[string]func(context.Context) error{
		"refreshed":     c.Refresh,
		"told of peers": func(ctx context.Context) error { return c.Permit(ctx, local) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // pion doesn't answer him
		if err := ask(ctx); !errors.Is(err, turnprobe.ErrSilent) {
			t.Errorf("another one's relay was %s: got %v", what, err)
		}
		cancel()
	}
	c.Use(turnrest.Credential([]byte(secret), "ann", time.Now().Add(2*time.Hour)))
	if err := c.Refresh(t.Context()); err != nil {
		t.Errorf("its own user's next credential: %v", err)
	}
}

func TestOnlyUDPOverIPv4IsRelayed(t *testing.T) {
	b := start(t, nil)
	for _, tt := range []struct {
		name string
		attr stun.RawAttribute
	}{
		{"TCP", stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{6, 0, 0, 0}}},
		{"IPv6", stun.RawAttribute{Type: stun.AttrRequestedAddressFamily, Value: []byte{2, 0, 0, 0}}},
	} {
		c := b.dial(t, b.turns[1])
		user, password := turnrest.Credential([]byte(secret), "ann", time.Now().Add(time.Hour))
		if err := c.Allocate(t.Context(), user, password, tt.attr); refused(err) < 400 {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	b.await(t, "allocations", "", 0)
	if _, err := b.allocate(t, b.turns[1], "ann"); err != nil {
		t.Errorf("places taken by those are gone: %v", err)
	}
}

func TestListensAtAllAddresses(t *testing.T) {
	b := start(t, func(c *relay.Config, d *relay.Deps) {
		d.UDP.Close()
		d.TCP.Close()
		d.TLS.Close()
		var err error
		if d.UDP, err = net.ListenPacket("udp", ":0"); err != nil {
			t.Fatal(err)
		}
		d.TCP, d.TLS, d.External, c.AllowPeers = nil, nil, netip.MustParseAddr("192.0.2.1"), []string{"127.0.0.0/8"}
		c.MinPort, c.MaxPort = 40000, 40999
	})
	c := b.must(t, strings.Replace(b.turns[0], "192.0.2.1", "127.0.0.1", 1), "ann")
	if len(b.turns) != 1 || c.Mapped != c.Local() || c.Relay.Port() < 40000 || c.Relay.Port() > 40999 {
		t.Errorf("%q: relay %v for %v, mapped %v", b.turns, c.Relay, c.Local(), c.Mapped)
	}
	// Relays are opened at all addresses too.
	peer, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := c.Permit(t.Context(), local); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, c.Relay.Port()))); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Receive(time.Now().Add(wait)); err != nil || string(p.Data) != "hello" {
		t.Errorf("got %q, %v", p.Data, err)
	}
}

func TestQuotasHoldAgainstManyAtOnce(t *testing.T) {
	b := start(t, func(c *relay.Config, _ *relay.Deps) { c.MaxPerUser, c.MaxAllocations = 2, 3 })
	var mu sync.Mutex
	var codes []int
	var kept []*turnprobe.Conn
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			c, err := b.allocate(t, b.turns[1], "ann")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				kept = append(kept, c)
			} else {
				codes = append(codes, refused(err))
			}
		})
	}
	wg.Wait()
	if len(kept) != 2 || slices.ContainsFunc(codes, func(c int) bool { return c != 486 }) {
		t.Fatalf("%d relays, answers %v, want 2 and 486", len(kept), codes)
	}
	b.must(t, b.turns[0], "bob")
	if _, err := b.allocate(t, b.turns[0], "cid"); refused(err) != 508 {
		t.Errorf("beyond all that there are: got %v, want 508", err)
	}
	kept[0].Close()
	b.await(t, "allocations", "", 2)
	b.must(t, b.turns[0], "ann") // his place is free again, and so is one of all
}

func TestRateIsBounded(t *testing.T) {
	b := start(t, func(c *relay.Config, _ *relay.Deps) { c.MaxRateBytes = 1000 })
	c := b.must(t, b.turns[0], "ann")
	if err := c.Permit(t.Context(), local); err != nil {
		t.Fatal(err)
	}
	// Each second takes one of them: on the slowest machine some are too many.
	for end := time.Now().Add(wait); b.metric(t, "dropped_packets_total", "rate") < 3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing was dropped")
		}
		if err := c.Send(netip.MustParseAddrPort("127.0.0.1:9"), make([]byte, 900)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConnectionsAreBoundedAndStrangersPutOut(t *testing.T) {
	b := start(t, func(c *relay.Config, _ *relay.Deps) { c.MaxConnections, c.LoginTimeout = 2, 4*time.Second })
	at := strings.TrimSuffix(strings.TrimPrefix(b.turns[1], "turn:"), "?transport=tcp")
	b.must(t, b.turns[1], "ann") // has a relay, so it may stay
	silent, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	b.await(t, "connections", "", 2)
	third, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	for _, c := range []net.Conn{third, silent} {
		c.SetReadDeadline(time.Now().Add(wait))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want the end", err)
		}
	}
	b.await(t, "refused_total", "connections", 1)
	b.await(t, "connections", "", 1)
}

func TestWhatIsNoTURNIsClosedAtOnce(t *testing.T) {
	b := start(t, nil) // strangers have 15 s
	for name, said := range map[string]string{
		"another protocol":         "\xff\xff / HTTP/1.1\r\n",
		"a message of 32 KB":       "\x00\x03\x7f\xfc" + strings.Repeat("x", 2000),
		"channel data of 64 KB":    "\x40\x00\xff\xff" + strings.Repeat("x", 2000),
		"a message, then rubbish":  "\x00\x03\x00\x00" + strings.Repeat("\x00", 16) + "\xc0\x00\x00\x00",
		"a message as it can't be": "\x00\x03\x06\x2c" + strings.Repeat("x", 20+0x62c),
	} {
		c, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(b.turns[1], "turn:"), "?transport=tcp"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, said)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %v, want the end", name, err)
		}
	}
	b.await(t, "connections", "", 0)
	b.must(t, b.turns[1], "ann") // the others are served
}

func TestTheEndIsTheEndOfAllRelaysAndConnections(t *testing.T) {
	b := start(t, func(c *relay.Config, _ *relay.Deps) { c.StopTimeout = time.Minute })
	var all []*turnprobe.Conn
	for _, url := range b.turns {
		all = append(all, b.must(t, url, "ann"))
	}
	began := time.Now()
	if err := b.stop(); err != nil || time.Since(began) > 30*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	if n, c := b.metric(t, "allocations", ""), b.metric(t, "connections", ""); n != 0 || c != 0 {
		t.Errorf("%v relays and %v connections are left", n, c)
	}
	for i, c := range all {
		if i > 0 { // by UDP nobody tells
			if _, err := c.Receive(time.Now().Add(wait)); err == nil || errors.Is(err, turnprobe.ErrSilent) {
				t.Errorf("%s: got %v, want the end", b.turns[i], err)
			}
		}
		l, err := net.ListenPacket("udp4", c.Relay.String())
		if err != nil {
			t.Errorf("the relay's port is still taken: %v", err)
			continue
		}
		l.Close()
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	udp, err := net.ListenPacket("udp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for name, change := range map[string]func(*relay.Config, *relay.Deps){
		"short secret":                        func(_ *relay.Config, d *relay.Deps) { d.Secret = []byte("short") },
		"no listener":                         func(_ *relay.Config, d *relay.Deps) { d.UDP = nil },
		"no external address":                 func(_ *relay.Config, d *relay.Deps) { d.External = netip.Addr{} },
		"loopback, but others can come":       func(_ *relay.Config, d *relay.Deps) { d.External = local },
		"a network that can't be read":        func(c *relay.Config, _ *relay.Deps) { c.DenyPeers = []string{"10.0.0.0"} },
		"ports the wrong way round":           func(c *relay.Config, _ *relay.Deps) { c.MinPort, c.MaxPort = 5000, 4000 },
		"no relays":                           func(c *relay.Config, _ *relay.Deps) { c.MaxAllocations = 0 },
		"a connection may never take so long": func(c *relay.Config, _ *relay.Deps) { c.LoginTimeout = 0 },
	} {
		c, d := defaults(t), relay.Deps{Log: slog.New(slog.DiscardHandler), UDP: udp, External: netip.MustParseAddr("192.0.2.1"), Secret: []byte(secret)}
		change(&c, &d)
		if _, err := relay.New(c, d); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestExternalAddressIsSetAskedForOrFound(t *testing.T) {
	b := start(t, nil)
	stuns, _ := b.URLs()
	for _, tt := range []struct{ name, setting, listening, want string }{
		{"set", "192.0.2.7", "0.0.0.0", "192.0.2.7"},
		{"asked of a STUN server", stuns[0], "0.0.0.0", "127.0.0.1"},
		{"listened at", "", "127.0.0.1", "127.0.0.1"},
		{"loopback of IPv6", "", "::1", "127.0.0.1"},
	} {
		got, err := relay.External(t.Context(), tt.setting, netip.MustParseAddr(tt.listening))
		if err != nil || got.String() != tt.want {
			t.Errorf("%s: got %v, %v, want %s", tt.name, got, err, tt.want)
		}
	}
	if got, err := relay.External(t.Context(), "", netip.MustParseAddr("::")); err == nil && (!got.Is4() || got.IsUnspecified()) {
		t.Errorf("this machine's own: got %v", got)
	}
	for _, bad := range []string{"::1", "no such name", "stun:"} {
		if got, err := relay.External(t.Context(), bad, local); err == nil || !strings.Contains(err.Error(), "turn_external") {
			t.Errorf("%s: got %v, %v", bad, got, err)
		}
	}
}
