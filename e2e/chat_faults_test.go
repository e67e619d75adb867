package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
)

// testDatabaseAway: who is known to be a member goes on sending while the database is away, and what he sends is stored in its order
// when it is back. Others, and reading, get `unavailable`.
func testDatabaseAway(t *testing.T, c *Cluster) {
	api := c.API()
	ann, bob, eve := c.Talker(t, "d-ann", 0, nil), c.Talker(t, "d-bob", 1, nil), c.Talker(t, "d-eve", 2, nil)
	for _, p := range []*Talker{ann, bob, eve} {
		p.online(t)
	}
	direct := client.DirectID("d-ann", "d-bob")
	group := ann.Does(t, "group.create", map[string]any{"title": "away", "members": []string{"d-bob"}}).Conversation
	// All logics come to know them.
	for i := range 2 {
		for _, l := range c.Logics {
			one := &API{Base: []string{l.HTTP}, Key: api.Key}
			for _, to := range []string{direct, group} {
				one.For("").Must(t, 200, "POST", conversationPath(to)+"/messages", map[string]any{"from": "d-ann", "body": "warm", "client_msg_id": fmt.Sprint(l.Name, i)}, nil)
			}
		}
	}
	before := map[string]int{}
	for _, to := range []string{direct, group} {
		before[to] = len(api.Entries(t, to))
	}

	c.Servers.Down(t, "mariadb")
	defer c.Servers.Up(t, "mariadb") // if the test ends before it does that
	sent := map[string][]string{}
	const each = 15
	for n := range each {
		for _, to := range []string{direct, group} {
			id, err := ann.Send(to, n, client.SendOptions{})
			if err != nil {
				t.Fatal(err)
			}
			sent[to] = append(sent[to], id)
		}
	}
	within(t, talkTime, "all are accepted", func() (bool, string) {
		n := 0
		for _, ids := range sent {
			for _, id := range ids {
				if o := ann.stage(id); o.Stage == client.Accepted {
					n++
				} else if o.Stage != client.Sending && o.Stage != "" {
					t.Fatalf("%s is %s: %v", id, o.Stage, o.Err)
				}
			}
		}
		return n == 2*each, strconv.Itoa(n)
	})
	// A backend in a member's name is told that it was accepted, and no more.
	api.Must(t, 202, "POST", conversationPath(group)+"/messages", map[string]any{"from": "d-ann", "client_msg_id": "last", "body": each}, nil)
	for _, x := range []struct {
		p      *Talker
		method string
		params map[string]any
	}{
		{eve, "message.send", map[string]any{"conversation": group, "client_msg_id": "1", "body": "no"}},
		{eve, "message.send", map[string]any{"conversation": client.DirectID("d-eve", "d-zoe"), "client_msg_id": "1", "body": "no"}},
		{bob, "conversation.history", map[string]any{"conversation": group}},
		{bob, "conversation.list", map[string]any{}},
		{bob, "sync", map[string]any{}},
		{bob, "user.get", map[string]any{"uids": []string{"d-ann"}}},
	} {
		if e := x.p.refused(t, x.method, x.params); e.Code != "unavailable" || !e.Retry {
			t.Errorf("%s of %s: got %v, want unavailable", x.method, x.p.UID, e)
		}
	}
	for _, path := range []string{conversationPath(group) + "/entries", "/v1/users/d-bob/conversations", conversationPath(group) + "/members"} {
		got, err := api.Do(t.Context(), "GET", path, nil, nil)
		if err != nil || got.Status != 503 || got.Problem().Code != "unavailable" || got.Header.Get("Retry-After") == "" {
			t.Errorf("GET %s: got %v, %v, Retry-After %q; want 503 unavailable", path, got, err, got.Header.Get("Retry-After"))
		}
	}
	got, err := api.Do(t.Context(), "POST", conversationPath(group)+"/messages", nil, map[string]any{"from": "d-eve", "client_msg_id": "1", "body": "no"})
	if err != nil || got.Status != 503 || got.Problem().Code != "unavailable" {
		t.Errorf("a stranger's backend: got %v, %v; want 503 unavailable", got, err)
	}
	// Pushes that aren't kept need no database.
	c.API().Push(t, Push{UIDs: []string{"d-bob"}, Text: "still here"})

	c.Servers.Up(t, "mariadb")
	for to, ids := range sent {
		for _, id := range ids {
			if o := ann.settled(t, id, 30*time.Second); o.Stage == client.Failed {
				t.Errorf("%s: %v", id, o.Err)
			}
		}
		want := slices.Clone(ids)
		if to == group {
			within(t, talkTime, "the backend's is stored", func() (bool, string) { return len(api.Entries(t, to)) == before[to]+each+1, "" })
			want = append(want, "last")
		}
		var stored []string
		all := api.Entries(t, to)
		for _, e := range all[before[to]:] {
			stored = append(stored, e.ClientMsgID)
		}
		if !slices.Equal(stored, want) {
			t.Errorf("%s: stored are %v, want %v", to, stored, want)
		}
		within(t, 30*time.Second, "bob has all", func() (bool, string) { return bob.upTo(to) == int64(len(all)), bob.about(to) })
		for i, e := range bob.Handed(to) {
			if e.Seq != int64(i)+1 || e.ClientMsgID != all[i].ClientMsgID {
				t.Fatalf("%s: bob was handed %d %s in place %d", to, e.Seq, e.ClientMsgID, i+1)
			}
		}
	}
	// Who was refused is judged now.
	within(t, talkTime, "a stranger is told that he is no member", func() (bool, string) {
		e := eve.refused(t, "message.send", map[string]any{"conversation": group, "client_msg_id": "1", "body": "no"})
		return e.Code == "not_member", e.Error()
	})
	for _, p := range []*Talker{ann, bob, eve} {
		p.fine(t)
	}
}
