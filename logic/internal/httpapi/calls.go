package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/halley-im/halley/logic/internal/apikey"
	calls "github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/proto/errcode"
)

type (
	callsInput struct {
		UID          string `query:"uid" doc:"Calls that this user was asked to or in. Either uid or conversation, or neither: all."`
		Conversation string `query:"conversation" doc:"Calls of this conversation."`
		State        string `query:"state" enum:"live,ended" doc:"Only those that go on, or that are over."`
		Cursor       string `query:"cursor" doc:"next of the page before."`
		Limit        int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	}
	callsOutput struct {
		Body *calls.Reports
	}
	callInput struct {
		ID string `path:"id" doc:"The call's id."`
	}
	callOutput struct {
		Body *calls.Report
	}
)

func (a *api) registerCalls() {
	tags := []string{"calls"}
	handle(a, route{scope: apikey.Read}, huma.Operation{
		OperationID: "list-calls", Method: http.MethodGet, Path: "/v1/calls", Summary: "List calls", Tags: tags,
		Description: "The newest first. Ended ones are kept for logic.call_keep.",
	}, a.listCalls)
	handle(a, route{scope: apikey.Read}, huma.Operation{
		OperationID: "get-call", Method: http.MethodGet, Path: "/v1/calls/{id}", Summary: "Get a call", Tags: tags,
		Description: "With the devices that it rang on, and how media flowed between each two of its parties.",
	}, a.getCall)
	handle(a, route{scope: apikey.Chat, replay: true}, huma.Operation{
		OperationID: "end-call", Method: http.MethodPost, Path: "/v1/calls/{id}/end", Summary: "End a call", Tags: tags,
		Description: "Its reason is then ended_by_host. Ending a call that is over is harmless.",
	}, a.endCall)
}

var errNoCalls = errcode.UnknownMethod.Errorf("this server has no calls")

func (a *api) listCalls(ctx context.Context, in *callsInput) (*callsOutput, error) {
	if a.d.Calls == nil {
		return nil, errNoCalls
	}
	page, err := a.d.Calls.List(ctx, callOf(ctx).tenant, calls.Question{
		UID: in.UID, Conversation: in.Conversation, State: in.State, Cursor: in.Cursor, Limit: in.Limit,
	})
	return &callsOutput{page}, err
}

func (a *api) getCall(ctx context.Context, in *callInput) (*callOutput, error) {
	if a.d.Calls == nil {
		return nil, errNoCalls
	}
	r, err := a.d.Calls.Get(ctx, callOf(ctx).tenant, in.ID)
	return &callOutput{r}, err
}

func (a *api) endCall(ctx context.Context, in *callInput) (*callOutput, error) {
	if a.d.Calls == nil {
		return nil, errNoCalls
	}
	r, err := a.d.Calls.End(ctx, callOf(ctx).tenant, in.ID)
	return &callOutput{r}, err
}
