// Package limit bounds how many requests a caller may make in a second, over all logic processes together. The buckets
// are in Redis; a process takes tokens from there in advance, a hundredth of a second's worth, because a round trip for
// each request would cost more than the request. Without Redis everything is allowed: a limit is a courtesy to the
// cluster, not a guard of it.
//
// redis_rate was tried and left: it puts its own "rate:" before every key, so that clusters could not share a Redis by
// prefix, and it keeps times as floating point text, which loses microseconds in Lua interpreters that print 14 digits.
//
// The package starts no goroutines.
package limit

import (
	"context"
	_ "embed"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

//go:embed take.lua
var takeSource string

var take = redis.NewScript(takeSource)

// Bounds of the limiter. They are no settings: none of them changes what a caller may do, only how it is counted.
const (
	// redisPause is how long Redis is left alone after an error, so that requests don't each wait for it.
	redisPause = time.Second
	// tokenLife is how long a token taken in advance is good for: a process that falls silent must not hoard.
	tokenLife = time.Second
	// mostBuckets bounds memory, to a few MB: callers beyond it push others out, idle ones first. API keys are far fewer.
	mostBuckets = 10_000
)

// Rate is a limit. The zero value is no limit.
type Rate struct {
	// PerSecond is the tokens that come in a second.
	PerSecond float64
	// Burst is the size of the bucket, at least 1; 0 means a second's worth.
	Burst int
}

func (r Rate) size() int {
	if r.Burst > 0 {
		return r.Burst
	}
	return max(1, int(r.PerSecond))
}

// Limiter holds the buckets of all callers. Safe for concurrent use.
type Limiter struct {
	rdb    redis.UniversalClient
	prefix string
	// timeout is the longest that a request waits for its token.
	timeout time.Duration
	// Unix nanoseconds before which Redis isn't asked.
	pausedUntil atomic.Int64
	unchecked   prometheus.Counter

	mu      sync.Mutex
	buckets map[string]*bucket
	most    int
}

// bucket is what this process has taken in advance for one caller.
type bucket struct {
	mu     sync.Mutex
	tokens int
	// When the tokens lapse, or before when there are none to be had.
	until  time.Time
	denied bool
	// refill holds one token: whoever has it may ask Redis. A channel, so that those who wait obey their context.
	refill chan struct{}
}

// New returns a Limiter whose keys begin with prefix. A request waits for Redis for timeout at most. rdb may be nil: everything is allowed.
// reg may be nil.
func New(rdb redis.UniversalClient, prefix string, timeout time.Duration, reg prometheus.Registerer) *Limiter {
	l := &Limiter{rdb: rdb, prefix: prefix + ":limit:", timeout: timeout, buckets: make(map[string]*bucket), most: mostBuckets, unchecked: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "halley_logic_limit_unchecked_total", Help: "Requests let through without a limit because Redis did not answer.",
	})}
	if reg != nil {
		reg.MustRegister(l.unchecked)
	}
	return l
}

// Allow takes one token of the caller's bucket. If there is none it returns false and how long until there is one.
func (l *Limiter) Allow(ctx context.Context, caller string, rate Rate) (wait time.Duration, ok bool) {
	if l.rdb == nil || rate.PerSecond <= 0 {
		return 0, true
	}
	b := l.bucket(caller)
	if wait, known := b.take(); known {
		return wait, wait == 0
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	select {
	case b.refill <- struct{}{}:
		defer func() { <-b.refill }()
	case <-ctx.Done():
		l.unchecked.Inc()
		return 0, true
	}
	// Whoever asked before may have left some.
	if wait, known := b.take(); known {
		return wait, wait == 0
	}
	now := time.Now()
	if now.UnixNano() < l.pausedUntil.Load() {
		l.unchecked.Inc()
		return 0, true
	}
	n := min(max(1, int(rate.PerSecond/100)), max(1, rate.size()/2))
	got, err := take.Run(ctx, l.rdb, []string{l.prefix + caller}, strconv.FormatFloat(1e6/rate.PerSecond, 'f', 6, 64), rate.size(), n).Int64Slice()
	if err != nil || len(got) != 2 {
		l.pausedUntil.Store(now.Add(redisPause).UnixNano())
		l.unchecked.Inc()
		return 0, true
	}
	return b.put(int(got[0]), time.Duration(got[1])*time.Microsecond)
}

// take uses a token if there is one. known is false if Redis must be asked.
func (b *bucket) take() (wait time.Duration, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := time.Until(b.until)
	switch {
	case left <= 0:
		b.tokens, b.denied = 0, false
		return 0, false
	case b.denied:
		return left, true
	case b.tokens > 0:
		b.tokens--
		return 0, true
	}
	return 0, false
}

func (b *bucket) put(tokens int, wait time.Duration) (time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if tokens == 0 {
		wait = max(wait, time.Millisecond)
		b.tokens, b.denied, b.until = 0, true, time.Now().Add(wait)
		return wait, false
	}
	b.tokens, b.denied, b.until = tokens-1, false, time.Now().Add(tokenLife)
	return 0, true
}

func (l *Limiter) bucket(caller string) *bucket {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[caller]
	if b == nil {
		if len(l.buckets) >= l.most {
			l.evict()
		}
		b = &bucket{refill: make(chan struct{}, 1)}
		l.buckets[caller] = b
	}
	return b
}

// evict makes room: of a handful of buckets, in the map's random order, the lapsed ones go, or one that isn't. What a
// live one had taken is lost to its caller until the bucket in Redis fills again, a hundredth of a second.
func (l *Limiter) evict() {
	looked := 0
	for caller, b := range l.buckets {
		b.mu.Lock()
		lapsed := time.Until(b.until) <= 0
		b.mu.Unlock()
		looked++
		if lapsed || looked >= 16 {
			delete(l.buckets, caller)
		}
		if looked >= 16 {
			return
		}
	}
}
