// Package fake has stand-ins for Kafka and router, for the tests of logic's packages.
package fake

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/kafkaconn"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Partitions is how many a Producer has.
const Partitions = 12

// Producer keeps what is produced.
type Producer struct {
	mu    sync.Mutex
	msgs  []kafka.Message
	calls int
	err   error
	bad   func(kafka.Message) bool
}

// Produce keeps msgs, or returns the error that Fail set; of those that Refuse chose it says so by itself.
func (p *Producer) Produce(ctx context.Context, msgs ...kafka.Message) error {
	if _, ok := ctx.Deadline(); !ok {
		panic("produce without a deadline")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if p.err != nil {
		return p.err
	}
	var each kafkaconn.WriteErrors
	for i, m := range msgs {
		if p.bad == nil || !p.bad(m) {
			p.msgs = append(p.msgs, m)
			continue
		}
		if each == nil {
			each = make(kafkaconn.WriteErrors, len(msgs))
		}
		each[i] = kafkaconn.ErrUnavailable
	}
	if each == nil {
		return nil
	}
	return each
}

// Refuse has every Produce write only what bad says false of; nil: all.
func (p *Producer) Refuse(bad func(kafka.Message) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bad = bad
}

var (
	balancer   = kafka.Murmur2Balancer{Consistent: true}
	partitions = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
)

// Partition returns what Kafka's own clients would.
func (p *Producer) Partition(key []byte) int {
	return balancer.Balance(kafka.Message{Key: key}, partitions...)
}

// Fail has every Produce fail with err; nil: no more.
func (p *Producer) Fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// Messages returns what was produced.
func (p *Producer) Messages() []kafka.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.msgs)
}

// Calls returns how often Produce was called.
func (p *Producer) Calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

// Record is a message of a push topic, decoded.
type Record struct {
	Topic     string
	Key       string
	Partition int
	*halleyv1.PushRecord
}

// Records returns the records of push topics that were produced.
func (p *Producer) Records(t testing.TB) []Record {
	t.Helper()
	var rs []Record
	for _, m := range p.Messages() {
		r := Record{Topic: m.Topic, Key: string(m.Key), Partition: p.Partition(m.Key), PushRecord: new(halleyv1.PushRecord)}
		if err := proto.Unmarshal(m.Value, r.PushRecord); err != nil {
			t.Fatalf("record in %s: %v", m.Topic, err)
		}
		rs = append(rs, r)
	}
	return rs
}

// Router answers as its functions say; a call without one is Unimplemented.
type Router struct {
	halleyv1.UnimplementedRouterServer
	OnRegister func(*halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error)
	OnGone     func(*halleyv1.DeregisterRequest)
	OnPresence func(*halleyv1.GetPresenceRequest) (*halleyv1.GetPresenceResponse, error)
	OnMembers  func(*halleyv1.ListMembersRequest) (*halleyv1.ListMembersResponse, error)
	OnCount    func(*halleyv1.CountRoomsRequest) (*halleyv1.CountRoomsResponse, error)
}

// Register implements RouterServer; without OnRegister every session is taken.
func (r *Router) Register(ctx context.Context, req *halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
	if r.OnRegister != nil {
		return r.OnRegister(req)
	}
	return Registered(), nil
}

// Deregister implements RouterServer.
func (r *Router) Deregister(_ context.Context, req *halleyv1.DeregisterRequest) (*halleyv1.DeregisterResponse, error) {
	if r.OnGone != nil {
		r.OnGone(req)
	}
	return &halleyv1.DeregisterResponse{Status: halleyv1.EpochStatus_EPOCH_STATUS_OK}, nil
}

// Registered is the answer to a Register that found nothing in its way.
func Registered() *halleyv1.RegisterResponse {
	return &halleyv1.RegisterResponse{
		Status: halleyv1.EpochStatus_EPOCH_STATUS_OK, Results: []*halleyv1.RegisterResult{{Status: halleyv1.RegisterResult_STATUS_OK}},
	}
}

// GetPresence implements RouterServer.
func (r *Router) GetPresence(ctx context.Context, req *halleyv1.GetPresenceRequest) (*halleyv1.GetPresenceResponse, error) {
	if r.OnPresence != nil {
		return r.OnPresence(req)
	}
	return r.UnimplementedRouterServer.GetPresence(ctx, req)
}

// ListMembers implements RouterServer.
func (r *Router) ListMembers(ctx context.Context, req *halleyv1.ListMembersRequest) (*halleyv1.ListMembersResponse, error) {
	if r.OnMembers != nil {
		return r.OnMembers(req)
	}
	return r.UnimplementedRouterServer.ListMembers(ctx, req)
}

// CountRooms implements RouterServer.
func (r *Router) CountRooms(ctx context.Context, req *halleyv1.CountRoomsRequest) (*halleyv1.CountRoomsResponse, error) {
	if r.OnCount != nil {
		return r.OnCount(req)
	}
	return r.UnimplementedRouterServer.CountRooms(ctx, req)
}

// Dial serves r in this process until the test ends and returns a connection to it.
func (r *Router) Dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	halleyv1.RegisterRouterServer(srv, r)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	conn, err := grpc.NewClient("passthrough:///router", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		<-done
	})
	return conn
}
