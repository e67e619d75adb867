package client

import (
	"context"
	"encoding/json"
	"time"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
)

func (c *Client) goAway(url string, grace time.Duration) {
	if c.state.Name != Online || c.moving {
		return
	}
	c.moving = true
	s := c.state
	s.Moving = true
	c.set(s)
	// The server paces its waves; this only takes the edge off one.
	jitter := time.Duration(c.o.Random() * float64(min(time.Second, grace/4)))
	c.retry = c.loop.after(jitter, func() { c.move(url) })
}

func (c *Client) move(url string) {
	c.open(url, c.ready, func(err *Error) {
		if c.link == nil {
			// The old one is gone already: this is a try like any other.
			c.failed(err)
			return
		}
		if !err.Retry {
			return // Its end will tell.
		}
		c.retry = c.loop.after(c.o.Backoff.wait(c.attempt, err.RetryAfter, c.o.Random), func() { c.move("") })
		c.attempt++
	})
}

// release ends the old connection, if there is one, and hands over what was held back.
func (c *Client) release() {
	if !c.holding {
		return
	}
	c.hold.stop()
	old, heldUp := c.old, c.heldUp
	c.old, c.holding, c.heldUp = nil, false, nil
	if old != nil {
		old.end(errorOf(errcode.GoingAway, "moved to another connection"))
	}
	for _, h := range heldUp {
		c.deliver(c.link, h)
	}
}

// incoming is told by a link what came.
func (c *Client) incoming(l *link, h held) {
	switch {
	case l == c.link && c.holding:
		if c.heldUp = append(c.heldUp, h); len(c.heldUp) > maxHeld {
			c.release()
		}
	case l == c.link || l == c.old:
		c.deliver(l, h)
	}
}

func (c *Client) deliver(l *link, h held) {
	switch h.name {
	case "":
		c.o.OnPush(int32(h.op), h.raw)
		return
	case "room.message":
		var m struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(h.raw, &m) == nil && !c.seen.add(m.ID) {
			return
		}
	case "go_away":
		var away struct {
			URL     string  `json:"url"`
			GraceMs float64 `json:"grace_ms"`
		}
		if json.Unmarshal(h.raw, &away) == nil && l != nil && l == c.link {
			c.goAway(away.URL, time.Duration(away.GraceMs)*time.Millisecond)
		}
	}
	c.o.OnEvent(h.name, h.raw)
}

// ---- the token's life ----

func (c *Client) scheduleRefresh(l *link, expires time.Time) {
	c.refresh.stop()
	if expires.IsZero() {
		return
	}
	left := time.Until(expires.Add(-c.skew))
	// A fifth of its life ahead, a minute at most: time for several tries.
	ahead := min(time.Minute, left/5)
	var renew func()
	again := func(error) {
		if l == c.link {
			c.refresh = c.loop.after(max(time.Second, ahead/4), renew)
		}
	}
	renew = func() {
		c.spawn(func(ctx context.Context) {
			token, err := c.o.Token(ctx, ForExpiring)
			c.loop.post(func() {
				if err != nil || l != c.link {
					again(err)
					return
				}
				c.ask("session.refresh", map[string]string{"token": token}, frame.OpRequest, func(raw json.RawMessage, err error) {
					var r struct {
						ExpiresAt float64 `json:"expires_at"`
					}
					if err != nil || l != c.link || json.Unmarshal(raw, &r) != nil {
						again(err)
						return
					}
					c.token = token
					var until time.Time
					if r.ExpiresAt > 0 {
						until = time.UnixMilli(int64(r.ExpiresAt))
					}
					if c.state.Name == Online {
						s := c.state
						s.Session.ExpiresAt = until
						c.set(s)
					}
					c.scheduleRefresh(l, until)
				})
			})
		})
	}
	c.refresh = c.loop.after(max(0, left-ahead), renew)
}
