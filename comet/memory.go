package comet

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// What taking in a connection leaves behind is several times what the connection needs, and without traffic
// the next collection may be two minutes off. So when a storm of connections is over, its garbage is given
// back: measured, 1.5 to 3 KB a connection. It costs two collections per storm.
// They are no settings: wrong ones cost memory or a moment of a processor, and what is right follows from Go, not from the load.
const (
	tidyEvery = 2 * time.Second
	// A storm changes the number of connections by at least this many and this part.
	stormLeast = 1000
	stormPart  = 8
	// It is over when fewer than this part come or go in tidyEvery.
	calmPart = 100
)

// tidy gives memory back after storms, until ctx ends.
func (c *Comet) tidy(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	kept, last := 0, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n := c.table.Len()
		moved, stormed := abs(n-last), abs(n-kept)
		last = n
		if stormed >= max(stormLeast, kept/stormPart) && moved <= n/calmPart {
			kept = n
			// A collection halves stacks that are too large: those of readers grow to 8 KB while they log in, and need 2.
			runtime.GC()
			debug.FreeOSMemory()
		}
	}
}

func abs(n int) int { return max(n, -n) }
