// Package grpcconn opens gRPC servers and clients between the roles with one set of settings: the cluster
// secret as a credential on every call, keepalive that finds a dead peer within seconds, round robin over the
// addresses of a target, for calls; for streams, one on each (Spread).
package grpcconn

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
)

const header = "halley-cluster-secret"

// maxMessageBytes is far above what the roles send each other: they bound their messages themselves.
const maxMessageBytes = 16 << 20

// Config holds the times of the connections between roles. All processes of a cluster should have the same.
type Config struct {
	// KeepaliveTime is the silence after which a peer is asked whether it lives. gRPC raises it to 10 s where the asker is the
	// client, and a server hangs up on clients that ask more than twice as often as it would.
	KeepaliveTime time.Duration `help:"Silence on a connection between roles after which the other side is asked whether it lives; clients never ask more often than every 10s. The same in all processes." default:"10s"`
	// KeepaliveTimeout is how long it has to answer.
	KeepaliveTimeout time.Duration `help:"How long the other side has to answer that; then the connection is given up." default:"3s"`
	// ConnectTimeout bounds one attempt to connect.
	ConnectTimeout time.Duration `help:"Time limit of one attempt to connect to another role." default:"2s"`
	// RetryMin and RetryMax space attempts to connect.
	RetryMin time.Duration `help:"Wait after a first failed attempt to connect to another role; it grows by 1.6 and has a fifth of jitter." default:"100ms"`
	RetryMax time.Duration `help:"Longest wait between attempts to connect to another role." default:"2s"`
	// MaxAge bounds the life of a connection to logic or router; MaxAgeGrace must be more than any deadline between roles.
	MaxAge      time.Duration `help:"How long a connection to logic or router lives, until the caller resolves the name again and finds servers that were added; 0: for ever." default:"2m"`
	MaxAgeGrace time.Duration `help:"What calls under way get beyond that; more than any time limit between roles." default:"10s"`
	// StopTimeout bounds the end of a server: streams end only by it.
	StopTimeout time.Duration `help:"How long calls in hand may take to end when a gRPC server stops." default:"2s"`
}

// Validate reports the first setting that can't work.
func (c Config) Validate() error {
	for _, d := range []struct {
		name string
		v    time.Duration
	}{
		{"keepalive-time", c.KeepaliveTime}, {"keepalive-timeout", c.KeepaliveTimeout}, {"connect-timeout", c.ConnectTimeout},
		{"retry-min", c.RetryMin}, {"max-age-grace", c.MaxAgeGrace}, {"stop-timeout", c.StopTimeout},
	} {
		if d.v <= 0 {
			return fmt.Errorf("grpc: %s must be more than 0", d.name)
		}
	}
	if c.MaxAge < 0 {
		return errors.New("grpc: max-age must not be less than 0")
	}
	if c.RetryMax < c.RetryMin {
		return errors.New("grpc: retry-max must be at least retry-min")
	}
	return nil
}

// MaxAge bounds the life of a server's connections, give or take a tenth, so that clients resolve the target's
// name again and find servers that were added. Not for servers of streams whose callers don't look at Seat.Leaving.
func MaxAge(c Config) grpc.ServerOption {
	return grpc.KeepaliveParams(keepalive.ServerParameters{
		Time: c.KeepaliveTime, Timeout: c.KeepaliveTimeout, MaxConnectionAge: c.MaxAge, MaxConnectionAgeGrace: c.MaxAgeGrace,
	})
}

// serviceConfig balances over all addresses. Calls that may be carried out twice without a further effect are
// repeated on another server when one breaks; what goes by Logic.Requests is not: a room.send whose first try was written
// before its logic died would be sent twice. What never reached a server gRPC repeats by itself. The waits between repeats
// are no settings: they lie within the deadline of the call, which is one.
const serviceConfig = `{
  "loadBalancingConfig": [{"` + policy + `": {}}],
  "methodConfig": [{
    "name": [{"service": "halley.v1.Router"}, {"service": "halley.v1.Logic", "method": "Connect"}],
    "retryPolicy": {
      "maxAttempts": 3, "initialBackoff": "0.02s", "maxBackoff": "0.2s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

// NewServer returns a server that refuses every call without the cluster secret. An empty secret lets every
// call in: callers allow that on loopback listeners only.
func NewServer(cfg Config, secret string, opts ...grpc.ServerOption) *grpc.Server {
	c := newChecker(secret)
	opts = append([]grpc.ServerOption{
		// Calls are served by goroutines that stay: a new one for each grows its stack anew, an eighth of router's CPU.
		grpc.NumStreamWorkers(uint32(4 * runtime.GOMAXPROCS(0))),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: cfg.KeepaliveTime, Timeout: cfg.KeepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: cfg.KeepaliveTime / 2, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(c.unary),
		grpc.ChainStreamInterceptor(c.stream),
	}, opts...)
	return grpc.NewServer(opts...)
}

// Dial returns a connection to target: a gRPC target such as "dns:///logic:3119", or a comma-separated list of
// host:port. It does not wait until the connection stands. Calls that find no server fail at once with
// Unavailable unless the caller asks to wait.
func Dial(cfg Config, target, secret string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	base := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: cfg.KeepaliveTime, Timeout: cfg.KeepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: cfg.RetryMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: cfg.RetryMax},
			MinConnectTimeout: cfg.ConnectTimeout,
		}),
	}
	if secret != "" {
		base = append(base, grpc.WithPerRPCCredentials(credential(secret)))
	}
	if !strings.Contains(target, "://") {
		var state resolver.State
		for addr := range strings.SplitSeq(target, ",") {
			addr = strings.TrimSpace(addr)
			if _, _, err := net.SplitHostPort(addr); err != nil {
				return nil, fmt.Errorf("address %q: %w", addr, err)
			}
			state.Addresses = append(state.Addresses, resolver.Address{Addr: addr})
		}
		r := manual.NewBuilderWithScheme("list")
		r.InitialState(state)
		base = append(base, grpc.WithResolvers(r))
		target = "list:///" + target
	}
	return grpc.NewClient(target, append(base, opts...)...)
}

type credential string

func (c credential) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{header: string(c)}, nil
}

// RequireTransportSecurity is false: the roles talk inside a private network. It is the secret, not the wire,
// that keeps strangers out.
func (credential) RequireTransportSecurity() bool { return false }

type checker struct{ want [sha256.Size]byte }

// newChecker returns nil for an empty secret; a nil checker lets everybody in.
func newChecker(secret string) *checker {
	if secret == "" {
		return nil
	}
	return &checker{sha256.Sum256([]byte(secret))}
}

func (c *checker) check(ctx context.Context) error {
	if c == nil {
		return nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	for _, v := range md.Get(header) {
		got := sha256.Sum256([]byte(v))
		if subtle.ConstantTimeCompare(got[:], c.want[:]) == 1 {
			return nil
		}
	}
	return status.Error(codes.Unauthenticated, "cluster secret missing or wrong")
}

func (c *checker) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (c *checker) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := c.check(ss.Context()); err != nil {
		return err
	}
	return next(srv, ss)
}
