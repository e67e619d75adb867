//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/kit/token"
)

// callers are devices of people who call each other in pairs: 2i and 2i+1.
type callers struct {
	s      *Setup
	run    string
	cancel context.CancelFunc
	wg     sync.WaitGroup
	people []*caller
}

// caller is one of them.
type caller struct {
	uid string
	c   *client.Client

	mu     sync.Mutex
	online bool
	err    error
	calls  map[string]*side
	twice  int64
}

// side is what one of the two hears of one call.
type side struct {
	events  chan callEvent
	version float64 // of the call, as it was heard of last
	asked   bool
}

// callEvent is an event of a call, and when it was read.
type callEvent struct {
	name, state, sdp string
	generation       uint32
	at               time.Duration
}

// callers makes pairs of people and connects them. Their names are of this run alone.
func (s *Setup) callers(ctx context.Context, pairs int) (*callers, error) {
	if s.Sign == nil {
		return nil, errors.New("calls are for signed sessions: not with --goim")
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cs := &callers{s: s, run: roomID(), cancel: cancel}
	s.Progress("connecting %d clients over %s", 2*pairs, s.transport())
	end := time.Now().Add(time.Minute)
	for i := range 2 * pairs {
		p := &caller{uid: fmt.Sprintf("b%s.%d", cs.run, i), calls: map[string]*side{}}
		cs.people = append(cs.people, p)
		err := cs.start(life, p)
		// The handshakes of some at a time: a storm is another scenario's.
		for err == nil && (i%50 == 49 || i == 2*pairs-1) && !cs.allOnline() {
			if err = sleep(ctx, 2*time.Millisecond); err == nil && time.Now().After(end) {
				p.mu.Lock()
				err = errors.Join(errors.New("not in time: clients are connected"), p.err)
				p.mu.Unlock()
			}
		}
		if err != nil {
			cs.close()
			return nil, err
		}
	}
	return cs, nil
}

func (cs *callers) start(life context.Context, p *caller) error {
	at := time.Now()
	jwt, err := token.Sign(cs.s.Sign, token.Claims{UID: p.uid, DeviceID: "bench", IssuedAt: at, ExpiresAt: at.Add(tokenTTL)})
	if err != nil {
		return err
	}
	p.c, err = client.New(client.Options{
		URL: cs.s.url(), Token: func(context.Context, client.TokenReason) (string, error) { return jwt, nil }, OnEvent: p.event,
		OnState: func(s client.State) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.online, p.err = s.Name == client.Online, s.Err
		},
	})
	if err != nil {
		return err
	}
	cs.wg.Go(func() {
		if err := p.c.Run(life); err != nil && !errors.Is(err, context.Canceled) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.err = err
		}
	})
	return nil
}

func (cs *callers) allOnline() bool {
	for _, p := range cs.people {
		p.mu.Lock()
		online := p.online
		p.mu.Unlock()
		if !online {
			return false
		}
	}
	return true
}

func (cs *callers) close() {
	cs.cancel()
	cs.wg.Wait()
}

// event takes what the server tells, on the client's own goroutine: it must not wait.
func (p *caller) event(name string, raw json.RawMessage) {
	e := callEvent{name: name, at: now()}
	var id string
	var version float64
	switch name {
	case "call.incoming", "call.state", "call.ended":
		var body struct {
			Call struct {
				Call    string  `json:"call"`
				State   string  `json:"state"`
				Version float64 `json:"version"`
			} `json:"call"`
		}
		if json.Unmarshal(raw, &body) != nil {
			return
		}
		id, e.state, version = body.Call.Call, body.Call.State, body.Call.Version
	case "call.signal":
		var body struct {
			Call        string `json:"call"`
			Generation  uint32 `json:"generation"`
			Description struct {
				Type string `json:"type"`
			} `json:"description"`
		}
		if json.Unmarshal(raw, &body) != nil || body.Description.Type == "" {
			return
		}
		id, e.sdp, e.generation = body.Call, body.Description.Type, body.Generation
	default:
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	side := p.calls[id]
	if side == nil {
		return // another run's
	}
	switch {
	case name == "call.incoming" && side.asked, name != "call.incoming" && version > 0 && version <= side.version:
		p.twice++
		return
	case name == "call.incoming":
		side.asked = true
	case version > 0:
		side.version = version
	}
	select {
	case side.events <- e:
	default: // More than a call has: whoever waits for one of them will miss it.
	}
}

// mostEvents is above what one side hears of one call.
const mostEvents = 16

func (p *caller) open(id string) *side {
	side := &side{events: make(chan callEvent, mostEvents)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[id] = side
	return side
}

// await waits for an event; the error is that of ctx.
func (s *side) await(ctx context.Context, is func(*callEvent) bool) (callEvent, error) {
	for {
		select {
		case e := <-s.events:
			if is(&e) {
				return e, nil
			}
		case <-ctx.Done():
			return callEvent{}, errMissing
		}
	}
}

var errMissing = errors.New("an event of a call never came")

func inState(state string) func(*callEvent) bool {
	return func(e *callEvent) bool { return e.state == state && e.name != "call.incoming" }
}

// answer is what commands are answered with.
type answer struct {
	Call struct {
		Call  string `json:"call"`
		State string `json:"state"`
	} `json:"call"`
	Generation uint32 `json:"generation"`
	Sent       bool   `json:"sent"`
}

func (p *caller) do(ctx context.Context, method, id string, more map[string]any) (answer, error) {
	args := map[string]any{"call": id}
	if method != "call.invite" && method != "call.signal" {
		args["command"] = uuid.NewString()
	}
	for k, v := range more {
		args[k] = v
	}
	var a answer
	if err := p.c.Request(ctx, method, args, &a); err != nil {
		return a, fmt.Errorf("%s: %w", method, err)
	}
	return a, nil
}

// benchSDP is about as long as a browser's description of sound and a picture, candidateBatch what it finds in 100 ms.
var (
	benchSDP       = "v=0\r\n" + strings.Repeat("a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n", 60)
	candidateBatch = []map[string]any{
		{"candidate": "candidate:1 1 udp 2113937151 192.0.2.1 50000 typ host", "sdpMid": "0", "sdpMLineIndex": 0},
		{"candidate": "candidate:2 1 udp 1677729535 198.51.100.7 50000 typ srflx raddr 0.0.0.0 rport 0", "sdpMid": "0", "sdpMLineIndex": 0},
		{"candidate": "candidate:3 1 udp 41885439 198.51.100.9 3479 typ relay raddr 0.0.0.0 rport 0", "sdpMid": "0", "sdpMLineIndex": 0},
	}
)

// signal sends a description, and the candidates that go with it.
func (p *caller) signal(ctx context.Context, id, to string, generation, toGeneration uint32, kind string) error {
	for _, what := range []map[string]any{
		{"description": map[string]any{"type": kind, "sdp": benchSDP}}, {"candidates": candidateBatch, "done": true},
	} {
		what["to"], what["generation"], what["to_generation"], what["negotiation"] = to, generation, toGeneration, 1
		a, err := p.do(ctx, "call.signal", id, what)
		if err != nil {
			return err
		}
		if !a.Sent {
			return fmt.Errorf("call.signal: the %s was thrown away", kind)
		}
	}
	return nil
}

// callBook counts what comes of calls.
type callBook struct {
	mu        sync.Mutex
	incoming  histogram
	accepted  histogram
	delivered int64
	failed    int64
	missing   int64
	first     error
	lastAt    time.Duration
}

func (b *callBook) add(h *histogram, from, at time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h.add(at - from)
	b.delivered++
	b.lastAt = max(b.lastAt, at)
}

// end books how one side of a call went.
func (b *callBook) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		return
	case errors.Is(err, errMissing):
		b.missing++
	default:
		b.failed++
	}
	if b.first == nil {
		b.first = err
	}
}

// oneCall is one call from its invitation to its end. Times are on this process' clock.
type oneCall struct {
	id                string
	from, to          *caller
	asked, acceptedAt atomic.Int64
}

// place is the caller's side: he invites, and hangs up when both are connected.
func (o *oneCall) place(ctx context.Context, b *callBook, side *side) error {
	o.asked.Store(int64(now()))
	a, err := o.from.do(ctx, "call.invite", o.id, map[string]any{"to": []string{o.to.uid}, "media": "video", "sends": map[string]any{"audio": true, "video": true}})
	if err != nil {
		return err
	}
	if a.Call.Call != o.id {
		return fmt.Errorf("call.invite: there was another call already")
	}
	e, err := side.await(ctx, inState("connecting"))
	if err != nil {
		return err
	}
	b.add(&b.accepted, time.Duration(o.acceptedAt.Load()), e.at)
	if e, err = side.await(ctx, func(e *callEvent) bool { return e.sdp == "offer" }); err != nil {
		return err
	}
	if err := o.from.signal(ctx, o.id, o.to.uid, 1, e.generation, "answer"); err != nil {
		return err
	}
	if _, err := o.from.do(ctx, "call.connected", o.id, map[string]any{"generation": 1}); err != nil {
		return err
	}
	if _, err := side.await(ctx, inState("active")); err != nil {
		return err
	}
	if _, err := o.from.do(ctx, "call.hangup", o.id, nil); err != nil {
		return err
	}
	_, err = side.await(ctx, inState("ended"))
	return err
}

// take is the callee's: it rings, he answers, and makes the offer.
func (o *oneCall) take(ctx context.Context, b *callBook, side *side) error {
	e, err := side.await(ctx, func(e *callEvent) bool { return e.name == "call.incoming" })
	if err != nil {
		return err
	}
	b.add(&b.incoming, time.Duration(o.asked.Load()), e.at)
	if _, err := o.to.do(ctx, "call.ringing", o.id, nil); err != nil {
		return err
	}
	o.acceptedAt.Store(int64(now()))
	a, err := o.to.do(ctx, "call.accept", o.id, map[string]any{"sends": map[string]any{"audio": true}})
	if err != nil {
		return err
	}
	if a.Generation == 0 {
		return fmt.Errorf("call.accept: it is %s", a.Call.State)
	}
	if err := o.to.signal(ctx, o.id, o.from.uid, a.Generation, 1, "offer"); err != nil {
		return err
	}
	if _, err := side.await(ctx, func(e *callEvent) bool { return e.sdp == "answer" }); err != nil {
		return err
	}
	if _, err := o.to.do(ctx, "call.connected", o.id, map[string]any{"generation": a.Generation}); err != nil {
		return err
	}
	_, err = side.await(ctx, inState("ended"))
	return err
}

// Calls has people call each other at a rate: they ring, are answered, negotiate, are connected and hang up. bulkMembers, if not 0, are
// sessions in a room that is pushed to in the lane bulk meanwhile, at bulkRate.
func (s *Setup) Calls(ctx context.Context, pairs int, rate float64, bulkMembers int, bulkRate float64) (*Result, error) {
	cs, err := s.callers(ctx, pairs)
	if err != nil {
		return nil, err
	}
	defer cs.close()
	var bulk *Fleet
	room := roomID()
	name := fmt.Sprintf("calls, %.4g/s", rate)
	if bulkMembers > 0 {
		if bulk, err = s.fleet(ctx, bulkMembers, room); err != nil {
			return nil, err
		}
		defer bulk.Close()
		name += " beside bulk"
	}
	for run, d := range []time.Duration{s.WarmUp, s.Duration} {
		if d <= 0 {
			continue
		}
		s.Progress("%.4g calls/s between %d pairs for %s", rate, pairs, d)
		beside := func() (*Result, error) { return nil, nil }
		if bulk != nil {
			if beside, err = s.beside(ctx, bulk, room, uint16(run), bulkRate, d); err != nil {
				return nil, err
			}
		}
		r, err := cs.measure(ctx, name, rate, d)
		other, otherErr := beside()
		if r != nil {
			r.Beside = other
		}
		if err = errors.Join(err, otherErr); err != nil || run == 1 {
			return r, err
		}
	}
	return nil, nil
}

// bulkLead is how long before and after what is measured the pushes beside it go on.
const bulkLead = 500 * time.Millisecond

// beside pushes to a room for longer than d, and returns when it has begun; the returned function waits for the end.
func (s *Setup) beside(ctx context.Context, f *Fleet, room string, run uint16, rate float64, d time.Duration) (func() (*Result, error), error) {
	other := *s
	other.API.Lane, other.Processes, other.Bar = "bulk", nil, nil
	var (
		r    *Result
		err  error
		done = make(chan struct{})
	)
	go func() {
		defer close(done)
		r, err = other.run(ctx, f, "bulk", roomPlan(run, room, len(f.sessions), streamsFor(rate), rate, d+2*bulkLead), "delivery")
	}()
	wait := func() (*Result, error) { <-done; return r, err }
	if err := sleep(ctx, bulkLead); err != nil {
		_, _ = wait()
		return nil, err
	}
	return wait, nil
}

// measure has calls made for a time, waits for their ends, and makes the row.
func (cs *callers) measure(ctx context.Context, name string, rate float64, d time.Duration) (*Result, error) {
	s := cs.s
	for _, p := range cs.people {
		p.mu.Lock()
		p.calls, p.twice = map[string]*side{}, 0
		p.mu.Unlock()
	}
	free := make(chan int, len(cs.people)/2)
	for i := range cap(free) {
		free <- i
	}
	b := &callBook{}
	var wg sync.WaitGroup
	stop, err := watch(s.Processes)
	if err != nil {
		return nil, err
	}
	busy0, total0 := machine()
	start := now()
	interval := time.Duration(float64(time.Second) / rate)
	var made, late int64
	end := s.during(name, d)
	for due := start; due < start+d && ctx.Err() == nil; due += interval {
		if wait := due - now(); wait > 0 {
			if sleep(ctx, wait) != nil {
				break
			}
		}
		var pair int
		select {
		case pair = <-free:
		default:
			// All are talking: whoever is done first calls late.
			late++
			select {
			case pair = <-free:
			case <-ctx.Done():
				continue
			}
		}
		turn := int(made) / cap(free) % 2
		o := &oneCall{id: uuid.NewString(), from: cs.people[2*pair+turn], to: cs.people[2*pair+1-turn]}
		made++
		wg.Go(func() {
			o.run(ctx, b)
			free <- pair
		})
	}
	end()
	took := now() - start
	wg.Wait()
	busy1, total1 := machine()
	spent, err := stop(made)
	if err != nil {
		return nil, err
	}
	r := &Result{
		Scenario: name, Transport: s.transport(), Sessions: len(cs.people), Offered: rate, Seconds: took.Seconds(), Pushes: made, Late: late,
		// Each call is measured twice: when it rings, and when the caller hears of the answer.
		Expected: 2 * made, Delivered: b.delivered, Lost: max(2*made-b.delivered, b.missing), Failed: b.failed,
		Latency: b.incoming.latency(), Unit: "call", Processes: spent, Busy: (busy1 - busy0) / max(total1-total0, 1),
	}
	accepted := b.accepted.latency()
	r.Accepted = &accepted
	for _, p := range cs.people {
		p.mu.Lock()
		r.Repeated += p.twice
		p.mu.Unlock()
	}
	if b.lastAt > start {
		r.DeliveredRate = float64(b.delivered) / (b.lastAt - start).Seconds()
		r.Rate = float64(made) / (b.lastAt - start).Seconds()
	}
	return r, errors.Join(b.first, ctx.Err())
}

// run makes the call, both its sides.
func (o *oneCall) run(ctx context.Context, b *callBook) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	from, to := o.from.open(o.id), o.to.open(o.id)
	var wg sync.WaitGroup
	for _, play := range []func() error{
		func() error { return o.place(ctx, b, from) }, func() error { return o.take(ctx, b, to) },
	} {
		wg.Go(func() {
			err := play()
			b.end(err)
			if err != nil {
				cancel() // The other side waits for nothing.
			}
		})
	}
	wg.Wait()
}
