package outbox_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/halley-im/halley/comet/internal/outbox"
	"github.com/halley-im/halley/proto/frame"
)

func volatile(body string) *outbox.Message {
	return outbox.NewPush(1000, []byte(body), outbox.RankPush, outbox.Volatile)
}

func stored(body string) *outbox.Message {
	return outbox.NewPush(102, []byte(body), outbox.RankChat, outbox.Stored)
}

// drain reads all frames out of a queue, over either form.
func drain(t testing.TB, q *outbox.Queue, ws bool) []string {
	t.Helper()
	var bodies []string
	buf := make([]byte, 0, 4096)
	for !q.Empty() {
		if q.HasGap() {
			q.Gap()
			continue
		}
		out, n := q.Gather(buf, ws)
		if n == 0 {
			t.Fatal("gathered nothing from a queue that isn't empty")
		}
		got := decode(t, out, ws)
		if len(got) != n {
			t.Fatalf("gathered %d messages, says %d", len(got), n)
		}
		bodies = append(bodies, got...)
	}
	return bodies
}

func decode(t testing.TB, b []byte, ws bool) []string {
	t.Helper()
	var bodies []string
	bare := func(b []byte) {
		if err := frame.ParseBatch(b, func(f frame.Frame) bool {
			bodies = append(bodies, string(f.Body))
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	if !ws {
		bare(b)
		return bodies
	}
	for len(b) > 0 {
		head, n := 2, int(b[1])
		switch n {
		case 126:
			head, n = 4, int(b[2])<<8|int(b[3])
		case 127:
			head, n = 10, 0
			for _, c := range b[2:10] {
				n = n<<8 | int(c)
			}
		}
		msg := b[head : head+n]
		b = b[head+n:]
		f, size, err := frame.Parse(msg, nil)
		if err != nil || size != len(msg) {
			t.Fatalf("WebSocket message is not one frame: %v", err)
		}
		if f.Op == frame.OpBatch {
			bare(f.Body)
			continue
		}
		bodies = append(bodies, string(f.Body))
	}
	return bodies
}

func TestQueueWritesByRankThenOrder(t *testing.T) {
	for _, ws := range []bool{false, true} {
		var q outbox.Queue
		for i := range 3 {
			for _, r := range []outbox.Rank{outbox.RankBulk, outbox.RankChat, outbox.RankPush, outbox.RankUrgent} {
				q.Push(outbox.NewPush(1000, fmt.Appendf(nil, "%d-%d", r, i), r, outbox.Volatile), 1<<20)
			}
			q.Push(outbox.NewReply(1, 3, 0, fmt.Appendf(nil, "0-%d", i)), 1<<20)
		}
		want := ""
		for r := range 5 {
			for i := range 3 {
				want += fmt.Sprintf("%d-%d ", r, i)
			}
		}
		got := ""
		for _, b := range drain(t, &q, ws) {
			got += b + " "
		}
		if got != want {
			t.Errorf("ws %v: got %s, want %s", ws, got, want)
		}
	}
}

func TestQueueDropsVolatileFirstOldestFirst(t *testing.T) {
	var q outbox.Queue
	const limit = 100 * 20 // 100 messages of 16+4 bytes
	for i := range 50 {
		q.Push(stored(fmt.Sprintf("s%03d", i)), limit)
		q.Push(volatile(fmt.Sprintf("v%03d", i)), limit)
	}
	d := q.Push(volatile("last"), limit)
	if d.Volatile == 0 || d.Stored != 0 {
		t.Fatalf("dropped %+v, want volatile only", d)
	}
	if g := q.Gap(); g.Dropped != uint32(d.Volatile) || g.Resync {
		t.Errorf("gap %+v, want %d dropped", g, d.Volatile)
	}
	got := drain(t, &q, false)
	next := d.Volatile
	storedLeft := 0
	for _, b := range got {
		switch {
		case b[0] == 's':
			storedLeft++
		case b == "last":
		default:
			if b != fmt.Sprintf("v%03d", next) {
				t.Fatalf("got %s, want v%03d: the oldest go first", b, next)
			}
			next++
		}
	}
	if storedLeft != 50 || got[len(got)-1] == "" {
		t.Errorf("%d stored messages left, want 50", storedLeft)
	}
}

func TestQueueTurnsStoredIntoOneResync(t *testing.T) {
	var q outbox.Queue
	const limit = 1000
	dropped := 0
	for i := range 500 {
		dropped += q.Push(stored(strconv.Itoa(i)), limit).Stored
		if q.Bytes() > limit {
			t.Fatalf("%d bytes, limit %d", q.Bytes(), limit)
		}
	}
	if g := q.Gap(); !g.Resync || g.Dropped != 0 {
		t.Errorf("gap %+v, want a resync", g)
	}
	if left := len(drain(t, &q, true)); left+dropped != 500 {
		t.Errorf("%d left and %d dropped, want 500 together", left, dropped)
	}
}

func TestQueueNeverDropsRepliesAndControls(t *testing.T) {
	var q outbox.Queue
	for range 100 {
		q.Push(outbox.NewReply(1, 3, 0, make([]byte, 100)), 500)
		q.Push(outbox.NewPush(102, make([]byte, 100), outbox.RankUrgent, outbox.Control), 500)
		q.Push(volatile("x"), 500)
	}
	if q.ReplyBytes() != 100*116 {
		t.Errorf("%d bytes of replies, want %d", q.ReplyBytes(), 100*116)
	}
	g := q.Gap()
	got := drain(t, &q, false)
	if len(got)+int(g.Dropped) != 300 || len(got) < 200 {
		t.Errorf("%d left, %d dropped", len(got), g.Dropped)
	}
}

func TestQueueTakesAnyMessageWhenEmpty(t *testing.T) {
	var q outbox.Queue
	if d := q.Push(volatile(string(make([]byte, 5000))), 100); d != (outbox.Dropped{}) {
		t.Errorf("dropped %+v", d)
	}
	if got := drain(t, &q, true); len(got) != 1 || len(got[0]) != 5000 {
		t.Errorf("got %d messages", len(got))
	}
}

func TestFinalComesLast(t *testing.T) {
	var q outbox.Queue
	q.Push(volatile("a"), 1000)
	q.Finish(outbox.NewPush(102, []byte("closing"), outbox.RankUrgent, outbox.Control))
	q.Push(volatile("b"), 1000)
	got := drain(t, &q, false)
	if fmt.Sprint(got) != "[a b closing]" {
		t.Errorf("got %v", got)
	}
}

func TestQueueKeepsItsInvariants(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var q outbox.Queue
		limit := 200 + r.IntN(5000)
		pushed, out, gone := 0, 0, 0
		last := map[string]int{}
		buf := make([]byte, 0, 64+r.IntN(4000))
		ws := r.IntN(2) == 0
		take := func() {
			if q.HasGap() {
				q.Gap()
			}
			b, n := q.Gather(buf, ws)
			got := decode(t, b, ws)
			if len(got) != n {
				t.Fatalf("seed %d: %d messages, says %d", seed, len(got), n)
			}
			out += n
			for _, body := range got {
				kind, num := body[:2], 0
				fmt.Sscanf(body[2:], "%d", &num)
				if num <= last[kind] {
					t.Fatalf("seed %d: %s after %d of %s", seed, body, last[kind], kind)
				}
				last[kind] = num
			}
		}
		for i := 1; i < 300; i++ {
			rank := outbox.Rank(r.IntN(5))
			class := outbox.Class(1 + r.IntN(2))
			if rank == outbox.RankReply {
				class = outbox.Reply
			}
			body := fmt.Appendf(nil, "%d%d%d ", rank, class, i)
			body = append(body, make([]byte, r.IntN(200))...)
			m := outbox.NewPush(1000, body, rank, class)
			if class == outbox.Reply {
				m = outbox.NewReply(1, 3, 0, body)
			}
			d := q.Push(m, limit)
			pushed++
			gone += d.Volatile + d.Stored
			if q.Bytes() > limit && q.Len() > 1 && q.ReplyBytes() < q.Bytes() {
				t.Fatalf("seed %d: %d bytes, %d of replies, limit %d", seed, q.Bytes(), q.ReplyBytes(), limit)
			}
			if r.IntN(8) == 0 {
				take()
			}
		}
		for !q.Empty() {
			take()
		}
		if out+gone != pushed || q.Bytes() != 0 || q.ReplyBytes() != 0 {
			t.Fatalf("seed %d: pushed %d, out %d, gone %d, %d bytes left", seed, pushed, out, gone, q.Bytes())
		}
	}
}

func TestMessageFormsShareTheirBytes(t *testing.T) {
	for _, n := range []int{0, 1, 93, 94, 109, 110, 4096, 65535 - 32, 65536 - 32, 200000} {
		m := outbox.NewPush(1000, make([]byte, n), outbox.RankPush, outbox.Volatile)
		if got := len(m.Bytes(false)); got != 16+n || m.Size() != got {
			t.Errorf("body of %d: bare form has %d bytes", n, got)
		}
		if got := decode(t, m.Bytes(true), true); len(got) != 1 || len(got[0]) != n {
			t.Errorf("body of %d: WebSocket form doesn't decode", n)
		}
	}
}

func BenchmarkPushGather(b *testing.B) {
	for _, run := range []int{1, 5, 100} {
		for _, ws := range []bool{false, true} {
			b.Run(fmt.Sprintf("run=%d/ws=%v", run, ws), func(b *testing.B) {
				m := volatile(string(make([]byte, 37)))
				buf := make([]byte, 0, 64<<10)
				var q outbox.Queue
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					q.Push(m, 1<<20)
					if i%run == run-1 {
						q.Gather(buf, ws)
					}
				}
			})
		}
	}
}
