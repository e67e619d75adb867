// Package doctor looks at what Halley needs of its surroundings and says, for each thing that is wrong, what
// helps. It changes nothing.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// State is how well something is.
type State int

// States, from well to not. A Warn works today and will hurt under load or over time.
const (
	OK State = iota
	Warn
	Fail
)

// String returns the mark before a line.
func (s State) String() string { return [...]string{"ok  ", "warn", "FAIL"}[s] }

// Finding is the outcome of one look.
type Finding struct {
	State State
	// Name says what was looked at: "kafka topics".
	Name string
	// Text says what was found.
	Text string
	// Remedy says what to do, for anything but OK.
	Remedy string
}

// Look is one thing to look at. It heeds ctx and returns at least one finding.
type Look func(ctx context.Context) []Finding

// Examine takes all looks at once and returns their findings in the order of looks.
func Examine(ctx context.Context, looks []Look) []Finding {
	found := make([][]Finding, len(looks))
	var wg sync.WaitGroup
	for i, look := range looks {
		wg.Go(func() { found[i] = look(ctx) })
	}
	wg.Wait()
	var all []Finding
	for _, f := range found {
		all = append(all, f...)
	}
	return all
}

// Print writes the findings, a line each with the remedy below it, and a last line that sums up. It returns the worst state.
func Print(w io.Writer, findings []Finding) (State, error) {
	worst := OK
	count := map[State]int{}
	var b strings.Builder
	for _, f := range findings {
		worst = max(worst, f.State)
		count[f.State]++
		fmt.Fprintf(&b, "%s  %-21s %s\n", f.State, f.Name, f.Text)
		if f.State != OK && f.Remedy != "" {
			fmt.Fprintf(&b, "      %-21s → %s\n", "", f.Remedy)
		}
	}
	if worst == OK {
		fmt.Fprintf(&b, "\nAll %d well.\n", count[OK])
	} else {
		fmt.Fprintf(&b, "\n%d well, %d to look at, %d wrong.\n", count[OK], count[Warn], count[Fail])
	}
	_, err := io.WriteString(w, b.String())
	return worst, err
}

func ok(name, format string, args ...any) Finding {
	return Finding{State: OK, Name: name, Text: fmt.Sprintf(format, args...)}
}

func warn(name, text, remedy string) Finding { return Finding{Warn, name, text, remedy} }

func fail(name, text, remedy string) Finding { return Finding{Fail, name, text, remedy} }

// short is an error's text on one line.
func short(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
