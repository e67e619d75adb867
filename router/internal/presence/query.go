package presence

import (
	"context"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// Presence answers the state of users, in their order. What a lost bucket held is offline until it is rewritten. watch: who asks
// is told of changes from now on, and so is told of one that undoes what this answer is ahead of the last announcement, too.
func (s *Store) Presence(ctx context.Context, tenant string, uids []string, watch bool) (out []*halleyv1.Presence, err error) {
	err = s.decide(ctx, func(c clock) error {
		out, err = s.presence(ctx, c, tenant, uids, watch)
		return err
	})
	return out, err
}

func (s *Store) presence(ctx context.Context, c clock, tenant string, uids []string, watch bool) ([]*halleyv1.Presence, error) {
	var ls lookups
	looks := make([]lookup, len(uids))
	for i, uid := range uids {
		looks[i] = ls.add(bucketOf(tenant, uid), userField(tenant, uid))
	}
	if err := s.readBuckets(ctx, c, ls.reads); err != nil {
		return nil, err
	}
	out := make([]*halleyv1.Presence, len(uids))
	var ahead []*edit
	for i, uid := range uids {
		u := s.user(looks[i].value())
		out[i] = u.presence(c, uid)
		if watch && !u.told && !u.isAnnounced(out[i].Online, out[i].Platforms) {
			ahead = append(ahead, s.toldEdit(c, looks[i], tenant, uid, &out[i]))
		}
	}
	if len(ahead) > 0 {
		if _, err := s.apply(ctx, guard{mode: modeWrite}, ahead); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (u *userRecord) presence(c clock, uid string) *halleyv1.Presence {
	p := &halleyv1.Presence{Uid: uid}
	p.Online, p.Platforms = u.state(c.live)
	if !p.Online {
		p.LastSeen = float64(u.seen())
	}
	return p
}

// toldEdit notes that a watcher is told what out is then.
func (s *Store) toldEdit(c clock, l lookup, tenant, uid string, out **halleyv1.Presence) *edit {
	field := userField(tenant, uid)
	return &edit{bucket: bucketOf(tenant, uid), field: field, old: l.value(), known: true, plan: func(old string, it *item) error {
		if *c.stale {
			return errStale
		}
		u := s.user(old)
		*out = u.presence(c, uid)
		if u.told || u.isAnnounced((*out).Online, (*out).Platforms) {
			it.skip()
			return nil
		}
		u.told = true
		it.set(field, u.encode())
		it.dueOnce(field, s.opt.SettleDelay)
		return nil
	}}
}

// seen is when the uid was last seen; of sessions whose comet has died and that aren't cleared away yet, it is known
// only when they came.
func (u *userRecord) seen() int64 {
	t := u.lastSeen
	for i := range u.sessions {
		t = max(t, u.sessions[i].since)
	}
	return t
}

// SessionsOf lists the live sessions of a uid, oldest first.
func (s *Store) SessionsOf(ctx context.Context, tenant, uid string) (out []*halleyv1.Session, err error) {
	err = s.decide(ctx, func(c clock) error {
		v, err := s.field(ctx, bucketOf(tenant, uid), userField(tenant, uid))
		if err != nil {
			return err
		}
		u := s.user(v)
		slices.SortStableFunc(u.sessions, func(a, b session) int { return int(a.since - b.since) })
		out = nil
		for i := range u.sessions {
			if o := &u.sessions[i]; !o.leaving && c.live(o.epoch) {
				out = append(out, o.proto(tenant, uid, c.comet(o.epoch)))
			}
		}
		return nil
	})
	return out, err
}

// SessionWith returns the live session that holds a key, as a list of one or none.
func (s *Store) SessionWith(ctx context.Context, tenant, key string) (out []*halleyv1.Session, err error) {
	err = s.decide(ctx, func(c clock) error {
		out, err = s.sessionWith(ctx, c, tenant, key)
		return err
	})
	return out, err
}

func (s *Store) sessionWith(ctx context.Context, c clock, tenant, key string) ([]*halleyv1.Session, error) {
	v, err := s.field(ctx, bucketOf(tenant, key), keyField(tenant, key))
	if err != nil {
		return nil, err
	}
	k, err := decodeKey(v)
	if err != nil || k == nil || !c.live(k.epoch) {
		return nil, nil
	}
	out := k.proto(tenant, key, c.comet(k.epoch))
	if k.uid == "" {
		return []*halleyv1.Session{out}, nil
	}
	if v, err = s.field(ctx, bucketOf(tenant, k.uid), userField(tenant, k.uid)); err != nil {
		return nil, err
	}
	u := s.user(v)
	if i := u.find(k.conn); i >= 0 {
		out = u.sessions[i].proto(tenant, k.uid, c.comet(k.epoch))
	}
	return []*halleyv1.Session{out}, nil
}

func (s *Store) field(ctx context.Context, bucket int, field string) (string, error) {
	cmd, err := s.fields(ctx, s.keys.bucket[bucket].main, []string{field})
	if err != nil {
		return "", err
	}
	v, _ := cmd.Val()[0].(string)
	return v, nil
}

func (s *Store) fields(ctx context.Context, key string, fields []string) (*redis.SliceCmd, error) {
	if s.trips == nil {
		cmd := s.redis.HMGet(ctx, key, fields...)
		return cmd, cmd.Err()
	}
	cmd, err := s.trips.run(ctx, func(p redis.Pipeliner) redis.Cmder { return p.HMGet(ctx, key, fields...) })
	if err != nil {
		return nil, err
	}
	return cmd.(*redis.SliceCmd), nil
}

// CountRooms answers the sessions in rooms over all live comets, in their order.
func (s *Store) CountRooms(ctx context.Context, rooms []*halleyv1.Name) ([]uint32, error) {
	out := make([]uint32, len(rooms))
	err := s.decide(ctx, func(c clock) error {
		recs, err := s.rooms(ctx, c, rooms)
		for i, r := range recs {
			out[i], _ = r.count(c.live)
		}
		return err
	})
	return out, err
}

func (s *Store) rooms(ctx context.Context, c clock, rooms []*halleyv1.Name) ([]roomRecord, error) {
	var ls lookups
	looks := make([]lookup, len(rooms))
	for i, r := range rooms {
		looks[i] = ls.add(bucketOf(r.GetTenant(), r.GetRoom()), roomField(r.GetTenant(), r.GetRoom()))
	}
	if err := s.readBuckets(ctx, c, ls.reads); err != nil {
		return nil, err
	}
	out := make([]roomRecord, len(rooms))
	for i, l := range looks {
		out[i] = s.room(l.value())
	}
	return out, nil
}

// Members lists a room's uids in order, from the one after cursor on. Rooms of more than MemberLimit sessions are
// only counted.
func (s *Store) Members(ctx context.Context, tenant, room, cursor string, limit int) (out *halleyv1.ListMembersResponse, err error) {
	err = s.decide(ctx, func(c clock) error {
		out, err = s.members(ctx, c, tenant, room, cursor, limit)
		return err
	})
	return out, err
}

func (s *Store) members(ctx context.Context, c clock, tenant, room, cursor string, limit int) (*halleyv1.ListMembersResponse, error) {
	recs, err := s.rooms(ctx, c, []*halleyv1.Name{{Tenant: tenant, Name: &halleyv1.Name_Room{Room: room}}})
	if err != nil {
		return nil, err
	}
	rec := recs[0]
	count, listed := rec.count(c.live)
	out := &halleyv1.ListMembersResponse{Count: count}
	if !listed || int(count) > s.opt.MemberLimit || name.RoomReserved(room) {
		return out, nil
	}
	out.Complete = true
	if count == 0 {
		return out, nil
	}
	bucket := bucketOf(tenant, room)
	members, err := s.redis.HGetAll(ctx, s.keys.members(bucket, roomField(tenant, room))).Result()
	if err != nil {
		return nil, err
	}
	here := func(e epoch) bool {
		i := rec.find(e)
		return i >= 0 && rec[i].count > 0 && c.live(e)
	}
	for uid, v := range members {
		if uid > cursor && memberLive(v, here) {
			out.Uids = append(out.Uids, uid)
		}
	}
	slices.Sort(out.Uids)
	if limit > 0 && len(out.Uids) > limit {
		out.Uids = out.Uids[:limit]
		out.Next = out.Uids[limit-1]
	}
	return out, nil
}

// TopRooms lists the rooms of exactly that type with the most sessions, the fullest first.
func (s *Store) TopRooms(ctx context.Context, tenant, roomType string, limit int) ([]*halleyv1.RoomCount, error) {
	// Scores count the dead until they are cleared away, so a few more are looked at.
	look := int64(limit + 16)
	var tops [name.Buckets]*redis.StringSliceCmd
	_, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for b := range tops {
			tops[b] = p.ZRevRange(ctx, s.keys.top(b, tenant, roomType), 0, look-1)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var names []*halleyv1.Name
	for _, t := range tops {
		for _, room := range t.Val() {
			names = append(names, &halleyv1.Name{Tenant: tenant, Name: &halleyv1.Name_Room{Room: room}})
		}
	}
	counts, err := s.CountRooms(ctx, names)
	if err != nil {
		return nil, err
	}
	var out []*halleyv1.RoomCount
	for i, n := range counts {
		if n > 0 {
			out = append(out, &halleyv1.RoomCount{Room: names[i].GetRoom(), Count: n})
		}
	}
	slices.SortFunc(out, func(a, b *halleyv1.RoomCount) int {
		if a.Count != b.Count {
			return int(b.Count) - int(a.Count)
		}
		return strings.Compare(a.Room, b.Room)
	})
	return out[:min(limit, len(out))], nil
}
