package comet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// onRequest answers requests by f; nil, nil means the fake's own answer.
func (n *node) onRequest(f func(context.Context, *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error)) {
	n.logic.mu.Lock()
	n.logic.request = f
	n.logic.mu.Unlock()
}

// errorOf returns the code of the error in a Reply.
func errorOf(t testing.TB, f frame.Frame) string {
	t.Helper()
	var r struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if f.Op != frame.OpReply {
		t.Fatalf("got op %v, want a reply", f.Op)
	}
	if err := json.Unmarshal(f.Body, &r); err != nil {
		t.Fatalf("reply %s: %v", f.Body, err)
	}
	return r.Error.Code
}

func TestRequestsAreForwardedAndAnswered(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		c := n.login(tr, `{"token":"req","rooms":["live://1"]}`)
		for i, op := range []frame.Op{frame.OpRequest, frame.OpRequestUnordered, frame.OpRequestCall} {
			c.send(frame.Frame{Ver: 1, Op: op, Seq: int32(i), Body: []byte(`{"room.send":{}}`)})
			if f := c.expect(frame.OpReply, `{"room.send":{}}`); f.Seq != int32(i) {
				t.Errorf("op %v: seq %d, want %d", op, f.Seq, i)
			}
		}
		n.logic.mu.Lock()
		defer n.logic.mu.Unlock()
		r := n.logic.requests[len(n.logic.requests)-1]
		if r.GetSession().GetUid() != "req" || !r.GetSession().GetSigned() || !slices.Equal(r.GetRooms(), []string{"live://1"}) || r.GetOp() != 104 || r.GetSession().GetConn().GetComet() != "comet-1" {
			t.Errorf("logic was asked %v", r)
		}
	})
}

func TestOrderedRequestsStayInOrderAndOthersOvertake(t *testing.T) {
	n := start(t)
	var running, most atomic.Int32
	release := make(chan struct{})
	n.onRequest(func(ctx context.Context, r *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
		if r.GetOp() == 100 {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return nil, nil
	})
	c := n.login("tcp", `{"token":"a"}`)
	for i := range 20 {
		c.send(frame.Frame{Ver: 1, Op: frame.OpRequest, Seq: int32(i), Body: []byte("o")})
	}
	c.send(frame.Frame{Ver: 1, Op: frame.OpRequestUnordered, Seq: 100, Body: []byte("u")})
	c.expect(frame.OpReply, "u")
	c.send(frame.Frame{Ver: 1, Op: frame.OpRequestCall, Seq: 101, Body: []byte("c")})
	c.expect(frame.OpReply, "c")
	c.barrier()
	close(release)
	for i := range 20 {
		if f := c.expect(frame.OpReply, "o"); f.Seq != int32(i) {
			t.Fatalf("seq %d, want %d", f.Seq, i)
		}
	}
	if most.Load() != 1 {
		t.Errorf("%d ordered requests ran at once", most.Load())
	}
}

func TestTooManyRequestsAreBusy(t *testing.T) {
	t.Parallel()
	n := start(t, with(func(c *comet.Config) { c.RequestTimeout = 2 * time.Second }))
	n.onRequest(func(ctx context.Context, r *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	})
	c := n.login("tcp", `{"token":"a"}`)
	var b []byte
	for i := range 33 {
		b = frame.Append(b, frame.Frame{Ver: 1, Op: frame.OpRequest, Seq: int32(i)})
	}
	c.raw(b)
	f := c.next()
	if code := errorOf(t, f); code != "busy" || f.Seq != 32 {
		t.Errorf("got %s for seq %d, want busy for the 33rd", code, f.Seq)
	}
	got := map[string]int{}
	for i := range 32 {
		f := c.next()
		if f.Seq != int32(i) {
			t.Fatalf("seq %d, want %d", f.Seq, i)
		}
		code := errorOf(t, f)
		if i == 0 && code != "unknown" {
			t.Errorf("got %s for the first one, want unknown", code)
		}
		got[code]++
	}
	// The first one's outcome isn't known; the others waited too long, but for those that were read a moment later: what is left of their time
	// logic has.
	if got["unknown"]+got["busy"] != 32 || got["busy"] < 16 {
		t.Errorf("answers %v, want 1 unknown and 31 busy, or a few less", got)
	}
}

func TestLogicAwayAnswersUnavailable(t *testing.T) {
	n := start(t)
	n.onRequest(func(context.Context, *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
		return nil, status.Error(codes.Unavailable, "away")
	})
	c := n.login("ws", `{"token":"a"}`)
	c.send(frame.Frame{Ver: 1, Op: frame.OpRequest, Seq: 1})
	if code := errorOf(t, c.next()); code != "unavailable" {
		t.Errorf("got %s, want unavailable", code)
	}
	c.barrier()
	n.logic.mu.Lock()
	n.logic.connect = func(*halleyv1.ConnectRequest, *halleyv1.ConnectResponse) error {
		return status.Error(codes.Unavailable, "away")
	}
	n.logic.mu.Unlock()
	d := n.dial("ws")
	d.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 2, Body: []byte(`{"token":"b"}`)})
	f := d.next()
	if f.Op != frame.OpAuthReply || !strings.Contains(string(f.Body), `"unavailable"`) || !strings.Contains(string(f.Body), "retry_after_ms") {
		t.Errorf("got op %v %s", f.Op, f.Body)
	}
	if code := d.closed(); code != 4507 {
		t.Errorf("close code %d, want 4507", code)
	}
	plain := n.dial("ws")
	plain.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 2, Body: []byte(`{"mid":1}`)})
	plain.closed()
}

func TestLogInsThatFailHoldUpNoDeregistration(t *testing.T) {
	n := start(t)
	onConnect := func(f func(*halleyv1.ConnectRequest, *halleyv1.ConnectResponse) error) {
		n.logic.mu.Lock()
		defer n.logic.mu.Unlock()
		n.logic.connect = f
	}
	fail := func(k int, f func(*halleyv1.ConnectResponse) error) {
		onConnect(func(_ *halleyv1.ConnectRequest, resp *halleyv1.ConnectResponse) error { return f(resp) })
		for range k {
			c := n.dial("tcp")
			c.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: []byte(`{"mid":1}`)})
			c.closed()
		}
	}
	// The outcome isn't known; logic is not ready; and what router would never take.
	fail(4, func(*halleyv1.ConnectResponse) error { return status.Error(codes.DeadlineExceeded, "too late") })
	fail(4, func(resp *halleyv1.ConnectResponse) error {
		resp.Reset()
		resp.Error = &halleyv1.Error{Code: "unavailable", Retry: true}
		return nil
	})
	fail(4, func(resp *halleyv1.ConnectResponse) error {
		resp.Session.Key, resp.Error = "no key", &halleyv1.Error{Code: "unavailable", Retry: true}
		return nil
	})
	onConnect(nil)
	for range 10 {
		n.login("tcp", `{}`).conn.Close()
	}
	eventually(t, func() bool { return len(n.goneConns()) == 10 }, "deregistered")
	eventually(t, func() bool { return n.metric("halley_comet_deregister_dropped") == 4 }, "four counted as given up")
}

func TestErrorOfLogicIsRelayed(t *testing.T) {
	n := start(t)
	n.onRequest(func(context.Context, *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
		return &halleyv1.SessionResponse{Error: &halleyv1.Error{Code: "forbidden", Message: "no"}}, nil
	})
	c := n.login("tcp", `{"token":"a"}`)
	c.send(frame.Frame{Ver: 1, Op: frame.OpRequest, Seq: 1})
	if code := errorOf(t, c.next()); code != "forbidden" {
		t.Errorf("got %s, want forbidden", code)
	}
	c.send(frame.Frame{Ver: 1, Op: frame.OpChangeRoom, Seq: 2, Body: []byte("live://1")})
	if f := c.expect(frame.OpChangeRoomReply, "live://1"); f.Seq != 2 {
		t.Errorf("seq %d", f.Seq)
	}
	if n.router.count("live://1") != 0 {
		t.Error("the room was joined")
	}
}

func TestEffectsAreStoredBeforeTheReply(t *testing.T) {
	t.Parallel()
	n := start(t)
	var step atomic.Int32
	n.onRequest(func(_ context.Context, r *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
		e := &halleyv1.Effects{}
		switch step.Add(1) {
		case 1:
			e.Join, e.Grants = []string{"live://a", "live://b"}, []byte("granted")
			e.Accepts = &halleyv1.Accepts{Ops: []int32{1001}}
		case 2:
			if string(r.GetGrants()) != "granted" {
				t.Errorf("grants %q", r.GetGrants())
			}
			e.Leave = []string{"live://a", "live://nowhere"}
		case 3:
			e.ExpiresAtMs = proto.Int64(time.Now().Add(1500 * time.Millisecond).UnixMilli()) // after the reply
		}
		return &halleyv1.SessionResponse{Reply: []byte("{}"), Effects: e}, nil
	})
	c := n.login("tcp", `{"token":"a"}`)
	c.send(frame.Frame{Ver: 1, Op: frame.OpRequest})
	c.expect(frame.OpReply, "{}")
	if n.router.count("live://a") != 1 || n.router.count("live://b") != 1 {
		t.Error("rooms are not stored")
	}
	if got := n.router.listed("live://a"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("listed %v", got)
	}
	j := n.job(halleyv1.Lane_LANE_PUSH)
	j.send(&halleyv1.Delivery{Uids: []string{"a"}, Content: push(1000, "no")}, &halleyv1.Delivery{Uids: []string{"a"}, Content: push(1001, "yes")})
	c.expect(1001, "yes")
	c.send(frame.Frame{Ver: 1, Op: frame.OpRequest})
	c.expect(frame.OpReply, "{}")
	if n.router.count("live://a") != 0 || n.router.count("live://b") != 1 {
		t.Error("leaving is not stored")
	}
	c.send(frame.Frame{Ver: 1, Op: frame.OpRequest})
	c.expect(frame.OpReply, "{}")
	if e := c.expectEvent("closing"); e["error"].(map[string]any)["code"] != "token_expired" {
		t.Errorf("closing %v", e)
	}
	c.closed()
}

func TestConversationsHaveALimitOfTheirOwn(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.MaxRooms, c.MaxSystemRooms = 1, 2 }))
	n.onRequest(func(_ context.Context, r *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
		return &halleyv1.SessionResponse{Reply: []byte("{}"), Effects: &halleyv1.Effects{Join: strings.Split(string(r.GetBody()), " ")}}, nil
	})
	c := n.login("tcp", `{"token":"a"}`)
	for _, x := range []struct{ rooms, code string }{{"live://1 conversation://1 meeting://1", ""}, {"conversation://2", "too_many_rooms"}, {"live://2", "too_many_rooms"}} {
		c.send(frame.Frame{Ver: 1, Op: frame.OpRequest, Body: []byte(x.rooms)})
		if f := c.next(); x.code == "" && string(f.Body) != "{}" || x.code != "" && errorOf(t, f) != x.code {
			t.Errorf("%s: got %s, want %q", x.rooms, f.Body, x.code)
		}
	}
}

func TestEffectThatFailsIsAnError(t *testing.T) {
	t.Parallel()
	n := start(t, with(func(c *comet.Config) { c.RequestTimeout, c.MaxRooms = 3*time.Second, 3 }))
	n.onRequest(func(_ context.Context, r *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
		return &halleyv1.SessionResponse{Reply: []byte("{}"), Effects: &halleyv1.Effects{Join: strings.Split(string(r.GetBody()), " ")}}, nil
	})
	c := n.login("tcp", `{"token":"a"}`)
	ask := func(rooms string) frame.Frame {
		c.send(frame.Frame{Ver: 1, Op: frame.OpRequest, Body: []byte(rooms)})
		return c.next()
	}
	if code := errorOf(t, ask("live://1 live://2 live://3 live://4")); code != "too_many_rooms" {
		t.Errorf("got %s, want too_many_rooms", code)
	}
	eventually(t, func() bool { return n.router.count("live://1") == 0 }, "rooms left again")
	var watched []string
	for i := range 51 {
		watched = append(watched, fmt.Sprint("presence://", i))
	}
	if f := ask(strings.Join(watched[:50], " ")); string(f.Body) != "{}" {
		t.Errorf("50 watched users and no room: %s", f.Body)
	}
	if code := errorOf(t, ask(watched[50])); code != "too_many_watched" {
		t.Errorf("got %s, want too_many_watched", code)
	}
	if f := ask("live://1 live://2 live://3"); string(f.Body) != "{}" {
		t.Errorf("3 rooms beside watched users: %s", f.Body)
	}
	d := n.login("tcp", `{"token":"b"}`)
	n.router.with(func() { n.router.down = true })
	d.send(frame.Frame{Ver: 1, Op: frame.OpRequest, Body: []byte("live://late")})
	if code := errorOf(t, d.next()); code != "unavailable" {
		t.Errorf("got %s, want unavailable", code)
	}
	d.barrier()
	n.router.with(func() { n.router.down = false })
	// Those of a's that it is in: a room is forgotten when router knows that it is empty.
	eventually(t, func() bool { return n.metric("halley_comet_rooms") == 53 }, "rooms settled")
	if got := n.router.count("live://late"); got != 0 {
		t.Errorf("router counts %d in a room that was left again", got)
	}
}

func TestCloseEffectComesAfterTheReply(t *testing.T) {
	n := start(t)
	n.onRequest(func(context.Context, *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
		return &halleyv1.SessionResponse{Reply: []byte("{}"), Effects: &halleyv1.Effects{Close: &halleyv1.Error{Code: "token_revoked"}}}, nil
	})
	c := n.login("ws", `{"token":"a"}`)
	c.send(frame.Frame{Ver: 1, Op: frame.OpRequest})
	c.expect(frame.OpReply, "{}")
	c.expectEvent("closing")
	if code := c.closed(); code != 4003 {
		t.Errorf("close code %d, want 4003", code)
	}
}

func TestGoimRoomIsChangedInOrder(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		room := func(s string) string { return "live://" + tr + s }
		c := n.login(tr, `{"mid":1,"key":"g-`+tr+`","room_id":"`+room("a")+`"}`)
		j := n.job(halleyv1.Lane_LANE_PUSH)
		// Alone in its room, to the same room again.
		var b []byte
		for i, body := range []string{room("a"), room("b")} {
			if c.ws != nil {
				c.send(frame.Frame{Ver: 1, Op: frame.OpChangeRoom, Seq: int32(i), Body: []byte(body)})
				c.send(frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: int32(i)})
				continue
			}
			b = frame.Append(b, frame.Frame{Ver: 1, Op: frame.OpChangeRoom, Seq: int32(i), Body: []byte(body)})
			b = frame.Append(b, frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: int32(i)})
		}
		if c.ws == nil {
			c.raw(b)
		}
		for _, body := range []string{room("a"), room("b")} {
			c.expect(frame.OpChangeRoomReply, body)
			c.expect(frame.OpHeartbeatReply, "\x00\x00\x00\x01")
		}
		j.send(&halleyv1.Delivery{Room: room("a"), Content: push(1000, "a")}, &halleyv1.Delivery{Room: room("b"), Content: push(1000, "b")})
		c.expect(1000, "b")
		c.send(frame.Frame{Ver: 1, Op: frame.OpChangeRoom})
		c.expect(frame.OpChangeRoomReply, "")
		c.send(frame.Frame{Ver: 1, Op: frame.OpHeartbeat})
		c.expect(frame.OpHeartbeatReply, "\x00\x00\x00\x00")
		j.send(&halleyv1.Delivery{Room: room("b"), Content: push(1000, "b")})
		c.barrier()
	})
}

func TestHeartbeatTellsTheClustersCount(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.CountInterval = 20 * time.Millisecond }))
	c := n.login("tcp", `{"room_id":"live://1"}`)
	eventually(t, func() bool {
		c.send(frame.Frame{Ver: 1, Op: frame.OpHeartbeat})
		return string(c.next().Body) == "\x00\x00\x00\x29"
	}, "op 3 carries router's count")
}

func TestUpstreamForwardsAndEchoes(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.Upstream = true }))
	signed := n.login("tcp", `{"token":"a"}`)
	plain := n.login("ws", `{"mid":5}`)
	for _, c := range []*client{signed, plain} {
		c.send(frame.Frame{Ver: 1, Op: 1234, Seq: 7, Body: []byte("for the backend")})
		if f := c.expect(1234, ""); f.Seq != 7 {
			t.Errorf("seq %d", f.Seq)
		}
		c.send(frame.Frame{Ver: 1, Op: 999, Seq: 8, Body: []byte("not for it")})
		c.expect(999, "")
	}
	n.logic.mu.Lock()
	if len(n.logic.requests) != 2 || string(n.logic.requests[0].GetBody()) != "for the backend" || n.logic.requests[0].GetOp() != 1234 {
		t.Errorf("logic was asked %v", n.logic.requests)
	}
	n.logic.mu.Unlock()
	n.onRequest(func(context.Context, *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
		return nil, status.Error(codes.Unavailable, "away")
	})
	signed.send(frame.Frame{Ver: 1, Op: 1234, Seq: 9})
	if code := errorOf(t, signed.next()); code != "unavailable" {
		t.Errorf("got %s, want unavailable", code)
	}
	plain.send(frame.Frame{Ver: 1, Op: 1234, Seq: 9})
	plain.expect(1234, "")
}

func TestOnlyHeartbeatsKeepGoimSessionsAlive(t *testing.T) {
	t.Parallel()
	const idle = 3 * time.Second // those that beat may stand still for as long
	n := start(t, withTLS, func(_ *comet.Config, _ *comet.Deps, n *node) { n.logic.idle = idle })
	type of struct{ silent, talking, beating, asking *client }
	var all []of
	for _, tr := range transports {
		all = append(all, of{n.login(tr, `{}`), n.login(tr, `{}`), n.login(tr, `{}`), n.login(tr, `{"token":"a"}`)})
	}
	begun := time.Now()
	for time.Since(begun) < 3*idle/2 {
		for _, c := range all {
			c.talking.trySend(frame.Frame{Ver: 1, Op: 4321})
			c.beating.send(frame.Frame{Ver: 1, Op: frame.OpHeartbeat})
			c.asking.send(frame.Frame{Ver: 1, Op: frame.OpRequest})
		}
		time.Sleep(50 * time.Millisecond)
	}
	// These first: nobody sends for them while the others are looked at.
	for _, c := range all {
		for _, c := range []*client{c.beating, c.asking} {
			for {
				c.send(frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: 99})
				if f := c.next(); f.Seq == 99 {
					break
				}
			}
		}
	}
	for i, c := range all {
		if code := c.silent.closed(); c.silent.ws != nil && code != 4505 {
			t.Errorf("%s: close code %d, want 4505", transports[i], code)
		}
		for {
			f, err := c.talking.read(patience)
			if err != nil {
				c.talking.ended(err)
				break
			}
			if f.Op != 4321 {
				t.Fatalf("%s: got op %v", transports[i], f.Op)
			}
		}
	}
}

func TestSameKeyNewerSessionWins(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		for _, other := range transports {
			old := n.login(tr, `{"mid":9,"key":"same","accepts":[1000],"room_id":"live://same"}`)
			newer := n.login(other, `{"mid":9,"key":"same","accepts":[1000],"room_id":"live://same"}`)
			if code := old.closed(); old.ws != nil && code != 4007 {
				t.Errorf("close code %d, want 4007", code)
			}
			j := n.job(halleyv1.Lane_LANE_PUSH)
			j.send(&halleyv1.Delivery{Keys: []string{"same"}, Content: push(1000, "key")}, &halleyv1.Delivery{Uids: []string{"9"}, Content: push(1000, "uid")}, &halleyv1.Delivery{Room: "live://same", Content: push(1000, "room")})
			for _, want := range []string{"key", "uid", "room"} {
				newer.expect(1000, want)
			}
			newer.conn.Close()
			eventually(t, func() bool { return n.router.count("live://same") == 0 }, "room empty")
		}
		a := n.login(tr, `{"token":"s","key":"signed"}`)
		n.login(tr, `{"token":"s","key":"signed"}`).barrier()
		if e := a.expectEvent("closing"); e["error"].(map[string]any)["code"] != "replaced" {
			t.Errorf("closing %v", e)
		}
		a.closed()
	})
}

// TestConnectionThatWasResumedInVainEnds: router has given its place away, so that nothing finds it any more.
func TestConnectionThatWasResumedInVainEnds(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.MaxRooms = 1 }))
	old, newer := n.dial("ws"), n.dial("ws")
	id := connID(old.auth(`{"token":"r","key":"k1"}`))
	newer.send(frame.Frame{Op: frame.OpAuth, Seq: 1, Body: fmt.Appendf(nil, `{"token":"r","key":"k2","rooms":["live://1","live://2"],"resume":{"replaces":%q}}`, id)})
	if code := old.closed(); code != 1000 {
		t.Errorf("close code %d, want 1000", code)
	}
}

func TestResumedConnectionIsFlushedThenClosed(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		old := n.dial(tr)
		id := connID(old.auth(`{"token":"r"}`))
		stranger := n.login(tr, fmt.Sprintf(`{"token":"other","resume":{"replaces":%q}}`, id))
		stranger.barrier()
		old.barrier()
		j := n.job(halleyv1.Lane_LANE_PUSH)
		j.send(&halleyv1.Delivery{Uids: []string{"r"}, Content: push(1000, "before")})
		newer := n.login(tr, fmt.Sprintf(`{"token":"r","resume":{"replaces":%q}}`, id))
		old.expect(1000, "before")
		if code := old.closed(); old.ws != nil && code != 1000 {
			t.Errorf("close code %d, want 1000", code)
		}
		j.send(&halleyv1.Delivery{Uids: []string{"r"}, Content: push(1000, "after")})
		newer.expect(1000, "after")
	})
}
