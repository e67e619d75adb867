// Package turnprobe speaks to a TURN server as a client does, one step at a time, and tells what came of each: what halley doctor and tests need,
// and clients that hide failures behind retries don't tell. It starts no goroutines. RFC 8489 is STUN, RFC 8656 TURN.
package turnprobe

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pion/stun/v4"
)

// Transports.
const (
	UDP = "udp"
	TCP = "tcp"
	TLS = "tls"
)

// Server is a TURN server as a URL names it.
type Server struct {
	URL, Host, Port, Transport string
}

// ParseURL reads turn:HOST:PORT?transport=udp and the like (RFC 7065).
func ParseURL(u string) (Server, error) {
	scheme, rest, ok := strings.Cut(u, ":")
	rest, query, _ := strings.Cut(rest, "?")
	s := Server{URL: u, Host: rest, Port: "3478", Transport: UDP}
	switch {
	case !ok || scheme != "turn" && scheme != "turns" || rest == "":
		return s, fmt.Errorf("%q is no turn: or turns: URL", u)
	case scheme == "turns" && query == "transport=udp":
		return s, fmt.Errorf("%q: TURN over DTLS is not spoken here, nor by browsers", u)
	case scheme == "turns":
		s.Port, s.Transport = "5349", TLS
	case query == "transport=tcp":
		s.Transport = TCP
	}
	if host, port, err := net.SplitHostPort(rest); err == nil {
		s.Host, s.Port = host, port
	}
	s.Host = strings.Trim(s.Host, "[]")
	return s, nil
}

// RefusedError is an answer that says no.
type RefusedError struct {
	Method stun.Method
	Code   int // 0: none was told
	Reason string
}

func (e *RefusedError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%s refused: %d %s", e.Method, e.Code, e.Reason))
}

// ErrSilent says that nothing came back in time.
var ErrSilent = errors.New("no answer")

// TLSError is a TCP connection on which TLS didn't come about.
type TLSError struct{ Err error }

func (e *TLSError) Error() string { return e.Err.Error() }
func (e *TLSError) Unwrap() error { return e.Err }

// Conn is a client of a TURN server. It is not for use by several goroutines.
type Conn struct {
	// Relay is the relay's address, Mapped the client's own in the server's eyes; both once Allocate has succeeded.
	Relay, Mapped netip.AddrPort

	wait    time.Duration
	c       net.Conn
	r       *bufio.Reader // nil: UDP
	user    stun.Username
	realm   stun.Realm
	nonce   stun.Nonce
	key     stun.MessageIntegrity
	waiting []Packet
}

// Packet is what came from a peer.
type Packet struct {
	From netip.AddrPort
	Data []byte
}

const (
	maxMessage = 65535
	maxWaiting = 64
	// again is after how long a request by UDP is repeated.
	again = 250 * time.Millisecond
)

// Dial connects. No step of the connection takes longer than wait. By UDP nothing is sent yet.
func Dial(ctx context.Context, s Server, wait time.Duration, tlsConfig *tls.Config) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	network, host := "tcp", s.Host
	if s.Transport == UDP {
		network = "udp"
	}
	// Relays are asked for IPv4 addresses: the way to the server is best the same.
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", s.Host)
	if err == nil && len(ips) > 0 {
		host = ips[0].Unmap().String()
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(host, s.Port))
	if err != nil {
		return nil, err
	}
	if s.Transport == TLS {
		if tlsConfig == nil {
			tlsConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		tlsConfig = tlsConfig.Clone()
		tlsConfig.ServerName = s.Host
		tc := tls.Client(c, tlsConfig)
		if err := tc.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, &TLSError{err}
		}
		c = tc
	}
	conn := &Conn{c: c, wait: wait}
	if s.Transport != UDP {
		conn.r = bufio.NewReader(c)
	}
	return conn, nil
}

// Server is the server's address, Local the client's own.
func (c *Conn) Server() netip.AddrPort { return addrPort(c.c.RemoteAddr()) }

// Local is the client's own address.
func (c *Conn) Local() netip.AddrPort { return addrPort(c.c.LocalAddr()) }

func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Close ends the relay, if there is one, and the connection.
func (c *Conn) Close() error {
	if c.Relay.IsValid() {
		if m, err := c.build(stun.MethodRefresh, stun.ClassRequest, stun.RawAttribute{Type: stun.AttrLifetime, Value: make([]byte, 4)}); err == nil {
			_ = c.c.SetWriteDeadline(time.Now().Add(c.wait))
			_, _ = c.c.Write(m.Raw) // Its answer is of no use: a relay that isn't ended ends by itself.
		}
	}
	return c.c.Close()
}

// Hello asks for a relay without a credential, which every TURN server answers by asking for one. nil: there is one.
func (c *Conn) Hello(ctx context.Context) error {
	m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), requestedUDP, stun.Fingerprint)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, m)
	if refused := (*RefusedError)(nil); errors.As(err, &refused) && len(c.nonce) > 0 {
		return nil
	}
	if err == nil {
		return errors.New("it gives out relays without credentials")
	}
	return err
}

// requestedUDP is REQUESTED-TRANSPORT with UDP's protocol number.
var requestedUDP = stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{17, 0, 0, 0}}

// Allocate asks for a relay; attrs come before what browsers ask for, and instead of it where it is the same. Hello comes first.
func (c *Conn) Allocate(ctx context.Context, username, password string, attrs ...stun.Setter) error {
	c.Use(username, password)
	answer, err := c.ask(ctx, stun.MethodAllocate, append(attrs, requestedUDP)...)
	if err != nil {
		return err
	}
	var relay, mapped stun.XORMappedAddress
	if err := relay.GetFromAs(answer, stun.AttrXORRelayedAddress); err != nil {
		return fmt.Errorf("relay's address: %w", err)
	}
	if err := mapped.GetFrom(answer); err != nil {
		return fmt.Errorf("mapped address: %w", err)
	}
	c.Relay, c.Mapped = xorAddr(relay), xorAddr(mapped)
	return nil
}

// Use has the requests from now on bear another credential. Hello comes first.
func (c *Conn) Use(username, password string) {
	c.user = stun.NewUsername(username)
	c.key = stun.NewLongTermIntegrity(username, c.realm.String(), password)
}

func xorAddr(a stun.XORMappedAddress) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(a.IP)
	return netip.AddrPortFrom(ip.Unmap(), uint16(a.Port))
}

// Permit asks that a peer may send to the relay, and be sent to.
func (c *Conn) Permit(ctx context.Context, peer netip.Addr) error {
	_, err := c.ask(ctx, stun.MethodCreatePermission, peerAddr(netip.AddrPortFrom(peer, 0)))
	return err
}

// Bind asks for a channel (0x4000 to 0x4fff) to a peer, as browsers do for the one that they settle for.
func (c *Conn) Bind(ctx context.Context, channel uint16, peer netip.AddrPort) error {
	number := stun.RawAttribute{Type: stun.AttrChannelNumber, Value: binary.BigEndian.AppendUint16(nil, channel)}
	number.Value = append(number.Value, 0, 0)
	_, err := c.ask(ctx, stun.MethodChannelBind, number, peerAddr(peer))
	return err
}

// peerAddr is an XOR-PEER-ADDRESS.
type peerAddr netip.AddrPort

// AddTo is for stun.Build.
func (a peerAddr) AddTo(m *stun.Message) error {
	ap := netip.AddrPort(a)
	return stun.XORMappedAddress{IP: ap.Addr().AsSlice(), Port: int(ap.Port())}.AddToAs(m, stun.AttrXORPeerAddress)
}

// Refresh asks that the relay stays, as clients do every few minutes.
func (c *Conn) Refresh(ctx context.Context) error {
	_, err := c.ask(ctx, stun.MethodRefresh)
	return err
}

// Send has the relay send to a peer. What becomes of it nobody tells.
func (c *Conn) Send(peer netip.AddrPort, data []byte) error {
	m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication), peerAddr(peer), stun.RawAttribute{Type: stun.AttrData, Value: data}, stun.Fingerprint)
	if err != nil {
		return err
	}
	if err := c.c.SetWriteDeadline(time.Now().Add(c.wait)); err != nil {
		return err
	}
	_, err = c.c.Write(m.Raw)
	return err
}

// Receive waits until that moment for what a peer sent to the relay.
func (c *Conn) Receive(until time.Time) (Packet, error) {
	for len(c.waiting) == 0 {
		m, err := c.read(until)
		if err != nil {
			return Packet{}, err
		}
		c.keep(m)
	}
	p := c.waiting[0]
	c.waiting = c.waiting[1:]
	return p, nil
}

// keep keeps a message if it brings a peer's packet.
func (c *Conn) keep(m *stun.Message) {
	if m.Type != stun.NewType(stun.MethodData, stun.ClassIndication) || len(c.waiting) >= maxWaiting {
		return
	}
	var from stun.XORMappedAddress
	data, err := m.Get(stun.AttrData)
	if err != nil || from.GetFromAs(m, stun.AttrXORPeerAddress) != nil {
		return
	}
	c.waiting = append(c.waiting, Packet{xorAddr(from), append([]byte(nil), data...)})
}

func (c *Conn) build(method stun.Method, class stun.MessageClass, attrs ...stun.Setter) (*stun.Message, error) {
	all := append([]stun.Setter{stun.TransactionID, stun.NewType(method, class)}, attrs...)
	return stun.Build(append(all, c.user, c.realm, c.nonce, c.key, stun.Fingerprint)...)
}

// ask sends a request with the credential, once more if the nonce was old.
func (c *Conn) ask(ctx context.Context, method stun.Method, attrs ...stun.Setter) (*stun.Message, error) {
	for try := 0; ; try++ {
		m, err := c.build(method, stun.ClassRequest, attrs...)
		if err != nil {
			return nil, err
		}
		answer, err := c.do(ctx, m)
		if refused := (*RefusedError)(nil); try == 0 && errors.As(err, &refused) && refused.Code == int(stun.CodeStaleNonce) {
			continue
		}
		return answer, err
	}
}

// do sends a request and waits for its answer; by UDP it repeats it meanwhile.
func (c *Conn) do(ctx context.Context, m *stun.Message) (*stun.Message, error) {
	end := time.Now().Add(c.wait)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := c.c.SetWriteDeadline(end); err != nil {
			return nil, err
		}
		if _, err := c.c.Write(m.Raw); err != nil {
			return nil, err
		}
		until := end
		if t := time.Now().Add(again); c.r == nil && t.Before(end) {
			until = t
		}
		for {
			answer, err := c.read(until)
			if errors.Is(err, ErrSilent) && until.Before(end) {
				break // and ask again
			}
			if err != nil {
				return nil, err
			}
			if answer.TransactionID != m.TransactionID {
				c.keep(answer)
				continue
			}
			if nonce, err := answer.Get(stun.AttrNonce); err == nil {
				c.nonce = append(stun.Nonce(nil), nonce...)
			}
			if realm, err := answer.Get(stun.AttrRealm); err == nil {
				c.realm = append(stun.Realm(nil), realm...)
			}
			if answer.Type.Class == stun.ClassErrorResponse {
				refused := &RefusedError{Method: m.Type.Method}
				var code stun.ErrorCodeAttribute
				if code.GetFrom(answer) == nil {
					refused.Code, refused.Reason = int(code.Code), string(code.Reason)
				}
				return nil, refused
			}
			return answer, nil
		}
	}
}

// read reads the next message of STUN. ErrSilent: none came.
func (c *Conn) read(until time.Time) (*stun.Message, error) {
	if err := c.c.SetReadDeadline(until); err != nil {
		return nil, err
	}
	for {
		raw, err := c.frame()
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			return nil, ErrSilent
		}
		if err != nil {
			return nil, err
		}
		m := &stun.Message{Raw: raw}
		if m.Decode() == nil {
			return m, nil
		}
	}
}

func (c *Conn) frame() ([]byte, error) {
	if c.r == nil {
		buf := make([]byte, maxMessage)
		n, err := c.c.Read(buf)
		return buf[:max(n, 0)], err
	}
	head, err := c.r.Peek(4)
	if err != nil {
		return nil, err
	}
	if head[0]>>6 != 0 {
		return nil, errors.New("what answers is no TURN server")
	}
	buf := make([]byte, int(binary.BigEndian.Uint16(head[2:]))+20)
	_, err = io.ReadFull(c.r, buf)
	return buf, err
}
