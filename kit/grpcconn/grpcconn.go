// Package grpcconn opens gRPC servers and clients between the roles with one set of settings: the cluster
// secret as a credential on every call, keepalive that finds a dead peer within seconds, round robin over the
// addresses of a target.
package grpcconn

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
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

// Sizes and times of the connections between roles.
const (
	maxMessageBytes = 16 << 20
	keepaliveTime   = 10 * time.Second
	keepaliveWait   = 3 * time.Second
)

// MaxAge bounds the life of a server's connections, give or take a tenth, so that clients resolve the target's
// name again and find servers that were added. grace is what calls under way get beyond it. Not for servers of
// streams.
func MaxAge(age, grace time.Duration) grpc.ServerOption {
	return grpc.KeepaliveParams(keepalive.ServerParameters{
		Time: keepaliveTime, Timeout: keepaliveWait, MaxConnectionAge: age, MaxConnectionAgeGrace: grace,
	})
}

// serviceConfig balances over all addresses. Calls that may be carried out twice without a further effect are
// repeated on another server when one breaks; Logic.Request is not: a room.send whose first try was written
// before its logic died would be sent twice. What never reached a server gRPC repeats by itself.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
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
func NewServer(secret string, opts ...grpc.ServerOption) *grpc.Server {
	c := newChecker(secret)
	opts = append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveWait}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(c.unary),
		grpc.ChainStreamInterceptor(c.stream),
	}, opts...)
	return grpc.NewServer(opts...)
}

// Dial returns a connection to target: a gRPC target such as "dns:///logic:3119", or a comma-separated list of
// host:port. It does not wait until the connection stands. Calls that find no server fail at once with
// Unavailable unless the caller asks to wait.
func Dial(target, secret string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	base := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveWait, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 2 * time.Second,
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
