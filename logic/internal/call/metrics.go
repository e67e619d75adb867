package call

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-im/halley/logic/internal/call/machine"
)

type metrics struct {
	calls     *prometheus.CounterVec
	ended     *prometheus.CounterVec
	length    prometheus.Histogram
	answered  prometheus.Histogram
	signals   *prometheus.CounterVec
	sent      prometheus.Counter
	late      prometheus.Counter
	conflicts prometheus.Counter
	looks     *prometheus.CounterVec
	asks      *prometheus.CounterVec
	loss      prometheus.Histogram
	roundTrip prometheus.Histogram
	paths     *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_calls_total", Help: "Calls that were made, by kind and media.",
		}, []string{"kind", "media"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_calls_ended_total", Help: "Calls that ended, by kind and reason.",
		}, []string{"kind", "reason"}),
		length: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "halley_logic_call_seconds", Help: "Length of calls that were active.", Buckets: []float64{5, 15, 30, 60, 180, 600, 1800, 3600, 7200, 14400},
		}),
		answered: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "halley_logic_call_answer_seconds", Help: "Time from a call's beginning until it was active.", Buckets: []float64{.5, 1, 2, 4, 8, 16, 32, 64},
		}),
		signals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_call_signals_total", Help: "Descriptions and candidates: sent, old (thrown away), away (nobody to send to), or the code of the refusal.",
		}, []string{"result"}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_call_events_total", Help: "Records that were written of calls' events, signals apart.",
		}),
		late: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_call_events_late_total", Help: "Events that could not be written at once and wait with their call.",
		}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_call_conflicts_total", Help: "Steps taken again because another one of the same call came first.",
		}),
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_call_looks_total", Help: "Looks at calls whose time seemed to have come: due, early, unknown, failed.",
		}, []string{"result"}),
		asks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_call_asks_total", Help: "Calls about which the host was asked: allowed, refused, failed (no answer).",
		}, []string{"result"}),
		loss: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "halley_logic_call_loss_ratio", Help: "Share of packets lost, as clients report it every 10 s.", Buckets: []float64{0, .005, .01, .02, .05, .1, .2, .5},
		}),
		roundTrip: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "halley_logic_call_round_trip_seconds", Help: "Round trip of media, as clients report it every 10 s.", Buckets: []float64{.01, .03, .06, .1, .15, .25, .4, .8, 1.6},
		}),
		paths: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_logic_call_reports_total", Help: "Reports of clients, by whether media goes through a relay.",
		}, []string{"path"}),
	}
	if r != nil {
		for _, c := range []prometheus.Collector{
			m.calls, m.ended, m.length, m.answered, m.signals, m.sent, m.late, m.conflicts, m.looks, m.asks, m.loss, m.roundTrip, m.paths,
		} {
			if err := r.Register(c); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func (m *metrics) made(c *machine.Call) { m.calls.WithLabelValues(c.Kind, c.Media).Inc() }

// step counts what a step that was kept has brought about.
func (m *metrics) step(c *machine.Call, st *machine.Step) {
	switch {
	case st.Ended:
		m.ended.WithLabelValues(c.Kind, string(c.Reason)).Inc()
		if c.Activated > 0 {
			m.length.Observe(c.Duration().Seconds())
		}
	case st.First:
		m.answered.Observe(float64(c.Activated-c.Created) / 1000)
	}
}

func (m *metrics) quality(p *PeerStats) {
	path := "direct"
	if p.Local == "relay" || p.Remote == "relay" {
		path = "relay"
	}
	m.paths.WithLabelValues(path).Inc()
	m.loss.Observe(p.Loss)
	m.roundTrip.Observe(p.RoundTripMs / 1000)
}
