package presence

import (
	"context"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// Rewrite writes what a comet holds of one bucket, in chunks. The last one removes what the rewrite did not name
// and is older than GhostAge, and then sets the marker. Mostly nothing differs, and then nothing is written but the marker.
// It answers the connections whose key a newer registration holds.
func (s *Store) Rewrite(ctx context.Context, req *halleyv1.RewriteRequest) (*halleyv1.RewriteResponse, error) {
	e, err := needEpoch(req.GetEpoch())
	if err != nil {
		return nil, err
	}
	if req.GetBucket() >= name.Buckets {
		return nil, fmt.Errorf("%w: no such bucket", ErrInvalid)
	}
	w := &rewrite{s: s, e: e, bucket: int(req.GetBucket()), named: map[string]bool{}, replaced: map[string]bool{}, raced: map[string]bool{}}
	if w.c, err = s.leases.at(ctx); err != nil {
		return nil, err
	}
	edits, err := w.edits(req)
	if err != nil {
		return nil, err
	}
	// Visited even without an edit: it makes the epoch known in the bucket, by which the last step sees a loss.
	if _, err := s.apply(ctx, guard{epoch: e, mode: modeWrite, buckets: []int{w.bucket}}, edits); err != nil {
		return nil, err
	}
	res := &halleyv1.RewriteResponse{}
	for id := range w.replaced {
		res.ReplacedConnIds = append(res.ReplacedConnIds, unpackConn(id))
	}
	for id := range w.raced {
		if !w.replaced[id] {
			res.RacedConnIds = append(res.RacedConnIds, unpackConn(id))
		}
	}
	slices.Sort(res.ReplacedConnIds)
	slices.Sort(res.RacedConnIds)
	temp := s.keys.rewrite(w.bucket, e, req.GetRewrite())
	if !req.GetLast() {
		return res, w.keep(ctx, temp)
	}
	fields, err := w.recall(ctx, temp)
	if err != nil {
		return nil, err
	}
	ghosts := w.ghosts(fields)
	if _, err := s.apply(ctx, guard{epoch: e, mode: modeWrite}, ghosts); err != nil {
		return nil, err
	}
	return res, s.mark(ctx, e, modeClose, w.bucket)
}

type rewrite struct {
	s      *Store
	c      clock
	e      epoch
	bucket int
	// named: connections, and fields of rooms, that the rewrite has named.
	named map[string]bool
	// replaced and raced are connections that must go, for good and to come again.
	replaced, raced map[string]bool
}

// gone notes that a connection must go if status says so, and reports that.
func (w *rewrite) gone(conn string, status halleyv1.RegisterResult_Status) bool {
	switch status {
	case halleyv1.RegisterResult_STATUS_REPLACED:
		w.replaced[conn] = true
	case halleyv1.RegisterResult_STATUS_RACED:
		w.raced[conn] = true
	default:
		return false
	}
	return true
}

// keep remembers what a chunk named until the last one comes.
func (w *rewrite) keep(ctx context.Context, temp string) error {
	if len(w.named) == 0 {
		return nil
	}
	members := make([]any, 0, len(w.named))
	for n := range w.named {
		members = append(members, n)
	}
	_, err := w.s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.SAdd(ctx, temp, members...)
		p.PExpire(ctx, temp, 10*w.s.opt.GhostAge)
		return nil
	})
	if err != nil {
		return fmt.Errorf("rewrite: %w", err)
	}
	return nil
}

// recall adds what earlier chunks named, and returns the fields in which the epoch has something.
func (w *rewrite) recall(ctx context.Context, temp string) ([]string, error) {
	var before, list *redis.StringSliceCmd
	_, err := w.s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		before = p.SMembers(ctx, temp)
		list = p.SMembers(ctx, w.s.keys.list(w.bucket, w.e))
		p.Del(ctx, temp)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("rewrite: %w", err)
	}
	for _, n := range before.Val() {
		w.named[n] = true
	}
	return list.Val(), nil
}

func (w *rewrite) edits(req *halleyv1.RewriteRequest) ([]*edit, error) {
	var edits []*edit
	for _, ch := range req.GetRooms() {
		if err := checkRoom(ch.GetTenant(), ch.GetRoom()); err != nil {
			return nil, err
		}
		if bucketOf(ch.GetTenant(), ch.GetRoom()) == w.bucket && ch.GetCount() > 0 {
			edits = append(edits, w.room(ch))
		}
	}
	users := map[string]*[]*halleyv1.Session{}
	for _, m := range req.GetSessions() {
		if err := checkSession(m); err != nil {
			return nil, err
		}
		w.named[packConn(m.GetConn().GetId())] = true
		if bucketOf(m.GetTenant(), m.GetKey()) == w.bucket {
			edits = append(edits, w.key(m))
		}
		if m.GetUid() != "" && bucketOf(m.GetTenant(), m.GetUid()) == w.bucket {
			field := userField(m.GetTenant(), m.GetUid())
			if g := users[field]; g != nil {
				*g = append(*g, m)
				continue
			}
			g := &[]*halleyv1.Session{m}
			users[field] = g
			edits = append(edits, w.user(field, g))
		}
	}
	return edits, nil
}

func (w *rewrite) key(m *halleyv1.Session) *edit {
	field := keyField(m.GetTenant(), m.GetKey())
	return &edit{bucket: w.bucket, field: field, plan: func(old string, it *item) error {
		rec := newKeyRecord(m, w.e, m.GetConnectedAtMs())
		delete(w.replaced, rec.conn)
		delete(w.raced, rec.conn)
		if cur, err := decodeKey(old); err == nil && cur != nil {
			if cur.conn == rec.conn {
				rec.setSince(cur.since)
			} else if w.gone(rec.conn, cur.judge(w.c, m, false)) {
				it.skip()
				return nil
			}
		}
		v := rec.encode()
		if v == old {
			it.skip()
			return nil
		}
		it.notGone(rec.conn)
		it.set(field, v)
		it.list(field)
		return nil
	}}
}

// user writes the sessions of one uid. If the uid has no entry it was lost: what is written then counts as announced.
func (w *rewrite) user(field string, ms *[]*halleyv1.Session) *edit {
	return &edit{bucket: w.bucket, field: field, plan: func(old string, it *item) error {
		u := w.s.user(old)
		lost := old == ""
		wasOnline, was := u.state(nil)
		changed := false
		for _, m := range *ms {
			n := newSession(m, w.e, m.GetConnectedAtMs())
			if i := u.find(n.conn); i >= 0 {
				cur := &u.sessions[i]
				n.since = cur.since
				if cur.leaving && w.gone(n.conn, u.stands(w.c, i)) {
					n.leaving, n.over = true, cur.over
				}
				if *cur == n {
					continue
				}
				*cur = n
			} else {
				it.notGone(n.conn)
				u.lastSeen = 0
				u.sessions = append(u.sessions, n)
			}
			changed = true
		}
		if !changed {
			it.skip()
			return nil
		}
		online, now := u.state(nil)
		if lost {
			u.announced, u.platforms = online, now
		} else if online != wasOnline || !slices.Equal(now, was) {
			it.dueIn(field, w.s.opt.SettleDelay)
		}
		it.set(field, u.encode())
		it.list(field)
		return nil
	}}
}

func (w *rewrite) room(ch *halleyv1.RoomChange) *edit {
	field := roomField(ch.GetTenant(), ch.GetRoom())
	w.named[field] = true
	ed := &edit{bucket: w.bucket, field: field}
	lists := !name.RoomReserved(ch.GetRoom())
	if lists {
		ed.members = w.s.keys.members(w.bucket, field)
	}
	ed.plan = func(old string, it *item) error {
		rec := w.s.room(old)
		i := rec.find(w.e)
		if i >= 0 && ch.GetNumber() < rec[i].number {
			it.skip()
			return nil
		}
		same := i >= 0 && rec[i].number == ch.GetNumber() && rec[i].count == ch.GetCount() && rec[i].listed == ch.GetListed()
		changed := false
		if lists {
			m := newMemberChange(it, ed.members, ed.memberValues)
			want := map[string]bool{}
			if ch.GetListed() {
				for _, uid := range ch.GetJoined() {
					want[uid] = true
					m.join(uid, w.e)
				}
			}
			for uid := range m.was {
				if !want[uid] {
					m.leave(uid, w.e)
				}
			}
			m.write()
			changed = m.changed()
		}
		if same && !changed {
			it.skip()
			return nil
		}
		rec = rec.with(roomPart{epoch: w.e, number: ch.GetNumber(), count: ch.GetCount(), listed: ch.GetListed(), at: w.c.now})
		it.set(field, rec.encode())
		it.list(field)
		if lists {
			w.s.scoreRoom(it, w.bucket, ch.GetTenant(), ch.GetRoom(), rec)
		}
		return nil
	}
	return ed
}

// ghosts removes from fields what is this epoch's, wasn't named and isn't new.
func (w *rewrite) ghosts(fields []string) []*edit {
	limit := w.c.now - w.s.opt.GhostAge.Milliseconds()
	edits := make([]*edit, 0, len(fields))
	for _, field := range fields {
		ed := &edit{bucket: w.bucket, field: field}
		switch kind, tenant, n := splitField(field); kind {
		case kindUser:
			ed.plan = func(old string, it *item) error {
				which := func(o *session) bool { return o.epoch == w.e && o.since < limit && !w.named[o.conn] }
				u := w.s.user(old)
				if u.holds(w.e) && !slices.ContainsFunc(u.sessions, func(o session) bool { return which(&o) }) {
					it.skip()
					return nil
				}
				w.s.removeSessions(w.c.now, field, old, it, which, w.e)
				return nil
			}
		case kindKey:
			ed.plan = func(old string, it *item) error {
				cur, err := decodeKey(old)
				if err == nil && cur != nil && cur.epoch == w.e {
					if w.named[cur.conn] || cur.since >= limit {
						it.skip()
						return nil
					}
					it.set(field, "")
				}
				it.unlist(field)
				return nil
			}
		case kindRoom:
			if w.named[field] {
				continue
			}
			ed.plan = func(old string, it *item) error {
				rec := w.s.room(old)
				if i := rec.find(w.e); i >= 0 && (rec[i].at >= limit || rec[i].count == 0) {
					it.skip()
					return nil
				}
				if !name.RoomReserved(n) && ed.members == "" {
					ed.members = w.s.keys.members(w.bucket, field)
					it.again = true
					return nil
				}
				w.s.removePart(w.c, ed, it, w.e, field, tenant, n)
				return nil
			}
		default:
			continue
		}
		edits = append(edits, ed)
	}
	return edits
}

// changed reports whether anything would be written.
func (m *memberChange) changed() bool {
	for uid, v := range m.now {
		if v != m.was[uid] {
			return true
		}
	}
	return false
}

// removePart takes a comet's part out of a room, with its members, and returns the event that tells of it. ed.members has
// been read whole.
func (s *Store) removePart(c clock, ed *edit, it *item, e epoch, field, tenant, room string) *halleyv1.RoomMember {
	rec := s.room(ed.old)
	before, _ := rec.count(nil)
	rec = rec.without(e)
	it.set(field, rec.encode())
	it.unlist(field)
	if name.RoomReserved(room) {
		return nil
	}
	s.scoreRoom(it, ed.bucket, tenant, room, rec)
	m := newMemberChange(it, ed.members, ed.memberValues)
	m.leaveAll(e)
	joined, left := m.write()
	after, _ := rec.count(nil)
	total, listed := rec.count(c.live)
	if total == 0 {
		return nil
	}
	ev := s.memberEvent(it, field, room, before, after, listed, joined, left)
	if ev != nil {
		ev.Count = total
	}
	return ev
}
