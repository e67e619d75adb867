// Package router is the role that knows who is where. It keeps nothing of its own: presence is in Redis
// (internal/presence), any number of routers serve it at once, and each of them does its share of what falls due.
package router

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/router/internal/presence"
	"github.com/halley-im/halley/router/internal/rpc"
)

// Producer writes records to Kafka. It returns nil only when all are acknowledged.
type Producer interface {
	Produce(ctx context.Context, msgs ...kafka.Message) error
}

// Deps is what a router is given. It closes none of it.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Redis is the client; its own time-outs should not be longer than Config.RedisTimeout.
	Redis redis.UniversalClient
	// RedisPrefix is the first part of every key.
	RedisPrefix string
	// Producer takes presence and room.member events, and those for webhooks.
	Producer Producer
}

// Router is one router.
type Router struct {
	store   *presence.Store
	service *rpc.Service
}

// New returns a router. It starts nothing and sends nothing yet.
func New(c Config, d Deps) (*Router, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if d.Redis == nil || d.Producer == nil || d.RedisPrefix == "" {
		return nil, errors.New("router: Redis, its prefix and a producer are needed")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	pm, err := presence.NewMetrics(d.Metrics)
	if err != nil {
		return nil, err
	}
	rm, err := rpc.NewMetrics(d.Metrics)
	if err != nil {
		return nil, err
	}
	s := presence.New(d.Redis, d.Producer, d.Log.With("component", "presence"), pm, c.options(d.RedisPrefix))
	return &Router{store: s, service: rpc.New(s, rpc.Config{LeaseTTL: c.LeaseTTL, Timeout: c.RedisTimeout, MaxNames: c.MaxNames}, rm)}, nil
}

func (c *Config) options(prefix string) presence.Options {
	o := presence.Options{
		Prefix: prefix, LeaseTTL: c.LeaseTTL, LeaseCache: c.LeaseCache, WarmUp: c.WarmUp, LookGap: c.LookGap,
		MarkerWindow: c.MarkerWindow, EpochTombstone: c.EpochTombstone, ConnTombstone: c.ConnTombstone,
		RoomTombstone: c.RoomTombstone, GhostAge: c.GhostAge, SettleDelay: c.SettleDelay, CountDelay: c.RoomCountDelay,
		PollInterval: c.PollInterval, ReapInterval: c.ReapInterval, ClaimTime: c.ClaimTime, SweepInterval: c.SweepInterval,
		OrphanAge: c.OrphanAge, LastSeenFor: c.LastSeenFor, RedisTimeout: c.RedisTimeout, ProduceTimeout: c.ProduceTimeout,
		MemberLimit: c.RoomListMax, Hooks: c.PresenceHooks,
	}
	return o.WithDefaults()
}

// Register puts the gRPC service on a server that the caller owns. It may serve before Run.
func (r *Router) Register(g grpc.ServiceRegistrar) { halleyv1.RegisterRouterServer(g, r.service) }

// Run does what falls due until ctx ends, and returns when all that it started has ended. It never fails: without
// Redis it goes on trying.
func (r *Router) Run(ctx context.Context) error {
	r.store.Run(ctx)
	return nil
}

// Ready reports whether Redis can be reached.
func (r *Router) Ready(ctx context.Context) error { return r.store.Ready(ctx) }
