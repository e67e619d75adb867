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
	fmt.Fprintln(t, "\tlost\tduplicated\treordered\tlate\t")
	fmt.Fprintf(t, "in the store\t%d\t%d\t%d\t\t\n", r.Store.Lost, r.Store.Duplicated, r.Store.Reordered)
	fmt.Fprintf(t, "handed to applications\t%d\t%d\t%d\t%d\t\n", r.Handed.Lost, r.Handed.Duplicated, r.Handed.Reordered, r.Late)
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(&b, "\non the wire: %d duplicates, after %d repeats by the run itself; %d sessions, %d cut, %d slowed, %d devices started anew, %d resyncs\n",
		r.WireDuplicates, r.Repeats, r.Sessions, r.Cuts, r.Slowed, r.Reloads, r.Resyncs)
	fmt.Fprintf(&b, "from sending to another's device: p50 %.1f ms, p99 %.1f ms, all disturbances included\n", r.P50, r.P99)
	for _, code := range slices.Sorted(maps.Keys(r.Refused)) {
		fmt.Fprintf(&b, "refused as %s: %d\n", code, r.Refused[code])
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
