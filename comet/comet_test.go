package comet_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRoomPushReachesMembersOnBothTransports(t *testing.T) {
	n := start(t)
	a := n.login("tcp", `{"mid":1,"key":"k1","room_id":"live://1","accepts":[1000]}`)
	b := n.login("ws", `{"token":"alice","rooms":["live://1"]}`)
	out := n.login("tcp", `{"mid":2,"key":"k2","accepts":[1000]}`)
	if got := n.router.count("live://1"); got != 2 {
		t.Fatalf("router counts %d, want 2", got)
	}
	j := n.job(halleyv1.Lane_LANE_PUSH)
	resp := j.send(&halleyv1.Delivery{Room: "live://1", Content: push(1005, "hello")})
	if resp.GetReached() != 2 {
		t.Errorf("reached %d, want 2", resp.GetReached())
	}
	for _, c := range []*client{a, b} {
		if f := c.expect(1005, "hello"); f.Ver != 1 || f.Seq != 0 {
			t.Errorf("ver %d seq %d, want 1 and 0", f.Ver, f.Seq)
		}
	}
	out.barrier()
	a.send(frame.Frame{Ver: 5, Op: frame.OpHeartbeat, Seq: 901, Body: []byte("x")})
	if f := a.expect(frame.OpHeartbeatReply, "\x00\x00\x00\x02"); f.Ver != 5 || f.Seq != 901 {
		t.Errorf("ver %d seq %d, want 5 and 901", f.Ver, f.Seq)
	}
}
