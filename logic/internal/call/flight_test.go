package call_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/proto/errcode"
)

// stall has the next write of n to Kafka wait until release is called; begun is closed when it does.
func (n *node) stall() (begun chan struct{}, release func()) {
	begun, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f := func() error {
		first := false
		once.Do(func() { first = true })
		if first {
			close(begun)
			<-free
		}
		return nil
	}
	n.writes.Store(&f)
	release = sync.OnceFunc(func() { close(free) })
	n.w.t.Cleanup(release)
	return begun, release
}

// The call that is made after Redis forgot one numbers its events anew. What this process tells of the one before is no reason to take them for told.
func TestRedisLosesTheCallWhileItIsTold(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t, func(c *call.Config) { c.Poll = time.Hour })
	bob.node = ann.node
	id := talk(w, ann, bob)
	begun, release := ann.node.stall()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer release()
	wg.Go(func() { _, _ = ann.try(id, machine.Command{Verb: machine.DoUpdate, Sends: machine.Sends{Hand: true}}) })
	<-begun
	w.loseRedis()
	again := make(chan error, 1)
	wg.Go(func() {
		_, err := bob.invite(call.Invitation{Call: id, To: []string{"ann"}, Resumed: true})
		again <- err
	})
	kittest.Eventually(t, patience, func() bool {
		keys, err := w.redis.Keys(context.Background(), w.prefix+":{call:default/"+id+"}").Result()
		return err == nil && len(keys) == 1
	}, "the call isn't made again")
	release()
	if err := <-again; err != nil {
		t.Fatal(err)
	}
	if ann.count("call.incoming") != 1 {
		t.Error("nobody asks ann into the call again")
	}
}

// An invitation that is repeated while it is told, of the process that tells it or another, tells nothing again.
func TestARepeatedInvitationIsNotToldTwice(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{true, false} {
		name := "another process"
		if same {
			name = "one process"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, ann, bob := pairOf(t, func(c *call.Config) { c.Poll = time.Hour })
			id := uuid.NewString()
			begun, release := ann.node.stall()
			var wg sync.WaitGroup
			defer wg.Wait()
			defer release()
			wg.Go(func() { _, _ = ann.invite(call.Invitation{Call: id, To: []string{"bob"}}) })
			<-begun
			for _, n := range w.nodes {
				if (n == ann.node) == same {
					wg.Go(func() {
						_, _ = n.Invite(context.Background(), ann.who(), &call.Invitation{Call: id, To: []string{"bob"}, Media: "video"})
					})
				}
			}
			time.AfterFunc(call.Patience/4, release)
			wg.Wait()
			if n := bob.count("call.incoming"); n != 1 {
				t.Errorf("it was told %d times", n)
			}
		})
	}
}

// What Kafka didn't take of the call's steps goes before a signal that it takes, or the signal doesn't go: it is of a leg that its receiver doesn't know.
func TestASignalDoesNotOvertakeWhatKafkaDidNotTake(t *testing.T) {
	t.Parallel()
	_, ann, bob := pairOf(t, func(c *call.Config) { c.Poll = time.Hour })
	id := ann.call("bob")
	left := 2 // bob's answer, and what goes before his signal
	fails := func() error {
		if left--; left >= 0 {
			return errGone
		}
		return nil
	}
	bob.node.writes.Store(&fails)
	bob.accept(id)
	signal := &call.Signal{Call: id, To: "ann", Generation: 1, ToGeneration: 1, Done: true}
	if _, err := bob.node.Signal(context.Background(), bob.who(), signal); err != nil {
		wantCode(t, err, errcode.Unavailable)
		if sent, err := bob.node.Signal(context.Background(), bob.who(), signal); !sent || err != nil {
			t.Fatalf("repeated: %v, %v", sent, err)
		}
	}
	var order []string
	for _, e := range ann.events() {
		if v := e.view(); e.Name == "call.signal" || v != nil && v.State == machine.Connecting {
			order = append(order, e.Name)
		}
	}
	if !slices.Equal(order, []string{"call.state", "call.signal"}) {
		t.Errorf("told %v: want the answer before the signal", order)
	}
}

// forgetful fails once to take out of Redis what was told.
type forgetful struct {
	beforeSave
	failed atomic.Bool
}

func (f *forgetful) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (f *forgetful) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if len(cmds) > 0 && cmds[0].Name() == "hdel" && !f.failed.Swap(true) {
			return errors.New("redis does not answer")
		}
		return next(ctx, cmds)
	}
}

// What couldn't be taken out of Redis is taken out with what comes next: told again it would come after that.
func TestWhatWasToldDoesNotComeAfterWhatCameNext(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t, func(c *call.Config) { c.Poll = time.Hour })
	one, ok := w.redis.(*redis.Client)
	if !ok {
		t.Skip("a client of one server is watched")
	}
	id := talk(w, ann, bob)
	rdb := redis.NewClient(&redis.Options{Addr: one.Options().Addr, Password: one.Options().Password})
	t.Cleanup(func() { _ = rdb.Close() })
	rdb.AddHook(&forgetful{})
	n := w.newNode(rdb)
	ann.node, bob.node = n, n
	revision := func() string {
		r, err := w.redis.HGet(context.Background(), w.prefix+":{call:default/"+id+"}", "r").Result()
		if err != nil {
			t.Error(err)
		}
		return r
	}
	update := func(d *device, hand bool) {
		_, err := d.try(id, machine.Command{Verb: machine.DoUpdate, Sends: machine.Sends{Hand: hand}})
		if err != nil {
			t.Error(err)
		}
	}
	begun, release := n.stall()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer release()
	wg.Go(func() { update(ann, true) })
	<-begun
	before := revision()
	wg.Go(func() { update(bob, true) })
	kittest.Eventually(t, patience, func() bool { return revision() != before }, "bob's isn't kept")
	release()
	wg.Wait()
	update(ann, false)
	last := int64(0)
	for _, e := range bob.events() {
		if e.Name != "call.leg" {
			continue
		}
		if e.Body.Version <= last {
			t.Errorf("version %d was told after %d", e.Body.Version, last)
		}
		last = e.Body.Version
	}
}

// One process is told of late by Kafka, another takes the next step and tells both: when the first is done it doesn't put off what the second's step is
// due for.
func TestATimerIsNotPutOffByWhoIsLate(t *testing.T) {
	t.Parallel()
	w, ann, bob := pairOf(t, func(c *call.Config) { c.Leaving = 3 * time.Second })
	id := talk(w, ann, bob)
	if ann.node == bob.node {
		t.Fatal("two processes are wanted")
	}
	begun, release := ann.node.stall()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer release()
	wg.Go(func() { _, _ = ann.try(id, machine.Command{Verb: machine.DoUpdate, Sends: machine.Sends{Hand: true}}) })
	<-begun
	bob.do(id, machine.Command{Verb: machine.DoLeaving, Generation: 1})
	release()
	wg.Wait()
	// Else when a leg's lease runs out.
	ann.waitEnd(id, machine.ConnectionLost)
}

// A call that people never leave alone is told of for hours, and may be forgotten by Redis again and again.
func TestWhatIsKnownOfWhatWasToldIsBounded(t *testing.T) {
	t.Parallel()
	for _, ends := range [][]int{{10 * call.MostSent}, {10 * call.MostSent, 10}, {100, 200, 2 * call.MostSent, 50, 3 * call.MostSent, 7}, {call.MostSent - 1, call.MostSent - 1, 3}} {
		if known, again := call.Told(ends...); known > call.MostSent || again > 0 {
			t.Errorf("%v: %d are known, %d of the last ones would be told again", ends, known, again)
		}
	}
}
