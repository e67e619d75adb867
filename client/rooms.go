package client

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/halley-im/halley/proto/frame"
)

// Join puts the session into a room, and into it again after each reconnect.
func (c *Client) Join(ctx context.Context, room string) error {
	err := c.Request(ctx, "room.join", map[string]string{"room": room}, nil)
	if err == nil {
		c.loop.post(func() { c.rooms[room] = true })
	}
	return err
}

// Leave takes the session out of a room.
func (c *Client) Leave(ctx context.Context, room string) error {
	c.loop.post(func() { delete(c.rooms, room) })
	return c.Request(ctx, "room.leave", map[string]string{"room": room}, nil)
}

// Watch asks for the state of users now and tells it, and each change from now on, as events "presence"; over reconnects too.
func (c *Client) Watch(ctx context.Context, uids ...string) error {
	done := make(chan error, 1)
	ok := c.loop.post(func() {
		c.watch(uids, func(_ json.RawMessage, err error) {
			if err == nil {
				for _, uid := range uids {
					c.watched[uid] = true
				}
			}
			done <- err
		})
	})
	if !ok {
		return ErrClosed
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-done:
		return err
	case <-c.loop.done:
		return ErrClosed
	}
}

// Unwatch ends that.
func (c *Client) Unwatch(ctx context.Context, uids ...string) error {
	c.loop.post(func() {
		for _, uid := range uids {
			delete(c.watched, uid)
		}
	})
	return c.Request(ctx, "presence.unwatch", map[string][]string{"uids": uids}, nil)
}

func (c *Client) watch(uids []string, done func(json.RawMessage, error)) {
	c.ask("presence.watch", map[string][]string{"uids": uids}, frame.OpRequest, func(raw json.RawMessage, err error) {
		var states struct {
			States []json.RawMessage `json:"states"`
		}
		if err == nil && json.Unmarshal(raw, &states) == nil {
			for _, s := range states.States {
				c.o.OnEvent("presence", s)
			}
		}
		done(raw, err)
	})
}

// bringRooms makes the rooms of a new session what they shall be.
func (c *Client) bringRooms(l *link) {
	now, asked := l.reply.GetRooms(), l.asked
	change := func(method, room string, failed func()) {
		body, _ := json.Marshal(map[string]any{method: map[string]string{"room": room}}) // Strings: it can't fail.
		l.request(method, body, frame.OpRequest, c.o.RequestTimeout, func(_ json.RawMessage, err error) {
			if err != nil {
				failed()
			}
		})
	}
	for room := range c.rooms {
		switch {
		case slices.Contains(now, room):
		case slices.Contains(asked, room):
			// The server doesn't give it back.
			delete(c.rooms, room)
		default:
			// It was joined meanwhile, or the log-in had no place for it.
			change("room.join", room, func() { delete(c.rooms, room) })
		}
	}
	for _, room := range now {
		if c.rooms[room] {
			continue
		}
		if slices.Contains(asked, room) {
			// It was left while the log-in was on its way.
			change("room.leave", room, func() {})
		} else {
			c.rooms[room] = true
		}
	}
}

// fitting returns as many rooms as a log-in has place for besides the token.
func fitting(rooms map[string]bool) []string {
	var out []string
	size := 0
	for _, room := range slices.Sorted(maps.Keys(rooms)) {
		// Quotes and comma; what JSON escapes is no room's.
		if size += len(room) + 3; size > frame.MaxAuthBody/2 {
			break
		}
		out = append(out, room)
	}
	return out
}

// seen remembers the last ids, to know what comes twice.
type seen struct {
	set   map[string]bool
	order []string
}

func (s *seen) add(id string) bool {
	if id == "" {
		return true
	}
	if s.set[id] {
		return false
	}
	s.set[id] = true
	if s.order = append(s.order, id); len(s.order) > 1000 {
		delete(s.set, s.order[0])
		s.order = s.order[1:]
	}
	return true
}
