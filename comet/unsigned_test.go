package comet_test

import (
	"testing"
	"time"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
)

func TestBodiesWithoutATokenDontReachLogicUnlessTheyMay(t *testing.T) {
	closed := func(_ *comet.Config, d *comet.Deps, _ *node) { d.Unsigned = false }
	onAll(t, []option{closed}, func(t *testing.T, n *node, tr string) {
		n.logic.mu.Lock()
		before := n.logic.auths
		n.logic.mu.Unlock()
		c := n.dial(tr)
		c.send(frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: []byte(`{"mid":7,"key":"k"}`)})
		if f, err := c.read(5 * time.Second); err == nil {
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
