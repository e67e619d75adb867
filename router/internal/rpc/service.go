// Package rpc is the gRPC face of presence: it checks sizes, bounds each call's time, and puts errors into
// gRPC's words. What the calls mean is in internal/presence. It has no goroutines.
package rpc

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/router/internal/presence"
)

// Config is what the face needs to know.
type Config struct {
	LeaseTTL time.Duration
	// Timeout bounds a call; large ones get a little more for each name.
	Timeout time.Duration
	// MaxNames bounds the names, sessions or rooms of a call.
	MaxNames int
}

// Metrics count calls.
type Metrics struct{ seconds *prometheus.HistogramVec }

// NewMetrics makes them and registers them on r, which may be nil.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "halley_router_request_seconds", Help: "Time that calls took, by method and gRPC code.",
		Buckets: prometheus.ExponentialBuckets(0.0002, 3, 9),
	}, []string{"method", "code"})}
	if r == nil {
		return m, nil
	}
	return m, r.Register(m.seconds)
}

// Service is halley.v1.Router.
type Service struct {
	halleyv1.UnimplementedRouterServer
	store   *presence.Store
	cfg     Config
	methods map[string]*method
}

type method struct {
	ok      prometheus.Observer
	seconds *prometheus.HistogramVec
	name    string
}

// New returns the service.
func New(s *presence.Store, c Config, m *Metrics) *Service {
	v := &Service{store: s, cfg: c, methods: make(map[string]*method)}
	for _, d := range halleyv1.Router_ServiceDesc.Methods {
		v.methods[d.MethodName] = &method{
			name: d.MethodName, seconds: m.seconds, ok: m.seconds.WithLabelValues(d.MethodName, codes.OK.String()),
		}
	}
	return v
}

// timePerName is twice what the slowest Redis, the one in the process, takes for a session. No setting: redis-timeout is added to it, and a Redis that
// works is far faster.
const timePerName = time.Millisecond

// do runs one call within the time limit. n is the number of names that it carries.
func do[R any](ctx context.Context, s *Service, call string, n int, f func(context.Context) (R, error)) (R, error) {
	var none R
	if n > s.cfg.MaxNames {
		return none, status.Errorf(codes.InvalidArgument, "at most %d names in a call", s.cfg.MaxNames)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout+time.Duration(n)*timePerName)
	defer cancel()
	res, err := f(ctx)
	m := s.methods[call]
	if err == nil {
		m.ok.Observe(time.Since(start).Seconds())
		return res, nil
	}
	err = toStatus(err)
	m.seconds.WithLabelValues(call, status.Code(err).String()).Observe(time.Since(start).Seconds())
	return none, err
}

// toStatus puts an error into gRPC's words. What isn't the caller's fault is Redis': it may be tried again.
func toStatus(err error) error {
	switch {
	case errors.Is(err, presence.ErrInvalid):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "canceled")
	}
	return status.Error(codes.Unavailable, "presence: "+err.Error())
}

// epochStatus takes ErrDead out of an error: it is an answer.
func epochStatus(err error) (halleyv1.EpochStatus, error) {
	if errors.Is(err, presence.ErrDead) {
		return halleyv1.EpochStatus_EPOCH_STATUS_DEAD, nil
	}
	return halleyv1.EpochStatus_EPOCH_STATUS_OK, err
}

// Enroll implements halleyv1.RouterServer.
func (s *Service) Enroll(ctx context.Context, r *halleyv1.EnrollRequest) (*halleyv1.EnrollResponse, error) {
	return do(ctx, s, "Enroll", name.Buckets, func(ctx context.Context) (*halleyv1.EnrollResponse, error) {
		st, err := epochStatus(s.store.Enroll(ctx, r.GetInfo(), r.GetHoldsSessions()))
		return &halleyv1.EnrollResponse{Status: st, TtlMs: s.cfg.LeaseTTL.Milliseconds()}, err
	})
}

// Renew implements halleyv1.RouterServer.
func (s *Service) Renew(ctx context.Context, r *halleyv1.RenewRequest) (*halleyv1.RenewResponse, error) {
	return do(ctx, s, "Renew", name.Buckets, func(ctx context.Context) (*halleyv1.RenewResponse, error) {
		res, err := s.store.Renew(ctx, r.GetInfo())
		out := &halleyv1.RenewResponse{TtlMs: s.cfg.LeaseTTL.Milliseconds()}
		if out.Status, err = epochStatus(err); err == nil && res != nil {
			out.LostBuckets, out.SpareConnections, out.SpareHandshakeRate = res.Lost, res.SpareConnections, res.SpareHandshakes
		}
		return out, err
	})
}

// Retire implements halleyv1.RouterServer.
func (s *Service) Retire(ctx context.Context, r *halleyv1.RetireRequest) (*halleyv1.RetireResponse, error) {
	return do(ctx, s, "Retire", 0, func(ctx context.Context) (*halleyv1.RetireResponse, error) {
		return &halleyv1.RetireResponse{}, s.store.Retire(ctx, r.GetEpoch())
	})
}

// Condemn implements halleyv1.RouterServer.
func (s *Service) Condemn(ctx context.Context, r *halleyv1.CondemnRequest) (*halleyv1.CondemnResponse, error) {
	return do(ctx, s, "Condemn", 0, func(ctx context.Context) (*halleyv1.CondemnResponse, error) {
		return &halleyv1.CondemnResponse{}, s.store.Condemn(ctx, r.GetEpoch())
	})
}

// Register implements halleyv1.RouterServer.
func (s *Service) Register(ctx context.Context, r *halleyv1.RegisterRequest) (*halleyv1.RegisterResponse, error) {
	return do(ctx, s, "Register", len(r.GetSessions()), func(ctx context.Context) (*halleyv1.RegisterResponse, error) {
		res, err := s.store.Register(ctx, r)
		out := &halleyv1.RegisterResponse{}
		if out.Status, err = epochStatus(err); err == nil {
			out.Results = res
		}
		return out, err
	})
}

// Deregister implements halleyv1.RouterServer.
func (s *Service) Deregister(ctx context.Context, r *halleyv1.DeregisterRequest) (*halleyv1.DeregisterResponse, error) {
	return do(ctx, s, "Deregister", len(r.GetSessions()), func(ctx context.Context) (*halleyv1.DeregisterResponse, error) {
		st, err := epochStatus(s.store.Deregister(ctx, r.GetSessions()))
		return &halleyv1.DeregisterResponse{Status: st}, err
	})
}

// Rewrite implements halleyv1.RouterServer.
func (s *Service) Rewrite(ctx context.Context, r *halleyv1.RewriteRequest) (*halleyv1.RewriteResponse, error) {
	return do(ctx, s, "Rewrite", len(r.GetSessions())+len(r.GetRooms()), func(ctx context.Context) (*halleyv1.RewriteResponse, error) {
		out, err := s.store.Rewrite(ctx, r)
		if out == nil {
			out = &halleyv1.RewriteResponse{}
		}
		out.Status, err = epochStatus(err)
		return out, err
	})
}

// UpdateRooms implements halleyv1.RouterServer.
func (s *Service) UpdateRooms(ctx context.Context, r *halleyv1.UpdateRoomsRequest) (*halleyv1.UpdateRoomsResponse, error) {
	return do(ctx, s, "UpdateRooms", len(r.GetChanges()), func(ctx context.Context) (*halleyv1.UpdateRoomsResponse, error) {
		counts, lost, err := s.store.UpdateRooms(ctx, r.GetEpoch(), r.GetChanges())
		out := &halleyv1.UpdateRoomsResponse{Counts: counts, LostBuckets: lost}
		out.Status, err = epochStatus(err)
		return out, err
	})
}

// Locate implements halleyv1.RouterServer.
func (s *Service) Locate(ctx context.Context, r *halleyv1.LocateRequest) (*halleyv1.LocateResponse, error) {
	return do(ctx, s, "Locate", len(r.GetNames()), func(ctx context.Context) (*halleyv1.LocateResponse, error) {
		return s.store.Locate(ctx, r.GetNames())
	})
}

// GetPresence implements halleyv1.RouterServer.
func (s *Service) GetPresence(ctx context.Context, r *halleyv1.GetPresenceRequest) (*halleyv1.GetPresenceResponse, error) {
	return do(ctx, s, "GetPresence", len(r.GetUids()), func(ctx context.Context) (*halleyv1.GetPresenceResponse, error) {
		st, err := s.store.Presence(ctx, r.GetTenant(), r.GetUids(), r.GetWatch())
		return &halleyv1.GetPresenceResponse{States: st}, err
	})
}

// mostOnline is the largest page of ListOnline. The API promises it, so no setting.
const mostOnline = 1000

// ListOnline implements halleyv1.RouterServer.
func (s *Service) ListOnline(ctx context.Context, r *halleyv1.ListOnlineRequest) (*halleyv1.ListOnlineResponse, error) {
	if r.GetLimit() < 1 || r.GetLimit() > mostOnline {
		return nil, status.Errorf(codes.InvalidArgument, "limit: 1 to %d", mostOnline)
	}
	return do(ctx, s, "ListOnline", int(r.GetLimit()), func(ctx context.Context) (*halleyv1.ListOnlineResponse, error) {
		return s.store.Online(ctx, r.GetTenant(), r.GetCursor(), int(r.GetLimit()))
	})
}

// ListSessions implements halleyv1.RouterServer.
func (s *Service) ListSessions(ctx context.Context, r *halleyv1.ListSessionsRequest) (*halleyv1.ListSessionsResponse, error) {
	return do(ctx, s, "ListSessions", 1, func(ctx context.Context) (*halleyv1.ListSessionsResponse, error) {
		var res []*halleyv1.Session
		var err error
		switch by := r.GetBy().(type) {
		case *halleyv1.ListSessionsRequest_Uid:
			res, err = s.store.SessionsOf(ctx, r.GetTenant(), by.Uid)
		case *halleyv1.ListSessionsRequest_Key:
			res, err = s.store.SessionWith(ctx, r.GetTenant(), by.Key)
		default:
			return nil, status.Error(codes.InvalidArgument, "a uid or a key is needed")
		}
		return &halleyv1.ListSessionsResponse{Sessions: res}, err
	})
}

// CountRooms implements halleyv1.RouterServer.
func (s *Service) CountRooms(ctx context.Context, r *halleyv1.CountRoomsRequest) (*halleyv1.CountRoomsResponse, error) {
	return do(ctx, s, "CountRooms", len(r.GetRooms()), func(ctx context.Context) (*halleyv1.CountRoomsResponse, error) {
		n, err := s.store.CountRooms(ctx, r.GetRooms())
		return &halleyv1.CountRoomsResponse{Counts: n}, err
	})
}

// ListMembers implements halleyv1.RouterServer.
func (s *Service) ListMembers(ctx context.Context, r *halleyv1.ListMembersRequest) (*halleyv1.ListMembersResponse, error) {
	return do(ctx, s, "ListMembers", 1, func(ctx context.Context) (*halleyv1.ListMembersResponse, error) {
		return s.store.Members(ctx, r.GetTenant(), r.GetRoom(), r.GetCursor(), int(r.GetLimit()))
	})
}

// TopRooms implements halleyv1.RouterServer.
func (s *Service) TopRooms(ctx context.Context, r *halleyv1.TopRoomsRequest) (*halleyv1.TopRoomsResponse, error) {
	return do(ctx, s, "TopRooms", int(r.GetLimit()), func(ctx context.Context) (*halleyv1.TopRoomsResponse, error) {
		rooms, err := s.store.TopRooms(ctx, r.GetTenant(), r.GetType(), int(r.GetLimit()))
		return &halleyv1.TopRoomsResponse{Rooms: rooms}, err
	})
}

// ListComets implements halleyv1.RouterServer.
func (s *Service) ListComets(ctx context.Context, _ *halleyv1.ListCometsRequest) (*halleyv1.ListCometsResponse, error) {
	return do(ctx, s, "ListComets", 0, func(ctx context.Context) (*halleyv1.ListCometsResponse, error) {
		c, err := s.store.Comets(ctx)
		return &halleyv1.ListCometsResponse{Comets: c}, err
	})
}
