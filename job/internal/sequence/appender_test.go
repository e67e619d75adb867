package sequence_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/halley-im/halley/job/internal/sequence"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

// gate is a store whose transactions wait; what each proposal's outcome says is its time.
type gate struct {
	sequence.Store
	open  chan error
	mu    sync.Mutex
	sizes []int
}

func (g *gate) Append(_ context.Context, ps []conversation.Proposal) ([]store.Outcome, error) {
	g.mu.Lock()
	g.sizes = append(g.sizes, len(ps))
	g.mu.Unlock()
	err := <-g.open
	out := make([]store.Outcome, len(ps))
	for i := range ps {
		out[i].AtMs = ps[i].AcceptedAtMs
	}
	return out, err
}

func TestPartitionsShareATransactionAndGetTheirOwnOutcomes(t *testing.T) {
	for _, want := range []error{nil, errors.New("away")} {
		synctest.Test(t, func(t *testing.T) {
			g := &gate{open: make(chan error, 2)}
			a := sequence.NewAppender(g)
			var wg sync.WaitGroup
			for i := range 5 {
				ps := make([]conversation.Proposal, i+1)
				for k := range ps {
					ps[k] = conversation.Proposal{Conversation: strconv.Itoa(i), AcceptedAtMs: int64(100*i + k)}
				}
				wg.Go(func() {
					out, err := a.Append(t.Context(), ps)
					if i > 0 && want != nil {
						if !errors.Is(err, want) {
							t.Errorf("partition %d: %v, want %v", i, err, want)
						}
						return
					}
					if err != nil || len(out) != len(ps) {
						t.Fatalf("partition %d: %d outcomes for %d proposals, %v", i, len(out), len(ps), err)
					}
					for k := range out {
						if out[k].AtMs != ps[k].AcceptedAtMs {
							t.Errorf("partition %d: outcome %d is of %d", i, k, out[k].AtMs)
						}
					}
				})
				// The first is under way before the others come, and those join in one order.
				synctest.Wait()
			}
			g.open <- nil
			g.open <- want
			wg.Wait()
			a.Wait()
			if len(g.sizes) != 2 || g.sizes[0] != 1 || g.sizes[1] != 2+3+4+5 {
				t.Fatalf("transactions of %v proposals, want 1 and 14", g.sizes)
			}
		})
	}
}
