// Package logic is the role that decides: it verifies tokens, authorises, carries out clients' requests,
// serves the HTTP API, writes to Kafka and asks router. It keeps nothing of its own but the list of revoked
// tokens, and never calls a comet: what must happen to the asking session comes with the answer, to any other by
// a control delivery.
package logic

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic/internal/auth"
	"github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/limit"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/revoke"
	"github.com/halley-im/halley/logic/internal/room"
	"github.com/halley-im/halley/logic/internal/rpc"
	"github.com/halley-im/halley/logic/internal/turn"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/store"
)

// Producer writes to Kafka; kafkaconn.Producer is one.
type Producer interface {
	// Produce returns nil only when all messages are acknowledged. Topics come without prefix.
	Produce(ctx context.Context, msgs ...kafka.Message) error
	// Partition returns the partition of a key in the push topics.
	Partition(key []byte) int
}

// Deps are what logic works with. It closes none of them but HTTP.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Gatherer serves /metrics; nil: no such path.
	Gatherer prometheus.Gatherer
	// Router is the connection to the routers.
	Router grpc.ClientConnInterface
	// Redis holds limits and the outcomes of idempotent requests, below RedisPrefix.
	Redis       redis.UniversalClient
	RedisPrefix string
	Kafka       Producer
	// Store holds conversations and people; nil: there are none, and their methods and paths answer unknown_method.
	Store *store.Store
	// KafkaConfig is for the reader of revocations.
	KafkaConfig kafkaconn.Config
	// HTTP is the listener of the HTTP API; nil: no HTTP API.
	HTTP net.Listener
	// Web are the files of the web app; nil: none.
	Web fs.FS
	// TokenKeys verify and sign tokens besides those of Config.Token.Keys.
	TokenKeys []*token.Key
	// APIKeys are API keys besides those of Config.HTTP.APIKeys, in the same form.
	APIKeys []string
	// Secret signs the push keys of the demo log-in; the same in all logic processes. Empty: a random one, good at this process only.
	Secret []byte
	// Needs are checks of shared parts that GET /readyz?verbose tells of, by name, besides router and redis.
	Needs map[string]func(context.Context) error
	// Version of the program, told by GET /v1/cluster.
	Version string
	// Clock is time.Now if nil.
	Clock func() time.Time
}

// Logic is one logic process' part.
type Logic struct {
	cfg  Config
	deps Deps
	log  *slog.Logger

	router   halleyv1.RouterClient
	push     *push.Service
	verifier *auth.Verifier
	minter   *auth.Minter
	revoked  *revoke.Registry
	rooms    *room.Service
	limiter  *limit.Limiter
	chat     *conversation.Service
	calls    *call.Service
	turn     *turn.Minter
	rpc      *rpc.Server
	http     http.Handler
}

// New builds a Logic and starts nothing.
func New(cfg Config, d Deps) (*Logic, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Clock == nil {
		d.Clock = time.Now
	}
	l := &Logic{cfg: cfg, deps: d, log: d.Log, router: halleyv1.NewRouterClient(d.Router)}

	keys, err := cfg.Token.ParseKeys()
	if err != nil {
		return nil, err
	}
	keys = append(keys, d.TokenKeys...)
	if l.verifier, err = auth.NewVerifier(cfg.Token, keys, d.Clock); err != nil {
		return nil, err
	}
	if l.minter, err = auth.NewMinter(cfg.Token, keys, d.Clock); err != nil {
		return nil, err
	}
	if l.push, err = push.New(cfg.Push, push.Deps{Log: d.Log, Metrics: d.Metrics, Producer: d.Kafka, Now: d.Clock}); err != nil {
		return nil, err
	}
	if err := cfg.checkRetention(d.KafkaConfig.RevokedRetention); err != nil {
		return nil, err
	}
	if l.revoked, err = revoke.New(cfg.Revoke, revoke.Deps{
		Log: d.Log, Metrics: d.Metrics, Producer: d.Kafka, Kafka: d.KafkaConfig, Lifetime: cfg.tokenLifetime(), Now: d.Clock,
	}); err != nil {
		return nil, err
	}
	if l.rooms, err = room.New(cfg.Room, l.push, l.router, cfg.RouterTimeout); err != nil {
		return nil, err
	}
	l.limiter = limit.New(d.Redis, d.RedisPrefix, cfg.HTTP.RateTimeout, d.Metrics)
	if l.chat, err = l.conversations(); err != nil {
		return nil, err
	}
	if l.turn, err = turn.New(cfg.Turn, cfg.Call.MaxLength, d.Clock); err != nil {
		return nil, err
	}
	if l.calls, err = l.callService(); err != nil {
		return nil, err
	}
	if l.rpc, err = rpc.New(cfg.Session, rpc.Deps{
		Log: d.Log, Metrics: d.Metrics, Router: l.router, Verifier: l.verifier, Revoked: l.revoked, Rooms: l.rooms, Push: l.push, Chat: l.chat,
		Calls: l.calls, Turn: l.turn,
		Producer: d.Kafka, TrustGoim: cfg.GoimCompat.On(), Upstream: cfg.Upstream, RouterTimeout: cfg.RouterTimeout,
		ProduceTimeout: cfg.Push.Timeout, ProduceRetry: cfg.Push.RetryAfter, Now: d.Clock,
	}); err != nil {
		return nil, err
	}
	if l.http, err = l.handler(); err != nil {
		return nil, err
	}
	return l, nil
}

// conversations makes the part that takes what concerns conversations and people.
func (l *Logic) conversations() (*conversation.Service, error) {
	d := conversation.Deps{
		Log: l.log, Metrics: l.deps.Metrics, Producer: l.deps.Kafka, Push: l.push, Limiter: l.limiter, Redis: l.deps.Redis,
		RedisPrefix: l.deps.RedisPrefix, Now: l.deps.Clock,
	}
	// Not a nil pointer in an interface that isn't nil.
	if l.deps.Store != nil {
		d.Store, d.Rules = l.deps.Store, l.deps.Store.Rules()
	}
	return conversation.New(l.cfg.Chat, d)
}

// callService makes the part that takes what concerns calls; without Redis there are none.
func (l *Logic) callService() (*call.Service, error) {
	if l.deps.Redis == nil {
		return nil, nil
	}
	return call.New(l.cfg.Call, call.Deps{
		Log: l.log, Metrics: l.deps.Metrics, Redis: l.deps.Redis, RedisPrefix: l.deps.RedisPrefix, Producer: l.deps.Kafka, Router: l.router,
		RouterTimeout: l.cfg.RouterTimeout, People: l.chat, Entries: l.chat.EntryRules(), Limiter: l.limiter,
	})
}

// Register puts logic's gRPC service on a server that the caller owns.
func (l *Logic) Register(s grpc.ServiceRegistrar) { halleyv1.RegisterLogicServer(s, l.rpc) }

// Ready returns nil when this process can serve: the revocations were read once, or may be done without.
func (l *Logic) Ready(context.Context) error { return l.revoked.Ready() }

// Run serves the HTTP API, follows the revocations and does what is due in calls until ctx ends; then it lets requests in hand end, for
// Config.StopTimeout at most, and returns nil. If one of them fails the others are ended and the error
// returned.
func (l *Logic) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg   sync.WaitGroup
		errs = make([]error, 3)
	)
	wg.Go(func() {
		defer cancel()
		errs[0] = l.revoked.Run(ctx)
	})
	if l.calls != nil {
		wg.Go(func() {
			defer cancel()
			errs[2] = l.calls.Run(ctx)
		})
	}
	if l.deps.HTTP != nil {
		wg.Go(func() {
			defer cancel()
			errs[1] = l.serveHTTP(ctx)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// maxHeaderBytes holds the longest API key, cookies of other programs at the same host, and a long path. No setting: nothing that a caller of this
// API has to say in a header is longer.
const maxHeaderBytes = 64 << 10

func (l *Logic) serveHTTP(ctx context.Context) error {
	srv := &http.Server{
		Handler: l.http, ReadHeaderTimeout: l.cfg.HTTP.ReadHeaderTimeout, ReadTimeout: l.cfg.HTTP.ReadTimeout,
		WriteTimeout: l.cfg.HTTP.WriteTimeout, IdleTimeout: l.cfg.HTTP.IdleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(l.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.StopTimeout)
		defer cancel()
		if err := srv.Shutdown(end); err != nil {
			l.log.WarnContext(ctx, "requests cut off", "err", err)
			_ = srv.Close()
		}
	})
	err := srv.Serve(l.deps.HTTP)
	if !stop() {
		// Serve returns as soon as Shutdown began; what is in hand is to end first.
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	_ = srv.Close()
	return fmt.Errorf("http api: %w", err)
}
