package router_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc/status"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/router"
)

const (
	epochOK   = halleyv1.EpochStatus_EPOCH_STATUS_OK
	epochDead = halleyv1.EpochStatus_EPOCH_STATUS_DEAD
)

func code(err error) string { return status.Code(err).String() }

func (c *comet) comets() []string {
	c.t.Helper()
	res, err := c.r.ListComets(ctxFor(c.t), &halleyv1.ListCometsRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, x := range res.GetComets() {
		out = append(out, x.GetComet())
	}
	return out
}

// leftovers returns the keys in which a comet's epoch or anything of its sessions is left.
func (w *world) leftovers() (keys []string) {
	w.t.Helper()
	for _, p := range []string{":l:*", ":ep", ":m:*", ":t:*"} {
		k, err := w.redis.Keys(context.Background(), w.prefix+":{p*}"+p).Result()
		if err != nil {
			w.t.Fatal(err)
		}
		keys = append(keys, k...)
	}
	return keys
}

func TestDeadCometIsLeftOutAndClearedAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dying())
	r, _ := w.router()
	dead := newComet(t, r, "dead")
	die := dead.keepAlive(100 * time.Millisecond)
	c := newComet(t, r, "c1")
	c.keepAlive(100 * time.Millisecond)
	var ss []*halleyv1.Session
	for i := range 50 {
		s := dead.session("default", fmt.Sprintf("u%d", i), fmt.Sprintf("k%d", i))
		dead.register(s, nil)
		ss = append(ss, s)
	}
	dead.room("default", "live://1", 1, []string{"u1"}, nil)
	die()
	eventually(t, func() bool { return slices.Equal(c.comets(), []string{"c1"}) }, "lease is due")
	if got := locate(t, r, uidName("default", "u1"), roomName("default", "live://1")); got[0] != nil || got[1] != nil {
		t.Errorf("located: got %v, want nothing", got)
	}
	eventually(t, func() bool {
		keys, err := w.redis.Keys(context.Background(), w.prefix+":{p*}:l:*").Result()
		return err == nil && len(keys) == 0
	}, "entries cleared away")
	for what, st := range map[string]func() (halleyv1.EpochStatus, error){
		"Renew": func() (halleyv1.EpochStatus, error) {
			x, err := r.Renew(ctxFor(t), &halleyv1.RenewRequest{Info: dead.info})
			return x.GetStatus(), err
		},
		"Enroll": func() (halleyv1.EpochStatus, error) {
			x, err := r.Enroll(ctxFor(t), &halleyv1.EnrollRequest{Info: dead.info})
			return x.GetStatus(), err
		},
		"Register": func() (halleyv1.EpochStatus, error) {
			x, err := r.Register(ctxFor(t), &halleyv1.RegisterRequest{Sessions: ss[:1]})
			return x.GetStatus(), err
		},
		"Deregister": func() (halleyv1.EpochStatus, error) {
			x, err := r.Deregister(ctxFor(t), &halleyv1.DeregisterRequest{Sessions: ss[1:2]})
			return x.GetStatus(), err
		},
		"Rewrite": func() (halleyv1.EpochStatus, error) {
			x, err := r.Rewrite(ctxFor(t), &halleyv1.RewriteRequest{Comet: "dead", Epoch: dead.info.Epoch, Rewrite: 1, Last: true})
			return x.GetStatus(), err
		},
		"UpdateRooms": func() (halleyv1.EpochStatus, error) {
			x, err := r.UpdateRooms(ctxFor(t), &halleyv1.UpdateRoomsRequest{Comet: "dead", Epoch: dead.info.Epoch, Changes: []*halleyv1.RoomChange{{Tenant: "default", Room: "a://b", Number: 99, Count: 1}}})
			return x.GetStatus(), err
		},
	} {
		if got, err := st(); err != nil || got != epochDead {
			t.Errorf("%s: got %v %v, want dead", what, got, err)
		}
	}
	// With a new epoch it is there again.
	dead.info.Epoch = uuid.Must(uuid.NewV7()).String()
	dead.enroll()
	dead.keepAlive(100 * time.Millisecond)
	for _, s := range ss {
		s.Conn.Epoch = dead.info.Epoch
	}
	res, err := r.Register(ctxFor(t), &halleyv1.RegisterRequest{Sessions: ss})
	if err != nil || len(res.GetResults()) != len(ss) || res.GetResults()[0].GetStatus() != statusOK || res.GetResults()[1].GetStatus() != statusGone {
		t.Fatalf("registering again: got %v %v", res, err)
	}
	if got := locate(t, r, uidName("default", "u0"))[0]; !slices.Equal(got, at(ss[0])) {
		t.Errorf("located: got %v, want %v", got, at(ss[0]))
	}
}

func TestRetiredAndCondemnedEpochsAreDeadAtOnce(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	a, b := newComet(t, r, "a"), newComet(t, r, "b")
	a.register(a.session("default", "u", "k1"), nil)
	b.register(b.session("default", "u", "k2"), nil)
	if _, err := r.Retire(ctxFor(t), &halleyv1.RetireRequest{Comet: "a", Epoch: a.info.Epoch}); err != nil {
		t.Fatal(err)
	}
	if got := a.comets(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("comets: got %v, want b", got)
	}
	for range 2 {
		if _, err := r.Condemn(ctxFor(t), &halleyv1.CondemnRequest{Comet: "b", Epoch: b.info.Epoch}); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.renew().GetStatus(); got != epochDead {
		t.Errorf("condemned: got %v, want dead", got)
	}
	eventually(t, func() bool { return len(w.leftovers()) == 0 }, "nothing left: %v", w.leftovers())
}

func TestLostBucketMakesCandidatesUntilItIsRewritten(t *testing.T) {
	cfg := short()
	cfg.MarkerWindow = 10 * cfg.LeaseTTL / 3
	w := newWorld(t, cfg)
	r, _ := w.router()
	r2, _ := w.router()
	a, b := newComet(t, r, "a"), newComet(t, r2, "b")
	s := a.session("default", "alice", "k1")
	s.Platform = "web"
	a.register(s, nil)
	a.room("default", "live://1", 2, []string{"alice", "bob"}, nil)
	bu, bk, br := name.Bucket("default", "alice"), name.Bucket("default", "k1"), name.Bucket("default", "live://1")
	lost := []uint32{bu, bk, br}
	slices.Sort(lost)
	// Looked at before the loss, so that what is remembered of the markers is put to the test.
	names := []*halleyv1.Name{uidName("default", "alice"), keyName("default", "k1"), roomName("default", "live://1")}
	locate(t, r, names...)
	locate(t, r2, names...)
	for _, x := range lost {
		w.lose(fmt.Sprintf("%s:{p%03d}:*", w.prefix, x))
	}
	for _, x := range []halleyv1.RouterClient{r, r2} {
		for i, got := range locate(t, x, names...) {
			if !slices.Equal(got, []string{"a:by name", "b:by name"}) {
				t.Errorf("name %d after the loss: got %v, want both by name", i, got)
			}
		}
	}
	var found []uint32
	for range 10 { // so many renewals are in the window
		found = append(found, a.renew().GetLostBuckets()...)
	}
	if slices.Sort(found); !slices.Equal(found, slices.Compact(lost)) {
		t.Errorf("lost buckets: got %v, want %v", found, lost)
	}
	if got := a.register(s, nil); got.GetStatus() != statusLost || len(got.GetLostBuckets()) != 2 {
		t.Errorf("Register into lost buckets: got %v", got)
	}
	// Comet can't find a session by its names before its log-in is answered: what is written goes along.
	for i, got := range locate(t, r, names[:2]...) {
		if !slices.Equal(got, []string{"a:by name" + s.GetConn().GetId(), "b:by name"}) {
			t.Errorf("name %d, registered into a lost bucket: got %v, want its connection beside the name", i, got)
		}
	}
	for i, x := range lost {
		res, err := r.Rewrite(ctxFor(t), &halleyv1.RewriteRequest{Comet: "a", Epoch: a.info.Epoch, Bucket: x, Rewrite: uint64(i), Sessions: []*halleyv1.Session{s}, Last: true,
			Rooms: []*halleyv1.RoomChange{{Tenant: "default", Room: "live://1", Number: 7, Count: 2, Joined: []string{"alice", "bob"}, Listed: true}}})
		if err != nil || res.GetStatus() != epochOK || res.GetReplacedConnIds() != nil {
			t.Fatalf("Rewrite: %v %v", res, err)
		}
		if _, err := r.Rewrite(ctxFor(t), &halleyv1.RewriteRequest{Comet: "b", Epoch: b.info.Epoch, Bucket: x, Rewrite: 1, Last: true}); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []halleyv1.RouterClient{r, r2} {
		got := locate(t, x, names...)
		for i, want := range [][]string{at(s), at(s), {"a:"}} {
			if !slices.Equal(got[i], want) {
				t.Errorf("name %d after the rewrite: got %v, want %v", i, got[i], want)
			}
		}
	}
	m, err := r.ListMembers(ctxFor(t), &halleyv1.ListMembersRequest{Tenant: "default", Room: "live://1"})
	if err != nil || !slices.Equal(m.GetUids(), []string{"alice", "bob"}) {
		t.Errorf("members: got %v %v, want alice, bob", m, err)
	}
	for range 10 {
		if got := a.renew().GetLostBuckets(); len(got) > 0 {
			t.Errorf("lost buckets in the end: %v", got)
		}
	}
}

func TestRewriteRemovesGhostsButNotTheNew(t *testing.T) {
	t.Parallel()
	cfg := short()
	cfg.GhostAge = 8 * time.Second // the fresh ones must be younger, on slow machines too
	w := newWorld(t, cfg)
	r, _ := w.router()
	a := newComet(t, r, "a")
	ghost, kept := a.session("default", "u", "k1"), a.session("default", "u", "k2")
	a.register(ghost, nil)
	a.register(kept, nil)
	a.room("default", "live://ghost", 1, []string{"x"}, nil)
	time.Sleep(cfg.GhostAge + 100*time.Millisecond)
	fresh := a.session("default", "u", "k3")
	a.register(fresh, nil)
	a.room("default", "live://fresh", 1, []string{"x"}, nil)
	for _, n := range []string{"u", "k1", "k2", "k3", "live://ghost", "live://fresh"} {
		b := name.Bucket("default", n)
		for i, req := range []*halleyv1.RewriteRequest{{Sessions: []*halleyv1.Session{kept}}, {Last: true}} {
			req.Comet, req.Epoch, req.Bucket, req.Rewrite = "a", a.info.Epoch, b, 3
			if res, err := r.Rewrite(ctxFor(t), req); err != nil || res.GetStatus() != epochOK {
				t.Fatalf("bucket %d chunk %d: %v %v", b, i, res, err)
			}
		}
	}
	got := locate(t, r, uidName("default", "u"), keyName("default", "k1"), keyName("default", "k2"), keyName("default", "k3"),
		roomName("default", "live://ghost"), roomName("default", "live://fresh"))
	for i, want := range [][]string{at(kept, fresh), nil, at(kept), at(fresh), nil, {"a:"}} {
		if !slices.Equal(got[i], want) {
			t.Errorf("name %d: got %v, want %v", i, got[i], want)
		}
	}
}

func TestRewriteAnswersReplaced(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	a, b := newComet(t, r, "a"), newComet(t, r, "b")
	old := a.session("default", "u", "k")
	old.ConnectedAtMs -= 1000
	a.register(old, nil)
	s := b.session("default", "u", "k")
	b.register(s, nil)
	for _, n := range []string{"k", "u"} {
		res, err := r.Rewrite(ctxFor(t), &halleyv1.RewriteRequest{Comet: "a", Epoch: a.info.Epoch, Bucket: name.Bucket("default", n), Rewrite: 1, Sessions: []*halleyv1.Session{old}, Last: true})
		if err != nil || !slices.Equal(res.GetReplacedConnIds(), []string{old.GetConn().GetId()}) {
			t.Errorf("bucket of %s: got %v %v, want %s replaced", n, res, err, old.GetConn().GetId())
		}
	}
	if got := locate(t, r, keyName("default", "k"), uidName("default", "u")); !slices.Equal(got[0], at(s)) || !slices.Equal(got[1], at(s)) {
		t.Errorf("located: got %v, want %v", got, at(s))
	}
}

func TestLocateIsUnavailableAfterALoss(t *testing.T) {
	cfg := short()
	cfg.WarmUp = time.Second
	w := newWorld(t, cfg)
	begun := time.Now() // before the leases are made
	r, _ := w.router()
	ready := func() bool {
		res, err := r.Locate(ctxFor(t), &halleyv1.LocateRequest{Names: []*halleyv1.Name{uidName("default", "u")}})
		return err == nil && res.GetUnavailableMs() == 0
	}
	if ready() && time.Since(begun) < cfg.WarmUp {
		t.Error("a new set of leases is known at once, want unavailable")
	}
	a := newComet(t, r, "a")
	a.register(a.session("default", "u", "k"), nil)
	eventually(t, ready, "known")
	// Lost again and again: it may take longer than the warm-up until this is looked at.
	eventually(t, func() bool { w.flush(); return !ready() }, "unavailable after all was lost")
	res := a.renew()
	if res.GetStatus() != epochOK || len(res.GetLostBuckets()) != name.Buckets {
		t.Errorf("Renew after all was lost: got %v, %d lost buckets; want the same epoch, all buckets", res.GetStatus(), len(res.GetLostBuckets()))
	}
	eventually(t, ready, "known again")
	if got := locate(t, r, uidName("default", "u"))[0]; !slices.Equal(got, []string{"a:by name"}) {
		t.Errorf("got %v, want a by name", got)
	}
}

func TestLeaseIsNotDueWhileNoRouterWasThere(t *testing.T) {
	t.Parallel()
	cfg := dying()
	cfg.WarmUp, cfg.LookGap = 5*time.Second, 3*time.Second // the renewal below must come within the warm-up
	w := newWorld(t, cfg)
	r, stop := w.router()
	a := newComet(t, r, "a")
	s := a.session("default", "u", "k")
	a.register(s, nil)
	stop()
	time.Sleep(cfg.LeaseTTL + 100*time.Millisecond)
	r, _ = w.router()
	a.r = r
	if res := a.renew(); res.GetStatus() != epochOK {
		t.Fatalf("Renew: got %v, want the lease back", res)
	}
	a.keepAlive(50 * time.Millisecond)
	eventually(t, func() bool {
		res, err := r.Locate(ctxFor(t), &halleyv1.LocateRequest{Names: []*halleyv1.Name{uidName("default", "u")}})
		if err != nil || res.GetUnavailableMs() > 0 {
			return false
		}
		if p := res.GetLocated()[0].GetPlaces(); len(p) != 1 || !slices.Equal(p[0].GetConnIds(), []string{s.GetConn().GetId()}) {
			t.Fatalf("got %v, want %v", p, at(s))
		}
		return true
	}, "known")
}

func TestRenewalTellsWhatOthersCanTake(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	a, b, c := newComet(t, r, "a"), newComet(t, r, "b"), newComet(t, r, "c")
	c.info.Draining = true
	c.renew()
	b.renew()
	eventually(t, func() bool {
		res := a.renew()
		b.renew()
		c.renew()
		return res.GetSpareConnections() == 90 && res.GetSpareHandshakeRate() == 5
	}, "b's room alone")
	if got := a.comets(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("comets: got %v, want the draining one, too", got)
	}
}

func TestOrphansOfALostLeaseAreSwept(t *testing.T) {
	t.Parallel()
	cfg := short() // no lease is due: a's must still be there when it is lost
	cfg.OrphanAge = 3 * time.Second
	w := newWorld(t, cfg)
	r, _ := w.router()
	a, b := newComet(t, r, "a"), newComet(t, r, "b")
	b.keepAlive(time.Second)
	for i := range 20 {
		a.register(a.session("default", fmt.Sprintf("u%d", i), fmt.Sprintf("k%d", i)), nil)
	}
	a.room("default", "live://1", 3, []string{"x"}, nil)
	w.lose(w.prefix + ":{lease}:*") // and a never comes back
	b.renew()
	eventually(t, func() bool {
		keys, err := w.redis.Keys(context.Background(), w.prefix+":{p*}:[lmt]:*").Result()
		return err == nil && len(keys) == 0
	}, "nothing left of a")
}

func TestRoutersAgreeAndComeAndGoUnderLoad(t *testing.T) {
	cfg := short()
	w := newWorld(t, cfg)
	r1, _ := w.router()
	a := newComet(t, r1, "a")
	a.keepAlive(200 * time.Millisecond)
	var ss []*halleyv1.Session
	for i := range 20 {
		s := a.session("default", fmt.Sprintf("u%d", i), fmt.Sprintf("k%d", i))
		a.register(s, nil)
		ss = append(ss, s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var looked, failed atomic.Int64
	check := func(r halleyv1.RouterClient) {
		for ctx.Err() == nil {
			i := int(looked.Add(1)) % len(ss)
			res, err := r.Locate(ctx, &halleyv1.LocateRequest{Names: []*halleyv1.Name{uidName("default", ss[i].Uid)}})
			if ctx.Err() != nil {
				return
			}
			if err != nil || res.GetUnavailableMs() > 0 || len(res.GetLocated()[0].GetPlaces()) != 1 {
				failed.Add(1)
			}
		}
	}
	wg.Go(func() { check(r1) })
	for i := range 3 {
		r, stop := w.router()
		// A session on a comet that this router enrolled is known to the other one at once.
		c := newComet(t, r, fmt.Sprintf("new%d", i))
		s := c.session("default", fmt.Sprintf("new%d", i), fmt.Sprintf("new%d", i))
		c.register(s, nil)
		if got := locate(t, r1, uidName("default", s.Uid))[0]; !slices.Equal(got, at(s)) {
			t.Errorf("round %d: the other router finds %v, want %v", i, got, at(s))
		}
		for _, x := range ss {
			if got := locate(t, r, uidName("default", x.Uid))[0]; !slices.Equal(got, at(x)) {
				t.Errorf("round %d: the new router finds %v, want %v", i, got, at(x))
			}
		}
		stop()
	}
	eventually(t, func() bool { return looked.Load() >= 50 }, "enough look-ups")
	cancel()
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d look-ups failed", failed.Load(), looked.Load())
	}
}

func TestRedisAwayIsUnavailableSoon(t *testing.T) {
	cfg := short()
	cfg.RedisTimeout = 200 * time.Millisecond
	c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true})
	defer func() { _ = c.Close() }()
	w := &world{t: t, cfg: cfg, kafka: &fakeKafka{}, redis: c, prefix: "x"}
	r, _ := w.router()
	start := time.Now()
	_, err := r.Locate(ctxFor(t), &halleyv1.LocateRequest{Names: []*halleyv1.Name{uidName("default", "u")}})
	if code(err) != "Unavailable" {
		t.Errorf("got %v, want Unavailable", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	one, err := router.New(cfg, router.Deps{Redis: c, RedisPrefix: "x", Producer: w.kafka})
	if err != nil {
		t.Fatal(err)
	}
	if one.Ready(ctxFor(t)) == nil {
		t.Error("ready without Redis")
	}
}

// TestRedisThatHangsIsUnavailableSoon: it takes connections and never answers. However many ask, nobody waits for the others' time limits.
func TestRedisThatHangsIsUnavailableSoon(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := short()
	cfg.RedisTimeout = 200 * time.Millisecond
	c := redis.NewClient(&redis.Options{Addr: l.Addr().String(), ContextTimeoutEnabled: true, MaxRetries: 1})
	defer func() { _ = c.Close() }()
	w := &world{t: t, cfg: cfg, kafka: &fakeKafka{}, redis: c, prefix: "x"}
	r, _ := w.router()
	start := time.Now()
	var asking sync.WaitGroup
	for i := range 100 {
		asking.Go(func() {
			_, err := r.Locate(ctxFor(t), &halleyv1.LocateRequest{Names: []*halleyv1.Name{uidName("default", fmt.Sprint("u", i))}})
			if code(err) != "Unavailable" {
				t.Errorf("got %v, want Unavailable", err)
			}
		})
	}
	asking.Wait()
	if took := time.Since(start); took > 10*time.Second { // half of what their limits are in all
		t.Errorf("took %v", took)
	}
}

func TestCometWithSessionsIsAskedItselfUntilItHasRewritten(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	s := c.session("default", "u", "k")
	c.info.Epoch = uuid.Must(uuid.NewV7()).String()
	res, err := r.Enroll(ctxFor(t), &halleyv1.EnrollRequest{Info: c.info, HoldsSessions: true})
	if err != nil || res.GetStatus() != halleyv1.EpochStatus_EPOCH_STATUS_OK {
		t.Fatalf("Enroll: %v %v", res, err)
	}
	s.Conn.Epoch = c.info.Epoch
	u := uidName("default", "u")
	eventually(t, func() bool {
		got := locate(t, r, u)[0]
		return slices.Equal(got, []string{"c1:by name"})
	}, "asked itself")
	bucket := name.Bucket("default", "u")
	if _, err := r.Rewrite(ctxFor(t), &halleyv1.RewriteRequest{
		Comet: "c1", Epoch: c.info.Epoch, Bucket: bucket, Rewrite: 1, Sessions: []*halleyv1.Session{s}, Last: true,
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{"c1:" + s.GetConn().GetId()}
	if got := locate(t, r, u)[0]; !slices.Equal(got, want) {
		t.Errorf("after its rewrite: got %v, want %v", got, want)
	}
}
