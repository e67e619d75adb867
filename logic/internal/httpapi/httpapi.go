// Package httpapi is logic's HTTP API: Halley's own paths below /v1, described by OpenAPI out of the handlers' types;
// goim's paths; health and metrics; the web app.
//
// A request passes, in this order: recovery of panics, request id, CORS, look-up of its path; then for a path of /v1 the guard:
// size, API key, scope, tenant, rate, Idempotency-Key, time limit; then its handler. Errors are problem+json (RFC 9457)
// with the codes of proto/errcode.
//
// The package starts no goroutines and keeps nothing but short-lived caches.
package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"

	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic/internal/apikey"
	calls "github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/logic/internal/goim"
	"github.com/halley-im/halley/logic/internal/idempotency"
	"github.com/halley-im/halley/logic/internal/limit"
	"github.com/halley-im/halley/logic/internal/nodes"
	"github.com/halley-im/halley/logic/internal/push"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Pusher takes pushes and control deliveries; push.Service is one.
type Pusher interface {
	Push(ctx context.Context, r push.Request) (push.Result, error)
	PushMany(ctx context.Context, rs []push.Request) []push.Outcome
	Control(ctx context.Context, tenant string, targets []*halleyv1.Target, c *halleyv1.Control) error
}

// Rooms is what backends do with rooms; room.Service does it.
type Rooms interface {
	Put(ctx context.Context, tenant, uid string, rooms []string) error
	Remove(ctx context.Context, tenant, uid string, rooms []string) error
	Close(ctx context.Context, tenant, room string) error
	Members(ctx context.Context, tenant, room, cursor string, limit uint32) (*halleyv1.RoomMemberPage, error)
}

// Minter signs tokens; auth.Minter does.
type Minter interface {
	Mint(c token.Claims, ttl time.Duration) (compact string, expires time.Time, err error)
}

// Revoker makes tokens void; revoke.Registry does.
type Revoker interface {
	Revoke(ctx context.Context, tenant, uid, deviceID string, before time.Time) error
}

// Router are the calls of router that this package makes; halleyv1.RouterClient has them.
type Router interface {
	goim.Router
	nodes.Lister
	GetPresence(ctx context.Context, in *halleyv1.GetPresenceRequest, opts ...grpc.CallOption) (*halleyv1.GetPresenceResponse, error)
	ListOnline(ctx context.Context, in *halleyv1.ListOnlineRequest, opts ...grpc.CallOption) (*halleyv1.ListOnlineResponse, error)
	ListSessions(ctx context.Context, in *halleyv1.ListSessionsRequest, opts ...grpc.CallOption) (*halleyv1.ListSessionsResponse, error)
}

// Need is something outside this process that requests need, as /readyz?verbose tells it.
type Need struct {
	Name string
	// Check returns nil if it answers. It obeys its context.
	Check func(context.Context) error
}

// Deps are what the API works with.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer

	Push    Pusher
	Rooms   Rooms
	Minter  Minter
	Revoker Revoker
	Router  Router
	// RouterTimeout bounds a call of router.
	RouterTimeout time.Duration
	// RoomBodyBytes is the largest body of a message to a room, the same as for clients.
	RoomBodyBytes int64
	// Chat takes what concerns conversations and people.
	Chat *conversation.Service
	// Calls takes what concerns calls; nil: there are none.
	Calls *calls.Service
	// Limiter counts requests; nil: one of its own.
	Limiter *limit.Limiter
	// Redis holds limits and kept answers, below RedisPrefix; nil: none.
	Redis       redis.UniversalClient
	RedisPrefix string

	// APIKeys are lines as in Config.APIKeys that the composition made.
	APIKeys []string
	// GoimOpen lets goim's paths in without a key, Demo is whether the demo log-in is open; on loopback only, or
	// anywhere.
	GoimOpen, Demo Openness
	// Secret signs the push keys of the demo log-in; all logic processes need the same. Empty: none are given.
	Secret []byte

	// Ready returns nil when this process can serve something by itself.
	Ready func(context.Context) error
	// Needs are told by /readyz?verbose.
	Needs []Need
	// MetricsHandler serves /metrics to loopback and to keys with the scope read; nil: no such path.
	MetricsHandler http.Handler
	// Web are the files of the web app; nil: a page says that it isn't built.
	Web fs.FS
	// Version of the program, told by /v1/cluster.
	Version string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Openness is how far something is open to callers without a key.
type Openness int

// Values of Openness.
const (
	Closed Openness = iota
	// Loopback is open where every listener is on loopback. Requests must then name this machine in Host, so that a web
	// page can't reach it by a name of its own (DNS rebinding).
	Loopback
	Anywhere
)

// api is the state that the handlers share.
type api struct {
	cfg     Config
	d       Deps
	log     *slog.Logger
	now     func() time.Time
	keys    *apikey.Set
	signer  *apikey.Signer
	limiter *limit.Limiter
	idem    *idempotency.Store
	nodes   *nodes.Nodes
	goim    *goim.Handler
	metrics *metrics

	mux    *http.ServeMux
	routes map[string]route
	huma   huma.API
}

// New makes the handler of all paths.
func New(cfg Config, d Deps) (http.Handler, error) {
	a, err := build(cfg, d)
	if err != nil {
		return nil, err
	}
	return a.handler()
}

func build(cfg Config, d Deps) (*api, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if d.RouterTimeout <= 0 {
		return nil, errors.New("http: RouterTimeout must be more than 0")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	a := &api{cfg: cfg, d: d, log: d.Log, now: d.Now, mux: http.NewServeMux(), routes: map[string]route{}}
	var err error
	if a.keys, err = cfg.keys(d.APIKeys); err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	if len(d.Secret) > 0 {
		a.signer = apikey.NewSigner(d.Secret)
	}
	if a.metrics, err = newMetrics(d.Metrics); err != nil {
		return nil, err
	}
	if a.limiter = d.Limiter; a.limiter == nil {
		a.limiter = limit.New(d.Redis, d.RedisPrefix, cfg.RateTimeout, d.Metrics)
	}
	if a.idem, err = idempotency.New(d.Redis, d.RedisPrefix, cfg.Idempotency, d.Metrics); err != nil {
		return nil, err
	}
	a.nodes = nodes.New(d.Router, d.RouterTimeout, cfg.NodesCache)
	if a.goim, err = goim.New(cfg.Goim, goim.Deps{
		Push: d.Push, Router: d.Router, Nodes: a.nodes, Admit: a.admitGoim, MaxBodyBytes: cfg.MaxPushBytes, Timeout: d.RouterTimeout, Log: d.Log,
	}); err != nil {
		return nil, err
	}
	a.huma = humago.New(guarded{a}, humaConfig())
	a.registerPush()
	a.registerTokens()
	a.registerPresence()
	a.registerRooms()
	a.registerSessions()
	a.registerCluster()
	a.registerDemo()
	a.registerChat()
	a.registerConversations()
	a.registerUsers()
	a.registerCalls()
	return a, nil
}

func humaConfig() huma.Config {
	c := huma.DefaultConfig("Halley", "1")
	c.Info.Description = apiDescription
	// Huma's own pages: the description is served from memory, the docs page without a CDN, and $schema links nobody asked for.
	c.OpenAPIPath, c.DocsPath, c.SchemasPath, c.CreateHooks = "", "", "", nil
	c.RejectUnknownQueryParameters = true
	strict := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: strictJSON}
	c.Formats = map[string]huma.Format{"application/json": strict, "json": strict}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"key": {Type: "http", Scheme: "bearer", Description: "An API key: hk_<id>_<secret>, or a temporary one: ht_…"},
	}
	return c
}

// strictJSON is json.Unmarshal that takes no unknown field: pushes aren't validated by their schema before, and a misspelt field must not
// be taken for one left out.
func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return fmt.Errorf("%s: a %s where a %s belongs", wrong.Field, wrong.Value, jsonType(wrong.Type))
	case err != nil:
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}

// jsonType is what JSON calls what a Go type is decoded from.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return jsonType(t.Elem())
	case reflect.Bool, reflect.String:
		return t.Kind().String()
	case reflect.Slice, reflect.Array:
		return "list"
	case reflect.Struct, reflect.Map:
		return "object"
	}
	return "number"
}

const apiDescription = `Backends push to users, sessions, rooms or everybody, and look at and manage who is connected.

Requests carry an API key: ` + "`Authorization: Bearer hk_…`" + `. A key has scopes and belongs to one tenant; a key for all tenants names one in the header ` + "`Halley-Tenant`" + `, else acts for "default".
Writes take an ` + "`Idempotency-Key`" + `. Times are milliseconds since 1970. Errors are problem+json (RFC 9457) with a stable ` + "`code`" + `.`

// handler puts the paths together, outermost first.
func (a *api) handler() (http.Handler, error) {
	a.registerDocs()
	a.registerHealth()
	// What no other pattern below /v1 takes: an unknown path, or a wrong method of a known one.
	a.mux.HandleFunc("/v1/", a.notFound)
	if err := a.registerWeb(); err != nil {
		return nil, err
	}
	return http.HandlerFunc(a.serve), nil
}
