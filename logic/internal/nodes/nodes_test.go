package nodes_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/halley-im/halley/logic/internal/nodes"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// life is how old a list may be: longer than any test takes, since one counts how often router is asked.
const life = time.Hour

type lister struct {
	mu     sync.Mutex
	calls  int
	comets []*halleyv1.CometInfo
	err    error
}

func (l *lister) ListComets(context.Context, *halleyv1.ListCometsRequest, ...grpc.CallOption) (*halleyv1.ListCometsResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.err != nil {
		return nil, l.err
	}
	return &halleyv1.ListCometsResponse{Comets: l.comets}, nil
}

func comet(name string, connections int64, draining bool) *halleyv1.CometInfo {
	return &halleyv1.CometInfo{
		Comet: name, Draining: draining, DueMs: 1, Load: &halleyv1.CometLoad{Connections: connections},
		Endpoints: &halleyv1.Endpoints{Host: name, TcpPort: 3101},
	}
}

func any_(*halleyv1.Endpoints) bool { return true }

func names(cs []*halleyv1.CometInfo) (s string) {
	for _, c := range cs {
		s += c.GetComet()
	}
	return s
}

func TestFewestConnectionsFirst(t *testing.T) {
	n := nodes.New(&lister{comets: []*halleyv1.CometInfo{comet("a", 500, false), comet("b", 100, false), comet("c", 300, false), comet("d", 0, true)}}, time.Minute, life)
	got, err := n.Ordered(t.Context(), any_)
	if err != nil || names(got) != "bca" {
		t.Fatalf("got %s, %v, want bca", names(got), err)
	}
}

func TestClientsAtOnceAreSpread(t *testing.T) {
	n := nodes.New(&lister{comets: []*halleyv1.CometInfo{comet("a", 0, false), comet("b", 0, false), comet("c", 20, false)}}, time.Minute, life)
	first := map[string]int{}
	for range 60 {
		got, err := n.Ordered(t.Context(), any_)
		if err != nil {
			t.Fatal(err)
		}
		first[got[0].GetComet()]++
	}
	// 60 clients come to 20 connections in all: 80 over three comets.
	for name, want := range map[string]int{"a": 27, "b": 27, "c": 7} {
		if d := first[name] - want; d < -1 || d > 1 {
			t.Errorf("%s was first %d times, want about %d", name, first[name], want)
		}
	}
}

func TestDrainingOnesOnlyIfThereAreNoOthers(t *testing.T) {
	n := nodes.New(&lister{comets: []*halleyv1.CometInfo{comet("a", 5, true)}}, time.Minute, life)
	if got, err := n.Ordered(t.Context(), any_); err != nil || names(got) != "a" {
		t.Errorf("got %s, %v", names(got), err)
	}
	n = nodes.New(&lister{}, time.Minute, life)
	if got, err := n.Ordered(t.Context(), any_); err != nil || len(got) != 0 {
		t.Errorf("got %s, %v", names(got), err)
	}
}

func TestRouterIsAskedOnceForMany(t *testing.T) {
	l := &lister{comets: []*halleyv1.CometInfo{comet("a", 5, false)}}
	n := nodes.New(l, time.Minute, life)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := n.Live(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if l.calls != 1 {
		t.Errorf("router was asked %d times", l.calls)
	}
}

func TestErrorIsNotKept(t *testing.T) {
	l := &lister{err: errors.New("away")}
	n := nodes.New(l, time.Minute, life)
	if _, err := n.Live(t.Context()); err == nil {
		t.Fatal("no error")
	}
	l.err, l.comets = nil, []*halleyv1.CometInfo{comet("a", 5, false)}
	if got, err := n.Live(t.Context()); err != nil || names(got) != "a" {
		t.Errorf("got %s, %v", names(got), err)
	}
}
