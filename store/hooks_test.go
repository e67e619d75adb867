package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/store"
)

func hook(key string, number int64) store.Hook {
	return store.Hook{Tenant: tenant, Endpoint: "e", Key: key, Number: number, ID: fmt.Sprint(key, number), CreatedAtMs: 50 + number, Body: []byte(`{}`)}
}

func putHooks(t testing.TB, s *store.Store, now int64, hooks ...store.Hook) {
	t.Helper()
	if err := s.PutHooks(t.Context(), now, hooks); err != nil {
		t.Fatal(err)
	}
}

// claimHooks claims by key.
func claimHooks(t testing.TB, s *store.Store, now int64, most int) map[string]*store.HookClaim {
	t.Helper()
	got, err := s.ClaimHooks(t.Context(), tenant, "e", now, now+100, 10, most)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*store.HookClaim{}
	for i := range got {
		out[got[i].Key] = &got[i]
	}
	return out
}

func hookIDs(c *store.HookClaim) []string {
	var out []string
	if c != nil {
		for _, h := range c.Hooks {
			out = append(out, h.ID)
		}
	}
	return out
}

func TestHooksAreSentInOrderPerKey(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s, other := p.open(t), p.open(t)
		var hooks []store.Hook
		for i := range int64(4) {
			hooks = append(hooks, hook("a", i), hook("b", i))
		}
		foreign := hook("a", 0)
		foreign.Endpoint, foreign.CreatedAtMs = "other", 40
		hooks = append(hooks, foreign)
		for range 2 {
			putHooks(t, s, 100, hooks...)
		}
		back, err := s.HookBacklogs(t.Context())
		if err != nil || len(back) != 2 || back[0].Keys != 2 || back[0].OldestMs != 50 || back[1].Keys != 1 || back[1].OldestMs != 40 {
			t.Fatalf("got %+v, %v", back, err)
		}
		if q, err := s.HookQueues(t.Context()); err != nil || len(q) != 2 || q[0].DueMs != 100 {
			t.Fatalf("got %+v, %v", q, err)
		}
		if got := claimHooks(t, s, 99, 2); len(got) > 0 {
			t.Fatalf("got %v before they are due", got)
		}
		first := claimHooks(t, s, 100, 2)
		a, b := first["a"], first["b"]
		if !slices.Equal(hookIDs(a), []string{"a0", "a1"}) || !slices.Equal(hookIDs(b), []string{"b0", "b1"}) || a.Attempts != 1 {
			t.Fatalf("got %+v", first)
		}
		if got := claimHooks(t, other, 150, 2); len(got) > 0 {
			t.Fatalf("got %v, which somebody else has", got)
		}
		if err := s.DoneHook(t.Context(), a, &a.Hooks[0]); err != nil {
			t.Fatal(err)
		}
		for _, v := range []struct {
			c      *store.HookClaim
			due    int64
			failed bool
		}{{a, 150, false}, {b, 500, true}} {
			if left, err := s.ReleaseHooks(t.Context(), v.c, v.due, v.failed); err != nil || !left {
				t.Fatalf("got %v, %v", left, err)
			}
		}
		second := claimHooks(t, other, 160, 9)
		if len(second) != 1 || !slices.Equal(hookIDs(second["a"]), []string{"a1", "a2", "a3"}) || second["a"].Attempts != 1 {
			t.Fatalf("got %+v, want the rest of a: b waits for its next try", second)
		}
		// The claim runs out; whoever has it late changes nothing.
		third := claimHooks(t, s, 300, 1)
		if len(third) != 1 || !slices.Equal(hookIDs(third["a"]), []string{"a1"}) || third["a"].Attempts != 2 {
			t.Fatalf("got %+v", third)
		}
		late := second["a"]
		if err := other.DoneHook(t.Context(), late, &late.Hooks[0]); !errors.Is(err, store.ErrClaimLost) {
			t.Fatalf("got %v, want ErrClaimLost", err)
		}
		if _, err := other.ReleaseHooks(t.Context(), late, 0, false); !errors.Is(err, store.ErrClaimLost) {
			t.Fatalf("got %v, want ErrClaimLost", err)
		}
		fourth := claimHooks(t, s, 500, 9)
		if len(fourth) != 2 || !slices.Equal(hookIDs(fourth["a"]), []string{"a1", "a2", "a3"}) || fourth["b"].Attempts != 2 {
			t.Fatalf("got %+v", fourth)
		}
		for _, c := range fourth {
			for i := range c.Hooks {
				if err := s.DoneHook(t.Context(), c, &c.Hooks[i]); err != nil {
					t.Fatal(err)
				}
			}
			if left, err := s.ReleaseHooks(t.Context(), c, 500, false); err != nil || left {
				t.Fatalf("got %v, %v", left, err)
			}
		}
		if back, err := s.HookBacklogs(t.Context()); err != nil || len(back) != 1 || back[0].Endpoint != "other" {
			t.Fatalf("got %+v, %v", back, err)
		}
	})
}

func TestHookWhoseNumberIsAnothersIsKept(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		putHooks(t, s, 100, hook("a", 0), hook("a", 1))
		anew := hook("a", 1)
		anew.ID = "anew"
		for range 2 {
			putHooks(t, s, 100, anew)
		}
		if got := hookIDs(claimHooks(t, s, 100, 9)["a"]); !slices.Equal(got, []string{"a0", "a1", "anew"}) {
			t.Errorf("got %v", got)
		}
	})
}

// TestNoHookIsForgottenBetweenWritersAndSenders puts hooks in while several senders take them out: a key whose last hook is just
// being sent must not be forgotten with the next one in it.
func TestNoHookIsForgottenBetweenWritersAndSenders(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		const writers, senders, each = 2, 3, 40
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // it ends when all are sent
		defer cancel()
		var mu sync.Mutex
		sent := map[string][]int64{}
		count := 0
		var writing, sending sync.WaitGroup
		for w := range writers {
			s := p.open(t)
			writing.Go(func() {
				for i := range int64(each) {
					// Both write both keys; each of its own order.
					batch := []store.Hook{hook(fmt.Sprint("k", w), i), hook("both", i*writers+int64(w))}
					if rand.N(2) == 0 {
						slices.Reverse(batch)
					}
					if err := s.PutHooks(t.Context(), i, batch); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range senders {
			s := p.open(t)
			sending.Go(func() {
				for ctx.Err() == nil {
					claims, err := s.ClaimHooks(ctx, tenant, "e", 1_000_000, 2_000_000, 2, 3)
					if err != nil {
						if ctx.Err() == nil {
							t.Error(err)
						}
						return
					}
					for i := range claims {
						c := &claims[i]
						for j := range c.Hooks {
							mu.Lock()
							sent[c.Key] = append(sent[c.Key], c.Hooks[j].Number)
							count++
							done := count == 2*writers*each
							mu.Unlock()
							if err := s.DoneHook(t.Context(), c, &c.Hooks[j]); err != nil {
								t.Error(err)
							}
							if done {
								cancel()
							}
						}
						if _, err := s.ReleaseHooks(t.Context(), c, 0, false); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		writing.Wait()
		sending.Wait()
		for w := range writers {
			if got := sent[fmt.Sprint("k", w)]; len(got) != each || !slices.IsSorted(got) {
				t.Errorf("writer %d: got %v", w, got)
			}
		}
		slices.Sort(sent["both"])
		if got := slices.Compact(sent["both"]); len(got) != writers*each {
			t.Errorf("got %d, want %d", len(got), writers*each)
		}
	})
}

// TestAHookThatComesWhileItsKeyIsForgottenStays puts one in just before the row of its key is removed, since nothing was left.
func TestAHookThatComesWhileItsKeyIsForgottenStays(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s, other := p.open(t), p.open(t)
		putHooks(t, s, 100, hook("a", 1))
		c := claimHooks(t, s, 100, 9)["a"]
		if err := s.DoneHook(t.Context(), c, &c.Hooks[0]); err != nil {
			t.Fatal(err)
		}
		var putting sync.WaitGroup
		s.SetTrace(func(text string, _ []any) {
			if !strings.HasPrefix(text, "DELETE FROM hook_keys") {
				return
			}
			done := make(chan struct{})
			putting.Go(func() {
				defer close(done)
				if err := other.PutHooks(t.Context(), 100, []store.Hook{hook("a", 2)}); err != nil {
					t.Error(err)
				}
			})
			select {
			case <-done:
			case <-time.After(300 * time.Millisecond): // it waits for us
			}
		})
		_, err := s.ReleaseHooks(t.Context(), c, 100, false)
		s.SetTrace(nil)
		putting.Wait()
		if err != nil {
			t.Fatal(err)
		}
		if got := hookIDs(claimHooks(t, s, 100, 9)["a"]); !slices.Equal(got, []string{"a2"}) {
			t.Errorf("got %v, want a2", got)
		}
	})
}
