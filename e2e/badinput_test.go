package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func text(s string) *structpb.Value { return structpb.NewStringValue(s) }

// memorySlack is how much a process may grow under all that is thrown at it; the race detector multiplies it.
func memorySlack() int64 {
	if raceDetector {
		return 1 << 30
	}
	return 96 << 20
}

// testBadInput throws at every port what strangers may send. Each gets a clear error or is closed; no process ends, and none
// grows.
func testBadInput(t *testing.T, c *Cluster) {
	before := map[string]int64{}
	for _, p := range All(c.Comets, c.Logics, c.Routers, c.Jobs) {
		before[p.Name] = p.RSS()
	}
	t.Run("cases", func(t *testing.T) {
		for _, bad := range []struct {
			name string
			run  func(*testing.T, *Cluster)
		}{
			{"wrong tokens", badTokens},
			{"revoked token", badRevoked},
			{"revoked device", badRevokedDevice},
			{"API keys", badAPIKeys},
			{"fuzzed frames", badFrames},
			{"huge frames and bodies", badSizes},
			{"forged ops", badOps},
			{"reserved rooms", badRooms},
			{"100,000 rooms", badManyRooms},
			{"requests that are none", badRequests},
			{"slow handshakes", badSlow},
			{"garbage on every port", badGarbage},
		} {
			t.Run(bad.name, func(t *testing.T) {
				t.Parallel()
				bad.run(t, c)
			})
		}
	})
	for _, p := range All(c.Comets, c.Logics, c.Routers, c.Jobs) {
		if !p.Running() {
			t.Errorf("%s has ended:\n%s", p.Name, p.Tail(20))
			continue
		}
		// What the collector has not given back yet is not growth.
		within(t, 30*time.Second, p.Name+"'s memory is flat", func() (bool, string) {
			grown := p.RSS() - before[p.Name]
			return grown < memorySlack(), fmt.Sprintf("grown by %d MB from %d MB", grown>>20, before[p.Name]>>20)
		})
		t.Logf("%s: %d MB before, %d MB after", p.Name, before[p.Name]>>20, p.RSS()>>20)
	}
	works(t, c)
}

// works checks that a push still arrives over both transports.
func works(t *testing.T, c *Cluster) {
	t.Helper()
	for _, transport := range []string{"tcp", "ws"} {
		s := login(t, c.Comets[0], transport, &halleyv1.Auth{Token: c.Token("well-"+transport, nil)})
		c.API().Push(t, Push{UIDs: []string{"well-" + transport}, Op: 3000, Text: "all is well"})
		heard(t, s, 3000, "all is well")
	}
}

func badTokens(t *testing.T, c *Cluster) {
	good := UserClaims("mallory", time.Hour)
	with := func(k string, v any) Claims {
		out := Claims{}
		for key, value := range good {
			out[key] = value
		}
		if v == nil {
			delete(out, k)
		} else {
			out[k] = v
		}
		return out
	}
	kid, key := c.Secrets.Kid, c.Secrets.Token
	signed := Token(kid, key, good)
	half := strings.LastIndex(signed, ".")
	past, future := time.Now().Add(-time.Hour).Unix(), time.Now().Add(time.Hour).Unix()
	for _, bad := range []struct{ name, token, code string }{
		{"not a token", "hello", "unauthenticated"},
		{"two dots", "..", "unauthenticated"},
		{"expired", Token(kid, key, with("exp", past)), "token_expired"},
		{"not yet", Token(kid, key, with("nbf", future)), "unauthenticated"},
		{"without end", Token(kid, key, with("exp", nil)), "unauthenticated"},
		{"for a hundred years", Token(kid, key, with("exp", time.Now().AddDate(100, 0, 0).Unix())), "unauthenticated"},
		{"algorithm none", TokenAlg("none", kid, nil, good), "unauthenticated"},
		{"algorithm HS512 in the header", TokenAlg("HS512", kid, key, good), "unauthenticated"},
		{"algorithm RS256 in the header", TokenAlg("RS256", kid, key, good), "unauthenticated"},
		{"other key", Token(kid, []byte("another key, which is as long as that"), good), "unauthenticated"},
		{"unknown kid", Token("other", key, good), "unauthenticated"},
		{"kid that is a path", Token("../../etc/passwd", key, good), "unauthenticated"},
		{"signature cut", signed[:len(signed)-3], "unauthenticated"},
		{"no signature", signed[:half+1], "unauthenticated"},
		{"other claims under the signature", swapClaims(signed, with("sub", "admin")), "unauthenticated"},
		{"no user", Token(kid, key, with("sub", nil)), "unauthenticated"},
		{"user with a NUL", Token(kid, key, with("sub", "a\x00b")), "unauthenticated"},
		{"user of 65 bytes", Token(kid, key, with("sub", strings.Repeat("u", 65))), "unauthenticated"},
		{"tenant with a slash", Token(kid, key, with("tenant", "a/b")), "unauthenticated"},
		{"times that are text", Token(kid, key, with("exp", "tomorrow")), "unauthenticated"},
		{"huge", Token(kid, key, with("junk", strings.Repeat("x", 11_000))), "too_large"},
	} {
		for _, transport := range []string{"tcp", "ws"} {
			s, err := c.Comets[0].Login(transport, &halleyv1.Auth{Token: bad.token})
			if err == nil {
				s.Close()
				t.Errorf("%s, %s: let in", bad.name, transport)
				continue
			}
			if got := Code(err); got != bad.code && (bad.code != "unauthenticated" || got != "invalid_request") {
				t.Errorf("%s, %s: got %v, want %s", bad.name, transport, err, bad.code)
			}
		}
	}
	// The connection is closed after the reply, with a code over WebSocket.
	conn, err := c.Comets[0].Dial("ws")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := Authenticate(conn, &halleyv1.Auth{Token: "hello"}); Code(err) == "" {
		t.Fatalf("got %v", err)
	}
	if _, err := conn.Next(closeTime); !Closed(err) || conn.CloseCode() != 4001 {
		t.Errorf("after the refusal: %v, close code %d; want 4001", err, conn.CloseCode())
	}
}

// swapClaims puts other claims under a token's signature.
func swapClaims(token string, claims Claims) string {
	parts := strings.Split(token, ".")
	return parts[0] + "." + encodePart(claims) + "." + parts[2]
}

func badRevoked(t *testing.T, c *Cluster) {
	token := c.Token("leaver", Claims{"iat": time.Now().Add(-time.Minute).Unix()})
	s := login(t, c.Comets[0], "tcp", &halleyv1.Auth{Token: token})
	c.API().Must(t, 200, "POST", "/v1/sessions/kick", map[string]any{"uid": "leaver", "revoke": true}, nil)
	if why, err := s.AwaitClose(waitTime); err != nil || why.GetCode() != "kicked" {
		t.Errorf("closed with %v, %v; want kicked", why, err)
	}
	within(t, waitTime, "the token is void", func() (bool, string) {
		s, err := c.Comets[0].Login("tcp", &halleyv1.Auth{Token: token})
		if err == nil {
			s.Close()
		}
		return Code(err) == "token_revoked", fmt.Sprint(err)
	})
}

func badRevokedDevice(t *testing.T, c *Cluster) {
	claims := Claims{"iat": time.Now().Add(-time.Minute).Unix(), "device": "lost", "key": "lost-phone"}
	lost := login(t, c.Comets[0], "ws", &halleyv1.Auth{Token: c.Token("owner", claims)})
	kept := login(t, c.Comets[0], "tcp", &halleyv1.Auth{Token: c.Token("owner", Claims{"device": "kept"})})
	c.API().Must(t, 200, "POST", "/v1/tokens/revoke", map[string]any{"uid": "owner", "device": "lost"}, nil)
	if why, err := lost.AwaitClose(waitTime); err != nil || why.GetCode() != "token_revoked" {
		t.Errorf("closed with %v, %v; want token_revoked", why, err)
	}
	if err := kept.Beat(); err != nil {
		t.Errorf("the other device: %v", err)
	}
}

func badAPIKeys(t *testing.T, c *Cluster) {
	api := c.API()
	for _, bad := range []struct{ name, auth string }{
		{"none", "Bearer "}, {"another", "Bearer hk_test_0123"}, {"basic", "Basic dGVzdDp0ZXN0"}, {"a user's token", "Bearer " + c.Token("ann", nil)},
		{"huge", "Bearer " + strings.Repeat("k", 8000)},
	} {
		for _, call := range []string{"POST /v1/push", "POST /v1/tokens", "POST /v1/presence", "GET /v1/sessions?uid=a", "POST /v1/sessions/kick", "GET /v1/cluster", "DELETE /v1/rooms/a%3A%2F%2Fb"} {
			method, path, _ := strings.Cut(call, " ")
			a, err := api.Do(t.Context(), method, path, http.Header{"Authorization": {bad.auth}}, map[string]any{})
			if err != nil || a.Status != http.StatusUnauthorized || a.Problem().Code != "unauthenticated" {
				t.Errorf("key %s, %s: got %v, %v; want 401 unauthenticated", bad.name, call, a, err)
			}
		}
	}
}

// badFrames sends frames that are almost right, and bytes that aren't, before and after auth.
func badFrames(t *testing.T, c *Cluster) {
	r := rand.New(rand.NewPCG(1, 2))
	// Not all one user: twenty sessions of one are the most.
	var wg sync.WaitGroup
	limit := make(chan struct{}, 16)
	for i := range 400 {
		transport := []string{"tcp", "ws"}[i%2]
		authenticated := i%4 < 2
		var b []byte
		for range 1 + r.IntN(20) {
			b = append(b, mangled(r)...)
		}
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			conn, err := c.Comets[0].Dial(transport)
			if err != nil {
				t.Errorf("connect: %v", err)
				return
			}
			defer conn.Close()
			if authenticated {
				if _, err := Authenticate(conn, &halleyv1.Auth{Token: c.Token(fmt.Sprint("fuzzer-", i), nil)}); err != nil {
					t.Errorf("login: %v", err)
					return
				}
			}
			if transport == "ws" && i%8 == 1 {
				_ = conn.write(b) // no WebSocket framing at all
			} else {
				_ = conn.WriteRaw(b) // the server may have closed
			}
			for {
				if _, err := conn.Next(50 * time.Millisecond); err != nil {
					if !errors.Is(err, ErrTimeout) && !Closed(err) {
						t.Errorf("the server answered %x with nonsense: %v", b[:min(len(b), 64)], err)
					}
					return
				}
			}
		})
	}
	wg.Wait()
}

// mangled returns a frame with something wrong in it, mostly.
func mangled(r *rand.Rand) []byte {
	ops := []frame.Op{0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 14, 16, 100, 101, 102, 103, 104, 1000, -1, 1 << 30}
	body := make([]byte, r.IntN(300))
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	switch r.IntN(4) {
	case 0:
		body = []byte(`{"room.join":{"room":"` + string(body[:min(len(body), 10)]) + `"}}`)
	case 1:
		body = []byte(`{"token":"` + strings.Repeat("e30.", r.IntN(50)) + `"}`)
	}
	b := frame.Append(nil, frame.Frame{Ver: int16(r.IntN(3)), Op: ops[r.IntN(len(ops))], Seq: r.Int32(), Body: body})
	switch r.IntN(6) {
	case 0:
		binary.BigEndian.PutUint32(b, r.Uint32())
	case 1:
		binary.BigEndian.PutUint16(b[4:], uint16(r.Uint32()))
	case 2:
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	case 3:
		b = b[:r.IntN(len(b))]
	}
	return b
}

func badSizes(t *testing.T, c *Cluster) {
	huge := bytes.Repeat([]byte("x"), 10<<20)
	api := c.API()
	for _, path := range []string{"/v1/push", "/v1/push/batch", "/v1/tokens", "/v1/presence", "/goim/push/all?operation=1000", "/goim/push/keys?operation=1000&keys=a", "/1/push?uid=1", "/1/pushs"} {
		a, err := api.Do(t.Context(), "POST", path, nil, huge)
		// A server may answer and close before it has read it all; the client then sees a broken connection.
		if err == nil && a.Status < 400 && !strings.Contains(string(a.Body), "65535") {
			t.Errorf("%s with 10 MB: got %v, want it refused", path, a)
		}
		if err == nil && strings.HasPrefix(path, "/v1") && a.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s with 10 MB: got %v, want 413", path, a)
		}
	}
	deep := []byte(`{"text":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`)
	if a, err := api.Do(t.Context(), "POST", "/v1/push", nil, deep); err != nil || a.Status != http.StatusBadRequest && a.Status != http.StatusUnprocessableEntity {
		t.Errorf("deep JSON: got %v, %v; want 400 or 422", a, err)
	}
	many := Push{Text: "x"}
	for i := range 20_000 {
		many.UIDs = append(many.UIDs, fmt.Sprint("u", i))
	}
	if a, err := api.Do(t.Context(), "POST", "/v1/push", nil, many); err != nil || a.Status < 400 || a.Status >= 500 {
		t.Errorf("20,000 targets: got %v, %v; want 4xx", a, err)
	}

	for _, transport := range []string{"tcp", "ws"} {
		// Before auth: 16 KiB are read, no more.
		for _, size := range []int{17 << 10, 10 << 20} {
			conn, err := c.Comets[0].Dial(transport)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Send(frame.OpAuth, 1, huge[:size]) // it may be closed in the middle
			awaitEnd(t, conn, fmt.Sprintf("%s, auth of %d bytes", transport, size))
		}
		for _, op := range []frame.Op{frame.OpRequest, 1000} {
			s := login(t, c.Comets[0], transport, &halleyv1.Auth{Token: c.Token("huge-"+transport, nil)})
			_ = s.Send(op, 2, huge)
			awaitEnd(t, s.Conn, fmt.Sprintf("%s, op %d of 10 MB", transport, op))
		}
		// A request may be large.
		s := login(t, c.Comets[0], transport, &halleyv1.Auth{Token: c.Token("large-"+transport, nil)})
		body := append([]byte(`{"room.join":{"room":"public://x"},"junk":"`), bytes.Repeat([]byte("x"), 200<<10)...)
		if _, err := s.RequestRaw(frame.OpRequest, append(body, `"}`...)); err != nil && Code(err) != "invalid_request" {
			t.Errorf("%s, request of 200 KiB: %v", transport, err)
		}
		if _, err := s.Request(&halleyv1.Request{Method: &halleyv1.Request_RoomSend{RoomSend: &halleyv1.RoomSend{Room: "public://x", Body: text(string(huge[:100<<10]))}}}); Code(err) != "too_large" && Code(err) != "forbidden" {
			t.Errorf("%s, room.send of 100 KiB: got %v, want too_large", transport, err)
		}
	}
}

// awaitEnd reads until the server closes the connection.
func awaitEnd(t *testing.T, c *Conn, what string) {
	t.Helper()
	defer c.Close()
	for end := time.Now().Add(waitTime); ; {
		_, err := c.Next(time.Until(end))
		if errors.Is(err, ErrTimeout) {
			t.Errorf("%s: the server did not close", what)
			return
		}
		if err != nil {
			if !Closed(err) {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
	}
}

// badOps sends what only servers send, and has a backend try to push it.
func badOps(t *testing.T, c *Cluster) {
	api := c.API()
	victim := login(t, c.Comets[0], "tcp", &halleyv1.Auth{Token: c.Token("victim", nil)})
	for op := range int32(200) {
		if op == 0 || op == 5 || op > 17 && op < 100 {
			continue // those may be pushed
		}
		a, err := api.Do(t.Context(), "POST", "/v1/push", nil, Push{UIDs: []string{"victim"}, Op: op, Text: `{"closing":{}}`})
		if err != nil || a.Status != http.StatusBadRequest || a.Problem().Code != "op_reserved" {
			t.Errorf("push of op %d: got %v, %v; want 400 op_reserved", op, a, err)
		}
		g, err := api.Do(t.Context(), "POST", fmt.Sprintf("/goim/push/keys?operation=%d&keys=%s", op, url.QueryEscape(victim.Auth.GetKey())), nil, []byte("x"))
		if err != nil || !strings.Contains(string(g.Body), "-400") {
			t.Errorf("goim push of op %d: got %v, %v; want it refused", op, g, err)
		}
	}
	nothing(t, victim, api, int32(frame.OpEvent))

	// Clients: forged replies and events go nowhere, and nobody else hears them.
	s := login(t, c.Comets[0], "ws", &halleyv1.Auth{Token: c.Token("forger", nil)})
	for _, op := range []frame.Op{0, 1, 3, 5, 6, 8, 9, 10, 11, 13, 15, 17, 101, 102, 105, 199, -5, 1 << 30} {
		if err := s.Send(op, 77, []byte(`{"closing":{"error":{"code":"kicked"}}}`)); err != nil {
			t.Fatalf("op %d: %v", op, err)
		}
	}
	if err := s.Beat(); err != nil {
		t.Errorf("after forged ops: %v", err)
	}
	nothing(t, victim, api, int32(frame.OpEvent))

	// An unsigned session has no requests: its op 100 is an application's, echoed and nothing else.
	g := goimAt(t, c)
	conn, room := g.login(tok{"mid": fresh()}), "unsigned-"+freshName()
	g.send(conn, frame.OpRequest, 78, []byte(`{"room.join":{"room":"public://`+room+`"}}`))
	if f := g.expect(conn, frame.OpRequest, 78); len(f.Body) != 0 {
		t.Errorf("op 100 of an unsigned session: got %v, want an empty echo", f)
	}
	if n := g.roomCounts("public", room)[room]; n != 0 {
		t.Errorf("an unsigned session joined a room by op 100")
	}
}

// goimAt runs goim's requests at a cluster.
func goimAt(t *testing.T, c *Cluster) *goim {
	return start(t, site{tcp: []string{c.Comets[0].TCP}, ws: []string{c.Comets[0].WS}, http: c.Logics[0].HTTP}, "tcp")
}

func badRooms(t *testing.T, c *Cluster) {
	api := c.API()
	s := login(t, c.Comets[0], "tcp", &halleyv1.Auth{Token: c.Token("roomer", Claims{"rooms": []string{"a://*"}})})
	for room, want := range map[string][]string{
		"presence://ann":                   {"room_reserved"},
		"conversation://1":                 {"room_reserved"},
		"meeting://1":                      {"room_reserved"},
		"private://1":                      {"forbidden"},
		"noroom":                           {"invalid_request"},
		"":                                 {"invalid_request"},
		"a://" + strings.Repeat("x", 1000): {"invalid_request"},
		"a://\x00":                         {"invalid_request"},
	} {
		if code := Code(s.Join(room)); len(want) == 0 || code != want[0] {
			t.Errorf("join %.40q: got %q, want %v", room, code, want)
		}
		if code := Code(s.Leave("presence://ann")); code != "" && code != "room_reserved" {
			t.Errorf("leave: got %q", code)
		}
		if want[0] == "forbidden" {
			continue
		}
		a, err := api.Do(t.Context(), "POST", "/v1/push", nil, Push{Rooms: []string{room}, Text: "x"})
		if err != nil || a.Status != http.StatusBadRequest && a.Status != http.StatusForbidden {
			t.Errorf("push to room %.40q: got %v, %v; want 400 or 403", room, a, err)
		}
	}
	if _, err := c.Comets[0].Login("tcp", &halleyv1.Auth{Token: c.Token("roomer2", nil), Rooms: []string{"presence://ann"}}); Code(err) != "room_reserved" && Code(err) != "forbidden" {
		t.Errorf("login into a reserved room: got %v", err)
	}
	// goim's one room has no way there either.
	g := goimAt(t, c)
	conn := g.login(tok{"mid": fresh()})
	_ = conn.Send(frame.OpChangeRoom, 5, []byte("presence://ann"))
	g.expect(conn, frame.OpChangeRoomReply, 5)
	if n := g.alive(conn); n != 0 {
		t.Errorf("a goim client is in presence://ann: the heartbeat counts %d", n)
	}
}

// badManyRooms has one session join 100,000 rooms: as many as are allowed, then errors, at last the rate limit.
func badManyRooms(t *testing.T, c *Cluster) {
	s := login(t, c.Comets[0], "tcp", &halleyv1.Auth{Token: c.Token("collector", nil)})
	joined := 0
	for i := range 130 {
		err := s.Join(fmt.Sprintf("public://collect-%d", i))
		switch {
		case err == nil:
			joined++
		case Code(err) != "too_many_rooms":
			t.Fatalf("room %d: %v", i, err)
		}
	}
	if joined != 100 {
		t.Errorf("in %d rooms, want 100 and then errors", joined)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 100_000 {
			body := fmt.Appendf(nil, `{"room.join":{"room":"public://flood-%d"}}`, i)
			if s.Send(frame.OpRequest, int32(i), body) != nil {
				return // closed, as it should be
			}
		}
	})
	why, err := s.AwaitClose(time.Minute)
	if err != nil {
		t.Errorf("100,000 joins at once: %v", err)
	} else if why.GetCode() != "rate_limited" && why != nil {
		t.Errorf("closed with %v, want rate_limited", why)
	}
	s.Close()
	wg.Wait()
	// As one auth frame.
	rooms := make([]string, 400)
	for i := range rooms {
		rooms[i] = fmt.Sprintf("public://a-%d", i)
	}
	if _, err := c.Comets[0].Login("tcp", &halleyv1.Auth{Token: c.Token("collector2", nil), Rooms: rooms}); Code(err) != "too_many_rooms" && Code(err) != "invalid_request" {
		t.Errorf("login into 400 rooms: got %v, want too_many_rooms", err)
	}
}

func badRequests(t *testing.T, c *Cluster) {
	s := login(t, c.Comets[0], "ws", &halleyv1.Auth{Token: c.Token("asker2", nil)})
	for body, code := range map[string]string{
		``: "invalid_request", `x`: "invalid_request", `[]`: "invalid_request", `null`: "invalid_request", `{}`: "", `{"room.jion":{}}`: "",
		`{"room.join":5}`: "invalid_request", `{"room.join":{"room":5}}`: "invalid_request", `{"room.join":{"room":"a"},"room.leave":{"room":"a"}}`: "invalid_request",
		`{"room.members":{"room":"public://x"}}`: "forbidden", `{"room.send":{"room":"public://x","body":1}}`: "forbidden",
		`{"session.refresh":{"token":"x"}}`: "unauthenticated", `{"presence.watch":{"uids":[]}}`: "",
	} {
		_, err := s.RequestRaw(frame.OpRequest, []byte(body))
		got := Code(err)
		if got == "" && !(code == "" && err == nil) || code != "" && got != code {
			t.Errorf("request %s: got %v, want %q", body, err, code)
		}
		if got == "internal" {
			t.Errorf("request %s: %v", body, err)
		}
	}
	// A token of somebody else does not refresh.
	other := &halleyv1.Request{Method: &halleyv1.Request_SessionRefresh{SessionRefresh: &halleyv1.SessionRefresh{Token: c.Token("somebody-else", nil)}}}
	if _, err := s.Request(other); Code(err) == "" {
		t.Errorf("refresh with another user's token: got %v, want it refused", err)
	}
	watch := func(from, n int) error {
		var uids []string
		for i := range n {
			uids = append(uids, fmt.Sprint("w", from+i))
		}
		_, err := s.Request(&halleyv1.Request{Method: &halleyv1.Request_PresenceWatch{PresenceWatch: &halleyv1.PresenceWatch{Uids: uids}}})
		return err
	}
	if err := watch(0, 50); err != nil {
		t.Errorf("watch 50 users: %v", err)
	}
	if err := watch(50, 1); Code(err) != "too_many_watched" {
		t.Errorf("watch another one: got %v, want too_many_watched", err)
	}
	api := c.API()
	for _, body := range []string{``, `{`, `[]`, `{"uids":"ann"}`, `{"uids":["a"],"nonsense":1}`, `{}`, `{"uids":["a b"]}`, `{"uids":["a"],"text":"x","base64":"eA=="}`, `{"uids":["a"],"lane":"fast"}`, `{"uids":["a"],"ttl":-1}`} {
		a, err := api.Do(t.Context(), "POST", "/v1/push", nil, []byte(body))
		if err != nil || a.Status < 400 || a.Status >= 500 || a.Header.Get("Content-Type") != "application/problem+json" || a.Problem().Code == "" {
			t.Errorf("push %s: got %v (%s), %v; want a problem of the client's", body, a, a.Header.Get("Content-Type"), err)
		}
	}
}

// badSlow opens handshakes that never end: each is closed in time, and others get in meanwhile.
func badSlow(t *testing.T, c *Cluster) {
	const n = 300
	const limit = handshakeTimeout + 10*time.Second
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	auth := frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: []byte(`{"token":"x"}`)})
	for i := range n {
		addr, first := c.Comets[0].TCP, auth[:i%len(auth)]
		if i%2 == 1 {
			addr, first = c.Comets[0].WS, []byte("GET /sub HTTP/1.1\r\nHost: x\r\nX-Slow: "[:20+i%10])
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		if _, err := conn.Write(first); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	login(t, c.Comets[0], "tcp", &halleyv1.Auth{Token: c.Token("patient-tcp", nil)})
	login(t, c.Comets[0], "ws", &halleyv1.Auth{Token: c.Token("patient-ws", nil)})
	// Less than they would wait if the slow ones held them up.
	if took := time.Since(begin); took > handshakeTimeout-2*time.Second {
		t.Errorf("logins beside %d slow handshakes took %v", n, took)
	}
	var wg sync.WaitGroup
	for i, conn := range conns {
		wg.Go(func() {
			_ = conn.SetDeadline(begin.Add(limit))
			done := make(chan struct{})
			var writer sync.WaitGroup
			writer.Go(func() {
				for { // a byte now and then, as slow-loris does
					select {
					case <-done:
						return
					case <-time.After(700 * time.Millisecond):
						if _, err := conn.Write([]byte{'a'}); err != nil {
							return
						}
					}
				}
			})
			_, err := io.Copy(io.Discard, conn)
			close(done)
			writer.Wait()
			var nerr net.Error
			if errors.As(err, &nerr) && nerr.Timeout() {
				t.Errorf("slow handshake %d was not closed within %v", i, limit)
			}
		})
	}
	wg.Wait()
}

// badGarbage sends to every port what belongs to another one, and noise.
func badGarbage(t *testing.T, c *Cluster) {
	noise := make([]byte, 64<<10)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	hello := append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, noise[:508]...) // the beginning of TLS
	greetings := [][]byte{
		noise, hello, []byte("GET / HTTP/1.1\r\n\r\n\r\n"), []byte("POST /v1/push HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n"),
		[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + string(noise[:4096])), bytes.Repeat([]byte{0}, 4096), bytes.Repeat([]byte{0xff}, 4096),
		[]byte("GET /sub HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 99\r\n\r\n"),
		[]byte("GET /sub HTTP/1.1\r\n" + strings.Repeat("X-A: b\r\n", 10_000) + "\r\n"),
	}
	var addrs []string
	for _, p := range All(c.Comets, c.Logics, c.Routers, c.Jobs) {
		addrs = append(addrs, p.Private)
	}
	for _, group := range [][]*Node{c.Comets, c.Logics, c.Routers} {
		for _, n := range group {
			for _, a := range []string{n.TCP, n.WS, n.GRPC, strings.TrimPrefix(n.HTTP, "http://")} {
				if a != "" {
					addrs = append(addrs, a)
				}
			}
		}
	}
	for _, addr := range addrs {
		for i, g := range greetings {
			conn, err := net.DialTimeout("tcp", addr, waitTime)
			if err != nil {
				t.Errorf("%s, greeting %d: %v", addr, i, err)
				continue
			}
			_ = conn.SetDeadline(time.Now().Add(150 * time.Millisecond))
			_, _ = conn.Write(g) // the server may close at once
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}
	for _, p := range All(c.Comets, c.Logics, c.Routers, c.Jobs) {
		if _, err := p.Metrics(); err != nil {
			t.Errorf("%s after the garbage: %v", p.Name, err)
		}
	}
}
