package check

import (
	"fmt"
	"slices"
	"time"
)

// Counts are what was found, at one place.
type Counts struct {
	// Lost is what should be there and isn't: entries, seqs, outcomes, markers, and changes that aren't in what they change.
	Lost int `json:"lost"`
	// Duplicated is what is there more than once, or was never sent.
	Duplicated int `json:"duplicated"`
	// Reordered is what is not in its place.
	Reordered int `json:"reordered"`
}

func (c Counts) sum() int { return c.Lost + c.Duplicated + c.Reordered }

// Result is what Check found.
type Result struct {
	Store  Counts `json:"store"`
	Handed Counts `json:"handed"`
	// Leaked are entries that were handed over to somebody who was not in the conversation then.
	Leaked int `json:"leaked"`
	// Late are entries that were handed over later after they were sent than is wished, to devices that the run left alone. They break
	// nothing.
	Late int `json:"late"`
	// Refused is what its sender was told to be refused, by code; it is neither stored nor lost. Expected are those among them for which
	// there is a reason in the store: he was not in the conversation at some time, or the message had been recalled.
	Refused  map[string]int `json:"refused,omitempty"`
	Expected map[string]int `json:"expected,omitempty"`
	// Skipped are entries that a client left out with a word about it.
	Skipped int `json:"skipped,omitempty"`
	// Sent, Stored and Shown are how many events there were of what is counted, Moves how many entries changed who is in a conversation.
	Sent   int `json:"sent"`
	Stored int `json:"stored"`
	Shown  int `json:"shown"`
	Moves  int `json:"moves"`
	// Pushes went to devices that read slowly: so many came, and of so many it was told that they were dropped.
	Pushes Pushes `json:"pushes"`
	// Phases are what was done to the cluster, one after the other.
	Phases []PhaseResult `json:"phases,omitempty"`
	// P50 and P99 are from sending to another device that the run left alone, in milliseconds.
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	// Examples are some of what was found, in words.
	Examples []string `json:"examples,omitempty"`
}

// Broken is whether the contract is.
func (r *Result) Broken() bool { return r.Store.sum()+r.Handed.sum()+r.Leaked > 0 }

// mostExamples of each kind of finding are told in words.
const mostExamples = 5

// name is what is repeated under one id.
type name struct{ conversation, uid, id string }

// view is one conversation on one device.
type view struct{ device, conversation string }

type checker struct {
	Result
	late   time.Duration
	counts map[string]int // of examples, by what was found

	uids    map[string]string // by device
	always  map[string]map[string]bool
	sent    map[name]*Event
	lines   map[view][]*Event // what was sent, in order
	told    map[name]*Event
	stored  map[string][]*Event         // by conversation, in the order of the store
	at      map[string]map[int64]*Event // by conversation and seq
	seqs    map[string][]int64          // those of at, in order
	place   map[name]int64
	handed  map[view][]*Event
	stays   map[string]map[string][]stay // by conversation and uid
	rosters map[string]map[string]*Event
	listed  map[view]*Event
	marked  map[view]int64
	pushed  map[session][]*Event
	listing bool // the journal has lists
}

// Check reads a journal and says what is broken. late is how long an entry may take to be handed over; 0: for ever.
func Check(events []Event, late time.Duration) *Result {
	c := &checker{
		late: late, counts: map[string]int{}, uids: map[string]string{}, always: map[string]map[string]bool{}, sent: map[name]*Event{},
		lines: map[view][]*Event{}, told: map[name]*Event{}, stored: map[string][]*Event{}, at: map[string]map[int64]*Event{}, seqs: map[string][]int64{},
		place: map[name]int64{}, handed: map[view][]*Event{}, stays: map[string]map[string][]stay{}, rosters: map[string]map[string]*Event{},
		listed: map[view]*Event{}, marked: map[view]int64{}, pushed: map[session][]*Event{},
	}
	c.Result.Refused, c.Result.Expected = map[string]int{}, map[string]int{}
	for i := range events {
		c.sort(&events[i])
	}
	for _, conversation := range sorted(c.stored) {
		c.store(conversation)
	}
	c.outcomes()
	for _, v := range sortedViews(c.lines) {
		c.order(v)
	}
	for _, v := range c.views() {
		c.hand(v)
	}
	c.lists()
	c.pushes()
	c.times(events)
	return &c.Result
}

func (c *checker) sort(e *Event) {
	n, v := name{e.Conversation, e.UID, e.ID}, view{e.Device, e.Conversation}
	switch e.Kind {
	case Device:
		c.uids[e.Device] = e.UID
	case Member:
		put(c.always, e.Conversation, e.UID, true)
		if e.Device != "" {
			c.uids[e.Device] = e.UID
		}
	case Sent:
		c.sent[n] = e
		c.lines[v] = append(c.lines[v], e)
		c.Result.Sent++
	case Told:
		c.told[n] = e
	case Stored:
		c.stored[e.Conversation] = append(c.stored[e.Conversation], e)
		c.Result.Stored++
	case Handed, Reset, Gone:
		c.handed[v] = append(c.handed[v], e)
		if e.Kind == Handed {
			c.Shown++
		}
	case Marked:
		c.marked[v] = max(c.marked[v], e.Read)
	case Roster:
		put(c.rosters, e.Conversation, e.UID, e)
	case Listed:
		c.listed[v] = e
		c.listing = true
	case Pushed, Got, Dropped, Silence:
		s := session{e.Device, e.ID}
		c.pushed[s] = append(c.pushed[s], e)
	}
}

func put[V any](m map[string]map[string]V, a, b string, v V) {
	if m[a] == nil {
		m[a] = map[string]V{}
	}
	m[a][b] = v
}

// views are all conversations on all devices of who ever was in them, and what was handed over besides.
func (c *checker) views() []view {
	all := map[view]bool{}
	for v := range c.handed {
		all[v] = true
	}
	for conversation, of := range c.stays {
		for device, uid := range c.uids {
			if of[uid] != nil {
				all[view{device, conversation}] = true
			}
		}
	}
	return sortedViews(all)
}

// found counts and tells.
func (c *checker) found(count *int, n int, what, format string, args ...any) {
	*count += n
	if c.counts[what]++; c.counts[what] <= mostExamples {
		c.Examples = append(c.Examples, what+": "+fmt.Sprintf(format, args...))
	}
}

// outcomes looks whether all that was sent is stored, or its sender was told that it isn't.
func (c *checker) outcomes() {
	for _, v := range sortedViews(c.lines) {
		for _, s := range c.lines[v] {
			n := name{s.Conversation, s.UID, s.ID}
			told, seq := c.told[n], c.place[n]
			switch {
			case told == nil && seq == 0:
				c.found(&c.Store.Lost, 1, "sent, and neither stored nor refused", "%s of %s in %s", s.ID, v.device, s.Conversation)
			case told == nil:
				c.found(&c.Handed.Lost, 1, "an outcome that nobody told", "%s of %s in %s is stored at %d", s.ID, v.device, s.Conversation, seq)
			case told.Code != "" && seq == 0:
				if c.refusable(s, told.Code) {
					c.Expected[told.Code]++
				} else {
					c.Refused[told.Code]++
				}
			case told.Code != "":
				c.found(&c.Store.Duplicated, 1, "told to be refused, and stored", "%s of %s in %s at %d, refused as %s", s.ID, v.device, s.Conversation, seq, told.Code)
			case seq == 0:
				c.found(&c.Store.Lost, 1, "told to be stored, and not there", "%s of %s in %s at %d", s.ID, v.device, s.Conversation, told.Seq)
			case seq != told.Seq && told.Seq != 0:
				c.found(&c.Store.Reordered, 1, "told to be stored, and elsewhere", "%s of %s in %s: told at %d, is at %d", s.ID, v.device, s.Conversation, told.Seq, seq)
			}
		}
	}
}

// refusable is whether the store shows a reason for a refusal.
func (c *checker) refusable(s *Event, code string) bool {
	target := c.at[s.Conversation][s.Target]
	stays := c.stays[s.Conversation][s.UID]
	outside := len(stays) != 1 || stays[0].to != 0 || stays[0].from > 1
	switch code {
	case "not_member":
		return outside
	case "recalled":
		return target != nil && slices.ContainsFunc(c.stored[s.Conversation], func(e *Event) bool { return e.Does == Recall && e.Target == s.Target })
	case "not_found":
		return outside && s.Target > 0
	}
	return false
}

// order looks whether a device's entries are stored in the order in which it sent them.
func (c *checker) order(v view) {
	var last int64
	var before *Event
	for _, s := range c.lines[v] {
		seq := c.place[name{s.Conversation, s.UID, s.ID}]
		if seq == 0 {
			continue
		}
		if seq < last {
			c.found(&c.Store.Reordered, 1, "stored in another order than sent", "%s of %s is at %d of %s, %s, which was sent before, at %d", s.ID, v.device, seq, v.conversation, before.ID, last)
		} else {
			last, before = seq, s
		}
	}
}
