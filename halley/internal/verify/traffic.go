package verify

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/halley-im/halley/halley/internal/verify/check"
)

// figures are what was done and what came of it, beside the journal.
type figures struct {
	wireDuplicates, repeats, marks, floods, cuts, slowed, reloads, closed, sessions, resyncs, heldBack atomic.Int64
}

// mostOpen is how much a device may have without an outcome; more is not sent: a person waits, too.
const mostOpen = 100

// longestSlow is for how long a device is held up at most.
const longestSlow = 3 * time.Second

// traffic sends until its time is over, and disturbs meanwhile.
func (r *run) traffic(ctx context.Context) {
	if r.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Duration)
		defer cancel()
	}
	interval := time.Duration(float64(time.Second) / r.Rate)
	due, disturb, flood, told := time.Now(), time.Now().Add(r.Disturb), time.Now().Add(r.Flood/2), time.Now()
	wait := time.NewTimer(0)
	defer wait.Stop()
	for ctx.Err() == nil {
		wait.Reset(max(0, time.Until(due)))
		select {
		case <-ctx.Done():
			return
		case c, ok := <-r.Commands:
			if !ok {
				r.Commands = nil
			} else {
				r.command(ctx, c)
			}
			continue
		case <-wait.C:
		}
		// What was missed while this machine had no time for it is not made up for: that would be a storm.
		if due = due.Add(interval); time.Since(due) > time.Second {
			due = time.Now()
		}
		r.act()
		if r.Disturb > 0 && time.Now().After(disturb) {
			disturb = time.Now().Add(time.Duration((0.5 + r.rng.Float64()) * float64(r.Disturb)))
			r.disturb()
		}
		// What is lost on the way to a comet that is down nobody promises to tell.
		if r.Flood > 0 && !r.phase && time.Now().After(flood) {
			flood = time.Now().Add(r.Flood)
			r.flood(ctx)
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			r.mu.Lock()
			n := len(r.log)
			r.mu.Unlock()
			r.Progress("%d events, %d sessions, %d cut, %d slowed, %d started anew", n, r.sessions.Load(), r.cuts.Load(), r.slowed.Load(), r.reloads.Load())
		}
	}
}

// act has a device do something.
func (r *run) act() {
	d := r.devices[r.rng.IntN(len(r.devices))]
	if len(d.talks) == 0 {
		return // One that is in no conversation.
	}
	if d.waiting() >= mostOpen {
		r.heldBack.Add(1)
		return
	}
	what := r.rng.Float64()
	if what < r.Repeats && d.repeat(d.life) {
		r.repeats.Add(1)
		return
	}
	if what -= r.Repeats; what < r.Changes {
		ok, err := d.change(r.rng)
		if ok || err != nil {
			r.complain(d, err)
			return
		}
	}
	if what -= r.Changes; what >= 0 && what < r.Moves && r.move() {
		return
	}
	t := d.talks[r.rng.IntN(len(d.talks))]
	if t.isOut(d.uid) {
		return
	}
	if what -= r.Moves; what >= 0 && what < r.Marks {
		r.marks.Add(1)
		d.current().MarkRead(t.id, nil)
		return
	}
	r.complain(d, d.send(t))
}

// mostEnds is how many devices that were closed for good are told with the reason.
const mostEnds = 5

// ended notes that a server closed a device for good.
func (r *run) ended(who string) {
	r.closed.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ends) < mostEnds {
		r.ends = append(r.ends, "closed for good: "+who)
	}
}

func (r *run) complain(d *device, err error) {
	if err != nil {
		r.Progress("%s can't send: %v", d.name, err)
	}
}

// disturb does something to a device's connection, or to the device.
func (r *run) disturb() {
	d := r.devices[r.rng.IntN(len(r.devices))]
	if d.flooded() != "" {
		return // It is held up already, and what was dropped for it is told to this session.
	}
	switch n := r.rng.IntN(10); {
	case n < 6:
		r.cuts.Add(1)
		d.hold()
		d.gate.cut()
	case n < 8:
		r.slowed.Add(1)
		r.slow(d, time.Duration(r.rng.Int64N(int64(longestSlow))))
	default:
		r.reloads.Add(1)
		d.hold()
		// Beside the traffic: an end in order takes its time.
		r.wg.Go(d.reload)
	}
}

// slow holds a device up.
func (r *run) slow(d *device, t time.Duration) {
	// What was held up takes a moment to be read.
	r.note(check.Event{Kind: check.Disturbed, At: r.now(), Until: r.now() + t + time.Second, Device: d.name})
	d.gate.slow(t)
}

// settle waits until everything has an outcome and all devices have what is stored, and puts what is stored into the journal. It
// returns what is still missing when its time is over.
func (r *run) settle(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Settle)
	defer cancel()
	missing := ""
	var now *state
	err := r.until(ctx, "all has settled", func() bool {
		if missing = r.open(); missing != "" {
			return false
		}
		var err error
		if now, err = r.readAll(ctx); err != nil {
			missing = err.Error()
			return false
		}
		missing = r.behind(now)
		return missing == ""
	})
	if err != nil {
		// What there is by now.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if now, err = r.readAll(ctx); err != nil {
			return missing, err
		}
		if missing == "" {
			missing = r.behind(now)
		}
	}
	r.noteState(now)
	return missing, nil
}
