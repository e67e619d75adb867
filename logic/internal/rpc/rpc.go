// Package rpc is what comets ask of logic: Connect makes a session of a connection's auth body, Request carries out a
// client's frame. Each method of a request is a small handler in a table, one file per family.
//
// The package starts no goroutines and keeps nothing between calls: what a request needs to know of its session comes
// with it. Safe for concurrent use.
package rpc

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/logic/internal/auth"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/revoke"
	"github.com/halley-im/halley/logic/internal/room"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Config is the policy of sessions.
type Config struct{}

// Validate checks the policy.
func (c Config) Validate() error { return nil }

// Producer writes records to Kafka.
type Producer interface {
	Produce(ctx context.Context, msgs ...kafka.Message) error
}

// Deps are what a Server works with.
type Deps struct {
	Log           *slog.Logger
	Metrics       prometheus.Registerer
	Router        halleyv1.RouterClient
	Verifier      *auth.Verifier
	Revoked       *revoke.Registry
	Rooms         *room.Service
	Push          *push.Service
	Producer      Producer
	TrustGoim     bool
	Upstream      bool
	RouterTimeout time.Duration
	Now           func() time.Time
}

// Server answers comets.
type Server struct {
	halleyv1.UnimplementedLogicServer
	cfg Config
	d   Deps
}

// New makes a Server.
func New(cfg Config, d Deps) (*Server, error) { return &Server{cfg: cfg, d: d}, nil }

var errStub = errors.Join(status.Error(codes.Unimplemented, ""))
