package comet_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// connID returns the connection id of a signed session from its auth reply.
func connID(f frame.Frame) string {
	_, rest, _ := strings.Cut(string(f.Body), `"connection":"`)
	id, _, _ := strings.Cut(rest, `"`)
	return id
}

func TestDeliveriesByConnectionKeyAndUIDRespectAccepts(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		c := n.dial(tr)
		id := connID(c.auth(fmt.Sprintf(`{"token":"u-%s","key":"k-%s","accepts":[1000]}`, tr, tr)))
		j := n.job(halleyv1.Lane_LANE_PUSH)
		for name, d := range map[string]func() *halleyv1.Delivery{
			"connection": func() *halleyv1.Delivery { return &halleyv1.Delivery{ConnIds: []string{id}} },
			"key":        func() *halleyv1.Delivery { return &halleyv1.Delivery{Keys: []string{"k-" + tr}} },
			"uid":        func() *halleyv1.Delivery { return &halleyv1.Delivery{Uids: []string{"u-" + tr}} },
		} {
			no, yes := d(), d()
			no.Content, yes.Content = push(1999, "unwanted"), push(1000, name)
			if resp := j.send(no, yes); resp.GetReached() != 1 || len(resp.GetNotHeld()) != 0 {
				t.Errorf("by %s: reached %d, not held %v", name, resp.GetReached(), resp.GetNotHeld())
			}
			c.expect(1000, name)
		}
		// Events reach signed sessions whatever they accept; rooms ignore the filter.
		j.send(&halleyv1.Delivery{Uids: []string{"u-" + tr}, Content: push(102, `{"presence":{}}`)})
		c.expect(102, `{"presence":{}}`)
	})
}

func TestUnknownConnectionsAreNamedAndNamesAreNot(t *testing.T) {
	n := start(t)
	c := n.dial("tcp")
	id := connID(c.auth(`{"token":"a"}`))
	first, _, _ := strings.Cut(id, ".")
	j := n.job(halleyv1.Lane_LANE_PUSH)
	gone := []string{first + ".999", "0000.1", "garbage", ""}
	resp := j.send(
		&halleyv1.Delivery{ConnIds: append([]string{id}, gone...), Content: push(1000, "x")},
		&halleyv1.Delivery{Keys: []string{"nobody"}, Uids: []string{"nobody"}, Content: push(1000, "x")},
		&halleyv1.Delivery{Room: "live://nowhere", Content: push(1000, "x")},
		&halleyv1.Delivery{ConnIds: gone[:1], Content: kick("kicked")},
	)
	if len(resp.GetNotHeld()) != 2 || !slices.Equal(resp.GetNotHeld()[0].GetConnIds(), gone) || resp.GetNotHeld()[0].GetNumber() != 1 || resp.GetNotHeld()[1].GetNumber() != 4 {
		t.Errorf("not held %v", resp.GetNotHeld())
	}
	c.expect(1000, "x")
	c.conn.Close()
	eventually(t, func() bool {
		r := j.send(&halleyv1.Delivery{ConnIds: []string{id}, Content: push(1000, "y")})
		return len(r.GetNotHeld()) == 1
	}, "a closed connection is not held")
}

func TestByNameReachesASessionWhoseLogInIsUnderWay(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		there := n.dial(tr)
		thereID := connID(there.auth(`{"token":"u-` + tr + `","key":"a-` + tr + `"}`))
		asked, answer := make(chan string, 1), make(chan struct{})
		n.logic.mu.Lock()
		n.logic.connect = func(req *halleyv1.ConnectRequest, _ *halleyv1.ConnectResponse) error {
			// Router has it from now on.
			asked <- req.GetConn().GetId()
			<-answer
			return nil
		}
		n.logic.mu.Unlock()
		late := n.dial(tr)
		late.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 5, Body: []byte(`{"token":"u-` + tr + `","key":"b-` + tr + `"}`)})
		lateID := <-asked
		j := n.job(halleyv1.Lane_LANE_PUSH)
		resp := j.send(
			&halleyv1.Delivery{Uids: []string{"u-" + tr}, ConnIds: []string{thereID, lateID}, Content: push(1000, "to the user")},
			&halleyv1.Delivery{Keys: []string{"b-" + tr}, ConnIds: []string{lateID, "0000.1"}, Content: push(1000, "to the key")},
			&halleyv1.Delivery{Keys: []string{"nobody"}, ConnIds: []string{"0000.1"}, Content: push(1000, "to nobody")},
		)
		if resp.GetReached() != 3 || len(resp.GetNotHeld()) != 0 || !slices.Equal(resp.GetNobody(), []uint64{3}) {
			t.Errorf("reached %d, not held %v, nobody %v; want 3, none, the third", resp.GetReached(), resp.GetNotHeld(), resp.GetNobody())
		}
		close(answer)
		n.logic.mu.Lock()
		n.logic.connect = nil
		n.logic.mu.Unlock()
		if f := late.next(); f.Op != frame.OpAuthReply {
			t.Fatalf("first frame is op %v, want the auth reply", f.Op)
		}
		late.expect(1000, "to the user")
		late.expect(1000, "to the key")
		late.barrier()
		there.expect(1000, "to the user")
		there.barrier()
		// Now both are found by name, each once.
		j.send(&halleyv1.Delivery{Uids: []string{"u-" + tr}, ConnIds: []string{thereID, lateID}, Content: push(1000, "again")})
		for _, c := range []*client{there, late} {
			c.expect(1000, "again")
			c.barrier()
		}
	})
}

func TestTenantsWithEqualNamesAreApart(t *testing.T) {
	n := start(t)
	a := n.login("tcp", `{"token":"u","key":"k","tenant":"red","rooms":["live://1"]}`)
	b := n.login("ws", `{"token":"u","key":"k","tenant":"blue","rooms":["live://1"]}`)
	j := n.job(halleyv1.Lane_LANE_PUSH)
	for i, d := range []*halleyv1.Delivery{{Keys: []string{"k"}}, {Uids: []string{"u"}}, {Room: "live://1"}, {All: true}} {
		d.Tenant = "red"
		d.Content = push(1000, strconv.Itoa(i))
		j.send(d)
		a.expect(1000, strconv.Itoa(i))
	}
	b.barrier()
}

func TestExcludedSessionsGetNothing(t *testing.T) {
	n := start(t)
	a := n.login("tcp", `{"token":"a","key":"ka","rooms":["live://1"]}`)
	b := n.login("tcp", `{"token":"b","key":"kb","rooms":["live://1"]}`)
	c := n.login("tcp", `{"token":"c","key":"kc","rooms":["live://1"]}`)
	j := n.job(halleyv1.Lane_LANE_PUSH)
	for _, d := range []*halleyv1.Delivery{{Room: "live://1"}, {All: true}, {Uids: []string{"a", "b", "c"}}} {
		d.ExcludeUids, d.ExcludeKeys, d.Content = []string{"a"}, []string{"kb"}, push(1000, "x")
		j.send(d)
		c.expect(1000, "x")
	}
	a.barrier()
	b.barrier()
}

func TestUnsignedSessionsGetNoProtocolOps(t *testing.T) {
	n := start(t)
	a := n.login("tcp", `{"mid":1,"room_id":"live://1","accepts":[102,150,1000]}`)
	b := n.login("tcp", `{"token":"b","rooms":["live://1"]}`)
	j := n.job(halleyv1.Lane_LANE_CHAT)
	j.send(&halleyv1.Delivery{Room: "live://1", Content: push(102, "{}")}, &halleyv1.Delivery{Room: "live://1", Content: push(150, "x")}, &halleyv1.Delivery{Uids: []string{"1"}, Content: push(102, "{}")})
	b.expect(102, "{}")
	b.expect(150, "x")
	a.barrier()
}

func TestPushesArriveInOrder(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		c := n.login(tr, `{"token":"o-`+tr+`","rooms":["live://o"]}`)
		j := n.job(halleyv1.Lane_LANE_PUSH)
		const total = 3000
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for i := 0; i < total; i += 10 {
				var ds []*halleyv1.Delivery
				for k := range 10 {
					d := &halleyv1.Delivery{Room: "live://o", Content: push(1000, strconv.Itoa(i+k))}
					if k%2 == 0 {
						d.Room, d.Uids = "", []string{"o-" + tr}
					}
					ds = append(ds, d)
				}
				j.send(ds...)
			}
		})
		for i := range total {
			c.expect(1000, strconv.Itoa(i))
		}
		if c.ws != nil && c.outer > total {
			t.Errorf("%d messages for %d pushes", c.outer, total)
		}
	})
}

func TestBodiesArriveUnchanged(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		c := n.login(tr, `{"token":"a","key":"b-`+tr+`"}`)
		j := n.job(halleyv1.Lane_LANE_PUSH)
		for _, body := range []string{"", string(all), strings.Repeat("k", 64<<10), strings.Repeat("m", 1<<20), strings.Repeat("n", 109), strings.Repeat("n", 110)} {
			j.send(&halleyv1.Delivery{Keys: []string{"b-" + tr}, Content: push(1000, body)})
			c.expect(1000, body)
		}
	})
}

func TestStreamOfAnotherEpochIsRefused(t *testing.T) {
	n := start(t)
	st, err := halleyv1.NewCometClient(n.conn).Deliver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st.Send(&halleyv1.DeliverRequest{Message: &halleyv1.DeliverRequest_Hello{Hello: &halleyv1.DeliverHello{Epoch: "old"}}})
	if _, err := st.Recv(); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("got %v, want FAILED_PRECONDITION", err)
	}
}

func TestPushToAllIsPaced(t *testing.T) {
	t.Parallel()
	n := start(t)
	var cs []*client
	for i := range 40 {
		cs = append(cs, n.login("tcp", fmt.Sprintf(`{"mid":%d,"accepts":[1000]}`, i+1)))
	}
	j := n.job(halleyv1.Lane_LANE_BULK)
	begun := time.Now()
	j.send(&halleyv1.Delivery{All: true, Speed: 10, Content: push(1000, "slow")}, &halleyv1.Delivery{All: true, Content: push(1000, "fast")}, &halleyv1.Delivery{All: true, Content: push(1001, "unwanted")})
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("acknowledged after %v: an all must not hold its stream", took)
	}
	for _, c := range cs {
		c.expect(1000, "slow")
		c.expect(1000, "fast")
	}
	if took := time.Since(begun); took < 3*time.Second || took > patience {
		t.Errorf("40 sessions at 10 a second took %v", took)
	}
}

func TestKickTellsSignedSessionsAndClosesUnsignedOnesInSilence(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		signed := n.login(tr, `{"token":"kick-`+tr+`"}`)
		plain := n.login(tr, `{"mid":5,"key":"plain-`+tr+`","accepts":[1000]}`)
		j := n.job(halleyv1.Lane_LANE_URGENT)
		j.send(
			&halleyv1.Delivery{Uids: []string{"kick-" + tr}, Keys: []string{"plain-" + tr}, Content: push(1000, "last words")},
			&halleyv1.Delivery{Class: halleyv1.Class_CLASS_CONTROL, Uids: []string{"kick-" + tr}, Keys: []string{"plain-" + tr}, Content: kick("kicked")},
		)
		for _, c := range []*client{signed, plain} {
			c.expect(1000, "last words")
			if c == signed {
				e := c.expectEvent("closing")
				if e["error"].(map[string]any)["code"] != "kicked" {
					t.Errorf("closing %v", e)
				}
			}
			if code := c.closed(); c.ws != nil && code != 4008 {
				t.Errorf("close code %d, want 4008", code)
			}
		}
		eventually(t, func() bool { return len(n.goneConns()) >= 2 }, "deregistered")
	})
}

func TestKickedConnectionLingersUntilItsSuccessorIsInItsRooms(t *testing.T) {
	t.Parallel()
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		c := n.login(tr, `{"token":"linger-`+tr+`"}`)
		j := n.job(halleyv1.Lane_LANE_URGENT)
		end := kick("replaced")
		end.Control.GetKick().LingerMs = 1000
		j.send(
			&halleyv1.Delivery{Class: halleyv1.Class_CLASS_CONTROL, Uids: []string{"linger-" + tr}, Content: end},
			&halleyv1.Delivery{Uids: []string{"linger-" + tr}, Content: push(1000, "on its way")},
		)
		c.expect(1000, "on its way")
		// No closing event: the client asked for it.
		if code := c.closed(); c.ws != nil && code != 1000 {
			t.Errorf("close code %d, want 1000", code)
		}
	})
}

func (n *node) goneConns() []string {
	n.router.mu.Lock()
	defer n.router.mu.Unlock()
	return slices.Clone(n.router.gone)
}

func TestKickKeepsToItsFilters(t *testing.T) {
	n := start(t)
	a := n.login("tcp", `{"token":"a"}`)
	plain := n.login("tcp", `{"mid":7}`)
	j := n.job(halleyv1.Lane_LANE_URGENT)
	filtered := func(device string, before int64) *halleyv1.Delivery_Control {
		k := kick("token_revoked")
		k.Control.GetKick().DeviceId, k.Control.GetKick().IssuedBeforeMs = device, before
		return k
	}
	j.send(
		&halleyv1.Delivery{Uids: []string{"a"}, Content: filtered("other-device", 0)},
		&halleyv1.Delivery{Uids: []string{"a"}, Content: filtered("", 1000)}, // issued at 1000: not before
		&halleyv1.Delivery{Uids: []string{"7"}, Content: filtered("", 5000)}, // has no token
	)
	a.barrier()
	plain.barrier()
	j.send(&halleyv1.Delivery{Uids: []string{"a"}, Content: filtered("device-of-a", 1001)})
	a.expectEvent("closing")
	a.closed()
}

func TestControlsChangeRoomsAndResync(t *testing.T) {
	n := start(t)
	a := n.dial("ws")
	id := connID(a.auth(`{"token":"a","rooms":["live://old"]}`))
	j := n.job(halleyv1.Lane_LANE_URGENT)
	rooms := func(c *halleyv1.RoomsChange) *halleyv1.Delivery_Control {
		return &halleyv1.Delivery_Control{Control: &halleyv1.Control{Control: &halleyv1.Control_Rooms{Rooms: c}}}
	}
	j.send(&halleyv1.Delivery{ConnIds: []string{id}, Content: rooms(&halleyv1.RoomsChange{Join: []string{"live://new"}, Leave: []string{"live://old"}})})
	eventually(t, func() bool { return n.router.count("live://new") == 1 && n.router.count("live://old") == 0 }, "rooms stored")
	j.send(&halleyv1.Delivery{Room: "live://new", Content: push(1000, "new")}, &halleyv1.Delivery{Room: "live://old", Content: push(1000, "old")})
	a.expect(1000, "new")
	j.send(&halleyv1.Delivery{Uids: []string{"a"}, Content: rooms(&halleyv1.RoomsChange{Join: []string{"conversation://7"}})})
	a.expectEvent("resync")
	// Again: it has missed nothing since.
	j.send(&halleyv1.Delivery{Uids: []string{"a"}, Content: rooms(&halleyv1.RoomsChange{Join: []string{"conversation://7"}})},
		&halleyv1.Delivery{Uids: []string{"a"}, Content: push(1000, "next")})
	a.expect(1000, "next")
	if got := n.router.listed("conversation://7"); len(got) != 0 {
		t.Errorf("a conversation lists %v", got)
	}
	closeRoom := &halleyv1.Delivery_Control{Control: &halleyv1.Control{Control: &halleyv1.Control_CloseRoom{CloseRoom: &halleyv1.CloseRoom{}}}}
	j.send(&halleyv1.Delivery{Room: "live://new", Content: closeRoom})
	eventually(t, func() bool { return n.router.count("live://new") == 0 }, "room closed")
	resync := &halleyv1.Delivery_Control{Control: &halleyv1.Control{Control: &halleyv1.Control_Resync{Resync: &halleyv1.ResyncSession{}}}}
	j.send(&halleyv1.Delivery{Uids: []string{"a"}, Content: resync})
	a.expectEvent("resync")
	j.send(&halleyv1.Delivery{All: true, Content: resync})
	a.expectEvent("resync")
	a.barrier()
}

func TestResyncsOfAllAreMerged(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.ResyncSpread = 300 * time.Millisecond }))
	a := n.login("tcp", `{"token":"a"}`)
	resync := &halleyv1.Delivery_Control{Control: &halleyv1.Control{Control: &halleyv1.Control_Resync{Resync: &halleyv1.ResyncSession{}}}}
	j := n.job(halleyv1.Lane_LANE_URGENT)
	var ds []*halleyv1.Delivery
	for range 20 {
		ds = append(ds, &halleyv1.Delivery{All: true, Content: resync})
	}
	j.send(ds...)
	a.expectEvent("resync")
	got := 1
	for {
		f, err := a.read(600 * time.Millisecond)
		if err != nil {
			break
		}
		if f.Op == 102 {
			got++
		}
	}
	if got < 1 || got > 3 {
		t.Errorf("%d resyncs for 20 asked within one spread, want 1 to 3", got)
	}
}

func TestWhatComesDuringAuthenticationWaitsForTheReply(t *testing.T) {
	n := start(t)
	j := n.job(halleyv1.Lane_LANE_PUSH)
	n.logic.mu.Lock()
	n.logic.connect = func(r *halleyv1.ConnectRequest, _ *halleyv1.ConnectResponse) error {
		// job may know of the session before its comet does.
		resp := j.send(
			&halleyv1.Delivery{ConnIds: []string{r.GetConn().GetId()}, Content: push(1000, "early")},
			&halleyv1.Delivery{ConnIds: []string{r.GetConn().GetId()}, Content: push(1999, "unwanted")},
		)
		if len(resp.GetNotHeld()) != 0 {
			t.Errorf("not held %v", resp.GetNotHeld())
		}
		return nil
	}
	n.logic.mu.Unlock()
	c := n.login("tcp", `{"token":"a","accepts":[1000]}`)
	c.expect(1000, "early")
	c.barrier()
}

func TestLonePushIsWrittenAtOnce(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.FlushMax = 400 * time.Millisecond }))
	c := n.login("tcp", `{"token":"a"}`)
	j := n.job(halleyv1.Lane_LANE_PUSH)
	var took []time.Duration
	for range 20 {
		begun := time.Now()
		j.send(&halleyv1.Delivery{Uids: []string{"a"}, Content: push(1000, "x")})
		c.expect(1000, "x")
		took = append(took, time.Since(begun))
	}
	// If it waited for others, each would: one or another may be late for other reasons.
	if slices.Sort(took); took[len(took)/2] > 200*time.Millisecond {
		t.Errorf("lone pushes took %v", took)
	}
}

func TestKickDuringAuthenticationIsKept(t *testing.T) {
	n := start(t)
	j := n.job(halleyv1.Lane_LANE_URGENT)
	n.logic.mu.Lock()
	n.logic.connect = func(r *halleyv1.ConnectRequest, _ *halleyv1.ConnectResponse) error {
		if resp := j.send(&halleyv1.Delivery{ConnIds: []string{r.GetConn().GetId()}, Content: kick("token_revoked")}); len(resp.GetNotHeld()) != 0 {
			t.Errorf("not held %v", resp.GetNotHeld())
		}
		return nil
	}
	n.logic.mu.Unlock()
	c := n.login("ws", `{"token":"a"}`)
	c.expectEvent("closing")
	if code := c.closed(); code != 4003 {
		t.Errorf("close code %d, want 4003", code)
	}
}
