// Package purge removes from the database what is kept there for a time only. Every job does it, at its own time: what one has removed the next
// does not find.
package purge

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-im/halley/job/internal/backoff"
	"github.com/halley-im/halley/kit/logs"
)

// Store is what it is removed from; store.Store is one.
type Store interface {
	Purge(ctx context.Context, auditMs, rejectionsMs int64) (int64, error)
}

// Purge is the work. All fields are set once.
type Purge struct {
	Store Store
	Log   *slog.Logger
	// Every is the time between two looks, ± 50 %.
	Every time.Duration
	// Audit and Rejections are for how long these are kept; 0: for ever.
	Audit, Rejections time.Duration
	Purged            prometheus.Counter
}

// Run looks until ctx ends.
func (p *Purge) Run(ctx context.Context) {
	if p.Audit == 0 && p.Rejections == 0 {
		return
	}
	for backoff.Sleep(ctx, p.Every/2+rand.N(p.Every)) {
		gone, err := p.Store.Purge(ctx, before(p.Audit), before(p.Rejections))
		p.Purged.Add(float64(gone))
		if err != nil && ctx.Err() == nil {
			p.Log.Warn("what is old is not removed, the next look does it", logs.Err, err)
		}
	}
}

func before(keep time.Duration) int64 {
	if keep == 0 {
		return 0
	}
	return time.Now().Add(-keep).UnixMilli()
}
