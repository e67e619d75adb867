package check

import (
	"fmt"
	"slices"
	"strings"
)

// message is what there is to see of one.
type message struct {
	body      string
	recalled  bool
	pinned    bool
	reactions map[string]bool // the reaction, a space and the uid
	changed   int64           // the last change that is in it
}

// messageOf is a message as an event has it.
func messageOf(e *Event) *message {
	m := &message{body: e.Body, pinned: e.Pinned, changed: max(e.Changed, e.Seq), reactions: map[string]bool{}}
	for _, r := range e.Reactions {
		m.reactions[r] = true
	}
	return m
}

// apply is what a change makes of it; body is the one that an edit gives.
func (m *message) apply(e *Event, body string) {
	if e.Seq <= m.changed || m.recalled {
		return
	}
	switch e.Does {
	case Edit:
		m.body = body
	case Recall:
		m.body, m.recalled, m.pinned = "", true, false
		clear(m.reactions)
	case Pin:
		m.pinned = !e.Off
	case Reaction:
		if by := e.Reaction + " " + e.UID; e.Off {
			delete(m.reactions, by)
		} else {
			m.reactions[by] = true
		}
	default:
		return
	}
	m.changed = e.Seq
}

// String tells what is to be seen: two messages that look the same have the same one.
func (m *message) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.80q", m.body)
	if len(m.body) > 80 {
		// Not to be read, but to be told apart.
		fmt.Fprintf(&b, "+%d:%q", len(m.body)-80, m.body[80:])
	}
	if m.pinned {
		b.WriteString(" pinned")
	}
	for _, r := range sorted(m.reactions) {
		fmt.Fprintf(&b, " (%s)", r)
	}
	return b.String()
}

// store looks whether a conversation's entries are 1, 2, 3 …, each sent by somebody and there once, and whether its messages are as
// their changes left them.
func (c *checker) store(conversation string) {
	at := map[int64]*Event{}
	c.at[conversation] = at
	var last int64
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
		if e.ID == "" || e.UID == "" {
			continue // The system's.
		}
		n := name{conversation, e.UID, e.ID}
		if first, ok := c.place[n]; ok {
			c.found(&c.Store.Duplicated, 1, "stored twice", "%s of %s in %s is at %d and at %d", e.ID, e.UID, conversation, first, e.Seq)
			continue
		}
		c.place[n] = e.Seq
		s := c.sent[n]
		switch {
		case s != nil:
			if what := differs(s, e); what != "" {
				c.found(&c.Store.Lost, 1, "stored and not what was sent", "%s of %s at %d of %s: %s", e.ID, e.UID, e.Seq, conversation, what)
			}
		case known(e.Does):
			c.found(&c.Store.Duplicated, 1, "stored and never sent", "%s of %s at %d of %s", e.ID, e.UID, e.Seq, conversation)
		}
	}
	c.seqs[conversation] = sortedSeqs(at)
	c.stays[conversation] = c.memberships(conversation)
	c.messages(conversation)
}

// known is whether the run itself is who does such a thing. It makes its groups before there is a journal.
func known(does string) bool {
	return slices.Contains([]string{Message, Edit, Recall, Reaction, Pin, Joined, Left, Removed}, does)
}

// differs says what is stored otherwise than it was sent, its body apart: that may have been changed since.
func differs(s, e *Event) string {
	switch {
	case s.Does != e.Does:
		return fmt.Sprintf("%q, and should be %q", e.Does, s.Does)
	case s.Target != e.Target:
		return fmt.Sprintf("of %d, and should be of %d", e.Target, s.Target)
	case s.Reaction != e.Reaction || s.Off != e.Off:
		return fmt.Sprintf("%q, off: %v; should be %q, off: %v", e.Reaction, e.Off, s.Reaction, s.Off)
	case len(s.Members) > 0 && !slices.Equal(s.Members, e.Members):
		return fmt.Sprintf("of %q, and should be of %q", e.Members, s.Members)
	}
	return ""
}

// messages looks whether each message is what was sent, and then its changes, in their order, made of it.
func (c *checker) messages(conversation string) {
	at, says := c.at[conversation], map[int64]*message{}
	for _, seq := range c.seqs[conversation] {
		e := at[seq]
		s := c.sent[name{conversation, e.UID, e.ID}]
		switch {
		case s == nil:
		case e.Does == Message:
			says[seq] = &message{body: s.Body, changed: seq, reactions: map[string]bool{}}
		case says[e.Target] != nil:
			says[e.Target].apply(e, s.Body)
		}
	}
	for _, seq := range sortedSeqs(says) {
		if got, want := messageOf(at[seq]).String(), says[seq].String(); got != want {
			what := "a change that isn't in what is stored"
			if says[seq].changed == seq {
				what = "stored and not what was sent"
			}
			c.found(&c.Store.Lost, 1, what, "message %d of %s says %s, and should say %s since %d", seq, conversation, got, want, says[seq].changed)
		}
	}
}
