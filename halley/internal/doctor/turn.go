package doctor

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/halley-im/halley/halley/internal/turnprobe"
	"github.com/halley-im/halley/kit/turnrest"
)

// TURNConfig is what TURN looks at.
type TURNConfig struct {
	// URLs are what clients are told.
	URLs []string
	// Secret makes credentials, good for Life, as logic makes them. Where Username is set, that credential is used instead.
	Secret             []byte
	Life               time.Duration
	Username, Password string
	// Wait is how long an answer may take.
	Wait time.Duration
	// Roots are trusted in place of this machine's; nil: those.
	Roots *x509.CertPool
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Times and numbers of the looks at TURN.
const (
	// farFuture is until when a credential is made that no server's clock has passed, to tell a wrong clock from a wrong secret: January 2038. coturn
	// takes what is later for the past, for it counts seconds in 32 bits with a sign.
	farFuture = math.MaxInt32
	// skew is by how much a server's clock may be ahead before it is worth a word.
	skew = time.Minute
	// packets is how often a packet is sent before it is said that none arrives: UDP may lose one.
	packets = 5
)

// TURN looks at TURN servers as clients see them: it gets a relay over each transport, and relays a packet there and back.
func TURN(c TURNConfig) Look {
	return func(ctx context.Context) []Finding {
		if c.Now == nil {
			c.Now = time.Now
		}
		if len(c.URLs) == 0 {
			return []Finding{fail("turn", "no TURN configured: only those can call who reach each other directly", "name servers in logic.turn_urls (HALLEY_LOGIC_TURN_URLS) and their secret in logic.turn_secret; halley all has its own (all.turn_addr)")}
		}
		if len(c.Secret) < turnrest.MinSecret && c.Username == "" {
			return []Finding{fail("turn", fmt.Sprintf("no secret of at least %d bytes", turnrest.MinSecret), "set logic.turn_secret (HALLEY_LOGIC_TURN_SECRET) to the one that the TURN servers have")}
		}
		visits := make([]*visit, len(c.URLs))
		var wg sync.WaitGroup
		for i, url := range c.URLs {
			v := &visit{c: c}
			visits[i] = v
			if v.server, v.err = turnprobe.ParseURL(url); v.err == nil {
				wg.Go(func() { v.call(ctx) })
			}
		}
		wg.Wait()
		var out []Finding
		for _, v := range visits {
			out = append(out, v.findings(ctx, visits)...)
			v.close()
		}
		return out
	}
}

// visit is one look at one URL.
type visit struct {
	c      TURNConfig
	server turnprobe.Server
	conn   *turnprobe.Conn
	// err is why it didn't answer. relayErr is why there is no relay, ahead whether the server's clock is.
	err      error
	relayErr error
	ahead    bool
	relayed  []Finding
}

func (v *visit) close() {
	if v.conn != nil {
		v.conn.Close()
	}
}

// call goes as far as it gets.
func (v *visit) call(ctx context.Context) {
	if v.conn, v.err = v.open(ctx, v.server); v.err != nil {
		return
	}
	user, password := v.credential(v.c.Life)
	if v.relayErr = v.conn.Allocate(ctx, user, password); v.relayErr != nil {
		v.ahead = isRefused(v.relayErr) && v.c.Username == "" && v.try(ctx, time.Unix(farFuture, 0).Sub(v.c.Now())) == nil
		return
	}
	// A clock that is a little ahead does no harm yet; it is worth a word before it is more.
	if refused := (*turnprobe.RefusedError)(nil); v.c.Username == "" && errors.As(v.try(ctx, skew), &refused) {
		v.ahead = refused.Code == 401 || refused.Code == 400 // the latter by pion/turn before version 5
	}
	v.relayed = v.relay(ctx)
}

func (v *visit) open(ctx context.Context, s turnprobe.Server) (*turnprobe.Conn, error) {
	conn, err := turnprobe.Dial(ctx, s, v.c.Wait, &tls.Config{RootCAs: v.c.Roots, MinVersion: tls.VersionTLS12})
	if err != nil {
		return nil, err
	}
	if err := conn.Hello(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// credential is one as clients get it, good for that long.
func (v *visit) credential(life time.Duration) (username, password string) {
	if v.c.Username != "" {
		return v.c.Username, v.c.Password
	}
	return turnrest.Credential(v.c.Secret, "halley-doctor", v.c.Now().Add(life))
}

// try asks for a relay with a credential that is good for that long.
func (v *visit) try(ctx context.Context, life time.Duration) error {
	conn, err := v.open(ctx, v.server)
	if err != nil {
		return err
	}
	defer conn.Close()
	user, password := v.credential(life)
	return conn.Allocate(ctx, user, password)
}

func isRefused(err error) bool {
	refused := (*turnprobe.RefusedError)(nil)
	return errors.As(err, &refused)
}

// findings says what came of the visit, in the light of the others to the same host.
func (v *visit) findings(ctx context.Context, all []*visit) []Finding {
	name := "turn " + v.server.Transport
	at := net.JoinHostPort(v.server.Host, v.server.Port)
	switch {
	case v.server.Host == "" || v.server.Transport == "":
		return []Finding{fail("turn", short(v.err), "change logic.turn_urls (HALLEY_LOGIC_TURN_URLS)")}
	case v.err != nil:
		return []Finding{v.unanswered(ctx, name, at, all)}
	case v.relayErr != nil:
		return []Finding{v.refused(name, at)}
	}
	out := []Finding{ok(name, "%s gives out relays, at %s", at, v.conn.Relay)}
	if v.ahead {
		out = append(out, warn(name, fmt.Sprintf("clock: that of %s is more than %s ahead of this machine's: credentials end early", at, skew), "set both by NTP"))
	}
	return append(out, v.relayed...)
}

// unanswered names what keeps clients from a server's port.
func (v *visit) unanswered(ctx context.Context, name, at string, all []*visit) Finding {
	if noName := (*net.DNSError)(nil); errors.As(v.err, &noName) {
		return fail(name, fmt.Sprintf("server down: no address of %s: %s", v.server.Host, short(v.err)), "correct the name in logic.turn_urls, or in DNS")
	}
	if bad := (*turnprobe.TLSError)(nil); errors.As(v.err, &bad) {
		return v.badTLS(name, at, bad)
	}
	others := []string{}
	for _, o := range all {
		if o != v && o.server.Host == v.server.Host && o.err == nil {
			others = append(others, strings.ToUpper(o.server.Transport))
		}
	}
	if len(others) == 0 {
		// Nobody else knows: ask the same port by the other protocol, which TURN servers speak as well.
		other := v.server
		if other.Transport = turnprobe.TCP; v.server.Transport != turnprobe.UDP {
			other.Transport = turnprobe.UDP
		}
		if conn, err := v.open(ctx, other); err == nil {
			conn.Close()
			others = append(others, strings.ToUpper(other.Transport))
		}
	}
	if len(others) == 0 {
		return fail(name, fmt.Sprintf("server down: %s answers neither by UDP nor by TCP: %s", at, short(v.err)), "start the TURN server, check logic.turn_urls, and let in its ports (docs/turn.md)")
	}
	slices.Sort(others)
	what := "TCP"
	if v.server.Transport == turnprobe.UDP {
		what = "UDP"
	}
	answered := strings.Join(slices.Compact(others), " and ")
	remedy := fmt.Sprintf("let %s to port %s in, in the server's firewall and its cloud's; have the server listen there", what, v.server.Port)
	if what == "UDP" {
		remedy += "; if only this network blocks it, its calls go by TCP, with more delay"
	}
	return fail(name, fmt.Sprintf("%s blocked: %s doesn't answer (%s), by %s the server does", what, at, short(v.err), answered), remedy)
}

// badTLS tells what is wrong with a certificate. Browsers ask nobody whether to go on: the server is as good as not there.
func (v *visit) badTLS(name, at string, err error) Finding {
	why, remedy := short(err), "give the server a certificate that browsers trust, with its whole chain, good for the name in the URL"
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		why = "nobody that this machine trusts has signed it"
		if c := unknown.Cert; c != nil && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			why = "it is self-signed"
		}
		remedy += "; or leave out the turns: URL"
	case errors.As(err, &host):
		why = "it isn't good for " + v.server.Host
		remedy = "name the server in the URL as its certificate does (logic.turn_urls; all.turn_host), or have one made for that name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		why = fmt.Sprintf("it is good from %s to %s only", invalid.Cert.NotBefore.Format(time.DateOnly), invalid.Cert.NotAfter.Format(time.DateOnly))
		remedy = "renew it, and have the TURN server load it"
	case errors.As(err, &header), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, context.DeadlineExceeded):
		why = "what answers there doesn't speak TLS"
		remedy = "give the TURN server a certificate and a TLS port, or name it as turn: instead of turns:"
	}
	return fail(name, fmt.Sprintf("TLS certificate wrong: %s: %s", at, why), remedy)
}

// refused names why an answering server gave no relay.
func (v *visit) refused(name, at string) Finding {
	refused := (*turnprobe.RefusedError)(nil)
	if !errors.As(v.relayErr, &refused) {
		return fail(name, fmt.Sprintf("no relay from %s: %s", at, short(v.relayErr)), "look into the TURN server's log")
	}
	switch refused.Code {
	case 486:
		return fail(name, at+": quota reached: it gives this user no more relays", "raise the quota (all.turn_max_per_user; coturn: user-quota, total-quota)")
	case 508:
		return fail(name, at+": it has no relay left: its quota or its ports are used up", "raise the quota (all.turn_max_allocations; coturn: total-quota) or widen the range of relay ports")
	}
	if expires, _, ok := turnrest.Parse(v.c.Username); ok && !expires.After(v.c.Now()) {
		return fail(name, fmt.Sprintf("expired clock: the credential ended at %s", expires.UTC().Format(time.RFC3339)), "set the clocks of the logics and of this machine by NTP")
	}
	if v.ahead {
		return fail(name, fmt.Sprintf("expired clock: in the eyes of %s a credential that was made just now has expired, and one that is good for years hasn't", at), "set the clocks of the TURN server and of the logics by NTP: they differ by more than a credential's life")
	}
	return fail(name, fmt.Sprintf("wrong secret: %s refuses the credential (%d %s)", at, refused.Code, refused.Reason), "logic.turn_secret and the TURN server's (coturn: use-auth-secret and static-auth-secret) must be the same, to the byte")
}

// relay relays a packet: between the relay and a socket of this machine, as with a peer that needs none, and between two relays, as with one that does too.
func (v *visit) relay(ctx context.Context) []Finding {
	direct, twice := v.direct(ctx), v.overTwo(ctx)
	return []Finding{judge("relay "+v.server.Transport, v.conn.Relay, v.conn.Server().Addr(), v.conn.Mapped.Addr(), direct, twice)}
}

// judge says what it means how far packets came, for a relay said to be at an address, at a server that was reached at here by a client that it sees at mapped.
func judge(name string, at netip.AddrPort, here, mapped netip.Addr, direct, twice way) Finding {
	forbidden := "relay to the peer forbidden: "
	own := "own address (no denied-peer-ip may have it, or allowed-peer-ip must)"
	wrong := fail(name, fmt.Sprintf("wrong external address: relays are said to be at %s, where nobody reaches them; the server is at %s", at.Addr(), here),
		"set the server's external address (all.turn_external; coturn: external-ip=PUBLIC/PRIVATE)")
	closed := fail(name, fmt.Sprintf("relay ports closed: nothing gets to %s", at), "let UDP in to the whole range of relay ports (all.turn_min_port to all.turn_max_port; coturn: min-port to max-port), in the server's firewall and its cloud's")
	switch {
	case inside(at.Addr()) && !inside(here):
		return wrong
	case direct == wayThrough && twice == wayThrough:
		return ok(name, "a packet came through, there and back, and over two relays")
	case direct == wayThrough && twice.forbidden:
		return fail(name, forbidden+"two who both need a relay can't talk: the server refuses "+at.Addr().String()+", where its own relays are", "let relays reach the server's "+own)
	case direct == wayThrough:
		return warn(name, "a packet came through, but not over two relays: calls between two who both need one may fail", "let the server reach its own external address "+at.Addr().String()+", relay ports included (some NATs don't; coturn behind one: external-ip=PUBLIC/PRIVATE)")
	case direct.sent && twice == wayThrough && mapped == at.Addr():
		return ok(name, "a packet came through over two relays; to the server's own machine, which is this one, it relays no further, as it should be")
	case direct.forbidden && twice == wayThrough && inside(mapped):
		return ok(name, "a packet came through over two relays; it doesn't relay to this machine's address %s, which is private, as it should be", mapped)
	case direct.forbidden && (twice.forbidden || !inside(mapped)):
		return fail(name, fmt.Sprintf("%sthe server doesn't relay to %s", forbidden, mapped), "let it relay to addresses of the Internet (all.turn_deny_peers; coturn: denied-peer-ip) and to its "+own)
	case direct.elsewhere, direct.forbidden && at.Addr() != here:
		return wrong
	case direct.sent:
		return fail(name, fmt.Sprintf("relay ports closed: what the relay at %s sends doesn't get out", at), "let the server send UDP from its relay ports to anywhere")
	case at.Addr() != here:
		closed.Text += fmt.Sprintf("; the server itself is at %s: is the relays' address right?", here)
	}
	return closed
}

// way is how far a packet came.
type way struct {
	// forbidden: the server refused the peer. sent: it came from the peer to the client. back: from the client to the peer. elsewhere: it came,
	// but only when it was sent to the server's own address instead of the relay's.
	forbidden, sent, back, elsewhere bool
}

// wayThrough is the whole way.
var wayThrough = way{sent: true, back: true}

// inside reports whether an address means nothing on the Internet.
func inside(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast()
}

// direct relays between the visit's relay and a socket of this machine.
func (v *visit) direct(ctx context.Context) (w way) {
	if err := v.conn.Permit(ctx, v.conn.Mapped.Addr()); err != nil {
		return way{forbidden: isRefused(err)}
	}
	peer, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp4", net.JoinHostPort(v.conn.Local().Addr().String(), "0"))
	if err != nil {
		return way{}
	}
	defer peer.Close()
	here := v.conn.Server().Addr()
	from, sent := v.arrives(ctx, peer, v.conn.Relay)
	if !sent {
		if here != v.conn.Relay.Addr() {
			_, w.elsewhere = v.arrives(ctx, peer, netip.AddrPortFrom(here, v.conn.Relay.Port()))
		}
		return w
	}
	w.sent = true
	token := newToken()
	buf := make([]byte, 1500)
	for range packets {
		if ctx.Err() != nil || v.conn.Send(from, token) != nil || peer.SetReadDeadline(time.Now().Add(v.c.Wait/packets)) != nil {
			return w
		}
		for {
			n, _, err := peer.ReadFrom(buf)
			if err != nil {
				break
			}
			if string(buf[:n]) == string(token) {
				w.back = true
				return w
			}
		}
	}
	return w
}

// arrives sends to the relay until the client has it, and tells where the relay has it from.
func (v *visit) arrives(ctx context.Context, peer net.PacketConn, relay netip.AddrPort) (from netip.AddrPort, ok bool) {
	token := newToken()
	for range packets {
		if ctx.Err() != nil {
			return from, false
		}
		_, _ = peer.WriteTo(token, net.UDPAddrFromAddrPort(relay)) // What can't be sent doesn't arrive.
		if from, ok = v.expect(v.conn, token); ok {
			return from, true
		}
	}
	return from, false
}

// expect waits a fifth of the time for a packet at a relay.
func (v *visit) expect(conn *turnprobe.Conn, token []byte) (netip.AddrPort, bool) {
	for until := time.Now().Add(v.c.Wait / packets); ; {
		p, err := conn.Receive(until)
		if err != nil {
			return netip.AddrPort{}, false
		}
		if string(p.Data) == string(token) {
			return p.From, true
		}
	}
}

// overTwo relays from a second relay to the visit's.
func (v *visit) overTwo(ctx context.Context) (w way) {
	second, err := v.open(ctx, v.server)
	if err != nil {
		return w
	}
	defer second.Close()
	user, password := v.credential(v.c.Life)
	if second.Allocate(ctx, user, password) != nil {
		return w
	}
	for _, pair := range [][2]*turnprobe.Conn{{v.conn, second}, {second, v.conn}} {
		if err := pair[0].Permit(ctx, pair[1].Relay.Addr()); err != nil {
			return way{forbidden: isRefused(err)}
		}
	}
	token := newToken()
	for range packets {
		if ctx.Err() != nil || second.Send(v.conn.Relay, token) != nil {
			return w
		}
		if _, ok := v.expect(v.conn, token); ok {
			return wayThrough
		}
	}
	return w
}

// newToken is what a packet carries, so that no other is taken for it.
func newToken() []byte {
	var b [12]byte
	rand.Read(b[:])
	return []byte("halley " + hex.EncodeToString(b[:]))
}
