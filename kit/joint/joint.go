// Package joint does for several callers at once what each of them would do alone: one round is under way, and what comes
// meanwhile makes the next one. A lone caller waits for nobody, and the more there are the more go together.
package joint

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// ErrFull says that as much waits as may.
var ErrFull = errors.New("too much waits for its turn")

// Config says how much goes together.
type Config struct {
	// Most is the weight of a round; one item may weigh more.
	Most int
	// Queue is the weight of what may wait.
	Queue int
	// Timeout bounds a round.
	Timeout time.Duration
	// Patience is how long a round may be under way until another one is begun beside it, and so on up to Beside rounds: one peer that
	// hangs must not hold up everybody.
	Patience time.Duration
	Beside   int
}

// Joint joins callers. Safe for concurrent use.
//
// Goroutines: one for each round under way, which ends with it; Wait waits for them.
type Joint[T any] struct {
	cfg    Config
	weight func(T) int
	do     func(ctx context.Context, items []T)

	mu      sync.Mutex
	rounds  []*round[T] // not begun; only the last one takes items
	waiting int
	begun   []*round[T] // under way, in the order in which they were begun
	ended   sync.Cond   // that begun has become empty
}

type round[T any] struct {
	parts  []*part[T]
	weight int
	begun  time.Time // zero: not yet
	done   chan struct{}
}

// part is one caller's.
type part[T any] struct {
	item   T
	weight int
}

// New returns a Joint. do does a round: it puts the results into the items, which are pointers or hold some. ctx ends with the
// round's time limit, not with any caller's.
func New[T any](c Config, weight func(T) int, do func(ctx context.Context, items []T)) *Joint[T] {
	j := &Joint[T]{cfg: c, weight: weight, do: do}
	j.ended.L = &j.mu
	return j
}

// Do has item done with others, and returns nil when it is; then the caller may read what do put into it. After ErrFull it was not
// done. After an error of ctx it may be under way yet: the caller must not touch the item any more, nor write to what it holds. An
// item whose turn has not come by then is left out: nobody would read what came of it.
func (j *Joint[T]) Do(ctx context.Context, item T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := &part[T]{item: item, weight: j.weight(item)}
	r, err := j.add(p)
	if err != nil {
		return err
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		j.leave(r, p)
		return ctx.Err()
	}
}

// Wait waits until no round is under way, those included whose callers have left.
func (j *Joint[T]) Wait() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.begun) > 0 {
		j.ended.Wait()
	}
}

// Waiting is the weight of what waits for its turn.
func (j *Joint[T]) Waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.waiting
}

func (j *Joint[T]) add(p *part[T]) (*round[T], error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.waiting > 0 && j.waiting+p.weight > j.cfg.Queue {
		return nil, ErrFull
	}
	var r *round[T]
	if n := len(j.rounds); n > 0 && j.rounds[n-1].weight+p.weight <= j.cfg.Most {
		r = j.rounds[n-1]
	} else {
		r = &round[T]{done: make(chan struct{})}
		j.rounds = append(j.rounds, r)
	}
	r.parts = append(r.parts, p)
	r.weight += p.weight
	j.waiting += p.weight
	if j.may() {
		r := j.next()
		go j.run(r)
	}
	return r, nil
}

// leave takes a part out of a round that has not begun.
func (j *Joint[T]) leave(r *round[T], p *part[T]) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !r.begun.IsZero() {
		return
	}
	i := slices.Index(r.parts, p)
	r.parts = slices.Delete(r.parts, i, i+1)
	r.weight -= p.weight
	j.waiting -= p.weight
	if len(r.parts) == 0 {
		i := slices.Index(j.rounds, r)
		j.rounds = slices.Delete(j.rounds, i, i+1)
	}
}

// may reports whether there is a round to begin, and whether it may begin now. With mu held.
func (j *Joint[T]) may() bool {
	if len(j.rounds) == 0 {
		return false
	}
	switch n := len(j.begun); {
	case n == 0:
		return true
	case n >= j.cfg.Beside:
		return false
	default:
		return time.Since(j.begun[n-1].begun) >= j.cfg.Patience
	}
}

// next takes the next round out, as begun. With mu held.
func (j *Joint[T]) next() *round[T] {
	r := j.rounds[0]
	j.rounds = slices.Delete(j.rounds, 0, 1)
	j.waiting -= r.weight
	r.begun = time.Now()
	j.begun = append(j.begun, r)
	return r
}

// run does rounds until there is none, or those that are begun beside it suffice: after one that hung, the others would otherwise go on
// side by side for as long as there is anything to do, and less would go together.
func (j *Joint[T]) run(r *round[T]) {
	for r != nil {
		slow := time.AfterFunc(j.cfg.Patience, func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			// Wait waits for the round that is begun here, too: the slow one is still under way, or there is nothing to begin.
			if len(j.begun) > 0 && j.may() {
				go j.run(j.next())
			}
		})
		items := make([]T, len(r.parts))
		for i, p := range r.parts {
			items[i] = p.item
		}
		ctx, cancel := context.WithTimeout(context.Background(), j.cfg.Timeout)
		j.do(ctx, items)
		cancel()
		slow.Stop()
		close(r.done)
		r = j.after(r)
	}
}

// after ends a round and returns the next one to do, or nil.
func (j *Joint[T]) after(r *round[T]) *round[T] {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := slices.Index(j.begun, r)
	j.begun = slices.Delete(j.begun, i, i+1)
	if j.may() {
		return j.next()
	}
	if len(j.begun) == 0 {
		j.ended.Broadcast()
	}
	return nil
}
