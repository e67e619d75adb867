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
