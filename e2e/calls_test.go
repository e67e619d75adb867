package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/halley-im/halley/client"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// TestCalls holds two of each role to every scenario of calls, with scripted devices: first those without a fault, side by side; then
// comets and logics are killed under calls in each state.
func TestCalls(t *testing.T) {
	hooks := newHookReceiver(t, hookSecret)
	c := StartCluster(t, Two, Conversations(),
		Setting("HALLEY_JOB_HOOK_ENDPOINTS", "phones "+hooks.URL+" "+hookSecret+" call.incoming+call.stop+call.ended"),
		Setting("HALLEY_LOGIC_CALL_ASK_URL", hooks.URL), Setting("HALLEY_LOGIC_CALL_ASK_SECRET", hookSecret),
		// The longest one says how long the scenarios take; all others are below it, and outlast a pause of some seconds.
		Setting("HALLEY_LOGIC_CALL_RING", "15s"), Setting("HALLEY_LOGIC_CALL_RING_GROUP", "15s"), Setting("HALLEY_LOGIC_CALL_REACH_TIMEOUT", "12s"),
		Setting("HALLEY_LOGIC_CALL_LEASE", "8s"), Setting("HALLEY_LOGIC_CALL_AWAY", "6s"), Setting("HALLEY_LOGIC_CALL_LEAVING", "4s"),
		Setting("HALLEY_LOGIC_CALL_MEDIA_TIMEOUT", "30s"),
		Setting("HALLEY_LOGIC_TURN_URLS", "turn:turn.example:3478?transport=udp"), Setting("HALLEY_LOGIC_TURN_SECRET", "a-secret-of-the-tests"),
	)
	t.Run("scenarios", func(t *testing.T) {
		for name, run := range map[string]func(*scene){
			"answer": (*scene).answer, "decline": (*scene).decline, "cancel while inviting": (*scene).cancelInviting, "cancel against accept": (*scene).cancelAgainstAccept,
			"no answer": (*scene).noAnswer, "unreachable": (*scene).unreachable, "busy from another conversation": (*scene).busyElsewhere,
			"two devices, one answers, the other stops": (*scene).otherStops, "answered on two at once": (*scene).twoAtOnce, "glare": (*scene).glare,
			"wake after cancel": (*scene).wakeAfterCancel, "early candidates": (*scene).earlyCandidates, "ICE restart after an address change": (*scene).iceRestart,
			"take-over by another device": (*scene).takeOver, "third person joins": (*scene).thirdJoins, "group": (*scene).groupCall, "ghost": (*scene).ghost, "relay only": (*scene).relayOnly,
			"seventh joins a mesh of six": (*scene).seventhJoins, "blocked": (*scene).blockedCaller, "a reload comes back": (*scene).reload, "ended by a backend": (*scene).endedByHost,
			"refused by a backend": (*scene).refusedByHost, "an admin removes somebody": (*scene).adminRemoves, "lost by Redis": (*scene).lostByRedis,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(&scene{Cluster: c, t: t, hooks: hooks, tag: strings.ToLower(uuid.NewString()[:8])})
			})
		}
	})
	t.Run("the callee's comet killed in each state", func(t *testing.T) { (&scene{Cluster: c, t: t, tag: "ck"}).cometKilled() })
	t.Run("the logic that took the invite killed in each state", func(t *testing.T) { (&scene{Cluster: c, t: t, tag: "lk"}).logicKilled() })
	hooks.check(t)
}

// scene is a scenario's part of the cluster: its users are its own.
type scene struct {
	*Cluster
	t     *testing.T
	hooks *hookReceiver
	tag   string
	n     int
}

func (s *scene) uid(name string) string { return name + "-" + s.tag }

// phone starts a user's device; its comets are taken in turn.
func (s *scene) phone(name string) *Phone {
	s.t.Helper()
	s.n++
	return s.Phone(s.t, s.uid(name), fmt.Sprint(name, s.n), s.n%2, nil)
}

func (s *scene) two() (ann, bob *Phone) { return s.phone("ann"), s.phone("bob") }

// talk has both connected.
func (s *scene) talk(ann, bob *Phone) string {
	s.t.Helper()
	id := ann.Call("", bob.UID).GetCall().GetCall()
	bob.Incoming(id)
	// His phone says by itself that it rings. Only who has heard that knows that it came before the answer.
	ann.State(id, "ringing")
	bob.Do("call.accept", id, nil)
	ann.State(id, "connecting")
	ann.Connected(id)
	if r := bob.Connected(id); r.GetCall().GetState() != "active" {
		s.t.Fatalf("both are connected, and it is %s", r.GetCall().GetState())
	}
	ann.State(id, "active")
	return id
}

func (s *scene) answer() {
	ann, bob := s.two()
	id := s.talk(ann, bob)
	ann.Do("call.update", id, map[string]any{"sends": map[string]bool{"video": true, "screen": true}})
	bob.Leg(id, func(l *halleyv1.CallLeg) bool { return l.GetUid() == ann.UID && l.GetSends().GetScreen() })
	ann.Do("call.hangup", id, nil)
	bob.End(id, "completed")
	// The conversation has it, once.
	conversation := "d/" + ann.UID + "/" + bob.UID
	within(s.t, startLimit, "the call is in its conversation", func() (bool, string) {
		var page struct {
			Entries []struct {
				From        string `json:"from"`
				ClientMsgID string `json:"client_msg_id"`
				Body        struct {
					Call struct {
						Outcome string `json:"outcome"`
					} `json:"call"`
				} `json:"body"`
			} `json:"entries"`
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err := bob.Raw(ctx, "conversation.history", map[string]any{"conversation": conversation, "from": 1, "to": 10}, &page)
		if err != nil || len(page.Entries) == 0 {
			return false, fmt.Sprint(err)
		}
		if e := page.Entries[0]; len(page.Entries) != 1 || e.ClientMsgID != "call:"+id || e.From != ann.UID || e.Body.Call.Outcome != "answered" {
			s.t.Errorf("entries: %+v", page.Entries)
		}
		return true, ""
	})
}

func (s *scene) decline() {
	ann, bob := s.two()
	other := s.phone("bob")
	id := ann.Call("", bob.UID).GetCall().GetCall()
	other.Incoming(id)
	bob.Do("call.decline", id, nil)
	ann.End(id, "declined")
	other.Stop(id, "declined_elsewhere")
}

func (s *scene) cancelInviting() {
	ann, bob := s.two()
	id := ann.Call("", bob.UID).GetCall().GetCall()
	ann.Do("call.cancel", id, nil)
	bob.Stop(id, "cancelled")
	if r := bob.Do("call.accept", id, nil); r.GetCall().GetState() != "ended" || r.GetGeneration() != 0 {
		s.t.Errorf("accepting what was cancelled: %v", r)
	}
}

func (s *scene) cancelAgainstAccept() {
	ann, bob := s.two()
	for range 5 {
		id := ann.Call("", bob.UID).GetCall().GetCall()
		var wg sync.WaitGroup
		var cancelled, accepted *halleyv1.CallReply
		wg.Go(func() { cancelled = ann.Do("call.cancel", id, nil) })
		wg.Go(func() { accepted = bob.Do("call.accept", id, nil) })
		wg.Wait()
		if over := cancelled.GetCall().GetState() == "ended"; over == (accepted.GetGeneration() == 1 && accepted.GetCall().GetState() == "connecting") {
			s.t.Errorf("cancel was told %s, accept %v", cancelled.GetCall().GetState(), accepted)
		}
		ann.Do("call.hangup", id, nil)
		ann.Wait("call.ended", func(e *halleyv1.Event) bool { return e.GetCallEnded().GetCall().GetCall() == id })
	}
}

func (s *scene) noAnswer() {
	ann, bob := s.two()
	id := ann.Call("", bob.UID).GetCall().GetCall()
	ann.State(id, "ringing")
	ann.End(id, "no_answer")
	bob.Stop(id, "timeout")
}

func (s *scene) unreachable() {
	ann := s.phone("ann")
	id := ann.Call("", s.uid("nobody")).GetCall().GetCall()
	ann.End(id, "unreachable")
}

func (s *scene) busyElsewhere() {
	ann, bob := s.two()
	cy := s.phone("cy")
	id := s.talk(ann, bob)
	cy.End(cy.Call("", bob.UID).GetCall().GetCall(), "busy")
	bob.Refused("call.invite", map[string]any{"call": uuid.NewString(), "to": []string{cy.UID}, "media": "audio"}, "in_call")
	ann.Do("call.hangup", id, nil)
	bob.End(id, "completed")
	again := cy.Call("", bob.UID).GetCall().GetCall()
	bob.Incoming(again)
	cy.Do("call.hangup", again, nil)
}

func (s *scene) otherStops() {
	ann, bob := s.two()
	laptop := s.phone("bob")
	id := ann.Call("", bob.UID).GetCall().GetCall()
	bob.Incoming(id)
	laptop.Incoming(id)
	laptop.Do("call.accept", id, nil)
	bob.Stop(id, "answered_elsewhere")
	for _, e := range laptop.Events() {
		if e.Name == "call.stop" {
			s.t.Errorf("who answered was told %v", e)
		}
	}
	ann.Do("call.hangup", id, nil)
}

func (s *scene) twoAtOnce() {
	ann, bob := s.two()
	laptop := s.phone("bob")
	for range 5 {
		id := ann.Call("", bob.UID).GetCall().GetCall()
		var wg sync.WaitGroup
		won := make([]uint32, 2)
		for i, p := range []*Phone{bob, laptop} {
			wg.Go(func() { won[i] = p.Do("call.accept", id, nil).GetGeneration() })
		}
		wg.Wait()
		if won[0]+won[1] != 1 {
			s.t.Errorf("generations %v: one must have won", won)
		}
		ann.Do("call.hangup", id, nil)
		ann.End(id, "completed")
	}
}

func (s *scene) glare() {
	ann, bob := s.two()
	var wg sync.WaitGroup
	ids := make([]*halleyv1.CallReply, 2)
	for i, p := range []*Phone{ann, bob} {
		wg.Go(func() { ids[i] = p.Call("", []string{bob.UID, ann.UID}[i]) })
	}
	wg.Wait()
	id := ids[0].GetCall().GetCall()
	if id != ids[1].GetCall().GetCall() {
		s.t.Fatalf("two calls: %v", ids)
	}
	for _, p := range []*Phone{ann, bob} {
		if now := p.Current(); len(now) != 1 || now[0].GetGeneration() != 1 || now[0].GetCall().GetState() != "connecting" {
			s.t.Errorf("%s: %v", p.UID, now)
		}
	}
	ann.Do("call.hangup", id, nil)
	bob.End(id, "completed")
}

func (s *scene) wakeAfterCancel() {
	ann := s.phone("ann")
	id := ann.Call("", s.uid("bob")).GetCall().GetCall()
	early := s.phone("bob")
	if now := early.Current(); len(now) != 1 || !now[0].GetRings() || now[0].GetCall().GetCall() != id {
		s.t.Errorf("a phone that wakes finds %v", now)
	}
	early.Do("call.ringing", id, nil)
	ann.State(id, "ringing")
	ann.Do("call.cancel", id, nil)
	early.Stop(id, "cancelled")
	if now := s.phone("bob").Current(); len(now) != 0 {
		s.t.Errorf("a phone that wakes late finds %v", now)
	}
	// What woke it, and what told it that it is over.
	d := s.hooks.await(s.t, "call.incoming", func(d hookData) bool { return d.Call == id })
	if d.Caller != ann.UID || len(d.UIDs) != 1 || d.UIDs[0] != early.UID {
		s.t.Errorf("woken by %+v", d)
	}
	s.hooks.await(s.t, "call.stop", func(d hookData) bool { return d.Call == id && d.Reason == "cancelled" && len(d.UIDs) == 1 })
	s.hooks.await(s.t, "call.ended", func(d hookData) bool { return d.Call == id && d.Reason == "cancelled" })
}

// sdp is about as large as a browser's.
var sdp = "v=0\r\n" + strings.Repeat("a=fmtp:111 minptime=10;useinbandfec=1\r\n", 150)

func (s *scene) earlyCandidates() {
	ann, bob := s.two()
	id := ann.Call("", bob.UID).GetCall().GetCall()
	bob.Incoming(id)
	bob.Do("call.accept", id, nil)
	const n = 30
	for i := range n {
		more := map[string]any{"negotiation": i + 1, "candidates": []map[string]any{{"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0}}}
		if i%3 == 2 {
			more = map[string]any{"negotiation": i + 1, "description": map[string]any{"type": "offer", "sdp": sdp}, "done": true}
		}
		if sent, err := bob.Signal(id, ann.UID, 1, more); !sent || err != nil {
			s.t.Fatalf("signal %d: %v %v", i, sent, err)
		}
	}
	ann.Wait("call.signal", func(e *halleyv1.Event) bool { return e.GetCallSignal().GetNegotiation() == n })
	next := uint32(1)
	for _, e := range ann.Events() {
		if g := e.GetCallSignal(); g != nil {
			if g.GetNegotiation() < next {
				continue // repeated, since it wasn't known to be sent
			}
			if g.GetNegotiation() != next || g.GetFrom() != bob.UID || (g.GetDescription() != nil) != (next%3 == 0) || next%3 == 0 && g.GetDescription().GetSdp() != sdp {
				s.t.Errorf("signal %d where %d belongs", g.GetNegotiation(), next)
			}
			next++
		}
	}
	stranger := s.phone("eve")
	_, err := stranger.Signal(id, ann.UID, 1, map[string]any{"done": true})
	var told *client.Error
	if !errors.As(err, &told) || told.Code != "forbidden" {
		s.t.Errorf("a stranger's signal: %v", err)
	}
	within(s.t, waitTime, "a stranger's signal is counted", func() (bool, string) {
		return Metric([]*Process{s.Logics[0].Process, s.Logics[1].Process}, "halley_logic_call_signals_total", `result="forbidden"`) >= 1, ""
	})
	ann.Do("call.hangup", id, nil)
}

func (s *scene) iceRestart() {
	ann, bob := s.two()
	id := s.talk(ann, bob)
	if sent, err := bob.Signal(id, ann.UID, 1, map[string]any{"negotiation": 2, "description": map[string]any{"type": "offer", "sdp": sdp}}); !sent || err != nil {
		s.t.Errorf("restart: %v %v", sent, err)
	}
	ann.Wait("call.signal", func(e *halleyv1.Event) bool { return e.GetCallSignal().GetNegotiation() == 2 })
	if sent, err := bob.Signal(id, ann.UID, 0, map[string]any{"done": true}); sent || err != nil {
		s.t.Errorf("to another generation: %v %v", sent, err)
	}
	ann.Do("call.hangup", id, nil)
}

func (s *scene) takeOver() {
	ann, bob := s.two()
	id := s.talk(ann, bob)
	tablet := s.phone("bob")
	if r := tablet.Do("call.accept", id, nil); r.GetGeneration() != 0 {
		s.t.Errorf("took it unasked: %v", r)
	}
	if r := tablet.Do("call.accept", id, map[string]any{"take": true}); r.GetGeneration() != 2 || r.GetCall().GetState() != "active" {
		s.t.Errorf("taken over: %v", r)
	}
	bob.Stop(id, "taken")
	bob.Refused("call.update", map[string]any{"call": id}, "call_taken")
	ann.Leg(id, func(l *halleyv1.CallLeg) bool { return l.GetUid() == bob.UID && l.GetGeneration() == 2 })
	tablet.Do("call.hangup", id, nil)
	ann.End(id, "completed")
}

func (s *scene) thirdJoins() {
	ann, bob := s.two()
	cy := s.phone("cy")
	id := s.talk(ann, bob)
	cy.Refused("call.accept", map[string]any{"call": id}, "forbidden")
	bob.Do("call.add", id, map[string]any{"uids": []string{cy.UID}})
	if in := cy.Incoming(id); in.GetKind() != "group" || len(in.GetLegs()) != 3 {
		s.t.Errorf("incoming: %v", in)
	}
	cy.Do("call.accept", id, nil)
	cy.Connected(id)
	ann.Do("call.hangup", id, nil)
	cy.Leg(id, func(l *halleyv1.CallLeg) bool { return l.GetUid() == ann.UID && l.GetState() == "left" })
	cy.Do("call.hangup", id, nil)
	bob.End(id, "completed")
}

// group makes a group of the phones' users, and returns it when all of them may call in it.
func (s *scene) group(of ...*Phone) string {
	s.t.Helper()
	var members []string
	for _, p := range of[1:] {
		members = append(members, p.UID)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	var made struct {
		Conversation string `json:"conversation"`
	}
	if err := of[0].Raw(ctx, "group.create", map[string]any{"client_msg_id": uuid.NewString(), "title": "tea", "members": members}, &made); err != nil {
		s.t.Fatal(err)
	}
	within(s.t, startLimit, "the group is there", func() (bool, string) {
		err := of[0].Raw(ctx, "conversation.get", map[string]any{"conversation": made.Conversation}, nil)
		return err == nil, fmt.Sprint(err)
	})
	return made.Conversation
}

// groupCall: late join, leave, host leaves.
func (s *scene) groupCall() {
	p := []*Phone{s.phone("u0"), s.phone("u1"), s.phone("u2"), s.phone("u3")}
	g := s.group(p...)
	id := p[0].Call(g).GetCall().GetCall()
	p[0].Connected(id)
	for _, x := range p[1:] {
		x.Incoming(id)
	}
	p[2].Do("call.decline", id, nil)
	p[1].Leg(id, func(l *halleyv1.CallLeg) bool { return l.GetUid() == p[2].UID && l.GetState() == "declined" })
	p[1].Do("call.accept", id, nil)
	p[1].Connected(id)
	p[0].State(id, "active")
	// Late, by calling the group that talks; and after having declined.
	if r := p[3].Call(g); r.GetCall().GetCall() != id || r.GetGeneration() != 1 {
		s.t.Errorf("late: %v", r)
	}
	p[2].Do("call.accept", id, nil)
	p[2].Connected(id)
	p[0].Do("call.hangup", id, nil)
	p[1].Leg(id, func(l *halleyv1.CallLeg) bool { return l.GetUid() == p[0].UID && l.GetState() == "left" })
	p[1].Do("call.hangup", id, nil)
	p[2].Do("call.hangup", id, nil)
	p[3].End(id, "completed")
}

func (s *scene) ghost() {
	p := []*Phone{s.phone("u0"), s.phone("u1"), s.phone("u2")}
	id := p[0].Call("", p[1].UID, p[2].UID).GetCall().GetCall()
	p[0].Connected(id)
	for _, x := range p[1:] {
		x.Do("call.accept", id, nil)
		x.Connected(id)
	}
	p[2].Drop()
	p[0].Leg(id, func(l *halleyv1.CallLeg) bool { return l.GetUid() == p[2].UID && l.GetState() == "away" })
	p[0].Leg(id, func(l *halleyv1.CallLeg) bool {
		return l.GetUid() == p[2].UID && l.GetState() == "left" && l.GetReason() == "connection_lost"
	})
	p[1].Do("call.hangup", id, nil)
	p[0].End(id, "completed")
}

func (s *scene) relayOnly() {
	ann := s.phone("ann")
	bob := s.Phone(s.t, s.uid("bob"), "b", 1, Claims{"relay_only": true})
	servers := func(p *Phone) (relayOnly, turn bool) {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		var raw struct {
			RelayOnly bool `json:"relay_only"`
			TURN      bool `json:"turn"`
			Servers   []struct {
				Username   string `json:"username"`
				Credential string `json:"credential"`
			} `json:"servers"`
		}
		if err := p.Raw(ctx, "ice.servers", struct{}{}, &raw); err != nil {
			s.t.Fatal(err)
		}
		if len(raw.Servers) != 1 || !strings.HasSuffix(raw.Servers[0].Username, ":"+p.UID) || raw.Servers[0].Credential == "" {
			s.t.Errorf("servers: %+v", raw)
		}
		return raw.RelayOnly, raw.TURN
	}
	if only, turn := servers(ann); only || !turn {
		s.t.Errorf("ann: relay_only %v, turn %v", only, turn)
	}
	if only, turn := servers(bob); !only || !turn {
		s.t.Errorf("bob: relay_only %v, turn %v", only, turn)
	}
	id := ann.Call("", bob.UID).GetCall().GetCall()
	bob.Do("call.accept", id, nil)
	if sent, err := bob.Signal(id, ann.UID, 1, map[string]any{"candidates": []map[string]any{
		{"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host"}, {"candidate": "candidate:2 1 udp 1 198.51.100.7 9 typ relay raddr 192.0.2.1 rport 9"},
	}}); !sent || err != nil {
		s.t.Fatal(sent, err)
	}
	if g := ann.Wait("call.signal", nil).GetCallSignal(); len(g.GetCandidates()) != 1 || strings.Contains(g.GetCandidates()[0].GetCandidate(), "192.0.2.1") {
		s.t.Errorf("got %v", g)
	}
	ann.Do("call.hangup", id, nil)
}

func (s *scene) seventhJoins() {
	var (
		p  []*Phone
		to []string
	)
	for i := range 7 {
		p = append(p, s.phone(fmt.Sprint("u", i)))
		if i > 0 {
			to = append(to, p[i].UID)
		}
	}
	id := p[0].Call("", to...).GetCall().GetCall()
	for _, x := range p[1:6] {
		if r := x.Do("call.accept", id, nil); r.GetGeneration() != 1 {
			s.t.Errorf("%s: %v", x.UID, r)
		}
	}
	p[6].Refused("call.accept", map[string]any{"call": id}, "call_full")
	p[1].Do("call.hangup", id, nil)
	if r := p[6].Do("call.accept", id, nil); r.GetGeneration() != 1 {
		s.t.Errorf("there is room again: %v", r)
	}
	for _, x := range p {
		x.Do("call.hangup", id, nil)
	}
}

func (s *scene) blockedCaller() {
	ann, bob := s.two()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := bob.Raw(ctx, "block.set", map[string]any{"uid": ann.UID}, nil); err != nil {
		s.t.Fatal(err)
	}
	within(s.t, startLimit, "the block is stored", func() (bool, string) {
		var page struct {
			UIDs []string `json:"uids"`
		}
		err := bob.Raw(ctx, "block.list", struct{}{}, &page)
		return err == nil && len(page.UIDs) == 1, fmt.Sprint(err)
	})
	id := ann.Call("", bob.UID).GetCall().GetCall()
	ann.State(id, "ringing")
	ann.End(id, "no_answer")
	if n := len(bob.Events()); n != 0 {
		s.t.Errorf("bob was told %d things", n)
	}
}

func (s *scene) reload() {
	ann := s.phone("ann")
	bob := s.Phone(s.t, s.uid("bob"), "laptop", 1, nil)
	id := s.talk(ann, bob)
	bob.mu.Lock()
	g := bob.legs[id]
	bob.mu.Unlock()
	bob.Do("call.leaving", id, map[string]any{"generation": g})
	bob.Drop()
	ann.State(id, "reconnecting")
	back := s.Phone(s.t, bob.UID, "laptop", 0, nil)
	now := back.Current()
	slow := len(now) == 0
	if !slow {
		r := back.Do("call.accept", id, nil)
		if slow = r.GetCall().GetState() == "ended"; !slow && r.GetGeneration() != 2 {
			s.t.Errorf("back: %v", r)
		}
	}
	if slow {
		// The machine was too slow for the seconds that a reload has here.
		ann.End(id, "connection_lost")
		return
	}
	ann.Do("call.hangup", id, nil)
}

func (s *scene) endedByHost() {
	ann, bob := s.two()
	id := s.talk(ann, bob)
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := ann.Raw(ctx, "call.stats", map[string]any{"call": id, "generation": 1, "peers": []map[string]any{{"uid": bob.UID, "local": "host", "remote": "host", "protocol": "udp", "loss": 0.5}}}, nil); err != nil {
		s.t.Error(err)
	}
	api := s.API()
	a, err := api.Do(ctx, http.MethodPost, "/v1/calls/"+id+"/end", nil, nil)
	if err != nil || a.Status != http.StatusOK {
		s.t.Fatalf("end: %v %v", a, err)
	}
	ann.End(id, "ended_by_host")
	bob.End(id, "ended_by_host")
	within(s.t, waitTime, "the call is on record", func() (bool, string) {
		a, err := api.Do(ctx, http.MethodGet, "/v1/calls/"+id, nil, nil)
		if err != nil || !strings.Contains(string(a.Body), `"loss":0.5`) {
			return false, fmt.Sprint(a, err)
		}
		var list struct {
			Calls []json.RawMessage `json:"calls"`
		}
		a, err = api.Do(ctx, http.MethodGet, "/v1/calls?uid="+bob.UID+"&state=ended", nil, nil)
		return err == nil && json.Unmarshal(a.Body, &list) == nil && len(list.Calls) == 1, fmt.Sprint(a, err)
	})
}
