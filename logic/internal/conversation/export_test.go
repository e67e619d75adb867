package conversation

import (
	"context"
	"time"
)

// Cache lets tests look at the cache alone.
type Cache = cache[int]

// NewCache returns an empty cache.
func NewCache(c *Config, now func() time.Time) *Cache { return newCache[int](c, now) }

// Get is get, where positive values are good, and errors that aren't codes are the store's.
func (c *cache[V]) Get(ctx context.Context, key string, good func(V) bool, ask func(context.Context) (V, error)) (V, string, error) {
	return c.get(ctx, key, good, isAway, ask)
}

// Len is how many values are kept.
func (c *cache[V]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.kept)
}
