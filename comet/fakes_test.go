package comet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/kit/grpcconn"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// fakeLogic accepts goim's unsigned token, and {"token": "uid"} or {"token": "uid/key/device"} as a signed one.
type fakeLogic struct {
	halleyv1.UnimplementedLogicServer
	mu       sync.Mutex
	auths    int
	idle     time.Duration
	expires  time.Duration
	connect  func(*halleyv1.ConnectRequest, *halleyv1.ConnectResponse) error
	request  func(context.Context, *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error)
	requests []*halleyv1.SessionRequest
}

func (f *fakeLogic) Connect(_ context.Context, req *halleyv1.ConnectRequest) (*halleyv1.ConnectResponse, error) {
	f.mu.Lock()
	f.auths++
	n, hook := f.auths, f.connect
	idle, expires := f.idle, f.expires
	f.mu.Unlock()
	var auth struct {
		Token   string   `json:"token"`
		Tenant  string   `json:"tenant"`
		Rooms   []string `json:"rooms"`
		Mid     int64    `json:"mid"`
		Key     string   `json:"key"`
		RoomID  string   `json:"room_id"`
		Accepts []int32  `json:"accepts"`
		Resume  struct {
			Replaces string `json:"replaces"`
		} `json:"resume"`
	}
	if err := json.Unmarshal(req.GetAuth(), &auth); err != nil {
		return &halleyv1.ConnectResponse{Error: &halleyv1.Error{Code: "unauthenticated", Message: "no token"}}, nil
	}
	if auth.Tenant == "" {
		auth.Tenant = "default"
	}
	s := &halleyv1.Session{Tenant: auth.Tenant, Key: auth.Key, Conn: req.GetConn(), RemoteAddr: req.GetRemoteAddr(), ConnectedAtMs: req.GetConnectedAtMs()}
	resp := &halleyv1.ConnectResponse{Session: s, Effects: &halleyv1.Effects{Join: auth.Rooms}, IdleTimeoutMs: idle.Milliseconds()}
	if s.Key == "" {
		s.Key = "key-" + strconv.Itoa(n)
	}
	if auth.Token == "bad" {
		e := &halleyv1.Error{Code: "unauthenticated", Message: "bad token"}
		body, _ := protojson.Marshal(&halleyv1.AuthReply{Error: e})
		return &halleyv1.ConnectResponse{Error: e, Reply: body}, nil
	}
	if auth.Token != "" {
		s.Signed, s.Uid, s.IssuedAtMs = true, auth.Token, 1000
		s.DeviceId = "device-of-" + auth.Token
		resp.Reply = fmt.Appendf(nil, `{"uid":%q,"key":%q,"connection":%q}`, s.Uid, s.Key, req.GetConn().GetId())
		if auth.Accepts != nil {
			resp.Effects.Accepts = &halleyv1.Accepts{Ops: auth.Accepts}
		}
		if expires > 0 {
			resp.Effects.ExpiresAtMs = proto.Int64(time.Now().Add(expires).UnixMilli())
		}
		if auth.Resume.Replaces != "" {
			resp.Replaces = &halleyv1.Conn{Comet: req.GetConn().GetComet(), Id: auth.Resume.Replaces}
		}
	} else {
		if auth.Mid > 0 {
			s.Uid = strconv.FormatInt(auth.Mid, 10)
		}
		resp.Effects.Accepts = &halleyv1.Accepts{Ops: auth.Accepts}
		resp.Effects.ChangeRoom = proto.String(auth.RoomID)
	}
	if hook != nil {
		if err := hook(req, resp); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// Requests carries each request out in a goroutine. An error of one ends the stream; one that is late is not answered.
func (f *fakeLogic) Requests(ss grpc.BidiStreamingServer[halleyv1.RequestBatch, halleyv1.ResponseBatch]) error {
	ctx, fail := context.WithCancelCause(ss.Context())
	defer fail(nil)
	var sending sync.Mutex
	var under sync.WaitGroup
	ended := make(chan error, 1)
	go func() {
		// Ends with the stream: Recv fails when the handler has returned.
		for {
			batch, err := ss.Recv()
			if err != nil {
				ended <- err
				return
			}
			for _, req := range batch.GetRequests() {
				under.Go(func() {
					rctx, cancel := context.WithTimeout(ctx, time.Duration(req.GetTimeoutMs())*time.Millisecond)
					defer cancel()
					resp, err := f.one(rctx, req)
					if err != nil {
						if rctx.Err() == nil {
							fail(err)
						}
						return
					}
					resp.Number = req.GetNumber()
					sending.Lock()
					defer sending.Unlock()
					_ = ss.Send(&halleyv1.ResponseBatch{Responses: []*halleyv1.SessionResponse{resp}})
				})
			}
		}
	}()
	select {
	case err := <-ended:
		under.Wait()
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *fakeLogic) one(ctx context.Context, req *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
	f.mu.Lock()
	f.requests = append(f.requests, req)
	hook := f.request
	f.mu.Unlock()
	if hook != nil {
		if resp, err := hook(ctx, req); resp != nil || err != nil {
			return resp, err
		}
	}
	if req.GetOp() == 12 {
		return &halleyv1.SessionResponse{Reply: req.GetBody(), Effects: &halleyv1.Effects{ChangeRoom: proto.String(string(req.GetBody()))}}, nil
	}
	return &halleyv1.SessionResponse{Reply: req.GetBody()}, nil
}

// fakeRouter remembers what a comet tells it.
type fakeRouter struct {
	halleyv1.UnimplementedRouterServer
	mu         sync.Mutex
	epochs     []string
	tried      []string
	holding    []bool // what each Enroll said of holding sessions
	dead       map[string]bool
	retired    []string
	draining   bool
	renews     int
	ttl        time.Duration
	lost       []uint32
	rooms      map[string]*halleyv1.RoomChange // last change by name
	members    map[string]map[string]bool
	numbers    map[string]uint64
	registered map[string]*halleyv1.Session // by connection id
	gone       []string                     // connection ids deregistered
	rewrites   []*halleyv1.RewriteRequest
	down       bool
	hold       func() // what UpdateRooms waits for
	refuse     int
	spare      float64                        // handshakes a second of the other comets
	room       int64                          // and connections
	changed    func()                         // called after each change of a room, under mu
	rewriting  func(*halleyv1.RewriteRequest) // what Rewrite waits for
	listing    func()                         // called by each ListComets, under mu, before it answers
	replaced   string                         // connection id that Register says is replaced
	raced      string                         // the same for raced, and Rewrite says it too
	comets     []*halleyv1.CometInfo
}

func newFakeRouter() *fakeRouter {
	return &fakeRouter{
		ttl: 9 * time.Second, dead: map[string]bool{}, rooms: map[string]*halleyv1.RoomChange{}, members: map[string]map[string]bool{},
		numbers: map[string]uint64{}, registered: map[string]*halleyv1.Session{},
	}
}

func (f *fakeRouter) status(epoch string) halleyv1.EpochStatus {
	if f.dead[epoch] {
		return halleyv1.EpochStatus_EPOCH_STATUS_DEAD
	}
	return halleyv1.EpochStatus_EPOCH_STATUS_OK
}

var errDown = fmt.Errorf("router is down")

func (f *fakeRouter) Enroll(_ context.Context, r *halleyv1.EnrollRequest) (*halleyv1.EnrollResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tried = append(f.tried, r.GetInfo().GetEpoch())
	if f.refuse > 0 {
		f.refuse--
		return nil, errDown
	}
	f.epochs = append(f.epochs, r.GetInfo().GetEpoch())
	f.holding = append(f.holding, r.GetHoldsSessions())
	return &halleyv1.EnrollResponse{Status: f.status(r.GetInfo().GetEpoch()), TtlMs: f.ttl.Milliseconds()}, nil
}

func (f *fakeRouter) Renew(_ context.Context, r *halleyv1.RenewRequest) (*halleyv1.RenewResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errDown
	}
	f.renews++
	f.draining = r.GetInfo().GetDraining()
	lost := f.lost
	f.lost = nil
	return &halleyv1.RenewResponse{Status: f.status(r.GetInfo().GetEpoch()), TtlMs: f.ttl.Milliseconds(), LostBuckets: lost, SpareHandshakeRate: f.spare, SpareConnections: f.room}, nil
}

func (f *fakeRouter) Retire(_ context.Context, r *halleyv1.RetireRequest) (*halleyv1.RetireResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = append(f.retired, r.GetEpoch())
	return &halleyv1.RetireResponse{}, nil
}

func (f *fakeRouter) Register(_ context.Context, r *halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &halleyv1.RegisterResponse{Status: f.status(r.GetSessions()[0].GetConn().GetEpoch())}
	for _, s := range r.GetSessions() {
		f.registered[s.GetConn().GetId()] = s
		st := halleyv1.RegisterResult_STATUS_OK
		if s.GetConn().GetId() == f.replaced {
			st = halleyv1.RegisterResult_STATUS_REPLACED
		} else if s.GetConn().GetId() == f.raced {
			st = halleyv1.RegisterResult_STATUS_RACED
		}
		resp.Results = append(resp.Results, &halleyv1.RegisterResult{Status: st})
	}
	return resp, nil
}

func (f *fakeRouter) Deregister(_ context.Context, r *halleyv1.DeregisterRequest) (*halleyv1.DeregisterResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errDown
	}
	for _, s := range r.GetSessions() {
		if err := errors.Join(name.Tenant(s.GetTenant()), name.Key(s.GetKey())); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	for _, s := range r.GetSessions() {
		f.gone = append(f.gone, s.GetConn().GetId())
		delete(f.registered, s.GetConn().GetId())
	}
	return &halleyv1.DeregisterResponse{Status: f.status(r.GetSessions()[0].GetConn().GetEpoch())}, nil
}

func (f *fakeRouter) Rewrite(_ context.Context, r *halleyv1.RewriteRequest) (*halleyv1.RewriteResponse, error) {
	f.mu.Lock()
	wait := f.rewriting
	f.mu.Unlock()
	if wait != nil {
		wait(r)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rewrites = append(f.rewrites, r)
	for _, c := range r.GetRooms() {
		// What is empty isn't there, and so needs no place.
		if c.GetCount() > 0 {
			f.change(c)
		}
	}
	resp := &halleyv1.RewriteResponse{Status: f.status(r.GetEpoch())}
	for _, s := range r.GetSessions() {
		if s.GetConn().GetId() == f.raced {
			resp.RacedConnIds = append(resp.RacedConnIds, f.raced)
		}
	}
	return resp, nil
}

func (f *fakeRouter) change(c *halleyv1.RoomChange) {
	name := c.GetTenant() + "/" + c.GetRoom()
	if c.GetNumber() <= f.numbers[name] {
		return
	}
	f.numbers[name] = c.GetNumber()
	f.rooms[name] = c
	if f.changed != nil {
		f.changed()
	}
	if !c.GetListed() {
		delete(f.members, name)
		return
	}
	m := f.members[name]
	if m == nil {
		m = map[string]bool{}
		f.members[name] = m
	}
	for _, u := range c.GetJoined() {
		m[u] = true
	}
	for _, u := range c.GetLeft() {
		delete(m, u)
	}
}

func (f *fakeRouter) UpdateRooms(_ context.Context, r *halleyv1.UpdateRoomsRequest) (*halleyv1.UpdateRoomsResponse, error) {
	f.mu.Lock()
	hold := f.hold
	f.mu.Unlock()
	if hold != nil {
		hold()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errDown
	}
	resp := &halleyv1.UpdateRoomsResponse{Status: f.status(r.GetEpoch())}
	for _, c := range r.GetChanges() {
		if resp.GetStatus() == halleyv1.EpochStatus_EPOCH_STATUS_OK {
			f.change(c)
		}
		resp.Counts = append(resp.Counts, c.GetCount())
	}
	return resp, nil
}

func (f *fakeRouter) CountRooms(_ context.Context, r *halleyv1.CountRoomsRequest) (*halleyv1.CountRoomsResponse, error) {
	resp := &halleyv1.CountRoomsResponse{}
	for range r.GetRooms() {
		resp.Counts = append(resp.Counts, 41)
	}
	return resp, nil
}

func (f *fakeRouter) ListComets(context.Context, *halleyv1.ListCometsRequest) (*halleyv1.ListCometsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listing != nil {
		f.listing()
	}
	return &halleyv1.ListCometsResponse{Comets: f.comets}, nil
}

// with runs f under the router's lock.
func (f *fakeRouter) with(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fakeRouter) count(room string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int(f.rooms["default/"+room].GetCount())
}

func (f *fakeRouter) listed(room string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for u := range f.members["default/"+room] {
		out = append(out, u)
	}
	slices.Sort(out)
	return out
}

// node is a comet under test with its neighbours.
type node struct {
	t      testing.TB
	comet  *comet.Comet
	logic  *fakeLogic
	router *fakeRouter
	reg    *prometheus.Registry
	tcp    string
	ws     string
	tls    string
	wss    string
	conn   *grpc.ClientConn
	stop   context.CancelFunc
	done   chan error
}

// tags returns the settings of the tags.
func tags(t testing.TB) comet.Config {
	t.Helper()
	var cli struct {
		comet.Config `embed:"" prefix:"comet-"`
	}
	p, err := kong.New(&cli)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(nil); err != nil {
		t.Fatal(err)
	}
	return cli.Config
}

// defaults returns the settings of the tags, with times for tests.
func defaults(t testing.TB) comet.Config {
	t.Helper()
	c := tags(t)
	c.Name = "comet-1"
	c.ScanInterval = 40 * time.Millisecond
	// What a busy machine does late it does in time: who wants something to be too late says so.
	c.HandshakeTimeout, c.RequestTimeout, c.RouterTimeout = patience, patience, patience
	c.ConnectTimeout, c.WriteTimeout, c.CountInterval = patience, patience, time.Hour
	c.RenewInterval = 50 * time.Millisecond
	c.RetryInterval = 10 * time.Millisecond
	c.ResyncSpread = 10 * time.Millisecond
	c.DrainGrace = 300 * time.Millisecond
	c.DrainTimeout = 5 * time.Second
	return c
}

// patience is what nothing takes unless something is wrong, on a busy machine with the race detector too.
const patience = 30 * time.Second

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func serve(t testing.TB, reg func(*grpc.Server)) string {
	t.Helper()
	ln := listen(t)
	srv := grpc.NewServer()
	reg(srv)
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-done
	})
	return ln.Addr().String()
}

func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// grpcSettings are times that a busy machine keeps.
var grpcSettings = grpcconn.Config{
	KeepaliveTime: 10 * time.Second, KeepaliveTimeout: 10 * time.Second, ConnectTimeout: 5 * time.Second, RetryMin: 10 * time.Millisecond,
	RetryMax: 100 * time.Millisecond, MaxAgeGrace: 10 * time.Second, StopTimeout: 5 * time.Second,
}

type option func(*comet.Config, *comet.Deps, *node)

func with(f func(*comet.Config)) option {
	return func(c *comet.Config, _ *comet.Deps, _ *node) { f(c) }
}

// start runs a comet until the test ends.
func start(t testing.TB, opts ...option) *node {
	t.Helper()
	n := startStopped(t, newFakeRouter(), opts...)
	eventually(t, func() bool { return n.comet.Ready(context.Background()) == nil }, "comet ready")
	return n
}

// startStopped is start without waiting until the comet is ready.
func startStopped(t testing.TB, router *fakeRouter, opts ...option) *node {
	t.Helper()
	n := &node{t: t, logic: &fakeLogic{}, router: router, reg: prometheus.NewRegistry(), done: make(chan error, 1)}
	cfg := defaults(t)
	level := slog.LevelError
	if os.Getenv("HALLEY_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	deps := comet.Deps{
		Log:     slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
		Metrics: n.reg, TCP: listen(t), WS: listen(t), AdvertiseAddr: "127.0.0.1:3109", Unsigned: true,
	}
	for _, o := range opts {
		o(&cfg, &deps, n)
	}
	logicAddr := serve(t, func(s *grpc.Server) { halleyv1.RegisterLogicServer(s, n.logic) })
	routerAddr := serve(t, func(s *grpc.Server) { halleyv1.RegisterRouterServer(s, n.router) })
	logics, err := grpcconn.Dial(grpcSettings, logicAddr, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { logics.Close() })
	deps.Logic, deps.Router = logics, dial(t, routerAddr)
	n.tcp, n.ws = deps.TCP.Addr().String(), deps.WS.Addr().String()
	if deps.TLSTCP != nil {
		n.tls = deps.TLSTCP.Addr().String()
	}
	if deps.WSS != nil {
		n.wss = deps.WSS.Addr().String()
	}
	c, err := comet.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	n.comet = c
	grpcAddr := serve(t, func(s *grpc.Server) { c.Register(s) })
	n.conn = dial(t, grpcAddr)
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.done <- c.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(2 * patience):
			t.Error("Run did not return")
		}
	})
	return n
}

func (n *node) epoch() string {
	n.router.mu.Lock()
	defer n.router.mu.Unlock()
	return n.router.epochs[len(n.router.epochs)-1]
}

func eventually(t testing.TB, ok func() bool, what string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// job is a delivery stream.
type job struct {
	t      testing.TB
	stream halleyv1.Comet_DeliverClient
	number uint64
	cancel context.CancelFunc
}

func (n *node) job(lane halleyv1.Lane) *job {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n.t.Cleanup(cancel)
	st, err := halleyv1.NewCometClient(n.conn).Deliver(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := st.Send(&halleyv1.DeliverRequest{Message: &halleyv1.DeliverRequest_Hello{Hello: &halleyv1.DeliverHello{Job: "job-1", Lane: lane, Epoch: n.epoch()}}}); err != nil {
		n.t.Fatal(err)
	}
	return &job{t: n.t, stream: st, cancel: cancel}
}

// send sends deliveries as one batch and returns the acknowledgement.
func (j *job) send(ds ...*halleyv1.Delivery) *halleyv1.DeliverResponse {
	j.t.Helper()
	for _, d := range ds {
		j.number++
		d.Number = j.number
		if d.Tenant == "" {
			d.Tenant = "default"
		}
		if d.Class == 0 {
			d.Class = halleyv1.Class_CLASS_VOLATILE
		}
	}
	if err := j.stream.Send(&halleyv1.DeliverRequest{Message: &halleyv1.DeliverRequest_Batch{Batch: &halleyv1.DeliverBatch{Deliveries: ds}}}); err != nil {
		j.t.Fatal(err)
	}
	resp, err := j.stream.Recv()
	if err != nil {
		j.t.Fatal(err)
	}
	if resp.GetAcked() != j.number {
		j.t.Fatalf("acknowledged %d, want %d", resp.GetAcked(), j.number)
	}
	return resp
}

func push(op int32, body string) *halleyv1.Delivery_Push {
	return &halleyv1.Delivery_Push{Push: &halleyv1.Push{Op: op, Body: []byte(body)}}
}

func kick(code string) *halleyv1.Delivery_Control {
	return &halleyv1.Delivery_Control{Control: &halleyv1.Control{Control: &halleyv1.Control_Kick{Kick: &halleyv1.Kick{Error: &halleyv1.Error{Code: code, Message: code}}}}}
}

// metric returns the sum over all labels of a counter or gauge.
func (n *node) metric(name string, labels ...string) float64 {
	n.t.Helper()
	families, err := n.reg.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	next:
		for _, m := range f.GetMetric() {
			for i := 0; i+1 < len(labels); i += 2 {
				ok := false
				for _, l := range m.GetLabel() {
					ok = ok || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !ok {
					continue next
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
