// Package comet is the role that holds clients' connections. It knows frames, sessions, rooms and
// back-pressure, and nothing of what is said in them: requests go to logic as they are, deliveries come from
// job, router is told who is here.
//
//	clients ──frames──▶ transport ──▶ session ──▶ dispatch ──▶ upstream ──▶ logic
//	                                     │            └──────▶ rooms, lease ──▶ router
//	clients ◀──writes── flush ◀── outbox ◀── deliver ◀── job
package comet

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/halley-im/halley/comet/internal/deliver"
	"github.com/halley-im/halley/comet/internal/dispatch"
	"github.com/halley-im/halley/comet/internal/flush"
	"github.com/halley-im/halley/comet/internal/lease"
	"github.com/halley-im/halley/comet/internal/meter"
	"github.com/halley-im/halley/comet/internal/rooms"
	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/comet/internal/table"
	"github.com/halley-im/halley/comet/internal/transport"
	"github.com/halley-im/halley/comet/internal/upstream"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// Deps is what a comet works with. It closes the listeners, and nothing else.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Logic is a connection of grpcconn.Dial: there is a stream with each of its servers.
	Logic  grpc.ClientConnInterface
	Router grpc.ClientConnInterface
	// Listeners; nil: the transport is off. TLSTCP and WSS are plain TCP listeners: the comet speaks TLS on them.
	TCP, WS, TLSTCP, WSS net.Listener
	// TLS is for TLSTCP and WSS, unless Config names a certificate.
	TLS *tls.Config
	// AdvertiseAddr is host:port at which job reaches the gRPC server that Register was called with.
	AdvertiseAddr string
	// Unsigned lets goim's auth bodies, which carry no token, through to logic. It is said for each comet, since
	// logic doesn't see where a comet listens: one that strangers can reach refuses them unless told otherwise.
	Unsigned bool
	// ThisMachineOnly says that strangers are let in because nobody but this machine reaches the listeners. Browsers of this machine
	// then must have named it as itself (localhost, 127.0.0.1), unless Config names origins: a page of anywhere can make its own
	// name lead here.
	ThisMachineOnly bool
	// Endpoints are the addresses that clients use; nil: from Config and the listeners.
	Endpoints *halleyv1.Endpoints
}

// Comet is one connection node. Use New, Register, then Run.
type Comet struct {
	cfg  Config
	deps Deps
	log  *slog.Logger

	host       *session.Host
	table      *table.Table
	flusher    *flush.Flusher
	lease      *lease.Lease
	rooms      *rooms.Store
	deregister *upstream.Deregister
	logic      *upstream.Logic
	dispatch   *dispatch.Dispatcher
	gate       *transport.Gate
	server     *transport.Server
	casts      *deliver.Broadcaster
	resyncs    *deliver.Resyncer
	service    *deliver.Service
	router     halleyv1.RouterClient
	metrics    *meter.Metrics

	state atomic.Pointer[string] // why it isn't ready; "" ready
}

// How changes are put together for router. They are no settings: they bound a call's time in Redis, a few milliseconds, and nothing
// waits for a batch to fill. What an operator can tell is how much may wait (deregister_queue) and for how long (router_timeout).
const (
	roomBatch       = 1000
	roomCalls       = 4
	deregisterBatch = 500
)

// What one logic may have in hand of this comet's. It is no setting: at 10 ms a request it is 400,000 a second, and at the bytes of a usual one
// 4 MB; over it requests wait for their turn, within request_timeout.
const (
	requestWindow      = 4096
	requestWindowBytes = 16 << 20
)

// New builds a comet and starts nothing.
func New(cfg Config, deps Deps) (*Comet, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	tlsConfig, err := cfg.tls(deps.TLS)
	if err != nil {
		return nil, err
	}
	if tlsConfig == nil && (deps.TLSTCP != nil || deps.WSS != nil) {
		return nil, errors.New("comet: a TLS listener needs tls-cert and tls-key")
	}
	proxies, err := cfg.proxies()
	if err != nil {
		return nil, err
	}
	var start [8]byte
	rand.Read(start[:])

	c := &Comet{cfg: cfg, deps: deps, log: deps.Log.With("role", "comet")}
	c.setState("starting")
	c.router = halleyv1.NewRouterClient(deps.Router)
	c.table = table.New(hex.EncodeToString(start[:]))
	c.flusher = flush.New(cfg.walkers(), cfg.FlushMax)
	c.gate = transport.NewGate(cfg.MaxConnections, cfg.MaxConnectionsPerAddress, cfg.HandshakeRate)
	c.host = &session.Host{
		OutboxBytes: int(cfg.OutboxBytes), WriteTimeout: cfg.WriteTimeout, CloseGrace: cfg.CloseGrace,
		Count:      new(session.Counters),
		Unaccepted: func(n int) { c.metrics.Dropped.WithLabelValues("not_accepted").Add(float64(n)) },
		Ended:      func(s *session.Session, reason string) { c.dispatch.Ended(s, reason) },
		Closed: func(s *session.Session) {
			if !s.Reader.Authed {
				c.metrics.Handshakes.WithLabelValues("none").Inc()
			}
		},
	}
	c.lease = lease.New(lease.Config{
		Comet: cfg.name(), Addr: deps.AdvertiseAddr, Endpoints: c.endpoints(),
		Renew: cfg.RenewInterval, Timeout: cfg.RouterTimeout, Retry: cfg.RetryInterval,
		RewriteEvery: cfg.RewriteInterval, RewriteRate: cfg.RewriteRate,
	}, c.table, c.router, lease.Hooks{
		Load: c.load,
		Replaced: func(s *session.Session, raced bool) {
			if raced {
				s.Close(session.Raced)
				return
			}
			s.Close(session.Cause{Code: errcode.Replaced})
		},
		NewEpoch: func() { c.service.EpochChanged() },
		Stale:    c.leaveConversations,
		Resync:   func() { c.resyncs.All() },
	}, c.log)
	c.rooms = rooms.New(rooms.Config{
		Batch: roomBatch, Calls: roomCalls, Timeout: cfg.RouterTimeout, Retry: cfg.RetryInterval,
		Limits: session.RoomLimits{User: cfg.MaxRooms, Presence: cfg.MaxWatched, System: cfg.MaxSystemRooms},
	}, c.table, c.router, c.lease, c.log)
	c.lease.SetRooms(c.rooms)
	c.deregister = upstream.NewDeregister(c.router, c.lease, cfg.DeregisterQueue, deregisterBatch, cfg.RouterTimeout, cfg.RetryInterval, c.log)
	c.logic = upstream.NewLogic(halleyv1.NewLogicClient(deps.Logic), upstream.Config{
		ConnectTimeout: cfg.ConnectTimeout, Retry: cfg.RetryInterval, Window: requestWindow, WindowBytes: requestWindowBytes,
	})
	if c.metrics, err = meter.New(deps.Metrics, c.gauges()); err != nil {
		return nil, fmt.Errorf("comet: register metrics: %w", err)
	}
	c.dispatch = dispatch.New(dispatch.Config{
		RequestTimeout: cfg.RequestTimeout, RequestQueue: cfg.RequestQueue,
		RequestRate: cfg.RequestRate, RequestBurst: cfg.RequestBurst, Upstream: cfg.Upstream, Unsigned: deps.Unsigned,
	}, dispatch.Parts{
		Table: c.table, Rooms: c.rooms, Lease: c.lease, Logic: c.logic, Deregister: c.deregister, Metrics: c.metrics, Log: c.log,
	})
	c.server = transport.New(transport.Config{
		Origins: cfg.Origins, ThisMachineOnly: deps.ThisMachineOnly, Proxies: proxies, FrameTimeout: cfg.FrameTimeout, KeepAlive: cfg.KeepAlive,
		SendBuffer: int(cfg.SendBufferBytes), TLS: tlsConfig,
	}, c.gate, (*handler)(c), c.log)
	c.casts = deliver.NewBroadcaster(cfg.BroadcastQueue, cfg.BroadcastRate, c.table, c.flusher, c.metrics)
	c.resyncs = deliver.NewResyncer(cfg.ResyncSpread, c.table, c.flusher, c.metrics)
	c.service = deliver.New(c.table, c.flusher, c.lease.Epoch, c.dispatch, c.casts, c.resyncs, c.metrics, c.log)
	return c, nil
}

// Register puts the service that job delivers to on a server.
func (c *Comet) Register(r grpc.ServiceRegistrar) { halleyv1.RegisterCometServer(r, c.service) }

// Ready returns nil while the comet takes connections.
func (c *Comet) Ready(context.Context) error {
	if why := *c.state.Load(); why != "" {
		return errors.New("comet: " + why)
	}
	return nil
}

func (c *Comet) setState(why string) { c.state.Store(&why) }

// handler is what transport sees of a comet.
type handler Comet

// Open makes a pending session of a connection.
func (h *handler) Open(conn net.Conn, tr session.Transport) *session.Session {
	s := session.New(h.host, h.table.NextID(), conn, tr, session.Now()+int64(h.cfg.HandshakeTimeout))
	h.table.Add(s)
	return s
}

// Frame carries out a frame.
func (h *handler) Frame(s *session.Session, f frame.Frame) { h.dispatch.Frame(s, f) }

// Refused counts a connection that was turned away.
func (h *handler) Refused(code *errcode.Code) { h.metrics.Handshakes.WithLabelValues(code.Name).Inc() }

// Run takes an epoch, then connections, until ctx ends; then it drains and gives the epoch up. It returns when
// everything that it started has ended.
func (c *Comet) Run(ctx context.Context) error {
	defer c.setState("stopped")
	listeners := c.listeners()
	defer func() {
		for _, l := range listeners {
			l.ln.Close()
		}
	}()
	if err := c.lease.Enroll(ctx); err != nil {
		c.service.Stop()
		c.dispatch.Cancel()
		if ctx.Err() != nil {
			return nil
		}
		return err
	}

	// Sessions outlive ctx: they are drained when it ends.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var parts sync.WaitGroup
	for _, run := range []func(context.Context){
		c.flusher.Run, c.lease.Run, c.rooms.Run, c.deregister.Run, c.logic.Run, c.casts.Run, c.resyncs.Run, c.scan, c.count, c.tidy,
	} {
		parts.Go(func() { run(inner) })
	}
	var accepting sync.WaitGroup
	for _, l := range listeners {
		accepting.Go(func() { c.server.Serve(ctx, l.ln, l.tr) })
	}
	c.setState("")
	c.log.Info("comet ready", "comet", c.cfg.name(), "epoch", c.lease.Epoch())

	<-ctx.Done()
	c.setState("draining")
	c.gate.Close()
	accepting.Wait()
	c.drain(inner)
	c.leave(inner)
	stop()
	parts.Wait()
	return nil
}

// leave waits for the last readers and gives the epoch up.
func (c *Comet) leave(ctx context.Context) {
	c.service.Stop()
	c.dispatch.Cancel()
	c.server.Wait()
	c.dispatch.Wait()
	c.host.Background.Wait()
	if err := c.lease.Retire(ctx); err != nil {
		// The lease runs out by itself.
		c.log.Warn("epoch not given up", "err", err)
	}
}

type listener struct {
	ln net.Listener
	tr session.Transport
}

func (c *Comet) listeners() []listener {
	var out []listener
	for _, l := range []listener{
		{c.deps.TCP, session.Transport{}},
		{c.deps.WS, session.Transport{WS: true}},
		{c.deps.TLSTCP, session.Transport{TLS: true}},
		{c.deps.WSS, session.Transport{WS: true, TLS: true}},
	} {
		if l.ln != nil {
			out = append(out, l)
		}
	}
	return out
}

// scan looks at every session's times, a part of the table at a time, until ctx ends.
func (c *Comet) scan(ctx context.Context) {
	// So that a scan of a large table is not felt; scan_interval says how often all of it is looked at.
	const parts = 8
	tick := time.NewTicker(max(c.cfg.ScanInterval/parts, time.Millisecond))
	defer tick.Stop()
	var conns []*session.Session
	bytes := 0
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		part := round % parts
		now := session.Now()
		// What an idle session holds is looked at more rarely: it takes its lock.
		tidy := round/parts%4 == 0
		for shard := part; shard < table.Shards; shard += parts {
			conns = c.table.Conns(conns[:0], shard)
			for _, s := range conns {
				s.Scan(now)
				if tidy {
					bytes += s.Tidy()
				}
			}
			clear(conns)
		}
		if part == parts-1 {
			c.flusher.Calm()
			if tidy {
				c.metrics.Outbox.Set(float64(bytes))
				bytes = 0
			}
		}
	}
}

// count asks for the rooms' counts until ctx ends.
func (c *Comet) count(ctx context.Context) {
	tick := time.NewTicker(c.cfg.CountInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := c.rooms.Count(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("rooms not counted", "err", err)
		}
	}
}

func (c *Comet) load() *halleyv1.CometLoad {
	// No limit is told as a great one: nothing would be told as none.
	capacity, rate := int64(c.cfg.MaxConnections), c.cfg.HandshakeRate
	if capacity == 0 {
		capacity = 1 << 24
	}
	if rate == 0 {
		rate = 1e6
	}
	return &halleyv1.CometLoad{
		Connections: int64(c.table.Len()), Addresses: int64(c.gate.Addresses()), Rooms: int64(c.table.Rooms()),
		Capacity: capacity, HandshakeRate: rate,
	}
}

func (c *Comet) gauges() meter.State {
	n := func(f func() int) func() float64 { return func() float64 { return float64(f()) } }
	return meter.State{
		Connections: n(c.table.Len), Sessions: n(c.table.Bound), Rooms: n(c.table.Rooms), Addresses: n(c.gate.Addresses),
		Window: func() float64 { return c.flusher.Window().Seconds() }, Rate: c.flusher.Rate,
		Deregister: n(c.deregister.Pending), RoomQueue: n(c.rooms.Pending),
		Logics: n(c.logic.Logics), InHand: n(c.logic.InHand),
		DeregisterDropped: func() float64 { return float64(c.deregister.Dropped.Load()) },
		Epochs:            func() float64 { return float64(c.lease.Epochs()) },
		Lapsed: func() float64 {
			if c.lease.Lapsed() {
				return 1
			}
			return 0
		},
		Count: c.host.Count,
	}
}

// endpoints returns what clients use, from what is configured and where the listeners listen.
func (c *Comet) endpoints() *halleyv1.Endpoints {
	if c.deps.Endpoints != nil {
		return c.deps.Endpoints
	}
	host := c.cfg.Host
	if host == "" {
		host, _, _ = net.SplitHostPort(c.deps.AdvertiseAddr)
	}
	port := func(ln net.Listener) int32 {
		if ln == nil {
			return 0
		}
		if a, ok := ln.Addr().(*net.TCPAddr); ok {
			return int32(a.Port)
		}
		return 0
	}
	return &halleyv1.Endpoints{
		Host: host, WsUrl: c.cfg.WSURL,
		TcpPort: port(c.deps.TCP), WsPort: port(c.deps.WS), TlsPort: port(c.deps.TLSTCP), WssPort: port(c.deps.WSS),
	}
}

// leaveConversations takes all sessions out of the rooms of conversations: somebody may have been taken out of one while nobody was
// found here. A sync puts those in again who belong there, and all are told to resync. Rooms of open conversations stay: nothing
// that is stored is told there.
func (c *Comet) leaveConversations() {
	var list []*session.Room
	for i := range table.Shards {
		list = c.table.RoomsOf(list[:0], i)
		for _, r := range list {
			room := r.Name()
			if name.RoomType(room) != name.RoomTypeConversation || name.IsOpenRoom(room) {
				continue
			}
			_, members := r.Lock()
			members = slices.Clone(members)
			r.Unlock()
			for _, s := range members {
				c.rooms.Leave(s, room)
			}
		}
	}
}
