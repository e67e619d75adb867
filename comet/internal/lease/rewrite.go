package lease

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/comet/internal/table"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// rewriting registers all in a new epoch, writes lost buckets as they are found, and every bucket in turn, until ctx ends.
func (l *Lease) rewriting(ctx context.Context) {
	number := uint64(time.Now().UnixMilli())
	tick := time.NewTicker(l.turn())
	defer tick.Stop()
	turn := uint32(0)
	for {
		var buckets []uint32
		select {
		case <-ctx.Done():
			return
		case <-l.work:
		case <-tick.C:
			buckets = append(buckets, turn)
			turn = (turn + 1) % name.Buckets
		}
		l.mu.Lock()
		fresh := l.fresh
		l.fresh = false
		l.mu.Unlock()
		if fresh {
			l.registerAll(ctx)
		}
		// Not before: what is registered in a bucket without marker is told to be lost.
		l.registerLate(ctx, l.Epoch())
		l.mu.Lock()
		for b := range l.lost {
			buckets = append(buckets, b)
		}
		clear(l.lost)
		l.mu.Unlock()
		slices.Sort(buckets)
		number = l.rewrite(ctx, slices.Compact(buckets), number)
	}
}

var errDead = errors.New("epoch is dead")

// rewrite writes buckets: rooms first, then sessions, at most the configured number of entries a second.
//
// All buckets take minutes where there is much. A rewrite removes what it doesn't name unless that is new, so who is here is looked
// up again every now and then, long before anybody who came since is new no more.
func (l *Lease) rewrite(ctx context.Context, buckets []uint32, number uint64) uint64 {
	epoch := l.Epoch()
	var held map[uint32][]*session.Session
	var looked time.Time
	for i, b := range buckets {
		number++
		if now := time.Now(); held == nil || now.Sub(looked) > l.turn() {
			looked, held = now, l.sessionsIn(buckets[i:])
		}
		if err := l.rewriteBucket(ctx, epoch, b, held[b], number); err != nil {
			if !errors.Is(err, errDead) && ctx.Err() == nil {
				l.log.Warn("bucket not written, trying again", "epoch", epoch, "bucket", b, "err", err)
				// Router is away for the others too.
				l.Lost(epoch, buckets[i:])
				sleep(ctx, l.cfg.Retry)
			}
			return number
		}
		if !l.registerLate(ctx, epoch) {
			return number
		}
	}
	return number
}

// turn is the time from one bucket's rewrite to the next one's.
func (l *Lease) turn() time.Duration { return max(l.cfg.RewriteEvery/name.Buckets, time.Millisecond) }

// sessionsIn returns the sessions whose key or uid lies in each of the buckets.
func (l *Lease) sessionsIn(buckets []uint32) map[uint32][]*session.Session {
	held := make(map[uint32][]*session.Session, len(buckets))
	for _, b := range buckets {
		held[b] = nil
		// Before anybody is looked at: who becomes live later sees it.
		l.begun[b%name.Buckets].Store(session.Now())
	}
	add := func(b uint32, s *session.Session) {
		if list, wanted := held[b]; wanted {
			held[b] = append(list, s)
		}
	}
	var conns []*session.Session
	for i := range table.Shards {
		conns = l.table.Conns(conns[:0], i)
		for _, s := range conns {
			who := s.Live()
			if who == nil {
				continue
			}
			key := name.Bucket(who.Tenant, who.Key())
			add(key, s)
			if uid := who.UID(); uid != "" {
				if b := name.Bucket(who.Tenant, uid); b != key {
					add(b, s)
				}
			}
		}
	}
	return held
}

func (l *Lease) rewriteBucket(ctx context.Context, epoch string, bucket uint32, held []*session.Session, number uint64) error {
	call := func(changes []*halleyv1.RoomChange, sessions []*halleyv1.Session, last bool) error {
		cctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
		resp, err := l.router.Rewrite(cctx, &halleyv1.RewriteRequest{
			Comet: l.cfg.Comet, Epoch: epoch, Bucket: bucket, Rewrite: number, Rooms: changes, Sessions: sessions, Last: last,
		})
		cancel()
		if err != nil {
			return err
		}
		if resp.GetStatus() == halleyv1.EpochStatus_EPOCH_STATUS_DEAD {
			l.Dead(epoch)
			return errDead
		}
		l.replaced(resp.GetReplacedConnIds(), false)
		l.replaced(resp.GetRacedConnIds(), true)
		return l.pace(ctx, len(changes)+len(sessions))
	}
	chunk := l.chunk()
	err := l.rooms.Bucket(ctx, bucket, epoch, chunk, func(c []*halleyv1.RoomChange) error { return call(c, nil, false) })
	if err != nil {
		return err
	}
	for len(held) > chunk {
		if err := call(nil, l.protos(held[:chunk], epoch), false); err != nil {
			return err
		}
		held = held[chunk:]
	}
	return call(nil, l.protos(held, epoch), true)
}

func (l *Lease) protos(sessions []*session.Session, epoch string) []*halleyv1.Session {
	out := make([]*halleyv1.Session, 0, len(sessions))
	for _, s := range sessions {
		// One that ended meanwhile has been deregistered: its tombstone would make this void, too.
		if s.Live() != nil {
			out = append(out, l.proto(s, epoch))
		}
	}
	return out
}

// replaced has sessions closed whose key a newer registration holds.
func (l *Lease) replaced(conns []string, raced bool) {
	for _, id := range conns {
		if s := l.table.Conn(id); s != nil {
			l.hooks.Replaced(s, raced)
		}
	}
}
