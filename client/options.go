package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"time"
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
