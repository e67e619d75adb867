package rpc_test

import (
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/auth"
	"github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/rpc"
	"github.com/halley-im/halley/logic/internal/turn"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

const someCall = "22222222-2222-4222-8222-222222222222"

// everyCallMethod is one request of each method of calls, as ann makes them one after the other.
func everyCallMethod() []*halleyv1.Request {
	sends := &halleyv1.CallSends{Audio: true, Video: true}
	mid, line := "0", uint32(0)
	return []*halleyv1.Request{
		{Method: &halleyv1.Request_IceServers{IceServers: &halleyv1.IceServers{}}},
		{Method: &halleyv1.Request_CallInvite{CallInvite: &halleyv1.CallInvite{Call: someCall, To: []string{"bob"}, Media: "video", Sends: sends}}},
		{Method: &halleyv1.Request_CallRinging{CallRinging: &halleyv1.CallRinging{Call: someCall, Command: "1", Quiet: true}}},
		{Method: &halleyv1.Request_CallAccept{CallAccept: &halleyv1.CallAccept{Call: someCall, Command: "2", Sends: sends, Take: true}}},
		{Method: &halleyv1.Request_CallDecline{CallDecline: &halleyv1.CallDecline{Call: someCall, Command: "3", Reason: "busy"}}},
		{Method: &halleyv1.Request_CallConnected{CallConnected: &halleyv1.CallConnected{Call: someCall, Command: "4", Generation: 1}}},
		{Method: &halleyv1.Request_CallSignal{CallSignal: &halleyv1.CallSignal{
			Call: someCall, To: "bob", Generation: 1, ToGeneration: 1, Negotiation: 1, Description: &halleyv1.CallDescription{Type: "offer", Sdp: "v=0"},
			Candidates: []*halleyv1.CallCandidate{{Candidate: "candidate:1", SdpMid: &mid, SdpMLineIndex: &line, UsernameFragment: &mid}}, Done: true,
		}}},
		{Method: &halleyv1.Request_CallUpdate{CallUpdate: &halleyv1.CallUpdate{Call: someCall, Command: "5", Sends: &halleyv1.CallSends{Screen: true, Hand: true}}}},
		{Method: &halleyv1.Request_CallAdd{CallAdd: &halleyv1.CallAdd{Call: someCall, Command: "6", Uids: []string{"cy"}}}},
		{Method: &halleyv1.Request_CallRemove{CallRemove: &halleyv1.CallRemove{Call: someCall, Command: "7", Uid: "cy"}}},
		{Method: &halleyv1.Request_CallCurrent{CallCurrent: &halleyv1.CallCurrent{}}},
		{Method: &halleyv1.Request_CallHeartbeat{CallHeartbeat: &halleyv1.CallHeartbeat{Call: someCall, Generation: 1}}},
		{Method: &halleyv1.Request_CallStats{CallStats: &halleyv1.CallStats{Call: someCall, Generation: 1, Peers: []*halleyv1.CallPeerStats{
			{Uid: "bob", Local: "relay", Remote: "host", Protocol: "udp", Loss: .1, JitterMs: 3, RoundTripMs: 20, SentBitrate: 1e6, ReceivedBitrate: 1e6, Frames: 250, FrozenSeconds: .5},
		}}}},
		{Method: &halleyv1.Request_CallLeaving{CallLeaving: &halleyv1.CallLeaving{Call: someCall, Command: "8", Generation: 1}}},
		{Method: &halleyv1.Request_CallCancel{CallCancel: &halleyv1.CallCancel{Call: someCall, Command: "9"}}},
		{Method: &halleyv1.Request_CallHangup{CallHangup: &halleyv1.CallHangup{Call: someCall, Command: "10"}}},
	}
}

// newCallRig is a rig with calls; router knows of nobody's sessions.
func newCallRig(t *testing.T) *rig {
	t.Helper()
	rdb, prefix := kittest.Redis(t)
	var cfg call.Config
	p, err := kong.New(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(nil); err != nil {
		t.Fatal(err)
	}
	cfg.RedisTimeout, cfg.ProduceTimeout = long, long
	return newRig(t, func(_ *rpc.Config, d *rpc.Deps) {
		chat, err := conversation.New(chatConfig(t), conversation.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		router, ok := d.Router.(call.Router)
		if !ok {
			t.Fatal("router lists no sessions")
		}
		if d.Calls, err = call.New(cfg, call.Deps{Redis: rdb, RedisPrefix: prefix, Producer: d.Producer, Router: router, RouterTimeout: long, People: chat}); err != nil {
			t.Fatal(err)
		}
		tcfg := turn.Config{StunURLs: []string{"stun:s.example"}, URLs: []string{"turn:t.example"}, Secret: strings.Repeat("s", 20)}
		if d.Turn, err = turn.New(tcfg, 4*time.Hour, clock); err != nil {
			t.Fatal(err)
		}
	})
}

// Every method of calls in the contract is in the table and goes by op 104; replies and events are what a strict client reads.
func TestMethodsOfCallsAreThoseOfTheContract(t *testing.T) {
	r := newCallRig(t)
	ann := member("ann")
	ann.Op = 104
	for _, m := range everyCallMethod() {
		b := contract(t, m)
		reply, _ := r.ask(ann, b)
		name := m.ProtoReflect().WhichOneof(m.ProtoReflect().Descriptor().Oneofs().Get(0)).Name()
		got := reply.ProtoReflect().WhichOneof(reply.ProtoReflect().Descriptor().Oneofs().Get(0))
		if got == nil || got.Name() != name {
			t.Errorf("%s: got %v", b, reply)
		}
		if name == "call_invite" {
			// Bob answers, so that there is somebody to signal to.
			bob, _ := r.ask(member("bob"), `{"call.accept":{"call":"`+someCall+`","command":"b"}}`)
			if bob.GetCallAccept().GetGeneration() != 1 || bob.GetCallAccept().GetCall().GetState() != "connecting" || bob.GetCallAccept().GetServerTime() == 0 {
				t.Fatalf("bob accepts: %v", bob)
			}
		}
		if name == "call_signal" && !reply.GetCallSignal().GetSent() {
			t.Error("the signal was not sent")
		}
	}
	seen := map[string]bool{}
	for _, rec := range r.kafka.Records(t) {
		if rec.Topic != "halley.urgent" {
			continue
		}
		e := &halleyv1.Event{}
		if err := protojson.Unmarshal(rec.GetPush().GetBody(), e); err != nil {
			t.Errorf("event %s: %v", rec.GetPush().GetBody(), err)
			continue
		}
		seen[string(e.ProtoReflect().WhichOneof(e.ProtoReflect().Descriptor().Oneofs().Get(0)).Name())] = true
	}
	for _, want := range []string{"call_incoming", "call_state", "call_leg", "call_stop", "call_signal", "call_ended"} {
		if !seen[want] {
			t.Errorf("no event %s: %v", want, seen)
		}
	}
}

func TestICEServersFollowTheToken(t *testing.T) {
	r := newCallRig(t)
	plain, _ := r.ask(member("ann"), `{"ice.servers":{}}`)
	if s := plain.GetIceServers(); len(s.GetServers()) != 2 || s.GetRelayOnly() || !s.GetTurn() || s.GetRenewAt() == 0 {
		t.Errorf("got %v", s)
	}
	res := r.connect(body(r.token(auth.Claims{UID: "ann", RelayOnly: true})))
	hidden := member("ann")
	hidden.Grants = res.GetEffects().GetGrants()
	got, _ := r.ask(hidden, `{"ice.servers":{}}`)
	if s := got.GetIceServers(); len(s.GetServers()) != 1 || !s.GetRelayOnly() || s.GetServers()[0].GetCredential() == "" {
		t.Errorf("relays only: %v", s)
	}
}

func TestCallsKeepTheirOpAndTheirPlace(t *testing.T) {
	r := newCallRig(t)
	q := member("ann")
	q.Op = 104
	reply, _ := r.ask(q, `{"room.members":{"room":"a://b"}}`)
	wantCode(t, reply.GetError(), "invalid_request")
	q.Op = 103
	reply, _ = r.ask(q, `{"call.hangup":{"call":"`+someCall+`","command":"1"}}`)
	wantCode(t, reply.GetError(), "invalid_request")
	if reply, _ = r.ask(q, `{"call.current":{}}`); reply.GetCallCurrent() == nil {
		t.Errorf("call.current by op 103: %v", reply)
	}
	q.Op = 100
	reply, _ = r.ask(q, `{"call.hangup":{"call":"`+someCall+`","command":"1"}}`)
	wantCode(t, reply.GetError(), "call_unknown")
	reply, _ = r.ask(q, `{"call.hangup":{"call":"`+someCall+`"}}`)
	wantCode(t, reply.GetError(), "invalid_request")
	reply, _ = newRig(t).ask(member("ann"), `{"call.current":{}}`)
	wantCode(t, reply.GetError(), "unknown_method")
}
