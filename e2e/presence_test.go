package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

const half = "public://half"

// Watcher is a client that keeps a view of others by what it is told: of users through presence.watch, of a room's members
// through room.member. It asks for everything anew only when it comes back, and when it is told to.
type Watcher struct {
	UID  string
	uids []string
	room string

	secrets Secrets
	comets  []*Node
	at      int // index into comets

	mu      sync.Mutex
	ready   bool
	online  map[string]bool
	members map[string]bool
	events  int
}

// watch starts a watcher at each comet. The function that it returns ends them.
func (f *faults) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	uids := []string{"sleeper-killed", "sleeper-stalled", "sleeper-cut", "sleeper-redis", "sleeper-kafka", "asker"}
	for _, u := range f.stream.Users {
		uids = append(uids, u.UID)
	}
	for i := range f.Comets {
		w := &Watcher{UID: fmt.Sprintf("watcher-%d", i+1), uids: uids, room: half, secrets: f.Secrets, comets: f.Comets, at: i}
		f.watchers = append(f.watchers, w)
		wg.Go(func() { w.live(ctx) })
	}
	return func() { cancel(); wg.Wait() }
}

func (w *Watcher) live(ctx context.Context) {
	for ctx.Err() == nil {
		s, err := w.comets[w.at].Login("ws", &halleyv1.Auth{Token: w.secrets.User(w.UID, nil), Rooms: []string{w.room}})
		if err == nil {
			w.read(ctx, s)
			s.Close()
		}
		w.mu.Lock()
		w.ready = false
		w.mu.Unlock()
		w.at = (w.at + 1) % len(w.comets)
		pause(ctx, 200*time.Millisecond)
	}
}

// read follows one session to its end, or until it is asked to leave.
func (w *Watcher) read(ctx context.Context, s *Session) {
	stale := true
	beat := time.Now()
	for ctx.Err() == nil {
		if stale && !w.ask(s) {
			return
		}
		stale = false
		if time.Since(beat) > 5*time.Second {
			beat = time.Now()
			_ = s.Send(frame.OpHeartbeat, 0, nil) // the next read tells if it is over
		}
		f, err := s.Await(100*time.Millisecond, func(Frame) bool { return true })
		if errors.Is(err, ErrTimeout) {
			continue
		}
		if err != nil {
			return
		}
		if f.Op != frame.OpEvent {
			continue
		}
		e, err := ParseEvent(f.Body)
		switch {
		case err != nil, e.GetGoAway() != nil:
			return
		case e.GetResync() != nil, e.GetLagged() != nil:
			stale = true
		default:
			w.told(e)
		}
	}
}

// ask reads all states. The events that came meanwhile are kept for after it: what they tell is as new, or will be corrected.
func (w *Watcher) ask(s *Session) bool {
	states, err := s.Request(&halleyv1.Request{Method: &halleyv1.Request_PresenceWatch{PresenceWatch: &halleyv1.PresenceWatch{Uids: w.uids}}})
	if err != nil {
		return false
	}
	page, err := s.Request(&halleyv1.Request{Method: &halleyv1.Request_RoomMembers{RoomMembers: &halleyv1.RoomMembers{Room: w.room, Limit: 200}}})
	if err != nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready, w.online, w.members = true, map[string]bool{}, map[string]bool{}
	for _, p := range states.GetPresenceWatch().GetStates() {
		w.online[p.GetUid()] = p.GetOnline()
	}
	for _, uid := range page.GetRoomMembers().GetUids() {
		w.members[uid] = true
	}
	return true
}

func (w *Watcher) told(e *halleyv1.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case e.GetPresence() != nil:
		w.online[e.GetPresence().GetUid()] = e.GetPresence().GetOnline()
		w.events++
	case e.GetRoomMember().GetRoom() == w.room:
		for _, uid := range e.GetRoomMember().GetJoined() {
			w.members[uid] = true
		}
		for _, uid := range e.GetRoomMember().GetLeft() {
			delete(w.members, uid)
		}
		w.events++
	}
}

// differs says in what the watcher's view is not the truth.
func (w *Watcher) differs(truth map[string]State, members []string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ready {
		return w.UID + " is not there"
	}
	var wrong []string
	for _, uid := range w.uids {
		if w.online[uid] != truth[uid].Online {
			wrong = append(wrong, fmt.Sprintf("%s online %v", uid, w.online[uid]))
		}
	}
	if got := slices.Sorted(maps.Keys(w.members)); !slices.Equal(got, members) {
		wrong = append(wrong, fmt.Sprintf("%s has %v, not %v", w.room, got, members))
	}
	if len(wrong) > 0 {
		return w.UID + " believes: " + strings.Join(wrong, "; ")
	}
	return ""
}

// watched waits until the watchers' views are the truth: of users what router says, of the room who the test put into it.
func (f *faults) watched(t testing.TB, limit time.Duration) {
	t.Helper()
	var members []string
	for _, u := range f.stream.Users {
		if slices.Contains(u.Rooms, half) {
			members = append(members, u.UID)
		}
	}
	for _, w := range f.watchers {
		members = append(members, w.UID)
	}
	slices.Sort(members)
	within(t, limit, "the watchers' views are right", func() (bool, string) {
		truth, err := states(t.Context(), f.api, f.watchers[0].uids...)
		if err != nil {
			return false, err.Error()
		}
		for _, w := range f.watchers {
			if wrong := w.differs(truth, members); wrong != "" {
				return false, wrong
			}
		}
		return true, ""
	})
}

// states asks for users' presence.
func states(ctx context.Context, api *API, uids ...string) (map[string]State, error) {
	a, err := api.Do(ctx, "POST", "/v1/presence", nil, map[string]any{"uids": uids})
	if err != nil {
		return nil, err
	}
	if a.Status != http.StatusOK {
		return nil, fmt.Errorf("presence: %v", a)
	}
	var out struct {
		States []State `json:"states"`
	}
	if err := jsonInto(a.Body, &out); err != nil {
		return nil, err
	}
	m := map[string]State{}
	for _, s := range out.States {
		m[s.UID] = s
	}
	return m, nil
}

// presence waits until router says of all users that they are online, and where.
func (f *faults) presence(t testing.TB, limit time.Duration) {
	t.Helper()
	var uids []string
	for _, u := range f.stream.Users {
		uids = append(uids, u.UID)
	}
	within(t, limit, "presence is right", func() (bool, string) {
		got, err := states(t.Context(), f.api, uids...)
		if err != nil {
			return false, err.Error()
		}
		for _, u := range f.stream.Users {
			if !got[u.UID].Online {
				return false, u.UID + " is online, presence says offline"
			}
			sessions, err := f.sessions(t.Context(), u.UID)
			if err != nil {
				return false, err.Error()
			}
			if len(sessions) != 1 || sessions[0].Connection != u.Connection() {
				return false, fmt.Sprintf("%s has connection %s, presence says %v", u.UID, u.Connection(), sessions)
			}
		}
		return true, ""
	})
}

type listedSession struct {
	Key        string `json:"key"`
	Comet      string `json:"comet"`
	Connection string `json:"connection"`
}

func (f *faults) sessions(ctx context.Context, uid string) ([]listedSession, error) {
	a, err := f.api.Do(ctx, "GET", "/v1/sessions?uid="+uid, nil, nil)
	if err != nil {
		return nil, err
	}
	var out struct {
		Sessions []listedSession `json:"sessions"`
	}
	if a.Status != http.StatusOK {
		return nil, fmt.Errorf("sessions of %s: %v", uid, a)
	}
	return out.Sessions, jsonInto(a.Body, &out, &out.Sessions)
}
