package limit_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/limit"
)

func TestMain(m *testing.M) { kittest.Main(m) }

// timeout is longer than a process stands still, as one among many does: what is let through because Redis was slow is counted wrong.
const timeout = 30 * time.Second

// open returns a Limiter on Redis, a real one if the environment names it.
func open(t testing.TB) *limit.Limiter {
	t.Helper()
	rdb, prefix := kittest.Redis(t)
	return limit.New(rdb, prefix, timeout, nil)
}

func client(t testing.TB, addr string) redis.UniversalClient {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, DialerRetries: 1, DialTimeout: timeout, ReadTimeout: timeout, ContextTimeoutEnabled: true})
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

func count(t testing.TB, l *limit.Limiter, caller string, rate limit.Rate, tries int) (allowed int, wait time.Duration) {
	t.Helper()
	for range tries {
		w, ok := l.Allow(context.Background(), caller, rate)
		if ok {
			allowed++
		} else {
			wait = w
		}
	}
	return allowed, wait
}

func TestBurstThenRefusalThatSaysWhen(t *testing.T) {
	l := open(t)
	start := time.Now()
	allowed, wait := count(t, l, "a", limit.Rate{PerSecond: 0.01, Burst: 5}, 9)
	if allowed != 5 {
		t.Errorf("got %d allowed, want 5", allowed)
	}
	if took := time.Since(start); wait < 99*time.Second-took || wait > 100*time.Second {
		t.Errorf("got a wait of %v after %v, want just under 100s", wait, took)
	}
}

func TestTokensComeBack(t *testing.T) {
	l := open(t)
	rate := limit.Rate{PerSecond: 10, Burst: 1}
	var wait time.Duration
	kittest.Eventually(t, timeout, func() bool {
		var ok bool
		wait, ok = l.Allow(context.Background(), "a", rate)
		return !ok
	}, "never refused")
	for deadline := time.Now().Add(timeout); ; {
		time.Sleep(wait)
		var ok bool
		if wait, ok = l.Allow(context.Background(), "a", rate); ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no token within %v", timeout)
		}
	}
}

func TestCallersAndPrefixesDoNotShare(t *testing.T) {
	rdb, prefix := kittest.Redis(t)
	l, other := limit.New(rdb, prefix, timeout, nil), limit.New(rdb, prefix+"u", timeout, nil)
	rate := limit.Rate{PerSecond: 0.01, Burst: 2}
	for _, c := range []struct {
		l      *limit.Limiter
		caller string
	}{{l, "a"}, {l, "b"}, {other, "a"}} {
		if n, _ := count(t, c.l, c.caller, rate, 5); n != 2 {
			t.Errorf("%s: got %d, want 2", c.caller, n)
		}
	}
}

func TestProcessesShareOneLimit(t *testing.T) {
	rdb, prefix := kittest.Redis(t)
	rate := limit.Rate{PerSecond: 200, Burst: 100}
	var allowed atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range 3 {
		l := limit.New(rdb, prefix, timeout, nil)
		for range 4 {
			wg.Go(func() {
				n, _ := count(t, l, "a", rate, 200)
				allowed.Add(int64(n))
			})
		}
	}
	wg.Wait()
	// What came in while the test ran, and a millisecond's refusal for each process, are the tolerance.
	most := 100 + int64(200*time.Since(start).Seconds()) + 2
	if n := allowed.Load(); n < 100 || n > most {
		t.Errorf("got %d allowed, want 100 to %d", n, most)
	}
}

func TestWithoutRedisEverythingIsAllowedSoon(t *testing.T) {
	mr := miniredis.RunT(t)
	l := limit.New(client(t, mr.Addr()), "t", timeout, nil)
	rate := limit.Rate{PerSecond: 0.01, Burst: 1}
	if n, _ := count(t, l, "a", rate, 3); n != 1 {
		t.Fatalf("got %d, want 1", n)
	}
	mr.Close()
	start := time.Now()
	for i := range 1000 {
		if _, ok := l.Allow(context.Background(), fmt.Sprintf("c%d", i), rate); !ok {
			t.Fatal("refused without Redis")
		}
	}
	if took := time.Since(start); took > timeout/2 {
		t.Errorf("1000 requests waited %v for a Redis that is away", took)
	}
	if _, ok := limit.New(nil, "t", timeout, nil).Allow(context.Background(), "a", rate); !ok {
		t.Error("refused without a client")
	}
}

func TestRequestWaitsForRedisAsLongAsIsSet(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // it takes connections and says nothing
	const wait = time.Second
	l := limit.New(client(t, ln.Addr().String()), "t", wait, nil)
	start := time.Now()
	if _, ok := l.Allow(context.Background(), "a", limit.Rate{PerSecond: 1}); !ok {
		t.Error("refused without Redis")
	}
	if took := time.Since(start); took < wait || took > timeout/2 {
		t.Errorf("let through after %v, set are %v", took, wait)
	}
}

func TestNoRateIsNoLimit(t *testing.T) {
	l := open(t)
	if n, _ := count(t, l, "a", limit.Rate{}, 100); n != 100 {
		t.Errorf("got %d, want 100", n)
	}
}

func TestManyCallersStayBounded(t *testing.T) {
	l := open(t)
	l.SetMost(50)
	for i := range 500 {
		l.Allow(context.Background(), fmt.Sprint(i), limit.Rate{PerSecond: 1})
	}
	if n := l.Buckets(); n > 50 {
		t.Errorf("got %d buckets, want 50 at most", n)
	}
}

func BenchmarkAllow(b *testing.B) {
	l := open(b)
	rate := limit.Rate{PerSecond: 1e6}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Allow(context.Background(), "a", rate)
		}
	})
}
