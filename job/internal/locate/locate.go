// Package locate asks router where addressees are: one call for a whole batch. It remembers nothing: presence must be right,
// and what makes it cheap is that a batch asks once.
package locate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/job/internal/meter"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// UnknownError says that presence can't be told now: router is away, or has lost it and is learning it anew. Whatever the
// cause, the names that were asked for are not at fault: the caller asks again.
type UnknownError struct {
	// After is how long router wants to be left alone; 0: by the caller's own back-off.
	After time.Duration
	Err   error
}

func (e *UnknownError) Error() string { return "presence unknown: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *UnknownError) Unwrap() error { return e.Err }

var errLearning = errors.New("router is learning presence anew")

// Locator asks router. Safe for concurrent use.
type Locator struct {
	router  halleyv1.RouterClient
	meter   *meter.Meter
	timeout time.Duration
	most    int
}

// New returns a Locator. timeout bounds each call; a call carries at most so many names.
func New(router grpc.ClientConnInterface, m *meter.Meter, timeout time.Duration, most int) *Locator {
	return &Locator{router: halleyv1.NewRouterClient(router), meter: m, timeout: timeout, most: most}
}

// Locate asks once for all names and returns an answer with one Located for each, or an UnknownError. More
// names than one call carries are asked for in several, one after the other.
func (l *Locator) Locate(ctx context.Context, names []*halleyv1.Name) (*halleyv1.LocateResponse, error) {
	if len(names) <= l.most {
		return l.ask(ctx, names)
	}
	all := &halleyv1.LocateResponse{}
	for len(names) > 0 {
		n := min(len(names), l.most)
		resp, err := l.ask(ctx, names[:n])
		if err != nil {
			return nil, err
		}
		shift := uint32(len(all.Comets))
		for _, loc := range resp.Located {
			for _, p := range loc.GetPlaces() {
				p.Comet += shift
			}
		}
		all.Comets = append(all.Comets, resp.Comets...)
		all.Located = append(all.Located, resp.Located...)
		names = names[n:]
	}
	return all, nil
}

func (l *Locator) ask(ctx context.Context, names []*halleyv1.Name) (*halleyv1.LocateResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	start := time.Now()
	resp, err := l.router.Locate(ctx, &halleyv1.LocateRequest{Names: names})
	if err != nil {
		l.meter.LocateFails.WithLabelValues(status.Code(err).String()).Inc()
		return nil, &UnknownError{Err: err}
	}
	if ms := resp.GetUnavailableMs(); ms > 0 {
		l.meter.LocateFails.WithLabelValues("learning").Inc()
		return nil, &UnknownError{After: time.Duration(ms) * time.Millisecond, Err: errLearning}
	}
	if err := check(resp, len(names)); err != nil {
		l.meter.LocateFails.WithLabelValues("malformed").Inc()
		return nil, &UnknownError{Err: err}
	}
	l.meter.LocateSeconds.Observe(time.Since(start).Seconds())
	return resp, nil
}

// check holds an answer to the contract, so that nobody has to look again.
func check(resp *halleyv1.LocateResponse, names int) error {
	if len(resp.GetLocated()) != names {
		return fmt.Errorf("asked for %d names, answered are %d", names, len(resp.GetLocated()))
	}
	for _, loc := range resp.GetLocated() {
		for _, p := range loc.GetPlaces() {
			if int(p.GetComet()) >= len(resp.GetComets()) {
				return fmt.Errorf("a place names comet %d of %d", p.GetComet(), len(resp.GetComets()))
			}
		}
	}
	return nil
}

// Live returns all live comets by epoch, or an UnknownError.
func (l *Locator) Live(ctx context.Context) (map[string]*halleyv1.CometInfo, error) {
	resp, err := l.ask(ctx, []*halleyv1.Name{All})
	if err != nil {
		return nil, err
	}
	live := make(map[string]*halleyv1.CometInfo, len(resp.GetComets()))
	for _, p := range resp.GetLocated()[0].GetPlaces() {
		c := resp.GetComets()[p.GetComet()]
		live[c.GetEpoch()] = c
	}
	return live, nil
}

// All is the name of everybody. The tenant is a formality: comets are shared by all.
var All = &halleyv1.Name{Tenant: name.DefaultTenant, Name: &halleyv1.Name_All{All: true}}

// Condemn asks router to declare an epoch dead.
func (l *Locator) Condemn(ctx context.Context, comet, epoch string) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	_, err := l.router.Condemn(ctx, &halleyv1.CondemnRequest{Comet: comet, Epoch: epoch})
	return err
}
