// Package rungroup runs the parts of a process together and stops them one after another: the role first, so
// that it can take leave while its gRPC server and its metrics are still there, then what it needed.
package rungroup

import (
	"context"
	"errors"
	"fmt"
)

// Group is the parts of a process, in the order in which they are stopped. It is not for use by several
// goroutines.
type Group struct{ parts []part }

type part struct {
	name string
	run  func(context.Context) error
}

// Add adds a part. run must block until ctx is done or the part can't go on, and must have ended all that it
// started when it returns. Its context ends when it is the part's turn to stop, and keeps the values of Run's.
func (g *Group) Add(name string, run func(context.Context) error) {
	g.parts = append(g.parts, part{name, run})
}

// Run starts all parts at once and blocks until all have ended. When ctx is done, or any part ends by itself, the parts are
// stopped in the order in which they were added, each only when the one before has ended. It returns
// the error of the part that ended first, with its name; nil if ctx ended them. A part that fails while it is being
// stopped is told too.
func (g *Group) Run(ctx context.Context) error {
	type result struct {
		i   int
		err error
	}
	results := make(chan result, len(g.parts))
	stops := make([]context.CancelFunc, len(g.parts))
	for i, p := range g.parts {
		partCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		stops[i] = stop
		go func() { results <- result{i, p.run(partCtx)} }()
	}
	ended := make([]bool, len(g.parts))
	var errs []error
	note := func(r result, asked bool) {
		ended[r.i] = true
		switch {
		case r.err != nil && !errors.Is(r.err, context.Canceled):
			errs = append(errs, fmt.Errorf("%s: %w", g.parts[r.i].name, r.err))
		case !asked:
			errs = append(errs, fmt.Errorf("%s ended by itself", g.parts[r.i].name))
		}
	}
	select {
	case <-ctx.Done():
	case r := <-results:
		note(r, ctx.Err() != nil)
	}
	for i := range g.parts {
		stops[i]()
		for !ended[i] {
			// Parts further down may fall while this one stops: they say why, but they don't hold it up.
			note(<-results, true)
		}
	}
	return errors.Join(errs...)
}
