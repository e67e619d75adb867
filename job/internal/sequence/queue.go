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

// queue is between what stores and what tells. The consumer bounds the records in it, the queue their targets: a record of some bytes
// may be for all members of a group.
type queue struct {
	signal chan struct{} // has a signal after a put
	eased  chan struct{} // has a signal after a take that made it less than full
	most   int
	mu     sync.Mutex
	rounds []*round
	size   int
}

// mostQueued is how many targets wait at most to be told: some 25 MB.
const mostQueued = 1 << 18

func newQueue(most int) *queue {
	return &queue{signal: make(chan struct{}, 1), eased: make(chan struct{}, 1), most: most}
}

// put waits until the queue is less than full; false if ctx ended first.
func (q *queue) put(ctx context.Context, r *round) bool {
	for !q.add(r) {
		select {
		case <-q.eased:
		case <-ctx.Done():
			return false
		}
	}
	select {
	case q.signal <- struct{}{}:
	default:
	}
	return true
}

func (q *queue) add(r *round) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.size >= q.most {
		return false
	}
	q.rounds = append(q.rounds, r)
	q.size += r.targets
	return true
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
	full := q.size >= q.most
	if q.size -= r.targets; full && q.size < q.most {
		select {
		case q.eased <- struct{}{}:
		default:
		}
	}
	return r
}
