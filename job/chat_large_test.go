package job_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/kit/kittest"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store/conversation"
)

// large is a group that is about to be large: 20 members, of whom the first ten are at comet a and the others at b.
type large struct {
	*chat
	id   string
	uids []string
	at   map[string]*cometServer
	sent int64
	want map[string][]string
}

func largeConfig() job.Config {
	cfg := testConfig()
	cfg.ChatLarge = 16
	return cfg
}

func newLarge(t *testing.T, n int) *large {
	c := newChat(t)
	l := &large{chat: c, id: newGroup(), at: map[string]*cometServer{}, want: map[string][]string{}}
	comets := []*cometServer{startComet(t, c.router, "a"), startComet(t, c.router, "b")}
	for i := range n {
		uid := fmt.Sprintf("u%02d", i)
		l.uids = append(l.uids, uid)
		l.at[uid] = comets[i*2/n]
		l.at[uid].login(tenant, uid, "c-"+uid)
	}
	return l
}

// do has one proposal through, and waits until it is passed.
func (l *large) do(p conversation.Proposal) {
	l.t.Helper()
	l.send(p)
	l.sent++
	l.waitCommitted(topic.Chat, l.sent)
}

func (l *large) fanout() conversation.Fanout {
	l.t.Helper()
	c, err := l.store.Conversation(l.t.Context(), tenant, l.id)
	if err != nil {
		l.t.Fatal(err)
	}
	return c.Fanout
}

// grow makes a group of the first n, and has it talk until its entries go where they are to go.
func (l *large) grow(n int, want conversation.Fanout) {
	l.t.Helper()
	l.do(l.people(conversation.Created, l.id, l.uids[0], l.uids[1:n]...))
	deadline := time.Now().Add(patience)
	for l.fanout() != want {
		if time.Now().After(deadline) {
			l.t.Fatalf("fanout is %d, want %d", l.fanout(), want)
		}
		l.do(l.say(l.id, l.uids[0], "growing"))
	}
}

// told returns what a member was told of the group, in order, repeats left out.
func (l *large) told(uid string) []string {
	var out []string
	for _, line := range l.chat.told(l.at[uid], "c-"+uid, l.id) {
		if !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}

// last waits until these members' newest entry is line, and fails if others have been told of it.
func (l *large) last(line string, members ...string) {
	l.t.Helper()
	for _, uid := range members {
		kittest.Eventually(l.t, patience, func() bool {
			told := l.told(uid)
			return len(told) > 0 && told[len(told)-1] == line
		}, uid, "was not told", line)
	}
	for _, uid := range l.uids {
		if !slices.Contains(members, uid) && slices.Contains(l.told(uid), line) {
			l.t.Errorf("%s was told %s", uid, line)
		}
	}
}

func (l *large) inRoom(uid string) bool {
	return l.at[uid].inRoom("c-"+uid, tenant, conversation.Room(l.id))
}

func TestLargeGroupsTurnToTheirRoom(t *testing.T) {
	l := newLarge(t, 20)
	r := l.start(largeConfig())
	l.grow(7, conversation.FanoutUID)
	if l.inRoom(l.uids[0]) {
		t.Error("a small group is in a room")
	}
	// From half of it on they are put into the room, and still looked up.
	l.do(l.people(conversation.Joined, l.id, l.uids[0], l.uids[7]))
	if got := l.fanout(); got != conversation.FanoutJoining {
		t.Fatalf("fanout is %d", got)
	}
	for _, uid := range l.uids[:8] {
		kittest.Eventually(t, patience, func() bool { return l.inRoom(uid) }, uid, "is not in the room")
	}
	l.do(l.people(conversation.Joined, l.id, l.uids[0], l.uids[8:17]...))
	for _, uid := range l.uids[:17] {
		if !l.inRoom(uid) {
			t.Errorf("%s is not in the room", uid)
		}
	}
	deadline := time.Now().Add(patience)
	for l.fanout() != conversation.FanoutRoom && time.Now().Before(deadline) {
		l.do(l.say(l.id, l.uids[0], "hm"))
	}
	locates := func() int {
		var n int
		l.router.with(func() { n = l.router.names })
		return n
	}
	before := locates()
	l.do(l.say(l.id, l.uids[0], "to the room"))
	seq := l.seq()
	l.last(fmt.Sprintf("%d message u00 to the room", seq), l.uids[:17]...)
	// The nine who have just come are told by uid as well: router may not know of their comet yet.
	if n := locates() - before; n > 10+9 {
		t.Errorf("%d names were looked up for one entry", n)
	}
	balanced(t, r)
}

func (l *large) seq() int64 {
	l.t.Helper()
	c, err := l.store.Conversation(l.t.Context(), tenant, l.id)
	if err != nil {
		l.t.Fatal(err)
	}
	return c.LastSeq
}

func TestMembersOfLargeGroupsComeAndGo(t *testing.T) {
	l := newLarge(t, 20)
	r := l.start(largeConfig())
	l.grow(17, conversation.FanoutRoom)
	members := slices.Clone(l.uids[:17])
	// In one batch: each of them hears what is his to hear, and nothing else.
	gone, came := l.uids[3], l.uids[18]
	ps := []conversation.Proposal{
		l.say(l.id, "u00", "one"), l.people(conversation.Removed, l.id, "u00", gone), l.say(l.id, "u00", "two"),
		l.people(conversation.Joined, l.id, "u00", came), l.say(l.id, came, "three"),
	}
	seq := l.seq()
	l.send(ps...)
	l.sent += int64(len(ps))
	l.waitCommitted(topic.Chat, l.sent)
	lines := []string{
		fmt.Sprintf("%d message u00 one", seq+1), fmt.Sprintf("%d removed u00 %s", seq+2, gone), fmt.Sprintf("%d message u00 two", seq+3),
		fmt.Sprintf("%d joined u00 %s", seq+4, came), fmt.Sprintf("%d message %s three", seq+5, came),
	}
	tail := func(uid string, n int) []string {
		told := l.told(uid)
		return told[max(0, len(told)-n):]
	}
	if got := tail("u05", 5); !slices.Equal(got, lines) {
		t.Errorf("a member was told %q, want %q", got, lines)
	}
	if got := tail(gone, 2); !slices.Equal(got, lines[:2]) {
		t.Errorf("who went was told %q at last, want %q", got, lines[:2])
	}
	if got := l.told(came); !slices.Equal(got, lines[3:]) {
		t.Errorf("who came was told %q, want %q", got, lines[3:])
	}
	if l.inRoom(gone) || !l.inRoom(came) {
		t.Errorf("who went is in the room: %v, who came is: %v", l.inRoom(gone), l.inRoom(came))
	}
	// A repeat takes nobody in or out who has gone or come since, and tells nobody what was before his time.
	members = append(slices.DeleteFunc(members, func(uid string) bool { return uid == gone }), came)
	l.do(l.people(conversation.Joined, l.id, "u00", gone))
	l.send(ps[1], ps[0])
	l.sent += 2
	l.waitCommitted(topic.Chat, l.sent)
	if !l.inRoom(gone) {
		t.Error("a repeat put a member out who had come again")
	}
	if slices.Contains(l.told(came), lines[0]) {
		t.Error("who came was told by a repeat what was before his time")
	}
	members = append(members, gone)
	l.do(l.say(l.id, "u00", "four"))
	l.last(fmt.Sprintf("%d message u00 four", seq+7), members...)
	balanced(t, r)
}

func TestNextJobGoesOnWithALargeGroup(t *testing.T) {
	l := newLarge(t, 20)
	// The comet takes nothing, so that nobody is known to be in the room.
	first := l.start(largeConfig())
	l.do(l.people(conversation.Created, l.id, l.uids[0], l.uids[1:12]...))
	l.at[l.uids[11]].with(func() { l.at[l.uids[11]].hold = true })
	l.do(l.say(l.id, l.uids[0], "the last one that is read"))
	l.send(l.people(conversation.Joined, l.id, l.uids[0], l.uids[12:18]...))
	l.sent++
	kittest.Eventually(t, patience, func() bool { return l.seq() == 3 }, "not stored")
	for range 3 {
		l.send(l.say(l.id, l.uids[0], "x"))
		l.sent++
	}
	kittest.Eventually(t, patience, func() bool { return l.seq() == 6 }, "not stored")
	if got := l.fanout(); got != conversation.FanoutJoining {
		t.Fatalf("fanout is %d, though who joined is not known to be in the room", got)
	}
	first.stop()
	l.at[l.uids[11]].with(func() { l.at[l.uids[11]].hold = false })
	second := l.start(largeConfig())
	l.waitCommitted(topic.Chat, l.sent)
	for _, uid := range l.uids[:18] {
		kittest.Eventually(t, patience, func() bool { return l.inRoom(uid) }, uid, "is not in the room")
	}
	deadline := time.Now().Add(patience)
	for l.fanout() != conversation.FanoutRoom && time.Now().Before(deadline) {
		l.do(l.say(l.id, l.uids[0], "hm"))
	}
	l.do(l.say(l.id, l.uids[0], "all here"))
	l.last(fmt.Sprintf("%d message u00 all here", l.seq()), l.uids[:18]...)
	balanced(t, first, second)
	if l.fanout() != conversation.FanoutRoom {
		t.Error("it never turns to its room")
	}
}

func TestGroupsThatShrinkLeaveTheirRoom(t *testing.T) {
	l := newLarge(t, 20)
	l.start(largeConfig())
	l.grow(18, conversation.FanoutRoom)
	l.do(l.people(conversation.Removed, l.id, "u00", l.uids[5:18]...))
	l.do(l.say(l.id, "u00", "few"))
	if got := l.fanout(); got != conversation.FanoutUID {
		t.Errorf("fanout is %d", got)
	}
	for _, uid := range l.uids {
		kittest.Eventually(t, patience, func() bool { return !l.inRoom(uid) }, uid, "is in the room")
	}
	l.do(l.say(l.id, "u00", "the rest"))
	l.last(fmt.Sprintf("%d message u00 the rest", l.seq()), l.uids[:5]...)
	for _, d := range l.at["u00"].deliveries() {
		if d.GetControl().GetRooms() != nil && d.GetClass() != halleyv1.Class_CLASS_CONTROL {
			t.Fatalf("a control delivery of class %v", d.GetClass())
		}
	}
}

// A sync that read that the group was large may put a session into the room after all were told to leave it, and a job may die before
// it tells them.
func TestWhoGoesWhileTheGroupIsSmallIsInItsRoomNoMore(t *testing.T) {
	l := newLarge(t, 20)
	l.start(largeConfig())
	l.grow(7, conversation.FanoutUID)
	gone, back := l.uids[3], l.uids[4]
	for _, uid := range []string{gone, back} {
		l.at[uid].login(tenant, uid, "c-"+uid, conversation.Room(l.id), name.OpenRoom(l.id))
	}
	removal := l.people(conversation.Removed, l.id, "u00", gone, back)
	l.do(removal)
	for _, uid := range []string{gone, back} {
		kittest.Eventually(t, patience, func() bool { return !l.inRoom(uid) }, uid, "is in the room")
		if l.at[uid].inRoom("c-"+uid, tenant, name.OpenRoom(l.id)) {
			t.Errorf("%s is in the room of who has the group open", uid)
		}
	}
	l.do(l.people(conversation.Joined, l.id, "u00", append([]string{back}, l.uids[7:18]...)...))
	deadline := time.Now().Add(patience)
	for l.fanout() != conversation.FanoutRoom && time.Now().Before(deadline) {
		l.do(l.say(l.id, "u00", "growing"))
	}
	// Told again, it takes out whom it took out, and nobody who has come back since.
	l.do(removal)
	l.do(l.say(l.id, "u00", "large again"))
	members := slices.DeleteFunc(slices.Clone(l.uids[:18]), func(uid string) bool { return uid == gone })
	l.last(fmt.Sprintf("%d message u00 large again", l.seq()), members...)
	if !l.inRoom(back) {
		t.Error("who came back is not in the room")
	}
}

// Routers hear of a comet's rooms a moment late; until then entries are told by uid, too.
func TestGroupsWaitBeforeTheyTurnToTheirRoom(t *testing.T) {
	l := newLarge(t, 20)
	cfg := largeConfig()
	cfg.ChatRoomAfter = time.Hour
	first := l.start(cfg)
	l.do(l.people(conversation.Created, l.id, l.uids[0], l.uids[1:18]...))
	for _, uid := range l.uids[:18] {
		kittest.Eventually(t, patience, func() bool { return l.inRoom(uid) }, uid, "is not in the room")
	}
	for range 3 {
		l.do(l.say(l.id, l.uids[0], "hm"))
	}
	if got := l.fanout(); got != conversation.FanoutJoining {
		t.Errorf("fanout is %d", got)
	}
	first.stop()
	cfg.ChatRoomAfter = 0
	l.start(cfg)
	deadline := time.Now().Add(patience)
	for l.fanout() != conversation.FanoutRoom {
		if time.Now().After(deadline) {
			t.Fatal("it never turns to its room")
		}
		l.do(l.say(l.id, l.uids[0], "hm"))
	}
}
