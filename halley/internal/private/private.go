// Package private is the HTTP server of a process for its operator: metrics, health, profiles. It belongs on
// loopback or in a network without strangers.
package private

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Times of the server. Only the operator calls it, and no test waits for one of them: they are no settings.
const (
	headerTimeout = 5 * time.Second
	checkTimeout  = 2 * time.Second
	stopTimeout   = time.Second
)

// Check asks one need or part for its state: nil if it is well. It must heed ctx.
type Check func(ctx context.Context) error

// Health is what the health endpoints tell.
type Health struct {
	// Ready says whether the process can serve something by itself: started, not leaving. /readyz is 503 while
	// any of them fails.
	Ready map[string]Check
	// Needs are what the process shares with others. They show in /readyz?verbose and never change its status: taking all
	// processes out of service because Redis is away would only add to the harm.
	Needs map[string]Check
}

// Handler answers /metrics, /healthz, /readyz and /debug/pprof.
func Handler(metrics prometheus.Gatherer, h Health) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", h.ready)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func (h Health) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	var b strings.Builder
	status := http.StatusOK
	if !run(ctx, &b, "", h.Ready) {
		status = http.StatusServiceUnavailable
	}
	if r.URL.Query().Has("verbose") {
		run(ctx, &b, "need ", h.Needs)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if status == http.StatusOK {
		b.WriteString("ready\n")
	} else {
		b.WriteString("not ready\n")
	}
	io.WriteString(w, b.String())
}

// run writes a line for each check, in the order of their names, and reports whether all are well.
func run(ctx context.Context, b *strings.Builder, prefix string, checks map[string]Check) bool {
	all := true
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		err := checks[name](ctx)
		if err != nil {
			all = false
			fmt.Fprintf(b, "[-] %s%s: %s\n", prefix, name, strings.Join(strings.Fields(err.Error()), " "))
			continue
		}
		fmt.Fprintf(b, "[+] %s%s\n", prefix, name)
	}
	return all
}

// Serve answers on l until ctx is done, then ends within a second.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	// No write timeout: a profile or a trace runs for as long as its reader asked.
	s := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if s.Shutdown(stop) != nil {
		s.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
