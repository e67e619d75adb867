// Package drain empties a comet that is leaving: its sessions are asked to go, in waves that the other comets
// can take, and those that stay are closed. It starts no goroutine.
package drain

import (
	"context"
	"log/slog"
	"slices"
	"time"

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
}

// tick is how often the next wave goes out: fine enough to be no wave, at any pace that is asked for.
const tick = 20 * time.Millisecond

// Parts are what a drain works with.
type Parts struct {
	Table *table.Table
	// Others says what the other comets can take.
	Others func() Others
	Log    *slog.Logger
}

// Run asks every session to leave and returns when none is left, or the timeout has passed and the rest was
// closed. Sessions that can't be asked, goim's, are closed when it is their turn.
//
// No more are sent away than the others have room for. The rest stays, for room may come; when the grace before the timeout begins
// it is closed evenly over that time, and comes back when its clients' back-off lets it.
func Run(ctx context.Context, cfg Config, p Parts) {
	begun := time.Now()
	deadline := begun.Add(cfg.Timeout)
	// The last ones asked have their grace, too.
	asking := max(cfg.Timeout-cfg.Grace, cfg.Timeout/2)
	plan := newPlan()
	waiting := all(p.Table)
	total := len(waiting)
	var asked []*leaving
	was := make(map[*session.Session]bool, total)
	looked, turn := begun, -1
	hurried, crowded := false, false
	p.Log.Info("drain begun", "sessions", total)
	credit := 0.0
	last := begun
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for p.Table.Len() > 0 {
		now := time.Now()
		if !now.Before(deadline) || ctx.Err() != nil {
			break
		}
		elapsed := now.Sub(last)
		last = now
		plan.update(p.Others(), elapsed)
		if turn != plan.others.Turn {
			turn = plan.others.Turn
			waiting = slices.DeleteFunc(waiting, (*session.Session).HasEnded)
		}
		pace, room := plan.pace(cfg.Rate), plan.room(len(waiting))
		if room == 0 && len(waiting) > 0 && !crowded {
			crowded = true
			p.Log.Warn("drain waits for room on other comets: those who find none stay until the timeout is near", "waiting", len(waiting))
		}
		// Whoever finds room is asked in time; who finds none is closed in the end.
		late := now.Sub(begun) >= asking
		rate := max(pace, need(room, asking-now.Sub(begun)))
		switch {
		case late && room == 0:
			rate = need(len(waiting), deadline.Sub(now))
		case late:
			rate = max(pace, need(len(waiting), deadline.Sub(now)))
		}
		if rate > 1.1*pace && room > 0 && !hurried {
			hurried = true
			p.Log.Warn("drain is faster than its pace: the timeout is too short for it", "waiting", len(waiting), "pace", pace, "rate", rate)
		}
		credit = min(credit+elapsed.Seconds()*rate, max(rate/10, 1))
		for credit >= 1 && len(waiting) > 0 && (room > 0 || late) {
			s := waiting[0]
			waiting = waiting[1:]
			if s.Live() == nil {
				// Ended, or still in its handshake: then it is looked at again.
				continue
			}
			was[s] = true
			credit--
			if room <= 0 {
				s.Close(session.Cause{Code: errcode.GoingAway})
				continue
			}
			room--
			l := &leaving{s: s, due: now.Add(cfg.Grace)}
			plan.send(l, min(cfg.Grace, deadline.Sub(now)))
			asked = append(asked, l)
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
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	rest := all(p.Table)
	for _, s := range rest {
		s.Close(session.Cause{Code: errcode.GoingAway})
	}
	p.Log.Info("drain ended", "sessions", total, "closed", len(rest), "took", time.Since(begun))
}

// need returns the sessions a second that must be asked for all to be asked in the time that is left. Where that is more than the
// pace it is what counts: the others would be closed all at once at the end, and come to the other comets in one wave.
func need(waiting int, left time.Duration) float64 {
	if left <= 0 {
		return float64(waiting) * 10
	}
	return float64(waiting) / left.Seconds()
}

// send sends a live session away: one that can't be asked is closed.
func (p *plan) send(l *leaving, grace time.Duration) {
	who := l.s.Live()
	if who == nil {
		return
	}
	var to *target
	if l.s.Transport.WS && who.Signed {
		to = p.pick()
	}
	p.sent(l, to)
	if !who.Signed {
		l.s.Close(session.Cause{Code: errcode.GoingAway})
		return
	}
	away := &halleyv1.GoAway{GraceMs: uint32(max(grace.Milliseconds(), 0))}
	if to != nil {
		away.Url = to.URL
	}
	l.s.Send(session.Event(&halleyv1.Event{Event: &halleyv1.Event_GoAway{GoAway: away}}))
}

func all(t *table.Table) []*session.Session {
	list := make([]*session.Session, 0, t.Len())
	for i := range table.Shards {
		list = t.Conns(list, i)
	}
	return list
}

// lookAgain is how often sessions are looked for that came out of their handshake during the drain: a look goes through the table,
// and a second more or less is nothing to a drain.
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
