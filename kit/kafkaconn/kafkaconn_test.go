package kafkaconn_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/proto/topic"
)

func TestMain(m *testing.M) { kittest.Main(m) }

var quiet = slog.New(slog.DiscardHandler)

func TestProducedRecordIsInThePartitionThatPartitionNames(t *testing.T) {
	cfg := kittest.Kafka(t)
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	r := &reader{next: map[int]int64{}, keys: map[string][]string{}}
	f := kafkaconn.NewFetcher(cfg, topic.Push, quiet)
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Read(ctx, sources(cfg.Partitions, kafka.FirstOffset, r.take, never))
	for i := range 8 {
		key := fmt.Appendf(nil, "key-%d", i)
		before := r.at(p.Partition(key))
		if err := p.Produce(t.Context(), kafka.Message{Topic: topic.Push, Key: key, Value: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
		kittest.Eventually(t, 10*time.Second, func() bool { return r.at(p.Partition(key)) == before+1 }, fmt.Sprintf("key %s is elsewhere", key))
	}
}

func TestEnsureTopicsIsRepeatableAndRefusesOtherPartitions(t *testing.T) {
	cfg := kittest.Kafka(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := kafkaconn.EnsureTopics(ctx, cfg, quiet); err != nil {
		t.Fatal(err)
	}
	cfg.Partitions++
	err := kafkaconn.EnsureTopics(ctx, cfg, quiet)
	if err == nil || !strings.Contains(err.Error(), "partitions") {
		t.Fatalf("got %v, want an error about partitions", err)
	}
}

func TestProduceWithoutBrokerIsUnavailableInTime(t *testing.T) {
	cfg := kittest.Kafka(t)
	cfg.Brokers = []string{"127.0.0.1:1"}
	cfg.WriteTimeout = 300 * time.Millisecond
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := p.Produce(ctx, kafka.Message{Topic: topic.Push, Value: []byte("x")})
	if !errors.Is(err, kafkaconn.ErrUnavailable) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	if ctx.Err() != nil {
		t.Fatal("the write outlived its time limit by far")
	}
}

func TestProduceAsksTheGateFirst(t *testing.T) {
	cfg := kittest.Kafka(t)
	full := errors.New("disk nearly full")
	p := kafkaconn.NewProducer(cfg, quiet, kafkaconn.WithGate(func() error { return full }))
	defer p.Close()
	err := p.Produce(t.Context(), kafka.Message{Topic: topic.Push, Value: []byte("x")})
	if !errors.Is(err, full) || !errors.Is(err, kafkaconn.ErrUnavailable) {
		t.Fatalf("got %v, want the gate's error as ErrUnavailable", err)
	}
}

// retention asks Kafka for the retention.ms of a topic.
func retention(t *testing.T, cfg kafkaconn.Config, name string) string {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Timeout: 5 * time.Second}
	resp, err := client.DescribeConfigs(t.Context(), &kafka.DescribeConfigsRequest{
		Addr: client.Addr, Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: cfg.Topic(name), ConfigNames: []string{"retention.ms"},
		}},
	})
	if err != nil || len(resp.Resources) != 1 || resp.Resources[0].Error != nil || len(resp.Resources[0].ConfigEntries) != 1 {
		t.Fatalf("got %+v, %v", resp, err)
	}
	return resp.Resources[0].ConfigEntries[0].ConfigValue
}

func TestRevocationsAreKeptLongerWhenConfiguredAndNeverShorter(t *testing.T) {
	cfg := kittest.Kafka(t)
	if got := retention(t, cfg, topic.Revoked); got != "-1" {
		t.Fatalf("0 is for ever: got %s", got)
	}
	cfg.Prefix += "b."
	for _, step := range []struct {
		set  time.Duration
		want string
	}{{time.Hour, "3600000"}, {2 * time.Hour, "7200000"}, {time.Hour, "7200000"}, {0, "-1"}, {time.Hour, "-1"}} {
		cfg.RevokedRetention = step.set
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := kafkaconn.EnsureTopics(ctx, cfg, quiet)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		// Brokers take a moment to know what the controller was told.
		kittest.Eventually(t, 10*time.Second, func() bool { return retention(t, cfg, topic.Revoked) == step.want },
			fmt.Sprintf("set to %v, want %s", step.set, step.want))
	}
}
