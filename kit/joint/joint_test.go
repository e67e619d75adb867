package joint_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/halley-im/halley/kit/joint"
	"github.com/halley-im/halley/kit/kittest"
)

func TestMain(m *testing.M) { kittest.Main(m) }

type item struct{ in, out int }

func one(*item) int { return 1 }

func config() joint.Config {
	return joint.Config{Most: 100, Queue: 1000, Timeout: 10 * time.Second, Patience: time.Hour, Beside: 3}
}

func TestWhatComesMeanwhileGoesTogether(t *testing.T) {
	gate := make(chan struct{})
	var rounds, largest atomic.Int64
	j := joint.New(config(), one, func(_ context.Context, items []*item) {
		rounds.Add(1)
		largest.Store(max(largest.Load(), int64(len(items))))
		<-gate
		for _, it := range items {
			it.out = 2 * it.in
		}
	})
	var callers sync.WaitGroup
	call := func(n int) {
		callers.Go(func() {
			it := &item{in: n}
			if err := j.Do(t.Context(), it); err != nil || it.out != 2*n {
				t.Errorf("got %d, %v, want %d", it.out, err, 2*n)
			}
		})
	}
	call(1)
	kittest.Eventually(t, 5*time.Second, func() bool { return rounds.Load() == 1 })
	for n := range 250 {
		call(n)
	}
	// All wait behind the first round; only then may the others go.
	kittest.Eventually(t, 5*time.Second, func() bool { return j.Waiting() == 250 })
	close(gate)
	callers.Wait()
	j.Wait()
	if r, l := rounds.Load(), largest.Load(); r != 4 || l != 100 {
		t.Errorf("%d rounds, the largest of %d, want 4 and 100", r, l)
	}
}

func TestCallerLeavesAndTheRoundGoesOn(t *testing.T) {
	gate := make(chan struct{})
	var done atomic.Int64
	j := joint.New(config(), one, func(_ context.Context, items []*item) { <-gate; done.Add(int64(len(items))) })
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- j.Do(ctx, &item{}) }()
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want canceled", err)
	}
	close(gate)
	j.Wait()
	if err := j.Do(t.Context(), &item{}); err != nil {
		t.Fatal(err)
	}
	j.Wait()
}

func TestRoundThatHangsHoldsUpNobodyForLong(t *testing.T) {
	cfg := config()
	cfg.Patience = 20 * time.Millisecond
	gate := make(chan struct{})
	var n atomic.Int64
	j := joint.New(cfg, one, func(context.Context, []*item) {
		if n.Add(1) == 1 {
			<-gate
		}
	})
	hung := make(chan error, 1)
	go func() { hung <- j.Do(t.Context(), &item{}) }()
	kittest.Eventually(t, 5*time.Second, func() bool { return n.Load() == 1 })
	for range 3 {
		if err := j.Do(t.Context(), &item{}); err != nil {
			t.Fatal(err)
		}
	}
	close(gate)
	if err := <-hung; err != nil {
		t.Fatal(err)
	}
	j.Wait()
}

func TestQueueIsBounded(t *testing.T) {
	cfg := config()
	cfg.Queue = 10
	gate := make(chan struct{})
	j := joint.New(cfg, one, func(context.Context, []*item) { <-gate })
	var refused atomic.Int64
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			if err := j.Do(t.Context(), &item{}); errors.Is(err, joint.ErrFull) {
				refused.Add(1)
			}
		})
	}
	kittest.Eventually(t, 5*time.Second, func() bool { return refused.Load() == 39 })
	close(gate)
	callers.Wait()
	j.Wait()
}
