package joint_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-im/halley/kit/joint"
	"github.com/halley-im/halley/kit/kittest"
)

func TestMain(m *testing.M) { kittest.Main(m) }

type item struct{ in, out int }

func one(*item) int { return 1 }

func config() joint.Config {
	return joint.Config{Most: 100, Queue: 1000, Timeout: time.Minute, Patience: time.Hour, Beside: 3}
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
	kittest.Eventually(t, 30*time.Second, func() bool { return rounds.Load() == 1 })
	for n := range 250 {
		call(n)
	}
	// All wait behind the first round; only then may the others go.
	kittest.Eventually(t, 30*time.Second, func() bool { return j.Waiting() == 250 })
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

// What nobody waits for any more is not done, and takes no room from others: else whoever comes when a peer is back waits behind all that was
// given up while it was away.
func TestItemWhoseCallerLeftBeforeItsTurnIsLeftOut(t *testing.T) {
	cfg := config()
	cfg.Queue = 10
	gate := make(chan struct{})
	var begun atomic.Bool
	var mu sync.Mutex
	var done []int
	j := joint.New(cfg, one, func(_ context.Context, items []*item) {
		begun.Store(true)
		<-gate
		mu.Lock()
		defer mu.Unlock()
		for _, it := range items {
			done = append(done, it.in)
		}
	})
	var callers sync.WaitGroup
	callers.Go(func() { _ = j.Do(t.Context(), &item{in: 1}) })
	kittest.Eventually(t, 30*time.Second, func() bool { return begun.Load() })
	ctx, cancel := context.WithCancel(t.Context())
	for n := range 10 {
		callers.Go(func() {
			if err := j.Do(ctx, &item{in: 100 + n}); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want canceled", err)
			}
		})
	}
	kittest.Eventually(t, 30*time.Second, func() bool { return j.Waiting() == 10 })
	cancel()
	kittest.Eventually(t, 30*time.Second, func() bool { return j.Waiting() == 0 }, "who left takes the others' room")
	callers.Go(func() {
		if err := j.Do(t.Context(), &item{in: 2}); err != nil {
			t.Error(err)
		}
	})
	kittest.Eventually(t, 30*time.Second, func() bool { return j.Waiting() == 1 })
	close(gate)
	callers.Wait()
	j.Wait()
	if !slices.Equal(done, []int{1, 2}) {
		t.Errorf("done %v, want 1 and 2", done)
	}
}

// Rounds beside a slow one are an exception that ends with it, however much there is to do.
func TestAfterARoundThatHungItIsOneAtATimeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.Patience = time.Second
		var under, most, rounds atomic.Int64
		gates := make(chan chan struct{}, 10)
		j := joint.New(cfg, one, func(context.Context, []*item) {
			most.Store(max(most.Load(), under.Add(1)))
			defer under.Add(-1)
			rounds.Add(1)
			gate := make(chan struct{})
			gates <- gate
			<-gate
		})
		var callers sync.WaitGroup
		call := func() {
			callers.Go(func() {
				if err := j.Do(t.Context(), &item{}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		call()
		slow := <-gates
		call()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		beside := <-gates // begun by time, or there would be none
		call()
		if n := j.Waiting(); n != 0 {
			t.Fatalf("%d wait though the round beside is slow, too", n)
		}
		third := <-gates
		call()
		close(slow)
		close(beside)
		synctest.Wait()
		// The third is young: nothing is begun beside it, and the fourth waits.
		if n := under.Load(); n != 1 {
			t.Errorf("%d rounds under way after the slow ones have ended, want 1", n)
		}
		close(third)
		synctest.Wait()
		close(<-gates)
		callers.Wait()
		j.Wait()
		if n := rounds.Load(); n != 4 || most.Load() != 3 {
			t.Errorf("%d rounds, %d at once, want 4 and 3", n, most.Load())
		}
	})
}

// Servers answer while what they use is ended.
func TestWaitMayBeCalledWhileOthersAreDone(t *testing.T) {
	j := joint.New(config(), one, func(context.Context, []*item) {})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range 2000 {
				if err := j.Do(t.Context(), &item{}); err != nil {
					t.Error(err)
				}
			}
		})
		callers.Go(func() {
			for range 2000 {
				j.Wait()
			}
		})
	}
	callers.Wait()
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
	kittest.Eventually(t, 30*time.Second, func() bool { return n.Load() == 1 })
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
	kittest.Eventually(t, 30*time.Second, func() bool { return refused.Load() == 39 })
	close(gate)
	callers.Wait()
	j.Wait()
}
