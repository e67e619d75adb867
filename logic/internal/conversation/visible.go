package conversation

import (
	"context"

	"github.com/halley-im/halley/logic/internal/push"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/store"
)

// Visible returns those of uids whose presence uid may see. A user without a profile may be seen by all: he has chosen nothing. Who
// blocks uid is seen by him no more.
func (s *Service) Visible(ctx context.Context, tenant, uid string, uids []string) (map[string]bool, error) {
	out := make(map[string]bool, len(uids))
	for _, u := range uids {
		out[u] = true
	}
	if s.d.Store == nil {
		return out, nil
	}
	found, err := s.d.Store.Users(ctx, tenant, uids)
	if err != nil {
		return nil, storeError(err)
	}
	var contacts []string
	for _, u := range found {
		if u.UID == uid || u.Visibility == store.VisibleToAll {
			continue
		}
		out[u.UID] = false
		if u.Visibility == store.VisibleToContacts {
			contacts = append(contacts, u.UID)
		}
	}
	if len(contacts) > 0 {
		list, err := s.d.Store.ContactsAmong(ctx, tenant, uid, contacts)
		if err != nil {
			return nil, storeError(err)
		}
		for _, c := range list {
			out[c.Peer] = c.State == store.ContactAccepted
		}
	}
	blocked, err := s.d.Store.BlockedBy(ctx, tenant, uids, uid)
	if err != nil {
		return nil, storeError(err)
	}
	for _, u := range blocked {
		out[u] = false
	}
	return out, nil
}

// mostKept bounds the contacts who go on watching a user who hides from all others: it bounds a record. No setting: whoever has more
// is rare, and those beyond it need only watch anew.
const mostKept = 5000

// hide ends the watches of those who may not see a user any more.
func (s *Service) hide(ctx context.Context, u *store.User) error {
	if s.d.Push == nil {
		return nil
	}
	keep := []string{u.UID}
	const page = 500
	for after := ""; u.Visibility == store.VisibleToContacts && len(keep) < mostKept; {
		list, err := s.d.Store.Contacts(ctx, u.Tenant, u.UID, after, page)
		if err != nil {
			return storeError(err)
		}
		for i := range list {
			if after = list[i].Peer; list[i].State == store.ContactAccepted {
				keep = append(keep, after)
			}
		}
		if len(list) < page {
			break
		}
	}
	room := name.PresenceRoom(u.UID)
	return s.endWatches(ctx, u.Tenant, push.RoomTarget(room), keep, u.UID)
}

// part ends the watches of two who are contacts no more, where that is what let one see the other.
func (s *Service) part(ctx context.Context, tenant, uid, peer string) error {
	if s.d.Push == nil {
		return nil
	}
	found, err := s.d.Store.Users(ctx, tenant, []string{uid, peer})
	if err != nil {
		return storeError(err)
	}
	for of, by := range map[string]string{uid: peer, peer: uid} {
		if u, ok := found[of]; ok && u.Visibility == store.VisibleToContacts {
			if err := s.endWatches(ctx, tenant, push.UIDTarget(by), nil, of); err != nil {
				return err
			}
		}
	}
	return nil
}

// endWatches has sessions watch uid no more, but for those of some.
func (s *Service) endWatches(ctx context.Context, tenant string, of *halleyv1.Target, but []string, uid string) error {
	return s.d.Push.ControlExcept(ctx, tenant, []*halleyv1.Target{of}, but, &halleyv1.Control{
		Control: &halleyv1.Control_Rooms{Rooms: &halleyv1.RoomsChange{Leave: []string{name.PresenceRoom(uid)}}},
	})
}
