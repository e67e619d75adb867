package httpapi

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	limited  prometheus.Counter
	panics   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_http_requests_total", Help: "Requests of /v1, by route and status.",
		}, []string{"route", "status"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "halley_logic_http_request_seconds", Help: "Time that requests of /v1 took, by route.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}, []string{"route"}),
		limited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_http_limited_total", Help: "Requests refused because their API key made too many.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_http_panics_total", Help: "Requests whose handler panicked.",
		}),
	}
	if reg != nil {
		for _, c := range []prometheus.Collector{m.requests, m.took, m.limited, m.panics} {
			if err := reg.Register(c); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// routeMetrics are those of one route.
type routeMetrics struct {
	requests *prometheus.CounterVec
	ok       prometheus.Counter
	took     prometheus.Observer
}

func (m *metrics) route(pattern string) *routeMetrics {
	requests := m.requests.MustCurryWith(prometheus.Labels{"route": pattern})
	return &routeMetrics{requests: requests, ok: requests.WithLabelValues("200"), took: m.took.WithLabelValues(pattern)}
}

// begin starts the clock; the function that it returns stops it.
func (m *routeMetrics) begin() func(status int) {
	start := time.Now()
	return func(status int) {
		m.took.Observe(time.Since(start).Seconds())
		switch status {
		case 200:
			m.ok.Inc()
		case 0:
			// A panic: what is answered then is answered further out.
			m.requests.WithLabelValues("500").Inc()
		default:
			m.requests.WithLabelValues(strconv.Itoa(status)).Inc()
		}
	}
}
