package store_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

func seqs(list []store.Entry) []int64 {
	var out []int64
	for _, e := range list {
		out = append(out, e.Seq)
	}
	return out
}

func TestRangesAndPagesBackwards(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		k := direct(t, s, "a", "b")
		var ps []conversation.Proposal
		for i := range 25 {
			ps = append(ps, k.say("a", fmt.Sprint(i)))
		}
		k.must(ps...)
		for _, c := range []struct {
			from, to int64
			limit    int
			want     []int64
		}{{1, 3, 10, []int64{1, 2, 3}}, {24, 99, 10, []int64{24, 25}}, {5, 20, 2, []int64{5, 6}}, {26, 30, 5, nil}, {-3, 2, 10, []int64{1, 2}}, {5, 4, 5, nil}} {
			got, err := s.Entries(t.Context(), tenant, k.id, c.from, c.to, c.limit)
			if err != nil || !slices.Equal(seqs(got), c.want) {
				t.Errorf("%d to %d, %d: got %v, %v, want %v", c.from, c.to, c.limit, seqs(got), err, c.want)
			}
		}
		var all []int64
		for before := int64(0); ; {
			page, err := s.EntriesBefore(t.Context(), tenant, k.id, 3, before, 10)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			all = append(seqs(page), all...)
			before = page[0].Seq
		}
		if len(all) != 23 || all[0] != 3 || all[22] != 25 || !slices.IsSorted(all) {
			t.Fatalf("got %v", all)
		}
	})
}

func TestListIsSortedAndPaged(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		now := start
		var want []string
		for i := range 7 {
			k := direct(t, s, "me", fmt.Sprintf("peer%d", i))
			k.now = now
			k.must(k.say(fmt.Sprintf("peer%d", i), "hi"), k.say("me", "hello"), k.say(fmt.Sprintf("peer%d", i), "bye"))
			now = k.now
			want = append([]string{k.id}, want...)
		}
		// A group that has no message yet lies where it began; a message in the oldest puts that on top.
		g := group(t, s)
		g.now = start + 1
		g.must(g.people(conversation.Created, "other", "me"))
		want = append(want, g.id)
		old := direct(t, s, "me", "peer0")
		old.now, old.n = now, 10
		old.must(old.make(conversation.Message, "peer0", func(p *conversation.Proposal) { p.Detail.Mentions, p.Body = []string{"me"}, []byte("news") }))
		want = slices.DeleteFunc(want, func(id string) bool { return id == old.id })
		want = append([]string{old.id}, want...)

		var got []string
		var cur store.Cursor
		for {
			page, next, err := s.Conversations(t.Context(), tenant, "me", cur, 3)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range page {
				got = append(got, v.Conversation.ID)
				switch v.Conversation.ID {
				case old.id:
					if v.Unread != 2 || v.Mentions != 1 || v.FirstMention != 4 || string(v.Last.Body) != "news" {
						t.Errorf("got %+v", v)
					}
				case g.id:
					if v.Unread != 0 || v.Last != nil {
						t.Errorf("got %+v", v)
					}
				default:
					if v.Unread != 1 || string(v.Last.Body) != "bye" {
						t.Errorf("got %+v", v)
					}
				}
			}
			if next == nil {
				break
			}
			cur = *next
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		some, err := s.Summaries(t.Context(), tenant, "me", []string{g.id, old.id, "d/me/nobody"})
		if err != nil || len(some) != 2 || some[0].Conversation.ID != old.id || some[0].Mentions != 1 || some[1].Conversation.ID != g.id {
			t.Fatalf("got %+v, %v", some, err)
		}
		if n, err := s.UnreadTotal(t.Context(), tenant, "me", []string{old.id}); err != nil || n != 6 {
			t.Fatalf("got %d, %v", n, err)
		}
	})
}

// device is what a client keeps.
type device struct {
	have    map[string]int64
	entries map[string]map[int64]store.Entry
	change  int64
}

// sync asks until there is nothing more, and returns in how many pages.
func (d *device) sync(t *testing.T, s *store.Store, uid string, limit int) int {
	t.Helper()
	for n := 1; ; n++ {
		page, err := s.Sync(t.Context(), tenant, uid, store.SyncQuery{Have: d.have, UserChange: d.change, Limit: limit, Newest: 5, MaxGap: 50})
		if err != nil {
			t.Fatal(err)
		}
		if n > 100 {
			t.Fatal("sync does not end")
		}
		total := 0
		last := int64(1 << 62)
		for _, c := range page.Conversations {
			id := c.Conversation.ID
			if c.Conversation.LastMsgAtMs > last {
				t.Fatalf("%s is newer than the one before it", id)
			}
			last = c.Conversation.LastMsgAtMs
			total += len(c.Entries)
			if len(c.Entries) == 0 {
				t.Fatalf("%s is told without anything new", id)
			}
			if c.Reset {
				d.entries[id] = map[int64]store.Entry{}
			} else if first := c.Entries[0].Seq; d.have[id] > 0 && first != d.have[id]+1 {
				t.Fatalf("%s: got %d, had up to %d", id, first, d.have[id])
			}
			if d.entries[id] == nil {
				d.entries[id] = map[int64]store.Entry{}
			}
			for _, e := range c.Entries {
				d.entries[id][e.Seq] = e
				d.have[id] = e.Seq
			}
		}
		if total > limit || len(page.UserChanges) > limit {
			t.Fatalf("%d entries, %d changes in a page of %d", total, len(page.UserChanges), limit)
		}
		for _, u := range page.UserChanges {
			if u.Number <= d.change {
				t.Fatalf("change %d after %d", u.Number, d.change)
			}
			d.change = u.Number
		}
		if !page.More {
			return n
		}
	}
}

func TestSyncBringsAllThatIsNew(t *testing.T) {
	for _, limit := range []int{1, 3, 7, 1000} {
		t.Run(fmt.Sprint("pages of ", limit), func(t *testing.T) {
			both(t, func(t *testing.T, p *place) {
				s := p.open(t)
				d := &device{have: map[string]int64{}, entries: map[string]map[int64]store.Entry{}}
				var talks []*talk
				now := start
				more := func(k *talk, n int) {
					k.now = now
					for range n {
						k.must(k.say("peer", fmt.Sprint(k.n)))
					}
					now = k.now
				}
				for range 5 {
					k := group(t, s)
					k.now = now
					k.must(k.people(conversation.Created, "peer", "me"))
					talks = append(talks, k)
					now = k.now
					more(k, 2)
				}
				d.sync(t, s, "me", limit)
				check := func() {
					t.Helper()
					for i, k := range talks {
						c, err := s.Conversation(t.Context(), tenant, k.id)
						if err != nil {
							t.Fatal(err)
						}
						if d.have[k.id] != c.LastSeq {
							t.Fatalf("conversation %d: has %d of %d", i, d.have[k.id], c.LastSeq)
						}
					}
				}
				check()
				if n := d.sync(t, s, "me", limit); n != 1 {
					t.Fatalf("%d pages, and nothing was new", n)
				}
				more(talks[0], 20)
				more(talks[2], 3)
				more(talks[3], 60)
				// What was recalled while the device was away.
				talks[0].must(talks[0].change(conversation.Recall, "peer", 2))
				now = max(now, talks[0].now)
				d.sync(t, s, "me", limit)
				check()
				if len(d.entries[talks[0].id]) != 24 || d.entries[talks[0].id][24].Kind != conversation.Recall || d.entries[talks[0].id][24].Target != 2 {
					t.Fatalf("got %v", d.entries[talks[0].id])
				}
				if got := len(d.entries[talks[3].id]); got > 5 && limit >= 5 {
					t.Fatalf("missed more than it takes, and got %d entries", got)
				}
				// A cursor tells whether there is anything to ask for.
				sum, change, err := s.SyncCursor(t.Context(), tenant, "me")
				var have int64
				for _, n := range d.have {
					have += n
				}
				if err != nil || sum != have || change != d.change || change != 5 {
					t.Fatalf("got %d, %d, %v; the device has %d, %d", sum, change, err, have, d.change)
				}
			})
		})
	}
}

// Who has more conversations than one question can name asks about them in parts, by their ids.
func TestSyncInPartsBringsTheSame(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		want := map[string]int64{}
		for i := range 20 {
			k := direct(t, s, "me", fmt.Sprintf("peer%02d", i*7%20))
			k.now = start + int64(i)*1000
			for n := range 1 + i%3 {
				k.must(k.say("me", fmt.Sprint(n)))
			}
			want[k.id] = int64(1 + i%3)
		}
		for _, bounds := range [][]string{{"", ""}, {"", "d/me/peer05", ""}, {"", "d/a", "d/me/peer00", "d/me/peer07x", "d/me/peer19", "z", ""}} {
			got := map[string]int64{}
			for i := range len(bounds) - 1 {
				have := map[string]int64{}
				for more := true; more; {
					q := store.SyncQuery{Have: have, UserChange: 20, Limit: 3, Newest: 5, MaxGap: 9, Above: bounds[i], UpTo: bounds[i+1]}
					page, err := s.Sync(t.Context(), tenant, "me", q)
					if err != nil {
						t.Fatal(err)
					}
					for _, c := range page.Conversations {
						id := c.Conversation.ID
						if id <= q.Above || q.UpTo != "" && id > q.UpTo {
							t.Fatalf("%s is not between %q and %q", id, q.Above, q.UpTo)
						}
						have[id] = c.Entries[len(c.Entries)-1].Seq
						got[id] = have[id]
					}
					more = page.More
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%q: got %v, want %v", bounds, got, want)
			}
		}
	})
}

// A user change that is one too many keeps no conversation back.
func TestSyncBringsConversationsBesideMoreChanges(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		for i := range 3 {
			k := direct(t, s, "me", fmt.Sprint("peer", i))
			k.must(k.say("me", "x"))
		}
		page, err := s.Sync(t.Context(), tenant, "me", store.SyncQuery{Limit: 2, Newest: 5, MaxGap: 9})
		if err != nil || len(page.UserChanges) != 2 || len(page.Conversations) != 2 || !page.More {
			t.Errorf("got %+v, %v", page, err)
		}
	})
}

func TestSyncShowsALateMemberOnlyWhatHeMaySee(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		k := group(t, s)
		k.must(k.people(conversation.Created, "alice"), k.say("alice", "secret"), k.people(conversation.Joined, "alice", "late"), k.say("alice", "hello"))
		ask := func(have map[string]int64) []int64 {
			page, err := s.Sync(t.Context(), tenant, "late", store.SyncQuery{Have: have, Limit: 100, Newest: 50, MaxGap: 100})
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Conversations) == 0 {
				return nil
			}
			return seqs(page.Conversations[0].Entries)
		}
		if got := ask(nil); !slices.Equal(got, []int64{3, 4}) {
			t.Fatalf("got %v", got)
		}
		if got := ask(map[string]int64{k.id: 1}); !slices.Equal(got, []int64{3, 4}) {
			t.Fatalf("got %v", got)
		}
		k.must(k.people(conversation.Removed, "alice", "late"))
		if got := ask(nil); got != nil {
			t.Fatalf("got %v after he was removed", got)
		}
		page, err := s.Sync(t.Context(), tenant, "late", store.SyncQuery{Limit: 10})
		if err != nil || len(page.UserChanges) != 1 || page.UserChanges[0].Number != 2 || page.UserChanges[0].Object != k.id {
			t.Fatalf("got %+v, %v", page.UserChanges, err)
		}
	})
}

func TestMembersInPages(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		k := group(t, s)
		var uids []string
		for i := range 300 {
			uids = append(uids, fmt.Sprintf("u%03d", i))
		}
		k.must(k.people(conversation.Created, "u000", uids[1:]...), k.people(conversation.Removed, "u000", "u150"),
			k.make(conversation.RoleChanged, "u000", func(p *conversation.Proposal) {
				p.Detail.Members, p.Detail.Role = []string{"u007", "u100"}, conversation.Admin
			}), k.say("u000", "read this"), k.read("u200", 4), k.read("u201", 3))
		want := slices.DeleteFunc(slices.Clone(uids), func(u string) bool { return u == "u150" })
		var got []string
		for after := ""; ; {
			page, err := s.Members(t.Context(), tenant, k.id, after, 70)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, m := range page {
				got = append(got, m.UID)
			}
			after = got[len(got)-1]
		}
		all, err := s.MemberUIDs(t.Context(), tenant, k.id, 1000)
		if err != nil || !slices.Equal(got, want) || !slices.Equal(all, want) {
			t.Fatalf("got %v and %v, %v", got, all, err)
		}
		admins, err := s.Admins(t.Context(), tenant, k.id, 10)
		if err != nil || len(admins) != 3 || admins[0].UID != "u000" || admins[1].UID != "u007" || admins[2].UID != "u100" {
			t.Fatalf("got %+v, %v", admins, err)
		}
		for limit, want := range map[int]int{0: 0, 1: 1, 2: 2} {
			if some, err := s.Admins(t.Context(), tenant, k.id, limit); err != nil || len(some) != want || want > 0 && some[0].UID != "u000" {
				t.Fatalf("at most %d: got %+v, %v", limit, some, err)
			}
		}
		readers, err := s.Readers(t.Context(), tenant, k.id, 4, "", 10)
		if err != nil || len(readers) != 2 || readers[0].UID != "u000" || readers[1].UID != "u200" {
			t.Fatalf("got %+v, %v", readers, err)
		}
		if read, delivered, err := s.Reached(t.Context(), tenant, k.id, 4); err != nil || read != 2 || delivered != 2 {
			t.Fatalf("got %d, %d, %v", read, delivered, err)
		}
	})
}

func TestRostersAreOfOneEntry(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		k, other, none := group(t, s), group(t, s), group(t, s)
		k.must(k.people(conversation.Created, "ann", "bob", "cat"), k.say("ann", "1"), k.people(conversation.Removed, "ann", "bob"), k.people(conversation.Joined, "ann", "dan"))
		other.must(other.people(conversation.Created, "eve"))
		id := func(k *talk) store.ID { return store.ID{Tenant: tenant, Conversation: k.id} }
		for _, ids := range [][]store.ID{{id(k)}, {id(k), id(other), id(none)}} {
			got, err := s.Rosters(t.Context(), ids)
			if err != nil {
				t.Fatal(err)
			}
			want := map[store.ID]store.Roster{
				id(k): {LastSeq: 4, Members: map[string]int64{"ann": 1, "cat": 1, "dan": 4}}, id(other): {LastSeq: 1, Members: map[string]int64{"eve": 1}},
			}
			if len(ids) == 1 {
				delete(want, id(other))
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
	})
}

// TestARosterReadInPagesIsOfOneEntry has a member come and another go between two pages.
func TestARosterReadInPagesIsOfOneEntry(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s, writer := p.open(t), p.open(t)
		s.SetRosterPage(2)
		k := group(t, writer)
		k.must(k.people(conversation.Created, "ann", "bob", "cat", "dan", "eve", "fay"))
		id := store.ID{Tenant: tenant, Conversation: k.id}
		statements := 0
		s.SetTrace(func(string, []any) {
			if statements++; statements == 2 {
				k.must(k.people(conversation.Removed, "ann", "bob", "fay"), k.people(conversation.Joined, "ann", "abe"))
			}
		})
		got, err := s.Rosters(t.Context(), []store.ID{id})
		want := map[store.ID]store.Roster{id: {LastSeq: 3, Members: map[string]int64{"abe": 3, "ann": 1, "cat": 1, "dan": 1, "eve": 1}}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
		if statements != 5 { // two, and three again
			t.Errorf("%d statements", statements)
		}
	})
}
