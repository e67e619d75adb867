// Package rooms stores at router which rooms this comet has sessions in. Per room one change is in flight; it
// carries the count as state, so that changes which come while one is in flight become one. A change is tried again
// until it is stored or the epoch is dead. It owns one loop and the calls that this starts.
package rooms

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/comet/internal/table"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// Listed is the number of members up to which a room's uids are listed. It is the protocol's: clients are told of members one by
// one up to here, and all comets must agree.
const Listed = 200

// Config holds what storing needs to know.
type Config struct {
	// Batch is the most changes in a call, Calls the most calls at once.
	Batch, Calls int
	Timeout      time.Duration
	Retry        time.Duration
	Limits       session.RoomLimits
}

// Lease is what stored changes are stored under.
type Lease interface {
	// Conn returns comet's name and present epoch.
	Conn() (comet, epoch string)
	// Dead tells that router declared the epoch dead.
	Dead(epoch string)
	// Lost tells of buckets that have to be written again.
	Lost(epoch string, buckets []uint32)
}

// Store stores rooms. Use New, then Run.
type Store struct {
	cfg    Config
	table  *table.Table
	router halleyv1.RouterClient
	lease  Lease
	log    *slog.Logger

	number atomic.Uint64 // of changes; it goes on over epochs, so that none is ever lower than one before

	mu    sync.Mutex
	dirty []*session.Room
	wake  chan struct{}
}

// state is what is known of a room at router; guarded by the room's lock.
type state struct {
	epoch    string
	queued   bool // in Store.dirty
	inflight bool
	unknown  bool   // a change failed: it may have been stored or not
	listed   bool   // router lists the room's uids
	stored   uint64 // version that is stored
	reported []string
	waiting  []waiter
}

type waiter struct {
	version uint64
	done    chan error // has room for the one answer
}

// New returns a Store; it starts nothing.
func New(cfg Config, t *table.Table, router halleyv1.RouterClient, lease Lease, log *slog.Logger) *Store {
	return &Store{cfg: cfg, table: t, router: router, lease: lease, log: log, wake: make(chan struct{}, 1)}
}

// Join puts a session into a room. The ticket waits until router knows; fresh tells whether the session wasn't
// in the room before. goim marks it as the one room that op 12 changes.
func (st *Store) Join(s *session.Session, room string, goim bool) (t *Ticket, fresh bool, err error) {
	tenant := s.Who().Tenant
	full := table.Name(tenant, room)
	r, res := s.Join(full, st.cfg.Limits, goim, func() *session.Room { return st.table.OpenRoom(tenant, full) })
	switch res {
	case session.TooMany:
		st.unused(full)
		if name.RoomType(room) == name.RoomTypePresence {
			return nil, false, errcode.TooManyWatched
		}
		return nil, false, errcode.TooManyRooms
	case session.Ended:
		st.unused(full)
		return nil, false, errcode.GoingAway
	}
	return st.changed(r, true), res == session.Joined, nil
}

// unused drops a room that was opened for a session that couldn't join it.
func (st *Store) unused(fullName string) {
	r := st.table.Room(fullName)
	if r == nil {
		return
	}
	defer r.Unlock()
	// One that has had members is dropped when router knows that they left.
	if version, _ := r.Lock(); version == 0 && !r.Dead() {
		r.Kill()
		st.table.DropRoom(r)
	}
}

// Leave takes a session out of a room.
func (st *Store) Leave(s *session.Session, room string) *Ticket {
	r := s.Leave(table.Name(s.Who().Tenant, room))
	if r == nil {
		return nil
	}
	return st.changed(r, true)
}

// Left stores that a session, which has ended, is out of its rooms.
func (st *Store) Left(rooms []*session.Room) {
	for _, r := range rooms {
		st.changed(r, false)
	}
}

// Ticket waits for a change to be stored.
type Ticket struct{ done chan error }

// Wait returns nil when the change is stored.
func (t *Ticket) Wait(ctx context.Context) error {
	if t == nil {
		return nil
	}
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return errcode.Unavailable
	}
}

// of returns the state of a locked room.
func of(r *session.Room) *state {
	if r.Sync == nil {
		r.Sync = new(state)
	}
	return r.Sync.(*state)
}

func (st *Store) changed(r *session.Room, wait bool) *Ticket {
	version, _ := r.Lock()
	y := of(r)
	if y.stored >= version && !y.inflight {
		r.Unlock()
		return nil
	}
	var t *Ticket
	if wait {
		t = &Ticket{make(chan error, 1)}
		y.waiting = append(y.waiting, waiter{version, t.done})
	}
	queue := !y.queued && !y.inflight
	if queue {
		y.queued = true
	}
	r.Unlock()
	if queue {
		st.push(r)
	}
	return t
}

func (st *Store) push(rooms ...*session.Room) {
	st.mu.Lock()
	st.dirty = append(st.dirty, rooms...)
	st.mu.Unlock()
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// Pending returns the number of rooms that wait to be stored.
func (st *Store) Pending() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.dirty)
}

// Run stores changes until ctx ends, and returns when no call is under way.
func (st *Store) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, st.cfg.Calls)
	for {
		select {
		case <-ctx.Done():
			return
		case <-st.wake:
		}
		for {
			st.mu.Lock()
			n := min(len(st.dirty), st.cfg.Batch)
			batch := slices.Clone(st.dirty[:n])
			st.dirty = slices.Delete(st.dirty, 0, n)
			st.mu.Unlock()
			if n == 0 {
				break
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				defer func() { <-slots }()
				st.store(ctx, batch)
			})
		}
	}
}

// store makes one call for a batch of rooms.
func (st *Store) store(ctx context.Context, batch []*session.Room) {
	comet, epoch := st.lease.Conn()
	req := &halleyv1.UpdateRoomsRequest{Comet: comet, Epoch: epoch}
	rooms := make([]*session.Room, 0, len(batch))
	versions := make([]uint64, 0, len(batch))
	for _, r := range batch {
		if c, v, _ := st.begin(r, epoch, false); c != nil {
			req.Changes = append(req.Changes, c)
			rooms = append(rooms, r)
			versions = append(versions, v)
		}
	}
	if len(rooms) == 0 {
		return
	}
	cctx, cancel := context.WithTimeout(ctx, st.cfg.Timeout)
	resp, err := st.router.UpdateRooms(cctx, req)
	cancel()
	dead := err == nil && resp.GetStatus() == halleyv1.EpochStatus_EPOCH_STATUS_DEAD
	ok := err == nil && !dead
	if err != nil && ctx.Err() == nil {
		st.log.Warn("rooms not stored, trying again", "rooms", len(rooms), "err", err)
		// One pause for the whole batch: router is away for all of them.
		select {
		case <-ctx.Done():
		case <-time.After(st.cfg.Retry):
		}
	}
	for i, r := range rooms {
		if ok && i < len(resp.GetCounts()) {
			r.Total.Store(resp.GetCounts()[i])
		}
		st.end(r, req.Changes[i], versions[i], epoch, ok)
	}
	if dead {
		st.lease.Dead(epoch)
	}
	if ok && len(resp.GetLostBuckets()) > 0 {
		st.lease.Lost(epoch, resp.GetLostBuckets())
	}
}

// begin takes a room's change for a call. It returns nil if there is nothing to store, or one is in flight, which busy tells.
// full makes a change that names all uids.
func (st *Store) begin(r *session.Room, epoch string, full bool) (c *halleyv1.RoomChange, version uint64, busy bool) {
	version, members := r.Lock()
	defer r.Unlock()
	y := of(r)
	// A rewrite says nothing of a room that is empty: that the last one left is told by a change of its own, which is queued.
	if full && len(members) == 0 && !y.inflight {
		if !y.queued && !r.Dead() {
			r.Kill()
			st.table.DropRoom(r)
		}
		return nil, 0, false
	}
	y.queued = false
	if y.inflight || r.Dead() {
		return nil, 0, y.inflight
	}
	if y.epoch != epoch {
		y.epoch, y.stored, y.reported, y.listed, y.unknown = epoch, 0, nil, false, false
	}
	if y.stored >= version && !full {
		st.settle(r, y, version, len(members))
		return nil, 0, false
	}
	c = &halleyv1.RoomChange{Tenant: r.Tenant, Room: r.Name(), Number: st.number.Add(1), Count: uint32(len(members))}
	// Rooms of the system have no member list.
	c.Listed = len(members) <= Listed && !name.RoomReserved(c.Room)
	if c.Listed {
		have := uids(members)
		if full || y.unknown || !y.listed {
			c.Joined = have
		} else {
			c.Joined = without(have, y.reported)
		}
		c.Left = without(y.reported, have)
	}
	y.inflight = true
	return c, version, false
}

// end takes the outcome of a room's change.
func (st *Store) end(r *session.Room, c *halleyv1.RoomChange, version uint64, epoch string, ok bool) {
	now, members := r.Lock()
	y := of(r)
	y.inflight = false
	again := true
	if y.epoch == epoch {
		if ok {
			y.stored, y.unknown, y.listed = version, false, c.GetListed()
			if c.GetListed() {
				y.reported = merge(without(y.reported, c.GetLeft()), c.GetJoined())
			} else {
				y.reported = nil
			}
			again = y.stored < now
		} else {
			y.unknown = true
			y.reported = merge(y.reported, c.GetJoined())
		}
	}
	st.settle(r, y, now, len(members))
	again = again && !y.queued
	if again {
		y.queued = true
	}
	r.Unlock()
	if again {
		st.push(r)
	}
}

// settle answers those who wait for what is stored, and drops a room that is empty and stored so; the room is
// locked.
func (st *Store) settle(r *session.Room, y *state, version uint64, members int) {
	left := y.waiting[:0]
	for _, w := range y.waiting {
		if w.version <= y.stored {
			w.done <- nil
			continue
		}
		left = append(left, w)
	}
	clear(y.waiting[len(left):])
	y.waiting = left
	if len(left) == 0 {
		y.waiting = nil
	}
	if members == 0 && y.stored >= version && !y.inflight {
		r.Kill()
		st.table.DropRoom(r)
	}
}

// All stores every room again, in a new epoch: n at a time, after each of which it calls pace. It returns when the last ones are
// queued, or with pace's error.
func (st *Store) All(ctx context.Context, n int, pace func(ctx context.Context, n int) error) error {
	var rooms, queue []*session.Room
	for i := range table.Shards {
		rooms = st.table.RoomsOf(rooms[:0], i)
		for chunk := range slices.Chunk(rooms, n) {
			queue = queue[:0]
			for _, r := range chunk {
				r.Lock()
				if y := of(r); !y.queued && !y.inflight {
					y.queued = true
					queue = append(queue, r)
				}
				r.Unlock()
			}
			if len(queue) > 0 {
				st.push(queue...)
			}
			if err := pace(ctx, len(chunk)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Bucket hands all rooms of a bucket to write, as full changes in chunks of at most n, and takes the outcome.
// It waits for rooms that have a change in flight: what a rewrite doesn't name is removed.
func (st *Store) Bucket(ctx context.Context, bucket uint32, epoch string, n int, write func([]*halleyv1.RoomChange) error) error {
	var shard, all []*session.Room
	for i := range table.Shards {
		shard = st.table.RoomsOf(shard[:0], i)
		for _, r := range shard {
			if name.Bucket(r.Tenant, r.Name()) == bucket {
				all = append(all, r)
			}
		}
	}
	for deadline := time.Now().Add(2 * st.cfg.Timeout); len(all) > 0; {
		chunk := all[:min(n, len(all))]
		all = all[len(chunk):]
		var changes []*halleyv1.RoomChange
		var rooms, busy []*session.Room
		var versions []uint64
		for _, r := range chunk {
			switch c, v, inflight := st.begin(r, epoch, true); {
			case c != nil:
				changes, rooms, versions = append(changes, c), append(rooms, r), append(versions, v)
			case inflight:
				busy = append(busy, r)
			}
		}
		all = append(all, busy...)
		if len(changes) == 0 {
			if len(busy) == 0 {
				continue
			}
			if time.Now().After(deadline) {
				return errcode.Unavailable
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(10 * time.Millisecond): // about as long as the call in flight takes
			}
			continue
		}
		err := write(changes)
		for i, r := range rooms {
			st.end(r, changes[i], versions[i], epoch, err == nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Count asks for the counts of all rooms that heartbeats are answered with.
func (st *Store) Count(ctx context.Context) error {
	// A call's worth: a few milliseconds of Redis' time.
	const most = 5000
	var rooms, counted []*session.Room
	for i := range table.Shards {
		rooms = st.table.RoomsOf(rooms[:0], i)
		for _, r := range rooms {
			if r.Counted() {
				counted = append(counted, r)
			}
		}
	}
	for chunk := range slices.Chunk(counted, most) {
		req := &halleyv1.CountRoomsRequest{}
		for _, r := range chunk {
			req.Rooms = append(req.Rooms, &halleyv1.Name{Tenant: r.Tenant, Name: &halleyv1.Name_Room{Room: r.Name()}})
		}
		cctx, cancel := context.WithTimeout(ctx, st.cfg.Timeout)
		resp, err := st.router.CountRooms(cctx, req)
		cancel()
		if err != nil {
			return err
		}
		for i, n := range resp.GetCounts() {
			if i < len(chunk) {
				chunk[i].Total.Store(n)
			}
		}
	}
	return nil
}

// uids returns the uids of members, sorted, each once.
func uids(members []*session.Session) []string {
	list := make([]string, 0, len(members))
	for _, s := range members {
		if u := s.Who().UID(); u != "" {
			list = append(list, u)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// without returns what is in a and not in b; both are sorted.
func without(a, b []string) []string {
	if len(b) == 0 {
		return a
	}
	var out []string
	for _, x := range a {
		if _, in := slices.BinarySearch(b, x); !in {
			out = append(out, x)
		}
	}
	return out
}

// merge returns what is in a or b, sorted, each once.
func merge(a, b []string) []string {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}
