package call

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/proto/errcode"
)

func isNil(err error) bool { return errors.Is(err, redis.Nil) }

const (
	// timerWorkers is how many due calls a process works at at once, claimMost how many it takes of a slot in one go.
	timerWorkers = 8
	claimMost    = 32
)

// Run does what is due in calls, whoever made them, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	if s.asker != nil {
		defer s.asker.client.CloseIdleConnections()
	}
	work := make(chan mark)
	var wg sync.WaitGroup
	for range timerWorkers {
		wg.Go(func() {
			for m := range work {
				s.look(ctx, m)
			}
		})
	}
	defer wg.Wait()
	defer close(work)
	failed := false
	for {
		// Processes that started together spread.
		if pause(ctx, s.cfg.Poll/2+rand.N(s.cfg.Poll)) != nil {
			return nil
		}
		err := s.poll(ctx, work)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failed:
			s.d.Log.WarnContext(ctx, "calls' timers stand still: redis does not answer", "err", err)
		case err == nil && failed:
			s.d.Log.InfoContext(ctx, "calls' timers go on")
		}
		failed = err != nil
	}
}

func (s *Service) poll(ctx context.Context, work chan<- mark) error {
	slots, err := s.db.dueSlots(ctx)
	if err != nil {
		return err
	}
	rand.Shuffle(len(slots), func(i, j int) { slots[i], slots[j] = slots[j], slots[i] })
	for _, slot := range slots {
		for {
			marks, err := s.db.claim(ctx, slot, s.cfg.Hold, claimMost)
			if err != nil {
				return err
			}
			for _, m := range marks {
				select {
				case work <- m:
				case <-ctx.Done():
					return nil
				}
			}
			if len(marks) < claimMost {
				break
			}
		}
	}
	return nil
}

// look does what is due in one call, and puts it into the index for the next time.
func (s *Service) look(ctx context.Context, m mark) {
	tenant, id, ok := strings.Cut(m.member, "/")
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Hold)
	defer cancel()
	var due bool
	_, now, err := s.step(ctx, tenant, id, func(c *machine.Call, now int64) (machine.Step, error) {
		st := machine.Tick(c, now, &s.policy)
		due = st.Changed
		return st, nil
	})
	switch {
	case errors.Is(err, errcode.CallUnknown):
		s.metrics.looks.WithLabelValues("unknown").Inc()
		s.move(ctx, m, 0, now)
		return
	case err != nil:
		// Its time comes again when the claim lapses.
		s.metrics.looks.WithLabelValues("failed").Inc()
		s.d.Log.DebugContext(ctx, "due call not looked at", "call", id, "err", err)
		return
	case due:
		s.metrics.looks.WithLabelValues("due").Inc()
	default:
		s.metrics.looks.WithLabelValues("early").Inc()
	}
	// As it is now, whoever has changed it meanwhile. What could not be sent must be tried again.
	l, err := s.db.load(ctx, tenant, id)
	if err != nil || l.Call == nil {
		return
	}
	next := l.Due()
	if again := now + unsentDue.Milliseconds(); len(l.unsent) > 0 && (next == 0 || again < next) {
		next = again
	}
	s.move(ctx, m, next, now)
}

// move puts a call that was claimed into the index again.
func (s *Service) move(ctx context.Context, m mark, due, now int64) {
	if err := s.db.moveTo(ctx, m, due, now); err != nil && ctx.Err() == nil {
		s.d.Log.DebugContext(ctx, "call's timer not moved", "err", err)
	}
}
