package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net"

	"github.com/halley-im/halley/kit/grpcconn"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/redisconn"
	"github.com/halley-im/halley/logic"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/web"
)

type logicCmd struct {
	Common commonSettings   `embed:""`
	Kafka  kafkaconn.Config `embed:"" prefix:"kafka-" group:"kafka"`
	Redis  redisconn.Config `embed:"" prefix:"redis-" group:"redis"`
	Store  store.Config     `embed:"" prefix:"store-" group:"store"`
	Router routerTarget     `embed:"" prefix:"router-" group:"router"`
	Logic  logic.Config     `embed:"" prefix:"logic-" group:"logic"`
	Addr   logicAddr        `embed:"" prefix:"logic-" group:"logic"`
}

// logicAddr is where a logic listens, beyond what its Config has.
type logicAddr struct {
	// Private is for the operator.
	Private string `name:"private-addr" help:"Address of metrics, health and profiles." default:"127.0.0.1:3118"`
}

// Run is a logic process:
//
//	backend ──▶ HTTP ──┐
//	                   ├──▶ logic ──▶ Kafka
//	comet ───▶ gRPC ───┘      ├──▶ router
//	                          ├──▶ Redis (limits, idempotency)
//	                          └──▶ database, where one is set
func (c *logicCmd) Run(ctx context.Context, t *terminal) error {
	base, err := newLog(t, c.Common.Log)
	if err != nil {
		return err
	}
	log := base.With("role", "logic")
	secret, err := c.Common.secret()
	if err != nil {
		return err
	}
	collectLater()
	p := newProcess(log)
	defer p.close()

	var httpL, grpcL, privateL net.Listener
	if err := p.listenAll(ctx, secret, []listener{
		{c.Logic.HTTPAddr, "logic.http_addr", &httpL}, {c.Logic.GRPCAddr, "logic.grpc_addr", &grpcL},
		{c.Addr.Private, "logic.private_addr", &privateL},
	}); err != nil {
		return err
	}
	if err := logic.CheckOpen(c.Logic, addrs(httpL, grpcL), log); err != nil {
		return err
	}

	producer := kafkaconn.NewProducer(c.Kafka, log)
	p.later(producer.Close)
	redis, err := redisconn.Open(c.Redis)
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	p.later(redis.Close)
	conversations, err := openStore(ctx, p, c.Store, c.Common.StartTimeout, log)
	if err != nil {
		return err
	}
	needs := map[string]func(context.Context) error{"kafka": needKafka(c.Kafka)}
	if conversations != nil {
		needs["database"] = conversations.Ping
	}
	routers, err := grpcconn.Dial(c.Common.GRPC, c.Router.Target, secret)
	if err != nil {
		return fmt.Errorf("router.target: %w", err)
	}
	p.later(routers.Close)

	l, err := logic.New(c.Logic, logic.Deps{
		Log: log, Metrics: p.metrics, Router: routers, Redis: redis, RedisPrefix: c.Redis.Prefix, Kafka: producer, KafkaConfig: c.Kafka,
		Store: conversations, HTTP: httpL, Web: web.Files(), Secret: demoSecret(secret), Version: version, Needs: needs,
	})
	if err != nil {
		return err
	}
	server := grpcconn.NewServer(c.Common.GRPC, secret, grpcconn.MaxAge(c.Common.GRPC))
	l.Register(server)

	p.health.Needs["kafka"], p.health.Needs["redis"] = needKafka(c.Kafka), needRedis(redis)
	p.health.Needs["router"] = needGRPC(routers)
	p.role("logic", l)
	p.grpc("logic", grpcL, server, c.Common.GRPC.StopTimeout)
	p.private(privateL)

	// All that this machine knows was checked; now the network.
	if err := ensureTopics(ctx, c.Kafka, c.Common.StartTimeout, log); err != nil {
		return err
	}
	return p.run(ctx)
}

// demoSecret returns what signs the push keys of the demo log-in, the same in all logics of a cluster; nil where
// there is no cluster.
func demoSecret(clusterSecret string) []byte {
	if clusterSecret == "" {
		return nil
	}
	mac := hmac.New(sha256.New, []byte(clusterSecret))
	mac.Write([]byte("demo push keys"))
	return mac.Sum(nil)
}
