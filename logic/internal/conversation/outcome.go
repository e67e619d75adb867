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
	// Known is whether it was told in time; if not, the proposal is accepted and nothing more.
	Known bool
	// Err is the rejection, with its code.
	Err error
	// Seq is the entry's place; 0 where it takes none.
	Seq int64
	// AtMs is its time.
	AtMs int64
}

const (
	// firstPoll is the first wait for an outcome; each further one is twice as long, up to lastPoll.
	firstPoll = 5 * time.Millisecond
	lastPoll  = 160 * time.Millisecond
)

func (s *Service) outcomeKey(id string) string { return wire.OutcomeKey(s.d.RedisPrefix, id) }

// clearOutcomes drops what earlier proposals of the same ids have left: they may have asked for something else, and their outcomes would be taken
// for those of these.
func (s *Service) clearOutcomes(ctx context.Context, of ...Accepted) {
	if s.d.Redis == nil || len(of) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RedisTimeout)
	defer cancel()
	p := s.d.Redis.Pipeline()
	for _, a := range of {
		p.Del(ctx, s.outcomeKey(a.ID))
	}
	if _, err := p.Exec(ctx); err != nil {
		s.metrics.outcomes.WithLabelValues(failed).Inc()
	}
}

// Outcomes waits for what becomes of accepted proposals whose Origin said Wait, Config.OutcomeWait at most, and returns an outcome
// for each, in their order.
func (s *Service) Outcomes(ctx context.Context, ids []string) []Outcome {
	out := make([]Outcome, len(ids))
	if s.d.Redis == nil || len(ids) == 0 {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.OutcomeWait)
	defer cancel()
	timer := time.NewTimer(firstPoll)
	defer timer.Stop()
	missing := len(ids)
	count := func(result string, n int) { s.metrics.outcomes.WithLabelValues(result).Add(float64(n)) }
	for wait := firstPoll; ; {
		select {
		case <-ctx.Done():
			count("late", missing)
			return out
		case <-timer.C:
		}
		n, err := s.poll(ctx, ids, out)
		count("told", n)
		if missing -= n; missing == 0 {
			return out
		}
		if err != nil && ctx.Err() == nil {
			count(failed, missing)
			return out
		}
		wait = min(2*wait, lastPoll)
		timer.Reset(wait)
	}
}

// poll asks for those that aren't known yet, the last first: when it is there the others are as a rule. It returns how many it got.
func (s *Service) poll(ctx context.Context, ids []string, out []Outcome) (int, error) {
	last := len(ids) - 1
	if !out[last].Known {
		value, err := s.d.Redis.Get(ctx, s.outcomeKey(ids[last])).Bytes()
		if errors.Is(err, redis.Nil) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		out[last] = told(value)
		if last == 0 {
			return 1, nil
		}
		n, err := s.poll(ctx, ids, out)
		return n + 1, err
	}
	// Not MGET: in a cluster the keys are in many slots.
	pipe := s.d.Redis.Pipeline()
	asked := map[int]*redis.StringCmd{}
	for i := range ids {
		if !out[i].Known {
			asked[i] = pipe.Get(ctx, s.outcomeKey(ids[i]))
		}
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return 0, err
	}
	n := 0
	for i, cmd := range asked {
		if value, err := cmd.Bytes(); err == nil {
			out[i] = told(value)
			n++
		}
	}
	return n, nil
}

// told reads what job has written.
func told(value []byte) Outcome {
	o := &halleyv1.ChatOutcome{}
	if err := proto.Unmarshal(value, o); err != nil {
		// Of another version: it was judged, and can't be told.
		return Outcome{Known: true, Err: errcode.Internal}
	}
	if o.GetError() != nil {
		return Outcome{Known: true, Err: errcode.FromProto(o.GetError())}
	}
	return Outcome{Known: true, Seq: o.GetSeq(), AtMs: o.GetAtMs()}
}
