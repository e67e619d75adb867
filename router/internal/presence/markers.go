package presence

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/proto/name"
)

// markerCache remembers which of the leases' epochs have no marker in a bucket, for as long as the bucket's
// version and the set of leases are the ones that it was read with. A bucket that was lost has no version, and one
// that was marked anew another one, so what is remembered is never older than the entries it is used with.
type markerCache struct{ cur atomic.Pointer[markerState] }

type markerState struct {
	version    string
	generation uint64
	// missing are indices into the view's leases.
	missing []int
}

// bucketRead reads entries of one bucket together with its version, and with the markers where they aren't
// remembered.
type bucketRead struct {
	bucket int
	fields []string
	marks  bool
	cmd    *redis.SliceCmd
	// set by readBuckets
	values []any
	state  *markerState
}

// readBuckets reads entries in one trip; in a second one those buckets whose markers have changed since they
// were last read.
func (s *Store) readBuckets(ctx context.Context, c clock, reads []*bucketRead) error {
	for _, r := range reads {
		st := s.markers[r.bucket].cur.Load()
		r.marks = st == nil || st.generation != c.generation
	}
	todo := reads
	for len(todo) > 0 {
		if err := s.hmget(ctx, c, todo); err != nil {
			return err
		}
		var again []*bucketRead
		for _, r := range todo {
			vals := r.cmd.Val()
			if len(vals) < 1+len(r.fields) {
				return fmt.Errorf("read bucket: short answer")
			}
			version, _ := vals[0].(string)
			r.values = vals[1 : 1+len(r.fields)]
			cache := &s.markers[r.bucket].cur
			if r.marks {
				// The bucket was lost, or marked by a comet that may be new here.
				*c.stale = *c.stale || c.askedAt.Before(c.start)
				st := &markerState{version: version, generation: c.generation}
				for i, v := range vals[1+len(r.fields):] {
					if v == nil {
						st.missing = append(st.missing, i)
					}
				}
				r.state = st
				if version != "" {
					cache.Store(st)
				}
				continue
			}
			if st := cache.Load(); st != nil && version != "" && st.version == version && st.generation == c.generation {
				r.state = st
				continue
			}
			r.marks = true
			again = append(again, r)
		}
		todo = again
	}
	return nil
}

func (s *Store) hmget(ctx context.Context, c clock, reads []*bucketRead) error {
	args := func(r *bucketRead) []string {
		n := 1 + len(r.fields)
		if r.marks {
			n += len(c.leases)
		}
		f := make([]string, 1, n)
		f[0] = versionField
		f = append(f, r.fields...)
		if r.marks {
			for i := range c.leases {
				f = append(f, markerField(c.leases[i].epoch))
			}
		}
		return f
	}
	if len(reads) == 1 {
		r := reads[0]
		var err error
		if r.cmd, err = s.fields(ctx, s.keys.bucket[r.bucket].main, args(r)); err != nil {
			return fmt.Errorf("read bucket: %w", err)
		}
		return nil
	}
	_, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, r := range reads {
			r.cmd = p.HMGet(ctx, s.keys.bucket[r.bucket].main, args(r)...)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read buckets: %w", err)
	}
	return nil
}

// checkMarkers returns those of n buckets from first on that have no marker of the epoch. ErrDead if one has its
// tombstone.
func (s *Store) checkMarkers(ctx context.Context, e epoch, first, n int) ([]uint32, error) {
	marks := make([]*redis.BoolCmd, n)
	dead := make([]*redis.FloatCmd, n)
	_, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range n {
			k := &s.keys.bucket[(first+i)%name.Buckets]
			marks[i] = p.HExists(ctx, k.main, markerField(e))
			dead[i] = p.ZScore(ctx, k.dead, e.raw())
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("check markers: %w", err)
	}
	var lost []uint32
	for i := range n {
		switch err := dead[i].Err(); {
		case err == nil:
			return nil, ErrDead
		case !errors.Is(err, redis.Nil):
			return nil, fmt.Errorf("check markers: %w", err)
		}
		has, err := marks[i].Result()
		if err != nil {
			return nil, fmt.Errorf("check markers: %w", err)
		}
		if !has {
			lost = append(lost, uint32((first+i)%name.Buckets))
		}
	}
	s.metrics.lostBuckets.Add(float64(len(lost)))
	return lost, nil
}
