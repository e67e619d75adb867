package rpc

import (
	"context"
	"slices"
	"strings"

	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// watched is how many uids the session watches.
func (c *call) watched() int {
	n := 0
	for _, r := range c.req.GetRooms() {
		if strings.HasPrefix(r, name.RoomTypePresence+"://") {
			n++
		}
	}
	return n
}

// watchPresence has the session join the rooms of the uids, in which their presence events are. The state that counts
// is that of after the join: a change before it is in the state, one after it comes as an event. So if there is
// something to join comet is told to ask again; the answer of the first time is for a comet that doesn't.
func watchPresence(ctx context.Context, c *call, a *uidList) (any, error) {
	uids, err := c.uids(a)
	if err != nil {
		return nil, err
	}
	visible, err := c.s.d.Chat.Visible(ctx, c.tenant(), c.uid(), uids)
	if err != nil {
		return nil, err
	}
	var join []string
	for _, uid := range uids {
		if !visible[uid] {
			continue
		}
		if r := name.PresenceRoom(uid); !c.in(r) {
			join = append(join, r)
		}
	}
	if c.watched()+len(join) > c.s.cfg.Watch {
		return nil, errcode.TooManyWatched
	}
	states, err := c.s.presenceOf(ctx, c.session().GetTenant(), uids)
	if err != nil {
		return nil, err
	}
	for i := range states.States {
		if p := &states.States[i]; !visible[p.UID] {
			// As one who was never there.
			*p = presence{UID: p.UID}
		}
	}
	if len(join) > 0 {
		c.change().Join = join
		c.again = true
	}
	return states, nil
}

func unwatchPresence(_ context.Context, c *call, a *uidList) (any, error) {
	uids, err := c.uids(a)
	if err != nil {
		return nil, err
	}
	var leave []string
	for _, uid := range uids {
		if r := name.PresenceRoom(uid); c.in(r) {
			leave = append(leave, r)
		}
	}
	if len(leave) > 0 {
		c.change().Leave = leave
	}
	return struct{}{}, nil
}

// uids returns the uids of a request, each once and sorted.
func (c *call) uids(a *uidList) ([]string, error) {
	if len(a.UIDs) == 0 || len(a.UIDs) > c.s.cfg.Watch {
		return nil, errcode.InvalidRequest.Errorf("uids: 1 to %d", c.s.cfg.Watch)
	}
	for _, uid := range a.UIDs {
		if err := name.UID(uid); err != nil {
			return nil, err
		}
	}
	slices.Sort(a.UIDs)
	return slices.Compact(a.UIDs), nil
}

func (s *Server) presenceOf(ctx context.Context, tenant string, uids []string) (*presenceStates, error) {
	ctx, cancel := context.WithTimeout(ctx, s.d.RouterTimeout)
	defer cancel()
	res, err := s.d.Router.GetPresence(ctx, &halleyv1.GetPresenceRequest{Tenant: tenant, Uids: uids, Watch: true})
	if err != nil {
		return nil, remote.Error(err)
	}
	states := &presenceStates{States: make([]presence, len(res.GetStates()))}
	for i, p := range res.GetStates() {
		states.States[i] = presence{UID: p.GetUid(), Online: p.GetOnline(), Platforms: p.GetPlatforms(), LastSeen: p.GetLastSeen()}
	}
	return states, nil
}
