package hook

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Reasons why a hook is dropped.
const (
	tooOld     = "too_old"
	noEndpoint = "no_endpoint"
)

type metrics struct {
	queued   *prometheus.CounterVec   // endpoint
	unwanted *prometheus.CounterVec   // event
	requests *prometheus.CounterVec   // endpoint, result
	dropped  *prometheus.CounterVec   // endpoint, reason
	seconds  *prometheus.HistogramVec // endpoint
	keys     *prometheus.GaugeVec     // endpoint
	oldest   *prometheus.GaugeVec     // endpoint
	lost     *prometheus.CounterVec   // endpoint
	failures *prometheus.CounterVec   // call
	produced *prometheus.CounterVec   // event
	large    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "halley", Subsystem: "job", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "halley", Subsystem: "job", Name: name, Help: help}, []string{"endpoint"})
	}
	m := &metrics{
		queued:   counter("hooks_queued_total", "Webhooks put into the queue; after a kill some are put twice.", "endpoint"),
		unwanted: counter("hooks_unwanted_total", "Events that no receiver wants.", "event"),
		requests: counter("hook_requests_total", "Requests to receivers, by what became of them.", "endpoint", "result"),
		dropped:  counter("hooks_dropped_total", "Webhooks given up: too old when they failed again, or their receiver is not configured any more.", "endpoint", "reason"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "halley", Subsystem: "job", Name: "hook_seconds", Help: "From the queue to the receiver that has taken it.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600, 3600, 21600, 86400},
		}, []string{"endpoint"}),
		keys:     gauge("hook_backlog_keys", "Conversations and users of which webhooks wait; of the whole cluster, as this job sees it."),
		oldest:   gauge("hook_backlog_seconds", "Age of the oldest webhook that waits; 0: none. Of the whole cluster, as this job sees it."),
		lost:     counter("hook_claims_lost_total", "Webhooks that another job took over before this one was done: sent twice, perhaps.", "endpoint"),
		failures: counter("hook_database_failures_total", "Calls of the database that failed and are repeated.", "call"),
		produced: counter("hook_events_total", "Events written to the topic of webhooks by this job.", "event"),
		large: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "halley", Subsystem: "job", Name: "hook_events_too_large_total", Help: "Events dropped since they are too large.",
		}),
	}
	for _, c := range []prometheus.Collector{
		m.queued, m.unwanted, m.requests, m.dropped, m.seconds, m.keys, m.oldest, m.lost, m.failures, m.produced, m.large,
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// show makes an endpoint's counters visible before anything happens.
func (m *metrics) show(endpoint string) {
	m.queued.WithLabelValues(endpoint)
	for _, r := range results {
		m.requests.WithLabelValues(endpoint, string(r))
	}
	m.dropped.WithLabelValues(endpoint, tooOld)
	m.keys.WithLabelValues(endpoint)
	m.oldest.WithLabelValues(endpoint)
}
