package rungroup_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/halley-im/halley/halley/internal/rungroup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPartsStopInTheirOrder(t *testing.T) {
	var g rungroup.Group
	order := make(chan string, 3)
	for _, name := range []string{"role", "server", "client"} {
		g.Add(name, func(ctx context.Context) error {
			<-ctx.Done()
			order <- name
			return ctx.Err()
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Run(ctx); err != nil {
		t.Fatalf("got %v, want nil for an asked-for end", err)
	}
	for _, want := range []string{"role", "server", "client"} {
		if got := <-order; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestFailureOfOnePartStopsAllAndIsTold(t *testing.T) {
	var g rungroup.Group
	bad := errors.New("disk full")
	stopped := make(chan struct{})
	g.Add("role", func(ctx context.Context) error {
		<-ctx.Done()
		close(stopped)
		return nil
	})
	g.Add("kafka", func(context.Context) error { return bad })
	err := g.Run(context.Background())
	if !errors.Is(err, bad) || !strings.Contains(err.Error(), "kafka: disk full") {
		t.Errorf("got %v, want kafka's error", err)
	}
	select {
	case <-stopped:
	default:
		t.Error("the role was not stopped")
	}
}

func TestPartThatJustEndsIsAnError(t *testing.T) {
	var g rungroup.Group
	g.Add("role", func(context.Context) error { return nil })
	g.Add("server", func(ctx context.Context) error { <-ctx.Done(); return nil })
	if err := g.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "role ended by itself") {
		t.Errorf("got %v, want an error that names the role", err)
	}
}

func TestFailureWhileStoppingIsTold(t *testing.T) {
	var g rungroup.Group
	bad := errors.New("could not take leave")
	g.Add("role", func(ctx context.Context) error { <-ctx.Done(); return bad })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Run(ctx); !errors.Is(err, bad) {
		t.Errorf("got %v, want %v", err, bad)
	}
}
