package drain

import (
	"cmp"
	"slices"
	"time"

	"github.com/halley-im/halley/comet/internal/session"
)

// Target is another comet that has a URL of its own to send sessions to.
type Target struct {
	Comet, URL string
	// Age is the time since its enrolment.
	Age time.Duration
	// Room is the connections that it can still take, Rate the handshakes a second.
	Room int64
	Rate float64
}

// Others is what is known of the other comets that take sessions.
type Others struct {
	// Turn is a number that changes when the rest was asked for anew.
	Turn int
	// Room and Rate are the connections and handshakes a second that all of them can still take, those without a URL included. Both
	// 0: there are none, or none is known.
	Room int64
	Rate float64
	// Draining is how many comets are leaving at this time: they share what there is. At least 1, this one.
	Draining int
	Targets  []Target
}

// none reports whether there is nobody to spare.
func (o *Others) none() bool { return o.Room == 0 && o.Rate == 0 }

// together is how far apart comets may have been enrolled that count as of one age: those that were started together.
const together = time.Minute

// lookedPast is how many turns a session that has left is still counted for: until the comet that it went to has told router of
// it, and router us. One renewal each, and one for good measure.
const lookedPast = 3

// leaving is a session that was asked to go.
type leaving struct {
	s   *session.Session
	due time.Time
	to  string // a comet's name; empty: wherever its address leads
	// turns since it was seen to have gone.
	turns int
}

// plan decides who goes where, and how many may. What a comet says of its room is seconds old: those that are on their way there
// are taken off.
type plan struct {
	others  Others
	targets []*target // youngest first
	// flying are those who were asked and are in no comet's figures yet.
	flying []*leaving
	to     map[string]int64
}

type target struct {
	Target
	// tokens are the handshakes that it may be given now.
	tokens float64
}

func newPlan() *plan { return &plan{others: Others{Turn: -1}, to: make(map[string]int64)} }

// update takes what is known now; elapsed is the time since the last call.
func (p *plan) update(o Others, elapsed time.Duration) {
	if o.Turn != p.others.Turn {
		p.land()
		old := p.targets
		p.targets = nil
		for _, t := range o.Targets {
			next := &target{Target: t}
			if i := slices.IndexFunc(old, func(x *target) bool { return x.Comet == t.Comet }); i >= 0 {
				next.tokens = old[i].tokens
			}
			next.Room /= int64(max(o.Draining, 1))
			next.Rate /= float64(max(o.Draining, 1))
			p.targets = append(p.targets, next)
		}
		slices.SortStableFunc(p.targets, func(a, b *target) int { return cmp.Compare(a.Age, b.Age) })
	}
	p.others = o
	for _, t := range p.targets {
		t.tokens = min(t.tokens+elapsed.Seconds()*t.Rate, max(t.Rate/10, 1))
	}
}

// land takes those off who have left so long ago that they are in the others' figures.
func (p *plan) land() {
	p.flying = slices.DeleteFunc(p.flying, func(l *leaving) bool {
		if !l.s.HasEnded() {
			return false
		}
		if l.turns++; l.turns <= lookedPast {
			return false
		}
		p.to[l.to]--
		return true
	})
}

// pace returns the sessions a second to ask: the configured ones, at most what the others can take.
func (p *plan) pace(configured float64) float64 {
	if rate := p.others.Rate / float64(max(p.others.Draining, 1)); rate > 0 && rate < configured {
		return rate
	}
	return configured
}

// room returns how many sessions more, of n, can be sent away. Where there is no other comet that is all: nobody is overrun, and
// they come back here.
func (p *plan) room(n int) int {
	if p.others.none() {
		return n
	}
	return int(min(max(p.others.Room/int64(max(p.others.Draining, 1))-int64(len(p.flying)), 0), int64(n)))
}

// pick returns the target that the next session is sent to; nil: none has room. The youngest come first, for they are least likely
// to leave next; among those of about the same age the one with the most room. One that has had its handshakes is left alone
// as long as another has not.
func (p *plan) pick() *target {
	for i := 0; i < len(p.targets); {
		youngest := p.targets[i].Age
		last := max(2*youngest, youngest+together)
		var best *target
		for ; i < len(p.targets) && p.targets[i].Age <= last; i++ {
			if t := p.targets[i]; t.tokens >= 1 && p.free(t) > 0 && (best == nil || p.free(t) > p.free(best)) {
				best = t
			}
		}
		if best != nil {
			return best
		}
	}
	// A drain in a hurry: to the one that is the least ahead of its pace.
	var best *target
	for _, t := range p.targets {
		if p.free(t) > 0 && (best == nil || t.tokens/max(t.Rate, 1) > best.tokens/max(best.Rate, 1)) {
			best = t
		}
	}
	return best
}

func (p *plan) free(t *target) int64 { return t.Room - p.to[t.Comet] }

// sent notes that a session was sent to a target, or, if that is nil, to wherever its address leads.
func (p *plan) sent(l *leaving, t *target) {
	if t != nil {
		t.tokens--
		l.to = t.Comet
	}
	p.to[l.to]++
	p.flying = append(p.flying, l)
}
