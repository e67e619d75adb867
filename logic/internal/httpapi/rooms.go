package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// mostTopRooms and mostRoomCounts bound what one request asks of router. They are promised by the API, so no settings.
const (
	mostTopRooms   = 1000
	mostRoomCounts = 1000
)

// RoomCount is a room and how many are in it.
type RoomCount struct {
	Room  string `json:"room" example:"chat://lobby"`
	Count uint32 `json:"count" doc:"Sessions in it."`
}

// RoomPath is the parameter of paths of a room; its slashes and colon are percent-encoded there.
type RoomPath struct {
	Room string `path:"room" doc:"The room, type://id, percent-encoded." example:"chat%3A%2F%2Flobby"`
}

type (
	topInput struct {
		Type  string `query:"type" required:"true" doc:"Type of the rooms, exactly." example:"chat"`
		Limit int    `query:"limit" default:"20" minimum:"1" maximum:"1000" doc:"How many."`
	}
	roomsOutput struct {
		Body struct {
			Rooms []RoomCount `json:"rooms"`
		}
	}
	countsInput struct {
		Body struct {
			Rooms []string `json:"rooms" minItems:"1" maxItems:"1000" doc:"1 to 1,000 rooms."`
		}
	}
	membersInput struct {
		RoomPath
		Cursor string `query:"cursor" doc:"Field next of the page before; left out: the first page."`
		Limit  uint32 `query:"limit" default:"100" minimum:"1" maximum:"200" doc:"The most users of the page."`
	}
	membersOutput struct {
		Body struct {
			UIDs     []string `json:"uids" doc:"Users with a session in the room."`
			Next     string   `json:"next,omitempty" doc:"Cursor of the next page; not there: this is the last."`
			Count    uint32   `json:"count" doc:"Sessions in the room, those without a user included."`
			Complete bool     `json:"complete" doc:"Whether the pages hold all users: comets with more than 200 sessions in a room count them only."`
		}
	}
	memberInput struct {
		RoomPath
		UID string `path:"uid" doc:"The user."`
	}
	roomInput   struct{ RoomPath }
	doneOutput  struct{ Body Done }
	roomMessage struct {
		RoomPath
		Body struct {
			Body json.RawMessage `json:"body" doc:"Any JSON value, at most 32 KiB unless the operator set another bound."`
			From string          `json:"from,omitempty" doc:"User whom clients are shown as the sender; left out: none."`
		}
	}
)

// Done says that a change was accepted; it reaches the sessions within moments.
type Done struct {
	AcceptedAt int64 `json:"accepted_at"`
}

func (a *api) registerRooms() {
	tags := []string{"rooms"}
	handle(a, route{scope: apikey.Read}, huma.Operation{
		OperationID: "top-rooms", Method: http.MethodGet, Path: "/v1/rooms", Summary: "Rooms with the most sessions", Tags: tags,
	}, a.topRooms)
	handle(a, route{scope: apikey.Read}, huma.Operation{
		OperationID: "count-rooms", Method: http.MethodPost, Path: "/v1/rooms/count", Summary: "Sessions in rooms", Tags: tags,
		Description: "A room that nobody is in has 0.",
	}, a.countRooms)
	handle(a, route{scope: apikey.Read}, huma.Operation{
		OperationID: "list-members", Method: http.MethodGet, Path: "/v1/rooms/{room}/members", Summary: "Users in a room", Tags: tags,
	}, a.members)
	handle(a, route{scope: apikey.Admin, replay: true}, huma.Operation{
		OperationID: "add-member", Method: http.MethodPut, Path: "/v1/rooms/{room}/members/{uid}", Summary: "Put a user's sessions into a room", Tags: tags,
		Description: "All sessions that the user has now; later ones join by themselves.",
	}, a.addMember)
	handle(a, route{scope: apikey.Admin, replay: true}, huma.Operation{
		OperationID: "remove-member", Method: http.MethodDelete, Path: "/v1/rooms/{room}/members/{uid}", Summary: "Take a user's sessions out of a room", Tags: tags,
		Description: "It doesn't keep them from joining again. Taking out who isn't in is harmless.",
	}, a.removeMember)
	handle(a, route{scope: apikey.Admin, replay: true}, huma.Operation{
		OperationID: "close-room", Method: http.MethodDelete, Path: "/v1/rooms/{room}", Summary: "Take everybody out of a room", Tags: tags,
		Description: "It doesn't keep them from joining again.",
	}, a.closeRoom)
	handle(a, route{scope: apikey.Push, replay: true}, huma.Operation{
		OperationID: "send-room-message", Method: http.MethodPost, Path: "/v1/rooms/{room}/messages", Summary: "Send a message to a room", Tags: tags,
		Description: "Clients get the event room.message, as of a member's room.send. To push a frame of your own use /v1/push.",
	}, a.sendRoomMessage)
}

func (a *api) topRooms(ctx context.Context, in *topInput) (*roomsOutput, error) {
	if err := name.Room(in.Type + "://x"); err != nil || strings.Contains(in.Type, "://") {
		return nil, errcode.InvalidRequest.Errorf("type: of a room that isn't the system's, without ://")
	}
	rctx, cancel := a.router(ctx)
	defer cancel()
	res, err := a.d.Router.TopRooms(rctx, &halleyv1.TopRoomsRequest{Tenant: callOf(ctx).tenant, Type: in.Type, Limit: uint32(min(in.Limit, mostTopRooms))})
	if err != nil {
		return nil, remote.Error(err)
	}
	out := &roomsOutput{}
	out.Body.Rooms = make([]RoomCount, len(res.GetRooms()))
	for i, r := range res.GetRooms() {
		out.Body.Rooms[i] = RoomCount{Room: r.GetRoom(), Count: r.GetCount()}
	}
	return out, nil
}

func (a *api) countRooms(ctx context.Context, in *countsInput) (*roomsOutput, error) {
	rooms := in.Body.Rooms
	if len(rooms) > mostRoomCounts {
		return nil, errcode.TooLarge.Errorf("rooms: at most %d", mostRoomCounts)
	}
	names := make([]*halleyv1.Name, len(rooms))
	for i, r := range rooms {
		if err := name.Room(r); err != nil {
			return nil, err
		}
		names[i] = &halleyv1.Name{Tenant: callOf(ctx).tenant, Name: &halleyv1.Name_Room{Room: r}}
	}
	rctx, cancel := a.router(ctx)
	defer cancel()
	res, err := a.d.Router.CountRooms(rctx, &halleyv1.CountRoomsRequest{Rooms: names})
	if err != nil {
		return nil, remote.Error(err)
	}
	if len(res.GetCounts()) != len(rooms) {
		return nil, errcode.Internal
	}
	out := &roomsOutput{}
	out.Body.Rooms = make([]RoomCount, len(rooms))
	for i, n := range res.GetCounts() {
		out.Body.Rooms[i] = RoomCount{Room: rooms[i], Count: n}
	}
	return out, nil
}

func (a *api) members(ctx context.Context, in *membersInput) (*membersOutput, error) {
	page, err := a.d.Rooms.Members(ctx, callOf(ctx).tenant, in.Room, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &membersOutput{}
	out.Body.UIDs, out.Body.Next, out.Body.Count, out.Body.Complete = list(page.GetUids()), page.GetNext(), page.GetCount(), page.GetComplete()
	return out, nil
}

func (a *api) addMember(ctx context.Context, in *memberInput) (*doneOutput, error) {
	return a.done(a.d.Rooms.Put(ctx, callOf(ctx).tenant, in.UID, []string{in.Room}))
}

func (a *api) removeMember(ctx context.Context, in *memberInput) (*doneOutput, error) {
	return a.done(a.d.Rooms.Remove(ctx, callOf(ctx).tenant, in.UID, []string{in.Room}))
}

func (a *api) closeRoom(ctx context.Context, in *roomInput) (*doneOutput, error) {
	return a.done(a.d.Rooms.Close(ctx, callOf(ctx).tenant, in.Room))
}

func (a *api) done(err error) (*doneOutput, error) {
	if err != nil {
		return nil, err
	}
	return &doneOutput{Done{AcceptedAt: a.now().UnixMilli()}}, nil
}

// roomEvent is a halley.v1.Event with a room.message, as protojson writes it; written by hand because the body must stay as it is.
type roomEvent struct {
	Message struct {
		ID         string          `json:"id"`
		Room       string          `json:"room"`
		From       string          `json:"from,omitempty"`
		Body       json.RawMessage `json:"body"`
		ServerTime int64           `json:"server_time"`
	} `json:"room.message"`
}

func (a *api) sendRoomMessage(ctx context.Context, in *roomMessage) (*pushOutput, error) {
	c := callOf(ctx)
	// The push is the system's, by its op: the room must be checked here.
	if err := name.Room(in.Room); err != nil {
		return nil, err
	}
	if in.Body.From != "" {
		if err := name.UID(in.Body.From); err != nil {
			return nil, err
		}
	}
	if int64(len(in.Body.Body)) > a.d.RoomBodyBytes {
		return nil, errcode.TooLarge.Errorf("body: at most %d bytes", a.d.RoomBodyBytes)
	}
	id := c.pushID("")
	if id == "" {
		id = uuid.NewString()
	}
	var ev roomEvent
	m := &ev.Message
	m.ID, m.Room, m.From, m.Body, m.ServerTime = id, in.Room, in.Body.From, in.Body.Body, a.now().UnixMilli()
	body, err := json.Marshal(ev)
	if err != nil {
		return nil, errcode.InvalidRequest.Errorf("body: not JSON")
	}
	res, err := a.d.Push.Push(ctx, push.Request{
		Tenant: c.tenant, ID: id, Op: int32(frame.OpEvent), Body: body, Rooms: []string{in.Room}, System: true,
	})
	if err != nil {
		return nil, err
	}
	return &pushOutput{Pushed{ID: res.ID, AcceptedAt: res.AcceptedAt.UnixMilli()}}, nil
}
