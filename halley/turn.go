package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/halley-im/halley/halley/internal/relay"
)

// startRelay makes the relay of halley all and has clients told of it; nil where there is none: other servers are named, or it is turned off. ws and
// wss are listeners of WebSocket: who opened these to other machines and said nothing of the relay means it to be reached from there as well.
func (c *allCmd) startRelay(ctx context.Context, p *process, secret string, certs *tls.Config, ws, wss net.Listener, isSet func(flag string) bool, log *slog.Logger) (*relay.Server, error) {
	cfg := &c.All.TURN
	if len(c.Logic.Turn.URLs) > 0 || cfg.Addr == "" {
		return nil, nil
	}
	if !isSet("all-turn-addr") {
		cfg.Addr = besides(cfg.Addr, ws, wss)
	}
	if !isSet("all-turn-tls-addr") {
		cfg.TLSAddr = besides(cfg.TLSAddr, wss)
	}
	if c.Logic.Turn.Secret == "" {
		c.Logic.Turn.Secret = secret
	}
	shared, err := turnSecret(c.Logic.Turn.Secret)
	if err != nil {
		return nil, err
	}
	d := relay.Deps{Log: log, Metrics: p.metrics, Secret: shared}
	var tlsL net.Listener
	wanted := []listener{{cfg.Addr, "all.turn_addr", &d.TCP}}
	if certs != nil {
		wanted = append(wanted, listener{cfg.TLSAddr, "all.turn_tls_addr", &tlsL})
	}
	if err := p.listenAll(ctx, secret, wanted); err != nil {
		return nil, err
	}
	if tlsL != nil {
		own := certs.Clone()
		own.NextProtos = nil // TURN has no ALPN name in browsers
		d.TLS = tls.NewListener(tlsL, own)
	}
	if d.UDP, err = listenUDP(ctx, cfg.Addr, d.TCP.Addr()); err != nil {
		return nil, err
	}
	p.later(d.UDP.Close)
	at := d.UDP.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	if d.External, err = relay.External(ctx, cfg.External, at); err != nil {
		if isSet("all-turn-addr") || cfg.External != "" {
			return nil, err
		}
		// Nobody has asked for a relay: this start has come about without one before, and calls that need none still do.
		log.Warn("calls have no relay: others couldn't reach it", "err", err)
		for _, l := range []io.Closer{d.UDP, d.TCP, d.TLS} {
			if l != nil {
				l.Close() // what p closes later is closed already
			}
		}
		return nil, nil
	}
	if !at.IsLoopback() && d.External.IsPrivate() {
		log.Warn("calls get no further than the local network: set all.turn_external to the address that others reach this machine at", "addr", d.External.String())
	}
	r, err := relay.New(*cfg, d)
	if err != nil {
		return nil, err
	}
	stuns, turns := r.URLs()
	c.Logic.Turn.URLs = turns
	if len(c.Logic.Turn.StunURLs) == 0 {
		c.Logic.Turn.StunURLs = stuns
	}
	return r, nil
}

// besides returns addr's port at the host of the first listener that can be reached from other machines; addr, if none can.
func besides(addr string, listeners ...net.Listener) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	for _, l := range listeners {
		if l == nil || isLoopback(l.Addr()) {
			continue
		}
		if host, _, err := net.SplitHostPort(l.Addr().String()); err == nil {
			return net.JoinHostPort(host, port)
		}
	}
	return addr
}

// listenUDP opens UDP at the address at which TCP is served. Where any port will do, that of TCP may be taken.
func listenUDP(ctx context.Context, addr string, tcp net.Addr) (net.PacketConn, error) {
	c, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", tcp.String())
	if _, port, _ := net.SplitHostPort(addr); err != nil && port == "0" {
		c, err = (&net.ListenConfig{}).ListenPacket(ctx, "udp", addr)
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s by UDP (all.turn_addr) is in use: stop what listens there, or set another address with HALLEY_ALL_TURN_ADDR", addr)
	case err != nil:
		return nil, fmt.Errorf("all.turn_addr: listen by UDP at %q: %w: set another address with HALLEY_ALL_TURN_ADDR", addr, err)
	}
	return c, nil
}

// turnSecret returns the secret that logic.turn_secret names.
func turnSecret(setting string) ([]byte, error) {
	file, ok := strings.CutPrefix(setting, "@")
	if !ok {
		return []byte(setting), nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("logic.turn_secret: %w", err)
	}
	return []byte(strings.TrimSpace(string(b))), nil
}

// relayURLs are what a halley all with these settings tells clients, for who looks at it from outside.
func relayURLs(ctx context.Context, cfg relay.Config, withTLS bool) ([]string, error) {
	at, err := netip.ParseAddrPort(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("all.turn_addr: %w", err)
	}
	host := cfg.Host
	if host == "" {
		external, err := relay.External(ctx, cfg.External, at.Addr())
		if err != nil {
			return nil, err
		}
		host = external.String()
	}
	here := net.JoinHostPort(host, fmt.Sprint(at.Port()))
	urls := []string{"turn:" + here + "?transport=udp", "turn:" + here + "?transport=tcp"}
	if _, port, err := net.SplitHostPort(cfg.TLSAddr); err == nil && withTLS {
		urls = append(urls, "turns:"+net.JoinHostPort(host, port)+"?transport=tcp")
	}
	return urls, nil
}
