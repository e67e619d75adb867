//go:build linux

package bench

import (
	"bufio"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPayloadComesBack(t *testing.T) {
	for range 1000 {
		want := payload{uint16(rand.Uint32()), uint16(rand.Uint32()), rand.Uint32(), time.Duration(rand.Int64())}
		b := want.append(nil)
		got, ok := parse(b)
		if len(b) != payloadLen || !ok || got != want {
			t.Fatalf("got %+v, %v from %q (%d bytes), want %+v", got, ok, b, len(b), want)
		}
	}
	for _, bad := range []string{"", `"`, `{"test":1}`, `"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"`} {
		if p, ok := parse([]byte(bad)); ok {
			t.Errorf("%q: got %+v, want it refused", bad, p)
		}
	}
}

func TestHistogramQuantilesAreNear(t *testing.T) {
	var h histogram
	var all []time.Duration
	for range 20000 {
		d := time.Duration(rand.ExpFloat64() * float64(5*time.Millisecond))
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{.5, .9, .99, .999} {
		want := all[int(q*float64(len(all)))-1]
		got := h.quantile(q)
		if diff := (got - want).Abs(); float64(diff) > 0.02*float64(want)+float64(2*time.Microsecond) {
			t.Errorf("q %v: got %v, want %v", q, got, want)
		}
	}
	if h.quantile(1) != all[len(all)-1] {
		t.Errorf("max: got %v, want %v", h.quantile(1), all[len(all)-1])
	}
}

func TestTallyTellsLossFromRepeatsAndDisorder(t *testing.T) {
	ty := newTally(7, 2, 2, 100)
	for _, p := range []payload{
		{7, 0, 0, 0}, {7, 0, 2, 0}, // a gap is no disorder
		{7, 0, 2, 0}, // a repeat
		{7, 0, 1, 0}, // late: disorder
		{7, 1, 3, 0}, // another stream
		{8, 0, 4, 0}, // another run
	} {
		ty.add(1, p, time.Millisecond)
	}
	ty.add(0, payload{7, 0, 2, 0}, time.Millisecond) // another session: no repeat
	ty.publish()
	if got, want := ty.read(), (counts{unique: 5, duplicates: 1, disorder: 1, alien: 1, lastAt: time.Millisecond}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAnswersAreReadWholeAndInChunks(t *testing.T) {
	for name, text := range map[string]string{
		"length": "HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX: y\r\n\r\nhello world",
		"chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n",
	} {
		h := &httpConn{r: bufio.NewReader(strings.NewReader(text + "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"))}
		status, body, err := h.answer()
		if err != nil || status != 200 || string(body) != "hello world" {
			t.Errorf("%s: got %d %q, %v", name, status, body, err)
		}
		if status, body, err = h.answer(); err != nil || status != 503 || len(body) != 0 {
			t.Errorf("%s: the answer after it: got %d %q, %v", name, status, body, err)
		}
	}
	for _, bad := range []string{"", "HTTP", "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi"} {
		h := &httpConn{r: bufio.NewReader(strings.NewReader(bad))}
		if _, _, err := h.answer(); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}
