package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
)

// talker is a person with a client, and what it was handed and told.
type talker struct {
	uid    string
	chat   *client.Chat
	mu     sync.Mutex
	handed map[string][]client.Entry
	stages map[string]client.Stage
	sent   map[string][]string
	groups []string
}

func newTalker(t *testing.T, uid, token string, where func() string) *talker {
	t.Helper()
	p := &talker{uid: uid, handed: map[string][]client.Entry{}, stages: map[string]client.Stage{}, sent: map[string][]string{}}
	chat, err := client.NewChat(client.ChatOptions{
		Options: client.Options{
			Where:   func(context.Context, int) (string, error) { return where(), nil },
			Token:   func(context.Context, client.TokenReason) (string, error) { return token, nil },
			Backoff: client.Backoff{Base: 50 * time.Millisecond, Max: 200 * time.Millisecond},
		},
		OnEntries: func(id string, entries []client.Entry, reset bool) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if reset {
				t.Errorf("%s: reset of %s", uid, id)
			}
			p.handed[id] = append(p.handed[id], entries...)
		},
		OnOutgoing: func(o client.Outgoing) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.stages[o.ID] = o.Stage
			if o.Method == "group.create" && o.Stage == client.Stored {
				p.groups = append(p.groups, o.Conversation)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.chat = chat
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := chat.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", uid, err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return p
}

// say sends n more messages, one every few milliseconds.
func (p *talker) say(t *testing.T, conversation string, n int) {
	p.mu.Lock()
	first := len(p.sent[conversation])
	p.mu.Unlock()
	for i := first; i < first+n; i++ {
		id, err := p.chat.Send(conversation, fmt.Sprintf("%s %d", p.uid, i), client.SendOptions{})
		if err != nil {
			t.Error(err)
		}
		p.mu.Lock()
		p.sent[conversation] = append(p.sent[conversation], id)
		p.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
}

// open returns what has no outcome yet.
func (p *talker) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, ids := range p.sent {
		for _, id := range ids {
			if s := p.stages[id]; s == "" || s == client.Sending || s == client.Accepted {
				n++
			}
		}
	}
	return n
}

func (p *talker) has(conversation string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.handed[conversation])
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestConversationsLoseNothingWhenHalleyAllIsKilled(t *testing.T) {
	dir := t.TempDir()
	i := startAll(t, dir)
	var mu sync.Mutex
	url := "ws://" + i.ws + "/sub"
	where := func() string {
		mu.Lock()
		defer mu.Unlock()
		return url
	}
	var people []*talker
	for _, uid := range []string{"ann", "bob", "cy"} {
		people = append(people, newTalker(t, uid, i.mustTool("token", "--uid", uid), where))
	}
	ann, bob, cy := people[0], people[1], people[2]
	if _, err := ann.chat.Change("group.create", map[string]any{"title": "Tea", "members": []string{"bob", "cy"}}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the group is there", func() bool {
		ann.mu.Lock()
		defer ann.mu.Unlock()
		return len(ann.groups) == 1
	})
	group, direct := ann.groups[0], client.DirectID("ann", "bob")
	waitFor(t, "all know the group", func() bool { return ann.has(group) == 1 && bob.has(group) == 1 && cy.has(group) == 1 })

	// And the direct one: of a conversation that a device has never heard of it gets the newest entries only, by a reset.
	ann.say(t, direct, 1)
	waitFor(t, "both know the direct conversation", func() bool { return ann.has(direct) == 1 && bob.has(direct) == 1 })

	const each = 120
	var talking sync.WaitGroup
	for _, p := range people {
		talking.Go(func() { p.say(t, group, each) })
	}
	talking.Go(func() { ann.say(t, direct, each-1) })
	talking.Go(func() { bob.say(t, direct, each) })
	for range 2 {
		time.Sleep(200 * time.Millisecond) // In the middle of it.
		i.signal(syscall.SIGKILL)
		i = startAll(t, dir)
		mu.Lock()
		url = "ws://" + i.ws + "/sub"
		mu.Unlock()
	}
	talking.Wait()
	waitFor(t, "everything has an outcome", func() bool { return ann.open()+bob.open()+cy.open() == 0 })
	for id, members := range map[string][]*talker{group: people, direct: {ann, bob}} {
		want := each * len(members)
		if id == group {
			want++
		}
		waitFor(t, "all entries of "+id, func() bool {
			for _, p := range members {
				if p.has(id) < want {
					return false
				}
			}
			return true
		})
		truth := everything(t, ann, id)
		if len(truth) != want {
			t.Errorf("%s has %d entries, want %d", id, len(truth), want)
		}
		for _, p := range members {
			p.check(t, id, truth)
		}
	}

	// Marks and titles are there after a restart in order.
	list := func() map[string]client.Conversation {
		var page struct{ Conversations []client.Conversation }
		if err := bob.chat.Request(t.Context(), "conversation.list", struct{}{}, &page); err != nil {
			return nil
		}
		out := map[string]client.Conversation{}
		for _, c := range page.Conversations {
			out[c.ID] = c
		}
		return out
	}
	bob.chat.MarkRead(direct, nil)
	waitFor(t, "the mark is stored", func() bool { c, ok := list()[direct]; return ok && c.Unread == 0 })
	ann.say(t, group, 1)
	var before map[string]client.Conversation
	waitFor(t, "bob has something unread", func() bool {
		before = list()
		return before[group].LastSeq == each*3+2 && before[group].Unread > 0
	})
	if before[group].Title != "Tea" {
		t.Errorf("bob's list: %+v", before)
	}
	if code := i.signal(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	i = startAll(t, dir)
	mu.Lock()
	url = "ws://" + i.ws + "/sub"
	mu.Unlock()
	var after map[string]client.Conversation
	waitFor(t, "bob has his list again", func() bool { after = list(); return after != nil })
	if !reflect.DeepEqual(after, before) {
		t.Errorf("bob's list is %+v, was %+v", after, before)
	}
}

// everything reads a conversation from its beginning.
func everything(t *testing.T, p *talker, id string) []client.Entry {
	t.Helper()
	var all []client.Entry
	for {
		page, err := p.chat.History(t.Context(), client.Range{Conversation: id, From: int64(len(all)) + 1, Limit: 200})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
	}
}

// check holds what p was handed, and what he sent, against what is stored.
func (p *talker) check(t *testing.T, id string, truth []client.Entry) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.handed[id]) != len(truth) {
		t.Errorf("%s was handed %d of %d entries", p.uid, len(p.handed[id]), len(truth))
		return
	}
	place := map[string]int64{}
	for i, e := range p.handed[id] {
		if e.Seq != int64(i)+1 || e.ClientMsgID != truth[i].ClientMsgID {
			t.Errorf("%s was handed %d %s in place %d, where %s is", p.uid, e.Seq, e.ClientMsgID, i+1, truth[i].ClientMsgID)
			return
		}
		place[e.From+" "+e.ClientMsgID] = e.Seq
	}
	var last int64
	for n, msg := range p.sent[id] {
		seq := place[p.uid+" "+msg]
		var body string
		if seq > 0 {
			_ = json.Unmarshal(truth[seq-1].Body, &body)
		}
		if seq <= last || body != fmt.Sprintf("%s %d", p.uid, n) {
			t.Errorf("%s: message %d is %q at %d, the one before at %d", p.uid, n, body, seq, last)
		}
		last = seq
	}
}
