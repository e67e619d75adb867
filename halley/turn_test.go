package main

import (
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// turn has the doctor look at TURN, again if it didn't find what is wanted: an answer that a pause held back for its whole time limit is told
// as a fault, and rightly.
func (i *instance) turn(wantCode int, words []string, args ...string) {
	i.t.Helper()
	for try := 1; ; try++ {
		code, out, errs := i.tool(append([]string{"doctor", "turn"}, args...)...)
		if code == wantCode && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(out, w) }) {
			return
		}
		if try == 3 {
			i.t.Errorf("halley doctor turn %q: exit code %d, want %d and %q:\n%s%s", args, code, wantCode, words, out, errs)
			return
		}
	}
}

// TestClientsAreToldOfTheRelayInsideAndItRelays has the doctor ask as a client does.
func TestClientsAreToldOfTheRelayInsideAndItRelays(t *testing.T) {
	t.Parallel()
	wss := freeAddr(t)
	i := startAll(t, t.TempDir(), "HALLEY_TLS_SELF_SIGNED=true", "HALLEY_ALL_TLS_ADDR="+freeAddr(t), "HALLEY_ALL_WSS_ADDR="+wss, "HALLEY_ALL_HTTPS_ADDR="+freeAddr(t))
	jwt := i.mustTool("token", "--uid", "ann")
	// With a client's credential. No authority has signed the certificate.
	i.turn(1, []string{"TLS certificate wrong", "self-signed", "4 well, 0 to look at, 1 wrong"}, "--comet", "ws://"+i.ws+"/sub", "--token", jwt)
	var urls []string
	for _, m := range regexp.MustCompile(`(?m)^ *calls +(.*)$`).FindAllStringSubmatch(strings.Join(i.out, "\n"), -1) {
		urls = strings.Fields(m[1])
	}
	if len(urls) != 3 {
		t.Fatalf("the welcome names %q:\n%s", urls, strings.Join(i.out, "\n"))
	}

	i.turn(0, []string{"All 6 well"}, "--comet", "wss://"+wss+"/sub", "--token", jwt, "--ca", filepath.Join(i.dir, "tls-self-signed.crt"))
	// With its settings, from its own machine, as docs/turn.md has it.
	at := func(url string) string {
		_, rest, _ := strings.Cut(url, ":")
		addr, _, _ := strings.Cut(rest, "?")
		return addr
	}
	i.turn(1, []string{"self-signed", "4 well, 0 to look at, 1 wrong"}, "--all", "--all-turn-addr", at(urls[0]), "--all-turn-tls-addr", at(urls[2]))
	// A cluster without TURN.
	i.turn(1, []string{"no TURN configured", "HALLEY_LOGIC_TURN_URLS"})

	// With the data folder's secret, and with the certificate trusted.
	i.turn(0, []string{"All 6 well"}, "--logic-turn-secret", "@"+filepath.Join(i.dir, "turn-secret"), "--logic-turn-urls", strings.Join(urls, ","), "--ca", filepath.Join(i.dir, "tls-self-signed.crt"))
}

func TestRelayOfAllIsToldWhereOthersReachIt(t *testing.T) {
	for _, tt := range []struct {
		name, addr, external, host string
		tls                        bool
		want                       []string
	}{
		{"loopback", "127.0.0.1:3478", "", "", false, []string{"turn:127.0.0.1:3478?transport=udp", "turn:127.0.0.1:3478?transport=tcp"}},
		{"behind a NAT", "10.0.0.5:3479", "203.0.113.7", "", false, []string{"turn:203.0.113.7:3479?transport=udp", "turn:203.0.113.7:3479?transport=tcp"}},
		{"by name", "0.0.0.0:3478", "203.0.113.7", "turn.example.com", true, []string{
			"turn:turn.example.com:3478?transport=udp", "turn:turn.example.com:3478?transport=tcp", "turns:turn.example.com:5349?transport=tcp",
		}},
	} {
		p, _, g := newTestParser(t)
		if _, err := p.Parse([]string{"all", "--all-turn-addr", tt.addr, "--all-turn-external", tt.external, "--all-turn-host", tt.host}); err != nil {
			t.Fatal(err)
		}
		got, err := relayURLs(t.Context(), g.All.All.TURN, tt.tls)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, %v", tt.name, got, err)
		}
	}
}

// TestRelayOfAllListensWhereClientsDo is where only what has TLS is open to other machines: browsers there call by the plain relay all the same.
func TestRelayOfAllListensWhereClientsDo(t *testing.T) {
	for _, tt := range []struct {
		name, ws, wss, want string
	}{
		{"all on loopback", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:3478"},
		{"WebSocket open", "0.0.0.0:0", "127.0.0.1:0", "0.0.0.0:3478"},
		{"only with TLS", "127.0.0.1:0", "0.0.0.0:0", "0.0.0.0:3478"},
		{"no TLS", "0.0.0.0:0", "", "0.0.0.0:3478"},
	} {
		var listeners []net.Listener
		for _, addr := range []string{tt.ws, tt.wss} {
			if addr == "" {
				listeners = append(listeners, nil)
				continue
			}
			l, err := net.Listen("tcp4", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			listeners = append(listeners, l)
		}
		if got := besides("127.0.0.1:3478", listeners...); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
