// Package room decides who may join which room, and carries out what backends do with rooms: put a user's
// sessions in, take them out, list, count and close. Where the sessions are is router's business; what has to
// happen to them goes by control deliveries.
//
// The package starts no goroutines and keeps nothing. Safe for concurrent use.
package room

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// Config is the policy of rooms.
type Config struct {
	// Public are patterns of rooms that every signed session may join, in every tenant.
	Public []string `help:"Rooms that every signed session may join: \"type://id\", or a beginning and an asterisk."`
	// PerSession is the most rooms that a session may be in; comets are told the same.
	PerSession int `help:"Most rooms of one session." default:"100"`
	// BackendBatch is the most rooms that one call of a backend may name.
	BackendBatch int `help:"Most rooms in one call of a backend." default:"100"`
}

// Validate checks the patterns, so that a mistake shows itself at start and not as a room that nobody or everybody may
// join.
func (c Config) Validate() error {
	for _, p := range c.Public {
		if err := CheckPattern(p); err != nil {
			return fmt.Errorf("room: public pattern %q: %w", p, err)
		}
	}
	if c.PerSession < 1 || c.BackendBatch < 1 {
		return fmt.Errorf("room: per-session and backend-batch must be at least 1")
	}
	return nil
}

// Controller sends control deliveries; push.Service is one.
type Controller interface {
	Control(ctx context.Context, tenant string, targets []*halleyv1.Target, c *halleyv1.Control) error
}

// Members are the calls of router that this package makes.
type Members interface {
	ListMembers(ctx context.Context, in *halleyv1.ListMembersRequest, opts ...grpc.CallOption) (*halleyv1.ListMembersResponse, error)
	CountRooms(ctx context.Context, in *halleyv1.CountRoomsRequest, opts ...grpc.CallOption) (*halleyv1.CountRoomsResponse, error)
}

// Service is what the rest of logic knows of rooms.
type Service struct {
	cfg     Config
	control Controller
	router  Members
	timeout time.Duration
}

// New makes a Service. Calls of router wait for timeout at most.
func New(cfg Config, c Controller, router Members, timeout time.Duration) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, control: c, router: router, timeout: timeout}, nil
}

// Limit is the most rooms that a session may be in.
func (s *Service) Limit() int { return s.cfg.PerSession }

// Authorise returns nil if a signed session whose token granted these patterns may join room, else
// errcode.InvalidRequest, RoomReserved or Forbidden.
func (s *Service) Authorise(room string, granted []string) error {
	if err := name.Room(room); err != nil {
		return err
	}
	for _, p := range granted {
		if matches(p, room) {
			return nil
		}
	}
	for _, p := range s.cfg.Public {
		if matches(p, room) {
			return nil
		}
	}
	return errcode.Forbidden.Errorf("the token doesn't grant this room")
}

// Put puts all sessions that uid has now into rooms.
func (s *Service) Put(ctx context.Context, tenant, uid string, rooms []string) error {
	return s.change(ctx, tenant, uid, rooms, &halleyv1.RoomsChange{Join: rooms})
}

// Remove takes all sessions of uid out of rooms. It does not keep them from joining again.
func (s *Service) Remove(ctx context.Context, tenant, uid string, rooms []string) error {
	return s.change(ctx, tenant, uid, rooms, &halleyv1.RoomsChange{Leave: rooms})
}

func (s *Service) change(ctx context.Context, tenant, uid string, rooms []string, c *halleyv1.RoomsChange) error {
	if err := name.UID(uid); err != nil {
		return err
	}
	if err := s.checkRooms(rooms); err != nil {
		return err
	}
	return s.control.Control(ctx, tenant, []*halleyv1.Target{push.UIDTarget(uid)},
		&halleyv1.Control{Control: &halleyv1.Control_Rooms{Rooms: c}})
}

// Close takes everybody out of a room. It does not keep them from joining again.
func (s *Service) Close(ctx context.Context, tenant, room string) error {
	if err := name.Room(room); err != nil {
		return err
	}
	return s.control.Control(ctx, tenant, []*halleyv1.Target{push.RoomTarget(room)},
		&halleyv1.Control{Control: &halleyv1.Control_CloseRoom{CloseRoom: &halleyv1.CloseRoom{}}})
}

// MemberLimit and DefaultMembers bound a page of members. The protocol and the API promise them, so they are no settings; which rooms have a list at
// all is router's to say (room-list-max).
const (
	MemberLimit    = 200
	DefaultMembers = 100
)

// Members returns a page of the uids in a room; limit 0 means 100, 200 is the most.
func (s *Service) Members(ctx context.Context, tenant, room, cursor string, limit uint32) (*halleyv1.RoomMemberPage, error) {
	if err := name.Room(room); err != nil {
		return nil, err
	}
	switch {
	case limit == 0:
		limit = DefaultMembers
	case limit > MemberLimit:
		return nil, errcode.InvalidRequest.Errorf("limit: 1 to %d", MemberLimit)
	}
	if len(cursor) > 1024 {
		return nil, errcode.InvalidRequest.Errorf("cursor: not one of ours")
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	res, err := s.router.ListMembers(ctx, &halleyv1.ListMembersRequest{Tenant: tenant, Room: room, Cursor: cursor, Limit: limit})
	if err != nil {
		return nil, remote.Error(err)
	}
	return &halleyv1.RoomMemberPage{Uids: res.GetUids(), Next: res.GetNext(), Count: res.GetCount(), Complete: res.GetComplete()}, nil
}

// Counts returns the sessions in each of rooms.
func (s *Service) Counts(ctx context.Context, tenant string, rooms []string) ([]uint32, error) {
	if err := s.checkRooms(rooms); err != nil {
		return nil, err
	}
	names := make([]*halleyv1.Name, len(rooms))
	for i, r := range rooms {
		names[i] = &halleyv1.Name{Tenant: tenant, Name: &halleyv1.Name_Room{Room: r}}
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	res, err := s.router.CountRooms(ctx, &halleyv1.CountRoomsRequest{Rooms: names})
	if err != nil {
		return nil, remote.Error(err)
	}
	if len(res.GetCounts()) != len(rooms) {
		return nil, errcode.Internal
	}
	return res.GetCounts(), nil
}

func (s *Service) checkRooms(rooms []string) error {
	if len(rooms) == 0 || len(rooms) > s.cfg.BackendBatch {
		return errcode.InvalidRequest.Errorf("rooms: 1 to %d", s.cfg.BackendBatch)
	}
	for _, r := range rooms {
		if err := name.Room(r); err != nil {
			return err
		}
	}
	return nil
}
