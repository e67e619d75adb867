package revoke_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/auth"
	"github.com/halley-im/halley/logic/internal/fake"
	"github.com/halley-im/halley/logic/internal/revoke"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

func TestMain(m *testing.M) { kittest.Main(m) }

var start = time.Date(2026, 5, 4, 3, 2, 1, 500e6, time.UTC)

// patience is how long is waited for what comes: a process that stands still for seconds, as one among many does, is no failure of Kafka.
const patience = 30 * time.Second

func config() revoke.Config {
	return revoke.Config{Retry: 20 * time.Millisecond, Sweep: 50 * time.Millisecond, Timeout: patience}
}

// clock is a clock that a test moves.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time { return start.Add(time.Duration(c.offset.Load())) }

func registry(t *testing.T, d revoke.Deps, c revoke.Config) *revoke.Registry {
	t.Helper()
	d.Log = slog.New(slog.DiscardHandler)
	if d.Now == nil {
		d.Now = func() time.Time { return start }
	}
	r, err := revoke.New(c, d)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// run runs r until the test ends, or until the function that it returns is called.
func run(t *testing.T, r *revoke.Registry) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestRevokedTokensAreThoseIssuedBefore(t *testing.T) {
	r := registry(t, revoke.Deps{Producer: &fake.Producer{}, Lifetime: time.Hour}, config())
	if err := r.Revoke(t.Context(), "red", "ann", "", start); err != nil {
		t.Fatal(err)
	}
	if err := r.Revoke(t.Context(), "red", "bob", "phone", start); err != nil {
		t.Fatal(err)
	}
	before, after := start.Add(-time.Millisecond), start
	for _, tt := range []struct {
		name string
		c    auth.Claims
		want bool
	}{
		{"before", auth.Claims{Tenant: "red", UID: "ann", IssuedAt: before}, true},
		{"before, of any device", auth.Claims{Tenant: "red", UID: "ann", DeviceID: "d", IssuedAt: before}, true},
		{"after", auth.Claims{Tenant: "red", UID: "ann", IssuedAt: after}, false},
		{"in whole seconds, of the same second", auth.Claims{Tenant: "red", UID: "ann", IssuedAt: start.Truncate(time.Second)}, true},
		{"without iat", auth.Claims{Tenant: "red", UID: "ann"}, true},
		{"another tenant's equal name", auth.Claims{Tenant: "blue", UID: "ann", IssuedAt: before}, false},
		{"another user", auth.Claims{Tenant: "red", UID: "eve", IssuedAt: before}, false},
		{"the device", auth.Claims{Tenant: "red", UID: "bob", DeviceID: "phone", IssuedAt: before}, true},
		{"another device", auth.Claims{Tenant: "red", UID: "bob", DeviceID: "tablet", IssuedAt: before}, false},
		{"no device", auth.Claims{Tenant: "red", UID: "bob", IssuedAt: before}, false},
	} {
		if got := r.Revoked(&tt.c); got != tt.want {
			t.Errorf("%s: got %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestRevokeRefusesWhatIsWrong(t *testing.T) {
	p := &fake.Producer{}
	r := registry(t, revoke.Deps{Producer: p}, config())
	for name, err := range map[string]error{
		"tenant":        r.Revoke(t.Context(), "Red", "ann", "", start),
		"uid":           r.Revoke(t.Context(), "red", "", "", start),
		"device":        r.Revoke(t.Context(), "red", "ann", "a b", start),
		"in the future": r.Revoke(t.Context(), "red", "ann", "", start.Add(time.Second)),
		"no time":       r.Revoke(t.Context(), "red", "ann", "", time.Time{}),
	} {
		if !errors.Is(err, errcode.InvalidRequest) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if p.Calls() != 0 {
		t.Error("something was written")
	}
}

func TestRevocationThatKafkaDoesNotTakeDoesNotHold(t *testing.T) {
	p := &fake.Producer{}
	p.Fail(errors.New("no broker"))
	r := registry(t, revoke.Deps{Producer: p}, config())
	if err := r.Revoke(t.Context(), "red", "ann", "", start); !errors.Is(err, errcode.Unavailable) {
		t.Errorf("got %v", err)
	}
	if r.Revoked(&auth.Claims{Tenant: "red", UID: "ann"}) {
		t.Error("this logic alone holds it")
	}
}

// ownKafka is kittest's, where a write has patience.
func ownKafka(t *testing.T) kafkaconn.Config {
	t.Helper()
	cfg := kittest.Kafka(t)
	cfg.WriteTimeout = patience
	return cfg
}

func producer(t *testing.T, cfg kafkaconn.Config) *kafkaconn.Producer {
	t.Helper()
	p := kafkaconn.NewProducer(cfg, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func TestOtherLogicsFollowAndNewOnesReadAll(t *testing.T) {
	cfg := ownKafka(t)
	p := producer(t, cfg)
	deps := revoke.Deps{Producer: p, Kafka: cfg, Lifetime: time.Hour}
	first, second := registry(t, deps, config()), registry(t, deps, config())
	if err := first.Ready(); !errors.Is(err, errcode.Unavailable) {
		t.Errorf("before anything was read: got %v", err)
	}
	run(t, first)
	run(t, second)
	kittest.Eventually(t, patience, func() bool { return first.Ready() == nil && second.Ready() == nil }, "an empty topic is read")

	ann := &auth.Claims{Tenant: "red", UID: "ann", IssuedAt: start.Add(-time.Second)}
	if err := first.Revoke(t.Context(), "red", "ann", "", start); err != nil {
		t.Fatal(err)
	}
	if !first.Revoked(ann) {
		t.Error("the logic that was asked doesn't know it at once")
	}
	kittest.Eventually(t, patience, func() bool { return second.Revoked(ann) }, "the other one follows")

	// A record that nobody can read must not hide those after it.
	if err := p.Produce(t.Context(), kafka.Message{Topic: topic.Revoked, Key: []byte("x"), Value: []byte("\xff\xff\xff")}); err != nil {
		t.Fatal(err)
	}
	if err := first.Revoke(t.Context(), "red", "bob", "", start); err != nil {
		t.Fatal(err)
	}
	third := registry(t, deps, config())
	run(t, third)
	kittest.Eventually(t, patience, func() bool { return third.Ready() == nil }, "a full topic is read")
	if !third.Revoked(ann) || !third.Revoked(&auth.Claims{Tenant: "red", UID: "bob"}) {
		t.Error("ready, but doesn't know all")
	}
}

func TestEntryIsForgottenWhenItsTokensHaveExpired(t *testing.T) {
	cfg := ownKafka(t)
	c := &clock{}
	r := registry(t, revoke.Deps{Producer: producer(t, cfg), Kafka: cfg, Lifetime: time.Hour, Now: c.now}, config())
	run(t, r)
	kittest.Eventually(t, patience, func() bool { return r.Ready() == nil }, "read")
	ann := &auth.Claims{Tenant: "red", UID: "ann"}
	if err := r.Revoke(t.Context(), "red", "ann", "", start); err != nil {
		t.Fatal(err)
	}
	c.offset.Store(int64(59 * time.Minute))
	if !r.Revoked(ann) {
		t.Error("forgotten too early")
	}
	c.offset.Store(int64(61 * time.Minute))
	kittest.Eventually(t, patience, func() bool { return !r.Revoked(ann) }, "forgotten")
}

func TestExpiredRecordsAreNotReadBack(t *testing.T) {
	cfg := ownKafka(t)
	p := producer(t, cfg)
	for uid, expires := range map[string]time.Time{"old": start.Add(-time.Second), "new": start.Add(time.Hour)} {
		b, err := proto.Marshal(&halleyv1.RevokedRecord{Tenant: "red", Uid: uid, IssuedBeforeMs: start.UnixMilli(), ExpiresAtMs: expires.UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Produce(t.Context(), kafka.Message{Topic: topic.Revoked, Key: []byte(uid), Value: b}); err != nil {
			t.Fatal(err)
		}
	}
	r := registry(t, revoke.Deps{Producer: p, Kafka: cfg}, config())
	run(t, r)
	kittest.Eventually(t, patience, func() bool { return r.Ready() == nil }, "read")
	if r.Revoked(&auth.Claims{Tenant: "red", UID: "old"}) || !r.Revoked(&auth.Claims{Tenant: "red", UID: "new"}) {
		t.Error("got the wrong ones")
	}
}

func failures(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	list, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if f.GetName() == "halley_logic_revocation_read_failures_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

func TestRevocationsThatDoNotComeAreMissed(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	cfg := ownKafka(t)
	cfg.Brokers = k.ListenAddrs()
	if err := kafkaconn.EnsureTopics(t.Context(), cfg, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	p := kafkaconn.NewProducer(cfg, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = p.Close() })
	c := config()
	c.Timeout = 500 * time.Millisecond
	reg := prometheus.NewRegistry()
	following := cfg
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hangs.Close() })
	following.Brokers = append([]string{hangs.Addr().String()}, cfg.Brokers...)
	following.WriteTimeout = 500 * time.Millisecond
	r := registry(t, revoke.Deps{Kafka: following, Producer: p, Metrics: reg}, c)
	run(t, r)
	kittest.Eventually(t, patience, func() bool { return r.Ready() == nil }, "one broker hangs, and the list is not read")
	had := failures(t, reg)

	var sick atomic.Bool
	sick.Store(true)
	const fetchKey = 1
	k.ControlKey(fetchKey, func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		return nil, errors.New("sick"), sick.Load()
	})
	other := registry(t, revoke.Deps{Kafka: cfg, Producer: p}, config())
	if err := other.Revoke(t.Context(), "red", "ann", "", start); err != nil {
		t.Fatal(err)
	}
	kittest.Eventually(t, patience, func() bool { return failures(t, reg) > had }, "nobody is told that revocations don't come")
	sick.Store(false)
	ann := auth.Claims{Tenant: "red", UID: "ann", IssuedAt: start.Add(-time.Second)}
	kittest.Eventually(t, patience, func() bool { return r.Revoked(&ann) })
}

func TestWithoutKafkaItIsNotReadyUnlessConfigured(t *testing.T) {
	away := kafkaconn.Config{Brokers: []string{"127.0.0.1:1"}, MaxWait: 100 * time.Millisecond}
	cfg := config()
	cfg.Timeout = 200 * time.Millisecond
	r := registry(t, revoke.Deps{Producer: &fake.Producer{}, Kafka: away}, cfg)
	stop := run(t, r)
	if err := r.Ready(); !errors.Is(err, errcode.Unavailable) || errcode.From(err).RetryAfter == 0 {
		t.Errorf("got %v", err)
	}
	stop()
	if err := r.Ready(); err == nil {
		t.Error("ready without having read anything")
	}
	cfg.Unread = true
	if err := registry(t, revoke.Deps{Producer: &fake.Producer{}, Kafka: away}, cfg).Ready(); err != nil {
		t.Errorf("where that is configured: got %v", err)
	}
}
