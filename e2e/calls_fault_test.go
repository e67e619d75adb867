package e2e

import (
	"sync"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// stages are the states in which a fault may hit a call.
var stages = []string{"inviting", "ringing", "connecting", "active"}

// staged brings a call into a state. While it only is inviting the callee says nothing by itself.
func (s *scene) staged(state string, caller, callee int) (ann, bob *Phone, id string) {
	s.t.Helper()
	ann = s.Phone(s.t, s.uid("ann-"+state), "a", caller, nil)
	bob = s.Phone(s.t, s.uid("bob-"+state), "b", callee, nil)
	bob.mu.Lock()
	bob.quiet = state == "inviting"
	bob.mu.Unlock()
	id = ann.Call("", bob.UID).GetCall().GetCall()
	bob.Incoming(id)
	if state == "connecting" || state == "active" {
		bob.Do("call.accept", id, nil)
	}
	if state == "active" {
		ann.Connected(id)
		bob.Connected(id)
	}
	if state != "inviting" {
		ann.State(id, state)
	}
	return ann, bob, id
}

// goOn brings a call from a state, whatever happened, to its good end.
func (s *scene) goOn(state string, ann, bob *Phone, id string, comesBack bool) {
	s.t.Helper()
	if comesBack {
		found := false
		for _, r := range bob.Current() {
			found = found || r.GetCall().GetCall() == id
		}
		if !found {
			s.t.Errorf("%s: the call is not there any more for who comes back", state)
			return
		}
	}
	if r := bob.Do("call.accept", id, nil); r.GetGeneration() == 0 || r.GetCall().GetState() == "ended" {
		s.t.Errorf("%s: back: %v", state, r)
		return
	}
	ann.Connected(id)
	bob.Connected(id)
	ann.State(id, "active")
	if comesBack && (state == "connecting" || state == "active") {
		ann.Leg(id, func(l *halleyv1.CallLeg) bool { return l.GetUid() == bob.UID && l.GetGeneration() == 2 })
	}
	if sent, err := ann.Signal(id, bob.UID, bob.generation(id), map[string]any{"negotiation": 77, "done": true}); !sent || err != nil {
		s.t.Errorf("%s: signalling does not go on: %v %v", state, sent, err)
	}
	bob.Wait("call.signal", func(e *halleyv1.Event) bool { return e.GetCallSignal().GetNegotiation() == 77 })
	ann.Do("call.hangup", id, nil)
	bob.End(id, "completed")
}

func (p *Phone) generation(call string) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.legs[call]
}

// eachStage has a call in each state, does something, and has all of them go on.
func (s *scene) eachStage(callee int, fault func(), comesBack bool) {
	type staged struct {
		ann, bob *Phone
		id       string
	}
	all := map[string]staged{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, state := range stages {
		wg.Go(func() {
			ann, bob, id := s.staged(state, 1-callee, callee)
			mu.Lock()
			defer mu.Unlock()
			all[state] = staged{ann, bob, id}
		})
	}
	wg.Wait()
	if len(all) != len(stages) {
		return
	}
	before := map[string]int{}
	for state, x := range all {
		before[state] = x.bob.Sessions()
	}
	fault()
	for _, state := range stages {
		x := all[state]
		wg.Go(func() {
			if comesBack {
				within(s.t, startLimit, x.bob.UID+" comes back", func() (bool, string) { return x.bob.Sessions() > before[state], "" })
			}
			s.goOn(state, x.ann, x.bob, x.id, comesBack)
		})
	}
	wg.Wait()
}

func (s *scene) cometKilled() {
	s.eachStage(1, func() { s.Comets[1].Kill() }, true)
	s.Restart(s.Comets[1])
}

func (s *scene) logicKilled() {
	s.eachStage(1, func() { s.Logics[0].Kill() }, false)
	s.Restart(s.Logics[0])
	s.tag += "2"
	s.eachStage(0, func() { s.Logics[1].Kill() }, false)
	s.Restart(s.Logics[1])
}
