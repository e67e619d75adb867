package presence

import "github.com/prometheus/client_golang/prometheus"

// Metrics count what the store does.
type Metrics struct {
	registrations *prometheus.CounterVec
	displaced     prometheus.Counter
	conflicts     prometheus.Counter
	located       *prometheus.CounterVec
	locatedKinds  [4]prometheus.Counter
	unavailable   prometheus.Counter
	events        *prometheus.CounterVec
	eventsFailed  *prometheus.CounterVec
	dead          *prometheus.CounterVec
	reaped        prometheus.Counter
	reapSeconds   prometheus.Histogram
	lostBuckets   prometheus.Counter
	comets        prometheus.Gauge
	loopErrors    *prometheus.CounterVec
	badRecords    prometheus.Counter
}

// NewMetrics makes them and registers them on r, which may be nil.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	c := func(n, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "halley_router_" + n, Help: help})
	}
	v := func(n, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "halley_router_" + n, Help: help}, labels)
	}
	m := &Metrics{
		registrations: v("registrations_total", "Sessions that were to be registered, by result.", "status"),
		displaced:     c("displaced_sessions_total", "Sessions that gave way to another one."),
		conflicts:     c("conflicts_total", "Entries that changed between reading and writing more than once."),
		located:       v("located_names_total", "Addressees looked up, by kind.", "kind"),
		unavailable:   c("locate_unavailable_total", "Look-ups answered with unavailable, after a loss."),
		events:        v("events_total", "Events produced, by event.", "event"),
		eventsFailed:  v("events_failed_total", "Events that could not be produced, by event: presence is tried again, room.member is lost.", "event"),
		dead:          v("epochs_dead_total", "Epochs declared dead, by cause.", "cause"),
		reaped:        c("reaped_entries_total", "Entries removed with a dead epoch."),
		reapSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "halley_router_reap_seconds", Help: "Time in which a dead epoch was cleared away.", Buckets: prometheus.ExponentialBuckets(0.01, 3, 8),
		}),
		lostBuckets: c("lost_buckets_total", "Buckets found without an epoch's marker."),
		comets:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "halley_router_comets", Help: "Comets whose lease is live."}),
		loopErrors:  v("loop_errors_total", "Rounds of a background loop that ended with an error, by loop.", "loop"),
		badRecords:  c("unreadable_records_total", "Entries in Redis that could not be read."),
	}
	for i, kind := range []string{"uid", "key", "room", "all"} {
		m.locatedKinds[i] = m.located.WithLabelValues(kind)
	}
	if r == nil {
		return m, nil
	}
	for _, x := range []prometheus.Collector{
		m.registrations, m.displaced, m.conflicts, m.located, m.unavailable, m.events, m.eventsFailed, m.dead, m.reaped,
		m.reapSeconds, m.lostBuckets, m.comets, m.loopErrors, m.badRecords,
	} {
		if err := r.Register(x); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) countLocated(n ...float64) {
	for i, v := range n {
		if v > 0 {
			m.locatedKinds[i].Add(v)
		}
	}
}
