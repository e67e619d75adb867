package httpapi_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/auth"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/httpapi"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/room"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

func TestMain(m *testing.M) { kittest.Main(m) }

// defaults fills a config by its tags, as the program does.
func defaults[T any](t testing.TB) T {
	t.Helper()
	var c T
	p, err := kong.New(&c, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// record is a Kafka record that the fake producer was given.
type record struct {
	topic string
	*halleyv1.PushRecord
}

// producer stands in for Kafka.
type producer struct {
	mu      sync.Mutex
	records []record
	err     error
	hold    chan struct{}
	// bad are targets, as targets tells them, whose records are refused.
	bad []string
	// discard keeps no records.
	discard bool
}

func (p *producer) Partition(key []byte) int { return len(key) % 4 }

func (p *producer) Produce(ctx context.Context, msgs ...kafka.Message) error {
	p.mu.Lock()
	hold := p.hold
	p.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil || p.discard {
		return p.err
	}
	each := make(kafkaconn.WriteErrors, len(msgs))
	for i, m := range msgs {
		rec := &halleyv1.PushRecord{}
		if err := proto.Unmarshal(m.Value, rec); err != nil {
			return err
		}
		if slices.ContainsFunc(targets([]record{{m.Topic, rec}}), func(t string) bool { return slices.Contains(p.bad, t) }) {
			each[i] = kafkaconn.ErrUnavailable
			continue
		}
		p.records = append(p.records, record{m.Topic, rec})
	}
	if each.Unwrap() == nil {
		return nil
	}
	return each
}

// refuse has records to these targets fail, and no others.
func (p *producer) refuse(targets ...string) { p.mu.Lock(); defer p.mu.Unlock(); p.bad = targets }

func (p *producer) fail(err error) { p.mu.Lock(); defer p.mu.Unlock(); p.err = err }

// taken returns the records since the last call.
func (p *producer) taken() []record {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.records
	p.records = nil
	return r
}

// router stands in for router. Rooms and sessions belong to a tenant.
type router struct {
	mu       sync.Mutex
	rooms    map[string]map[string]uint32 // tenant → room → sessions
	members  map[string][]string          // tenant NUL room → uids
	sessions map[string][]*halleyv1.Session
	comets   []*halleyv1.CometInfo
	err      error
}

func newRouter() *router {
	return &router{rooms: map[string]map[string]uint32{}, members: map[string][]string{}, sessions: map[string][]*halleyv1.Session{}}
}

func (r *router) fail(err error) { r.mu.Lock(); defer r.mu.Unlock(); r.err = err }

func (r *router) TopRooms(_ context.Context, in *halleyv1.TopRoomsRequest, _ ...grpc.CallOption) (*halleyv1.TopRoomsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	res := &halleyv1.TopRoomsResponse{}
	for name, n := range r.rooms[in.GetTenant()] {
		if strings.HasPrefix(name, in.GetType()+"://") {
			res.Rooms = append(res.Rooms, &halleyv1.RoomCount{Room: name, Count: n})
		}
	}
	slices.SortFunc(res.Rooms, func(a, b *halleyv1.RoomCount) int { return cmp.Compare(b.GetCount(), a.GetCount()) })
	res.Rooms = res.Rooms[:min(len(res.Rooms), int(in.GetLimit()))]
	return res, nil
}

func (r *router) CountRooms(_ context.Context, in *halleyv1.CountRoomsRequest, _ ...grpc.CallOption) (*halleyv1.CountRoomsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	res := &halleyv1.CountRoomsResponse{}
	for _, n := range in.GetRooms() {
		res.Counts = append(res.Counts, r.rooms[n.GetTenant()][n.GetRoom()])
	}
	return res, nil
}

func (r *router) ListMembers(_ context.Context, in *halleyv1.ListMembersRequest, _ ...grpc.CallOption) (*halleyv1.ListMembersResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	all := r.members[in.GetTenant()+"\x00"+in.GetRoom()]
	from := 0
	if in.GetCursor() != "" {
		from = slices.Index(all, in.GetCursor()) + 1
	}
	to := min(len(all), from+int(in.GetLimit()))
	res := &halleyv1.ListMembersResponse{Uids: all[from:to], Count: uint32(len(all)), Complete: true}
	if to < len(all) {
		res.Next = all[to-1]
	}
	return res, nil
}

func (r *router) GetPresence(_ context.Context, in *halleyv1.GetPresenceRequest, _ ...grpc.CallOption) (*halleyv1.GetPresenceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	res := &halleyv1.GetPresenceResponse{}
	for _, uid := range in.GetUids() {
		p := &halleyv1.Presence{Uid: uid}
		for _, s := range r.sessions[in.GetTenant()] {
			if s.GetUid() == uid {
				p.Online = true
				p.Platforms = append(p.Platforms, s.GetPlatform())
			}
		}
		res.States = append(res.States, p)
	}
	return res, nil
}

func (r *router) ListOnline(_ context.Context, in *halleyv1.ListOnlineRequest, _ ...grpc.CallOption) (*halleyv1.ListOnlineResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	all := r.sessions[in.GetTenant()]
	from := 0
	if in.GetCursor() != "" {
		from = slices.IndexFunc(all, func(s *halleyv1.Session) bool { return s.GetUid() == in.GetCursor() }) + 1
	}
	res := &halleyv1.ListOnlineResponse{}
	for _, s := range all[from:] {
		if len(res.GetUsers()) == int(in.GetLimit()) {
			res.Next = res.GetUsers()[len(res.GetUsers())-1].GetUid()
			break
		}
		res.Users = append(res.Users, &halleyv1.Online{Uid: s.GetUid(), Platforms: []string{s.GetPlatform()}, Sessions: 1, SinceMs: s.GetConnectedAtMs()})
	}
	return res, nil
}

func (r *router) ListSessions(_ context.Context, in *halleyv1.ListSessionsRequest, _ ...grpc.CallOption) (*halleyv1.ListSessionsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	res := &halleyv1.ListSessionsResponse{}
	for _, s := range r.sessions[in.GetTenant()] {
		if in.GetUid() != "" && s.GetUid() == in.GetUid() || in.GetKey() != "" && s.GetKey() == in.GetKey() {
			res.Sessions = append(res.Sessions, s)
		}
	}
	return res, nil
}

func (r *router) ListComets(context.Context, *halleyv1.ListCometsRequest, ...grpc.CallOption) (*halleyv1.ListCometsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	return &halleyv1.ListCometsResponse{Comets: r.comets}, nil
}

// revoked is one revocation.
type revoked struct {
	tenant, uid, device string
	before              int64
}

type revoker struct {
	mu   sync.Mutex
	list []revoked
	err  error
}

func (r *revoker) Revoke(_ context.Context, tenant, uid, device string, before time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.list = append(r.list, revoked{tenant, uid, device, before.UnixMilli()})
	return nil
}

// server is an API over fakes, with what push, room and auth really do.
type server struct {
	t       testing.TB
	url     string
	kafka   *producer
	router  *router
	revoker *revoker
	handler http.Handler
	verify  *auth.Verifier
	// Keys by what they may: "push", "token", "read", "admin" of the tenant default, "shop" all of tenant shop, "any" all of any.
	keys map[string]string
}

// patience is how long is waited for what comes: a process that stands still for seconds, as one among many does, is no failure of Redis', nor of router's.
const patience = 15 * time.Second

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var signingKey = "k1:HS256:" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldC1zZWNyZXQ="

type option func(*httpapi.Config, *httpapi.Deps)

func newServer(t testing.TB, opts ...option) *server {
	t.Helper()
	s := &server{t: t, kafka: &producer{}, router: newRouter(), revoker: &revoker{}, keys: map[string]string{}}
	cfg := defaults[httpapi.Config](t)
	cfg.RateTimeout, cfg.Idempotency.Timeout = patience, patience
	for _, k := range []struct {
		name, tenant string
		scopes       apikey.Scope
	}{
		{"push", "default", apikey.Push}, {"token", "default", apikey.Token}, {"read", "default", apikey.Read}, {"chat", "default", apikey.Chat},
		{"admin", "default", apikey.Admin}, {"shop", "shop", apikey.Admin}, {"any", apikey.AllTenants, apikey.Admin},
	} {
		text, line, err := apikey.New(k.name, k.scopes, k.tenant)
		if err != nil {
			t.Fatal(err)
		}
		s.keys[k.name] = text
		cfg.APIKeys = append(cfg.APIKeys, line)
	}
	clock := func() time.Time { return now }
	sends := defaults[push.Config](t)
	sends.Timeout = patience
	pushes, err := push.New(sends, push.Deps{Producer: s.kafka, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	rooms, err := room.New(defaults[room.Config](t), pushes, s.router, patience)
	if err != nil {
		t.Fatal(err)
	}
	key, err := token.ParseKey(signingKey)
	if err != nil {
		t.Fatal(err)
	}
	minter, err := auth.NewMinter(defaults[auth.Config](t), []*token.Key{key}, clock)
	if err != nil {
		t.Fatal(err)
	}
	if s.verify, err = auth.NewVerifier(defaults[auth.Config](t), []*token.Key{key}, clock); err != nil {
		t.Fatal(err)
	}
	deps := httpapi.Deps{
		Push: pushes, Rooms: rooms, Minter: minter, Revoker: s.revoker, Router: s.router, RouterTimeout: patience, RoomBodyBytes: 32 << 10,
		Secret: []byte("0123456789abcdef0123456789abcdef"), Version: "test", Now: clock,
	}
	for _, o := range opts {
		o(&cfg, &deps)
	}
	if deps.Chat == nil {
		if deps.Chat, err = conversation.New(defaults[conversation.Config](t), conversation.Deps{Producer: s.kafka, Now: clock}); err != nil {
			t.Fatal(err)
		}
	}
	if s.handler, err = httpapi.New(cfg, deps); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.handler)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

// answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) json(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("answer %d %q: %v", a.status, a.body, err)
	}
	return m
}

// code returns the problem's code, or "" if the answer isn't one.
func (a answer) code(t testing.TB) string {
	t.Helper()
	if a.header.Get("Content-Type") != "application/problem+json" {
		return ""
	}
	c, _ := a.json(t)["code"].(string)
	return c
}

// do makes a request with the key of that name ("" for none) and headers as pairs.
func (s *server) do(method, path, key, body string, headers ...string) answer {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if text, ok := s.keys[key]; ok {
		req.Header.Set("Authorization", "Bearer "+text)
	} else if key != "" {
		s.t.Fatalf("no key %q", key)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	return s.send(req)
}

func (s *server) send(req *http.Request) answer {
	s.t.Helper()
	res, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(bytes.TrimSpace(b))}
}

// client keeps no connections, so that a test's end finds no goroutine of them.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error {
	return http.ErrUseLastResponse
}}

// want fails the test unless the answer has the status and, for problems, the code.
func (a answer) want(t testing.TB, status int, code string) answer {
	t.Helper()
	if a.status != status || a.code(t) != code {
		t.Fatalf("got %d %s %.300s, want %d %s", a.status, a.header.Get("Content-Type"), a.body, status, code)
	}
	return a
}

// away is what a role that doesn't answer says.
var away = status.Error(codes.Unavailable, "away")

var errKafka = errors.New("kafka is away")

// targets lists the targets of records, as kind:name.
func targets(records []record) []string {
	var list []string
	for _, r := range records {
		for _, t := range r.GetTargets() {
			list = append(list, strings.ReplaceAll(strings.TrimPrefix(string(topic.Key("", t)), "\x00"), "\x00", ":"))
		}
	}
	slices.Sort(list)
	return list
}

func keysOf(t testing.TB, rdb redis.UniversalClient, prefix string) []string {
	t.Helper()
	keys, err := rdb.Keys(t.Context(), prefix+"*").Result()
	if err != nil {
		t.Fatal(err)
	}
	return append(keys, prefix+"none")
}

// metric sums a counter or gauge over its labels.
func metric(t testing.TB, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// taken returns the revocations since the last call.
func (r *revoker) taken() []revoked {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.list
	r.list = nil
	return l
}

func redisFor(t testing.TB) (redis.UniversalClient, string) { return kittest.Redis(t) }

func withRedis(rdb redis.UniversalClient, prefix string) option {
	return func(_ *httpapi.Config, d *httpapi.Deps) { d.Redis, d.RedisPrefix = rdb, prefix }
}
