package rpc

import (
	"context"
	"slices"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// in reports whether the session is in a room.
func (c *call) in(room string) bool { return slices.Contains(c.req.GetRooms(), room) }

// roomCount is how many rooms the session is in, those of watched uids left out.
func (c *call) roomCount() int {
	n := 0
	for _, r := range c.req.GetRooms() {
		if !name.RoomReserved(r) {
			n++
		}
	}
	return n
}

// mayJoin decides whether the session may join a room that it isn't in.
func (c *call) mayJoin(room string) error {
	if !c.session().GetSigned() {
		// goim has no rights: any room is open to its sessions.
		return name.Room(room)
	}
	g, err := decodeGrants(c.req.GetGrants())
	if err != nil {
		return err
	}
	return c.s.d.Rooms.Authorise(room, g.Rooms)
}

func roomJoin(_ context.Context, c *call, a *roomName) (any, error) {
	if err := name.Room(a.Room); err != nil {
		return nil, err
	}
	if c.in(a.Room) {
		return roomName{Room: a.Room}, nil
	}
	if err := c.mayJoin(a.Room); err != nil {
		return nil, err
	}
	if c.roomCount() >= c.s.d.Rooms.Limit() {
		return nil, errcode.TooManyRooms
	}
	c.change().Join = []string{a.Room}
	return roomName{Room: a.Room}, nil
}

func roomLeave(_ context.Context, c *call, a *roomName) (any, error) {
	if err := name.Room(a.Room); err != nil {
		return nil, err
	}
	// Also if this session isn't said to be in it: a join that is under way by a control delivery may be.
	c.change().Leave = []string{a.Room}
	return roomName{Room: a.Room}, nil
}

func sendToRoom(ctx context.Context, c *call, a *roomSend) (any, error) {
	if err := name.Room(a.Room); err != nil {
		return nil, err
	}
	if int64(len(a.Body)) > c.s.cfg.RoomBodyBytes {
		return nil, errcode.TooLarge.Errorf("body: at most %d bytes", c.s.cfg.RoomBodyBytes)
	}
	if !c.in(a.Room) {
		return nil, errcode.Forbidden.Errorf("only members send to a room")
	}
	if a.Body == nil {
		a.Body = []byte("null")
	}
	now := milliseconds(c.s.d.Now())
	id := uuid.NewString()
	r := push.Request{
		Tenant: c.session().GetTenant(), ID: id, Lane: halleyv1.Lane_LANE_PUSH, Op: int32(frame.OpEvent), Rooms: []string{a.Room}, System: true,
		Body: encode(map[string]roomMessage{
			"room.message": {ID: id, Room: a.Room, From: c.session().GetUid(), Body: a.Body, ServerTime: now},
		}),
	}
	if !a.Echo {
		r.ExcludeKeys = []string{c.session().GetKey()}
	}
	if _, err := c.s.d.Push.Push(ctx, r); err != nil {
		return nil, err
	}
	return roomSent{ID: id, ServerTime: now}, nil
}

func listMembers(ctx context.Context, c *call, a *roomMembers) (any, error) {
	if err := name.Room(a.Room); err != nil {
		return nil, err
	}
	if !c.in(a.Room) {
		return nil, errcode.Forbidden.Errorf("only members see who is in a room")
	}
	p, err := c.s.d.Rooms.Members(ctx, c.session().GetTenant(), a.Room, a.Cursor, a.Limit)
	if err != nil {
		return nil, err
	}
	uids := p.GetUids()
	if uids == nil {
		uids = []string{}
	}
	return roomMemberPage{UIDs: uids, Next: p.GetNext(), Count: p.GetCount(), Complete: p.GetComplete()}, nil
}

// changeRoom is goim's op 12: the body is the one room that the session wants to be in, or empty. Which one it leaves
// comet knows. Signed sessions may use it too, under the rights of their token.
func changeRoom(c *call) error {
	room := string(c.req.GetBody())
	if room == "" {
		c.change().ChangeRoom = proto.String("")
		return nil
	}
	if !c.in(room) {
		if err := c.mayJoin(room); err != nil {
			return err
		}
		// One more than the limit could be meant: the one that is left makes room.
		if c.roomCount() > c.s.d.Rooms.Limit() {
			return errcode.TooManyRooms
		}
	} else if err := name.Room(room); err != nil {
		return err
	}
	c.change().ChangeRoom = proto.String(room)
	return nil
}
