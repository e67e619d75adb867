package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// Session is an authenticated connection.
type Session struct {
	UID         string `json:"uid,omitempty"`
	Key         string `json:"key" doc:"Unique in the tenant; POST /v1/push reaches just this session by it."`
	Device      string `json:"device,omitempty"`
	Platform    string `json:"platform,omitempty"`
	Signed      bool   `json:"signed" doc:"Whether a verified token opened it; false: goim's unsigned one."`
	Comet       string `json:"comet" doc:"The server that holds it."`
	Connection  string `json:"connection"`
	ConnectedAt int64  `json:"connected_at"`
	RemoteAddr  string `json:"remote_addr,omitempty" doc:"The client's address, as far as proxies are trusted."`
}

type (
	sessionsInput struct {
		UID string `query:"uid" doc:"Sessions of this user. Either uid or key."`
		Key string `query:"key" doc:"The session with this key."`
	}
	sessionsOutput struct {
		Body struct {
			Sessions []Session `json:"sessions"`
		}
	}
	kickInput struct {
		Body struct {
			UID    string `json:"uid,omitempty" doc:"All sessions of this user. Either uid or key."`
			Device string `json:"device,omitempty" doc:"With uid: only those of this device."`
			Key    string `json:"key,omitempty" doc:"The session with this key."`
			Revoke bool   `json:"revoke,omitempty" doc:"With uid: make the tokens void too, so that they can't come back with them."`
		}
	}
)

func (a *api) registerSessions() {
	handle(a, route{scope: apikey.Read}, huma.Operation{
		OperationID: "list-sessions", Method: http.MethodGet, Path: "/v1/sessions", Summary: "Sessions of a user", Tags: []string{"sessions"},
	}, a.sessions)
	handle(a, route{scope: apikey.Admin, replay: true}, huma.Operation{
		OperationID: "kick-sessions", Method: http.MethodPost, Path: "/v1/sessions/kick", Summary: "End sessions", Tags: []string{"sessions"},
		Description: "Clients are told why, with the code kicked or token_revoked, and closed. Ending what isn't there is harmless.",
	}, a.kick)
}

func (a *api) sessions(ctx context.Context, in *sessionsInput) (*sessionsOutput, error) {
	req := &halleyv1.ListSessionsRequest{Tenant: callOf(ctx).tenant}
	if err := checkOneOf(in.UID, in.Key); err != nil {
		return nil, err
	}
	if in.UID != "" {
		req.By = &halleyv1.ListSessionsRequest_Uid{Uid: in.UID}
	} else {
		req.By = &halleyv1.ListSessionsRequest_Key{Key: in.Key}
	}
	rctx, cancel := a.router(ctx)
	defer cancel()
	res, err := a.d.Router.ListSessions(rctx, req)
	if err != nil {
		return nil, remote.Error(err)
	}
	out := &sessionsOutput{}
	out.Body.Sessions = make([]Session, len(res.GetSessions()))
	for i, s := range res.GetSessions() {
		out.Body.Sessions[i] = Session{
			UID: s.GetUid(), Key: s.GetKey(), Device: s.GetDeviceId(), Platform: s.GetPlatform(), Signed: s.GetSigned(), Comet: s.GetConn().GetComet(),
			Connection: s.GetConn().GetId(), ConnectedAt: s.GetConnectedAtMs(), RemoteAddr: s.GetRemoteAddr(),
		}
	}
	return out, nil
}

func (a *api) kick(ctx context.Context, in *kickInput) (*doneOutput, error) {
	b, tenant := &in.Body, callOf(ctx).tenant
	if err := checkOneOf(b.UID, b.Key); err != nil {
		return nil, err
	}
	if b.Key != "" {
		if b.Device != "" || b.Revoke {
			return nil, errcode.InvalidRequest.Errorf("device and revoke go with uid")
		}
		return a.done(a.d.Push.Control(ctx, tenant, []*halleyv1.Target{push.KeyTarget(b.Key)}, kick(errcode.Kicked, "", 0)))
	}
	if err := checkUserDevice(b.UID, b.Device); err != nil {
		return nil, err
	}
	if b.Revoke {
		if err := a.d.Revoker.Revoke(ctx, tenant, b.UID, b.Device, a.now()); err != nil {
			return nil, err
		}
	}
	return a.done(a.d.Push.Control(ctx, tenant, []*halleyv1.Target{push.UIDTarget(b.UID)}, kick(errcode.Kicked, b.Device, 0)))
}

func checkOneOf(uid, key string) error {
	switch {
	case (uid == "") == (key == ""):
		return errcode.InvalidRequest.Errorf("either uid or key")
	case uid != "":
		return name.UID(uid)
	}
	return name.Key(key)
}
