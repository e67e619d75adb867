// Package push takes pushes and control deliveries, checks them, and writes them to their lane's topic: one
// record for each partition that their targets fall into. A push is accepted when all its records are
// acknowledged by Kafka.
//
// The package starts no goroutines and keeps nothing; concurrent calls share Kafka batches through the producer.
package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Producer writes records to Kafka; kafkaconn.Producer is one.
type Producer interface {
	// Produce returns nil when all messages are acknowledged; else its error may be a kafkaconn.WriteErrors, which tells them apart.
	// Topics come without prefix.
	Produce(ctx context.Context, msgs ...kafka.Message) error
	// Partition returns the partition that Produce puts a record with this key into.
	Partition(key []byte) int
}

// Config are the bounds of a push.
type Config struct {
	// UrgentTTL is how long a push in the urgent lane is worth delivering if its caller says nothing.
	UrgentTTL time.Duration `help:"Default ttl of pushes in the urgent lane." default:"30s"`
	// NormalTTL is the same for the push lane.
	NormalTTL time.Duration `help:"Default ttl of pushes in the push lane." default:"60s"`
	// BulkTTL is the same for the bulk lane.
	BulkTTL time.Duration `help:"Default ttl of pushes in the bulk lane." default:"10m"`
	// MaxTTL is the longest ttl that a caller may ask for.
	MaxTTL time.Duration `help:"Longest ttl that a caller may ask for." default:"24h"`
	// MaxBodyBytes is the largest body. It must stay below what the topics take in one message, targets included.
	MaxBodyBytes int64 `help:"Largest body of a push, in bytes." default:"262144"`
	// MaxTargets is the most uids, keys, rooms and exclusions of one push together.
	MaxTargets int `help:"Most targets and exclusions of one push." default:"10000"`
	// RecordTargets is the most targets of one record: a push with more in one partition becomes several records.
	RecordTargets int `help:"Most targets in one Kafka record." default:"500"`
	// Timeout is how long a push waits for Kafka.
	Timeout time.Duration `help:"How long a push waits for Kafka." default:"5s"`
	// RetryAfter is what a caller is told to wait when Kafka doesn't take the push.
	RetryAfter time.Duration `help:"What callers are told to wait when Kafka is away." default:"1s"`
}

// Validate checks the bounds against each other.
func (c Config) Validate() error {
	for _, f := range []struct {
		name string
		v    time.Duration
	}{{"urgent-ttl", c.UrgentTTL}, {"normal-ttl", c.NormalTTL}, {"bulk-ttl", c.BulkTTL}, {"timeout", c.Timeout}} {
		if f.v <= 0 {
			return fmt.Errorf("push: %s must be more than 0", f.name)
		}
	}
	if c.MaxTTL < max(c.UrgentTTL, c.NormalTTL, c.BulkTTL) {
		return errors.New("push: max-ttl is less than a default ttl")
	}
	if c.MaxBodyBytes < 1 || c.MaxTargets < 1 || c.RecordTargets < 1 {
		return errors.New("push: max-body-bytes, max-targets and record-targets must be at least 1")
	}
	return nil
}

// Request is one push. Targets are UIDs, Keys and Rooms together, or All alone.
type Request struct {
	Tenant string
	// ID names the push in the answer and in Kafka; it isn't sent to clients, so it doesn't keep a repeat from them. Empty: a
	// random UUID.
	ID string
	// Lane is LANE_PUSH if unspecified; All is always LANE_BULK.
	Lane halleyv1.Lane
	// Op is the frame's operation: pushable by frame.Op.Pushable, unless System is set.
	Op   int32
	Body []byte

	UIDs, Keys, Rooms []string
	All               bool
	// ExcludeUIDs and ExcludeKeys get nothing, however they were meant.
	ExcludeUIDs, ExcludeKeys []string

	// TTL counts from acceptance; 0: the lane's default.
	TTL time.Duration
	// Speed is for All: sessions a second over the whole cluster; 0: the comets' own pace.
	Speed uint32
	// Class is CLASS_VOLATILE if unspecified.
	Class halleyv1.Class

	// System lets the server's own pushes use protocol ops (events) and reserved rooms. Never set it from what
	// came in from outside.
	System bool
}

// Result is what became of an accepted push.
type Result struct {
	ID         string
	AcceptedAt time.Time
	// Records is how many Kafka records it became; 0: it had no targets.
	Records int
}

// Outcome is one push's of a batch: a Result, or an error with a code.
type Outcome struct {
	Result
	Err error
}

// Deps are what a Service works with. Log may be nil.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Producer Producer
	// Now is the clock; time.Now.
	Now func() time.Time
}

// Service takes pushes. Safe for concurrent use.
type Service struct {
	cfg      Config
	producer Producer
	now      func() time.Time
	metrics  *metrics
	log      *slog.Logger
}

// New makes a Service.
func New(cfg Config, d Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(d.Metrics)
	if err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, producer: d.Producer, now: d.Now, metrics: m, log: d.Log}, nil
}

// Push checks r, writes it and returns when Kafka acknowledged all its records. Errors carry a code: one for
// what is wrong with r (errcode.TooLarge also where Kafka takes none so large), or errcode.Unavailable; then some records may be written all the
// same, and the call is to be repeated with the same ID. Body is not kept. A push without targets is accepted and becomes nothing.
func (s *Service) Push(ctx context.Context, r Request) (Result, error) {
	// Room for the usual case, one record, so that it doesn't go to the heap.
	var buf [1]kafka.Message
	res, msgs, err := s.build(buf[:0], &r)
	if err != nil {
		s.metrics.refused(err)
		return Result{}, err
	}
	if err := s.write(ctx, msgs); err != nil {
		return Result{}, err
	}
	s.metrics.accepted(&r)
	return res, nil
}

// PushMany takes several pushes with one wait for Kafka. The outcomes are in the order of rs, each by itself: a push is accepted when all
// its own records are acknowledged. Pushes to one target keep their order, but for one that is repeated since it was not accepted.
func (s *Service) PushMany(ctx context.Context, rs []Request) []Outcome {
	out := make([]Outcome, len(rs))
	msgs := make([]kafka.Message, 0, len(rs))
	// owner[i] is the push that msgs[i] is of.
	owner := make([]int, 0, len(rs))
	for i := range rs {
		var err error
		if out[i].Result, msgs, err = s.build(msgs, &rs[i]); err != nil {
			s.metrics.refused(err)
			out[i] = Outcome{Err: err}
			continue
		}
		for len(owner) < len(msgs) {
			owner = append(owner, i)
		}
	}
	if err := s.write(ctx, msgs); err != nil {
		each := kafkaconn.Each(err, len(msgs))
		for i, err := range each {
			if err != nil {
				out[owner[i]] = Outcome{Err: s.failed(err)}
			}
		}
	}
	for i := range out {
		if out[i].Err == nil {
			s.metrics.accepted(&rs[i])
		}
	}
	return out
}

// Control sends a control delivery to sessions: to those of uids and keys, those in rooms, or single
// connections. It is never dropped and has no ttl. Errors are as Push's.
func (s *Service) Control(ctx context.Context, tenant string, targets []*halleyv1.Target, c *halleyv1.Control) error {
	return s.ControlExcept(ctx, tenant, targets, nil, c)
}

// ControlExcept is Control that leaves out the sessions of some uids.
func (s *Service) ControlExcept(ctx context.Context, tenant string, targets []*halleyv1.Target, uids []string, c *halleyv1.Control) error {
	msgs, err := s.buildControl(tenant, targets, uids, c)
	if err != nil {
		return err
	}
	if err := s.write(ctx, msgs); err != nil {
		return err
	}
	s.metrics.controls.Add(float64(len(targets)))
	return nil
}

// UIDTarget names all sessions of a uid.
func UIDTarget(uid string) *halleyv1.Target {
	return &halleyv1.Target{Target: &halleyv1.Target_Uid{Uid: uid}}
}

// KeyTarget names the session with that key.
func KeyTarget(key string) *halleyv1.Target {
	return &halleyv1.Target{Target: &halleyv1.Target_Key{Key: key}}
}

// RoomTarget names the sessions in a room.
func RoomTarget(room string) *halleyv1.Target {
	return &halleyv1.Target{Target: &halleyv1.Target_Room{Room: room}}
}

// ConnTarget names one connection.
func ConnTarget(c *halleyv1.Conn) *halleyv1.Target {
	return &halleyv1.Target{Target: &halleyv1.Target_Conn{Conn: c}}
}

func (s *Service) write(ctx context.Context, msgs []kafka.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	start := s.now()
	err := s.producer.Produce(ctx, msgs...)
	s.metrics.took.Observe(s.now().Sub(start).Seconds())
	if err == nil {
		s.metrics.records.Add(float64(len(msgs)))
		return nil
	}
	s.metrics.failures.Inc()
	for _, err := range kafkaconn.Each(err, len(msgs)) {
		if err == nil {
			s.metrics.records.Inc()
		}
	}
	// Kafka being away is the producer's to log, once; each push of that time would say the same.
	s.log.DebugContext(ctx, "push not accepted", "err", err)
	return s.failed(err)
}

// failed is what a caller is told of a write that failed.
func (s *Service) failed(err error) error {
	if kafkaconn.TooLarge(err) {
		return fmt.Errorf("%w: %w", errcode.TooLarge.Errorf("the push: larger than Kafka takes"), err)
	}
	return fmt.Errorf("%w: %w", errcode.Unavailable.After(s.cfg.RetryAfter), err)
}

func newID() string { return uuid.NewString() }
