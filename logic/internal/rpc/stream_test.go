package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/halley-im/halley/kit/grpcconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/rpc"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// long is what no test waits for unless something is wrong.
const long = 30 * time.Second

// slowRoom holds up who sends to public://slow, until it is released or his time is up.
type slowRoom struct {
	rpc.Pusher
	held, given atomic.Int64
	release     chan struct{}
}

func (p *slowRoom) Push(ctx context.Context, r push.Request) (push.Result, error) {
	if r.Rooms[0] != "public://slow" {
		return push.Result{}, nil
	}
	p.held.Add(1)
	select {
	case <-p.release:
		return push.Result{}, nil
	case <-ctx.Done():
		p.given.Add(1)
		return push.Result{}, ctx.Err()
	}
}

type requestStream = grpc.BidiStreamingClient[halleyv1.RequestBatch, halleyv1.ResponseBatch]

// stream opens a stream of requests over a connection as comets have it.
func stream(t *testing.T, ctx context.Context) (requestStream, *slowRoom) {
	t.Helper()
	slow := &slowRoom{release: make(chan struct{})}
	r := newRig(t, func(_ *rpc.Config, d *rpc.Deps) { d.Push = slow })
	cfg := grpcconn.Config{
		KeepaliveTime: 10 * time.Second, KeepaliveTimeout: 10 * time.Second, ConnectTimeout: 5 * time.Second, RetryMin: 10 * time.Millisecond,
		RetryMax: 50 * time.Millisecond, MaxAgeGrace: 10 * time.Second, StopTimeout: 5 * time.Second,
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpcconn.NewServer(cfg, "s3cret")
	halleyv1.RegisterLogicServer(server, r.Server)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(lis) }()
	conn, err := grpcconn.Dial(cfg, lis.Addr().String(), "s3cret")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); server.Stop(); <-done })
	cs, err := halleyv1.NewLogicClient(conn).Requests(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return cs, slow
}

// say is a request to send to a room.
func say(number uint64, room string) *halleyv1.SessionRequest {
	q := member("ann", room)
	q.Number, q.Body = number, fmt.Appendf(nil, `{"room.send":{"room":%q,"body":%d}}`, room, number)
	return q
}

func send(t *testing.T, cs requestStream, reqs ...*halleyv1.SessionRequest) {
	t.Helper()
	if err := cs.Send(&halleyv1.RequestBatch{Requests: reqs}); err != nil {
		t.Fatal(err)
	}
}

// answers receives answers until there are n, by number.
func answers(t *testing.T, cs requestStream, n int) map[uint64]*halleyv1.SessionResponse {
	t.Helper()
	got := map[uint64]*halleyv1.SessionResponse{}
	for len(got) < n {
		batch, err := cs.Recv()
		if err != nil {
			t.Fatalf("after %d answers: %v", len(got), err)
		}
		for _, res := range batch.GetResponses() {
			if got[res.GetNumber()] != nil {
				t.Errorf("request %d was answered twice", res.GetNumber())
			}
			got[res.GetNumber()] = res
		}
	}
	return got
}

func TestStreamAnswersAllAndSlowOnesHoldUpNobody(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	cs, slow := stream(t, ctx)
	const held, quick = 50, 2000
	var batch []*halleyv1.SessionRequest
	for n := range held {
		batch = append(batch, say(uint64(n+1), "public://slow"))
	}
	send(t, cs, batch...)
	kittest.Eventually(t, long, func() bool { return slow.held.Load() == held })
	go func() {
		for n := held; n < held+quick; n += 40 {
			var batch []*halleyv1.SessionRequest
			for i := range 40 {
				batch = append(batch, say(uint64(n+i+1), "public://a"))
			}
			if err := cs.Send(&halleyv1.RequestBatch{Requests: batch}); err != nil {
				t.Error(err)
			}
		}
		// Logic answers what it has all the same.
		_ = cs.CloseSend()
	}()
	for n, res := range answers(t, cs, quick) {
		if n <= held || n > held+quick || !strings.Contains(string(res.GetReply()), `"room.send"`) {
			t.Errorf("request %d: got %s", n, res.GetReply())
		}
	}
	close(slow.release)
	for n, res := range answers(t, cs, held) {
		if n > held || !strings.Contains(string(res.GetReply()), `"room.send"`) {
			t.Errorf("slow request %d: got %s", n, res.GetReply())
		}
	}
	if _, err := cs.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after all: %v", err)
	}
}

func TestTimeLimitOfARequestIsItsOwn(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	cs, slow := stream(t, ctx)
	hurried, patient := say(1, "public://slow"), say(2, "public://slow")
	hurried.TimeoutMs, patient.TimeoutMs = 20, uint32(long.Milliseconds())
	send(t, cs, patient, hurried)
	if res := answers(t, cs, 1)[1]; !strings.Contains(string(res.GetReply()), `"error"`) {
		t.Errorf("the hurried one: got %s", res.GetReply())
	}
	close(slow.release)
	if res := answers(t, cs, 1)[2]; !strings.Contains(string(res.GetReply()), `"room.send"`) {
		t.Errorf("the patient one: got %s", res.GetReply())
	}
}

func TestBrokenStreamCancelsWhatIsUnderWay(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	cs, slow := stream(t, ctx)
	send(t, cs, say(1, "public://slow"), say(2, "public://slow"))
	kittest.Eventually(t, long, func() bool { return slow.held.Load() == 2 })
	cancel()
	kittest.Eventually(t, long, func() bool { return slow.given.Load() == 2 })
}

func TestAnswerThatIsTooLargeFailsAlone(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	cs, _ := stream(t, ctx)
	// goim's op 12 is echoed.
	large := member("ann")
	large.Number, large.Op, large.Body = 1, 12, make([]byte, 9<<20)
	send(t, cs, large, say(2, "public://a"))
	got := answers(t, cs, 2)
	wantCode(t, got[1].GetError(), "internal")
	if !strings.Contains(string(got[2].GetReply()), `"room.send"`) {
		t.Errorf("the other: got %s", got[2].GetReply())
	}
}
