package logic

import (
	"context"
	"crypto/rand"
	"maps"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/halley-im/halley/logic/internal/httpapi"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// HTTPConfig is what can be set of the HTTP API.
type HTTPConfig = httpapi.Config

// handler makes the handler of the HTTP API.
func (l *Logic) handler() (http.Handler, error) {
	d := httpapi.Deps{
		Log: l.log, Metrics: l.deps.Metrics, Push: l.push, Rooms: l.rooms, Chat: l.chat, Calls: l.calls, Limiter: l.limiter, Minter: l.minter, Revoker: l.revoked, Router: l.router,
		RouterTimeout: l.cfg.RouterTimeout, RoomBodyBytes: l.cfg.Session.RoomBodyBytes, Redis: l.deps.Redis, RedisPrefix: l.deps.RedisPrefix, APIKeys: l.deps.APIKeys,
		GoimOpen: openness(l.cfg.GoimCompat), Demo: openness(l.cfg.Demo), Secret: l.deps.Secret, Ready: l.Ready, Needs: l.needs(),
		Web: l.deps.Web, Version: l.deps.Version, Now: l.deps.Clock,
	}
	if l.deps.Gatherer != nil {
		d.MetricsHandler = promhttp.HandlerFor(l.deps.Gatherer, promhttp.HandlerOpts{})
	}
	if len(d.Secret) == 0 {
		// Push keys of the demo log-in are then good at this process only, and until it ends.
		d.Secret = make([]byte, 32)
		rand.Read(d.Secret)
	}
	return httpapi.New(l.cfg.HTTP, d)
}

func openness(o Openness) httpapi.Openness {
	switch o {
	case Open:
		return httpapi.Loopback
	case OpenAnywhere:
		return httpapi.Anywhere
	}
	return httpapi.Closed
}

// needs are the shared parts that requests need: those that logic knows by itself, and the composition's.
func (l *Logic) needs() []httpapi.Need {
	list := []httpapi.Need{{Name: "router", Check: func(ctx context.Context) error {
		_, err := l.router.ListComets(ctx, &halleyv1.ListCometsRequest{})
		return err
	}}}
	if l.deps.Redis != nil {
		list = append(list, httpapi.Need{Name: "redis", Check: func(ctx context.Context) error { return l.deps.Redis.Ping(ctx).Err() }})
	}
	for _, name := range slices.Sorted(maps.Keys(l.deps.Needs)) {
		if name != "redis" && name != "router" {
			list = append(list, httpapi.Need{Name: name, Check: l.deps.Needs[name]})
		}
	}
	return list
}
