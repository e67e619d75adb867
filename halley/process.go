package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/halley-im/halley/halley/internal/private"
	"github.com/halley-im/halley/halley/internal/rungroup"
	"github.com/halley-im/halley/kit/kafkaconn"
)

// process is what the compositions have in common: where parts are added to, and what the operator sees.
type process struct {
	log     *slog.Logger
	metrics *prometheus.Registry
	health  private.Health
	group   rungroup.Group
	leaving atomic.Bool
	closers []func() error
}

func newProcess(log *slog.Logger) *process {
	quietRedis(log)
	p := &process{
		log: log, metrics: prometheus.NewRegistry(),
		health: private.Health{Ready: map[string]private.Check{}, Needs: map[string]private.Check{}},
	}
	p.health.Ready["process"] = func(context.Context) error {
		if p.leaving.Load() {
			return errors.New("stopping")
		}
		return nil
	}
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return p
}

// collectLater lets the heap of a role that keeps next to nothing grow to five times what lives on it before garbage is collected, not
// to twice: some tens of MB for a tenth of its CPU. GOGC, where it is set, wins. Not for comet, whose memory counts.
func collectLater() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// redisLog is what go-redis writes its own lines to.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "redis client", "err", fmt.Sprintf(format, v...))
}

// quietRedis has go-redis, whose logger is the process', write to log, at debug: what fails for want of Redis says so
// itself.
func quietRedis(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

// later has f called when the process ends, after all parts have.
func (p *process) later(f func() error) { p.closers = append(p.closers, f) }

// close calls what later was given, the last first. Compositions defer it.
func (p *process) close() {
	for i := len(p.closers) - 1; i >= 0; i-- {
		if err := p.closers[i](); err != nil && !errors.Is(err, net.ErrClosed) {
			p.log.Debug("close", "err", err)
		}
	}
}

// role adds a role's part: what it runs, and whether it is ready.
func (p *process) role(name string, r interface {
	Run(context.Context) error
	Ready(context.Context) error
},
) {
	p.group.Add(name, r.Run)
	p.health.Ready[name] = r.Ready
}

// grpc adds a gRPC server. When it stops calls in hand have so long to end; streams from job end only by that.
func (p *process) grpc(name string, l net.Listener, s *grpc.Server, stop time.Duration) {
	p.group.Add(name+" grpc", func(ctx context.Context) error { return serveGRPC(ctx, l, s, stop) })
}

// private adds the HTTP server for the operator.
func (p *process) private(l net.Listener) {
	h := private.Handler(p.metrics, p.health)
	p.group.Add("private http", func(ctx context.Context) error { return private.Serve(ctx, l, h, p.log) })
	p.log.Info("private http", "addr", l.Addr().String())
}

// run runs all parts until ctx is done.
func (p *process) run(ctx context.Context) error {
	p.log.Info("started", "version", version)
	stop := context.AfterFunc(ctx, func() { p.leaving.Store(true) })
	defer stop()
	err := p.group.Run(ctx)
	p.log.Info("stopped")
	return err
}

func serveGRPC(ctx context.Context, l net.Listener, s *grpc.Server, stop time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	cut := time.AfterFunc(stop, s.Stop)
	defer cut.Stop()
	s.GracefulStop()
	if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// listen opens a listener that the setting of that path names. Without a cluster secret nothing but loopback is
// listened at: whoever reaches an internal port could else do anything.
func listen(ctx context.Context, addr, setting, secret string) (net.Listener, error) {
	env := "HALLEY_" + strings.ToUpper(strings.ReplaceAll(setting, ".", "_"))
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s (%s) is in use: stop what listens there, or set another address with %s", addr, setting, env)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s (%s): not allowed to listen there: set a port from 1024 up with %s", addr, setting, env)
	case err != nil:
		return nil, fmt.Errorf("%s: listen at %q: %w: set another address with %s", setting, addr, err, env)
	}
	if secret == "" && !isLoopback(l.Addr()) {
		l.Close()
		return nil, fmt.Errorf("%s (%s) can be reached from other machines and there is no cluster secret: set HALLEY_CLUSTER_SECRET or HALLEY_CLUSTER_SECRET_FILE, or listen on 127.0.0.1", addr, setting)
	}
	return l, nil
}

// listenAll opens several listeners, of which those with an empty address stay nil, and has them closed at the
// end: a role that runs closes its own, one that never ran doesn't.
func (p *process) listenAll(ctx context.Context, secret string, of []listener) error {
	for _, o := range of {
		if o.addr == "" {
			continue
		}
		l, err := listen(ctx, o.addr, o.setting, secret)
		if err != nil {
			return err
		}
		p.later(l.Close)
		*o.into = l
	}
	return nil
}

// listener is one to be opened.
type listener struct {
	addr    string
	setting string
	into    *net.Listener
}

func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

// addrs returns the addresses of those listeners that are open.
func addrs(ls ...net.Listener) []net.Addr {
	var out []net.Addr
	for _, l := range ls {
		if l != nil {
			out = append(out, l.Addr())
		}
	}
	return out
}

// ensureTopics makes the topics, and waits for Kafka where it is still starting.
func ensureTopics(ctx context.Context, c kafkaconn.Config, limit time.Duration, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := kafkaconn.EnsureTopics(ctx, c, log)
		if err == nil {
			return nil
		}
		switch {
		case ctx.Err() != nil:
			return unreachable(err, c)
		case kafkaconn.IsAnswer(err):
			// As a cluster of which not all brokers have come refuses its topics.
			log.Warn("kafka does not make the topics yet", "err", err)
		case kafkaconn.IsConnErr(err):
			log.Warn("kafka does not answer yet", "err", err)
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return unreachable(err, c)
		case <-time.After(time.Second):
		}
	}
}

func unreachable(err error, c kafkaconn.Config) error {
	if kafkaconn.IsConnErr(err) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("kafka at %s does not answer: start it, or set kafka.brokers (HALLEY_KAFKA_BROKERS); `halley doctor` looks closer: %w", strings.Join(c.Brokers, ","), err)
	}
	return err
}

// needKafka and needRedis are checks of what roles share.
func needKafka(c kafkaconn.Config) private.Check {
	return func(ctx context.Context) error { return kafkaconn.Check(ctx, c) }
}

// needGRPC checks a connection to other roles: it knows by itself whether anybody is there.
func needGRPC(c *grpc.ClientConn) private.Check {
	return func(context.Context) error {
		switch state := c.GetState(); state {
		case connectivity.TransientFailure, connectivity.Shutdown:
			return fmt.Errorf("no connection to %s", c.Target())
		case connectivity.Idle:
			c.Connect()
		}
		return nil
	}
}

func needRedis(c redis.UniversalClient) private.Check {
	return func(ctx context.Context) error { return c.Ping(ctx).Err() }
}
