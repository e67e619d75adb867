package doctor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/halley-im/halley/halley/internal/doctor"
	"github.com/halley-im/halley/halley/internal/relay"
	"github.com/halley-im/halley/halley/internal/turnprobe"
)

const turnKey = "north-and-south-by-east"

// turnFault is one thing that can be wrong with TURN, and how each server is brought to it.
type turnFault struct {
	name  string
	state doctor.State
	texts []string
	// pion changes halley all's relay, coturn adds options of coturn's. at are the transports whose URLs are looked at.
	pion   func(*relay.Config, *relay.Deps)
	coturn []string
	at     []string
	// look changes what the doctor is told.
	look func(*doctor.TURNConfig)
	// pionOnly: coturn can't be brought to it by options.
	pionOnly bool
	// ended: the certificate has. Whether coturn is up is asked with one that is good.
	ended bool
}

// deaf hears nothing: a firewall that drops what comes by UDP.
type deaf struct{ net.PacketConn }

func (d deaf) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		if _, _, err := d.PacketConn.ReadFrom(p); err != nil {
			return 0, nil, err
		}
	}
}

// mute takes connections and never answers: to clients, a firewall that drops what comes by TCP.
type mute struct{ net.Listener }

func (m mute) Accept() (net.Conn, error) {
	for {
		c, err := m.Listener.Accept()
		if err != nil {
			return nil, err
		}
		defer c.Close()
	}
}

var turnFaults = []turnFault{
	{
		name: "all well", state: doctor.OK, at: []string{"udp", "tcp", "tls"},
		texts: []string{"turn udp", "turn tcp", "turn tls", "a packet came through, there and back, and over two relays"},
	},
	{
		name: "server down", state: doctor.Fail, texts: []string{"server down", "neither by UDP nor by TCP", "start the TURN server, check logic.turn_urls"},
		look: func(c *doctor.TURNConfig) {
			c.URLs = []string{"turn:" + nobody() + "?transport=udp", "turn:" + nobody() + "?transport=tcp"}
		},
	},
	{
		name: "name of nobody", state: doctor.Fail, texts: []string{"server down: no address of", "correct the name in logic.turn_urls"},
		look: func(c *doctor.TURNConfig) { c.URLs = []string{"turn:turn.invalid:3478"} },
	},
	{
		// Calls from there go by TCP: the relay works, over that.
		name: "UDP blocked", state: doctor.Fail,
		texts: []string{"UDP blocked", "by TCP the server does", "let UDP to port", "its calls go by TCP", "turn tcp", "gives out relays", "relay tcp", "a packet came through, there and back"},
		pion:  func(_ *relay.Config, d *relay.Deps) { d.UDP.Close(); d.UDP = nil }, coturn: []string{"--no-udp"}, at: []string{"udp", "tcp"},
	},
	{
		name: "UDP blocked, and no other URL", state: doctor.Fail, texts: []string{"UDP blocked", "let UDP to port"},
		pion: func(_ *relay.Config, d *relay.Deps) { d.UDP.Close(); d.UDP = nil }, coturn: []string{"--no-udp"}, at: []string{"udp"},
	},
	{
		name: "UDP blocked without a word", state: doctor.Fail, pionOnly: true, at: []string{"udp", "tcp"},
		texts: []string{"UDP blocked", "no answer", "by TCP the server does", "let UDP to port", "relay tcp", "a packet came through, there and back"},
		pion:  func(_ *relay.Config, d *relay.Deps) { d.UDP = deaf{d.UDP} },
	},
	{
		name: "TCP blocked without a word", state: doctor.Fail, pionOnly: true, at: []string{"udp", "tcp"},
		texts: []string{"TCP blocked", "no answer", "by UDP the server does", "let TCP to port", "relay udp", "a packet came through, there and back"},
		pion:  func(_ *relay.Config, d *relay.Deps) { d.TCP = mute{d.TCP} },
	},
	{
		name: "TCP blocked", state: doctor.Fail, texts: []string{"TCP blocked", "by UDP the server does", "let TCP to port", "relay udp", "a packet came through, there and back"},
		pion: func(_ *relay.Config, d *relay.Deps) { d.TCP.Close(); d.TCP = nil }, coturn: []string{"--no-tcp"}, at: []string{"udp", "tcp"},
	},
	{
		name: "wrong secret", state: doctor.Fail, texts: []string{"wrong secret", "logic.turn_secret and the TURN server's"}, at: []string{"udp"},
		look: func(c *doctor.TURNConfig) { c.Secret = []byte("another-secret-of-length") },
	},
	{
		name: "expired clock", state: doctor.Fail, texts: []string{"expired clock", "of the TURN server and of the logics by NTP"}, at: []string{"udp"}, pionOnly: true,
		pion: func(_ *relay.Config, d *relay.Deps) {
			d.Clock = func() time.Time { return time.Now().Add(5 * time.Hour) }
		},
	},
	{
		// The same for a server whose clock can't be changed.
		name: "expired clock, the doctor's own", state: doctor.Fail, texts: []string{"expired clock", "of the TURN server and of the logics by NTP"}, at: []string{"tcp"},
		look: func(c *doctor.TURNConfig) { c.Now = func() time.Time { return time.Now().Add(-5 * time.Hour) } },
	},
	{
		name: "clock a little ahead", state: doctor.Warn, texts: []string{"clock", "ahead", "a packet came through", "set both by NTP"}, at: []string{"udp"},
		look: func(c *doctor.TURNConfig) { c.Now = func() time.Time { return time.Now().Add(-5 * time.Minute) } },
	},
	{
		name: "wrong external address", state: doctor.Fail, texts: []string{"wrong external address", "192.0.2.1", "set the server's external address (all.turn_external; coturn: external-ip"}, at: []string{"udp"},
		pion: func(c *relay.Config, d *relay.Deps) {
			c.AllowPeers, d.External = []string{"127.0.0.0/8"}, netip.MustParseAddr("192.0.2.1")
		},
		coturn: []string{"--external-ip=192.0.2.1"},
	},
	{
		// Relays are opened on one address and said to be on another, at which nobody listens: to clients it is a firewall's doing.
		name: "relay ports closed", state: doctor.Fail, texts: []string{"relay ports closed", "let UDP in to the whole range of relay ports"}, at: []string{"tcp"},
		pion: func(_ *relay.Config, d *relay.Deps) {
			d.UDP.Close()
			d.UDP, _ = net.ListenPacket("udp", "127.0.0.2:0")
		},
		coturn: []string{"--relay-ip=127.0.0.2", "--external-ip=127.0.0.1/127.0.0.2"},
	},
	{
		name: "relay to the peer forbidden", state: doctor.Fail, texts: []string{"relay to the peer forbidden", "127.0.0.1", "let it relay to addresses of the Internet (all.turn_deny_peers; coturn: denied-peer-ip)"}, at: []string{"udp"},
		pion: func(c *relay.Config, _ *relay.Deps) { c.DenyPeers = []string{"127.0.0.0/8"} }, coturn: []string{"--denied-peer-ip=127.0.0.0-127.255.255.255"},
	},
	{
		name: "TLS certificate wrong: nobody's", state: doctor.Fail, texts: []string{"TLS certificate wrong", "self-signed", "a certificate that browsers trust"}, at: []string{"tls"},
		look: func(c *doctor.TURNConfig) { c.Roots = x509.NewCertPool() },
	},
	{
		name: "TLS certificate wrong: for another name", state: doctor.Fail, texts: []string{"TLS certificate wrong", "isn't good for localhost", "name the server in the URL as its certificate does"}, at: []string{"tls"},
		look: func(c *doctor.TURNConfig) { c.URLs[0] = strings.Replace(c.URLs[0], "127.0.0.1", "localhost", 1) },
	},
	{
		name: "TLS certificate wrong: too old", state: doctor.Fail, texts: []string{"TLS certificate wrong", "it is good from", "renew it"}, at: []string{"tls"}, ended: true, pionOnly: true,
	},
	{
		name: "no TLS there", state: doctor.Fail, texts: []string{"TLS certificate wrong", "doesn't speak TLS", "give the TURN server a certificate and a TLS port"}, at: []string{"tcp"}, coturn: []string{"--no-tls"},
		look: func(c *doctor.TURNConfig) {
			c.URLs[0] = strings.Replace(strings.Replace(c.URLs[0], "turn:", "turns:", 1), "udp", "tcp", 1)
		},
	},
	{name: "no TURN configured", state: doctor.Fail, texts: []string{"no TURN configured", "name servers in logic.turn_urls"}, look: func(c *doctor.TURNConfig) { c.URLs = nil }},
	{name: "no secret", state: doctor.Fail, texts: []string{"no secret", "set logic.turn_secret"}, at: []string{"udp"}, look: func(c *doctor.TURNConfig) { c.Secret = nil }},
	{
		name: "quota", state: doctor.Fail, texts: []string{"quota reached", "raise the quota"}, at: []string{"udp", "tcp"},
		pion: func(c *relay.Config, _ *relay.Deps) { c.MaxPerUser = 1 }, coturn: []string{"--total-quota=1"},
	},
	{
		name: "a credential that ended", state: doctor.Fail, texts: []string{"expired clock: the credential ended at 2023-11-14T22:13:20Z"}, at: []string{"udp"},
		look: func(c *doctor.TURNConfig) { c.Username, c.Password = "1700000000:ann", "x" },
	},
}

func TestTURNFaultsAreNamed(t *testing.T) {
	for _, f := range turnFaults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			life := time.Hour
			if f.ended {
				life = -time.Minute
			}
			certFile, keyFile, roots := turnCertificate(t, life)
			urls := startPion(t, certFile, keyFile, f.pion)
			lookAtTURN(t, f, urls, roots)
		})
	}
}

// TestTURNLookedAtFromItsOwnMachine is where the relay is told at an address of this machine's that isn't loopback's: there it relays to relays only.
func TestTURNLookedAtFromItsOwnMachine(t *testing.T) {
	own, err := relay.External(t.Context(), "", netip.IPv4Unspecified())
	if err != nil || own.IsLoopback() {
		t.Skip("this machine has no other address")
	}
	certFile, keyFile, _ := turnCertificate(t, time.Hour)
	var at string
	startPion(t, certFile, keyFile, func(c *relay.Config, d *relay.Deps) {
		d.UDP.Close()
		if d.UDP, err = net.ListenPacket("udp", netip.AddrPortFrom(own, 0).String()); err != nil {
			t.Fatal(err)
		}
		// Not among the ports that the kernel gives to the doctor's own socket.
		d.External, c.MinPort, c.MaxPort, at = own, 61000, 61999, d.UDP.LocalAddr().String()
	})
	c := doctor.TURNConfig{URLs: []string{"turn:" + at}, Secret: []byte(turnKey), Life: time.Hour, Wait: 500 * time.Millisecond}
	wantTURN(t, c, doctor.OK, "over two relays", "which is this one")
}

// TestTURNFaultsOfCoturnAreNamed provokes the same with coturn.
func TestTURNFaultsOfCoturnAreNamed(t *testing.T) {
	binary := os.Getenv("HALLEY_TEST_TURNSERVER")
	if binary == "" {
		t.Skip("HALLEY_TEST_TURNSERVER names no coturn")
	}
	certFile, keyFile, roots := turnCertificate(t, time.Hour)
	for _, f := range turnFaults {
		if f.pionOnly {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			urls := startCoturn(t, binary, certFile, keyFile, f.coturn...)
			lookAtTURN(t, f, urls, roots)
		})
	}
	t.Run("a second secret", func(t *testing.T) {
		t.Parallel()
		urls := startCoturn(t, binary, certFile, keyFile, "--static-auth-secret=another-secret-of-length")
		for _, secret := range []string{turnKey, "another-secret-of-length"} {
			lookAtTURN(t, turnFault{at: []string{"udp"}, look: func(c *doctor.TURNConfig) { c.Secret = []byte(secret) }, texts: []string{"over two relays"}}, urls, roots)
		}
	})
}

func lookAtTURN(t *testing.T, f turnFault, urls map[string]string, roots *x509.CertPool) {
	t.Helper()
	c := doctor.TURNConfig{Secret: []byte(turnKey), Life: 4 * time.Hour, Wait: 2 * time.Second, Roots: roots}
	for _, transport := range f.at {
		c.URLs = append(c.URLs, urls[transport])
	}
	if f.look != nil {
		f.look(&c)
	}
	wantTURN(t, c, f.state, f.texts...)
}

// wantTURN looks again where something else was found: an answer that a pause holds back for its whole time limit, which is short here, is
// told as silence, and rightly.
func wantTURN(t *testing.T, c doctor.TURNConfig, state doctor.State, texts ...string) {
	t.Helper()
	for range 2 {
		if differs(t, doctor.TURN(c), state, texts...) == "" {
			return
		}
	}
	want(t, doctor.TURN(c), state, texts...)
}

// startPion starts halley all's relay and returns its URLs by transport.
func startPion(t *testing.T, certFile, keyFile string, change func(*relay.Config, *relay.Deps)) map[string]string {
	t.Helper()
	var c relay.Config
	p, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(nil); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	d := relay.Deps{Log: slog.New(slog.DiscardHandler), External: netip.MustParseAddr("127.0.0.1"), Secret: []byte(turnKey)}
	// One port for both, as is usual, so that what is blocked by one protocol is found by the other.
	for d.UDP == nil {
		if d.TCP, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if d.UDP, err = net.ListenPacket("udp", d.TCP.Addr().String()); err != nil {
			d.TCP.Close()
			d.UDP = nil
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.TLS = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	at, tlsAt := d.TCP.Addr().String(), l.Addr().String()
	if change != nil {
		change(&c, &d)
	}
	s, err := relay.New(c, d)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return turnURLs(at, tlsAt)
}

func turnURLs(at, tlsAt string) map[string]string {
	return map[string]string{"udp": "turn:" + at + "?transport=udp", "tcp": "turn:" + at + "?transport=tcp", "tls": "turns:" + tlsAt + "?transport=tcp"}
}

// startCoturn starts coturn on loopback, with the configuration that is shipped, opened for loopback unless options say otherwise.
func startCoturn(t *testing.T, binary, certFile, keyFile string, options ...string) map[string]string {
	t.Helper()
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	conf, err := filepath.Abs("../../../deploy/coturn/turnserver.conf")
	if err != nil {
		t.Fatal(err)
	}
	for try := range 3 {
		dir := t.TempDir()
		port, tlsPort := portOf(closedAddr(t)), portOf(closedAddr(t))
		args := []string{
			"-c", conf, "--listening-ip=127.0.0.1", "--listening-port=" + port, "--tls-listening-port=" + tlsPort, "--cert=" + certFile, "--pkey=" + keyFile,
			"--static-auth-secret=" + turnKey, "--allow-loopback-peers", "--userdb=" + filepath.Join(dir, "db"), "--pidfile=" + filepath.Join(dir, "pid"), "--log-file=stdout",
		}
		denied, relayIP := false, false
		for _, o := range options {
			denied, relayIP = denied || strings.HasPrefix(o, "--denied"), relayIP || strings.HasPrefix(o, "--relay-ip")
		}
		if !denied {
			args = append(args, "--allowed-peer-ip=127.0.0.0-127.255.255.255")
		}
		if !relayIP {
			args = append(args, "--relay-ip=127.0.0.1")
		}
		cmd := exec.Command(binary, append(args, options...)...)
		var out strings.Builder
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		t.Cleanup(func() {
			cmd.Process.Kill()
			<-ended
			if t.Failed() {
				t.Logf("coturn %q said:\n%s", options, out.String())
			}
		})
		urls := turnURLs("127.0.0.1:"+port, "127.0.0.1:"+tlsPort)
		if answersAll(t, ended, urls, roots, options) {
			return urls
		}
		t.Logf("try %d: coturn doesn't answer", try)
	}
	t.Fatal("coturn doesn't start")
	return nil
}

// answersAll waits until coturn answers at all URLs but those that options turn off.
func answersAll(t *testing.T, ended chan struct{}, urls map[string]string, roots *x509.CertPool, options []string) bool {
	t.Helper()
	for transport, url := range urls {
		if slices.Contains(options, "--no-"+transport) {
			continue
		}
		server, err := turnprobe.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if c, err := turnprobe.Dial(t.Context(), server, time.Second, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}); err == nil {
				err = c.Hello(t.Context())
				c.Close()
				if err == nil {
					break
				}
			}
			select {
			case <-ended:
				return false
			default:
			}
			if time.Now().After(end) {
				return false
			}
		}
	}
	return true
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// nobody is an address of this machine at which nobody listens, by TCP or UDP. It is none that others are given.
func nobody() string { return "127.0.0.1:1" }

// turnCertificate makes a self-signed certificate of 127.0.0.1 that is good for life from now on, and a pool that trusts it.
func turnCertificate(t *testing.T, life time.Duration) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, b := range map[string][]byte{certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, roots
}
