package purge_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-im/halley/job/internal/purge"
)

type store func(ctx context.Context, auditMs, rejectionsMs int64) (int64, error)

func (f store) Purge(ctx context.Context, auditMs, rejectionsMs int64) (int64, error) {
	return f(ctx, auditMs, rejectionsMs)
}

func TestWhatIsOldIsRemovedAgainAndAgain(t *testing.T) {
	calls := make(chan [2]int64)
	n := 0
	counted, reg := prometheus.NewCounter(prometheus.CounterOpts{Name: "purged"}), prometheus.NewRegistry()
	reg.MustRegister(counted)
	p := &purge.Purge{
		Store: store(func(ctx context.Context, auditMs, rejectionsMs int64) (int64, error) {
			n++
			select {
			case calls <- [2]int64{auditMs, rejectionsMs}:
			case <-ctx.Done():
			}
			if n == 1 {
				return 3, errors.New("away")
			}
			return 4, nil
		}),
		Log: slog.New(slog.DiscardHandler), Every: time.Millisecond, Rejections: time.Hour, Purged: counted,
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	for range 3 {
		got := <-calls
		if age := time.Since(time.UnixMilli(got[1])); got[0] != 0 || age < time.Hour || age > time.Hour+time.Minute {
			t.Errorf("got %v: what is kept for ever stays, the other is an hour old", got)
		}
	}
	cancel()
	<-done
	if got, err := reg.Gather(); err != nil || got[0].GetMetric()[0].GetCounter().GetValue() < 7 {
		t.Errorf("counted %v, %v", got, err)
	}
}

func TestWhereAllIsKeptForEverNothingIsDone(t *testing.T) {
	p := &purge.Purge{Every: time.Nanosecond}
	p.Run(t.Context())
}
