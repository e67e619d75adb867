package store

import "github.com/prometheus/client_golang/prometheus"

// metrics are what a store counts.
type metrics struct {
	transactions *prometheus.CounterVec
	seconds      prometheus.Histogram
	entries      *prometheus.CounterVec
}

// Results of a transaction.
const (
	resultCommitted = "committed"
	resultClash     = "clash"
	resultDeadlock  = "deadlock"
	resultRecord    = "record"
	resultDatabase  = "database"
)

func newMetrics() *metrics {
	m := &metrics{
		transactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_store_transactions_total",
			Help: "Transactions that write entries, by result: committed, clash (another writer), deadlock, record (one's own fault, found by halving), database.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "halley_store_transaction_seconds", Help: "Time that a committed transaction of entries took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "halley_store_proposals_total", Help: "Proposals judged, by outcome: stored, done (takes no seq), repeated, rejected.",
		}, []string{"outcome"}),
	}
	for _, v := range []string{resultCommitted, resultClash, resultDeadlock, resultRecord, resultDatabase} {
		m.transactions.WithLabelValues(v)
	}
	return m
}

// register is done once the database is open: an Open that failed may be tried again.
func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.transactions, m.seconds, m.entries} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
