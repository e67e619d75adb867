// Package meter has comet's metrics.
package meter

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-im/halley/comet/internal/session"
)

// Metrics are counted where things happen.
type Metrics struct {
	Handshakes *prometheus.CounterVec // by result
	Ended      *prometheus.CounterVec // by reason
	Deliveries *prometheus.CounterVec // by lane and outcome
	Messages   *prometheus.CounterVec // by lane: put into outboxes
	Dropped    *prometheus.CounterVec // by reason
	Requests   *prometheus.CounterVec // by op and result
	LaneLag    *prometheus.GaugeVec   // by lane
	Resyncs    prometheus.Counter
	Outbox     prometheus.Gauge
}

// State is what is read when the metrics are asked for.
type State struct {
	Connections, Sessions, Rooms, Addresses  func() float64
	Window, Rate                             func() float64
	Deregister, DeregisterDropped, RoomQueue func() float64
	Logics, InHand                           func() float64
	Epochs, Lapsed                           func() float64
	Count                                    *session.Counters
}

// New makes the metrics and registers them on reg.
func New(reg prometheus.Registerer, st State) (*Metrics, error) {
	const ns, sub = "halley", "comet"
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help}, labels)
	}
	m := &Metrics{
		Handshakes: vec("handshakes_total", "Connections by how their handshake ended.", "result"),
		Ended:      vec("sessions_ended_total", "Authenticated sessions that ended, by reason.", "reason"),
		Deliveries: vec("deliveries_total", "Deliveries taken from job, by lane and content.", "lane", "content"),
		Messages:   vec("messages_total", "Messages put into outboxes, by lane.", "lane"),
		Dropped:    vec("dropped_total", "Messages that reached nobody or were dropped, by reason.", "reason"),
		Requests:   vec("requests_total", "Clients' requests, by op and result.", "op", "result"),
		LaneLag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "lane_lag_seconds",
			Help: "Time that the last batch of a lane took from its arrival to its acknowledgement."}, []string{"lane"}),
		Resyncs: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "resyncs_total", Help: "Resync events sent."}),
		Outbox:  prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "outbox_bytes", Help: "Bytes that wait in all outboxes, as of the last scan."}),
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help}, f)
	}
	counter := func(name, help string, f func() int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help}, func() float64 { return float64(f()) })
	}
	c := st.Count
	all := []prometheus.Collector{
		m.Handshakes, m.Ended, m.Deliveries, m.Messages, m.Dropped, m.Requests, m.LaneLag, m.Resyncs, m.Outbox,
		gauge("connections", "Connections, authenticated or not.", st.Connections),
		gauge("sessions", "Authenticated sessions.", st.Sessions),
		gauge("rooms", "Rooms with sessions here.", st.Rooms),
		gauge("addresses", "Distinct client addresses.", st.Addresses),
		gauge("flush_window_seconds", "How long pushes wait for more at present.", st.Window),
		gauge("flush_rate", "Messages a second put into outboxes, smoothed.", st.Rate),
		gauge("deregister_queue", "Ended sessions that router was not told of yet.", st.Deregister),
		gauge("room_queue", "Rooms whose change router was not told of yet.", st.RoomQueue),
		gauge("logics", "Logics that requests go to.", st.Logics),
		gauge("requests_in_hand", "Requests that logics have in hand, or that wait to be sent to them.", st.InHand),
		gauge("epochs", "Epochs that this process has had.", st.Epochs),
		gauge("lease_lapsed", "1 while the lease may be over.", st.Lapsed),
		counter("writes_total", "Writes to sockets.", c.Writes.Load),
		counter("written_messages_total", "Messages in these writes.", c.Messages.Load),
		counter("written_bytes_total", "Bytes in these writes.", c.Bytes.Load),
		counter("writes_blocked_total", "Writes that the socket didn't take whole at once.", c.Blocked.Load),
		counter("outbox_dropped_volatile_total", "Volatile messages dropped by full outboxes.", c.DroppedVolatile.Load),
		counter("outbox_dropped_stored_total", "Stored messages that full outboxes replaced by a resync.", c.ReplacedRest.Load),
		counter("outbox_discarded_total", "Messages in outboxes of connections that broke or whose log-in failed.", c.Discarded.Load),
		gauge("deregister_dropped", "Ended sessions that the full queue, or router, left to the next rewrite.", st.DeregisterDropped),
	}
	for _, col := range all {
		if err := reg.Register(col); err != nil {
			return nil, err
		}
	}
	return m, nil
}
