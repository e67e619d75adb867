package hook

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/job/internal/backoff"
	"github.com/halley-im/halley/job/internal/consume"
	"github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/kit/logs"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/store"
)

// payload is a webhook's body, in the form that Standard Webhooks recommends.
type payload struct {
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"`
	Tenant    string          `json:"tenant"`
	Data      json.RawMessage `json:"data"`
}

// NewHandler returns the handler of a partition of halley.hooks.
func (h *Hooks) NewHandler(p *consume.Partition) consume.Handler {
	return &handler{Hooks: h, done: p.Done, partition: p.ID}
}

type handler struct {
	*Hooks
	done      func(uint64)
	partition int
}

// Handle puts records into the queue of every endpoint that wants them, all of a batch in one transaction, and tries until they are
// there. One that can't be decoded goes to the dead letters.
func (h *handler) Handle(ctx context.Context, first uint64, msgs []kafka.Message) {
	var hooks []store.Hook
	var events []string
	// A webhook's day begins in the queue: however long Kafka held it while the database was away.
	now := time.Now().UnixMilli()
	for i := range msgs {
		rec, err := decode(msgs[i].Value)
		if err != nil {
			if !h.dead.Put(ctx, h.partition, &msgs[i], err.Error()) {
				return
			}
			continue
		}
		body, err := json.Marshal(payload{rec.GetType(), time.UnixMilli(rec.GetAtMs()).UTC(), rec.GetTenant(), rec.GetData()})
		if err != nil {
			h.log.Error("webhook's body", logs.Err, err) // it was found to be JSON
			continue
		}
		wanted := false
		for _, e := range h.endpoints {
			if e.wants(rec.GetTenant(), rec.GetType()) {
				wanted = true
				hooks = append(hooks, store.Hook{
					Tenant: rec.GetTenant(), Endpoint: e.Name, Key: rec.GetKey(), Number: msgs[i].Offset, ID: rec.GetId(),
					CreatedAtMs: now, Body: body,
				})
			}
		}
		if !wanted {
			events = append(events, rec.GetType())
		}
	}
	if !h.put(ctx, hooks) {
		return
	}
	for _, ev := range events {
		h.metrics.unwanted.WithLabelValues(known(ev)).Inc()
	}
	h.meter.Records.Add(float64(len(msgs)))
	for i := range msgs {
		h.done(first + uint64(i))
	}
}

// mostHooks is the most that go into one transaction.
const mostHooks = 500

// put tries until all are in the queue; false if ctx ended first. What fails is tried in smaller parts: a database that is too slow
// for many at once would else never get them done, and the partition would wait for ever.
func (h *Hooks) put(ctx context.Context, hooks []store.Hook) bool {
	retry := backoff.Backoff{Min: h.retryMin, Max: h.retryMax}
	for size := mostHooks; len(hooks) > 0; {
		part := hooks[:min(size, len(hooks))]
		if err := h.store.PutHooks(ctx, time.Now().UnixMilli(), part); err != nil {
			if ctx.Err() != nil {
				return false
			}
			h.databaseFailed("put", err)
			size = max(1, len(part)/2)
			if !retry.Wait(ctx, 0) {
				return false
			}
			continue
		}
		h.databaseAnswers("put")
		retry.Reset()
		size = min(mostHooks, 4*size)
		hooks = hooks[len(part):]
		for i := range part {
			h.metrics.queued.WithLabelValues(part[i].Endpoint).Inc()
			h.senders[part[i].Endpoint].wake(part[i].Tenant)
		}
	}
	return true
}

// known bounds the values of a label.
func known(event string) string {
	for _, e := range hook.Events {
		if e == event {
			return e
		}
	}
	return "other"
}

// Errors of records; their texts are the reasons in the header of a dead letter.
var (
	errProtobuf = errors.New("malformed")
	errTenant   = errors.New("bad_tenant")
	errID       = errors.New("bad_id")
	errKey      = errors.New("bad_key")
	errType     = errors.New("no_type")
	errTime     = errors.New("bad_time")
	errData     = errors.New("bad_data")
)

// maxType is the longest name of an event.
const maxType = 64

// decode reads a record and checks all that the queue and HTTP's headers need.
func decode(value []byte) (*halleyv1.HookRecord, error) {
	rec := &halleyv1.HookRecord{}
	if proto.Unmarshal(value, rec) != nil {
		return nil, errProtobuf
	}
	if name.Tenant(rec.GetTenant()) != nil {
		return nil, errTenant
	}
	if id := rec.GetId(); len(id) == 0 || len(id) > store.MaxHookID || !plainText(id) {
		return nil, errID
	}
	if k := rec.GetKey(); len(k) == 0 || len(k) > store.MaxHookKey {
		return nil, errKey
	}
	if t := rec.GetType(); len(t) == 0 || len(t) > maxType {
		return nil, errType
	}
	var object map[string]json.RawMessage
	if len(rec.GetData()) > hook.MaxData || json.Unmarshal(rec.GetData(), &object) != nil || object == nil {
		return nil, errData
	}
	if at := rec.GetAtMs(); at < 0 || at > maxTime {
		return nil, errTime
	}
	return rec, nil
}

// maxTime is the end of the year 9999, beyond which a time can't be written as RFC 3339 wants it.
const maxTime = 253402300799999

// plainText reports whether s has letters, digits, - and _ alone: it becomes a header, and a part of what is signed, which is divided by
// full stops.
func plainText(s string) bool {
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}
