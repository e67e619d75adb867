// Package push handles the topics of pushes and control deliveries: it decodes records, puts aside what it can't
// decode, and hands the rest to its lane.
package push

import (
	"context"
	"errors"

	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/job/internal/consume"
	"github.com/halley-im/halley/job/internal/dead"
	"github.com/halley-im/halley/job/internal/deliver"
	"github.com/halley-im/halley/job/internal/meter"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Handlers makes the handlers of one topic's partitions.
type Handlers struct {
	Lane  *deliver.Lane
	Meter *meter.Lane
	Dead  *dead.Letters
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
			h.Meter.Records.Inc()
			h.items = append(h.items, h.Lane.NewItem(rec, h.owner, first+uint64(i)))
			continue
		}
		h.flush(ctx)
		if !h.Dead.Put(ctx, h.partition, &msgs[i], reason) {
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
