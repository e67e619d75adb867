// Package presence knows who is where: sessions by uid and by key, rooms with their counts and members, the
// comets' leases and epochs. It is the only code that knows how that lies in Redis (keys.go, records.go, lua/);
// docs/architecture.md tells the idea. What is decided is decided here, in Go, from values that were read; one script,
// lua/commit.lua, writes a decision only where these values still stand. Loops (leases, due work, dead epochs)
// run in Run; every other method may be called by any number of goroutines, and by any number of routers on the
// same Redis.
package presence

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/proto/name"
)

// Errors that callers tell apart.
var (
	// ErrDead is the answer to whoever writes in the name of an epoch that was declared dead.
	ErrDead = errors.New("epoch is dead")
	// ErrInvalid is wrapped by what is told to a caller whose request is malformed.
	ErrInvalid = errors.New("invalid")
	// errContended: a value changed at every try.
	errContended = errors.New("presence: too much contention")
	// errLostAgain: a bucket was lost while it was being rewritten.
	errLostAgain = errors.New("presence: bucket lost during its rewrite")
)

// Options are the times and bounds. All are positive.
type Options struct {
	Prefix string
	// LeaseTTL is the time from renewal to due time; comets renew three times in it.
	LeaseTTL time.Duration
	// LeaseCache is how old a router's copy of the leases may be.
	LeaseCache time.Duration
	// WarmUp is how long after the lease set's birth nobody is called absent or dead.
	WarmUp time.Duration
	// LookGap is how long no router may have looked before the set counts as born again.
	LookGap time.Duration
	// MarkerWindow is the time in which renewals have looked at all of an epoch's markers.
	MarkerWindow time.Duration
	// EpochTombstone, ConnTombstone and RoomTombstone are how long the dead are remembered.
	EpochTombstone, ConnTombstone, RoomTombstone time.Duration
	// GhostAge is how old an entry must be that a rewrite didn't name, to be removed by it.
	GhostAge time.Duration
	// SettleDelay is the time from a change of a uid's sessions to its presence event.
	SettleDelay time.Duration
	// CountDelay is the time between two events of a room that is too large to be listed, for each 1,000 sessions in it.
	CountDelay time.Duration
	// PollInterval is the time between two looks for due work, ReapInterval for due leases.
	PollInterval, ReapInterval time.Duration
	// ClaimTime is how long work that was taken is held back from other routers.
	ClaimTime time.Duration
	// SweepInterval is the time in which all buckets are searched for what nobody owns; OrphanAge how long an epoch must have
	// been without lease.
	SweepInterval, OrphanAge time.Duration
	// LastSeenFor is how long a uid without session is remembered.
	LastSeenFor time.Duration
	// RedisTimeout bounds each trip, ProduceTimeout each write to Kafka.
	RedisTimeout, ProduceTimeout time.Duration
	// MemberLimit is the most sessions of a room whose uids are listed.
	MemberLimit int
	// AllPresenceEvents produces presence events that nobody watches, too.
	AllPresenceEvents bool
}

// Producer writes records to Kafka; it returns nil only when all are acknowledged.
type Producer interface {
	Produce(ctx context.Context, msgs ...kafka.Message) error
}

// Store is presence in one Redis.
type Store struct {
	opt      Options
	redis    redis.UniversalClient
	trips    *trips // for what many callers do at once
	keys     *keys
	log      *slog.Logger
	metrics  *Metrics
	producer Producer
	leases   *leaseTable
	markers  [name.Buckets]markerCache
	reapNow  chan struct{}
	events   chan kafka.Message // room.member events on their way to Kafka
	orphans  map[epoch]orphan   // the sweeper's alone
	sweepAt  int                // the sweeper's alone
	pageAt   [name.Buckets]uint64
}

// New returns a store. It sends nothing yet.
func New(c redis.UniversalClient, p Producer, log *slog.Logger, m *Metrics, o Options) *Store {
	s := &Store{
		opt: o, redis: c, trips: newTrips(c, o.RedisTimeout), keys: newKeys(o.Prefix), log: log, metrics: m, producer: p,
		reapNow: make(chan struct{}, 1), events: make(chan kafka.Message, eventQueue), orphans: make(map[epoch]orphan),
	}
	s.leases = newLeaseTable(s)
	return s
}

// Ready reports whether Redis answers.
func (s *Store) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.RedisTimeout)
	defer cancel()
	if err := s.redis.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return nil
}

// guard says in whose name a batch of edits is written.
type guard struct {
	epoch epoch // zero: nobody's
	mode  mode
	// buckets are visited even if no edit lies in them.
	buckets []int
}

type mode string

const (
	modeWrite mode = "w" // refused if the epoch is dead
	modeClose mode = "r" // the same, then the marker is set, unless the bucket was lost since the epoch wrote there
	modeDie   mode = "d" // makes the tombstone
	modeLeave mode = "x" // takes away: not refused, though ErrDead is told in the end
)

// edit changes one entry. plan gets the entry's present value and writes down what is to be done; it may be called
// again, with another value, and must then forget what it decided before.
type edit struct {
	bucket int
	field  string
	plan   func(old string, it *item) error
	// members, memberFields: a hash to be read with the entry; no fields: the whole of it. Its value is in memberValues when plan runs.
	members      string
	memberFields []string
	memberValues map[string]string
	// blind: the first try assumes that the entry is absent, instead of reading it.
	blind bool

	old   string
	known bool
	done  bool
	// gone: the item's connection has a tombstone; nothing was done.
	gone bool
}

// item is what a plan wants to be done, in the words of commit.lua.
type item struct {
	b    *batch
	none bool
	// again: the plan wants to read more first.
	again bool
}

// batch is one run of commit.lua in the making.
type batch struct {
	bucket int
	keys   []string
	args   []any
	edits  []*edit
}

// skip says that there is nothing to do.
func (it *item) skip()                  { it.none = true }
func (it *item) add(args ...any)        { it.b.args = append(it.b.args, args...) }
func (it *item) notGone(conn string)    { it.add("c", conn) }
func (it *item) list(field string)      { it.add("+", field) }
func (it *item) unlist(field string)    { it.add("-", field) }
func (it *item) bury(conn string)       { it.add("g", conn) }
func (it *item) finished(w claimedWork) { it.add("r", w.member, w.due) }
func (it *item) dueIn(work string, d time.Duration) {
	it.add("d", work, d.Milliseconds())
}

func (it *item) dueOnce(work string, d time.Duration) {
	it.add("i", work, d.Milliseconds())
}

// set stores an entry; an empty value removes it.
func (it *item) set(field, value string) {
	if value == "" {
		it.add("x", field)
		return
	}
	it.add("s", field, value)
}

func (it *item) member(key, uid, value string) {
	if value == "" {
		it.add("y", it.key(key), uid)
		return
	}
	it.add("h", it.key(key), uid, value)
}

func (it *item) score(key, member string, n uint32) { it.add("z", it.key(key), member, n) }

func (it *item) key(k string) int {
	for i := 6; i < len(it.b.keys); i++ {
		if it.b.keys[i] == k {
			return i + 1
		}
	}
	it.b.keys = append(it.b.keys, k)
	return len(it.b.keys)
}

// Bounds of writing. No settings: they keep single steps short; how long a caller waits in all is set by redis-timeout.
const (
	// batchItems is the most edits of a run of commit.lua, which keeps Redis from doing anything else meanwhile: some milliseconds.
	batchItems = 200
	// eventQueue is the most room.member events that wait for Kafka, a megabyte or two; those beyond it are dropped and counted.
	eventQueue = 4096
	// maxTries bounds a call that has no deadline; others end with their context. A try fails only because another's change
	// of the same entry went through, so as many as want the same entry at once, so many tries the last of them takes.
	maxTries = 500
	// pauseMost bounds the pause before a try.
	pauseMost = 16 * time.Millisecond
)

// giveWay waits before a try that others were faster than: not at all at first, then for a random time that grows, so that
// not all of them meet again.
func giveWay(ctx context.Context, try int) error {
	if try < 2 {
		return nil
	}
	most := min(time.Millisecond<<min(try-2, 10), pauseMost)
	t := time.NewTimer(mathrand.N(most))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errContended, ctx.Err())
	}
}

// apply carries out the edits and returns the buckets in which the epoch has no marker. Edits of one entry must be
// one edit. On ErrDead some may have been carried out.
func (s *Store) apply(ctx context.Context, g guard, edits []*edit) (lost []uint32, err error) {
	todo := edits
	t := tally{}
	for try := 0; try == 0 || len(todo) > 0; try++ {
		if try == maxTries {
			return nil, errContended
		}
		if err := giveWay(ctx, try); err != nil {
			return nil, err
		}
		if err := s.read(ctx, todo); err != nil {
			return nil, err
		}
		batches, err := s.build(g, todo, try == 0)
		if err != nil {
			return nil, err
		}
		if err := s.commit(ctx, g, batches, &t); err != nil {
			return nil, err
		}
		next := todo[:0:0]
		for _, e := range todo {
			if !e.done {
				next = append(next, e)
			}
		}
		if try > 0 {
			s.metrics.conflicts.Add(float64(len(next)))
		}
		todo = next
	}
	for b := range t.missing {
		lost = append(lost, uint32(b))
	}
	if t.dead {
		return lost, ErrDead
	}
	return lost, nil
}

// tally is what the runs of commit.lua tell of the epoch.
type tally struct {
	missing map[int]bool
	dead    bool
}

// build makes the runs of commit.lua. Edits for which nothing is to do are done then; their bucket is still
// visited if the guard names it.
func (s *Store) build(g guard, edits []*edit, first bool) ([]*batch, error) {
	var all []*batch
	var open [name.Buckets]*batch
	get := func(bucket int) *batch {
		if b := open[bucket]; b != nil && len(b.edits) < batchItems {
			return b
		}
		k := &s.keys.bucket[bucket]
		var list, id string
		if g.epoch != (epoch{}) {
			id = g.epoch.raw()
			list = s.keys.list(bucket, g.epoch)
		} else {
			list = k.tag + "l:"
		}
		b := &batch{bucket: bucket, keys: make([]string, 6, 8), args: make([]any, 4, 24)}
		b.keys[0], b.keys[1], b.keys[2], b.keys[3], b.keys[4], b.keys[5] = k.main, k.dead, list, k.due, k.gone, k.epochs
		b.args[0], b.args[1], b.args[2], b.args[3] = id, string(g.mode), "", s.opt.ConnTombstone.Milliseconds()
		if g.mode == modeClose {
			var v [8]byte
			_, _ = rand.Read(v[:])
			b.args[2] = string(v[:])
		}
		open[bucket] = b
		all = append(all, b)
		return b
	}
	if first {
		for _, bucket := range g.buckets {
			get(bucket)
		}
	}
	for _, e := range edits {
		b := open[e.bucket]
		if b == nil || len(b.edits) >= batchItems {
			b = get(e.bucket)
		}
		mark := len(b.args)
		it := item{b: b}
		b.args = append(b.args, 0, "=", e.field, e.old)
		if err := e.plan(e.old, &it); err != nil {
			return nil, err
		}
		if it.none || it.again {
			b.args = b.args[:mark]
			e.done = it.none
			e.known = !it.again
			continue
		}
		b.args[mark] = len(b.args) - mark - 1
		b.edits = append(b.edits, e)
	}
	out := all[:0]
	for _, b := range all {
		if len(b.edits) > 0 || first && len(g.buckets) > 0 {
			out = append(out, b)
		}
	}
	return out, nil
}

func (s *Store) commit(ctx context.Context, g guard, batches []*batch, t *tally) error {
	if len(batches) == 0 {
		return nil
	}
	calls := make([]*call, len(batches))
	for i, b := range batches {
		calls[i] = &call{script: commitScript, keys: b.keys, args: b.args}
	}
	if err := s.runJointly(ctx, calls); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	dead := false
	for i, b := range batches {
		res, err := calls[i].cmd.Slice()
		if err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		if len(res) < 2 {
			return errors.New("commit: short answer")
		}
		state, _ := res[0].(int64)
		switch state {
		case 1:
			if g.mode == modeWrite {
				if t.missing == nil {
					t.missing = make(map[int]bool)
				}
				t.missing[b.bucket] = true
			}
		case 2:
			dead = true
			continue
		case 3:
			return errLostAgain
		case 4:
			t.dead = true
		}
		if len(res) != len(b.edits)+2 {
			return errors.New("commit: short answer")
		}
		for j, e := range b.edits {
			switch v := res[j+2].(type) {
			case int64:
				switch v {
				case 0:
					e.done = true
				case 1:
					e.done, e.gone = true, true
				default:
					e.old, e.known = "", true
				}
			case string:
				e.old, e.known = v, true
			}
			if !e.done && e.members != "" {
				e.known = false // the members changed with the entry
			}
		}
	}
	if dead {
		return ErrDead
	}
	return nil
}

// read fetches the entries that aren't known, one HMGET for each bucket, in one trip.
func (s *Store) read(ctx context.Context, edits []*edit) error {
	var groups [name.Buckets][]*edit
	var order []int
	extra := 0
	for _, e := range edits {
		if e.known {
			continue
		}
		if e.blind {
			e.blind, e.known = false, true
			continue
		}
		if groups[e.bucket] == nil {
			order = append(order, e.bucket)
		}
		groups[e.bucket] = append(groups[e.bucket], e)
		if e.members != "" {
			extra++
		}
	}
	if len(order) == 0 {
		return nil
	}
	cmds := make([]*redis.SliceCmd, len(order))
	parts := make(map[*edit]*redis.SliceCmd, extra)
	whole := make(map[*edit]*redis.MapStringStringCmd, extra)
	_, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, bucket := range order {
			fields := make([]string, len(groups[bucket]))
			for j, e := range groups[bucket] {
				fields[j] = e.field
			}
			cmds[i] = p.HMGet(ctx, s.keys.bucket[bucket].main, fields...)
			for _, e := range groups[bucket] {
				switch {
				case e.members == "":
				case len(e.memberFields) > 0:
					parts[e] = p.HMGet(ctx, e.members, e.memberFields...)
				default:
					whole[e] = p.HGetAll(ctx, e.members)
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	for i, bucket := range order {
		for j, v := range cmds[i].Val() {
			e := groups[bucket][j]
			e.old, _ = v.(string)
			e.known = true
			if c := parts[e]; c != nil {
				e.memberValues = make(map[string]string, len(e.memberFields))
				for n, v := range c.Val() {
					if str, ok := v.(string); ok {
						e.memberValues[e.memberFields[n]] = str
					}
				}
			}
			if c := whole[e]; c != nil {
				e.memberValues = c.Val()
			}
		}
	}
	return nil
}

func bucketOf(tenant, n string) int { return int(name.Bucket(tenant, n)) }

// WithDefaults fills in the times that follow from others where they are 0.
func (o Options) WithDefaults() Options {
	if o.WarmUp == 0 {
		o.WarmUp = o.LeaseTTL/3 + time.Second
	}
	if o.LookGap == 0 {
		o.LookGap = max(o.LeaseTTL/3, time.Second)
	}
	if o.OrphanAge == 0 {
		o.OrphanAge = 4 * o.LeaseTTL
	}
	o.LeaseCache = min(o.LeaseCache, o.LeaseTTL/3)
	return o
}
