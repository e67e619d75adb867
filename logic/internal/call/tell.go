package call

import (
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
	entry "github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// record makes the Kafka record of an event for targets. It is stored, as far as comet and job are concerned: a session that can't get it is
// told to resync, and asks call.current. ttl 0: it is worth telling for ever.
func record(c *machine.Call, name string, event any, now int64, ttl time.Duration, except []string, targets ...*halleyv1.Target) (kafka.Message, error) {
	rec := &halleyv1.PushRecord{
		Id: uuid.NewString(), Tenant: c.Tenant, Class: halleyv1.Class_CLASS_STORED, Targets: targets, ExcludeKeys: except, AcceptedAtMs: now,
		Content: &halleyv1.PushRecord_Push{Push: &halleyv1.Push{Op: int32(frame.OpEvent), Body: encode(map[string]any{name: event})}},
	}
	if ttl > 0 {
		rec.ExpiresAtMs = now + ttl.Milliseconds()
	}
	value, err := proto.Marshal(rec)
	if err != nil {
		return kafka.Message{}, fmt.Errorf("encode %s: %w", name, err)
	}
	return kafka.Message{Topic: topic.Urgent, Key: topic.CallKey(c.Tenant, c.ID), Value: value}, nil
}

func uids(list []string) []*halleyv1.Target {
	out := make([]*halleyv1.Target, len(list))
	for i, uid := range list {
		out[i] = push.UIDTarget(uid)
	}
	return out
}

// telling gathers the records of one step.
type telling struct {
	s    *Service
	c    *machine.Call
	now  int64
	out  []kafka.Message
	errs error
}

func (t *telling) add(m kafka.Message, err error) {
	if err != nil {
		t.errs = err
		return
	}
	t.out = append(t.out, m)
}

func (t *telling) event(name string, v any, ttl time.Duration, except []string, to ...*halleyv1.Target) {
	if len(to) > 0 {
		t.add(record(t.c, name, v, t.now, ttl, except, to...))
	}
}

// tell returns the records of what a step has to tell of c, the call after it.
func (s *Service) tell(c *machine.Call, st *machine.Step, now int64) ([]kafka.Message, error) {
	t := &telling{s: s, c: c, now: now}
	if len(st.Incoming) > 0 {
		t.event("call.incoming", incomingJSON{viewOf(c), now, c.Resumed}, time.Duration(c.RingUntil-now)*time.Millisecond, nil, uids(st.Incoming)...)
	}
	for _, stop := range st.Stops {
		to, except := push.UIDTarget(stop.UID), []string(nil)
		switch {
		case stop.Only != "":
			to = push.KeyTarget(stop.Only)
		case stop.Except != "":
			except = []string{stop.Except}
		}
		t.event("call.stop", stopJSON{c.ID, c.Version, stop.Reason}, 0, except, to)
	}
	switch {
	case st.Ended:
		t.event("call.ended", changedJSON{viewOf(c), now}, 0, nil, uids(st.Audience)...)
	case st.Told && st.State:
		t.event("call.state", changedJSON{viewOf(c), now}, 0, nil, uids(st.Audience)...)
	case st.Told && st.Leg != nil:
		t.event("call.leg", legJSON{c.ID, c.Version, legView(st.Leg), now}, 0, nil, uids(st.Audience)...)
	}
	t.hooks(st)
	if st.Ended {
		t.entry()
	}
	return t.out, t.errs
}

// hookData is what webhooks are told.
type hookData struct {
	Call         string        `json:"call"`
	Conversation string        `json:"conversation,omitempty"`
	Kind         string        `json:"kind,omitempty"`
	Media        string        `json:"media,omitempty"`
	Caller       string        `json:"caller,omitempty"`
	UIDs         []string      `json:"uids,omitempty"`
	RingUntil    int64         `json:"ring_until,omitempty"`
	State        machine.State `json:"state,omitempty"`
	Reason       string        `json:"reason,omitempty"`
	Version      int64         `json:"version"`
	Legs         []hookLeg     `json:"legs,omitempty"`
	DurationMs   *int64        `json:"duration_ms,omitempty"`
}

type hookLeg struct {
	UID   string           `json:"uid"`
	State machine.LegState `json:"state"`
}

func (t *telling) hook(kind string, d hookData, mark ...string) {
	c := t.c
	d.Call, d.Version = c.ID, c.Version
	h := hook.Call{
		Type: kind, Tenant: c.Tenant, Call: c.ID, AtMs: t.now, Data: encode(d), Mark: append([]string{strconv.FormatInt(c.Version, 10)}, mark...),
	}
	t.add(h.Message())
}

func (t *telling) hooks(st *machine.Step) {
	c := t.c
	whole := hookData{Conversation: c.Conversation, Kind: c.Kind, Media: c.Media, Caller: c.Caller}
	if len(st.Wake) > 0 {
		d := whole
		d.UIDs, d.RingUntil = st.Wake, c.RingUntil
		t.hook(hook.CallIncoming, d, st.Wake...)
	}
	over := map[string][]string{}
	for _, u := range st.Unwake {
		over[u.Reason] = append(over[u.Reason], u.UID)
	}
	for reason, list := range over {
		t.hook(hook.CallStop, hookData{UIDs: list, Reason: reason}, append([]string{reason}, list...)...)
	}
	if !t.s.cfg.Hooks || !st.StateChanged && c.Version > 1 {
		return
	}
	whole.State = c.State
	for _, l := range c.Legs {
		whole.Legs = append(whole.Legs, hookLeg{l.UID, l.State})
	}
	kind := hook.CallState
	if st.Ended {
		ms := c.Duration().Milliseconds()
		kind, whole.Reason, whole.DurationMs = hook.CallEnded, string(c.Reason), &ms
	}
	t.hook(kind, whole)
}

// entryBody is the message that an ended call leaves in its conversation.
type entryBody struct {
	Text string    `json:"text"`
	Call entryCall `json:"call"`
}

type entryCall struct {
	Call     string         `json:"call"`
	Media    string         `json:"media"`
	Kind     string         `json:"kind"`
	Outcome  string         `json:"outcome"`
	Reason   machine.Reason `json:"reason"`
	Duration int64          `json:"duration_ms"`
	UIDs     []string       `json:"uids"`
}

// mostNamed is the most users that such a message names.
const mostNamed = 32

// outcome says in a word how a call went.
func outcome(c *machine.Call) (word, text string) {
	what := "Call"
	if c.Media == "video" {
		what = "Video call"
	}
	switch {
	case c.Activated > 0:
		return "answered", what
	case c.Reason == machine.Declined:
		return "declined", what + " declined"
	case c.Reason == machine.Busy:
		return "busy", what + ": busy"
	case c.Reason == machine.NoAnswer, c.Reason == machine.Cancelled, c.Reason == machine.Unreachable:
		return "missed", "Missed " + map[bool]string{true: "video call", false: "call"}[c.Media == "video"]
	}
	return "failed", what + " failed"
}

// entry proposes the call's message. It is the same proposal whenever it is made: the judge keeps one.
func (t *telling) entry() {
	c := t.c
	if t.s.d.Entries == nil || c.Conversation == "" {
		return
	}
	// A call of two that others were asked into keeps its conversation: what its other party mustn't hear of he mustn't read there either.
	if entry.TypeOf(c.Conversation) == entry.Direct && c.Silent(entry.Parties(c.Conversation)) {
		return
	}
	word, text := outcome(c)
	e := entryCall{Call: c.ID, Media: c.Media, Kind: c.Kind, Outcome: word, Reason: c.Reason, Duration: c.Duration().Milliseconds()}
	for _, l := range c.Legs {
		if len(e.UIDs) < mostNamed && !l.Silent {
			e.UIDs = append(e.UIDs, l.UID)
		}
	}
	p := entry.Proposal{
		Tenant: c.Tenant, Conversation: c.Conversation, Kind: entry.Message, Sender: c.Caller, ClientMsgID: "call:" + c.ID, AcceptedAtMs: t.now,
		Body: encode(entryBody{text, e}),
	}
	if err := p.Check(t.s.d.Entries); err != nil {
		t.errs = fmt.Errorf("entry of a call: %w", err)
		return
	}
	value, err := proto.Marshal(wire.RecordOf(&p, false))
	t.add(kafka.Message{Topic: topic.Chat, Key: topic.ConversationKey(c.Tenant, c.Conversation), Value: value}, err)
}
