package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc"

	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/kit/grpcconn"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/redisconn"
	"github.com/halley-im/halley/store"
)

type jobCmd struct {
	Common commonSettings   `embed:""`
	Kafka  kafkaconn.Config `embed:"" prefix:"kafka-" group:"kafka"`
	Redis  redisconn.Config `embed:"" prefix:"redis-" group:"redis"`
	Store  store.Config     `embed:"" prefix:"store-" group:"store"`
	Router routerTarget     `embed:"" prefix:"router-" group:"router"`
	Job    job.Config       `embed:"" prefix:"job-" group:"job"`
	Addr   jobAddr          `embed:"" prefix:"job-" group:"job"`
}

// jobAddr is where a job listens.
type jobAddr struct {
	// Private is for the operator.
	Private string `name:"private-addr" help:"Address of metrics, health and profiles." default:"127.0.0.1:3138"`
}

// Run is a job process:
//
//	Kafka ──▶ job ──▶ comets
//	           ├──▶ router (who is where)
//	           ├──▶ database (conversations)
//	           └──▶ Redis (outcomes)
func (c *jobCmd) Run(ctx context.Context, t *terminal) error {
	base, err := newLog(t, c.Common.Log)
	if err != nil {
		return err
	}
	log := base.With("role", "job")
	secret, err := c.Common.secret()
	if err != nil {
		return err
	}
	collectLater()
	p := newProcess(log)
	defer p.close()

	var privateL net.Listener
	if err := p.listenAll(ctx, secret, []listener{{c.Addr.Private, "job.private_addr", &privateL}}); err != nil {
		return err
	}

	producer := kafkaconn.NewProducer(c.Kafka, log)
	p.later(producer.Close)
	routers, err := grpcconn.Dial(c.Common.GRPC, c.Router.Target, secret)
	if err != nil {
		return fmt.Errorf("router.target: %w", err)
	}
	p.later(routers.Close)

	redis, err := redisconn.Open(c.Redis)
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	p.later(redis.Close)
	deps := job.Deps{
		Log: base, Metrics: p.metrics, Router: routers, Kafka: c.Kafka, Producer: producer, Redis: redis, RedisPrefix: c.Redis.Prefix,
		Dial: dialComet(c.Common.GRPC, secret), Name: processName("job"),
	}

	// All that this machine knows was checked; now the network.
	conversations, err := openStore(ctx, p, c.Store, c.Common.StartTimeout, log)
	if err != nil {
		return err
	}
	if conversations != nil {
		deps.Store, deps.Hooks = conversations, conversations
		p.health.Needs["redis"] = needRedis(redis)
	}
	j, err := job.New(c.Job, deps)
	if err != nil {
		return err
	}
	p.health.Needs["kafka"], p.health.Needs["router"] = needKafka(c.Kafka), needGRPC(routers)
	p.role("job", j)
	p.private(privateL)
	if err := ensureTopics(ctx, c.Kafka, c.Common.StartTimeout, log); err != nil {
		return err
	}
	return p.run(ctx)
}

// dialComet opens connections to comets by the address in their lease.
func dialComet(cfg grpcconn.Config, secret string) func(string) (*grpc.ClientConn, error) {
	return func(addr string) (*grpc.ClientConn, error) { return grpcconn.Dial(cfg, addr, secret) }
}

// processName names this process in other processes' logs.
func processName(role string) string {
	host, err := os.Hostname()
	if err != nil {
		host = role
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}
