package verify

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Print writes the report for a person.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d messages and changes sent in %.0f s by %d devices in %d conversations, %d entries stored, %d handed over\n\n",
		r.Sent, r.Seconds, r.Devices, r.Conversations, r.Stored, r.Shown)
	t := tabwriter.NewWriter(&b, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tlost\tduplicated\treordered\tleaked\tlate\t")
	fmt.Fprintf(t, "in the store\t%d\t%d\t%d\t\t\t\n", r.Store.Lost, r.Store.Duplicated, r.Store.Reordered)
	fmt.Fprintf(t, "handed to applications\t%d\t%d\t%d\t%d\t%d\t\n", r.Handed.Lost, r.Handed.Duplicated, r.Handed.Reordered, r.Leaked, r.Late)
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(&b, "\non the wire: %d duplicates, after %d repeats by the run itself; %d sessions, %d cut, %d slowed, %d devices started anew, %d resyncs\n",
		r.WireDuplicates, r.Repeats, r.Sessions, r.Cuts, r.Slowed, r.Reloads, r.Resyncs)
	fmt.Fprintf(&b, "%d times somebody came or went, %d times something was marked as read\n", r.Moves, r.Marks)
	fmt.Fprintf(&b, "%d floods of a device that reads slowly: of %d pushes %d came, %d were told to be dropped, %d unjudged, as the session ended\n",
		r.Floods, r.Pushes.Sent, r.Pushes.Came, r.Pushes.Told, r.Pushes.Unjudged)
	fmt.Fprintf(&b, "from sending to another's device that the run left alone: p50 %.1f ms, p99 %.1f ms\n", r.P50, r.P99)
	if len(r.Phases) > 0 {
		fmt.Fprintln(&b)
		t := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
		fmt.Fprintln(t, "what was done\tfor s\tsent\tlate\tp50 ms\tp99 ms\tworst ms\tcaught up after s")
		for _, p := range r.Phases {
			fmt.Fprintf(t, "%s\t%.1f\t%d\t%d\t%.1f\t%.0f\t%.0f\t%.1f\n", p.Name, p.Seconds, p.Sent, p.Late, p.P50, p.P99, p.Worst, p.Recovered)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(&b)
	}
	for _, code := range slices.Sorted(maps.Keys(r.Refused)) {
		fmt.Fprintf(&b, "refused as %s: %d\n", code, r.Refused[code])
	}
	for _, code := range slices.Sorted(maps.Keys(r.Expected)) {
		fmt.Fprintf(&b, "rightly refused as %s: %d\n", code, r.Expected[code])
	}
	if r.Skipped > 0 {
		fmt.Fprintf(&b, "left out by a reset, with a word about it: %d\n", r.Skipped)
	}
	if r.HeldBack > 0 {
		fmt.Fprintf(&b, "not sent, since the device had too much without an outcome: %d\n", r.HeldBack)
	}
	if r.Unsettled != "" {
		fmt.Fprintf(&b, "when the time was over: %s\n", r.Unsettled)
	}
	for _, e := range r.Examples {
		fmt.Fprintf(&b, "  %s\n", e)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
