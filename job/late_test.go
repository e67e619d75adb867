package job_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/kit/kittest"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

// held is a connection to routers on which questions lie until the test lets them go; only then they are read.
type held struct {
	grpc.ClientConnInterface
	gate chan struct{}

	mu    sync.Mutex
	lying int
	asked []string
}

func (h *held) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	h.mu.Lock()
	h.lying++
	h.mu.Unlock()
	<-h.gate
	if req, ok := args.(*halleyv1.LocateRequest); ok {
		h.mu.Lock()
		for _, n := range req.GetNames() {
			h.asked = append(h.asked, n.GetUid())
		}
		h.mu.Unlock()
	}
	return h.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

func (h *held) waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lying
}

func TestQuestionUnderWayKeepsItsNamesWhenItsWorkerLeaves(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	h := &held{gate: make(chan struct{})}
	cfg := testConfig()
	r := c.start(cfg, func(d *job.Deps) { h.ClientConnInterface, d.Router = d.Router, h })
	c.push(topic.Push, record("p", toUID("anna")))
	kittest.Eventually(t, patience, func() bool { return h.waiting() > 0 }, "router is not asked")
	var stopping sync.WaitGroup
	stopping.Go(r.stop)
	// The worker has left when its partition's gauges are gone.
	kittest.Eventually(t, patience, func() bool { return !r.has("unacknowledged_seconds", "topic="+topic.Push) }, "the worker does not leave")
	close(h.gate)
	stopping.Wait()
	if !slices.Equal(h.asked, []string{"anna"}) {
		t.Errorf("router is asked for %q, want anna", h.asked)
	}
	balanced(t, r)
}
