package grpcconn_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/kit/grpcconn"
	"github.com/halley-im/halley/kit/kittest"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// config is one of short times, but for those that end a connection when the process stands still for some seconds.
var config = grpcconn.Config{
	KeepaliveTime: time.Second, KeepaliveTimeout: 20 * time.Second, ConnectTimeout: 20 * time.Second, RetryMin: 10 * time.Millisecond,
	RetryMax: 50 * time.Millisecond, MaxAge: time.Minute, MaxAgeGrace: time.Second, StopTimeout: time.Second,
}

func TestMain(m *testing.M) { kittest.Main(m) }

// call serves logic's (unimplemented) service with one secret and calls it with another.
func call(t *testing.T, server, client string) codes.Code {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpcconn.NewServer(config, server)
	halleyv1.RegisterLogicServer(s, halleyv1.UnimplementedLogicServer{})
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(lis) }()
	defer func() { s.Stop(); <-done }()
	conn, err := grpcconn.Dial(config, lis.Addr().String(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = halleyv1.NewLogicClient(conn).Connect(ctx, &halleyv1.ConnectRequest{})
	return status.Code(err)
}

func TestCallsNeedTheClusterSecret(t *testing.T) {
	for _, c := range []struct {
		name, server, client string
		want                 codes.Code
	}{
		{"the same", "s3cret", "s3cret", codes.Unimplemented},
		{"none", "s3cret", "", codes.Unauthenticated},
		{"another", "s3cret", "s3creT", codes.Unauthenticated},
		{"open server", "", "", codes.Unimplemented},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := call(t, c.server, c.client); got != c.want {
				t.Fatalf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestDialRefusesAnAddressWithoutPort(t *testing.T) {
	if conn, err := grpcconn.Dial(config, "127.0.0.1:1,localhost", ""); err == nil {
		conn.Close()
		t.Fatal("got no error for an address without port")
	}
}

func TestServerOfAMaxAgeEndsItsConnections(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := config
	cfg.MaxAge, cfg.MaxAgeGrace = 100*time.Millisecond, 100*time.Millisecond
	s := grpcconn.NewServer(cfg, "", grpcconn.MaxAge(cfg))
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(lis) }()
	defer func() { s.Stop(); <-done }()
	conn, err := grpcconn.Dial(cfg, lis.Addr().String(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		// Anew each time: a connection lives for a moment here, which may be over before it is seen.
		if state == connectivity.Idle {
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, state) {
			t.Fatal("never connected")
		}
	}
	if !conn.WaitForStateChange(ctx, connectivity.Ready) {
		t.Fatal("the connection outlived its server's max-age")
	}
}

func TestConfigRefusesTimesThatCanNotWork(t *testing.T) {
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*grpcconn.Config){
		"keepalive-time": func(c *grpcconn.Config) { c.KeepaliveTime = 0 },
		"retry-max":      func(c *grpcconn.Config) { c.RetryMax = c.RetryMin / 2 },
		"stop-timeout":   func(c *grpcconn.Config) { c.StopTimeout = -1 },
	} {
		c := config
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
