package push

import (
	"time"

	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/proto/topic"
)

// check judges r and fills in its defaults.
func (s *Service) check(r *Request) error {
	if err := name.Tenant(r.Tenant); err != nil {
		return err
	}
	if !r.System && !frame.Op(r.Op).Pushable() {
		return errcode.OpReserved
	}
	if int64(len(r.Body)) > s.cfg.MaxBodyBytes {
		return errcode.TooLarge.Errorf("body: at most %d bytes", s.cfg.MaxBodyBytes)
	}
	n := len(r.UIDs) + len(r.Keys) + len(r.Rooms)
	if r.All && n > 0 {
		return errcode.InvalidRequest.Errorf("targets: all stands alone")
	}
	if n+len(r.ExcludeUIDs)+len(r.ExcludeKeys) > s.cfg.MaxTargets {
		return errcode.TooLarge.Errorf("targets and exclusions: at most %d", s.cfg.MaxTargets)
	}
	for _, uids := range [...][]string{r.UIDs, r.ExcludeUIDs} {
		for _, uid := range uids {
			if err := name.UID(uid); err != nil {
				return err
			}
		}
	}
	for _, keys := range [...][]string{r.Keys, r.ExcludeKeys} {
		for _, key := range keys {
			if err := name.Key(key); err != nil {
				return err
			}
		}
	}
	for _, room := range r.Rooms {
		if r.System && name.RoomReserved(room) {
			continue
		}
		if err := name.Room(room); err != nil {
			return err
		}
	}
	if r.Speed > 0 && !r.All {
		return errcode.InvalidRequest.Errorf("speed: only with all")
	}
	return s.defaults(r)
}

func (s *Service) defaults(r *Request) error {
	if r.All {
		r.Lane = halleyv1.Lane_LANE_BULK
	}
	var ttl time.Duration
	switch r.Lane {
	case halleyv1.Lane_LANE_UNSPECIFIED:
		r.Lane, ttl = halleyv1.Lane_LANE_PUSH, s.cfg.NormalTTL
	case halleyv1.Lane_LANE_PUSH:
		ttl = s.cfg.NormalTTL
	case halleyv1.Lane_LANE_URGENT:
		ttl = s.cfg.UrgentTTL
	case halleyv1.Lane_LANE_BULK:
		ttl = s.cfg.BulkTTL
	default:
		return errcode.InvalidRequest.Errorf("lane: urgent, push or bulk")
	}
	switch {
	case r.TTL == 0:
		r.TTL = ttl
	case r.TTL < 0 || r.TTL > s.cfg.MaxTTL:
		return errcode.InvalidRequest.Errorf("ttl: more than 0, at most %s", s.cfg.MaxTTL)
	}
	if r.Class == halleyv1.Class_CLASS_UNSPECIFIED {
		r.Class = halleyv1.Class_CLASS_VOLATILE
	}
	if r.ID == "" {
		r.ID = newID()
	}
	return nil
}

// build appends r's records to msgs. On an error msgs is as before.
func (s *Service) build(msgs []kafka.Message, r *Request) (Result, []kafka.Message, error) {
	if err := s.check(r); err != nil {
		return Result{}, msgs, err
	}
	now := s.now()
	rec := &halleyv1.PushRecord{
		Id: r.ID, Tenant: r.Tenant, Class: r.Class, ExcludeUids: r.ExcludeUIDs, ExcludeKeys: r.ExcludeKeys,
		AcceptedAtMs: now.UnixMilli(), ExpiresAtMs: now.Add(r.TTL).UnixMilli(), Speed: r.Speed,
		Content: &halleyv1.PushRecord_Push{Push: &halleyv1.Push{Op: r.Op, Body: r.Body}},
	}
	before := len(msgs)
	msgs, err := s.split(msgs, topic.ForLane(r.Lane), rec, targetsOf(r))
	if err != nil {
		return Result{}, msgs[:before], err
	}
	return Result{ID: r.ID, AcceptedAt: now, Records: len(msgs) - before}, msgs, nil
}

func targetsOf(r *Request) []*halleyv1.Target {
	ts := make([]*halleyv1.Target, 0, len(r.UIDs)+len(r.Keys)+len(r.Rooms)+1)
	for _, uid := range r.UIDs {
		ts = append(ts, UIDTarget(uid))
	}
	for _, key := range r.Keys {
		ts = append(ts, KeyTarget(key))
	}
	for _, room := range r.Rooms {
		ts = append(ts, RoomTarget(room))
	}
	if r.All {
		ts = append(ts, &halleyv1.Target{Target: &halleyv1.Target_All{All: true}})
	}
	return ts
}

func (s *Service) buildControl(tenant string, targets []*halleyv1.Target, except []string, c *halleyv1.Control) ([]kafka.Message, error) {
	if err := name.Tenant(tenant); err != nil {
		return nil, err
	}
	rec := &halleyv1.PushRecord{
		Id: newID(), Tenant: tenant, Class: halleyv1.Class_CLASS_CONTROL, AcceptedAtMs: s.now().UnixMilli(), ExcludeUids: except,
		Content: &halleyv1.PushRecord_Control{Control: c},
	}
	return s.split(nil, topic.Urgent, rec, targets)
}

// split appends rec to msgs once for each partition of targets, or oftener where one partition has more than a
// record may hold. All but the targets is the same in all of them; the key is the first target's. Targets keep
// their order.
func (s *Service) split(msgs []kafka.Message, top string, rec *halleyv1.PushRecord, targets []*halleyv1.Target) ([]kafka.Message, error) {
	switch len(targets) {
	case 0:
		return msgs, nil
	case 1:
		rec.Targets = targets
		return appendRecord(msgs, top, topic.Key(rec.Tenant, targets[0]), rec)
	}
	type part struct {
		number  int
		key     []byte
		targets []*halleyv1.Target
	}
	// Partitions are few: a scan beats a map.
	parts := make([]part, 0, 16)
next:
	for _, t := range targets {
		key := topic.Key(rec.Tenant, t)
		number := s.producer.Partition(key)
		for i := range parts {
			// A full part is left as it is; the scan from the front finds the one that is being filled last.
			if p := &parts[i]; p.number == number && len(p.targets) < s.cfg.RecordTargets {
				p.targets = append(p.targets, t)
				continue next
			}
		}
		parts = append(parts, part{number: number, key: key, targets: []*halleyv1.Target{t}})
	}
	var err error
	for i := range parts {
		rec.Targets = parts[i].targets
		if msgs, err = appendRecord(msgs, top, parts[i].key, rec); err != nil {
			return msgs, err
		}
	}
	return msgs, nil
}

func appendRecord(msgs []kafka.Message, top string, key []byte, rec *halleyv1.PushRecord) ([]kafka.Message, error) {
	value, err := proto.Marshal(rec)
	if err != nil {
		// Only a string that isn't UTF-8 fails, and the names were checked.
		return msgs, errcode.InvalidRequest.Errorf("a name is not UTF-8")
	}
	return append(msgs, kafka.Message{Topic: top, Key: key, Value: value}), nil
}
