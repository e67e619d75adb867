package loopback_test

import (
	"net"
	"testing"

	"github.com/halley-im/halley/kit/loopback"
)

func TestHostNamesThisMachine(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LocalHost:3102": true, "127.0.0.1": true, "127.8.9.1:80": true, "[::1]:3102": true, "[::1]": true, "::1": true,
		"": false, ":3102": false, "evil.example": false, "evil.example:3102": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false,
		"10.0.0.1": false, "0.0.0.0": false, "[::]:80": false, "localhost:": true,
	} {
		if got := loopback.Host(host); got != want {
			t.Errorf("%q: got %v, want %v", host, got, want)
		}
	}
}

type addr string

func (addr) Network() string  { return "other" }
func (a addr) String() string { return string(a) }

func TestAddrIsReachedFromThisMachineOnly(t *testing.T) {
	for _, tt := range []struct {
		a    net.Addr
		want bool
	}{
		{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, true}, {&net.TCPAddr{IP: net.IPv6loopback}, true}, {&net.TCPAddr{}, false},
		{&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, false}, {&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, true}, {&net.UnixAddr{Name: "x"}, true},
		{addr("127.0.0.1:80"), true}, {addr("somewhere:80"), false}, {addr("bufconn"), false},
	} {
		if got := loopback.Addr(tt.a); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.a, got, tt.want)
		}
	}
}
