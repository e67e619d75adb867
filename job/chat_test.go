package job_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/cursor"
	"github.com/halley-im/halley/kit/kittest"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

func TestMessagesAreStoredThenToldInTheirOrder(t *testing.T) {
	c := newChat(t)
	a, b := startComet(t, c.router, "a"), startComet(t, c.router, "b")
	a.login(tenant, "ann", conn(1))
	b.login(tenant, "ann", conn(2))
	b.login(tenant, "bob", conn(3))
	r := c.start(testConfig())
	const n = 300
	id := conversation.DirectID("bob", "ann")
	var ps []conversation.Proposal
	var want []string
	for i := range n {
		from := []string{"ann", "bob"}[i%2]
		ps = append(ps, c.say(id, from, fmt.Sprint(i)))
		want = append(want, fmt.Sprintf("%d message %s %d", i+1, from, i))
	}
	c.send(ps...)
	c.waitLines(a, conn(1), want...)
	c.waitLines(b, conn(2), want...)
	c.waitLines(b, conn(3), want...)
	c.waitCommitted(topic.Chat, n)
	balanced(t, r)
	list, err := c.store.Entries(t.Context(), tenant, id, 1, n, n+1)
	if err != nil || len(list) != n || string(list[n-1].Body) != string(ps[n-1].Body) {
		t.Fatalf("stored %d, %v", len(list), err)
	}
	if d := a.deliveries()[0]; d.GetClass() != halleyv1.Class_CLASS_STORED || d.GetPush().GetOp() != wire.EventOp {
		t.Errorf("delivered as %v, op %d", d.GetClass(), d.GetPush().GetOp())
	}
	if calls := c.store.count("append"); calls > n/4 {
		t.Errorf("%d transactions for %d messages, want one a batch", calls, n)
	}
}

// outcome waits for what Redis says of a record.
func (c *chat) outcome(rec *halleyv1.ChatRecord) *halleyv1.ChatOutcome {
	c.t.Helper()
	var value []byte
	kittest.Eventually(c.t, patience, func() bool {
		var err error
		value, err = c.redis.Get(c.t.Context(), wire.OutcomeKey(c.prefix, rec.GetId())).Bytes()
		return err == nil
	}, "no outcome")
	o := &halleyv1.ChatOutcome{}
	if err := proto.Unmarshal(value, o); err != nil {
		c.t.Fatal(err)
	}
	return o
}

// marks returns what Redis says of a user and conversations.
func (c *chat) marks(uid string, convs ...string) cursor.Marks {
	c.t.Helper()
	m, err := cursor.Read(c.t.Context(), c.redis, c.prefix, tenant, uid, convs)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func newGroup() string { return "g/" + uuid.Must(uuid.NewV7()).String() }

func TestRejectionsAreToldToTheSenderAlone(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	a.login(tenant, "ann", conn(1))
	a.login(tenant, "eve", conn(2))
	r := c.start(testConfig())
	id := newGroup()
	early := c.say(id, "ann", "too early")
	intruder := c.say(id, "eve", "let me in")
	recs := c.send(early, c.people(conversation.Created, id, "ann"), intruder, c.say(id, "ann", "hi"))
	c.waitLines(a, conn(1), "rejected "+early.ClientMsgID+" not_found", "1 created ann ann", "2 message ann hi")
	c.waitLines(a, conn(2), "rejected "+intruder.ClientMsgID+" not_member")
	if o := c.outcome(recs[2]); o.GetError().GetCode() != "not_member" {
		t.Errorf("got %v, want not_member", o)
	}
	if o := c.outcome(recs[3]); o.GetError() != nil || o.GetSeq() != 2 || o.GetAtMs() == 0 {
		t.Errorf("got %v, want seq 2", o)
	}
	// Whoever repeats it hears the same.
	c.send(intruder)
	c.waitLines(a, conn(2), "rejected "+intruder.ClientMsgID+" not_member", "rejected "+intruder.ClientMsgID+" not_member")
	// A marker's failure is nobody's business, and the system has no session.
	c.send(c.propose(conversation.Marker, id, "eve", func(p *conversation.Proposal) { p.ReadSeq = 1 }), c.say(newGroup(), "", "to nobody"))
	c.waitCommitted(topic.Chat, 7)
	balanced(t, r)
	if got := c.lines(a, conn(2), true); len(got) != 2 {
		t.Errorf("eve was told %q", got)
	}
}

func TestEntriesGoToThoseWhoWereMembersThen(t *testing.T) {
	for _, cold := range []bool{false, true} {
		t.Run(fmt.Sprintf("group read from the database %v", cold), func(t *testing.T) {
			c := newChat(t)
			a := startComet(t, c.router, "a")
			for i, uid := range []string{"ann", "bob", "cat", "dan"} {
				a.login(tenant, uid, conn(i))
			}
			id := newGroup()
			made := c.people(conversation.Created, id, "ann", "bob", "cat")
			ps := []conversation.Proposal{
				c.say(id, "ann", "one"), c.people(conversation.Removed, id, "ann", "bob"), c.say(id, "cat", "two"),
				c.people(conversation.Joined, id, "ann", "dan"), c.say(id, "dan", "three"), c.people(conversation.Left, id, "cat"),
				c.say(id, "ann", "four"), c.people(conversation.Joined, id, "ann", "bob"), c.say(id, "bob", "five"),
			}
			var r *running
			if cold {
				// Another job made the group.
				out, err := c.store.Append(t.Context(), []conversation.Proposal{made})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.store.PutListings(t.Context(), out[0].Listings); err != nil {
					t.Fatal(err)
				}
				c.send(ps...)
			} else {
				c.send(append([]conversation.Proposal{made}, ps...)...)
			}
			r = c.start(testConfig()) // now: all of it is one batch
			want := []string{
				"1 created ann ann bob cat", "2 message ann one", "3 removed ann bob", "4 message cat two", "5 joined ann dan",
				"6 message dan three", "7 left cat cat", "8 message ann four", "9 joined ann bob", "10 message bob five",
			}
			if cold {
				want = want[1:]
			}
			n := len(want)
			c.waitLines(a, conn(0), want...)
			c.waitLines(a, conn(1), append(slices.Clone(want[:n-7]), want[n-2:]...)...)
			c.waitLines(a, conn(2), want[:n-3]...)
			c.waitLines(a, conn(3), want[n-6:]...)
			c.waitCommitted(topic.Chat, int64(n))
			balanced(t, r)
			loads := r.count("rosters_total")
			if want := map[bool]float64{false: 0, true: 1}[cold]; loads != want {
				t.Errorf("the group was read %v times, want %v", loads, want)
			}
			// From then on it is remembered.
			c.send(c.say(id, "ann", "six"))
			c.waitLines(a, conn(3), append(slices.Clone(want[n-6:]), "11 message ann six")...)
			if now := r.count("rosters_total"); now != loads {
				t.Errorf("the group was read again")
			}
		})
	}
}

// TestAnotherWritersEntryIsNoticed has a member come by another job's doing while this one remembers the group.
func TestAnotherWritersEntryIsNoticed(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	for i, uid := range []string{"ann", "bob", "cat"} {
		a.login(tenant, uid, conn(i))
	}
	r := c.start(testConfig())
	id := newGroup()
	c.send(c.people(conversation.Created, id, "ann", "bob"))
	c.waitLines(a, conn(1), "1 created ann ann bob")
	if _, err := c.store.Store.Append(t.Context(), []conversation.Proposal{c.people(conversation.Joined, id, "ann", "cat"), c.people(conversation.Removed, id, "ann", "bob")}); err != nil {
		t.Fatal(err)
	}
	c.send(c.say(id, "ann", "hi"))
	c.waitLines(a, conn(0), "1 created ann ann bob", "4 message ann hi")
	c.waitLines(a, conn(2), "4 message ann hi")
	c.waitCommitted(topic.Chat, 2)
	c.waitLines(a, conn(1), "1 created ann ann bob")
	if n := r.count("rosters_total"); n != 1 {
		t.Errorf("the group was read %v times, want once", n)
	}
}

// A client that hears of an entry looks for its conversation: who comes must know of it before, and who goes still know of it then.
func TestListsAreToldBeforeWhoComesAndAfterWhoGoes(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	a.login(tenant, "ann", conn(1))
	a.login(tenant, "bob", conn(2))
	c.start(testConfig())
	id := newGroup()
	c.send(c.people(conversation.Created, id, "ann", "bob"), c.people(conversation.Removed, id, "ann", "bob"))
	want := []string{
		fmt.Sprintf(`change 1 conversation %s {"role":"member","joined_seq":1}`, id), "1 created ann ann bob",
		"2 removed ann bob", fmt.Sprintf(`change 2 conversation %s {"role":"none","joined_seq":1}`, id),
	}
	kittest.Eventually(t, patience, func() bool { return slices.Equal(c.lines(a, conn(2), true), want) }, "bob was told something else than", want)
	c.waitCommitted(topic.Chat, 2)
	changes, err := c.store.UserChangesSince(t.Context(), tenant, "bob", 0, 10)
	if err != nil || len(changes) != 1 || changes[0].Number != 2 {
		t.Errorf("got %v, %v", changes, err)
	}
	if got := c.lines(a, conn(1), true); len(got) != 3 || got[0] != fmt.Sprintf(`change 1 conversation %s {"role":"owner","joined_seq":1}`, id) {
		t.Errorf("ann was told %q", got)
	}
}

// mute makes the record of a user change.
func mute(uid, object string, guard int64, value string) *halleyv1.ChatRecord {
	return &halleyv1.ChatRecord{
		Id: uuid.NewString(), Tenant: tenant, Sender: uid, AcceptedAtMs: time.Now().UnixMilli(), Outcome: true,
		Content: &halleyv1.ChatRecord_UserChange{UserChange: &halleyv1.UserChange{Uid: uid, Kind: "mute", Object: object, Guard: guard, Value: []byte(value)}},
	}
}

func TestUserChangesAreToldToTheirUser(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	a.login(tenant, "ann", conn(1))
	a.login(tenant, "ann", conn(2))
	a.login(tenant, "bob", conn(3))
	c.start(testConfig())
	first, late, bad := mute("ann", "d/ann/bob", 5, `{"on":true}`), mute("ann", "d/ann/bob", 4, `{"on":false}`), mute("ann", "d/ann/bob", 9, `{"on":true}`)
	bad.GetUserChange().Kind = store.ChangeConversation
	// Twice: the second one may be of a job whose forerunner died before he told of it.
	c.sendRecords(first, mute("ann", "d/ann/cat", 1, "1"), first, late, bad)
	want := []string{`change 1 mute d/ann/bob {"on":true}`, "change 2 mute d/ann/cat 1", `change 1 mute d/ann/bob {"on":true}`}
	for _, id := range []string{conn(1), conn(2)} {
		c.waitLines(a, id, want...)
	}
	c.waitCommitted(topic.Chat, 5)
	if got := c.lines(a, conn(3), true); len(got) != 0 {
		t.Errorf("bob was told %q", got)
	}
	if got := c.marks("ann").Changes[cursor.User{Tenant: tenant, UID: "ann"}]; got != 2 {
		t.Errorf("ann's mark is %d, want 2", got)
	}
	if o := c.outcome(bad); o.GetError().GetCode() != "forbidden" {
		t.Errorf("got %v, want forbidden: the lists are job's to write", o)
	}
}

func TestRepeatsAreToldAsTheEntryIsNow(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	for i, uid := range []string{"ann", "bob", "cat"} {
		a.login(tenant, uid, conn(i))
	}
	c.start(testConfig())
	id := newGroup()
	made := c.people(conversation.Created, id, "ann", "bob")
	secret, plain := c.say(id, "bob", "secret"), c.say(id, "bob", "plain")
	edit := c.propose(conversation.Edit, id, "bob", target(2), func(p *conversation.Proposal) { p.Body = []byte(`{"text":"worse"}`) })
	c.send(made, secret, plain, edit, c.propose(conversation.Recall, id, "bob", target(2)), c.people(conversation.Joined, id, "ann", "cat"), c.people(conversation.Removed, id, "ann", "bob"))
	all := []string{
		"1 created ann ann bob", "2 message bob secret", "3 message bob plain", "4 edit bob worse", "5 recall bob", "6 joined ann cat", "7 removed ann bob",
	}
	c.waitLines(a, conn(0), all...)
	c.waitLines(a, conn(1), all...)
	c.waitLines(a, conn(2), all[5:]...)
	recs := c.send(secret, plain, edit)
	again := []string{"2 message bob (recalled)", "3 message bob plain", "4 edit bob (recalled)"}
	c.waitLines(a, conn(0), append(slices.Clone(all), again...)...)
	// Who asked is told, though he has left; who came later isn't, for he may not see it.
	c.waitLines(a, conn(1), append(slices.Clone(all), again...)...)
	c.waitCommitted(topic.Chat, 10)
	c.waitLines(a, conn(2), all[5:]...)
	if o := c.outcome(recs[0]); o.GetSeq() != 2 || o.GetError() != nil {
		t.Errorf("got %v, want the first outcome", o)
	}
	other := secret
	other.Body = []byte(`"something else"`)
	c.send(other)
	c.waitLines(a, conn(1), append(append(slices.Clone(all), again...), "rejected "+secret.ClientMsgID+" conflict")...)
}

func TestMarksFollowWhatIsStored(t *testing.T) {
	c := newChat(t)
	id := conversation.DirectID("ann", "bob")
	c.start(testConfig())
	c.send(c.say(id, "ann", "1"), c.say(id, "bob", "2"), c.propose(conversation.Marker, id, "ann", func(p *conversation.Proposal) { p.ReadSeq = 2 }))
	c.waitCommitted(topic.Chat, 3)
	m := c.marks("ann", id)
	seqs, change, err := c.store.SyncCursor(t.Context(), tenant, "ann")
	if err != nil || m.Seqs[cursor.Conversation{Tenant: tenant, ID: id}] != seqs || m.Changes[cursor.User{Tenant: tenant, UID: "ann"}] != change || seqs != 2 || change != 2 {
		t.Errorf("got %v, the database says %d and %d, %v", m, seqs, change, err)
	}
	_, ann, err := c.store.Membership(t.Context(), tenant, id, "ann")
	if err != nil || ann.ReadSeq != 2 {
		t.Errorf("got %+v, %v", ann, err)
	}
}

func TestRecordsThatAreNoneArePutAside(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	a.login(tenant, "ann", conn(1))
	r := c.start(testConfig())
	id := conversation.DirectID("ann", "bob")
	key := topic.ConversationKey(tenant, id)
	marshal := func(rec *halleyv1.ChatRecord) []byte {
		b, err := proto.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := func(text string) *halleyv1.ChatRecord {
		p := c.say(id, "ann", text)
		return wire.RecordOf(&p, false)
	}
	text, kind, noTenant := good("x"), good("x"), good("x")
	text.GetProposal().Body = []byte("no JSON")
	kind.GetProposal().Kind = 77
	noTenant.Tenant = ""
	var msgs []kafka.Message
	for _, value := range [][]byte{
		marshal(good("1")), {0xff, 0xff}, marshal(text), marshal(kind), marshal(noTenant), marshal(&halleyv1.ChatRecord{Id: "x", Tenant: tenant}), marshal(good("2")),
	} {
		msgs = append(msgs, kafka.Message{Topic: topic.Chat, Key: key, Value: value})
	}
	c.produce(msgs...)
	c.waitLines(a, conn(1), "1 message ann 1", "2 message ann 2")
	c.waitCommitted(topic.Chat, 7)
	if n := r.count("dead_letters_total", "lane=chat"); n != 5 {
		t.Errorf("%v dead letters, want 5", n)
	}
	balanced(t, r)
}

// TestWhatTheDatabaseRefusesIsRejected has a body in the batch that no column takes.
func TestWhatTheDatabaseRefusesIsRejected(t *testing.T) {
	c := newChat(t)
	a := startComet(t, c.router, "a")
	a.login(tenant, "ann", conn(1))
	id := conversation.DirectID("ann", "bob")
	var ps []conversation.Proposal
	var want []string
	for i := range 20 {
		ps = append(ps, c.say(id, "ann", fmt.Sprint(i)))
		if i == 7 {
			ps[i].Body, _ = json.Marshal(string(bytes.Repeat([]byte("x"), 70_000)))
			want = append(want, "rejected "+ps[i].ClientMsgID+" invalid_request")
			continue
		}
		want = append(want, fmt.Sprintf("%d message ann %d", len(want)+1-boolInt(i > 7), i))
	}
	c.send(ps...)
	r := c.start(testConfig())
	c.waitLines(a, conn(1), want...)
	c.waitCommitted(topic.Chat, 20)
	balanced(t, r)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
