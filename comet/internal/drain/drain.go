// Package drain empties a comet that is leaving: its sessions are asked to go, in waves that the other comets
// can take, and those that stay are closed. It starts no goroutine.
package drain

import (
	"context"
	"log/slog"
	"time"

	"github.com/halley-im/halley/comet/internal/lease"
	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/comet/internal/table"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Config holds the drain's paces and times.
type Config struct {
	// Rate is the sessions a second that are asked to leave.
	Rate float64
	// Grace is what each of them has to do so, Timeout what all of them have.
	Grace, Timeout time.Duration
	// Tick is how often the next wave goes out.
	Tick time.Duration
}

// Parts are what a drain works with.
type Parts struct {
	Table *table.Table
	// Spare says what the other comets can take.
	Spare func() lease.Spare
	// Where returns the URL that a session is sent to; empty: the same as before.
	Where func(session.Transport) string
	Log   *slog.Logger
}

// leaving is a session that was asked to go.
type leaving struct {
	s   *session.Session
	due time.Time
}

// Run asks every session to leave and returns when none is left, or the timeout has passed and the rest was
// closed. Sessions that can't be asked, goim's, are closed when it is their turn.
func Run(ctx context.Context, cfg Config, p Parts) {
	begun := time.Now()
	deadline := begun.Add(cfg.Timeout)
	// The last ones asked have their grace, too.
	asking := max(cfg.Timeout-cfg.Grace, cfg.Timeout/2)
	waiting := all(p.Table)
	total := len(waiting)
	var asked []leaving
	was := make(map[*session.Session]bool, total)
	looked := begun
	hurried := false
	p.Log.Info("drain begun", "sessions", total)
	credit := 0.0
	last := begun
	tick := time.NewTicker(cfg.Tick)
	defer tick.Stop()
	for p.Table.Len() > 0 {
		now := time.Now()
		if !now.Before(deadline) || ctx.Err() != nil {
			break
		}
		pace, need := pace(cfg.Rate, p.Spare()), need(len(waiting), asking-now.Sub(begun))
		if need > 1.1*pace && !hurried {
			hurried = true
			p.Log.Warn("drain is faster than its pace: the timeout is too short for it", "waiting", len(waiting), "pace", pace, "rate", need)
		}
		credit += now.Sub(last).Seconds() * max(pace, need)
		last = now
		for credit >= 1 && len(waiting) > 0 {
			s := waiting[0]
			waiting = waiting[1:]
			was[s] = true
			if s.Live() == nil {
				// Ended, or still in its handshake: then it is looked at again.
				delete(was, s)
				continue
			}
			if ask(s, min(cfg.Grace, deadline.Sub(now)), p.Where) {
				asked = append(asked, leaving{s, now.Add(cfg.Grace)})
				credit--
			}
		}
		for len(asked) > 0 && !now.Before(asked[0].due) {
			asked[0].s.Close(session.Cause{Code: errcode.GoingAway})
			asked = asked[1:]
		}
		if len(waiting) == 0 && now.Sub(looked) > lookAgain {
			// Those that were in their handshake when the list was made.
			looked = now
			waiting = fresh(p.Table, was)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	rest := all(p.Table)
	for _, s := range rest {
		s.Close(session.Cause{Code: errcode.GoingAway})
	}
	p.Log.Info("drain ended", "sessions", total, "closed", len(rest), "took", time.Since(begun))
}

// pace returns the sessions a second to ask: the configured ones, at most what the others can take.
func pace(configured float64, spare lease.Spare) float64 {
	if spare.HandshakeRate > 0 && spare.HandshakeRate < configured {
		return spare.HandshakeRate
	}
	return configured
}

// need returns the sessions a second that must be asked for all to be asked in the time that is left. Where that is more than the
// pace it is what counts: the others would be closed all at once at the end, and come to the other comets in one wave.
func need(waiting int, left time.Duration) float64 {
	if left <= 0 {
		return float64(waiting) * 10
	}
	return float64(waiting) / left.Seconds()
}

// ask sends a session away. It returns false if there is nothing to wait for: it has ended, or was closed.
func ask(s *session.Session, grace time.Duration, where func(session.Transport) string) bool {
	who := s.Live()
	if who == nil {
		return false
	}
	if !who.Signed {
		s.Close(session.Cause{Code: errcode.GoingAway})
		return true
	}
	s.Send(session.Event(&halleyv1.Event{Event: &halleyv1.Event_GoAway{GoAway: &halleyv1.GoAway{
		Url: where(s.Transport), GraceMs: uint32(max(grace.Milliseconds(), 0)),
	}}}))
	return true
}

func all(t *table.Table) []*session.Session {
	list := make([]*session.Session, 0, t.Len())
	for i := range table.Shards {
		list = t.Conns(list, i)
	}
	return list
}

// lookAgain is how often sessions are looked for that came out of their handshake during the drain.
const lookAgain = 500 * time.Millisecond

// fresh returns the live sessions that weren't asked.
func fresh(t *table.Table, was map[*session.Session]bool) []*session.Session {
	var out []*session.Session
	for _, s := range all(t) {
		if !was[s] && s.Live() != nil {
			out = append(out, s)
		}
	}
	return out
}
