package grpcconn_test

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/kit/grpcconn"
	"github.com/halley-im/halley/kit/kittest"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func TestMain(m *testing.M) { kittest.Main(m) }

// call serves logic's (unimplemented) service with one secret and calls it with another.
func call(t *testing.T, server, client string) codes.Code {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpcconn.NewServer(server)
	halleyv1.RegisterLogicServer(s, halleyv1.UnimplementedLogicServer{})
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(lis) }()
	defer func() { s.Stop(); <-done }()
	conn, err := grpcconn.Dial(lis.Addr().String(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
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
	if conn, err := grpcconn.Dial("127.0.0.1:1,localhost", ""); err == nil {
		conn.Close()
		t.Fatal("got no error for an address without port")
	}
}
