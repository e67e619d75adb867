package store_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

func TestDirectConversationBeginsWithItsFirstMessage(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		k := direct(t, s, "bob", "alice")
		if _, err := s.Conversation(t.Context(), tenant, k.id); !errors.Is(err, errcode.NotFound) {
			t.Fatalf("got %v before the first message, want not_found", err)
		}
		out := k.must(k.say("alice", "hi"), k.say("bob", "hello"))
		if out[0].Seq != 1 || out[1].Seq != 2 || out[1].MsgNo != 2 || len(out[0].Listings) != 2 {
			t.Fatalf("got %+v", out)
		}
		c, alice, err := s.Membership(t.Context(), tenant, k.id, "alice")
		if err != nil {
			t.Fatal(err)
		}
		if c.Type != conversation.Direct || c.Members != 2 || c.LastSeq != 2 || alice.Role != conversation.Member || alice.Unread(&c) != 1 {
			t.Fatalf("got %+v %+v", c, alice)
		}
		wantCode(t, k.append(k.say("mallory", "let me in"))[0], errcode.NotMember)
	})
}

func TestRepeatGetsTheFirstOutcome(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		k := group(t, p.open(t))
		created := k.people(conversation.Created, "alice", "bob")
		msg, stranger := k.say("bob", "one"), k.say("carol", "not in")
		first := k.must(created, msg)
		wantCode(t, k.append(stranger)[0], errcode.NotMember)
		k.must(k.people(conversation.Joined, "alice", "carol"), k.say("alice", "two"))

		// A repeat a year later, in one batch with others, and twice in it.
		again := msg
		again.AcceptedAtMs += 365 * 24 * time.Hour.Milliseconds()
		out := k.append(k.say("alice", "three"), again, created, again)
		for _, i := range []int{1, 3} {
			if o := out[i]; !o.Repeated || o.Seq != first[1].Seq || o.AtMs != first[1].AtMs || o.MsgNo != 1 {
				t.Fatalf("got %+v, want the outcome of %+v", o, first[1])
			}
		}
		if o := out[2]; !o.Repeated || o.Seq != 1 || len(o.Listings) != 2 {
			t.Fatalf("got %+v: the lists may not have heard of the group", o)
		}
		// She is a member now, but was told no.
		if o := k.append(stranger)[0]; o.Code != errcode.NotMember || !o.Repeated {
			t.Fatalf("got %+v, want the first rejection", o)
		}
		other := msg
		other.Body = []byte("something else")
		wantCode(t, k.append(other)[0], errcode.Conflict)
		stranger.Body = []byte("something else")
		wantCode(t, k.append(stranger)[0], errcode.Conflict)
	})
}

func TestRejectionBeforeTheConversationBeganStays(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		k := group(t, p.open(t))
		early := k.say("alice", "too early")
		wantCode(t, k.append(early)[0], errcode.NotFound)
		k.must(k.people(conversation.Created, "alice"))
		wantCode(t, k.append(early)[0], errcode.NotFound)
		wantCode(t, k.append(k.say("mallory", "x"))[0], errcode.NotMember)
		k.must(k.say("alice", "in time"))
	})
}

func TestRecallEmptiesMessageAndEdits(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		k := group(t, s)
		edit := func(target int64, body string, mentions ...string) conversation.Proposal {
			return k.make(conversation.Edit, "alice", func(p *conversation.Proposal) {
				p.Target, p.Body, p.Detail.Mentions = target, []byte(body), mentions
			})
		}
		said := k.make(conversation.Message, "alice", func(p *conversation.Proposal) {
			p.Body, p.Detail.Mentions, p.Address = []byte("secret 1"), []string{"bob", "bob"}, "192.0.2.1"
		})
		// The second edit is of a batch with the message, the third of another one.
		k.must(k.people(conversation.Created, "alice", "bob"), said, edit(2, "secret 2", "bob"))
		k.must(edit(2, "secret 3", "alice"))
		list := k.entries(1, 9)
		if m := list[1]; string(m.Body) != "secret 3" || m.ChangedSeq != 4 || m.Flags != conversation.Edited || m.Address != "192.0.2.1" ||
			!slices.Equal(m.Detail.Mentions, []string{"alice"}) {
			t.Fatalf("got %+v", m)
		}
		if string(list[2].Body) != "secret 3" || string(list[3].Body) != "secret 3" || list[2].Target != 2 {
			t.Fatalf("got %+v: an edit shows the message as it is now", list[2:])
		}
		sum, err := s.Summaries(t.Context(), tenant, "bob", []string{k.id})
		if err != nil || len(sum) != 1 || sum[0].Mentions != 0 || sum[0].Unread != 1 {
			t.Fatalf("got %+v, %v: the last edit mentions him no more", sum, err)
		}

		pin := k.change(conversation.Pin, "alice", 2)
		out := k.must(pin, k.change(conversation.Recall, "alice", 2))
		if out[1].Seq != 6 {
			t.Fatalf("got %+v", out[1])
		}
		for _, e := range k.entries(1, 9) {
			if strings.Contains(string(e.Body), "secret") || len(e.Detail.Mentions) > 0 {
				t.Fatalf("entry %d still says %q", e.Seq, e.Body)
			}
		}
		if m := k.entries(2, 2)[0]; m.Flags != conversation.Edited|conversation.Recalled || m.ChangedSeq != 6 {
			t.Fatalf("got %+v", m)
		}
		if pins, err := s.Pinned(t.Context(), tenant, k.id, 10); err != nil || len(pins) != 0 {
			t.Fatalf("got %v, %v: a recalled message is on the board", pins, err)
		}
		audit, err := s.Audit(t.Context(), tenant, k.id, 2, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		var said2 []string
		for _, a := range audit {
			said2 = append(said2, fmt.Sprintf("%d %s", a.ChangedSeq, a.Body))
		}
		if want := []string{"3 secret 1", "4 secret 2", "6 secret 3"}; !slices.Equal(said2, want) {
			t.Fatalf("audit: got %v, want %v", said2, want)
		}
		wantCode(t, k.append(edit(2, "again"))[0], errcode.Recalled)
		if o := k.append(said)[0]; !o.Repeated || !o.Flags.Has(conversation.Recalled) || o.ChangedSeq != 6 {
			t.Fatalf("got %+v: who delivers a repeat must know that it was recalled", o)
		}
		for _, c := range []struct{ audit, rejections, want int64 }{{0, 0, 0}, {k.now + 1, 0, 3}, {k.now + 1, k.now + 1, 1}, {k.now + 1, k.now + 1, 0}} {
			if n, err := s.Purge(t.Context(), c.audit, c.rejections); err != nil || n != c.want {
				t.Fatalf("purged %d, %v; want %d", n, err, c.want)
			}
		}
	})
}

func TestReactionsAndPins(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		k := group(t, s)
		react := func(uid, r string, off bool) conversation.Proposal {
			return k.make(conversation.Reaction, uid, func(p *conversation.Proposal) {
				p.Target, p.Detail.Reaction, p.Detail.Off = 2, r, off
			})
		}
		k.must(k.people(conversation.Created, "alice", "bob", "carol"), k.say("alice", "hi"),
			react("bob", "👍", false), react("carol", "👍", false), react("carol", "🎉", false), react("carol", "🎉", true), react("bob", "👍", false))
		k.must(react("alice", "❤️", false), react("carol", "🎉", true))
		m := k.entries(2, 2)[0]
		got := map[string][]string{}
		for _, r := range m.Reactions {
			slices.Sort(r.UIDs)
			got[r.Reaction] = r.UIDs
			if int(r.Count) != len(r.UIDs) {
				t.Errorf("%s: count %d, %v", r.Reaction, r.Count, r.UIDs)
			}
		}
		if want := map[string][]string{"👍": {"bob", "carol"}, "❤️": {"alice"}}; !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		if m.ChangedSeq != 9 || !m.Flags.Has(conversation.Reacted) {
			t.Fatalf("got %+v", m)
		}
		if who, err := s.Reactors(t.Context(), tenant, k.id, 2, "👍", "bob", 10); err != nil || !slices.Equal(who, []string{"carol"}) {
			t.Fatalf("got %v, %v", who, err)
		}
		// One who thinks up ever new ones makes no message longer than a page.
		var many []conversation.Proposal
		for i := range 120 {
			many = append(many, react("bob", fmt.Sprint("new ", i), false))
		}
		k.must(many...)
		if m := k.entries(2, 2)[0]; len(m.Reactions) != 50 || m.Reactions[0].Reaction != "👍" || m.Reactions[0].Count != 2 || m.Reactions[0].UIDs != nil {
			t.Fatalf("got %d: %+v", len(m.Reactions), m.Reactions[0])
		}
		k.must(k.change(conversation.Pin, "alice", 2))
		if pins, err := s.Pinned(t.Context(), tenant, k.id, 10); err != nil || len(pins) != 1 || !pins[0].Flags.Has(conversation.Pinned) {
			t.Fatalf("got %+v, %v", pins, err)
		}
		k.must(k.make(conversation.Pin, "alice", func(p *conversation.Proposal) { p.Target, p.Detail.Off = 2, true }))
		if pins, err := s.Pinned(t.Context(), tenant, k.id, 10); err != nil || len(pins) != 0 {
			t.Fatalf("got %+v, %v", pins, err)
		}
		if k.entries(2, 2)[0].Flags.Has(conversation.Pinned) {
			t.Fatal("still pinned")
		}
	})
}

func TestGroupOfAnotherTenantIsAnother(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		a, b := group(t, s), group(t, s)
		b.id = a.id
		ps := []conversation.Proposal{a.people(conversation.Created, "alice", "bob"), a.say("bob", "here"), b.people(conversation.Created, "alice"), b.say("bob", "there")}
		ps[2].Tenant, ps[3].Tenant = "other", "other"
		out, err := s.Append(t.Context(), ps)
		if err != nil {
			t.Fatal(err)
		}
		if out[1].Seq != 2 || out[2].Seq != 1 || out[3].Code != errcode.NotMember {
			t.Fatalf("got %+v", out)
		}
	})
}

// TestOneBadRecordIsFoundByHalving plants a body that no row takes.
func TestOneBadRecordIsFoundByHalving(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		k, other := group(t, s), group(t, s)
		k.must(k.people(conversation.Created, "alice"))
		other.must(other.people(conversation.Created, "alice"))
		var ps []conversation.Proposal
		for i := range 20 {
			if i == 13 {
				ps = append(ps, k.say("alice", strings.Repeat("x", 65536)))
			} else if i%2 == 0 {
				ps = append(ps, other.say("alice", fmt.Sprint(i)))
			} else {
				ps = append(ps, k.say("alice", fmt.Sprint(i)))
			}
		}
		for range 2 {
			out := k.append(ps...)
			last := map[string]int64{}
			for i, o := range out {
				if i == 13 {
					wantCode(t, o, errcode.InvalidRequest)
					continue
				}
				if o.Code != nil || o.Seq != last[ps[i].Conversation]+1 && last[ps[i].Conversation] > 0 {
					t.Fatalf("%d: got %+v after %d", i, o, last[ps[i].Conversation])
				}
				last[ps[i].Conversation] = o.Seq
			}
		}
		if c, err := s.Conversation(t.Context(), tenant, k.id); err != nil || c.LastSeq != 10 || c.LastMsgNo != 9 {
			t.Fatalf("got %+v, %v", c, err)
		}
	})
}

// TestBothWhoBelieveToBeFirstGetOneOrder lets two writers begin the same conversations at the same time.
func TestBothWhoBelieveToBeFirstGetOneOrder(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		writers := []*store.Store{p.open(t), p.open(t)}
		for round := range 10 {
			var ps []conversation.Proposal
			for c := range 3 {
				k := direct(t, nil, fmt.Sprintf("a%d-%d", round, c), "b")
				for i := range 4 {
					ps = append(ps, k.say("b", fmt.Sprint(i)))
				}
			}
			outs := make([][]store.Outcome, 2)
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					var err error
					for range 20 {
						// An error is the database's: busy, for one. The caller repeats.
						if outs[w], err = writers[w].Append(t.Context(), ps); err == nil {
							return
						}
					}
					t.Error(err)
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			for i := range ps {
				a, b := outs[0][i], outs[1][i]
				if a.Code != nil || b.Code != nil || a.Seq != b.Seq || a.Seq != int64(i%4+1) || a.AtMs != b.AtMs {
					t.Fatalf("round %d, proposal %d: one got %+v, the other %+v", round, i, a, b)
				}
				if a.Repeated == b.Repeated {
					t.Fatalf("round %d, proposal %d: one of two writers stored it, got repeated %v and %v", round, i, a.Repeated, b.Repeated)
				}
			}
		}
	})
}

func TestTimeNeverGoesBackInAConversation(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		k := direct(t, p.open(t), "a", "b")
		first, second := k.say("a", "1"), k.say("b", "2")
		second.AcceptedAtMs = first.AcceptedAtMs - 1999
		out := k.must(first, second)
		third := k.say("b", "3")
		third.AcceptedAtMs = 1
		out = append(out, k.must(third)...)
		for i, e := range k.entries(1, 3) {
			if e.AtMs != first.AcceptedAtMs || out[i].AtMs != e.AtMs {
				t.Fatalf("entry %d: got %d in the row and %d told, want %d", i, e.AtMs, out[i].AtMs, first.AcceptedAtMs)
			}
		}
	})
}

func TestMarkersOnlyRise(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		k := group(t, s)
		k.must(k.people(conversation.Created, "alice", "bob"), k.say("alice", "1"), k.change(conversation.Pin, "alice", 2), k.say("alice", "2"), k.say("alice", "3"))
		unread := func() int64 {
			c, m, err := s.Membership(t.Context(), tenant, k.id, "bob")
			if err != nil {
				t.Fatal(err)
			}
			return m.Unread(&c)
		}
		for _, step := range []struct {
			read int64
			want int64
		}{{0, 3}, {2, 2}, {1, 2}, {3, 2}, {4, 1}, {5, 0}, {4, 0}} {
			if k.must(k.read("bob", step.read)); unread() != step.want {
				t.Fatalf("marker at %d: got %d unread, want %d", step.read, unread(), step.want)
			}
		}
		wantCode(t, k.append(k.read("bob", 6))[0], errcode.InvalidRequest)
		wantCode(t, k.append(k.read("mallory", 1))[0], errcode.NotMember)
		read, delivered, err := s.Reached(t.Context(), tenant, k.id, 5)
		if err != nil || read != 2 || delivered != 2 {
			t.Fatalf("got %d, %d, %v", read, delivered, err)
		}
		// A batch: two messages and the marker between them.
		m := k.say("alice", "4")
		k.must(m, k.read("bob", 6), k.say("alice", "5"))
		if unread() != 1 {
			t.Fatalf("got %d unread, want 1", unread())
		}
	})
}

func TestFanoutTurnsWithoutAnEntry(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		k := group(t, s)
		k.must(k.people(conversation.Created, "alice"))
		o := k.must(k.make(conversation.FanoutChanged, "", func(p *conversation.Proposal) { p.Fanout = conversation.FanoutRoom }))[0]
		c, err := s.Conversation(t.Context(), tenant, k.id)
		if err != nil || o.Seq != 0 || c.Fanout != conversation.FanoutRoom || c.LastSeq != 1 {
			t.Fatalf("got %+v, %+v, %v", o, c, err)
		}
		// Whoever connects is put into the rooms of such groups, and of no others.
		small, joining := group(t, s), group(t, s)
		small.must(small.people(conversation.Created, "bob", "alice"))
		joining.must(joining.people(conversation.Created, "bob", "alice"), joining.make(conversation.FanoutChanged, "", func(p *conversation.Proposal) { p.Fanout = conversation.FanoutJoining }))
		want := []string{k.id, joining.id}
		slices.Sort(want)
		for uid, want := range map[string][]string{"alice": want, "bob": {joining.id}, "carol": nil} {
			if got, err := s.RoomsOf(t.Context(), tenant, uid); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: got %v, %v, want %v", uid, got, err, want)
			}
		}
	})
}
