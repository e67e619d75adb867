package call

import (
	"bytes"
	"encoding/json"

	"github.com/halley-im/halley/logic/internal/call/machine"
)

// The JSON of halley/v1/client.proto's calls; a test of package rpc reads it as a strict client would.

// View is a halleyv1.Call.
type View struct {
	Call         string         `json:"call"`
	Version      int64          `json:"version"`
	Kind         string         `json:"kind"`
	Mode         string         `json:"mode"`
	Media        string         `json:"media"`
	Conversation string         `json:"conversation,omitempty"`
	Caller       string         `json:"caller"`
	State        machine.State  `json:"state"`
	Reason       machine.Reason `json:"reason,omitempty"`
	Legs         []LegView      `json:"legs"`
	CreatedAt    int64          `json:"created_at"`
	ActiveAt     int64          `json:"active_at,omitempty"`
	EndedAt      int64          `json:"ended_at,omitempty"`
	RingUntil    int64          `json:"ring_until,omitempty"`
	EndsAt       int64          `json:"ends_at,omitempty"`
	Ending       bool           `json:"ending,omitempty"`
	Limit        int            `json:"limit"`
}

// LegView is a halleyv1.CallLeg.
type LegView struct {
	UID        string           `json:"uid"`
	State      machine.LegState `json:"state"`
	Reason     string           `json:"reason,omitempty"`
	Device     string           `json:"device,omitempty"`
	Platform   string           `json:"platform,omitempty"`
	Generation uint32           `json:"generation,omitempty"`
	Order      uint32           `json:"order,omitempty"`
	Sends      machine.Sends    `json:"sends"`
	JoinedAt   int64            `json:"joined_at,omitempty"`
	LeftAt     int64            `json:"left_at,omitempty"`
}

func legView(l *machine.Leg) LegView {
	return LegView{
		UID: l.UID, State: l.State, Reason: l.Reason, Device: l.Device, Platform: l.Platform, Generation: l.Generation, Order: l.Order, Sends: l.Sends,
		JoinedAt: l.Joined, LeftAt: l.Left,
	}
}

func viewOf(c *machine.Call) View {
	v := View{
		Call: c.ID, Version: c.Version, Kind: c.Kind, Mode: "mesh", Media: c.Media, Conversation: c.Conversation, Caller: c.Caller, State: c.State,
		Reason: c.Reason, CreatedAt: c.Created, ActiveAt: c.Activated, EndedAt: c.EndedAt, RingUntil: c.RingUntil, EndsAt: c.EndsAt, Ending: c.Ending,
		Limit: c.Limit, Legs: make([]LegView, len(c.Legs)),
	}
	for i, l := range c.Legs {
		v.Legs[i] = legView(l)
	}
	return v
}

// Reply is a halleyv1.CallReply.
type Reply struct {
	Call       View   `json:"call"`
	Generation uint32 `json:"generation,omitempty"`
	ServerTime int64  `json:"server_time"`
	Rings      bool   `json:"rings,omitempty"`
}

// replyTo returns what a session is answered about a call.
func replyTo(c *machine.Call, who machine.Who, now int64) *Reply {
	r := &Reply{Call: viewOf(c), ServerTime: now}
	if l := c.Leg(who.UID); l != nil && !l.Silent {
		if l.Holds(who.Session) {
			r.Generation = l.Generation
		}
		r.Rings = c.Live() && l.Asked()
	}
	return r
}

// Calls is a halleyv1.CallsNow.
type Calls struct {
	Calls []*Reply `json:"calls"`
}

type incomingJSON struct {
	Call       View  `json:"call"`
	ServerTime int64 `json:"server_time"`
	Resumed    bool  `json:"resumed,omitempty"`
}

type changedJSON struct {
	Call       View  `json:"call"`
	ServerTime int64 `json:"server_time"`
}

type legJSON struct {
	Call       string  `json:"call"`
	Version    int64   `json:"version"`
	Leg        LegView `json:"leg"`
	ServerTime int64   `json:"server_time"`
}

type stopJSON struct {
	Call    string `json:"call"`
	Version int64  `json:"version"`
	Reason  string `json:"reason"`
}

// Description is a halleyv1.CallDescription.
type Description struct {
	Type string `json:"type"`
	SDP  string `json:"sdp"`
}

// Candidate is a halleyv1.CallCandidate.
type Candidate struct {
	Candidate        string  `json:"candidate"`
	SDPMid           *string `json:"sdpMid,omitempty"`
	SDPMLineIndex    *uint32 `json:"sdpMLineIndex,omitempty"`
	UsernameFragment *string `json:"usernameFragment,omitempty"`
}

type signalJSON struct {
	Call         string       `json:"call"`
	From         string       `json:"from"`
	Generation   uint32       `json:"generation"`
	ToGeneration uint32       `json:"to_generation"`
	Negotiation  uint32       `json:"negotiation,omitempty"`
	Description  *Description `json:"description,omitempty"`
	Candidates   []Candidate  `json:"candidates,omitempty"`
	Done         bool         `json:"done,omitempty"`
}

// encode returns the JSON of v, which is one of the types above: none of them can fail.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
