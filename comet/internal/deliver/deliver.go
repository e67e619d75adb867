// Package deliver takes deliveries from job and puts them into the outboxes of sessions. One stream is one
// goroutine, which keeps the stream's order; pushes to all and resyncs of all go on in loops of their own,
// at their own pace.
package deliver

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/comet/internal/flush"
	"github.com/halley-im/halley/comet/internal/meter"
	"github.com/halley-im/halley/comet/internal/outbox"
	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/comet/internal/table"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Controls are what the cluster may do to a session. None of them waits.
type Controls interface {
	Kick(s *session.Session, k *halleyv1.Kick)
	ChangeRooms(s *session.Session, c *halleyv1.RoomsChange)
	Leave(s *session.Session, room string)
}

// Service is the gRPC service Comet. Use New.
type Service struct {
	halleyv1.UnimplementedCometServer
	table    *table.Table
	flusher  *flush.Flusher
	epoch    func() string
	controls Controls
	casts    *Broadcaster
	resyncs  *Resyncer
	m        *meter.Metrics
	log      *slog.Logger
	done     chan struct{}

	mu      sync.Mutex
	changed chan struct{} // closed when another epoch was taken; then replaced
}

// New returns the service.
func New(t *table.Table, f *flush.Flusher, epoch func() string, controls Controls, casts *Broadcaster, resyncs *Resyncer, m *meter.Metrics, log *slog.Logger) *Service {
	return &Service{table: t, flusher: f, epoch: epoch, controls: controls, casts: casts, resyncs: resyncs, m: m, log: log, done: make(chan struct{}), changed: make(chan struct{})}
}

// EpochChanged ends the streams of the epoch that was: nobody sends on them any more.
func (sv *Service) EpochChanged() {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	close(sv.changed)
	sv.changed = make(chan struct{})
}

func (sv *Service) epochChanged() <-chan struct{} {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	return sv.changed
}

// Stop ends all streams: the comet has no sessions any more.
func (sv *Service) Stop() { close(sv.done) }

// Deliver is one ordered stream of a job and a lane.
func (sv *Service) Deliver(ss halleyv1.Comet_DeliverServer) error {
	first, err := ss.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return status.Error(codes.InvalidArgument, "the first message must be a hello")
	}
	// Before the epoch is looked at: a change that comes right after is seen.
	changed := sv.epochChanged()
	if e := sv.epoch(); e == "" || hello.GetEpoch() != e {
		return errOtherEpoch
	}
	st := newStream(sv, ss, hello)
	requests := make(chan *halleyv1.DeliverBatch)
	failed := make(chan error, 1)
	ctx := ss.Context()
	go func() {
		// Ends with the stream: Recv fails when the handler has returned.
		for {
			req, err := ss.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- req.GetBatch():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case b := <-requests:
			// Job has given the stream up, and counts this as not delivered: a comet that was stopped finds both at once.
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := st.batch(b); err != nil {
				return err
			}
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ctx.Done():
			// The receiver may have seen this first, with a request in hand.
			return ctx.Err()
		case <-changed:
			return errOtherEpoch
		case <-sv.done:
			return status.Error(codes.Unavailable, "this comet has left")
		}
	}
}

var errOtherEpoch = status.Error(codes.FailedPrecondition, "this comet has another epoch")

// stream is what one Deliver works with.
type stream struct {
	sv    *Service
	ss    halleyv1.Comet_DeliverServer
	epoch string
	lane  string
	rank  outbox.Rank
	b     *flush.Batch
	found []*session.Session

	// resp is what the next answer says so far, begun when the batch came.
	resp  *halleyv1.DeliverResponse
	begun int64
	// What was done since the last hand.
	pushes, controls, reached, unwanted, foreign, gone int
}

func newStream(sv *Service, ss halleyv1.Comet_DeliverServer, hello *halleyv1.DeliverHello) *stream {
	lane := strings.ToLower(strings.TrimPrefix(hello.GetLane().String(), "LANE_"))
	return &stream{
		sv: sv, ss: ss, epoch: hello.GetEpoch(), lane: lane, rank: rank(hello.GetLane()), b: sv.flusher.Batch(),
		resp: &halleyv1.DeliverResponse{},
	}
}

func rank(l halleyv1.Lane) outbox.Rank {
	switch l {
	case halleyv1.Lane_LANE_URGENT:
		return outbox.RankUrgent
	case halleyv1.Lane_LANE_BULK:
		return outbox.RankBulk
	case halleyv1.Lane_LANE_CHAT:
		return outbox.RankChat
	}
	return outbox.RankPush
}

// batch works off one batch and acknowledges it. The epoch may have ended since the hello: what comes for the
// old one is refused, for job must look up again.
func (st *stream) batch(b *halleyv1.DeliverBatch) error {
	if st.sv.epoch() != st.epoch {
		return errOtherEpoch
	}
	if len(b.GetDeliveries()) == 0 {
		return nil
	}
	st.b.Begin()
	st.begun = st.b.Now
	// However the batch ends: what is in outboxes is marked as somebody's to write, and that somebody must get to know of it.
	defer st.hand()
	for _, d := range b.GetDeliveries() {
		var notHeld []string
		if d.GetPush() != nil {
			st.pushes++
			there := st.reached + st.unwanted
			var err error
			if notHeld, err = st.push(d); err != nil {
				return err
			}
			// By name or to a room: only this says that nobody was there.
			if (len(d.GetConnIds()) == 0 || byName(d)) && !d.GetAll() && st.reached+st.unwanted == there {
				st.resp.Nobody = append(st.resp.Nobody, d.GetNumber())
			}
		} else {
			st.controls++
			// Controls act at once: what was pushed before them must be in its outbox's hands first.
			notHeld = st.control(d)
		}
		if len(notHeld) > 0 {
			st.resp.NotHeld = append(st.resp.NotHeld, &halleyv1.NotHeld{Number: d.GetNumber(), ConnIds: notHeld})
		}
		st.resp.Acked = d.GetNumber()
	}
	return st.answer()
}

// hand gives the sessions that got something to those who write to them, and counts what was done since the last time.
func (st *stream) hand() {
	st.b.Done()
	st.resp.Reached += uint64(st.reached)
	m := st.sv.m
	m.Deliveries.WithLabelValues(st.lane, "push").Add(float64(st.pushes))
	m.Deliveries.WithLabelValues(st.lane, "control").Add(float64(st.controls))
	m.Messages.WithLabelValues(st.lane).Add(float64(st.b.Messages))
	if n := st.unwanted + st.foreign; n > 0 {
		m.Dropped.WithLabelValues("not_accepted").Add(float64(n))
	}
	if st.gone > 0 {
		m.Dropped.WithLabelValues("not_held").Add(float64(st.gone))
	}
	st.pushes, st.controls, st.reached, st.unwanted, st.foreign, st.gone = 0, 0, 0, 0, 0, 0
	st.b.Begin()
}

// answer hands over what was done since the last answer, and acknowledges it.
func (st *stream) answer() error {
	st.hand()
	resp := st.resp
	st.resp = &halleyv1.DeliverResponse{}
	err := st.ss.Send(resp)
	st.sv.m.LaneLag.WithLabelValues(st.lane).Set(float64(session.Now()-st.begun) / 1e9)
	return err
}

// toAll queues a push to all. While the queue is full it waits, which may take long: what came before is written and
// acknowledged first.
func (st *stream) toAll(b Broadcast) error {
	if st.sv.casts.TryPut(b) {
		return nil
	}
	if st.resp.GetAcked() > 0 {
		if err := st.answer(); err != nil {
			return err
		}
	}
	return st.sv.casts.Put(st.ss.Context(), st.sv.done, b)
}

// enqueue hands m to a session and reports whether the session is still there, for messages of its kind.
func (st *stream) enqueue(s *session.Session, m *outbox.Message) bool {
	r := s.Enqueue(m, st.b.Now, st.b.Window())
	switch {
	case st.b.Add(s, r):
		st.reached++
	case r == session.Gone:
		st.gone++
		return false
	case r == session.Unwanted:
		st.unwanted++
	case r == session.Foreign:
		st.foreign++
		return false
	}
	return true
}

// message encodes a delivery's push, once for all its sessions.
func (st *stream) message(d *halleyv1.Delivery) *outbox.Message {
	class := outbox.Volatile
	if d.GetClass() == halleyv1.Class_CLASS_STORED {
		class = outbox.Stored
	}
	m := outbox.NewPush(frame.Op(d.GetPush().GetOp()), d.GetPush().GetBody(), st.rank, class)
	// goim's contract: pushes to rooms ignore the accepted ops.
	m.Filtered = d.GetRoom() == ""
	m.Except = except(d)
	return m
}

func (st *stream) push(d *halleyv1.Delivery) (notHeld []string, err error) {
	m := st.message(d)
	switch {
	case d.GetAll():
		m.Tenant = d.GetTenant()
		return nil, st.toAll(Broadcast{Message: m, Speed: int(d.GetSpeed())})
	case d.GetRoom() != "":
		r := st.sv.table.Room(table.Name(d.GetTenant(), d.GetRoom()))
		if r == nil {
			st.gone++
			return nil, nil
		}
		r.Each(func(s *session.Session) { st.enqueue(s, m) })
		return nil, nil
	}
	// By name first: a session that gets its names meanwhile is found by its connection then.
	named := st.named(d)
	for _, s := range named {
		st.enqueue(s, m)
	}
	for _, id := range d.GetConnIds() {
		s := st.sv.table.Conn(id)
		if s != nil && slices.Contains(named, s) {
			continue
		}
		if s == nil || !st.enqueue(s, m) {
			notHeld = append(notHeld, id)
		}
	}
	if byName(d) {
		return nil, nil
	}
	return notHeld, nil
}

// byName reports whether a delivery is for those that have a name; its connections are then some that may have it and can't be
// found by it yet, for their log-in is under way.
func byName(d *halleyv1.Delivery) bool { return len(d.GetUids())+len(d.GetKeys()) > 0 }

// named returns the sessions that a delivery means by key or uid.
func (st *stream) named(d *halleyv1.Delivery) []*session.Session {
	st.found = st.found[:0]
	for _, k := range d.GetKeys() {
		if s := st.sv.table.Key(table.Name(d.GetTenant(), k)); s != nil {
			st.found = append(st.found, s)
		}
	}
	for _, u := range d.GetUids() {
		st.found = st.sv.table.UID(st.found, table.Name(d.GetTenant(), u))
	}
	return st.found
}

// control does to sessions what a control delivery says.
func (st *stream) control(d *halleyv1.Delivery) (notHeld []string) {
	c := d.GetControl()
	if c.GetResync() != nil && d.GetAll() {
		st.sv.resyncs.All()
		return nil
	}
	ex := except(d)
	do := func(s *session.Session) bool {
		err := s.WhenLive(func() {
			if who := s.Who(); ex.Has(who.UID(), who.Key()) || d.GetAll() && who.Tenant != d.GetTenant() {
				return
			}
			switch {
			case c.GetKick() != nil:
				st.sv.controls.Kick(s, c.GetKick())
			case c.GetRooms() != nil:
				st.sv.controls.ChangeRooms(s, c.GetRooms())
			case c.GetResync() != nil:
				st.sv.m.Resyncs.Inc()
				s.Send(session.ResyncEvent())
			case c.GetCloseRoom() != nil:
				st.sv.controls.Leave(s, d.GetRoom())
			}
		})
		if errors.Is(err, session.ErrTooManyControls) {
			// One that was left out may be a kick: the session must not go on without it.
			st.sv.m.Dropped.WithLabelValues("too_many_controls").Inc()
			s.Close(session.Cause{Code: errcode.Busy, Reason: "too_many_controls"})
			return true
		}
		return err == nil
	}
	targets := slices.Clone(st.named(d))
	for _, id := range d.GetConnIds() {
		s := st.sv.table.Conn(id)
		if s != nil && slices.Contains(targets, s) {
			continue
		}
		if (s == nil || !do(s)) && !byName(d) {
			notHeld = append(notHeld, id)
		}
	}
	if d.GetRoom() != "" {
		if r := st.sv.table.Room(table.Name(d.GetTenant(), d.GetRoom())); r != nil {
			targets = r.Members()
		}
	}
	if d.GetAll() {
		for i := range table.Shards {
			targets = st.sv.table.Conns(targets, i)
		}
		targets = slices.DeleteFunc(targets, func(s *session.Session) bool { return !s.Present() })
	}
	for _, s := range targets {
		do(s)
	}
	return notHeld
}

func except(d *halleyv1.Delivery) *outbox.Except {
	if len(d.GetExcludeUids()) == 0 && len(d.GetExcludeKeys()) == 0 {
		return nil
	}
	e := &outbox.Except{UIDs: make(map[string]bool, len(d.GetExcludeUids())), Keys: make(map[string]bool, len(d.GetExcludeKeys()))}
	for _, u := range d.GetExcludeUids() {
		e.UIDs[u] = true
	}
	for _, k := range d.GetExcludeKeys() {
		e.Keys[k] = true
	}
	return e
}
