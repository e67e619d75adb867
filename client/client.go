package client

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

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
	done  chan struct{}

	// The rest belongs to the loop.
	state   State
	link    *link // carries requests; ready
	old     *link // after moving: the one that is being emptied
	opening bool
	moving  bool
	holding bool
	heldUp  []held
	rooms   map[string]bool
	watched map[string]bool
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
	c := &Client{o: o, loop: newLoop(), done: make(chan struct{}), rooms: map[string]bool{}, watched: map[string]bool{}, waiting: map[*asked]bool{}, seen: seen{set: map[string]bool{}}}
	for _, room := range o.Rooms {
		c.rooms[room] = true
	}
	return c, nil
}

// Run connects and stays connected until ctx is done or coming back makes no sense: then it returns why. It is called once.
func (c *Client) Run(ctx context.Context) error {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer close(c.done)
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

// Done is closed when Run has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

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

// SendFrame sends an application's frame (op 1000 and above) to the host's backend; without a connection it is dropped. There is no
// answer.
func (c *Client) SendFrame(op int32, body []byte) {
	c.loop.post(func() {
		if c.link != nil && !c.link.over {
			// A write that fails shows in the reader as well.
			_, _ = c.link.conn.Send(frame.Op(op), body)
		}
	})
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
	if strings.HasPrefix(method, "call.") || method == "ice.servers" {
		// Not behind what waits for a database.
		return frame.OpRequestCall
	}
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
	auth.Rooms = fitting(c.rooms)
	if c.connection != "" {
		auth.Resume = &halleyv1.Resume{Replaces: c.connection}
	}
	asked := auth.GetRooms()
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
				return
			}
			l.asked = asked
			ready(l)
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
	c.bringRooms(l)
	c.scheduleRefresh(l, s.ExpiresAt)
	c.set(State{Name: Online, Session: s})
	c.o.OnSession(s, first)
	if len(c.watched) > 0 {
		// The server keeps watches by connection. What it answers is told like any change.
		c.watch(slices.Collect(maps.Keys(c.watched)), func(json.RawMessage, error) {})
	}
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
