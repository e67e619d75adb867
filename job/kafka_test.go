package job_test

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/proto/topic"
)

// own returns a cluster of tests on a Kafka that the test owns, which throws out of a group who is not heard of for so long.
func own(t *testing.T, k *kfake.Cluster, session time.Duration) *cluster {
	t.Helper()
	c := &cluster{t: t, router: startRouter(t), log: slog.New(slog.DiscardHandler), kafka: kafkaconn.Config{
		Brokers: k.ListenAddrs(), Partitions: 2, Replication: 1, MinInsync: 1, Retention: time.Hour, WriteTimeout: patience / 3,
		QueueBytes: 64 << 20, RetryMin: 20 * time.Millisecond, RetryMax: 250 * time.Millisecond, SessionTimeout: session, HeartbeatInterval: 200 * time.Millisecond,
		RebalanceTimeout: 3 * time.Second, JoinBackoff: 100 * time.Millisecond, MaxWait: 200 * time.Millisecond,
		GroupTimeout: 2 * time.Second, MetadataTTL: 500 * time.Millisecond,
	}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := kafkaconn.EnsureTopics(ctx, c.kafka, c.log); err != nil {
		t.Fatal(err)
	}
	c.prod = kafkaconn.NewProducer(c.kafka, c.log)
	return c
}

func TestCommitThatFailsIsTriedAgain(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	c := own(t, k, patience/4)
	defer c.prod.Close()
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	const failures = 3
	var asked atomic.Int32
	// The member stays in its group: nothing but another try brings the offset to Kafka.
	k.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if asked.Add(1) > failures {
			return nil, nil, false
		}
		req := kreq.(*kmsg.OffsetCommitRequest)
		resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		for _, topic := range req.Topics {
			rt := kmsg.NewOffsetCommitResponseTopic()
			rt.Topic = topic.Topic
			for _, p := range topic.Partitions {
				rp := kmsg.NewOffsetCommitResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, 14 // COORDINATOR_LOAD_IN_PROGRESS
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	r := c.start(testConfig())
	defer r.stop()
	c.push(topic.Push, record("p", toUID("anna")))
	kittest.Eventually(t, patience, func() bool { return len(a.bodies(conn(1))) == 1 }, "the record is never delivered")
	// No further record comes that would move the offset again.
	c.waitCommitted(topic.Push, 1)
	if n := r.count("commit_failures_total", "lane=push"); n != failures {
		t.Errorf("%v commits failed, want %d", n, failures)
	}
	if got := a.bodies(conn(1)); len(got) != 1 {
		t.Errorf("got %v, want the record once", got)
	}
	if n := r.count("rebalances_total", "lane=push"); n != 1 {
		t.Errorf("joined %v times, want once: the group did the work of the retry", n)
	}
}

func TestKafkaMayRestart(t *testing.T) {
	dir, port := t.TempDir(), 0
	var k *kfake.Cluster
	start := func() error {
		started, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir), kfake.GroupMinSessionTimeout(time.Second))
		if err == nil {
			k = started
		}
		return err
	}
	// Somebody else may take a port that was free a moment ago.
	kittest.Eventually(t, patience, func() bool {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return false
		}
		port = ln.Addr().(*net.TCPAddr).Port
		return ln.Close() == nil && start() == nil
	}, "no port for Kafka")
	defer func() { k.Close() }()
	c := own(t, k, 2*time.Second)
	defer c.prod.Close()
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	r := c.start(testConfig())
	defer r.stop()
	c.push(topic.Push, numbered("p", 10, toUID("anna"))...)
	c.waitCommitted(topic.Push, 10)
	k.Close()
	kittest.Eventually(t, patience, func() bool { return start() == nil }, "kafka does not start again")
	kittest.Eventually(t, patience, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return kafkaconn.EnsureTopics(ctx, c.kafka, c.log) == nil
	}, "kafka is not back")
	c.push(topic.Push, numbered("q", 10, toUID("anna"))...)
	c.waitCommitted(topic.Push, 20)
	checkFirsts(t, a.bodies(conn(1)), append(ids("p", 10), ids("q", 10)...))
	balanced(t, r)
	if n := r.count("rebalances_total", "lane=push"); n < 2 {
		t.Errorf("joined %v times, want twice: Kafka was not away", n)
	}
}
