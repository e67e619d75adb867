package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

type (
	tokenInput struct {
		Body struct {
			UID      string   `json:"uid" doc:"Who logs in: 1 to 64 of A-Z a-z 0-9 . _ @ : -" example:"ann"`
			Device   string   `json:"device,omitempty" doc:"A new session of the same device replaces its old one."`
			Platform string   `json:"platform,omitempty" doc:"As ios, android, web: the session policy goes by it."`
			Key      string   `json:"key,omitempty" doc:"The session's key; left out: a random one."`
			Rooms    []string `json:"rooms,omitempty" doc:"Rooms that the session may join, or patterns of them." example:"[\"chat://*\"]"`
			Accepts  []int32  `json:"accepts,omitempty" doc:"Ops that pushes may have to reach the session; left out: all."`
			Watch    string   `json:"watch,omitempty" enum:"everyone,nobody" doc:"Whose presence the session may watch; left out: as logic.session_watch_rules says."`
			// RelayOnly keeps the user's addresses from those whom he calls.
			RelayOnly bool    `json:"relay_only,omitempty" doc:"Whether the user's calls go through relays only, so that nobody learns his address."`
			TTL       float64 `json:"ttl,omitempty" minimum:"0" doc:"Seconds until it expires; left out: the server's default."`
		}
	}
	tokenOutput struct {
		Body struct {
			Token     string `json:"token" doc:"JWT: what the client sends when it connects."`
			ExpiresAt int64  `json:"expires_at" doc:"When it expires; the session ends then unless the client brings a newer one."`
		}
	}
	revokeInput struct {
		Body struct {
			UID    string `json:"uid" doc:"Whose tokens."`
			Device string `json:"device,omitempty" doc:"Only those of this device."`
			Before int64  `json:"before,omitempty" minimum:"0" doc:"Tokens issued before this time; left out: until now."`
		}
	}
	revokeOutput struct {
		Body struct {
			Before int64 `json:"before" doc:"Tokens issued before this time are void."`
		}
	}
)

func (a *api) registerTokens() {
	// No answer is kept under an Idempotency-Key: it would put tokens into Redis, and a second token does no harm.
	handle(a, route{scope: apikey.Token}, huma.Operation{
		OperationID: "make-token", Method: http.MethodPost, Path: "/v1/tokens", Summary: "Make a token for a client", Tags: []string{"tokens"},
		Description: "404 not_found: the server has no key that signs; sign tokens by yourself then.",
	}, a.makeToken)
	handle(a, route{scope: apikey.Token, replay: true}, huma.Operation{
		OperationID: "revoke-tokens", Method: http.MethodPost, Path: "/v1/tokens/revoke", Summary: "Make tokens of a user void", Tags: []string{"tokens"},
		Description: "Sessions that were opened with such a token are ended too.",
	}, a.revokeTokens)
}

func (a *api) makeToken(ctx context.Context, in *tokenInput) (*tokenOutput, error) {
	b := &in.Body
	if err := a.d.Chat.Enabled(ctx, callOf(ctx).tenant, b.UID); err != nil {
		return nil, err
	}
	compact, expires, err := a.d.Minter.Mint(token.Claims{
		Tenant: callOf(ctx).tenant, UID: b.UID, DeviceID: b.Device, Platform: b.Platform, Key: b.Key, Rooms: b.Rooms, Accepts: b.Accepts, Watch: b.Watch, RelayOnly: b.RelayOnly,
	}, time.Duration(b.TTL*float64(time.Second)))
	if err != nil {
		return nil, err
	}
	out := &tokenOutput{}
	out.Body.Token, out.Body.ExpiresAt = compact, expires.UnixMilli()
	return out, nil
}

func (a *api) revokeTokens(ctx context.Context, in *revokeInput) (*revokeOutput, error) {
	before := a.now()
	if in.Body.Before > 0 {
		before = time.UnixMilli(in.Body.Before)
	}
	if err := a.revoke(ctx, callOf(ctx).tenant, in.Body.UID, in.Body.Device, before); err != nil {
		return nil, err
	}
	out := &revokeOutput{}
	out.Body.Before = before.UnixMilli()
	return out, nil
}

// revoke makes tokens void and ends the sessions that they opened. In this order: a session that is opened in between is ended
// too, and one that is opened after has no valid token.
func (a *api) revoke(ctx context.Context, tenant, uid, device string, before time.Time) error {
	if err := checkUserDevice(uid, device); err != nil {
		return err
	}
	if err := a.d.Revoker.Revoke(ctx, tenant, uid, device, before); err != nil {
		return err
	}
	return a.d.Push.Control(ctx, tenant, []*halleyv1.Target{push.UIDTarget(uid)}, kick(errcode.TokenRevoked, device, before.UnixMilli()))
}

func checkUserDevice(uid, device string) error {
	if err := name.UID(uid); err != nil {
		return err
	}
	return name.Device("device", device)
}

func kick(why *errcode.Code, device string, issuedBeforeMS int64) *halleyv1.Control {
	return &halleyv1.Control{Control: &halleyv1.Control_Kick{Kick: &halleyv1.Kick{
		Error: errcode.Proto(why), DeviceId: device, IssuedBeforeMs: issuedBeforeMS,
	}}}
}
