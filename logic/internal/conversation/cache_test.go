package conversation_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/proto/errcode"
)

func positive(v int) bool { return v > 0 }

var errAway = errors.New("the database is away")

func cacheConfig() *conversation.Config {
	return &conversation.Config{MembershipTTL: 10 * time.Second, MembershipStale: time.Minute, StorePause: time.Second, MembershipCache: 4}
}

func TestCacheKeepsWhatIsFavourableForItsTime(t *testing.T) {
	at := time.Unix(0, 0)
	c := conversation.NewCache(cacheConfig(), func() time.Time { return at })
	asked := 0
	answer := func(v int, err error) func(context.Context) (int, error) {
		return func(context.Context) (int, error) { asked++; return v, err }
	}
	for i, step := range []struct {
		after  time.Duration
		answer int
		err    error
		want   int
		by     string
		asked  int
		code   error
	}{
		{0, 0, nil, 0, "read", 1, nil},                     // not kept
		{0, 7, nil, 7, "read", 2, nil},                     // kept
		{9 * time.Second, 8, nil, 7, "cached", 2, nil},     // believed
		{time.Second, 8, nil, 8, "read", 3, nil},           // asked again
		{10 * time.Second, 0, errAway, 8, "stale", 4, nil}, // believed while the database is away
		{0, 9, nil, 8, "stale", 4, nil},                    // which is left alone for a while
		{time.Second, 9, nil, 9, "read", 5, nil},
		{10 * time.Second, 0, errcode.NotFound, 0, "read", 6, errcode.NotFound}, // an answer, and none that is kept
		{0, 0, errAway, 0, "failed", 7, errAway},
		{0, 5, nil, 0, "failed", 7, nil}, // left alone
		{time.Second, 5, nil, 5, "read", 8, nil},
		{time.Minute, 0, errAway, 0, "failed", 9, errAway}, // too old to be believed
	} {
		at = at.Add(step.after)
		v, by, err := c.Get(t.Context(), "k", positive, answer(step.answer, step.err))
		if v != step.want || by != step.by || asked != step.asked || (err == nil) != (step.by != "failed" && step.code == nil) || step.code != nil && !errors.Is(err, step.code) {
			t.Fatalf("step %d: got %d, %s, %v after %d questions; want %d, %s after %d", i, v, by, err, asked, step.want, step.by, step.asked)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := conversation.NewCache(cacheConfig(), time.Now)
	for i := range 100 {
		if _, _, err := c.Get(t.Context(), fmt.Sprint(i), positive, func(context.Context) (int, error) { return 1, nil }); err != nil {
			t.Fatal(err)
		}
		if c.Len() > 4 {
			t.Fatalf("%d are kept", c.Len())
		}
	}
}

func TestManyWhoAskTheSameWaitForOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := conversation.NewCache(cacheConfig(), time.Now)
		var asked, answered atomic.Int32
		slow := func(ctx context.Context) (int, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			return 3, ctx.Err()
		}
		var wg sync.WaitGroup
		// The first one gives up; the others get his answer all the same.
		first, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		wg.Go(func() { _, _, _ = c.Get(first, "k", positive, slow) })
		synctest.Wait()
		for range 20 {
			wg.Go(func() {
				if v, _, err := c.Get(t.Context(), "k", positive, slow); v == 3 && err == nil {
					answered.Add(1)
				}
			})
		}
		// One who doesn't want to wait needn't.
		short, stop := context.WithTimeout(t.Context(), 2*time.Millisecond)
		defer stop()
		if _, by, err := c.Get(short, "k", positive, slow); by != "failed" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %s, %v", by, err)
		}
		wg.Wait()
		if asked.Load() != 1 || answered.Load() != 20 {
			t.Errorf("asked %d times, %d answered", asked.Load(), answered.Load())
		}
	})
}

func TestDatabaseThatHangsHoldsUpOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := conversation.NewCache(cacheConfig(), time.Now)
		for i := range 4 {
			if _, _, err := c.Get(t.Context(), fmt.Sprint(i), positive, func(context.Context) (int, error) { return 1, nil }); err != nil {
				t.Fatal(err)
			}
		}
		hang := func(context.Context) (int, error) { time.Sleep(2 * time.Second); return 0, errAway }
		time.Sleep(11 * time.Second)
		// Until it is known that it hangs all wait for it, once.
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() { _, _, _ = c.Get(t.Context(), fmt.Sprint(i), positive, hang) })
		}
		wg.Wait()
		var slow atomic.Int32
		for range 30 {
			for i := range 4 {
				wg.Go(func() {
					began := time.Now()
					v, by, err := c.Get(t.Context(), fmt.Sprint(i), positive, hang)
					if v != 1 || by != "stale" || err != nil {
						t.Errorf("got %d, %s, %v", v, by, err)
					}
					if time.Since(began) > 0 {
						slow.Add(1)
					}
				})
			}
			time.Sleep(100 * time.Millisecond)
		}
		wg.Wait()
		// In 3 s: 1 s of rest, and one question of 2 s.
		if slow.Load() > 1 {
			t.Errorf("%d of 120 waited", slow.Load())
		}
		// It is back.
		time.Sleep(time.Second)
		for i := range 4 {
			if _, by, err := c.Get(t.Context(), fmt.Sprint(i), positive, func(context.Context) (int, error) { return 1, nil }); by != "read" || err != nil {
				t.Errorf("got %s, %v", by, err)
			}
		}
	})
}

func TestOneWhoPanicsLeavesNobodyWaiting(t *testing.T) {
	// The clock stands still, or the pause might be over by the time somebody asks.
	c := conversation.NewCache(cacheConfig(), func() time.Time { return time.Unix(0, 0) })
	func() {
		defer func() { _ = recover() }()
		_, _, _ = c.Get(t.Context(), "k", positive, func(context.Context) (int, error) { panic("no") })
	}()
	if _, _, err := c.Get(t.Context(), "other", positive, func(context.Context) (int, error) { return 1, nil }); err == nil {
		t.Error("the store is asked right after it failed")
	}
}
