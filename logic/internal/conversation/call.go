package conversation

import (
	"context"
	"errors"

	"github.com/halley-im/halley/proto/errcode"
	entry "github.com/halley-im/halley/store/conversation"
)

// What calls must know of conversations and people. Without a database nobody is blocked, and there are no groups.

// EntryRules returns the judge's rules; nil where there are no conversations.
func (s *Service) EntryRules() *entry.Rules {
	if s.d.Store == nil {
		return nil
	}
	return &s.d.Rules
}

// Refusers returns which of uids block from.
func (s *Service) Refusers(ctx context.Context, tenant, from string, uids []string) ([]string, error) {
	switch {
	case s.d.Store == nil || len(uids) == 0:
		return nil, nil
	case len(uids) == 1:
		err := s.unblocked(ctx, tenant, from, uids[0])
		if errors.Is(err, errcode.Blocked) {
			return uids, nil
		}
		return nil, err
	}
	list, err := s.d.Store.BlockedBy(ctx, tenant, uids, from)
	return list, storeError(err)
}

// IsMember reports whether uid is a member of a conversation.
func (s *Service) IsMember(ctx context.Context, tenant, id, uid string) (bool, error) {
	if entry.TypeOf(id) != entry.Group {
		for _, p := range entry.Parties(id) {
			if p == uid {
				return true, nil
			}
		}
		return false, nil
	}
	if s.d.Store == nil {
		return false, errNoStore
	}
	a, err := s.access(ctx, tenant, id, uid)
	return a.role != entry.None, err
}

// IsAdmin reports whether uid is a group's admin or owner.
func (s *Service) IsAdmin(ctx context.Context, tenant, id, uid string) (bool, error) {
	if s.d.Store == nil {
		return false, errNoStore
	}
	a, err := s.access(ctx, tenant, id, uid)
	return a.role >= entry.Admin, err
}

// GroupMembers returns at most n members of a group, in the order of their uids.
func (s *Service) GroupMembers(ctx context.Context, tenant, id string, n int) ([]string, error) {
	if s.d.Store == nil {
		return nil, errNoStore
	}
	list, err := s.d.Store.Members(ctx, tenant, id, "", n)
	if err != nil {
		return nil, storeError(err)
	}
	uids := make([]string, len(list))
	for i, m := range list {
		uids[i] = m.UID
	}
	return uids, nil
}
