package presence

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// Run keeps the copy of the leases fresh, does the work that is due, and clears away the dead, until ctx ends. It
// returns when all its loops have ended.
func (s *Store) Run(ctx context.Context) {
	if err := load(ctx, s.redis); err != nil && ctx.Err() == nil {
		s.log.Warn("scripts not loaded yet", "err", err)
	}
	var wg sync.WaitGroup
	loop := func(what string, every time.Duration, wake <-chan struct{}, f func(context.Context) error) {
		wg.Go(func() { s.loop(ctx, what, every, wake, f) })
	}
	loop("leases", min(s.opt.LeaseCache/2, s.opt.LookGap/3), nil, s.leases.refresh)
	loop("settle", s.opt.PollInterval, nil, s.settle)
	loop("reap", s.opt.ReapInterval, s.reapNow, s.reap)
	loop("sweep", max(s.opt.SweepInterval/name.Buckets, time.Millisecond), nil, s.sweep)
	wg.Go(func() { s.produceEvents(ctx) })
	wg.Wait()
	if s.trips != nil {
		s.trips.j.Wait()
	}
}

// loop calls f again and again until ctx ends. An error is logged when it begins and when it is over.
func (s *Store) loop(ctx context.Context, what string, every time.Duration, wake <-chan struct{}, f func(context.Context) error) {
	t := time.NewTicker(every)
	defer t.Stop()
	failing := false
	for {
		err := f(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.metrics.loopErrors.WithLabelValues(what).Inc()
		}
		switch {
		case err != nil && !failing:
			s.log.Warn("presence loop fails", "loop", what, "err", err)
		case err == nil && failing:
			s.log.Info("presence loop works again", "loop", what)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-wake:
		}
	}
}

func (s *Store) wakeReaper() {
	select {
	case s.reapNow <- struct{}{}:
	default:
	}
}

// reap declares dead whose lease is due, and clears away those that were declared dead, by whomever.
func (s *Store) reap(ctx context.Context) error {
	rctx, cancel := context.WithTimeout(ctx, 2*s.opt.RedisTimeout)
	defer cancel()
	if _, err := s.leases.at(rctx); err != nil {
		return err
	}
	killed, err := s.leases.kill(rctx)
	if err != nil {
		return err
	}
	s.metrics.dead.WithLabelValues("due").Add(float64(len(killed)))
	for _, e := range killed {
		s.log.Warn("lease was due: epoch is dead", "epoch", e.String())
	}
	for ctx.Err() == nil {
		e, ok, err := s.claimDead(ctx)
		if err != nil || !ok {
			return err
		}
		start := time.Now()
		n, err := s.bury(ctx, e)
		if err != nil {
			return fmt.Errorf("clear away epoch %s: %w", e, err)
		}
		s.metrics.reapSeconds.Observe(time.Since(start).Seconds())
		s.log.Info("dead epoch cleared away", "epoch", e.String(), "entries", n, "took", time.Since(start))
	}
	return nil
}

// claimDead takes the next dead epoch that is to be cleared away. Should a router end in the middle of it, another one takes
// it when the claim has run out; should two be at it, they do no harm.
func (s *Store) claimDead(ctx context.Context) (epoch, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opt.RedisTimeout)
	defer cancel()
	c := &call{script: claimScript, keys: []string{s.keys.lease.reap}, args: []any{s.opt.ClaimTime.Milliseconds(), 1}}
	if err := runAll(ctx, s.redis, []*call{c}); err != nil {
		return epoch{}, false, err
	}
	res, err := c.cmd.Slice()
	if err != nil {
		return epoch{}, false, err
	}
	if len(res) < 2 {
		return epoch{}, false, nil
	}
	id, _ := res[1].(string)
	if len(id) != 16 {
		return epoch{}, false, s.redis.ZRem(ctx, s.keys.lease.reap, id).Err()
	}
	return epoch([]byte(id)), true, nil
}

// bury makes an epoch's tombstone in all buckets and removes its entries, chunk by chunk.
func (s *Store) bury(ctx context.Context, e epoch) (removed int, err error) {
	trip := func(f func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, 5*s.opt.RedisTimeout)
		defer cancel()
		return f(ctx)
	}
	if err := trip(func(ctx context.Context) error { return s.mark(ctx, e, modeDie, allBuckets()...) }); err != nil {
		return 0, err
	}
	todo := allBuckets()
	for len(todo) > 0 {
		var next []int
		err := trip(func(ctx context.Context) error {
			n, left, err := s.buryChunk(ctx, e, todo)
			removed += n
			next = left
			return err
		})
		if err != nil {
			return removed, err
		}
		todo = next
	}
	s.metrics.reaped.Add(float64(removed))
	return removed, trip(func(ctx context.Context) error {
		_, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := range s.keys.bucket {
				p.SRem(ctx, s.keys.bucket[i].epochs, e.raw())
			}
			return nil
		})
		if err != nil {
			return err
		}
		return s.redis.ZRem(ctx, s.keys.lease.reap, e.raw()).Err()
	})
}

// buryItems is how many entries of a bucket are removed at once. No setting: it bounds a run of a script, of which as many follow as are needed.
const buryItems = 100

// buryChunk removes up to buryItems entries of each bucket, and returns the buckets where there may be more.
func (s *Store) buryChunk(ctx context.Context, e epoch, buckets []int) (int, []int, error) {
	c, err := s.leases.at(ctx)
	if err != nil {
		return 0, nil, err
	}
	lists := make([]*redis.StringSliceCmd, len(buckets))
	_, err = s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, b := range buckets {
			lists[i] = p.SRandMemberN(ctx, s.keys.list(b, e), buryItems)
		}
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	var edits []*edit
	var left []int
	type told struct {
		tenant string
		event  *halleyv1.RoomMember
	}
	var events []*told
	for i, b := range buckets {
		fields := lists[i].Val()
		if len(fields) > 0 {
			left = append(left, b)
		}
		for _, field := range fields {
			ed := &edit{bucket: b, field: field}
			kind, tenant, n := splitField(field)
			switch kind {
			case kindUser:
				ed.plan = func(old string, it *item) error {
					s.removeSessions(c.now, field, old, it, func(o *session) bool { return o.epoch == e }, e)
					return nil
				}
			case kindKey:
				ed.plan = func(old string, it *item) error {
					if cur, err := decodeKey(old); err == nil && cur != nil && cur.epoch == e {
						it.set(field, "")
					}
					it.unlist(field)
					return nil
				}
			case kindRoom:
				t := &told{tenant: tenant}
				events = append(events, t)
				if !name.RoomReserved(n) {
					ed.members = s.keys.members(b, field)
				}
				ed.plan = func(_ string, it *item) error {
					t.event = s.removePart(c, ed, it, e, field, tenant, n)
					return nil
				}
			default:
				ed.plan = func(_ string, it *item) error {
					it.unlist(field)
					return nil
				}
			}
			edits = append(edits, ed)
		}
	}
	if _, err := s.apply(ctx, guard{epoch: e, mode: modeDie}, edits); err != nil {
		return 0, nil, err
	}
	for _, t := range events {
		s.emitRoomMember(t.tenant, t.event)
	}
	return len(edits), left, nil
}

// sweep looks into one bucket for epochs that nobody speaks for any more: their lease was lost with their
// comet, so that it never was due. It forgets old tombstones, and uids that weren't seen for long.
func (s *Store) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*s.opt.RedisTimeout)
	defer cancel()
	c, err := s.leases.at(ctx)
	if err != nil {
		return err
	}
	b := s.sweepAt
	s.sweepAt = (s.sweepAt + 1) % name.Buckets
	k := &s.keys.bucket[b]
	epochs, err := s.redis.SMembers(ctx, k.epochs).Result()
	if err != nil {
		return err
	}
	now := time.Now()
	if b == 0 {
		for e, o := range s.orphans {
			if now.Sub(o.last) > 2*s.opt.SweepInterval+time.Second {
				delete(s.orphans, e)
			}
		}
	}
	for _, id := range epochs {
		if len(id) != 16 {
			continue
		}
		e := epoch([]byte(id))
		if c.known(e) || s.unavailable(c) > 0 {
			delete(s.orphans, e)
			continue
		}
		o, ok := s.orphans[e]
		if !ok {
			o.first = now
		}
		o.last = now
		s.orphans[e] = o
		if now.Sub(o.first) < s.opt.OrphanAge {
			continue
		}
		killed, err := s.leases.kill(ctx, e)
		if err != nil {
			return err
		}
		delete(s.orphans, e)
		s.metrics.dead.WithLabelValues("orphan").Add(float64(len(killed)))
		s.log.Warn("epoch without lease: epoch is dead", "epoch", e.String())
		s.wakeReaper()
	}
	return errors.Join(s.forgetTombstones(ctx, c, b), s.forgetUsers(ctx, c, b))
}

// orphan is an epoch that has entries but no lease.
type orphan struct{ first, last time.Time }

func (s *Store) forgetTombstones(ctx context.Context, c clock, b int) error {
	k := &s.keys.bucket[b]
	_, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.ZRemRangeByScore(ctx, k.dead, "-inf", fmt.Sprint(c.now-s.opt.EpochTombstone.Milliseconds()))
		p.ZRemRangeByScore(ctx, k.gone, "-inf", fmt.Sprint(c.now-s.opt.ConnTombstone.Milliseconds()))
		return nil
	})
	return err
}

// forgetPage is about how many fields are looked at in one step. No setting: one step a bucket in each sweep-interval, and a month to forget in.
const forgetPage = 200

// forgetUsers looks at the next page of a bucket's uids and removes those without session that were last seen long ago.
func (s *Store) forgetUsers(ctx context.Context, c clock, b int) error {
	page, next, err := s.redis.HScan(ctx, s.keys.bucket[b].main, s.pageAt[b], "u*", forgetPage).Result()
	if err != nil {
		return err
	}
	s.pageAt[b] = next
	old := func(u *userRecord) bool {
		return len(u.sessions) == 0 && u.lastSeen+s.opt.LastSeenFor.Milliseconds() < c.now
	}
	var edits []*edit
	for i := 0; i+1 < len(page); i += 2 {
		field := page[i]
		if u, err := decodeUser(page[i+1]); err != nil || !old(u) {
			continue
		}
		edits = append(edits, &edit{bucket: b, field: field, old: page[i+1], known: true, plan: func(v string, it *item) error {
			if !old(s.user(v)) {
				it.skip()
				return nil
			}
			it.set(field, "")
			return nil
		}})
	}
	_, err = s.apply(ctx, guard{mode: modeWrite}, edits)
	return err
}
