package private_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/halley-im/halley/halley/internal/private"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestSharedNeedsShowButDontMakeUnready(t *testing.T) {
	away := errors.New("connection\nrefused")
	h := private.Handler(prometheus.NewRegistry(), private.Health{
		Ready: map[string]private.Check{"comet": func(context.Context) error { return nil }},
		Needs: map[string]private.Check{"redis": func(context.Context) error { return away }},
	})
	if code, body := get(t, h, "/readyz"); code != http.StatusOK || strings.Contains(body, "redis") {
		t.Errorf("got %d %q, want 200 without needs", code, body)
	}
	code, body := get(t, h, "/readyz?verbose")
	if code != http.StatusOK || !strings.Contains(body, "[-] need redis: connection refused\n") || !strings.Contains(body, "[+] comet\n") {
		t.Errorf("verbose: got %d %q, want 200 with redis' fault in one line", code, body)
	}
}

func TestUnreadyIs503AndStillHealthy(t *testing.T) {
	h := private.Handler(prometheus.NewRegistry(), private.Health{
		Ready: map[string]private.Check{"comet": func(context.Context) error { return errors.New("draining") }},
	})
	if code, body := get(t, h, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "[-] comet: draining") {
		t.Errorf("got %d %q, want 503 with the reason", code, body)
	}
	if code, _ := get(t, h, "/healthz"); code != http.StatusOK {
		t.Errorf("healthz: got %d, want 200", code)
	}
}

func TestMetricsAndProfilesAreThere(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "halley_test_things_total"})
	reg.MustRegister(c)
	h := private.Handler(reg, private.Health{})
	if code, body := get(t, h, "/metrics"); code != http.StatusOK || !strings.Contains(body, "halley_test_things_total 0") {
		t.Errorf("metrics: got %d %q", code, body)
	}
	if code, _ := get(t, h, "/debug/pprof/goroutine?debug=1"); code != http.StatusOK {
		t.Errorf("pprof: got %d", code)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- private.Serve(ctx, l, private.Handler(prometheus.NewRegistry(), private.Health{}), slog.New(slog.DiscardHandler))
	}()
	resp, err := http.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}
