package comet_test

import (
	"slices"
	"testing"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func TestBodiesWithoutATokenDontReachLogicUnlessTheyMay(t *testing.T) {
	closed := func(_ *comet.Config, d *comet.Deps, _ *node) { d.Unsigned = false }
	onAll(t, []option{closed}, func(t *testing.T, n *node, tr string) {
		n.logic.mu.Lock()
		before := n.logic.auths
		n.logic.mu.Unlock()
		c := n.dial(tr)
		c.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: []byte(`{"mid":7,"key":"k"}`)})
		if f, err := c.read(patience); err == nil {
			t.Fatalf("got op %v, want the end without a frame", f.Op)
		}
		n.logic.mu.Lock()
		asked := n.logic.auths - before
		n.logic.mu.Unlock()
		if asked != 0 {
			t.Fatal("logic was asked")
		}
		n.login(tr, `{"token":"signed-`+tr+`"}`)
	})
}

// TestUnsignedLogInThatIsAnsweredLateTakesNoSignedSessionsKey: router lets a signed session take an unsigned one's key, and never
// the other way round; but the unsigned one's log-in may be the older one, and be answered after.
func TestUnsignedLogInThatIsAnsweredLateTakesNoSignedSessionsKey(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		signed := n.login(tr, `{"token":"ann","key":"k-`+tr+`"}`)
		late := n.dial(tr)
		late.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: []byte(`{"mid":7,"key":"k-` + tr + `"}`)})
		late.closed()
		signed.barrier()
		// The other way round the older one ends.
		first := n.login(tr, `{"mid":7,"key":"l-`+tr+`"}`)
		second := n.login(tr, `{"token":"ann","key":"l-`+tr+`"}`)
		first.closed()
		second.barrier()
	})
}

// TestEventForAUserOfWhomOnlyUnsignedSessionsAreThereReachesNobody: who counts on it, as one who tells phones of messages, must hear.
func TestEventForAUserOfWhomOnlyUnsignedSessionsAreThereReachesNobody(t *testing.T) {
	n := start(t)
	c := n.dial("tcp")
	var id string
	n.duringLogIn(func(conn string) { id = conn })
	c.auth(`{"mid":7,"key":"k"}`)
	event := func() *halleyv1.Delivery_Push { return push(int32(frame.OpEvent), `{}`) }
	resp := n.job(halleyv1.Lane_LANE_CHAT).send(
		&halleyv1.Delivery{ConnIds: []string{id}, Content: event()}, &halleyv1.Delivery{Uids: []string{"7"}, Content: event()},
		&halleyv1.Delivery{ConnIds: []string{id}, Content: push(1000, "not accepted")},
	)
	if len(resp.GetNotHeld()) != 1 || resp.GetNotHeld()[0].GetNumber() != 1 || !slices.Equal(resp.GetNobody(), []uint64{2}) {
		t.Errorf("got %v, want the first one not held, nobody for the second", resp)
	}
	if got := n.metric("halley_comet_dropped_total", "reason", "not_accepted"); got != 3 {
		t.Errorf("%v counted, want 3", got)
	}
	c.barrier()
}

// TestPageWhoseNameLeadsToThisMachineIsKeptOut: with DNS rebinding a page's host and the host that it asks for are the same.
func TestPageWhoseNameLeadsToThisMachineIsKeptOut(t *testing.T) {
	const port = "3102"
	for _, x := range []struct {
		name         string
		machineOnly  bool
		origins      []string
		origin, host string
		want         int
	}{
		{"rebound", true, nil, "http://evil.example:" + port, "evil.example:" + port, 403},
		{"rebound, other port", true, nil, "http://evil.example", "evil.example:" + port, 403},
		{"this machine's own page", true, nil, "http://localhost:3111", "localhost:" + port, 101},
		{"by address", true, nil, "http://127.0.0.1:3111", "127.0.0.1:" + port, 101},
		{"by IPv6 address", true, nil, "http://[::1]:3111", "[::1]:" + port, 101},
		{"no browser", true, nil, "", "evil.example:" + port, 101},
		{"of an origin that is named", true, []string{"app.example"}, "https://app.example", "app.example", 101},
		{"open anywhere", false, nil, "https://chat.example", "chat.example", 101},
	} {
		t.Run(x.name, func(t *testing.T) {
			n := start(t, func(c *comet.Config, d *comet.Deps, _ *node) { c.Origins, d.ThisMachineOnly = x.origins, x.machineOnly })
			if got := n.upgrade("/sub", x.host, x.origin, ""); got != x.want {
				t.Errorf("status %d, want %d", got, x.want)
			}
		})
	}
}
