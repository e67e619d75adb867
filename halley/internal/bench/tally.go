//go:build linux

package bench

import (
	"sync/atomic"
	"time"
)

// tally is the book of one run: who got what. Sessions are 0 … n-1; a push has a number (seq) in the run, from 0,
// and belongs to a stream: within a stream each push was accepted before the next was sent, so that their order
// is promised.
type tally struct {
	run     uint16
	streams int
	most    uint32 // seqs are below

	seen []uint64 // bits, words of them for each session
	last []uint32 // for each session and stream: highest seq seen + 1
	lat  histogram

	words int

	// Counted by the loop alone, and told to others by publish.
	count  counts
	public struct{ unique, duplicates, disorder, alien, lastAt atomic.Int64 }
}

// counts is what came.
type counts struct {
	unique     int64
	duplicates int64
	disorder   int64
	alien      int64         // bodies of another run, or not of ours
	lastAt     time.Duration // when the last one came
}

func newTally(run uint16, sessions, streams int, most uint32) *tally {
	words := int(most+63) / 64
	return &tally{
		run: run, streams: streams, most: most, words: words,
		seen: make([]uint64, sessions*words), last: make([]uint32, sessions*streams),
	}
}

// add books a delivery. It belongs to the loop.
func (t *tally) add(session int, p payload, at time.Duration) {
	if p.run != t.run || int(p.stream) >= t.streams || p.seq >= t.most {
		t.count.alien++
		return
	}
	word := &t.seen[session*t.words+int(p.seq/64)]
	bit := uint64(1) << (p.seq % 64)
	if *word&bit != 0 {
		t.count.duplicates++
		return
	}
	*word |= bit
	last := &t.last[session*t.streams+int(p.stream)]
	if p.seq < *last {
		t.count.disorder++
	} else {
		*last = p.seq + 1
	}
	t.lat.add(at - p.sent)
	t.count.unique++
	t.count.lastAt = at
}

// publish lets other goroutines see what was counted. The loop calls it after each read, not for each delivery.
func (t *tally) publish() {
	t.public.unique.Store(t.count.unique)
	t.public.duplicates.Store(t.count.duplicates)
	t.public.disorder.Store(t.count.disorder)
	t.public.alien.Store(t.count.alien)
	t.public.lastAt.Store(int64(t.count.lastAt))
}

// read returns what was published. Any goroutine may call it.
func (t *tally) read() counts {
	return counts{
		unique: t.public.unique.Load(), duplicates: t.public.duplicates.Load(), disorder: t.public.disorder.Load(),
		alien: t.public.alien.Load(), lastAt: time.Duration(t.public.lastAt.Load()),
	}
}
