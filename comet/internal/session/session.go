// Package session is one connection's state: who it is, what waits to be written to it and who may write. It
// owns the socket's writing side; reading is transport's, what frames mean is the caller's.
//
// Exactly one goroutine writes to a socket at a time: whoever finds Session.writing unset and sets it. That is
// a walker, the session's own reader (answers), or, once the socket takes no more, one goroutine that waits
// for it. All locks are leaves, in this order: Room.mu, then Session.mu.
package session

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unique"

	"github.com/halley-im/halley/comet/internal/outbox"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Host is what all sessions of a comet share.
type Host struct {
	// OutboxBytes bounds an outbox over all lanes.
	OutboxBytes int
	// WriteTimeout is how long a write may make no progress.
	WriteTimeout time.Duration
	// CloseGrace is how long a closed session may take what is left and hang up itself.
	CloseGrace time.Duration
	// Ended is called once, when a session stops being addressable: before its last bytes are written. It must
	// not wait.
	Ended func(s *Session, reason string)
	// Closed is called once, when the socket is closed and the reader gone.
	Closed func(s *Session)
	// Count is called with what a flush wrote.
	Count *Counters
	// Unaccepted is called with the number of messages that waited for a session and are not among the ops that it turned out to
	// accept.
	Unaccepted func(n int)
	// Background holds the goroutines that wait for sockets.
	Background sync.WaitGroup
}

// Counters are sums over all sessions.
type Counters struct {
	Writes, Messages, Bytes       atomic.Int64
	Blocked                       atomic.Int64
	DroppedVolatile, ReplacedRest atomic.Int64
	Discarded                     atomic.Int64
}

type state uint8

const (
	pending state = iota // accepted, not authenticated: what comes for it waits
	live
	closing // not addressable; what is queued is still written
	shut    // all is written, waiting for the client to hang up
	closed
)

// Transport says what the connection is.
type Transport struct {
	WS, TLS bool
}

// String returns tcp, tls, ws or wss.
func (t Transport) String() string {
	switch {
	case t.WS && t.TLS:
		return "wss"
	case t.WS:
		return "ws"
	case t.TLS:
		return "tls"
	}
	return "tcp"
}

// Session is one connection, authenticated or not yet. Its fields before mu never change after New or Bind.
type Session struct {
	// ID is the connection's counter within this process; never reused.
	ID        uint64
	Transport Transport
	host      *Host
	conn      net.Conn        // what is read and written
	raw       syscall.RawConn // nil for TLS: no raw writes
	// Remote is the client's address without port.
	Remote string
	// ConnectedAt is when the connection was accepted, in milliseconds since 1970.
	ConnectedAt int64

	who Identity

	// due is when the scanner has to look at the session, readDue when half a frame is too old; both in Now's
	// nanoseconds, 0 for never.
	due, readDue atomic.Int64
	// alive is when the client last did what extends its life.
	alive atomic.Int64

	mu        sync.Mutex
	state     state
	writing   bool
	queued    bool // in a walker's list
	urgent    bool // in a walker's list for now
	held      bool // nothing is written before the auth reply
	asked     bool // logic is being asked who it is, or was
	doomed    bool // it missed something that it can't be told of: it gets nothing more, and ends
	acceptAll bool
	q         outbox.Queue
	lastWrite int64
	accepts   []int32
	links     []*Link
	goim      *Link
	idle      time.Duration
	expires   int64 // Now's nanoseconds; 0 never
	closeDue  int64
	// grants are those of many sessions: their tokens differ, what they grant mostly doesn't.
	grants unique.Handle[string]
	more   *more

	// Entered and Admitted belong to the gate: what the connection is counted for.
	Entered, Admitted bool
	// Reader belongs to the goroutine that reads.
	Reader Reader

	// Bound is whether the table finds the session by its names.
	Bound atomic.Bool
	// NextUID links the sessions of a uid; guarded by the table's shard.
	NextUID *Session
}

// more is what few sessions need, or for moments only: most are goim's, or idle. Guarded by Session.mu.
type more struct {
	rest     []byte        // what a short write left
	room     chan struct{} // closed when replies were written while the reader waited
	heard    *heard        // until it is known who the session is
	deferred []func()
	catching bool // Open is carrying out what was deferred
	reqs     Requests
}

// extra returns the session's more, which is made when it is first needed; s.mu is held.
func (s *Session) extra() *more {
	if s.more == nil {
		s.more = new(more)
	}
	return s.more
}

// Reader is what the goroutine that reads from a session keeps between two reads.
type Reader struct {
	// Authed is whether the auth frame was accepted.
	Authed bool
	// Woke is when the reader last had something to read.
	Woke int64
	// Tokens and Filled are the bucket that limits the session's requests.
	Tokens float32
	Filled int64
}

// Identity is who a session is. The zero value is nobody: not authenticated.
type Identity struct {
	Tenant string
	// UIDName and KeyName are tenant NUL uid and tenant NUL key; UIDName is empty without a uid.
	UIDName, KeyName string
	Device, Platform string
	Signed           bool
	IssuedAt         int64
}

// UID returns the uid alone.
func (i *Identity) UID() string {
	if i.UIDName == "" {
		return ""
	}
	return i.UIDName[len(i.Tenant)+1:]
}

// Key returns the session key alone.
func (i *Identity) Key() string {
	if i.KeyName == "" {
		return ""
	}
	return i.KeyName[len(i.Tenant)+1:]
}

var started = time.Now()

// Now returns the nanoseconds since the process started, by the monotonic clock.
func Now() int64 { return int64(time.Since(started)) }

// New makes a pending session of conn. deadline is when it is closed unless it was bound before.
func New(host *Host, id uint64, conn net.Conn, tr Transport, deadline int64) *Session {
	s := &Session{ID: id, Transport: tr, host: host, conn: conn, held: true}
	s.ConnectedAt = time.Now().UnixMilli()
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	s.due.Store(deadline)
	return s
}

// sock returns the TCP connection below the session's.
func (s *Session) sock() net.Conn {
	if t, ok := s.conn.(*tls.Conn); ok {
		return t.NetConn()
	}
	return s.conn
}

// Conn returns the connection to read from.
func (s *Session) Conn() net.Conn { return s.conn }

// Raw returns the raw connection; nil where reads can't park.
func (s *Session) Raw() syscall.RawConn { return s.raw }

// Who returns the session's identity, which must not be changed; before Bind it is nobody's.
func (s *Session) Who() *Identity { return &s.who }

// Proto returns the session as the other roles see it.
func (s *Session) Proto(conn *halleyv1.Conn) *halleyv1.Session {
	return &halleyv1.Session{
		Tenant: s.who.Tenant, Uid: s.who.UID(), Key: s.who.Key(), DeviceId: s.who.Device, Platform: s.who.Platform,
		Signed: s.who.Signed, Conn: conn, ConnectedAtMs: s.ConnectedAt, RemoteAddr: s.Remote, IssuedAtMs: s.who.IssuedAt,
	}
}

// SetIdentity says who the session is; once, before it is put into a table of names. What waits for it and excludes who it turns
// out to be is gone then. It returns how many pushes to all came into the outbox by it.
func (s *Session) SetIdentity(who Identity, idle time.Duration) int {
	s.mu.Lock()
	s.who = who
	s.idle = idle
	s.acceptAll = who.Signed
	s.q.Retain(s.meant)
	n := s.recall()
	s.mu.Unlock()
	return n
}

// Live returns the session's identity if it is authenticated and addressable, else nil.
func (s *Session) Live() *Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != live {
		return nil
	}
	return &s.who
}

// HasEnded reports whether the session has ended, though its last bytes may still be on their way.
func (s *Session) HasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state >= closing
}

// Result is what Enqueue did.
type Result uint8

// Results of Enqueue.
const (
	// Gone: the session has ended.
	Gone Result = iota
	// Unwanted: the session's filter keeps it out.
	Unwanted
	// Foreign: the message is of the protocol's own, which goim's sessions have no part in. To whoever asks whom it reached, nobody
	// is there.
	Foreign
	// Excluded: the message is not for this session, as far as it is known yet who that is.
	Excluded
	// Queued: somebody will write it without the caller's doing.
	Queued
	// WriteNow: the caller hands the session to a walker, to be written at once.
	WriteNow
	// WriteLater: the caller hands it to a walker, to be written within the window.
	WriteLater
	// Overflow: the session can't be told of a gap. The caller closes it, outside all locks.
	Overflow
)

// known reports whether it is known who the session is; s.mu is held.
func (s *Session) known() bool { return s.who.KeyName != "" }

// meant reports whether a message is for the session, of which it is known who it is; s.mu is held.
func (s *Session) meant(m *outbox.Message) bool {
	if m.Tenant != "" && m.Tenant != s.who.Tenant {
		return false
	}
	return m.Except == nil || !m.Except.Has(s.who.UID(), s.who.Key())
}

// own reports whether a message is of the protocol's own operations.
func own(m *outbox.Message) bool { return m.Op() >= 100 && m.Op() < 200 }

// wants reports whether the session gets a push; s.mu is held.
func (s *Session) wants(m *outbox.Message) bool {
	op := m.Op()
	if own(m) {
		if !s.who.Signed {
			return false
		}
		if op == frame.OpEvent {
			return true
		}
	}
	if !m.Filtered || s.acceptAll {
		return true
	}
	for _, a := range s.accepts {
		if frame.Op(a) == op {
			return true
		}
	}
	return false
}

// Enqueue puts m into the outbox. A session that wasn't written to for the length of the window is to be
// written to now, and so is one with something urgent.
func (s *Session) Enqueue(m *outbox.Message, now, window int64) Result {
	s.mu.Lock()
	switch {
	case s.state >= closing || s.doomed:
		s.mu.Unlock()
		return Gone
	case s.known() && !s.meant(m):
		s.mu.Unlock()
		return Excluded
	case !s.known() && m.Tenant != "":
		s.hear(m)
		s.mu.Unlock()
		return Excluded
	case s.state == live && !s.wants(m):
		r := Unwanted
		if !s.who.Signed && own(m) {
			r = Foreign
		}
		s.mu.Unlock()
		return r
	}
	if s.push(m) {
		if !s.who.Signed && s.state == live {
			// It can't be told of the gap, so nothing behind the gap may reach it: somebody may write to it until the
			// caller ends it.
			s.host.Count.Discarded.Add(int64(s.q.Clear()))
			s.held, s.doomed = true, true
			s.mu.Unlock()
			return Overflow
		}
	}
	r := Queued
	switch {
	case s.writing || s.held || s.urgent:
	case m.Rank() <= outbox.RankUrgent || !s.queued && (window == 0 || now-s.lastWrite >= window):
		s.urgent = true
		r = WriteNow
	case !s.queued:
		s.queued = true
		r = WriteLater
	}
	s.mu.Unlock()
	return r
}

// push puts m into the queue and reports whether that dropped anything, which it counts; s.mu is held.
func (s *Session) push(m *outbox.Message) (dropped bool) {
	d := s.q.Push(m, s.host.OutboxBytes)
	if d == (outbox.Dropped{}) {
		return false
	}
	s.host.Count.DroppedVolatile.Add(int64(d.Volatile))
	s.host.Count.ReplacedRest.Add(int64(d.Stored))
	return true
}

// Reply puts an answer into the outbox; Flush writes it. It is refused when the session is closing.
func (s *Session) Reply(m *outbox.Message) {
	s.mu.Lock()
	if s.state == live {
		s.q.Push(m, s.host.OutboxBytes)
	}
	s.mu.Unlock()
}

// Control writes a WebSocket control frame, authenticated or not, by way of the outbox: a second writer would
// tear frames. Only the reader calls it.
func (s *Session) Control(m *outbox.Message) {
	s.mu.Lock()
	if s.state >= closing {
		s.mu.Unlock()
		return
	}
	if !s.held || s.writing {
		s.q.Push(m, s.host.OutboxBytes)
		s.mu.Unlock()
		s.Flush(nil)
		return
	}
	// What is held back stays so: the auth reply is the first frame that the client sees.
	s.writing = true
	s.extra().rest = m.Bytes(true)
	s.mu.Unlock()
	s.background()
}

// full reports whether so many replies wait that the session must not be read from.
func (s *Session) full() bool { return s.q.ReplyBytes() > s.host.OutboxBytes/2 }

// Throttle flushes and waits if so many replies are queued that the session must not be read from.
func (s *Session) Throttle() {
	s.mu.Lock()
	full := s.full()
	s.mu.Unlock()
	if full {
		s.Flush(nil)
		s.WaitRoom()
	}
}

// WaitRoom returns when the outbox has room for replies again, or the session has ended.
func (s *Session) WaitRoom() {
	for {
		s.mu.Lock()
		if !s.full() || s.state >= shut {
			s.mu.Unlock()
			return
		}
		x := s.extra()
		if x.room == nil {
			x.room = make(chan struct{})
		}
		room := x.room
		s.mu.Unlock()
		<-room
	}
}

// wake lets a reader go on that waits for room; s.mu is held.
func (s *Session) wake() {
	if s.more != nil && s.more.room != nil && (!s.full() || s.state >= shut) {
		close(s.more.room)
		s.more.room = nil
	}
}

// Grants returns what logic wants to be handed with each request.
func (s *Session) Grants() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grants == (unique.Handle[string]{}) {
		return nil
	}
	return []byte(s.grants.Value())
}

// SetGrants keeps what logic wants to be handed with each request.
func (s *Session) SetGrants(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants = unique.Make(string(b))
}

// SetAccepts replaces the filter of pushed ops.
func (s *Session) SetAccepts(all bool, ops []int32) {
	s.mu.Lock()
	s.acceptAll, s.accepts = all, ops
	s.mu.Unlock()
}

// maxAccepts bounds a session's list of accepted ops, which a client can make as long as it likes. No setting: whoever wants more
// ops than a hundredth of that accepts all of them.
const maxAccepts = 4096

// Accept adds ops to the filter, or takes them out.
func (s *Session) Accept(ops []int32, add bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := make(map[int32]bool, len(s.accepts))
	for _, op := range s.accepts {
		have[op] = true
	}
	for _, op := range ops {
		have[op] = add
	}
	next := make([]int32, 0, len(have))
	for op, in := range have {
		if in && len(next) < maxAccepts {
			next = append(next, op)
		}
	}
	s.accepts = next
	// A signed session accepts everything until it names what it wants.
	if add {
		s.acceptAll = false
	}
}

// SetExpiry says when the session ends; 0 is never.
func (s *Session) SetExpiry(unixMilli int64) {
	now := Now()
	s.mu.Lock()
	s.expires = 0
	if unixMilli != 0 {
		s.expires = max(now+int64(time.Until(time.UnixMilli(unixMilli))), 1)
	}
	if s.state == live {
		s.redue(now)
	}
	s.mu.Unlock()
}

// Alive notes that the client did what extends its life.
func (s *Session) Alive(now int64) { s.alive.Store(now) }

// ReadBy sets when the frame that is being read must be complete; 0: nothing is being read.
func (s *Session) ReadBy(deadline int64) { s.readDue.Store(deadline) }

// redue computes when the scanner must look again; s.mu is held.
func (s *Session) redue(now int64) {
	var due int64
	if s.state == live {
		if s.idle > 0 {
			due = s.alive.Load() + int64(s.idle)
		}
		if s.expires != 0 && (due == 0 || s.expires < due) {
			due = s.expires
		}
	} else {
		due = s.closeDue
	}
	s.due.Store(due)
}

// Scan ends the session if one of its times has come. It is called for every session, every second or so,
// and must cost nothing for those whose time has not.
func (s *Session) Scan(now int64) {
	if due := s.due.Load(); due != 0 && now >= due {
		s.check(now)
	}
	if due := s.readDue.Load(); due != 0 && now >= due {
		s.CloseNow("half_frame")
	}
}

func (s *Session) check(now int64) {
	s.mu.Lock()
	s.redueLive(now)
	var code *errcode.Code
	switch {
	case s.state == pending && s.closeDue == 0:
		code = errcode.HandshakeTimeout
	case s.state == live && s.expires != 0 && now >= s.expires:
		code = errcode.TokenExpired
	case s.state == live && s.idle > 0 && now >= s.alive.Load()+int64(s.idle):
		code = errcode.IdleTimeout
	case s.state >= closing && now >= s.closeDue:
		s.mu.Unlock()
		s.CloseNow("close_grace")
		return
	}
	s.mu.Unlock()
	if code != nil {
		s.Close(Cause{Code: code})
	}
}

func (s *Session) redueLive(now int64) {
	if s.state == live {
		s.redue(now)
	}
}

// Tidy gives back memory that the session doesn't need while idle, and returns the bytes in its outbox.
func (s *Session) Tidy() int {
	if !s.mu.TryLock() {
		return 0
	}
	defer s.mu.Unlock()
	if !s.writing {
		s.q.Trim()
	}
	return s.q.Bytes()
}
