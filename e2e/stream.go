package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/halley-im/halley/proto/frame"
)

// streamOp is the op of the numbered pushes.
const streamOp = 7000

// Flow is one numbered series of pushes to one target in one lane: 1, 2, 3 …, each posted when the one before was
// accepted.
type Flow struct {
	Name string
	Push Push

	mu sync.Mutex
	// accepted holds when the pushes were accepted, that of number n at n-1.
	accepted []time.Time
	retries  int
}

// Accepted returns how many pushes were accepted so far.
func (f *Flow) Accepted() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.accepted)
}

func (f *Flow) acceptedAt(n int) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.accepted[n-1]
}

// Stream posts flows and has users receive them, until it is stopped.
type Stream struct {
	Flows []*Flow
	Users []*User

	api    *API
	every  time.Duration
	run    string
	cancel context.CancelFunc
	paused atomic.Bool
	parked atomic.Int64 // flows that wait for the end of the pause
	wg     sync.WaitGroup
	posts  sync.WaitGroup
}

// StartStream begins to post flows, each with a pause of every between two pushes. Its users are those of
// AddUser.
func StartStream(ctx context.Context, api *API, every time.Duration, flows []*Flow, users []*User) *Stream {
	ctx, cancel := context.WithCancel(ctx)
	s := &Stream{Flows: flows, Users: users, api: api, every: every, run: freshRun(), cancel: cancel}
	for _, u := range users {
		s.wg.Go(func() { u.live(ctx) })
	}
	return s
}

// Post begins to post, once the users are there.
func (s *Stream) Post(ctx context.Context) {
	for _, f := range s.Flows {
		s.posts.Go(func() { s.post(ctx, f) })
	}
}

func freshRun() string { return fmt.Sprintf("%x", time.Now().UnixNano()) }

// post posts one flow until ctx ends. A push that was not accepted, or of which nobody knows, is posted again under the same
// Idempotency-Key until it is.
func (s *Stream) post(ctx context.Context, f *Flow) {
	for n := 1; ctx.Err() == nil; n++ {
		p := f.Push
		p.Op = streamOp
		p.Text = fmt.Sprintf("%s %d", f.Name, n)
		var at time.Time
		header := http.Header{"Idempotency-Key": {fmt.Sprintf("%s-%s-%d", s.run, f.Name, n)}}
		for {
			a, err := s.api.Do(ctx, "POST", "/v1/push", header, p)
			if ctx.Err() != nil {
				return
			}
			if err == nil && a.Status == http.StatusOK {
				// The server's time, and so this machine's: when this process got to read the answer says nothing of the push.
				var out Pushed
				if json.Unmarshal(a.Body, &out) == nil {
					at = time.UnixMilli(out.AcceptedAt)
				}
				break
			}
			f.mu.Lock()
			f.retries++
			f.mu.Unlock()
			pause(ctx, 100*time.Millisecond)
		}
		f.mu.Lock()
		f.accepted = append(f.accepted, at)
		f.mu.Unlock()
		pause(ctx, s.every)
		if s.paused.Load() {
			s.parked.Add(1)
			for s.paused.Load() && ctx.Err() == nil {
				pause(ctx, 10*time.Millisecond)
			}
			s.parked.Add(-1)
		}
	}
}

// pause waits; the pace of a load generator, not a synchronisation.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Pause stops posting for as long as f runs, which begins when no push is under way any more to be accepted.
func (s *Stream) Pause(t testing.TB, f func()) {
	t.Helper()
	s.paused.Store(true)
	defer s.paused.Store(false)
	within(t, 30*time.Second, "posting pauses", func() (bool, string) {
		n := s.parked.Load()
		return int(n) == len(s.Flows), fmt.Sprintf("%d of %d flows", n, len(s.Flows))
	})
	f()
}

// Stop ends users and posting, and waits.
func (s *Stream) Stop() {
	s.cancel()
	s.posts.Wait()
	s.wg.Wait()
}

// Flow returns the flow of a name.
func (s *Stream) Flow(name string) *Flow {
	i := slices.IndexFunc(s.Flows, func(f *Flow) bool { return f.Name == name })
	return s.Flows[i]
}

// parseNumbered reads the body of a numbered push.
func parseNumbered(body []byte) (flow string, n int, ok bool) {
	flow, digits, found := strings.Cut(string(body), " ")
	if !found {
		return "", 0, false
	}
	if _, err := fmt.Sscanf(digits, "%d", &n); err != nil {
		return "", 0, false
	}
	return flow, n, true
}

// Mark is where all flows stood at a moment.
type Mark struct {
	At    time.Time
	flows map[string]int
}

// Mark returns where the flows stand.
func (s *Stream) Mark() Mark {
	m := Mark{At: time.Now(), flows: map[string]int{}}
	for _, f := range s.Flows {
		m.flows[f.Name] = f.Accepted()
	}
	return m
}

// CaughtUp waits until each user has the newest push of each of its flows as they stand now: all that is to come of
// what was accepted before has come, since later ones came after it.
func (s *Stream) CaughtUp(t testing.TB, limit time.Duration) {
	t.Helper()
	mark := s.Mark()
	end := time.Now().Add(limit)
	for {
		var late []string
		for _, u := range s.Users {
			for _, name := range u.Flows {
				// The one after it may have been accepted meanwhile; a user who lost the newest gets the next.
				if last := u.last(name); last < mark.flows[name] {
					late = append(late, fmt.Sprintf("%s is at %s %d of %d", u.UID, name, last, mark.flows[name]))
				}
			}
		}
		if len(late) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not caught up after %v: %s", limit, strings.Join(late[:min(len(late), 6)], "; "))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Missing are the pushes of a flow, accepted between two marks, that a user did not get.
type Missing struct {
	User *User
	Flow string
	N    int
	At   time.Time // accepted
}

// String names the push.
func (m Missing) String() string {
	return fmt.Sprintf("%s has not got %s %d, accepted %s", m.User.UID, m.Flow, m.N, m.At.Format("15:04:05.000"))
}

// Missing returns what the users have not got of the pushes accepted between two marks.
func (s *Stream) Missing(from, to Mark) []Missing {
	var out []Missing
	for _, u := range s.Users {
		for _, name := range u.Flows {
			f := s.Flow(name)
			for n := from.flows[name] + 1; n <= to.flows[name]; n++ {
				if !u.has(name, n) {
					out = append(out, Missing{User: u, Flow: name, N: n, At: f.acceptedAt(n)})
				}
			}
		}
	}
	return out
}

// Report is what a stretch of the stream came to.
type Report struct {
	Sent, Due, Got, Repeats int
	// Lanes are the pushes sent in each lane that was named; those to all are in bulk.
	Lanes   map[string]int
	Missing []Missing
	// Silent are those missing of which the user was not told.
	Silent []Missing
	// Disorder are pushes that came for the first time after a later one of their flow.
	Disorder []string
}

// String prints the counts.
func (r Report) String() string {
	return fmt.Sprintf("%d pushes, %d deliveries due, %d came, %d missing (%d in silence), %d repeats, %d out of order",
		r.Sent, r.Due, r.Got, len(r.Missing), len(r.Silent), r.Repeats, len(r.Disorder))
}

// Check compares what was accepted between two marks with what the users got.
func (s *Stream) Check(from, to Mark) Report {
	r := Report{Lanes: map[string]int{}}
	for _, f := range s.Flows {
		n := to.flows[f.Name] - from.flows[f.Name]
		r.Sent += n
		if f.Push.All {
			r.Lanes["bulk"] += n
		} else {
			r.Lanes[f.Push.Lane] += n
		}
	}
	r.Missing = s.Missing(from, to)
	for _, m := range r.Missing {
		if !m.User.toldOf(m.At) {
			r.Silent = append(r.Silent, m)
		}
	}
	for _, u := range s.Users {
		for _, name := range u.Flows {
			r.Due += to.flows[name] - from.flows[name]
		}
		repeats, disorder := u.report(from.At, to.At)
		r.Repeats += repeats
		r.Disorder = append(r.Disorder, disorder...)
	}
	r.Got = r.Due - len(r.Missing)
	return r
}

// isStream reports whether a frame is a numbered push.
func isStream(f Frame) bool { return f.Op == frame.Op(streamOp) }

// waitTime is how long a test waits for what takes no time.
const waitTime = 20 * time.Second

// within waits for a condition, which says what it still misses.
func within(t testing.TB, limit time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		done, why := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s: %s", limit, what, why)
		}
	}
}
