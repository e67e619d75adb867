package client

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
)

// session is told that one has begun.
func (ch *Chat) session(s Session) {
	if ch.uid != "" && ch.uid != s.UID {
		// Somebody else's: nothing of the one before may be shown to him, or sent in his name.
		for id := range ch.talks {
			ch.forget(id)
		}
		for id := range ch.outbox.items {
			ch.outbox.remove(id)
		}
		ch.sent, ch.userChange, ch.gone, ch.dirtySet, ch.open = nil, 0, nil, nil, ""
		ch.mu.Lock()
		clear(ch.settings)
		ch.mu.Unlock()
		clear(ch.strangers)
		clear(ch.changed)
		if err := ch.o.Storage.Clear(); err != nil {
			ch.storageError(err)
		}
	}
	if ch.uid != s.UID {
		ch.uid, ch.dirty = s.UID, true
	}
	// Void is what the session before was waiting for.
	ch.round++
	ch.sleepers.wake()
	ch.askLater()
	if ch.open != "" {
		ch.tellOpen()
	}
	ch.catchUp(func() {
		var ids []string
		for _, o := range ch.sent {
			if !slices.Contains(ids, o.Conversation) {
				ids = append(ids, o.Conversation)
			}
		}
		ch.peers(ids)
	})
}

// catchUp asks for what is new; then sends again whatever has no outcome.
func (ch *Chat) catchUp(then func()) {
	ch.round++
	round := ch.round
	proceeded := false
	proceed := func() {
		if proceeded || round != ch.round || !ch.online() {
			return
		}
		proceeded = true
		ch.outbox.run(true)
		for _, t := range ch.talks {
			ch.mark(t)
		}
		then()
	}
	ch.sync(func(bool) { proceed() })
	ch.sleepers.sleep(ch.o.SyncFirst, proceed)
}

type syncParams struct {
	Conversations map[string]int64 `json:"conversations,omitempty"`
	UserChange    int64            `json:"user_change,omitempty"`
	Above         string           `json:"above,omitempty"`
	UpTo          string           `json:"up_to,omitempty"`
}

type syncPage struct {
	Conversations []syncConversation `json:"conversations"`
	UserChanges   []UserChange       `json:"user_changes"`
	More          bool               `json:"more"`
}

type syncConversation struct {
	Conversation json.RawMessage `json:"conversation"`
	Entries      []Entry         `json:"entries"`
	Reset        bool            `json:"reset"`
}

// sync asks for all that is new. done is told when it has been handed over, with false if it was not to be had.
func (ch *Chat) sync(done func(bool)) {
	ch.syncAgain = true
	if done != nil {
		ch.syncDone = append(ch.syncDone, done)
	}
	if !ch.syncing {
		ch.syncing = true
		ch.syncStep("", 0)
	}
}

// named is what this device has of the conversations above one, as many as a question may name.
func (ch *Chat) named(above string) syncParams {
	p := syncParams{Conversations: map[string]int64{}, UserChange: ch.userChange, Above: above}
	ids := make([]string, 0, len(ch.talks))
	for id := range ch.talks {
		if id > above {
			ids = append(ids, id)
		}
	}
	if len(ids) > ch.o.SyncNamed {
		slices.Sort(ids)
		ids = ids[:ch.o.SyncNamed]
		p.UpTo = ids[len(ids)-1]
	}
	for _, id := range ids {
		p.Conversations[id] = ch.talks[id].log.have
	}
	return p
}

// syncStep asks for a page of the conversations above one.
func (ch *Chat) syncStep(above string, attempt int) {
	if !ch.online() {
		ch.synced(false)
		return
	}
	if above == "" {
		ch.syncAgain = false
	}
	p := ch.named(above)
	ch.ask("sync", p, frame.OpRequestUnordered, func(raw json.RawMessage, err error) {
		var page syncPage
		if err == nil && json.Unmarshal(raw, &page) != nil {
			err = &Error{Code: errcode.Internal.Name, Message: "the page can't be read"}
		}
		if err != nil {
			e := asError(err)
			// A server without conversations, or a session that is over.
			if !e.Retry {
				ch.synced(false)
				return
			}
			ch.sleepers.sleep(ch.wait(attempt, e), func() { ch.syncStep(above, attempt+1) })
			return
		}
		progress := ch.page(&page)
		switch {
		case page.More && progress:
			ch.syncStep(above, 0)
		case p.UpTo != "":
			ch.syncStep(p.UpTo, attempt)
		case ch.syncAgain:
			ch.syncStep("", 0)
		case len(ch.strangers) == 0 || attempt >= 5:
			ch.synced(true)
		default:
			// It was told of before it can be read.
			ch.sleepers.sleep(ch.wait(attempt+1, nil), func() { ch.syncStep("", attempt+1) })
		}
	})
}

func (ch *Chat) synced(ok bool) {
	ch.syncing = false
	if ok {
		clear(ch.strangers)
		for _, t := range ch.talks {
			ch.pull(t)
		}
		if ch.o.OnSynced != nil {
			ch.o.OnSynced()
		}
	}
	done := ch.syncDone
	ch.syncDone = nil
	for _, f := range done {
		f(ok)
	}
}

// page takes a page in and reports whether there was anything in it.
func (ch *Chat) page(p *syncPage) bool {
	progress := false
	for _, u := range p.UserChanges {
		progress = ch.apply(u) || progress
	}
	for i := range p.Conversations {
		progress = ch.fresh(&p.Conversations[i]) || progress
	}
	return progress
}

func (ch *Chat) fresh(s *syncConversation) bool {
	c, err := parseConversation(s.Conversation)
	if err != nil {
		return false
	}
	first := c.LastSeq + 1
	if len(s.Entries) > 0 {
		first = s.Entries[0].Seq
	}
	delete(ch.strangers, c.ID)
	var out []Entry
	lost := false
	t := ch.talks[c.ID]
	if t == nil {
		t = ch.hold(c, first-1)
		lost = s.Reset
	} else {
		t.Conversation = t.merge(c)
		switch {
		case s.Reset && first > t.log.have+1:
			lost = true
			out = t.log.skip(first - 1)
		case c.VisibleFrom > t.log.have+1:
			out = t.log.skip(c.VisibleFrom - 1)
		}
	}
	for i := range s.Entries {
		ch.outcome(c.ID, &s.Entries[i])
		out = append(out, t.log.take(s.Entries[i])...)
	}
	t.log.hear(c.LastSeq)
	ch.handOver(t, out, lost)
	ch.update(t)
	return len(out) > 0
}

// ---- what comes ----

type stored struct {
	Conversation string `json:"conversation"`
	Entry        Entry  `json:"entry"`
}

func (ch *Chat) event(name string, raw json.RawMessage) {
	// What can't be read is from a server that is newer than this client, or worse: a sync finds what it may have been.
	read := func(v any) bool {
		err := json.Unmarshal(raw, v)
		if err != nil {
			ch.sync(nil)
		}
		return err == nil
	}
	switch name {
	case "message.stored", "entry":
		var s stored
		if read(&s) {
			ch.live(s.Conversation, s.Entry)
		}
	case "message.rejected":
		var r struct {
			ClientMsgID string    `json:"client_msg_id"`
			Error       wireError `json:"error"`
		}
		if read(&r) {
			ch.outbox.rejected(r.ClientMsgID, r.Error.err())
		}
	case "user.change":
		var u UserChange
		if !read(&u) {
			return
		}
		// In between there is one that was missed, or one that the newest of its object has taken the place of.
		if u.Number > ch.userChange+1 {
			ch.sync(nil)
		} else {
			ch.apply(u)
		}
	case "marker":
		var m marker
		if read(&m) {
			ch.marker(m)
		}
	case "resync":
		ch.catchUp(func() {})
	}
	if ch.o.OnEvent != nil {
		ch.o.OnEvent(name, raw)
	}
}

func (ch *Chat) live(id string, e Entry) {
	ch.outcome(id, &e)
	t := ch.talks[id]
	if t == nil {
		ch.meet(id)
		return
	}
	ch.handOver(t, t.log.take(e), false)
	// A sync that is under way brings it, and looks afterwards.
	if !ch.syncing {
		ch.pull(t)
	}
}

// meet asks what a conversation is; a sync goes on until it has told.
func (ch *Chat) meet(id string) {
	if ch.strangers[id] && ch.syncing {
		return
	}
	ch.strangers[id] = true
	ch.sync(nil)
}

func (ch *Chat) handOver(t *talk, entries []Entry, reset bool) {
	if len(entries) == 0 && !reset {
		return
	}
	others := false
	for i := range entries {
		e := &entries[i]
		t.follow(e, ch.uid)
		others = others || e.Kind == KindMessage && e.From != ch.uid
	}
	if ch.o.OnEntries != nil {
		ch.o.OnEntries(t.ID, entries, reset)
	}
	ch.update(t)
	if others && ch.o.DeliveredAfter >= 0 && peerOf(t.ID, ch.uid) != "" && !t.markTimer.waiting() {
		t.markTimer = ch.loop.after(ch.o.DeliveredAfter, func() { ch.mark(t) })
	}
}

// apply applies a user change that is newer than what is known.
func (ch *Chat) apply(u UserChange) bool {
	if u.Number <= ch.userChange {
		return false
	}
	ch.userChange, ch.dirty = u.Number, true
	switch u.Kind {
	case "conversation":
		var v struct {
			Role string `json:"role"`
		}
		_ = json.Unmarshal(u.Value, &v)
		if v.Role == "none" {
			ch.forget(u.Object)
		} else if ch.talks[u.Object] == nil {
			ch.meet(u.Object)
		}
	case "read":
		var v struct {
			ReadSeq   int64  `json:"read_seq"`
			ReadMsgNo *int64 `json:"read_msg_no"`
		}
		if t := ch.talks[u.Object]; t != nil && json.Unmarshal(u.Value, &v) == nil {
			ch.ownRead(t, v.ReadSeq, v.ReadMsgNo)
		}
	default:
		ch.mu.Lock()
		ch.settings[u.key()] = u
		ch.mu.Unlock()
		ch.dirtySet = append(ch.dirtySet, u)
	}
	if ch.o.OnChange != nil {
		ch.o.OnChange(u)
	}
	return true
}

// ---- what is missing ----

// maxPulls is how many ranges are read at once.
const maxPulls = 4

// pull reads what is missing between what was handed over and what was heard of.
func (ch *Chat) pull(t *talk) {
	if from, _ := t.log.missing(); t.pulling || from == 0 {
		return
	}
	t.pulling = true
	start := func() { ch.pullStep(t, 0) }
	if ch.pulls == maxPulls {
		ch.pullQueue = append(ch.pullQueue, start)
		return
	}
	ch.pulls++
	start()
}

func (ch *Chat) pulled(t *talk) {
	t.pulling = false
	if len(ch.pullQueue) > 0 {
		next := ch.pullQueue[0]
		ch.pullQueue = ch.pullQueue[1:]
		next()
	} else {
		ch.pulls--
	}
	if ch.online() && !ch.syncing && ch.talks[t.ID] == t {
		ch.pull(t)
	}
}

func (ch *Chat) pullStep(t *talk, attempt int) {
	from, to := t.log.missing()
	if from == 0 || !ch.online() || ch.talks[t.ID] != t {
		ch.pulled(t)
		return
	}
	ch.history(Range{Conversation: t.ID, From: from, To: to, Limit: 200}, func(list []Entry, err error) {
		if err != nil {
			e := asError(err)
			if !e.Retry {
				// Not a member any more: what he may see he has.
				t.log = log{have: t.log.have, top: t.log.have}
				ch.pulled(t)
				return
			}
			ch.sleepers.sleep(ch.wait(attempt, e), func() { ch.pullStep(t, attempt+1) })
			return
		}
		before := t.log.have
		var out []Entry
		for i := range list {
			ch.outcome(t.ID, &list[i])
			out = append(out, t.log.take(list[i])...)
		}
		ch.handOver(t, out, false)
		if t.log.have > before {
			ch.pullStep(t, 0)
			return
		}
		// Told of, and not to be read: either it is not for this user, which a summary tells, or it is not there yet. It is never skipped.
		ch.sync(func(bool) {
			if t.log.have > before {
				ch.pullStep(t, 0)
				return
			}
			ch.sleepers.sleep(ch.wait(attempt, nil), func() { ch.pullStep(t, attempt+1) })
		})
	})
}

// ---- whether something was missed ----

func (ch *Chat) askLater() {
	ch.askTimer.stop()
	every := time.Duration(float64(ch.o.AskEvery) * (0.5 + ch.Client.o.Random()))
	ch.askTimer = ch.loop.after(every, ch.askCursor)
}

func (ch *Chat) askCursor() {
	if !ch.online() {
		return // The next session begins anew.
	}
	ch.ask("sync.cursor", struct{}{}, frame.OpRequestUnordered, func(raw json.RawMessage, err error) {
		if errors.Is(err, errcode.UnknownMethod) {
			return // A server that has no such thing.
		}
		var now struct {
			Seqs       int64 `json:"seqs"`
			UserChange int64 `json:"user_change"`
		}
		if err == nil && json.Unmarshal(raw, &now) == nil {
			var have int64
			for _, t := range ch.talks {
				have += t.log.have
			}
			if now.Seqs != have || now.UserChange != ch.userChange || ch.outbox.waiting() {
				ch.catchUp(func() {})
			}
		}
		ch.askLater()
	})
}
