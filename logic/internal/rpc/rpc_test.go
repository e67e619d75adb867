package rpc_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic/internal/auth"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/fake"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/room"
	"github.com/halley-im/halley/logic/internal/rpc"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

var now = time.Date(2026, 5, 4, 3, 2, 1, 250e6, time.UTC)

func clock() time.Time { return now }

// revocations are those of a test.
type revocations struct {
	notReady error
	revoked  func(*auth.Claims) bool
}

func (r *revocations) Ready() error { return r.notReady }

func (r *revocations) Revoked(c *auth.Claims) bool { return r.revoked != nil && r.revoked(c) }

// rig is a Server with all that it asks.
type rig struct {
	*rpc.Server
	t       testing.TB
	key     *token.Key
	router  *fake.Router
	kafka   *fake.Producer
	revoked *revocations
}

func config() rpc.Config {
	return rpc.Config{
		MaxPerUID: 5, NewestWins: []string{"ios"}, Heartbeat: 30 * time.Second, IdleTimeout: 75 * time.Second,
		GoimHeartbeat: 240 * time.Second, GoimHeartbeatMax: 2, GoimTenant: "default", Watch: 50, RoomBodyBytes: 32 << 10, ReplaceTimeout: long, ResumeLinger: time.Second,
	}
}

func newRig(t testing.TB, change ...func(*rpc.Config, *rpc.Deps)) *rig {
	t.Helper()
	key, err := token.NewHS256("k", []byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, key: key, router: &fake.Router{}, kafka: &fake.Producer{}, revoked: &revocations{}}
	verifier, err := auth.NewVerifier(auth.Config{MaxBytes: 8192, MaxLifetime: 24 * time.Hour, DefaultTTL: time.Hour}, []*token.Key{key}, clock)
	if err != nil {
		t.Fatal(err)
	}
	pusher, err := push.New(push.Config{
		UrgentTTL: time.Second, NormalTTL: time.Second, BulkTTL: time.Second, MaxTTL: 10 * time.Second, MaxBodyBytes: 1 << 20, MaxTargets: 100, RecordTargets: 100,
		Timeout: long, RetryAfter: time.Second,
	}, push.Deps{Producer: r.kafka, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	router := halleyv1.NewRouterClient(r.router.Dial(t))
	rooms, err := room.New(room.Config{Public: []string{"public://*"}, PerSession: 3, BackendBatch: 10}, pusher, router, long)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config()
	deps := rpc.Deps{
		Router: router, Verifier: verifier, Revoked: r.revoked, Rooms: rooms, Push: pusher, Producer: r.kafka,
		RouterTimeout: long, ProduceTimeout: long, ProduceRetry: 3 * time.Second, Now: clock,
	}
	for _, c := range change {
		c(&cfg, &deps)
	}
	if deps.Chat == nil {
		if deps.Chat, err = conversation.New(chatConfig(t), conversation.Deps{Producer: r.kafka}); err != nil {
			t.Fatal(err)
		}
	}
	if r.Server, err = rpc.New(cfg, deps); err != nil {
		t.Fatal(err)
	}
	return r
}

func trustGoim(_ *rpc.Config, d *rpc.Deps) { d.TrustGoim = true }

// token makes a good token of c, an hour long.
func (r *rig) token(c auth.Claims) string {
	r.t.Helper()
	if c.ExpiresAt.IsZero() {
		c.ExpiresAt = now.Add(time.Hour)
	}
	if c.IssuedAt.IsZero() {
		c.IssuedAt = now.Add(-time.Second)
	}
	s, err := token.Sign(r.key, c)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func conn(id string) *halleyv1.Conn { return &halleyv1.Conn{Comet: "c1", Epoch: "e1", Id: id} }

func (r *rig) connect(auth string) *halleyv1.ConnectResponse {
	r.t.Helper()
	res, err := r.Connect(context.Background(), &halleyv1.ConnectRequest{
		Conn: conn("a.1"), Auth: []byte(auth), RemoteAddr: "192.0.2.7", Transport: "ws", ConnectedAtMs: now.UnixMilli(),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

func body(token string, more ...string) string {
	return `{"token":"` + token + `"` + strings.Join(append([]string{""}, more...), ",") + `}`
}

// authReply reads a reply as a strict client made from the contract would.
func authReply(t testing.TB, b []byte) *halleyv1.AuthReply {
	t.Helper()
	m := &halleyv1.AuthReply{}
	if err := protojson.Unmarshal(b, m); err != nil {
		t.Fatalf("reply %s: %v", b, err)
	}
	return m
}

// member is a signed session in rooms.
func member(uid string, rooms ...string) *halleyv1.SessionRequest {
	return &halleyv1.SessionRequest{
		Session: &halleyv1.Session{Tenant: "default", Uid: uid, Key: "key-" + uid, Signed: true, Conn: conn("a.1")}, Rooms: rooms, Op: 100,
	}
}

func (r *rig) send(q *halleyv1.SessionRequest, body string) *halleyv1.SessionResponse {
	r.t.Helper()
	q.Body = []byte(body)
	return r.Request(context.Background(), q)
}

// ask sends a request and reads the reply as a strict client would.
func (r *rig) ask(q *halleyv1.SessionRequest, body string) (*halleyv1.Reply, *halleyv1.SessionResponse) {
	r.t.Helper()
	res := r.send(q, body)
	if res.GetError() != nil {
		r.t.Fatalf("error beside the reply: %v", res.GetError())
	}
	m := &halleyv1.Reply{}
	if err := protojson.Unmarshal(res.GetReply(), m); err != nil {
		r.t.Fatalf("reply %s: %v", res.GetReply(), err)
	}
	return m, res
}

func wantCode(t *testing.T, got *halleyv1.Error, want string) {
	t.Helper()
	if got.GetCode() != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func equal(t *testing.T, what string, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
