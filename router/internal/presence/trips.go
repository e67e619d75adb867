package presence

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/kit/joint"
)

// trips sends the single commands of many callers together: while one trip to Redis is under way, the next one gathers. A command of
// its own costs two system calls and a turn of Redis' loop; most of what a log-in costs a router is that.
//
// go-redis' own AutoPipeline does the same, but knows neither a caller's context nor, by default, a bound of what waits.
type trips struct {
	j *joint.Joint[*trip]
}

// trip is one caller's command.
type trip struct {
	add func(redis.Pipeliner) redis.Cmder
	cmd redis.Cmder
	err error
}

// Bounds of trips. No settings: they need only be far enough from what a Redis does that works; what an operator may want to change is
// how long one waits for Redis, redis-timeout, which bounds a trip.
const (
	// tripCommands is the most commands of a trip. With some dozens the two system calls are a small part of the cost already; with
	// many more, who comes first waits for the last one's answer.
	tripCommands = 200
	// tripQueue bounds what waits, in commands: some seconds' worth of what one Redis does. Whoever waits longer has left by then.
	tripQueue = 100_000
	// tripPatience is far above what Redis takes that works; one trip that hangs must not hold up all.
	tripPatience = 100 * time.Millisecond
	// tripsBeside leaves some of the connections to pipelines: the smallest pool has 10 unless an operator says otherwise.
	tripsBeside = 8
)

// newTrips returns nil for a Cluster: there a trip goes to several nodes, and one that is away would hold up the commands to all.
func newTrips(c redis.UniversalClient, timeout time.Duration) *trips {
	if _, cluster := c.(*redis.ClusterClient); cluster {
		return nil
	}
	cfg := joint.Config{Most: tripCommands, Queue: tripQueue, Timeout: timeout, Patience: tripPatience, Beside: tripsBeside}
	return &trips{j: joint.New(cfg, func(*trip) int { return 1 }, func(ctx context.Context, ts []*trip) { together(ctx, c, ts) })}
}

func together(ctx context.Context, c redis.UniversalClient, ts []*trip) {
	_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, t := range ts {
			t.cmd = t.add(p)
		}
		return nil
	})
	// Each command has its own error; only where nothing was sent has none of them one.
	for _, t := range ts {
		switch {
		case t.cmd == nil:
			t.err = err
		case t.cmd.Err() != nil && !errors.Is(t.cmd.Err(), redis.Nil):
			t.err = t.cmd.Err()
		}
	}
}

// run has a command done. An error is Redis', ctx's, or says that too much waits; a nil reply is none.
func (t *trips) run(ctx context.Context, add func(redis.Pipeliner) redis.Cmder) (redis.Cmder, error) {
	one := &trip{add: add}
	if err := t.j.Do(ctx, one); err != nil {
		return nil, err
	}
	return one.cmd, one.err
}

// runJointly is runAll for what many callers do at once.
func (s *Store) runJointly(ctx context.Context, calls []*call) error {
	if s.trips == nil || len(calls) != 1 {
		return runAll(ctx, s.redis, calls)
	}
	k := calls[0]
	cmd, err := s.trips.run(ctx, func(p redis.Pipeliner) redis.Cmder { return p.EvalSha(ctx, k.script.sha, k.keys, k.args...) })
	if cmd == nil {
		return err
	}
	k.cmd = cmd.(*redis.Cmd)
	if err == nil {
		return nil
	}
	return runAgain(ctx, s.redis, calls)
}
