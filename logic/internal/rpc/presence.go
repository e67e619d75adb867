package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// watchRules are who may watch presence: by tenant, and under "" what holds for all others.
type watchRules map[string]string

func parseWatchRules(list []string) (watchRules, error) {
	rules := watchRules{"": token.WatchEveryone}
	seen := map[string]bool{}
	for _, entry := range list {
		tenant, who, of := strings.Cut(entry, "=")
		if !of {
			tenant, who = "", entry
		} else if err := name.Tenant(tenant); err != nil {
			return nil, err
		}
		if who != token.WatchEveryone && who != token.WatchNobody {
			return nil, fmt.Errorf("%q: must be %s or %s, or TENANT= and one of them", entry, token.WatchEveryone, token.WatchNobody)
		}
		if seen[tenant] {
			return nil, fmt.Errorf("%q: there are two of the kind", entry)
		}
		seen[tenant] = true
		rules[tenant] = who
	}
	return rules, nil
}

// mayWatch reports whether the session may watch presence: as its token says, else its tenant's rule, else everybody's.
func (c *call) mayWatch() (bool, error) {
	g, err := decodeGrants(c.req.GetGrants())
	if err != nil {
		return false, err
	}
	who := g.Watch
	if who == "" {
		who = c.s.watch[c.session().GetTenant()]
	}
	if who == "" {
		who = c.s.watch[""]
	}
	return who == token.WatchEveryone, nil
}

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
	switch ok, err := c.mayWatch(); {
	case err != nil:
		return nil, err
	case !ok:
		return nil, errcode.Forbidden.Errorf("this session may not watch presence")
	}
	if err := c.s.d.Chat.AdmitReader(ctx, c.tenant(), c.uid()); err != nil {
		return nil, err
	}
	visible, err := c.s.d.Chat.Visible(ctx, c.tenant(), c.uid(), uids)
	if err != nil {
		return nil, err
	}
	var join, leave []string
	for _, uid := range uids {
		switch r := name.PresenceRoom(uid); {
		case visible[uid] && !c.in(r):
			join = append(join, r)
		case !visible[uid] && c.in(r):
			// He hid while he was being watched, or while this session joined.
			leave = append(leave, r)
		}
	}
	if len(leave) > 0 {
		c.change().Leave = leave
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
