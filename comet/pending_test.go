package comet_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// duringLogIn lets do work while logic is asked about a session, of which it is told the connection id, for all log-ins that follow.
func (n *node) duringLogIn(do func(conn string)) {
	n.logic.mu.Lock()
	defer n.logic.mu.Unlock()
	n.logic.connect = func(r *halleyv1.ConnectRequest, _ *halleyv1.ConnectResponse) error {
		do(r.GetConn().GetId())
		return nil
	}
}

func changeRooms(c *halleyv1.RoomsChange) *halleyv1.Delivery_Control {
	return &halleyv1.Delivery_Control{Control: &halleyv1.Control{Control: &halleyv1.Control_Rooms{Rooms: c}}}
}

func TestSessionThatCantKeepAllControlsOfItsLogInEnds(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		dropped := n.metric("halley_comet_dropped_total", "reason", "too_many_controls")
		j := n.job(halleyv1.Lane_LANE_URGENT)
		acked := make(chan struct{})
		n.duringLogIn(func(id string) {
			defer close(acked)
			var ds []*halleyv1.Delivery
			for i := range 64 {
				ds = append(ds, &halleyv1.Delivery{ConnIds: []string{id}, Content: changeRooms(&halleyv1.RoomsChange{Join: []string{fmt.Sprintf("live://%d", i)}})})
			}
			j.send(append(ds, &halleyv1.Delivery{ConnIds: []string{id}, Content: kick("token_revoked")})...)
		})
		c := n.dial(tr)
		c.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: []byte(`{"token":"u-` + tr + `"}`)})
		if code := c.closed(); c.ws != nil && code != 4502 {
			t.Errorf("close code %d, want 4502", code)
		}
		<-acked
		if got := n.metric("halley_comet_dropped_total", "reason", "too_many_controls") - dropped; got != 1 {
			t.Errorf("%v controls counted as left out, want 1", got)
		}
		eventually(t, func() bool { return n.metric("halley_comet_sessions") == 0 && len(n.goneConns()) > 0 }, "deregistered")
	})
}

func TestControlsOfALogInAreCarriedOutInTheirOrder(t *testing.T) {
	n := start(t)
	j := n.job(halleyv1.Lane_LANE_URGENT)
	n.duringLogIn(func(id string) {
		var ds []*halleyv1.Delivery
		for range 32 {
			for _, c := range []*halleyv1.RoomsChange{{Join: []string{"live://1"}}, {Leave: []string{"live://1"}}} {
				ds = append(ds, &halleyv1.Delivery{ConnIds: []string{id}, Content: changeRooms(c)})
			}
		}
		j.send(ds...)
	})
	c := n.login("tcp", `{"token":"a"}`)
	n.duringLogIn(func(string) {})
	c.barrier()
	j.send(&halleyv1.Delivery{Room: "live://1", Content: push(1000, "to the room")}, &halleyv1.Delivery{Uids: []string{"a"}, Content: push(1000, "to the user")})
	c.expect(1000, "to the user")
}

func TestExcludedSessionsGetNothingThatCameDuringTheirLogIn(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		j := n.job(halleyv1.Lane_LANE_PUSH)
		n.duringLogIn(func(id string) {
			to := func(body string, uids, keys []string) *halleyv1.Delivery {
				return &halleyv1.Delivery{ConnIds: []string{id}, ExcludeUids: uids, ExcludeKeys: keys, Content: push(1000, body)}
			}
			resp := j.send(
				to("not to the user", []string{"x", "u-" + tr}, nil), to("not to the key", nil, []string{"k-" + tr}),
				to("to others as well", []string{"k-" + tr}, []string{"u-" + tr}),
			)
			if len(resp.GetNotHeld()) != 0 {
				t.Errorf("not held %v", resp.GetNotHeld())
			}
		})
		c := n.login(tr, `{"token":"u-`+tr+`","key":"k-`+tr+`"}`)
		c.expect(1000, "to others as well")
		c.barrier()
	})
}

func TestWhatALogInTurnsOutNotToAcceptIsCounted(t *testing.T) {
	n := start(t)
	j := n.job(halleyv1.Lane_LANE_PUSH)
	n.duringLogIn(func(id string) { j.send(&halleyv1.Delivery{ConnIds: []string{id}, Content: push(1999, "unwanted")}) })
	n.login("tcp", `{"token":"a","accepts":[1000]}`).barrier()
	if got := n.metric("halley_comet_dropped_total", "reason", "not_accepted"); got != 1 {
		t.Errorf("%v counted, want 1", got)
	}
}

// toAllDuringLogIns sends pushes to all while log-ins are under way, and lets these go on when comet has worked them off.
func (n *node) toAllDuringLogIns(ds ...func() *halleyv1.Delivery) {
	j := n.job(halleyv1.Lane_LANE_BULK)
	n.duringLogIn(func(string) {})
	witness := n.login("tcp", `{"token":"witness","tenant":"other"}`)
	n.duringLogIn(func(string) {
		for _, d := range ds {
			j.send(d())
		}
		// They are sent one after another: who has got the last one tells that those before are done.
		j.send(&halleyv1.Delivery{Tenant: "other", All: true, Content: push(1000, "done")})
		for string(witness.next().Body) != "done" {
		}
	})
}

func TestPushToAllReachesASessionWhoseLogInIsUnderWay(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		n.toAllDuringLogIns(
			func() *halleyv1.Delivery { return &halleyv1.Delivery{All: true, Content: push(1000, "to all")} },
			func() *halleyv1.Delivery {
				return &halleyv1.Delivery{All: true, Tenant: "other", Content: push(1000, "to another tenant")}
			},
			func() *halleyv1.Delivery {
				return &halleyv1.Delivery{All: true, ExcludeUids: []string{"u-" + tr}, Content: push(1000, "to all others")}
			},
			func() *halleyv1.Delivery { return &halleyv1.Delivery{All: true, Content: push(1999, "unwanted")} },
		)
		silent := n.dial(tr) // hasn't said who it is
		late := n.dial(tr)
		late.auth(`{"token":"u-` + tr + `","accepts":[1000]}`)
		late.expect(1000, "to all")
		late.barrier()
		n.duringLogIn(func(string) {})
		silent.auth(`{"token":"s-` + tr + `"}`)
		silent.barrier()
	})
}

func TestPushesToAllOfAnotherTenantTakeNoRoomInALogInsOutbox(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.OutboxBytes = 8 << 10 }))
	large := strings.Repeat("x", 5<<10)
	n.toAllDuringLogIns(
		func() *halleyv1.Delivery {
			return &halleyv1.Delivery{All: true, Tenant: "other", Content: push(1000, large)}
		},
		func() *halleyv1.Delivery {
			return &halleyv1.Delivery{All: true, Tenant: "other", Content: push(1000, large)}
		},
		func() *halleyv1.Delivery { return &halleyv1.Delivery{All: true, Content: push(1000, "mine")} },
	)
	// One that misses something can't be told: it would be closed.
	n.login("tcp", `{"mid":1,"accepts":[1000]}`).expect(1000, "mine")
}

func TestPushesToAllThatALogInCantKeepAreTold(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.OutboxBytes = 8 << 10 }))
	large := func() *halleyv1.Delivery {
		return &halleyv1.Delivery{All: true, Content: push(1000, strings.Repeat("x", 5<<10))}
	}
	n.toAllDuringLogIns(large, large, large)
	c := n.login("tcp", `{"token":"a"}`)
	if e := c.expectEvent("lagged"); e["dropped"].(float64) != 2 {
		t.Errorf("lagged %v, want 2 dropped", e)
	}
	c.expect(1000, strings.Repeat("x", 5<<10))
	if got := n.metric("halley_comet_outbox_dropped_volatile_total"); got != 2 {
		t.Errorf("%v dropped in the metrics, want 2", got)
	}
}

func TestResyncOfAllReachesASessionWhoseLogInIsUnderWay(t *testing.T) {
	n := start(t)
	j := n.job(halleyv1.Lane_LANE_URGENT)
	resyncs := n.metric("halley_comet_resyncs_total")
	n.duringLogIn(func(string) {
		j.send(&halleyv1.Delivery{All: true, Content: &halleyv1.Delivery_Control{Control: &halleyv1.Control{Control: &halleyv1.Control_Resync{Resync: &halleyv1.ResyncSession{}}}}})
		eventually(t, func() bool { return n.metric("halley_comet_resyncs_total") > resyncs }, "the session's turn")
	})
	c := n.login("tcp", `{"token":"a"}`)
	c.expectEvent("resync")
	c.barrier()
}

func TestWhatWaitedForALogInThatFailsIsCounted(t *testing.T) {
	n := start(t)
	j := n.job(halleyv1.Lane_LANE_PUSH)
	n.logic.mu.Lock()
	n.logic.connect = func(r *halleyv1.ConnectRequest, resp *halleyv1.ConnectResponse) error {
		j.send(&halleyv1.Delivery{ConnIds: []string{r.GetConn().GetId()}, Content: push(1000, "for nobody")})
		resp.Error = &halleyv1.Error{Code: "unavailable"}
		return nil
	}
	n.logic.mu.Unlock()
	c := n.dial("tcp")
	c.auth(`{"token":"a"}`)
	c.closed()
	eventually(t, func() bool { return n.metric("halley_comet_outbox_discarded_total") == 1 }, "one counted")
}
