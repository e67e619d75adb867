package conversation

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/store/wire"
)

// Outcome is what became of a proposal.
type Outcome struct {
	// Seq is the entry's place; 0 where it takes none.
	Seq int64
	// AtMs is its time.
	AtMs int64
}

const (
	// redisWait is the longest that one question to Redis may take.
	redisWait = 200 * time.Millisecond
	// firstPoll is the first wait for an outcome; each further one is twice as long, up to lastPoll.
	firstPoll = 5 * time.Millisecond
	lastPoll  = 160 * time.Millisecond
)

func (s *Service) outcomeKey(id string) string { return wire.OutcomeKey(s.d.RedisPrefix, id) }

// clearOutcome drops what an earlier proposal of the same id has left: it may have asked for something else, and its outcome would be taken
// for this one's.
func (s *Service) clearOutcome(ctx context.Context, id string) {
	if s.d.Redis == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	if err := s.d.Redis.Del(ctx, s.outcomeKey(id)).Err(); err != nil {
		s.metrics.outcomes.WithLabelValues(failed).Inc()
	}
}

// Outcome waits for what becomes of an accepted proposal whose Origin said Wait: ok is false if it isn't known in time, or at
// all. The error is the rejection, with its code.
func (s *Service) Outcome(ctx context.Context, id string) (out Outcome, ok bool, err error) {
	if s.d.Redis == nil {
		return Outcome{}, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.OutcomeWait)
	defer cancel()
	timer := time.NewTimer(firstPoll)
	defer timer.Stop()
	for wait := firstPoll; ; {
		select {
		case <-ctx.Done():
			s.metrics.outcomes.WithLabelValues("late").Inc()
			return Outcome{}, false, nil
		case <-timer.C:
		}
		value, err := s.d.Redis.Get(ctx, s.outcomeKey(id)).Bytes()
		if err == nil {
			return s.told(value)
		}
		if !errors.Is(err, redis.Nil) && ctx.Err() == nil {
			s.metrics.outcomes.WithLabelValues(failed).Inc()
			return Outcome{}, false, nil
		}
		wait = min(2*wait, lastPoll)
		timer.Reset(wait)
	}
}

func (s *Service) told(value []byte) (Outcome, bool, error) {
	o := &halleyv1.ChatOutcome{}
	if err := proto.Unmarshal(value, o); err != nil {
		// Of another version: it can't be told, but it was accepted.
		s.metrics.outcomes.WithLabelValues(failed).Inc()
		return Outcome{}, false, nil
	}
	s.metrics.outcomes.WithLabelValues("told").Inc()
	if o.GetError() != nil {
		return Outcome{}, true, errcode.FromProto(o.GetError())
	}
	return Outcome{Seq: o.GetSeq(), AtMs: o.GetAtMs()}, true, nil
}
