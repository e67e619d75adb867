package presence

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// lease is one comet's right to be called alive.
type lease struct {
	epoch epoch
	info  *halleyv1.CometInfo
	// brief is info as Locate tells it.
	brief *halleyv1.CometInfo
	due   int64
}

// view is the leases as they were read a moment ago. now goes on by the local clock.
type view struct {
	// generation is another one whenever another epoch is in the set.
	generation uint64
	birth      int64
	leases     []lease // by comet's name
	byEpoch    map[epoch]int
	now        int64 // Redis' clock when it was read
	askedAt    time.Time
	readAt     time.Time
}

// clock is a view at one instant: what one request decides by.
type clock struct {
	*view
	now   int64
	table *leaseTable
	// start is when the request began, where decide runs it.
	start time.Time
	// stale is set when an epoch was asked for that the view doesn't have, but which may have been enrolled, at
	// another router, since it was read. Store.decide then tries again with a newer one.
	stale *bool
}

// index returns the place of a live epoch in the view.
func (c clock) index(e epoch) (int, bool) {
	i, ok := c.byEpoch[e]
	if ok && c.leases[i].due > c.now {
		return i, true
	}
	// It may have been renewed since: shortly before it was due, or later, while no lease is called due; or made again
	// after it was lost.
	warming := c.now < c.birth+c.table.warmUp
	switch {
	case warming, ok && c.leases[i].due > c.view.now:
		*c.stale = *c.stale || c.askedAt.Before(c.start)
	case !ok && !c.table.absent(e, c.view):
		*c.stale = true
	}
	return i, false
}

// live reports whether an epoch's lease is there and not due.
func (c clock) live(e epoch) bool {
	_, ok := c.index(e)
	return ok
}

// anyLive reports whether one of some leases, by their places in the view, isn't due.
func (c clock) anyLive(indices []int) bool {
	return slices.ContainsFunc(indices, func(i int) bool { return c.leases[i].due > c.now })
}

// known reports whether an epoch's lease is there, due or not.
func (c clock) known(e epoch) bool {
	_, ok := c.byEpoch[e]
	return ok
}

func (c clock) comet(e epoch) string {
	if i, ok := c.byEpoch[e]; ok {
		return c.leases[i].info.GetComet()
	}
	return ""
}

// leaseTable keeps a copy of the leases, at most LeaseCache old.
type leaseTable struct {
	s    *Store
	mu   sync.Mutex // over cur and busy only, never over a trip to Redis
	cur  *view
	busy chan struct{} // closed when the refresh in flight has ended
	err  error         // of the last refresh
	gens uint64
	// forgotten is when forget was last called.
	forgotten time.Time
	// met says when an epoch without lease was first met in an entry. Its lease had been made by then, so a view that was
	// read later and doesn't have it says that it is gone.
	met    map[epoch]time.Time
	warmUp int64 // ms
}

func newLeaseTable(s *Store) *leaseTable {
	return &leaseTable{s: s, met: make(map[epoch]time.Time), warmUp: s.opt.WarmUp.Milliseconds()}
}

// metMax bounds met. No setting: it is far more than there are epochs without a lease; beyond it they are met anew.
const metMax = 4096

// absent reports whether an epoch that isn't in v has no lease for certain.
func (t *leaseTable) absent(e epoch, v *view) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	first, ok := t.met[e]
	if !ok {
		if len(t.met) >= metMax {
			clear(t.met)
		}
		t.met[e] = time.Now()
		return false
	}
	return v.askedAt.After(first)
}

// decide runs f with the leases, and once more with fresh ones if f met an epoch that they didn't have, or asked for it by
// errStale.
func (s *Store) decide(ctx context.Context, f func(clock) error) error {
	start := time.Now()
	for try := 0; ; try++ {
		c, err := s.leases.at(ctx)
		if err != nil {
			return err
		}
		c.start = start
		err = f(c)
		switch {
		case try == 2 && errors.Is(err, errStale):
			return errContended
		case try == 2, err != nil && !errors.Is(err, errStale), err == nil && !*c.stale:
			return err
		}
		if err := s.leases.refresh(ctx); err != nil {
			return err
		}
	}
}

// errStale is returned by a plan that met an epoch which the leases in hand don't have.
var errStale = errors.New("presence: leases in hand are too old")

// at returns the leases, at most LeaseCache old.
func (t *leaseTable) at(ctx context.Context) (clock, error) {
	for {
		t.mu.Lock()
		if v := t.cur; v != nil {
			if age := time.Since(v.readAt); age < t.s.opt.LeaseCache {
				t.mu.Unlock()
				return clock{view: v, now: v.now + age.Milliseconds(), table: t, stale: new(bool)}, nil
			}
		}
		wait := t.busy
		t.mu.Unlock()
		if wait == nil {
			if err := t.refresh(ctx); err != nil {
				return clock{}, err
			}
			continue
		}
		select {
		case <-wait:
			t.mu.Lock()
			err := t.err
			t.mu.Unlock()
			if err != nil {
				return clock{}, err
			}
		case <-ctx.Done():
			return clock{}, ctx.Err()
		}
	}
}

// refresh reads the leases now.
func (t *leaseTable) refresh(ctx context.Context) error {
	t.mu.Lock()
	done := make(chan struct{})
	if t.busy == nil {
		t.busy = done
	}
	t.mu.Unlock()
	v, err := t.read(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy == done {
		t.busy = nil
		close(done)
	}
	t.err = err
	if err != nil {
		return err
	}
	if !v.askedAt.After(t.forgotten) {
		v.readAt = time.Time{} // asked for before what it is to show was done
	}
	if t.cur != nil && t.cur.now > v.now {
		// Another refresh was faster; Redis' clock going back is told by a longer distance.
		if t.cur.now-v.now < t.s.opt.LeaseCache.Milliseconds() {
			return nil
		}
	}
	if t.cur != nil && sameEpochs(t.cur, v) {
		v.generation = t.cur.generation
	} else {
		t.gens++
		v.generation = t.gens
	}
	t.cur = v
	return nil
}

// forget makes the next look read the leases again.
func (t *leaseTable) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgotten = time.Now()
	if t.cur != nil {
		old := *t.cur
		old.readAt = time.Time{}
		t.cur = &old
	}
}

func sameEpochs(a, b *view) bool {
	if len(a.leases) != len(b.leases) {
		return false
	}
	for i := range a.leases {
		if a.leases[i].epoch != b.leases[i].epoch {
			return false
		}
	}
	return true
}

func (t *leaseTable) read(ctx context.Context) (*view, error) {
	ctx, cancel := context.WithTimeout(ctx, t.s.opt.RedisTimeout)
	defer cancel()
	asked := time.Now()
	k := &t.s.keys.lease
	c := &call{
		script: leasesScript, keys: []string{k.due, k.info, k.dead, k.state, k.enrolled},
		args: []any{t.s.opt.LookGap.Milliseconds(), t.s.opt.EpochTombstone.Milliseconds()},
	}
	if err := runAll(ctx, t.s.redis, []*call{c}); err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	res, err := c.cmd.Slice()
	if err != nil || len(res) < 2 || len(res)%4 != 2 {
		return nil, fmt.Errorf("read leases: unexpected answer (%w)", err)
	}
	v := &view{askedAt: asked, readAt: time.Now(), byEpoch: make(map[epoch]int, len(res)/4)}
	v.now, _ = res[0].(int64)
	v.birth, _ = res[1].(int64)
	for i := 2; i < len(res); i += 4 {
		id, _ := res[i].(string)
		due, _ := res[i+1].(int64)
		blob, _ := res[i+2].(string)
		enrolled, _ := res[i+3].(int64)
		info := &halleyv1.CometInfo{}
		if len(id) != 16 || proto.Unmarshal([]byte(blob), info) != nil {
			t.s.metrics.badRecords.Inc()
			continue
		}
		info.DueMs, info.EnrolledAtMs = due, enrolled
		v.leases = append(v.leases, lease{
			epoch: epoch([]byte(id)), info: info, due: due,
			brief: &halleyv1.CometInfo{Comet: info.Comet, Epoch: info.Epoch, Addr: info.Addr, Draining: info.Draining},
		})
	}
	slices.SortFunc(v.leases, func(a, b lease) int {
		if c := strings.Compare(a.info.GetComet(), b.info.GetComet()); c != 0 {
			return c
		}
		return strings.Compare(a.epoch.raw(), b.epoch.raw())
	})
	live := 0
	for i, l := range v.leases {
		v.byEpoch[l.epoch] = i
		if l.due > v.now {
			live++
		}
	}
	t.s.metrics.comets.Set(float64(live))
	return v, nil
}

// renewal is what renew.lua answers.
type renewal struct {
	made  bool
	count int64
}

func (t *leaseTable) renew(ctx context.Context, e epoch, info *halleyv1.CometInfo) (renewal, error) {
	stored := proto.CloneOf(info)
	stored.DueMs, stored.EnrolledAtMs = 0, 0
	blob, err := proto.Marshal(stored)
	if err != nil {
		return renewal{}, fmt.Errorf("renew: %w", err)
	}
	k, o := &t.s.keys.lease, &t.s.opt
	c := &call{
		script: renewScript, keys: []string{k.due, k.info, k.dead, k.reap, k.state, k.enrolled, k.renewals},
		args: []any{e.raw(), blob, o.LeaseTTL.Milliseconds(), o.LookGap.Milliseconds(), o.WarmUp.Milliseconds()},
	}
	if err := runAll(ctx, t.s.redis, []*call{c}); err != nil {
		return renewal{}, fmt.Errorf("renew: %w", err)
	}
	res, err := c.cmd.Int64Slice()
	if err != nil || len(res) < 4 {
		return renewal{}, fmt.Errorf("renew: unexpected answer (%w)", err)
	}
	if res[0] == 2 {
		return renewal{}, ErrDead
	}
	return renewal{made: res[0] == 1, count: res[2]}, nil
}

// kill declares the named epochs dead, or, without any, those whose lease is due. It returns those that weren't
// dead before.
func (t *leaseTable) kill(ctx context.Context, epochs ...epoch) ([]epoch, error) {
	k := &t.s.keys.lease
	args := []any{t.s.opt.WarmUp.Milliseconds(), t.s.opt.LookGap.Milliseconds()}
	for _, e := range epochs {
		args = append(args, e.raw())
	}
	c := &call{
		script: killScript, keys: []string{k.due, k.info, k.dead, k.reap, k.state, k.enrolled, k.renewals}, args: args,
	}
	if err := runAll(ctx, t.s.redis, []*call{c}); err != nil {
		return nil, fmt.Errorf("kill: %w", err)
	}
	res, err := c.cmd.StringSlice()
	if err != nil {
		return nil, fmt.Errorf("kill: %w", err)
	}
	var out []epoch
	for _, r := range res {
		if len(r) == 16 {
			out = append(out, epoch([]byte(r)))
		}
	}
	if len(out) > 0 || len(epochs) > 0 {
		t.forget()
	}
	return out, nil
}

func needEpoch(s string) (epoch, error) {
	e, ok := parseEpoch(s)
	if !ok || e == (epoch{}) {
		return epoch{}, fmt.Errorf("%w: epoch must be a UUID in lower case", ErrInvalid)
	}
	return e, nil
}

// Enroll takes an epoch: its marker into all buckets, then its lease. A comet that holds sessions gets no markers: it must rewrite each
// bucket first. Repeatable. ErrDead if it was declared dead.
func (s *Store) Enroll(ctx context.Context, info *halleyv1.CometInfo, holds bool) error {
	e, err := needEpoch(info.GetEpoch())
	if err != nil {
		return err
	}
	if info.GetComet() == "" || info.GetAddr() == "" {
		return fmt.Errorf("%w: a comet needs a name and an address", ErrInvalid)
	}
	if err := s.enterAll(ctx, e, !holds); err != nil {
		return err
	}
	_, err = s.leases.renew(ctx, e, info)
	s.leases.forget()
	if errors.Is(err, ErrDead) {
		s.unmarkAll(ctx, e)
	}
	return err
}

// enterAll enters an epoch in all buckets, with its markers if marked, in plain commands: 256 scripts take a laptop's Redis a quarter
// of a second. Should the epoch be declared dead meanwhile, its tombstones stand all the same, and renewing its lease tells it.
func (s *Store) enterAll(ctx context.Context, e epoch, marked bool) error {
	dead := make([]*redis.FloatCmd, name.Buckets)
	_, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range dead {
			dead[i] = p.ZScore(ctx, s.keys.bucket[i].dead, e.raw())
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("enroll: %w", err)
	}
	for _, d := range dead {
		switch err := d.Err(); {
		case err == nil:
			return ErrDead
		case !errors.Is(err, redis.Nil):
			return fmt.Errorf("enroll: %w", err)
		}
	}
	var versions [8 * name.Buckets]byte
	_, _ = rand.Read(versions[:])
	_, err = s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range s.keys.bucket {
			k := &s.keys.bucket[i]
			p.SAdd(ctx, k.epochs, e.raw())
			if marked {
				p.HSet(ctx, k.main, markerField(e), "1", versionField, string(versions[8*i:8*i+8]))
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("enroll: %w", err)
	}
	return nil
}

// unmarkAll takes back the markers of an epoch that died while it was enrolled. What remains of them if this fails says nothing.
func (s *Store) unmarkAll(ctx context.Context, e epoch) {
	_, _ = s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range s.keys.bucket {
			k := &s.keys.bucket[i]
			p.HDel(ctx, k.main, markerField(e))
			p.SRem(ctx, k.epochs, e.raw())
		}
		return nil
	})
}

func (s *Store) mark(ctx context.Context, e epoch, m mode, buckets ...int) error {
	_, err := s.apply(ctx, guard{epoch: e, mode: m, buckets: buckets}, nil)
	return err
}

func allBuckets() []int {
	b := make([]int, name.Buckets)
	for i := range b {
		b[i] = i
	}
	return b
}

// Renewed is what a renewal tells comet.
type Renewed struct {
	// Lost are buckets without the epoch's marker.
	Lost []uint32
	// SpareConnections and SpareHandshakes are what the other comets can still take, in all and a second.
	SpareConnections int64
	SpareHandshakes  float64
}

// Renew renews a lease and looks at the next part of the epoch's markers: all of them in MarkerWindow, at once if Redis had
// lost the lease. ErrDead if the epoch is dead.
func (s *Store) Renew(ctx context.Context, info *halleyv1.CometInfo) (*Renewed, error) {
	e, err := needEpoch(info.GetEpoch())
	if err != nil {
		return nil, err
	}
	r, err := s.leases.renew(ctx, e, info)
	if errors.Is(err, ErrDead) {
		s.leases.forget()
		s.wakeReaper()
	}
	if err != nil {
		return nil, err
	}
	if r.made {
		s.leases.forget()
	}
	turns := max(int64(s.opt.MarkerWindow/(s.opt.LeaseTTL/3)), 1)
	n := int(name.Buckets+turns-1) / int(turns)
	if r.made {
		n = name.Buckets
	}
	first := int(r.count % turns * int64(n) % name.Buckets)
	out := &Renewed{}
	out.Lost, err = s.checkMarkers(ctx, e, first, min(n, name.Buckets))
	if err != nil {
		return nil, err
	}
	c, err := s.leases.at(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range c.leases {
		if l.epoch == e || l.due <= c.now || l.info.GetDraining() {
			continue
		}
		load := l.info.GetLoad()
		out.SpareConnections += max(load.GetCapacity()-load.GetConnections(), 0)
		out.SpareHandshakes += load.GetHandshakeRate()
	}
	return out, nil
}

// Retire gives up an epoch, as after a death but at once.
func (s *Store) Retire(ctx context.Context, id string) error { return s.end(ctx, id, "retired") }

// Condemn declares an epoch dead.
func (s *Store) Condemn(ctx context.Context, id string) error { return s.end(ctx, id, "condemned") }

func (s *Store) end(ctx context.Context, id, cause string) error {
	e, err := needEpoch(id)
	if err != nil {
		return err
	}
	killed, err := s.leases.kill(ctx, e)
	if err != nil {
		return err
	}
	s.metrics.dead.WithLabelValues(cause).Add(float64(len(killed)))
	s.wakeReaper()
	return nil
}

// Comets lists the live comets.
func (s *Store) Comets(ctx context.Context) ([]*halleyv1.CometInfo, error) {
	c, err := s.leases.at(ctx)
	if err != nil {
		return nil, err
	}
	var out []*halleyv1.CometInfo
	for _, l := range c.leases {
		if l.due > c.now {
			out = append(out, l.info)
		}
	}
	return out, nil
}
