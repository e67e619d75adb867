package logic

import (
	"errors"
	"fmt"
	"time"

	"github.com/halley-im/halley/logic/internal/auth"
	"github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/revoke"
	"github.com/halley-im/halley/logic/internal/room"
	"github.com/halley-im/halley/logic/internal/rpc"
	"github.com/halley-im/halley/logic/internal/turn"
)

// Config is all that can be set in logic.
type Config struct {
	// HTTPAddr is where the HTTP API listens. The composition opens it and hands it in.
	HTTPAddr string `name:"http-addr" help:"Address of the HTTP API." default:"127.0.0.1:3111"`
	// GRPCAddr is where comets reach this logic. The composition opens it.
	GRPCAddr string `name:"grpc-addr" help:"Address of the gRPC server for comets." default:"127.0.0.1:3119"`

	// GoimCompat is whether goim's unsigned token is trusted and goim's HTTP API works without a key: "off", "open" (only
	// where every listener is on loopback) or "open-anywhere".
	GoimCompat Openness `name:"goim-compat" env:"HALLEY_GOIM_COMPAT" enum:"off,open,open-anywhere" help:"Trust goim's unsigned token and let goim's API in without a key: off, open (refused unless all listeners are on loopback), open-anywhere." default:"off"`
	// Demo is whether anybody may log in by a name of his choice on the web pages. Values as of GoimCompat.
	Demo Openness `name:"demo" env:"HALLEY_DEMO" enum:"off,open,open-anywhere" help:"Let anybody log in by name on the web pages: off, open (refused unless all listeners are on loopback), open-anywhere." default:"off"`

	// Upstream is whether clients' frames with ops from 1000 up go to the topic halley.upstream.
	Upstream bool `help:"Send clients' frames with ops from 1000 up to the topic halley.upstream."`
	// RouterTimeout is how long a call of router may take.
	RouterTimeout time.Duration `help:"Time limit of a call of router." default:"2s"`
	// StopTimeout is how long requests in hand may take to end when logic stops.
	StopTimeout time.Duration `help:"How long requests in hand may take to end when logic stops." default:"5s"`

	Token   auth.Config   `embed:"" prefix:"token-"`
	Push    push.Config   `embed:"" prefix:"push-"`
	Revoke  revoke.Config `embed:"" prefix:"revoke-"`
	Room    room.Config   `embed:"" prefix:"room-"`
	Session rpc.Config    `embed:"" prefix:"session-"`
	HTTP    HTTPConfig    `embed:"" prefix:"http-"`
	// Chat is the policy of conversations.
	Chat conversation.Config `embed:"" prefix:"chat-"`
	// Call is the policy of calls, Turn the servers that help them through NATs.
	Call call.Config `embed:"" prefix:"call-"`
	Turn turn.Config `embed:"" prefix:"turn-"`
}

// tokenLifetime is the longest life of a token; 0: for ever.
func (c Config) tokenLifetime() time.Duration {
	if c.Token.OptionalExpiry {
		return 0
	}
	return c.Token.MaxLifetime
}

// checkRetention refuses settings with which Kafka forgets a revocation before the tokens that it is about have expired: they
// would be good again, and nobody would notice.
func (c Config) checkRetention(kept time.Duration) error {
	switch lifetime := c.tokenLifetime(); {
	case kept == 0:
		return nil
	case lifetime == 0:
		return errors.New("logic: token-optional-expiry lets tokens live for ever, so their revocations must be kept for ever: set kafka.revoked_retention (HALLEY_KAFKA_REVOKED_RETENTION) to 0")
	case kept < lifetime:
		return fmt.Errorf("logic: tokens may live for %s (token-max-lifetime), but their revocations are kept for %s only: set kafka.revoked_retention (HALLEY_KAFKA_REVOKED_RETENTION) to at least that, or to 0, which is for ever", lifetime, kept)
	}
	return nil
}

// Validate checks the configuration as far as that is possible without listeners and files.
func (c Config) Validate() error {
	if c.RouterTimeout <= 0 || c.StopTimeout <= 0 {
		return errors.New("logic: router-timeout and stop-timeout must be more than 0")
	}
	for _, part := range []interface{ Validate() error }{c.Token, c.Push, c.Revoke, c.Room, c.Session, c.HTTP, c.Chat, c.Call, c.Turn, c.GoimCompat, c.Demo} {
		if err := part.Validate(); err != nil {
			return fmt.Errorf("logic: %w", err)
		}
	}
	return nil
}
