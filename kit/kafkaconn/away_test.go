package kafkaconn_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/proto/topic"
)

// hangs returns the address of a broker that takes connections and never answers.
func hangs(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func TestCheckTellsWhetherKafkaAnswersNow(t *testing.T) {
	cfg := kittest.Kafka(t)
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	cfg.CheckTimeout = 10 * time.Second
	cfg.Brokers = append([]string{hangs(t)}, k.ListenAddrs()...)
	for range 2 {
		if err := kafkaconn.Check(t.Context(), cfg); err != nil {
			t.Fatalf("one broker answers, and one hangs: %v", err)
		}
	}
	k.Close()
	cfg.CheckTimeout = 200 * time.Millisecond
	if err := kafkaconn.Check(t.Context(), cfg); err == nil {
		t.Error("no broker answers, and none is missed")
	}
}

func TestRefusalIsNotTakenForAbsence(t *testing.T) {
	cfg := kittest.Kafka(t)
	cfg.Prefix += "b."
	cfg.Replication = 30
	err := kafkaconn.EnsureTopics(t.Context(), cfg, quiet)
	if err == nil || kafkaconn.IsConnErr(err) || !kafkaconn.IsAnswer(err) {
		t.Errorf("got %v, want what Kafka answered", err)
	}
	cfg.Brokers, cfg.WriteTimeout = []string{"127.0.0.1:1"}, 200*time.Millisecond
	if err := kafkaconn.EnsureTopics(t.Context(), cfg, quiet); !kafkaconn.IsConnErr(err) || kafkaconn.IsAnswer(err) {
		t.Errorf("got %v, want that there is no broker", err)
	}
	cfg.Brokers = []string{hangs(t)}
	if err := kafkaconn.EnsureTopics(t.Context(), cfg, quiet); !kafkaconn.IsConnErr(err) || kafkaconn.IsAnswer(err) {
		t.Errorf("got %v, want that no broker answers", err)
	}
}

func TestBrokerThatHangsKeepsNobodyFromHisGroup(t *testing.T) {
	cfg := kittest.Kafka(t)
	cfg.GroupTimeout = time.Second
	cfg.Brokers = append([]string{hangs(t)}, cfg.Brokers...)
	g, err := kafkaconn.NewGroup(cfg, topic.Push, topic.Group(topic.Push), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		gen, err := g.Next(ctx)
		if ctx.Err() != nil {
			t.Fatal("never joined")
		}
		if err != nil {
			continue
		}
		if n := len(gen.Assignments[cfg.Topic(topic.Push)]); n != cfg.Partitions {
			t.Errorf("got %d partitions, want %d", n, cfg.Partitions)
		}
		return
	}
}
