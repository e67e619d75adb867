package comet_test

import (
	"fmt"
	"testing"

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
