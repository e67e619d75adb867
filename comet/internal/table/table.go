// Package table finds the sessions of a comet: by connection id, session key, uid and room, each name within
// its tenant. All tables are sharded; a shard's lock covers map operations only. It starts no goroutine.
package table

import (
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/halley-im/halley/comet/internal/session"
)

// shards divide the locks, which are held for a map operation only: enough that processors seldom meet at one.
const shards = 64

// Table holds the sessions of a comet. Use New.
type Table struct {
	start string // first part of this process' connection ids
	next  atomic.Uint64
	count atomic.Int64
	bound atomic.Int64
	rooms atomic.Int64
	seed  maphash.Seed

	conns  [shards]connShard
	keys   [shards]nameShard[*session.Session]
	uids   [shards]nameShard[*session.Session]
	byRoom [shards]nameShard[*session.Room]
}

type connShard struct {
	mu sync.RWMutex
	m  map[uint64]*session.Session
}

type nameShard[T any] struct {
	mu sync.RWMutex
	m  map[string]T
}

// New returns an empty table of a process whose connection ids begin with start.
func New(start string) *Table {
	t := &Table{start: start, seed: maphash.MakeSeed()}
	for i := range shards {
		t.conns[i].m = make(map[uint64]*session.Session)
		t.keys[i].m = make(map[string]*session.Session)
		t.uids[i].m = make(map[string]*session.Session)
		t.byRoom[i].m = make(map[string]*session.Room)
	}
	return t
}

// Name joins a tenant and a name as the table's keys do.
func Name(tenant, name string) string { return tenant + "\x00" + name }

func (t *Table) shard(name string) int { return int(maphash.String(t.seed, name) % shards) }

// NextID returns the number of the next connection: 1, 2, 3 …
func (t *Table) NextID() uint64 { return t.next.Add(1) }

// ConnID returns the connection id of a session.
func (t *Table) ConnID(s *session.Session) string {
	b := make([]byte, 0, len(t.start)+21)
	b = append(append(b, t.start...), '.')
	return string(strconv.AppendUint(b, s.ID, 10))
}

// Len returns the number of connections, authenticated or not.
func (t *Table) Len() int { return int(t.count.Load()) }

// Bound returns the number of authenticated sessions.
func (t *Table) Bound() int { return int(t.bound.Load()) }

// Rooms returns the number of rooms.
func (t *Table) Rooms() int { return int(t.rooms.Load()) }

// Add puts a connection into the table, so that it can be addressed by its id.
func (t *Table) Add(s *session.Session) {
	sh := &t.conns[s.ID%shards]
	sh.mu.Lock()
	sh.m[s.ID] = s
	sh.mu.Unlock()
	t.count.Add(1)
}

// Remove takes a connection out.
func (t *Table) Remove(s *session.Session) {
	sh := &t.conns[s.ID%shards]
	sh.mu.Lock()
	_, ok := sh.m[s.ID]
	delete(sh.m, s.ID)
	sh.mu.Unlock()
	if ok {
		t.count.Add(-1)
	}
}

// Conn returns the connection with that id, or nil.
func (t *Table) Conn(id string) *session.Session {
	start, n, ok := strings.Cut(id, ".")
	if !ok || start != t.start {
		return nil
	}
	num, err := strconv.ParseUint(n, 10, 64)
	if err != nil {
		return nil
	}
	sh := &t.conns[num%shards]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.m[num]
}

// Bind makes a session found by its names. It returns the session that had the key before, if any: the newer
// one is found by it from now on. But an unsigned session never takes a signed one's key, and of two signed ones the older connection never
// takes the younger one's: then it is bound by none of its names, and ok is false. Router sees to that between comets; here it matters when
// the older log-in is answered later.
func (t *Table) Bind(s *session.Session) (older *session.Session, ok bool) {
	who := s.Who()
	sh := &t.keys[t.shard(who.KeyName)]
	sh.mu.Lock()
	older = sh.m[who.KeyName]
	if older != nil && older.Who().Signed && (!who.Signed || older.ID > s.ID) {
		sh.mu.Unlock()
		return nil, false
	}
	sh.m[who.KeyName] = s
	sh.mu.Unlock()
	if who.UIDName != "" {
		us := &t.uids[t.shard(who.UIDName)]
		us.mu.Lock()
		s.NextUID = us.m[who.UIDName]
		us.m[who.UIDName] = s
		us.mu.Unlock()
	}
	t.bound.Add(1)
	s.Bound.Store(true)
	return older, true
}

// Unbind takes a session's names out, each only if it is still this session's. It may be called at any time,
// and again; it reports whether it was this call that did it.
func (t *Table) Unbind(s *session.Session) bool {
	if !s.Bound.CompareAndSwap(true, false) {
		return false
	}
	who := s.Who()
	sh := &t.keys[t.shard(who.KeyName)]
	sh.mu.Lock()
	if sh.m[who.KeyName] == s {
		delete(sh.m, who.KeyName)
	}
	sh.mu.Unlock()
	if who.UIDName != "" {
		us := &t.uids[t.shard(who.UIDName)]
		us.mu.Lock()
		unlink(us, who.UIDName, s)
		us.mu.Unlock()
	}
	t.bound.Add(-1)
	return true
}

// unlink takes s out of the list of a uid's sessions; the shard is locked.
func unlink(sh *nameShard[*session.Session], uid string, s *session.Session) {
	head := sh.m[uid]
	if head == s {
		if s.NextUID == nil {
			delete(sh.m, uid)
		} else {
			sh.m[uid] = s.NextUID
		}
		s.NextUID = nil
		return
	}
	for p := head; p != nil; p = p.NextUID {
		if p.NextUID == s {
			p.NextUID = s.NextUID
			s.NextUID = nil
			return
		}
	}
}

// Key returns the session with a key, or nil.
func (t *Table) Key(fullName string) *session.Session {
	sh := &t.keys[t.shard(fullName)]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.m[fullName]
}

// UID appends the sessions of a uid to dst.
func (t *Table) UID(dst []*session.Session, fullName string) []*session.Session {
	sh := &t.uids[t.shard(fullName)]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	for s := sh.m[fullName]; s != nil; s = s.NextUID {
		dst = append(dst, s)
	}
	return dst
}

// Room returns a room, or nil.
func (t *Table) Room(fullName string) *session.Room {
	sh := &t.byRoom[t.shard(fullName)]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.m[fullName]
}

// OpenRoom returns a room, which is made if it isn't there.
func (t *Table) OpenRoom(tenant, fullName string) *session.Room {
	sh := &t.byRoom[t.shard(fullName)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.m[fullName]
	if r == nil {
		r = session.NewRoom(tenant, fullName)
		sh.m[fullName] = r
		t.rooms.Add(1)
	}
	return r
}

// DropRoom takes a room out, which the caller has marked dead.
func (t *Table) DropRoom(r *session.Room) {
	sh := &t.byRoom[t.shard(r.FullName)]
	sh.mu.Lock()
	if sh.m[r.FullName] == r {
		delete(sh.m, r.FullName)
		t.rooms.Add(-1)
	}
	sh.mu.Unlock()
}

// Shards is the number of parts in which Conns and RoomsOf go through the table.
const Shards = shards

// Conns appends the connections of one shard to dst.
func (t *Table) Conns(dst []*session.Session, shard int) []*session.Session {
	sh := &t.conns[shard]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	for _, s := range sh.m {
		dst = append(dst, s)
	}
	return dst
}

// RoomsOf appends the rooms of one shard to dst.
func (t *Table) RoomsOf(dst []*session.Room, shard int) []*session.Room {
	sh := &t.byRoom[shard]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	for _, r := range sh.m {
		dst = append(dst, r)
	}
	return dst
}
