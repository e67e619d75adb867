package locate

import (
	"context"
	"time"

	"github.com/halley-im/halley/kit/joint"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Joint asks for several callers at once. Partitions work in parallel, and with pushes to single users each of them would ask for one
// name. Safe for concurrent use.
type Joint struct {
	l *Locator
	j *joint.Joint[*question]
}

// question is one caller's part of a round.
type question struct {
	names  []*halleyv1.Name
	answer *halleyv1.LocateResponse
	err    error
}

// Bounds of joining. No settings: all that they must be is far from what a router takes that works and from what locate-timeout allows.
const (
	// patience is well above what a router takes that works: a hung one must not hold up all partitions.
	patience = 50 * time.Millisecond
	beside   = 4
	// queueRounds bounds what waits: a partition has one question at a time, so it is never reached.
	queueRounds = 1000
)

// Join returns a Joint. Those who ask through one wait for each other's questions.
func (l *Locator) Join() *Joint {
	c := joint.Config{Most: l.most, Queue: queueRounds * l.most, Timeout: l.timeout, Patience: patience, Beside: beside}
	return &Joint{l: l, j: joint.New(c, func(q *question) int { return len(q.names) }, l.answer)}
}

// Wait waits for questions under way, whose callers may have left.
func (j *Joint) Wait() { j.j.Wait() }

// Locate is Locator.Locate. It also returns, with an UnknownError, when ctx ends; then the question may be under way yet, so after an
// error names must not be written to.
func (j *Joint) Locate(ctx context.Context, names []*halleyv1.Name) (*halleyv1.LocateResponse, error) {
	if len(names) > j.l.most {
		return j.l.Locate(ctx, names)
	}
	q := &question{names: names}
	if err := j.j.Do(ctx, q); err != nil {
		return nil, &UnknownError{Err: err}
	}
	return q.answer, q.err
}

// answer asks once for all questions' names.
func (l *Locator) answer(ctx context.Context, qs []*question) {
	if len(qs) == 1 {
		qs[0].answer, qs[0].err = l.ask(ctx, qs[0].names)
		return
	}
	var names []*halleyv1.Name
	for _, q := range qs {
		names = append(names, q.names...)
	}
	all, err := l.ask(ctx, names)
	for _, q := range qs {
		if err != nil {
			q.err = err
			continue
		}
		q.answer = &halleyv1.LocateResponse{Comets: all.GetComets(), Located: all.GetLocated()[:len(q.names)]}
		all.Located = all.GetLocated()[len(q.names):]
	}
}
