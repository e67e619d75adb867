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
	begun   []time.Time // of those under way
	running sync.WaitGroup
}

type round[T any] struct {
	items  []T
	weight int
	done   chan struct{}
}

// New returns a Joint. do does a round: it puts the results into the items, which are pointers or hold some. ctx ends with the
// round's time limit, not with any caller's.
func New[T any](c Config, weight func(T) int, do func(ctx context.Context, items []T)) *Joint[T] {
	return &Joint[T]{cfg: c, weight: weight, do: do}
}

// Do has item done with others, and returns nil when it is; then the caller may read what do put into it. On an error, ctx's or
// ErrFull, it must not touch the item any more: it may be done yet.
func (j *Joint[T]) Do(ctx context.Context, item T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := j.add(item)
	if err != nil {
		return err
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wait waits for rounds under way, whose callers may have left. Nobody calls Do any more.
func (j *Joint[T]) Wait() { j.running.Wait() }

// Waiting is the weight of what waits for its turn.
func (j *Joint[T]) Waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.waiting
}

func (j *Joint[T]) add(item T) (*round[T], error) {
	w := j.weight(item)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.waiting > 0 && j.waiting+w > j.cfg.Queue {
		return nil, ErrFull
	}
	var r *round[T]
	if n := len(j.rounds); n > 0 && j.rounds[n-1].weight+w <= j.cfg.Most {
		r = j.rounds[n-1]
	} else {
		r = &round[T]{done: make(chan struct{})}
		j.rounds = append(j.rounds, r)
	}
	r.items = append(r.items, item)
	r.weight += w
	j.waiting += w
	if j.may() {
		j.begin()
	}
	return r, nil
}

// may reports whether a round may begin now. With mu held.
func (j *Joint[T]) may() bool {
	switch n := len(j.begun); {
	case n == 0:
		return true
	case n >= j.cfg.Beside:
		return false
	default:
		return time.Since(j.begun[n-1]) >= j.cfg.Patience
	}
}

// begin begins the next round. With mu held.
func (j *Joint[T]) begin() {
	r, at := j.next()
	j.running.Go(func() { j.run(r, at) })
}

// next takes the next round out. With mu held.
func (j *Joint[T]) next() (*round[T], time.Time) {
	r := j.rounds[0]
	j.rounds = slices.Delete(j.rounds, 0, 1)
	j.waiting -= r.weight
	at := time.Now()
	j.begun = append(j.begun, at)
	return r, at
}

// run does rounds until there is none.
func (j *Joint[T]) run(r *round[T], at time.Time) {
	for {
		slow := time.AfterFunc(j.cfg.Patience, func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			if len(j.rounds) > 0 && len(j.begun) > 0 && j.may() {
				j.begin()
			}
		})
		ctx, cancel := context.WithTimeout(context.Background(), j.cfg.Timeout)
		j.do(ctx, r.items)
		cancel()
		slow.Stop()
		close(r.done)
		j.mu.Lock()
		i := slices.Index(j.begun, at)
		j.begun = slices.Delete(j.begun, i, i+1)
		if len(j.rounds) == 0 {
			j.mu.Unlock()
			return
		}
		r, at = j.next()
		j.mu.Unlock()
	}
}
