//go:build linux

package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Summary is one run of all scenarios, held against the goals.
type Summary struct {
	Date    string `json:"date"`
	Commit  string `json:"commit"`
	Machine string `json:"machine"`
	Version string `json:"version"`
	// Results are in the order in which they were measured.
	Results []Result `json:"-"`
}

// ReadSummary reads what bench/run.sh wrote: a line of the run, and one for each result. Of several runs in one file it
// returns the last.
func ReadSummary(r io.Reader) (*Summary, error) {
	s := &Summary{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		var head struct {
			Summary
			Scenario string `json:"scenario"`
		}
		if err := json.Unmarshal(lines.Bytes(), &head); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if head.Scenario == "" {
			*s = head.Summary
			continue
		}
		var res Result
		if err := json.Unmarshal(lines.Bytes(), &res); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		s.Results = append(s.Results, res)
	}
	return s, lines.Err()
}

// check is one figure of a row and its goal.
type check struct {
	// of is how the figure is called where only some of a row's are met.
	of    string
	value func(*Result) (float64, bool)
	// most or least is the goal; the other is 0.
	most, least float64
	format      func(float64) string
}

// goal is one row of the table.
type goal struct {
	what string
	// goal is how a person reads the checks.
	goal   string
	match  func(*Result) bool
	nth    int // of those that match
	checks []check
	// size is the number of sessions that the goal was set for.
	size int
}

func scenario(name, transport string) func(*Result) bool {
	return func(r *Result) bool { return r.Scenario == name && r.Transport == transport }
}

func large(transport string) func(*Result) bool {
	return func(r *Result) bool { return r.Scenario == "room" && r.Transport == transport && r.Limit == nil }
}

func against(transport string) func(*Result) bool {
	return func(r *Result) bool { return r.Scenario == "room" && r.Transport == transport && r.Limit != nil }
}

// chat is a scenario of conversations, over a cluster or, with one, over halley all.
func chat(name string, one bool) func(*Result) bool {
	return func(r *Result) bool {
		all := slices.ContainsFunc(r.Processes, func(p Spent) bool { return p.Role == "all" })
		return r.Scenario == "chat "+name && all == one
	}
}

// Figures of a result.
func p50(r *Result) (float64, bool)       { return r.Latency.P50, r.Latency.P50 > 0 }
func p99(r *Result) (float64, bool)       { return r.Latency.P99, r.Latency.P99 > 0 }
func pushRate(r *Result) (float64, bool)  { return r.Rate, r.Rate > 0 }
func delivered(r *Result) (float64, bool) { return r.DeliveredRate, r.DeliveredRate > 0 }

// accepted returns a figure of the time from a call's acceptance to the caller's hearing of it.
func accepted(f func(Latency) float64) func(*Result) (float64, bool) {
	return func(r *Result) (float64, bool) {
		if r.Accepted == nil {
			return 0, false
		}
		return f(*r.Accepted), true
	}
}

// calls are the checks of a row of calls. Where pushes go on beside them the processes' CPU is not theirs alone.
func calls(p50Most, p99Most float64, alone bool) []check {
	out := []check{
		{"invite p50", p50, p50Most, 0, ms}, {"invite p99", p99, p99Most, 0, ms},
		{"accept p50", accepted(func(l Latency) float64 { return l.P50 }), p50Most, 0, ms},
		{"accept p99", accepted(func(l Latency) float64 { return l.P99 }), p99Most, 0, ms},
	}
	if alone {
		out = append(out, check{"CPU", cpu(false), 0, 0, perCall})
	}
	return out
}

func ratio(r *Result) (float64, bool) {
	if r.Limit == nil {
		return 0, false
	}
	return r.Limit.Ratio, r.Limit.Ratio > 0
}

// cpu returns what comet, or all roles together, spent on each unit.
func cpu(comet bool) func(*Result) (float64, bool) {
	return func(r *Result) (v float64, ok bool) {
		for _, p := range r.Processes {
			if !comet || p.Role == "comet" || p.Role == "all" {
				v, ok = v+p.CPUPerUnit, true
			}
		}
		return v, ok
	}
}

func perConn(r *Result) (v float64, ok bool) {
	for _, p := range r.Processes {
		if p.Role == "comet" || p.Role == "all" {
			v, ok = v+p.RSSPerConn, true
		}
	}
	return v, ok
}

// counted returns a figure of what is in the store.
func counted(f func(*Counted) int64) func(*Result) (float64, bool) {
	return func(r *Result) (float64, bool) {
		if r.Store == nil {
			return 0, false
		}
		return float64(f(r.Store)), true
	}
}

// none is the goal of figures that must be 0: a goal of 0 is none.
const none = 0.5

// Ways to write a figure.
func ms(v float64) string       { return fmt.Sprintf("%.1f ms", v) }
func us(v float64) string       { return fmt.Sprintf("%.2f µs", v) }
func wholeUs(v float64) string  { return fmt.Sprintf("%.0f µs", v) }
func times(v float64) string    { return fmt.Sprintf("%.2f ×", v) }
func kb(v float64) string       { return fmt.Sprintf("%.2f KB", v/1000) }
func millions(v float64) string { return fmt.Sprintf("%.2f M/s", v/1e6) }
func missing(v float64) string  { return thousands(v) + " missing" }
func doubled(v float64) string  { return thousands(v) + " doubled" }
func holes(v float64) string    { return thousands(v) + " holes" }
func a(v float64) string        { return thousands(v) + "/s" }
func perCall(v float64) string  { return fmt.Sprintf("%.1f ms a call", v/1000) }

// thousands writes a whole number with a comma at each third digit.
func thousands(v float64) string {
	s := strconv.FormatInt(int64(v+0.5), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// goals are the rows, in the order in which docs/performance.md has them.
var goals = []goal{
	{
		"comet CPU a delivery, 1,000 members × 40/s, TCP", "≤ 1.15 × a bare write(2)", against("tcp"), 0,
		[]check{{"ratio", ratio, 1.15, 0, times}, {"", cpu(true), 0, 0, us}}, 1000,
	},
	{
		"the same over WebSocket", "≤ 1.2 × a bare write(2)", against("ws"), 0,
		[]check{{"ratio", ratio, 1.2, 0, times}, {"", cpu(true), 0, 0, us}}, 1000,
	},
	{
		"lone push to a room of 1,000, end to end, TCP", "p50 ≤ 6 ms, p99 ≤ 15 ms", scenario("lone", "tcp"), 0,
		[]check{{"p50", p50, 6, 0, ms}, {"p99", p99, 15, 0, ms}}, 1000,
	},
	{
		"the same over WebSocket", "p50 ≤ 6 ms, p99 ≤ 15 ms", scenario("lone", "ws"), 0,
		[]check{{"p50", p50, 6, 0, ms}, {"p99", p99, 15, 0, ms}}, 1000,
	},
	{
		"10,000 members × 40/s, default settings, TCP", "comet ≤ 1.4 µs a delivery at p99 ≤ 150 ms", large("tcp"), 0,
		[]check{{"CPU", cpu(true), 1.4, 0, us}, {"p99", p99, 150, 0, ms}}, 10000,
	},
	{
		"the same over WebSocket", "comet ≤ 1.7 µs a delivery at p99 ≤ 150 ms", large("ws"), 0,
		[]check{{"CPU", cpu(true), 1.7, 0, us}, {"p99", p99, 150, 0, ms}}, 10000,
	},
	{
		"the same with `comet.flush_max` 330 ms, TCP", "comet ≤ 0.65 µs a delivery at p99 ≤ 400 ms", large("tcp"), 1,
		[]check{{"CPU", cpu(true), 0.65, 0, us}, {"p99", p99, 400, 0, ms}}, 10000,
	},
	{
		"highest rate without loss, 10,000 members", "≥ 5 M deliveries/s at p99 < 1 s", scenario("ramp", "tcp"), 0,
		[]check{{"rate", delivered, 0, 5e6, millions}, {"p99", p99, 1000, 0, ms}}, 10000,
	},
	{
		"pushes to single users, 2,000/s over 1,000 connections", "p50 ≤ 2.5 ms, p99 ≤ 8 ms, ≤ 250 µs CPU a push over all roles", scenario("users", "tcp"), 0,
		// A hundredth fewer is what the clock of a run leaves open.
		[]check{{"rate", pushRate, 0, 1980, a}, {"p50", p50, 2.5, 0, ms}, {"p99", p99, 8, 0, ms}, {"CPU", cpu(false), 250, 0, wholeUs}}, 1000,
	},
	{
		"push API, 64 requests in flight, delivered", "≥ 12,000/s", scenario("api", "tcp"), 0,
		[]check{{"rate", pushRate, 0, 12000, a}}, 1000,
	},
	{
		"the same in batches of 50", "≥ 60,000 targets/s", scenario("api, batches of 50", "tcp"), 0,
		[]check{{"rate", pushRate, 0, 60000, a}}, 1000,
	},
	{
		"comet's memory an idle connection (RSS), WebSocket", "≤ 7 KB", scenario("idle", "ws"), 0,
		[]check{{"memory", perConn, 7000, 0, kb}}, 10000,
	},
	{
		"the same, TCP", "≤ 5 KB", scenario("idle", "tcp"), 0,
		[]check{{"memory", perConn, 5000, 0, kb}}, 10000,
	},
	{
		"connections set up and authenticated, TCP", "≥ 8,000/s at ≤ 150 µs CPU over all roles", scenario("connect", "tcp"), 0,
		[]check{{"rate", pushRate, 0, 8000, a}, {"CPU", cpu(false), 150, 0, wholeUs}}, 15000,
	},
	{
		"the same over WebSocket", "≥ 5,500/s at ≤ 210 µs CPU over all roles", scenario("connect", "ws"), 0,
		[]check{{"rate", pushRate, 0, 5500, a}, {"CPU", cpu(false), 210, 0, wholeUs}}, 15000,
	},
	{
		"direct messages flat out, 200 pairs, stored and delivered", "≥ 2,500/s, p99 ≤ 250 ms", chat("direct, flat out", false), 0,
		[]check{{"rate", delivered, 0, 2500, a}, {"p99", p99, 250, 0, ms}}, 400,
	},
	{
		"1,000 direct messages/s: send → stored at the other side", "p50 ≤ 10 ms, p99 ≤ 40 ms", chat("direct, 1000/s", false), 0,
		// The clients' share of the time is in it.
		[]check{{"rate", delivered, 0, 990, a}, {"p50", p50, 10, 0, ms}, {"p99", p99, 40, 0, ms}}, 400,
	},
	{
		"the same at 100/s", "p50 ≤ 8 ms, p99 ≤ 20 ms", chat("direct, 100/s", false), 0,
		[]check{{"rate", delivered, 0, 99, a}, {"p50", p50, 8, 0, ms}, {"p99", p99, 20, 0, ms}}, 400,
	},
	{
		"group of 200 at 20 messages/s", "≤ 15 µs CPU a delivery over all roles", chat("group", false), 0,
		[]check{{"CPU", cpu(false), 15, 0, us}, {"p99", p99, 0, 0, ms}}, 200,
	},
	{
		"catch-up of 100 conversations × 10", "≤ 25 ms", chat("catch-up", false), 0,
		[]check{{"p50", p50, 25, 0, ms}}, 100,
	},
	{
		"kill -9 of job, then of logic, at 1,000 direct messages/s, then resend", "0 missing, 0 doubled, 0 holes", chat("kill, 1000/s", false), 0,
		[]check{
			{"missing", counted(func(c *Counted) int64 { return c.Missing }), none, 0, missing},
			{"doubled", counted(func(c *Counted) int64 { return c.Doubled }), none, 0, doubled},
			{"holes", counted(func(c *Counted) int64 { return c.Holes }), none, 0, holes},
		}, 400,
	},
	{
		"direct messages flat out over `halley all` (SQLite)", "≥ 2,500/s", chat("direct, flat out", true), 0,
		[]check{{"rate", delivered, 0, 2500, a}, {"p99", p99, 0, 0, ms}}, 400,
	},
	{
		"10 calls/s: invite → `call.incoming`, accept → `call.state`", "–", scenario("calls, 10/s", "tcp"), 0, calls(0, 0, true), 400,
	},
	{
		"50 calls/s", "p50 ≤ 15 ms, p99 ≤ 60 ms", scenario("calls, 50/s", "tcp"), 0, calls(15, 60, true), 400,
	},
	{
		"200 calls/s", "–", scenario("calls, 200/s", "tcp"), 0, calls(0, 0, true), 400,
	},
	{
		"10 calls/s while a bulk push to 10,000 goes out 5 times a second", "–", scenario("calls, 10/s beside bulk", "tcp"), 0, calls(0, 0, false), 400,
	},
	{
		"50 calls/s, the same", "p50 ≤ 15 ms, p99 ≤ 60 ms", scenario("calls, 50/s beside bulk", "tcp"), 0, calls(15, 60, false), 400,
	},
	{
		"200 calls/s, the same", "–", scenario("calls, 200/s beside bulk", "tcp"), 0, calls(0, 0, false), 400,
	},
}

// row is one line of the table.
type row struct{ what, goal, measured, met string }

func (g goal) row(results []Result) row {
	out := row{g.what, g.goal, "not measured", "–"}
	nth := g.nth
	var r *Result
	for i := range results {
		if g.match(&results[i]) {
			if nth == 0 {
				r = &results[i]
				break
			}
			nth--
		}
	}
	if r == nil {
		return out
	}
	var figures, parts []string
	met, judged := 0, 0
	for _, c := range g.checks {
		v, ok := c.value(r)
		if !ok {
			continue
		}
		figures = append(figures, strings.TrimSpace(name(c, g.checks)+" "+c.format(v)))
		if c.most == 0 && c.least == 0 {
			continue // told, not judged
		}
		judged++
		answer := "no"
		if (c.most == 0 || v <= c.most) && v >= c.least {
			answer = "yes"
			met++
		}
		parts = append(parts, c.of+" "+answer)
	}
	lost, failed := r.Lost, r.Refused+r.Failed
	if o := r.Beside; o != nil {
		lost, failed = lost+o.Lost, failed+o.Refused+o.Failed
	}
	if lost+r.Duplicates+r.Disorder+failed > 0 {
		figures = append(figures, fmt.Sprintf("%d lost, %d twice, %d out of order, %d refused", lost, r.Duplicates, r.Disorder, failed))
		parts, judged = append(parts, "nothing lost no"), judged+1
	}
	out.measured = strings.Join(figures, ", ")
	switch {
	case len(figures) == 0:
		out.measured = "not measured"
	case r.Sessions != g.size:
		// A goal says nothing of another size.
		out.measured += fmt.Sprintf(" (%s sessions)", thousands(float64(r.Sessions)))
	case judged == 0:
	case met == judged:
		out.met = "yes"
	case met == 0:
		out.met = "no"
	default:
		out.met = strings.Join(parts, ", ")
	}
	return out
}

// name is the figure's name where a row has several of a kind that its unit doesn't tell apart.
func name(c check, all []check) string {
	if strings.HasSuffix(c.of, "p50") || strings.HasSuffix(c.of, "p99") || c.of == "CPU" && len(all) > 1 {
		return c.of
	}
	return ""
}

// Write writes the table, as Markdown or for a terminal.
func (s *Summary) Write(w io.Writer, markdown bool) error {
	var b strings.Builder
	if s.Date != "" {
		fmt.Fprintf(&b, "%s, commit %s, %s, %s\n\n", s.Date, s.Commit, s.Machine, s.Version)
	}
	if markdown {
		fmt.Fprintln(&b, "| what | goal | measured | met |\n|---|---|---|---|")
		for _, g := range goals {
			r := g.row(s.Results)
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.what, r.goal, r.measured, r.met)
		}
	} else {
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "what\tgoal\tmeasured\tmet")
		for _, g := range goals {
			r := g.row(s.Results)
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", strings.ReplaceAll(r.what, "`", ""), r.goal, r.measured, r.met)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
