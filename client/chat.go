package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
)

// ChatOptions are Options and what concerns conversations. Zero values mean the default in brackets.
type ChatOptions struct {
	Options
	// Storage keeps what must survive the end of the process [memory: nothing does].
	Storage Storage
	// DeliveredAfter is after what time it is told that what others sent has been delivered, in direct conversations; below 0:
	// never [1 s].
	DeliveredAfter time.Duration
	// AskEvery is, more or less by half, the time between two questions whether something was missed [5 min].
	AskEvery time.Duration
	// SyncFirst is for how long what is to be sent waits for what is new, after a connection was made [2 s].
	SyncFirst time.Duration

	// The handlers; nil: nobody wants to know.

	// OnEntries is handed entries that follow those before them, each once. After a reset they don't follow what came before, which
	// is out of date: History has what lies between.
	OnEntries func(conversation string, entries []Entry, reset bool)
	// OnConversations is told what conversations are now.
	OnConversations func([]Conversation)
	// OnGone is told of a conversation that isn't on the user's list any more.
	OnGone func(conversation string)
	// OnOutgoing is told each stage of what was sent.
	OnOutgoing func(Outgoing)
	// OnChange is told what concerns the user alone.
	OnChange func(UserChange)
	// OnSynced is told that all has been handed over that was new when it was asked for.
	OnSynced func()
	// OnStorageError is told that what should be kept could not be.
	OnStorageError func(error)
}

// UserChange is something that concerns the user alone: kind and object say what, value what it is now.
type UserChange struct {
	Number int64           `json:"number"`
	Kind   string          `json:"kind"`
	Object string          `json:"object"`
	Value  json.RawMessage `json:"value"`
}

// talk is what is known of a conversation.
type talk struct {
	Conversation
	log       log
	pulling   bool
	marking   bool
	markTimer *timer
	// toldRead and toldDelivered are markers that the server has.
	toldRead, toldDelivered int64
}

// Chat is a Client with conversations. Its methods are safe for any goroutine.
type Chat struct {
	*Client
	o ChatOptions

	mu   sync.RWMutex
	view map[string]Conversation

	// The rest belongs to the loop.
	uid        string
	userChange int64
	talks      map[string]*talk
	outbox     outbox
	// sent are stored ones of direct conversations that weren't read yet, in the order in which they were stored.
	sent []Outgoing
	// strangers were heard of and no sync has told them yet.
	strangers map[string]bool
	syncing   bool
	syncAgain bool
	syncDone  []func(bool)
	round     int
	askTimer  *timer
	sleepers  sleepers
	pulls     int
	pullQueue []func()

	// What is to be kept and told when the loop runs empty.
	dirty    bool
	dirtyIDs map[string]bool
	gone     []string
	changed  map[string]Outgoing
	doneIDs  []string
}

// NewChat makes a Chat; Run connects it.
func NewChat(o ChatOptions) (*Chat, error) {
	if o.Storage == nil {
		o.Storage = &Memory{}
	}
	orElse(&o.DeliveredAfter, time.Second)
	orElse(&o.AskEvery, 5*time.Minute)
	orElse(&o.SyncFirst, 2*time.Second)
	ch := &Chat{
		o: o, view: map[string]Conversation{}, talks: map[string]*talk{}, strangers: map[string]bool{}, dirtyIDs: map[string]bool{},
		changed: map[string]Outgoing{},
	}
	own := o.Options
	own.OnState = func(s State) {
		if s.Name != Online {
			ch.outbox.pause()
		}
		if o.OnState != nil {
			o.OnState(s)
		}
	}
	own.OnSession = func(s Session, first bool) {
		if o.OnSession != nil {
			o.OnSession(s, first)
		}
		ch.session(s)
	}
	own.OnEvent = ch.event
	c, err := New(own)
	if err != nil {
		return nil, err
	}
	ch.Client = c
	ch.sleepers.l = c.loop
	ch.outbox = outbox{c: c, changed: ch.changedOutgoing, lanes: map[string]*lane{}, items: map[string]*item{}}
	c.loop.idle = ch.flush
	return ch, nil
}

// Run takes up what was kept, connects and stays connected until ctx is done or coming back makes no sense: then it returns why.
// It is called once.
func (ch *Chat) Run(ctx context.Context) error {
	ch.loop.post(ch.load)
	return ch.Client.Run(ctx)
}

func (ch *Chat) load() {
	saved, err := ch.o.Storage.Load()
	if err != nil {
		ch.storageError(err)
		return
	}
	ch.uid, ch.userChange = saved.UID, saved.UserChange
	for _, s := range saved.Conversations {
		t := ch.hold(s.Conversation, s.Have)
		ch.show(t)
		ch.dirtyIDs[t.ID] = true
	}
	for _, o := range saved.Outgoing {
		if ch.o.OnOutgoing != nil {
			ch.o.OnOutgoing(o)
		}
		ch.outbox.add(o)
	}
}

// SendOptions are what a message may have besides its body.
type SendOptions struct {
	// Mentions are uids.
	Mentions []string
	// MentionAll mentions everybody; for owner and admins of a group.
	MentionAll bool
}

// Send sends a message: any JSON value. When it returns, it is kept, and on its way; OnOutgoing tells what becomes of it under the
// id that it returns.
func (ch *Chat) Send(conversation string, body any, o SendOptions) (string, error) {
	return ch.Change("message.send", struct {
		Conversation string   `json:"conversation"`
		Body         any      `json:"body"`
		Mentions     []string `json:"mentions,omitempty"`
		MentionAll   bool     `json:"mention_all,omitempty"`
	}{conversation, body, o.Mentions, o.MentionAll})
}

// Edit puts another body in the place of one's own message's.
func (ch *Chat) Edit(conversation string, seq int64, body any) (string, error) {
	return ch.Change("message.edit", map[string]any{"conversation": conversation, "seq": seq, "body": body})
}

// Recall empties a message.
func (ch *Chat) Recall(conversation string, seq int64) (string, error) {
	return ch.Change("message.recall", map[string]any{"conversation": conversation, "seq": seq})
}

// React adds a reaction, or with off takes it away.
func (ch *Chat) React(conversation string, seq int64, reaction string, off bool) (string, error) {
	return ch.Change("message.react", map[string]any{"conversation": conversation, "seq": seq, "reaction": reaction, "off": off})
}

// Change sends any change that has an outcome, by its name: message.pin, group.create, group.add …
func (ch *Chat) Change(method string, params any) (string, error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return "", err
	}
	var to struct {
		Conversation string `json:"conversation"`
	}
	if err := json.Unmarshal(raw, &to); err != nil {
		return "", err
	}
	o := Outgoing{ID: newID(), Conversation: to.Conversation, Method: method, Params: raw, Stage: Sending, At: time.Now()}
	// First kept, then sent.
	if err := ch.o.Storage.Add(o); err != nil {
		return "", err
	}
	ch.loop.post(func() {
		if ch.o.OnOutgoing != nil && ch.outbox.items[o.ID] == nil {
			ch.o.OnOutgoing(o)
		}
		ch.outbox.add(o)
	})
	return o.ID, nil
}

// Discard takes back what failed, or was never accepted; what it is too late for goes on.
func (ch *Chat) Discard(id string) {
	ch.loop.post(func() {
		if ch.outbox.discard(id) {
			delete(ch.changed, id)
			ch.doneIDs = append(ch.doneIDs, id)
		}
	})
}

// MarkRead marks a conversation as read up to an entry; nil: all that was handed over.
func (ch *Chat) MarkRead(conversation string, upTo *Entry) {
	ch.loop.post(func() {
		t := ch.talks[conversation]
		if t == nil {
			return
		}
		seq, msgNo := t.log.have, int64(-1)
		if upTo != nil {
			seq, msgNo = min(seq, upTo.Seq), upTo.MsgNo
		}
		if seq <= t.ReadSeq && t.Unread == 0 {
			return
		}
		if seq > t.ReadSeq {
			t.WantRead = max(t.WantRead, seq)
		}
		t.read(seq, msgNo)
		ch.update(t)
		ch.mark(t)
	})
}

// Conversation returns what a conversation is now.
func (ch *Chat) Conversation(id string) (Conversation, bool) {
	ch.mu.RLock()
	defer ch.mu.RUnlock()
	c, ok := ch.view[id]
	return c, ok
}

// Conversations returns the user's conversations, those with the newest entry first.
func (ch *Chat) Conversations() []Conversation {
	ch.mu.RLock()
	defer ch.mu.RUnlock()
	out := make([]Conversation, 0, len(ch.view))
	for _, c := range ch.view {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Conversation) int { return cmp.Or(cmp.Compare(b.LastAt, a.LastAt), cmp.Compare(a.ID, b.ID)) })
	return out
}

// Range asks for entries: from From to To, both included, or the last ones before Before; 0: from the end.
type Range struct {
	Conversation string `json:"conversation"`
	From         int64  `json:"from,omitempty"`
	To           int64  `json:"to,omitempty"`
	Before       int64  `json:"before,omitempty"`
	Limit        int    `json:"limit,omitempty"`
}

type entryPage struct {
	Entries []Entry `json:"entries"`
}

// History reads entries.
func (ch *Chat) History(ctx context.Context, r Range) ([]Entry, error) {
	var page entryPage
	err := ch.Request(ctx, "conversation.history", r, &page)
	return page.Entries, err
}

// ---- what is sent ----

func (ch *Chat) changedOutgoing(o Outgoing) {
	ch.changed[o.ID] = o
	if ch.o.OnOutgoing != nil {
		ch.o.OnOutgoing(o)
	}
}

// maxSent is how many sent ones' being read is waited for.
const maxSent = 1000

// outcome looks whether an entry is the outcome of something sent.
func (ch *Chat) outcome(conversation string, e *Entry) {
	// Others know the id of what they have got, and may use it for something of theirs.
	if e.From != ch.uid || e.ClientMsgID == "" {
		return
	}
	o, ok := ch.outbox.remove(e.ClientMsgID)
	if !ok {
		return
	}
	delete(ch.changed, o.ID)
	ch.doneIDs = append(ch.doneIDs, o.ID)
	o.Conversation, o.Stage, o.Seq, o.Err = conversation, Stored, e.Seq, nil
	if ch.o.OnOutgoing != nil {
		ch.o.OnOutgoing(o)
	}
	if o.Method != "message.send" || peerOf(conversation, ch.uid) == "" {
		return
	}
	if ch.sent = append(ch.sent, o); len(ch.sent) > maxSent {
		ch.sent = slices.Delete(ch.sent, 0, len(ch.sent)-maxSent)
	}
	if t := ch.talks[conversation]; t != nil {
		ch.progress(t)
	}
}

// progress tells what the other side has got or read meanwhile.
func (ch *Chat) progress(t *talk) {
	ch.sent = slices.DeleteFunc(ch.sent, func(o Outgoing) bool { return o.Conversation == t.ID && ch.told(t, o) == Read })
	for i := range ch.sent {
		if o := &ch.sent[i]; o.Conversation == t.ID {
			o.Stage = stageOf(t, o.Seq)
		}
	}
}

func stageOf(t *talk, seq int64) Stage {
	switch {
	case seq <= t.PeerReadSeq:
		return Read
	case seq <= t.PeerDeliveredSeq:
		return Delivered
	}
	return Stored
}

// told tells a stage that is new, and returns it.
func (ch *Chat) told(t *talk, o Outgoing) Stage {
	stage := stageOf(t, o.Seq)
	if stage != o.Stage && ch.o.OnOutgoing != nil {
		o.Stage = stage
		ch.o.OnOutgoing(o)
	}
	return stage
}

// ---- what is kept ----

func (ch *Chat) storageError(err error) {
	if ch.o.OnStorageError != nil {
		ch.o.OnStorageError(err)
	}
}

func (ch *Chat) hold(c Conversation, have int64) *talk {
	t := &talk{Conversation: c, log: log{have: have, top: max(have, c.LastSeq)}}
	ch.talks[c.ID] = t
	return t
}

// update notes that something of it changed.
func (ch *Chat) update(t *talk) {
	if ch.talks[t.ID] != t {
		return
	}
	ch.dirty = true
	ch.dirtyIDs[t.ID] = true
	ch.show(t)
}

func (ch *Chat) show(t *talk) {
	ch.mu.Lock()
	ch.view[t.ID] = t.Conversation
	ch.mu.Unlock()
}

// flush keeps and tells what changed. It is called when the loop has nothing to do: what one frame changes goes together.
func (ch *Chat) flush() {
	if len(ch.dirtyIDs) > 0 && ch.o.OnConversations != nil {
		var list []Conversation
		for id := range ch.dirtyIDs {
			if t := ch.talks[id]; t != nil {
				list = append(list, t.Conversation)
			}
		}
		if len(list) > 0 {
			ch.o.OnConversations(list)
		}
	}
	if !ch.dirty && len(ch.gone)+len(ch.changed)+len(ch.doneIDs) == 0 {
		clear(ch.dirtyIDs)
		return
	}
	c := Changes{UID: ch.uid, UserChange: ch.userChange, Gone: ch.gone, Done: ch.doneIDs}
	for id := range ch.dirtyIDs {
		if t := ch.talks[id]; t != nil {
			c.Conversations = append(c.Conversations, SavedConversation{t.Conversation, t.log.have})
		}
	}
	for _, o := range ch.changed {
		c.Outgoing = append(c.Outgoing, o)
	}
	ch.dirty, ch.gone, ch.doneIDs = false, nil, nil
	clear(ch.dirtyIDs)
	clear(ch.changed)
	if err := ch.o.Storage.Save(c); err != nil {
		// The session goes on with what it has in memory.
		ch.storageError(err)
	}
}

func (ch *Chat) forget(id string) {
	t := ch.talks[id]
	delete(ch.strangers, id)
	if t == nil {
		return
	}
	t.markTimer.stop()
	delete(ch.talks, id)
	ch.mu.Lock()
	delete(ch.view, id)
	ch.mu.Unlock()
	ch.gone = append(ch.gone, id)
	if ch.o.OnGone != nil {
		ch.o.OnGone(id)
	}
}

// ---- markers ----

type markParams struct {
	Conversation string `json:"conversation"`
	ReadSeq      int64  `json:"read_seq,omitempty"`
	DeliveredSeq int64  `json:"delivered_seq,omitempty"`
}

// mark tells the server how far this user is.
func (ch *Chat) mark(t *talk) {
	if t.marking || !ch.online() {
		return
	}
	p := markParams{Conversation: t.ID}
	if t.WantRead > t.toldRead {
		p.ReadSeq = t.WantRead
	}
	direct := peerOf(t.ID, ch.uid) != "" && ch.o.DeliveredAfter >= 0
	if direct && !t.markTimer.waiting() && t.log.have > max(t.toldDelivered, t.toldRead, t.WantRead, t.DeliveredSeq) {
		p.DeliveredSeq = t.log.have
	}
	if p.ReadSeq == 0 && p.DeliveredSeq == 0 {
		return
	}
	t.marking = true
	ch.ask("conversation.read", p, frame.OpRequest, func(_ json.RawMessage, err error) {
		t.marking = false
		if ch.talks[t.ID] != t {
			return
		}
		if err != nil {
			if e := asError(err); e.Retry || e.ofToken() {
				if !t.markTimer.waiting() {
					t.markTimer = ch.loop.after(ch.wait(3, e), func() { ch.mark(t) })
				}
				return
			}
		}
		t.toldRead = max(t.toldRead, p.ReadSeq)
		t.toldDelivered = max(t.toldDelivered, p.DeliveredSeq, t.toldRead)
		if t.WantRead > 0 && t.WantRead <= t.toldRead {
			t.WantRead = 0
			ch.update(t)
		}
		ch.mark(t)
	})
}

type marker struct {
	Conversation string `json:"conversation"`
	UID          string `json:"uid"`
	ReadSeq      int64  `json:"read_seq"`
	DeliveredSeq int64  `json:"delivered_seq"`
	ReadMsgNo    *int64 `json:"read_msg_no"`
}

func (ch *Chat) marker(m marker) {
	t := ch.talks[m.Conversation]
	switch {
	case t == nil:
	case m.UID == ch.uid:
		ch.ownRead(t, m.ReadSeq, m.ReadMsgNo)
	case m.UID == peerOf(t.ID, ch.uid):
		read := max(t.PeerReadSeq, m.ReadSeq)
		got := max(t.PeerDeliveredSeq, read, m.DeliveredSeq)
		if read == t.PeerReadSeq && got == t.PeerDeliveredSeq {
			return
		}
		t.PeerReadSeq, t.PeerDeliveredSeq = read, got
		ch.update(t)
		ch.progress(t)
	}
}

// ownRead: another device of the user's has read up to seq.
func (ch *Chat) ownRead(t *talk, seq int64, msgNo *int64) {
	if seq <= t.ReadSeq {
		return
	}
	t.toldRead = max(t.toldRead, seq)
	done := func(no int64) {
		t.read(seq, no)
		ch.update(t)
	}
	switch {
	case msgNo != nil:
		done(*msgNo)
	case seq >= t.LastSeq:
		done(-1)
	default:
		// How many messages there are up to it only the entry tells.
		ch.history(Range{Conversation: t.ID, From: seq, To: seq, Limit: 1}, func(list []Entry, err error) {
			no := int64(-1)
			if err == nil && len(list) > 0 {
				no = list[0].MsgNo
			}
			done(no)
		})
	}
}

// peers asks how far the other side of a direct conversation is.
func (ch *Chat) peers(id string) {
	ch.ask("conversation.members", map[string]string{"conversation": id}, frame.OpRequestUnordered, func(raw json.RawMessage, err error) {
		var page struct {
			Members []marker `json:"members"`
		}
		if err != nil || json.Unmarshal(raw, &page) != nil {
			return
		}
		for _, m := range page.Members {
			if m.UID != ch.uid {
				m.Conversation = id
				ch.marker(m)
			}
		}
	})
}

func (ch *Chat) history(r Range, done func([]Entry, error)) {
	ch.ask("conversation.history", r, frame.OpRequestUnordered, func(raw json.RawMessage, err error) {
		var page entryPage
		if err == nil && json.Unmarshal(raw, &page) != nil {
			err = errorOf(errcode.Internal, "the reply can't be read")
		}
		done(page.Entries, err)
	})
}

func (ch *Chat) wait(attempt int, err *Error) time.Duration {
	var after time.Duration
	if err != nil {
		after = err.RetryAfter
	}
	return ch.Client.o.Backoff.wait(attempt, after, ch.Client.o.Random)
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // It never fails (crypto/rand).
	return hex.EncodeToString(b[:])
}
