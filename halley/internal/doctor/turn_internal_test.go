package doctor

import (
	"net/netip"
	"strings"
	"testing"
)

// TestHowFarPacketsCameIsJudged has the cases that need addresses which no test can have, besides those that others provoke.
func TestHowFarPacketsCameIsJudged(t *testing.T) {
	const server, client, private, lan = "203.0.113.7", "198.51.100.9", "10.0.0.5", "192.168.1.9"
	silent, forbidden := way{}, way{forbidden: true}
	for _, tt := range []struct {
		name             string
		at, here, mapped string
		direct, twice    way
		state            State
		text             string
	}{
		{"all well", server, server, client, wayThrough, wayThrough, OK, "there and back, and over two relays"},
		{"a NAT's inner address is told", private, server, client, silent, silent, Fail, "wrong external address"},
		{"and that relays to it only come through", private, server, client, silent, wayThrough, Fail, "wrong external address"},
		{"an address that is another machine's", "203.0.113.8", server, client, way{elsewhere: true}, silent, Fail, "wrong external address"},
		{"another address, and nothing gets through", "203.0.113.8", server, client, silent, silent, Fail, "is the relays' address right?"},
		{"a firewall before the relays", server, server, client, silent, silent, Fail, "relay ports closed: nothing gets to"},
		{"and inside it they talk", server, server, client, silent, wayThrough, Fail, "relay ports closed"},
		{"a firewall that lets nothing out", server, server, client, way{sent: true}, silent, Fail, "doesn't get out"},
		{"a public address is forbidden", server, server, client, forbidden, wayThrough, Fail, "relay to the peer forbidden: the server doesn't relay to " + client},
		{"its own address is forbidden", server, server, client, wayThrough, forbidden, Fail, "relay to the peer forbidden: two who both need a relay"},
		{"nothing is allowed", private, private, lan, forbidden, forbidden, Fail, "relay to the peer forbidden"},
		{"looked at from a private network", private, private, lan, forbidden, wayThrough, OK, "which is private"},
		{"from a private network, wrong address", server, private, lan, forbidden, silent, Fail, "wrong external address"},
		{"from a private network, ports closed", private, private, lan, forbidden, silent, Fail, "relay ports closed"},
		{"a NAT that doesn't turn packets round", server, server, client, wayThrough, silent, Warn, "not over two relays"},
		{"on the server itself", private, private, private, way{sent: true}, wayThrough, OK, "which is this one"},
	} {
		f := judge("relay udp", netip.AddrPortFrom(netip.MustParseAddr(tt.at), 50000), netip.MustParseAddr(tt.here), netip.MustParseAddr(tt.mapped), tt.direct, tt.twice)
		if f.State != tt.state || !strings.Contains(f.Text, tt.text) || (f.State == OK) != (f.Remedy == "") {
			t.Errorf("%s: got %v %q (%q), want %v %q", tt.name, f.State, f.Text, f.Remedy, tt.state, tt.text)
		}
	}
}
