package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
)

// nowhere is the id of a group that nobody has made.
const nowhere = "g/00000000-0000-7000-8000-000000000000"

// refused makes a request that must fail and returns how.
func (p *Talker) refused(t testing.TB, method string, params any) *client.Error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), talkTime)
	defer cancel()
	err := p.Request(ctx, method, params, nil)
	var e *client.Error
	if !errors.As(err, &e) {
		t.Fatalf("%s of %s: got %v, want a code", method, p.UID, err)
	}
	return e
}

// with returns params with what more sets; nil leaves one out.
func with(params, more map[string]any) map[string]any {
	maps.Copy(params, more)
	maps.DeleteFunc(params, func(_ string, v any) bool { return v == nil })
	return params
}

// testChatCodes has clients by TCP and WebSocket and a backend do what must not be done: each is told the same stable code.
func testChatCodes(t *testing.T, c *Cluster) {
	api := c.API()
	// One by TCP, one by WebSocket.
	ann, eve := c.Talker(t, "c-ann", 0, nil), c.Talker(t, "c-eve", 2, nil)
	ann.online(t)
	eve.online(t)
	direct := client.DirectID("c-ann", "c-eve")
	ann.Says(t, direct, "hello")
	group := ann.Does(t, "group.create", map[string]any{"title": "codes", "members": []string{"c-eve", "c-bob"}}).Conversation
	closed := ann.Does(t, "group.create", map[string]any{"title": "mine", "members": []string{"c-bob"}}).Conversation
	api.Must(t, 200, "POST", conversationPath(group)+"/members/mute", map[string]any{
		"members": []string{"c-eve"}, "until": time.Now().Add(time.Hour).UnixMilli(),
	}, nil)
	over := ann.Does(t, "group.create", map[string]any{"title": "over", "members": []string{"c-eve"}}).Conversation
	api.Must(t, 200, "POST", conversationPath(over)+"/dissolve", map[string]any{}, nil)
	api.Must(t, 200, "PUT", "/v1/users/c-bob/blocks/c-eve", nil, nil)
	within(t, talkTime, "the block is stored", func() (bool, string) {
		got := api.Must(t, 200, "GET", "/v1/users/c-bob/blocks", nil, nil)
		return strings.Contains(string(got.Body), "c-eve"), string(got.Body)
	})

	large := strings.Repeat("x", 33<<10)
	for _, x := range []struct {
		what, code string
		status     int
		to         string
		more       map[string]any
		// judged: job says so, a client hears of it by message.rejected.
		judged bool
	}{
		{what: "unknown group", to: nowhere, code: "not_found", status: 404},
		{what: "group of others", to: closed, code: "not_member", status: 403},
		{what: "conversation of others", to: client.DirectID("c-ann", "c-bob"), code: "not_member", status: 403},
		{what: "no id", to: "x/1", code: "invalid_request", status: 400},
		{what: "too large", to: direct, more: map[string]any{"body": large}, code: "too_large", status: 413},
		{what: "no body", to: direct, more: map[string]any{"body": nil}, code: "invalid_request", status: 400},
		{what: "client_msg_id too long", to: direct, more: map[string]any{"client_msg_id": strings.Repeat("i", 65)}, code: "invalid_request", status: 400},
		{what: "blocked", to: client.DirectID("c-bob", "c-eve"), code: "blocked", status: 403},
		{what: "muted", to: group, code: "muted", status: 403, judged: true},
		{what: "dissolved", to: over, code: "dissolved", status: 410, judged: true},
	} {
		t.Run(x.what, func(t *testing.T) {
			// By a client.
			params := with(map[string]any{"conversation": x.to, "client_msg_id": "by client", "body": "no"}, x.more)
			if x.judged {
				id, err := eve.Send(x.to, "no", client.SendOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if o := eve.settled(t, id, talkTime); o.Stage != client.Failed || o.Err.Code != x.code || o.Err.Retry {
					t.Errorf("client: got %s, %v; want %s", o.Stage, o.Err, x.code)
				}
			} else if e := eve.refused(t, "message.send", params); e.Code != x.code || e.Retry {
				t.Errorf("client: got %v, want %s", e, x.code)
			}
			// By a backend in the user's name.
			params = with(map[string]any{"from": "c-eve", "client_msg_id": "by backend", "body": "no"}, x.more)
			for range 2 { // a repeat gets the same
				got, err := api.Do(t.Context(), "POST", conversationPath(x.to)+"/messages", nil, params)
				if err != nil || got.Status != x.status || got.Problem().Code != x.code {
					t.Errorf("backend: got %v, %v; want HTTP %d %s", got, err, x.status, x.code)
				}
			}
		})
	}

	t.Run("reading what is not one's own", func(t *testing.T) {
		for to, code := range map[string]string{nowhere: "not_found", closed: "not_member", client.DirectID("c-ann", "c-bob"): "not_member"} {
			for _, method := range []string{"conversation.history", "conversation.get", "conversation.members", "conversation.pinned"} {
				if e := eve.refused(t, method, map[string]any{"conversation": to}); e.Code != code {
					t.Errorf("%s of %s: got %v, want %s", method, to, e, code)
				}
			}
			got, err := api.Do(t.Context(), "GET", conversationPath(to)+"/entries?uid=c-eve", nil, nil)
			if err != nil || got.Problem().Code != code {
				t.Errorf("backend, entries of %s: got %v, %v; want %s", to, got, err, code)
			}
		}
	})

	t.Run("conflict", func(t *testing.T) {
		id, err := ann.Send(direct, "first", client.SendOptions{})
		if err != nil {
			t.Fatal(err)
		}
		first := ann.settled(t, id, talkTime)
		for body, want := range map[string]int{"first": 200, "second": 409} {
			got, err := api.Do(t.Context(), "POST", conversationPath(direct)+"/messages", nil, map[string]any{"from": "c-ann", "client_msg_id": id, "body": body})
			if err != nil || got.Status != want || want == 409 && got.Problem().Code != "conflict" {
				t.Errorf("body %q again: got %v, %v; want HTTP %d", body, got, err, want)
			}
		}
		// A client's own, twice with different words.
		p := NewTalker(t, "c-ann", c.Token("c-ann", nil), 0, "ws://"+c.Comets[1].WS+"/sub")
		p.online(t)
		ctx, cancel := context.WithTimeout(t.Context(), talkTime)
		defer cancel()
		if err := p.Request(ctx, "message.send", map[string]any{"conversation": direct, "client_msg_id": id, "body": "third"}, nil); err != nil {
			t.Fatal(err)
		}
		within(t, talkTime, "the client is told of the conflict", func() (bool, string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.rejected[id] == "conflict", fmt.Sprint(p.rejected)
		})
		all := api.Entries(t, direct)
		if e := all[first.Seq-1]; string(e.Body) != `"first"` {
			t.Errorf("stored is %s", e.Body)
		}
	})

	t.Run("rate", func(t *testing.T) {
		fast := c.Talker(t, "c-fast", 1, nil)
		fast.online(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		// Some side by side: one after the other is no faster than the rate, on a machine that is slow.
		var asked, passed atomic.Int64
		var limited atomic.Pointer[client.Error]
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				for limited.Load() == nil {
					// What the rate lets through is refused for another reason, so that nothing is stored.
					err := fast.Request(ctx, "message.send", map[string]any{"conversation": nowhere, "client_msg_id": fmt.Sprint(asked.Add(1)), "body": "no"}, nil)
					var e *client.Error
					switch {
					case errors.As(err, &e) && e.Code == "rate_limited":
						limited.Store(e)
					case errors.As(err, &e) && e.Code == "not_found":
						passed.Add(1)
					default:
						t.Errorf("after %d: %v", passed.Load(), err)
						return
					}
				}
			})
		}
		asking.Wait()
		if e := limited.Load(); e == nil || !e.Retry || e.RetryAfter <= 0 || passed.Load() < 100 {
			t.Errorf("after %d: %+v", passed.Load(), e)
		}
		// Others aren't held up by it.
		ann.Says(t, direct, "quick")
	})
	ann.fine(t)
	eve.fine(t)
}

// testChatTenants has two tenants talk under equal names, ids and devices.
func testChatTenants(t *testing.T, c *Cluster) {
	type side struct {
		name     string
		api      *API
		ann, bob *Talker
		group    string
	}
	direct := client.DirectID("ann", "bob")
	var both []*side
	for i, name := range []string{"red", "blue"} {
		s := &side{name: name, api: c.API().For(name)}
		claims := Claims{"tenant": name, "device": "phone", "key": "same"}
		s.ann, s.bob = c.Talker(t, "ann", i, claims), c.Talker(t, "bob", i+1, Claims{"tenant": name})
		s.ann.online(t)
		s.bob.online(t)
		both = append(both, s)
	}
	for _, s := range both {
		var out struct{ Seq int64 }
		within(t, talkTime, "the outcome is known", func() (bool, string) {
			// 202: not yet, it is to be asked again.
			got, err := s.api.Do(t.Context(), "POST", conversationPath(direct)+"/messages", nil,
				map[string]any{"from": "ann", "client_msg_id": "same", "body": "of " + s.name})
			if err != nil || got.Status != 200 {
				return false, fmt.Sprint(got, err)
			}
			return true, fmt.Sprint(json.Unmarshal(got.Body, &out))
		})
		if out.Seq != 1 {
			t.Errorf("%s: the first message is at %d", s.name, out.Seq)
		}
		s.api.Must(t, 200, "PUT", "/v1/users/ann", map[string]any{"name": "Ann of " + s.name}, nil)
		s.group = s.ann.Does(t, "group.create", map[string]any{"title": s.name, "members": []string{"bob"}}).Conversation
		s.bob.Says(t, s.group, "in the group of "+s.name)
	}
	for i, s := range both {
		other := both[1-i]
		within(t, talkTime, s.name+" has its own", func() (bool, string) {
			return s.bob.upTo(direct) == 1 && s.ann.upTo(s.group) == 2, s.bob.about(direct) + "; " + s.ann.about(s.group)
		})
		for _, p := range []*Talker{s.ann, s.bob} {
			if got := p.Handed(direct); len(got) != 1 || string(got[0].Body) != fmt.Sprintf("%q", "of "+s.name) {
				t.Errorf("%s: %s was handed %v", s.name, p.UID, got)
			}
			if got := p.Handed(other.group); len(got) > 0 || p.upTo(s.group) != 2 {
				t.Errorf("%s: %s was handed %v of the other's group", s.name, p.UID, got)
			}
			p.fine(t)
		}
		if e := s.ann.refused(t, "conversation.history", map[string]any{"conversation": other.group}); e.Code != "not_found" {
			t.Errorf("%s reads the other's group: %v", s.name, e)
		}
		if got, err := s.api.Do(t.Context(), "GET", conversationPath(other.group), nil, nil); err != nil || got.Status != http.StatusNotFound {
			t.Errorf("%s's backend reads the other's group: %v, %v", s.name, got, err)
		}
		var users struct{ Users []struct{ UID, Name string } }
		s.api.Must(t, 200, "GET", "/v1/users?query=ann&limit=20", nil, &users)
		if len(users.Users) != 1 || users.Users[0].Name != "Ann of "+s.name {
			t.Errorf("%s finds %v", s.name, users)
		}
	}
}

// testInbox: a durable push is an entry of each target's inbox, whether he is there or comes later, and once.
func testInbox(t *testing.T, c *Cluster) {
	api := c.API()
	here := c.Talker(t, "i-here", 0, nil)
	here.online(t)
	push := map[string]any{"uids": []string{"i-here", "i-later"}, "durable": true, "json": map[string]any{"order": 7}}
	for range 2 {
		got, err := api.Do(t.Context(), "POST", "/v1/push", http.Header{"Idempotency-Key": {"durable-1"}}, push)
		if err != nil || got.Status != 200 {
			t.Fatalf("durable push: %v, %v", got, err)
		}
	}
	later := c.Talker(t, "i-later", 1, nil)
	for _, p := range []*Talker{here, later} {
		inbox := "i/" + p.UID
		within(t, talkTime, p.UID+" has it", func() (bool, string) { return p.upTo(inbox) == 1, p.about(inbox) })
		got := p.Handed(inbox)
		if len(got) != 1 || !strings.Contains(string(got[0].Body), `"order":7`) || got[0].From != "" {
			t.Errorf("%s was handed %+v", p.UID, got)
		}
		if c, _ := p.Conversation(inbox); c.Unread != 1 {
			t.Errorf("%s has %d unread, want 1", p.UID, c.Unread)
		}
		if e := p.refused(t, "message.send", map[string]any{"conversation": inbox, "client_msg_id": "1", "body": "me"}); e.Code != "forbidden" {
			t.Errorf("%s writes into his inbox: %v", p.UID, e)
		}
		p.fine(t)
	}
	if e := here.refused(t, "conversation.history", map[string]any{"conversation": "i/i-later"}); e.Code != "not_member" {
		t.Errorf("another's inbox: %v", e)
	}
}

// testWebhooks: who was not reached, who comes and who goes arrives at the backend, signed.
func testWebhooks(t *testing.T, c *Cluster, hooks *hookReceiver) {
	ann := c.Talker(t, "w-ann", 0, nil)
	ann.online(t)
	// Nobody of theirs is there, so each is told of.
	for n := 1; n <= 2; n++ {
		seq := ann.Says(t, client.DirectID("w-ann", "w-zoe"), "are you there?")
		got := hooks.await(t, "message.offline", func(d hookData) bool { return d.Conversation == "d/w-ann/w-zoe" && d.Entry.Seq == seq })
		if len(got.Users) != 1 || got.Users[0].UID != "w-zoe" || got.Users[0].Unread != int64(n) || string(got.Entry.Body) != `"are you there?"` {
			t.Errorf("message.offline: %+v", got)
		}
	}
	hooks.await(t, "user.online", func(d hookData) bool { return d.UID == "w-ann" })
	zoe := c.Talker(t, "w-zoe", 1, nil)
	zoe.online(t)
	hooks.await(t, "user.online", func(d hookData) bool { return d.UID == "w-zoe" })
	seq := ann.Says(t, client.DirectID("w-ann", "w-zoe"), "ah!")
	within(t, talkTime, "she has it", func() (bool, string) { return zoe.upTo("d/w-ann/w-zoe") == seq, zoe.about("d/w-ann/w-zoe") })
	zoe.end()
	gone := hooks.await(t, "user.offline", func(d hookData) bool { return d.UID == "w-zoe" })
	if ago := time.Since(time.UnixMilli(gone.LastSeen)); ago < -2*time.Second || ago > time.Minute {
		t.Errorf("last seen %v ago", ago)
	}
	if hooks.any("message.offline", func(d hookData) bool { return d.Conversation == "d/w-ann/w-zoe" && d.Entry.Seq == seq }) {
		t.Error("message.offline of a message that reached her")
	}
	hooks.check(t)
}

// hookSecret signs the webhooks of these tests.
var hookSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("thirty-two bytes for the tests!!"))
