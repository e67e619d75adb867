package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/limit"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
)

// demoRate bounds log-ins from one address.
var demoRate = limit.Rate{PerSecond: 5, Burst: 20}

type (
	demoInput struct {
		Body struct {
			Name string `json:"name" doc:"The name to be known by; becomes the uid." example:"ann"`
		}
	}
	demoOutput struct {
		Body struct {
			Tenant           string     `json:"tenant"`
			UID              string     `json:"uid"`
			Token            string     `json:"token" doc:"To connect with; may join any room."`
			ExpiresAt        int64      `json:"expires_at" doc:"When the token expires."`
			PushKey          string     `json:"push_key,omitempty" doc:"API key with the scopes push and read."`
			PushKeyExpiresAt int64      `json:"push_key_expires_at,omitempty"`
			Endpoints        []Endpoint `json:"endpoints" doc:"As GET /v1/endpoints."`
		}
	}
)

// registerDemo registers the demo log-in in every server, so that the description is the same; where it isn't open it
// answers forbidden.
func (a *api) registerDemo() {
	handle(a, route{public: true, maxBytes: 4 << 10}, huma.Operation{
		OperationID: "demo-login", Method: http.MethodPost, Path: "/v1/demo/login", Summary: "Log in by name, for the web pages", Tags: []string{"demo"},
		Description: "Only where the operator opened it (demo: open); anybody is whoever he says. 403 forbidden elsewhere.",
	}, a.demoLogin)
}

func (a *api) demoLogin(ctx context.Context, in *demoInput) (*demoOutput, error) {
	if a.d.Demo == Closed {
		return nil, errcode.Forbidden.Errorf("the demo log-in is not open on this server")
	}
	c := callOf(ctx)
	if err := notForeign(c.origin, c.host, a.d.Demo); err != nil {
		return nil, err
	}
	if wait, ok := a.limiter.Allow(ctx, "demo:"+c.remote, demoRate); !ok {
		a.metrics.limited.Inc()
		return nil, errcode.RateLimited.After(wait)
	}
	uid := in.Body.Name
	if err := name.UID(uid); err != nil {
		return nil, err
	}
	if err := a.d.Chat.Enabled(ctx, name.DefaultTenant, uid); err != nil {
		return nil, err
	}
	endpoints, err := a.orderedEndpoints(ctx)
	if err != nil {
		return nil, err
	}
	compact, expires, err := a.d.Minter.Mint(token.Claims{Tenant: name.DefaultTenant, UID: uid, Platform: "web", Rooms: []string{"*"}}, a.cfg.DemoTTL)
	if err != nil {
		return nil, err
	}
	a.introduce(ctx, uid)
	out := &demoOutput{}
	b := &out.Body
	b.Tenant, b.UID, b.Token, b.ExpiresAt, b.Endpoints = name.DefaultTenant, uid, compact, expires.UnixMilli(), endpoints
	// Not beyond loopback: there it would let whoever can connect push to everybody.
	if a.signer != nil && a.d.Demo == Loopback {
		end := a.now().Add(a.cfg.DemoKeyTTL).Truncate(time.Second)
		b.PushKey, b.PushKeyExpiresAt = a.signer.Make(name.DefaultTenant, uid, apikey.Push|apikey.Read, end), end.UnixMilli()
	}
	return out, nil
}

// introduce gives who logs in by name a profile, unless he has one, so that others find him. It may fail: he is let in all the same.
func (a *api) introduce(ctx context.Context, uid string) {
	found, err := a.d.Chat.Users(ctx, name.DefaultTenant, "", []string{uid})
	if err == nil && len(found.Users) == 0 {
		everybody := "all"
		_, err = a.d.Chat.UpdateUsers(ctx, name.DefaultTenant, []conversation.UserUpdate{{UID: uid, Name: &uid, Visibility: &everybody}})
	}
	if err != nil {
		a.log.DebugContext(ctx, "no profile made at the demo log-in", logs.Err, err)
	}
}
