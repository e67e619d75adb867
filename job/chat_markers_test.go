package job_test

import (
	"fmt"
	"testing"

	"github.com/halley-im/halley/kit/cursor"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

func (c *chat) marker(conv, uid string, read, delivered int64) conversation.Proposal {
	return c.propose(conversation.Marker, conv, uid, func(p *conversation.Proposal) { p.ReadSeq, p.DeliveredSeq = read, delivered })
}

func TestMarkersAreToldOnceTheyAreStored(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	id, g := conversation.DirectID("ann", "bob"), newGroup()
	a.login(tenant, "ann", conn(1))
	a.login(tenant, "bob", conn(2))
	a.login(tenant, "cat", conn(3), name.OpenRoom(g))
	a.login(tenant, "ann", conn(4), name.OpenRoom(g))
	a.login(tenant, "dan", conn(5))
	r := c.start(testConfig())
	c.send(
		c.say(id, "bob", "1"), c.say(id, "bob", "2"), c.propose(conversation.Reaction, id, "bob", target(1), func(p *conversation.Proposal) { p.Detail.Reaction = "x" }),
		c.people(conversation.Created, g, "ann", "cat", "dan"), c.say(g, "cat", "hi"),
	)
	c.waitCommitted(topic.Chat, 5)
	base := len(c.lines(a, conn(2), false))
	mine := len(c.lines(a, conn(1), false))
	c.send(
		c.marker(id, "ann", 3, 0), // of two messages and a reaction
		c.marker(id, "ann", 1, 0), // late
		c.marker(id, "ann", 9, 9), // of what nobody has written
		c.marker(id, "eve", 1, 1), // a stranger
		c.marker(id, "bob", 0, 3),
		c.marker(id, "ann", 3, 3), // whoever stored it may have died before he told of it
	)
	c.waitCommitted(topic.Chat, 11)
	c.send(c.marker(g, "ann", 2, 2)) // numbered after the others: it is of another partition
	c.waitCommitted(topic.Chat, 12)
	own := fmt.Sprintf(`change 3 read %s {"read_seq":3,"read_msg_no":2}`, id)
	for _, at := range []string{conn(1), conn(4)} {
		got := c.lines(a, at, false)[mine:]
		check(t, at, got, own, `marker {"conversation":"d/ann/bob","uid":"bob","delivered_seq":3}`,
			fmt.Sprintf(`change 4 read %s {"read_seq":2,"read_msg_no":1}`, g), own)
	}
	check(t, "bob", c.lines(a, conn(2), false)[base:], `marker {"conversation":"d/ann/bob","uid":"ann","read_seq":3,"read_msg_no":2}`,
		`marker {"conversation":"d/ann/bob","uid":"ann","read_seq":3,"delivered_seq":3,"read_msg_no":2}`)
	check(t, "cat", c.lines(a, conn(3), false)[2:], fmt.Sprintf(`marker {"conversation":%q,"uid":"ann","read_seq":2,"delivered_seq":2,"read_msg_no":1}`, g))
	if got := c.lines(a, conn(5), false); len(got) != 2 {
		t.Errorf("dan doesn't have the group open, and was told %q", got)
	}
	if got := c.marks("ann").Changes[cursor.User{Tenant: tenant, UID: "ann"}]; got != 4 {
		t.Errorf("ann's mark is %d, want 4", got)
	}
	balanced(t, r)
}

func check(t *testing.T, who string, got []string, want ...string) {
	t.Helper()
	// Changes of the reader's own are stored behind the batch's other records.
	left := map[string]int{}
	for _, w := range want {
		left[w]++
	}
	for _, g := range got {
		left[g]--
	}
	for line, n := range left {
		if n != 0 {
			t.Errorf("%s was told %q %d times too few, in %q", who, line, n, got)
		}
	}
}

// TestNextJobTellsTheReaderWhatTheLastOneDidNot stops a job between a marker and the change that follows from it.
func TestNextJobTellsTheReaderWhatTheLastOneDidNot(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	id := conversation.DirectID("ann", "bob")
	a.login(tenant, "ann", conn(1))
	first := c.start(testConfig())
	c.send(c.say(id, "bob", "1"))
	c.waitLines(a, conn(1), "1 message bob 1")
	c.waitCommitted(topic.Chat, 1)
	first.stop()
	c.store.set(failing("changes"))
	c.send(c.marker(id, "ann", 1, 0), c.say(id, "bob", "2"))
	second := c.start(testConfig()) // now: both are one batch
	// Entries don't wait for it.
	c.waitLines(a, conn(1), "1 message bob 1", "2 message bob 2")
	kittest.Eventually(t, patience, func() bool { return c.store.count("changes") > 0 }, "the change is not tried")
	second.stop()
	if n := c.committed(topic.Chat); n != 1 {
		t.Fatalf("%d records are passed, want 1", n)
	}
	c.store.set(nil)
	third := c.start(testConfig())
	c.waitCommitted(topic.Chat, 3)
	check(t, "ann", c.lines(a, conn(1), false), "1 message bob 1", "2 message bob 2", "2 message bob 2",
		fmt.Sprintf(`change 2 read %s {"read_seq":1,"read_msg_no":1}`, id))
	balanced(t, first, second, third)
	if u, err := c.store.UserChangeOf(t.Context(), tenant, "ann", store.ChangeRead, id); err != nil || u.Number != 2 || u.Guard != 1 {
		t.Errorf("got %+v, %v", u, err)
	}
}
