package comet_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/halley-im/halley/comet"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// stuck starts a comet whose queue of pushes to all is full for the rest of the test: they are for another tenant, slowly.
func stuck(t *testing.T) *node {
	n := start(t, with(func(c *comet.Config) { c.BroadcastQueue = 1 }))
	for i := range 30 {
		n.login("tcp", fmt.Sprintf(`{"token":"c%d","tenant":"crowd"}`, i))
	}
	j := n.job(halleyv1.Lane_LANE_BULK)
	for range 2 {
		j.send(toCrowd())
	}
	return n
}

func toCrowd() *halleyv1.Delivery {
	return &halleyv1.Delivery{Tenant: "crowd", All: true, Speed: 1, Content: push(1000, "all")}
}

// sendBlocked sends a batch whose last delivery, to all, has to wait.
func (j *job) sendBlocked(before ...*halleyv1.Delivery) {
	j.t.Helper()
	ds := append(before, toCrowd())
	for i, d := range ds {
		d.Number, d.Class = uint64(i+1), halleyv1.Class_CLASS_VOLATILE
		if d.Tenant == "" {
			d.Tenant = "default"
		}
	}
	if err := j.stream.Send(&halleyv1.DeliverRequest{Message: &halleyv1.DeliverRequest_Batch{Batch: &halleyv1.DeliverBatch{Deliveries: ds}}}); err != nil {
		j.t.Fatal(err)
	}
}

func TestWhatCameBeforeAPushToAllThatWaitsIsWrittenAndAcknowledged(t *testing.T) {
	n := stuck(t)
	c := n.login("tcp", `{"token":"a"}`)
	j := n.job(halleyv1.Lane_LANE_BULK)
	j.sendBlocked(
		&halleyv1.Delivery{Uids: []string{"a"}, Content: push(1000, "one")},
		&halleyv1.Delivery{Uids: []string{"nobody"}, Content: push(1000, "two")},
	)
	c.expect(1000, "one")
	late := time.AfterFunc(20*time.Second, j.cancel)
	defer late.Stop()
	resp, err := j.stream.Recv()
	if err != nil {
		t.Fatal("not acknowledged: ", err)
	}
	if resp.GetAcked() != 2 || resp.GetReached() != 1 || len(resp.GetNobody()) != 1 {
		t.Errorf("acknowledged %v, want the first two, one reached, one nobody's", resp)
	}
}

func TestStreamThatBreaksAtAPushToAllHasWrittenWhatCameBefore(t *testing.T) {
	n := stuck(t)
	c := n.login("tcp", `{"token":"a"}`)
	j := n.job(halleyv1.Lane_LANE_BULK)
	pushed := n.metric("halley_comet_deliveries_total", "content", "push")
	j.sendBlocked(&halleyv1.Delivery{Uids: []string{"a"}, Content: push(1000, "one")})
	// The comet has taken the batch when it counts or answers it; a stream that is cancelled before carries nothing.
	eventually(t, func() bool { return n.metric("halley_comet_deliveries_total", "content", "push") > pushed }, "the batch is under way")
	j.cancel()
	c.expect(1000, "one")
	n.job(halleyv1.Lane_LANE_PUSH).send(&halleyv1.Delivery{Uids: []string{"a"}, Content: push(1000, "two")})
	c.expect(1000, "two")
}
