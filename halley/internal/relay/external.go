package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pion/stun/v4"
)

// stunTries and stunWait bound the question to a STUN server.
const (
	stunTries = 4
	stunWait  = 500 * time.Millisecond
)

// External finds the address that others reach the relay at: setting as in Config.External, or the address listened at, or this machine's own.
func External(ctx context.Context, setting string, listening netip.Addr) (netip.Addr, error) {
	listening = listening.Unmap()
	switch server, byStun := strings.CutPrefix(setting, "stun:"); {
	case byStun:
		a, err := askStun(ctx, server)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("all.turn_external: ask %s for this machine's address: %w", server, err)
		}
		return a, nil
	case setting != "":
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", setting)
		if err != nil || len(ips) == 0 {
			return netip.Addr{}, fmt.Errorf("all.turn_external: %q is neither an IPv4 address nor a name of one", setting)
		}
		return ips[0].Unmap(), nil
	case listening.Is4() && !listening.IsUnspecified():
		return listening, nil
	case listening.IsLoopback():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	case !listening.IsUnspecified():
		return netip.Addr{}, fmt.Errorf("all.turn_addr is an IPv6 address, and relays have IPv4 ones: set all.turn_external")
	}
	return own()
}

// own is the address from which this machine would go to the Internet, or else the first one that isn't loopback's.
func own() (netip.Addr, error) {
	// Nothing is sent: to connect a UDP socket asks for the route only.
	//nolint:noctx // as above
	if c, err := net.Dial("udp4", "8.8.8.8:53"); err == nil {
		a := addrOf(c.LocalAddr().(*net.UDPAddr).IP)
		c.Close()
		return a, nil
	}
	all, err := ownAddrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range all {
		if !a.IsLoopback() {
			return a, nil
		}
	}
	return netip.Addr{}, errors.New("this machine has no IPv4 address but loopback's: set all.turn_external")
}

// askStun asks a STUN server for the address that this machine has in its eyes (RFC 8489 section 2).
func askStun(ctx context.Context, server string) (netip.Addr, error) {
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(server, "3478")
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "udp4", server)
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	ask, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		return netip.Addr{}, err
	}
	buf := make([]byte, inboundMTU)
	for range stunTries {
		if _, err := c.Write(ask.Raw); err != nil {
			return netip.Addr{}, err
		}
		if err := c.SetReadDeadline(time.Now().Add(stunWait)); err != nil {
			return netip.Addr{}, err
		}
		n, err := c.Read(buf)
		if ctx.Err() != nil {
			return netip.Addr{}, ctx.Err()
		}
		answer := &stun.Message{Raw: buf[:max(n, 0)]}
		if err != nil || answer.Decode() != nil || answer.TransactionID != ask.TransactionID {
			continue
		}
		var mapped stun.XORMappedAddress
		if err := mapped.GetFrom(answer); err != nil {
			return netip.Addr{}, err
		}
		return addrOf(mapped.IP), nil
	}
	return netip.Addr{}, errors.New("no answer")
}
