package check

import (
	"fmt"
	"slices"
	"time"
)

// Counts are what was found, at one place.
type Counts struct {
	// Lost is what should be there and isn't: entries, seqs, outcomes, and changes that aren't in the message that they change.
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
	// Late are entries that were handed over later after they were sent than is wished. They break nothing.
	Late int `json:"late"`
	// Refused is what its sender was told to be refused, by code; it is neither stored nor lost.
	Refused map[string]int `json:"refused,omitempty"`
	// Skipped are entries that a client left out with a word about it.
	Skipped int `json:"skipped,omitempty"`
	// Sent, Stored and Shown are how many events there were of what is counted.
	Sent   int `json:"sent"`
	Stored int `json:"stored"`
	Shown  int `json:"shown"`
	// Examples are some of what was found, in words.
	Examples []string `json:"examples,omitempty"`
}

// Broken is whether the contract is.
func (r *Result) Broken() bool { return r.Store.sum()+r.Handed.sum() > 0 }

// mostExamples of each kind of finding are told in words.
const mostExamples = 5

// mostGap is up to how many missing entries in a row are waited for one by one: what a server says of places may be nonsense.
const mostGap = 100_000

// name is what is repeated under one id.
type name struct{ conversation, uid, id string }

// view is one conversation on one device.
type view struct{ device, conversation string }

// shown is what a device shows of a message.
type shown struct {
	body    string
	changed int64
}

type checker struct {
	Result
	late   time.Duration
	counts map[string]int // of examples, by what was found

	sent    map[name]*Event
	lines   map[view][]*Event // what was sent, in order
	told    map[name]*Event
	stored  map[string][]*Event         // by conversation, in the order of the store
	at      map[string]map[int64]*Event // by conversation and seq
	place   map[name]int64
	handed  map[view][]*Event
	members map[string][]string
}

// Check reads a journal and says what is broken. late is how long an entry may take to be handed over; 0: for ever.
func Check(events []Event, late time.Duration) *Result {
	c := &checker{
		late: late, counts: map[string]int{}, sent: map[name]*Event{}, lines: map[view][]*Event{}, told: map[name]*Event{},
		stored: map[string][]*Event{}, at: map[string]map[int64]*Event{}, place: map[name]int64{}, handed: map[view][]*Event{}, members: map[string][]string{},
	}
	c.Result.Refused = map[string]int{}
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
	for _, conversation := range sorted(c.members) {
		for _, device := range c.members[conversation] {
			c.hand(view{device, conversation})
		}
	}
	return &c.Result
}

func (c *checker) sort(e *Event) {
	n, v := name{e.Conversation, e.UID, e.ID}, view{e.Device, e.Conversation}
	switch e.Kind {
	case Sent:
		c.sent[n] = e
		c.lines[v] = append(c.lines[v], e)
		c.Result.Sent++
	case Told:
		c.told[n] = e
	case Stored:
		c.stored[e.Conversation] = append(c.stored[e.Conversation], e)
		c.Result.Stored++
	case Handed, Reset:
		c.handed[v] = append(c.handed[v], e)
		if e.Kind == Handed {
			c.Shown++
		}
		c.member(v)
	case Member:
		c.member(v)
	}
}

func (c *checker) member(v view) {
	if !slices.Contains(c.members[v.conversation], v.device) {
		c.members[v.conversation] = append(c.members[v.conversation], v.device)
	}
}

// found counts and tells.
func (c *checker) found(count *int, n int, what, format string, args ...any) {
	*count += n
	if c.counts[what]++; c.counts[what] <= mostExamples {
		c.Examples = append(c.Examples, what+": "+fmt.Sprintf(format, args...))
	}
}

// store looks whether a conversation's entries are 1, 2, 3 …, each sent by somebody and there once, and whether its messages are as
// their changes left them.
func (c *checker) store(conversation string) {
	at := map[int64]*Event{}
	c.at[conversation] = at
	var last int64
	says := map[int64]*shown{}
	for _, e := range c.stored[conversation] {
		if at[e.Seq] != nil {
			c.found(&c.Store.Duplicated, 1, "stored twice", "%s has two entries %d", conversation, e.Seq)
			continue
		}
		at[e.Seq] = e
		switch {
		case e.Seq < last:
			c.found(&c.Store.Reordered, 1, "stored out of order", "%s: %d comes after %d", conversation, e.Seq, last)
		case e.Seq > last+1:
			c.found(&c.Store.Lost, int(e.Seq-last-1), "a hole in the store", "%s goes from %d to %d", conversation, last, e.Seq)
		}
		last = max(last, e.Seq)
		if e.ID == "" {
			continue // The system's.
		}
		n := name{conversation, e.UID, e.ID}
		if first, ok := c.place[n]; ok {
			c.found(&c.Store.Duplicated, 1, "stored twice", "%s of %s in %s is at %d and at %d", e.ID, e.UID, conversation, first, e.Seq)
			continue
		}
		c.place[n] = e.Seq
		if c.sent[n] == nil && (e.Does == Message || e.Does == Edit || e.Does == Recall) {
			c.found(&c.Store.Duplicated, 1, "stored and never sent", "%s of %s at %d of %s", e.ID, e.UID, e.Seq, conversation)
		}
	}
	// What each message has to say by now: first what was sent, then its changes in their order.
	for _, e := range c.stored[conversation] {
		s := c.sent[name{conversation, e.UID, e.ID}]
		switch {
		case s == nil || at[e.Seq] != e:
		case e.Does == Message:
			says[e.Seq] = &shown{s.Body, e.Seq}
		case says[e.Target] != nil && (e.Does == Edit || e.Does == Recall):
			says[e.Target].changed = e.Seq
			if says[e.Target].body = s.Body; e.Does == Recall {
				says[e.Target].body = ""
			}
		}
	}
	for _, seq := range sortedSeqs(says) {
		if got, want := at[seq], says[seq]; got.Body != want.body {
			what := "a change that isn't in what is stored"
			if want.changed == seq {
				what = "stored and not what was sent"
			}
			c.found(&c.Store.Lost, 1, what, "message %d of %s says %.80q, and should say %.80q since %d", seq, conversation, got.Body, want.body, want.changed)
		}
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
				c.Refused[told.Code]++
			case told.Code != "":
				c.found(&c.Store.Duplicated, 1, "told to be refused, and stored", "%s of %s in %s at %d, refused as %s", s.ID, v.device, s.Conversation, seq, told.Code)
			case seq == 0:
				c.found(&c.Store.Lost, 1, "told to be stored, and not there", "%s of %s in %s at %d", s.ID, v.device, s.Conversation, told.Seq)
			case seq != told.Seq:
				c.found(&c.Store.Reordered, 1, "told to be stored, and elsewhere", "%s of %s in %s: told at %d, is at %d", s.ID, v.device, s.Conversation, told.Seq, seq)
			}
		}
	}
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

// hand looks whether a device was handed every entry of a conversation, once, in order, as it is stored.
func (c *checker) hand(v view) {
	at := c.at[v.conversation]
	var first, last int64
	skipping, left := false, false
	seen := map[int64]bool{}
	missing := map[int64]bool{}
	shows := map[int64]*shown{}
	for _, e := range c.handed[v] {
		if e.Kind == Reset {
			skipping = true
			continue
		}
		if seen[e.Seq] {
			c.found(&c.Handed.Duplicated, 1, "handed over twice", "%d of %s on %s", e.Seq, v.conversation, v.device)
			continue
		}
		seen[e.Seq] = true
		switch {
		case e.Seq < last:
			c.found(&c.Handed.Reordered, 1, "handed over out of order", "%d after %d of %s on %s", e.Seq, last, v.conversation, v.device)
			delete(missing, e.Seq)
		case first == 0:
			first = e.Seq
			if !skipping {
				first = 1
			}
			fallthrough
		default:
			if gap := e.Seq - max(last+1, first); gap > mostGap && !skipping {
				c.found(&c.Handed.Lost, int(gap), "never handed over", "%d entries before %d of %s on %s", gap, e.Seq, v.conversation, v.device)
				last = e.Seq - 1
			}
			for seq := max(last+1, first, e.Seq-mostGap); seq < e.Seq; seq++ {
				if skipping {
					c.Skipped++
					left, seen[seq] = true, true
				} else {
					missing[seq] = true
				}
			}
			last, skipping = e.Seq, false
		}
		c.same(v, e)
		c.show(v, e, shows)
	}
	if first == 0 {
		first = 1
	}
	for _, seq := range sortedSeqs(at) {
		if seq >= first && !seen[seq] {
			missing[seq] = true
		}
	}
	for _, seq := range sortedSeqs(missing) {
		c.found(&c.Handed.Lost, 1, "never handed over", "%d of %s on %s", seq, v.conversation, v.device)
	}
	for _, seq := range sortedSeqs(shows) {
		// What was left out may have been a change: who is told of a reset reads anew what he shows.
		if got, want := shows[seq], at[seq]; !left && want != nil && want.Does == Message && got.body != want.Body {
			c.found(&c.Handed.Lost, 1, "a change that was never shown", "message %d of %s on %s says %.80q, stored is %.80q", seq, v.conversation, v.device, got.body, want.Body)
		}
	}
}

// same looks whether what was handed over is what is stored there.
func (c *checker) same(v view, e *Event) {
	is := c.at[v.conversation][e.Seq]
	if is != nil && is.UID == e.UID && is.ID == e.ID {
		if s := c.sent[name{e.Conversation, e.UID, e.ID}]; s != nil && c.late > 0 && e.At-s.At > c.late {
			c.Late++
		}
		return
	}
	if seq, ok := c.place[name{v.conversation, e.UID, e.ID}]; ok {
		c.found(&c.Handed.Reordered, 1, "handed over in another's place", "%s of %s at %d of %s on %s, where it is %d", e.ID, e.UID, e.Seq, v.conversation, v.device, seq)
		return
	}
	c.found(&c.Store.Lost, 1, "handed over and not stored", "%s of %s, %d of %s on %s", e.ID, e.UID, e.Seq, v.conversation, v.device)
}

// show is what a device shows after an entry.
func (c *checker) show(v view, e *Event, shows map[int64]*shown) {
	switch e.Does {
	case Message:
		shows[e.Seq] = &shown{e.Body, max(e.Changed, e.Seq)}
	case Edit, Recall:
		m := shows[e.Target]
		if m == nil || e.Seq <= m.changed {
			return
		}
		m.changed = e.Seq
		if m.body = e.Body; e.Does == Recall {
			m.body = ""
		}
	}
}
