package comet_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// drained waits until Run has returned.
func (n *node) drained(limit time.Duration) time.Duration {
	n.t.Helper()
	begun := time.Now()
	select {
	case err := <-n.done:
		if err != nil {
			n.t.Errorf("Run returned %v", err)
		}
		n.done <- nil
	case <-time.After(limit):
		n.t.Fatalf("Run did not return within %v", limit)
	}
	return time.Since(begun)
}

func TestDrainAsksThenClosesThenRetires(t *testing.T) {
	n := start(t, withTLS, func(c *comet.Config, _ *comet.Deps, n *node) {
		c.DrainGrace = time.Second
		n.router.comets = []*halleyv1.CometInfo{
			{Comet: "old", EnrolledAtMs: 1, Endpoints: &halleyv1.Endpoints{WsUrl: "wss://old.example/sub"}},
			{Comet: "young", EnrolledAtMs: 9, Endpoints: &halleyv1.Endpoints{WsUrl: "wss://young.example/sub"}},
			{Comet: "leaving", EnrolledAtMs: 99, Draining: true, Endpoints: &halleyv1.Endpoints{WsUrl: "wss://leaving.example/sub"}},
		}
	})
	var signed, plain []*client
	for _, tr := range transports {
		signed = append(signed, n.login(tr, `{"token":"s-`+tr+`"}`))
		plain = append(plain, n.login(tr, `{"mid":5}`))
	}
	leaver := n.login("tcp", `{"token":"leaver"}`)
	n.stop()
	for i, c := range signed {
		e := c.expectEvent("go_away")
		want := any(nil)
		if c.ws != nil {
			want = "wss://young.example/sub"
		}
		if e["url"] != want || e["grace_ms"].(float64) != 1000 {
			t.Errorf("%s: go_away %v", transports[i], e)
		}
	}
	leaver.expectEvent("go_away")
	leaver.conn.Close()
	if err := n.comet.Ready(t.Context()); err == nil {
		t.Error("ready while draining")
	}
	for _, c := range plain {
		if code := c.closed(); c.ws != nil && code != 1001 {
			t.Errorf("close code %d, want 1001", code)
		}
	}
	for _, c := range signed {
		c.barrier()
	}
	for _, c := range signed {
		c.expectEvent("closing")
		if code := c.closed(); c.ws != nil && code != 1001 {
			t.Errorf("close code %d, want 1001", code)
		}
	}
	n.drained(8 * time.Second)
	n.router.with(func() {
		if len(n.router.retired) != 1 || n.router.retired[0] != n.router.epochs[0] || !n.router.draining {
			t.Errorf("retired %v, draining told %v", n.router.retired, n.router.draining)
		}
	})
}

func TestDrainKeepsToItsPace(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.DrainRate, c.DrainTimeout = 1000, 20*time.Second }), func(_ *comet.Config, _ *comet.Deps, n *node) {
		n.router.spare = 50 // what the others can take
	})
	var cs []*client
	for i := range 30 {
		cs = append(cs, n.login("tcp", fmt.Sprintf(`{"mid":%d}`, i+1)))
	}
	eventually(t, func() bool { k := 0; n.router.with(func() { k = n.router.renews }); return k > 1 }, "spare known")
	begun := time.Now()
	n.stop()
	for _, c := range cs {
		c.closed()
	}
	if took := time.Since(begun); took < 400*time.Millisecond {
		t.Errorf("30 sessions at 50 a second took %v", took)
	}
	n.drained(5 * time.Second)
}

func TestDefaultsDrainAFullCometAtItsPace(t *testing.T) {
	c := tags(t)
	if takes := time.Duration(float64(c.MaxConnections) / c.DrainRate * float64(time.Second)); takes+c.DrainGrace > c.DrainTimeout {
		t.Errorf("%d sessions at %v a second take %v and a grace of %v, more than the timeout of %v", c.MaxConnections, c.DrainRate, takes, c.DrainGrace, c.DrainTimeout)
	}
}

func TestDrainEndsInTime(t *testing.T) {
	n := start(t, with(func(c *comet.Config) {
		c.DrainRate, c.DrainTimeout, c.DrainGrace, c.WriteTimeout = 1, time.Second, 500*time.Millisecond, time.Minute
	}))
	for i := range 50 {
		n.login("tcp", fmt.Sprintf(`{"token":"u%d"}`, i))
	}
	// Neither reads: one is stuck, one has never authenticated.
	n.login("tcp", `{"token":"stuck"}`)
	stuff(n.job(halleyv1.Lane_LANE_PUSH), "stuck", 4)
	n.dial("ws")
	n.stop()
	if took := n.drained(6 * time.Second); took > 4*time.Second {
		t.Errorf("drain took %v", took)
	}
}

func TestDrainLetsNobodyIn(t *testing.T) {
	n := start(t)
	n.login("tcp", `{"token":"a"}`)
	n.stop()
	eventually(t, func() bool {
		c := &client{t: t}
		conn, err := netDial(n.tcp)
		if err != nil {
			return true
		}
		defer conn.Close()
		c.conn = conn
		c.trySend(frame.Frame{Ver: 1, Op: frame.OpAuth, Body: []byte(`{}`)})
		_, err = c.read(time.Second)
		return err != nil
	}, "refused")
	n.drained(10 * time.Second)
}

func TestStopBeforeEnrollIsClean(t *testing.T) {
	router := newFakeRouter()
	router.refuse = 1 << 30
	n := startStopped(t, router)
	n.stop()
	n.drained(5 * time.Second)
}
