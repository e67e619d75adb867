package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/halley-im/halley/client"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Phone is a device that calls and is called by script. It says by itself that it has call.incoming, and keeps its legs alive.
type Phone struct {
	UID, Device string

	t      testing.TB
	c      *client.Client
	cancel context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	events []PhoneEvent
	legs   map[string]uint32 // generations by call
	quiet  bool              // says nothing by itself
	inits  int               // sessions begun
	says   sync.WaitGroup    // what it says by itself
}

// PhoneEvent is an event of calls, as a strict client reads it.
type PhoneEvent struct {
	Name string
	*halleyv1.Event
}

// Phone starts a device that prefers one of the comets, and waits until it is connected. more are claims of its token.
func (c *Cluster) Phone(t testing.TB, uid, device string, comet int, more Claims) *Phone {
	t.Helper()
	p := &Phone{UID: uid, Device: device, t: t, legs: map[string]uint32{}, ended: make(chan struct{})}
	claims := Claims{"device": device, "platform": "test"}
	for k, v := range more {
		claims[k] = v
	}
	ready := make(chan struct{}, 16)
	var err error
	p.c, err = client.New(client.Options{
		Where: func(_ context.Context, attempt int) (string, error) {
			return "ws://" + c.Comets[(comet+attempt)%len(c.Comets)].WS + "/sub", nil
		},
		Token:   func(context.Context, client.TokenReason) (string, error) { return c.Token(uid, claims), nil },
		Backoff: client.Backoff{Base: 100 * time.Millisecond, Max: time.Second},
		OnEvent: p.event,
		OnSession: func(client.Session, bool) {
			p.mu.Lock()
			p.inits++
			p.mu.Unlock()
			select {
			case ready <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go func() {
		defer close(p.ended)
		var wg sync.WaitGroup
		wg.Go(func() { p.beat(ctx) })
		_ = p.c.Run(ctx)
		wg.Wait()
	}()
	t.Cleanup(p.Drop)
	select {
	case <-ready:
	case <-time.After(startLimit):
		t.Fatalf("%s does not get connected", uid)
	}
	return p
}

// Drop ends the device without a word, as kill -9 does.
func (p *Phone) Drop() {
	p.cancel()
	<-p.ended
	p.says.Wait()
}

// Sessions is how many it has had.
func (p *Phone) Sessions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inits
}

func (p *Phone) event(name string, body json.RawMessage) {
	if len(name) < 5 || name[:5] != "call." {
		return
	}
	e := &halleyv1.Event{}
	whole, _ := json.Marshal(map[string]json.RawMessage{name: body})
	if err := protojson.Unmarshal(whole, e); err != nil {
		p.t.Errorf("event %s: %v", whole, err)
		return
	}
	p.mu.Lock()
	p.events = append(p.events, PhoneEvent{name, e})
	if id := e.GetCallEnded().GetCall().GetCall(); id != "" {
		delete(p.legs, id)
	}
	quiet := p.quiet
	p.mu.Unlock()
	if id := e.GetCallIncoming().GetCall().GetCall(); id != "" && !quiet {
		// Not on the client's loop, which would wait for itself.
		p.says.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, _ = p.Try(ctx, "call.ringing", map[string]any{"call": id})
		})
	}
}

// beat keeps the legs that it has.
func (p *Phone) beat(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		p.mu.Lock()
		legs := map[string]uint32{}
		for id, g := range p.legs {
			legs[id] = g
		}
		p.mu.Unlock()
		for id, g := range legs {
			_, _ = p.Try(ctx, "call.heartbeat", map[string]any{"call": id, "generation": g})
		}
	}
}

// Raw asks, again and again while that makes sense, and reads the answer as it is.
func (p *Phone) Raw(ctx context.Context, method string, args, into any) error {
	for {
		err := p.c.Request(ctx, method, args, into)
		var told *client.Error
		if !errors.As(err, &told) || !told.Retry || told.Code == "rate_limited" || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Try gives a command, again and again under the same id while that makes sense.
func (p *Phone) Try(ctx context.Context, method string, args map[string]any) (*halleyv1.CallReply, error) {
	if method != "call.invite" && method != "call.heartbeat" && args["command"] == nil {
		args["command"] = uuid.NewString()
	}
	var raw json.RawMessage
	if err := p.Raw(ctx, method, args, &raw); err != nil {
		return nil, err
	}
	r := &halleyv1.CallReply{}
	if err := protojson.Unmarshal(raw, r); err != nil {
		p.t.Errorf("%s: %s: %v", method, raw, err)
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch id := r.GetCall().GetCall(); {
	case method == "call.ringing":
		// The phone says that beside what the test does: its answer may be read after that of an acceptance, and has no leg.
	case method == "call.heartbeat" && p.legs[id] != args["generation"]:
		// Of a leg that it has no more.
	case r.GetCall().GetState() == "ended" || r.GetGeneration() == 0:
		delete(p.legs, id)
	default:
		p.legs[id] = r.GetGeneration()
	}
	return r, nil
}

// Do is Try that must succeed.
func (p *Phone) Do(method, call string, more map[string]any) *halleyv1.CallReply {
	p.t.Helper()
	args := map[string]any{"call": call}
	for k, v := range more {
		args[k] = v
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	r, err := p.Try(ctx, method, args)
	if err != nil {
		p.t.Fatalf("%s: %s: %v", p.UID, method, err)
	}
	return r
}

// Call calls somebody, or with a conversation all in it.
func (p *Phone) Call(conversation string, to ...string) *halleyv1.CallReply {
	p.t.Helper()
	return p.Do("call.invite", uuid.NewString(), map[string]any{"conversation": conversation, "to": to, "media": "video", "sends": map[string]bool{"audio": true}})
}

// Connected says that media flows.
func (p *Phone) Connected(call string) *halleyv1.CallReply {
	p.t.Helper()
	p.mu.Lock()
	g := p.legs[call]
	p.mu.Unlock()
	return p.Do("call.connected", call, map[string]any{"generation": g})
}

// Refused gives a command that must be refused with a code.
func (p *Phone) Refused(method string, args map[string]any, code string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	_, err := p.Try(ctx, method, args)
	var told *client.Error
	if !errors.As(err, &told) || told.Code != code {
		p.t.Errorf("%s: %s: got %v, want %s", p.UID, method, err, code)
	}
}

// Events returns what it was told.
func (p *Phone) Events() []PhoneEvent {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events)
}

// Wait waits for an event.
func (p *Phone) Wait(name string, good func(*halleyv1.Event) bool) *halleyv1.Event {
	p.t.Helper()
	var found *halleyv1.Event
	within(p.t, startLimit, p.UID+" is told "+name, func() (bool, string) {
		var names []string
		for _, e := range p.Events() {
			if e.Name == name && (good == nil || good(e.Event)) {
				found = e.Event
				return true, ""
			}
			names = append(names, e.Name+" "+e.GetCallState().GetCall().GetState()+e.GetCallStop().GetReason()+e.GetCallEnded().GetCall().GetReason())
		}
		return false, "told so far: " + joined(names)
	})
	return found
}

func joined(list []string) string {
	b, _ := json.Marshal(list)
	return string(b)
}

// Incoming waits until it is called, and returns the call.
func (p *Phone) Incoming(call string) *halleyv1.Call {
	p.t.Helper()
	return p.Wait("call.incoming", func(e *halleyv1.Event) bool { return e.GetCallIncoming().GetCall().GetCall() == call }).GetCallIncoming().GetCall()
}

// State waits until the call is in a state.
func (p *Phone) State(call, state string) *halleyv1.Call {
	p.t.Helper()
	return p.Wait("call.state", func(e *halleyv1.Event) bool {
		c := e.GetCallState().GetCall()
		return c.GetCall() == call && c.GetState() == state
	}).GetCallState().GetCall()
}

// End waits for the call's end and checks its reason.
func (p *Phone) End(call, reason string) {
	p.t.Helper()
	c := p.Wait("call.ended", func(e *halleyv1.Event) bool { return e.GetCallEnded().GetCall().GetCall() == call }).GetCallEnded().GetCall()
	if c.GetReason() != reason {
		p.t.Errorf("%s: ended as %s, want %s", p.UID, c.GetReason(), reason)
	}
}

// Stop waits until it must not ring any more.
func (p *Phone) Stop(call, reason string) {
	p.t.Helper()
	p.Wait("call.stop", func(e *halleyv1.Event) bool {
		return e.GetCallStop().GetCall() == call && e.GetCallStop().GetReason() == reason
	})
}

// Leg waits until a leg is as good says.
func (p *Phone) Leg(call string, good func(*halleyv1.CallLeg) bool) {
	p.t.Helper()
	within(p.t, startLimit, p.UID+" sees a leg change", func() (bool, string) {
		for _, e := range p.Events() {
			if l := e.GetCallLeg(); l.GetCall() == call && good(l.GetLeg()) {
				return true, ""
			}
			for _, l := range e.GetCallState().GetCall().GetLegs() {
				if e.GetCallState().GetCall().GetCall() == call && good(l) {
					return true, ""
				}
			}
		}
		return false, ""
	})
}

// Current asks what it is in and what rings.
func (p *Phone) Current() []*halleyv1.CallReply {
	p.t.Helper()
	var raw json.RawMessage
	var err error
	within(p.t, startLimit, "call.current", func() (bool, string) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err = p.Raw(ctx, "call.current", struct{}{}, &raw); err != nil {
			return false, err.Error()
		}
		return true, ""
	})
	now := &halleyv1.CallsNow{}
	if err := protojson.Unmarshal(raw, now); err != nil {
		p.t.Fatal(err)
	}
	return now.GetCalls()
}

// Signal sends a signal to another leg and reports whether it was sent on.
func (p *Phone) Signal(call, to string, toGeneration uint32, more map[string]any) (bool, error) {
	p.mu.Lock()
	args := map[string]any{"call": call, "to": to, "generation": p.legs[call], "to_generation": toGeneration}
	p.mu.Unlock()
	for k, v := range more {
		args[k] = v
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	var r struct {
		Sent bool `json:"sent"`
	}
	err := p.Raw(ctx, "call.signal", args, &r)
	return r.Sent, err
}
