package grpcconn_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/kit/grpcconn"
	"github.com/halley-im/halley/kit/kittest"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// echo answers on streams until its client has ended its side.
type echo struct {
	halleyv1.UnimplementedLogicServer
}

func (echo) Requests(ss grpc.BidiStreamingServer[halleyv1.RequestBatch, halleyv1.ResponseBatch]) error {
	for {
		if _, err := ss.Recv(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := ss.Send(&halleyv1.ResponseBatch{}); err != nil {
			return err
		}
	}
}

func serveEcho(t *testing.T, addr string) (*grpc.Server, string) {
	t.Helper()
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := grpcconn.NewServer(config, "")
	halleyv1.RegisterLogicServer(s, echo{})
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(lis) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return s, lis.Addr().String()
}

func TestSpreadHasOneStreamOnEachServer(t *testing.T) {
	const long = 30 * time.Second
	first, a := serveEcho(t, "127.0.0.1:0")
	_, b := serveEcho(t, "127.0.0.1:0")
	conn, err := grpcconn.Dial(config, a+","+b, "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := halleyv1.NewLogicClient(conn)
	var spread grpcconn.Spread
	type stream struct {
		grpc.BidiStreamingClient[halleyv1.RequestBatch, halleyv1.ResponseBatch]
		*grpcconn.Seat
	}
	works := func(s stream) bool {
		if err := s.Send(&halleyv1.RequestBatch{}); err != nil {
			return false
		}
		_, err := s.Recv()
		return err == nil
	}
	open := func(ctx context.Context) (stream, string, error) {
		call, seat := spread.Seat(ctx)
		cs, err := client.Requests(call)
		if err != nil {
			return stream{}, "", err
		}
		s := stream{cs, seat}
		if !works(s) {
			t.Fatal("the stream doesn't work")
		}
		p, _ := peer.FromContext(cs.Context())
		return s, p.Addr.String(), nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	one, x, err := open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	two, y, err := open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if x == y {
		t.Fatalf("both streams are at %s", x)
	}
	if y == a {
		one, two = two, one
	}
	short, end := context.WithTimeout(ctx, 20*time.Millisecond)
	defer end()
	if _, _, err := open(short); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("a third stream: %v", err)
	}

	// A server that stops says so, and serves its stream until the client ends it.
	stopped := make(chan struct{})
	go func() { defer close(stopped); first.GracefulStop() }()
	select {
	case <-one.Leaving():
	case <-ctx.Done():
		t.Fatal("leaving, nobody was told")
	}
	if !works(one) {
		t.Error("the stream ended with its server's leaving")
	}
	_ = one.CloseSend()
	if _, err := one.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after its end: %v", err)
	}
	<-stopped
	select {
	case <-two.Leaving():
		t.Error("the other server leaves as well")
	default:
	}

	// It comes back, and who waits for it gets it.
	back := make(chan error, 1)
	go func() {
		s, at, err := open(ctx)
		if err == nil && at != a {
			err = errors.New("at " + at)
		}
		if err == nil {
			_ = s.CloseSend()
		}
		back <- err
	}()
	serveEcho(t, a)
	if err := <-back; err != nil {
		t.Errorf("the stream after its return: %v", err)
	}
	// Calls take turns all the same.
	kittest.Eventually(t, long, func() bool {
		at := map[string]int{}
		for range 10 {
			var p peer.Peer
			_, _ = client.Connect(ctx, &halleyv1.ConnectRequest{}, grpc.Peer(&p))
			if p.Addr != nil {
				at[p.Addr.String()]++
			}
		}
		return at[a] == 5 && at[b] == 5
	}, "calls in turn")
	_ = two.CloseSend()
}
