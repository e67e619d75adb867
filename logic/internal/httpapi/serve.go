package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/logic/internal/idempotency"
	"github.com/halley-im/halley/proto/errcode"
)

// RequestIDHeader names a request in the caller's logs and in ours.
const RequestIDHeader = "X-Request-Id"

// serve is the outermost handler. goim's paths go their own way at once: their callers know nothing of request ids.
func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(v)
		}
		a.metrics.panics.Inc()
		a.log.ErrorContext(r.Context(), "http handler panicked", logs.Req, requestID(r.Context()), logs.Err, fmt.Sprint(v), "stack", string(debug.Stack()))
		// If an answer was begun this does nothing but end it.
		newProblem(&errcode.Error{Code: errcode.Internal}, requestID(r.Context())).write(w)
	}()
	path := r.URL.Path
	if strings.HasPrefix(path, "/goim/") || strings.HasPrefix(path, "/1/") {
		a.goim.ServeHTTP(w, r)
		return
	}
	id := r.Header.Get(RequestIDHeader)
	if !goodRequestID(id) {
		id = newRequestID()
	}
	r = r.WithContext(context.WithValue(r.Context(), ctxRequestID, id))
	h := w.Header()
	h.Set(RequestIDHeader, id)
	h.Set("X-Content-Type-Options", "nosniff")
	if strings.HasPrefix(path, "/v1/") && a.cors(w, r) {
		return
	}
	a.mux.ServeHTTP(w, r)
}

// goodRequestID keeps what would break a log line, or is no id, out.
func goodRequestID(id string) bool {
	if len(id) == 0 || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

func newRequestID() string {
	var b [12]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// cors adds the header for allowed origins, and answers a preflight; it reports whether it did that.
func (a *api) cors(w http.ResponseWriter, r *http.Request) bool {
	if len(a.cfg.CORSOrigins) == 0 {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !slices.Contains(a.cfg.CORSOrigins, origin) && !slices.Contains(a.cfg.CORSOrigins, "*") {
		return false
	}
	// Never with credentials: keys are in a header that a page sets itself.
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", RequestIDHeader+", Retry-After, Idempotency-Replayed")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, "+strings.Join([]string{TenantHeader, idempotency.Header, RequestIDHeader}, ", "))
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// notFound answers what no pattern below /v1 takes.
func (a *api) notFound(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		try := r.Clone(r.Context())
		try.Method = m
		if _, pattern := a.mux.Handler(try); pattern != "/v1/" && strings.Contains(pattern, " /v1/") {
			allow = append(allow, m)
		}
	}
	if allow == nil {
		a.fail(w, r, errcode.UnknownMethod.Errorf("no such path"))
		return
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	a.fail(w, r, errcode.MethodNotAllowed)
}
