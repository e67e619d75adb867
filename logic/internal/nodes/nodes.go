// Package nodes knows which comets are live and in which order clients are sent to them: those whose lease is live and
// that don't drain, fewest connections first.
//
// The list is router's, asked again when it has got too old. The package starts no goroutines.
package nodes

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Lister is router's call.
type Lister interface {
	ListComets(ctx context.Context, in *halleyv1.ListCometsRequest, opts ...grpc.CallOption) (*halleyv1.ListCometsResponse, error)
}

// Nodes is the list. Safe for concurrent use.
type Nodes struct {
	lister  Lister
	timeout time.Duration
	life    time.Duration
	// fetch holds one token: whoever has it asks router. A channel, so that those who wait obey their context.
	fetch chan struct{}

	mu     sync.Mutex
	comets []*halleyv1.CometInfo
	until  time.Time
	sent   map[string]sent
}

// sent counts the clients that a comet was given first since its lease last said how many connections it has.
type sent struct {
	due   int64
	count int64
}

// New makes a Nodes; a call of router waits for timeout at most, a list is good for life.
func New(lister Lister, timeout, life time.Duration) *Nodes {
	return &Nodes{lister: lister, timeout: timeout, life: life, fetch: make(chan struct{}, 1), sent: map[string]sent{}}
}

// Live returns the comets whose lease is live, draining ones included, by name. The caller must not change them. The error
// is router's.
func (n *Nodes) Live(ctx context.Context) ([]*halleyv1.CometInfo, error) {
	if comets, ok := n.cached(); ok {
		return comets, nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	select {
	case n.fetch <- struct{}{}:
		defer func() { <-n.fetch }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if comets, ok := n.cached(); ok {
		return comets, nil
	}
	res, err := n.lister.ListComets(ctx, &halleyv1.ListCometsRequest{})
	if err != nil {
		return nil, err
	}
	comets := res.GetComets()
	slices.SortFunc(comets, func(a, b *halleyv1.CometInfo) int { return cmp.Compare(a.GetComet(), b.GetComet()) })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.comets, n.until = comets, time.Now().Add(n.life)
	for name := range n.sent {
		if !slices.ContainsFunc(comets, func(c *halleyv1.CometInfo) bool { return c.GetComet() == name }) {
			delete(n.sent, name)
		}
	}
	return comets, nil
}

func (n *Nodes) cached() ([]*halleyv1.CometInfo, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.comets, time.Now().Before(n.until)
}

// Ordered returns the comets that take clients and for which keep is true, in the order in which one client should try
// them: fewest connections first, equals in random order. The first is counted one connection up until its next report, so that
// clients that come at once don't all go to one comet. If all of them drain they are returned all the same: a draining comet is
// better than none.
func (n *Nodes) Ordered(ctx context.Context, keep func(*halleyv1.Endpoints) bool) ([]*halleyv1.CometInfo, error) {
	live, err := n.Live(ctx)
	if err != nil {
		return nil, err
	}
	var ordered, draining []*halleyv1.CometInfo
	for _, c := range live {
		switch {
		case c.GetEndpoints() == nil || !keep(c.GetEndpoints()):
		case c.GetDraining():
			draining = append(draining, c)
		default:
			ordered = append(ordered, c)
		}
	}
	if len(ordered) == 0 {
		ordered = draining
	}
	if len(ordered) == 0 {
		return nil, nil
	}
	rand.Shuffle(len(ordered), func(i, j int) { ordered[i], ordered[j] = ordered[j], ordered[i] })

	n.mu.Lock()
	defer n.mu.Unlock()
	load := func(c *halleyv1.CometInfo) int64 {
		s := n.sent[c.GetComet()]
		if s.due != c.GetDueMs() {
			s.count = 0
		}
		return c.GetLoad().GetConnections() + s.count
	}
	slices.SortStableFunc(ordered, func(a, b *halleyv1.CometInfo) int { return cmp.Compare(load(a), load(b)) })
	first := ordered[0]
	s := n.sent[first.GetComet()]
	if s.due != first.GetDueMs() {
		s = sent{due: first.GetDueMs()}
	}
	s.count++
	n.sent[first.GetComet()] = s
	return ordered, nil
}
