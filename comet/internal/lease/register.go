package lease

import (
	"context"
	"time"

	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/comet/internal/table"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// maxChunk is the most entries in a call. It is no setting: what loads router and Redis is the rate.
const maxChunk = 500

// chunk returns the entries in a call: a tenth of a second's worth, so that a low rate isn't kept in jerks.
func (l *Lease) chunk() int { return min(max(l.cfg.RewriteRate/10, 1), maxChunk) }

// pace waits for as long as n entries may take.
func (l *Lease) pace(ctx context.Context, n int) error {
	if n == 0 || l.cfg.RewriteRate <= 0 {
		return ctx.Err()
	}
	return sleep(ctx, time.Duration(n)*time.Second/time.Duration(l.cfg.RewriteRate))
}

// registerAll registers everything in a new epoch, rooms first, at the pace of rewrites: when presence lost its leases all comets
// do this at once. Then it tells all sessions to resync: what was sent while this comet counted as dead is lost to them.
func (l *Lease) registerAll(ctx context.Context) {
	epoch, begun := l.Epoch(), time.Now()
	if l.rooms.All(ctx, l.chunk(), l.pace) != nil {
		return
	}
	var conns []*session.Session
	n := 0
	for i := range table.Shards {
		conns = l.table.Conns(conns[:0], i)
		if !l.register(ctx, epoch, conns) {
			// Dead again: then all of it comes again. Or ctx ended.
			return
		}
		n += len(conns)
	}
	l.hooks.Resync()
	l.log.Info("registered again", "comet", l.cfg.Comet, "epoch", epoch, "sessions", n, "took", time.Since(begun))
}

// registerLate registers those that became live when it was too late for what is being written. It returns what register does.
func (l *Lease) registerLate(ctx context.Context, epoch string) bool {
	l.mu.Lock()
	again := l.again
	l.again = nil
	l.mu.Unlock()
	return l.register(ctx, epoch, again)
}

// register writes sessions in an epoch, at the pace of rewrites. It tries until it is done; false: the epoch is dead, or ctx
// ended.
func (l *Lease) register(ctx context.Context, epoch string, sessions []*session.Session) bool {
	for len(sessions) > 0 {
		req := &halleyv1.RegisterRequest{}
		var asked []*session.Session
		for len(sessions) > 0 && len(asked) < l.chunk() {
			s := sessions[0]
			sessions = sessions[1:]
			if s.Live() == nil {
				continue
			}
			asked = append(asked, s)
			req.Sessions = append(req.Sessions, l.proto(s, epoch))
		}
		if len(asked) == 0 {
			return true
		}
		resp, ok := retry(ctx, l, "register again", func(cctx context.Context) (*halleyv1.RegisterResponse, error) { return l.router.Register(cctx, req) })
		if !ok {
			return false
		}
		if resp.GetStatus() == halleyv1.EpochStatus_EPOCH_STATUS_DEAD {
			l.Dead(epoch)
			return false
		}
		for i, r := range resp.GetResults() {
			if i >= len(asked) {
				break
			}
			if len(r.GetLostBuckets()) > 0 {
				l.Lost(epoch, r.GetLostBuckets())
			}
			switch r.GetStatus() {
			case halleyv1.RegisterResult_STATUS_REPLACED:
				l.hooks.Replaced(asked[i], false)
			case halleyv1.RegisterResult_STATUS_RACED:
				l.hooks.Replaced(asked[i], true)
			}
		}
		if l.pace(ctx, len(asked)) != nil {
			return false
		}
	}
	return true
}
