package client

import (
	"maps"
	"slices"
	"sync"
)

// SavedConversation is what is kept of a conversation.
type SavedConversation struct {
	Conversation Conversation
	// Have: all up to this seq was handed over.
	Have int64
}

// Saved is all that is kept.
type Saved struct {
	// UID is whose it is; "": nobody's yet.
	UID           string
	UserChange    int64
	Conversations []SavedConversation
	// Changes are the newest of each kind and object.
	Changes []UserChange
	// Outgoing are in the order in which they were added.
	Outgoing []Outgoing
}

// Changes is what a save changes.
type Changes struct {
	UID           string
	UserChange    int64
	Conversations []SavedConversation
	// Gone are conversations that are to be forgotten.
	Gone []string
	// Changes take the place of older ones of their kind and object.
	Changes []UserChange
	// Outgoing are those of which something changed; one that isn't kept any more is left out.
	Outgoing []Outgoing
	// Done are outgoing ones that are to be forgotten.
	Done []string
}

// Storage is where a Chat keeps what must survive its end. All but Add is called on the Chat's goroutine.
type Storage interface {
	Load() (Saved, error)
	// Add adds something to be sent behind all others; when it returns, it can't be lost any more.
	Add(o Outgoing) error
	// Save keeps all of the changes or none.
	Save(c Changes) error
	// Clear forgets everything.
	Clear() error
}

// Memory keeps everything as long as the process lives.
type Memory struct {
	mu    sync.Mutex
	saved Saved
	convs map[string]SavedConversation
	own   map[settingKey]UserChange
}

// Load returns what there is.
func (m *Memory) Load() (Saved, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.saved
	s.Conversations = slices.Collect(maps.Values(m.convs))
	s.Changes = slices.Collect(maps.Values(m.own))
	s.Outgoing = slices.Clone(m.saved.Outgoing)
	return s, nil
}

// Add adds behind all others.
func (m *Memory) Add(o Outgoing) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved.Outgoing = append(m.saved.Outgoing, o)
	return nil
}

// Save keeps the changes.
func (m *Memory) Save(c Changes) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved.UID, m.saved.UserChange = c.UID, c.UserChange
	if m.convs == nil {
		m.convs = map[string]SavedConversation{}
		m.own = map[settingKey]UserChange{}
	}
	for _, u := range c.Changes {
		m.own[u.key()] = u
	}
	for _, v := range c.Conversations {
		m.convs[v.Conversation.ID] = v
	}
	for _, id := range c.Gone {
		delete(m.convs, id)
	}
	at := func(id string) int {
		return slices.IndexFunc(m.saved.Outgoing, func(o Outgoing) bool { return o.ID == id })
	}
	for _, o := range c.Outgoing {
		if i := at(o.ID); i >= 0 {
			m.saved.Outgoing[i] = o
		}
	}
	for _, id := range c.Done {
		if i := at(id); i >= 0 {
			m.saved.Outgoing = slices.Delete(m.saved.Outgoing, i, i+1)
		}
	}
	return nil
}

// Clear forgets everything.
func (m *Memory) Clear() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved, m.convs, m.own = Saved{}, nil, nil
	return nil
}
