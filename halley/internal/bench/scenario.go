//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"

	"github.com/halley-im/halley/kit/token"
)

// Times of a run.
const (
	settleTime   = time.Second     // after connecting, before the warm-up
	quietTime    = 8 * time.Second // without a delivery: what is missing then is lost, and not held up by a pause
	drainTimeout = 20 * time.Second
	tokenTTL     = 2 * time.Hour
	firstUID     = 1_000_000
)

// Setup is what all scenarios share.
type Setup struct {
	Comets  []netip.AddrPort
	WS      bool
	Path    string
	Sources int
	API     API
	// Sign makes the sessions' tokens; nil: goim's unsigned ones.
	Sign      *token.Key
	Processes []Process
	Duration  time.Duration
	WarmUp    time.Duration
	// Limit measures the bare limit too, in the same pattern.
	Limit bool
	// Progress tells a person what goes on.
	Progress func(format string, args ...any)
	// Bar shows a person how far something has come: set is told how many of most are done, end takes it away. nil: lines of
	// Progress do.
	Bar func(what string, most int64) (set func(done int64), end func())
}

// Result is one row.
type Result struct {
	Scenario  string  `json:"scenario"`
	Transport string  `json:"transport"`
	Sessions  int     `json:"sessions"`
	Offered   float64 `json:"offered_pushes_per_second,omitempty"`
	Seconds   float64 `json:"seconds"`

	Pushes  int64   `json:"pushes,omitempty"`
	Rate    float64 `json:"pushes_per_second,omitempty"`
	Refused int64   `json:"refused,omitempty"`
	Failed  int64   `json:"failed,omitempty"`
	Late    int64   `json:"late,omitempty"`

	Expected      int64   `json:"expected_deliveries,omitempty"`
	Delivered     int64   `json:"deliveries,omitempty"`
	DeliveredRate float64 `json:"deliveries_per_second,omitempty"`
	Lost          int64   `json:"lost"`
	Duplicates    int64   `json:"duplicates"`
	Disorder      int64   `json:"out_of_order"`

	// Latency is from the request to the client, or of a set-up.
	Latency Latency `json:"latency"`
	// Accepted is, of calls, from the acceptance to the caller's being told; Latency is from the invitation to the callee's.
	Accepted *Latency `json:"accept_latency,omitempty"`
	// Repeated are events of calls that came again: clients drop them by the call's version. Another logic process tells once more what the one that
	// took a step hasn't told within 200 ms.
	Repeated int64 `json:"repeated_events,omitempty"`
	// Requests is how long the HTTP API took to accept.
	Requests *Latency `json:"request_latency,omitempty"`

	// Unit is what CPUPerUnit is for each of.
	Unit      string  `json:"unit"`
	Processes []Spent `json:"processes,omitempty"`
	// Busy is how much of all processors was in use, client, Kafka and Redis included.
	Busy float64 `json:"machine_busy"`

	// Limit is the bare loop in the same pattern, and comet's CPU over its.
	Limit *LimitResult `json:"limit,omitempty"`
	// Store is what is stored in the end, where that is counted.
	Store *Counted `json:"store,omitempty"`
	// Beside is what went on meanwhile, where something was made to.
	Beside *Result `json:"beside,omitempty"`
	// Steps are the runs of a search.
	Steps []Result `json:"steps,omitempty"`
}

// LimitResult is what the bare loop needs.
type LimitResult struct {
	CPUPerDelivery float64 `json:"cpu_us_per_delivery"`
	Latency        Latency `json:"latency"`
	// Ratio is comet's CPU for each delivery over the limit's.
	Ratio float64 `json:"ratio,omitempty"`
}

func (s *Setup) transport() string {
	if s.WS {
		return "ws"
	}
	return "tcp"
}

// fleet connects n sessions; room, if not empty, is the id of the room that all are in.
func (s *Setup) fleet(ctx context.Context, n int, room string) (*Fleet, error) {
	bodies, err := s.auths(n, room)
	if err != nil {
		return nil, err
	}
	f, err := NewFleet(FleetConfig{
		Comets: s.Comets, WS: s.WS, Path: s.Path, Sessions: n, Sources: s.Sources, Auth: func(i int) []byte { return bodies[i] },
	})
	if err != nil {
		return nil, err
	}
	s.Progress("connecting %d sessions over %s", n, s.transport())
	ctx, cancel := context.WithTimeout(ctx, time.Minute+time.Duration(n)*time.Millisecond)
	defer cancel()
	if err := s.connect(ctx, f, n); err != nil {
		f.Close()
		return nil, err
	}
	return f, sleep(ctx, settleTime)
}

// connect brings the fleet to n sessions, and shows how far it is.
func (s *Setup) connect(ctx context.Context, f *Fleet, n int) error {
	if s.Bar != nil {
		set, end := s.Bar("connecting", int64(n))
		defer end()
		f.cfg.Progress = func(done int) { set(int64(done)) }
	} else {
		told := now()
		f.cfg.Progress = func(done int) {
			if now()-told > time.Second {
				told = now()
				s.Progress("%d of %d", done, n)
			}
		}
	}
	return f.Connect(ctx, n)
}

// during shows how far a span of time has come, until it is told to end. Its goroutine wakes a few times a second: nothing beside what
// is measured.
func (s *Setup) during(what string, d time.Duration) (end func()) {
	if s.Bar == nil || d <= 0 {
		return func() {}
	}
	set, closeBar := s.Bar(what, d.Milliseconds())
	stop, done := make(chan struct{}), make(chan struct{})
	start := now()
	go func() {
		defer close(done)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				set(min((now() - start).Milliseconds(), d.Milliseconds()))
			}
		}
	}()
	return func() {
		close(stop)
		<-done
		closeBar()
	}
}

// auths makes the bodies of the auth frames before anything is measured.
func (s *Setup) auths(n int, room string) ([][]byte, error) {
	at := time.Now()
	out := make([][]byte, n)
	for i := range out {
		var body any
		if s.Sign == nil {
			goim := map[string]any{"mid": firstUID + i, "key": "", "platform": "bench", "accepts": []int{op}, "room_id": ""}
			if room != "" {
				goim["room_id"] = roomType + "://" + room
			}
			body = goim
		} else {
			jwt, err := token.Sign(s.Sign, token.Claims{
				UID: uid(i), Rooms: []string{roomType + "://*"}, IssuedAt: at, ExpiresAt: at.Add(tokenTTL),
			})
			if err != nil {
				return nil, err
			}
			halley := map[string]any{"token": jwt}
			if room != "" {
				halley["rooms"] = []string{roomType + "://" + room}
			}
			body = halley
		}
		var err error
		if out[i], err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func uid(i int) string { return strconv.Itoa(firstUID + i) }

// run carries out a plan against a fleet and waits until everything has come, or nothing comes any more.
func (s *Setup) run(ctx context.Context, f *Fleet, name string, pl plan, unit string) (*Result, error) {
	t := newTally(pl.run, len(f.sessions), pl.streams, pl.most)
	f.Begin(t)
	stop, err := watch(s.Processes)
	if err != nil {
		return nil, err
	}
	busy0, total0 := machine()
	start := now()
	end := s.during(name, pl.duration)
	sent, err := s.API.push(ctx, pl)
	end()
	if sent == nil {
		return nil, err
	}
	if err != nil {
		s.Progress("%v", err)
	}
	c := drain(ctx, t, sent.Expected)
	busy1, total1 := machine()
	units := c.unique
	if unit == "push" {
		units = sent.Sent
	}
	spent, err := stop(units)
	if err != nil {
		return nil, err
	}
	lat := f.Latencies(t)
	requests := sent.requests.latency()
	r := &Result{
		Scenario: name, Transport: s.transport(), Sessions: len(f.sessions), Offered: pl.rate, Seconds: sent.Took.Seconds(),
		Pushes: sent.Sent, Rate: float64(sent.Sent-sent.Refused-sent.Failed) / sent.Took.Seconds(), Refused: sent.Refused, Failed: sent.Failed, Late: sent.Late,
		Expected: sent.Expected, Delivered: c.unique, Lost: max(sent.Expected-c.unique, 0), Duplicates: c.duplicates, Disorder: c.disorder,
		Latency: lat.latency(), Requests: &requests, Unit: unit, Processes: spent,
	}
	if took := c.lastAt - start; took > 0 {
		r.DeliveredRate = float64(c.unique) / took.Seconds()
	}
	if total1 > total0 {
		r.Busy = (busy1 - busy0) / (total1 - total0)
	}
	if n := f.Gone(); n > 0 {
		return r, fmt.Errorf("%d sessions were closed by the server during the run: %w", n, f.firstError())
	}
	return r, ctx.Err()
}

// drain waits for what was promised.
func drain(ctx context.Context, t *tally, expected int64) counts {
	end := now() + drainTimeout
	last, at := int64(-1), now()
	for ctx.Err() == nil && now() < end {
		c := t.read()
		if c.unique >= expected {
			break
		}
		if c.unique != last {
			last, at = c.unique, now()
		} else if now()-at > quietTime {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	return t.read()
}

func (f *Fleet) firstError() (err error) {
	f.call(func() { err = f.firstErr })
	return err
}

// roomPlan pushes to one room that all sessions are in. The streams share its numbers.
func roomPlan(run uint16, room string, members, streams int, rate float64, d time.Duration) plan {
	return plan{
		run: run, streams: streams, rate: rate, duration: d, most: uint32(math.Ceil(rate*d.Seconds()*1.2)) + uint32(2*streams),
		next: func(stream, k int) (target, int, uint32) {
			return target{room: room}, members, uint32(k*streams + stream)
		},
	}
}

// Room pushes to one room at a rate.
func (s *Setup) Room(ctx context.Context, name string, members int, rate float64) (*Result, error) {
	room := roomID()
	f, err := s.fleet(ctx, members, room)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One stream keeps the order of a room's pushes; it carries as much as one request after another does.
	streams := streamsFor(rate)
	if s.WarmUp > 0 {
		s.Progress("warming up for %s", s.WarmUp)
		if _, err := s.run(ctx, f, name, roomPlan(1, room, members, streams, rate, s.WarmUp), "delivery"); err != nil {
			return nil, err
		}
	}
	s.Progress("%.4g pushes/s to %d members for %s", rate, members, s.Duration)
	r, err := s.run(ctx, f, name, roomPlan(2, room, members, streams, rate, s.Duration), "delivery")
	if err != nil || !s.Limit {
		return r, err
	}
	f.Close()
	r.Limit, err = s.limit(ctx, members, rate)
	if err == nil {
		for _, p := range r.Processes {
			if p.Role == "comet" && r.Limit.CPUPerDelivery > 0 {
				r.Limit.Ratio += p.CPUPerUnit / r.Limit.CPUPerDelivery
			}
		}
	}
	return r, err
}

// perStream is how many pushes a second one stream carries with ease: a request waits for Kafka's acknowledgement.
const perStream = 50

func streamsFor(rate float64) int { return max(1, min(64, int(math.Ceil(rate/perStream)))) }

// roomID makes a room that no earlier run has used.
func roomID() string { return strconv.FormatInt(time.Now().UnixNano(), 36) }

// limit measures the bare loop in the pattern of Room.
func (s *Setup) limit(ctx context.Context, members int, rate float64) (*LimitResult, error) {
	l, err := startLimit(ctx, s.WS)
	if err != nil {
		return nil, err
	}
	defer l.stop()
	f, err := NewFleet(FleetConfig{Comets: []netip.AddrPort{l.addr}, WS: s.WS, Bare: true, Sessions: members, Sources: s.Sources})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Connect(ctx, members); err != nil {
		return nil, fmt.Errorf("limit: %w", err)
	}
	s.Progress("the same with a bare write(2) loop")
	var out LimitResult
	for run, d := range []time.Duration{max(s.WarmUp, 500*time.Millisecond), s.Duration} {
		if err := sleep(ctx, settleTime/2); err != nil {
			return nil, err
		}
		t := newTally(uint16(run), members, 1, uint32(rate*d.Seconds())+2)
		f.Begin(t)
		stop, err := watch([]Process{{"limit", l.cmd.Process.Pid}})
		if err != nil {
			return nil, err
		}
		n, err := l.push(ctx, uint16(run), rate, d)
		if err != nil {
			return nil, err
		}
		c := drain(ctx, t, n*int64(members))
		spent, err := stop(c.unique)
		if err != nil {
			return nil, err
		}
		lat := f.Latencies(t)
		out.CPUPerDelivery, out.Latency = spent[0].CPUPerUnit, lat.latency()
	}
	return &out, nil
}

// usersPlan pushes to single users, one after another; a user always belongs to the same stream.
func usersPlan(run uint16, users, streams, batch int, rate float64, d time.Duration, most uint32) plan {
	return plan{
		run: run, streams: streams, rate: rate, duration: d, batch: batch, most: most,
		next: func(stream, k int) (target, int, uint32) {
			mine := (users - stream + streams - 1) / streams
			return target{uids: []string{uid(stream + streams*(k%mine))}}, 1, uint32(k / mine)
		},
	}
}

// Users pushes to single users at a rate.
func (s *Setup) Users(ctx context.Context, users int, rate float64) (*Result, error) {
	f, err := s.fleet(ctx, users, "")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	streams := min(streamsFor(rate), users)
	for run, d := range []time.Duration{s.WarmUp, s.Duration} {
		if d <= 0 {
			continue
		}
		s.Progress("%.4g pushes/s to %d users for %s", rate, users, d)
		most := uint32(rate*d.Seconds()/float64(users)*1.5) + 16
		r, err := s.run(ctx, f, "users", usersPlan(uint16(run), users, streams, 1, rate, d, most), "push")
		if err != nil || run == 1 {
			return r, err
		}
	}
	return nil, nil
}

// Throughput pushes to single users as fast as the HTTP API accepts, with so many requests in flight.
func (s *Setup) Throughput(ctx context.Context, users, inFlight, batch int) (*Result, error) {
	f, err := s.fleet(ctx, users, "")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	name := "api"
	if batch > 1 {
		name = fmt.Sprintf("api, batches of %d", batch)
	}
	for run, d := range []time.Duration{s.WarmUp, s.Duration} {
		if d <= 0 {
			continue
		}
		s.Progress("%d requests in flight, %d pushes each, for %s", inFlight, batch, d)
		const fastest = 400_000 // pushes a second that the books have room for
		most := uint32(fastest*d.Seconds()/float64(users)) + 64
		r, err := s.run(ctx, f, name, usersPlan(uint16(run), users, min(inFlight, users), batch, 0, d, most), "push")
		if err != nil || run == 1 {
			return r, err
		}
	}
	return nil, nil
}

// Idle measures what idle sessions cost in memory.
func (s *Setup) Idle(ctx context.Context, sessions int, wait time.Duration) (*Result, error) {
	before := make([]usage, len(s.Processes))
	for i, p := range s.Processes {
		var err error
		if before[i], err = p.usage(); err != nil {
			return nil, err
		}
	}
	stop, err := watch(s.Processes)
	if err != nil {
		return nil, err
	}
	start := now()
	f, err := s.fleet(ctx, sessions, "")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s.Progress("idle for %s", wait)
	end := s.during("idle", wait)
	err = sleep(ctx, wait)
	end()
	if err != nil {
		return nil, err
	}
	spent, err := stop(int64(sessions))
	if err != nil {
		return nil, err
	}
	for i := range spent {
		spent[i].RSSPerConn = float64(spent[i].RSSBytes-before[i].rss) / float64(sessions)
	}
	setup := f.Setup()
	return &Result{
		Scenario: "idle", Transport: s.transport(), Sessions: sessions, Seconds: (now() - start).Seconds(), Latency: setup.latency(),
		Unit: "connection", Processes: spent,
	}, nil
}

// Connect measures how fast sessions are set up, authentication included, and what that costs.
func (s *Setup) Connect(ctx context.Context, sessions, inFlight int) (*Result, error) {
	bodies, err := s.auths(sessions, "")
	if err != nil {
		return nil, err
	}
	f, err := NewFleet(FleetConfig{
		Comets: s.Comets, WS: s.WS, Path: s.Path, Sessions: sessions, Sources: s.Sources, InFlight: inFlight,
		Auth: func(i int) []byte { return bodies[i] },
	})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The first thousand warm connections between the roles up, and grow what they hold.
	warm := min(1000, sessions/10)
	if err := f.Connect(ctx, warm); err != nil {
		return nil, err
	}
	if err := sleep(ctx, settleTime); err != nil {
		return nil, err
	}
	stop, err := watch(s.Processes)
	if err != nil {
		return nil, err
	}
	busy0, total0 := machine()
	start := now()
	s.Progress("connecting %d sessions over %s, %d at once", sessions-warm, s.transport(), inFlight)
	if err := s.connect(ctx, f, sessions); err != nil {
		return nil, err
	}
	took := now() - start
	busy1, total1 := machine()
	spent, err := stop(int64(sessions - warm))
	if err != nil {
		return nil, err
	}
	setup := f.Setup()
	return &Result{
		Scenario: "connect", Transport: s.transport(), Sessions: sessions, Seconds: took.Seconds(), Pushes: int64(sessions - warm),
		Rate: float64(sessions-warm) / took.Seconds(), Latency: setup.latency(), Unit: "connection", Processes: spent,
		Busy: (busy1 - busy0) / max(total1-total0, 1),
	}, nil
}

// rampLimit is the p99 at which a rate counts as too high.
const rampLimit = 1000.0 // ms

// Ramp looks for the highest rate of pushes to one room at which nothing is lost and p99 stays below a second: up by
// half until a step fails, then halving what is between.
func (s *Setup) Ramp(ctx context.Context, members int, from float64, step time.Duration) (*Result, error) {
	room := roomID()
	f, err := s.fleet(ctx, members, room)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var (
		best  *Result
		steps []Result
		run   uint16
		bad   float64
	)
	for rate, halvings := from, 0; halvings < 4; {
		run++
		r, err := s.run(ctx, f, "ramp", roomPlan(run, room, members, streamsFor(rate), rate, step), "delivery")
		if r == nil {
			return nil, err
		}
		// A tenth fewer than asked for is what the clock of short runs leaves open.
		good := err == nil && r.Lost == 0 && r.Refused+r.Failed == 0 && r.Latency.P99 < rampLimit && r.Rate > 0.9*rate
		s.Progress("%5.0f pushes/s: %.2f M deliveries/s, p99 %.0f ms, lost %d: %v", rate, r.DeliveredRate/1e6, r.Latency.P99, r.Lost, good)
		steps = append(steps, *r)
		if err != nil {
			break
		}
		if good {
			best = r
		} else {
			bad = rate
		}
		switch {
		case best == nil:
			rate /= 2
			halvings++
		case bad == 0:
			rate *= 1.5
		default:
			rate = (best.Offered + bad) / 2
			halvings++
		}
		if err := sleep(ctx, settleTime); err != nil {
			return nil, err
		}
	}
	if best == nil {
		return &steps[len(steps)-1], fmt.Errorf("no rate from %.4g/s down passed", from)
	}
	out := *best
	out.Steps = steps
	return &out, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
