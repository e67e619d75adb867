package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// tenant is one of two products on a cluster that use the same names.
type tenant struct {
	name     string
	platform string
	api      *API
	ann      *Session
	bob      *Session
}

// testTenants has two tenants use equal names through every call: nothing of one is ever seen by the other.
func testTenants(t *testing.T, c *Cluster) {
	const room, key = "chat://lobby", "same-key"
	make2 := func(name, platform string) *tenant {
		x := &tenant{name: name, platform: platform, api: c.API().For(name)}
		claims := func(key string) Claims {
			return Claims{"tenant": name, "rooms": []string{"chat://*"}, "key": key, "platform": platform, "device": "phone"}
		}
		x.ann = login(t, c.Comets[0], "tcp", &halleyv1.Auth{Token: c.Token("ann", claims(key)), Rooms: []string{room}})
		x.bob = login(t, c.Comets[0], "ws", &halleyv1.Auth{Token: c.Token("bob", claims("bobs-key"))})
		return x
	}
	// Platforms tell whose ann an event is about.
	red, blue := make2("red", "ios"), make2("blue", "android")
	both := []*tenant{red, blue}

	t.Run("auth tells the tenant, equal keys do not displace each other", func(t *testing.T) {
		for _, x := range both {
			if x.ann.Auth.GetTenant() != x.name || x.ann.Auth.GetUid() != "ann" || x.ann.Auth.GetKey() != key {
				t.Errorf("%s: got %v", x.name, x.ann.Auth)
			}
			if err := x.ann.Beat(); err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
		}
	})

	t.Run("pushes", func(t *testing.T) {
		// Op tells them apart.
		for i, p := range []Push{{UIDs: []string{"ann"}}, {Keys: []string{key}}, {Rooms: []string{room}}, {All: true}, {UIDs: []string{"ann"}, Lane: "urgent"}} {
			p.Op = int32(2000 + i)
			p.Text = "for red"
			red.api.Push(t, p)
			heard(t, red.ann, p.Op, "for red")
			nothing(t, blue.ann, blue.api, p.Op)
		}
	})

	t.Run("push batches", func(t *testing.T) {
		items := []Push{{UIDs: []string{"ann"}, Op: 2100, Text: "1"}, {Rooms: []string{room}, Op: 2100, Text: "2"}}
		blue.api.Must(t, 200, "POST", "/v1/push/batch", map[string]any{"items": items}, nil)
		// One is for a user and one for a room: there is no order between them.
		for range 2 {
			if _, err := blue.ann.AwaitPush(waitTime, 2100); err != nil {
				t.Fatal(err)
			}
		}
		nothing(t, red.ann, red.api, 2100)
	})

	t.Run("idempotency keys", func(t *testing.T) {
		for _, x := range both {
			for range 2 {
				a, err := x.api.Do(t.Context(), "POST", "/v1/push", http.Header{"Idempotency-Key": {"same"}}, Push{UIDs: []string{"ann"}, Op: 2200, Text: x.name})
				if err != nil || a.Status != 200 {
					t.Fatalf("%s: %v, %v; the other tenant's key must not count", x.name, a, err)
				}
			}
			heard(t, x.ann, 2200, x.name)
			nothing(t, x.ann, x.api, 2200) // the repeat was answered, not carried out
		}
	})

	t.Run("rooms of clients", func(t *testing.T) {
		for _, x := range both {
			if err := x.bob.Join(room); err != nil {
				t.Fatal(err)
			}
		}
		send := &halleyv1.Request{Method: &halleyv1.Request_RoomSend{RoomSend: &halleyv1.RoomSend{Room: room, Body: text("from red bob")}}}
		if _, err := red.bob.Request(send); err != nil {
			t.Fatal(err)
		}
		e, err := red.ann.AwaitEvent(waitTime, func(e *halleyv1.Event) bool { return e.GetRoomMessage() != nil })
		if err != nil || e.GetRoomMessage().GetFrom() != "bob" || e.GetRoomMessage().GetBody().GetStringValue() != "from red bob" {
			t.Fatalf("got %v, %v", e, err)
		}
		red.api.Push(t, Push{Rooms: []string{room}, Op: 2300, Text: "later"})
		blue.api.Push(t, Push{Rooms: []string{room}, Op: 2300, Text: "mark"})
		heard(t, blue.ann, 2300, "mark")
		if e, err := blue.ann.AwaitEvent(100*time.Millisecond, func(e *halleyv1.Event) bool { return e.GetRoomMessage() != nil }); err == nil {
			t.Errorf("blue got red's message: %v", e)
		}
		within(t, waitTime, "blue's room has its two", func() (bool, string) {
			reply, err := blue.bob.Request(&halleyv1.Request{Method: &halleyv1.Request_RoomMembers{RoomMembers: &halleyv1.RoomMembers{Room: room}}})
			return err == nil && fmt.Sprint(reply.GetRoomMembers().GetUids()) == "[ann bob]" && reply.GetRoomMembers().GetCount() == 2, fmt.Sprint(reply, err)
		})
		if err := red.bob.Leave(room); err != nil {
			t.Fatal(err)
		}
	})

	path := "/v1/rooms/" + url.PathEscape(room)
	count := func(t *testing.T, x *tenant) int {
		var out struct {
			Rooms []struct{ Count int }
		}
		x.api.Must(t, 200, "POST", "/v1/rooms/count", map[string]any{"rooms": []string{room}}, &out)
		return out.Rooms[0].Count
	}
	t.Run("rooms of backends", func(t *testing.T) {
		within(t, waitTime, "red counts 1, blue 2", func() (bool, string) {
			r, b := count(t, red), count(t, blue)
			return r == 1 && b == 2, fmt.Sprint(r, b)
		})
		within(t, waitTime, "blue's top rooms", func() (bool, string) {
			var top struct {
				Rooms []struct {
					Room  string
					Count int
				}
			}
			blue.api.Must(t, 200, "GET", "/v1/rooms?type=chat", nil, &top)
			return len(top.Rooms) == 1 && top.Rooms[0].Room == room && top.Rooms[0].Count == 2, fmt.Sprint(top)
		})
		red.api.Must(t, 200, "PUT", path+"/members/bob", nil, nil)
		within(t, waitTime, "red counts 2", func() (bool, string) { return count(t, red) == 2, "" })
		within(t, waitTime, "red's room has its two", func() (bool, string) {
			var page struct{ UIDs []string }
			red.api.Must(t, 200, "GET", path+"/members", nil, &page)
			return fmt.Sprint(page.UIDs) == "[ann bob]", fmt.Sprint(page)
		})
		red.api.Must(t, 200, "DELETE", path+"/members/bob", nil, nil)
		within(t, waitTime, "red counts 1", func() (bool, string) { return count(t, red) == 1, "" })
		if n := count(t, blue); n != 2 {
			t.Errorf("blue's room has %d members after red took one out of its own, want 2", n)
		}
		red.api.Must(t, 200, "POST", path+"/messages", map[string]any{"body": "from red's backend"}, nil)
		if _, err := red.ann.AwaitEvent(waitTime, func(e *halleyv1.Event) bool {
			return e.GetRoomMessage().GetBody().GetStringValue() == "from red's backend"
		}); err != nil {
			t.Errorf("message of the backend: %v", err)
		}
		red.api.Must(t, 200, "DELETE", path, nil, nil)
		within(t, waitTime, "red's room is empty", func() (bool, string) { return count(t, red) == 0, "" })
		if n := count(t, blue); n != 2 {
			t.Errorf("blue's room has %d members after red closed its own, want 2", n)
		}
	})

	t.Run("presence, sessions and kicks", func(t *testing.T) {
		watch := &halleyv1.Request{Method: &halleyv1.Request_PresenceWatch{PresenceWatch: &halleyv1.PresenceWatch{Uids: []string{"ann"}}}}
		for _, x := range both {
			r, err := x.bob.Request(watch)
			if err != nil || !r.GetPresenceWatch().GetStates()[0].GetOnline() || fmt.Sprint(r.GetPresenceWatch().GetStates()[0].GetPlatforms()) != "["+x.platform+"]" {
				t.Fatalf("%s: watch: %v, %v", x.name, r, err)
			}
		}
		var list struct{ Sessions []struct{ Connection string } }
		red.api.Must(t, 200, "GET", "/v1/sessions?uid=ann", nil, &list)
		if len(list.Sessions) != 1 || list.Sessions[0].Connection != red.ann.Auth.GetConnection() {
			t.Errorf("sessions of red's ann: %v", list)
		}
		red.api.Must(t, 200, "GET", "/v1/sessions?key="+key, nil, &list)
		if len(list.Sessions) != 1 || list.Sessions[0].Connection != red.ann.Auth.GetConnection() {
			t.Errorf("sessions of red's key: %v", list)
		}
		red.api.Must(t, 200, "POST", "/v1/sessions/kick", map[string]any{"uid": "ann"}, nil)
		if why, err := red.ann.AwaitClose(waitTime); err != nil || why.GetCode() != "kicked" {
			t.Errorf("red's ann: closed with %v, %v; want kicked", why, err)
		}
		within(t, presenceLimit, "red's ann is offline", func() (bool, string) {
			got, err := states(t.Context(), red.api, "ann")
			return err == nil && !got["ann"].Online, fmt.Sprint(got, err)
		})
		if got, err := states(t.Context(), blue.api, "ann"); err != nil || !got["ann"].Online {
			t.Errorf("blue's ann: %v, %v; want online", got, err)
		}
		if err := blue.ann.Beat(); err != nil {
			t.Errorf("blue's ann after red's was kicked: %v", err)
		}
		// When red's bob has heard of it, it was announced. That blue's ann is there may be told late, and rightly.
		if _, err := red.bob.AwaitEvent(presenceLimit, func(e *halleyv1.Event) bool { return e.GetPresence() != nil && !e.GetPresence().GetOnline() }); err != nil {
			t.Errorf("red's bob was not told that his ann left: %v", err)
		}
		ofReds := func(e *halleyv1.Event) bool {
			p := e.GetPresence()
			return p != nil && (!p.GetOnline() || slices.Contains(p.GetPlatforms(), red.platform))
		}
		if e, err := blue.bob.AwaitEvent(1500*time.Millisecond, ofReds); err == nil {
			t.Errorf("blue's bob was told of red's ann: %v", e)
		}
	})

	t.Run("tokens and revocation", func(t *testing.T) {
		mint := func(x *tenant) string {
			var out struct{ Token string }
			x.api.Must(t, 200, "POST", "/v1/tokens", map[string]any{"uid": "ann", "key": key}, &out)
			return out.Token
		}
		redToken, blueToken := mint(red), mint(blue)
		s, err := c.Comets[0].Login("tcp", &halleyv1.Auth{Token: redToken})
		if err != nil || s.Auth.GetTenant() != "red" {
			t.Fatalf("minted token: %v", err)
		}
		s.Close()
		red.api.Must(t, 200, "POST", "/v1/tokens/revoke", map[string]any{"uid": "ann"}, nil)
		within(t, waitTime, "red's token is void", func() (bool, string) {
			s, err := c.Comets[0].Login("tcp", &halleyv1.Auth{Token: redToken})
			if err == nil {
				s.Close()
			}
			return Code(err) == "token_revoked", fmt.Sprint(err)
		})
		s, err = c.Comets[0].Login("tcp", &halleyv1.Auth{Token: blueToken})
		if err != nil {
			t.Fatalf("blue's token after red revoked ann's: %v", err)
		}
		s.Close()
	})
}
