//go:build linux

package bench

import (
	"math/bits"
	"time"
)

// subBits is how finely a power of two is divided: 1/64, so a quantile is right to 1.6%.
const subBits = 6

// histogram counts durations in log-linear buckets of microseconds. It allocates nothing and is one goroutine's.
type histogram struct {
	counts [(64 - subBits) << subBits]uint64
	n      uint64
	max    time.Duration
}

func bucket(us uint64) int {
	if us < 1<<subBits {
		return int(us)
	}
	shift := bits.Len64(us) - subBits - 1
	return (shift+1)<<subBits + int(us>>shift) - 1<<subBits
}

// upper returns the largest value in a bucket, in microseconds.
func upper(i int) uint64 {
	if i < 1<<subBits {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (uint64(i&(1<<subBits-1))+1<<subBits+1)<<shift - 1
}

func (h *histogram) add(d time.Duration) {
	h.addN(d, 1)
}

func (h *histogram) addN(d time.Duration, n uint64) {
	d = max(d, 0)
	h.counts[bucket(uint64(d/time.Microsecond))] += n
	h.n += n
	h.max = max(h.max, d)
}

// quantile returns the value that q of all are not above: q = 0.99 is p99.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	want := uint64(q*float64(h.n) + 0.5)
	want = min(max(want, 1), h.n)
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen >= want {
			return min(time.Duration(upper(i))*time.Microsecond, h.max)
		}
	}
	return h.max
}

// Latency is a distribution in milliseconds.
type Latency struct {
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
	Max  float64 `json:"max_ms"`
}

func (h *histogram) latency() Latency {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return Latency{ms(h.quantile(.5)), ms(h.quantile(.99)), ms(h.quantile(.999)), ms(h.max)}
}
