package conversation

import (
	"context"
	"sync"
	"time"
)

// cache remembers favourable answers of the store for a short time, and which questions are being asked, so that many who ask
// the same wait for one answer. It starts no goroutines: who asks first does the work.
type cache[V any] struct {
	ttl, stale, pause time.Duration
	most              int
	now               func() time.Time

	mu      sync.Mutex
	kept    map[string]kept[V]
	flights map[string]*flight[V]
	// Until then the store isn't asked, because it has just failed. After that one question at a time finds out whether it is back: a
	// database that doesn't answer holds up one caller for its time limit, not all of them.
	paused  time.Time
	away    bool
	probing bool
}

type kept[V any] struct {
	v  V
	at time.Time
}

type flight[V any] struct {
	done chan struct{}
	v    V
	err  error
}

func newCache[V any](c *Config, now func() time.Time) *cache[V] {
	return &cache[V]{
		ttl: c.MembershipTTL, stale: c.MembershipStale, pause: c.StorePause, most: c.MembershipCache, now: now,
		kept: map[string]kept[V]{}, flights: map[string]*flight[V]{},
	}
}

// How an answer came about.
const (
	fromCache = "cached"
	fromStore = "read"
	fromStale = "stale"
	failed    = "failed"
)

// get returns the value of key: a fresh one that is kept, or what ask says. ask's value is kept if good reports true. If
// ask fails because the store does, as away tells, a value that isn't too old is returned in its place, and the store is left alone for
// a while. ask isn't cancelled with ctx: others may wait for it; it has its own time limit.
func (c *cache[V]) get(ctx context.Context, key string, good func(V) bool, away func(error) bool, ask func(context.Context) (V, error)) (V, string, error) {
	c.mu.Lock()
	old, known := c.kept[key]
	age := c.now().Sub(old.at)
	if known && age < c.ttl {
		c.mu.Unlock()
		return old.v, fromCache, nil
	}
	if known && age >= c.stale {
		delete(c.kept, key)
		known = false
	}
	if c.away && (c.probing || c.now().Before(c.paused)) {
		c.mu.Unlock()
		if known {
			return old.v, fromStale, nil
		}
		var zero V
		return zero, failed, errPaused
	}
	f := c.flights[key]
	mine := f == nil
	if mine {
		f = &flight[V]{done: make(chan struct{})}
		c.flights[key] = f
		c.probing = c.away
	}
	c.mu.Unlock()

	if mine {
		c.fly(context.WithoutCancel(ctx), key, f, good, away, ask)
	} else {
		select {
		case <-f.done:
		case <-ctx.Done():
			var zero V
			return zero, failed, ctx.Err()
		}
	}
	if f.err != nil && known && away(f.err) {
		return old.v, fromStale, nil
	}
	if f.err != nil && away(f.err) {
		return f.v, failed, f.err
	}
	return f.v, fromStore, f.err
}

// fly asks and lets the others know.
func (c *cache[V]) fly(ctx context.Context, key string, f *flight[V], good func(V) bool, away func(error) bool, ask func(context.Context) (V, error)) {
	f.err = errPaused // what those who wait learn if ask panics
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.flights, key)
		close(f.done)
		c.away, c.probing = f.err != nil && away(f.err), false
		switch {
		case f.err == nil && good(f.v):
			if _, there := c.kept[key]; !there && len(c.kept) >= c.most {
				c.evict()
			}
			c.kept[key] = kept[V]{f.v, c.now()}
		case f.err != nil && away(f.err):
			c.paused = c.now().Add(c.pause)
		default:
			delete(c.kept, key)
		}
	}()
	f.v, f.err = ask(ctx)
}

// evict makes room: of a handful, in the map's random order, those go that are no longer fresh, or the last one.
func (c *cache[V]) evict() {
	const handful = 16
	looked := 0
	for key, k := range c.kept {
		looked++
		if last := looked == min(handful, c.most); last || c.now().Sub(k.at) >= c.ttl {
			delete(c.kept, key)
			if last {
				return
			}
		}
	}
}
