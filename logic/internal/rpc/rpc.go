// Package rpc is what comets ask of logic: Connect makes a session of a connection's auth body, Requests is a comet's stream
// of clients' frames. Each method of a request is a small handler in a table, one file per family.
//
// The package keeps nothing between requests: what one needs to know of its session comes with it. A stream has a goroutine that
// answers and one for each request under way, and waits for them. Safe for concurrent use.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc"

	"github.com/halley-im/halley/logic/internal/auth"
	calls "github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/room"
	"github.com/halley-im/halley/logic/internal/turn"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// Config is the policy of sessions.
type Config struct {
	// MaxPerUID is the most sessions that a uid may have at once; 0: no limit.
	MaxPerUID uint32 `name:"max-per-uid" help:"Most sessions of one uid at once; 0: no limit." default:"20"`
	// Refuse refuses the new session when a uid has its most; else the oldest is replaced.
	Refuse bool `help:"Refuse the new session when a uid has its most, instead of replacing the oldest."`
	// NewestWins are platforms of which a uid has one session only, the newest; "*": all platforms.
	NewestWins []string `help:"Platforms of which a uid has one session only, the newest; * means every platform."`

	// Heartbeat is how often a signed session's client should send op 2.
	Heartbeat time.Duration `help:"How often clients are told to send a heartbeat." default:"30s"`
	// IdleTimeout is how long a signed session lives without op 2 or a request.
	IdleTimeout time.Duration `help:"How long a session lives without a heartbeat or a request." default:"75s"`
	// GoimHeartbeat is goim's advice to its clients; their sessions live GoimHeartbeatMax times as long without op 2.
	GoimHeartbeat    time.Duration `help:"Heartbeat of goim's clients." default:"240s"`
	GoimHeartbeatMax int           `help:"Heartbeats of goim's clients that may be missed." default:"2"`
	// GoimTenant is the tenant of goim's unsigned sessions.
	GoimTenant string `help:"Tenant of goim's unsigned sessions." default:"default"`

	// Watch is the most uids that a session may watch.
	Watch int `help:"Most users that one session may watch." default:"50"`
	// WatchRules say whether sessions may watch presence where their token doesn't: "everyone" or "nobody", and "TENANT=everyone" or
	// "TENANT=nobody" for single tenants.
	WatchRules []string `help:"Whose presence sessions may watch: everyone or nobody; TENANT=everyone or TENANT=nobody for single tenants. A token's claim watch goes first." default:"everyone"`
	// RoomBodyBytes is the largest body of room.send.
	RoomBodyBytes int64 `help:"Largest body of room.send, in bytes." default:"32768"`
	// ReplaceTimeout is how long a new session waits until those that it replaced are sure to be told.
	ReplaceTimeout time.Duration `help:"How long a new session waits until those that it replaces are sure to be told." default:"2s"`
	// ResumeLinger is how long a connection on another comet lives on after a new one took over from it.
	ResumeLinger time.Duration `help:"How long a connection on another comet lives on after a new one has taken over from it: until that one is in its rooms." default:"1s"`
}

// Validate checks the policy.
func (c Config) Validate() error {
	switch {
	case c.Heartbeat <= 0 || c.IdleTimeout <= c.Heartbeat:
		return errors.New("session: heartbeat must be more than 0 and less than idle-timeout")
	case c.GoimHeartbeat <= 0 || c.GoimHeartbeatMax < 1:
		return errors.New("session: goim-heartbeat must be more than 0, goim-heartbeat-max at least 1")
	case c.Watch < 1 || c.RoomBodyBytes < 1 || c.ReplaceTimeout <= 0 || c.ResumeLinger < 0:
		return errors.New("session: watch, room-body-bytes and replace-timeout must be more than 0")
	}
	if err := name.Tenant(c.GoimTenant); err != nil {
		return fmt.Errorf("session: goim-tenant: %w", err)
	}
	if _, err := parseWatchRules(c.WatchRules); err != nil {
		return fmt.Errorf("session: watch-rules: %w", err)
	}
	for _, p := range c.NewestWins {
		if p == "*" {
			continue
		}
		if err := name.Device("platform", p); err != nil {
			return fmt.Errorf("session: newest-wins: %w", err)
		}
	}
	return nil
}

// Router are the calls of router that this package makes.
type Router interface {
	Register(ctx context.Context, in *halleyv1.RegisterRequest, opts ...grpc.CallOption) (*halleyv1.RegisterResponse, error)
	Deregister(ctx context.Context, in *halleyv1.DeregisterRequest, opts ...grpc.CallOption) (*halleyv1.DeregisterResponse, error)
	GetPresence(ctx context.Context, in *halleyv1.GetPresenceRequest, opts ...grpc.CallOption) (*halleyv1.GetPresenceResponse, error)
}

// Revocations knows which tokens are void.
type Revocations interface {
	// Ready returns nil once it knows.
	Ready() error
	Revoked(*auth.Claims) bool
}

// Pusher writes pushes and control deliveries.
type Pusher interface {
	Push(ctx context.Context, r push.Request) (push.Result, error)
	Control(ctx context.Context, tenant string, targets []*halleyv1.Target, c *halleyv1.Control) error
}

// Producer writes records to Kafka.
type Producer interface {
	Produce(ctx context.Context, msgs ...kafka.Message) error
}

// Deps are what a Server works with.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Router   Router
	Verifier *auth.Verifier
	Revoked  Revocations
	Rooms    *room.Service
	Push     Pusher
	// Chat takes what concerns conversations and people.
	Chat *conversation.Service
	// Calls takes what concerns calls, Turn tells of STUN and TURN servers; nil: there are no calls.
	Calls *calls.Service
	Turn  *turn.Minter
	// Producer writes clients' frames to the topic for the host's backend.
	Producer Producer
	// TrustGoim lets goim's unsigned tokens in.
	TrustGoim bool
	// Upstream sends ops from 1000 up to the host's backend.
	Upstream bool
	// RouterTimeout bounds each call of router.
	RouterTimeout time.Duration
	// ProduceTimeout bounds a write of a client's frame; ProduceRetry is what its client is told to wait when Kafka doesn't take it.
	ProduceTimeout, ProduceRetry time.Duration
	// Now is the clock; time.Now.
	Now func() time.Time
}

// Server answers comets.
type Server struct {
	halleyv1.UnimplementedLogicServer
	cfg        Config
	d          Deps
	newestWins map[string]bool
	watch      watchRules
	metrics    *metrics
}

// New makes a Server.
func New(cfg Config, d Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(d.Metrics)
	if err != nil {
		return nil, err
	}
	watch, err := parseWatchRules(cfg.WatchRules)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, d: d, newestWins: map[string]bool{}, watch: watch, metrics: m}
	for _, p := range cfg.NewestWins {
		s.newestWins[p] = true
	}
	return s, nil
}

// limits is the session policy for a platform.
func (s *Server) limits(platform string) *halleyv1.Limits {
	return &halleyv1.Limits{
		MaxSessions: s.cfg.MaxPerUID, Refuse: s.cfg.Refuse, NewestWinsPlatform: s.newestWins[platform] || s.newestWins["*"],
	}
}

func milliseconds(t time.Time) float64 { return float64(t.UnixMilli()) }
