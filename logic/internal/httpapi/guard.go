package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/halley-im/halley/kit/loopback"
	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/goim"
	"github.com/halley-im/halley/logic/internal/idempotency"
	"github.com/halley-im/halley/logic/internal/limit"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
)

// TenantHeader names the tenant that a key for all tenants acts for.
const TenantHeader = "Halley-Tenant"

// route is what the guard must know of a path.
type route struct {
	// scope that the key needs; one of them if several.
	scope apikey.Scope
	// public paths need no key.
	public bool
	// replay keeps answers under an Idempotency-Key.
	replay bool
	// maxBytes of the request's body.
	maxBytes int64
}

// call is who makes a request that was let in.
type call struct {
	tenant string
	key    *apikey.Key
	scope  idempotency.Scope
	// idem is the Idempotency-Key; empty: none.
	idem string
	// remote is the caller's address without port; origin and host are the headers.
	remote, origin, host string
}

// pushID returns the id of the request's push, or of its nth; empty: a random one.
func (c *call) pushID(n string) string {
	if c.idem == "" {
		return ""
	}
	if n != "" {
		// No Idempotency-Key holds a NUL.
		return idempotency.PushID(c.scope, c.idem+"\x00"+n)
	}
	return idempotency.PushID(c.scope, c.idem)
}

type ctxKey int

const (
	ctxRequestID ctxKey = iota
	ctxCall
)

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(ctxRequestID).(string)
	return id
}

// callOf returns the call that the guard put there.
func callOf(ctx context.Context) *call { return ctx.Value(ctxCall).(*call) }

// guarded is the mux that huma registers its handlers on: each is put behind the guard.
type guarded struct{ a *api }

func (g guarded) HandleFunc(pattern string, next func(http.ResponseWriter, *http.Request)) {
	rt, ok := g.a.routes[pattern]
	if !ok {
		panic("no route for " + pattern) // a path that nobody said the scope of
	}
	m := g.a.metrics.route(pattern)
	g.a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		done := m.begin()
		defer func() { done(rec.status) }()
		g.a.guard(rec, r, rt, next)
	})
}

func (g guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.a.mux.ServeHTTP(w, r) }

// handle registers an operation of /v1: what the guard must know and what huma must.
func handle[I, O any](a *api, rt route, op huma.Operation, serve func(context.Context, *I) (*O, error)) {
	if rt.maxBytes == 0 {
		rt.maxBytes = a.cfg.MaxRequestBytes
	}
	a.routes[op.Method+" "+op.Path] = rt
	// The guard has read the body by then.
	op.MaxBodyBytes, op.BodyReadTimeout = -1, -1
	if !rt.public {
		op.Security = []map[string][]string{{"key": {}}}
		op.Description = strings.TrimSpace(op.Description + "\n\nScope: " + scopeText(rt.scope) + ".")
	}
	if rt.replay {
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: idempotency.Header, In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "1 to 255 printable characters. A repeat under the same key, within a day, gets the first one's answer.",
		})
	}
	if !rt.public {
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: TenantHeader, In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "For keys of all tenants: the tenant to act for.",
		})
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := serve(ctx, in)
		if err != nil {
			return nil, a.problemOf(ctx, err)
		}
		return out, nil
	})
}

func scopeText(s apikey.Scope) string { return strings.ReplaceAll(s.String(), "+", " or ") }

// guard lets a request through to next, or answers it.
func (a *api) guard(w *recorder, r *http.Request, rt route, next http.HandlerFunc) {
	w.Header().Set("Cache-Control", "no-store")
	c := &call{remote: remoteAddr(r), origin: r.Header.Get("Origin"), host: r.Host}
	ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), ctxCall, c), a.cfg.RequestTimeout)
	defer cancel()
	r = r.WithContext(ctx)

	// Before anything is looked at: what is too large is not read.
	if r.ContentLength > rt.maxBytes {
		w.Header().Set("Connection", "close")
		a.fail(w, r, errcode.TooLarge.Errorf("body: at most %d bytes", rt.maxBytes))
		return
	}
	if !rt.public {
		// Bodies are JSON whatever they are called: curl -d calls them a form. Paths without a key are strict, so that a foreign page can't send to
		// them without being asked by the browser (Fetch: only simple content types go without a preflight).
		r.Header.Set("Content-Type", "application/json")
	}
	if !rt.public {
		var err error
		if c.key, c.tenant, err = a.authorise(r, rt.scope); err != nil {
			a.fail(w, r, err)
			return
		}
	}

	body, err := readAll(w, r, rt.maxBytes)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))

	keys := r.Header[idempotency.Header]
	if len(keys) == 0 || rt.public || r.Method == http.MethodGet {
		next(w, r)
		return
	}
	if err := idempotency.CheckKey(keys[0]); err != nil {
		a.fail(w, r, err)
		return
	}
	c.idem = keys[0]
	c.scope = idempotency.Scope{Tenant: c.tenant, APIKey: c.key.ID, Method: r.Method, Path: r.URL.EscapedPath()}
	if !rt.replay {
		next(w, r)
		return
	}
	a.once(w, r, c, body, next)
}

// once carries a request out unless it was before, and keeps its answer.
func (a *api) once(w *recorder, r *http.Request, c *call, body []byte, next http.HandlerFunc) {
	h := sha256.New()
	// A hash takes all it is given.
	_, _ = io.WriteString(h, r.URL.RawQuery)
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(body)
	var print [sha256.Size]byte
	h.Sum(print[:0])
	kept, req, err := a.idem.Begin(r.Context(), c.scope, c.idem, print)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if kept != nil {
		for k, v := range kept.Header {
			w.Header()[k] = v
		}
		w.Header().Set("Idempotency-Replayed", "true")
		w.WriteHeader(kept.Status)
		_, _ = w.Write(kept.Body)
		return
	}
	var answer *idempotency.Answer
	// After a panic too, so that the key isn't blocked until it lapses.
	defer func() { req.End(r.Context(), answer) }()
	w.keep = &bytes.Buffer{}
	next(w, r)
	answer = &idempotency.Answer{Status: w.status, Body: w.keep.Bytes(), Header: http.Header{"Content-Type": w.Header()["Content-Type"]}}
}

// authorise finds the API key, and judges scope, tenant and rate.
func (a *api) authorise(r *http.Request, scope apikey.Scope) (*apikey.Key, string, error) {
	text, ok := bearer(r)
	if !ok {
		return nil, "", errcode.Unauthenticated.Errorf("Authorization: Bearer and an API key")
	}
	k, ok := a.keys.Check(text)
	if !ok && a.signer != nil && a.d.Demo == Loopback {
		k, ok = a.signer.Check(text, a.now())
	}
	if !ok {
		return nil, "", errcode.Unauthenticated.Errorf("the API key is not valid")
	}
	if !k.Scopes.Has(scope) {
		return nil, "", errcode.Forbidden.Errorf("the API key needs the scope %s", scopeText(scope))
	}
	tenant, err := k.TenantFor(r.Header.Get(TenantHeader))
	if err != nil {
		return nil, "", err
	}
	rate := limit.Rate{PerSecond: a.cfg.Rate, Burst: a.cfg.Burst}
	if k.Rate > 0 {
		rate = limit.Rate{PerSecond: float64(k.Rate)}
	}
	if wait, ok := a.limiter.Allow(r.Context(), "key:"+k.ID, rate); !ok {
		a.metrics.limited.Inc()
		return nil, "", errcode.RateLimited.After(wait)
	}
	return k, tenant, nil
}

// admitGoim judges a request of goim's paths: as authorise, or without a key where goim's API is open.
func (a *api) admitGoim(r *http.Request, scope apikey.Scope) (goim.Caller, error) {
	if a.d.GoimOpen != Closed && r.Header.Get("Authorization") == "" {
		if err := notForeign(r.Header.Get("Origin"), r.Host, a.d.GoimOpen); err != nil {
			return goim.Caller{}, err
		}
		return goim.Caller{Tenant: name.DefaultTenant, SeesCluster: true}, nil
	}
	k, tenant, err := a.authorise(r, scope)
	if err != nil {
		return goim.Caller{}, err
	}
	return goim.Caller{Tenant: tenant, APIKey: k.ID, SeesCluster: k.SeesCluster()}, nil
}

// notForeign refuses requests that a web page of somewhere else makes a browser on this machine send to a path that needs no
// key: those with a foreign Origin, and, where only loopback may come, those that name the server otherwise than as this machine.
func notForeign(origin, host string, open Openness) error {
	if origin != "" {
		u, err := url.Parse(origin)
		if err != nil || !strings.EqualFold(u.Host, host) {
			return errcode.Forbidden.Errorf("not from another site's page")
		}
	}
	if open == Loopback && !loopback.Host(host) {
		return errcode.Forbidden.Errorf("open on this machine only: use localhost or 127.0.0.1")
	}
	return nil
}

// bearer returns the credential of RFC 6750 section 2.1.
func bearer(r *http.Request) (string, bool) {
	h := r.Header.Get("Authorization")
	if len(h) < 7 || !strings.EqualFold(h[:7], "Bearer ") {
		return "", false
	}
	return strings.TrimSpace(h[7:]), true
}

func remoteAddr(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func readAll(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	switch {
	case r.ContentLength == 0 || r.Body == nil:
		return nil, nil
	case r.ContentLength > 0:
		b := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, b); err != nil {
			return nil, errcode.InvalidRequest.Errorf("the body is incomplete")
		}
		return b, nil
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, errcode.TooLarge.Errorf("body: at most %d bytes", limit)
	case err != nil:
		return nil, errcode.InvalidRequest.Errorf("the body is incomplete")
	}
	return b, nil
}

// recorder notes the status of an answer, and its body if keep is set.
type recorder struct {
	http.ResponseWriter
	status int
	keep   *bytes.Buffer
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if w.keep != nil {
		w.keep.Write(b)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
