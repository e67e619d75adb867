package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// faults is one cluster with one stream of numbered pushes, through all faults in turn.
type faults struct {
	*Cluster
	api      *API
	stream   *Stream
	watchers []*Watcher
}

// TestFaults takes a cluster of two of each role through every fault, under a stream of numbered pushes. A user whose
// comet kept its lease and did not stall misses nothing; any other misses only what it was told of, and what it
// missed was counted. Order per target and lane is kept. Presence is right after each fault.
func TestFaults(t *testing.T) {
	c := StartCluster(t, Two, RoutersByProxy("comet2"), SpareRouters(1))
	f := &faults{Cluster: c, api: c.API()}
	users, flows := f.cast()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f.stream = StartStream(ctx, f.api, 120*time.Millisecond, flows, users)
	stopped := false
	defer func() {
		if !stopped {
			cancel()
			f.stream.Stop()
		}
	}()
	f.allOnline(t, 30*time.Second)
	f.stream.Post(ctx)
	stopWatchers := f.watch(ctx)
	defer stopWatchers()

	t.Run("nothing happens", f.nothing)
	t.Run("router killed", f.routerKilled)
	t.Run("routers 2, 3, 2", f.routersScaled)
	t.Run("job killed", f.jobKilled)
	t.Run("logic killed", f.logicKilled)
	t.Run("both logics away", f.logicsAway)
	t.Run("client stops reading", f.clientStops)
	t.Run("comet killed", f.cometKilled)
	t.Run("comet stopped for longer than its lease", f.cometStalled)
	t.Run("comet cut off from the routers", f.cometCutOff)
	t.Run("redis away, then empty", f.redisRestarted)
	t.Run("kafka away", f.kafkaRestarted)
	t.Run("comets rolled", f.cometsRolled)
	t.Run("all roles rolled", f.rolesRolled)

	cancel()
	f.stream.Stop()
	stopWatchers()
	stopped = true
	for _, u := range users {
		for _, s := range u.strange {
			t.Errorf("strange: %s", s)
		}
	}
	for _, w := range f.watchers {
		if w.events == 0 {
			t.Errorf("%s was told nothing all the time", w.UID)
		}
	}
	t.Run("nothing is left over", f.nothingLeft)
}

// cast makes the users and the flows that reach them.
func (f *faults) cast() (users []*User, flows []*Flow) {
	const everybody = "public://everybody"
	flow := func(name string, p Push) *Flow {
		fl := &Flow{Name: name, Push: p}
		flows = append(flows, fl)
		return fl
	}
	flow("room-everybody", Push{Rooms: []string{everybody}})
	flow("room-everybody-bulk", Push{Rooms: []string{everybody}, Lane: "bulk"})
	flow("room-half-urgent", Push{Rooms: []string{half}, Lane: "urgent"})
	flow("all", Push{All: true})
	for i := range 12 {
		uid := fmt.Sprintf("u%02d", i+1)
		var claims Claims
		if i == 2 || i == 3 {
			claims = Claims{"key": "the-key-of-" + uid}
		}
		u := f.NewUser(uid, []string{"tcp", "ws"}[i/2%2], i%2, claims)
		u.Rooms = []string{everybody}
		own := Push{UIDs: []string{uid}}
		if i >= 6 {
			own.Lane = ledgerLane
		}
		u.Flows = []string{"room-everybody", "room-everybody-bulk", "all", flow("uid-"+uid, own).Name}
		if i < 6 {
			u.Rooms = append(u.Rooms, half)
			u.Flows = append(u.Flows, "room-half-urgent")
		}
		if i < 2 {
			u.Flows = append(u.Flows, flow("uid-urgent-"+uid, Push{UIDs: []string{uid}, Lane: "urgent"}).Name)
		}
		if claims != nil {
			u.Flows = append(u.Flows, flow("key-"+uid, Push{Keys: []string{"the-key-of-" + uid}}).Name)
		}
		users = append(users, u)
	}
	return users, flows
}

// stretch is a piece of the cluster's work between two marks.
type stretch struct {
	f     *faults
	from  Mark
	books books
	// twice: records may be read twice, since offsets could not be committed, or written twice, since the logic that wrote them died before
	// it could answer.
	twice bool
	// killed is when a comet was killed: what it held then is lost without a trace.
	killed time.Time
	// inHand is how many pushes a comet that was stopped or killed may have had, in its hands or in its sockets, without having acknowledged them: they
	// came, or come when it goes on, and job, which never hears of it, counts them as dropped.
	inHand int
}

// begin waits until the stream flows and everything accepted has ended, and marks where it stands.
func (f *faults) begin(t *testing.T) *stretch {
	t.Helper()
	f.stream.CaughtUp(t, 30*time.Second)
	// What the stretch before did to users must not be taken for this one's doing.
	within(t, 30*time.Second, "the users are settled", func() (bool, string) {
		for _, u := range f.stream.Users {
			if told := u.Told(time.Now()); len(told) > 0 {
				return false, fmt.Sprintf("%s was told %+v", u.UID, told)
			}
		}
		return true, ""
	})
	s := &stretch{f: f}
	f.stream.Pause(t, func() {
		f.quiet(t)
		s.from, s.books = f.stream.Mark(), f.open(t)
		for _, u := range f.stream.Users {
			u.strike(s.from.At)
		}
	})
	return s
}

// end waits until everything runs again and checks the stretch. affected are the users who may have missed
// something, each of whom must have been told; all others must not have noticed.
func (s *stretch) end(t *testing.T, affected []*User) Report {
	t.Helper()
	f := s.f
	f.allOnline(t, 30*time.Second)
	f.presence(t, presenceLimit)
	f.watched(t, presenceLimit)
	f.stream.CaughtUp(t, 60*time.Second)
	var r Report
	f.stream.Pause(t, func() {
		f.quiet(t)
		r = f.stream.Check(s.from, f.stream.Mark())
		t.Logf("%v", r)
		s.audit(t, r)
	})
	for i, m := range r.Silent {
		if i == 5 {
			t.Errorf("… and %d more", len(r.Silent)-i)
			break
		}
		t.Errorf("lost in silence: %v", m)
	}
	for i, d := range r.Disorder {
		if i == 5 {
			break
		}
		t.Errorf("out of order: %s", d)
	}
	for _, u := range f.stream.Users {
		told := u.Told(s.from.At)
		switch hit := slices.Contains(affected, u); {
		case hit && len(told) == 0:
			t.Errorf("%s was not told that it may have missed something", u.UID)
		case !hit && len(told) > 0:
			t.Errorf("%s should not have noticed, but was told: %+v", u.UID, told)
		}
	}
	for i, m := range r.Missing {
		if !slices.Contains(affected, m.User) {
			if i > 5 {
				break
			}
			t.Errorf("a user at a comet that was well: %v", m)
		}
	}
	return r
}

// allOnline waits until every user has a session.
func (f *faults) allOnline(t testing.TB, limit time.Duration) {
	t.Helper()
	within(t, limit, "all users have a session", func() (bool, string) {
		for _, u := range f.stream.Users {
			if !u.Online() {
				u.mu.Lock()
				defer u.mu.Unlock()
				return false, fmt.Sprintf("%s has none, refused %v", u.UID, u.refused)
			}
		}
		return true, ""
	})
}

// at returns the users that are at a comet.
func (f *faults) at(n *Node) []*User {
	var out []*User
	for _, u := range f.stream.Users {
		if u.Comet() == n.Name {
			out = append(out, u)
		}
	}
	return out
}

// posted returns how many pushes to one of these users alone were accepted since a mark, in the lane of the ledger.
func (f *faults) posted(users []*User, since Mark) int {
	n := 0
	for _, fl := range f.stream.Flows {
		if fl.Push.Lane == ledgerLane && slices.ContainsFunc(users, func(u *User) bool { return slices.Contains(fl.Push.UIDs, u.UID) }) {
			n += fl.Accepted() - since.flows[fl.Name]
		}
	}
	return n
}

// sleeper logs in a user that never comes back.
func (f *faults) sleeper(t *testing.T, n *Node, uid string) *Session {
	t.Helper()
	s, err := n.Login("tcp", &halleyv1.Auth{Token: f.Token(uid, nil), Rooms: []string{"public://sleepers"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// offline waits until presence says that a user is gone.
func (f *faults) offline(t *testing.T, uid string, limit time.Duration) {
	t.Helper()
	begin := time.Now()
	within(t, limit, uid+" is offline", func() (bool, string) {
		got, err := states(t.Context(), f.api, uid)
		return err == nil && !got[uid].Online, fmt.Sprint(got, err)
	})
	t.Logf("%s was offline after %v", uid, time.Since(begin).Round(time.Millisecond))
}

// flow waits until so many further pushes of each flow were accepted: the stream runs in the state that the cluster is in.
func (f *faults) flow(t *testing.T, more int, limit time.Duration) {
	t.Helper()
	mark := f.stream.Mark()
	within(t, limit, "the stream flows", func() (bool, string) {
		for _, fl := range f.stream.Flows {
			if got := fl.Accepted() - mark.flows[fl.Name]; got < more {
				return false, fmt.Sprintf("%s got on by %d, want %d", fl.Name, got, more)
			}
		}
		return true, ""
	})
}

func (f *faults) nothing(t *testing.T) {
	s := f.begin(t)
	f.flow(t, 20, 20*time.Second)
	if r := s.end(t, nil); len(r.Missing) > 0 || r.Repeats > 0 {
		t.Errorf("without any fault: %v", r)
	}
}

func (f *faults) routerKilled(t *testing.T) {
	s := f.begin(t)
	f.Routers[0].Kill()
	f.flow(t, 20, 20*time.Second)
	f.Restart(f.Routers[0])
	f.flow(t, 10, 20*time.Second)
	f.Routers[1].Kill()
	f.flow(t, 10, 20*time.Second)
	f.Restart(f.Routers[1])
	s.end(t, nil)
}

// routersScaled adds a router and takes it away again, both without a look-up that fails.
func (f *faults) routersScaled(t *testing.T) {
	s := f.begin(t)
	third := f.Spare[0]
	// Again where a look-up failed: one has 2 s, and Redis 1 s of them, which a pause outlasts without any router's coming or going.
	for try := 1; ; try++ {
		failed := Metric(All(f.Jobs), "halley_job_locate_failures_total")
		third.Start()
		third.Ready(startLimit)
		within(t, 30*time.Second, "the third router is asked", func() (bool, string) {
			n := Metric([]*Process{third.Process}, "halley_router_request_seconds_count")
			return n > 50, fmt.Sprintf("%v requests", n)
		})
		f.flow(t, 10, 20*time.Second)
		if code := third.Stop(15 * time.Second); code != 0 {
			t.Errorf("the third router: exit code %d, want 0", code)
		}
		f.flow(t, 20, 20*time.Second)
		now := Metric(All(f.Jobs), "halley_job_locate_failures_total")
		if now == failed {
			break
		}
		if try == 3 {
			t.Errorf("%v look-ups failed, and some each time", now-failed)
			break
		}
	}
	s.end(t, nil)
}

func (f *faults) jobKilled(t *testing.T) {
	s := f.begin(t)
	for _, n := range f.Jobs {
		n.Kill()
		f.flow(t, 20, 20*time.Second)
		f.Restart(n)
		f.stream.CaughtUp(t, 30*time.Second)
	}
	s.end(t, nil)
}

func (f *faults) logicKilled(t *testing.T) {
	s := f.begin(t)
	s.twice = true
	for _, n := range f.Logics {
		n.Kill()
		f.flow(t, 20, 30*time.Second)
		f.Restart(n)
	}
	s.end(t, nil)
}

// logicsAway kills both logics: sessions stay, their requests are answered.
func (f *faults) logicsAway(t *testing.T) {
	s := f.begin(t)
	s.twice = true
	one := f.sleeper(t, f.Comets[0], "asker")
	for _, n := range f.Logics {
		n.Kill()
	}
	if err := one.Beat(); err != nil {
		t.Errorf("heartbeat without logic: %v", err)
	}
	err := one.Join("public://other")
	if Code(err) != "unavailable" {
		t.Errorf("a request without logic: got %v, want unavailable", err)
	}
	begin := time.Now()
	_, err = f.Comets[0].Login("ws", &halleyv1.Auth{Token: f.Token("late", nil)})
	f.refusedLater(t, err)
	if took := time.Since(begin); took > 12*time.Second {
		t.Errorf("a login without logic was answered after %v", took)
	}
	for _, n := range f.Logics {
		f.Restart(n)
	}
	within(t, 30*time.Second, "requests are carried out again", func() (bool, string) {
		err := one.Join("public://other")
		return err == nil, fmt.Sprint(err)
	})
	s.end(t, nil)
}

// refusedLater checks that a login was refused as unavailable, with a time to try again.
func (f *faults) refusedLater(t *testing.T, err error) {
	t.Helper()
	if Code(err) != "unavailable" {
		t.Errorf("a login: got %v, want it refused as unavailable", err)
		return
	}
	var refused *RefusedError
	if asRefused(err, &refused) && (!refused.Err.GetRetry() || refused.Err.GetRetryAfterMs() == 0) {
		t.Errorf("a login: got %v, want it told when to try again", refused.Err)
	}
}

func (f *faults) cometKilled(t *testing.T) {
	s := f.begin(t)
	n := f.Comets[0]
	f.sleeper(t, n, "sleeper-killed")
	affected := f.at(n)
	s.killed, s.inHand = time.Now(), len(affected)
	n.Kill()
	f.offline(t, "sleeper-killed", presenceLimit)
	f.allOnline(t, 30*time.Second)
	f.flow(t, 10, 20*time.Second)
	f.Restart(n)
	r := s.end(t, affected)
	for _, m := range r.Missing {
		t.Logf("missing: %v", m)
		break
	}
}

// cometStalled stops a comet for longer than its lease: it is declared dead, comes back as a new epoch, and tells all its
// sessions.
func (f *faults) cometStalled(t *testing.T) {
	f.balance(t)
	s := f.begin(t)
	n := f.Comets[1]
	sleeper := f.sleeper(t, n, "sleeper-stalled")
	affected := f.at(n)
	n.Signal(syscall.SIGSTOP)
	f.offline(t, "sleeper-stalled", presenceLimit)
	// What job wrote to it until then waits in its sockets: it may read that when it goes on, before it hears that it is dead.
	s.inHand = len(affected) + f.posted(affected, s.from)
	f.flow(t, 20, 20*time.Second)
	n.Signal(syscall.SIGCONT)
	if _, err := sleeper.AwaitEvent(30*time.Second, func(e *halleyv1.Event) bool { return e.GetResync() != nil }); err != nil {
		t.Errorf("waiting for resync: %v", err)
	}
	within(t, presenceLimit, "the sleeper is online again", func() (bool, string) {
		got, err := states(t.Context(), f.api, "sleeper-stalled")
		return err == nil && got["sleeper-stalled"].Online, fmt.Sprint(got, err)
	})
	s.end(t, affected)
	f.watched(t, presenceLimit)
}

// balance moves users back so that each comet has some.
func (f *faults) balance(t *testing.T) {
	t.Helper()
	before := map[*User]int{}
	for i, n := range f.Comets {
		if len(f.at(n)) > 1 {
			continue
		}
		// As an operator would: the sessions of some users are ended, they come back elsewhere.
		for j, u := range f.stream.Users {
			if j%2 == i {
				before[u] = u.count()
				u.moveTo(i)
				f.api.Must(t, http.StatusOK, "POST", "/v1/sessions/kick", map[string]any{"uid": u.UID}, nil)
			}
		}
	}
	// All of them: who is put out later would be so in the stretch that follows.
	within(t, 30*time.Second, "who was put out is back", func() (bool, string) {
		for u, n := range before {
			if u.count() == n || !u.Online() {
				return false, u.UID
			}
		}
		return true, ""
	})
	within(t, 20*time.Second, "each comet has users", func() (bool, string) {
		for _, n := range f.Comets {
			if len(f.at(n)) < 2 {
				return false, n.Name
			}
		}
		return true, ""
	})
	f.allOnline(t, 20*time.Second)
}

// cometCutOff breaks a comet's connections to the routers for longer than its lease. Its sessions stay and are told.
func (f *faults) cometCutOff(t *testing.T) {
	f.balance(t)
	s := f.begin(t)
	n := f.Comets[1]
	sleeper := f.sleeper(t, n, "sleeper-cut")
	affected := f.at(n)
	for _, p := range f.Proxies {
		p.Cut()
	}
	f.offline(t, "sleeper-cut", presenceLimit)
	f.flow(t, 20, 20*time.Second)
	for _, p := range f.Proxies {
		p.Mend()
	}
	if _, err := sleeper.AwaitEvent(30*time.Second, func(e *halleyv1.Event) bool { return e.GetResync() != nil }); err != nil {
		t.Errorf("waiting for resync: %v", err)
	}
	s.end(t, affected)
	f.watched(t, presenceLimit)
}

// redisRestarted takes Redis away and brings it back empty: nobody who was connected notices.
func (f *faults) redisRestarted(t *testing.T) {
	s := f.begin(t)
	sleeper := f.sleeper(t, f.Comets[0], "sleeper-redis")
	// What was yet to be announced of users is lost with Redis; what was announced is believed rightly.
	f.watched(t, presenceLimit)
	f.Servers.Down(t, "redis")
	const shortOp = 7004
	expired := Metric(All(f.Jobs), "halley_job_dropped_total", `reason="expired"`)
	f.api.Push(t, Push{UIDs: []string{"sleeper-redis"}, Op: shortOp, Text: "too late", TTL: 1})
	accepted := time.Now()
	f.flow(t, 10, 20*time.Second) // accepted, they wait
	if err := sleeper.Beat(); err != nil {
		t.Errorf("heartbeat without redis: %v", err)
	}
	_, err := f.Comets[0].Login("tcp", &halleyv1.Auth{Token: f.Token("late", nil)})
	f.refusedLater(t, err)
	within(t, 5*time.Second, "the short ttl is over", func() (bool, string) { return time.Since(accepted) > 1500*time.Millisecond, "" })
	f.Servers.Up(t, "redis")
	s.end(t, nil)
	if now := Metric(All(f.Jobs), "halley_job_dropped_total", `reason="expired"`); now-expired != 1 {
		t.Errorf("one push outlived its ttl while redis was away, %v were counted as expired", now-expired)
	}
	f.presenceOf(t, "sleeper-redis", true)
	f.api.Push(t, Push{UIDs: []string{"sleeper-redis"}, Op: 7001, Text: "found"})
	got, err := sleeper.Await(waitTime, func(fr Frame) bool { return fr.Op == 7001 || fr.Op == shortOp })
	if err != nil || string(got.Body) != "found" {
		t.Errorf("a push to a session from before the loss: %v, %v; nothing that has expired may come", got, err)
	}
	if err := sleeper.Join("public://after"); err != nil {
		t.Errorf("a request after the loss: %v", err)
	}
}

func (f *faults) presenceOf(t *testing.T, uid string, online bool) {
	t.Helper()
	within(t, presenceLimit, fmt.Sprintf("%s online: %v", uid, online), func() (bool, string) {
		got, err := states(t.Context(), f.api, uid)
		return err == nil && got[uid].Online == online, fmt.Sprint(got, err)
	})
}

// kafkaRestarted takes Kafka away: pushes are refused with a time to try again, sessions stay, and what comes
// afterwards arrives.
func (f *faults) kafkaRestarted(t *testing.T) {
	s := f.begin(t)
	s.twice = true
	sleeper := f.sleeper(t, f.Comets[1], "sleeper-kafka")
	f.Servers.Down(t, "kafka")
	a, err := f.api.Do(t.Context(), "POST", "/v1/push", nil, Push{UIDs: []string{"sleeper-kafka"}, Text: "x"})
	if err != nil || a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || a.Problem().Code != "unavailable" {
		t.Errorf("a push without kafka: got %v (Retry-After %q), %v; want 503 unavailable with Retry-After", a, a.Header.Get("Retry-After"), err)
	}
	if err := sleeper.Beat(); err != nil {
		t.Errorf("heartbeat without kafka: %v", err)
	}
	if err := sleeper.Join("public://meanwhile"); err != nil {
		t.Errorf("joining a room without kafka: %v", err)
	}
	f.Servers.Up(t, "kafka")
	f.flow(t, 10, 60*time.Second)
	s.end(t, nil)
}

// cometsRolled replaces all comets, one after the other: sessions are asked to leave, and nobody misses anything.
func (f *faults) cometsRolled(t *testing.T) {
	s := f.begin(t)
	for _, n := range f.Comets {
		if code := n.Stop(60 * time.Second); code != 0 {
			t.Errorf("%s: exit code %d, want 0", n.Name, code)
		}
		f.allOnline(t, 20*time.Second)
		f.Restart(n)
	}
	r := s.end(t, nil)
	if len(r.Missing) > 0 {
		t.Errorf("rolling comets: %v", r)
	}
}

// rolesRolled replaces everything else by an orderly stop.
func (f *faults) rolesRolled(t *testing.T) {
	s := f.begin(t)
	for _, group := range [][]*Node{f.Routers, f.Logics, f.Jobs} {
		for _, n := range group {
			if code := n.Stop(20 * time.Second); code != 0 {
				t.Errorf("%s: exit code %d, want 0", n.Name, code)
			}
			f.Restart(n)
		}
	}
	f.flow(t, 10, 20*time.Second)
	s.end(t, nil)
}
