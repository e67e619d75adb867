package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// mostPresence is the most users of one question, far below router's limit. The API promises it, so no setting.
const mostPresence = 10_000

// Presence is one user's state.
type Presence struct {
	UID       string   `json:"uid"`
	Online    bool     `json:"online" doc:"Whether there is a session."`
	Platforms []string `json:"platforms" doc:"Platforms of the sessions, each once, sorted."`
	LastSeen  int64    `json:"last_seen" doc:"When the last session ended; 0 while online or if never seen."`
}

type (
	presenceInput struct {
		Body struct {
			UIDs []string `json:"uids" minItems:"1" maxItems:"10000" doc:"1 to 10,000 users."`
		}
	}
	presenceOutput struct {
		Body struct {
			States []Presence `json:"states" doc:"One for each user asked for, in their order."`
		}
	}
)

// Online is a user who has a session.
type Online struct {
	UID       string   `json:"uid"`
	Platforms []string `json:"platforms" doc:"Platforms of the sessions, each once, sorted."`
	Sessions  uint32   `json:"sessions" doc:"How many he has."`
	Since     int64    `json:"since" doc:"When the oldest of them began."`
}

type (
	onlineInput struct {
		Cursor string `query:"cursor" doc:"Field next of the page before; left out: the first page."`
		Limit  uint32 `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"The most users of the page."`
	}
	onlineOutput struct {
		Body struct {
			Users []Online `json:"users" doc:"In no order that means anything."`
			Next  string   `json:"next,omitempty" doc:"Cursor of the next page, which there may be of a short page, too; not there: this is the last."`
		}
	}
)

func (a *api) registerPresence() {
	handle(a, route{scope: apikey.Read}, huma.Operation{
		OperationID: "list-online", Method: http.MethodGet, Path: "/v1/presence", Summary: "All who are online", Tags: []string{"presence"},
		Description: "For people to look at, a page at a time: who comes or goes meanwhile may be missing or be in two pages.",
	}, a.online)
	handle(a, route{scope: apikey.Read}, huma.Operation{
		OperationID: "get-presence", Method: http.MethodPost, Path: "/v1/presence", Summary: "Who is online", Tags: []string{"presence"},
		Description: "Right at once, and within 15 seconds after a crash of a server.",
	}, a.presence)
}

func (a *api) presence(ctx context.Context, in *presenceInput) (*presenceOutput, error) {
	for _, uid := range in.Body.UIDs {
		if err := name.UID(uid); err != nil {
			return nil, err
		}
	}
	ctx2, cancel := a.router(ctx)
	defer cancel()
	res, err := a.d.Router.GetPresence(ctx2, &halleyv1.GetPresenceRequest{Tenant: callOf(ctx).tenant, Uids: in.Body.UIDs})
	if err != nil {
		return nil, remote.Error(err)
	}
	if len(res.GetStates()) > mostPresence {
		return nil, errcode.Internal
	}
	out := &presenceOutput{}
	out.Body.States = make([]Presence, len(res.GetStates()))
	for i, s := range res.GetStates() {
		out.Body.States[i] = Presence{UID: s.GetUid(), Online: s.GetOnline(), Platforms: list(s.GetPlatforms()), LastSeen: int64(s.GetLastSeen())}
	}
	return out, nil
}

func (a *api) online(ctx context.Context, in *onlineInput) (*onlineOutput, error) {
	rctx, cancel := a.router(ctx)
	defer cancel()
	res, err := a.d.Router.ListOnline(rctx, &halleyv1.ListOnlineRequest{Tenant: callOf(ctx).tenant, Cursor: in.Cursor, Limit: in.Limit})
	if err != nil {
		return nil, remote.Error(err)
	}
	out := &onlineOutput{}
	out.Body.Users = make([]Online, len(res.GetUsers()))
	for i, u := range res.GetUsers() {
		out.Body.Users[i] = Online{UID: u.GetUid(), Platforms: list(u.GetPlatforms()), Sessions: u.GetSessions(), Since: u.GetSinceMs()}
	}
	out.Body.Next = res.GetNext()
	return out, nil
}

// router returns a context for a call of router.
func (a *api) router(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.d.RouterTimeout)
}

// list makes an empty list [] in JSON rather than null.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
