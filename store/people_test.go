package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

func TestUsersAreFoundByUIDAndName(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		users := []store.User{
			{UID: "ann", Name: "Anna Äpfel", CreatedAtMs: 1}, {UID: "bob", Name: "ANNABELL"}, {UID: "Anton", Name: "张伟"}, {UID: "x%y", Name: "x"},
			{UID: "gone", Name: "Anna Gone", Disabled: true}, {UID: "ape", Name: "äpfel", Profile: []byte(`{"a":1}`), Visibility: store.VisibleToAll},
		}
		for i := range users {
			users[i].Tenant = tenant
		}
		users[3].UID = "x_y"
		if err := s.PutUsers(t.Context(), users); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			prefix string
			want   []string
		}{
			{"ann", []string{"ann", "bob"}}, {"Ann", []string{"ann", "bob"}}, {"ANNA", []string{"ann", "bob"}}, {"anna ä", []string{"ann"}}, {"张", []string{"Anton"}},
			{"ÄPF", []string{"ape"}}, {"%", nil}, {"_", nil}, {"", nil}, {"a", []string{"ann", "ape", "bob"}}, {"'", nil}, {"x", []string{"x_y"}},
		} {
			got, err := s.SearchUsers(t.Context(), tenant, c.prefix, 10)
			if err != nil {
				t.Fatal(err)
			}
			var uids []string
			for _, u := range got {
				uids = append(uids, u.UID)
			}
			if !slices.Equal(uids, c.want) {
				t.Errorf("%q: got %v, want %v", c.prefix, uids, c.want)
			}
		}
		if err := s.PutUsers(t.Context(), []store.User{{Tenant: tenant, UID: "ann", Name: "Ann", CreatedAtMs: 5, UpdatedAtMs: 6}}); err != nil {
			t.Fatal(err)
		}
		got, err := s.Users(t.Context(), tenant, []string{"ann", "ape", "nobody", "ANN"})
		if err != nil || len(got) != 2 || got["ann"].Name != "Ann" || got["ann"].CreatedAtMs != 1 || got["ann"].UpdatedAtMs != 6 || string(got["ape"].Profile) != `{"a":1}` {
			t.Fatalf("got %+v, %v", got, err)
		}
		if err := s.PutUsers(t.Context(), []store.User{{Tenant: tenant, UID: "no spaces"}}); !errors.Is(err, errcode.InvalidRequest) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestUsersThatCannotBeAreRefused(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		bad := store.User{Tenant: tenant, UID: "a", Visibility: 200}
		if err := s.PutUsers(t.Context(), []store.User{bad}); !errors.Is(err, errcode.InvalidRequest) {
			t.Errorf("got %v", err)
		}
		twice := []store.User{{Tenant: tenant, UID: "b", Name: "1"}, {Tenant: tenant, UID: "a", Name: "1"}, {Tenant: tenant, UID: "b", Name: "2"}}
		if err := s.PutUsers(t.Context(), twice); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Users(t.Context(), tenant, []string{"a", "b"}); err != nil || got["a"].Name != "1" || got["b"].Name != "2" {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestWhoChangesOnePartOfAProfileUndoesNoOther(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		var wg sync.WaitGroup
		change := func(uid string, f func(*store.User)) {
			wg.Go(func() {
				if _, err := s.ChangeUsers(t.Context(), tenant, []string{uid, "other"}, func(u *store.User) error { f(u); return nil }); err != nil {
					t.Error(err)
				}
			})
		}
		for i := range 15 {
			uid := fmt.Sprint("u", i)
			change(uid, func(u *store.User) { u.Name = "x" })
			change(uid, func(u *store.User) { u.Disabled = true })
			change(uid, func(u *store.User) { u.Avatar = "a" })
			wg.Wait()
			got, err := s.Users(t.Context(), tenant, []string{uid})
			if u := got[uid]; err != nil || !u.Disabled || u.Name != "x" || u.Avatar != "a" {
				t.Fatalf("got %+v, %v", u, err)
			}
		}
		if _, err := s.ChangeUsers(t.Context(), tenant, []string{"u1"}, func(u *store.User) error { u.Name = "\xff"; return nil }); !errors.Is(err, errcode.InvalidRequest) {
			t.Errorf("got %v", err)
		}
		if _, err := s.ChangeUsers(t.Context(), tenant, []string{"u1"}, func(u *store.User) error { u.Name = "y"; return errcode.Forbidden }); !errors.Is(err, errcode.Forbidden) {
			t.Errorf("got %v", err)
		}
		if got, err := s.Users(t.Context(), tenant, []string{"u1"}); err != nil || got["u1"].Name != "x" {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestUserChangesKeepTheNewestOfEachObject(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		put := func(guard int64, object, value string) store.ChangeOutcome {
			t.Helper()
			out, err := s.PutUserChanges(t.Context(), []store.UserChange{{Tenant: tenant, UID: "me", Kind: "mute", Object: object, Guard: guard, Value: []byte(value)}})
			if err != nil {
				t.Fatal(err)
			}
			return out[0]
		}
		for i, c := range []struct {
			guard         int64
			object, value string
			want          store.ChangeOutcome
		}{
			{5, "a", "1", store.ChangeOutcome{Number: 1, Applied: true}}, {5, "b", "1", store.ChangeOutcome{Number: 2, Applied: true}},
			{5, "a", "1", store.ChangeOutcome{Number: 1, Repeated: true}}, {4, "a", "0", store.ChangeOutcome{Number: 1}}, {6, "a", "2", store.ChangeOutcome{Number: 3, Applied: true}},
			{6, "a", "3", store.ChangeOutcome{Number: 4, Applied: true}}, {7, "a", "3", store.ChangeOutcome{Number: 5, Applied: true}},
		} {
			if got := put(c.guard, c.object, c.value); got != c.want {
				t.Fatalf("step %d: got %+v, want %+v", i, got, c.want)
			}
		}
		all, err := s.UserChangesSince(t.Context(), tenant, "me", 0, 10)
		if err != nil || len(all) != 2 || all[0].Object != "b" || all[1].Number != 5 || string(all[1].Value) != "3" {
			t.Fatalf("got %+v, %v", all, err)
		}
		of, err := s.UserChangesOf(t.Context(), tenant, "me", "mute", "a", 10)
		if err != nil || len(of) != 1 || of[0].Object != "b" {
			t.Fatalf("got %+v, %v", of, err)
		}
		one, err := s.UserChangeOf(t.Context(), tenant, "me", "mute", "a")
		if err != nil || one.Number != 5 || string(one.Value) != "3" {
			t.Fatalf("got %+v, %v", one, err)
		}
		put(9, "d", `{"on":true}`)
		put(9, "e", `{"on":false}`)
		for object, want := range map[string]int{"a": 0, "d": 1, "e": 0} {
			if muters, err := s.Muters(t.Context(), tenant, object, []string{"me", "you"}); err != nil || len(muters) != want || muters["me"] != (want > 0) {
				t.Errorf("%s: got %v, %v", object, muters, err)
			}
		}
		if one, err = s.UserChangeOf(t.Context(), tenant, "me", "mute", "c"); err != nil || one.Number != 0 {
			t.Fatalf("of nothing: got %+v, %v", one, err)
		}
		out, err := s.PutUserChanges(t.Context(), []store.UserChange{
			{Tenant: tenant, UID: "me", Kind: "draft", Object: "a", Value: []byte(strings.Repeat("x", 70000))}, {Tenant: tenant, UID: "me", Kind: "draft", Object: "b"},
			{Tenant: tenant, UID: "me", Kind: store.ChangeConversation, Object: "g/x"},
		})
		if err != nil || out[0].Code != errcode.InvalidRequest || out[1].Number != 8 || out[2].Code != errcode.Forbidden {
			t.Fatalf("got %+v, %v", out, err)
		}
		if n, err := s.LastUserChange(t.Context(), tenant, "me"); err != nil || n != 8 {
			t.Fatalf("got %d, %v", n, err)
		}
	})
}

func TestContactsAndBlocks(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		var n int64
		put := func(us ...store.UserChange) {
			t.Helper()
			for i := range us {
				n++
				us[i].Tenant, us[i].UID, us[i].Guard, us[i].AtMs = tenant, "me", n, start+n
			}
			out, err := s.PutUserChanges(t.Context(), us)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range out {
				if !o.Applied {
					t.Fatalf("got %+v", out)
				}
			}
		}
		contact := func(peer string, state store.ContactState, remark string) store.UserChange {
			return store.UserChange{Kind: store.ChangeContact, Object: peer, Contact: &store.Contact{State: state, Remark: remark}}
		}
		block := func(peer string, on bool) store.UserChange {
			return store.UserChange{Kind: store.ChangeBlock, Object: peer, Blocked: on}
		}
		put(contact("bob", store.ContactRequested, ""), contact("ann", store.ContactAsked, ""), block("eve", true), block("ann", true))
		put(contact("bob", store.ContactAccepted, "Bobby"), block("ann", false), contact("ann", 0, ""))
		list, err := s.Contacts(t.Context(), tenant, "me", "", 10)
		if err != nil || len(list) != 1 || list[0].Peer != "bob" || list[0].State != store.ContactAccepted || list[0].Remark != "Bobby" {
			t.Fatalf("got %+v, %v", list, err)
		}
		if c, err := s.Contact(t.Context(), tenant, "me", "ann"); err != nil || c.State != 0 {
			t.Fatalf("got %+v, %v", c, err)
		}
		if among, err := s.ContactsAmong(t.Context(), tenant, "me", []string{"bob", "ann", "x"}); err != nil || !slices.Equal(among, list) {
			t.Fatalf("got %+v, %v", among, err)
		}
		if b, err := s.Blocks(t.Context(), tenant, "me", "", 10); err != nil || !slices.Equal(b, []string{"eve"}) {
			t.Fatalf("got %v, %v", b, err)
		}
		for peer, want := range map[string][]string{"eve": {"me"}, "ann": nil} {
			if got, err := s.BlockedBy(t.Context(), tenant, []string{"me", "you", "eve"}, peer); err != nil || !slices.Equal(got, want) {
				t.Fatalf("%s: got %v, %v", peer, got, err)
			}
		}
		for peer, want := range map[string]bool{"eve": true, "ann": false} {
			if got, err := s.Blocked(t.Context(), tenant, "me", peer); err != nil || got != want {
				t.Fatalf("%s: got %v, %v", peer, got, err)
			}
		}
	})
}

// TestOneUIDByTwoWriters is the model of one uid: whatever two writers with faults do, in whatever order and how often, the
// newest of each object is what stays, and each number is given once.
func TestOneUIDByTwoWriters(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		writers := []*store.Store{p.open(t), p.open(t)}
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 3))
		var changes []store.UserChange
		newest := map[string]string{}
		for i := range 60 {
			u := store.UserChange{
				Tenant: tenant, UID: []string{"a", "b"}[rng.IntN(2)], Kind: "k", Object: fmt.Sprint(rng.IntN(6)), Guard: int64(i + 1), Value: fmt.Append(nil, i),
			}
			newest[u.UID+u.Object] = fmt.Sprint(i)
			changes = append(changes, u)
		}
		var wg sync.WaitGroup
		for w, s := range writers {
			rng := rand.New(rand.NewPCG(seed, uint64(20+w)))
			s.SetFault(func(string) error {
				if rng.IntN(12) == 0 {
					return errFault
				}
				return nil
			})
			wg.Go(func() {
				for i := 0; i < len(changes); {
					// Batches of their own sizes, and some of what was done before.
					from := max(0, i-rng.IntN(5))
					to := min(len(changes), i+1+rng.IntN(6))
					if _, err := s.PutUserChanges(t.Context(), changes[from:to]); err == nil {
						i = to
					} else if t.Context().Err() != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		for _, uid := range []string{"a", "b"} {
			got, err := writers[0].UserChangesSince(t.Context(), tenant, uid, 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			last, err := writers[1].LastUserChange(t.Context(), tenant, uid)
			if err != nil {
				t.Fatal(err)
			}
			for i, u := range got {
				if string(u.Value) != newest[uid+u.Object] || u.Number > last || i > 0 && u.Number <= got[i-1].Number {
					t.Fatalf("got %+v, want the value %s and a number up to %d", u, newest[uid+u.Object], last)
				}
				delete(newest, uid+u.Object)
			}
		}
		if len(newest) > 0 {
			t.Fatalf("lost: %v", newest)
		}
	})
}

func TestListsIgnoreOldNews(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		k := group(t, s)
		joined := k.must(k.people(conversation.Created, "alice", "bob"))[0].Listings
		left := k.must(k.people(conversation.Left, "bob"))[0].Listings
		for _, ls := range [][]store.Listing{joined, left, joined} {
			if _, err := s.PutListings(t.Context(), ls); err != nil {
				t.Fatal(err)
			}
		}
		if got, _, err := s.Conversations(t.Context(), tenant, "bob", store.Cursor{}, 10); err != nil || len(got) > 0 {
			t.Fatalf("got %+v, %v", got, err)
		}
		if n, err := s.LastUserChange(t.Context(), tenant, "bob"); err != nil || n != 2 {
			t.Fatalf("got %d changes, %v: repeats are none", n, err)
		}
	})
}
