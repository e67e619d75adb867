// Package revoke keeps the list of revoked tokens: those of a uid, or of one device of it, that were issued
// before a time. The list is the Kafka topic halley.revoked, of one partition; each logic reads it whole when it
// starts and follows it. An entry is forgotten when the last token that it is about would have expired.
//
// Run is the package's only goroutine, the caller's own. All else is safe for concurrent use.
package revoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/logic/internal/auth"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/proto/topic"
)

// Config says how the list is kept.
type Config struct {
	// Unread lets clients log in before the list was read once, which is when Kafka is away at start: then a revoked token may
	// pass until it is back.
	Unread bool `help:"Let clients log in before the list was read once: revoked tokens may pass while Kafka is away at start."`
	// Retry is the wait between attempts to read while Kafka is away.
	Retry time.Duration `help:"Wait between attempts to read the list while Kafka is away." default:"1s"`
	// Sweep is how often expired entries are forgotten, and Kafka is asked whether there is more than was read.
	Sweep time.Duration `help:"How often expired entries are forgotten, and Kafka is asked whether there are revocations that were not read." default:"1m"`
	// Timeout is how long a revocation waits for Kafka.
	Timeout time.Duration `help:"How long a revocation waits for Kafka." default:"5s"`
}

// Validate checks the times.
func (c Config) Validate() error {
	if c.Retry <= 0 || c.Sweep <= 0 || c.Timeout <= 0 {
		return errors.New("revoke: retry, sweep and timeout must be more than 0")
	}
	return nil
}

// Producer writes records to Kafka; kafkaconn.Producer is one.
type Producer interface {
	Produce(ctx context.Context, msgs ...kafka.Message) error
}

// Deps are what a Registry works with.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Producer Producer
	Kafka    kafkaconn.Config
	// Lifetime is the longest life of a token; 0: tokens may live for ever.
	Lifetime time.Duration
	// Now is the clock; time.Now.
	Now func() time.Time
}

// Registry is the list.
type Registry struct {
	cfg      Config
	log      *slog.Logger
	producer Producer
	kafka    kafkaconn.Config
	lifetime time.Duration
	now      func() time.Time
	metrics  *metrics

	mu      sync.RWMutex
	entries map[string]entry
	read    bool
}

// entry is what holds for one (tenant, uid, device); device is empty for all of them.
type entry struct {
	before int64
	// expires is 0 for an entry that is never forgotten.
	expires int64
}

// New makes a Registry that knows nothing yet.
func New(cfg Config, d Deps) (*Registry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	m, err := newMetrics(d.Metrics)
	if err != nil {
		return nil, err
	}
	return &Registry{
		cfg: cfg, log: d.Log, producer: d.Producer, kafka: d.Kafka, lifetime: d.Lifetime, now: d.Now, metrics: m, entries: map[string]entry{},
	}, nil
}

// Revoke makes the tokens of a uid that were issued before a time void; deviceID not empty: only those of that device. It returns
// when Kafka has the record; this process knows it then, others within milliseconds. Sessions that live are not
// ended: kick them. Errors carry a code.
func (r *Registry) Revoke(ctx context.Context, tenant, uid, deviceID string, before time.Time) error {
	for _, err := range [...]error{name.Tenant(tenant), name.UID(uid), name.Device("device_id", deviceID)} {
		if err != nil {
			return err
		}
	}
	now := r.now()
	if before.IsZero() || before.After(now) {
		return errcode.InvalidRequest.Errorf("before: not in the future")
	}
	rec := &halleyv1.RevokedRecord{Tenant: tenant, Uid: uid, DeviceId: deviceID, IssuedBeforeMs: before.UnixMilli()}
	if r.lifetime > 0 {
		// A token of before that time may have been dated ahead by a signer's clock, hence from now.
		rec.ExpiresAtMs = now.Add(r.lifetime).UnixMilli()
	}
	value, err := proto.Marshal(rec)
	if err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	msg := kafka.Message{Topic: topic.Revoked, Key: topic.Join(tenant, uid, deviceID), Value: value}
	if err := r.producer.Produce(ctx, msg); err != nil {
		return fmt.Errorf("%w: %w", errcode.Unavailable.After(remote.RetryAfter), err)
	}
	r.put(rec)
	return nil
}

// Revoked reports whether a token with these claims is void. A token without iat is void by any entry of its uid or
// device. One whose iat has whole seconds counts as issued at the second's begin: after a revocation a new one may be refused for the
// rest of that second.
func (r *Registry) Revoked(c *auth.Claims) bool {
	var issued int64
	if !c.IssuedAt.IsZero() {
		issued = c.IssuedAt.UnixMilli()
	}
	return r.revoked(c.Tenant, c.UID, "", issued) || c.DeviceID != "" && r.revoked(c.Tenant, c.UID, c.DeviceID, issued)
}

func (r *Registry) revoked(tenant, uid, device string, issued int64) bool {
	key := topic.Join(tenant, uid, device)
	r.mu.RLock()
	e, ok := r.entries[string(key)]
	r.mu.RUnlock()
	return ok && issued < e.before
}

// Ready returns nil once the list was read whole, or may be done without; else errcode.Unavailable.
func (r *Registry) Ready() error {
	if r.cfg.Unread {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.read {
		return errcode.Unavailable.After(remote.RetryAfter)
	}
	return nil
}

func (r *Registry) put(rec *halleyv1.RevokedRecord) {
	if e := rec.GetExpiresAtMs(); e != 0 && e <= r.now().UnixMilli() {
		return
	}
	key := string(topic.Join(rec.GetTenant(), rec.GetUid(), rec.GetDeviceId()))
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.entries[key]
	if !ok {
		e.expires = rec.GetExpiresAtMs()
	}
	// Entries only ever grow, so that reading the topic again changes nothing.
	e.before = max(e.before, rec.GetIssuedBeforeMs())
	if rec.GetExpiresAtMs() == 0 || e.expires == 0 {
		e.expires = 0
	} else {
		e.expires = max(e.expires, rec.GetExpiresAtMs())
	}
	r.entries[key] = e
	r.metrics.entries.Set(float64(len(r.entries)))
}

func (r *Registry) sweep() {
	now := r.now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, e := range r.entries {
		if e.expires != 0 && e.expires <= now {
			delete(r.entries, k)
		}
	}
	r.metrics.entries.Set(float64(len(r.entries)))
}
