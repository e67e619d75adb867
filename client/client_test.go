package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
)

// stand is a scripted server and a client of it that runs.
type stand struct {
	*scripted
	c      *client.Client
	noted  sync.Mutex
	events []string
	pushes []string
	states []client.StateName
	ended  chan error
}

func newStand(t *testing.T, o client.Options) *stand {
	t.Helper()
	s := &stand{scripted: newScripted(t, "ws"), ended: make(chan error, 1)}
	note := func(f func()) {
		s.noted.Lock()
		f()
		s.noted.Unlock()
		s.changed()
	}
	o.URL = s.url
	if o.Token == nil {
		o.Token = func(context.Context, client.TokenReason) (string, error) { return "t", nil }
	}
	o.Backoff = client.Backoff{Base: 10 * time.Millisecond, Max: 20 * time.Millisecond}
	o.OnEvent = func(name string, body json.RawMessage) {
		note(func() { s.events = append(s.events, name+" "+string(body)) })
	}
	o.OnPush = func(op int32, body []byte) {
		note(func() { s.pushes = append(s.pushes, fmt.Sprintf("%d %s", op, body)) })
	}
	o.OnState = func(st client.State) { note(func() { s.states = append(s.states, st.Name) }) }
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.c = c
	ctx, cancel := context.WithCancel(t.Context())
	go func() { s.ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-c.Done()
	})
	return s
}

// connected waits for the n-th connection, answers its log-in and returns it with what it said.
func (s *stand) connected(t *testing.T, n int, reply map[string]any) (*scriptedConn, map[string]any) {
	t.Helper()
	var c *scriptedConn
	if !s.until(limit, func() bool {
		if len(s.conns) < n || s.conns[n-1].auth == nil {
			return false
		}
		c = s.conns[n-1]
		return true
	}) {
		t.Fatalf("connection %d did not come", n)
	}
	var auth map[string]any
	if err := json.Unmarshal(c.auth.Body, &auth); err != nil {
		t.Fatal(err)
	}
	full := map[string]any{"uid": "ann", "connection": fmt.Sprint(n), "heartbeat": 30}
	for k, v := range reply {
		full[k] = v
	}
	c.answer(frame.OpAuthReply, c.auth.Seq, full)
	return c, auth
}

// next returns the next request, by its method.
func (s *stand) next(t *testing.T) (string, map[string]any, *asked) {
	t.Helper()
	var a *asked
	if !s.until(limit, func() bool {
		if len(s.asked) == 0 {
			return false
		}
		a, s.asked = s.asked[0], s.asked[1:]
		return true
	}) {
		t.Fatal("no request came")
	}
	for method, params := range object(a.body) {
		return method, object(params), a
	}
	t.Fatal("an empty request")
	return "", nil, nil
}

// saw waits until the list has so many.
func (s *stand) saw(t *testing.T, list *[]string, n int) []string {
	t.Helper()
	var out []string
	s.until(limit, func() bool {
		s.noted.Lock()
		out = slices.Clone(*list)
		s.noted.Unlock()
		return len(out) >= n
	})
	if len(out) != n {
		t.Fatalf("saw %q, want %d", out, n)
	}
	return out
}

func TestRoomsAreThereAgainAfterAReconnect(t *testing.T) {
	s := newStand(t, client.Options{Rooms: []string{"chat://1", "chat://2"}})
	conn, auth := s.connected(t, 1, map[string]any{"rooms": []string{"chat://1"}})
	if got := fmt.Sprint(auth["rooms"]); got != "[chat://1 chat://2]" {
		t.Errorf("asked for %s", got)
	}
	joined := make(chan error, 1)
	go func() { joined <- s.c.Join(t.Context(), "chat://3") }()
	method, params, a := s.next(t)
	if method != "room.join" || params["room"] != "chat://3" {
		t.Fatalf("got %s %v", method, params)
	}
	a.conn.answer(frame.OpReply, a.seq, map[string]any{"room.join": map[string]any{}})
	if err := <-joined; err != nil {
		t.Fatal(err)
	}
	conn.drop()
	// chat://2 was not given.
	_, auth = s.connected(t, 2, map[string]any{"rooms": []string{"chat://1", "chat://3"}})
	if got := fmt.Sprint(auth["rooms"]); got != "[chat://1 chat://3]" {
		t.Errorf("asked for %s after the reconnect", got)
	}
	if got := object(auth["resume"])["replaces"]; got != "1" {
		t.Errorf("replaces %v, want the connection before", got)
	}
}

func TestWatchesLiveOnAfterAReconnect(t *testing.T) {
	s := newStand(t, client.Options{})
	conn, _ := s.connected(t, 1, nil)
	watched := make(chan error, 1)
	go func() { watched <- s.c.Watch(t.Context(), "bob") }()
	answer := func(online bool) {
		method, params, a := s.next(t)
		if method != "presence.watch" || fmt.Sprint(params["uids"]) != "[bob]" {
			t.Fatalf("got %s %v", method, params)
		}
		a.conn.answer(frame.OpReply, a.seq, map[string]any{"presence.watch": map[string]any{"states": []any{map[string]any{"uid": "bob", "online": online}}}})
	}
	answer(true)
	if err := <-watched; err != nil {
		t.Fatal(err)
	}
	conn.drop()
	s.connected(t, 2, nil)
	answer(false)
	want := []string{`presence {"online":true,"uid":"bob"}`, `presence {"online":false,"uid":"bob"}`}
	if got := s.saw(t, &s.events, 2); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAMessageOfARoomIsToldOnce(t *testing.T) {
	s := newStand(t, client.Options{})
	conn, _ := s.connected(t, 1, nil)
	message := func(id string) any { return map[string]any{"room.message": map[string]any{"id": id}} }
	conn.events([]any{message("1"), message("1"), message("2")}, nil)
	conn.write(frame.Append(nil, frame.Frame{Ver: 1, Op: 1000, Body: []byte("push")}), nil)
	s.saw(t, &s.pushes, 1)
	if got := s.saw(t, &s.events, 2); got[1] != `room.message {"id":"2"}` {
		t.Errorf("got %q", got)
	}
}

func TestARequestIsUnknownWhenTheConnectionBreaks(t *testing.T) {
	s := newStand(t, client.Options{})
	conn, _ := s.connected(t, 1, nil)
	asked := make(chan error, 1)
	go func() { asked <- s.c.Request(t.Context(), "room.send", map[string]any{"room": "chat://1"}, nil) }()
	s.next(t)
	conn.drop()
	if err := <-asked; !errors.Is(err, errcode.Unknown) {
		t.Errorf("got %v, want unknown", err)
	}
}

// What was kept was sent earlier than anything that is sent now, also by who doesn't wait for Run to take it up.
func TestWhatIsSentBeforeRunComesAfterWhatWasKept(t *testing.T) {
	s := &stand{scripted: newScripted(t, "ws")}
	kept := &client.Memory{}
	if err := kept.Add(client.Outgoing{
		ID: "old", Conversation: "d/ann/bob", Method: "message.send", Params: json.RawMessage(`{"conversation":"d/ann/bob","body":1}`), Stage: client.Sending,
	}); err != nil {
		t.Fatal(err)
	}
	chat, err := client.NewChat(client.ChatOptions{
		Options: client.Options{URL: s.url, Token: func(context.Context, client.TokenReason) (string, error) { return "t", nil }}, Storage: kept,
	})
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := chat.Send("d/ann/bob", 2, client.SendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _ = chat.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-chat.Done()
	})
	s.connected(t, 1, nil)
	var sent []string
	for len(sent) < 2 {
		method, params, a := s.next(t)
		if method == "message.send" {
			sent = append(sent, fmt.Sprint(params["client_msg_id"]))
		}
		a.conn.answer(frame.OpReply, a.seq, map[string]any{method: map[string]any{}})
	}
	if want := []string{"old", fresh}; !slices.Equal(sent, want) {
		t.Errorf("sent %q, want %q", sent, want)
	}
}

func TestRunEndsWithWhatMakesComingBackSenseless(t *testing.T) {
	s := newStand(t, client.Options{})
	conn, _ := s.connected(t, 1, nil)
	conn.events([]any{map[string]any{"closing": map[string]any{"error": map[string]any{"code": "kicked", "message": "out"}}}}, nil)
	conn.end(4008)
	select {
	case err := <-s.ended:
		if !errors.Is(err, errcode.Kicked) {
			t.Errorf("got %v, want kicked", err)
		}
	case <-time.After(limit):
		t.Fatal("Run goes on")
	}
	if err := s.c.Request(t.Context(), "room.send", nil, nil); !errors.Is(err, client.ErrClosed) {
		t.Errorf("a request after the end: %v", err)
	}
}

func TestASilentServerIsLeft(t *testing.T) {
	s := newStand(t, client.Options{HeartbeatTimeout: 50 * time.Millisecond})
	s.mu.Lock()
	s.mute = true
	s.mu.Unlock()
	s.connected(t, 1, map[string]any{"heartbeat": 0.05})
	s.connected(t, 2, nil)
}
