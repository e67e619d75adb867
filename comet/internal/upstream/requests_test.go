package upstream_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/comet/internal/upstream"
	"github.com/halley-im/halley/kit/grpcconn"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// long is what no test waits for unless something is wrong.
const long = 30 * time.Second

func eventually(t *testing.T, cond func() bool, what ...any) {
	t.Helper()
	for deadline := time.Now().Add(long); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(append([]any{"not within", long}, what...)...)
		}
	}
}

var settings = grpcconn.Config{
	KeepaliveTime: 10 * time.Second, KeepaliveTimeout: 10 * time.Second, ConnectTimeout: 5 * time.Second, RetryMin: 10 * time.Millisecond,
	RetryMax: 50 * time.Millisecond, MaxAgeGrace: 10 * time.Second, StopTimeout: 5 * time.Second,
}

// logic answers each request by its body: "hang" when released, "break" by ending the stream, all others by their body and logic's name.
type logic struct {
	halleyv1.UnimplementedLogicServer
	name     string
	addr     string
	server   *grpc.Server
	streams  atomic.Int64
	opened   atomic.Int64
	messages atomic.Int64
	asked    atomic.Int64
	hanging  atomic.Int64
	timeout  atomic.Uint32
	release  chan struct{}
}

func (l *logic) Requests(ss grpc.BidiStreamingServer[halleyv1.RequestBatch, halleyv1.ResponseBatch]) error {
	l.opened.Add(1)
	l.streams.Add(1)
	defer l.streams.Add(-1)
	var under sync.WaitGroup
	defer under.Wait()
	var sending sync.Mutex
	for {
		batch, err := ss.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		l.messages.Add(1)
		for _, req := range batch.GetRequests() {
			l.asked.Add(1)
			l.timeout.Store(req.GetTimeoutMs())
			if string(req.GetBody()) == "break" {
				return status.Error(codes.Unavailable, "broken")
			}
			under.Go(func() {
				if string(req.GetBody()) == "hang" {
					l.hanging.Add(1)
					select {
					case <-l.release:
					case <-ss.Context().Done():
					}
				}
				sending.Lock()
				defer sending.Unlock()
				_ = ss.Send(&halleyv1.ResponseBatch{Responses: []*halleyv1.SessionResponse{
					{Number: req.GetNumber(), Reply: []byte(string(req.GetBody()) + "@" + l.name)},
				}})
			})
		}
	}
}

// serve starts a logic at addr; empty: anywhere.
func serve(t *testing.T, name, addr string, opts ...grpc.ServerOption) *logic {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var lis net.Listener
	eventually(t, func() (ok bool) { // somebody else may have a port that was free a moment ago for a while
		var err error
		lis, err = net.Listen("tcp", addr)
		return err == nil
	}, "no", addr)
	l := &logic{name: name, addr: lis.Addr().String(), server: grpcconn.NewServer(settings, "", opts...), release: make(chan struct{})}
	halleyv1.RegisterLogicServer(l.server, l)
	served := make(chan struct{})
	go func() { defer close(served); _ = l.server.Serve(lis) }()
	t.Cleanup(func() { l.server.Stop(); <-served })
	return l
}

func ask(t *testing.T, change func(*upstream.Config), addrs ...string) *upstream.Logic {
	t.Helper()
	conn, err := grpcconn.Dial(settings, strings.Join(addrs, ","), "")
	if err != nil {
		t.Fatal(err)
	}
	cfg := upstream.Config{ConnectTimeout: long, Retry: 10 * time.Millisecond, Window: 4096, WindowBytes: 16 << 20}
	if change != nil {
		change(&cfg)
	}
	l := upstream.NewLogic(halleyv1.NewLogicClient(conn), cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; conn.Close() })
	return l
}

// request asks with a time limit and returns the answer, or the error's code.
func request(l *upstream.Logic, op int32, body string, limit time.Duration) string {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return requestUntil(ctx, l, op, body)
}

func requestUntil(ctx context.Context, l *upstream.Logic, op int32, body string) string {
	resp, err := l.Request(ctx, &halleyv1.SessionRequest{Op: op, Body: []byte(body)})
	if err != nil {
		return errcode.From(err).Code.Name
	}
	return string(resp.GetReply())
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEachOfManyGetsItsOwnAnswer(t *testing.T) {
	a := serve(t, "a", "")
	// A small window, so that most wait for room.
	l := ask(t, func(c *upstream.Config) { c.Window = 64; c.WindowBytes = 2000 }, a.addr)
	var callers sync.WaitGroup
	for n := range 2000 {
		callers.Go(func() {
			body := strconv.Itoa(n)
			if got := request(l, 100, body, long); got != body+"@a" {
				t.Errorf("got %q for %s", got, body)
			}
		})
	}
	callers.Wait()
	if m, n := a.messages.Load(), a.asked.Load(); n != 2000 || m >= n {
		t.Errorf("%d requests in %d messages, want 2000 in fewer", n, m)
	}
}

func TestSlowRequestHoldsUpNoOther(t *testing.T) {
	a := serve(t, "a", "")
	l := ask(t, nil, a.addr)
	slow := make(chan string, 1)
	go func() { slow <- request(l, 100, "hang", long) }()
	eventually(t, func() bool { return a.hanging.Load() == 1 })
	for range 100 {
		want(t, request(l, 100, "x", long), "x@a")
	}
	close(a.release)
	want(t, <-slow, "hang@a")
	if l.Logics() != 1 || l.InHand() != 0 {
		t.Errorf("%d logics have %d requests in hand, want one without any", l.Logics(), l.InHand())
	}
}

func TestRequestsTakeTurnsOverLogicsThatComeAndGo(t *testing.T) {
	a, b := serve(t, "a", ""), serve(t, "b", "")
	l := ask(t, nil, a.addr, b.addr)
	eventually(t, func() bool { return a.streams.Load() == 1 && b.streams.Load() == 1 })
	turns := func(first, second string) bool {
		got := map[string]int{}
		for range 100 {
			got[request(l, 100, "x", long)]++
		}
		return got["x@"+first] == 50 && got["x@"+second] == 50
	}
	eventually(t, func() bool { return turns("a", "b") }, "a and b in turn")

	// b leaves as a rolling update has it: what it has in hand is answered, and what comes goes to the other.
	slow := make(chan string, 1)
	go func() {
		for range 2 {
			go func() { slow <- request(l, 100, "hang", long) }()
		}
	}()
	eventually(t, func() bool { return a.hanging.Load()+b.hanging.Load() == 2 && b.hanging.Load() > 0 })
	stopped := make(chan struct{})
	go func() { defer close(stopped); b.server.GracefulStop() }()
	eventually(t, func() bool { return l.Logics() == 1 }, "b takes no more")
	for range 10 {
		want(t, request(l, 100, "x", long), "x@a")
	}
	select {
	case <-stopped:
		t.Error("b stopped with a request in hand")
	default:
	}
	close(a.release)
	close(b.release)
	for range 2 {
		if got := <-slow; !strings.HasPrefix(got, "hang@") {
			t.Errorf("in hand: got %q", got)
		}
	}
	<-stopped

	// It comes back.
	c := serve(t, "c", b.addr)
	eventually(t, func() bool { return turns("a", "c") }, "a and c in turn")
	if a.streams.Load() != 1 || c.streams.Load() != 1 {
		t.Errorf("%d and %d streams, want one each", a.streams.Load(), c.streams.Load())
	}
}

// ask8 has eight callers ask, one request after the other, until disturb has returned. None of them may be lost.
func ask8(t *testing.T, l *upstream.Logic, disturb func(answered *atomic.Int64)) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	var answered atomic.Int64
	for range 8 {
		callers.Go(func() {
			for ctx.Err() == nil {
				if got := request(l, 100, "x", long); !strings.HasPrefix(got, "x@") {
					t.Errorf("got %q", got)
				}
				answered.Add(1)
			}
		})
	}
	disturb(&answered)
	stop()
	callers.Wait()
}

func TestGracefulStopsLoseNothing(t *testing.T) {
	a, b := serve(t, "a", ""), serve(t, "b", "")
	ask8(t, ask(t, nil, a.addr, b.addr), func(answered *atomic.Int64) {
		for range 5 {
			n := answered.Load()
			eventually(t, func() bool { return b.asked.Load() > 0 && answered.Load() > n+100 })
			b.server.GracefulStop()
			b = serve(t, "b", b.addr)
		}
	})
}

func TestConnectionsThatEndForTheirAgeLoseNothing(t *testing.T) {
	cfg := settings
	cfg.MaxAge = 50 * time.Millisecond
	a := serve(t, "a", "", grpcconn.MaxAge(cfg))
	ask8(t, ask(t, nil, a.addr), func(*atomic.Int64) {
		eventually(t, func() bool { return a.opened.Load() > 5 })
	})
}

func TestBrokenStreamAnswersWhatWasInHandAndIsOpenedAgain(t *testing.T) {
	a := serve(t, "a", "")
	l := ask(t, nil, a.addr)
	hung := make(chan string, 10)
	for range 10 {
		go func() { hung <- request(l, 100, "hang", long) }()
	}
	eventually(t, func() bool { return a.hanging.Load() == 10 })
	a.server.Stop()
	for range 10 {
		want(t, <-hung, "unavailable")
	}
	// Nobody is there: that is said at once, not after the time limit.
	eventually(t, func() bool { return request(l, 100, "x", long) == "unavailable" })

	b := serve(t, "b", a.addr)
	eventually(t, func() bool { return request(l, 100, "x", long) == "x@b" })
	// The connection stays, the stream alone breaks.
	want(t, request(l, 100, "break", long), "unavailable")
	want(t, request(l, 100, "x", long), "x@b")
	if n := b.streams.Load(); n != 1 {
		t.Errorf("%d streams, want 1", n)
	}
}

func TestTimeLimitIsToldAndWhatCameOfTheRequestUnknown(t *testing.T) {
	a := serve(t, "a", "")
	l := ask(t, nil, a.addr)
	want(t, request(l, 100, "x", long), "x@a")
	if ms := a.timeout.Load(); ms == 0 || ms > uint32(long.Milliseconds()) {
		t.Errorf("logic was told %d ms", ms)
	}
	want(t, request(l, 100, "hang", 2*time.Second), "unknown")
	want(t, request(l, 103, "hang", 50*time.Millisecond), "unavailable")
	close(a.release)
	want(t, request(l, 100, "x", long), "x@a")
}

func TestFullWindowWaitsAndThenTakesMore(t *testing.T) {
	for name, change := range map[string]func(*upstream.Config){
		"count": func(c *upstream.Config) { c.Window = 2 },
		"bytes": func(c *upstream.Config) { c.WindowBytes = 20 },
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(t, "a", "")
			l := ask(t, change, a.addr)
			hung := make(chan string, 2)
			ctx, cancel := context.WithCancel(t.Context())
			for range 2 {
				go func() { hung <- requestUntil(ctx, l, 100, "hang") }()
			}
			eventually(t, func() bool { return a.hanging.Load() == 2 })
			// It was never asked: the outcome is known.
			want(t, request(l, 100, "x", 50*time.Millisecond), "unavailable")
			cancel()
			want(t, <-hung, "unknown")
			want(t, <-hung, "unknown")
			// Their callers have left, but logic has them in hand yet.
			want(t, request(l, 100, "x", 50*time.Millisecond), "unavailable")
			if n := a.asked.Load(); n != 2 {
				t.Errorf("logic was asked %d times, want 2", n)
			}
			waits := make(chan string, 1)
			go func() { waits <- request(l, 100, "x", long) }()
			close(a.release)
			want(t, <-waits, "x@a")
		})
	}
}
