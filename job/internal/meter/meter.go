// Package meter names job's metrics and holds the ledger of what happened to every addressee.
//
// A record has targets: a uid, a session key, a room, everybody, or one connection. Each target ends once, in one of three
// ways, and is then counted once:
//
//	halley_job_targets_total          taken out of Kafka
//	  = halley_job_delivered_total    at least one comet acknowledged it with somebody there
//	  + halley_job_dropped_total      nobody got it; label reason says why
//	  + halley_job_handed_over_total  not ended when the partition went to another job, which reads it again
//	  + those in flight
//
// So over all jobs of a cluster that are not killed, delivered + dropped = sent, where a target that is read twice is counted twice
// on both sides. A target may be at several comets: one that was delivered by some and missed by others is delivered in the ledger and
// once more in halley_job_missed_total, by reason.
package meter

import (
	"github.com/prometheus/client_golang/prometheus"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Reason says why a target, or a comet's part of it, was not delivered. The greater one counts where a target's
// parts have different ones.
type Reason uint32

// Reasons. HandedOver is none: the record is read again by whoever has the partition now.
const (
	NoReason    Reason = iota
	NoRecipient        // nobody is there
	Expired            // later than the record's ttl
	DeadEpoch          // the comet died, or gave up the epoch, and so did the one found after it
	Stalled            // the comet acknowledges too slowly
	HandedOver
	reasons
)

// String returns the value of the label.
func (r Reason) String() string {
	switch r {
	case NoRecipient:
		return "no_recipient"
	case Expired:
		return "expired"
	case DeadEpoch:
		return "dead_epoch"
	case Stalled:
		return "stalled"
	}
	return "none"
}

// Meter is the set of a job's metrics.
type Meter struct {
	Lanes map[halleyv1.Lane]*Lane
	// Hooks counts the reading of halley.hooks, which is no lane of comets.
	Hooks *Lane

	LocateSeconds prometheus.Histogram
	LocateFails   *prometheus.CounterVec // reason
	Condemned     prometheus.Counter

	Lag       *prometheus.GaugeVec // topic, partition
	OldestLag *prometheus.GaugeVec // topic, partition
	Behind    *prometheus.GaugeVec // topic, partition
	Assigned  *prometheus.GaugeVec // topic

	Streams *prometheus.GaugeVec // lane, state

	Chat Chat
}

// Chat is what is counted of conversations besides their lane's. What became of each proposal is the store's to count.
type Chat struct {
	StoreFails *prometheus.CounterVec // what
	Purged     prometheus.Counter
	RedisFails prometheus.Counter
	Rosters    prometheus.Counter
	Stored     prometheus.Histogram
}

// Lane is what is counted for each lane, its labels bound.
type Lane struct {
	Records   prometheus.Counter
	Targets   prometheus.Counter
	Delivered prometheus.Counter
	HandOver  prometheus.Counter
	dropped   [reasons]prometheus.Counter
	missed    [reasons]prometheus.Counter

	Deliveries prometheus.Counter
	Acked      prometheus.Counter
	Resent     prometheus.Counter
	Reached    prometheus.Counter
	Again      prometheus.Counter
	Redials    prometheus.Counter
	Stalls     prometheus.Counter
	Resyncs    prometheus.Counter
	Rebalances prometheus.Counter
	Dead       prometheus.Counter
	DeadFails  prometheus.Counter
	Commits    prometheus.Counter
	CommitFail prometheus.Counter
	Resets     prometheus.Counter

	BatchRecords prometheus.Histogram
	StreamBatch  prometheus.Histogram
	Age          prometheus.Histogram
}

// Dropped counts a target that nobody got.
func (l *Lane) Dropped(r Reason) { l.dropped[r].Inc() }

// Missed counts a target that was delivered, but that not every comet got.
func (l *Lane) Missed(r Reason) { l.missed[r].Inc() }

// LaneName returns the value of the label lane.
func LaneName(l halleyv1.Lane) string {
	switch l {
	case halleyv1.Lane_LANE_URGENT:
		return "urgent"
	case halleyv1.Lane_LANE_PUSH:
		return "push"
	case halleyv1.Lane_LANE_BULK:
		return "bulk"
	case halleyv1.Lane_LANE_CHAT:
		return "chat"
	}
	return "unknown"
}

// New registers the metrics for these lanes on reg.
func New(reg prometheus.Registerer, lanes []halleyv1.Lane) (*Meter, error) {
	b := builder{reg: reg}
	m := &Meter{Lanes: map[halleyv1.Lane]*Lane{}}

	m.LocateSeconds = b.histogram("locate_seconds", "Time of a Locate that router answered, for a whole batch.", fine).WithLabelValues()
	m.LocateFails = b.counter("locate_failures_total", "Locates to be repeated: router away, or presence not known.", "reason")
	m.Condemned = b.counter("condemned_total", "Epochs that router was asked to declare dead, since they did not acknowledge for a whole lease.").WithLabelValues()
	m.Lag = b.gauge("lag_seconds", "Age of the oldest record that the partition's worker took a moment ago, or has yet to take or to handle; while the partition can't be read, the time since more of it was known to be there.", "topic", "partition")
	m.OldestLag = b.gauge("unacknowledged_seconds", "Age of the oldest record of the partition that has not ended; 0: none.", "topic", "partition")
	m.Behind = b.gauge("behind_records", "Records of the partition that its worker has yet to take, as far as Kafka tells.", "topic", "partition")
	m.Assigned = b.gauge("partitions", "Partitions of the topic that this job reads; of the others it has no lag. Over all jobs less than there are: nobody reads the rest.", "topic")
	m.Streams = b.gauge("streams", "Streams to comets by state.", "lane", "state")
	m.Chat = Chat{
		StoreFails: b.counter("store_failures_total", "Calls of the database that failed and were repeated.", "call"),
		RedisFails: b.counter("outcome_failures_total", "Writes of outcomes and marks to Redis that failed; marks are written again.").WithLabelValues(),
		Rosters:    b.counter("rosters_total", "Groups whose members were read from the database.").WithLabelValues(),
		Purged:     b.counter("purged_total", "Rows removed from the database since their time was over: replaced texts, outcomes of refused messages.").WithLabelValues(),
		Stored:     b.histogram("stored_seconds", "From a proposal's acceptance to its commit.", coarse).WithLabelValues(),
	}

	records := b.counter("records_total", "Records taken out of Kafka and decoded.", "lane")
	targets := b.counter("targets_total", "Targets of these records.", "lane")
	delivered := b.counter("delivered_total", "Targets that at least one comet acknowledged with somebody there.", "lane")
	handOver := b.counter("handed_over_total", "Targets that had not ended when their partition went to another job.", "lane")
	dropped := b.counter("dropped_total", "Targets that nobody got.", "lane", "reason")
	missed := b.counter("missed_total", "Targets delivered by one comet that another one missed, by the gravest reason.", "lane", "reason")
	deliveries := b.counter("deliveries_total", "Deliveries put into streams' windows.", "lane")
	acked := b.counter("acknowledged_total", "Deliveries that comets acknowledged.", "lane")
	resent := b.counter("resent_total", "Deliveries sent again after a stream broke.", "lane")
	reached := b.counter("reached_total", "Sessions reached, as comets say.", "lane")
	again := b.counter("located_again_total", "Targets looked up a second time.", "lane")
	redials := b.counter("redials_total", "Streams that broke and were opened again.", "lane")
	stalls := b.counter("stalls_total", "Times that a stream became stalled.", "lane")
	resyncs := b.counter("resyncs_total", "Times that a stalled comet was told to resync all its sessions, in the place of stored deliveries that it had no room for.", "lane")
	rebalances := b.counter("rebalances_total", "Generations of the consumer group that this job joined.", "lane")
	dead := b.counter("dead_letters_total", "Records that could not be decoded and were put aside.", "lane")
	deadFails := b.counter("dead_letter_failures_total", "Writes of such a record that failed and were repeated, shortened where Kafka refused it whole.", "lane")
	commits := b.counter("commits_total", "Commits of offsets.", "lane")
	commitFail := b.counter("commit_failures_total", "Commits that failed; the records may come again.", "lane")
	resets := b.counter("offset_resets_total", "Partitions whose offset Kafka did not have any more: read from the oldest record.", "lane")
	batch := b.histogram("batch_records", "Records that a worker took at once.", sizes, "lane")
	stream := b.histogram("stream_batch_deliveries", "Deliveries in one message of a stream.", sizes, "lane")
	age := b.histogram("age_seconds", "From a record's acceptance to its end: every target delivered or dropped.", coarse, "lane")

	bind := func(n string) *Lane {
		l := &Lane{
			Records: records.WithLabelValues(n), Targets: targets.WithLabelValues(n), Delivered: delivered.WithLabelValues(n),
			HandOver: handOver.WithLabelValues(n), Deliveries: deliveries.WithLabelValues(n), Acked: acked.WithLabelValues(n),
			Resent: resent.WithLabelValues(n), Reached: reached.WithLabelValues(n), Again: again.WithLabelValues(n),
			Redials: redials.WithLabelValues(n), Stalls: stalls.WithLabelValues(n), Resyncs: resyncs.WithLabelValues(n), Rebalances: rebalances.WithLabelValues(n),
			Dead: dead.WithLabelValues(n), DeadFails: deadFails.WithLabelValues(n),
			Commits: commits.WithLabelValues(n), CommitFail: commitFail.WithLabelValues(n), Resets: resets.WithLabelValues(n),
			BatchRecords: batch.WithLabelValues(n), StreamBatch: stream.WithLabelValues(n), Age: age.WithLabelValues(n),
		}
		for r := NoRecipient; r < HandedOver; r++ {
			l.dropped[r] = dropped.WithLabelValues(n, r.String())
			l.missed[r] = missed.WithLabelValues(n, r.String())
		}
		return l
	}
	for _, lane := range lanes {
		m.Lanes[lane] = bind(LaneName(lane))
	}
	m.Hooks = bind("hooks")
	return m, b.err
}

var (
	fine   = []float64{.0002, .0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2}
	coarse = []float64{.0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	sizes  = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}
)

// builder registers vectors and remembers the first error.
type builder struct {
	reg prometheus.Registerer
	err error
}

func (b *builder) add(c prometheus.Collector) {
	if err := b.reg.Register(c); err != nil && b.err == nil {
		b.err = err
	}
}

func (b *builder) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "halley", Subsystem: "job", Name: name, Help: help}, labels)
	b.add(v)
	return v
}

func (b *builder) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "halley", Subsystem: "job", Name: name, Help: help}, labels)
	b.add(v)
	return v
}

func (b *builder) histogram(name, help string, buckets []float64, labels ...string) histogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "halley", Subsystem: "job", Name: name, Help: help, Buckets: buckets}, labels)
	b.add(v)
	return histogramVec{v}
}

type histogramVec struct{ *prometheus.HistogramVec }

// WithLabelValues is the vector's, as a Histogram: prometheus returns an Observer, which can't be registered or read.
func (v histogramVec) WithLabelValues(lvs ...string) prometheus.Histogram {
	return v.HistogramVec.WithLabelValues(lvs...).(prometheus.Histogram)
}
