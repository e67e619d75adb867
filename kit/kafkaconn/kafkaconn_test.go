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
	for i := range 8 {
		key := fmt.Appendf(nil, "key-%d", i)
		if err := p.Produce(t.Context(), kafka.Message{Topic: topic.Push, Key: key, Value: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
		r := kafkaconn.NewReader(cfg, topic.Push, p.Partition(key), quiet)
		if err := r.SetOffset(kafka.FirstOffset); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		for {
			m, err := r.ReadMessage(ctx)
			if err != nil {
				t.Fatalf("key %s is not in partition %d: %v", key, p.Partition(key), err)
			}
			if string(m.Key) == string(key) {
				break
			}
		}
		cancel()
		_ = r.Close()
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
