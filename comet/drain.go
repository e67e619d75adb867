package comet

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/halley-im/halley/comet/internal/drain"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// drain sends the sessions to other comets, and closes those that stay.
func (c *Comet) drain(ctx context.Context) {
	c.lease.Drain()
	n := &neighbours{c: c}
	n.look(ctx)
	looking, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { n.run(looking) })
	drain.Run(ctx, drain.Config{Rate: c.cfg.DrainRate, Grace: c.cfg.DrainGrace, Timeout: c.cfg.DrainTimeout}, drain.Parts{
		Table: c.table, Others: func() drain.Others { return *n.others.Load() }, Log: c.log,
	})
	stop()
	wg.Wait()
}

// neighbours is what a draining comet knows of the others.
type neighbours struct {
	c      *Comet
	others atomic.Pointer[drain.Others]
}

// run looks as often as comets tell of themselves, until ctx ends.
func (n *neighbours) run(ctx context.Context) {
	// The first time sooner: comets are often told to leave together, and then none of them has said so yet when they look first.
	tick := time.NewTimer(n.c.cfg.RenewInterval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n.look(ctx)
			tick.Reset(n.c.cfg.RenewInterval)
		}
	}
}

// look asks which comets there are. What they can take in all has come with the last renewal. If router is away what was known
// before goes on.
func (n *neighbours) look(ctx context.Context) {
	spare := n.c.lease.Spare()
	next := drain.Others{Room: spare.Connections, Rate: spare.HandshakeRate, Draining: 1}
	last := n.others.Load()
	if last != nil {
		next.Turn, next.Draining, next.Targets = last.Turn, last.Draining, last.Targets
	}
	cctx, cancel := context.WithTimeout(ctx, n.c.cfg.RouterTimeout)
	resp, err := n.c.router.ListComets(cctx, &halleyv1.ListCometsRequest{})
	cancel()
	if err == nil {
		next.Turn++
		next.Draining, next.Targets = n.targets(resp.GetComets())
	}
	n.others.Store(&next)
}

// targets returns the other comets that have a URL of their own, and how many comets are leaving.
func (n *neighbours) targets(comets []*halleyv1.CometInfo) (draining int, targets []drain.Target) {
	draining = 1
	now := time.Now().UnixMilli()
	for _, info := range comets {
		load, url := info.GetLoad(), info.GetEndpoints().GetWsUrl()
		switch {
		case info.GetComet() == n.c.cfg.name():
		case info.GetDraining():
			draining++
		case url != "":
			targets = append(targets, drain.Target{
				Comet: info.GetComet(), URL: url, Room: load.GetCapacity() - load.GetConnections(), Rate: load.GetHandshakeRate(),
				// By two clocks: a few seconds don't matter.
				Age: time.Duration(max(now-info.GetEnrolledAtMs(), 0)) * time.Millisecond,
			})
		}
	}
	return draining, targets
}
