package sequence

import (
	"context"
	"time"

	"github.com/halley-im/halley/kit/joint"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

// Appender has proposals of several partitions stored in one transaction: while one is under way, what the partitions read meanwhile
// becomes the next. A transaction costs the database and job about the same whether it holds three messages or thirty. Safe for
// concurrent use.
type Appender struct {
	store Store
	j     *joint.Joint[*appending]
}

// appending is one partition's part of a transaction.
type appending struct {
	proposals []conversation.Proposal
	outcomes  []store.Outcome
	err       error
}

// Bounds of joining.
const (
	// appendPatience is well above what a transaction takes in a database that works: a hung one must not hold up all partitions.
	appendPatience = 25 * time.Millisecond
	appendBeside   = 4
	// appendRounds bounds what waits: a partition has one batch at a time, so it is never reached.
	appendRounds = 1000
	// appendTimeout is above what the store itself allows a transaction, its tries included.
	appendTimeout = 15 * time.Second
)

// NewAppender returns an Appender. Those who append through one wait for each other.
func NewAppender(s Store) *Appender {
	a := &Appender{store: s}
	a.j = joint.New(joint.Config{
		Most: mostRows, Queue: appendRounds * mostRows, Timeout: appendTimeout, Patience: appendPatience, Beside: appendBeside,
	}, func(p *appending) int { return len(p.proposals) }, a.append)
	return a
}

// Append is Store.Append. When ctx ends the proposals may be under way yet: they must not be written to any more.
func (a *Appender) Append(ctx context.Context, ps []conversation.Proposal) ([]store.Outcome, error) {
	p := &appending{proposals: ps}
	if err := a.j.Do(ctx, p); err != nil {
		return nil, err
	}
	return p.outcomes, p.err
}

// Wait waits for transactions under way, whose callers may have left.
func (a *Appender) Wait() { a.j.Wait() }

// append stores what several partitions propose. If the database fails, each of them has its part to repeat.
func (a *Appender) append(ctx context.Context, parts []*appending) {
	if len(parts) == 1 {
		parts[0].outcomes, parts[0].err = a.store.Append(ctx, parts[0].proposals)
		return
	}
	var all []conversation.Proposal
	for _, p := range parts {
		all = append(all, p.proposals...)
	}
	outcomes, err := a.store.Append(ctx, all)
	for _, p := range parts {
		if err != nil {
			p.err = err
			continue
		}
		p.outcomes, outcomes = outcomes[:len(p.proposals):len(p.proposals)], outcomes[len(p.proposals):]
	}
}
