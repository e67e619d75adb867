package httpapi_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic/internal/httpapi"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

func TestTokenIsWhatWasAskedFor(t *testing.T) {
	s := newServer(t)
	a := s.do("POST", "/v1/tokens", "token", `{"uid":"ann","device":"d1","platform":"ios","key":"k","rooms":["chat://*"],"accepts":[1000],"watch":"nobody","ttl":90}`).want(t, 200, "")
	m := a.json(t)
	c, err := s.verify.Verify(m["token"].(string))
	if err != nil {
		t.Fatal(err)
	}
	if c.UID != "ann" || c.DeviceID != "d1" || c.Platform != "ios" || c.Key != "k" || !slices.Equal(c.Rooms, []string{"chat://*"}) || !slices.Equal(c.Accepts, []int32{1000}) ||
		c.Watch != token.WatchNobody {
		t.Errorf("got %+v", c)
	}
	if want := now.Add(90 * time.Second); !c.ExpiresAt.Equal(want) || m["expires_at"] != float64(want.UnixMilli()) {
		t.Errorf("expires at %v, told %v", c.ExpiresAt, m["expires_at"])
	}
	if a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("got Cache-Control %q", a.header.Get("Cache-Control"))
	}
	for _, bad := range []string{`{}`, `{"uid":""}`, `{"uid":"a b"}`, `{"uid":"ann","ttl":-1}`, `{"uid":"ann","ttl":1e12}`, `{"uid":"ann","device":"a b"}`, `{"uid":"ann","watch":"friends"}`, `{"uid":"ann","tenant":"shop"}`} {
		s.do("POST", "/v1/tokens", "token", bad).want(t, 400, "invalid_request")
	}
	s.do("POST", "/v1/tokens", "token", `{"uid":"ann","rooms":["presence://*"]}`).want(t, 403, "room_reserved")
}

func TestRevokeEndsSessionsToo(t *testing.T) {
	s := newServer(t)
	s.do("POST", "/v1/tokens/revoke", "token", `{"uid":"ann","device":"d1","before":1000}`).want(t, 200, "")
	if got := s.revoker.taken(); !slices.Equal(got, []revoked{{"default", "ann", "d1", 1000}}) {
		t.Errorf("got %v", got)
	}
	recs := s.kafka.taken()
	if len(recs) != 1 || recs[0].topic != topic.Urgent || recs[0].GetClass() != halleyv1.Class_CLASS_CONTROL || targets(recs)[0] != "uid:ann" {
		t.Fatalf("got %v", recs)
	}
	k := recs[0].GetControl().GetKick()
	if k.GetDeviceId() != "d1" || k.GetIssuedBeforeMs() != 1000 || k.GetError().GetCode() != errcode.TokenRevoked.Name {
		t.Errorf("got %v", k)
	}
	// If the list can't be written nobody is ended: they could come back.
	s.revoker.err = errcode.Unavailable
	s.do("POST", "/v1/tokens/revoke", "token", `{"uid":"ann"}`).want(t, 503, "unavailable")
	s.do("POST", "/v1/sessions/kick", "admin", `{"uid":"ann","revoke":true}`).want(t, 503, "unavailable")
	if n := len(s.kafka.taken()); n != 0 {
		t.Errorf("got %d records", n)
	}
}

func TestKick(t *testing.T) {
	s := newServer(t)
	for body, want := range map[string]string{
		`{"uid":"ann"}`: "uid:ann  0", `{"uid":"ann","device":"d1"}`: "uid:ann d1 0", `{"uid":"ann","revoke":true}`: "uid:ann  1", `{"key":"k1"}`: "key:k1  0",
	} {
		s.do("POST", "/v1/sessions/kick", "admin", body).want(t, 200, "")
		recs := s.kafka.taken()
		if len(recs) != 1 || recs[0].GetControl().GetKick().GetError().GetCode() != "kicked" {
			t.Fatalf("%s: got %v", body, recs)
		}
		got := fmt.Sprintf("%s %s %d", targets(recs)[0], recs[0].GetControl().GetKick().GetDeviceId(), len(s.revoker.taken()))
		if got != want {
			t.Errorf("%s: got %s, want %s", body, got, want)
		}
	}
	for _, bad := range []string{`{}`, `{"uid":"a","key":"b"}`, `{"key":"b","revoke":true}`, `{"key":"b","device":"d"}`, `{"device":"d"}`, `{"uid":"a b"}`, `{"uid":"a","device":"a b"}`} {
		s.do("POST", "/v1/sessions/kick", "admin", bad).want(t, 400, "invalid_request")
	}
}

func TestRoomsAreManaged(t *testing.T) {
	s := newServer(t)
	// A room with a slash, a space and a letter beyond ASCII, percent-encoded.
	path := "/v1/rooms/chat%3A%2F%2Fa%2Fb%20%C3%A9"
	const room = "chat://a/b é"
	s.do("PUT", path+"/members/ann", "admin", "").want(t, 200, "")
	s.do("DELETE", path+"/members/ann", "admin", "").want(t, 200, "")
	s.do("DELETE", path, "admin", "").want(t, 200, "")
	recs := s.kafka.taken()
	if len(recs) != 3 {
		t.Fatalf("got %d records", len(recs))
	}
	if got := recs[0].GetControl().GetRooms(); !slices.Equal(got.GetJoin(), []string{room}) || targets(recs[:1])[0] != "uid:ann" {
		t.Errorf("got %v", recs[0])
	}
	if got := recs[1].GetControl().GetRooms(); !slices.Equal(got.GetLeave(), []string{room}) {
		t.Errorf("got %v", recs[1])
	}
	if recs[2].GetControl().GetCloseRoom() == nil || targets(recs[2:])[0] != "room:"+room {
		t.Errorf("got %v", recs[2])
	}
	s.do("PUT", "/v1/rooms/presence%3A%2F%2Fann/members/bob", "admin", "").want(t, 403, "room_reserved")
	s.do("DELETE", "/v1/rooms/meeting%3A%2F%2Fann", "admin", "").want(t, 403, "room_reserved")
	s.do("GET", "/v1/rooms/conversation%3A%2F%2F1/members", "read", "").want(t, 403, "room_reserved")
	s.do("PUT", "/v1/rooms/lobby/members/bob", "admin", "").want(t, 400, "invalid_request")
	s.do("PUT", path+"/members/a%20b", "admin", "").want(t, 400, "invalid_request")
}

func TestMembersComeInPages(t *testing.T) {
	s := newServer(t)
	var want []string
	for i := range 250 {
		want = append(want, fmt.Sprintf("u%03d", i))
	}
	s.router.members["default\x00chat://lobby"] = want
	var got []string
	cursor := ""
	for range 5 {
		m := s.do("GET", "/v1/rooms/chat%3A%2F%2Flobby/members?limit=100&cursor="+cursor, "read", "").want(t, 200, "").json(t)
		for _, uid := range m["uids"].([]any) {
			got = append(got, uid.(string))
		}
		if m["count"] != 250.0 || m["complete"] != true {
			t.Errorf("got %v", m)
		}
		if cursor, _ = m["next"].(string); cursor == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d uids, want 250 in order", len(got))
	}
	if a := s.do("GET", "/v1/rooms/chat%3A%2F%2Fnobody/members", "read", "").want(t, 200, ""); !strings.Contains(a.body, `"uids":[]`) {
		t.Errorf("got %s", a.body)
	}
	for _, limit := range []string{"0", "201", "-1", "x"} {
		s.do("GET", "/v1/rooms/chat%3A%2F%2Flobby/members?limit="+limit, "read", "").want(t, 400, "invalid_request")
	}
}

func TestRoomQueriesAreChecked(t *testing.T) {
	s := newServer(t)
	for _, q := range []string{"", "?type=", "?type=presence", "?type=chat://x", "?type=chat&limit=0", "?type=chat&limit=1001", "?type=chat&limit=x"} {
		s.do("GET", "/v1/rooms"+q, "read", "").want(t, 400, "invalid_request")
	}
	many := `{"rooms":["` + strings.Repeat(`chat://x","`, 1000) + `chat://x"]}`
	s.do("POST", "/v1/rooms/count", "read", many).want(t, 400, "invalid_request")
	s.do("POST", "/v1/rooms/count", "read", `{"rooms":["x"]}`).want(t, 400, "invalid_request")
	for _, q := range []string{"", "?uid=a&key=b", "?uid=a%20b", "?key=a%20b"} {
		s.do("GET", "/v1/sessions"+q, "read", "").want(t, 400, "invalid_request")
	}
}

func TestRoomMessageIsBoundedAsClientsAre(t *testing.T) {
	s := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) { d.RoomBodyBytes = 100 })
	s.do("POST", "/v1/rooms/chat%3A%2F%2Flobby/messages", "push", `{"body":"`+strings.Repeat("x", 98)+`"}`).want(t, 200, "")
	s.do("POST", "/v1/rooms/chat%3A%2F%2Flobby/messages", "push", `{"body":"`+strings.Repeat("x", 99)+`"}`).want(t, 413, "too_large")
}

func TestRoomMessageIsTheEventOfAMember(t *testing.T) {
	s := newServer(t)
	id := s.do("POST", "/v1/rooms/chat%3A%2F%2Flobby/messages", "push", `{"body":{"b":1, "a":"<é>"},"from":"bot"}`).want(t, 200, "").json(t)["id"]
	recs := s.kafka.taken()
	if len(recs) != 1 || recs[0].GetPush().GetOp() != 102 || targets(recs)[0] != "room:chat://lobby" || recs[0].GetId() != id {
		t.Fatalf("got %v", recs)
	}
	ev := &halleyv1.Event{}
	if err := protojson.Unmarshal(recs[0].GetPush().GetBody(), ev); err != nil {
		t.Fatal(err)
	}
	m := ev.GetRoomMessage()
	if m.GetId() != id || m.GetRoom() != "chat://lobby" || m.GetFrom() != "bot" || m.GetServerTime() != float64(now.UnixMilli()) ||
		m.GetBody().GetStructValue().GetFields()["a"].GetStringValue() != "<é>" {
		t.Errorf("got %v", m)
	}
	s.do("POST", "/v1/rooms/presence%3A%2F%2Fann/messages", "push", `{"body":1}`).want(t, 403, "room_reserved")
	s.do("POST", "/v1/rooms/chat%3A%2F%2Flobby/messages", "push", `{"body":"`+strings.Repeat("x", 32<<10)+`"}`).want(t, 413, "too_large")
	s.do("POST", "/v1/rooms/chat%3A%2F%2Flobby/messages", "push", `{"body":1,"from":"a b"}`).want(t, 400, "invalid_request")
	s.do("POST", "/v1/rooms/chat%3A%2F%2Flobby/messages", "push", `{}`).want(t, 400, "invalid_request")
}

func TestPresenceOfThousands(t *testing.T) {
	s := twoTenants(t)
	uids := make([]string, 10_000)
	for i := range uids {
		uids[i] = fmt.Sprintf("u%d", i)
	}
	uids[5000] = "ann"
	body, err := json.Marshal(map[string]any{"uids": uids})
	if err != nil {
		t.Fatal(err)
	}
	states := s.do("POST", "/v1/presence", "read", string(body)).want(t, 200, "").json(t)["states"].([]any)
	if len(states) != 10_000 {
		t.Fatalf("got %d states", len(states))
	}
	ann := states[5000].(map[string]any)
	if ann["uid"] != "ann" || ann["online"] != true || states[0].(map[string]any)["online"] != false {
		t.Errorf("got %v and %v", ann, states[0])
	}
	if body, err = json.Marshal(map[string]any{"uids": append(uids, "one")}); err != nil {
		t.Fatal(err)
	}
	s.do("POST", "/v1/presence", "read", string(body)).want(t, 400, "invalid_request")
	s.do("POST", "/v1/presence", "read", `{"uids":[]}`).want(t, 400, "invalid_request")
	s.do("POST", "/v1/presence", "read", `{"uids":["a b"]}`).want(t, 400, "invalid_request")
}

func TestAllWhoAreOnlineInPages(t *testing.T) {
	s := twoTenants(t)
	var uids []string
	for next := ""; ; {
		page := s.do("GET", "/v1/presence?limit=1&cursor="+next, "read", "").want(t, 200, "").json(t)
		for _, u := range page["users"].([]any) {
			uids = append(uids, u.(map[string]any)["uid"].(string))
		}
		if next, _ = page["next"].(string); next == "" {
			break
		}
	}
	if !slices.Contains(uids, "ann") || len(uids) != len(s.router.sessions["default"]) {
		t.Errorf("got %v", uids)
	}
	for _, q := range []string{"?limit=0", "?limit=1001", "?limit=x"} {
		s.do("GET", "/v1/presence"+q, "read", "").want(t, 400, "invalid_request")
	}
	s.router.err = status.Error(codes.Unavailable, "no Redis")
	s.do("GET", "/v1/presence", "read", "").want(t, 503, "unavailable")
}

func TestEndpointsAndCluster(t *testing.T) {
	s := newServer(t)
	if a := s.do("GET", "/v1/endpoints", "", "").want(t, 200, ""); a.body != `{"endpoints":[]}` {
		t.Errorf("got %s", a.body)
	}
	s = newServer(t)
	s.router.comets = []*halleyv1.CometInfo{
		{Comet: "c1", Epoch: "e1", Addr: "10.0.0.1:3109", DueMs: 5, EnrolledAtMs: 3, Load: &halleyv1.CometLoad{Connections: 9, Addresses: 2, Rooms: 4, Capacity: 100},
			Endpoints: &halleyv1.Endpoints{Host: "im1.example.org", TcpPort: 3101, WsPort: 3102, WssPort: 3103, TlsPort: 3104}},
		{Comet: "c2", Draining: true, Endpoints: &halleyv1.Endpoints{Host: "im2.example.org", TcpPort: 3101}},
		{Comet: "c3", Load: &halleyv1.CometLoad{Connections: 1}, Endpoints: &halleyv1.Endpoints{Host: "::1", WsPort: 3102, WsUrl: "wss://edge.example.org/ws"}},
		{Comet: "c4"},
	}
	want := `{"endpoints":[{"ws":"ws://[::1]:3102/sub","wss":"wss://edge.example.org/ws"},{"ws":"ws://im1.example.org:3102/sub","wss":"wss://im1.example.org:3103/sub","tcp":"im1.example.org:3101","tls":"im1.example.org:3104"}]}`
	if a := s.do("GET", "/v1/endpoints", "", "").want(t, 200, ""); a.body != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
	m := s.do("GET", "/v1/cluster", "read", "").want(t, 200, "").json(t)
	comets := m["comets"].([]any)
	if m["version"] != "test" || m["now"] != float64(now.UnixMilli()) || len(comets) != 4 {
		t.Fatalf("got %v", m)
	}
	c1 := comets[0].(map[string]any)
	if c1["name"] != "c1" || c1["epoch"] != "e1" || c1["connections"] != 9.0 || c1["lease_due"] != 5.0 || c1["draining"] != false || c1["tcp"] != "im1.example.org:3101" {
		t.Errorf("got %v", c1)
	}
	if comets[1].(map[string]any)["draining"] != true {
		t.Errorf("got %v", comets[1])
	}
}
