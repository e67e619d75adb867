// Package job is the role that brings what is in Kafka to comets: it takes pushes, control deliveries and what is said in
// conversations out of their topics, stores the last, asks router where the addressees are, and streams deliveries to those
// comets. It keeps nothing of its own: what it had in hand when it ends is read again by whoever has its partitions next.
//
// The way of a record: internal/consume reads it, internal/push decodes it, internal/deliver locates, groups and streams it and
// counts what became of it; when comets have acknowledged it, internal/consume commits its offset. Records of conversations go
// through internal/sequence instead of internal/push, which has them stored first. Events for webhooks go into the database by
// internal/hook, which sends them from there.
package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"

	"github.com/halley-im/halley/job/internal/consume"
	"github.com/halley-im/halley/job/internal/dead"
	"github.com/halley-im/halley/job/internal/deliver"
	"github.com/halley-im/halley/job/internal/hook"
	"github.com/halley-im/halley/job/internal/locate"
	"github.com/halley-im/halley/job/internal/meter"
	"github.com/halley-im/halley/job/internal/purge"
	"github.com/halley-im/halley/job/internal/push"
	"github.com/halley-im/halley/job/internal/sequence"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/logs"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

// Producer writes dead letters; kafkaconn's is one.
type Producer = dead.Producer

// Store keeps conversations; store.Store is one.
type Store interface {
	sequence.Store
	purge.Store
}

// HookStore is the queue of webhooks; store.Store is one.
type HookStore = hook.Store

// Deps are what job is given.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Router is a connection to the routers, balanced over them.
	Router grpc.ClientConnInterface
	// Kafka says where the topics are; they exist.
	Kafka kafkaconn.Config
	// Producer writes records that can't be decoded to the topic of dead letters.
	Producer Producer
	// Store is where conversations are kept. Nil: their topic is left alone.
	Store Store
	// Hooks is the queue of webhooks. Nil: their topic is left alone, and nothing is sent.
	Hooks HookStore
	// Redis takes outcomes that somebody waits for, and marks of how far conversations have come, below RedisPrefix. May be nil.
	Redis       redis.UniversalClient
	RedisPrefix string
	// Dial returns a new connection to a comet by the address in its lease. It does not wait until it stands. Job closes it.
	Dial func(addr string) (*grpc.ClientConn, error)
	// Name of this process, told to comets for their logs.
	Name string
}

// Job is the role. New builds it, Run runs it, once.
type Job struct {
	cfg       Config
	log       *slog.Logger
	hub       *deliver.Hub
	consumers []*consume.Consumer
	// hooks is nil without a queue.
	hooks *hook.Hooks
	// appender is nil without a store.
	appender *sequence.Appender
	// purge is nil without a store.
	purge *purge.Purge
	ended atomic.Bool
}

// lanes are those whose topics hold PushRecords; that of conversations holds ChatRecords.
var lanes = []halleyv1.Lane{halleyv1.Lane_LANE_URGENT, halleyv1.Lane_LANE_PUSH, halleyv1.Lane_LANE_BULK}

// New builds a Job. It starts nothing.
func New(cfg Config, deps Deps) (*Job, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	all := lanes
	if deps.Store != nil {
		all = append(all[:len(all):len(all)], halleyv1.Lane_LANE_CHAT)
	}
	m, err := meter.New(deps.Metrics, all)
	if err != nil {
		return nil, fmt.Errorf("job's metrics: %w", err)
	}
	log := deps.Log
	hub := deliver.New(deliver.Config{
		Name: deps.Name, WindowCount: cfg.WindowCount, WindowBytes: cfg.WindowBytes, Reserve: cfg.WindowReserve,
		MessageCount: cfg.MessageCount, MessageBytes: cfg.MessageBytes, StallAfter: cfg.StallAfter, CondemnAfter: cfg.CondemnAfter,
		CheckInterval: cfg.CheckInterval, RefusedFor: cfg.RefusedFor, ConnectTimeout: cfg.ConnectTimeout,
		RetryMin: cfg.RetryMin, RetryMax: cfg.RetryMax, Conns: cfg.DeliveryConns,
	}, log, m, locate.New(deps.Router, m, cfg.LocateTimeout, cfg.LocateNames), deps.Dial, all)
	j := &Job{cfg: cfg, log: log, hub: hub}
	letters := func(of *meter.Lane, name, component string) *dead.Letters {
		return &dead.Letters{
			Topic: name, Meter: of, Producer: deps.Producer, Log: log.With(logs.Component, component),
			Timeout: cfg.DeadTimeout, RetryMin: cfg.RetryMin, RetryMax: cfg.RetryMax,
		}
	}
	reading := consume.Config{
		BatchRecords: cfg.BatchRecords, BatchBytes: cfg.BatchBytes, InFlight: cfg.InFlight, CommitInterval: cfg.CommitInterval,
		LagInterval: cfg.LagInterval,
		// No heartbeat is sent while a generation drains: the broker must not take the member for dead.
		DrainTimeout: min(cfg.DrainTimeout, deps.Kafka.SessionTimeout/3),
	}
	for _, lane := range lanes {
		name := topic.ForLane(lane)
		h := &push.Handlers{Lane: hub.Lane(lane), Meter: m.Lanes[lane], Dead: letters(m.Lanes[lane], name, "push")}
		j.consumers = append(j.consumers, consume.New(reading, deps.Kafka, name, log, m, m.Lanes[lane], h.New))
	}
	if deps.Hooks == nil && (len(cfg.Hook.Endpoints) > 0 || cfg.Hook.File != "") {
		return nil, errors.New("job: hook-endpoints: webhooks need a database, and none is set")
	}
	if deps.Hooks != nil {
		if j.hooks, err = hook.New(cfg.Hook, hook.Deps{
			Log: log, Metrics: deps.Metrics, Meter: m.Hooks, Store: deps.Hooks, Producer: deps.Producer, Dead: letters(m.Hooks, topic.Hooks, "hook"),
			WriteTimeout: cfg.DeadTimeout, RetryMin: cfg.RetryMin, RetryMax: cfg.RetryMax,
		}); err != nil {
			return nil, fmt.Errorf("job: %w", err)
		}
		j.consumers = append(j.consumers, consume.New(reading, deps.Kafka, topic.Hooks, log, m, m.Hooks, j.hooks.NewHandler))
	}
	if deps.Store != nil {
		const lane = halleyv1.Lane_LANE_CHAT
		var hooks sequence.Hooks // not a nil *hook.Hooks
		if j.hooks != nil {
			hooks = j.hooks
		}
		j.appender = sequence.NewAppender(deps.Store)
		h := &sequence.Handlers{
			Lane: hub.Lane(lane), Meter: m, Records: m.Lanes[lane], Dead: letters(m.Lanes[lane], topic.Chat, "sequence"), Store: deps.Store, Appender: j.appender,
			Hooks: hooks, Redis: deps.Redis, Prefix: deps.RedisPrefix, RedisTimeout: cfg.OutcomeTimeout, Log: log.With(logs.Component, "sequence"),
			RetryMin: cfg.RetryMin, RetryMax: cfg.RetryMax, Members: cfg.ChatMembers, Large: cfg.ChatLarge, RoomAfter: cfg.ChatRoomAfter,
		}
		j.purge = &purge.Purge{
			Store: deps.Store, Log: log.With(logs.Component, "purge"), Every: cfg.ChatPurgeInterval, Audit: cfg.ChatAuditKeep, Rejections: cfg.ChatRejectionsKeep,
			Purged: m.Chat.Purged,
		}
		reading.InFlight, reading.InFlightBytes = cfg.ChatInFlight, cfg.ChatInFlightBytes
		j.consumers = append(j.consumers, consume.New(reading, deps.Kafka, topic.Chat, log, m, m.Lanes[lane], h.New))
	}
	return j, nil
}

// Run works until ctx ends: then it leaves its groups, waits a little for acknowledgements, commits, and ends its
// streams. It returns an error if a consumer could not go on.
func (j *Job) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ending := context.AfterFunc(ctx, func() { j.ended.Store(true) })
	defer ending()
	// Streams outlive the consumers, whose last act is to wait for acknowledgements.
	streaming, stop := context.WithCancel(context.WithoutCancel(ctx))
	var hub sync.WaitGroup
	hub.Go(func() { j.hub.Run(streaming) })
	defer hub.Wait()
	defer stop()

	failed := make(chan error, len(j.consumers))
	var consuming sync.WaitGroup
	for _, c := range j.consumers {
		consuming.Go(func() {
			if err := c.Run(ctx); err != nil {
				failed <- fmt.Errorf("%v: %w", c, err)
				cancel() // the others end too: a job that reads some topics only would look healthy
			}
		})
	}
	if j.hooks != nil {
		consuming.Go(func() { j.hooks.Run(ctx) })
	}
	if j.purge != nil {
		consuming.Go(func() { j.purge.Run(ctx) })
	}
	consuming.Wait()
	if j.appender != nil {
		j.appender.Wait()
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

var (
	errNotJoined = errors.New("consumer groups not joined yet")
	errEnding    = errors.New("ending")
)

// Ready returns nil from when job has joined all its groups until it is to end.
func (j *Job) Ready(context.Context) error {
	if j.ended.Load() {
		return errEnding
	}
	for _, c := range j.consumers {
		if !c.Joined() {
			return errNotJoined
		}
	}
	return nil
}
