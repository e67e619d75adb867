package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// slack is how long after its acceptance a push may have been under way when something broke.
const slack = 3 * time.Second

// underWay is how long before the beginning of a fault a push may have been accepted that it hits.
const underWay = 500 * time.Millisecond

// User is a client that keeps one session, as the SDK does: it comes back when the connection breaks, and moves when it is
// asked to. It keeps account of numbered pushes and of what it was told.
type User struct {
	UID       string
	Transport string
	Rooms     []string
	// Flows are the names of the flows that reach it.
	Flows []string
	// Key is the session key that its tokens claim, if any.
	Key string

	secrets Secrets
	comets  []*Node
	claims  Claims

	mu       sync.Mutex
	since    time.Time // what users are told concerns nothing from before the fault at work
	at       int       // index into comets
	conn     *Session
	online   bool
	got      map[string]map[int]int
	newest   map[string]int
	told     []Told
	repeats  []time.Time
	disorder []disorder
	logins   int
	refused  map[string]int
	strange  []string
}

// Told is how a user learned that it may have missed something: its connection broke, or an event said so.
type Told struct {
	How string
	// From and To bound when the pushes were accepted that it may have missed.
	From, To time.Time
	Dropped  uint32
}

type disorder struct {
	at   time.Time
	text string
}

// NewUser makes a user who prefers the comet of an index.
func (c *Cluster) NewUser(uid, transport string, comet int, claims Claims) *User {
	if claims == nil {
		claims = Claims{}
	}
	return &User{
		UID: uid, Transport: transport, secrets: c.Secrets, comets: c.Comets, claims: claims, at: comet,
		got: map[string]map[int]int{}, newest: map[string]int{}, refused: map[string]int{},
	}
}

// live keeps the user's session until ctx ends.
func (u *User) live(ctx context.Context) {
	for ctx.Err() == nil {
		s, ok := u.login(ctx, "")
		if !ok {
			u.mu.Lock()
			u.at = (u.at + 1) % len(u.comets)
			u.mu.Unlock()
			pause(ctx, 200*time.Millisecond)
			continue
		}
		// A session that takes over from another one goes on where that one ended.
		for newest := map[string]int{}; s != nil; {
			s = u.read(ctx, s, newest)
		}
	}
}

// strike notes that a fault begins: nothing accepted before it is excused by what users are told from now on.
func (u *User) strike(at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.since = at.Add(-underWay)
}

// latest returns the later of two times.
func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// login opens a session at the comet that the user is at, and notes that it is online.
func (u *User) login(ctx context.Context, replaces string) (*Session, bool) {
	u.mu.Lock()
	n := u.comets[u.at]
	u.mu.Unlock()
	claims := Claims{"rooms": u.Rooms}
	for k, v := range u.claims {
		claims[k] = v
	}
	auth := &halleyv1.Auth{Token: u.secrets.User(u.UID, claims), Rooms: u.Rooms}
	if replaces != "" {
		auth.Resume = &halleyv1.Resume{Replaces: replaces}
	}
	s, err := n.Login(u.Transport, auth)
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		if code := Code(err); code != "" {
			u.refused[code]++
		}
		return nil, false
	}
	if ctx.Err() != nil {
		s.Close()
		return nil, false
	}
	u.logins++
	u.conn = s
	u.online = true
	if i := len(u.told) - 1; i >= 0 && u.told[i].How == "broken" && u.told[i].To.IsZero() {
		u.told[i].To = time.Now().Add(time.Second)
	}
	return s, true
}

// read takes frames until the connection ends. It returns the session that the user moved to when it was asked
// to, or nil. newest are the numbers that came last, of each flow, on this connection and those that it took over from.
func (u *User) read(ctx context.Context, s *Session, newest map[string]int) (next *Session) {
	defer s.Close()
	beat := time.Now()
	lastFrame := time.Now()
	for {
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(beat) > 5*time.Second {
			beat = time.Now()
			_ = s.Send(frame.OpHeartbeat, 0, nil) // the next read tells if it is over
		}
		f, err := s.Conn.Next(100 * time.Millisecond)
		switch {
		case errors.Is(err, ErrTimeout):
			continue
		case err != nil:
			u.mu.Lock()
			moved := next != nil
			if !moved {
				u.online = false
				u.told = append(u.told, Told{How: "broken", From: latest(lastFrame.Add(-slack), u.since)})
				u.at = (u.at + 1) % len(u.comets)
			}
			if !Closed(err) {
				u.strange = append(u.strange, fmt.Sprintf("%s: %v", u.UID, err))
			}
			u.mu.Unlock()
			return next
		}
		lastFrame = time.Now()
		switch {
		case isStream(f):
			u.take(f, newest)
		case f.Op == frame.OpEvent:
			if u.event(f) && next == nil {
				// As the SDK: the new connection first, what it brings is read once this one has ended.
				u.mu.Lock()
				u.at = (u.at + 1) % len(u.comets)
				u.mu.Unlock()
				if moved, ok := u.login(ctx, s.Auth.GetConnection()); ok {
					next = moved
				}
			}
		}
	}
}

// event notes what an event tells, and reports whether it asks the user to leave.
func (u *User) event(f Frame) (leave bool) {
	e, err := ParseEvent(f.Body)
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case err != nil:
		u.strange = append(u.strange, fmt.Sprintf("%s: %v", u.UID, err))
	case e.GetLagged() != nil:
		u.told = append(u.told, Told{How: "lagged", From: u.since, To: now, Dropped: e.GetLagged().GetDropped()})
	case e.GetResync() != nil:
		u.told = append(u.told, Told{How: "resync", From: u.since, To: now})
	case e.GetGoAway() != nil:
		return true
	}
	return false
}

// take notes a numbered push.
func (u *User) take(f Frame, newest map[string]int) {
	name, n, ok := parseNumbered(f.Body)
	u.mu.Lock()
	defer u.mu.Unlock()
	if !ok {
		u.strange = append(u.strange, fmt.Sprintf("%s: push %q", u.UID, f.Body))
		return
	}
	if u.got[name] == nil {
		u.got[name] = map[int]int{}
	}
	u.got[name][n]++
	switch {
	case u.got[name][n] > 1:
		u.repeats = append(u.repeats, time.Now())
	case n < newest[name]:
		u.disorder = append(u.disorder, disorder{time.Now(), fmt.Sprintf("%s: %s %d after %d", u.UID, name, n, newest[name])})
	}
	newest[name] = max(newest[name], n)
	u.newest[name] = max(u.newest[name], n)
}

func (u *User) has(flow string, n int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.got[flow][n] > 0
}

func (u *User) last(flow string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.newest[flow]
}

// Online reports whether the user has a session as far as it knows.
func (u *User) Online() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.online
}

// count returns how often the user has logged in.
func (u *User) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.logins
}

// Comet returns the name of the comet that the user is at, or was last.
func (u *User) Comet() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.comets[u.at].Name
}

// Connection returns the id of the user's connection.
func (u *User) Connection() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conn == nil {
		return ""
	}
	return u.conn.Auth.GetConnection()
}

// Told returns what the user was told since a time.
func (u *User) Told(since time.Time) []Told {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []Told
	for _, t := range u.told {
		if t.To.IsZero() || t.To.After(since) {
			out = append(out, t)
		}
	}
	return out
}

// toldOf reports whether the user was told that it may have missed a push accepted at that time.
func (u *User) toldOf(at time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.told {
		if at.After(t.From) && (t.To.IsZero() || at.Before(t.To)) {
			return true
		}
	}
	return false
}

// report counts repeats, and returns the disorder that no change of connection explains, between two times.
func (u *User) report(from, to time.Time) (repeats int, out []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, at := range u.repeats {
		if at.After(from) && !at.After(to) {
			repeats++
		}
	}
	for _, d := range u.disorder {
		if d.at.After(from) && !d.at.After(to) && !u.changedAround(d.at) {
			out = append(out, d.text)
		}
	}
	return repeats, out
}

// changedAround reports whether the user had just come back: a push that was looked up again, since the session had moved,
// may come after a later one.
func (u *User) changedAround(at time.Time) bool {
	for _, t := range u.told {
		if at.After(t.From) && (t.To.IsZero() || at.Before(t.To.Add(5*time.Second))) {
			return true
		}
	}
	return false
}
