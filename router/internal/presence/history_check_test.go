package presence

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/hook"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/proto/topic"
)

// check holds what the routers say against what is true.
func (h *history) check() {
	var names []*halleyv1.Name
	for _, tenant := range []string{"default", "acme"} {
		for i := range 4 {
			names = append(names, &halleyv1.Name{Tenant: tenant, Name: &halleyv1.Name_Uid{Uid: fmt.Sprintf("u%d", i)}})
		}
		names = append(names, &halleyv1.Name{Tenant: tenant, Name: &halleyv1.Name_Room{Room: "live://1"}})
	}
	for which, s := range h.stores {
		before := h.now()
		res, err := s.Locate(h.ctx(), names)
		h.must(err)
		after := h.now()
		if res.UnavailableMs > 0 {
			continue
		}
		for i, n := range names {
			found := map[string]bool{} // "comet conn", "comet"
			for _, p := range res.Located[i].Places {
				epoch := res.Comets[p.Comet].Epoch
				found[epoch] = true
				if p.ByName {
					found[epoch+" name"] = true
				}
				for _, id := range p.ConnIds {
					found[id] = true
				}
			}
			for _, c := range h.comets {
				if due := h.due(c); due < before-h.margin() && found[c.info.Epoch] {
					if !h.foundAgain(s, n, c.info.Epoch) {
						continue
					}
					h.fail("router %d finds %v at %s, whose lease was due %d ms before", which, n, c.info.Comet, before-due)
				} else if h.soonest(c) < after+h.margin() || c.gone || c.paused {
					continue
				}
				if c.asked < h.lost && after > h.lost+warmUp*h.unit.Milliseconds()-h.margin() {
					// Where time goes by, it may not have come to renew what was lost before routers waited for nobody any more.
					continue
				}
				if room := n.GetRoom(); room != "" {
					if len(c.rooms[n.Tenant+" "+room]) > 0 && !found[c.info.Epoch] {
						h.fail("router %d does not find %s of %s at %s", which, room, n.Tenant, c.info.Comet)
					}
					continue
				}
				for id, x := range c.sessions {
					if x.m.Tenant == n.Tenant && x.m.Uid == n.GetUid() && !x.leaving && !found[id] && !found[c.info.Epoch+" name"] {
						h.fail("router %d does not find %s of %s at %s", which, id, user(x.m), c.info.Comet)
					}
				}
			}
		}
	}
}

// foundAgain tells whether a router finds an epoch however often it looks at the leases anew. On a real Redis, a router that is stopped
// between Redis' answer and its own look at the clock is behind by as much until it reads the leases again.
func (h *history) foundAgain(s *Store, n *halleyv1.Name, epoch string) bool {
	if h.mini != nil {
		return true
	}
	for range 3 {
		h.must(s.leases.refresh(h.ctx()))
		res, err := s.Locate(h.ctx(), []*halleyv1.Name{n})
		h.must(err)
		if res.UnavailableMs > 0 || !slices.ContainsFunc(res.Located[0].Places, func(p *halleyv1.Place) bool { return res.Comets[p.Comet].Epoch == epoch }) {
			return false
		}
	}
	return true
}

// Produce takes events, as a Producer.
func (h *history) Produce(_ context.Context, msgs ...kafka.Message) error {
	for _, m := range msgs {
		if m.Topic != topic.Hooks {
			continue
		}
		var r halleyv1.HookRecord
		h.must(proto.Unmarshal(m.Value, &r))
		h.events++
		u := r.Tenant + " " + strings.TrimPrefix(r.Key, "uid/")
		online := r.Type == hook.UserOnline
		h.say("event: %s online %v", u, online)
		if h.unsure[u] {
			h.announced[u] = online
			continue
		}
		if quiet := h.now() - h.changed[u]; quiet < 3*h.unit.Milliseconds()-h.margin() && h.settled(u) == h.announced[u] {
			h.fail("event of %s, %d ms after a change", u, quiet)
		}
		if h.announced[u] == online {
			h.fail("event of %s says again: online %v", u, online)
		}
		h.announced[u] = online
	}
	return nil
}

// settled is whether a uid has a session on a comet that can be found.
func (h *history) settled(u string) bool {
	for _, c := range h.comets {
		for _, s := range c.sessions {
			if user(s.m) == u && !s.leaving && h.dueIn(c) > 0 {
				return true
			}
		}
	}
	return false
}

// end lets everything settle, compares what was announced, then ends every comet and looks for what is left.
func (h *history) end() {
	h.say("the end")
	for _, c := range h.comets {
		if c.paused {
			c.paused = false
			h.renew(c)
		}
		for _, id := range keysOf(c.sessions) {
			if s := c.sessions[id]; s != nil && s.leaving && !c.gone {
				h.close(c, id)
			}
		}
	}
	h.advance(40 * h.unit)
	h.check()
	for _, tenant := range []string{"default", "acme"} {
		for i := range 4 {
			u := fmt.Sprintf("%s u%d", tenant, i)
			// Where time goes by, a lease may have been lost because nothing ran for longer than it: that settles, too.
			for try := 0; try < 4 && h.mini == nil && h.announced[u] != h.settled(u); try++ {
				h.advance(10 * h.unit)
			}
			if !h.unsure[u] && h.announced[u] != h.settled(u) {
				h.fail("%s was announced as online %v, and is %v", u, h.announced[u], h.settled(u))
			}
		}
	}
	if h.events == 0 {
		h.fail("no event at all")
	}
	for _, c := range h.comets {
		c.gone = true
	}
	h.advance(15 * h.unit)
	h.sleep(150 * h.unit)
	h.look()
	h.advance(5 * h.unit)
	sweep := func() {
		for range 2 * name.Buckets {
			h.must(h.stores[0].sweep(h.ctx()))
		}
		h.work()
	}
	sweep()
	h.sleep(120 * h.unit) // what the sweep found was last seen then
	h.look()
	h.advance(10 * h.unit)
	sweep()
	for _, p := range []string{":l:*", ":ep", ":m:*", ":t:*", ":w:*", ":gone", ":due"} {
		keys, err := h.redis.Keys(h.ctx(), h.stores[0].keys.prefix+":{p*}"+p).Result()
		h.must(err)
		if len(keys) > 0 {
			h.fail("left over: %q", keys)
		}
	}
	for b := range name.Buckets {
		all, err := h.redis.HGetAll(h.ctx(), h.stores[0].keys.bucket[b].main).Result()
		h.must(err)
		for f, v := range all {
			if f != versionField {
				h.fail("left over in bucket %d: %q = %q", b, f, v)
			}
		}
	}
}

func (h *history) lose(pattern string) {
	keys, err := h.redis.Keys(h.ctx(), pattern).Result()
	h.must(err)
	_, err = h.redis.Pipelined(h.ctx(), func(p redis.Pipeliner) error {
		for _, k := range keys { // each by itself: they lie in many slots of a Cluster
			p.Del(h.ctx(), k)
		}
		return nil
	})
	h.must(err)
}
