//go:build linux

package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Print writes the results as a table, a row each, and below it what each process spent.
func Print(w io.Writer, results []Result) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\tsessions\tpushes/s\tdeliveries/s\tlost\ttwice\tdisorder\tp50 ms\tp99 ms\tp99.9 ms\tmax ms\tbusy\t")
	for _, r := range results {
		fmt.Fprintf(t, "%s %s\t%d\t%s\t%s\t%d\t%d\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f%%\t\n", r.Scenario, r.Transport, r.Sessions, short(r.Rate), short(r.DeliveredRate),
			r.Lost, r.Duplicates, r.Disorder, r.Latency.P50, r.Latency.P99, r.Latency.P999, r.Latency.Max, 100*r.Busy)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(&b)
	t = tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\tprocess\tpid\tCPU s\tCPU us\tof each\tRSS MB\tbytes/conn\t")
	rows := 0
	for _, r := range results {
		sum := Spent{Role: "sum"}
		for _, p := range r.Processes {
			process(t, r, p)
			sum.CPUSeconds += p.CPUSeconds
			sum.CPUPerUnit += p.CPUPerUnit
			sum.RSSBytes += p.RSSBytes
			rows++
		}
		if len(r.Processes) > 1 {
			process(t, r, sum)
		}
		if r.Limit != nil {
			rows++
			fmt.Fprintf(t, "%s %s\tbare write(2)\t\t\t%.2f\tdelivery\t\t\t\n", r.Scenario, r.Transport, r.Limit.CPUPerDelivery)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	out := b.String()
	if rows == 0 {
		out, _, _ = strings.Cut(out, "\n\n")
		out += "\n"
	}
	for _, r := range results {
		if r.Limit != nil {
			out += fmt.Sprintf("\n%s %s: bare loop p50 %.2f ms, p99 %.2f ms; comet is %.2f of its CPU\n", r.Scenario, r.Transport, r.Limit.Latency.P50, r.Limit.Latency.P99, r.Limit.Ratio)
		}
		if r.Accepted != nil {
			out += fmt.Sprintf("\n%s %s: invite → call.incoming p50 %.2f ms, p99 %.2f ms; accept → call.state p50 %.2f ms, p99 %.2f ms", r.Scenario, r.Transport,
				r.Latency.P50, r.Latency.P99, r.Accepted.P50, r.Accepted.P99)
			if r.Failed+r.Late+r.Repeated > 0 {
				out += fmt.Sprintf("; %d sides of calls failed, %d calls made late, %d events came again", r.Failed, r.Late, r.Repeated)
			}
			out += "\n"
		}
		if o := r.Beside; o != nil {
			out += fmt.Sprintf("%s %s: meanwhile %d %s pushes to %d sessions, %s deliveries/s, p99 %.2f ms, %d lost; their CPU is in that of the calls\n", r.Scenario,
				r.Transport, o.Pushes, o.Scenario, o.Sessions, short(o.DeliveredRate), o.Latency.P99, o.Lost)
		}
		if c := r.Store; c != nil {
			out += fmt.Sprintf("%s %s: in the store %d missing, %d doubled, %d holes; %d of %d stored\n", r.Scenario, r.Transport, c.Missing, c.Doubled, c.Holes, c.Stored, r.Pushes)
		}
		if r.Requests != nil {
			out += fmt.Sprintf("%s %s: the API accepted in p50 %.2f ms, p99 %.2f ms", r.Scenario, r.Transport, r.Requests.P50, r.Requests.P99)
			if r.Refused+r.Failed+r.Late > 0 {
				out += fmt.Sprintf("; %d pushes refused, %d failed, %d sent late", r.Refused, r.Failed, r.Late)
			}
			out += "\n"
		}
	}
	_, err := io.WriteString(w, out)
	return err
}

func process(w io.Writer, r Result, p Spent) {
	pid, perConn := "", ""
	if p.PID != 0 {
		pid = fmt.Sprint(p.PID)
	}
	if p.RSSPerConn != 0 {
		perConn = fmt.Sprintf("%.0f", p.RSSPerConn)
	}
	fmt.Fprintf(w, "%s %s\t%s\t%s\t%.2f\t%.2f\t%s\t%.0f\t%s\t\n", r.Scenario, r.Transport, p.Role, pid, p.CPUSeconds, p.CPUPerUnit, r.Unit, float64(p.RSSBytes)/(1<<20), perConn)
}

// short writes a rate with few digits.
func short(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.1fk", v/1e3)
	}
	return fmt.Sprintf("%.4g", v)
}
