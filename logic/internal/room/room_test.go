package room_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/logic/internal/fake"
	"github.com/halley-im/halley/logic/internal/room"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

type controls struct {
	tenant  string
	targets []*halleyv1.Target
	control *halleyv1.Control
	calls   int
}

func (c *controls) Control(_ context.Context, tenant string, targets []*halleyv1.Target, control *halleyv1.Control) error {
	c.tenant, c.targets, c.control = tenant, targets, control
	c.calls++
	return nil
}

func service(t *testing.T, r *fake.Router, public ...string) (*room.Service, *controls) {
	t.Helper()
	c := &controls{}
	s, err := room.New(room.Config{Public: public, PerSession: 10, BackendBatch: 3}, c, halleyv1.NewRouterClient(r.Dial(t)), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func TestAuthorise(t *testing.T) {
	s, _ := service(t, &fake.Router{}, "public://*", "chat://lobby")
	for _, tt := range []struct {
		name    string
		room    string
		granted []string
		want    *errcode.Code
	}{
		{"granted", "chat://a", []string{"chat://a"}, nil},
		{"granted by pattern", "chat://a", []string{"x://y", "chat://*"}, nil},
		{"granted by a longer pattern", "chat://team-7-b", []string{"chat://team-7-*"}, nil},
		{"everything granted", "any://thing", []string{"*"}, nil},
		{"public", "public://a", nil, nil},
		{"public room", "chat://lobby", nil, nil},
		{"begins like a public room", "chat://lobby2", nil, errcode.Forbidden},
		{"not granted", "chat://a", []string{"chat://b"}, errcode.Forbidden},
		{"another type", "chats://a", []string{"chat://*"}, errcode.Forbidden},
		{"case", "Chat://a", []string{"chat://*"}, errcode.Forbidden},
		{"nothing granted", "chat://a", nil, errcode.Forbidden},
		{"asterisk in a room is no pattern", "chat://a*", []string{"chat://b*"}, errcode.Forbidden},
		{"reserved, everything granted", "presence://ann", []string{"*"}, errcode.RoomReserved},
		{"reserved conversation", "conversation://7", []string{"conv*"}, errcode.RoomReserved},
		{"reserved meeting", "meeting://7", []string{"meeting://7"}, errcode.RoomReserved},
		{"no room", "lobby", []string{"*"}, errcode.InvalidRequest},
		{"empty", "", []string{"*"}, errcode.InvalidRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := s.Authorise(tt.room, tt.granted)
			if tt.want == nil && err != nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestBadPublicPatternStopsTheStart(t *testing.T) {
	for _, p := range []string{"lobby", "", "presence://*", "conversation://7", "://*", "a\x00*"} {
		if _, err := room.New(room.Config{Public: []string{p}, PerSession: 1, BackendBatch: 1}, nil, nil, time.Second); err == nil {
			t.Errorf("%q: no error", p)
		}
	}
}

func TestBackendMovesUsersByControlDeliveries(t *testing.T) {
	s, c := service(t, &fake.Router{})
	if err := s.Put(t.Context(), "acme", "ann", []string{"chat://a"}); err != nil {
		t.Fatal(err)
	}
	if c.tenant != "acme" || c.targets[0].GetUid() != "ann" || !slices.Equal(c.control.GetRooms().GetJoin(), []string{"chat://a"}) {
		t.Errorf("put: got %+v", c)
	}
	if err := s.Remove(t.Context(), "acme", "ann", []string{"chat://a"}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.control.GetRooms().GetLeave(), []string{"chat://a"}) || c.control.GetRooms().GetJoin() != nil {
		t.Errorf("remove: got %+v", c)
	}
	if err := s.Close(t.Context(), "acme", "chat://a"); err != nil {
		t.Fatal(err)
	}
	if c.targets[0].GetRoom() != "chat://a" || c.control.GetCloseRoom() == nil {
		t.Errorf("close: got %+v", c)
	}
}

func TestBackendCannotNameWhatIsTheSystems(t *testing.T) {
	s, c := service(t, &fake.Router{})
	for name, err := range map[string]error{
		"put":            s.Put(t.Context(), "t", "ann", []string{"chat://a", "presence://bob"}),
		"remove":         s.Remove(t.Context(), "t", "ann", []string{"meeting://1"}),
		"close":          s.Close(t.Context(), "t", "conversation://1"),
		"no room":        s.Put(t.Context(), "t", "ann", nil),
		"too many rooms": s.Put(t.Context(), "t", "ann", []string{"a://a", "a://b", "a://c", "a://d"}),
		"uid":            s.Put(t.Context(), "t", "", []string{"a://a"}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if c.calls != 0 {
		t.Errorf("%d control deliveries", c.calls)
	}
}

func TestMembersAndCountsComeFromRouter(t *testing.T) {
	r := &fake.Router{
		OnMembers: func(q *halleyv1.ListMembersRequest) (*halleyv1.ListMembersResponse, error) {
			if q.GetTenant() != "acme" || q.GetRoom() != "chat://a" || q.GetLimit() != 100 {
				return nil, status.Errorf(codes.InvalidArgument, "%v", q)
			}
			return &halleyv1.ListMembersResponse{Uids: []string{"ann"}, Next: "n", Count: 3, Complete: true}, nil
		},
		OnCount: func(q *halleyv1.CountRoomsRequest) (*halleyv1.CountRoomsResponse, error) {
			return &halleyv1.CountRoomsResponse{Counts: []uint32{4, 0}}, nil
		},
	}
	s, _ := service(t, r)
	p, err := s.Members(t.Context(), "acme", "chat://a", "", 0)
	if err != nil || p.GetNext() != "n" || p.GetCount() != 3 || !p.GetComplete() || !slices.Equal(p.GetUids(), []string{"ann"}) {
		t.Errorf("got %v, %v", p, err)
	}
	if _, err := s.Members(t.Context(), "acme", "chat://a", "", 201); !errors.Is(err, errcode.InvalidRequest) {
		t.Errorf("too large a page: got %v", err)
	}
	counts, err := s.Counts(t.Context(), "acme", []string{"chat://a", "chat://b"})
	if err != nil || !slices.Equal(counts, []uint32{4, 0}) {
		t.Errorf("got %v, %v", counts, err)
	}
	if _, err := s.Counts(t.Context(), "acme", []string{"chat://a"}); !errors.Is(err, errcode.Internal) {
		t.Errorf("an answer of the wrong length: got %v", err)
	}
}

func TestRouterAwayIsUnavailable(t *testing.T) {
	r := &fake.Router{OnMembers: func(*halleyv1.ListMembersRequest) (*halleyv1.ListMembersResponse, error) {
		return nil, status.Error(codes.Unavailable, "redis is gone")
	}}
	s, _ := service(t, r)
	_, err := s.Members(t.Context(), "t", "chat://a", "", 0)
	if !errors.Is(err, errcode.Unavailable) || errcode.From(err).RetryAfter == 0 {
		t.Errorf("got %v", err)
	}
}
