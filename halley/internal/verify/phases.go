package verify

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/halley-im/halley/halley/internal/verify/check"
)

// command is told what is done to the cluster. It is the traffic's, which sends nothing meanwhile.
func (r *run) command(ctx context.Context, line string) {
	what, name, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch {
	case what == "phase" && name != "":
		r.phase = true
		r.note(check.Event{Kind: check.Phase, Body: name})
		r.Progress("phase %s", name)
	case what == "over":
		r.note(check.Event{Kind: check.Over})
		r.Progress("over")
	case what == "flood":
		if r.flood(ctx) {
			r.Progress("flooding")
		} else {
			r.Progress("not flooding: the device is not connected")
		}
	case what == "quiet":
		from := time.Now()
		ctx, cancel := context.WithTimeout(ctx, r.Settle)
		defer cancel()
		missing := ""
		if err := r.until(ctx, "everybody has everything", func() bool {
			missing = r.unequal()
			return missing == ""
		}); err != nil {
			r.Progress("not quiet: %s", missing)
			return
		}
		r.phase = false
		r.Progress("quiet after %.1f s", time.Since(from).Seconds())
	case what != "":
		r.Progress("what is %q? phase NAME, flood, over or quiet", line)
	}
}

// unequal is which device is behind others, or without an outcome; "": none.
func (r *run) unequal() string {
	if missing := r.open(); missing != "" {
		return missing
	}
	for _, d := range r.devices {
		if d.flooded() != "" {
			return d.name + " is flooded"
		}
	}
	for _, t := range r.talks {
		most := int64(0)
		for _, d := range t.members {
			if !t.isOut(d.uid) {
				most = max(most, d.last(t.id))
			}
		}
		for _, d := range t.members {
			if has := d.last(t.id); !t.isOut(d.uid) && has < most {
				return fmt.Sprintf("%s has %s up to %d of %d", d.name, t.id, has, most)
			}
		}
	}
	return ""
}
