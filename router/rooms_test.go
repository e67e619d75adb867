package router_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func (c *comet) sendRooms(ch ...*halleyv1.RoomChange) *halleyv1.UpdateRoomsResponse {
	c.t.Helper()
	res, err := c.r.UpdateRooms(ctxFor(c.t), &halleyv1.UpdateRoomsRequest{Comet: c.info.Comet, Epoch: c.info.Epoch, Changes: ch})
	if err != nil {
		c.t.Fatalf("UpdateRooms: %v", err)
	}
	return res
}

func TestRoomsAreCountedOverAllComets(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	a, b := newComet(t, r, "a"), newComet(t, r, "b")
	a.keepAlive(time.Second)
	b.keepAlive(time.Second)
	if n := a.room("default", "live://1", 2, []string{"x", "y"}, nil); n != 2 {
		t.Errorf("a: got %d, want 2", n)
	}
	if n := b.room("default", "live://1", 3, []string{"x", "z"}, nil); n != 5 {
		t.Errorf("b: got %d, want 5", n)
	}
	got, err := r.CountRooms(ctxFor(t), &halleyv1.CountRoomsRequest{Rooms: []*halleyv1.Name{roomName("default", "live://1"), roomName("default", "live://2")}})
	if err != nil || !slices.Equal(got.GetCounts(), []uint32{5, 0}) {
		t.Errorf("CountRooms: got %v %v, want 5, 0", got, err)
	}
	if got := locate(t, r, roomName("default", "live://1"))[0]; !slices.Equal(got, []string{"a:", "b:"}) {
		t.Errorf("located: got %v, want a, b", got)
	}
	if n := a.room("default", "live://1", 0, nil, []string{"x", "y"}); n != 3 {
		t.Errorf("after a left: got %d, want 3", n)
	}
	if got := locate(t, r, roomName("default", "live://1"))[0]; !slices.Equal(got, []string{"b:"}) {
		t.Errorf("located: got %v, want b", got)
	}
}

func TestOlderRoomChangeIsIgnored(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "a")
	change := func(number uint64, count uint32) *halleyv1.RoomChange {
		return &halleyv1.RoomChange{Tenant: "default", Room: "live://1", Number: number, Count: count, Listed: true}
	}
	c.sendRooms(change(5, 7))
	if got := c.sendRooms(change(4, 1)).GetCounts()[0]; got != 7 {
		t.Errorf("older: got %d, want 7", got)
	}
	c.sendRooms(change(6, 0))
	if got := c.sendRooms(change(5, 7)).GetCounts()[0]; got != 0 {
		t.Errorf("older than the room's end: got %d, want 0", got)
	}
	if got := c.sendRooms(change(8, 2), change(9, 3)).GetCounts(); !slices.Equal(got, []uint32{2, 3}) {
		t.Errorf("two of one room: got %v, want 2, 3", got)
	}
	if got := locate(t, r, roomName("default", "live://1"))[0]; !slices.Equal(got, []string{"a:"}) {
		t.Errorf("located: got %v, want a", got)
	}
}

func TestMemberEventsAreOfFirstAndLastSessionOverAllComets(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	a, b := newComet(t, r, "a"), newComet(t, r, "b")
	a.keepAlive(time.Second)
	b.keepAlive(time.Second)
	const room = "live://1"
	for i, step := range []struct {
		c            *comet
		count        uint32
		joined, left []string
		want         string
	}{
		{a, 1, []string{"x"}, nil, "+[x] -[] 1"},
		{b, 2, []string{"x", "y"}, nil, "+[y] -[] 3"},
		{a, 0, nil, []string{"x"}, ""},
		{b, 1, nil, []string{"x"}, "+[] -[x] 1"},
		{b, 2, nil, nil, ""}, // another session of y
		{a, 1, []string{"z"}, nil, "+[z] -[] 3"},
	} {
		before := len(w.kafka.members(t, "default", room))
		step.c.room("default", room, step.count, step.joined, step.left)
		if step.want == "" {
			continue
		}
		eventually(t, func() bool { return len(w.kafka.members(t, "default", room)) > before }, "event of step %d", i)
		e := w.kafka.members(t, "default", room)[before]
		if got := fmt.Sprintf("+%v -%v %d", e.GetJoined(), e.GetLeft(), e.GetCount()); got != step.want {
			t.Errorf("step %d: got %s, want %s", i, got, step.want)
		}
	}
	if n := len(w.kafka.members(t, "default", room)); n != 4 {
		t.Errorf("got %d events, want 4", n)
	}
}

func TestDeadCometsMembersLeave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dying())
	r, _ := w.router()
	a := newComet(t, r, "a")
	die := a.keepAlive(100 * time.Millisecond)
	b := newComet(t, r, "b")
	b.keepAlive(100 * time.Millisecond)
	a.room("default", "live://1", 2, []string{"x", "y"}, nil)
	b.room("default", "live://1", 1, []string{"x"}, nil)
	die()
	eventually(t, func() bool {
		for _, e := range w.kafka.members(t, "default", "live://1") {
			if slices.Equal(e.GetLeft(), []string{"y"}) && e.GetCount() == 1 {
				return true
			}
		}
		return false
	}, "event of y's end")
	m, err := r.ListMembers(ctxFor(t), &halleyv1.ListMembersRequest{Tenant: "default", Room: "live://1"})
	if err != nil || !slices.Equal(m.GetUids(), []string{"x"}) || m.GetCount() != 1 || !m.GetComplete() {
		t.Errorf("got %v %v, want x", m, err)
	}
}

func TestLargeRoomsAreCountedNotListed(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "a")
	c.keepAlive(time.Second)
	const room = "live://big"
	var uids []string
	for i := range 200 {
		uids = append(uids, fmt.Sprintf("u%03d", i))
	}
	c.room("default", room, 200, uids, nil)
	m, err := r.ListMembers(ctxFor(t), &halleyv1.ListMembersRequest{Tenant: "default", Room: room, Limit: 150})
	if err != nil || len(m.GetUids()) != 150 || !m.GetComplete() || m.GetNext() == "" {
		t.Fatalf("first page: got %d uids, next %q, %v", len(m.GetUids()), m.GetNext(), err)
	}
	m, err = r.ListMembers(ctxFor(t), &halleyv1.ListMembersRequest{Tenant: "default", Room: room, Limit: 150, Cursor: m.GetNext()})
	if err != nil || !slices.Equal(m.GetUids(), uids[150:]) || m.GetNext() != "" {
		t.Fatalf("second page: got %v, %v", m, err)
	}
	c.room("default", room, 5000, nil, nil)
	m, err = r.ListMembers(ctxFor(t), &halleyv1.ListMembersRequest{Tenant: "default", Room: room, Limit: 150})
	if err != nil || len(m.GetUids()) != 0 || m.GetComplete() || m.GetCount() != 5000 {
		t.Fatalf("large: got %v, %v, want a count", m, err)
	}
	last := func() *halleyv1.RoomMember {
		e := w.kafka.members(t, "default", room)
		if len(e) == 0 {
			return nil
		}
		return e[len(e)-1]
	}
	eventually(t, func() bool { e := last(); return e.GetCount() == 5000 && e.GetJoined() == nil }, "event with the count")
	// Many changes are few events.
	before, begun := len(w.kafka.members(t, "default", room)), time.Now()
	for i := range 50 {
		c.room("default", room, uint32(6000+i), nil, nil)
	}
	eventually(t, func() bool { return last().GetCount() == 6049 }, "the last count")
	// One each 7 delays, for 6,000 sessions, and those at both ends.
	took := time.Since(begun)
	if n, most := len(w.kafka.members(t, "default", room))-before, 3+int(took/(7*w.cfg.RoomCountDelay)); n > most {
		t.Errorf("50 changes made %d events in %v, want at most %d", n, took, most)
	}
	// Small again: listed anew.
	c.room("default", room, 2, []string{"p", "q"}, nil)
	m, err = r.ListMembers(ctxFor(t), &halleyv1.ListMembersRequest{Tenant: "default", Room: room})
	if err != nil || !slices.Equal(m.GetUids(), []string{"p", "q"}) || !m.GetComplete() {
		t.Errorf("small again: got %v, %v, want p, q", m, err)
	}
}

func TestReservedRoomsHaveNoMembersAndNoEvents(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "a")
	c.room("default", "presence://x", 1, []string{"u"}, nil)
	c.room("default", "live://x", 1, []string{"u"}, nil)
	eventually(t, func() bool { return len(w.kafka.events(t)) > 0 }, "event")
	for _, e := range w.kafka.events(t) {
		if e.room != "live://x" {
			t.Errorf("event to %s", e.room)
		}
	}
	m, err := r.ListMembers(ctxFor(t), &halleyv1.ListMembersRequest{Tenant: "default", Room: "presence://x"})
	if err != nil || m.GetUids() != nil || m.GetCount() != 1 {
		t.Errorf("members: got %v %v, want a count of 1", m, err)
	}
	top, err := r.TopRooms(ctxFor(t), &halleyv1.TopRoomsRequest{Tenant: "default", Type: "presence", Limit: 5})
	if err != nil || len(top.GetRooms()) != 0 {
		t.Errorf("top: got %v %v, want none", top, err)
	}
}

func TestTopRoomsAreOfExactlyThatTypeAndFall(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	a, b := newComet(t, r, "a"), newComet(t, r, "b")
	a.keepAlive(time.Second)
	b.keepAlive(time.Second)
	for i := range 30 {
		a.room("default", fmt.Sprintf("live://%d", i), uint32(i+1), nil, nil)
	}
	b.room("default", "live://3", 100, nil, nil)
	a.room("default", "live2://x", 500, nil, nil)
	a.room("default", "live://29", 0, nil, nil)
	top, err := r.TopRooms(ctxFor(t), &halleyv1.TopRoomsRequest{Tenant: "default", Type: "live", Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range top.GetRooms() {
		got = append(got, fmt.Sprintf("%s %d", x.GetRoom(), x.GetCount()))
	}
	if want := []string{"live://3 104", "live://28 29", "live://27 28"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
