package relay

import (
	"net"
	"net/netip"
	"sync"
)

// mostContacts bounds with how many addresses, and over how many channels, one client may talk at a time. pion keeps each with a timer, and looks through all
// channels for every packet. A browser asks for one for each address that the other one offers: some ten, and twice that after a change of networks.
const mostContacts = 128

// contact is a peer's address that a client may talk to, or a channel of his.
type contact struct {
	peer    netip.Addr
	channel uint16
}

// contacts counts what each client has. pion tells of each that comes and goes; those of a relay go with it.
type contacts struct {
	mu  sync.Mutex
	has map[string]*held
}

type held struct {
	all      map[contact]struct{}
	channels int
}

func newContacts() *contacts { return &contacts{has: map[string]*held{}} }

// room reports whether a client may have that peer: he has it already, or not too many others. Nobody can tell whether a channel is asked for or
// a permission, so who has too many channels gets neither until some have ended.
func (c *contacts) room(src net.Addr, peer netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.has[place(src)]
	if h == nil {
		return true
	}
	_, known := h.all[contact{peer: peer}]
	return h.channels < mostContacts && (known || len(h.all)-h.channels < mostContacts)
}

func (c *contacts) add(src net.Addr, what contact) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.has[place(src)]
	if h == nil {
		h = &held{all: map[contact]struct{}{}}
		c.has[place(src)] = h
	}
	if _, ok := h.all[what]; ok {
		return
	}
	h.all[what] = struct{}{}
	if what.channel != 0 {
		h.channels++
	}
}

func (c *contacts) remove(src net.Addr, what contact) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.has[place(src)]
	if h == nil {
		return
	}
	if _, ok := h.all[what]; !ok {
		return
	}
	delete(h.all, what)
	if what.channel != 0 {
		h.channels--
	}
	if len(h.all) == 0 {
		delete(c.has, place(src))
	}
}
