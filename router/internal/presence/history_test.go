package presence

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

var (
	historySeed  = flag.Uint64("history.seed", 0, "seed of the random histories; 0: by the time")
	historySteps = flag.Int("history.steps", 250, "steps of a random history")
)

// The random histories run two routers and some comets, one step after the other, against a model that knows what is true.
// On miniredis the clock is the test's; on a real Redis a unit is shorter and goes by.

type modelSession struct {
	m *halleyv1.Session
	// leaving: it gave way to another and isn't closed yet.
	leaving bool
	since   int64
}

type modelComet struct {
	info     *halleyv1.CometInfo
	start    string
	n        int
	number   uint64
	rewrite  uint64
	asked    int64 // model time before the last renewal that was answered
	renewed  int64 // and after it: Redis' own lies between
	paused   bool
	gone     bool
	sessions map[string]*modelSession // by connection
	rooms    map[string]map[string]int
}

type history struct {
	t      *testing.T
	rnd    *rand.Rand
	unit   time.Duration // of the time scale: LeaseTTL is 9
	mini   *miniredis.Miniredis
	redis  redis.UniversalClient
	stores []*Store
	comets []*modelComet
	clock  time.Time // miniredis' only
	log    []string
	// unsure: uids whose bucket was lost, until the end.
	unsure map[string]bool
	// lossy: Redis loses things; without, more can be asked of the rest.
	lossy bool
	// lost: when it lost the leases, too.
	lost int64
	// changed: when a uid's sessions last did.
	changed   map[string]int64
	announced map[string]bool
	events    int
}

const (
	historyLimit = 2
	// warmUp, in units, is how long routers wait for comets to renew leases that were lost.
	warmUp = 4
	// patience is how long a machine that runs tests may take for a trip to Redis.
	patience = 30 * time.Second
)

func TestRandomHistories(t *testing.T) {
	seed := *historySeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	// Two, for one of two seeds loses what Redis has.
	for i := range uint64(2) {
		t.Run(fmt.Sprintf("seed %d", seed+i), func(t *testing.T) {
			t.Parallel()
			runHistory(t, seed+i)
		})
	}
}

func runHistory(t *testing.T, seed uint64) {
	h := &history{
		t: t, lossy: seed%2 == 0, rnd: rand.New(rand.NewPCG(seed, 1)), unsure: map[string]bool{}, changed: map[string]int64{}, announced: map[string]bool{},
	}
	addr := os.Getenv("HALLEY_TEST_REDIS")
	h.unit = 100 * time.Millisecond
	if addr == "" {
		h.mini = miniredis.RunT(t)
		h.clock = time.UnixMilli(1_700_000_000_000)
		h.mini.SetTime(h.clock)
		addr = h.mini.Addr()
		h.unit = time.Second
	}
	if os.Getenv("HALLEY_TEST_REDIS_CLUSTER") != "" {
		h.redis = redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{addr}, ReadTimeout: patience, WriteTimeout: patience})
	} else {
		h.redis = redis.NewClient(&redis.Options{Addr: addr, ReadTimeout: patience, WriteTimeout: patience})
	}
	defer func() { _ = h.redis.Close() }()
	prefix := fmt.Sprintf("history%x", seed)
	defer h.lose(prefix + ":*")
	u := h.unit
	for range 2 {
		m, _ := NewMetrics(nil)
		h.stores = append(h.stores, New(h.redis, h, slog.New(slog.DiscardHandler), m, Options{
			Prefix: prefix, LeaseTTL: 9 * u, LeaseCache: time.Hour, WarmUp: warmUp * u, LookGap: 3 * u, MarkerWindow: 3 * u,
			EpochTombstone: 86400 * u, ConnTombstone: 60 * u, RoomTombstone: 60 * u, GhostAge: 60 * u, SettleDelay: 3 * u, CountDelay: u,
			PollInterval: u, ReapInterval: u, ClaimTime: 10 * u, SweepInterval: u, OrphanAge: time.Nanosecond, LastSeenFor: 100 * u,
			RedisTimeout: patience, ProduceTimeout: time.Second, MemberLimit: 200, Hooks: true,
		}))
	}
	defer func() {
		if t.Failed() {
			t.Logf("last steps:\n%s", strings.Join(h.log[max(0, len(h.log)-60):], "\n"))
		}
	}()
	for i := range 3 {
		h.addComet(fmt.Sprintf("c%d", i))
	}
	h.advance(5 * u)
	for i := range *historySteps {
		h.step(i)
		h.check()
		if t.Failed() {
			return
		}
	}
	h.end()
}

func (h *history) ctx() context.Context { return context.Background() }

func (h *history) say(f string, a ...any) {
	h.log = append(h.log, fmt.Sprintf("%d ", h.now()%10_000_000)+fmt.Sprintf(f, a...))
}

func (h *history) fail(f string, a ...any) {
	h.t.Helper()
	h.t.Errorf("%d "+f, append([]any{h.now() % 10_000_000}, a...)...)
}

func (h *history) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) now() int64 {
	if h.mini != nil {
		return h.clock.UnixMilli()
	}
	t, err := h.redis.Time(h.ctx()).Result()
	h.must(err)
	return t.UnixMilli()
}

func (h *history) store() *Store { return h.stores[h.rnd.IntN(len(h.stores))] }

// advance lets time go by; whoever isn't paused renews, and routers look at the leases.
func (h *history) advance(d time.Duration) {
	for d > 0 {
		step := min(d, h.unit)
		d -= step
		h.sleep(step)
		h.look()
		for _, c := range h.comets {
			if !c.paused && !c.gone && h.now()-c.renewed >= 2*h.unit.Milliseconds() {
				h.renew(c)
			}
		}
		h.look()
		h.work()
	}
}

func (h *history) sleep(d time.Duration) {
	if h.mini == nil {
		time.Sleep(d)
		return
	}
	h.clock = h.clock.Add(d)
	h.mini.SetTime(h.clock)
	h.mini.FastForward(d)
}

func (h *history) look() {
	for _, s := range h.stores {
		h.must(s.leases.refresh(h.ctx()))
	}
}

// work is what Run's loops do; both routers do it.
func (h *history) work() {
	for _, s := range h.stores {
		h.must(s.reap(h.ctx()))
		h.must(s.settle(h.ctx()))
	}
}

func (h *history) addComet(n string) *modelComet {
	var b [8]byte
	for i := range b {
		b[i] = byte(h.rnd.UintN(256))
	}
	c := &modelComet{start: hex.EncodeToString(b[:]), sessions: map[string]*modelSession{}, rooms: map[string]map[string]int{}, info: &halleyv1.CometInfo{Comet: n, Addr: n + ":1"}}
	h.enroll(c, false)
	h.comets = append(h.comets, c)
	return c
}

func (h *history) enroll(c *modelComet, holds bool) {
	c.info.Epoch = uuid.Must(uuid.NewV7()).String()
	asked := h.now()
	h.must(h.store().Enroll(h.ctx(), c.info, holds))
	c.asked, c.renewed = asked, h.now()
	h.look()
	h.say("%s enrols", c.info.Comet)
}

// renewEpoch is what a comet does that was declared dead.
func (h *history) renewEpoch(c *modelComet) {
	h.enroll(c, true)
	var all []*halleyv1.Session
	for _, id := range keysOf(c.sessions) {
		s := c.sessions[id]
		s.m.Conn.Epoch = c.info.Epoch
		all = append(all, s.m)
		h.touch(s.m)
	}
	res, err := h.store().Register(h.ctx(), &halleyv1.RegisterRequest{Sessions: all})
	h.must(err)
	for i, r := range res {
		if r.Status == halleyv1.RegisterResult_STATUS_REPLACED || r.Status == halleyv1.RegisterResult_STATUS_RACED {
			h.say("  %s: %v", all[i].Conn.Id, r.Status)
			h.close(c, all[i].Conn.Id)
		} else if r.Status == halleyv1.RegisterResult_STATUS_GONE {
			h.fail("%s gone although it was never deregistered", all[i].Conn.Id)
		}
		if s := c.sessions[all[i].Conn.Id]; s != nil {
			// A session that gave way to another and was cleared away with its epoch counts again until it is closed.
			s.leaving = false
		}
	}
	c.number++
	for _, room := range keysOf(c.rooms) {
		h.sendRoom(c, room, keysOf(c.rooms[room]), nil)
	}
}

func keysOf[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (h *history) renew(c *modelComet) {
	asked := h.now()
	res, err := h.store().Renew(h.ctx(), c.info)
	if errors.Is(err, ErrDead) {
		h.say("%s is dead", c.info.Comet)
		h.renewEpoch(c)
		return
	}
	h.must(err)
	c.asked, c.renewed = asked, h.now()
	for _, b := range res.Lost {
		h.rewrite(c, b)
	}
}

func (h *history) rewrite(c *modelComet, b uint32) {
	c.rewrite++
	req := &halleyv1.RewriteRequest{Comet: c.info.Comet, Epoch: c.info.Epoch, Bucket: b, Rewrite: c.rewrite}
	for room, uids := range c.rooms {
		tenant, r, _ := strings.Cut(room, " ")
		if name.Bucket(tenant, r) == b && len(uids) > 0 {
			c.number++
			req.Rooms = append(req.Rooms, &halleyv1.RoomChange{Tenant: tenant, Room: r, Number: c.number, Count: uint32(len(uids)), Joined: keysOf(uids), Listed: true})
		}
	}
	for _, s := range c.sessions {
		if name.Bucket(s.m.Tenant, s.m.Key) == b || name.Bucket(s.m.Tenant, s.m.Uid) == b {
			req.Sessions = append(req.Sessions, s.m)
		}
	}
	if len(req.Rooms)+len(req.Sessions) > 0 && h.rnd.IntN(2) == 0 {
		h.rewriteChunk(c, req) // and an empty last one
		req = proto.CloneOf(req)
		req.Rooms, req.Sessions = nil, nil
	}
	req.Last = true
	h.rewriteChunk(c, req)
}

func (h *history) rewriteChunk(c *modelComet, req *halleyv1.RewriteRequest) {
	res, err := h.store().Rewrite(h.ctx(), req)
	if errors.Is(err, ErrDead) {
		return
	}
	h.must(err)
	for _, id := range slices.Concat(res.ReplacedConnIds, res.RacedConnIds) {
		h.say("  %s replaced in the rewrite", id)
		h.close(c, id)
	}
	for _, m := range req.Sessions {
		// One that gave way counts again if what it gave way to has ended.
		if s := c.sessions[m.Conn.Id]; s != nil && s.leaving && name.Bucket(m.Tenant, m.Uid) == req.Bucket {
			h.say("  %s is back", m.Conn.Id)
			s.leaving = false
			h.touch(m)
		}
	}
}

func user(m *halleyv1.Session) string { return m.Tenant + " " + m.Uid }

func (h *history) touch(m *halleyv1.Session) { h.changed[user(m)] = h.now() }

// close ends a session at its comet.
func (h *history) close(c *modelComet, id string) {
	s := c.sessions[id]
	if s == nil {
		return
	}
	delete(c.sessions, id)
	if !s.leaving {
		h.touch(s.m)
	}
	err := h.store().Deregister(h.ctx(), []*halleyv1.Session{s.m})
	if !errors.Is(err, ErrDead) {
		h.must(err)
	}
}

func (h *history) find(id string) (*modelComet, *modelSession) {
	for _, c := range h.comets {
		if s := c.sessions[id]; s != nil {
			return c, s
		}
	}
	return nil, nil
}

func (h *history) active() []*modelComet {
	var out []*modelComet
	for _, c := range h.comets {
		if !c.paused && !c.gone {
			out = append(out, c)
		}
	}
	return out
}

func (h *history) step(i int) {
	act := h.active()
	switch n := h.rnd.IntN(100); {
	case n < 38 && len(act) > 0:
		h.register(act[h.rnd.IntN(len(act))])
	case n < 55 && len(act) > 0:
		c := act[h.rnd.IntN(len(act))]
		if all := keysOf(c.sessions); len(all) > 0 {
			id := all[h.rnd.IntN(len(all))]
			h.say("%s ends", id)
			h.close(c, id)
		}
	case n < 63 && len(act) > 0:
		h.changeRoom(act[h.rnd.IntN(len(act))])
	case n < 67 && len(act) > 1:
		c := act[h.rnd.IntN(len(act))]
		c.paused = true
		h.say("%s pauses", c.info.Comet)
	case n < 73:
		for _, c := range h.comets {
			if c.paused {
				c.paused = false
				h.say("%s goes on", c.info.Comet)
				h.renew(c)
				break
			}
		}
	case n < 75 && len(act) > 1:
		c := act[h.rnd.IntN(len(act))]
		c.gone = true
		h.say("%s dies", c.info.Comet)
		for _, s := range c.sessions {
			h.touch(s.m)
		}
		h.addComet(fmt.Sprintf("n%d", i))
	case n < 77 && h.lossy:
		b := h.rnd.IntN(8)
		uid := fmt.Sprintf("u%d", b%4)
		bucket := name.Bucket("default", uid)
		h.say("bucket %d of %s is lost", bucket, uid)
		h.lose(fmt.Sprintf("%s{p%03d}:*", h.stores[0].keys.prefix+":", bucket))
		h.spoil(func(tenant, n string) bool { return name.Bucket(tenant, n) == bucket })
	case n < 78 && h.lossy:
		h.say("all is lost")
		h.lose(h.stores[0].keys.prefix + ":*")
		h.lost = h.now()
		h.spoil(func(string, string) bool { return true })
		h.look()
	case n < 79:
		// Nobody looks for long: no lease is called due for that.
		h.say("routers are away")
		h.sleep(12 * h.unit)
		for _, c := range h.active() {
			h.renew(c)
		}
		h.look()
	default:
		d := time.Duration(1+h.rnd.IntN(8)) * h.unit / 2
		h.say("%v go by", d)
		h.advance(d)
	}
}

// spoil notes which uids the routers can't know everything of until the end.
func (h *history) spoil(which func(tenant, n string) bool) {
	for _, tenant := range []string{"default", "acme"} {
		for i := range 4 {
			uid := fmt.Sprintf("u%d", i)
			if which(tenant, uid) {
				h.unsure[tenant+" "+uid] = true
			}
		}
	}
	for _, c := range h.comets {
		for _, s := range c.sessions {
			if which(s.m.Tenant, s.m.Key) {
				h.unsure[user(s.m)] = true
			}
		}
	}
}

// due returns when a comet's lease is due at the latest, dueIn the time until then, and soonest when it may be.
func (h *history) due(c *modelComet) int64     { return c.renewed + 9*h.unit.Milliseconds() }
func (h *history) dueIn(c *modelComet) int64   { return h.due(c) - h.now() }
func (h *history) soonest(c *modelComet) int64 { return c.asked + 9*h.unit.Milliseconds() }

// margin is how exactly the model knows the time of a real Redis.
func (h *history) margin() int64 {
	if h.mini != nil {
		return 200
	}
	return h.unit.Milliseconds() / 2
}

func (h *history) register(c *modelComet) {
	c.n++
	tenant := []string{"default", "default", "acme"}[h.rnd.IntN(3)]
	uid := fmt.Sprintf("u%d", h.rnd.IntN(4))
	m := &halleyv1.Session{
		Tenant: tenant, Uid: uid, Key: fmt.Sprintf("%s-k%d", uid, h.rnd.IntN(5)), ConnectedAtMs: h.now(),
		Conn: &halleyv1.Conn{Comet: c.info.Comet, Epoch: c.info.Epoch, Id: fmt.Sprintf("%s.%d", c.start, c.n)},
	}
	if h.rnd.IntN(3) == 0 {
		m.DeviceId = fmt.Sprintf("d%d", h.rnd.IntN(2))
	}
	// The sessions that are there, and how many of them may be alive. The call may take longer than a lease, where time goes by: who may
	// be alive is told by the time before it, who is for certain by that after it.
	before, may := h.now(), 0
	var there []*modelSession
	on := map[*modelSession]*modelComet{}
	for _, o := range h.comets {
		for _, s := range o.sessions {
			if user(s.m) != user(m) || s.leaving {
				continue
			}
			if h.due(o)-before > -h.margin() {
				may++
			}
			if !o.gone {
				there, on[s] = append(there, s), o
			}
		}
	}
	limits := &halleyv1.Limits{MaxSessions: historyLimit, Refuse: h.rnd.IntN(4) == 0}
	times := 1 + h.rnd.IntN(2) // a call may be repeated
	var res []*halleyv1.RegisterResult
	for range times {
		var err error
		res, err = h.store().Register(h.ctx(), &halleyv1.RegisterRequest{Sessions: []*halleyv1.Session{m}, Limits: limits})
		if errors.Is(err, ErrDead) {
			h.say("%s is told that it is dead", c.info.Comet)
			h.renewEpoch(c)
			return
		}
		h.must(err)
	}
	r := res[0]
	h.say("%s of %s (key %s device %q) at %s: %v, displaced %v", m.Conn.Id, user(m), m.Key, m.DeviceId, c.info.Comet, r.Status, len(r.Displaced))
	if r.Status == halleyv1.RegisterResult_STATUS_TOO_MANY {
		if may < historyLimit && !h.unsure[user(m)] {
			h.fail("refused with %d live sessions of %s", may, user(m))
		}
		return
	}
	c.sessions[m.Conn.Id] = &modelSession{m: m, since: h.now()}
	h.changed[user(m)] = before // at the earliest
	for _, d := range r.Displaced {
		o, s := h.find(d.Conn.Id)
		if s == nil {
			if !h.unsure[user(m)] {
				h.say("  (displaced %s is not known any more)", d.Conn.Id)
			}
			continue
		}
		if h.due(o)-before < -h.margin() {
			h.fail("displaced %s, whose comet is dead", d.Conn.Id)
		}
		s.leaving = true
		if h.rnd.IntN(3) > 0 && !o.paused && !o.gone {
			h.close(o, d.Conn.Id)
		}
	}
	left := 1
	for _, s := range there {
		if !s.leaving && h.soonest(on[s])-h.now() > h.margin() {
			left++
		}
	}
	if left > historyLimit && !h.unsure[user(m)] {
		h.fail("%d live sessions of %s, at most %d are allowed", left, user(m), historyLimit)
	}
}

func (h *history) changeRoom(c *modelComet) {
	room := []string{"default live://1", "default live://2", "acme live://1"}[h.rnd.IntN(3)]
	uids := c.rooms[room]
	if uids == nil {
		uids = map[string]int{}
		c.rooms[room] = uids
	}
	uid := fmt.Sprintf("u%d", h.rnd.IntN(4))
	var joined, left []string
	if uids[uid] == 1 {
		delete(uids, uid)
		left = []string{uid}
	} else {
		uids[uid] = 1
		joined = []string{uid}
	}
	h.sendRoom(c, room, joined, left)
}

func (h *history) sendRoom(c *modelComet, room string, joined, left []string) {
	c.number++
	tenant, r, _ := strings.Cut(room, " ")
	n := uint32(len(c.rooms[room]))
	_, _, err := h.store().UpdateRooms(h.ctx(), c.info.Epoch, []*halleyv1.RoomChange{{Tenant: tenant, Room: r, Number: c.number, Count: n, Joined: joined, Left: left, Listed: true}})
	if errors.Is(err, ErrDead) {
		h.renewEpoch(c)
		return
	}
	h.must(err)
	h.say("%s has %d in %s", c.info.Comet, n, room)
}
