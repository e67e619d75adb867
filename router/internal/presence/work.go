package presence

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/google/uuid"

	"github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/proto/topic"
)

// Due work: what a change leaves to be done later, by whichever router finds it due. A member of a bucket's due set names
// it by its kind: a uid whose presence has settled, a large room whose count is to be told, a comet's empty room
// to be forgotten.

// claimedWork is work that this router has taken; due is the score under which it took it.
type claimedWork struct {
	bucket int
	member string
	due    int64
}

// Bounds of work. No settings: they are about one step of work that goes on at once with the next; how soon and how long is set by poll-interval and
// claim-time.
const (
	// claimLimit is the most work taken at once, over all buckets: so much is done well before the claim runs out.
	claimLimit = 2000
	// produceMost is the most records written at once: what fails together is lost, or tried again, together.
	produceMost = 200
)

// eventOp is the protocol's op of events.
const eventOp = int32(frame.OpEvent)

// settle does the work that is due. What fails stays, and is due again when the claim has run out.
func (s *Store) settle(ctx context.Context) error {
	for ctx.Err() == nil {
		c, err := s.leases.at(ctx)
		if err != nil {
			return err
		}
		if s.unavailable(c) > 0 {
			return nil // who isn't found now may well be there
		}
		work, err := s.claim(ctx, c)
		if err != nil || len(work) == 0 {
			return err
		}
		if err := s.settleWork(ctx, c, work); err != nil {
			return err
		}
		if len(work) < claimLimit/4 {
			return nil // the rest is so little that it can wait for the next look
		}
	}
	return nil
}

func (s *Store) settleWork(ctx context.Context, c clock, work []claimedWork) error {
	var users, rooms, empties []claimedWork
	for _, w := range work {
		switch w.member[0] {
		case kindUser:
			users = append(users, w)
		case kindRoom:
			rooms = append(rooms, w)
		case kindEmpty:
			empties = append(empties, w)
		}
	}
	return errors.Join(s.settleUsers(ctx, c, users), s.settleRooms(ctx, c, rooms), s.forgetRooms(ctx, c, empties))
}

// claim takes what is due. Looking costs one ZRANGE a bucket; only where something is due a script runs.
func (s *Store) claim(ctx context.Context, c clock) ([]claimedWork, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opt.RedisTimeout)
	defer cancel()
	var heads [name.Buckets]*redis.ZSliceCmd
	_, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range heads {
			heads[i] = p.ZRangeWithScores(ctx, s.keys.bucket[i].due, 0, 0)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var calls []*call
	var buckets []int
	for i, h := range heads {
		if v := h.Val(); len(v) > 0 && int64(v[0].Score) <= c.now {
			buckets = append(buckets, i)
		}
	}
	for _, i := range buckets {
		calls = append(calls, &call{
			script: claimScript, keys: []string{s.keys.bucket[i].due},
			args: []any{s.opt.ClaimTime.Milliseconds(), max(claimLimit/len(buckets), 1)},
		})
	}
	if err := runAll(ctx, s.redis, calls); err != nil {
		return nil, err
	}
	var out []claimedWork
	for i, k := range calls {
		res, _ := k.cmd.Slice()
		if len(res) == 0 {
			continue
		}
		due, _ := res[0].(int64)
		for _, m := range res[1:] {
			if m, _ := m.(string); m != "" {
				out = append(out, claimedWork{bucket: buckets[i], member: m, due: due})
			}
		}
	}
	return out, nil
}

// said is what is to be announced of a uid.
type said struct {
	work      claimedWork
	tenant    string
	uid       string
	online    bool
	platforms []string
	changed   bool
	untold    bool // Kafka did not take it
}

// settleUsers announces the state of uids whose sessions changed a while ago and have been quiet since.
func (s *Store) settleUsers(ctx context.Context, c clock, work []claimedWork) error {
	if len(work) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.ClaimTime/2)
	defer cancel()
	var ls lookups
	looks := make([]lookup, len(work))
	watch := make([]lookup, len(work))
	all := make([]said, len(work))
	for i, w := range work {
		_, tenant, uid := splitField(w.member)
		all[i] = said{work: w, tenant: tenant, uid: uid}
		looks[i] = ls.add(w.bucket, w.member)
		room := name.PresenceRoom(uid)
		watch[i] = ls.add(bucketOf(tenant, room), roomField(tenant, room))
	}
	if err := s.readBuckets(ctx, c, ls.reads); err != nil {
		return err
	}
	var msgs []kafka.Message
	var of []int // whom msgs are of
	for i := range all {
		a := &all[i]
		u := s.user(looks[i].value())
		a.online, a.platforms = u.state(c.live)
		a.changed = u.told || !u.isAnnounced(a.online, a.platforms)
		watchers, _ := s.room(watch[i].value()).count(c.live)
		if watchers == 0 && c.anyLive(watch[i].read.state.missing) {
			watchers = 1 // as far as is known: a comet has not said yet whether it has some
		}
		if s.opt.Hooks && a.online != u.announced {
			m, err := u.hook(c.now, a)
			if err != nil {
				return err
			}
			msgs, of = append(msgs, m), append(of, i)
		}
		if !a.changed || watchers == 0 {
			continue
		}
		p := &halleyv1.Presence{Uid: a.uid, Online: a.online, Platforms: a.platforms}
		if !a.online {
			p.LastSeen = float64(u.lastSeen)
		}
		m, err := eventRecord(c.now, a.tenant, name.PresenceRoom(a.uid), &halleyv1.Event{Event: &halleyv1.Event_Presence{Presence: p}})
		if err != nil {
			return err
		}
		msgs, of = append(msgs, m), append(of, i)
	}
	var failed error
	if len(msgs) > 0 {
		// So that there is time left to note what is told, where a part is not.
		pctx, cancel := context.WithTimeout(ctx, min(s.opt.ProduceTimeout, s.opt.ClaimTime/4))
		failed = s.producer.Produce(pctx, msgs...)
		cancel()
	}
	for i, err := range kafkaconn.Each(failed, len(msgs)) {
		if err != nil {
			s.metrics.eventsFailed.WithLabelValues("presence").Inc()
			all[of[i]].untold = true
			continue
		}
		s.metrics.events.WithLabelValues("presence").Inc()
	}
	edits := make([]*edit, 0, len(all))
	for i := range all {
		a := &all[i]
		if a.untold {
			continue // another claim tells it
		}
		e := &edit{bucket: a.work.bucket, field: a.work.member, plan: func(old string, it *item) error {
			if a.changed && old != "" {
				u := s.user(old)
				u.announced, u.platforms = a.online, a.platforms
				// Who was told something since it was read may know what it was meanwhile.
				u.told = u.told && old != looks[i].value()
				it.set(a.work.member, u.encode())
			}
			it.finished(a.work)
			return nil
		}}
		e.old, e.known = looks[i].value(), true
		edits = append(edits, e)
	}
	_, err := s.apply(ctx, guard{mode: modeWrite}, edits)
	return errors.Join(failed, err)
}

// hook makes the record by which the host's backend is told that a uid came or went.
func (u *userRecord) hook(now int64, a *said) (kafka.Message, error) {
	p := hook.Presence{Tenant: a.tenant, UID: a.uid, Online: a.online, AtMs: now, Platforms: a.platforms}
	// What is told twice, since the answer of Kafka or the claim was lost, must have the same id: the time of what it is about.
	mark := u.lastSeen
	if a.online {
		mark = math.MaxInt64
		for i := range u.sessions {
			if s := &u.sessions[i]; !s.leaving {
				mark = min(mark, s.since)
			}
		}
	} else {
		p.LastSeenMs = u.lastSeen
	}
	p.Mark = strconv.FormatInt(mark, 10)
	return p.Message()
}

// settleRooms tells the members of large rooms how many they are.
func (s *Store) settleRooms(ctx context.Context, c clock, work []claimedWork) error {
	if len(work) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.RedisTimeout)
	defer cancel()
	var ls lookups
	looks := make([]lookup, len(work))
	edits := make([]*edit, len(work))
	for i, w := range work {
		looks[i] = ls.add(w.bucket, w.member)
	}
	if err := s.readBuckets(ctx, c, ls.reads); err != nil {
		return err
	}
	for i, w := range work {
		edits[i] = &edit{bucket: w.bucket, field: w.member, old: looks[i].value(), known: true, plan: func(_ string, it *item) error {
			it.finished(w)
			return nil
		}}
	}
	// Done first: an event that is told twice costs more than one that is lost.
	if _, err := s.apply(ctx, guard{mode: modeWrite}, edits); err != nil {
		return err
	}
	for i, w := range work {
		_, tenant, room := splitField(w.member)
		if n, _ := s.room(looks[i].value()).count(c.live); n > 0 {
			s.emitRoomMember(tenant, &halleyv1.RoomMember{Room: room, Count: n})
		}
	}
	return nil
}

// forgetRooms removes the tombstones of rooms that a comet has left for long.
func (s *Store) forgetRooms(ctx context.Context, c clock, work []claimedWork) error {
	byEpoch := map[epoch][]*edit{}
	for _, w := range work {
		if len(w.member) < 18 {
			continue
		}
		e, field := epoch([]byte(w.member[1:17])), w.member[17:]
		byEpoch[e] = append(byEpoch[e], &edit{bucket: w.bucket, field: field, plan: func(old string, it *item) error {
			it.finished(w)
			rec := s.room(old)
			if i := rec.find(e); i >= 0 && rec[i].count == 0 && rec[i].at+s.opt.RoomTombstone.Milliseconds() <= c.now {
				it.set(field, rec.without(e).encode())
				it.unlist(field)
			}
			return nil
		}})
	}
	for e, edits := range byEpoch {
		ctx, cancel := context.WithTimeout(ctx, s.opt.RedisTimeout)
		_, err := s.apply(ctx, guard{epoch: e, mode: modeLeave}, edits)
		cancel()
		if err != nil && !errors.Is(err, ErrDead) {
			return err
		}
	}
	return nil
}

// eventRecord makes the record by which an event goes to all in a room.
func eventRecord(now int64, tenant, room string, ev *halleyv1.Event) (kafka.Message, error) {
	body, err := protojson.Marshal(ev)
	if err != nil {
		return kafka.Message{}, err
	}
	t := &halleyv1.Target{Target: &halleyv1.Target_Room{Room: room}}
	v, err := proto.Marshal(&halleyv1.PushRecord{
		Id: uuid.NewString(), Tenant: tenant, Class: halleyv1.Class_CLASS_VOLATILE, Targets: []*halleyv1.Target{t},
		AcceptedAtMs: now, ExpiresAtMs: now + eventTTL.Milliseconds(),
		Content: &halleyv1.PushRecord_Push{Push: &halleyv1.Push{Op: eventOp, Body: body}},
	})
	if err != nil {
		return kafka.Message{}, err
	}
	return kafka.Message{Topic: topic.Push, Key: topic.Key(tenant, t), Value: v}, nil
}

// eventTTL is how late an event may come and still be worth telling: the next one carries the state again. No setting: like other pushes of their lane,
// events are worth a minute.
const eventTTL = time.Minute

// emitRoomMember queues an event for the producer; if the queue is full it is dropped and counted.
func (s *Store) emitRoomMember(tenant string, ev *halleyv1.RoomMember) {
	if ev == nil {
		return
	}
	now := time.Now().UnixMilli()
	m, err := eventRecord(now, tenant, ev.GetRoom(), &halleyv1.Event{Event: &halleyv1.Event_RoomMember{RoomMember: ev}})
	if err != nil {
		s.metrics.eventsFailed.WithLabelValues("room.member").Inc()
		return
	}
	select {
	case s.events <- m:
	default:
		s.metrics.eventsFailed.WithLabelValues("room.member").Inc()
	}
}

// produceEvents writes queued events, as many as there are at once, until ctx ends.
func (s *Store) produceEvents(ctx context.Context) {
	for {
		var msgs []kafka.Message
		select {
		case <-ctx.Done():
			return
		case m := <-s.events:
			msgs = append(msgs, m)
		}
	more:
		for len(msgs) < produceMost {
			select {
			case m := <-s.events:
				msgs = append(msgs, m)
			default:
				break more
			}
		}
		pctx, cancel := context.WithTimeout(ctx, s.opt.ProduceTimeout)
		err := s.producer.Produce(pctx, msgs...)
		cancel()
		for _, err := range kafkaconn.Each(err, len(msgs)) {
			if err != nil {
				s.metrics.eventsFailed.WithLabelValues("room.member").Inc()
			} else {
				s.metrics.events.WithLabelValues("room.member").Inc()
			}
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("room.member events lost", "err", err)
		}
	}
}
