// Package goim serves goim's HTTP API, so that goim's own callers work against Halley unchanged: the paths below /goim/ of
// goim 2.0 and the older ones below /1/ of goim 1. Answers are goim's byte for byte where its programs could tell; what goim
// can't do (API keys, limits) has codes of the same make.
//
// It is written on net/http by hand: a push costs a look-up of its path, a scan of its query and a write of a ready-made
// answer. The package starts no goroutines.
package goim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/idempotency"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// Config is what goim's callers are told that Halley has no other place for.
type Config struct {
	// RoomType is the type of the older API's numbered rooms: rid 7 is "room://7".
	RoomType string `help:"Type of the rooms that /1/push/room and /1/count number: rid 7 is TYPE://7." default:"room"`
	// Domain is told to clients by nodes/weighted, and is the only node where no comet is live.
	Domain string `help:"Domain that nodes/weighted tells clients, the only node where no comet is live." default:"localhost"`
	// HostSuffix makes names of web nodes: comet's name and this. Empty: the host of the comet's endpoints.
	HostSuffix string `help:"For platform web, nodes/weighted makes node names of the comet's name and this suffix; empty: the comet's public host." default:""`
	// Heartbeat is what clients are told to wait between two op 2.
	Heartbeat time.Duration `help:"Heartbeat that nodes/weighted tells clients." default:"4m"`
	// HeartbeatMax is how many of them may be missed.
	HeartbeatMax int32 `help:"How many heartbeats may be missed, as nodes/weighted tells clients." default:"2"`
	// TCPPort, WSPort and WSSPort are told where no comet is live.
	TCPPort int32 `name:"tcp-port" help:"TCP port that nodes/weighted tells where no comet is live." default:"3101"`
	WSPort  int32 `name:"ws-port" help:"WebSocket port that nodes/weighted tells where no comet is live." default:"3102"`
	WSSPort int32 `name:"wss-port" help:"Port for WebSocket over TLS that nodes/weighted tells where no comet is live; 0: none." default:"0"`
	// Region, Zone and Env are told by nodes/instances.
	Region string `help:"Region that nodes/instances tells." default:"local"`
	Zone   string `help:"Zone that nodes/instances tells." default:"local"`
	Env    string `help:"Environment that nodes/instances tells." default:"prod"`
}

// Validate checks what callers would otherwise stumble over one by one.
func (c Config) Validate() error {
	if err := name.Room(c.RoomType + "://1"); err != nil {
		return fmt.Errorf("goim: room-type: %w", err)
	}
	if c.Heartbeat < time.Second || c.HeartbeatMax < 1 {
		return errors.New("goim: heartbeat must be at least 1s and heartbeat-max at least 1")
	}
	return nil
}

// Pusher takes pushes; push.Service is one.
type Pusher interface {
	Push(ctx context.Context, r push.Request) (push.Result, error)
}

// Router are the calls of router that this package makes.
type Router interface {
	TopRooms(ctx context.Context, in *halleyv1.TopRoomsRequest, opts ...grpc.CallOption) (*halleyv1.TopRoomsResponse, error)
	CountRooms(ctx context.Context, in *halleyv1.CountRoomsRequest, opts ...grpc.CallOption) (*halleyv1.CountRoomsResponse, error)
}

// Nodes knows the live comets; nodes.Nodes does.
type Nodes interface {
	Live(ctx context.Context) ([]*halleyv1.CometInfo, error)
	Ordered(ctx context.Context, keep func(*halleyv1.Endpoints) bool) ([]*halleyv1.CometInfo, error)
}

// Caller is who makes a request.
type Caller struct {
	Tenant string
	// APIKey is the id of the key; empty where none is needed.
	APIKey string
	// SeesCluster is whether the caller may see what can't be told apart by tenant.
	SeesCluster bool
}

// Deps are what a Handler works with.
type Deps struct {
	Push   Pusher
	Router Router
	Nodes  Nodes
	// Admit judges a request's API key and rate. Its errors are errcode.Unauthenticated, Forbidden, RateLimited and
	// InvalidRequest.
	Admit func(r *http.Request, scope apikey.Scope) (Caller, error)
	// MaxBodyBytes is the largest body of a push.
	MaxBodyBytes int64
	// Timeout bounds a call of router.
	Timeout time.Duration
	Log     *slog.Logger
}

// Handler serves the paths. Safe for concurrent use.
type Handler struct {
	cfg Config
	d   Deps
}

// New makes a Handler.
func New(cfg Config, d Deps) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if d.MaxBodyBytes <= 0 || d.Timeout <= 0 {
		return nil, errors.New("goim: MaxBodyBytes and Timeout must be more than 0")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{cfg: cfg, d: d}, nil
}

type route struct {
	method string
	scope  apikey.Scope
	serve  func(*Handler, http.ResponseWriter, *http.Request, Caller)
}

var routes = map[string]route{
	"/goim/push/keys":       {http.MethodPost, apikey.Push, (*Handler).pushKeys},
	"/goim/push/mids":       {http.MethodPost, apikey.Push, (*Handler).pushMids},
	"/goim/push/room":       {http.MethodPost, apikey.Push, (*Handler).pushRoom},
	"/goim/push/all":        {http.MethodPost, apikey.Push, (*Handler).pushAll},
	"/goim/online/top":      {http.MethodGet, apikey.Read, (*Handler).onlineTop},
	"/goim/online/room":     {http.MethodGet, apikey.Read, (*Handler).onlineRoom},
	"/goim/online/total":    {http.MethodGet, apikey.Read, (*Handler).onlineTotal},
	"/goim/nodes/weighted":  {http.MethodGet, apikey.Read | apikey.Push, (*Handler).nodesWeighted},
	"/goim/nodes/instances": {http.MethodGet, apikey.Read, (*Handler).nodesInstances},

	"/1/push":       {http.MethodPost, apikey.Push, (*Handler).oldPush},
	"/1/pushs":      {http.MethodPost, apikey.Push, (*Handler).oldPushs},
	"/1/push/room":  {http.MethodPost, apikey.Push, (*Handler).oldPushRoom},
	"/1/push/all":   {http.MethodPost, apikey.Push, (*Handler).oldPushAll},
	"/1/count":      {http.MethodGet, apikey.Read, (*Handler).oldCount},
	"/1/server/del": {http.MethodPost, apikey.Admin, (*Handler).oldServerDel},
}

// ServeHTTP answers as goim does: an unknown path or method is a plain 404, below /1/ a wrong method is 405.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt, ok := routes[r.URL.Path]
	old := strings.HasPrefix(r.URL.Path, "/1/")
	switch {
	case !ok, rt.method != r.Method && !old:
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	case rt.method != r.Method:
		w.Header().Set("Allow", rt.method)
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	caller, err := h.d.Admit(r, rt.scope)
	if err != nil {
		refuse(w, errcode.From(err), old)
		return
	}
	rt.serve(h, w, r, caller)
}

// Codes in goim's answers. The first three are goim's own.
const (
	codeOK      = 0
	codeRequest = -400
	codeServer  = -500
)

// Header values that are the same in every answer: the slices are shared and never written to.
var (
	typeJSON = []string{"application/json; charset=utf-8"}
	typeText = []string{"text/plain; charset=utf-8"}

	ok         = ready(`{"code":0,"message":""}`)
	noKeys     = ready(`{"code":-400,"message":""}`)
	oldOK      = ready(`{"ret":1}`)
	oldFailure = ready(`{"ret":65535}`)
)

// answer is one that is ready to be written.
type answer struct {
	body   []byte
	length []string
}

func ready(s string) answer { return answer{[]byte(s), []string{strconv.Itoa(len(s))}} }

func (a answer) write(w http.ResponseWriter) {
	h := w.Header()
	h["Content-Type"], h["Content-Length"] = typeJSON, a.length
	_, _ = w.Write(a.body) // who hung up isn't told
}

// result is the answer's shape; data nil is left out.
type result struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    any    `json:"data,omitempty"`
}

// null is data that is there and null.
var null = json.RawMessage("null")

func (h *Handler) data(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(result{Code: codeOK, Data: v})
	if err != nil {
		h.d.Log.ErrorContext(r.Context(), "goim answer not encoded", logs.Err, err)
		h.failed(w, codeServer, "internal")
		return
	}
	w.Header()["Content-Type"] = typeJSON
	_, _ = w.Write(b)
}

// failed is goim's answer to what went wrong behind it: HTTP 200 and a code.
func (h *Handler) failed(w http.ResponseWriter, code int, message string) {
	b, _ := json.Marshal(result{Code: code, Message: message}) // two plain fields: can't fail
	w.Header()["Content-Type"] = typeJSON
	_, _ = w.Write(b)
}

// badRequest is goim's answer to a bad parameter: JSON that says it is text, status 400 (or another, for what goim has no
// case).
func badRequest(w http.ResponseWriter, status int, message string) {
	b, _ := json.Marshal(result{Code: codeRequest, Message: message})
	w.Header()["Content-Type"] = typeText
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// refuse answers a request without a good key, or with too many before it. goim has no such case: the code is the
// status, negative, as its others are.
func refuse(w http.ResponseWriter, e *errcode.Error, old bool) {
	hd := w.Header()
	hd["Content-Type"] = typeJSON
	switch e.Code {
	case errcode.Unauthenticated:
		hd.Set("WWW-Authenticate", `Bearer realm="halley"`)
	case errcode.RateLimited:
		hd.Set("Retry-After", strconv.Itoa(max(1, int((e.RetryAfter+time.Second-1)/time.Second))))
	}
	w.WriteHeader(e.Code.HTTP)
	if old {
		_, _ = w.Write(oldFailure.body)
		return
	}
	text := e.Detail
	if text == "" {
		text = e.Code.Text
	}
	b, _ := json.Marshal(result{Code: -e.Code.HTTP, Message: text})
	_, _ = w.Write(b)
}

// router returns a context for a call of router.
func (h *Handler) router(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), h.d.Timeout)
}

// errWhole refuses a key of one tenant what is of all: comets don't count by tenant.
var errWhole = errcode.Forbidden.Errorf("this is of the whole cluster: the API key must be of all tenants")

// pushID makes the push's id of the Idempotency-Key if there is one; empty: push makes a random one. Answers aren't kept
// here: the SDKs drop a repeated push by its id.
func pushID(r *http.Request, c Caller) (string, error) {
	keys := r.Header[idempotency.Header]
	if len(keys) == 0 {
		return "", nil
	}
	if err := idempotency.CheckKey(keys[0]); err != nil {
		return "", err
	}
	return idempotency.PushID(idempotency.Scope{Tenant: c.Tenant, APIKey: c.APIKey, Path: r.URL.Path}, keys[0]), nil
}
