package sequence

import (
	"context"
	"time"

	"github.com/halley-im/halley/kit/cursor"
	"github.com/halley-im/halley/kit/logs"
)

// outcomeLife is how long an outcome can be asked for.
const outcomeLife = time.Minute

// mostOwed is the most marks that are kept for Redis' coming back. A mark that isn't written is wrong until it ends by itself.
const mostOwed = 20_000

// notes writes to Redis what needn't be there for anything to be right: outcomes, for who waits, and marks.
type notes struct {
	owed cursor.Marks // what could not be written
	away bool
}

// retryAfter returns when to call write again if nothing else is to be written; 0: never.
func (n *notes) retryAfter(h *handler) time.Duration {
	if n.owed.Len() == 0 {
		return 0
	}
	return h.RetryMax
}

// write writes r's notes, and those that are owed. It takes RedisTimeout at most.
func (n *notes) write(ctx context.Context, h *handler, r *round) {
	if h.Redis == nil {
		return
	}
	p := h.Redis.Pipeline()
	marks := &n.owed
	if r != nil {
		for _, o := range r.outcomes {
			p.Set(ctx, o.key, o.value, outcomeLife)
		}
		if n.owed.Len() > 0 {
			r.marks.Add(&n.owed)
		}
		marks = &r.marks
	}
	cursor.Raise(ctx, p, h.Prefix, marks)
	if p.Len() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, h.RedisTimeout)
	defer cancel()
	_, err := p.Exec(ctx)
	if err == nil {
		n.owed.Reset()
		if n.away {
			n.away = false
			h.log.Info("outcomes and marks are written again")
		}
		return
	}
	h.Meter.Chat.RedisFails.Inc()
	if !n.away {
		n.away = true
		h.log.Warn("outcomes and marks not written", logs.Err, err)
	}
	if r != nil {
		n.owed.Add(&r.marks)
	}
	if n.owed.Len() > mostOwed {
		n.owed.Reset()
	}
}
