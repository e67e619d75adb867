package client

import (
	"math/rand/v2"
	"testing"
)

// In the package itself: log is nobody's to see.
func TestLogHandsEachEntryOverOnceInWhateverOrderTheyCome(t *testing.T) {
	for range 200 {
		rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
		l := log{have: rng.Int64N(5)}
		first := l.have + 1
		last := first + rng.Int64N(40)
		next := first
		take := func(seq, changed int64) {
			for _, e := range l.take(Entry{Seq: seq, ChangedSeq: changed}) {
				if e.Seq != next {
					t.Fatalf("got %d, want %d", e.Seq, next)
				}
				next++
			}
			if from, to := l.missing(); from != 0 && (from != next || to < from || to > l.top) {
				t.Fatalf("%d to %d is missing, %d is next", from, to, next)
			}
		}
		for range 100 {
			take(1+rng.Int64N(last), last)
		}
		// What is missing is read, in whatever pages.
		l.hear(last)
		for from, to := l.missing(); from != 0; from, to = l.missing() {
			take(from+rng.Int64N(to-from+1), last)
			take(from, last)
		}
		if next != last+1 {
			t.Fatalf("handed over up to %d, want %d", next-1, last)
		}
	}
}

func TestLogForgetsTheLastOfTooManyThatWait(t *testing.T) {
	l := log{}
	for seq := int64(2); seq < maxAhead+100; seq++ {
		l.take(Entry{Seq: seq})
	}
	if len(l.ahead) != maxAhead {
		t.Errorf("%d wait, want %d", len(l.ahead), maxAhead)
	}
	if out := l.take(Entry{Seq: 1}); len(out) != maxAhead+1 {
		t.Errorf("%d were handed over, want %d", len(out), maxAhead+1)
	}
	if from, to := l.missing(); from != maxAhead+2 || to != maxAhead+99 {
		t.Errorf("%d to %d is missing, want what was forgotten", from, to)
	}
}

func TestLogKeepsWhatWasReadLater(t *testing.T) {
	l := log{}
	l.take(Entry{Seq: 2, ChangedSeq: 2})
	l.take(Entry{Seq: 2, ChangedSeq: 9})
	l.take(Entry{Seq: 2, ChangedSeq: 5})
	if out := l.take(Entry{Seq: 1}); len(out) != 2 || out[1].ChangedSeq != 9 {
		t.Errorf("got %+v", out)
	}
}

func TestLogSkipsWhatIsNotForItsReader(t *testing.T) {
	l := log{have: 2}
	l.take(Entry{Seq: 5})
	l.take(Entry{Seq: 8})
	if out := l.skip(7); len(out) != 1 || out[0].Seq != 8 || l.have != 8 {
		t.Errorf("got %+v, have %d", out, l.have)
	}
	if out := l.skip(3); out != nil || l.have != 8 {
		t.Errorf("went back to %d", l.have)
	}
}
