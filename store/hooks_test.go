package store_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/halley-im/halley/store"
)

func TestHooksAreSentInOrderPerKey(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s, other := p.open(t), p.open(t)
		var hooks []store.Hook
		for i := range 4 {
			for _, key := range []string{"a", "b"} {
				hooks = append(hooks, store.Hook{Tenant: tenant, Endpoint: "e", Key: key, Number: int64(i), ID: fmt.Sprint(key, i), DueMs: 100, CreatedAtMs: 50, Body: []byte(`{}`)})
			}
		}
		hooks = append(hooks, store.Hook{Tenant: tenant, Endpoint: "other", Key: "a", ID: "x", DueMs: 900, CreatedAtMs: 40})
		for range 2 {
			if err := s.PutHooks(t.Context(), hooks); err != nil {
				t.Fatal(err)
			}
		}
		back, err := s.HookBacklogs(t.Context())
		if err != nil || len(back) != 2 || back[0].Hooks != 8 || back[1].Hooks != 1 || back[1].OldestMs != 40 {
			t.Fatalf("got %+v, %v", back, err)
		}
		claim := func(s *store.Store, now int64) []store.Hook {
			t.Helper()
			got, err := s.ClaimHooks(t.Context(), tenant, "e", now, now+100, 10)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		ids := func(hs []store.Hook) []string {
			var out []string
			for _, h := range hs {
				out = append(out, h.ID)
			}
			slices.Sort(out)
			return out
		}
		if got := claim(s, 99); len(got) > 0 {
			t.Fatalf("got %v before they are due", ids(got))
		}
		first := claim(s, 100)
		if !slices.Equal(ids(first), []string{"a0", "b0"}) || first[0].Attempts != 1 {
			t.Fatalf("got %+v", first)
		}
		if got := claim(other, 150); len(got) > 0 {
			t.Fatalf("got %v, which somebody else has", ids(got))
		}
		for _, h := range first {
			if h.Key == "a" {
				err = s.DoneHook(t.Context(), h)
			} else {
				err = s.RetryHook(t.Context(), h, 500)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		second := claim(other, 160)
		if !slices.Equal(ids(second), []string{"a1"}) {
			t.Fatalf("got %v, want a1: b0 is not through", ids(second))
		}
		// The claim runs out; whoever has it late changes nothing.
		third := claim(s, 300)
		if !slices.Equal(ids(third), []string{"a1"}) || third[0].Attempts != 2 {
			t.Fatalf("got %+v", third)
		}
		if err := other.DoneHook(t.Context(), second[0]); err != nil {
			t.Fatal(err)
		}
		if back, err := s.HookBacklogs(t.Context()); err != nil || back[0].Hooks != 7 {
			t.Fatalf("got %+v, %v", back, err)
		}
		if got := ids(claim(s, 500)); !slices.Equal(got, []string{"a1", "b0"}) {
			t.Fatalf("got %v", got)
		}
	})
}
