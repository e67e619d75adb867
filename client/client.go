package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// TokenReason is why a token is asked for.
type TokenReason string

// The reasons: the first one, one in the place of a token soon to expire, one in the place of a token that was refused.
const (
	ForConnect  TokenReason = "connect"
	ForExpiring TokenReason = "expiring"
	ForRefused  TokenReason = "refused"
)

// Backoff bounds the random wait before a try: it is below min(Max, Base · 2ⁿ) before the n-th.
type Backoff struct{ Base, Max time.Duration }

func (b Backoff) wait(attempt int, after time.Duration, random func() float64) time.Duration {
	bound := math.Min(float64(b.Max), float64(b.Base)*math.Pow(2, float64(min(attempt, 31))))
	return after + time.Duration(random()*bound)
}

// Options say where a Client connects, as whom, and whom it tells. Zero values mean the default in brackets.
type Options struct {
	// URL is ws://, wss://, tcp:// or tls://.
	URL string
	// Where is asked for each try in the place of URL. attempt is 0 at first and rises with each failure; when a server asks to
	// leave without saying where to, it is 1 at least.
	Where func(ctx context.Context, attempt int) (string, error)
	// Token returns a JWT.
	Token func(ctx context.Context, why TokenReason) (string, error)
	TLS   *tls.Config
	// Rooms to be in from the start.
	Rooms []string
	// Accepts are ops that pushes may have to reach this session; none: all.
	Accepts []int32
	// Backoff between tries [0.5 s, 30 s].
	Backoff Backoff
	// HandshakeTimeout is from connecting to the answer to the log-in [10 s].
	HandshakeTimeout time.Duration
	// HeartbeatTimeout is how long a heartbeat's answer may take [10 s].
	HeartbeatTimeout time.Duration
	// RequestTimeout is how long an answer may take, waiting for a connection included [10 s].
	RequestTimeout time.Duration
	// HoldTimeout is for how long what comes on a new connection is held back for the old one's rest [5 s].
	HoldTimeout time.Duration
	// Random returns numbers from 0 to 1 [math/rand].
	Random func() float64

	// The handlers; nil: nobody wants to know.

	// OnState is told each state.
	OnState func(State)
	// OnSession is told that a session has begun, in the place of the one before if there was one.
	OnSession func(s Session, first bool)
	// OnEvent is told events: name and body.
	OnEvent func(name string, body json.RawMessage)
	// OnPush is told pushes of a backend. body is the handler's to keep.
	OnPush func(op int32, body []byte)
}

func orElse[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

func (o *Options) fill() error {
	if o.Token == nil || o.URL == "" && o.Where == nil {
		return errors.New("client: URL or Where, and Token, must be given")
	}
	if o.Where == nil {
		url := o.URL
		o.Where = func(context.Context, int) (string, error) { return url, nil }
	}
	orElse(&o.Backoff, Backoff{500 * time.Millisecond, 30 * time.Second})
	orElse(&o.HandshakeTimeout, DialTimeout)
	orElse(&o.HeartbeatTimeout, silence)
	orElse(&o.RequestTimeout, 10*time.Second)
	orElse(&o.HoldTimeout, 5*time.Second)
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.OnState == nil {
		o.OnState = func(State) {}
	}
	if o.OnSession == nil {
		o.OnSession = func(Session, bool) {}
	}
	if o.OnEvent == nil {
		o.OnEvent = func(string, json.RawMessage) {}
	}
	if o.OnPush == nil {
		o.OnPush = func(int32, []byte) {}
	}
	return nil
}

// Session is who the session is, as the server sees it.
type Session struct {
	Tenant, UID string
	// Key is the session's: a backend reaches just this session by it.
	Key string
	// Connection is the connection's id; it changes with each.
	Connection string
	// ExpiresAt is zero if it never does.
	ExpiresAt time.Time
	// URL is where it is connected to.
	URL string
}

// StateName is what a client is at.
type StateName string

// The states.
const (
	Connecting StateName = "connecting"
	Online     StateName = "online"
	Waiting    StateName = "waiting"
	Closed     StateName = "closed"
)

// State is what a client is at.
type State struct {
	Name StateName
	// Attempt counts the tries that failed since the last good session.
	Attempt int
	// Session is the one that there is, while online.
	Session Session
	// Moving: the server asked to leave, and a new connection is on its way while this one still works.
	Moving bool
	// Until is when the next try is, while waiting.
	Until time.Time
	// Err is why it waits, or was closed.
	Err error
}

// settled is after what time a session counts as a good one, and the next wait starts from the shortest again.
const settled = 10 * time.Second

// maxHeld is how many frames are held back at most; beyond, order over two connections is given up rather than memory.
const maxHeld = 10_000

// held is an event, or a push.
type held struct {
	name string
	op   frame.Op
	raw  []byte
}

// Client keeps one session alive. Its methods are safe for any goroutine.
type Client struct {
	o     Options
	loop  *loop
	spawn func(func(ctx context.Context))
	wg    sync.WaitGroup

	// The rest belongs to the loop.
	state   State
	link    *link // carries requests; ready
	old     *link // after moving: the one that is being emptied
	opening bool
	moving  bool
	holding bool
	heldUp  []held
	rooms   map[string]bool
	seen    seen

	attempt, refused int
	readyAt          time.Time
	token            string
	connection       string
	// skew is the server's clock minus ours.
	skew    time.Duration
	epoch   int
	retry   *timer
	refresh *timer
	hold    *timer
	waiting map[*asked]bool
	over    bool
	err     error
}

// asked is a request that waits for a connection.
type asked struct {
	send  func(*link)
	fail  func(error)
	timer *timer
}

// New makes a Client; Run connects it.
func New(o Options) (*Client, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	c := &Client{o: o, loop: newLoop(), rooms: map[string]bool{}, waiting: map[*asked]bool{}, seen: seen{set: map[string]bool{}}}
	for _, room := range o.Rooms {
		c.rooms[room] = true
	}
	return c, nil
}

// Run connects and stays connected until ctx is done or coming back makes no sense: then it returns why. It is called once.
func (c *Client) Run(ctx context.Context) error {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer c.wg.Wait()
	defer cancel()
	c.spawn = func(f func(context.Context)) { c.wg.Go(func() { f(life) }) }
	stop := context.AfterFunc(ctx, func() { c.loop.post(func() { c.closeWith(ErrClosed) }) })
	defer stop()
	c.loop.post(c.try)
	c.loop.run()
	if errors.Is(c.err, ErrClosed) {
		return ctx.Err()
	}
	return c.err
}

// Request asks the server and waits for the answer, which it puts into result unless that is nil. Without a connection it waits for
// one. Errors are *Error: what the server said, `unavailable` if it was never sent, `unknown` if its outcome isn't known.
func (c *Client) Request(ctx context.Context, method string, params, result any) error {
	type answer struct {
		raw json.RawMessage
		err error
	}
	got := make(chan answer, 1)
	ok := c.loop.post(func() {
		c.ask(method, params, opOf(method), func(raw json.RawMessage, err error) { got <- answer{raw, err} })
	})
	if !ok {
		return ErrClosed
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case a := <-got:
		if a.err != nil || result == nil {
			return a.err
		}
		return json.Unmarshal(a.raw, result)
	case <-c.loop.done:
		return ErrClosed
	}
}

// Join puts the session into a room, and into it again after each reconnect.
func (c *Client) Join(ctx context.Context, room string) error {
	err := c.Request(ctx, "room.join", map[string]string{"room": room}, nil)
	if err == nil {
		c.loop.post(func() { c.rooms[room] = true })
	}
	return err
}

// Leave takes the session out of a room.
func (c *Client) Leave(ctx context.Context, room string) error {
	c.loop.post(func() { delete(c.rooms, room) })
	return c.Request(ctx, "room.leave", map[string]string{"room": room}, nil)
}

// RetryNow tries to connect at once instead of at the end of the wait.
func (c *Client) RetryNow() {
	c.loop.post(func() {
		if c.state.Name == Waiting {
			c.try()
		}
	})
}

// readers are the methods that only read, and overtake those that wait their turn.
var readers = []string{"conversation.list", "conversation.history", "conversation.members", "sync", "sync.cursor", "room.members"}

func opOf(method string) frame.Op {
	if slices.Contains(readers, method) {
		return frame.OpRequestUnordered
	}
	return frame.OpRequest
}

// ask is Request on the loop.
func (c *Client) ask(method string, params any, op frame.Op, done func(json.RawMessage, error)) {
	body, err := json.Marshal(map[string]any{method: params})
	if err != nil {
		done(nil, &Error{Code: errcode.InvalidRequest.Name, Message: err.Error()})
		return
	}
	if c.link != nil && !c.link.over {
		c.link.request(method, body, op, c.o.RequestTimeout, done)
		return
	}
	if c.over {
		done(nil, ErrClosed)
		return
	}
	until := time.Now().Add(c.o.RequestTimeout)
	a := &asked{fail: func(err error) { done(nil, err) }}
	a.send = func(l *link) { l.request(method, body, op, max(time.Millisecond, time.Until(until)), done) }
	a.timer = c.loop.after(c.o.RequestTimeout, func() {
		delete(c.waiting, a)
		a.fail(errorOf(errcode.Unavailable, "not connected"))
	})
	c.waiting[a] = true
}

func (c *Client) set(s State) {
	c.state = s
	c.o.OnState(s)
}

// online is whether requests can be sent.
func (c *Client) online() bool { return c.state.Name == Online && !c.over }

// try opens a connection, the first one or after a break.
func (c *Client) try() {
	if c.over {
		return
	}
	c.retry.stop()
	c.set(State{Name: Connecting, Attempt: c.attempt})
	c.open("", c.ready, c.failed)
}

// open dials on a goroutine. What became void meanwhile is closed and told to nobody.
func (c *Client) open(url string, ready func(*link), failed func(*Error)) {
	c.epoch++
	c.opening = true
	epoch, token, attempt, why := c.epoch, c.token, c.attempt, ForConnect
	if c.link != nil {
		attempt = max(attempt, 1)
	}
	if c.refused > 0 {
		why = ForRefused
	}
	auth := &halleyv1.Auth{Accepts: c.o.Accepts}
	for room := range c.rooms {
		auth.Rooms = append(auth.Rooms, room)
	}
	slices.Sort(auth.Rooms)
	if c.connection != "" {
		auth.Resume = &halleyv1.Resume{Replaces: c.connection}
	}
	c.spawn(func(ctx context.Context) {
		l, err := func() (*link, error) {
			if url == "" {
				var err error
				if url, err = c.o.Where(ctx, attempt); err != nil {
					return nil, err
				}
			}
			if token == "" {
				var err error
				if token, err = c.o.Token(ctx, why); err != nil {
					return nil, err
				}
			}
			auth.Token = token
			return c.dial(ctx, url, auth)
		}()
		ok := c.loop.post(func() {
			if epoch != c.epoch || c.over {
				if l != nil {
					c.spawn(func(context.Context) { _ = l.conn.Close() })
				}
				return
			}
			c.opening = false
			c.token = token
			if err != nil {
				failed(asError(err))
			} else {
				ready(l)
			}
		})
		if !ok && l != nil {
			_ = l.conn.Close()
		}
	})
}

func (c *Client) ready(l *link) {
	if old := c.link; old != nil {
		// Moved: requests go to the new one; what comes there waits until the old one is empty, that is closed.
		c.old, c.holding, c.heldUp = old, true, nil
		c.hold = c.loop.after(c.o.HoldTimeout, c.release)
	}
	c.link, c.moving = l, false
	first := c.connection == ""
	r := l.reply
	c.readyAt, c.refused, c.connection = time.Now(), 0, r.GetConnection()
	if at := r.GetServerTime(); at > 0 {
		c.skew = time.Until(time.UnixMilli(int64(at)))
	}
	s := Session{Tenant: r.GetTenant(), UID: r.GetUid(), Key: r.GetKey(), Connection: r.GetConnection(), URL: l.url}
	if r.GetExpiresAt() > 0 {
		s.ExpiresAt = time.UnixMilli(int64(r.GetExpiresAt()))
	}
	c.scheduleRefresh(l, s.ExpiresAt)
	c.set(State{Name: Online, Session: s})
	c.o.OnSession(s, first)
	waiting := c.waiting
	c.waiting = map[*asked]bool{}
	for a := range waiting {
		a.timer.stop()
		a.send(l)
	}
	// Only now: nothing may be handed over before the session is told.
	c.spawn(func(context.Context) { l.read() })
}

func (c *Client) failed(err *Error) {
	switch {
	case err.ofToken() && c.refused == 0:
		// A newer token may help, once. If that is refused too, the next try won't be better.
		c.refused++
		c.token = ""
		if c.attempt == 0 {
			c.attempt++
			c.try()
			return
		}
	case !err.Retry:
		c.closeWith(err)
		return
	}
	wait := c.o.Backoff.wait(c.attempt, err.RetryAfter, c.o.Random)
	c.attempt++
	c.retry = c.loop.after(wait, c.try)
	c.set(State{Name: Waiting, Attempt: c.attempt, Until: time.Now().Add(wait), Err: err})
}

// ended is told by a link that is over.
func (c *Client) ended(l *link, err *Error) {
	if l == c.old {
		c.release()
		return
	}
	if l != c.link || c.over {
		return
	}
	c.release()
	c.refresh.stop()
	// Only a session that lasted proves that all is well: else a server that takes everybody in and throws them out again would
	// be stormed.
	if time.Since(c.readyAt) > settled {
		c.attempt = 0
	}
	c.link = nil
	if c.moving && c.opening {
		// The old one is gone already: the new one is now simply the one being opened.
		c.moving = false
		c.set(State{Name: Connecting, Attempt: c.attempt})
		return
	}
	c.moving = false
	c.retry.stop()
	c.epoch++
	c.failed(err)
}

func (c *Client) closeWith(err error) {
	if c.over {
		return
	}
	c.over = true
	c.err = err
	c.epoch++
	c.retry.stop()
	c.refresh.stop()
	c.hold.stop()
	links := []*link{c.link, c.old}
	c.link, c.old = nil, nil
	for _, l := range links {
		if l != nil {
			l.end(&Error{Code: "closed"})
		}
	}
	for a := range c.waiting {
		a.timer.stop()
		a.fail(ErrClosed)
	}
	clear(c.waiting)
	c.set(State{Name: Closed, Err: err})
	c.loop.stop()
}

// ---- moving to another server ----

func (c *Client) goAway(url string, grace time.Duration) {
	if c.state.Name != Online || c.moving {
		return
	}
	c.moving = true
	s := c.state
	s.Moving = true
	c.set(s)
	// The server paces its waves; this only takes the edge off one.
	jitter := time.Duration(c.o.Random() * float64(min(time.Second, grace/4)))
	c.retry = c.loop.after(jitter, func() { c.move(url) })
}

func (c *Client) move(url string) {
	c.open(url, c.ready, func(err *Error) {
		if c.link == nil {
			// The old one is gone already: this is a try like any other.
			c.failed(err)
			return
		}
		if !err.Retry {
			return // Its end will tell.
		}
		c.retry = c.loop.after(c.o.Backoff.wait(c.attempt, err.RetryAfter, c.o.Random), func() { c.move("") })
		c.attempt++
	})
}

// release ends the old connection, if there is one, and hands over what was held back.
func (c *Client) release() {
	if !c.holding {
		return
	}
	c.hold.stop()
	old, heldUp := c.old, c.heldUp
	c.old, c.holding, c.heldUp = nil, false, nil
	if old != nil {
		old.end(errorOf(errcode.GoingAway, "moved to another connection"))
	}
	for _, h := range heldUp {
		c.deliver(c.link, h)
	}
}

// incoming is told by a link what came.
func (c *Client) incoming(l *link, h held) {
	switch {
	case l == c.link && c.holding:
		if c.heldUp = append(c.heldUp, h); len(c.heldUp) > maxHeld {
			c.release()
		}
	case l == c.link || l == c.old:
		c.deliver(l, h)
	}
}

func (c *Client) deliver(l *link, h held) {
	switch h.name {
	case "":
		c.o.OnPush(int32(h.op), h.raw)
		return
	case "room.message":
		var m struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(h.raw, &m) == nil && !c.seen.add(m.ID) {
			return
		}
	case "go_away":
		var away struct {
			URL     string  `json:"url"`
			GraceMs float64 `json:"grace_ms"`
		}
		if json.Unmarshal(h.raw, &away) == nil && l != nil && l == c.link {
			c.goAway(away.URL, time.Duration(away.GraceMs)*time.Millisecond)
		}
	}
	c.o.OnEvent(h.name, h.raw)
}

// ---- the token's life ----

func (c *Client) scheduleRefresh(l *link, expires time.Time) {
	c.refresh.stop()
	if expires.IsZero() {
		return
	}
	left := time.Until(expires.Add(-c.skew))
	// A fifth of its life ahead, a minute at most: time for several tries.
	ahead := min(time.Minute, left/5)
	var renew func()
	again := func(error) {
		if l == c.link {
			c.refresh = c.loop.after(max(time.Second, ahead/4), renew)
		}
	}
	renew = func() {
		c.spawn(func(ctx context.Context) {
			token, err := c.o.Token(ctx, ForExpiring)
			c.loop.post(func() {
				if err != nil || l != c.link {
					again(err)
					return
				}
				c.ask("session.refresh", map[string]string{"token": token}, frame.OpRequest, func(raw json.RawMessage, err error) {
					var r struct {
						ExpiresAt float64 `json:"expires_at"`
					}
					if err != nil || l != c.link || json.Unmarshal(raw, &r) != nil {
						again(err)
						return
					}
					c.token = token
					var until time.Time
					if r.ExpiresAt > 0 {
						until = time.UnixMilli(int64(r.ExpiresAt))
					}
					if c.state.Name == Online {
						s := c.state
						s.Session.ExpiresAt = until
						c.set(s)
					}
					c.scheduleRefresh(l, until)
				})
			})
		})
	}
	c.refresh = c.loop.after(max(0, left-ahead), renew)
}

// seen remembers the last ids, to know what comes twice.
type seen struct {
	set   map[string]bool
	order []string
}

func (s *seen) add(id string) bool {
	if id == "" {
		return true
	}
	if s.set[id] {
		return false
	}
	s.set[id] = true
	if s.order = append(s.order, id); len(s.order) > 1000 {
		delete(s.set, s.order[0])
		s.order = s.order[1:]
	}
	return true
}
