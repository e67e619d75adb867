package hook

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// ErrForbiddenAddress says that a receiver's name leads to where none is.
var ErrForbiddenAddress = errors.New("link-local, multicast, unspecified or metadata address")

// metadata are the addresses, not link-local, where clouds keep their machines' credentials: AWS by IPv6, Alibaba Cloud, Oracle Cloud.
var metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192")}

// NewClient returns the client of one receiver, with so many connections at most. Receivers are the operator's own, on a private network as
// a rule, so private addresses are allowed. What is never one is refused when the name is resolved, at every connection: link-local addresses
// and metadata, where clouds keep their machines' credentials. A redirect, by which a receiver could send us elsewhere, is not followed, and
// no proxy is used, behind which addresses could not be seen. Whoever makes it calls CloseIdleConnections in the end.
func NewClient(conns int) *http.Client {
	dialer := &net.Dialer{ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if a := ap.Addr().Unmap(); a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || slices.Contains(metadata, a) {
			return ErrForbiddenAddress
		}
		return nil
	}}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: dialer.DialContext, MaxIdleConnsPerHost: conns, MaxConnsPerHost: conns, IdleConnTimeout: 30 * time.Second,
			ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 16 << 10, DisableCompression: true,
		},
	}
}
