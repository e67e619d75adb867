package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/halley/internal/doctor"
)

// TestClientsAreToldOfTheRelayInsideAndItRelays asks as a client does, and takes what it is given to the doctor.
func TestClientsAreToldOfTheRelayInsideAndItRelays(t *testing.T) {
	t.Parallel()
	i := startAll(t, t.TempDir(), "HALLEY_TLS_SELF_SIGNED=true", "HALLEY_ALL_TLS_ADDR="+freeAddr(t), "HALLEY_ALL_WSS_ADDR="+freeAddr(t), "HALLEY_ALL_HTTPS_ADDR="+freeAddr(t))
	jwt := i.mustTool("token", "--uid", "ann")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := client.New(client.Options{
		Where: func(context.Context, int) (string, error) { return "ws://" + i.ws + "/sub", nil },
		Token: func(context.Context, client.TokenReason) (string, error) { return jwt, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	go func() { ended <- c.Run(running) }()
	defer func() { stop(); <-ended }()
	var raw json.RawMessage
	if err := c.Request(ctx, "ice.servers", struct{}{}, &raw); err != nil {
		t.Fatal(err)
	}
	var got struct {
		TURN    bool `json:"turn"`
		Servers []struct {
			URLs                 []string `json:"urls"`
			Username, Credential string
		}
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if !got.TURN || len(got.Servers) != 2 || len(got.Servers[0].URLs) != 1 || len(got.Servers[1].URLs) != 3 || !strings.HasSuffix(got.Servers[1].Username, ":ann") {
		t.Fatalf("got %s", raw)
	}
	turn := got.Servers[1]
	find := doctor.TURN(doctor.TURNConfig{URLs: turn.URLs[:2], Username: turn.Username, Password: turn.Credential, Wait: 5 * time.Second})
	if found := find(ctx); slices.ContainsFunc(found, func(f doctor.Finding) bool { return f.State != doctor.OK }) || len(found) != 4 {
		t.Errorf("with a client's credential: %+v", found)
	}

	// The command, with the data folder's secret, trusts a certificate only if it is told to.
	doctorTURN := []string{"doctor", "turn", "--logic-turn-secret", "@" + filepath.Join(i.dir, "turn-secret"), "--logic-turn-urls", strings.Join(turn.URLs, ",")}
	code, out, _ := i.tool(append(doctorTURN, "--ca", filepath.Join(i.dir, "tls-self-signed.crt"))...)
	if code != 0 || !strings.Contains(out, "All 6 well") {
		t.Errorf("halley doctor turn: exit code %d:\n%s", code, out)
	}
	code, out, _ = i.tool(doctorTURN...)
	if code != 1 || !strings.Contains(out, "TLS certificate wrong") || !strings.Contains(out, "self-signed") {
		t.Errorf("without the certificate: exit code %d:\n%s", code, out)
	}
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
