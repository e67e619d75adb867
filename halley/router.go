package main

import (
	"context"
	"fmt"
	"net"

	"github.com/halley-im/halley/kit/grpcconn"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/redisconn"
	"github.com/halley-im/halley/router"
)

type routerCmd struct {
	Common commonSettings   `embed:""`
	Kafka  kafkaconn.Config `embed:"" prefix:"kafka-" group:"kafka"`
	Redis  redisconn.Config `embed:"" prefix:"redis-" group:"redis"`
	Router router.Config    `embed:"" prefix:"router-" group:"router"`
	Addr   routerAddr       `embed:"" prefix:"router-" group:"router"`
}

// routerAddr is where a router listens.
type routerAddr struct {
	// GRPC is for comet, logic and job.
	GRPC string `name:"grpc-addr" help:"Address of the gRPC server for comet, logic and job." default:"127.0.0.1:3129"`
	// Private is for the operator.
	Private string `name:"private-addr" help:"Address of metrics, health and profiles." default:"127.0.0.1:3128"`
}

// Run is a router process:
//
//	comet, logic, job ──▶ gRPC ──▶ router ──▶ Redis
//	                                  └──▶ Kafka (presence events)
func (c *routerCmd) Run(ctx context.Context, t *terminal) error {
	base, err := newLog(t, c.Common.Log)
	if err != nil {
		return err
	}
	log := base.With("role", "router")
	secret, err := c.Common.secret()
	if err != nil {
		return err
	}
	collectLater()
	p := newProcess(log)
	defer p.close()

	var grpcL, privateL net.Listener
	if err := p.listenAll(ctx, secret, []listener{
		{c.Addr.GRPC, "router.grpc_addr", &grpcL}, {c.Addr.Private, "router.private_addr", &privateL},
	}); err != nil {
		return err
	}

	producer := kafkaconn.NewProducer(c.Kafka, log)
	p.later(producer.Close)
	redis, err := redisconn.Open(c.Redis)
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	p.later(redis.Close)

	r, err := router.New(c.Router, router.Deps{
		Log: log, Metrics: p.metrics, Redis: redis, RedisPrefix: c.Redis.Prefix, Producer: producer,
	})
	if err != nil {
		return err
	}
	server := grpcconn.NewServer(c.Common.GRPC, secret, grpcconn.MaxAge(c.Common.GRPC))
	r.Register(server)

	p.health.Needs["kafka"], p.health.Needs["redis"] = needKafka(c.Kafka), r.Ready
	p.group.Add("router", r.Run)
	p.grpc("router", grpcL, server, c.Common.GRPC.StopTimeout)
	p.private(privateL)

	// All that this machine knows was checked; now the network.
	if err := ensureTopics(ctx, c.Kafka, c.Common.StartTimeout, log); err != nil {
		return err
	}
	return p.run(ctx)
}
