package push

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

type metrics struct {
	byLane   map[halleyv1.Lane]prometheus.Counter
	targets  prometheus.Counter
	records  prometheus.Counter
	controls prometheus.Counter
	failures prometheus.Counter
	refusals *prometheus.CounterVec
	took     prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	pushes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "halley_logic_pushes_total", Help: "Pushes accepted, by lane.",
	}, []string{"lane"})
	m := &metrics{
		byLane: map[halleyv1.Lane]prometheus.Counter{
			halleyv1.Lane_LANE_URGENT: pushes.WithLabelValues("urgent"),
			halleyv1.Lane_LANE_PUSH:   pushes.WithLabelValues("push"),
			halleyv1.Lane_LANE_BULK:   pushes.WithLabelValues("bulk"),
		},
		targets: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_push_targets_total", Help: "Targets of accepted pushes.",
		}),
		records: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_push_records_total", Help: "Records that Kafka acknowledged.",
		}),
		controls: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_control_targets_total", Help: "Targets of control deliveries written.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_push_failures_total", Help: "Writes that Kafka did not acknowledge in time.",
		}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_push_refusals_total", Help: "Pushes refused for what is wrong with them, by code.",
		}, []string{"code"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "halley_logic_push_write_seconds", Help: "Time until Kafka acknowledged a push or a batch of them.",
			Buckets: []float64{.001, .002, .004, .008, .016, .032, .064, .128, .25, .5, 1, 2, 5},
		}),
	}
	if r != nil {
		for _, c := range []prometheus.Collector{pushes, m.targets, m.records, m.controls, m.failures, m.refusals, m.took} {
			if err := r.Register(c); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func (m *metrics) accepted(r *Request) {
	m.byLane[r.Lane].Inc()
	n := len(r.UIDs) + len(r.Keys) + len(r.Rooms)
	if r.All {
		n++
	}
	m.targets.Add(float64(n))
}

func (m *metrics) refused(err error) { m.refusals.WithLabelValues(errcode.From(err).Code.Name).Inc() }
