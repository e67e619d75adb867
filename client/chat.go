package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
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
	// SyncNamed is how many conversations a question for what is new names at most; who has more asks in parts [3,000, for which a
	// request has room].
	SyncNamed int

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

type settingKey struct{ kind, object string }

func (u *UserChange) key() settingKey { return settingKey{u.Kind, u.Object} }

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
	// settings are the newest user changes of each kind and object.
	settings map[settingKey]UserChange

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
	// open is the group that the user looks at.
	open      string
	askTimer  *timer
	sleepers  sleepers
	pulls     int
	pullQueue []func()

	// What is to be kept and told when the loop runs empty.
	dirty    bool
	dirtyIDs map[string]bool
	dirtySet []UserChange
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
	if o.SyncNamed <= 0 {
		o.SyncNamed = 3000
	}
	ch := &Chat{
		o: o, view: map[string]Conversation{}, settings: map[settingKey]UserChange{}, talks: map[string]*talk{}, strangers: map[string]bool{}, dirtyIDs: map[string]bool{},
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
	// Before anything that may be asked of it: what is sent before Run comes after what was kept.
	ch.loop.post(ch.load)
	return ch, nil
}

// Run takes up what was kept, connects and stays connected until ctx is done or coming back makes no sense: then it returns why.
// It is called once.
func (ch *Chat) Run(ctx context.Context) error { return ch.Client.Run(ctx) }

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
	ch.mu.Lock()
	for _, u := range saved.Changes {
		ch.settings[u.key()] = u
	}
	ch.mu.Unlock()
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

// Settings returns what is the user's alone, of one kind (mute, pin, draft, contact …), by its object.
func (ch *Chat) Settings(kind string) map[string]json.RawMessage {
	ch.mu.RLock()
	defer ch.mu.RUnlock()
	out := map[string]json.RawMessage{}
	for key, u := range ch.settings {
		if key.kind == kind {
			out[key.object] = u.Value
		}
	}
	return out
}

// Open tells which conversation the user looks at, none if empty: markers and typing of a group come to who has it open only.
func (ch *Chat) Open(conversation string) {
	if !strings.HasPrefix(conversation, "g/") {
		conversation = ""
	}
	ch.loop.post(func() {
		if ch.open == conversation {
			return
		}
		ch.open = conversation
		if ch.online() {
			ch.tellOpen()
		}
	})
}

func (ch *Chat) tellOpen() {
	ch.ask("conversation.open", map[string]string{"conversation": ch.open}, frame.OpRequest, func(json.RawMessage, error) {})
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
	if o.Method == "group.leave" && o.Err != nil && o.Err.Code == errcode.NotMember.Name {
		ch.left(o)
		return
	}
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

// left: one's own leaving has no other outcome for who has left than that the conversation is off the list.
func (ch *Chat) left(o Outgoing) {
	ch.outbox.remove(o.ID)
	delete(ch.changed, o.ID)
	ch.doneIDs = append(ch.doneIDs, o.ID)
	o.Stage, o.Err = Stored, nil
	if ch.o.OnOutgoing != nil {
		ch.o.OnOutgoing(o)
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
	c := Changes{UID: ch.uid, UserChange: ch.userChange, Gone: ch.gone, Changes: ch.dirtySet, Done: ch.doneIDs}
	for id := range ch.dirtyIDs {
		if t := ch.talks[id]; t != nil {
			c.Conversations = append(c.Conversations, SavedConversation{t.Conversation, t.log.have})
		}
	}
	for _, o := range ch.changed {
		c.Outgoing = append(c.Outgoing, o)
	}
	ch.dirty, ch.gone, ch.dirtySet, ch.doneIDs = false, nil, nil, nil
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
	for _, it := range ch.outbox.items {
		if it.o.Conversation == id && it.o.Method == "group.leave" {
			ch.left(it.o)
		}
	}
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
