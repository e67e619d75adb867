package conversation

import (
	"context"
	"time"

	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	"github.com/halley-im/halley/proto/name"
	entry "github.com/halley-im/halley/store/conversation"
)

// openTTL is how long typing is worth telling.
const openTTL = 5 * time.Second

// Gone returns those of rooms that are of groups in which uid is not. The member's row says so: his list may be behind it for a moment,
// when he has just been put into the room.
func (s *Service) Gone(ctx context.Context, tenant, uid string, rooms []string) ([]string, error) {
	var gone []string
	for _, room := range rooms {
		id := name.RoomConversation(room)
		if entry.TypeOf(id) != entry.Group {
			continue
		}
		_, m, err := s.d.Store.Membership(ctx, tenant, id, uid)
		switch {
		case isAway(err):
			return nil, storeError(err)
		case m.Role == entry.None:
			gone = append(gone, room)
		}
	}
	return gone, nil
}

// Open returns the room in which a session of uid hears of typing in a conversation; "" if it needs none.
func (s *Service) Open(ctx context.Context, tenant, uid, id string) (string, error) {
	if s.d.Store == nil {
		return "", errNoStore
	}
	if err := s.AdmitReader(ctx, tenant, uid); err != nil {
		return "", err
	}
	if entry.TypeOf(id) != entry.Group {
		return "", s.inside(ctx, tenant, uid, id)
	}
	if err := entry.CheckID(id); err != nil {
		return "", err
	}
	// Not by the cache: who was taken out a moment ago would stay in the room.
	_, m, err := s.d.Store.Membership(ctx, tenant, id, uid)
	switch {
	case err != nil:
		return "", storeError(err)
	case m.Role == entry.None:
		return "", errcode.NotMember
	}
	return name.OpenRoom(id), nil
}

type typingEvent struct {
	Conversation string `json:"conversation"`
	UID          string `json:"uid"`
	Off          bool   `json:"off,omitempty"`
}

// Typing tells the others of a conversation that uid is typing, or no longer. Nothing is stored.
func (s *Service) Typing(ctx context.Context, o Origin, tenant, uid, id string, off bool) error {
	if s.d.Store == nil {
		return errNoStore
	}
	if !o.Backend {
		if err := s.AdmitReader(ctx, tenant, uid); err != nil {
			return err
		}
	}
	if err := entry.CheckID(id); err != nil {
		return err
	}
	// As for a message: who is blocked isn't seen typing either.
	if err := s.mayPropose(ctx, &entry.Proposal{Tenant: tenant, Conversation: id, Kind: entry.Message, Sender: uid}); err != nil {
		return err
	}
	return s.tell(ctx, o, tenant, uid, id, map[string]typingEvent{"typing": {id, uid, off}})
}

// tell pushes an event to the others: to the one of a direct conversation, in a group to those who have it open.
func (s *Service) tell(ctx context.Context, o Origin, tenant, uid, id string, event any) error {
	if s.d.Push == nil {
		return nil
	}
	r := push.Request{Tenant: tenant, Op: int32(frame.OpEvent), Body: jsonOf(event), TTL: openTTL, System: true}
	if entry.TypeOf(id) == entry.Group {
		r.Rooms, r.ExcludeUIDs = []string{name.OpenRoom(id)}, []string{uid}
	} else if r.UIDs = peersOf(id, uid); len(r.UIDs) == 0 {
		return nil
	}
	_, err := s.d.Push.Push(ctx, r)
	return err
}
