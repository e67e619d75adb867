package check

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// PhaseResult is how long things took while something was done to the cluster, on devices that the run itself left alone.
type PhaseResult struct {
	Name string `json:"name"`
	// Seconds is how long it was done. Sent is what was sent from its beginning to that of the next one; of that, Late is what was handed
	// over late.
	Seconds float64 `json:"seconds"`
	Sent    int     `json:"sent"`
	Late    int     `json:"late"`
	// P50, P99 and Worst are from sending to another device, in milliseconds.
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	Worst float64 `json:"worst_ms"`
	// Recovered is how many seconds after its end the last of what was sent before that end had been handed over, and all outcomes told.
	Recovered float64 `json:"recovered_s"`

	from, over time.Duration
	all        []float64
}

// disturbances are the times in which the run kept devices from anything.
type disturbances map[string][]*Event

func (d disturbances) in(device string, from, to time.Duration) bool {
	return slices.ContainsFunc(d[device], func(e *Event) bool { return e.At < to && e.Until > from })
}

// times measures.
func (c *checker) times(events []Event) {
	disturbed := disturbances{}
	var phases []*PhaseResult
	for i := range events {
		switch e := &events[i]; e.Kind {
		case Disturbed:
			disturbed[e.Device] = append(disturbed[e.Device], e)
		case Phase:
			phases = append(phases, &PhaseResult{Name: e.Body, from: e.At})
		case Over:
			if n := len(phases); n > 0 && phases[n-1].over == 0 {
				phases[n-1].over = e.At
			}
		}
	}
	of := func(at time.Duration) *PhaseResult {
		i, _ := slices.BinarySearchFunc(phases, at, func(p *PhaseResult, at time.Duration) int { return cmp.Compare(p.from, at+1) })
		if i == 0 {
			return nil
		}
		return phases[i-1]
	}
	// done is a wait that has ended.
	done := func(s *Event, at time.Duration) {
		if p := of(s.At); p != nil && p.over > 0 && s.At <= p.over && at > p.over {
			p.Recovered = max(p.Recovered, (at - p.over).Seconds())
		}
	}
	for _, s := range c.sent {
		if p := of(s.At); p != nil {
			p.Sent++
		}
	}
	seen := map[view]map[int64]bool{}
	var all []float64
	for i := range events {
		e := &events[i]
		s := c.sent[name{e.Conversation, e.UID, e.ID}]
		if s == nil || e.Kind != Handed && e.Kind != Told || disturbed.in(s.Device, s.At, e.At) || disturbed.in(e.Device, s.At, e.At) {
			continue
		}
		if e.Kind == Told {
			done(s, e.At)
			continue
		}
		v := view{e.Device, e.Conversation}
		if seen[v] == nil {
			seen[v] = map[int64]bool{}
		}
		if seen[v][e.Seq] || e.Device == s.Device {
			continue
		}
		seen[v][e.Seq] = true
		p, took := of(s.At), float64((e.At-s.At).Microseconds())/1000
		late := c.late > 0 && e.At-s.At > c.late
		if all = append(all, took); late {
			c.Late++
		}
		if p != nil {
			p.all = append(p.all, took)
			if late {
				p.Late++
			}
		}
		done(s, e.At)
	}
	c.P50, c.P99 = quantile(all, .5), quantile(all, .99)
	for _, p := range phases {
		if p.over > 0 {
			p.Seconds = (p.over - p.from).Seconds()
		}
		p.P50, p.P99, p.Worst = quantile(p.all, .5), quantile(p.all, .99), quantile(p.all, 1)
		c.Phases = append(c.Phases, *p)
	}
}

// quantile sorts all.
func quantile(all []float64, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, int(math.Ceil(q*float64(len(all))))-1)]
}
