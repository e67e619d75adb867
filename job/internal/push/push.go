// Package push handles the topics of pushes and control deliveries: it decodes records, puts aside what it can't
// decode, and hands the rest to its lane.
package push

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/job/internal/backoff"
	"github.com/halley-im/halley/job/internal/consume"
	"github.com/halley-im/halley/job/internal/deliver"
	"github.com/halley-im/halley/job/internal/meter"
	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/proto/topic"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Producer writes dead letters.
type Producer interface {
	// Produce returns nil when all messages are stored. ctx has a deadline.
	Produce(ctx context.Context, msgs ...kafka.Message) error
}

// Handlers makes the handlers of one topic's partitions.
type Handlers struct {
	Topic string
	Lane  *deliver.Lane
	Meter *meter.Lane
	Dead  Producer
	Log   *slog.Logger
	// Timeout bounds one write of a dead letter; RetryMin and RetryMax space the next tries.
	Timeout, RetryMin, RetryMax time.Duration
}

// New returns the handler of a partition.
func (h *Handlers) New(p *consume.Partition) consume.Handler {
	return &handler{Handlers: h, owner: p, partition: p.ID}
}

type handler struct {
	*Handlers
	owner     deliver.Owner
	partition int
	items     []*deliver.Item
	work      deliver.Work
}

// Handle delivers records. One that can't be decoded is written to the dead letters first, however long that takes: what comes
// behind it waits, since the offset would otherwise pass it.
func (h *handler) Handle(ctx context.Context, first uint64, msgs []kafka.Message) {
	h.items = h.items[:0]
	for i := range msgs {
		rec, reason := Decode(msgs[i].Value)
		if reason == "" {
			h.items = append(h.items, h.Lane.NewItem(rec, h.owner, first+uint64(i)))
			continue
		}
		h.flush(ctx)
		if !h.putAside(ctx, &msgs[i], reason) {
			return
		}
		h.owner.Done(first + uint64(i))
	}
	h.flush(ctx)
}

func (h *handler) flush(ctx context.Context) {
	if len(h.items) > 0 {
		h.Lane.Deliver(ctx, h.items, &h.work)
		clear(h.items)
		h.items = h.items[:0]
	}
}

// putAside writes a record to the dead letters as it is, and tries until it is stored; false if ctx ended first. A letter that
// Kafka refuses for what it is, as one that the headers made too large, is shortened: it would hold up its partition for ever.
func (h *handler) putAside(ctx context.Context, m *kafka.Message, reason string) bool {
	h.Log.Warn("record not decoded, put aside", logs.Topic, h.Topic, logs.Partition, h.partition, logs.Offset, m.Offset, "reason", reason)
	letter := kafka.Message{Topic: topic.Dead, Key: m.Key, Value: m.Value, Headers: append(m.Headers[:len(m.Headers):len(m.Headers)],
		kafka.Header{Key: topic.HeaderReason, Value: []byte(reason)},
		kafka.Header{Key: topic.HeaderTopic, Value: []byte(h.Topic)},
		kafka.Header{Key: topic.HeaderPartition, Value: []byte(strconv.Itoa(h.partition))},
		kafka.Header{Key: topic.HeaderOffset, Value: []byte(strconv.FormatInt(m.Offset, 10))},
	)}
	retry := backoff.Backoff{Min: h.RetryMin, Max: h.RetryMax}
	told, cut := false, false
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, h.Timeout)
		err := h.Dead.Produce(try, letter)
		cancel()
		if err == nil {
			h.Meter.Dead.Inc()
			return true
		}
		h.Meter.DeadFails.Inc()
		if code, ok := refusal(err); ok {
			if !told {
				told = true
				h.Log.Error("dead letter refused, what lies behind it waits", logs.Topic, h.Topic, logs.Partition, h.partition, logs.Offset, m.Offset, logs.Err, err)
			}
			if !cut && unfit(code) {
				cut = true
				letter = shorten(letter, m)
				continue
			}
		}
		if !retry.Wait(ctx, 0) {
			return false
		}
	}
	return false
}

// What is kept of a record that Kafka refused whole: enough to see what it is, and far below what any broker refuses. No settings: where the whole
// record lies, the letter says.
const (
	cutKeyBytes   = 256
	cutValueBytes = 16 << 10
)

// shorten returns letter with what is needed to find m, and its beginning.
func shorten(letter kafka.Message, m *kafka.Message) kafka.Message {
	size := len(m.Key) + len(m.Value)
	for _, own := range m.Headers {
		size += len(own.Key) + len(own.Value)
	}
	letter.Key = m.Key[:min(len(m.Key), cutKeyBytes)]
	letter.Value = m.Value[:min(len(m.Value), cutValueBytes)]
	letter.Headers = append(letter.Headers[len(m.Headers):], kafka.Header{Key: topic.HeaderCut, Value: []byte(strconv.Itoa(size))})
	return letter
}

// refusal returns the error that Kafka itself answered with, if another try of the same can't be expected to do better.
func refusal(err error) (kafka.Error, bool) {
	var code kafka.Error
	return code, errors.As(err, &code) && !code.Temporary()
}

// unfit reports whether a refusal is about the record, so that a shorter one may pass. Others, such as a missing right, are about
// this job: when they are mended the record is written whole.
func unfit(code kafka.Error) bool {
	switch code {
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidRecord, kafka.PolicyViolation:
		return true
	}
	return false
}

// Reasons why a record is put aside.
const (
	BadProtobuf = "malformed"
	BadTenant   = "bad_tenant"
	NoContent   = "no_content"
	NoTarget    = "no_target"
	BadTarget   = "bad_target"
)

// Decode decodes a record and checks what router and comet rely on. On a record that can't be carried out it returns the reason.
func Decode(value []byte) (rec *halleyv1.PushRecord, reason string) {
	rec = &halleyv1.PushRecord{}
	if proto.Unmarshal(value, rec) != nil {
		return nil, BadProtobuf
	}
	if name.Tenant(rec.GetTenant()) != nil {
		return nil, BadTenant
	}
	switch c := rec.GetContent().(type) {
	case *halleyv1.PushRecord_Push:
		if c.Push == nil {
			return nil, NoContent
		}
	case *halleyv1.PushRecord_Control:
		if c.Control.GetControl() == nil {
			return nil, NoContent
		}
	default:
		return nil, NoContent
	}
	if len(rec.GetTargets()) == 0 {
		return nil, NoTarget
	}
	for _, t := range rec.GetTargets() {
		if !valid(t) {
			return nil, BadTarget
		}
	}
	return rec, ""
}

// valid reports whether router can be asked for a target. One name that it refused would hold up its whole batch for ever.
func valid(t *halleyv1.Target) bool {
	switch to := t.GetTarget().(type) {
	case *halleyv1.Target_Uid:
		return name.UID(to.Uid) == nil
	case *halleyv1.Target_Key:
		return name.Key(to.Key) == nil
	case *halleyv1.Target_Room:
		// Rooms of the system's own are addressed by the system itself.
		err := name.Room(to.Room)
		return err == nil || errors.Is(err, errcode.RoomReserved)
	case *halleyv1.Target_All:
		return to.All
	case *halleyv1.Target_Conn:
		return to.Conn.GetId() != "" && to.Conn.GetEpoch() != ""
	}
	return false
}
