// Package flush writes what is in the outboxes of sessions that got something. A few walkers go through lists
// of such sessions: one write a session, whatever waits in its outbox.
//
// While there is little to write, a session is written to at once. The more there is, the longer a session that was
// written to lately waits for more, up to a bound: a write costs microseconds however little it carries, so
// that only fewer and larger ones make a high rate affordable. How much there is to write is measured on what
// is offered, not on how busy the walkers are: what they do depends on the window, and a window that follows
// from itself swings.
package flush

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/halley-im/halley/comet/internal/session"
)

// The window is 0 while writing each message by itself would keep a walker busy for less than low of its
// time, and the bound from high on. These are measured, and no settings: flush_max says how far they may go.
const (
	low  = 0.4
	high = 1.2
	// cost of one write, measured within these bounds: a walker that has to wait for a processor is no reason to
	// think writes dear.
	minCost = 2e3
	maxCost = 7e3
	// sample is the shortest time over which the rate is taken. It is followed faster up than down: a flood must
	// not find every message written by itself for half a second.
	sample = 100 * time.Millisecond
	rising = 150 * time.Millisecond
	fading = 500 * time.Millisecond
)

// Flusher hands sessions to its walkers. Use New, then Run.
type Flusher struct {
	max     int64
	walkers []*walker

	window  atomic.Int64
	offered atomic.Int64
	lastly  atomic.Int64
	mu      sync.Mutex
	rate    float64 // messages a second
}

// New returns a Flusher with n walkers whose window is at most limit.
func New(n int, limit time.Duration) *Flusher {
	f := &Flusher{max: int64(limit)}
	f.lastly.Store(session.Now())
	for range max(n, 1) {
		w := &walker{f: f, wake: make(chan struct{}, 1), scratch: session.NewScratch(64 << 10)}
		w.cost.Store(math.Float64bits(5e3))
		f.walkers = append(f.walkers, w)
	}
	return f
}

// Run works until ctx ends.
func (f *Flusher) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, w := range f.walkers {
		wg.Go(func() { w.run(ctx) })
	}
	wg.Wait()
}

// Window returns the present window.
func (f *Flusher) Window() time.Duration { return time.Duration(f.window.Load()) }

// Rate returns the smoothed messages a second.
func (f *Flusher) Rate() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rate
}

// Batch collects the sessions that one piece of work made dirty. It belongs to one goroutine and may be used
// again after Done.
type Batch struct {
	f      *Flusher
	Now    int64
	window int64
	now    []*session.Session
	later  []*session.Session
	full   []*session.Session
	// Messages counts what was put into outboxes.
	Messages int
}

// Batch returns a new batch.
func (f *Flusher) Batch() *Batch { return &Batch{f: f} }

// Begin takes the time and the window for what follows.
func (b *Batch) Begin() {
	b.Now = session.Now()
	b.window = b.f.window.Load()
	b.Messages = 0
}

// Window is what Enqueue wants to know.
func (b *Batch) Window() int64 { return b.window }

// Add notes what Enqueue said of s, and reports whether s got the message.
func (b *Batch) Add(s *session.Session, r session.Result) bool {
	switch r {
	case session.Queued:
	case session.WriteNow:
		b.now = append(b.now, s)
	case session.WriteLater:
		b.later = append(b.later, s)
	case session.Overflow:
		b.full = append(b.full, s)
		return false
	default:
		return false
	}
	b.Messages++
	return true
}

// inline is how many sessions the caller of Done writes to itself: fewer than it takes to make waking a
// walker worth it.
const inline = 8

// Done hands the sessions over. It must be called outside all locks.
func (b *Batch) Done() {
	f := b.f
	f.offered.Add(int64(b.Messages))
	f.estimate(b.Now)
	for _, s := range b.full {
		s.Overflowed()
	}
	if len(b.now) <= inline {
		for _, s := range b.now {
			s.Flush(nil)
		}
	} else {
		f.add(b.now, nil, b.Now)
	}
	if len(b.later) > 0 {
		f.add(nil, b.later, b.Now)
	}
	clear(b.now)
	clear(b.later)
	clear(b.full)
	b.now, b.later, b.full = b.now[:0], b.later[:0], b.full[:0]
}

func (f *Flusher) add(now, later []*session.Session, t int64) {
	if len(f.walkers) == 1 {
		f.walkers[0].add(now, later, t)
		return
	}
	// A session always has the same walker: its share of the list, not its writes, is what is divided.
	for i, w := range f.walkers {
		w.addShare(now, later, t, i, len(f.walkers))
	}
}

// estimate takes the rate and sets the window, at most once per sample.
func (f *Flusher) estimate(now int64) {
	last := f.lastly.Load()
	if now-last < int64(sample) || !f.lastly.CompareAndSwap(last, now) {
		return
	}
	elapsed := float64(now - last)
	n := float64(f.offered.Swap(0))
	f.mu.Lock()
	defer f.mu.Unlock()
	present := n / elapsed * 1e9
	memory := fading
	if present > f.rate {
		memory = rising
	}
	f.rate += (1 - math.Exp(-elapsed/float64(memory))) * (present - f.rate)
	cost := 0.0
	for _, w := range f.walkers {
		cost += math.Float64frombits(w.cost.Load())
	}
	k := float64(len(f.walkers))
	load := f.rate * (cost / k) / 1e9 / k
	f.window.Store(int64(float64(f.max) * min(max((load-low)/(high-low), 0), 1)))
}

// Calm lets the window shrink while nothing is offered; somebody calls it every second or so.
func (f *Flusher) Calm() { f.estimate(session.Now()) }

// walker writes to the sessions in its lists.
type walker struct {
	f       *Flusher
	wake    chan struct{}
	scratch *session.Scratch
	cost    atomic.Uint64 // nanoseconds a write, float64

	mu       sync.Mutex
	now      []*session.Session
	later    []*session.Session
	laterDue int64
}

func (w *walker) add(now, later []*session.Session, t int64) {
	w.mu.Lock()
	w.now = append(w.now, now...)
	if len(later) > 0 && len(w.later) == 0 {
		w.laterDue = t + w.f.window.Load()
	}
	w.later = append(w.later, later...)
	w.mu.Unlock()
	w.signal()
}

func (w *walker) addShare(now, later []*session.Session, t int64, i, of int) {
	w.mu.Lock()
	for _, s := range now {
		if int(s.ID)%of == i {
			w.now = append(w.now, s)
		}
	}
	had := len(w.later)
	for _, s := range later {
		if int(s.ID)%of == i {
			w.later = append(w.later, s)
		}
	}
	if had == 0 && len(w.later) > 0 {
		w.laterDue = t + w.f.window.Load()
	}
	w.mu.Unlock()
	w.signal()
}

func (w *walker) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run ends with ctx.
func (w *walker) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var list []*session.Session
	for {
		w.mu.Lock()
		wait := int64(time.Hour)
		switch t := session.Now(); {
		case len(w.now) > 0:
			list, w.now = w.now, list[:0]
		case len(w.later) > 0 && t >= w.laterDue:
			list, w.later = w.later, list[:0]
		case len(w.later) > 0:
			wait = w.laterDue - t
		}
		w.mu.Unlock()
		if len(list) > 0 {
			w.walk(list)
			clear(list)
			if cap(list) > 1<<16 {
				list = nil
			}
			list = list[:0]
			continue
		}
		timer.Reset(time.Duration(wait))
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
	}
}

// walk flushes every session of the list once.
func (w *walker) walk(list []*session.Session) {
	begun := session.Now()
	w.scratch.Time = begun
	for i, s := range list {
		if i&63 == 63 {
			w.scratch.Time = session.Now()
			// A list of thousands takes tens of milliseconds; what must be written now doesn't wait for its end.
			w.interject()
		}
		s.Flush(w.scratch)
	}
	if n := len(list); n >= 16 {
		per := min(max(float64(session.Now()-begun)/float64(n), minCost), maxCost)
		old := math.Float64frombits(w.cost.Load())
		w.cost.Store(math.Float64bits(old + 0.1*(per-old)))
	}
}

// interject flushes a few sessions that became due while a long list is being walked.
func (w *walker) interject() {
	var some [inline]*session.Session
	w.mu.Lock()
	n := len(w.now)
	if n == 0 || n > inline {
		w.mu.Unlock()
		return
	}
	copy(some[:], w.now)
	clear(w.now)
	w.now = w.now[:0]
	w.mu.Unlock()
	for _, s := range some[:n] {
		s.Flush(w.scratch)
	}
}
