package goim_test

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/goim"
	"github.com/halley-im/halley/logic/internal/nodes"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// pusher records what it is given; it judges rooms as package push does.
type pusher struct {
	mu   sync.Mutex
	got  []push.Request
	err  error
	keep bool
}

func (p *pusher) Push(_ context.Context, r push.Request) (push.Result, error) {
	if !p.keep {
		return push.Result{ID: "x"}, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return push.Result{}, p.err
	}
	for _, room := range r.Rooms {
		if err := name.Room(room); err != nil {
			return push.Result{}, err
		}
	}
	// The body is the caller's again when Push returns.
	r.Body = slices.Clone(r.Body)
	p.got = append(p.got, r)
	return push.Result{ID: "x"}, nil
}

func (p *pusher) taken() []push.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.got
	p.got = nil
	return g
}

// router has rooms and comets.
type router struct {
	rooms  map[string]uint32
	comets []*halleyv1.CometInfo
	err    error
}

func (r *router) TopRooms(_ context.Context, in *halleyv1.TopRoomsRequest, _ ...grpc.CallOption) (*halleyv1.TopRoomsResponse, error) {
	if r.err != nil {
		return nil, r.err
	}
	res := &halleyv1.TopRoomsResponse{}
	for room, n := range r.rooms {
		// Exact, as router promises.
		if name.RoomType(room) == in.GetType() {
			res.Rooms = append(res.Rooms, &halleyv1.RoomCount{Room: room, Count: n})
		}
	}
	slices.SortFunc(res.Rooms, func(a, b *halleyv1.RoomCount) int { return cmp.Compare(b.GetCount(), a.GetCount()) })
	res.Rooms = res.Rooms[:min(len(res.Rooms), int(in.GetLimit()))]
	return res, nil
}

func (r *router) CountRooms(_ context.Context, in *halleyv1.CountRoomsRequest, _ ...grpc.CallOption) (*halleyv1.CountRoomsResponse, error) {
	if r.err != nil {
		return nil, r.err
	}
	res := &halleyv1.CountRoomsResponse{}
	for _, n := range in.GetRooms() {
		res.Counts = append(res.Counts, r.rooms[n.GetRoom()])
	}
	return res, nil
}

func (r *router) ListComets(context.Context, *halleyv1.ListCometsRequest, ...grpc.CallOption) (*halleyv1.ListCometsResponse, error) {
	if r.err != nil {
		return nil, r.err
	}
	return &halleyv1.ListCometsResponse{Comets: r.comets}, nil
}

type fixture struct {
	t      testing.TB
	push   *pusher
	router *router
	// admit is what Admit answers.
	admit   error
	scope   apikey.Scope
	handler http.Handler
}

var config = goim.Config{
	RoomType: "room", Domain: "im.example.org", Heartbeat: 4 * time.Minute, HeartbeatMax: 2, TCPPort: 3101, WSPort: 3102, Region: "r1", Zone: "z1", Env: "prod",
}

func setUp(t testing.TB, change ...func(*goim.Config)) *fixture {
	t.Helper()
	cfg := config
	for _, f := range change {
		f(&cfg)
	}
	f := &fixture{t: t, push: &pusher{keep: true}, router: &router{rooms: map[string]uint32{}}}
	h, err := goim.New(cfg, goim.Deps{
		Push: f.push, Router: f.router, Nodes: nodes.New(f.router, time.Minute, time.Second), MaxBodyBytes: 64 << 10, Timeout: time.Minute,
		Admit: func(_ *http.Request, scope apikey.Scope) (goim.Caller, error) {
			f.scope = scope
			return goim.Caller{Tenant: "default", APIKey: "a", SeesCluster: true}, f.admit
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.handler = h
	return f
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (f *fixture) do(method, target, body string, headers ...string) answer {
	f.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return answer{w.Code, w.Result().Header, string(b)}
}

const (
	success  = `{"code":0,"message":""}`
	typeJSON = "application/json; charset=utf-8"
	typeText = "text/plain; charset=utf-8"
)

// want fails the test unless the answer is exactly that.
func (a answer) want(t testing.TB, status int, contentType, body string) {
	t.Helper()
	if a.status != status || a.header.Get("Content-Type") != contentType || a.body != body {
		t.Errorf("got  %d %s %s\nwant %d %s %s", a.status, a.header.Get("Content-Type"), a.body, status, contentType, body)
	}
}

var (
	away     = status.Error(codes.Unavailable, "away")
	kafkaOut = errcode.Unavailable.After(time.Second)
	errOdd   = errors.New("odd")
)
