package conversation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/fake"
	"github.com/halley-im/halley/proto/errcode"
	entry "github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/storetest"
)

func TestMain(m *testing.M) { kittest.Main(m) }

const tenant = "default"

func defaults(t testing.TB) conversation.Config {
	t.Helper()
	var c conversation.Config
	p, err := kong.New(&c, kong.Exit(func(int) {}))
	if err == nil {
		_, err = p.Parse(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// patience is how long is waited for what comes: a process that stands still for seconds, as one among many does, is no failure.
const patience = 30 * time.Second

// newService returns a service, and who judges what it writes. It waits for outcomes as long as is needed: hasty makes another one that doesn't.
func newService(t testing.TB, change func(*conversation.Config, *conversation.Deps)) (*conversation.Service, *fake.Judge) {
	t.Helper()
	j := &fake.Judge{Producer: &fake.Producer{}, T: t, Store: storetest.Open(t, storetest.Config(t))}
	cfg, d := defaults(t), conversation.Deps{Store: j.Store, Producer: j}
	cfg.OutcomeWait, cfg.RedisTimeout = patience, patience
	if change != nil {
		change(&cfg, &d)
	}
	s, err := conversation.New(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	return s, j
}

// hasty makes a service that soon gives up waiting for outcomes.
func hasty(t testing.TB, d conversation.Deps) *conversation.Service {
	t.Helper()
	cfg := defaults(t)
	cfg.OutcomeWait, cfg.RedisTimeout = 200*time.Millisecond, patience
	s, err := conversation.New(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var backend = conversation.Origin{Backend: true}

func send(t testing.TB, s *conversation.Service, conv, uid, id, body string) {
	t.Helper()
	_, err := s.Propose(t.Context(), backend, entry.Proposal{
		Tenant: tenant, Conversation: conv, Kind: entry.Message, Sender: uid, ClientMsgID: id, Body: []byte(body),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A device that asks for pages until there is no more has everything, in order, however small the pages are and however large the messages.
func TestSyncBringsEverythingInPages(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 12 {
		limit := 1 + rng.IntN(30)
		s, j := newService(t, func(c *conversation.Config, _ *conversation.Deps) {
			c.SyncEntries, c.SyncNewest, c.SyncGap, c.PageBytes = limit, 1+rng.IntN(limit), int64(rng.IntN(60)), int64(200+rng.IntN(4000))
		})
		want := map[string]int64{}
		for i := range 80 {
			conv := entry.DirectID("me", fmt.Sprintf("u%d", rng.IntN(6)))
			send(t, s, conv, "me", fmt.Sprint(i), `"`+strings.Repeat("x", rng.IntN(1500))+`"`)
			want[conv]++
		}
		for i := range rng.IntN(20) {
			on := i%2 == 0
			if _, err := s.Set(t.Context(), backend, tenant, "me", slices.Sorted(maps.Keys(want))[0], conversation.Settings{Mute: &on, Pin: &on}); err != nil {
				t.Fatal(err)
			}
		}
		last, err := j.Store.LastUserChange(t.Context(), tenant, "me")
		if err != nil {
			t.Fatal(err)
		}
		// What the device has: up to which seq, and from which one on without a gap.
		have, from := map[string]int64{}, map[string]int64{}
		for _, conv := range slices.Sorted(maps.Keys(want))[:rng.IntN(len(want))] {
			have[conv], from[conv] = rng.Int64N(want[conv]+1), 1
		}
		var change int64
		for pages := 1; ; pages++ {
			page, err := s.Sync(t.Context(), tenant, "me", conversation.Have{Conversations: have, UserChange: change})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range page.Conversations {
				id := c.Conversation.ID
				for i, e := range c.Entries {
					switch {
					case i == 0 && c.Reset:
						from[id] = e.Seq
					case i == 0 && have[id] == 0:
						from[id] = 1
						fallthrough
					default:
						if e.Seq != have[id]+1 {
							t.Fatalf("%s: %d after %d", id, e.Seq, have[id])
						}
					}
					have[id] = e.Seq
				}
			}
			for _, u := range page.UserChanges {
				if u.Number <= change {
					t.Fatalf("change %d after %d", u.Number, change)
				}
				change = u.Number
			}
			if !page.More {
				break
			}
			if pages > 1000 {
				t.Fatal("it doesn't end")
			}
		}
		if change != last {
			t.Errorf("changes: got %d, want %d", change, last)
		}
		for id, n := range want {
			if have[id] != n {
				t.Errorf("%s: got up to %d, want %d", id, have[id], n)
			}
			// What is before comes by history.
			for before := from[id]; before > 1; {
				es, err := s.History(t.Context(), tenant, "me", conversation.Range{Conversation: id, Before: before, Limit: 7})
				if err != nil {
					t.Fatal(err)
				}
				if len(es.Entries) == 0 || es.Entries[len(es.Entries)-1].Seq != before-1 {
					t.Fatalf("%s before %d: got %+v", id, before, es.Entries)
				}
				before = es.Entries[0].Seq
			}
		}
	}
}

func TestPagesAreBoundedInBytes(t *testing.T) {
	s, _ := newService(t, func(c *conversation.Config, _ *conversation.Deps) { c.PageBytes = 100_000 })
	for i := range 30 {
		send(t, s, "d/ann/bob", "ann", fmt.Sprint(i), `"`+strings.Repeat("x", 30_000)+`"`)
	}
	for _, q := range []conversation.Range{{}, {From: 1}, {Before: 20}} {
		q.Conversation, q.Limit = "d/ann/bob", 200
		es, err := s.History(t.Context(), tenant, "bob", q)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(es)
		if err != nil || len(es.Entries) != 3 || len(b) > 100_000 {
			t.Errorf("%+v: got %d entries, %d bytes", q, len(es.Entries), len(b))
		}
	}
	// One that is larger than a page is a page.
	s2, _ := newService(t, func(c *conversation.Config, _ *conversation.Deps) { c.PageBytes = 1000 })
	send(t, s2, "d/ann/bob", "ann", "1", `"`+strings.Repeat("x", 30_000)+`"`)
	if es, err := s2.History(t.Context(), tenant, "bob", conversation.Range{Conversation: "d/ann/bob"}); err != nil || len(es.Entries) != 1 {
		t.Errorf("got %v, %v", es, err)
	}
}

// What takes more room in JSON than in memory is counted by what it takes there.
func TestPagesAreBoundedWhateverGroupsAreCalled(t *testing.T) {
	s, _ := newService(t, nil)
	nasty := strings.Repeat("\x01", 10_000) // a few more, and the row has no room for it
	for i := range 40 {
		if _, err := s.CreateGroup(t.Context(), backend, tenant, "foe", fmt.Sprint(i), entry.Detail{Members: []string{"me"}, Info: &entry.Info{Announcement: &nasty}}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.List(t.Context(), tenant, "me", "", 200)
	if err != nil {
		t.Fatal(err)
	}
	page, err := s.Sync(t.Context(), tenant, "me", conversation.Have{})
	if err != nil {
		t.Fatal(err)
	}
	if list.Next == "" || !page.More || len(list.Conversations) == 0 || len(page.UserChanges) == 0 {
		t.Errorf("all fits into a page: %d, %d", len(list.Conversations), len(page.Conversations))
	}
	for _, v := range []any{list, page} {
		if b, err := json.Marshal(v); err != nil || len(b) > 300_000 {
			t.Errorf("%T: %d bytes, %v", v, len(b), err)
		}
	}
}

func TestListGoesThroughAllConversations(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	s, _ := newService(t, func(c *conversation.Config, d *conversation.Deps) {
		c.PageBytes = 6000
		d.Now = func() time.Time { return at }
	})
	var want []string
	for i := range 25 {
		at = at.Add(time.Duration(i%3) * time.Millisecond) // some at the same time
		conv := entry.DirectID("me", fmt.Sprintf("u%02d", i))
		send(t, s, conv, "me", "1", `"`+strings.Repeat("x", 100*(i%7))+`"`)
		want = append(want, conv)
	}
	var got []string
	for cursor := ""; ; {
		page, err := s.List(t.Context(), tenant, "me", cursor, 9)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page.Conversations {
			got = append(got, c.ID)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestOutcomesAreToldOrNot(t *testing.T) {
	rdb, prefix := kittest.Redis(t)
	var deps conversation.Deps
	s, j := newService(t, func(_ *conversation.Config, d *conversation.Deps) {
		d.Redis, d.RedisPrefix = rdb, prefix
		deps = *d
	})
	j.Redis, j.Prefix = rdb, prefix
	soon := hasty(t, deps)
	var ps []entry.Proposal
	for i, sender := range []string{"ann", "joe", "bob"} {
		ps = append(ps, entry.Proposal{Tenant: tenant, Conversation: "d/ann/bob", Kind: entry.Message, Sender: sender, ClientMsgID: fmt.Sprint(i), Body: []byte("1")})
	}
	waiting := conversation.Origin{Backend: true, Wait: true}
	acc, err := s.ProposeMany(t.Context(), waiting, slices.Clone(ps))
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{acc[0].ID, acc[1].ID, acc[2].ID}
	out := s.Outcomes(t.Context(), ids)
	if out[0].Seq != 1 || out[2].Seq != 2 || errcode.From(out[1].Err).Code != errcode.NotMember || !out[0].Known || !out[1].Known {
		t.Errorf("got %+v", out)
	}
	// An old outcome isn't taken for a new one's.
	j.Hold()
	if _, err := s.ProposeMany(t.Context(), waiting, slices.Clone(ps)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, o := range soon.Outcomes(t.Context(), ids) {
		if o.Known {
			t.Errorf("got %+v", o)
		}
	}
	if took := time.Since(began); took < 150*time.Millisecond || took > patience/2 {
		t.Errorf("it took %s", took)
	}
	j.Release()
	// The last one of a list is told before the others: they are waited for.
	if err := rdb.Del(t.Context(), keyOf(prefix, ids[0])).Err(); err != nil {
		t.Fatal(err)
	}
	kittest.Eventually(t, patience, func() bool {
		out := soon.Outcomes(t.Context(), ids)
		if out[0].Known {
			t.Errorf("got %+v", out)
		}
		return out[1].Known && out[2].Known
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if out := s.Outcomes(ctx, []string{"x"}); out[0].Known {
		t.Errorf("got %+v", out)
	}
}

func keyOf(prefix, id string) string { return prefix + ":{outcome:" + id + "}" }

func TestConfigThatCannotWorkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*conversation.Config){
		"ttl": func(c *conversation.Config) { c.MembershipTTL = 0 }, "stale": func(c *conversation.Config) { c.MembershipStale = time.Second },
		"body": func(c *conversation.Config) { c.BodyBytes = 1 << 20 }, "rate": func(c *conversation.Config) { c.Rate = -1 },
		"cache": func(c *conversation.Config) { c.MembershipCache = 0 }, "gap": func(c *conversation.Config) { c.SyncGap = -1 },
		"wait": func(c *conversation.Config) { c.OutcomeWait = 0 }, "durable": func(c *conversation.Config) { c.DurableTargets = 0 },
	} {
		c := defaults(t)
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// nowhere takes every record.
type nowhere struct{}

func (nowhere) Produce(context.Context, ...kafka.Message) error { return nil }

func BenchmarkSend(b *testing.B) {
	s, _ := newService(b, func(_ *conversation.Config, d *conversation.Deps) { d.Producer = nowhere{} })
	p := entry.Proposal{
		Tenant: tenant, Conversation: "d/ann/bob", Kind: entry.Message, Sender: "ann", ClientMsgID: "0123456789abcdef", Body: []byte(`{"text":"hello, how are you?"}`),
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Propose(b.Context(), conversation.Origin{}, p); err != nil {
			b.Fatal(err)
		}
	}
}
