package conversation

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/kit/cursor"
)

// mostListed is the most conversations of a user whose list is kept in Redis; who has more is answered by the database.
const mostListed = 2000

// listed is which conversations a user had when his newest change had this number. As long as that is his newest one, they are
// his: coming on the list and leaving it are user changes.
type listed struct {
	Change        int64    `json:"change"`
	Conversations []string `json:"conversations"`
}

func (s *Service) listKey(tenant, uid string) string {
	return s.d.RedisPrefix + ":{list:" + tenant + "/" + uid + "}"
}

// Cursor returns what a device compares with its own to know whether it missed anything: by what Redis knows, as long as that is all of
// it, else by the database.
func (s *Service) Cursor(ctx context.Context, tenant, uid string) (*Cursor, error) {
	if s.d.Store == nil {
		return nil, errNoStore
	}
	if c := s.cursorByRedis(ctx, tenant, uid); c != nil {
		s.metrics.cursors.WithLabelValues(fromCache).Inc()
		return c, nil
	}
	seqs, change, err := s.d.Store.Positions(ctx, tenant, uid)
	if err != nil {
		s.metrics.cursors.WithLabelValues(failed).Inc()
		return nil, storeError(err)
	}
	s.metrics.cursors.WithLabelValues(fromStore).Inc()
	s.keepCursor(ctx, tenant, uid, seqs, change)
	c := &Cursor{UserChange: change}
	for _, seq := range seqs {
		c.Seqs += seq
	}
	return c, nil
}

// cursorByRedis returns nil where something is missing there.
func (s *Service) cursorByRedis(ctx context.Context, tenant, uid string) *Cursor {
	if s.d.Redis == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RedisTimeout)
	defer cancel()
	text, err := s.d.Redis.Get(ctx, s.listKey(tenant, uid)).Bytes()
	var list listed
	if err != nil || json.Unmarshal(text, &list) != nil {
		return nil
	}
	marks, err := cursor.Read(ctx, s.d.Redis, s.d.RedisPrefix, tenant, uid, list.Conversations)
	if err != nil || len(marks.Seqs) != len(list.Conversations) {
		return nil
	}
	change, ok := marks.Changes[cursor.User{Tenant: tenant, UID: uid}]
	if !ok || change != list.Change {
		return nil
	}
	c := &Cursor{UserChange: change}
	for _, seq := range marks.Seqs {
		c.Seqs += seq
	}
	return c
}

// keepCursor has the next question answered by Redis. It may fail.
func (s *Service) keepCursor(ctx context.Context, tenant, uid string, seqs map[string]int64, change int64) {
	if s.d.Redis == nil || len(seqs) > mostListed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RedisTimeout)
	defer cancel()
	var marks cursor.Marks
	marks.Change(tenant, uid, change)
	for id, seq := range seqs {
		marks.Seq(tenant, id, seq)
	}
	_, err := s.d.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, s.listKey(tenant, uid), jsonOf(listed{change, slices.Sorted(maps.Keys(seqs))}), cursor.Life)
		cursor.Raise(ctx, p, s.d.RedisPrefix, &marks)
		return nil
	})
	if err != nil {
		s.d.Log.DebugContext(ctx, "cursor not kept", "err", err)
	}
}
