// Package backoff spaces retries: doubling, bounded, with jitter, and every wait ends with its context.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the spacing of one series of retries. Min and Max are set once; the zero attempt waits about Min.
type Backoff struct {
	Min, Max time.Duration
	attempt  int
}

// Reset starts the series again.
func (b *Backoff) Reset() { b.attempt = 0 }

// Next returns the next wait: between half and all of Min doubled as often as it was called, at most Max.
func (b *Backoff) Next() time.Duration {
	d := b.Min << min(b.attempt, 20)
	if d > b.Max || d <= 0 {
		d = b.Max
	}
	b.attempt++
	return d/2 + rand.N(d/2+1)
}

// Wait waits for Next, or for d if that is longer (but not longer than Max), and reports false if ctx ended first.
func (b *Backoff) Wait(ctx context.Context, d time.Duration) bool {
	return Sleep(ctx, min(max(b.Next(), d), b.Max))
}

// Sleep waits and reports false if ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
