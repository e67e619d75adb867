package store_test

import (
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

// TestRejectionBesideTheBeginningStays has one writer begin a conversation while another one, who doesn't see that yet, rejects
// something in it. SQLite has one writer at a time.
func TestRejectionBesideTheBeginningStays(t *testing.T) {
	for _, name := range []string{"before", "after"} {
		t.Run("the rejection is written "+name+" the beginning", func(t *testing.T) {
			p := mysqlPlace(t)
			// One who rejects, one who begins it.
			writers := []*store.Store{p.open(t), p.open(t)}
			k := group(t, writers[0])
			early := k.say("alice", "too early")
			ps := []conversation.Proposal{early, k.people(conversation.Created, "alice")}

			judged, written := make(chan struct{}), make(chan struct{})
			wait := func(c chan struct{}) {
				select {
				case <-c:
				case <-time.After(10 * time.Second):
					t.Error("the other one doesn't come so far")
				}
			}
			// At the first try of each alone.
			at := func(steps map[string]func()) func(string) error {
				return func(step string) error {
					if do := steps[step]; do != nil {
						delete(steps, step)
						do()
					}
					return nil
				}
			}
			if name == "before" {
				writers[0].SetFault(at(map[string]func(){"commit": func() { close(written); wait(judged) }}))
				writers[1].SetFault(at(map[string]func(){"begun": func() { wait(written) }, "judge": func() { close(judged) }}))
			} else {
				writers[0].SetFault(at(map[string]func(){"judge": func() { close(judged); wait(written) }}))
				writers[1].SetFault(at(map[string]func(){"judge": func() { wait(judged) }, "commit": func() { close(written) }}))
			}
			outs := make([]store.Outcome, 2)
			var wg sync.WaitGroup
			for i, w := range writers {
				wg.Go(func() {
					out, err := w.Append(t.Context(), ps[i:i+1])
					if err != nil {
						t.Error(err)
						return
					}
					outs[i] = out[0]
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			if outs[1].Code != nil || outs[1].Seq != 1 {
				t.Errorf("the beginning: got %+v", outs[1])
			}
			// Whatever it was, it stays so.
			if again := k.append(early)[0]; again.Code != outs[0].Code || again.Seq != outs[0].Seq || !again.Repeated {
				t.Errorf("told %+v first, now %+v", outs[0], again)
			}
		})
	}
}
