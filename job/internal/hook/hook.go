// Package hook brings events to the host's backend by webhooks. Whoever finds that something happened writes a record to
// halley.hooks (kit/hook); this package copies it into the SQL queue of every endpoint that wants it, and only then is its offset passed:
// a receiver may be away for a day, which must hold up no partition. Senders take hooks out of that queue, in all jobs at once.
//
// What is in order is a key: a conversation, a user. A key is one sender's at a time, by a claim that ends by itself; its hooks are sent
// one after the other, and while one is to be tried again those behind it wait. So order is held over a sender's death, and a hook
// may come twice, with the same id, when one died, or was held up, between the receiver's answer and the database.
//
// Goroutines: those of Run (one for each endpoint, and one for each key in hand) end before Run returns.
package hook

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/job/internal/backoff"
	"github.com/halley-im/halley/job/internal/dead"
	"github.com/halley-im/halley/job/internal/meter"
	"github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/store"
)

// Store is the queue; store.Store is one.
type Store interface {
	PutHooks(ctx context.Context, nowMs int64, hooks []store.Hook) error
	ClaimHooks(ctx context.Context, tenant, endpoint string, nowMs, untilMs int64, keys, most int) ([]store.HookClaim, error)
	DoneHook(ctx context.Context, c *store.HookClaim, h *store.Hook) error
	ReleaseHooks(ctx context.Context, c *store.HookClaim, dueMs int64, failed bool) (bool, error)
	HookQueues(ctx context.Context) ([]store.HookQueue, error)
	HookBacklogs(ctx context.Context) ([]store.HookBacklog, error)
}

// Producer writes to Kafka; kafkaconn's is one.
type Producer interface {
	// Produce returns nil when all messages are stored.
	Produce(ctx context.Context, msgs ...kafka.Message) error
}

// Deps are what Hooks are given.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Meter    *meter.Lane
	Store    Store
	Producer Producer
	// Dead takes records that can't be decoded.
	Dead *dead.Letters
	// WriteTimeout bounds one write to Kafka, RetryMin and RetryMax space those of the database and of Kafka.
	WriteTimeout, RetryMin, RetryMax time.Duration
}

// Hooks are a job's part in webhooks. Safe for concurrent use.
type Hooks struct {
	cfg       Config
	log       *slog.Logger
	metrics   *metrics
	meter     *meter.Lane
	store     Store
	producer  Producer
	dead      *dead.Letters
	endpoints []*Endpoint
	senders   map[string]*sender

	writeTimeout, retryMin, retryMax time.Duration
	warned                           sync.Map // by call: the database's failure was logged
}

// New returns Hooks. It starts nothing.
func New(cfg Config, d Deps) (*Hooks, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(d.Metrics)
	if err != nil {
		return nil, err
	}
	h := &Hooks{
		cfg: cfg, log: d.Log.With(logs.Component, "hook"), metrics: m, meter: d.Meter, store: d.Store, producer: d.Producer, dead: d.Dead,
		senders: map[string]*sender{}, writeTimeout: d.WriteTimeout, retryMin: d.RetryMin, retryMax: d.RetryMax,
	}
	if h.endpoints, err = cfg.endpoints(); err != nil {
		return nil, err
	}
	for _, e := range h.endpoints {
		m.show(e.Name)
		h.senders[e.Name] = newSender(h, e)
		if e.open {
			h.log.Warn("webhooks go unencrypted to this endpoint", "endpoint", e.Name, "host", e.host)
		}
	}
	return h, nil
}

// Wanted reports whether any endpoint gets an event of a tenant: what nobody wants needs no work.
func (h *Hooks) Wanted(tenant, event string) bool {
	for _, e := range h.endpoints {
		if e.wants(tenant, event) {
			return true
		}
	}
	return false
}

// Offline writes messages that did not reach everybody to halley.hooks, and tries until they are there; false if ctx ended first. A
// message's offset may be passed when it returned true. What nobody wants is not written; a repeat has the same ids.
func (h *Hooks) Offline(ctx context.Context, list ...hook.Offline) bool {
	var msgs []kafka.Message
	for i := range list {
		if !h.Wanted(list[i].Tenant, hook.MessageOffline) {
			continue
		}
		m, err := list[i].Messages()
		if err != nil {
			h.metrics.large.Inc()
			h.log.Error("event dropped", logs.Tenant, list[i].Tenant, logs.Conv, list[i].Conversation, logs.Seq, list[i].Seq, logs.Err, err)
			continue
		}
		msgs = append(msgs, m...)
	}
	retry := backoff.Backoff{Min: h.retryMin, Max: h.retryMax}
	for len(msgs) > 0 {
		n := some(msgs)
		if again := h.produce(ctx, msgs[:n]); len(again) > 0 {
			msgs = append(again, msgs[n:]...)
			if !retry.Wait(ctx, 0) {
				return false
			}
			continue
		}
		retry.Reset()
		msgs = msgs[n:]
	}
	return true
}

// produce writes events once and returns those to be tried again: what is there already would be told once more.
func (h *Hooks) produce(ctx context.Context, msgs []kafka.Message) (again []kafka.Message) {
	ctx, cancel := context.WithTimeout(ctx, h.writeTimeout)
	defer cancel()
	for i, err := range kafkaconn.Each(h.producer.Produce(ctx, msgs...), len(msgs)) {
		switch {
		case err == nil:
			h.metrics.produced.WithLabelValues(hook.MessageOffline).Inc()
		case kafkaconn.TooLarge(err):
			h.metrics.large.Inc()
			h.log.Error("event dropped", "key", string(msgs[i].Key), logs.Err, err)
		default:
			again = append(again, msgs[i])
		}
	}
	return again
}

// mostBytes is how much is written at once: what does not get through in the time of one write is written again.
const mostBytes = 1 << 20

func some(msgs []kafka.Message) int {
	n, bytes := 0, 0
	for n < len(msgs) && bytes < mostBytes {
		bytes += len(msgs[n].Value)
		n++
	}
	return n
}

// databaseFailed counts a failure and logs the first one of its kind until a call succeeds.
func (h *Hooks) databaseFailed(call string, err error) {
	if errors.Is(err, store.ErrClaimLost) {
		return
	}
	h.metrics.failures.WithLabelValues(call).Inc()
	if _, told := h.warned.LoadOrStore(call, true); !told {
		h.log.Warn("webhooks wait for the database", "call", call, logs.Err, err)
	}
}

func (h *Hooks) databaseAnswers(call string) { h.warned.Delete(call) }
