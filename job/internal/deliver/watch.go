package deliver

import (
	"context"
	"time"

	"github.com/halley-im/halley/job/internal/backoff"
)

// watch looks at comets that owe acknowledgements: those that router does not list any more are dead, and those that are listed and
// silent for a whole lease are condemned.
func (h *Hub) watch(ctx context.Context) {
	var w watcher
	last := time.Now()
	for backoff.Sleep(ctx, h.cfg.CheckInterval) {
		now := time.Now()
		// A process that was stopped for a while must not take its own absence for the comets' silence.
		elapsed := min(now.Sub(last), 2*h.cfg.CheckInterval)
		last = now
		if silent := w.tick(h, elapsed); len(silent) > 0 {
			h.judge(ctx, silent, w.mute)
		}
	}
}

// watcher is what the watcher remembers between two ticks.
type watcher struct {
	acks uint64
	mute time.Duration // since any comet acknowledged anything
}

// tick returns the streams that owed something during the whole last interval and acknowledged nothing.
func (w *watcher) tick(h *Hub, elapsed time.Duration) []*stream {
	if acks := h.acks.Load(); acks != w.acks {
		w.acks, w.mute = acks, 0
	} else {
		w.mute += elapsed
	}
	var silent []*stream
	for _, l := range h.lanes {
		for _, s := range l.all() {
			acks := s.acks.Load()
			owes, paced := s.owes()
			switch {
			case !owes || !s.owing || acks != s.seenAcks:
				s.silent = 0
			case paced:
				// It may be dead, but its silence proves nothing.
				s.silent = 0
				silent = append(silent, s)
			default:
				s.silent += elapsed
				silent = append(silent, s)
			}
			s.owing, s.seenAcks = owes, acks
		}
	}
	return silent
}

func (h *Hub) judge(ctx context.Context, silent []*stream, mute time.Duration) {
	live, err := h.locator.Live(ctx)
	if err != nil {
		return // unknown: nobody is dead for that
	}
	epochs := map[string]time.Duration{}
	for _, s := range silent {
		if live[s.comet.epoch] == nil {
			h.log.Info("comet is dead", "comet", s.comet.name, "epoch", s.comet.epoch)
			h.giveUp(s.comet.epoch)
			continue
		}
		epochs[s.comet.epoch] = max(epochs[s.comet.epoch], s.silent)
	}
	// A job that hears from none of several comets may be the one that is cut off: it waits longer before it takes the
	// whole cluster's comets for dead.
	// Three times, no setting: it follows condemn-after.
	limit := h.cfg.CondemnAfter
	if len(epochs) > 1 && mute >= h.cfg.CondemnAfter {
		limit = 3 * h.cfg.CondemnAfter
	}
	for epoch, silence := range epochs {
		if silence < limit {
			continue
		}
		c := live[epoch]
		if err := h.locator.Condemn(ctx, c.GetComet(), epoch); err != nil {
			h.log.Warn("comet not condemned, will try again", "comet", c.GetComet(), "epoch", epoch, "err", err)
			continue
		}
		h.meter.Condemned.Inc()
		h.log.Warn("comet condemned", "comet", c.GetComet(), "epoch", epoch, "took", silence)
		h.giveUp(epoch)
	}
}

// giveUp takes an epoch for dead in all lanes: what it owes is looked up again.
func (h *Hub) giveUp(epoch string) {
	h.refuse(epoch)
	for _, l := range h.lanes {
		for _, s := range l.all() {
			if s.comet.epoch == epoch {
				l.lost(s.close())
			}
		}
	}
}
