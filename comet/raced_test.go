package comet_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// comesAgain reads that the session ends and that its client is to come again.
func (c *client) comesAgain() {
	c.t.Helper()
	e := c.expectEvent("closing")["error"].(map[string]any)
	if e["code"] != "unavailable" || e["retry"] != true {
		c.t.Errorf("closing with %v, want unavailable, to come again", e)
	}
	if code := c.closed(); c.ws != nil && code != 4507 {
		c.t.Errorf("close code %d, want 4507", code)
	}
}

// What came while a comet stood still is new to it, log-ins that were given up long ago among it. Their clients have other connections by now.
func TestLogInThatWasGivenUpIsNotCarriedOut(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("can't be told here")
	}
	router := newFakeRouter()
	router.refuse = 1 << 30
	n := startStopped(t, router)
	c := n.dial("tcp") // which the kernel takes
	c.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: []byte(`{"token":"a"}`)})
	c.conn.Close()
	router.with(func() { router.refuse = 0 })
	eventually(t, func() bool { return n.metric("halley_comet_handshakes_total", "result", "none") == 1 }, "it has ended")
	n.logic.mu.Lock()
	defer n.logic.mu.Unlock()
	if n.logic.auths != 0 {
		t.Error("logic was asked: it would take the place of the connection that the client has now")
	}
}

// Router puts log-ins into an order, but logic's answers may come in another one.
func TestOlderConnectionWhoseAnswerIsLateTakesNotTheYoungerOnesPlace(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		asked, answer := make(chan struct{}), make(chan struct{})
		older, younger := n.dial(tr), n.dial(tr)
		auth := []byte(`{"token":"u-` + tr + `","key":"k-` + tr + `"}`)
		n.duringLogIn(func(string) {
			close(asked)
			<-answer
		})
		older.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 77, Body: auth})
		<-asked
		n.duringLogIn(func(string) {})
		younger.auth(string(auth))
		close(answer)
		f := older.next()
		if want := `"code":"unavailable"`; f.Op != frame.OpAuthReply || !strings.Contains(string(f.Body), want) {
			t.Errorf("the older one: got op %v %s, want %s", f.Op, f.Body, want)
		}
		older.closed()
		younger.barrier()
		n.job(halleyv1.Lane_LANE_PUSH).send(&halleyv1.Delivery{Keys: []string{"k-" + tr}, Content: push(1000, "by key")})
		younger.expect(1000, "by key")
	})
}

// Nobody is left of two, if the one that was there is closed for good and the new one comes to nothing.
func TestSessionThatGivesWayToALogInThatFailsMayComeAgain(t *testing.T) {
	onAll(t, []option{with(func(c *comet.Config) { c.MaxRooms = 1 })}, func(t *testing.T, n *node, tr string) {
		there := n.login(tr, `{"token":"u-`+tr+`","key":"k-`+tr+`"}`)
		fails := n.dial(tr)
		fails.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: []byte(`{"token":"u-` + tr + `","key":"k-` + tr + `","rooms":["live://1","live://2"]}`)})
		there.comesAgain()

		there = n.login(tr, `{"token":"u-`+tr+`","key":"k-`+tr+`"}`)
		j := n.job(halleyv1.Lane_LANE_URGENT)
		n.duringLogIn(func(id string) {
			var ds []*halleyv1.Delivery
			for range 65 { // more than a log-in keeps: it ends while logic is asked
				ds = append(ds, &halleyv1.Delivery{ConnIds: []string{id}, Content: changeRooms(&halleyv1.RoomsChange{Join: []string{"live://1"}})})
			}
			j.send(ds...)
		})
		ends := n.dial(tr)
		ends.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: []byte(`{"token":"u-` + tr + `","key":"k-` + tr + `"}`)})
		ends.closed()
		there.comesAgain()
		n.duringLogIn(func(string) {})
	})
}

// The same where it ends while its rooms are stored.
func TestSessionThatGivesWayToALogInThatEndsLateMayComeAgain(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		auth := `{"token":"u-` + tr + `","key":"k-` + tr + `"`
		there := n.login(tr, auth+`}`)
		var id string
		n.duringLogIn(func(conn string) { id = conn })
		defer n.duringLogIn(func(string) {})
		storing, stored := make(chan struct{}), make(chan struct{})
		once := sync.OnceFunc(func() { close(storing) })
		n.router.with(func() {
			n.router.hold = func() {
				once()
				<-stored
			}
		})
		defer n.router.with(func() { n.router.hold = nil })
		ends := n.dial(tr)
		ends.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: []byte(auth + `,"rooms":["live://` + tr + `"]}`)})
		<-storing
		var ds []*halleyv1.Delivery
		for range 65 { // more than a log-in keeps
			ds = append(ds, &halleyv1.Delivery{ConnIds: []string{id}, Content: changeRooms(&halleyv1.RoomsChange{Join: []string{"live://1"}})})
		}
		n.job(halleyv1.Lane_LANE_URGENT).send(ds...)
		close(stored)
		ends.closed()
		there.comesAgain()
	})
}

// Its client asked for it, and knows: a log-in that it has given up must not end it for good.
func TestConnectionThatIsResumedWithItsKeyEndsInOrder(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		old := n.dial(tr)
		id := connID(old.auth(`{"token":"u-` + tr + `","key":"k-` + tr + `"}`))
		n.login(tr, fmt.Sprintf(`{"token":"u-%s","key":"k-%[1]s","resume":{"replaces":%q}}`, tr, id)).barrier()
		if code := old.closed(); old.ws != nil && code != 1000 {
			t.Errorf("close code %d, want 1000", code)
		}
	})
}

// Router has given its place to the log-in that comet refuses: nothing would find it any more.
func TestConnectionEndsThatIsResumedByALogInTooLateForItsKey(t *testing.T) {
	onAll(t, nil, func(t *testing.T, n *node, tr string) {
		old := n.dial(tr)
		id := connID(old.auth(`{"token":"u-` + tr + `","key":"old-` + tr + `"}`))
		asked, answer := make(chan struct{}), make(chan struct{})
		late, younger := n.dial(tr), n.dial(tr)
		n.duringLogIn(func(string) {
			close(asked)
			<-answer
		})
		late.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: fmt.Appendf(nil, `{"token":"u-%s","key":"k-%[1]s","resume":{"replaces":%q}}`, tr, id)})
		<-asked
		n.duringLogIn(func(string) {})
		younger.auth(`{"token":"u-` + tr + `","key":"k-` + tr + `"}`)
		close(answer)
		if f := late.next(); f.Op != frame.OpAuthReply {
			t.Errorf("got op %v", f.Op)
		}
		late.closed()
		if code := old.closed(); old.ws != nil && code != 1000 {
			t.Errorf("close code %d, want 1000", code)
		}
		younger.barrier()
	})
}

func TestSessionWhosePlaceAnOlderConnectionTookComesAgain(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.RewriteInterval = time.Hour }))
	c := n.dial("ws")
	id := connID(c.auth(`{"token":"a"}`))
	old := n.epoch()
	n.router.with(func() { n.router.raced, n.router.dead[old] = id, true })
	c.comesAgain()
	c = n.dial("ws")
	id = connID(c.auth(`{"token":"a"}`))
	n.router.with(func() { n.router.raced, n.router.lost = id, allBuckets() })
	for {
		// It may be told to resync, from the time before.
		if name, v := c.event(); name != "resync" {
			if e := v["error"].(map[string]any); name != "closing" || e["code"] != "unavailable" {
				t.Errorf("got %s %v", name, v)
			}
			break
		}
	}
	c.closed()
}

func allBuckets() (all []uint32) {
	for b := range uint32(256) {
		all = append(all, b)
	}
	return all
}
