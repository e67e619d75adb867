package presence

import (
	"context"
	"fmt"
	"slices"
	"time"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// roomEdit is one room's change on its way into presence.
type roomEdit struct {
	ch    *halleyv1.RoomChange
	field string
	total uint32 // sessions in the room after it, over live comets
	event *halleyv1.RoomMember
	edit  *edit
}

// UpdateRooms stores a comet's changes of rooms; those with an older number than is stored are ignored. It returns the
// sessions in each room over all live comets, and the buckets without the epoch's marker.
func (s *Store) UpdateRooms(ctx context.Context, id string, changes []*halleyv1.RoomChange) (counts, lost []uint32, err error) {
	e, err := needEpoch(id)
	if err != nil {
		return nil, nil, err
	}
	rooms := make([]*roomEdit, len(changes))
	for i, ch := range changes {
		if err := checkRoom(ch.GetTenant(), ch.GetRoom()); err != nil {
			return nil, nil, err
		}
		rooms[i] = &roomEdit{ch: ch, field: roomField(ch.GetTenant(), ch.GetRoom())}
	}
	err = s.decide(ctx, func(c clock) error {
		l, err := s.updateRooms(ctx, c, e, rooms)
		lost = append(lost, l...)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	counts = make([]uint32, len(changes))
	for i, r := range rooms {
		counts[i] = r.total
		s.emitRoomMember(r.ch.GetTenant(), r.event)
	}
	slices.Sort(lost)
	return counts, slices.Compact(lost), nil
}

// updateRooms carries out those of the changes that aren't yet.
func (s *Store) updateRooms(ctx context.Context, c clock, e epoch, rooms []*roomEdit) (lost []uint32, err error) {
	var edits []*edit
	taken := make(map[string]bool, len(rooms))
	flush := func() error {
		l, err := s.apply(ctx, guard{epoch: e, mode: modeWrite}, edits)
		lost = append(lost, l...)
		edits = nil
		clear(taken)
		return err
	}
	for _, r := range rooms {
		if r.edit != nil && r.edit.done {
			continue
		}
		if taken[r.field] {
			// A comet has one change of a room in flight; should there be two here, then one after the other.
			if err := flush(); err != nil {
				return nil, err
			}
		}
		taken[r.field] = true
		r.edit = s.roomEdit(c, e, r)
		edits = append(edits, r.edit)
	}
	return lost, flush()
}

func checkRoom(tenant, room string) error {
	if err := name.Tenant(tenant); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if room == "" || len(room) > name.MaxRoom {
		return fmt.Errorf("%w: room: 1 to %d bytes", ErrInvalid, name.MaxRoom)
	}
	return nil
}

func (s *Store) roomEdit(c clock, e epoch, r *roomEdit) *edit {
	ch := r.ch
	bucket := bucketOf(ch.GetTenant(), ch.GetRoom())
	members := s.keys.members(bucket, r.field)
	reserved := name.RoomReserved(ch.GetRoom())
	ed := &edit{bucket: bucket, field: r.field}
	if !reserved && len(ch.GetJoined())+len(ch.GetLeft()) > 0 {
		ed.members = members
		ed.memberFields = slices.Concat(ch.GetLeft(), ch.GetJoined())
	}
	ed.plan = func(old string, it *item) error {
		rec := s.room(old)
		r.event = nil
		i := rec.find(e)
		if i >= 0 && ch.GetNumber() <= rec[i].number {
			r.total, _ = rec.count(c.live)
			it.skip()
			return nil
		}
		wasListed := i >= 0 && rec[i].listed && rec[i].count > 0
		before, _ := rec.count(c.live)
		rec = rec.with(roomPart{epoch: e, number: ch.GetNumber(), count: ch.GetCount(), listed: ch.GetListed(), at: c.now})
		if !reserved && wasListed && (ch.GetCount() == 0 || !ch.GetListed()) && (ed.members == "" || len(ed.memberFields) > 0) {
			// No more listed: whatever was of this comet goes.
			ed.members, ed.memberFields = members, nil
			it.again = true
			return nil
		}
		total, listed := rec.count(c.live)
		if *c.stale {
			return errStale
		}
		r.total = total
		it.set(r.field, rec.encode())
		it.list(r.field)
		if ch.GetCount() == 0 {
			it.dueIn(emptyWork(e, r.field), s.opt.RoomTombstone)
		}
		if reserved {
			return nil
		}
		s.scoreRoom(it, bucket, ch.GetTenant(), ch.GetRoom(), rec)
		m := newMemberChange(it, members, ed.memberValues)
		switch {
		case ch.GetListed() && ch.GetCount() > 0:
			for _, uid := range ch.GetLeft() {
				m.leave(uid, e)
			}
			for _, uid := range ch.GetJoined() {
				m.join(uid, e)
			}
		case ed.members != "" && len(ed.memberFields) == 0:
			m.leaveAll(e)
		default:
			for _, uid := range ch.GetLeft() {
				m.leave(uid, e)
			}
		}
		joined, left := m.write()
		r.event = s.memberEvent(it, r.field, ch.GetRoom(), before, total, listed, joined, left)
		return nil
	}
	return ed
}

// room reads a room's entry; one that can't be read is counted, and as good as none.
func (s *Store) room(v string) roomRecord {
	r, err := decodeRoom(v)
	if err != nil {
		s.metrics.badRecords.Inc()
		return nil
	}
	return r
}

// with returns the room with p in place of the part that p's comet had.
func (r roomRecord) with(p roomPart) roomRecord {
	out := slices.Clone(r)
	if i := out.find(p.epoch); i >= 0 {
		out[i] = p
		return out
	}
	return append(out, p)
}

func (r roomRecord) without(e epoch) roomRecord {
	return slices.DeleteFunc(slices.Clone(r), func(p roomPart) bool { return p.epoch == e })
}

func (s *Store) scoreRoom(it *item, bucket int, tenant, room string, rec roomRecord) {
	all, _ := rec.count(nil)
	it.score(s.keys.top(bucket, tenant, name.RoomType(room)), room, all)
}

// memberEvent decides what a change of a room's members is told as: a list, while the room is small; else its count, after a
// while, by whichever router finds it due.
func (s *Store) memberEvent(it *item, field, room string, before, after uint32, listed bool, joined, left []string) *halleyv1.RoomMember {
	if listed && int(after) <= s.opt.MemberLimit {
		if len(joined)+len(left) == 0 {
			return nil
		}
		return &halleyv1.RoomMember{Room: room, Joined: joined, Left: left, Count: after}
	}
	if before != after {
		// An event goes to all in the room: the larger it is, the rarer.
		it.dueOnce(field, s.opt.CountDelay*time.Duration(1+after/1000))
	}
	return nil
}

// memberChange gathers what becomes of a room's list of uids.
type memberChange struct {
	it     *item
	key    string
	was    map[string]string
	now    map[string]string
	toldIn []string
}

func newMemberChange(it *item, key string, values map[string]string) *memberChange {
	return &memberChange{it: it, key: key, was: values, now: make(map[string]string)}
}

func (m *memberChange) value(uid string) string {
	if v, ok := m.now[uid]; ok {
		return v
	}
	return m.was[uid]
}

func (m *memberChange) put(uid, v string) {
	if _, ok := m.now[uid]; !ok {
		m.toldIn = append(m.toldIn, uid)
	}
	m.now[uid] = v
}

func (m *memberChange) join(uid string, e epoch) {
	if v := m.value(uid); !memberHas(v, e) {
		m.put(uid, v+e.raw())
	}
}

func (m *memberChange) leave(uid string, e epoch) {
	if v := m.value(uid); memberHas(v, e) {
		m.put(uid, memberWithout(v, e))
	}
}

func (m *memberChange) leaveAll(e epoch) {
	for uid := range m.was {
		m.leave(uid, e)
	}
}

// write puts the changes into the item and returns the uids that came in and went out, over all comets.
func (m *memberChange) write() (joined, left []string) {
	slices.Sort(m.toldIn)
	for _, uid := range m.toldIn {
		was, now := m.was[uid], m.now[uid]
		if was == now {
			continue
		}
		m.it.member(m.key, uid, now)
		switch {
		case was == "":
			joined = append(joined, uid)
		case now == "":
			left = append(left, uid)
		}
	}
	return joined, left
}
