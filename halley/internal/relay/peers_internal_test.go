package relay

import (
	"net/netip"
	"testing"
)

// TestOwnAddressesAreForRelaysOnly has a machine with two public addresses, which no test can have.
func TestOwnAddressesAreForRelaysOnly(t *testing.T) {
	p := peers{
		external: netip.MustParseAddr("8.8.8.1"), own: []netip.Addr{netip.MustParseAddr("8.8.8.1"), netip.MustParseAddr("8.8.8.2")},
		minPort: 50000, maxPort: 50100,
	}
	for to, want := range map[string]bool{
		"8.8.8.1:50000": true, "8.8.8.1:53": false, "8.8.8.2:53": false, "[::ffff:8.8.8.2]:53": false, "8.8.8.2:50100": true, "8.8.8.3:53": true,
	} {
		if got := p.port(netip.MustParseAddrPort(to)); got != want {
			t.Errorf("%s: got %v, want %v", to, got, want)
		}
	}
	p.allow = mustPrefixes("8.8.8.2/32")
	if !p.port(netip.MustParseAddrPort("8.8.8.2:53")) {
		t.Error("what is allowed by name isn't")
	}
}
