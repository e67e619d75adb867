package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// ledgerLane is a lane in which nothing goes but the stream's own pushes (those to all among them), so that the jobs' ledger of it must come out
// even with what was posted and what came: events and control deliveries are in the others.
const ledgerLane = "bulk"

// books are the metrics of the jobs and comets at a moment, with the process that each set is of.
type books map[string]page

type page struct {
	pid     int
	metrics map[string]float64
}

// open reads the books.
func (f *faults) open(t testing.TB) books {
	t.Helper()
	b := books{}
	for _, p := range All(f.Jobs, f.Comets) {
		m, err := p.Metrics()
		if err != nil {
			t.Fatalf("metrics of %s: %v", p.Name, err)
		}
		b[p.Name] = page{p.PID(), m}
	}
	return b
}

// sum adds up a metric over the labels that contain all of with.
func (g page) sum(name string, with ...string) float64 {
	var sum float64
next:
	for k, v := range g.metrics {
		base, labels, _ := strings.Cut(k, "{")
		if base != name {
			continue
		}
		for _, w := range with {
			if !strings.Contains(labels, w) {
				continue next
			}
		}
		sum += v
	}
	return sum
}

// since is by how much a metric has grown. What a process counted that has ended since then died with it.
func (b books) since(before books, name string, with ...string) float64 {
	var sum float64
	for proc, now := range b {
		sum += now.sum(name, with...)
		if old := before[proc]; old.pid == now.pid {
			sum -= old.sum(name, with...)
		}
	}
	return sum
}

// restarted reports whether a process of a role is another one.
func (b books) restarted(before books, role string) bool {
	for proc, now := range b {
		if strings.HasPrefix(proc, role) && before[proc].pid != now.pid {
			return true
		}
	}
	return false
}

// quiet waits, while nothing is posted, until all that the jobs took out of Kafka has ended, and users have what is to come.
func (f *faults) quiet(t testing.TB) {
	t.Helper()
	f.stream.CaughtUp(t, 30*time.Second)
	within(t, 20*time.Second, "nothing is in flight", func() (bool, string) {
		now := f.open(t)
		in := now.since(nil, "halley_job_targets_total")
		out := now.since(nil, "halley_job_delivered_total") + now.since(nil, "halley_job_dropped_total") + now.since(nil, "halley_job_handed_over_total")
		return in == out, fmt.Sprintf("%v targets taken, %v ended", in, out)
	})
}

// audit holds the jobs' ledger of a stretch against what was posted and what came: delivered + counted = sent.
func (s *stretch) audit(t *testing.T, r Report) {
	t.Helper()
	now := s.f.open(t)
	lane := `lane="` + ledgerLane + `"`
	delta := func(name string) int { return int(now.since(s.books, name, lane)) }
	targets, delivered, dropped, handed := delta("halley_job_targets_total"), delta("halley_job_delivered_total"),
		delta("halley_job_dropped_total"), delta("halley_job_handed_over_total")

	var missing, before int // of pushes to one user
	for _, m := range r.Missing {
		if f := s.f.stream.Flow(m.Flow); f.Push.Lane == ledgerLane && len(f.Push.UIDs) > 0 {
			missing++
			if m.At.Before(s.killed) {
				before++
			}
		}
	}
	sent := r.Lanes[ledgerLane]
	t.Logf("lane %s: %d sent; %d targets taken, %d delivered, %d dropped, %d handed over; %d pushes to one user missing", ledgerLane, sent, targets, delivered,
		dropped, handed, missing)

	switch {
	case now.restarted(s.books, "job"):
		// A killed job's counts died with it; what it had not committed is in its heir's.
	case s.twice:
		// Counted twice on both sides.
		if targets-handed < sent || delivered+dropped != targets-handed {
			t.Errorf("lane %s: %d sent, %d targets of which %d were handed over, %d delivered, %d dropped: they don't add up", ledgerLane, sent, targets, handed, delivered, dropped)
		}
	default:
		if targets-handed != sent || delivered+dropped != sent {
			t.Errorf("lane %s: %d sent, %d targets of which %d were handed over, %d delivered, %d dropped: they don't add up", ledgerLane, sent, targets, handed, delivered, dropped)
		}
	}

	// What the comets that live say that they acknowledged and then could not hand on.
	lost := int(now.since(s.books, "halley_comet_outbox_dropped_volatile_total") + now.since(s.books, "halley_comet_outbox_discarded_total"))
	switch {
	case now.restarted(s.books, "job"):
	case !s.killed.IsZero():
		// It may have acknowledged what it took with it: only what was accepted before it was killed can be lost uncounted.
		if missing-dropped > before || dropped > missing+s.inHand {
			t.Errorf("%d pushes to one user are missing, %d of them accepted before the comet was killed; %d were counted as dropped", missing, before, dropped)
		}
	case dropped > missing+s.inHand, missing > dropped+lost:
		t.Errorf("%d pushes to one user are missing, %d were counted as dropped and %d as lost in outboxes", missing, dropped, lost)
	}
}
