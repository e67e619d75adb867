package rpc

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-im/halley/proto/errcode"
)

// okCode is the label of what went well.
const okCode = "ok"

type metrics struct {
	connects  *prometheus.CounterVec
	requests  *prometheus.CounterVec
	connected prometheus.Histogram
	answered  prometheus.Histogram
	displaced prometheus.Counter
	untold    prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	buckets := []float64{.0005, .001, .002, .004, .008, .016, .032, .064, .128, .25, .5, 1, 2, 5}
	m := &metrics{
		connects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_connects_total", Help: "Log-ins, by kind of token and by outcome.",
		}, []string{"kind", "code"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_requests_total", Help: "Clients' requests, by method and outcome.",
		}, []string{"method", "code"}),
		connected: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "halley_logic_connect_seconds", Help: "Time that a log-in took.", Buckets: buckets,
		}),
		answered: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "halley_logic_request_seconds", Help: "Time that a client's request took.", Buckets: buckets,
		}),
		displaced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_sessions_displaced_total", Help: "Sessions that gave way to newer ones.",
		}),
		untold: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_displaced_untold_total", Help: "Sessions that gave way and could not be told, because Kafka was away.",
		}),
	}
	if r != nil {
		for _, c := range []prometheus.Collector{m.connects, m.requests, m.connected, m.answered, m.displaced, m.untold} {
			if err := r.Register(c); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func codeOf(err error) string {
	if err == nil {
		return okCode
	}
	return errcode.From(err).Code.Name
}

func (m *metrics) connect(kind string, took time.Duration, err error) {
	m.connects.WithLabelValues(kind, codeOf(err)).Inc()
	m.connected.Observe(took.Seconds())
}

func (m *metrics) request(method string, took time.Duration, err error) {
	m.requests.WithLabelValues(method, codeOf(err)).Inc()
	m.answered.Observe(took.Seconds())
}
