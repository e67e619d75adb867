package httpapi

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/halley-im/halley/kit/loopback"
	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/proto/errcode"
)

// registerHealth registers what those ask who run the process.
func (a *api) registerHealth() {
	a.get("/healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	a.get("/readyz", a.ready)
	if a.d.MetricsHandler != nil {
		a.get("/metrics", a.serveMetrics)
	}
}

// get registers a path outside /v1 that is only read.
func (a *api) get(path string, serve http.HandlerFunc) {
	a.mux.HandleFunc("GET "+path, serve)
	a.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", "GET, HEAD")
		plain(w, http.StatusMethodNotAllowed, "method not allowed\n")
	})
}

func plain(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// readiness is the answer to /readyz?verbose.
type readiness struct {
	Ready bool        `json:"ready"`
	Needs []needState `json:"needs"`
}

// needState tells of a shared need whether it answers; why it doesn't is in the log, since anybody may ask here.
type needState struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	TookMS int64  `json:"took_ms"`
}

// ready answers 200 if this process can serve something by itself. That a shared need is away doesn't make it unready: no other
// logic would be better off, and taking all out of service helps nobody.
func (a *api) ready(w http.ResponseWriter, r *http.Request) {
	status, text := http.StatusOK, "ok"
	if a.d.Ready != nil {
		ctx, cancel := context.WithTimeout(r.Context(), a.cfg.ReadyTimeout)
		defer cancel()
		if err := a.d.Ready(ctx); err != nil {
			status, text = http.StatusServiceUnavailable, "not ready"
		}
	}
	if !r.URL.Query().Has("verbose") {
		plain(w, status, text)
		return
	}
	res := readiness{Ready: status == http.StatusOK, Needs: make([]needState, len(a.d.Needs))}
	ctx, cancel := context.WithTimeout(r.Context(), a.cfg.ReadyTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, n := range a.d.Needs {
		wg.Go(func() {
			start := time.Now()
			err := n.Check(ctx)
			res.Needs[i] = needState{Name: n.Name, OK: err == nil, TookMS: time.Since(start).Milliseconds()}
		})
	}
	wg.Wait()
	b, _ := json.Marshal(res) // strings and numbers: can't fail
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

// serveMetrics serves /metrics to this machine, and to keys that may read. A request that a proxy passed on comes from loopback
// as well, hence the look at its header.
func (a *api) serveMetrics(w http.ResponseWriter, r *http.Request) {
	ip := net.ParseIP(remoteAddr(r))
	proxied := r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != ""
	if ip == nil || !ip.IsLoopback() || proxied || !loopback.Host(r.Host) {
		k, _, err := a.authorise(r, apikey.Read)
		if err == nil && k.Tenant != apikey.AllTenants {
			err = errcode.Forbidden.Errorf("metrics are of all tenants: so must the API key be")
		}
		if err != nil {
			a.fail(w, r, err)
			return
		}
	}
	a.d.MetricsHandler.ServeHTTP(w, r)
}
