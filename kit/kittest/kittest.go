// Package kittest is what the tests of several modules need: a leak check, waiting for a condition, and Kafka
// and Redis, in this process or real ones.
package kittest

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/halley-im/halley/kit/embedded"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/redisconn"
)

// Variables that name real servers, host:port, to be used instead of the embedded ones.
const (
	EnvKafka = "HALLEY_TEST_KAFKA"
	EnvRedis = "HALLEY_TEST_REDIS"
)

// Main runs a package's tests and fails if they leave a goroutine behind.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m,
		// kafka-go's default transport and the connections of its writers end in their own time after Close.
		goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"),
		goleak.IgnoreAnyFunction("github.com/segmentio/kafka-go.(*connPool).discover"),
		goleak.IgnoreAnyFunction("github.com/segmentio/kafka-go.(*conn).run"),
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/maintnotifications.(*CircuitBreakerManager).cleanupLoop"),
	)
}

// Eventually waits until cond holds, and fails the test if it doesn't within limit.
func Eventually(t testing.TB, limit time.Duration, cond func() bool, msg ...any) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; !cond(); pause = min(2*pause, 50*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(append([]any{"condition not met within", limit}, msg...)...)
		}
		time.Sleep(pause)
	}
}

// Kafka returns the configuration of a Kafka that has all topics, under a prefix of this test's own. Times are short, but for those that a test
// process which stands still for some seconds would outlive.
func Kafka(t testing.TB) kafkaconn.Config {
	t.Helper()
	cfg := kafkaconn.Config{
		Prefix: unique(), Partitions: 4, Replication: 1, MinInsync: 1, Retention: time.Hour,
		WriteTimeout: 10 * time.Second, QueueBytes: 64 << 20, RetryMin: 20 * time.Millisecond, RetryMax: 250 * time.Millisecond,
		SessionTimeout: 4 * time.Second, HeartbeatInterval: 250 * time.Millisecond, RebalanceTimeout: 5 * time.Second,
		JoinBackoff: 100 * time.Millisecond, MaxWait: 200 * time.Millisecond, GroupTimeout: 2 * time.Second, MetadataTTL: 500 * time.Millisecond,
		CheckTimeout: time.Second,
	}
	if addr := os.Getenv(EnvKafka); addr != "" {
		cfg.Brokers = strings.Split(addr, ",")
	} else {
		k, err := embedded.StartKafka(embedded.KafkaConfig{MinSession: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(k.Close)
		cfg.Brokers = k.Addrs()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := kafkaconn.EnsureTopics(ctx, cfg, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Redis returns a client and a key prefix of this test's own.
func Redis(t testing.TB) (redis.UniversalClient, string) {
	t.Helper()
	addr := os.Getenv(EnvRedis)
	if addr == "" {
		r, err := embedded.StartRedis()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		addr = r.Addr()
	}
	// A process that stands still for seconds, as one among many does, is no Redis that is away: a command that is tried again for that may count twice.
	c, err := redisconn.Open(redisconn.Config{Addrs: []string{addr}, Timeout: 15 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, unique()
}

func unique() string { return "t" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12] + "." }
