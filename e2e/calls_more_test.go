package e2e

import (
	"context"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// refusedByHost: a backend is asked before it rings.
func (s *scene) refusedByHost() {
	bob := s.phone("bob")
	eve := s.Phone(s.t, notToday+s.tag, "e", 0, nil)
	eve.Refused("call.invite", map[string]any{"call": uuid.NewString(), "to": []string{bob.UID}, "media": "audio"}, "forbidden")
	// It is asked about others, too, and lets them through.
	id := s.phone("ann").Call("", bob.UID).GetCall().GetCall()
	bob.Incoming(id)
	s.hooks.await(s.t, "call.ask", func(d hookData) bool { return d.Call == id && len(d.UIDs) == 1 && d.UIDs[0] == bob.UID })
	bob.Do("call.decline", id, nil)
	for _, e := range bob.Events() {
		if c := e.GetCallIncoming().GetCall(); c.GetCaller() == eve.UID {
			s.t.Error("it rang for who was refused")
		}
	}
}

// adminRemoves: who made the group is its owner, and removes somebody from another member's call.
func (s *scene) adminRemoves() {
	p := []*Phone{s.phone("u0"), s.phone("u1"), s.phone("u2")}
	g := s.group(p...)
	id := p[1].Call(g).GetCall().GetCall()
	p[1].Connected(id)
	for _, x := range []*Phone{p[0], p[2]} {
		x.Do("call.accept", id, nil)
		x.Connected(id)
	}
	p[2].Refused("call.remove", map[string]any{"call": id, "uid": p[0].UID}, "forbidden")
	p[0].Do("call.remove", id, map[string]any{"uid": p[2].UID})
	p[2].Stop(id, "removed")
	p[2].Refused("call.accept", map[string]any{"call": id}, "forbidden")
	p[1].Do("call.hangup", id, nil)
	p[0].End(id, "completed")
}

// lostByRedis: what Redis knew of a call is gone. Its devices find out, one of them tells it anew, and it is found again.
func (s *scene) lostByRedis() {
	ann, bob := s.two()
	id := s.talk(ann, bob)
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	r := redis.NewClient(&redis.Options{Addr: s.Servers.Redis})
	defer r.Close()
	for _, key := range []string{
		"{call:default/" + id + "}", "{callconv:default/d/" + ann.UID + "/" + bob.UID + "}:live",
		"{calluser:default/" + ann.UID + "}:busy", "{calluser:default/" + bob.UID + "}:busy", "{calluser:default/" + ann.UID + "}:live", "{calluser:default/" + bob.UID + "}:live",
	} {
		if n, err := r.Del(ctx, s.Prefix+":"+key).Result(); n != 1 || err != nil {
			s.t.Fatalf("%s: %d, %v", key, n, err)
		}
	}
	bob.Refused("call.heartbeat", map[string]any{"call": id, "generation": 1}, "call_unknown")
	if now := bob.Current(); len(now) != 0 {
		s.t.Errorf("bob is in %v", now)
	}
	if r := bob.Do("call.invite", id, map[string]any{"to": []string{ann.UID}, "media": "video", "resumed": true}); r.GetCall().GetCall() != id || r.GetGeneration() != 1 {
		s.t.Errorf("told anew: %v", r)
	}
	ann.Wait("call.incoming", func(e *halleyv1.Event) bool {
		return e.GetCallIncoming().GetCall().GetCall() == id && e.GetCallIncoming().GetResumed()
	})
	if r := ann.Do("call.accept", id, nil); r.GetGeneration() != 1 {
		s.t.Errorf("accepted anew: %v", r)
	}
	ann.Connected(id)
	if r := bob.Connected(id); r.GetCall().GetState() != "active" {
		s.t.Errorf("it is %s", r.GetCall().GetState())
	}
	if now := ann.Current(); len(now) != 1 || now[0].GetCall().GetCall() != id || now[0].GetGeneration() != 1 {
		s.t.Errorf("found again: %v", now)
	}
	ann.Do("call.hangup", id, nil)
	bob.End(id, "completed")
}
