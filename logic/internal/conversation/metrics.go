package conversation

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-im/halley/proto/errcode"
	entry "github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

type metrics struct {
	proposals *prometheus.CounterVec
	changes   *prometheus.CounterVec
	lookups   *prometheus.CounterVec
	outcomes  *prometheus.CounterVec
	cursors   *prometheus.CounterVec
	took      prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		proposals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_proposals_total", Help: "What was proposed for conversations, by kind and by what came of it here: ok is accepted.",
		}, []string{"kind", "code"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_user_changes_total", Help: "What users changed of their own, by kind and by what came of it here: ok is accepted.",
		}, []string{"kind", "code"}),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_membership_lookups_total", Help: "Questions whether somebody is a member or blocked, by how they were answered: cached, read, stale (the database is away), failed.",
		}, []string{"by"}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_outcomes_total", Help: "Calls of the HTTP API that waited for an outcome, by what they got: told, late, failed.",
		}, []string{"result"}),
		cursors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_cursors_total", Help: "Questions whether anything was missed, by who answered: cached is Redis, read the database, failed nobody.",
		}, []string{"by"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "halley_logic_proposal_write_seconds", Help: "Time until Kafka acknowledged a proposal.",
			Buckets: []float64{.001, .002, .004, .008, .016, .032, .064, .128, .25, .5, 1, 2, 5},
		}),
	}
	for _, by := range []string{fromCache, fromStore, fromStale, failed} {
		m.lookups.WithLabelValues(by)
	}
	if r != nil {
		for _, c := range []prometheus.Collector{m.proposals, m.changes, m.lookups, m.outcomes, m.cursors, m.took} {
			if err := r.Register(c); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func (m *metrics) proposal(k entry.Kind, err error) {
	code := "ok"
	if err != nil {
		code = errcode.From(err).Code.Name
	}
	kind := wire.Kind(k)
	if k == entry.Marker {
		kind = "marker"
	}
	m.proposals.WithLabelValues(kind, code).Inc()
}

func (m *metrics) change(kind string, err error) {
	code := "ok"
	if err != nil {
		code = errcode.From(err).Code.Name
	}
	m.changes.WithLabelValues(kind, code).Inc()
}

func (m *metrics) lookup(by string) { m.lookups.WithLabelValues(by).Inc() }
