package client

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/halley-im/halley/proto/frame"
)

// Stage is what has become of something that was sent.
type Stage string

// The stages.
const (
	// Sending: on its way, or waiting for a connection or for those before it in its conversation.
	Sending Stage = "sending"
	// Accepted: the server will tell what becomes of it.
	Accepted Stage = "accepted"
	// Stored: it has its place in the conversation, for good.
	Stored Stage = "stored"
	// Delivered and Read: the other side's devices have got it, or it was read there; in direct conversations only.
	Delivered Stage = "delivered"
	Read      Stage = "read"
	// Failed: it never got a place and never will; it stays until it is sent anew or discarded.
	Failed Stage = "failed"
)

// Outgoing is something that was sent: a message or a change.
type Outgoing struct {
	// ID is its client_msg_id.
	ID string
	// Conversation is empty for a group that is being made until the server has given it an id.
	Conversation string
	Method       string
	// Params are the request's, without client_msg_id.
	Params json.RawMessage
	Stage  Stage
	At     time.Time
	// Seq is its place, once it is stored.
	Seq int64
	// Err is why it failed, or what keeps it from being sent for now.
	Err *Error
}

type item struct {
	o Outgoing
	// asked: the server's answer is awaited.
	asked bool
	// due: it is to be sent, for the first time or again.
	due bool
}

type lane struct {
	key string
	// no counts up: the older lane goes first.
	no      int
	items   []*item
	attempt int
	timer   *timer
}

// outbox sends what is to be sent, in each conversation one after the other: the next one goes when the one before was accepted or
// failed. What was accepted is kept until its outcome is told, so that it can be sent again: under the same id, which the server
// knows to be the same.
type outbox struct {
	c *Client
	// changed is told what is to be kept and told.
	changed func(o Outgoing)
	lanes   map[string]*lane
	items   map[string]*item
	running bool
	// asking is how many answers are awaited.
	asking int
	made   int
}

// inOrder returns the lanes, the oldest first.
func (b *outbox) inOrder() []*lane {
	return slices.SortedFunc(maps.Values(b.lanes), func(a, b *lane) int { return a.no - b.no })
}

// maxAsking is how many: a server lets 32 requests of a session wait.
const maxAsking = 16

func (b *outbox) add(o Outgoing) {
	if b.items[o.ID] != nil {
		return
	}
	it := &item{o: o, due: o.Stage != Failed}
	b.items[o.ID] = it
	if o.Stage == Failed {
		return
	}
	key := o.Conversation
	if key == "" {
		key = "new " + o.ID
	}
	l := b.lanes[key]
	if l == nil {
		b.made++
		l = &lane{key: key, no: b.made}
		b.lanes[key] = l
	}
	l.items = append(l.items, it)
	b.pump(l)
}

// run sends what is due; with again also what was accepted and whose outcome may have been missed.
func (b *outbox) run(again bool) {
	b.running = true
	for _, l := range b.inOrder() {
		if again {
			for _, it := range l.items {
				it.due = it.due || !it.asked
			}
		}
		l.timer.stop()
		l.attempt = 0
		b.pump(l)
	}
}

// pause sends nothing more until run.
func (b *outbox) pause() {
	b.running = false
	for _, l := range b.lanes {
		l.timer.stop()
	}
}

// waiting is whether the outcome of anything is awaited.
func (b *outbox) waiting() bool {
	for _, it := range b.items {
		if it.o.Stage == Accepted {
			return true
		}
	}
	return false
}

// remove takes one out.
func (b *outbox) remove(id string) (Outgoing, bool) {
	it := b.items[id]
	if it == nil {
		return Outgoing{}, false
	}
	delete(b.items, id)
	b.leave(it)
	return it.o, true
}

// discard takes out what is not to be sent. Only what failed, or was never accepted, can be taken back.
func (b *outbox) discard(id string) bool {
	it := b.items[id]
	if it == nil || it.asked || it.o.Stage == Accepted {
		return false
	}
	_, ok := b.remove(id)
	return ok
}

// rejected marks what was refused for good; it stays in the list.
func (b *outbox) rejected(id string, err *Error) {
	it := b.items[id]
	if it == nil || it.o.Stage == Failed {
		return
	}
	b.leave(it)
	b.change(it, func(o *Outgoing) { o.Stage, o.Err = Failed, err })
}

func (b *outbox) leave(it *item) {
	for key, l := range b.lanes {
		i := slices.Index(l.items, it)
		if i < 0 {
			continue
		}
		l.items = slices.Delete(l.items, i, i+1)
		if len(l.items) == 0 {
			l.timer.stop()
			delete(b.lanes, key)
		} else if !it.asked {
			b.pump(l)
		}
		return
	}
}

func (b *outbox) change(it *item, f func(*Outgoing)) {
	f(&it.o)
	b.changed(it.o)
}

func (b *outbox) pump(l *lane) {
	if !b.running || l.timer.waiting() || b.asking >= maxAsking {
		return
	}
	var next *item
	for _, it := range l.items {
		if it.asked {
			return
		}
		if it.due && next == nil {
			next = it
		}
	}
	if next == nil {
		return
	}
	next.asked = true
	params, err := withID(next.o.Params, next.o.ID)
	if err != nil {
		next.asked = false
		b.leave(next)
		b.change(next, func(o *Outgoing) { o.Stage, o.Err = Failed, &Error{Code: "invalid_request", Message: err.Error()} })
		return
	}
	b.asking++
	b.c.ask(next.o.Method, params, frame.OpRequest, func(raw json.RawMessage, err error) {
		next.asked = false
		b.asking--
		if err != nil {
			b.failed(l, next, asError(err))
		} else {
			b.accepted(l, next, raw)
		}
		b.pump(l)
		if b.asking == maxAsking-1 {
			// Others wait for this place.
			for _, l := range b.inOrder() {
				b.pump(l)
			}
		}
	})
}

func (b *outbox) accepted(l *lane, it *item, raw json.RawMessage) {
	it.due = false
	l.attempt = 0
	// Its outcome may have been faster than the answer; and an answer to a repeat says nothing new.
	if b.items[it.o.ID] != it || it.o.Stage != Sending {
		return
	}
	var a struct {
		Conversation string `json:"conversation"`
	}
	_ = json.Unmarshal(raw, &a)
	b.change(it, func(o *Outgoing) {
		o.Stage, o.Err = Accepted, nil
		if o.Conversation == "" {
			o.Conversation = a.Conversation
		}
	})
}

func (b *outbox) failed(l *lane, it *item, err *Error) {
	if b.items[it.o.ID] != it || it.o.Stage == Failed {
		return
	}
	switch {
	// What concerns the session says nothing of the message.
	case err.Retry || err.ofToken() || b.c.over:
		if !b.running {
			return
		}
		l.timer.stop()
		l.timer = b.c.loop.after(b.c.o.Backoff.wait(l.attempt, err.RetryAfter, b.c.o.Random), func() { b.pump(l) })
		l.attempt++
		if it.o.Stage == Sending {
			b.change(it, func(o *Outgoing) { o.Err = err })
		}
	default:
		// Also if it was refused when it was repeated (he isn't a member any more): what became of the first one nobody will tell. If
		// somebody does, it is found all the same.
		b.leave(it)
		b.change(it, func(o *Outgoing) { o.Stage, o.Err = Failed, err })
	}
}

func withID(params json.RawMessage, id string) (map[string]json.RawMessage, error) {
	m := map[string]json.RawMessage{}
	if len(params) > 0 {
		if err := json.Unmarshal(params, &m); err != nil {
			return nil, err
		}
	}
	quoted, err := json.Marshal(id)
	m["client_msg_id"] = quoted
	return m, err
}
