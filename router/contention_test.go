package router_test

import (
	"fmt"
	"sync"
	"testing"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// TestManyLogInsOfOneUserAtOnceAllSucceed holds that a race between log-ins of one user is settled inside: all of them change
// one entry, and each change is tried again until its turn comes.
func TestManyLogInsOfOneUserAtOnceAllSucceed(t *testing.T) {
	const n = 60
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	begin := make(chan struct{})
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		s := c.session("default", "alice", fmt.Sprintf("k%d", i))
		wg.Go(func() {
			<-begin
			res, err := r.Register(ctxFor(t), &halleyv1.RegisterRequest{Sessions: []*halleyv1.Session{s}, Limits: &halleyv1.Limits{MaxSessions: 20}})
			if err == nil && res.GetResults()[0].GetStatus() != halleyv1.RegisterResult_STATUS_OK {
				err = fmt.Errorf("%v", res)
			}
			errs[i] = err
		})
	}
	close(begin)
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("log-in %d: %v", i, err)
		}
	}
}
