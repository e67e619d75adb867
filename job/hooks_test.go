package job_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/job/internal/hook"
	events "github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// TestEventsReachTheirReceiverThroughKafka: two jobs, one database; each event comes, those of a user in order, though one job ends
// in the middle.
func TestEventsReachTheirReceiverThroughKafka(t *testing.T) {
	var mu sync.Mutex
	ids := map[string]int{}
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		ids[r.Header.Get("Webhook-Id")]++
	}))
	defer receiver.Close()
	c := newCluster(t)
	db := store.Default()
	db.DSN = filepath.Join(t.TempDir(), "halley.db")
	cfg := testConfig()
	cfg.Hook = hook.Default()
	cfg.Hook.Endpoints = []string{"a " + receiver.URL + " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw user.online"}
	cfg.Hook.PollInterval, cfg.Hook.RetryMin = ms(50), ms(50)
	var jobs []*running
	for range 2 {
		s, err := store.Open(t.Context(), db, store.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		jobs = append(jobs, c.start(cfg, func(d *job.Deps) { d.Hooks = s }))
		defer jobs[len(jobs)-1].stop()
	}
	const n = 60
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := range n {
		p := events.Presence{Tenant: "default", UID: string(rune('a' + i%7)), Online: true, AtMs: time.Now().UnixMilli(), Mark: time.Duration(i).String()}
		m, err := p.Message()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.prod.Produce(ctx, m); err != nil {
			t.Fatal(err)
		}
		if i == n/2 {
			jobs[0].stop()
		}
	}
	kittest.Eventually(t, patience, func() bool { mu.Lock(); defer mu.Unlock(); return len(ids) == n }, "events missing")
}

// offlineReceiver takes events, and returns its URL and what tells of them.
func offlineReceiver(t *testing.T) (url string, got func() []string) {
	var mu sync.Mutex
	var lines []string
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e struct {
			Type string
			Data struct {
				Conversation string
				Entry        wire.EntryJSON
				Users        []events.OfflineUser
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, fmt.Sprint(e.Type, " ", e.Data.Entry.Seq, " ", e.Data.Entry.From, " ", e.Data.Users))
	}))
	t.Cleanup(receiver.Close)
	return receiver.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(lines)
	}
}

// TestWhomAMessageDoesNotReachIsTold: a message is done when the host's backend is told of it, not before.
func TestWhomAMessageDoesNotReachIsTold(t *testing.T) {
	url, got := offlineReceiver(t)
	c := newChat(t)
	a := startComet(t, c.router, "a")
	a.login(tenant, "ann", conn(1))
	a.login(tenant, "cat", conn(2))
	cfg := testConfig()
	cfg.Hook = hook.Default()
	cfg.Hook.Endpoints = []string{"a " + url + " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw message.offline"}
	cfg.Hook.PollInterval = ms(50)
	r := c.start(cfg, func(d *job.Deps) { d.Hooks = c.store })
	id := conversation.GroupID(tenant, "ann", "c1")
	away := errors.New("away")
	c.store.set(func(call string) error {
		if call == "members" {
			return away
		}
		return nil
	})
	first := c.say(id, "ann", "one")
	c.send(c.people(conversation.Created, id, "ann", "bob", "cat"), first)
	kittest.Eventually(t, patience, func() bool { return c.store.count("members") > 1 }, "not asked for members")
	if n := c.committed(topic.Chat); n > 1 {
		t.Errorf("%d records are done, the message among them", n)
	}
	c.store.set(nil)
	kittest.Eventually(t, patience, func() bool { return len(got()) == 1 }, "first")
	if _, err := c.store.PutUserChanges(t.Context(), []store.UserChange{{Tenant: tenant, UID: "bob", Kind: store.ChangeMute, Object: id, Guard: 1, Value: []byte(`{"on":true}`)}}); err != nil {
		t.Fatal(err)
	}
	old := c.say(id, "cat", "of last year")
	old.Imported = true
	c.send(old)
	second := c.say(id, "cat", "two")
	second.Detail.Mentions = []string{"bob"}
	c.send(second)
	kittest.Eventually(t, patience, func() bool { return len(got()) == 2 }, "second")
	// Who has read it isn't told again, who sent it never, and who is there neither.
	c.send(c.propose(conversation.Marker, id, "bob", func(p *conversation.Proposal) { p.ReadSeq = 4 }), first, second, c.say(id, "bob", "three"))
	c.waitCommitted(topic.Chat, 8)
	want := []string{"message.offline 2 ann [{bob 1 false false}]", "message.offline 4 cat [{bob 3 true true}]"}
	if n := r.count("hook_events_total"); n != 2 {
		t.Errorf("%v events, want 2", n)
	}
	if lines := got(); !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
}

// TestWhomAMessageDoesNotReachIsToldUntilTheGroupHasItsRoom: while members are being put into it they are still looked up one by one.
func TestWhomAMessageDoesNotReachIsToldUntilTheGroupHasItsRoom(t *testing.T) {
	url, got := offlineReceiver(t)
	l := newLarge(t, 3)
	cfg := largeConfig()
	cfg.ChatLarge = 4
	cfg.Hook = hook.Default()
	cfg.Hook.Endpoints = []string{"a " + url + " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw message.offline"}
	cfg.Hook.PollInterval = ms(50)
	r := l.start(cfg, func(d *job.Deps) { d.Hooks = l.store })
	ann := l.uids[0]
	l.do(l.people(conversation.Created, l.id, ann, l.uids[1], "away"))
	if f := l.fanout(); f != conversation.FanoutJoining {
		t.Fatalf("fanout is %d", f)
	}
	l.do(l.say(l.id, ann, "one"))
	kittest.Eventually(t, patience, func() bool { return len(got()) == 1 }, "not told")
	if want := "message.offline 2 " + ann + " [{away 1 false false}]"; got()[0] != want {
		t.Errorf("got %q, want %q", got()[0], want)
	}
	l.do(l.people(conversation.Joined, l.id, ann, l.uids[2], "late"))
	deadline := time.Now().Add(patience)
	for l.fanout() != conversation.FanoutRoom {
		if time.Now().After(deadline) {
			t.Fatal("no room")
		}
		l.do(l.say(l.id, ann, "growing"))
	}
	before := r.count("hook_events_total")
	l.do(l.say(l.id, ann, "to the room"))
	if n := r.count("hook_events_total"); n != before {
		t.Errorf("%v events of what goes to a room", n-before)
	}
	if !l.inRoom(ann) {
		t.Error("not in the room")
	}
}
