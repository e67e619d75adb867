package job_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

func TestMain(m *testing.M) { kittest.Main(m) }

// patience is what nothing takes unless something is wrong, on a busy machine with the race detector too.
const patience = time.Minute

// cluster is a Kafka, a fake router and fake comets, and jobs on them.
type cluster struct {
	t      testing.TB
	kafka  kafkaconn.Config
	router *router
	prod   *kafkaconn.Producer
	log    *slog.Logger
}

func newCluster(t testing.TB) *cluster {
	c := &cluster{t: t, kafka: kittest.Kafka(t), router: startRouter(t), log: slog.New(slog.DiscardHandler)}
	if os.Getenv("JOB_TEST_LOG") != "" {
		c.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	// Nobody is thrown out of a group, and no write has failed, because all of this stood still for a few seconds.
	c.kafka.SessionTimeout, c.kafka.RebalanceTimeout, c.kafka.WriteTimeout = patience/4, patience/2, patience/3
	c.prod = kafkaconn.NewProducer(c.kafka, c.log)
	t.Cleanup(func() { _ = c.prod.Close() })
	return c
}

// testConfig are settings for tests. What a comet, router or database does late it does in time: who wants that to be too late says so.
func testConfig() job.Config {
	return job.Config{
		BatchRecords: 100, BatchBytes: 1 << 20, InFlight: 1000, CommitInterval: ms(20), DrainTimeout: ms(500), LagInterval: ms(100),
		ChatInFlight: 1000, ChatInFlightBytes: 8 << 20, ChatMembers: 1000, OutcomeTimeout: patience / 4,
		LocateTimeout: patience / 4, WaitMax: patience / 4, DeadTimeout: patience / 4, LocateNames: 100, RetryMin: ms(10), RetryMax: ms(100),
		ChatPurgeInterval: ms(60_000),
		WindowCount:       64, WindowBytes: 1 << 20, WindowReserve: 64, MessageCount: 16, MessageBytes: 64 << 10, DeliveryConns: 10,
		StallAfter: patience, CondemnAfter: 2 * patience, CheckInterval: ms(100), RefusedFor: patience / 4, ConnectTimeout: patience / 4,
	}
}

// running is one job.
type running struct {
	*job.Job
	reg    *prometheus.Registry
	cancel context.CancelFunc
	done   sync.WaitGroup
	err    error
	c      *cluster
}

// start runs a job until the test ends or stop is called, and waits until it is ready.
func (c *cluster) start(cfg job.Config, change ...func(*job.Deps)) *running {
	c.t.Helper()
	cc, err := dial(c.router.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	r := &running{reg: prometheus.NewRegistry(), c: c}
	deps := job.Deps{
		Log: c.log, Metrics: r.reg, Router: cc, Kafka: c.kafka, Producer: c.prod, Name: "job-test",
		Dial: func(addr string) (*grpc.ClientConn, error) { return dial(addr) },
	}
	for _, f := range change {
		f(&deps)
	}
	if r.Job, err = job.New(cfg, deps); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.done.Go(func() { r.err = r.Run(ctx) })
	c.t.Cleanup(func() {
		r.stop()
		_ = cc.Close()
	})
	kittest.Eventually(c.t, patience, func() bool { return r.Ready(ctx) == nil }, "job not ready")
	return r
}

func (r *running) stop() {
	r.c.t.Helper()
	r.cancel()
	r.done.Wait()
	if r.err != nil {
		r.c.t.Errorf("job ended with %v", r.err)
	}
}

// record makes a push record with defaults.
func record(id string, targets ...*halleyv1.Target) *halleyv1.PushRecord {
	return &halleyv1.PushRecord{
		Id: id, Tenant: "default", Class: halleyv1.Class_CLASS_VOLATILE, Targets: targets, AcceptedAtMs: time.Now().UnixMilli(),
		Content: &halleyv1.PushRecord_Push{Push: &halleyv1.Push{Op: 1000, Body: []byte(id)}},
	}
}

func control(id string, targets ...*halleyv1.Target) *halleyv1.PushRecord {
	rec := record(id, targets...)
	rec.Class = halleyv1.Class_CLASS_CONTROL
	rec.Content = &halleyv1.PushRecord_Control{Control: &halleyv1.Control{Control: &halleyv1.Control_Resync{Resync: &halleyv1.ResyncSession{}}}}
	return rec
}

func toUID(uid string) *halleyv1.Target {
	return &halleyv1.Target{Target: &halleyv1.Target_Uid{Uid: uid}}
}
func toKey(key string) *halleyv1.Target {
	return &halleyv1.Target{Target: &halleyv1.Target_Key{Key: key}}
}
func toRoom(room string) *halleyv1.Target {
	return &halleyv1.Target{Target: &halleyv1.Target_Room{Room: room}}
}
func toAll() *halleyv1.Target { return &halleyv1.Target{Target: &halleyv1.Target_All{All: true}} }
func toConn(comet, epoch, id string) *halleyv1.Target {
	return &halleyv1.Target{Target: &halleyv1.Target_Conn{Conn: &halleyv1.Conn{Comet: comet, Epoch: epoch, Id: id}}}
}

// push writes records to a topic, in order.
func (c *cluster) push(name string, recs ...*halleyv1.PushRecord) {
	c.t.Helper()
	var msgs []kafka.Message
	for _, rec := range recs {
		value, err := proto.Marshal(rec)
		if err != nil {
			c.t.Fatal(err)
		}
		msgs = append(msgs, kafka.Message{Topic: name, Key: topic.Key(rec.GetTenant(), rec.GetTargets()[0]), Value: value})
	}
	c.produce(msgs...)
}

func (c *cluster) produce(msgs ...kafka.Message) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.prod.Produce(ctx, msgs...); err != nil {
		c.t.Fatal(err)
	}
}

// count returns the sum of a counter or gauge over all series whose labels include want, "label=value".
func (r *running) count(name string, want ...string) float64 {
	r.c.t.Helper()
	return gathered(r.c.t, r.reg, name, want...)
}

// has reports whether there is such a metric.
func (r *running) has(name string, want ...string) bool {
	r.c.t.Helper()
	fams, err := r.reg.Gather()
	if err != nil {
		r.c.t.Fatal(err)
	}
	for _, f := range fams {
		if f.GetName() == "halley_job_"+name && slices.ContainsFunc(f.GetMetric(), func(m *dto.Metric) bool { return hasAll(m, want) }) {
			return true
		}
	}
	return false
}

func gathered(t testing.TB, reg prometheus.Gatherer, name string, want ...string) float64 {
	t.Helper()
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range fams {
		if f.GetName() != "halley_job_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			if hasAll(m, want) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func hasAll(m *dto.Metric, want []string) bool {
	for _, w := range want {
		ok := false
		for _, l := range m.GetLabel() {
			ok = ok || l.GetName()+"="+l.GetValue() == w
		}
		if !ok {
			return false
		}
	}
	return true
}

// balanced waits until everything that was taken has ended, and fails if the ledger does not come out even.
func balanced(t testing.TB, jobs ...*running) {
	t.Helper()
	sum := func(name string) (n float64) {
		for _, r := range jobs {
			n += r.count(name)
		}
		return n
	}
	var line string
	ok := func() bool {
		targets, delivered, dropped, handed := sum("targets_total"), sum("delivered_total"), sum("dropped_total"), sum("handed_over_total")
		line = fmt.Sprintf("targets %v, delivered %v, dropped %v, handed over %v", targets, delivered, dropped, handed)
		return targets == delivered+dropped+handed
	}
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("delivered + dropped + handed over = targets does not hold: %s", line)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// committed returns the sum of the group's committed offsets over the partitions of a topic.
func (c *cluster) committed(name string) int64 {
	c.t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(c.kafka.Brokers...), Timeout: patience / 2, Transport: &kafka.Transport{}}
	defer client.Transport.(*kafka.Transport).CloseIdleConnections()
	req := &kafka.OffsetFetchRequest{GroupID: c.kafka.Group(topic.Group(name)), Topics: map[string][]int{c.kafka.Topic(name): {}}}
	for i := range c.kafka.Partitions {
		req.Topics[c.kafka.Topic(name)] = append(req.Topics[c.kafka.Topic(name)], i)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience/2)
	defer cancel()
	resp, err := client.OffsetFetch(ctx, req)
	if err != nil {
		c.t.Fatal(err)
	}
	sum := int64(0)
	for _, p := range resp.Topics[c.kafka.Topic(name)] {
		sum += max(0, p.CommittedOffset)
	}
	return sum
}

func (c *cluster) waitCommitted(name string, want int64) {
	c.t.Helper()
	var have int64
	deadline := time.Now().Add(patience)
	for {
		if have = c.committed(name); have == want {
			return
		}
		if have > want || time.Now().After(deadline) {
			c.t.Fatalf("committed offsets of %s sum up to %d, want %d", name, have, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
