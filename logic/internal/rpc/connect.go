package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/logic/internal/auth"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/proto/topic"
)

// Kinds of log-in, as metrics call them.
const (
	kindSigned  = "signed"
	kindGoim    = "goim"
	kindUnknown = "unknown"
)

// Connect makes a session of an auth body: verifies who it is, registers it at router under the session
// policy, has the sessions closed that gave way, and answers with the effects that complete it. It returns no
// gRPC error: what went wrong is in the response, with a reply for clients that read one.
func (s *Server) Connect(ctx context.Context, req *halleyv1.ConnectRequest) (*halleyv1.ConnectResponse, error) {
	start := s.d.Now()
	var (
		res  *halleyv1.ConnectResponse
		kind = kindUnknown
	)
	body, err := auth.ParseBody(req.GetAuth())
	switch {
	case body.Halley != nil:
		kind = kindSigned
		if err == nil {
			res, err = s.connectSigned(ctx, req, body.Halley)
		}
	case body.Goim != nil:
		kind = kindGoim
		// What can't be trusted anyway isn't told what is wrong with it.
		if !s.d.TrustGoim {
			err = errcode.Unauthenticated.Errorf("auth: a token is required")
		}
		if err == nil {
			res, err = s.connectGoim(ctx, req, body.Goim)
		}
	}
	if session := res.GetSession(); session != nil && ctx.Err() != nil {
		s.takeBack(ctx, session)
	}
	s.metrics.connect(kind, s.d.Now().Sub(start), err)
	if err != nil {
		return s.refuse(ctx, kind, req, res.GetSession(), err), nil
	}
	return res, nil
}

// takeBack has router forget a session that comet will not hear of: it no longer waits for the answer, has refused the client, and
// doesn't know by what names router may have it.
func (s *Server) takeBack(ctx context.Context, session *halleyv1.Session) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.d.RouterTimeout)
	defer cancel()
	if _, err := s.d.Router.Deregister(ctx, &halleyv1.DeregisterRequest{Sessions: []*halleyv1.Session{session}}); err != nil {
		s.d.Log.WarnContext(ctx, "session not taken back, comet's next rewrite does it", "session", session.GetConn().GetId(), "err", err)
	}
}

// refuse makes the answer to a log-in that failed. goim's clients know no error and get no frame; whoever is
// none of them, or can't be where they aren't trusted, gets one to read. session is what router may have of it,
// for comet to take out again.
func (s *Server) refuse(ctx context.Context, kind string, req *halleyv1.ConnectRequest, session *halleyv1.Session, err error) *halleyv1.ConnectResponse {
	e := errcode.Proto(err)
	if errcode.From(err).Code == errcode.Internal {
		s.d.Log.ErrorContext(ctx, "log-in failed", "session", req.GetConn().GetId(), "err", err)
	}
	res := &halleyv1.ConnectResponse{Error: e, Session: session}
	if kind == kindSigned || !s.d.TrustGoim {
		res.Reply = encode(authReply{Error: errorOf(e)})
	}
	return res
}

func (s *Server) connectSigned(ctx context.Context, req *halleyv1.ConnectRequest, body *auth.Halley) (*halleyv1.ConnectResponse, error) {
	claims, err := s.verify(body.Token)
	if err != nil {
		return nil, err
	}
	rooms, err := s.firstRooms(body.Rooms, claims.Rooms)
	if err != nil {
		return nil, err
	}
	session := &halleyv1.Session{
		Tenant: claims.Tenant, Uid: claims.UID, Key: sessionKey(claims), DeviceId: claims.DeviceID, Platform: claims.Platform, Signed: true,
		Conn: req.GetConn(), ConnectedAtMs: req.GetConnectedAtMs(), RemoteAddr: req.GetRemoteAddr(),
	}
	if !claims.IssuedAt.IsZero() {
		session.IssuedAtMs = claims.IssuedAt.UnixMilli()
	}
	reg, err := s.register(ctx, session, s.limits(claims.Platform), body.Resume.Replaces)
	if err != nil {
		return written(session, err), err
	}
	// Once more: who revokes kicks the sessions that router knows, and this one may have come just after.
	if s.d.Revoked.Revoked(claims) {
		// Router has forgotten those that gave way, so the kick doesn't find them.
		s.displace(ctx, session, reg, false)
		return written(session, nil), errcode.TokenRevoked
	}

	effects := &halleyv1.Effects{Join: rooms, Accepts: &halleyv1.Accepts{All: true}, Grants: encodeGrants(claims), ExpiresAtMs: proto.Int64(expiry(claims))}
	switch {
	case len(body.Accepts) > 0:
		effects.Accepts = &halleyv1.Accepts{Ops: body.Accepts}
	case claims.Accepts != nil:
		effects.Accepts = &halleyv1.Accepts{Ops: claims.Accepts}
	}
	reply := authReply{
		Tenant: session.Tenant, UID: session.Uid, Key: session.Key, Connection: session.GetConn().GetId(),
		Heartbeat: s.cfg.Heartbeat.Seconds(), IdleTimeout: s.cfg.IdleTimeout.Seconds(), ServerTime: milliseconds(s.d.Now()),
		ExpiresAt: float64(expiry(claims)), Rooms: rooms, RoomLimit: s.d.Rooms.Limit(),
	}
	return &halleyv1.ConnectResponse{
		Session: session, Reply: encode(reply), Effects: effects, IdleTimeoutMs: s.cfg.IdleTimeout.Milliseconds(),
		Replaces: s.displace(ctx, session, reg, true),
	}, nil
}

// verify returns the claims of a good token that isn't revoked.
func (s *Server) verify(token string) (*auth.Claims, error) {
	claims, err := s.d.Verifier.Verify(token)
	if err != nil {
		return nil, err
	}
	if err := s.d.Revoked.Ready(); err != nil {
		return nil, err
	}
	if s.d.Revoked.Revoked(claims) {
		return nil, errcode.TokenRevoked
	}
	return claims, nil
}

// firstRooms returns those of asked that the token grants, each once. The others are left out rather than refused: a
// client that comes back names all rooms that it was in, and its backend may have put it into some. The reply
// tells which it is in.
func (s *Server) firstRooms(asked, granted []string) ([]string, error) {
	if len(asked) == 0 {
		return nil, nil
	}
	rooms := make([]string, 0, min(len(asked), s.d.Rooms.Limit()))
	for _, r := range asked {
		switch err := s.d.Rooms.Authorise(r, granted); {
		case err == nil:
		case errcode.From(err).Code == errcode.Forbidden:
			continue
		default:
			return nil, err
		}
		if slices.Contains(rooms, r) {
			continue
		}
		if len(rooms) == s.d.Rooms.Limit() {
			return nil, errcode.TooManyRooms
		}
		rooms = append(rooms, r)
	}
	return rooms, nil
}

// deviceKeys is the name space of session keys that are made of a device.
var deviceKeys = uuid.MustParse("5b0f6c3e-33b5-4f4e-8f0e-6f1f6f1c1a57")

// sessionKey returns the key that a signed session is known by: the token's; else, for a device, a UUIDv5 of
// (tenant, uid, device), so that it stays through reconnects; else a random UUID. Keys only say whom to push to: who
// guesses one gains nothing.
func sessionKey(c *auth.Claims) string {
	switch {
	case c.Key != "":
		return c.Key
	case c.DeviceID != "":
		return uuid.NewSHA1(deviceKeys, topic.Join(c.Tenant, c.UID, c.DeviceID)).String()
	}
	return uuid.NewString()
}

func expiry(c *auth.Claims) int64 {
	if c.ExpiresAt.IsZero() {
		return 0
	}
	return c.ExpiresAt.UnixMilli()
}

func (s *Server) connectGoim(ctx context.Context, req *halleyv1.ConnectRequest, g *auth.Goim) (*halleyv1.ConnectResponse, error) {
	session := &halleyv1.Session{
		Tenant: s.cfg.GoimTenant, Key: g.Key, Platform: g.Platform, Conn: req.GetConn(),
		ConnectedAtMs: req.GetConnectedAtMs(), RemoteAddr: req.GetRemoteAddr(),
	}
	if g.Mid > 0 {
		session.Uid = strconv.FormatInt(g.Mid, 10)
	}
	if session.Key == "" {
		session.Key = uuid.NewString()
	}
	// goim limits nothing; the same key replaces its session all the same.
	reg, err := s.register(ctx, session, &halleyv1.Limits{}, "")
	if err != nil {
		return written(session, err), err
	}
	s.displace(ctx, session, reg, true)
	effects := &halleyv1.Effects{Accepts: &halleyv1.Accepts{Ops: g.Accepts}}
	if g.RoomID != "" {
		effects.ChangeRoom = proto.String(g.RoomID)
	}
	idle := s.cfg.GoimHeartbeat * time.Duration(s.cfg.GoimHeartbeatMax)
	return &halleyv1.ConnectResponse{Session: session, Effects: effects, IdleTimeoutMs: idle.Milliseconds()}, nil
}

// maxConnID is longer than any connection id.
const maxConnID = 64

func (s *Server) register(ctx context.Context, session *halleyv1.Session, limits *halleyv1.Limits, replaces string) (*halleyv1.RegisterResult, error) {
	req := &halleyv1.RegisterRequest{Sessions: []*halleyv1.Session{session}, Limits: limits}
	if replaces != "" && len(replaces) <= maxConnID && name.Key(replaces) == nil {
		req.Replaces = &halleyv1.Conn{Id: replaces}
	}
	ctx, cancel := context.WithTimeout(ctx, s.d.RouterTimeout)
	defer cancel()
	res, err := s.d.Router.Register(ctx, req)
	if err != nil {
		return nil, remote.Error(err)
	}
	if res.GetStatus() == halleyv1.EpochStatus_EPOCH_STATUS_DEAD {
		// Comet takes a new epoch within a moment.
		return nil, errcode.Unavailable.After(remote.RetryAfter)
	}
	if len(res.GetResults()) != 1 {
		return nil, errcode.Internal.Errorf("register: %d results", len(res.GetResults()))
	}
	result := res.GetResults()[0]
	switch result.GetStatus() {
	case halleyv1.RegisterResult_STATUS_OK, halleyv1.RegisterResult_STATUS_BUCKET_LOST:
		// Comet finds a lost bucket by itself, when it renews its lease.
		return result, nil
	case halleyv1.RegisterResult_STATUS_TOO_MANY:
		return nil, errcode.TooManySessions
	case halleyv1.RegisterResult_STATUS_REPLACED:
		if session.GetSigned() {
			return nil, errLate
		}
		return nil, errcode.Replaced
	case halleyv1.RegisterResult_STATUS_GONE:
		// The connection ended while it logged in; hardly anybody reads this.
		return nil, errcode.Unavailable.After(remote.RetryAfter)
	}
	return nil, errcode.Internal.Errorf("register: status %s", result.GetStatus())
}

// errLate refuses a log-in since its device has a newer connection. Whoever made both has given this one up and doesn't read it. If somebody
// does, he did not, or comets' clocks differ by more than they may: then he comes again, and the connection that he makes is the newest.
var errLate = &errcode.Error{Code: errcode.Unavailable, Detail: "a newer connection of this device is there", RetryAfter: remote.RetryAfter}

// written returns what goes with an error after Register was asked: the session, since router may have it, now or
// when a call that was given up arrives late; nil where it said that it has nothing.
func written(session *halleyv1.Session, err error) *halleyv1.ConnectResponse {
	if errors.Is(err, errcode.TooManySessions) || errors.Is(err, errcode.Replaced) || errors.Is(err, errLate) {
		return nil
	}
	return &halleyv1.ConnectResponse{Session: session}
}

// displace has those sessions closed that gave way to session, and returns the connection that it takes over
// from, if there is one. Router has forgotten them already: that Kafka doesn't take the deliveries is no reason to
// refuse the new session; comet's next rewrite of its buckets finds them. taken is whether the new session comes to be; even if it
// doesn't, or comet no longer waits for it, they have given way. But then their clients may come again, and so may those whose connection
// is younger than the new session's: that one's log-in may be late, and nobody be left who waits for it.
func (s *Server) displace(ctx context.Context, session *halleyv1.Session, reg *halleyv1.RegisterResult, taken bool) (replaces *halleyv1.Conn) {
	taken = taken && ctx.Err() == nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ReplaceTimeout)
	defer cancel()
	if r := reg.GetReplaced(); r != nil {
		replaces = r.GetConn()
		// On its own comet the old connection is flushed and closed in one go with the new one's start. On another one it must
		// outlive this answer: the new one joins its rooms only now, and what is sent to them meanwhile reaches the old one alone.
		if !taken || replaces.GetEpoch() != session.GetConn().GetEpoch() {
			s.kick(ctx, session, []*halleyv1.Target{push.ConnTarget(replaces)}, errcode.Replaced, s.cfg.ResumeLinger)
		}
	}
	var forGood, again []*halleyv1.Target
	for _, d := range reg.GetDisplaced() {
		switch id := d.GetConn().GetId(); {
		case id == replaces.GetId():
		case !taken || slices.Contains(reg.GetRacedConnIds(), id):
			again = append(again, push.ConnTarget(d.GetConn()))
		default:
			forGood = append(forGood, push.ConnTarget(d.GetConn()))
		}
	}
	s.kick(ctx, session, forGood, errcode.Replaced, 0)
	s.kick(ctx, session, again, errRaced, 0)
	return replaces
}

// errRaced ends a session that gave way to one that may be nobody's.
var errRaced = errcode.Unavailable.Errorf("another connection of this device was let in")

// kick has connections closed that gave way to session.
func (s *Server) kick(ctx context.Context, session *halleyv1.Session, targets []*halleyv1.Target, why error, linger time.Duration) {
	if len(targets) == 0 {
		return
	}
	s.metrics.displaced.Add(float64(len(targets)))
	kick := &halleyv1.Control{Control: &halleyv1.Control_Kick{Kick: &halleyv1.Kick{
		Error: errcode.Proto(why), LingerMs: uint32(linger.Milliseconds()),
	}}}
	if err := s.d.Push.Control(ctx, session.GetTenant(), targets, kick); err != nil {
		s.metrics.untold.Add(float64(len(targets)))
		s.d.Log.DebugContext(ctx, "displaced sessions not told", "session", session.GetConn().GetId(), "err", err)
	}
}

// grants is what logic wants to know of a session's token with each of its requests.
type grants struct {
	Rooms []string `json:"r,omitempty"`
	Watch string   `json:"w,omitempty"`
	// Relay is the claim relay_only.
	Relay bool `json:"y,omitempty"`
}

// encodeGrants returns nil for a token that grants nothing in particular, which is the usual one.
func encodeGrants(c *auth.Claims) []byte {
	if len(c.Rooms) == 0 && c.Watch == "" && !c.RelayOnly {
		// Not nil: a refreshed token takes away what the one before it granted.
		return []byte{}
	}
	return encode(grants{Rooms: c.Rooms, Watch: c.Watch, Relay: c.RelayOnly})
}

func decodeGrants(b []byte) (grants, error) {
	var g grants
	if len(b) == 0 {
		return g, nil
	}
	if err := json.Unmarshal(b, &g); err != nil {
		return g, errcode.Internal.Errorf("grants can't be read")
	}
	return g, nil
}
