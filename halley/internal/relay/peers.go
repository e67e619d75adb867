package relay

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// reserved are networks whose addresses are nobody's on the Internet: whoever could have a relay send there would be behind the firewall of
// the machine that it runs on. RFC 8656 section 21.4 and the registry of RFC 6890.
var reserved = mustPrefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4")

func mustPrefixes(of ...string) []netip.Prefix {
	p, err := prefixes(of)
	if err != nil {
		panic(err)
	}
	return p
}

// peers decides whom relays may send to.
type peers struct {
	external netip.Addr
	// own are this machine's addresses when it started.
	own              []netip.Addr
	allow, deny      []netip.Prefix
	minPort, maxPort uint16
}

// allowed reports whether a client may talk to that address. Its own relay's is allowed, wherever that is: two who both need a relay meet there.
// Relays have IPv4 addresses, so nobody is reached by IPv6.
func (p peers) allowed(ip netip.Addr) bool {
	ip = ip.Unmap()
	switch {
	case !ip.Is4():
		return false
	case within(p.deny, ip):
		return false
	case ip == p.external || within(p.allow, ip):
		return true
	case p.external.IsLoopback() && ip.IsLoopback():
		// A machine by itself: its relay is open to nobody else, and there is nobody else to be reached.
		return true
	}
	return !within(reserved, ip)
}

// port reports whether a packet may go there. On the relay's own addresses only relays are meant: what else the machine serves may be closed to those
// outside, and isn't to who comes from itself.
func (p peers) port(to netip.AddrPort) bool {
	ip := to.Addr().Unmap()
	switch {
	case ip != p.external && !slices.Contains(p.own, ip), p.external.IsLoopback(), within(p.allow, ip):
		return true
	}
	return to.Port() >= p.minPort && to.Port() <= p.maxPort
}

// ownAddrs are this machine's IPv4 addresses.
func ownAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("find this machine's addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && addrOf(n.IP).Is4() {
			out = append(out, addrOf(n.IP))
		}
	}
	return out, nil
}

func within(of []netip.Prefix, ip netip.Addr) bool {
	for _, p := range of {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// addrOf is the address in a net.IP; the zero Addr for what is none.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
