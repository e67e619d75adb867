package comet_test

import (
	"fmt"
	"strings"
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
	t.Parallel()
	n := start(t, withTLS, func(c *comet.Config, _ *comet.Deps, n *node) {
		c.DrainGrace = time.Second
		n.others(
			other("old", 48*time.Hour, 1000, 1000),
			other("young", time.Minute, 1000, 1000),
			&halleyv1.CometInfo{Comet: "no-url", EnrolledAtMs: time.Now().UnixMilli(), Load: &halleyv1.CometLoad{Capacity: 1000, HandshakeRate: 1000}},
			&halleyv1.CometInfo{Comet: "leaving", EnrolledAtMs: time.Now().UnixMilli(), Draining: true, Load: &halleyv1.CometLoad{Capacity: 1000, HandshakeRate: 1000},
				Endpoints: &halleyv1.Endpoints{WsUrl: "wss://leaving.example/sub"}},
		)
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
	n.drained(patience)
	n.router.with(func() {
		if len(n.router.retired) != 1 || n.router.retired[0] != n.router.epochs[0] || !n.router.draining {
			t.Errorf("retired %v, draining told %v", n.router.retired, n.router.draining)
		}
	})
}

func TestDrainKeepsToItsPace(t *testing.T) {
	t.Parallel()
	n := start(t, with(func(c *comet.Config) { c.DrainRate, c.DrainTimeout = 1000, 20*time.Second }), func(_ *comet.Config, _ *comet.Deps, n *node) {
		n.router.spare, n.router.room = 50, 1000 // what the others can take
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
	n.drained(patience)
}

// other is another comet with a URL, some age, and room for so many connections and handshakes a second.
func other(name string, age time.Duration, room int64, rate float64) *halleyv1.CometInfo {
	return &halleyv1.CometInfo{
		Comet: name, EnrolledAtMs: time.Now().Add(-age).UnixMilli(), Endpoints: &halleyv1.Endpoints{WsUrl: "wss://" + name + ".example/sub"},
		Load: &halleyv1.CometLoad{Connections: 50, Capacity: 50 + room, HandshakeRate: rate},
	}
}

// others tells a comet of others, and what these can take in all.
func (n *node) others(comets ...*halleyv1.CometInfo) {
	n.router.with(func() {
		n.router.comets, n.router.room, n.router.spare = comets, 0, 0
		for _, c := range comets {
			if !c.GetDraining() {
				n.router.room += c.GetLoad().GetCapacity() - c.GetLoad().GetConnections()
				n.router.spare += c.GetLoad().GetHandshakeRate()
			}
		}
	})
}

// knowsOthers waits until the comet has heard what others can take.
func (n *node) knowsOthers() {
	n.t.Helper()
	renews := func() (k int) { n.router.with(func() { k = n.router.renews }); return k }
	before := renews()
	eventually(n.t, func() bool { return renews() > before+1 }, "what others can take is known")
}

// sent returns to which comets WebSocket sessions were sent.
func sent(cs []*client) map[string]int {
	to := map[string]int{}
	for _, c := range cs {
		url, _ := c.expectEvent("go_away")["url"].(string)
		to[strings.TrimSuffix(strings.TrimPrefix(url, "wss://"), ".example/sub")]++
	}
	return to
}

func (n *node) wsClients(k int) (cs []*client) {
	for i := range k {
		cs = append(cs, n.login("ws", fmt.Sprintf(`{"token":"ws%d"}`, i)))
	}
	return cs
}

func TestDrainFillsTheYoungestThatHaveRoom(t *testing.T) {
	n := start(t, func(_ *comet.Config, _ *comet.Deps, n *node) {
		n.others(
			other("old", 48*time.Hour, 1000, 1000), other("full", time.Second, 0, 1000),
			other("young", 5*time.Minute, 7, 1000), other("younger", 3*time.Minute, 5, 1000),
		)
	})
	cs := n.wsClients(20)
	n.knowsOthers()
	n.stop()
	if to := sent(cs); to["younger"] != 5 || to["young"] != 7 || to["old"] != 8 {
		t.Errorf("sent %v, want 5 to younger, 7 to young, 8 to old", to)
	}
}

func TestDrainSpreadsOverCometsOfOneAge(t *testing.T) {
	n := start(t, func(_ *comet.Config, _ *comet.Deps, n *node) {
		n.others(other("a", 48*time.Hour, 100, 1000), other("b", 47*time.Hour, 110, 1000), other("c", 49*time.Hour, 105, 1000))
	})
	cs := n.wsClients(30)
	n.knowsOthers()
	n.stop()
	// Most room first makes them equal: 95 left in each.
	if to := sent(cs); to["a"] != 5 || to["b"] != 15 || to["c"] != 10 {
		t.Errorf("sent %v, want 5 to a, 15 to b, 10 to c", to)
	}
}

// TestDrainSoonSendsNobodyToACometThatIsToldToLeaveAtTheSameTime: that one hasn't said so yet when others are first looked at.
func TestDrainSoonSendsNobodyToACometThatIsToldToLeaveAtTheSameTime(t *testing.T) {
	t.Parallel()
	twin, old := other("twin", time.Second, 1000, 1000), other("old", 48*time.Hour, 1000, 1000)
	n := start(t, with(func(c *comet.Config) { c.RenewInterval, c.DrainRate = 3*time.Second, 10 }), func(_ *comet.Config, _ *comet.Deps, n *node) {
		n.others(twin, old)
	})
	cs := n.wsClients(20)
	leaving := other("twin", time.Second, 1000, 1000)
	leaving.Draining = true
	n.router.with(func() {
		looks := 0
		n.router.listing = func() {
			if looks++; looks > 1 {
				n.router.comets = []*halleyv1.CometInfo{leaving, old}
			}
		}
	})
	n.stop()
	if to := sent(cs); to["old"] == 0 {
		t.Errorf("sent %v within two seconds, want the later ones to go to the old one", to)
	}
}

func TestDrainGivesNoCometMoreHandshakesThanItTakes(t *testing.T) {
	n := start(t, func(_ *comet.Config, _ *comet.Deps, n *node) {
		n.others(other("young", time.Minute, 1000, 20), other("old", 48*time.Hour, 1000, 20))
	})
	cs := n.wsClients(20)
	n.knowsOthers()
	begun := time.Now()
	n.stop()
	to := sent(cs)
	if took := time.Since(begun); took < 300*time.Millisecond {
		t.Errorf("20 sessions at 40 a second took %v", took)
	}
	if to["young"] < 8 || to["old"] < 8 {
		t.Errorf("sent %v, want about the same number to both", to)
	}
}

func TestDrainSendsNoMoreThanOthersHaveRoomFor(t *testing.T) {
	t.Parallel()
	const total, room = 30, 6
	n := start(t, with(func(c *comet.Config) {
		c.DrainTimeout, c.DrainGrace, c.CloseGrace = 8*time.Second, 4*time.Second, 100*time.Millisecond
		c.RenewInterval = 500 * time.Millisecond // three of them after they have left they are expected in the other's figures
	}), func(_ *comet.Config, d *comet.Deps, n *node) {
		d.Log = quiet()
		n.others(other("young", time.Minute, room, 1000))
	})
	for i := range total {
		n.login("tcp", fmt.Sprintf(`{"mid":%d}`, i+1))
	}
	n.knowsOthers()
	left := func(k int) func() bool {
		return func() bool { return n.metric("halley_comet_connections") <= float64(total-k) }
	}
	begun := time.Now()
	n.stop()
	eventually(t, left(room), "as many as find room have left")
	if took := time.Since(begun); took > 3900*time.Millisecond {
		t.Errorf("they were sent after %v, with the rest", took)
	}
	// They have arrived there.
	n.others(other("young", time.Minute, 0, 1000))
	eventually(t, left(room+1), "the first of the rest leaves")
	first := time.Since(begun)
	n.drained(patience)
	// They stay until the grace before the timeout, and then go one after another.
	if last := time.Since(begun); first < 3900*time.Millisecond || last-first < time.Second || last > patience {
		t.Errorf("the rest left from %v to %v, want from 4 s to 8 s", first, last)
	}
}

func TestDrainGoesOnWhenRoomComes(t *testing.T) {
	t.Parallel()
	n := start(t, with(func(c *comet.Config) {
		c.DrainTimeout = time.Minute
		c.RenewInterval = 400 * time.Millisecond // three of them after they have left they are expected in the other's figures
	}), func(_ *comet.Config, d *comet.Deps, n *node) {
		d.Log = quiet()
		n.others(other("full", time.Hour, 2, 1000))
	})
	cs := n.wsClients(6)
	n.knowsOthers()
	n.stop()
	away := make(chan string, len(cs))
	for _, c := range cs {
		go func() {
			f, err := c.read(2 * patience)
			if err != nil {
				away <- err.Error()
				return
			}
			away <- string(f.Body)
			c.conn.Close()
		}()
	}
	for range 2 {
		if got := <-away; !strings.Contains(got, "full.example") {
			t.Errorf("got %s, want to be sent to the full one", got)
		}
	}
	// The two have arrived there; nobody else goes until another comet comes.
	n.others(other("full", time.Hour, 0, 1000))
	n.knowsOthers()
	n.knowsOthers()
	select {
	case got := <-away:
		t.Errorf("one more was sent: %s", got)
	default:
	}
	n.others(other("full", time.Hour, 0, 1000), other("new", time.Second, 100, 1000))
	for range 4 {
		if got := <-away; !strings.Contains(got, "new.example") {
			t.Errorf("got %s, want to be sent to the new one", got)
		}
	}
	n.drained(patience)
}

func TestDefaultsDrainAFullCometAtItsPace(t *testing.T) {
	c := tags(t)
	if takes := time.Duration(float64(c.MaxConnections) / c.DrainRate * float64(time.Second)); takes+c.DrainGrace > c.DrainTimeout {
		t.Errorf("%d sessions at %v a second take %v and a grace of %v, more than the timeout of %v", c.MaxConnections, c.DrainRate, takes, c.DrainGrace, c.DrainTimeout)
	}
}

func TestDrainEndsInTime(t *testing.T) {
	t.Parallel()
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
	n.drained(patience) // a write may take a minute
}

func TestDrainLetsNobodyIn(t *testing.T) {
	t.Parallel()
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
	n.drained(patience)
}

func TestStopBeforeEnrollIsClean(t *testing.T) {
	router := newFakeRouter()
	router.refuse = 1 << 30
	n := startStopped(t, router)
	n.stop()
	n.drained(patience)
}
