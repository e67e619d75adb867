//go:build linux

package bench

import (
	"fmt"
	"strings"
	"testing"

	"github.com/halley-im/halley/client"
)

// rowOf returns the table's line that begins so.
func rowOf(t *testing.T, lines, begin string, nth int) string {
	t.Helper()
	s, err := ReadSummary(strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := s.Write(&b, true); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "| "+begin) {
			if nth == 0 {
				return strings.TrimSpace(line)
			}
			nth--
		}
	}
	t.Fatalf("no line %q in\n%s", begin, b.String())
	return ""
}

func TestSummaryHoldsFiguresAgainstGoals(t *testing.T) {
	const head = `{"date":"2026-01-02T03:04:05Z","commit":"abc","machine":"m","version":"v"}` + "\n"
	for _, tt := range []struct{ name, lines, begin, want string }{
		{"met", `{"scenario":"lone","transport":"tcp","sessions":1000,"latency":{"p50_ms":6,"p99_ms":15}}`, "lone push", "| p50 6.0 ms, p99 15.0 ms | yes |"},
		{"missed in part", `{"scenario":"lone","transport":"tcp","sessions":1000,"latency":{"p50_ms":5,"p99_ms":15.1}}`, "lone push", "| p50 yes, p99 no |"},
		{"missed", `{"scenario":"lone","transport":"tcp","sessions":1000,"latency":{"p50_ms":7,"p99_ms":16}}`, "lone push", "| no |"},
		{"another size says nothing", `{"scenario":"lone","transport":"tcp","sessions":100,"latency":{"p50_ms":5,"p99_ms":5}}`, "lone push", "| p50 5.0 ms, p99 5.0 ms (100 sessions) | – |"},
		{"not measured", ``, "lone push", "| not measured | – |"},
		{"a loss is no goal met", `{"scenario":"lone","transport":"tcp","sessions":1000,"lost":3,"latency":{"p50_ms":5,"p99_ms":5}}`, "lone push", "3 lost, 0 twice, 0 out of order, 0 refused | p50 yes, p99 yes, nothing lost no |"},
		{"ratio", `{"scenario":"room","transport":"tcp","sessions":1000,"processes":[{"role":"comet","cpu_us_per_unit":7.85},{"role":"job","cpu_us_per_unit":1}],"limit":{"ratio":1.16}}`, "comet CPU", "| 1.16 ×, 7.85 µs | no |"},
		{"all roles", `{"scenario":"connect","transport":"tcp","sessions":15000,"pushes_per_second":8000.4,"processes":[{"role":"comet","cpu_us_per_unit":100},{"role":"job","cpu_us_per_unit":50}]}`, "connections set up", "| 8,000/s, CPU 150 µs | yes |"},
		{"memory", `{"scenario":"idle","transport":"ws","sessions":10000,"processes":[{"role":"comet","rss_bytes_per_connection":6760},{"role":"job","rss_bytes_per_connection":5000}]}`, "comet's memory", "| 6.76 KB | yes |"},
		{"nothing missing", `{"scenario":"chat kill, 1000/s","transport":"tcp","sessions":400,"store":{"missing":0,"doubled":0,"holes":0,"stored":9}}`, "kill -9", "| 0 missing, 0 doubled, 0 holes | yes |"},
		{"one missing", `{"scenario":"chat kill, 1000/s","transport":"tcp","sessions":400,"store":{"missing":1,"doubled":0,"holes":0}}`, "kill -9", "| 1 missing, 0 doubled, 0 holes | missing no, doubled yes, holes yes |"},
		{"calls", `{"scenario":"calls, 50/s","transport":"tcp","sessions":400,"latency":{"p50_ms":15,"p99_ms":61},"accept_latency":{"p50_ms":8,"p99_ms":60},"processes":[{"role":"logic","cpu_us_per_unit":4000},{"role":"job","cpu_us_per_unit":2500}]}`, "50 calls/s", "| invite p50 15.0 ms, invite p99 61.0 ms, accept p50 8.0 ms, accept p99 60.0 ms, CPU 6.5 ms a call | invite p50 yes, invite p99 no, accept p50 yes, accept p99 yes |"},
		{"told and not judged", `{"scenario":"calls, 10/s","transport":"tcp","sessions":400,"latency":{"p50_ms":15,"p99_ms":61},"accept_latency":{"p50_ms":8,"p99_ms":60}}`, "10 calls/s", "accept p99 60.0 ms | – |"},
		{"what went on beside calls counts", `{"scenario":"calls, 50/s beside bulk","transport":"tcp","sessions":400,"latency":{"p50_ms":1,"p99_ms":2},"accept_latency":{"p50_ms":1,"p99_ms":2},"beside":{"lost":7}}`, "50 calls/s, the same", "7 lost, 0 twice, 0 out of order, 0 refused | invite p50 yes, invite p99 yes, accept p50 yes, accept p99 yes, nothing lost no |"},
		{"of several runs the last", `{"scenario":"lone","transport":"tcp","sessions":1000,"latency":{"p50_ms":9,"p99_ms":99}}` + "\n" + head, "lone push", "| not measured | – |"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := rowOf(t, head+tt.lines, tt.begin, 0); !strings.HasSuffix(got, tt.want) {
				t.Errorf("got  %s\nwant … %s", got, tt.want)
			}
		})
	}
}

func TestSummaryTellsTheTwoLargeRoomsApart(t *testing.T) {
	lines := `{"scenario":"room","transport":"tcp","sessions":1000,"latency":{"p50_ms":1,"p99_ms":2},"limit":{"ratio":1}}
{"scenario":"room","transport":"tcp","sessions":10000,"latency":{"p50_ms":1,"p99_ms":140},"processes":[{"role":"comet","cpu_us_per_unit":1.3}]}
{"scenario":"room","transport":"tcp","sessions":10000,"latency":{"p50_ms":1,"p99_ms":390},"processes":[{"role":"comet","cpu_us_per_unit":0.6}]}`
	for begin, want := range map[string]string{"10,000 members": "1.30 µs, p99 140.0 ms | yes |", "the same with": "0.60 µs, p99 390.0 ms | yes |"} {
		if got := rowOf(t, lines, begin, 0); !strings.HasSuffix(got, want) {
			t.Errorf("got  %s\nwant … %s", got, want)
		}
	}
}

func TestSummaryOfSomethingElseIsAnError(t *testing.T) {
	if _, err := ReadSummary(strings.NewReader("no JSON")); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("got %v, want an error that names line 1", err)
	}
}

func TestWhatIsStoredIsCounted(t *testing.T) {
	entry := func(seq int64, from, id string, n int) *client.Entry {
		body := fmt.Appendf(nil, `{"r":3,"f":%s,"n":%d}`, from, n)
		return &client.Entry{Seq: seq, Kind: client.KindMessage, From: from, ClientMsgID: id, Body: body}
	}
	for _, tt := range []struct {
		name                   string
		entries                []*client.Entry
		last                   int64
		holes, doubled, stored int64
	}{
		{"in order", []*client.Entry{entry(1, "1", "a", 0), entry(2, "2", "a", 0), entry(3, "1", "b", 1)}, 3, 0, 0, 3},
		{"a hole", []*client.Entry{entry(1, "1", "a", 0), entry(3, "1", "b", 1)}, 3, 1, 0, 2},
		{"a hole at the end", []*client.Entry{entry(1, "1", "a", 0)}, 3, 2, 0, 1},
		{"one id twice", []*client.Entry{entry(1, "1", "a", 0), entry(2, "1", "a", 1)}, 2, 0, 1, 2},
		{"one message under two ids", []*client.Entry{entry(1, "1", "a", 0), entry(2, "1", "b", 0)}, 2, 0, 1, 2},
		{"of another run", []*client.Entry{{Seq: 1, Kind: client.KindMessage, From: "1", ClientMsgID: "a", Body: []byte(`{"r":2,"n":0}`)}}, 1, 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := shelf{run: 3, seen: map[[2]int]int{}, ids: map[string]bool{}}
			for _, e := range tt.entries {
				c.add(e)
			}
			c.end(tt.last)
			if c.holes != tt.holes || c.doubled != tt.doubled || c.stored != tt.stored {
				t.Errorf("got %d holes, %d doubled, %d stored; want %d, %d, %d", c.holes, c.doubled, c.stored, tt.holes, tt.doubled, tt.stored)
			}
		})
	}
}
