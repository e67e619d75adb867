package window_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/halley-im/halley/job/internal/window"
)

// model is a Window as plain slices.
type model struct {
	sent, unsent []int
	acked        uint64
}

func TestWindowKeepsOrderThroughRandomHistories(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var w window.Window[int]
		var m model
		next, bytes := 0, int64(0)
		size := func(v int) int64 { return int64(v%7 + 1) }
		for step := range 500 {
			switch op := rng.IntN(20); {
			case op < 8:
				w.Push(next, size(next))
				m.unsent = append(m.unsent, next)
				bytes += size(next)
				next++
			case op < 14:
				v, n, ok := w.Peek()
				if ok != (len(m.unsent) > 0) {
					t.Fatalf("seed %d step %d: Peek ok %v, want %v", seed, step, ok, !ok)
				}
				if !ok {
					break
				}
				if v != m.unsent[0] || n != size(v) {
					t.Fatalf("seed %d step %d: Peek %d of %d bytes, want %d", seed, step, v, n, m.unsent[0])
				}
				if rng.IntN(10) == 0 {
					w.Skip()
					bytes -= size(v)
				} else {
					m.sent = append(m.sent, v)
					if got, want := w.Send(), m.acked+uint64(len(m.sent)); got != want {
						t.Fatalf("seed %d step %d: number %d, want %d", seed, step, got, want)
					}
				}
				m.unsent = m.unsent[1:]
			case op < 18:
				number := m.acked + uint64(rng.IntN(len(m.sent)+1))
				var got []int
				if err := w.Ack(number, func(v int) { got = append(got, v) }); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
				n := int(number - m.acked)
				if !slices.Equal(got, m.sent[:n]) {
					t.Fatalf("seed %d step %d: acknowledged %v, want %v", seed, step, got, m.sent[:n])
				}
				for _, v := range got {
					bytes -= size(v)
				}
				m.sent, m.acked = m.sent[n:], number
			case op == 18:
				if err := w.Ack(m.acked+uint64(len(m.sent))+1, func(int) { t.Fatal("acknowledged what was never sent") }); err == nil {
					t.Fatalf("seed %d step %d: an acknowledgement of what was never sent passed", seed, step)
				}
			default:
				w.Rewind()
				m.unsent = append(slices.Clone(m.sent), m.unsent...)
				m.sent, m.acked = nil, 0
			}
			if w.Count() != len(m.sent)+len(m.unsent) || w.Unsent() != len(m.unsent) || w.Bytes() != bytes {
				t.Fatalf("seed %d step %d: %d things, %d unsent, %d bytes, want %d, %d, %d", seed, step,
					w.Count(), w.Unsent(), w.Bytes(), len(m.sent)+len(m.unsent), len(m.unsent), bytes)
			}
			for i, want := range m.sent {
				if v, ok := w.At(m.acked + uint64(i) + 1); !ok || v != want {
					t.Fatalf("seed %d step %d: At gives %d, %v, want %d", seed, step, v, ok, want)
				}
			}
			if _, ok := w.At(m.acked); ok {
				t.Fatalf("seed %d step %d: an acknowledged number is still there", seed, step)
			}
		}
		var left []int
		w.Drain(func(v int) { left = append(left, v) })
		if want := append(slices.Clone(m.sent), m.unsent...); !slices.Equal(left, want) {
			t.Fatalf("seed %d: drained %v, want %v", seed, left, want)
		}
		if w.Count() != 0 || w.Bytes() != 0 {
			t.Fatalf("seed %d: %d things of %d bytes after Drain", seed, w.Count(), w.Bytes())
		}
	}
}

func TestOffsetsNeverPassARecordInFlight(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var o window.Offsets
		type rec struct {
			seq    uint64
			offset int64
			done   bool
		}
		var recs []rec
		offset, committed := int64(rng.IntN(1000)), int64(0)
		for step := range 600 {
			switch op := rng.IntN(10); {
			case op < 4:
				// Offsets have gaps: transactions' markers, compaction.
				offset += 1 + int64(rng.IntN(3))
				recs = append(recs, rec{seq: o.Add(offset, offset*10, 1), offset: offset})
			case op < 8 && len(recs) > 0:
				// Twice is harmless.
				r := &recs[max(0, len(recs)-1-rng.IntN(30))]
				r.done = true
				o.Done(r.seq)
			case op == 8:
				o.Done(uint64(len(recs)) + uint64(rng.IntN(10)) + 5)
			default:
				first := slices.IndexFunc(recs, func(r rec) bool { return !r.done })
				want := committed
				switch {
				case first < 0 && len(recs) > 0:
					want = recs[len(recs)-1].offset + 1
				case first > 0:
					want = recs[first-1].offset + 1
				}
				got, moved := o.Commit()
				if moved != (want != committed) || moved && got != want {
					t.Fatalf("seed %d step %d: commit %d, moved %v, want %d after %d", seed, step, got, moved, want, committed)
				}
				committed = want
				if moved {
					o.Again()
					if again, ok := o.Commit(); !ok || again != got {
						t.Fatalf("seed %d step %d: a failed commit is not repeated", seed, step)
					}
				}
				open := 0
				if first >= 0 {
					open = len(recs) - first
					if at, ok := o.Oldest(); !ok || at != recs[first].offset*10 {
						t.Fatalf("seed %d step %d: oldest %d, want %d", seed, step, at, recs[first].offset*10)
					}
				} else if _, ok := o.Oldest(); ok {
					t.Fatalf("seed %d step %d: an oldest record where all are done", seed, step)
				}
				if o.Len() != open {
					t.Fatalf("seed %d step %d: %d in flight, want %d", seed, step, o.Len(), open)
				}
			}
		}
	}
}

func TestThinTakesOutOnlyWhatIsNotSent(t *testing.T) {
	var w window.Window[int]
	for i := range 6 {
		w.Push(i, 10)
	}
	w.Peek()
	w.Send()
	w.Send()
	w.Thin(func(v int) bool { return v%2 == 0 })
	var sent []int
	w.Sent(func(v int) { sent = append(sent, v) })
	if !slices.Equal(sent, []int{0, 1}) || w.Unsent() != 2 || w.Count() != 4 || w.Bytes() != 40 {
		t.Errorf("sent %v, %d not, %d bytes", sent, w.Unsent(), w.Bytes())
	}
	w.Rewind()
	var all []int
	w.Drain(func(v int) { all = append(all, v) })
	if !slices.Equal(all, []int{0, 1, 3, 5}) || w.Bytes() != 0 {
		t.Errorf("left are %v, %d bytes", all, w.Bytes())
	}
}
