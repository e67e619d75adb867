package rpc_test

import (
	"context"
	"errors"

	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/logic/internal/auth"
	"github.com/halley-im/halley/logic/internal/fake"
	"github.com/halley-im/halley/logic/internal/rpc"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

func TestSignedConnect(t *testing.T) {
	r := newRig(t)
	var asked *halleyv1.RegisterRequest
	r.router.OnRegister = func(q *halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
		asked = q
		return fake.Registered(), nil
	}
	tok := r.token(auth.Claims{Tenant: "acme", UID: "ann", DeviceID: "d1", Platform: "ios", Rooms: []string{"chat://*"}, Accepts: []int32{1000}})
	res := r.connect(body(tok, `"rooms":["chat://a","public://b","secret://c","chat://a"]`, `"resume":{"replaces":"f.9"}`))
	if res.GetError() != nil {
		t.Fatal(res.GetError())
	}

	ses := res.GetSession()
	equal(t, "session", ses, &halleyv1.Session{
		Tenant: "acme", Uid: "ann", Key: ses.GetKey(), DeviceId: "d1", Platform: "ios", Signed: true, Conn: conn("a.1"),
		ConnectedAtMs: now.UnixMilli(), RemoteAddr: "192.0.2.7", IssuedAtMs: now.Add(-time.Second).UnixMilli(),
	})
	equal(t, "session at router", asked.GetSessions()[0], ses)
	equal(t, "limits", asked.GetLimits(), &halleyv1.Limits{MaxSessions: 5, NewestWinsPlatform: true})
	if asked.GetReplaces().GetId() != "f.9" {
		t.Errorf("replaces: got %v", asked.GetReplaces())
	}

	rooms := []string{"chat://a", "public://b"}
	e := res.GetEffects()
	if !slices.Equal(e.GetJoin(), rooms) || e.GetAccepts().GetAll() || !slices.Equal(e.GetAccepts().GetOps(), []int32{1000}) ||
		e.GetExpiresAtMs() != now.Add(time.Hour).UnixMilli() || len(e.GetGrants()) == 0 {
		t.Errorf("effects: got %v", e)
	}
	if res.GetIdleTimeoutMs() != 75_000 {
		t.Errorf("idle timeout: got %d", res.GetIdleTimeoutMs())
	}
	equal(t, "reply", authReply(t, res.GetReply()), &halleyv1.AuthReply{
		Tenant: "acme", Uid: "ann", Key: ses.GetKey(), Connection: "a.1", Heartbeat: 30, IdleTimeout: 75, ServerTime: float64(now.UnixMilli()),
		ExpiresAt: float64(now.Add(time.Hour).UnixMilli()), Rooms: rooms, RoomLimit: 3,
	})
}

func TestSignedSessionAcceptsAllUnlessToldOtherwise(t *testing.T) {
	for _, tt := range []struct {
		name, more string
		claim      []int32
		want       string
	}{
		{"nothing said", ``, nil, "all:true"},
		{"client", `"accepts":[7]`, nil, "ops:7"},
		{"token", ``, []int32{8}, "ops:8"},
		{"client narrows token", `"accepts":[7]`, []int32{7, 8}, "ops:7"},
		{"client's empty list is none", `"accepts":[]`, []int32{8}, "ops:8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			more := []string{}
			if tt.more != "" {
				more = append(more, tt.more)
			}
			got := r.connect(body(r.token(auth.Claims{UID: "ann", Accepts: tt.claim}), more...)).GetEffects().GetAccepts()
			if s := got.String(); s != tt.want {
				t.Errorf("got %s, want %s", s, tt.want)
			}
		})
	}
}

func TestSessionKeyStaysForADeviceOfOneUserInOneTenant(t *testing.T) {
	r := newRig(t)
	key := func(c auth.Claims) string { return r.connect(body(r.token(c))).GetSession().GetKey() }
	phone := auth.Claims{UID: "ann", DeviceID: "d1"}
	first := key(phone)
	if again := key(phone); again != first {
		t.Errorf("the same device: got %s, then %s", first, again)
	}
	seen := map[string]string{first: "phone"}
	for what, c := range map[string]auth.Claims{
		"another tenant": {Tenant: "acme", UID: "ann", DeviceID: "d1"}, "another user": {UID: "bob", DeviceID: "d1"},
		"another device": {UID: "ann", DeviceID: "d2"}, "no device": {UID: "ann"},
	} {
		k := key(c)
		if seen[k] != "" {
			t.Errorf("%s has the key of %s", what, seen[k])
		}
		seen[k] = what
	}
	if a, b := key(auth.Claims{UID: "ann"}), key(auth.Claims{UID: "ann"}); a == b {
		t.Error("two sessions without device have one key")
	}
	if k := key(auth.Claims{UID: "ann", DeviceID: "d1", Key: "mine"}); k != "mine" {
		t.Errorf("the token's key: got %s", k)
	}
}

func TestConnectRefusals(t *testing.T) {

	for _, tt := range []struct {
		name string
		body func(r *rig) string
		rig  func(r *rig)
		want string
		// registered says that router may have written the session.
		registered bool
	}{
		{"no JSON", func(*rig) string { return "hello" }, nil, "invalid_request", false},
		{"no token", func(*rig) string { return "{}" }, nil, "unauthenticated", false},
		{"goim's token", func(*rig) string { return `{"mid":1}` }, nil, "unauthenticated", false},
		{"empty token", func(*rig) string { return `{"token":""}` }, nil, "unauthenticated", false},
		{"token a number", func(*rig) string { return `{"token":1}` }, nil, "invalid_request", false},
		{"expired", func(r *rig) string {
			return body(r.token(auth.Claims{UID: "ann", ExpiresAt: now.Add(-time.Hour)}))
		}, nil, "token_expired", false},
		{"too large a body", func(*rig) string { return body(strings.Repeat("x", 17<<10)) }, nil, "too_large", false},
		{"too large a token", func(*rig) string { return body(strings.Repeat("x", 9<<10)) }, nil, "too_large", false},
		{"bad room", func(r *rig) string { return body(r.token(auth.Claims{UID: "ann"}), `"rooms":["lobby"]`) }, nil, "invalid_request", false},
		{"reserved room", func(r *rig) string {
			return body(r.token(auth.Claims{UID: "ann"}), `"rooms":["presence://bob"]`)
		}, nil, "room_reserved", false},
		{"too many rooms", func(r *rig) string {
			return body(r.token(auth.Claims{UID: "ann"}), `"rooms":["public://1","public://2","public://3","public://4"]`)
		}, nil, "too_many_rooms", false},
		{"revoked", nil, func(r *rig) { r.revoked.revoked = func(*auth.Claims) bool { return true } }, "token_revoked", false},
		{"revocations not read", nil, func(r *rig) { r.revoked.notReady = errcode.Unavailable }, "unavailable", false},
		{"router away", nil, func(r *rig) {
			r.router.OnRegister = func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
				return nil, status.Error(codes.Unavailable, "redis")
			}
		}, "unavailable", true},
		{"router broken", nil, func(r *rig) {
			r.router.OnRegister = func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
				return nil, status.Error(codes.Unknown, "secret of the inside")
			}
		}, "internal", true},
		{"dead epoch", nil, func(r *rig) {
			r.router.OnRegister = func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
				return &halleyv1.RegisterResponse{Status: halleyv1.EpochStatus_EPOCH_STATUS_DEAD}, nil
			}
		}, "unavailable", true},
		{"too many sessions", nil, registers(halleyv1.RegisterResult_STATUS_TOO_MANY), "too_many_sessions", false},
		{"replaced meanwhile", nil, registers(halleyv1.RegisterResult_STATUS_REPLACED), "unavailable", false},
		{"gone meanwhile", nil, registers(halleyv1.RegisterResult_STATUS_GONE), "unavailable", true},
		{"no status", nil, registers(halleyv1.RegisterResult_STATUS_UNSPECIFIED), "internal", true},
		{"no result", nil, func(r *rig) {
			r.router.OnRegister = func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
				return &halleyv1.RegisterResponse{Status: halleyv1.EpochStatus_EPOCH_STATUS_OK}, nil
			}
		}, "internal", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			if tt.rig != nil {
				tt.rig(r)
			}
			b := body(r.token(auth.Claims{UID: "ann"}))
			if tt.body != nil {
				b = tt.body(r)
			}
			res := r.connect(b)
			wantCode(t, res.GetError(), tt.want)
			if res.GetEffects() != nil {
				t.Errorf("effects all the same: %v", res)
			}
			if registered := res.GetSession() != nil; registered != tt.registered {
				t.Errorf("a session that router may have: got %v, want it %t", res.GetSession(), tt.registered)
			}
			reply := authReply(t, res.GetReply())
			wantCode(t, reply.GetError(), tt.want)
			if reply.GetUid() != "" || strings.Contains(string(res.GetReply()), "inside") {
				t.Errorf("the reply says too much: %s", res.GetReply())
			}
			if row := errcode.ByName(tt.want); reply.GetError().GetRetry() != row.Retry {
				t.Errorf("retry: got %t", reply.GetError().GetRetry())
			}
		})
	}
}

func registers(s halleyv1.RegisterResult_Status) func(*rig) {
	return func(r *rig) {
		r.router.OnRegister = func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
			return &halleyv1.RegisterResponse{Status: halleyv1.EpochStatus_EPOCH_STATUS_OK, Results: []*halleyv1.RegisterResult{{Status: s}}}, nil
		}
	}
}

func TestRouterAwayTellsWhenToComeBack(t *testing.T) {
	r := newRig(t)
	r.router.OnRegister = func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
		return nil, status.Error(codes.Unavailable, "redis")
	}
	if e := r.connect(body(r.token(auth.Claims{UID: "ann"}))).GetError(); e.GetRetryAfterMs() == 0 {
		t.Errorf("got %v", e)
	}
}

func TestConnectWaitsForRouterNoLongerThanConfigured(t *testing.T) {
	release := make(chan struct{})
	r := newRig(t, func(_ *rpc.Config, d *rpc.Deps) { d.RouterTimeout = 20 * time.Millisecond })
	r.router.OnRegister = func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
		<-release
		return fake.Registered(), nil
	}
	defer close(release)
	wantCode(t, r.connect(body(r.token(auth.Claims{UID: "ann"}))).GetError(), "unavailable")
}

func TestRevocationDuringConnectRefusesIt(t *testing.T) {
	r := newRig(t)
	r.router.OnRegister = func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
		// The kick that comes with the revocation may have looked at router just before.
		r.revoked.revoked = func(c *auth.Claims) bool { return c.UID == "ann" }
		return displacing(at("c1", "e1", "a.0"), at("c2", "e2", "b.5"))(nil)
	}
	res := r.connect(body(r.token(auth.Claims{UID: "ann"}), `"resume":{"replaces":"a.0"}`))
	wantCode(t, res.GetError(), "token_revoked")
	if res.GetSession().GetUid() != "ann" {
		t.Error("comet isn't told what to take out of router again")
	}
	if got := r.kickedFor("replaced"); !slices.Equal(got, []string{"a.0"}) {
		t.Errorf("the one that it was to take over from: got %v", got)
	}
	if got := r.kickedFor("unavailable"); !slices.Equal(got, []string{"b.5"}) {
		t.Errorf("those that gave way to it, and may come again: got %v kicked", got)
	}
}

// TestSessionThatCometNoLongerWaitsForIsTakenBack: comet has refused it by then, and knows it by no name.
func TestSessionThatCometNoLongerWaitsForIsTakenBack(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var gone []*halleyv1.Session
	r.router.OnGone = func(q *halleyv1.DeregisterRequest) { gone = append(gone, q.GetSessions()...) }
	asked := false
	r.router.OnRegister = func(q *halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
		asked = true
		return displacing(at("c1", "e1", "a.0"), at("c2", "e2", "b.5"))(q)
	}
	r.revoked.revoked = func(*auth.Claims) bool {
		if asked {
			cancel()
		}
		return false
	}
	_, _ = r.Connect(ctx, &halleyv1.ConnectRequest{
		Conn: conn("a.1"), Auth: []byte(body(r.token(auth.Claims{UID: "ann", Key: "k"}), `"resume":{"replaces":"a.0"}`)),
	})
	if len(gone) != 1 || gone[0].GetConn().GetId() != "a.1" || gone[0].GetUid() != "ann" || gone[0].GetKey() != "k" {
		t.Errorf("got %v taken back", gone)
	}
	if got := r.kickedFor("replaced"); !slices.Equal(got, []string{"a.0"}) {
		t.Errorf("the one that it was to take over from: got %v", got)
	}
	if got := r.kickedFor("unavailable"); !slices.Equal(got, []string{"b.5"}) {
		t.Errorf("those that gave way to it, and may come again: got %v kicked", got)
	}
}

func TestRevokedTokenDisplacesNobody(t *testing.T) {
	r := newRig(t)
	registered := false
	r.router.OnRegister = func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
		registered = true
		return fake.Registered(), nil
	}
	r.revoked.revoked = func(*auth.Claims) bool { return true }
	r.connect(body(r.token(auth.Claims{UID: "ann"})))
	if registered {
		t.Error("it was registered")
	}
}

// displacing has router answer that these gave way.
func displacing(replaced *halleyv1.Session, displaced ...*halleyv1.Session) func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
	return func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
		res := fake.Registered()
		res.Results[0].Displaced, res.Results[0].Replaced = displaced, replaced
		return res, nil
	}
}

func at(comet, epoch, id string) *halleyv1.Session {
	return &halleyv1.Session{Tenant: "default", Uid: "ann", Conn: &halleyv1.Conn{Comet: comet, Epoch: epoch, Id: id}}
}

// kicked returns the connections that were kicked as replaced, sorted; there are no others.
func (r *rig) kicked() []string {
	if got := r.kickedFor("unavailable"); len(got) > 0 {
		r.t.Errorf("got %v kicked, to come again", got)
	}
	return r.kickedFor("replaced")
}

// kickedFor returns the connections that were kicked with a code, sorted.
func (r *rig) kickedFor(code string) []string {
	var ids []string
	for _, rec := range r.kafka.Records(r.t) {
		k := rec.GetControl().GetKick()
		if rec.Topic != topic.Urgent || k.GetError() == nil || k.GetDeviceId() != "" {
			r.t.Errorf("got %v in %s", rec.PushRecord, rec.Topic)
		}
		if k.GetError().GetCode() != code {
			continue
		}
		if k.GetError().GetRetry() != (code == "unavailable") {
			r.t.Errorf("%s: retry is %v", code, k.GetError().GetRetry())
		}
		for _, target := range rec.GetTargets() {
			ids = append(ids, target.GetConn().GetId())
		}
	}
	return sorted(ids)
}

// A log-in that comes through late may be one that its client has given up: then only the connection that it takes the place of is anybody's.
func TestWhoIsYoungerThanWhatTookHisPlaceMayComeAgain(t *testing.T) {
	r := newRig(t)
	r.router.OnRegister = func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
		res := fake.Registered()
		res.Results[0].Displaced, res.Results[0].RacedConnIds = []*halleyv1.Session{at("c1", "e1", "a.0"), at("c2", "e2", "b.5")}, []string{"b.5"}
		return res, nil
	}
	if e := r.connect(body(r.token(auth.Claims{UID: "ann", DeviceID: "d"}))).GetError(); e != nil {
		t.Fatal(e)
	}
	if old, young := r.kickedFor("replaced"), r.kickedFor("unavailable"); !slices.Equal(old, []string{"a.0"}) || !slices.Equal(young, []string{"b.5"}) {
		t.Errorf("got %v closed for good, %v to come again", old, young)
	}
}

// Whoever reads that his log-in is refused as late has not given it up.
func TestWhoWaitsForALateLogInMayComeAgain(t *testing.T) {
	r := newRig(t)
	r.router.OnRegister = func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
		res := fake.Registered()
		res.Results[0].Status = halleyv1.RegisterResult_STATUS_REPLACED
		return res, nil
	}
	res := r.connect(body(r.token(auth.Claims{UID: "ann", DeviceID: "d"})))
	if e := res.GetError(); e.GetCode() != "unavailable" || !e.GetRetry() || e.GetRetryAfterMs() == 0 || res.GetSession() != nil {
		t.Errorf("got %v, want to be told to come again", res)
	}
}

func TestDisplacedSessionsAreClosedByControlDeliveries(t *testing.T) {
	r := newRig(t)
	r.router.OnRegister = displacing(nil, at("c1", "e1", "a.0"), at("c2", "e2", "b.5"))
	res := r.connect(body(r.token(auth.Claims{UID: "ann"})))
	if res.GetError() != nil || res.GetReplaces() != nil {
		t.Errorf("got %v", res)
	}
	if got := r.kicked(); !slices.Equal(got, []string{"a.0", "b.5"}) {
		t.Errorf("got %v", got)
	}
}

func TestResumeIsLeftToItsOwnComet(t *testing.T) {
	r := newRig(t)
	r.router.OnRegister = displacing(at("c1", "e1", "a.0"), at("c1", "e1", "a.0"))
	res := r.connect(body(r.token(auth.Claims{UID: "ann"}), `"resume":{"replaces":"a.0"}`))
	if res.GetReplaces().GetId() != "a.0" {
		t.Errorf("replaces: got %v", res.GetReplaces())
	}
	if got := r.kicked(); len(got) != 0 {
		t.Errorf("kicked as well: %v", got)
	}
}

func TestResumeOnAnotherCometIsClosedThere(t *testing.T) {
	r := newRig(t)
	r.router.OnRegister = displacing(at("c2", "e2", "b.5"))
	res := r.connect(body(r.token(auth.Claims{UID: "ann"}), `"resume":{"replaces":"b.5"}`))
	if res.GetReplaces().GetId() != "b.5" {
		t.Errorf("replaces: got %v", res.GetReplaces())
	}
	if got := r.kicked(); !slices.Equal(got, []string{"b.5"}) {
		t.Errorf("got %v", got)
	}
	for _, rec := range r.kafka.Records(t) {
		if rec.GetControl().GetKick().GetLingerMs() == 0 {
			t.Error("it is closed before the new connection is in its rooms: what is sent to them meanwhile reaches neither")
		}
	}
}

func TestNonsenseToResumeIsIgnored(t *testing.T) {
	for _, id := range []string{strings.Repeat("a", 100), "a b", `\u0000`} {
		r := newRig(t)
		r.router.OnRegister = func(q *halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
			if q.GetReplaces() != nil {
				t.Errorf("router was asked about %q", q.GetReplaces().GetId())
			}
			return fake.Registered(), nil
		}
		if e := r.connect(body(r.token(auth.Claims{UID: "ann"}), `"resume":{"replaces":"`+id+`"}`)).GetError(); e != nil {
			t.Errorf("%q: got %v", id, e)
		}
	}
}

func TestKafkaAwayDoesNotKeepASessionFromReplacingAnother(t *testing.T) {
	r := newRig(t)
	r.kafka.Fail(errors.New("no broker"))
	r.router.OnRegister = displacing(nil, at("c2", "e2", "b.5"))
	if e := r.connect(body(r.token(auth.Claims{UID: "ann"}))).GetError(); e != nil {
		t.Errorf("got %v", e)
	}
}

func TestGoimConnect(t *testing.T) {
	r := newRig(t, trustGoim)
	var asked *halleyv1.RegisterRequest
	r.router.OnRegister = func(q *halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
		asked = q
		return fake.Registered(), nil
	}
	res := r.connect(`{"mid":123,"key":"k-1","room_id":"live://1000","platform":"web","accepts":[1000,1001]}`)
	if res.GetError() != nil {
		t.Fatal(res.GetError())
	}
	equal(t, "session", res.GetSession(), &halleyv1.Session{
		Tenant: "default", Uid: "123", Key: "k-1", Platform: "web", Conn: conn("a.1"), ConnectedAtMs: now.UnixMilli(), RemoteAddr: "192.0.2.7",
	})
	equal(t, "session at router", asked.GetSessions()[0], res.GetSession())
	equal(t, "limits", asked.GetLimits(), &halleyv1.Limits{})
	e := res.GetEffects()
	if e.GetChangeRoom() != "live://1000" || e.GetAccepts().GetAll() || !slices.Equal(e.GetAccepts().GetOps(), []int32{1000, 1001}) || e.ExpiresAtMs != nil || e.Grants != nil {
		t.Errorf("effects: got %v", e)
	}
	if len(res.GetReply()) != 0 {
		t.Errorf("reply: got %s, want none", res.GetReply())
	}
	if res.GetIdleTimeoutMs() != 480_000 {
		t.Errorf("idle timeout: got %d", res.GetIdleTimeoutMs())
	}
}

// Case F02 of the goim contract.
func TestGoimEmptyObjectIsAGoodToken(t *testing.T) {
	r := newRig(t, trustGoim)
	res := r.connect(`{}`)
	ses := res.GetSession()
	if res.GetError() != nil || ses.GetUid() != "" || ses.GetSigned() {
		t.Fatalf("got %v", res)
	}
	if _, err := uuid.Parse(ses.GetKey()); err != nil {
		t.Errorf("key: got %q", ses.GetKey())
	}
	e := res.GetEffects()
	if e.ChangeRoom != nil || e.GetAccepts() == nil || e.GetAccepts().GetAll() || len(e.GetAccepts().GetOps()) != 0 {
		t.Errorf("effects: got %v", e)
	}
	if again := r.connect(`{}`).GetSession().GetKey(); again == ses.GetKey() {
		t.Error("two empty keys became the same")
	}
}

func TestGoimMidOfZeroOrLessIsNoUser(t *testing.T) {
	r := newRig(t, trustGoim)
	for _, mid := range []string{"0", "-1", "-9223372036854775808"} {
		if uid := r.connect(`{"mid":` + mid + `}`).GetSession().GetUid(); uid != "" {
			t.Errorf("mid %s became %q", mid, uid)
		}
	}
	if uid := r.connect(`{"mid":9223372036854775807}`).GetSession().GetUid(); uid != "9223372036854775807" {
		t.Errorf("got %q", uid)
	}
}

// Cases F03 and F04 of the goim contract: closed without a frame.
func TestGoimBadTokenGetsNoFrame(t *testing.T) {
	r := newRig(t, trustGoim)
	for _, b := range []string{"hello", "", `{"mid":"123"}`, `{"key":1}`, `[]`, `null`} {
		res := r.connect(b)
		if res.GetError() == nil || len(res.GetReply()) != 0 {
			t.Errorf("%s: got %v", b, res)
		}
	}
}

func TestGoimFailureInsideGetsNoFrame(t *testing.T) {
	r := newRig(t, trustGoim)
	r.router.OnRegister = func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
		return nil, status.Error(codes.Unavailable, "redis")
	}
	if res := r.connect(`{"mid":1}`); res.GetError().GetCode() != "unavailable" || len(res.GetReply()) != 0 {
		t.Errorf("got %v", res)
	}
}

func TestTokenIsVerifiedWhereGoimIsTrusted(t *testing.T) {
	r := newRig(t, trustGoim)
	res := r.connect(`{"token":"forged","mid":1}`)
	wantCode(t, res.GetError(), "unauthenticated")
	wantCode(t, authReply(t, res.GetReply()).GetError(), "unauthenticated")
}

func TestGoimSameKeyClosesTheOlder(t *testing.T) {
	r := newRig(t, trustGoim)
	r.router.OnRegister = displacing(nil, at("c2", "e2", "b.5"))
	if e := r.connect(`{"key":"k"}`).GetError(); e != nil {
		t.Fatal(e)
	}
	if got := r.kicked(); !slices.Equal(got, []string{"b.5"}) {
		t.Errorf("got %v", got)
	}
}

func TestTwoTenantsWithEqualNamesAreTwoUsers(t *testing.T) {
	r := newRig(t)
	for _, tenant := range []string{"red", "blue"} {
		res := r.connect(body(r.token(auth.Claims{Tenant: tenant, UID: "ann"})))
		if got := res.GetSession().GetTenant(); got != tenant {
			t.Errorf("got %s, want %s", got, tenant)
		}
	}
}

func FuzzConnect(f *testing.F) {
	r := newRig(f, trustGoim)
	f.Add([]byte(body(r.token(auth.Claims{UID: "ann"}), `"rooms":["public://a"]`)))
	f.Add([]byte(`{"mid":1,"room_id":"live://1"}`))
	f.Add([]byte(`{"token":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		res, err := r.Connect(context.Background(), &halleyv1.ConnectRequest{Conn: conn("a.1"), Auth: b})
		if err != nil {
			t.Fatal(err)
		}
		if res.GetError().GetCode() == "internal" {
			t.Errorf("%q is our fault", b)
		}
		if res.GetError() == nil && res.GetSession() == nil {
			t.Errorf("%q: got %v", b, res)
		}
	})
}

func BenchmarkConnectHS256(b *testing.B) {
	r := newRig(b, func(_ *rpc.Config, d *rpc.Deps) { d.Router = instantRouter{} })
	q := &halleyv1.ConnectRequest{Conn: conn("a.1"), Auth: []byte(body(r.token(auth.Claims{UID: "ann", DeviceID: "d", Platform: "web"}), `"rooms":["public://a"]`))}
	b.ReportAllocs()
	for b.Loop() {
		res, err := r.Connect(b.Context(), q)
		if err != nil || res.GetError() != nil {
			b.Fatal(err, res.GetError())
		}
	}
}

// instantRouter takes every session without a call.
type instantRouter struct{ rpc.Router }

func (instantRouter) Register(context.Context, *halleyv1.RegisterRequest, ...grpc.CallOption) (*halleyv1.RegisterResponse, error) {
	return fake.Registered(), nil
}
