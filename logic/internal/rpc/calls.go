package rpc

import (
	"context"
	"encoding/json"

	calls "github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/proto/errcode"
)

var errNoCalls = errcode.UnknownMethod.Errorf("this server has no calls")

// caller is who asks, as calls know him.
func (c *call) caller() (calls.Who, error) {
	if c.s.d.Calls == nil {
		return calls.Who{}, errNoCalls
	}
	g, err := decodeGrants(c.req.GetGrants())
	if err != nil {
		return calls.Who{}, err
	}
	ses := c.session()
	return calls.Who{
		Tenant: ses.GetTenant(),
		Who: machine.Who{
			UID: ses.GetUid(), Session: ses.GetConn().GetId(), Key: ses.GetKey(), Device: ses.GetDeviceId(), Platform: ses.GetPlatform(),
		},
		RelayOnly: c.s.d.Turn.RelayOnly(g.Relay),
	}, nil
}

type inviteArgs struct {
	Call         string        `json:"call"`
	Conversation string        `json:"conversation"`
	To           []string      `json:"to"`
	Media        string        `json:"media"`
	Sends        machine.Sends `json:"sends"`
	Resumed      bool          `json:"resumed"`
}

func invite(ctx context.Context, c *call, a *inviteArgs) (any, error) {
	who, err := c.caller()
	if err != nil {
		return nil, err
	}
	return result(c.s.d.Calls.Invite(ctx, who, &calls.Invitation{
		Call: a.Call, Conversation: a.Conversation, To: a.To, Media: a.Media, Sends: a.Sends, Resumed: a.Resumed,
	}))
}

// callArgs are the arguments of all commands; each has some of them.
type callArgs struct {
	Call       string        `json:"call"`
	Command    string        `json:"command"`
	Sends      machine.Sends `json:"sends"`
	Quiet      bool          `json:"quiet"`
	Take       bool          `json:"take"`
	Reason     string        `json:"reason"`
	Generation uint32        `json:"generation"`
	UIDs       []string      `json:"uids"`
	UID        string        `json:"uid"`
}

// commands makes a run of a method that is a command.
func commands(verb machine.Verb) func(context.Context, *call, json.RawMessage) (any, error) {
	return handle(func(ctx context.Context, c *call, a *callArgs) (any, error) {
		who, err := c.caller()
		if err != nil {
			return nil, err
		}
		cmd := &machine.Command{
			Verb: verb, ID: a.Command, Sends: a.Sends, Quiet: a.Quiet, Take: a.Take, Generation: a.Generation, UID: a.UID, Busy: a.Reason == "busy",
		}
		if verb == machine.DoHeartbeat {
			cmd.ID = ""
		}
		if verb == machine.DoDecline && a.Reason != "" && a.Reason != "busy" && a.Reason != "declined" {
			return nil, errcode.InvalidRequest.Errorf("reason: declined or busy")
		}
		for _, uid := range a.UIDs {
			cmd.Callees = append(cmd.Callees, machine.Callee{UID: uid})
		}
		return result(c.s.d.Calls.Command(ctx, who, a.Call, cmd))
	})
}

type signalArgs struct {
	Call         string             `json:"call"`
	To           string             `json:"to"`
	Generation   uint32             `json:"generation"`
	ToGeneration uint32             `json:"to_generation"`
	Negotiation  uint32             `json:"negotiation"`
	Description  *calls.Description `json:"description"`
	Candidates   []calls.Candidate  `json:"candidates"`
	Done         bool               `json:"done"`
}

type signalled struct {
	Sent bool `json:"sent"`
}

func signal(ctx context.Context, c *call, a *signalArgs) (any, error) {
	who, err := c.caller()
	if err != nil {
		return nil, err
	}
	sent, err := c.s.d.Calls.Signal(ctx, who, &calls.Signal{
		Call: a.Call, To: a.To, Generation: a.Generation, ToGeneration: a.ToGeneration, Negotiation: a.Negotiation, Description: a.Description,
		Candidates: a.Candidates, Done: a.Done,
	})
	if err != nil {
		return nil, err
	}
	return signalled{sent}, nil
}

type statsArgs struct {
	Call       string            `json:"call"`
	Generation uint32            `json:"generation"`
	Peers      []calls.PeerStats `json:"peers"`
}

func callStats(ctx context.Context, c *call, a *statsArgs) (any, error) {
	who, err := c.caller()
	if err != nil {
		return nil, err
	}
	if err := c.s.d.Calls.Stats(ctx, who, a.Call, a.Generation, a.Peers); err != nil {
		return nil, err
	}
	return struct{}{}, nil
}

func currentCalls(ctx context.Context, c *call, a *pageArgs) (any, error) {
	who, err := c.caller()
	if err != nil {
		return nil, err
	}
	return result(c.s.d.Calls.Current(ctx, who, a.Conversation))
}

func iceServers(ctx context.Context, c *call, _ *struct{}) (any, error) {
	who, err := c.caller()
	if err != nil {
		return nil, err
	}
	if err := c.s.d.Calls.Admit(ctx, who); err != nil {
		return nil, err
	}
	return c.s.d.Turn.For(who.UID, who.RelayOnly), nil
}
