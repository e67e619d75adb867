package router_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/kit/hook"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

func TestPresenceEventsAreDebouncedAndWatched(t *testing.T) {
	t.Parallel()
	cfg := short()
	cfg.SettleDelay = time.Second
	w := newWorld(t, cfg)
	r, _ := w.router()
	w.router() // two do no harm
	c := newComet(t, r, "c1")
	c.keepAlive(time.Second)
	c.room("default", "presence://alice", 1, nil, nil)
	s := c.session("default", "alice", "k1")
	s.Platform = "web"
	other := c.session("default", "bob", "k2")
	begun := time.Now()
	c.register(s, nil)
	c.register(other, nil)
	if n := len(w.kafka.presence(t, "alice")); n != 0 && time.Since(begun) < cfg.SettleDelay {
		t.Errorf("%d events at once, want none before it has settled", n)
	}
	eventually(t, func() bool { return len(w.kafka.presence(t, "alice")) == 1 }, "online")
	if e := w.kafka.events(t)[0]; e.room != "presence://alice" || !e.GetPresence().GetOnline() || !slices.Equal(e.GetPresence().GetPlatforms(), []string{"web"}) {
		t.Errorf("got %v", e)
	}
	// A reconnect within the delay, twice: nobody is told. Where the machine stood still for longer than the delay, he may be told that she was
	// away meanwhile; then it says nothing, and is done again.
	told, quick := 1, 0
	for try := 0; quick < 2; try++ {
		if try == 10 {
			t.Skip("the machine does in no time what is to be done within the delay")
		}
		away := time.Now()
		c.deregister(s)
		time.Sleep(cfg.SettleDelay / 4)
		s = c.session("default", "alice", "k1")
		s.Platform = "web"
		c.register(s, nil)
		slow := time.Since(away) > cfg.SettleDelay
		time.Sleep(2 * cfg.SettleDelay)
		switch all := w.kafka.presence(t, "alice"); {
		case !slow && len(all) != told:
			t.Fatalf("reconnect %d: %d events, want %d", try, len(all), told)
		case !slow:
			quick++
		default:
			eventually(t, func() bool {
				all = w.kafka.presence(t, "alice")
				return all[len(all)-1].GetOnline()
			}, "online again")
			told = len(all)
		}
	}
	ended := time.Now().UnixMilli()
	c.deregister(s)
	latest := time.Now().UnixMilli()
	eventually(t, func() bool { return len(w.kafka.presence(t, "alice")) == told+1 }, "offline")
	e := w.kafka.presence(t, "alice")[told]
	if e.GetOnline() || len(e.GetPlatforms()) > 0 || int64(e.GetLastSeen()) < ended-500 || int64(e.GetLastSeen()) > latest+500 {
		t.Errorf("got %v, want offline, last seen from %d to %d", e, ended, latest)
	}
	p, err := r.GetPresence(ctxFor(t), &halleyv1.GetPresenceRequest{Tenant: "default", Uids: []string{"alice", "bob", "eve"}})
	if err != nil || p.GetStates()[0].GetLastSeen() != e.GetLastSeen() || !p.GetStates()[1].GetOnline() || p.GetStates()[2].GetLastSeen() != 0 {
		t.Errorf("GetPresence: got %v %v", p, err)
	}
	if n := len(w.kafka.presence(t, "bob")); n != 0 {
		t.Errorf("%d events of bob, whom nobody watches", n)
	}
}

func TestPresenceOfADeadCometEnds(t *testing.T) {
	t.Parallel()
	cfg := dying()
	cfg.PresenceHooks = true
	w := newWorld(t, cfg)
	r, _ := w.router()
	c := newComet(t, r, "c1")
	die := c.keepAlive(100 * time.Millisecond)
	c.register(c.session("default", "alice", "k1"), nil)
	eventually(t, func() bool { return len(w.kafka.hooks(t, "alice")) >= 1 }, "online")
	die()
	eventually(t, func() bool { return len(w.kafka.hooks(t, "alice")) >= 2 }, "then offline")
	e := w.kafka.hooks(t, "alice")
	if e[0].GetType() != hook.UserOnline || e[1].GetType() != hook.UserOffline || e[0].GetId() == e[1].GetId() || !strings.Contains(string(e[1].GetData()), `"last_seen":`) {
		t.Errorf("got %v, want online, offline", e)
	}
	if n := len(w.kafka.presence(t, "alice")); n != 0 {
		t.Errorf("%d events for watchers of alice, whom nobody watches", n)
	}
}

func TestPresenceEventThatFailsIsTriedAgain(t *testing.T) {
	cfg := short()
	cfg.PresenceHooks, cfg.ClaimTime = true, 300*time.Millisecond
	w := newWorld(t, cfg)
	r, _ := w.router()
	c := newComet(t, r, "c1")
	w.kafka.setDown(true)
	c.register(c.session("default", "alice", "k1"), nil)
	eventually(t, func() bool { return w.kafka.refused() > 0 }, "tried while Kafka is down")
	w.kafka.setDown(false)
	// More than once where noting it takes longer than half the claim.
	eventually(t, func() bool { return len(w.kafka.hooks(t, "alice")) >= 1 }, "online")
}

func TestWhatKafkaTookIsNotToldAgainForWhatItDidNot(t *testing.T) {
	t.Parallel()
	cfg := short()
	cfg.PresenceHooks, cfg.ClaimTime = true, 4*time.Second // in half of it what was told must be noted
	w := newWorld(t, cfg)
	r, _ := w.router()
	c := newComet(t, r, "c1")
	w.kafka.setSick("alice")
	// Together, so that they are one claim.
	all := []*halleyv1.Session{c.session("default", "alice", "k")}
	for i := range 10 {
		all = append(all, c.session("default", fmt.Sprint("bob", i), fmt.Sprint("k", i)))
	}
	if _, err := r.Register(ctxFor(t), &halleyv1.RegisterRequest{Sessions: all}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return w.kafka.refused() >= 2 }, "tried again")
	for i := range 10 {
		eventually(t, func() bool { return len(w.kafka.hooks(t, fmt.Sprint("bob", i))) > 0 }, "bob%d is told of", i)
		if n := len(w.kafka.hooks(t, fmt.Sprint("bob", i))); n != 1 {
			t.Errorf("bob%d is told of %d times, want once", i, n)
		}
	}
	w.kafka.setSick("")
	eventually(t, func() bool { return len(w.kafka.hooks(t, "alice")) > 0 }, "alice is online")
}

// TestWatcherWhoAskedBetweenTwoChangesIsToldThatTheyCancelledOut: no event is due for a user who came back in time; but one who
// asked to watch while it was away knows it as away.
func TestWatcherWhoAskedBetweenTwoChangesIsToldThatTheyCancelledOut(t *testing.T) {
	t.Parallel()
	cfg := short()
	cfg.SettleDelay = time.Second
	w := newWorld(t, cfg)
	r, _ := w.router()
	c := newComet(t, r, "c1")
	c.keepAlive(time.Second)
	c.room("default", "presence://alice", 1, nil, nil)
	s := c.session("default", "alice", "k1")
	c.register(s, nil)
	eventually(t, func() bool { return len(w.kafka.presence(t, "alice")) == 1 }, "online")
	c.deregister(s)
	ask := func(watch bool) *halleyv1.Presence {
		t.Helper()
		p, err := r.GetPresence(ctxFor(t), &halleyv1.GetPresenceRequest{Tenant: "default", Uids: []string{"alice"}, Watch: watch})
		if err != nil {
			t.Fatal(err)
		}
		return p.GetStates()[0]
	}
	for range 2 {
		if ask(true).GetOnline() {
			t.Fatal("got online, want the state as it is")
		}
	}
	c.register(c.session("default", "alice", "k2"), nil)
	// On a machine that took longer than the delay for that, he is told that she was away before.
	var n int
	eventually(t, func() bool {
		all := w.kafka.presence(t, "alice")
		n = len(all)
		return n > 1 && all[n-1].GetOnline()
	}, "online again, for who knows otherwise")
	// Once is enough, and who doesn't watch changes nothing.
	ask(true)
	ask(false)
	time.Sleep(2 * w.cfg.SettleDelay)
	if got := len(w.kafka.presence(t, "alice")); got != n {
		t.Errorf("%d events, want %d", got, n)
	}
}

// TestWatcherWhoAskedWhileAnEventWasWrittenIsToldOfWhatFollows: what he was told is neither what was announced before nor what is
// being announced.
func TestWatcherWhoAskedWhileAnEventWasWrittenIsToldOfWhatFollows(t *testing.T) {
	cfg := short()
	cfg.SettleDelay = time.Second
	w := newWorld(t, cfg)
	r, _ := w.router()
	c := newComet(t, r, "c1")
	c.keepAlive(time.Second)
	c.room("default", "presence://alice", 1, nil, nil)
	session := func(key, platform string) *halleyv1.Session {
		s := c.session("default", "alice", key)
		s.Platform = platform
		return s
	}
	phone := session("k2", "ios")
	done := make(chan struct{})
	w.kafka.thenDo(func() {
		defer close(done)
		w.kafka.thenDo(nil)
		c.register(phone, nil)
		p, err := r.GetPresence(ctxFor(t), &halleyv1.GetPresenceRequest{Tenant: "default", Uids: []string{"alice"}, Watch: true})
		if err != nil || len(p.GetStates()[0].GetPlatforms()) != 2 {
			t.Errorf("got %v %v, want two platforms", p, err)
		}
	})
	c.register(session("k1", "web"), nil)
	<-done
	c.deregister(phone)
	// On a machine that took longer than the delay for that, the phone was told of before.
	eventually(t, func() bool {
		all := w.kafka.presence(t, "alice")
		return len(all) > 1 && slices.Equal(all[len(all)-1].GetPlatforms(), []string{"web"})
	}, "the phone's end, for who knew of it")
}

// TestLostRoomOfWatchersIsNoEmptyOne: comet holds them, and has not written that again yet.
func TestLostRoomOfWatchersIsNoEmptyOne(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	c.keepAlive(time.Second)
	c.room("default", "presence://alice", 1, nil, nil)
	bucket := name.Bucket("default", "presence://alice")
	if bucket == name.Bucket("default", "alice") {
		t.Fatal("the test needs a user whose bucket is another one")
	}
	w.lose(fmt.Sprintf("%s:{p%03d}:*", w.prefix, bucket))
	c.register(c.session("default", "alice", "k1"), nil)
	eventually(t, func() bool { return len(w.kafka.presence(t, "alice")) == 1 }, "online")
}
