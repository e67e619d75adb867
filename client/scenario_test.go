package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/proto/frame"
)

const scenarios = "../proto/scenarios"

// limit is how long a step may wait, on a machine that does something else for a while, too.
const limit = 20 * time.Second

type scenario struct {
	Name    string           `json:"name"`
	Options map[string]int   `json:"options"`
	Steps   []map[string]any `json:"steps"`
}

// TestScenarios runs proto/scenarios over both transports; what the verbs mean stands in its README.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(scenarios, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var sc scenario
		if err := json.Unmarshal(b, &sc); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, transport := range []string{"ws", "tcp"} {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".json")+"/"+transport, func(t *testing.T) {
				t.Parallel()
				r := &run{
					t: t, s: newScripted(t, transport), storage: &client.Memory{}, options: sc.Options,
					vars: map[string]any{}, names: map[string]*scriptedConn{}, requests: map[string]*asked{},
				}
				r.start()
				defer r.close()
				for i, step := range sc.Steps {
					if err := r.step(step); err != nil {
						b, _ := json.Marshal(step)
						t.Fatalf("step %d %.300s: %v", i+1, b, err)
					}
				}
				if err := r.quiet(50 * time.Millisecond); err != nil {
					t.Fatalf("at the end: %v", err)
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				if len(r.handed) > 0 {
					t.Fatalf("handed over and never named: %v", r.handed)
				}
			})
		}
	}
}

type run struct {
	t        *testing.T
	s        *scripted
	storage  client.Storage
	options  map[string]int
	vars     map[string]any
	names    map[string]*scriptedConn
	newest   *scriptedConn
	requests map[string]*asked
	accepted int

	chat   *client.Chat
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	tokens  int
	handed  []any
	changes []any
	stages  map[string][]string
}

func (r *run) option(name string, otherwise time.Duration) time.Duration {
	if ms, ok := r.options[name]; ok {
		return time.Duration(ms) * time.Millisecond
	}
	return otherwise
}

// start starts the application.
func (r *run) start() {
	note := func(f func()) {
		r.mu.Lock()
		f()
		r.mu.Unlock()
		r.s.changed()
	}
	r.stages = map[string][]string{}
	chat, err := client.NewChat(client.ChatOptions{
		Options: client.Options{
			URL: r.s.url,
			Token: func(context.Context, client.TokenReason) (string, error) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.tokens++
				return fmt.Sprintf("token-%d", r.tokens), nil
			},
			Backoff:        client.Backoff{Base: 20 * time.Millisecond, Max: 40 * time.Millisecond},
			RequestTimeout: r.option("request_timeout_ms", time.Minute),
		},
		Storage:        r.storage,
		DeliveredAfter: r.option("delivered_after_ms", -1),
		AskEvery:       r.option("ask_every_ms", 5*time.Minute),
		SyncFirst:      r.option("sync_first_ms", time.Minute),
		OnEntries: func(conversation string, entries []client.Entry, reset bool) {
			note(func() {
				for i := range entries {
					m := plain(entries[i]).(map[string]any)
					m["conversation"], m["reset"] = conversation, reset && i == 0
					r.handed = append(r.handed, m)
				}
			})
		},
		OnOutgoing: func(o client.Outgoing) {
			note(func() {
				if all := r.stages[o.ID]; len(all) == 0 || all[len(all)-1] != string(o.Stage) {
					r.stages[o.ID] = append(all, string(o.Stage))
				}
			})
		},
		OnChange:        func(u client.UserChange) { note(func() { r.changes = append(r.changes, plain(u)) }) },
		OnConversations: func([]client.Conversation) { r.s.changed() },
		OnStorageError:  func(err error) { r.t.Errorf("storage: %v", err) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan struct{})
	r.chat, r.cancel, r.ended = chat, cancel, ended
	go func() {
		defer close(ended)
		if err := chat.Run(ctx); err != nil && ctx.Err() == nil {
			r.t.Errorf("Run: %v", err)
		}
	}()
}

func (r *run) close() {
	r.cancel()
	<-r.ended
}

// plain is v as JSON has it.
func plain(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // Types of this package's own.
	}
	var out any
	_ = json.Unmarshal(b, &out)
	return out
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func number(v any) int {
	n, _ := v.(float64)
	return int(n)
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func (r *run) step(step map[string]any) error {
	as := text(step["as"])
	sent := func(id string, err error) error {
		r.vars[as] = id
		return err
	}
	switch {
	case step["accept"] != nil:
		return r.accept(step, object(step["accept"]))
	case step["online"] != nil:
		if err := r.accept(step, object(step["reply_fields"])); err != nil {
			return err
		}
		a, err := r.expect(map[string]any{"sync": orEmpty(step["have"])}, frame.OpRequestUnordered, nil)
		if err != nil {
			return err
		}
		a.conn.answer(frame.OpReply, a.seq, map[string]any{"sync": r.filled(step["online"])})
		return nil
	case step["expect"] != nil:
		op := frame.OpRequest
		if n := number(step["op"]); n > 0 {
			op = frame.Op(n)
		}
		var on *scriptedConn
		if name := text(step["on"]); name != "" {
			on = r.names[name]
		}
		a, err := r.expect(step["expect"], op, on)
		r.requests[as] = a
		return err
	case step["reply"] != nil:
		a := r.requests[text(step["to"])]
		if a == nil {
			return fmt.Errorf("no request %v", step["to"])
		}
		a.conn.answer(frame.OpReply, a.seq, r.filled(step["reply"]))
		return nil
	case step["event"] != nil:
		events, many := step["event"].([]any)
		if !many {
			events = []any{step["event"]}
		}
		var cut []int
		if list, ok := step["cut"].([]any); ok {
			for _, at := range list {
				cut = append(cut, number(at))
			}
		}
		filled, _ := r.filled(events).([]any)
		r.on(step).events(filled, cut)
		return nil
	case step["drop"] != nil:
		r.on(step).drop()
		return nil
	case step["close"] != nil:
		r.on(step).end(number(step["close"]))
		return nil
	case step["quiet"] != nil:
		return r.quiet(time.Duration(number(step["quiet"])) * time.Millisecond)
	case step["send"] != nil:
		m := object(step["send"])
		return sent(r.chat.Send(text(m["conversation"]), m["body"], client.SendOptions{}))
	case step["edit"] != nil:
		m := object(step["edit"])
		return sent(r.chat.Edit(text(m["conversation"]), int64(number(m["seq"])), m["body"]))
	case step["change"] != nil:
		m := object(step["change"])
		return sent(r.chat.Change(text(m["method"]), m["params"]))
	case step["read"] != nil:
		r.chat.MarkRead(text(step["read"]), nil)
		return nil
	case step["open"] != nil:
		r.chat.Open(text(step["open"]))
		return nil
	case step["reload"] != nil:
		r.close()
		r.start()
		return nil
	}
	return r.look(step)
}

// look are the verbs that look at the application.
func (r *run) look(step map[string]any) error {
	switch {
	case step["handed"] != nil:
		return r.same(step["handed"].([]any), &r.handed, "conversation")
	case step["changes"] != nil:
		return r.same(step["changes"].([]any), &r.changes, "")
	case step["stages"] != nil:
		for name, want := range object(step["stages"]) {
			var list []string
			for _, v := range want.([]any) {
				list = append(list, text(v))
			}
			var got []string
			ok := r.s.until(limit, func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				got = slices.Clone(r.stages[text(r.vars[name])])
				return slices.Equal(essential(got), essential(list))
			})
			if !ok {
				return fmt.Errorf("%s has the stages %v, want %v", name, got, list)
			}
		}
		return nil
	case step["conversation"] != nil:
		want := object(step["conversation"])
		var got any
		ok := r.s.until(limit, func() bool {
			c, there := r.chat.Conversation(text(want["id"]))
			got = plain(c)
			return there && r.match(want, got)
		})
		if !ok {
			return fmt.Errorf("the conversation is %v", got)
		}
		return nil
	case step["settings"] != nil:
		for kind, want := range object(step["settings"]) {
			if !r.s.until(limit, func() bool { return r.match(want, plain(r.chat.Settings(kind))) }) {
				return fmt.Errorf("%s is %s", kind, r.chat.Settings(kind))
			}
		}
		return nil
	case step["gone"] != nil:
		ok := r.s.until(limit, func() bool {
			_, there := r.chat.Conversation(text(step["gone"]))
			return !there
		})
		if !ok {
			return fmt.Errorf("it is there")
		}
		return nil
	}
	return fmt.Errorf("no such verb")
}

// essential: the answer and the outcome may come at once, accepted need not be seen before what follows it.
func essential(stages []string) []string {
	out := slices.Clone(stages)
	for i := len(out) - 2; i >= 0; i-- {
		if out[i] == "accepted" {
			out = slices.Delete(out, i, i+1)
		}
	}
	return out
}

func orEmpty(v any) any {
	if v == nil {
		return map[string]any{}
	}
	return v
}

func (r *run) accept(step, fields map[string]any) error {
	var c *scriptedConn
	ok := r.s.until(limit, func() bool {
		i := slices.IndexFunc(r.s.conns, func(c *scriptedConn) bool { return c.auth != nil && !c.accepted })
		if i >= 0 {
			c = r.s.conns[i]
			c.accepted = true
		}
		return i >= 0
	})
	if !ok {
		return fmt.Errorf("no connection came")
	}
	var auth any
	if err := json.Unmarshal(c.auth.Body, &auth); err != nil {
		return err
	}
	if want := step["auth"]; want != nil && !r.match(want, auth) {
		return fmt.Errorf("the auth frame is %v", auth)
	}
	r.accepted++
	name := text(step["as"])
	if name == "" {
		name = fmt.Sprintf("c%d", r.accepted)
	}
	r.names[name], r.newest = c, c
	now := time.Now().UnixMilli()
	reply := map[string]any{
		"tenant": "default", "uid": "ann", "key": name, "connection": name, "heartbeat": 30, "idle_timeout": 75, "server_time": now,
	}
	fields = maps.Clone(fields)
	if in := number(fields["expires_in_ms"]); in > 0 {
		reply["expires_at"] = now + int64(in)
		delete(fields, "expires_in_ms")
	}
	maps.Copy(reply, fields)
	c.answer(frame.OpAuthReply, c.auth.Seq, reply)
	if reply["error"] != nil {
		c.end(4001)
	}
	return nil
}

func (r *run) expect(want any, op frame.Op, on *scriptedConn) (*asked, error) {
	var found *asked
	ok := r.s.until(limit, func() bool {
		i := slices.IndexFunc(r.s.asked, func(a *asked) bool {
			return a.op == op && (on == nil || a.conn == on) && r.matches(want, a.body)
		})
		if i >= 0 {
			found = r.s.asked[i]
			r.s.asked = slices.Delete(r.s.asked, i, i+1)
		}
		return i >= 0
	})
	if !ok {
		return nil, fmt.Errorf("it did not come; what came is %s", r.came())
	}
	return found, nil
}

func (r *run) came() string {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	var out []string
	for _, a := range r.s.asked {
		b, _ := json.Marshal(a.body)
		out = append(out, fmt.Sprintf("%d %s", a.op, b))
	}
	return strings.Join(out, ", ")
}

// quiet fails if something comes that no step has expected.
func (r *run) quiet(d time.Duration) error {
	if r.s.until(d, func() bool { return len(r.s.asked) > 0 }) {
		return fmt.Errorf("there came %s", r.came())
	}
	return nil
}

// same waits until as many have come as are wanted, and compares; order counts among those with the same key.
func (r *run) same(want []any, all *[]any, key string) error {
	var got []any
	r.s.until(limit, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(*all) < len(want) {
			return false
		}
		got, *all = *all, nil
		return true
	})
	if got == nil && len(want) > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		return fmt.Errorf("got %v", *all)
	}
	of := func(list []any, k any) []any {
		return slices.DeleteFunc(slices.Clone(list), func(v any) bool { return key != "" && object(v)[key] != k })
	}
	for _, v := range append(slices.Clone(want), got...) {
		w, g := of(want, object(v)[key]), of(got, object(v)[key])
		if !slices.EqualFunc(w, g, r.match) {
			return fmt.Errorf("got %v", g)
		}
	}
	return nil
}

func (r *run) on(step map[string]any) *scriptedConn {
	if name := text(step["on"]); name != "" {
		return r.names[name]
	}
	return r.newest
}

// filled puts what variables are bound to in their place.
func (r *run) filled(v any) any {
	switch v := v.(type) {
	case string:
		if bound, ok := r.vars[v]; ok && strings.HasPrefix(v, "$") {
			return bound
		}
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = r.filled(v[i])
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			out[k] = r.filled(x)
		}
		return out
	}
	return v
}

func isEmpty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case float64:
		return v == 0
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// matches is match that binds no variable by what is another request.
func (r *run) matches(want, got any) bool {
	before := maps.Clone(r.vars)
	if r.match(want, got) {
		return true
	}
	r.vars = before
	return false
}

func (r *run) match(want, got any) bool {
	if name, ok := want.(string); ok && strings.HasPrefix(name, "$") {
		bound, ok := r.vars[name]
		if !ok && got != nil {
			r.vars[name] = got
			return true
		}
		return bound == got
	}
	if isEmpty(want) {
		if _, object := want.(map[string]any); !object || isEmpty(got) {
			return isEmpty(got)
		}
	}
	switch want := want.(type) {
	case []any:
		list, ok := got.([]any)
		return ok && slices.EqualFunc(want, list, r.match)
	case map[string]any:
		m, ok := got.(map[string]any)
		if !ok {
			return false
		}
		for k, w := range want {
			if !r.match(w, m[k]) {
				return false
			}
		}
		return true
	}
	return want == got
}
