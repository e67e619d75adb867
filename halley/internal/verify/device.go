package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/halley/internal/verify/check"
	"github.com/halley-im/halley/kit/token"
)

// tokenTTL is longer than any run.
const tokenTTL = 24 * time.Hour

// device is one of a user's: a client, what it keeps over a restart, and its way to the comets.
type device struct {
	*run
	name, uid string
	life      context.Context
	token     string
	gate      *gate
	memory    *client.Memory
	// talks are the conversations that its user is in, or comes back to; set before there is any traffic.
	talks []*talk

	sending sync.Mutex // what is sent in one conversation and the journal have one order
	number  int

	mu     sync.Mutex
	chat   *client.Chat
	cancel context.CancelFunc
	done   chan struct{}
	state  client.State
	at     int // which comet is next
	has    map[string]int64
	marked map[string]int64 // read markers that it showed
	open   map[string]bool  // ids without an outcome
	early  map[string]bool  // outcomes that were faster than the note of the sending
	calm   map[string]sent  // what was accepted or stored of messages, by id: what may be repeated
	mine   []sent           // stored messages of its own that are not recalled
	seen   []sent           // messages that it was shown: what may be reacted to
	groups map[string]string
	failed map[string]error
	wire   map[place]bool
	// connection is its session's, flooding the flood that goes to it; held says since when the run itself keeps it from being told anything, 0: it doesn't.
	connection, flooding string
	held                 time.Duration
}

// sent is a message of the device's own.
type sent struct {
	talk *talk
	id   string
	body string
	seq  int64
	at   time.Duration
}

type place struct {
	conversation string
	seq          int64
}

func (r *run) newDevice(life context.Context, uid string, i int) (*device, error) {
	now := time.Now()
	jwt, err := token.Sign(r.Sign, token.Claims{
		UID: uid, Tenant: r.Tenant, DeviceID: fmt.Sprintf("%s-%d", uid, i), Platform: "verify", IssuedAt: now, ExpiresAt: now.Add(tokenTTL),
	})
	if err != nil {
		return nil, err
	}
	g, err := newGate(life)
	if err != nil {
		return nil, err
	}
	r.wg.Go(func() {
		<-life.Done()
		g.end()
	})
	r.note(check.Event{Kind: check.Device, Device: fmt.Sprintf("%s/%d", uid, i), UID: uid})
	return &device{
		run: r, name: fmt.Sprintf("%s/%d", uid, i), uid: uid, life: life, token: jwt, gate: g, memory: &client.Memory{}, at: len(r.devices),
		has: map[string]int64{}, marked: map[string]int64{}, open: map[string]bool{}, early: map[string]bool{}, calm: map[string]sent{}, groups: map[string]string{}, failed: map[string]error{}, wire: map[place]bool{},
	}, nil
}

// start connects it, with what the one before it kept.
func (d *device) start() {
	chat, err := client.NewChat(client.ChatOptions{
		Options: client.Options{
			Where: d.where, TLS: d.TLS, Token: func(context.Context, client.TokenReason) (string, error) { return d.token, nil },
			Backoff: client.Backoff{Base: 100 * time.Millisecond, Max: 2 * time.Second}, RequestTimeout: 5 * time.Second, HandshakeTimeout: 5 * time.Second,
			// Far longer than the run itself holds a device up: a session that ends in a flood leaves it unjudged.
			HeartbeatTimeout: 12 * time.Second,
			OnState: func(s client.State) {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.state = s
			},
			OnSession: d.session,
			OnEvent:   d.event,
			OnPush:    d.push,
		},
		Storage: d.memory, AskEvery: d.Ask, DeliveredAfter: -1, SyncFirst: time.Second,
		OnEntries: d.entries, OnOutgoing: d.outgoing, OnConversations: d.conversations, OnGone: d.gone, OnSynced: d.synced,
	})
	if err != nil {
		panic(err) // the options are complete
	}
	ctx, cancel := context.WithCancel(d.life)
	done := make(chan struct{})
	d.mu.Lock()
	d.chat, d.cancel, d.done = chat, cancel, done
	d.mu.Unlock()
	d.wg.Go(func() {
		defer close(done)
		if err := chat.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			// Its user would start it anew, as he must; how often he had to is told.
			d.Progress("%s is closed for good, and started anew: %v", d.name, err)
			d.run.ended(fmt.Sprintf("%s: %v", d.name, err))
			d.hold()
			d.wg.Go(func() {
				select {
				case <-d.life.Done():
				case <-time.After(time.Second):
					d.reload()
				}
			})
		}
	})
}

// reload ends the client in order and starts another one on what it kept, as an app that is closed and opened again.
func (d *device) reload() {
	d.sending.Lock()
	defer d.sending.Unlock()
	d.mu.Lock()
	cancel, done := d.cancel, d.done
	d.mu.Unlock()
	cancel()
	<-done
	if d.life.Err() == nil {
		d.start()
	}
}

// where is the next comet's URL, through the gate.
func (d *device) where(context.Context, int) (string, error) {
	d.mu.Lock()
	target := d.Comets[d.at%len(d.Comets)]
	d.at++
	d.mu.Unlock()
	return d.gate.through(target)
}

// current is the client that there is now.
func (d *device) current() *client.Chat {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.chat
}

func (d *device) online() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.Name == client.Online
}

func (d *device) why() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.Err
}

// last is the last entry that it was handed.
func (d *device) last(conversation string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.has[conversation]
}

// waiting is how much of what it sent has no outcome.
func (d *device) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open)
}

// ---- what it is told ----

func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return string(raw)
	}
	return s
}

func (d *device) entries(conversation string, entries []client.Entry, reset bool) {
	at := d.now()
	if reset {
		d.note(check.Event{Kind: check.Reset, At: at, Device: d.name, Conversation: conversation})
	}
	for i := range entries {
		e := entryEvent(check.Handed, conversation, &entries[i])
		e.At, e.Device = at, d.name
		d.note(e)
		d.mu.Lock()
		d.has[conversation] = max(d.has[conversation], e.Seq)
		if t := d.talk(conversation); t != nil && e.Does == check.Message {
			if len(d.seen) == mostKnown {
				d.seen = d.seen[1:]
			}
			d.seen = append(d.seen, sent{talk: t, seq: e.Seq, at: at})
		}
		d.mu.Unlock()
	}
}

// talk returns a conversation of the device's. The caller has mu.
func (d *device) talk(id string) *talk {
	for _, t := range d.talks {
		if t.id == id {
			return t
		}
	}
	return nil
}

func (d *device) conversations(list []client.Conversation) {
	for i := range list {
		c := &list[i]
		d.mu.Lock()
		more := c.ReadSeq > d.marked[c.ID]
		if more {
			d.marked[c.ID] = c.ReadSeq
		}
		d.mu.Unlock()
		if more {
			d.note(check.Event{Kind: check.Marked, Device: d.name, Conversation: c.ID, Read: c.ReadSeq})
		}
	}
}

func (d *device) gone(conversation string) {
	d.note(check.Event{Kind: check.Gone, Device: d.name, Conversation: conversation})
}

func (d *device) session(s client.Session, _ bool) {
	d.sessions.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.connection = s.Connection
}

// hold says that the run itself now keeps the device from being told anything, until it has caught up.
func (d *device) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held == 0 {
		d.held = d.now()
	}
}

func (d *device) synced() {
	d.mu.Lock()
	since := d.held
	d.held = 0
	d.mu.Unlock()
	if since > 0 {
		d.note(check.Event{Kind: check.Disturbed, At: since, Until: d.now(), Device: d.name})
	}
}

// entryEvent is an entry as the journal has it.
func entryEvent(kind check.Kind, conversation string, e *client.Entry) check.Event {
	out := check.Event{
		Kind: kind, Conversation: conversation, UID: e.From, ID: e.ClientMsgID, Seq: e.Seq, Does: e.Kind, Target: e.Target, Changed: e.ChangedSeq,
		Reaction: e.Reaction, Off: e.Off, Pinned: e.Pinned, Members: e.Members,
	}
	for _, r := range e.Reactions {
		for _, uid := range r.UIDs {
			out.Reactions = append(out.Reactions, r.Reaction+" "+uid)
		}
		if more := r.Count - int64(len(r.UIDs)); more > 0 {
			out.Reactions = append(out.Reactions, fmt.Sprintf("%s and %d more", r.Reaction, more))
		}
	}
	if len(e.Body) > 0 {
		out.Body = text(e.Body)
	}
	return out
}

func (d *device) outgoing(o client.Outgoing) {
	if o.Method == "group.create" {
		d.mu.Lock()
		defer d.mu.Unlock()
		switch o.Stage {
		case client.Stored:
			d.groups[o.ID] = o.Conversation
		case client.Failed:
			d.failed[o.ID] = o.Err
		}
		return
	}
	e := check.Event{Kind: check.Told, Device: d.name, Conversation: o.Conversation, UID: d.uid, ID: o.ID}
	if o.Stage == client.Stored || o.Stage == client.Failed {
		d.moved(o.ID, o.Stage == client.Stored)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch o.Stage {
	case client.Accepted, client.Stored:
		if o.Method == "message.send" {
			d.known(o)
		}
		if o.Stage == client.Accepted {
			return
		}
		e.Seq = o.Seq
	case client.Failed:
		e.Code = "unknown"
		if o.Err != nil {
			e.Code = o.Err.Code
		}
		delete(d.calm, o.ID)
	default:
		return
	}
	if d.open[o.ID] {
		delete(d.open, o.ID)
	} else {
		d.early[o.ID] = true
	}
	d.note(e)
}

// mostKnown is from how many messages of its own a device chooses what to repeat, and what to change.
const mostKnown = 200

// known keeps a message for what is to be done with it. The caller has mu.
func (d *device) known(o client.Outgoing) {
	var p struct {
		Body string `json:"body"`
	}
	t := d.talk(o.Conversation)
	if t == nil || json.Unmarshal(o.Params, &p) != nil {
		return
	}
	s := sent{t, o.ID, p.Body, o.Seq, d.now()}
	if len(d.calm) < mostKnown || d.calm[o.ID].id != "" {
		d.calm[o.ID] = s
	} else {
		for id := range d.calm { // Any of them.
			delete(d.calm, id)
			break
		}
		d.calm[o.ID] = s
	}
	if o.Stage == client.Stored {
		if len(d.mine) == mostKnown {
			d.mine = d.mine[1:]
		}
		d.mine = append(d.mine, s)
	}
}

func (d *device) event(name string, raw json.RawMessage) {
	switch name {
	case "resync":
		d.resyncs.Add(1)
	case "lagged":
		var lagged struct {
			Dropped int64 `json:"dropped"`
		}
		if id := d.flooded(); id != "" && json.Unmarshal(raw, &lagged) == nil {
			d.note(check.Event{Kind: check.Dropped, Device: d.name, ID: id, Seq: lagged.Dropped})
		}
	case "message.stored", "entry":
		var e struct {
			Conversation string `json:"conversation"`
			Entry        struct {
				Seq int64 `json:"seq"`
			} `json:"entry"`
		}
		if json.Unmarshal(raw, &e) != nil {
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		p := place{e.Conversation, e.Entry.Seq}
		if d.wire[p] {
			d.wireDuplicates.Add(1)
		}
		d.wire[p] = true
	}
}

// ---- what it sends ----

// send sends the next numbered message.
func (d *device) send(t *talk) error {
	d.sending.Lock()
	defer d.sending.Unlock()
	d.number++
	body, at := fmt.Sprintf("%s #%d", d.name, d.number), d.now()
	id, err := d.current().Send(t.id, body, client.SendOptions{})
	if err != nil {
		return err
	}
	d.left(check.Event{Kind: check.Sent, At: at, Conversation: t.id, ID: id, Does: check.Message, Body: body})
	return nil
}

// left notes what was sent. Its outcome may have been told already.
func (d *device) left(e check.Event) {
	e.Device, e.UID = d.name, d.uid
	d.note(e)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.early[e.ID] {
		delete(d.early, e.ID)
	} else {
		d.open[e.ID] = true
	}
}

// recallWithin is how old a message of one's own may be to be recalled: below what servers allow.
const recallWithin = time.Minute

// change edits, recalls, pins or takes down one of its own messages, or reacts to what it was shown, as chance has it; false: there is nothing
// to change.
func (d *device) change(dice *rand.Rand) (bool, error) {
	d.sending.Lock()
	defer d.sending.Unlock()
	e := check.Event{Kind: check.Sent, At: d.now()}
	m, ok := d.choose(dice, &e)
	if !ok {
		return false, nil
	}
	e.Conversation, e.Target = m.talk.id, m.seq
	chat, p := d.current(), map[string]any{"conversation": m.talk.id, "seq": m.seq}
	var err error
	switch e.Does {
	case check.Edit:
		d.number++
		e.Body = fmt.Sprintf("%s #%d, edited", d.name, d.number)
		e.ID, err = chat.Edit(m.talk.id, m.seq, e.Body)
	case check.Recall:
		e.ID, err = chat.Recall(m.talk.id, m.seq)
	case check.Reaction:
		e.ID, err = chat.React(m.talk.id, m.seq, e.Reaction, e.Off)
	case check.Pin:
		p["off"] = e.Off
		e.ID, err = chat.Change("message.pin", p)
	}
	if err != nil {
		return false, err
	}
	d.left(e)
	return true, nil
}

var reactions = []string{"👍", "❤️", "😂"}

// choose says what is to be changed, and how.
func (d *device) choose(dice *rand.Rand, e *check.Event) (sent, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	from, what := d.mine, dice.IntN(10)
	switch {
	case what < 4:
		e.Does = check.Edit
	case what < 5:
		e.Does = check.Recall
	case what < 9:
		e.Does, from = check.Reaction, d.seen
		e.Reaction, e.Off = reactions[dice.IntN(len(reactions))], dice.IntN(3) == 0
	default:
		e.Does, e.Off = check.Pin, dice.IntN(3) == 0
	}
	if len(from) == 0 {
		return sent{}, false
	}
	i := dice.IntN(len(from))
	m := from[i]
	now, known := d.chat.Conversation(m.talk.id)
	switch {
	case m.talk.isOut(d.uid) || known && m.seq < now.VisibleFrom:
		return m, false // What was before he came back is not his to change.
	case e.Does == check.Pin && m.talk.group && d.uid != m.talk.people[0]:
		return m, false // The owner's right.
	case e.Does == check.Recall && d.now()-m.at > recallWithin:
		return m, false
	case e.Does == check.Recall:
		d.mine = slices.Delete(d.mine, i, i+1) // What was recalled takes no further change.
	}
	return m, true
}

// repeat sends something once more that was accepted, beside the client's own queue; false: there is nothing.
func (d *device) repeat(ctx context.Context) bool {
	d.mu.Lock()
	var m sent
	for _, m = range d.calm { // Any of them.
		if !m.talk.isOut(d.uid) {
			break
		}
	}
	chat := d.chat
	d.mu.Unlock()
	if m.id == "" {
		return false
	}
	d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		// Whatever is answered: the first one's outcome is the only one that there may be.
		_ = chat.Request(ctx, "message.send", map[string]any{"conversation": m.talk.id, "client_msg_id": m.id, "body": m.body}, nil)
	})
	return true
}

// group makes a group.
func (d *device) group(ctx context.Context, title string, others []string) (string, error) {
	id, err := d.current().Change("group.create", map[string]any{"title": title, "members": others})
	if err != nil {
		return "", err
	}
	var conversation string
	err = d.until(ctx, "the group is made", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		conversation = d.groups[id]
		return conversation != "" || d.failed[id] != nil
	})
	if err == nil && conversation == "" {
		err = d.failed[id]
	}
	return conversation, err
}
