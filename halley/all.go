package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/halley/internal/keys"
	"github.com/halley-im/halley/halley/internal/relay"
	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/kit/embedded"
	"github.com/halley-im/halley/kit/grpcconn"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/redisconn"
	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/router"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/web"
)

const (
	// allPartitions is the topics' number of partitions: one machine has no use for more.
	allPartitions = 4
	// allDrain is how long sessions may take to leave: there is no other comet that they could go to.
	allDrain = time.Second
	// kfakeMinSession is the shortest session that the Kafka inside takes by itself.
	kfakeMinSession = 6 * time.Second
	// readyTimeout is after how long a start that is not ready yet is worth a warning; nothing else depends on it.
	readyTimeout = 30 * time.Second
	// loopbackAny is a free port on loopback, for what only this process calls.
	loopbackAny = "127.0.0.1:0"
)

type allCmd struct {
	Data   dataSettings     `embed:""`
	Common commonSettings   `embed:""`
	TLS    tlsSettings      `embed:""`
	All    allSettings      `embed:"" prefix:"all-" group:"all"`
	Kafka  kafkaconn.Config `embed:"" prefix:"kafka-" group:"kafka"`
	Store  store.Config     `embed:"" prefix:"store-" group:"store"`
	Comet  comet.Config     `embed:"" prefix:"comet-" group:"comet"`
	Addr   cometAddr        `embed:"" prefix:"comet-" group:"comet"`
	Logic  logic.Config     `embed:"" prefix:"logic-" group:"logic"`
	Router router.Config    `embed:"" prefix:"router-" group:"router"`
	Job    job.Config       `embed:"" prefix:"job-" group:"job"`
}

// allSettings are what only halley all has: a limit, and where it listens beyond its roles' own addresses.
type allSettings struct {
	// MinFreeBytes is what must be free on the disk for pushes to be taken.
	MinFreeBytes int64 `name:"min-free-bytes" help:"Pushes are refused while the data folder's disk has fewer bytes free: a full disk would ruin what is there." default:"268435456"`
	// Private is for the operator.
	Private string `name:"private-addr" help:"Address of metrics, health and profiles." default:"127.0.0.1:0"`
	// TLS, WSS and HTTPS are served where there is a certificate.
	TLS   string `name:"tls-addr" help:"Address for TCP clients with TLS, where there is a certificate." default:"127.0.0.1:3104"`
	WSS   string `name:"wss-addr" help:"Address for WebSocket clients with TLS, where there is a certificate." default:"127.0.0.1:3103"`
	HTTPS string `name:"https-addr" help:"Address of the HTTP API and the page with TLS, where there is a certificate." default:"127.0.0.1:3112"`
	// TURN is the server inside that helps calls through NATs.
	TURN relay.Config `embed:"" prefix:"turn-"`
}

// Help is the long text of halley all --help.
func (allCmd) Help() string {
	return `Needs nothing but a folder: Kafka, Redis and a TURN server run inside. It listens on loopback: 3101 TCP, 3102 WebSocket, 3111 HTTP with
the page, 3478 STUN and TURN. The first start makes its own keys in the data folder. On loopback anybody may log in on the page by name; where a listener can be
reached from other machines, only with a token.`
}

// Run is the whole cluster in one process. Its parts talk as those of a cluster do, over loopback:
//
//	backend, page ──▶ logic ──▶ Kafka ──▶ job ──▶ comet ──▶ client
//	                    │                  │        │
//	                    ├───▶ router ◀─────┼────────┘
//	                    │       └──▶ Redis │
//	                    └───▶ SQLite ◀─────┘
//
// Beside them is the relay of calls: logic tells clients of it and makes their credentials, and nobody else knows it.
func (c *allCmd) Run(ctx context.Context, t *terminal, kctx *kong.Context) error {
	base, err := newLog(t, c.Common.Log)
	if err != nil {
		return err
	}
	log := base.With("role", "all")
	p := newProcess(log)
	defer p.close()

	// The data folder, and what it keeps secret.
	unlock, err := lockFolder(c.Data.DataDir)
	if err != nil {
		return err
	}
	p.later(unlock)
	own, firstStart, err := keys.Ensure(c.Data.DataDir)
	if err != nil {
		return err
	}
	signing, err := own.SigningKey()
	if err != nil {
		return err
	}
	secret, err := c.Common.secret()
	if err != nil {
		return err
	}
	if secret == "" {
		secret = own.Cluster
	}

	// Listeners: what clients and backends reach, and free ports on loopback for the parts among themselves.
	certs, err := c.certificate()
	if err != nil {
		return err
	}
	var tcpL, wsL, tlsL, wssL, httpL, httpsL, privateL, cometL, logicL, routerL net.Listener
	wanted := []listener{
		{c.Addr.TCP, "comet.tcp_addr", &tcpL}, {c.Addr.WS, "comet.ws_addr", &wsL}, {c.Logic.HTTPAddr, "logic.http_addr", &httpL},
		{c.All.Private, "all.private_addr", &privateL},
		{loopbackAny, "comet.grpc_addr", &cometL}, {loopbackAny, "logic.grpc_addr", &logicL}, {loopbackAny, "router.grpc_addr", &routerL},
	}
	if certs != nil {
		wanted = append(wanted, listener{c.All.TLS, "all.tls_addr", &tlsL}, listener{c.All.WSS, "all.wss_addr", &wssL}, listener{c.All.HTTPS, "all.https_addr", &httpsL})
	}
	if err := p.listenAll(ctx, secret, wanted); err != nil {
		return err
	}
	public := addrs(tcpL, wsL, tlsL, wssL, httpL, httpsL)
	if !t.loader.IsSet(kctx, "demo") && !slices.ContainsFunc(public, func(a net.Addr) bool { return !isLoopback(a) }) {
		c.Logic.Demo = logic.Open
	}
	if err := logic.CheckOpen(c.Logic, public, log); err != nil {
		return err
	}
	media, err := c.startRelay(ctx, p, own.TURN, certs, wsL, wssL, func(flag string) bool { return t.loader.IsSet(kctx, flag) }, log)
	if err != nil {
		return err
	}
	apiL := httpL
	if httpsL != nil && httpL != nil {
		apiL = both(httpL, tls.NewListener(httpsL, certs))
	}

	// Kafka and Redis.
	kafka, err := embedded.StartKafka(embedded.KafkaConfig{
		Dir: filepath.Join(c.Data.DataDir, "kafka"), SyncWrites: true, MinFreeBytes: uint64(max(c.All.MinFreeBytes, 0)),
		MinSession: min(c.Kafka.SessionTimeout, kfakeMinSession),
	})
	if err != nil {
		return fmt.Errorf("start the Kafka inside: %w", err)
	}
	p.later(func() error { kafka.Close(); return nil })
	// Later a full disk only refuses pushes; to begin on one would be of no use to anybody.
	if err := kafka.Writable(); err != nil {
		return fmt.Errorf("%w: make space there, or name another folder (HALLEY_DATA_DIR)", err)
	}
	mini, err := embedded.StartRedis()
	if err != nil {
		return fmt.Errorf("start the Redis inside: %w", err)
	}
	p.later(func() error { mini.Close(); return nil })
	c.Kafka.Brokers, c.Kafka.Replication, c.Kafka.MinInsync = kafka.Addrs(), 1, 1
	if !t.loader.IsSet(kctx, "kafka-partitions") {
		c.Kafka.Partitions = allPartitions
	}

	// Clients.
	if err := ensureTopics(ctx, c.Kafka, c.Common.StartTimeout, log); err != nil {
		return err
	}
	producer := kafkaconn.NewProducer(c.Kafka, log, kafkaconn.WithGate(tell(kafka.Writable, log)))
	p.later(producer.Close)
	redis, err := redisconn.Open(redisconn.Config{Addrs: []string{mini.Addr()}, Timeout: c.Router.RedisTimeout})
	if err != nil {
		return err
	}
	p.later(redis.Close)
	conversations, err := openStore(ctx, p, inFolder(c.Store, c.Data.DataDir), c.Common.StartTimeout, log)
	if err != nil {
		return err
	}
	var jobStore job.Store
	var hookStore job.HookStore
	if conversations != nil {
		jobStore, hookStore = conversations, conversations
	}
	routers, err := grpcconn.Dial(c.Common.GRPC, routerL.Addr().String(), secret)
	if err != nil {
		return err
	}
	p.later(routers.Close)
	logics, err := grpcconn.Dial(c.Common.GRPC, logicL.Addr().String(), secret)
	if err != nil {
		return err
	}
	p.later(logics.Close)

	kafkaAnswers := needKafka(c.Kafka)
	kafkaNeed := func(ctx context.Context) error {
		if err := kafka.Writable(); err != nil {
			return err
		}
		return kafkaAnswers(ctx)
	}
	p.health.Needs["kafka"], p.health.Needs["redis"] = kafkaNeed, needRedis(redis)

	// Parts.
	if !t.loader.IsSet(kctx, "router-warm-up") {
		// Nothing outlives this process' Redis: there is nobody to wait for before nobody means nobody.
		c.Router.WarmUp = time.Millisecond
	}
	r, err := router.New(c.Router, router.Deps{
		Log: base.With("role", "router"), Metrics: p.metrics, Redis: redis, RedisPrefix: redisPrefix, Producer: producer,
	})
	if err != nil {
		return err
	}
	logicNeeds := map[string]func(context.Context) error{"kafka": kafkaNeed}
	if conversations != nil {
		logicNeeds["database"] = conversations.Ping
	}
	l, err := logic.New(c.Logic, logic.Deps{
		Log: base.With("role", "logic"), Metrics: p.metrics, Router: routers, Redis: redis, RedisPrefix: redisPrefix, Kafka: producer,
		Store: conversations, KafkaConfig: c.Kafka, HTTP: apiL, Web: web.Files(), TokenKeys: []*token.Key{signing}, APIKeys: []string{own.APISpec()},
		Secret: demoSecret(secret), Version: version, Needs: logicNeeds,
	})
	if err != nil {
		return err
	}
	j, err := job.New(c.Job, job.Deps{
		Log: base, Metrics: p.metrics, Router: routers, Kafka: c.Kafka, Producer: producer, Dial: dialComet(c.Common.GRPC, secret),
		Name: processName("all"), Store: jobStore, Hooks: hookStore, Redis: redis, RedisPrefix: redisPrefix,
	})
	if err != nil {
		return err
	}
	if !t.loader.IsSet(kctx, "comet-drain-timeout") {
		c.Comet.DrainTimeout, c.Comet.DrainGrace = allDrain, allDrain
	}
	co, err := comet.New(c.Comet, comet.Deps{
		Log: base, Metrics: p.metrics, Logic: logics, Router: routers,
		TCP: tcpL, WS: wsL, TLSTCP: tlsL, WSS: wssL, TLS: certs, AdvertiseAddr: cometL.Addr().String(),
		Unsigned: c.Logic.GoimCompat != "off", ThisMachineOnly: c.Logic.GoimCompat == logic.Open,
	})
	if err != nil {
		return err
	}

	// Run group: who is on the way from a client to the disk stops in this order.
	p.role("comet", co)
	p.role("logic", l)
	p.role("job", j)
	p.group.Add("router", r.Run)
	for _, s := range []struct {
		name string
		l    net.Listener
		r    interface{ Register(grpc.ServiceRegistrar) }
	}{{"comet", cometL, co}, {"logic", logicL, l}, {"router", routerL, r}} {
		server := grpcconn.NewServer(c.Common.GRPC, secret)
		s.r.Register(server)
		p.grpc(s.name, s.l, server, c.Common.GRPC.StopTimeout)
	}
	if media != nil {
		p.group.Add("relay", media.Run)
	}
	p.private(privateL)
	p.group.Add("welcome", func(ctx context.Context) error {
		if p.awaitReady(ctx) {
			c.welcome(t.out, firstStart, certs != nil, media, httpL.Addr(), tcpL.Addr(), wsL.Addr())
		}
		<-ctx.Done()
		return nil
	})
	return p.run(ctx)
}

// tell makes a check say in the log when it begins to fail and when it passes again: that pushes are refused is a matter for the
// operator, not only for who pushes.
func tell(check func() error, log *slog.Logger) func() error {
	var failing atomic.Bool
	return func() error {
		err := check()
		switch was := failing.Swap(err != nil); {
		case err != nil && !was:
			log.Error("pushes are refused: make space on the data folder's disk", "err", err)
		case err == nil && was:
			log.Info("pushes are taken again")
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errcode.Unavailable.Errorf("the disk of the server is nearly full"), err)
		}
		return nil
	}
}

// redisPrefix opens every key in the Redis inside.
const redisPrefix = "halley"

// lockFolder makes the data folder this process' own; two on one folder would ruin its records. The lock ends with the
// process, however that ends.
func lockFolder(dir string) (unlock func() error, err error) {
	remedy := "choose another folder with --data-dir or HALLEY_DATA_DIR"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w: %s", err, remedy)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w: %s", err, remedy)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("data folder %q is in use by another `halley all`: stop that one, or %s", dir, remedy)
		}
		return nil, fmt.Errorf("lock data folder %q: %w: %s", dir, err, remedy)
	}
	return f.Close, nil
}

// certificate returns the TLS configuration, or nil where no TLS is asked for.
func (c *allCmd) certificate() (*tls.Config, error) {
	if c.TLS.SelfSigned {
		var err error
		if c.TLS.Cert, c.TLS.Key, err = selfSigned(c.Data.DataDir); err != nil {
			return nil, err
		}
	}
	if c.TLS.Cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
	if err != nil {
		return nil, fmt.Errorf("tls_cert and tls_key: %w", err)
	}
	// WebSocket and what is served here are HTTP/1.1.
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}, nil
}

// welcome tells a person at the terminal where to go. It says where keys are, never what they are.
func (c *allCmd) welcome(w io.Writer, firstStart, tlsOn bool, media *relay.Server, page, tcp, ws net.Addr) {
	var b strings.Builder
	line := func(what, where string) { fmt.Fprintf(&b, "  %-10s %s\n", what, where) }
	fmt.Fprintf(&b, "\nHalley %s is running. Open http://%s\n\n", version, friendly(page))
	line("clients", "ws://"+ws.String()+"/sub  tcp://"+tcp.String())
	if tlsOn {
		line("", fmt.Sprintf("wss://%s/sub  tls://%s  https://%s", c.All.WSS, c.All.TLS, c.All.HTTPS))
		line("", "certificate SHA-256 "+fingerprint(c.TLS.Cert))
	}
	if media != nil {
		_, turns := media.URLs()
		line("calls", strings.Join(turns, "  "))
	}
	line("HTTP API", "http://"+page.String()+"/v1 (described at /docs)")
	made := ""
	if firstStart {
		made = ", just made"
	}
	line("API key", "in the file "+keys.APIFile(c.Data.DataDir)+made)
	line("token", "halley token --uid NAME --data-dir "+c.Data.DataDir)
	fmt.Fprintln(&b, "\nStop it with Ctrl-C.")
	io.WriteString(w, b.String())
}

// friendly writes a loopback address as people type it.
func friendly(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	if isLoopback(a) {
		return net.JoinHostPort("localhost", port)
	}
	return a.String()
}

// awaitReady waits until all checks of readiness pass; false if ctx ended first.
func (p *process) awaitReady(ctx context.Context) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(readyTimeout)
	defer late.Stop()
	for {
		waiting := p.unready(ctx)
		if len(waiting) == 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-late.C:
			p.log.Warn("not ready yet", slog.Any("waiting", waiting))
		case <-tick.C:
		}
	}
}

// unready returns the parts that are not ready, with their reasons.
func (p *process) unready(ctx context.Context) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(p.health.Ready)) {
		if err := p.health.Ready[name](ctx); err != nil {
			out = append(out, name+": "+err.Error())
		}
	}
	return out
}
