package session

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/halley-im/halley/proto/name"
)

// Room is a room's part on this comet.
type Room struct {
	Tenant string
	// FullName is tenant NUL name.
	FullName string
	// Total is the number of sessions in the room over all comets, as last heard from router.
	Total atomic.Uint32

	mu      sync.RWMutex
	members []*Session
	links   []*Link
	goim    int // members whose one goim room it is
	// version counts the changes of members. What depends on the room's state at router belongs to rooms.
	version uint64
	dead    bool
	// Sync belongs to the package rooms.
	Sync any
}

// Link is one session's membership of one room.
type Link struct {
	room *Room
	idx  int32 // place in room.members; -1 before it is there and after it is gone
	gone bool
	goim bool
}

// NewRoom returns an empty room.
func NewRoom(tenant, fullName string) *Room { return &Room{Tenant: tenant, FullName: fullName} }

// Name returns the room's name without its tenant.
func (r *Room) Name() string { return r.FullName[len(r.Tenant)+1:] }

// Len returns the number of sessions of this comet in the room.
func (r *Room) Len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.members)
}

// Count returns the best count of the sessions in the room over all comets: router's, but at least those
// here.
func (r *Room) Count() uint32 { return max(r.Total.Load(), uint32(r.Len())) }

// Counted reports whether somebody's heartbeats are answered with the room's count.
func (r *Room) Counted() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.goim > 0
}

// Each calls f for every member under the room's lock: f must not wait, and must not make anybody leave.
func (r *Room) Each(f func(*Session)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.members {
		f(s)
	}
}

// Members returns the sessions in the room.
func (r *Room) Members() []*Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.members)
}

// Lock locks the room and returns its version and members, which must not be kept. It is for rooms, which
// reads and changes the room's state at router under the same lock.
func (r *Room) Lock() (version uint64, members []*Session) {
	r.mu.Lock()
	return r.version, r.members
}

// Unlock ends Lock.
func (r *Room) Unlock() { r.mu.Unlock() }

// Kill marks an empty room as gone from the table, so that nobody joins it any more. The room is locked.
func (r *Room) Kill() { r.dead = true }

// Dead reports whether the room is gone from the table. The room is locked.
func (r *Room) Dead() bool { return r.dead }

// add makes s a member. It returns false if the room is dead: the caller looks it up again.
func (r *Room) add(s *Session, l *Link) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead {
		return false
	}
	if l.gone {
		return true
	}
	l.idx = int32(len(r.members))
	r.members = append(r.members, s)
	r.links = append(r.links, l)
	if l.goim {
		r.goim++
	}
	r.version++
	return true
}

// remove ends a membership.
func (r *Room) remove(l *Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.gone {
		return
	}
	l.gone = true
	if l.idx < 0 {
		return
	}
	last := len(r.members) - 1
	r.members[l.idx], r.links[l.idx] = r.members[last], r.links[last]
	r.links[l.idx].idx = l.idx
	r.members[last], r.links[last] = nil, nil
	r.members, r.links = r.members[:last], r.links[:last]
	if cap(r.members) > 64 && last < cap(r.members)/4 {
		r.members, r.links = slices.Clone(r.members), slices.Clone(r.links)
	}
	l.idx = -1
	if l.goim {
		r.goim--
	}
	r.version++
}

// count makes the room one whose count is asked for, on behalf of a member.
func (r *Room) count(l *Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !l.gone && !l.goim {
		l.goim = true
		if l.idx >= 0 {
			r.goim++
		}
	}
}

// RoomLimits bounds the rooms of one session.
type RoomLimits struct {
	// User bounds rooms that clients and backends name, Presence the watched users, System all other rooms of
	// reserved types.
	User, Presence, System int
}

// JoinResult is what Join did.
type JoinResult uint8

// Results of Join.
const (
	// Joined: the session is in the room now.
	Joined JoinResult = iota
	// Already: it was before.
	Already
	// TooMany: it is in as many rooms as it may be.
	TooMany
	// Ended: the session has ended.
	Ended
)

// Join puts the session into the room that get returns; get is called again when the room it returned turned
// out to be dead.
func (s *Session) Join(fullName string, limits RoomLimits, goim bool, get func() *Room) (*Room, JoinResult) {
	l := &Link{idx: -1, goim: goim}
	for {
		r := get()
		s.mu.Lock()
		if s.state >= closing {
			s.mu.Unlock()
			return nil, Ended
		}
		if have := s.link(fullName); have != nil {
			room := have.room
			if goim {
				s.goim = have
			}
			s.mu.Unlock()
			if goim {
				room.count(have)
			}
			return room, Already
		}
		if s.tooMany(r.Name(), limits) {
			s.mu.Unlock()
			return nil, TooMany
		}
		l.room = r
		s.links = append(s.links, l)
		if goim {
			s.goim = l
		}
		s.mu.Unlock()
		if r.add(s, l) {
			return r, Joined
		}
		s.unlink(l)
	}
}

// link returns the session's membership of a room, or nil; s.mu is held.
func (s *Session) link(fullName string) *Link {
	for _, l := range s.links {
		if l.room.FullName == fullName {
			return l
		}
	}
	return nil
}

func (s *Session) tooMany(room string, limits RoomLimits) bool {
	class := func(room string) int {
		switch {
		case !name.RoomReserved(room):
			return limits.User
		case name.RoomType(room) == name.RoomTypePresence:
			return limits.Presence
		}
		return limits.System
	}
	limit := class(room)
	if len(s.links) < limit {
		return false
	}
	reserved, typ, n := name.RoomReserved(room), name.RoomType(room) == name.RoomTypePresence, 0
	for _, l := range s.links {
		other := l.room.Name()
		if name.RoomReserved(other) == reserved && (name.RoomType(other) == name.RoomTypePresence) == typ {
			n++
		}
	}
	return n >= limit
}

func (s *Session) unlink(l *Link) {
	s.mu.Lock()
	if i := slices.Index(s.links, l); i >= 0 {
		s.links = slices.Delete(s.links, i, i+1)
		if len(s.links) == 0 {
			s.links = nil
		}
	}
	if s.goim == l {
		s.goim = nil
	}
	s.mu.Unlock()
}

// Leave takes the session out of a room. It returns the room, or nil if the session wasn't in it.
func (s *Session) Leave(fullName string) *Room {
	s.mu.Lock()
	l := s.link(fullName)
	s.mu.Unlock()
	if l == nil {
		return nil
	}
	s.unlink(l)
	l.room.remove(l)
	return l.room
}

// LeaveAll takes the session, which has ended, out of all rooms and returns them.
func (s *Session) LeaveAll() []*Room {
	s.mu.Lock()
	links := s.links
	s.links, s.goim = nil, nil
	s.mu.Unlock()
	rooms := make([]*Room, 0, len(links))
	for _, l := range links {
		l.room.remove(l)
		rooms = append(rooms, l.room)
	}
	return rooms
}

// Rooms returns the names of the rooms that the session is in, without tenant.
func (s *Session) Rooms() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, len(s.links))
	for i, l := range s.links {
		names[i] = l.room.Name()
	}
	return names
}

// GoimRoom returns the one room that goim's op 12 changes; nil without.
func (s *Session) GoimRoom() *Room {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.goim == nil {
		return nil
	}
	return s.goim.room
}
