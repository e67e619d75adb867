package sequence

import (
	"context"
	"sync"
	"time"

	"github.com/halley-im/halley/job/internal/deliver"
	"github.com/halley-im/halley/kit/cursor"
)

// round is what is to be told of some records, in their order.
type round struct {
	items    []*deliver.Item
	done     []uint64 // records that nobody is told of
	outcomes []outcome
	marks    cursor.Marks
	targets  int
}

// outcome is what somebody waits for in Redis.
type outcome struct {
	key   string
	value []byte
}

func (r *round) add(o *round) {
	r.items = append(r.items, o.items...)
	r.done = append(r.done, o.done...)
	r.outcomes = append(r.outcomes, o.outcomes...)
	r.marks.Add(&o.marks)
	r.targets += o.targets
}

// queue is between what stores and what tells. It has no bound of its own: all that is in it is in flight, which the consumer
// bounds.
type queue struct {
	signal chan struct{}
	mu     sync.Mutex
	rounds []*round
}

func newQueue() *queue { return &queue{signal: make(chan struct{}, 1)} }

func (q *queue) put(r *round) {
	q.mu.Lock()
	q.rounds = append(q.rounds, r)
	q.mu.Unlock()
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

// mostTargets ends a round that is made of several.
const mostTargets = 4096

// take waits for a round, and returns what is there as one. It returns nil after a time, unless that is 0, and when ctx has ended
// and nothing is left.
func (q *queue) take(ctx context.Context, after time.Duration) *round {
	var late <-chan time.Time
	if after > 0 {
		t := time.NewTimer(after)
		defer t.Stop()
		late = t.C
	}
	for {
		if r := q.next(); r != nil {
			return r
		}
		select {
		case <-q.signal:
		case <-late:
			return nil
		case <-ctx.Done():
			return q.next()
		}
	}
}

func (q *queue) next() *round {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.rounds) == 0 {
		return nil
	}
	r, n := q.rounds[0], 1
	for n < len(q.rounds) && r.targets < mostTargets {
		r.add(q.rounds[n])
		n++
	}
	left := copy(q.rounds, q.rounds[n:])
	clear(q.rounds[left:])
	q.rounds = q.rounds[:left]
	return r
}
