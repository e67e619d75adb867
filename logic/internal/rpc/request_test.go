package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/auth"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/rpc"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

func TestMain(m *testing.M) { kittest.Main(m) }

func TestRequestThatNamesNoMethodOrSeveralIsRefused(t *testing.T) {
	r := newRig(t)
	for body, want := range map[string]string{
		``: "invalid_request", `x`: "invalid_request", `null`: "invalid_request", `[]`: "invalid_request", `{"room.join":`: "invalid_request",
		`{}`: "unknown_method", `{"room.fly":{}}`: "unknown_method", `{"room.join":null}`: "unknown_method", `{"Room.Join":{}}`: "unknown_method",
		`{"room.join":{"room":"public://a"},"room.leave":{"room":"public://a"}}`: "invalid_request",
		`{"room.join":{"room":7}}`: "invalid_request", `{"room.join":"public://a"}`: "invalid_request", `{"room.join":[]}`: "invalid_request",
		"{\"room.join\":{\"room\":\"public://\xff\"}}":   "invalid_request",
		`{"pad":"` + strings.Repeat("x", 257<<10) + `"}`: "too_large",
	} {
		reply, res := r.ask(member("ann"), body)
		if got := reply.GetError().GetCode(); got != want || res.GetEffects() != nil {
			t.Errorf("%.60s: got %s, %v, want %s", body, got, res.GetEffects(), want)
		}
	}
}

func TestUnknownFieldsOfARequestAreIgnored(t *testing.T) {
	r := newRig(t)
	reply, _ := r.ask(member("ann"), `{"trace":1,"room.join":{"room":"public://a","why":"fun"}}`)
	if reply.GetRoomJoin().GetRoom() != "public://a" {
		t.Errorf("got %v", reply)
	}
}

func TestSessionWithoutTokenHasNoRequests(t *testing.T) {
	r := newRig(t, trustGoim)
	for _, op := range []int32{100, 103, 104} {
		q := member("123", "live://1")
		q.Session.Signed, q.Op = false, op
		reply, _ := r.ask(q, `{"room.members":{"room":"live://1"}}`)
		wantCode(t, reply.GetError(), "unauthenticated")
	}
}

func TestOpDecidesWhichMethodsItCarries(t *testing.T) {
	r := newRig(t)
	r.router.OnMembers = func(*halleyv1.ListMembersRequest) (*halleyv1.ListMembersResponse, error) {
		return &halleyv1.ListMembersResponse{}, nil
	}
	for _, tt := range []struct {
		op   int32
		body string
		want string
	}{
		{103, `{"room.members":{"room":"public://a"}}`, ""},
		{103, `{"room.join":{"room":"public://a"}}`, "invalid_request"},
		{103, `{"room.send":{"room":"public://a"}}`, "invalid_request"},
		{103, `{"presence.watch":{"uids":["bob"]}}`, "invalid_request"},
		{104, `{"room.members":{"room":"public://a"}}`, "invalid_request"},
	} {
		q := member("ann", "public://a")
		q.Op = tt.op
		reply, _ := r.ask(q, tt.body)
		if got := reply.GetError().GetCode(); got != tt.want {
			t.Errorf("op %d, %s: got %q, want %q", tt.op, tt.body, got, tt.want)
		}
	}
}

// grants returns what a session with a token of these rooms hands in with its requests.
func (r *rig) grants(rooms ...string) []byte {
	res := r.connect(body(r.token(auth.Claims{UID: "ann", Rooms: rooms})))
	if res.GetError() != nil {
		r.t.Fatal(res.GetError())
	}
	return res.GetEffects().GetGrants()
}

func TestRoomJoin(t *testing.T) {
	r := newRig(t)
	granted := r.grants("chat://*")
	for _, tt := range []struct {
		name, room string
		in         []string
		grants     []byte
		want       string
		joins      bool
	}{
		{"granted", "chat://a", nil, granted, "", true},
		{"public", "public://a", nil, nil, "", true},
		{"in it already", "chat://a", []string{"chat://a"}, nil, "", false},
		{"not granted", "secret://a", nil, granted, "forbidden", false},
		{"nothing granted", "chat://a", nil, nil, "forbidden", false},
		{"no room", "lobby", nil, granted, "invalid_request", false},
		{"reserved", "presence://bob", nil, granted, "room_reserved", false},
		{"full", "chat://d", []string{"chat://a", "chat://b", "chat://c"}, granted, "too_many_rooms", false},
		{"watched users are no rooms", "chat://d", []string{"chat://a", "presence://b", "presence://c"}, granted, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := member("ann", tt.in...)
			q.Grants = tt.grants
			reply, res := r.ask(q, mustJSON(map[string]any{"room.join": map[string]any{"room": tt.room}}))
			wantCode(t, reply.GetError(), tt.want)
			if tt.want == "" && reply.GetRoomJoin().GetRoom() != tt.room {
				t.Errorf("got %v", reply)
			}
			if joins := slices.Equal(res.GetEffects().GetJoin(), []string{tt.room}); joins != tt.joins {
				t.Errorf("effects: got %v", res.GetEffects())
			}
		})
	}
}

func TestLeavingTwiceIsHarmless(t *testing.T) {
	r := newRig(t)
	for _, q := range []*halleyv1.SessionRequest{member("ann", "chat://a"), member("ann")} {
		reply, _ := r.ask(q, `{"room.leave":{"room":"chat://a"}}`)
		if reply.GetRoomLeave().GetRoom() != "chat://a" {
			t.Errorf("got %v", reply)
		}
	}
	reply, res := r.ask(member("ann", "presence://bob"), `{"room.leave":{"room":"presence://bob"}}`)
	wantCode(t, reply.GetError(), "room_reserved")
	if res.GetEffects() != nil {
		t.Errorf("effects: got %v", res.GetEffects())
	}
}

func TestRoomSendReachesTheRoomAsAnEvent(t *testing.T) {
	r := newRig(t)
	// A number that a double can't hold, and an order of keys, must stay.
	const sent = `{"z":12345678901234567890,"a":[1,"<&>"],"é":null}`
	reply, _ := r.ask(member("ann", "chat://a"), `{"room.send":{"room":"chat://a","body":`+sent+`}}`)
	rs := r.kafka.Records(t)
	if len(rs) != 1 || reply.GetRoomSend().GetId() == "" {
		t.Fatalf("got %v, %d records", reply, len(rs))
	}
	rec := rs[0]
	if rec.Topic != topic.Push || rec.GetTenant() != "default" || rec.GetPush().GetOp() != 102 || rec.GetId() != reply.GetRoomSend().GetId() ||
		rec.GetTargets()[0].GetRoom() != "chat://a" || !slices.Equal(rec.GetExcludeKeys(), []string{"key-ann"}) {
		t.Errorf("got %v in %s", rec.PushRecord, rec.Topic)
	}
	if !strings.Contains(string(rec.GetPush().GetBody()), `"body":`+sent+`,`) {
		t.Errorf("the body changed: %s", rec.GetPush().GetBody())
	}
	e := &halleyv1.Event{}
	if err := protojson.Unmarshal(rec.GetPush().GetBody(), e); err != nil {
		t.Fatal(err)
	}
	m := e.GetRoomMessage()
	if m.GetId() != rec.GetId() || m.GetRoom() != "chat://a" || m.GetFrom() != "ann" || m.GetServerTime() != float64(now.UnixMilli()) ||
		reply.GetRoomSend().GetServerTime() != m.GetServerTime() {
		t.Errorf("got %v", m)
	}
}

func TestEchoReachesTheSenderToo(t *testing.T) {
	r := newRig(t)
	r.ask(member("ann", "chat://a"), `{"room.send":{"room":"chat://a","body":"hi","echo":true}}`)
	if rec := r.kafka.Records(t)[0]; len(rec.GetExcludeKeys()) != 0 {
		t.Errorf("excluded: %v", rec.GetExcludeKeys())
	}
}

func TestRoomSendRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, body, want string
	}{
		{"no member", `{"room.send":{"room":"chat://b","body":1}}`, "forbidden"},
		{"no room", `{"room.send":{"body":1}}`, "invalid_request"},
		{"reserved", `{"room.send":{"room":"presence://bob","body":1}}`, "room_reserved"},
		{"too large", `{"room.send":{"room":"chat://a","body":"` + strings.Repeat("x", 32<<10) + `"}}`, "too_large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			reply, _ := r.ask(member("ann", "chat://a", "presence://bob"), tt.body)
			wantCode(t, reply.GetError(), tt.want)
			if r.kafka.Calls() != 0 {
				t.Error("it was sent")
			}
		})
	}
}

func TestRoomSendOfTheMostIsTaken(t *testing.T) {
	r := newRig(t)
	reply, _ := r.ask(member("ann", "chat://a"), `{"room.send":{"room":"chat://a","body":"`+strings.Repeat("x", 32<<10-2)+`"}}`)
	if reply.GetError() != nil {
		t.Error(reply.GetError())
	}
}

func TestKafkaAwayIsToldWithATime(t *testing.T) {
	r := newRig(t)
	r.kafka.Fail(errors.New("no broker"))
	reply, _ := r.ask(member("ann", "chat://a"), `{"room.send":{"room":"chat://a","body":1}}`)
	wantCode(t, reply.GetError(), "unavailable")
	if !reply.GetError().GetRetry() || reply.GetError().GetRetryAfterMs() == 0 || strings.Contains(reply.GetError().GetMessage(), "broker") {
		t.Errorf("got %v", reply.GetError())
	}
}

func TestRoomMembersOfOnesOwnRoomsOnly(t *testing.T) {
	r := newRig(t)
	r.router.OnMembers = func(q *halleyv1.ListMembersRequest) (*halleyv1.ListMembersResponse, error) {
		if q.GetTenant() != "acme" || q.GetRoom() != "chat://a" || q.GetCursor() != "c" || q.GetLimit() != 2 {
			return nil, status.Errorf(codes.Internal, "%v", q)
		}
		return &halleyv1.ListMembersResponse{Uids: []string{"ann", "bob"}, Next: "n", Count: 5, Complete: true}, nil
	}
	q := member("ann", "chat://a")
	q.Session.Tenant = "acme"
	reply, _ := r.ask(q, `{"room.members":{"room":"chat://a","cursor":"c","limit":2}}`)
	equal(t, "page", reply.GetRoomMembers(), &halleyv1.RoomMemberPage{Uids: []string{"ann", "bob"}, Next: "n", Count: 5, Complete: true})
	reply, _ = r.ask(q, `{"room.members":{"room":"chat://b"}}`)
	wantCode(t, reply.GetError(), "forbidden")
	reply, _ = r.ask(q, `{"room.members":{"room":"chat://a","limit":201}}`)
	wantCode(t, reply.GetError(), "invalid_request")
}

func TestSessionRefresh(t *testing.T) {
	later := now.Add(2 * time.Hour)
	for _, tt := range []struct {
		name  string
		claim auth.Claims
		want  string
	}{
		{"newer", auth.Claims{UID: "ann", DeviceID: "d1", ExpiresAt: later, Rooms: []string{"chat://*"}}, ""},
		{"another user", auth.Claims{UID: "bob", DeviceID: "d1", ExpiresAt: later}, "forbidden"},
		{"another tenant", auth.Claims{Tenant: "acme", UID: "ann", DeviceID: "d1", ExpiresAt: later}, "forbidden"},
		{"another device", auth.Claims{UID: "ann", DeviceID: "d2", ExpiresAt: later}, "forbidden"},
		{"expired", auth.Claims{UID: "ann", DeviceID: "d1", ExpiresAt: now.Add(-time.Hour)}, "token_expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			q := member("ann")
			q.Session.DeviceId = "d1"
			reply, res := r.ask(q, `{"session.refresh":{"token":"`+r.token(tt.claim)+`"}}`)
			wantCode(t, reply.GetError(), tt.want)
			if tt.want != "" {
				if res.GetEffects() != nil {
					t.Errorf("effects: got %v", res.GetEffects())
				}
				return
			}
			if reply.GetSessionRefresh().GetExpiresAt() != float64(later.UnixMilli()) || res.GetEffects().GetExpiresAtMs() != later.UnixMilli() {
				t.Errorf("got %v, %v", reply, res.GetEffects())
			}
			q.Grants = res.GetEffects().GetGrants()
			if reply, _ := r.ask(q, `{"room.join":{"room":"chat://a"}}`); reply.GetError() != nil {
				t.Errorf("what the new token grants: got %v", reply.GetError())
			}
		})
	}
}

func TestRefreshWithFewerRightsTakesTheOldOnesAway(t *testing.T) {
	r := newRig(t)
	q := member("ann")
	q.Grants = r.grants("chat://*")
	_, res := r.ask(q, `{"session.refresh":{"token":"`+r.token(auth.Claims{UID: "ann"})+`"}}`)
	if res.GetEffects().Grants == nil {
		t.Fatal("grants are left as before")
	}
	q.Grants = res.GetEffects().GetGrants()
	reply, _ := r.ask(q, `{"room.join":{"room":"chat://a"}}`)
	wantCode(t, reply.GetError(), "forbidden")
}

func TestRefreshWithARevokedTokenIsRefused(t *testing.T) {
	r := newRig(t)
	r.revoked.revoked = func(*auth.Claims) bool { return true }
	reply, _ := r.ask(member("ann"), `{"session.refresh":{"token":"`+r.token(auth.Claims{UID: "ann"})+`"}}`)
	wantCode(t, reply.GetError(), "token_revoked")
}

func TestPresenceWatchAnswersAfterTheJoin(t *testing.T) {
	r := newRig(t)
	r.router.OnPresence = func(q *halleyv1.GetPresenceRequest) (*halleyv1.GetPresenceResponse, error) {
		if q.GetTenant() != "default" || !slices.Equal(q.GetUids(), []string{"bob", "eve"}) {
			return nil, status.Errorf(codes.Internal, "%v", q)
		}
		return &halleyv1.GetPresenceResponse{States: []*halleyv1.Presence{{Uid: "bob", Online: true, Platforms: []string{"web"}}, {Uid: "eve", LastSeen: 12345}}}, nil
	}
	const ask = `{"presence.watch":{"uids":["eve","bob","eve"]}}`
	q := member("ann", "presence://eve")
	_, res := r.ask(q, ask)
	if !slices.Equal(res.GetEffects().GetJoin(), []string{"presence://bob"}) || !res.GetAgain() {
		t.Errorf("first: got %v, again %t", res.GetEffects(), res.GetAgain())
	}
	q.Rooms = append(q.Rooms, "presence://bob")
	reply, res := r.ask(q, ask)
	if res.GetEffects() != nil || res.GetAgain() {
		t.Errorf("second: got %v, again %t", res.GetEffects(), res.GetAgain())
	}
	equal(t, "states", reply.GetPresenceWatch(), &halleyv1.PresenceStates{States: []*halleyv1.Presence{
		{Uid: "bob", Online: true, Platforms: []string{"web"}}, {Uid: "eve", LastSeen: 12345},
	}})
}

func TestPresenceWatchIsLimited(t *testing.T) {
	r := newRig(t)
	r.router.OnPresence = func(*halleyv1.GetPresenceRequest) (*halleyv1.GetPresenceResponse, error) {
		return &halleyv1.GetPresenceResponse{}, nil
	}
	watch := func(from, n int) string {
		uids := make([]string, n)
		for i := range uids {
			uids[i] = fmt.Sprintf("u%d", from+i)
		}
		return mustJSON(map[string]any{"presence.watch": map[string]any{"uids": uids}})
	}
	var watched []string
	for i := range 49 {
		watched = append(watched, fmt.Sprintf("presence://u%d", i))
	}
	for _, tt := range []struct {
		name, body, want string
	}{
		{"one more", watch(49, 1), ""},
		{"two more", watch(49, 2), "too_many_watched"},
		{"those watched and one more", watch(0, 50), ""},
		{"too many at once", watch(0, 51), "invalid_request"},
		{"none", `{"presence.watch":{}}`, "invalid_request"},
		{"no uid", `{"presence.watch":{"uids":["a b"]}}`, "invalid_request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reply, res := r.ask(member("ann", watched...), tt.body)
			wantCode(t, reply.GetError(), tt.want)
			if tt.want != "" && res.GetEffects() != nil {
				t.Errorf("effects: got %v", res.GetEffects())
			}
		})
	}
}

func TestWhoMayWatchPresence(t *testing.T) {
	for _, tt := range []struct {
		name          string
		rules         []string
		tenant, claim string
		want          string
	}{
		{"nothing said", nil, "default", "", ""},
		{"everyone", []string{"everyone"}, "default", "", ""},
		{"nobody", []string{"nobody"}, "default", "", "forbidden"},
		{"nobody of one tenant", []string{"acme=nobody"}, "acme", "", "forbidden"},
		{"nobody of another tenant", []string{"acme=nobody"}, "default", "", ""},
		{"everyone of one tenant", []string{"nobody", "acme=everyone"}, "acme", "", ""},
		{"the order doesn't matter", []string{"acme=everyone", "nobody"}, "acme", "", ""},
		{"the token denies", nil, "default", "nobody", "forbidden"},
		{"the token allows", []string{"nobody", "acme=nobody"}, "acme", "everyone", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(c *rpc.Config, _ *rpc.Deps) { c.WatchRules = tt.rules })
			asked := false
			r.router.OnPresence = func(*halleyv1.GetPresenceRequest) (*halleyv1.GetPresenceResponse, error) {
				asked = true
				return &halleyv1.GetPresenceResponse{States: []*halleyv1.Presence{{Uid: "bob"}}}, nil
			}
			res, err := r.Connect(t.Context(), &halleyv1.ConnectRequest{
				Conn: &halleyv1.Conn{Id: "c.1"}, Auth: []byte(`{"token":"` + r.token(auth.Claims{UID: "ann", Tenant: tt.tenant, Watch: tt.claim}) + `"}`),
			})
			if err != nil || res.GetError() != nil {
				t.Fatal(err, res.GetError())
			}
			q := member("ann", "presence://eve")
			q.Session, q.Grants = res.GetSession(), res.GetEffects().GetGrants()
			reply, answer := r.ask(q, `{"presence.watch":{"uids":["bob"]}}`)
			wantCode(t, reply.GetError(), tt.want)
			if joined := answer.GetEffects().GetJoin() != nil; joined != (tt.want == "") || asked != (tt.want == "") {
				t.Errorf("joined %v, router asked %v", joined, asked)
			}
			// What it watches from before it may leave.
			reply, _ = r.ask(q, `{"presence.unwatch":{"uids":["eve"]}}`)
			wantCode(t, reply.GetError(), "")

			// A newer token counts from then on.
			_, answer = r.ask(q, `{"session.refresh":{"token":"`+r.token(auth.Claims{UID: "ann", Tenant: tt.tenant, Watch: "nobody"})+`"}}`)
			q.Grants = answer.GetEffects().GetGrants()
			reply, _ = r.ask(q, `{"presence.watch":{"uids":["bob"]}}`)
			wantCode(t, reply.GetError(), "forbidden")
		})
	}
}

func TestWatchRuleThatIsNoneStopsTheStart(t *testing.T) {
	for _, rules := range [][]string{{"friends"}, {""}, {"acme="}, {"acme=friends"}, {"A B=nobody"}, {"nobody", "everyone"}, {"acme=nobody", "acme=nobody"}} {
		c := config()
		c.WatchRules = rules
		if err := c.Validate(); err == nil {
			t.Errorf("%q: no error", rules)
		}
	}
}

func TestPresenceUnwatch(t *testing.T) {
	r := newRig(t)
	reply, res := r.ask(member("ann", "presence://bob", "presence://eve"), `{"presence.unwatch":{"uids":["bob","joe"]}}`)
	if reply.GetPresenceUnwatch() == nil || !slices.Equal(res.GetEffects().GetLeave(), []string{"presence://bob"}) {
		t.Errorf("got %v, %v", reply, res.GetEffects())
	}
}

func TestPresenceWhileRouterIsAway(t *testing.T) {
	r := newRig(t)
	r.router.OnPresence = func(*halleyv1.GetPresenceRequest) (*halleyv1.GetPresenceResponse, error) {
		return nil, status.Error(codes.Unavailable, "redis")
	}
	reply, res := r.ask(member("ann"), `{"presence.watch":{"uids":["bob"]}}`)
	wantCode(t, reply.GetError(), "unavailable")
	if res.GetEffects() != nil {
		t.Errorf("effects: got %v", res.GetEffects())
	}
}

func TestChangeRoom(t *testing.T) {
	r := newRig(t, trustGoim)
	granted := r.grants("chat://*")
	for _, tt := range []struct {
		name, room string
		signed     bool
		in         []string
		grants     []byte
		want       string
	}{
		{"goim", "live://1", false, nil, nil, ""},
		{"goim, leave", "", false, []string{"live://1"}, nil, ""},
		{"goim, the same", "live://1", false, []string{"live://1"}, nil, ""},
		{"goim, no room", "lobby", false, nil, nil, "invalid_request"},
		{"goim, reserved", "presence://ann", false, nil, nil, "room_reserved"},
		{"signed, granted", "chat://1", true, nil, granted, ""},
		{"signed, public", "public://1", true, nil, nil, ""},
		{"signed, not granted", "live://1", true, nil, granted, "forbidden"},
		{"signed, reserved", "meeting://1", true, nil, granted, "room_reserved"},
		{"signed, watched is no room of its own", "presence://bob", true, []string{"presence://bob"}, granted, "room_reserved"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := member("ann", tt.in...)
			q.Session.Signed, q.Grants, q.Op = tt.signed, tt.grants, 12
			res := r.send(q, tt.room)
			wantCode(t, res.GetError(), tt.want)
			if string(res.GetReply()) != tt.room {
				t.Errorf("reply: got %q, want the body", res.GetReply())
			}
			if tt.want == "" {
				if e := res.GetEffects(); e == nil || e.ChangeRoom == nil || e.GetChangeRoom() != tt.room {
					t.Errorf("effects: got %v", e)
				}
			} else if res.GetEffects() != nil {
				t.Errorf("effects: got %v", res.GetEffects())
			}
		})
	}
}

func TestUpstreamKeepsTheSendersIdentity(t *testing.T) {
	r := newRig(t, func(_ *rpc.Config, d *rpc.Deps) { d.Upstream = true })
	q := member("ann", "chat://a")
	q.Op = 1234
	if res := r.send(q, "\x00\xffraw"); res.GetError() != nil {
		t.Fatal(res.GetError())
	}
	noUID := member("", "chat://a")
	noUID.Session.Key, noUID.Op = "k9", 1000
	r.send(noUID, "")
	msgs := r.kafka.Messages()
	if len(msgs) != 2 || msgs[0].Topic != topic.Upstream || string(msgs[0].Key) != "default\x00uid\x00ann" || string(msgs[1].Key) != "default\x00key\x00k9" {
		t.Fatalf("got %v", msgs)
	}
	rec := &halleyv1.UpstreamRecord{}
	if err := proto.Unmarshal(msgs[0].Value, rec); err != nil {
		t.Fatal(err)
	}
	equal(t, "record", rec, &halleyv1.UpstreamRecord{Session: q.Session, Rooms: q.Rooms, Op: 1234, Body: []byte("\x00\xffraw"), AcceptedAtMs: now.UnixMilli()})

	r.kafka.Fail(errors.New("no broker"))
	e := r.send(q, "x").GetError()
	wantCode(t, e, "unavailable")
	if e.GetRetryAfterMs() != 3000 {
		t.Errorf("to wait %d ms, want what is set, 3000", e.GetRetryAfterMs())
	}
}

func TestUpstreamIsOffByDefault(t *testing.T) {
	r := newRig(t)
	q := member("ann")
	q.Op = 1234
	if res := r.send(q, "x"); res.GetError() != nil || r.kafka.Calls() != 0 {
		t.Errorf("got %v, %d writes", res, r.kafka.Calls())
	}
}

func TestRequestOfNobodyIsRefused(t *testing.T) {
	r := newRig(t)
	for _, op := range []int32{100, 12, 1000} {
		wantCode(t, r.send(&halleyv1.SessionRequest{Op: op}, `{}`).GetError(), "invalid_request")
	}
	q := member("ann")
	q.Op = 4
	wantCode(t, r.send(q, "").GetError(), "invalid_request")
}

func TestRequestsWrittenFromTheContractAreUnderstood(t *testing.T) {
	r := newRig(t)
	r.router.OnMembers = func(*halleyv1.ListMembersRequest) (*halleyv1.ListMembersResponse, error) {
		return &halleyv1.ListMembersResponse{}, nil
	}
	r.router.OnPresence = func(*halleyv1.GetPresenceRequest) (*halleyv1.GetPresenceResponse, error) {
		return &halleyv1.GetPresenceResponse{}, nil
	}
	for _, m := range []*halleyv1.Request{
		{Method: &halleyv1.Request_RoomJoin{RoomJoin: &halleyv1.RoomJoin{Room: "public://b"}}},
		{Method: &halleyv1.Request_RoomLeave{RoomLeave: &halleyv1.RoomLeave{Room: "public://a"}}},
		{Method: &halleyv1.Request_RoomSend{RoomSend: &halleyv1.RoomSend{Room: "public://a", Echo: true}}},
		{Method: &halleyv1.Request_RoomMembers{RoomMembers: &halleyv1.RoomMembers{Room: "public://a", Limit: 3, Cursor: "x"}}},
		{Method: &halleyv1.Request_SessionRefresh{SessionRefresh: &halleyv1.SessionRefresh{Token: r.token(auth.Claims{UID: "ann"})}}},
		{Method: &halleyv1.Request_PresenceWatch{PresenceWatch: &halleyv1.PresenceWatch{Uids: []string{"bob"}}}},
		{Method: &halleyv1.Request_PresenceUnwatch{PresenceUnwatch: &halleyv1.PresenceUnwatch{Uids: []string{"bob"}}}},
	} {
		b, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		reply, _ := r.ask(member("ann", "public://a"), string(b))
		if reply.GetError() != nil || reply.GetResult() == nil {
			t.Errorf("%s: got %v", b, reply)
		}
	}
}

func FuzzRequest(f *testing.F) {
	r := newChatRig(f, func(_ *conversation.Config, d *conversation.Deps) { d.Producer = nowhere{} })
	r.router.OnMembers = func(*halleyv1.ListMembersRequest) (*halleyv1.ListMembersResponse, error) {
		return &halleyv1.ListMembersResponse{}, nil
	}
	r.router.OnPresence = func(*halleyv1.GetPresenceRequest) (*halleyv1.GetPresenceResponse, error) {
		return &halleyv1.GetPresenceResponse{}, nil
	}
	for _, s := range []string{
		`{"room.join":{"room":"public://b"}}`, `{"room.send":{"room":"public://a","body":{"x":[1,2,"é"]},"echo":true}}`, `{"room.members":{"room":"public://a","limit":3}}`,
		`{"session.refresh":{"token":"a.b.c"}}`, `{"presence.watch":{"uids":["bob"]}}`, `{"presence.unwatch":{"uids":["bob"]}}`, `{"room.leave":{"room":"public://a"}}`, "public://x",
	} {
		f.Add(int32(100), []byte(s))
		f.Add(int32(12), []byte(s))
	}
	for _, m := range everyMethod() {
		f.Add(int32(100), []byte(contract(f, m)))
	}
	f.Fuzz(func(t *testing.T, op int32, b []byte) {
		q := member("ann", "public://a")
		q.Op, q.Body = op, b
		res := r.Request(context.Background(), q)
		if res.GetError().GetCode() == "internal" || strings.Contains(string(res.GetReply()), `"code":"internal"`) {
			t.Errorf("op %d, %q is our fault: %s", op, b, res.GetReply())
		}
		if op == 100 || op == 103 || op == 104 {
			m := &halleyv1.Reply{}
			if err := protojson.Unmarshal(res.GetReply(), m); err != nil || m.GetResult() == nil {
				t.Errorf("op %d, %q: reply %s: %v", op, b, res.GetReply(), err)
			}
		}
	})
}

// nowhere takes every record.
type nowhere struct{}

func (nowhere) Produce(context.Context, ...kafka.Message) error { return nil }

func BenchmarkRoomSend(b *testing.B) {
	r := newRig(b, func(_ *rpc.Config, d *rpc.Deps) { d.Push = nobody{} })
	q := member("ann", "public://a")
	q.Body = []byte(`{"room.send":{"room":"public://a","body":{"text":"hello","n":1}}}`)
	b.ReportAllocs()
	for b.Loop() {
		r.Request(b.Context(), q)
	}
}

// nobody takes every push.
type nobody struct{ rpc.Pusher }

func (nobody) Push(context.Context, push.Request) (push.Result, error) { return push.Result{}, nil }
