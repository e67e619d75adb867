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

	unique     atomic.Int64
	duplicates atomic.Int64
	disorder   atomic.Int64
	alien      atomic.Int64
	lastAt     atomic.Int64 // when the last one came, as a time since epoch
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
		t.alien.Add(1)
		return
	}
	word := &t.seen[session*t.words+int(p.seq/64)]
	bit := uint64(1) << (p.seq % 64)
	if *word&bit != 0 {
		t.duplicates.Add(1)
		return
	}
	*word |= bit
	last := &t.last[session*t.streams+int(p.stream)]
	if p.seq < *last {
		t.disorder.Add(1)
	} else {
		*last = p.seq + 1
	}
	t.lat.add(at - p.sent)
	t.unique.Add(1)
	t.lastAt.Store(int64(at))
}
