package locate

import (
	"context"
	"slices"
	"sync"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Joint asks for several callers at once: one question is under way, and what comes meanwhile makes the next one. Partitions work in
// parallel, and with pushes to single users each of them would ask for one name. Safe for concurrent use.
//
// Goroutines: one while there is something to ask, each question with its time limit; Wait waits for it.
type Joint struct {
	l *Locator

	mu      sync.Mutex
	rounds  []*round // not asked yet; only the last one takes names
	asking  bool
	running sync.WaitGroup
}

// round is one question.
type round struct {
	names  []*halleyv1.Name
	answer *halleyv1.LocateResponse
	err    error
	done   chan struct{}
}

// Join returns a Joint. Those who ask through one wait for each other's questions.
func (l *Locator) Join() *Joint { return &Joint{l: l} }

// Wait waits for questions under way, whose callers may have left.
func (j *Joint) Wait() { j.running.Wait() }

// Locate is Locator.Locate. It also returns, with an UnknownError, when ctx ends.
func (j *Joint) Locate(ctx context.Context, names []*halleyv1.Name) (*halleyv1.LocateResponse, error) {
	if len(names) > j.l.most {
		return j.l.Locate(ctx, names)
	}
	r, from := j.add(names)
	select {
	case <-r.done:
	case <-ctx.Done():
		return nil, &UnknownError{Err: ctx.Err()}
	}
	if r.err != nil {
		return nil, r.err
	}
	return &halleyv1.LocateResponse{Comets: r.answer.GetComets(), Located: r.answer.GetLocated()[from : from+len(names)]}, nil
}

// add puts names into the next question and returns their place in it.
func (j *Joint) add(names []*halleyv1.Name) (*round, int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var r *round
	if n := len(j.rounds); n > 0 && len(j.rounds[n-1].names)+len(names) <= j.l.most {
		r = j.rounds[n-1]
	} else {
		r = &round{done: make(chan struct{})}
		j.rounds = append(j.rounds, r)
	}
	from := len(r.names)
	r.names = append(r.names, names...)
	if !j.asking {
		j.asking = true
		j.running.Go(j.ask)
	}
	return r, from
}

// ask asks question after question until there is none.
func (j *Joint) ask() {
	for {
		j.mu.Lock()
		if len(j.rounds) == 0 {
			j.asking = false
			j.mu.Unlock()
			return
		}
		r := j.rounds[0]
		j.rounds = slices.Delete(j.rounds, 0, 1)
		j.mu.Unlock()
		// The Locator's time limit ends it: who waits for it may leave, the others need the answer.
		r.answer, r.err = j.l.ask(context.Background(), r.names)
		close(r.done)
	}
}
