package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/kit/grpcconn"
	"github.com/halley-im/halley/logic"
)

type cometCmd struct {
	Common commonSettings `embed:""`
	Comet  comet.Config   `embed:"" prefix:"comet-" group:"comet"`
	Addr   cometAddr      `embed:"" prefix:"comet-" group:"comet"`
	Serve  cometServe     `embed:"" prefix:"comet-" group:"comet"`
	Logic  logicTarget    `embed:"" prefix:"logic-" group:"logic"`
	Router routerTarget   `embed:"" prefix:"router-" group:"router"`
	Open   openSettings   `embed:""`
}

// cometAddr is where clients reach a comet without TLS.
type cometAddr struct {
	// TCP and WS are for clients.
	TCP string `name:"tcp-addr" help:"Address for TCP clients; empty: none." default:"127.0.0.1:3101"`
	WS  string `name:"ws-addr" help:"Address for WebSocket clients; empty: none." default:"127.0.0.1:3102"`
}

// cometServe is where a comet process listens beyond that.
type cometServe struct {
	// TLS and WSS are for clients, encrypted.
	TLS string `name:"tls-addr" help:"Address for TCP clients with TLS; empty: none. Needs comet.tls_cert."`
	WSS string `name:"wss-addr" help:"Address for WebSocket clients with TLS, goim's port for it is 3103; empty: none. Needs comet.tls_cert."`
	// GRPC is for job.
	GRPC string `name:"grpc-addr" help:"Address of the gRPC server for job." default:"127.0.0.1:3109"`
	// Advertise is told to job through the lease.
	Advertise string `name:"advertise" help:"host:port by which job reaches the gRPC server; empty: grpc_addr, and where that is a wildcard this machine's first address."`
	// Private is for the operator.
	Private string `name:"private-addr" help:"Address of metrics, health and profiles." default:"127.0.0.1:3108"`
}

// openSettings are those of logic that a comet must know too, since its listeners are what strangers reach.
type openSettings struct {
	// GoimCompat is logic's setting.
	GoimCompat logic.Openness `name:"goim-compat" group:"general" enum:"off,open,open-anywhere" help:"Trust goim's unsigned token and let goim's API in without a key: off, open (refused unless all listeners are on loopback), open-anywhere." default:"off"`
}

// Run is a comet process:
//
//	clients ──▶ TCP, WebSocket ──▶ comet ──▶ logic (requests)
//	job ──────▶ gRPC ──────────────▲  └────▶ router (lease, rooms)
func (c *cometCmd) Run(ctx context.Context, t *terminal) error {
	base, err := newLog(t, c.Common.Log)
	if err != nil {
		return err
	}
	log := base.With("role", "comet")
	secret, err := c.Common.secret()
	if err != nil {
		return err
	}
	p := newProcess(log)
	defer p.close()

	var tcpL, wsL, tlsL, wssL, grpcL, privateL net.Listener
	if err := p.listenAll(ctx, secret, []listener{
		{c.Addr.TCP, "comet.tcp_addr", &tcpL}, {c.Addr.WS, "comet.ws_addr", &wsL},
		{c.Serve.TLS, "comet.tls_addr", &tlsL}, {c.Serve.WSS, "comet.wss_addr", &wssL},
		{c.Serve.GRPC, "comet.grpc_addr", &grpcL}, {c.Serve.Private, "comet.private_addr", &privateL},
	}); err != nil {
		return err
	}
	if err := logic.CheckOpen(logic.Config{GoimCompat: c.Open.GoimCompat}, addrs(tcpL, wsL, tlsL, wssL), log); err != nil {
		return err
	}
	advertise, err := advertised(c.Serve.Advertise, grpcL.Addr())
	if err != nil {
		return err
	}

	logics, err := grpcconn.Dial(c.Common.GRPC, c.Logic.Target, secret)
	if err != nil {
		return fmt.Errorf("logic.target: %w", err)
	}
	p.later(logics.Close)
	routers, err := grpcconn.Dial(c.Common.GRPC, c.Router.Target, secret)
	if err != nil {
		return fmt.Errorf("router.target: %w", err)
	}
	p.later(routers.Close)

	co, err := comet.New(c.Comet, comet.Deps{
		Log: base, Metrics: p.metrics, Logic: logics, Router: routers,
		TCP: tcpL, WS: wsL, TLSTCP: tlsL, WSS: wssL, AdvertiseAddr: advertise,
		Unsigned: c.Open.GoimCompat != "off", ThisMachineOnly: c.Open.GoimCompat == logic.Open,
	})
	if err != nil {
		return err
	}
	server := grpcconn.NewServer(c.Common.GRPC, secret)
	co.Register(server)

	p.health.Needs["logic"], p.health.Needs["router"] = needGRPC(logics), needGRPC(routers)
	p.role("comet", co)
	p.grpc("comet", grpcL, server, c.Common.GRPC.StopTimeout)
	p.private(privateL)
	return p.run(ctx)
}

// advertised returns the address by which others reach a listener at addr: what is configured, or addr itself
// with this machine's first address in place of a wildcard.
func advertised(configured string, addr net.Addr) (string, error) {
	if configured != "" {
		if _, _, err := net.SplitHostPort(configured); err != nil {
			return "", fmt.Errorf("comet.advertise: %w", err)
		}
		return configured, nil
	}
	a, ok := addr.(*net.TCPAddr)
	if !ok || !a.IP.IsUnspecified() {
		return addr.String(), nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("comet.advertise is empty, and this machine's addresses are not known: %w", err)
	}
	for _, i := range all {
		if n, ok := i.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && !n.IP.IsLoopback() {
			return (&net.TCPAddr{IP: n.IP, Port: a.Port}).String(), nil
		}
	}
	return "", errors.New("comet.advertise is empty, and this machine has no address but loopback: set HALLEY_COMET_ADVERTISE")
}
