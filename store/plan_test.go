package store_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

var planRows = flag.Int("plan-rows", 4000, "rows of each table in the test of plans")

// TestNoStatementReadsATableWhole fills all tables, calls all that a store can do, and asks the database for the plan of each
// statement: what is found by reading a table or an index from one end to the other is found out here, and not at a million rows.
func TestNoStatementReadsATableWhole(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		crowd(t, s, *planRows)
		type statement struct {
			text string
			args []any
		}
		var mu sync.Mutex
		var seen []statement
		s.SetTrace(func(text string, args []any) {
			mu.Lock()
			defer mu.Unlock()
			if !slices.ContainsFunc(seen, func(o statement) bool { return o.text == text }) {
				seen = append(seen, statement{text, slices.Clone(args)})
			}
		})
		useAll(t, s)
		s.SetTrace(nil)
		if len(seen) < 40 {
			t.Errorf("saw only %d statements", len(seen))
		}
		for _, st := range seen {
			if strings.HasPrefix(st.text, "INSERT INTO") && !strings.Contains(st.text, "SELECT") {
				continue
			}
			var plan []string
			bad := false
			if err := s.Explain(t.Context(), st.text, st.args, func(l map[string]string) {
				plan = append(plan, fmt.Sprint(l))
				bad = bad || whole(l)
			}); err != nil {
				t.Errorf("%s: %v", short(st.text), err)
			}
			// These are small, and are meant to be read whole: a row for each key of which a webhook waits.
			if bad && !(strings.Contains(st.text, "GROUP BY tenant, endpoint")) {
				t.Errorf("%s\n\t%s", short(st.text), strings.Join(plan, "\n\t"))
			} else if testing.Verbose() {
				t.Logf("%s\n\t%s", short(st.text), strings.Join(plan, "\n\t"))
			}
		}
	})
}

func short(text string) string {
	if len(text) > 300 {
		return text[:150] + " … " + text[len(text)-150:]
	}
	return text
}

// whole reports whether a line of a plan reads something whole, or sorts much of it for a page.
func whole(l map[string]string) bool {
	if d, ok := l["detail"]; ok { // SQLite
		return strings.HasPrefix(d, "SCAN") && !strings.HasPrefix(d, "SCAN json_each") && !strings.Contains(d, "SCAN k") && d != "SCAN CONSTANT ROW" ||
			strings.Contains(d, "AUTOMATIC")
	}
	if strings.HasPrefix(l["table"], "<") || l["table"] == "" {
		return false // the keys that are looked up
	}
	rows, _ := strconv.Atoi(l["rows"])
	return l["type"] == "ALL" || l["type"] == "index" || rows > *planRows/4 && strings.Contains(l["Extra"], "filesort")
}

// crowd makes n rows of everything: n people with a group of their own, one large group of all, one person in all groups.
func crowd(t testing.TB, s *store.Store, n int) {
	t.Helper()
	fill := func(table, columns string, row func(i int) []any) {
		t.Helper()
		rows := make([][]any, n)
		for i := range rows {
			rows[i] = row(i)
		}
		for part := range slices.Chunk(rows, 5000) {
			if err := s.Fill(t.Context(), table, strings.Split(columns, " "), part); err != nil {
				t.Fatal(table, err)
			}
		}
	}
	uid := func(i int) string { return fmt.Sprintf("u%07d", i) }
	group := func(i int) string { return fmt.Sprintf("g/00000000-0000-7000-8000-%012x", i) }
	hash := make([]byte, 32)
	fill("conversations", "tenant conversation type dissolved title avatar announcement owner join_policy mute_all history_open fanout members last_seq last_msg_no last_msg_seq last_at last_msg_at rejected_at created_at created_by",
		func(i int) []any {
			last := 0
			if i == 0 {
				last = n
			}
			return []any{tenant, group(i), conversation.Group, 0, "t", "", "", "boss", 0, 0, 1, 0, n, last, last, last, start, start, start, start, "boss"}
		})
	member := "tenant conversation uid role joined_seq changed_seq read_seq read_msg_no delivered_seq muted_until joined_at invited_by"
	fill("members", member, func(i int) []any {
		return []any{tenant, group(0), uid(i), conversation.Member, 1, 1, i, i, i, 0, start, ""}
	})
	fill("members", member, func(i int) []any {
		return []any{tenant, group(i), "boss", conversation.Owner, 1, 1, 0, 0, 0, 0, start, ""}
	})
	fill("user_conversations", "tenant uid conversation role joined_seq changed_seq", func(i int) []any { return []any{tenant, uid(i), group(0), conversation.Member, 1, 1} })
	fill("entries", "tenant conversation seq kind sender client_msg_id hash msg_no changed_seq target_seq flags accepted_at body detail address", func(i int) []any {
		kind, target := conversation.Message, 0
		if i%10 == 9 {
			kind, target = conversation.Edit, i
		}
		return []any{tenant, group(0), i + 1, kind, uid(i), fmt.Sprint("m", i), hash, i + 1, i + 1, target, conversation.Reacted, start, []byte(`{}`), nil, nil}
	})
	fill("rejections", "tenant conversation sender client_msg_id hash code reason rejected_at", func(i int) []any {
		return []any{tenant, group(i % 100), uid(i), fmt.Sprint("r", i), hash, "forbidden", "", start + int64(i)}
	})
	fill("mentions", "tenant conversation uid seq", func(i int) []any { return []any{tenant, group(0), uid(i % 50), i} })
	fill("reactions", "tenant conversation seq reaction uid changed_seq", func(i int) []any { return []any{tenant, group(0), i%500 + 1, "+", uid(i), i} })
	fill("pins", "tenant conversation seq changed_seq pinned_by pinned_at", func(i int) []any { return []any{tenant, group(i % 200), i + 1, i + 1, "boss", start} })
	fill("audit", "tenant conversation seq changed_seq kind changed_by changed_at body detail", func(i int) []any {
		return []any{tenant, group(0), i + 1, i + 2, conversation.Edit, "boss", start + int64(i), []byte(`{}`), nil}
	})
	fill("user_numbers", "tenant uid last_number", func(i int) []any { return []any{tenant, uid(i), n} })
	fill("user_changes", "tenant uid kind object number guard changed_at value", func(i int) []any {
		return []any{tenant, uid(i % 100), "draft", group(i), i + 1, 1, start, []byte(`{}`)}
	})
	fill("users", "tenant uid name name_folded avatar profile visibility disabled created_at updated_at", func(i int) []any {
		name := fmt.Sprintf("name%07d", n-i)
		return []any{tenant, uid(i), name, name, "", nil, 0, 0, start, start}
	})
	fill("contacts", "tenant uid peer state remark note changed_at", func(i int) []any { return []any{tenant, uid(i % 50), uid(i), 3, "", "", start} })
	fill("blocks", "tenant uid peer blocked_at", func(i int) []any { return []any{tenant, uid(i % 50), uid(i), start} })
	fill("hook_keys", "tenant endpoint hook_key due since attempts claim", func(i int) []any { return []any{tenant, "e", uid(i), i, i, 0, 0} })
	fill("hook_queue", "tenant endpoint hook_key number id created_at body", func(i int) []any { return []any{tenant, "e", uid(i % 300), i, fmt.Sprint(i), i, []byte(`{}`)} })
	if err := s.Count(t.Context(), "conversations", "members", "user_conversations", "entries", "rejections", "mentions", "reactions", "pins", "audit",
		"user_numbers", "user_changes", "users", "contacts", "blocks", "hook_keys", "hook_queue"); err != nil {
		t.Fatal(err)
	}
}

// useAll calls everything once or twice, with one key and with several.
func useAll(t *testing.T, s *store.Store) {
	ctx := t.Context()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	u := func(i int) string { return fmt.Sprintf("u%07d", i) }
	g := func(i int) string { return fmt.Sprintf("g/00000000-0000-7000-8000-%012x", i) }
	k := &talk{t: t, s: s, id: g(0), n: 1 << 20}
	k.must(k.say(u(1), "hi"))
	k.must(k.say(u(1), "hi"), k.say(u(2), "hi"), k.make(conversation.Message, u(3), func(p *conversation.Proposal) { p.Detail.Mentions = []string{u(4), u(5)} }))
	k.append(k.change(conversation.Edit, "boss", 5), k.change(conversation.Edit, u(1), 2), k.change(conversation.Pin, "boss", 3), k.change(conversation.Recall, "boss", 7),
		k.make(conversation.Reaction, u(2), func(p *conversation.Proposal) { p.Target, p.Detail.Reaction = 3, "+" }),
		k.make(conversation.Reaction, u(3), func(p *conversation.Proposal) { p.Target, p.Detail.Reaction, p.Detail.Off = 3, "+", true }),
		k.change(conversation.Recall, "boss", 3), k.read(u(9), 20))
	other := direct(t, s, u(1), u(2))
	more := &talk{t: t, s: s, id: g(1), n: 1 << 20}
	_, err := s.Append(ctx, []conversation.Proposal{other.say(u(1), "x"), k.say(u(2), "x"), more.say("boss", "x"), direct(t, s, u(5), u(6)).say(u(7), "x")})
	ok(err)
	_, err = s.Conversation(ctx, tenant, g(0))
	ok(err)
	_, _, err = s.Membership(ctx, tenant, g(0), u(1))
	ok(err)
	_, err = s.Entries(ctx, tenant, g(0), 1, 100, 50)
	ok(err)
	_, err = s.Stored(ctx, tenant, g(0), u(1), "m1")
	ok(err)
	_, err = s.EntriesBefore(ctx, tenant, g(0), 1, 0, 20)
	ok(err)
	_, err = s.Reactors(ctx, tenant, g(0), 3, "+", "", 10)
	ok(err)
	_, err = s.Pinned(ctx, tenant, g(0), 10)
	ok(err)
	_, err = s.Audit(ctx, tenant, g(0), 3, 1, 10)
	ok(err)
	_, err = s.Purge(ctx, start+10, start+10)
	ok(err)
	_, err = s.Members(ctx, tenant, g(0), u(7), 50)
	ok(err)
	_, err = s.Admins(ctx, tenant, g(0), 50)
	ok(err)
	_, err = s.Readers(ctx, tenant, g(0), 9, "", 50)
	ok(err)
	_, err = s.MembersOf(ctx, tenant, g(0), []string{u(1), u(2)})
	ok(err)
	_, err = s.Muters(ctx, tenant, g(0), []string{u(1), u(2)})
	ok(err)
	_, err = s.MemberUIDs(ctx, tenant, g(0), 300)
	ok(err)
	_, err = s.Rosters(ctx, []store.ID{{Tenant: tenant, Conversation: g(1)}, {Tenant: tenant, Conversation: g(2)}, {Tenant: "t", Conversation: g(2)}})
	ok(err)
	_, err = s.Rosters(ctx, []store.ID{{Tenant: tenant, Conversation: g(1)}})
	ok(err)
	_, _, err = s.Reached(ctx, tenant, g(0), 9)
	ok(err)
	ok(s.PutUsers(ctx, []store.User{{Tenant: tenant, UID: u(1), Name: "x"}}))
	_, err = s.ChangeUsers(ctx, tenant, []string{u(1), u(2)}, func(v *store.User) error { v.Avatar = "x"; return nil })
	ok(err)
	_, err = s.Users(ctx, tenant, []string{u(1), u(2)})
	ok(err)
	_, err = s.SearchUsers(ctx, tenant, "name", 20)
	ok(err)
	for _, c := range []store.UserChange{
		{Kind: store.ChangeContact, Contact: &store.Contact{State: 3}}, {Kind: store.ChangeContact, Guard: 9, Contact: &store.Contact{}},
		{Kind: store.ChangeBlock, Blocked: true}, {Kind: store.ChangeBlock, Guard: 9},
	} {
		c.Tenant, c.UID, c.Object = tenant, u(1), u(2)
		_, err = s.PutUserChanges(ctx, []store.UserChange{c})
		ok(err)
	}
	_, err = s.PutUserChanges(ctx, []store.UserChange{{Tenant: tenant, UID: u(1), Kind: "draft", Object: "a"}, {Tenant: tenant, UID: u(2), Kind: "mute", Object: "b"}, {Tenant: "t", UID: u(2), Kind: "mute", Object: "b"}})
	ok(err)
	_, err = s.Contacts(ctx, tenant, u(1), "", 10)
	ok(err)
	_, err = s.Contact(ctx, tenant, u(1), u(2))
	ok(err)
	_, err = s.Blocked(ctx, tenant, u(1), u(2))
	ok(err)
	_, err = s.Blocks(ctx, tenant, u(1), "", 10)
	ok(err)
	_, err = s.UserChangesSince(ctx, tenant, u(1), 0, 10)
	ok(err)
	_, err = s.UserChangesOf(ctx, tenant, u(1), "draft", "", 10)
	ok(err)
	_, err = s.LastUserChange(ctx, tenant, u(1))
	ok(err)
	_, _, err = s.Conversations(ctx, tenant, u(1), store.Cursor{}, 10)
	ok(err)
	_, err = s.Sync(ctx, tenant, u(1), store.SyncQuery{Limit: 100, Newest: 10, MaxGap: 50})
	ok(err)
	hooks := func(ctx context.Context) {
		ok(s.PutHooks(ctx, 1, []store.Hook{{Tenant: tenant, Endpoint: "e", Key: u(1), Number: 1e9, ID: "x"}, {Tenant: tenant, Endpoint: "e", Key: u(0), Number: 0, ID: "y"}}))
		claims, err := s.ClaimHooks(ctx, tenant, "e", 1000, 2000, 2, 3)
		ok(err)
		for i := range claims {
			ok(s.DoneHook(ctx, &claims[i], &claims[i].Hooks[0]))
			_, err = s.ReleaseHooks(ctx, &claims[i], 5, false)
			ok(err)
		}
		_, err = s.HookQueues(ctx)
		ok(err)
		_, err = s.HookBacklogs(ctx)
		ok(err)
	}
	hooks(ctx)
}
