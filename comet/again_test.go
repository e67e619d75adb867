package comet_test

import (
	"context"
	"slices"
	"testing"

	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func TestLogicIsAskedAgainWhenTheEffectsAreStored(t *testing.T) {
	const room = "presence://bob"
	n := start(t)
	n.logic.mu.Lock()
	n.logic.request = func(_ context.Context, q *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
		if !slices.Contains(q.GetRooms(), room) {
			return &halleyv1.SessionResponse{Reply: []byte("before"), Effects: &halleyv1.Effects{Join: []string{room}}, Again: true}, nil
		}
		return &halleyv1.SessionResponse{Reply: []byte("after")}, nil
	}
	n.logic.mu.Unlock()
	c := n.login("tcp", `{"token":"alice"}`)
	c.send(frame.Frame{Ver: 1, Op: frame.OpRequest, Seq: 3, Body: []byte("watch")})
	if f := c.next(); f.Seq != 3 || string(f.Body) != "after" {
		t.Errorf("got seq %d, %q", f.Seq, f.Body)
	}
	c.barrier()
}
