package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/job/internal/backoff"
	"github.com/halley-im/halley/job/internal/meter"
	"github.com/halley-im/halley/job/internal/window"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// stream is one lane's ordered way to one epoch of a comet. It lives until the epoch is given up, or until it breaks with nothing
// outstanding, and dials anew in between. Workers offer flights; run sends them and takes acknowledgements.
type stream struct {
	lane   *Lane
	hub    *Hub
	comet  comet
	wake   chan struct{} // something to send
	behind chan struct{} // something is owed
	gone   chan struct{} // closed with closed: nothing is sent any more
	acks   atomic.Uint64

	mu   sync.Mutex
	win  window.Window[*flight]
	alls int // pushes to all in win
	// Stored ones that a stalled comet had no room for: a resync of all stands for them.
	owed  []*flight
	state string
	// When the window became full, unless it has fallen below half since.
	full    time.Time
	stalled bool
	// When it was last stalled: soon after, the next full window is not waited for.
	stalledAt time.Time
	closed    bool
	waiters   bool
	room      chan struct{} // closed when there may be room, with waiters; then replaced
	hangUp    context.CancelFunc

	// The watcher's own.
	silent   time.Duration
	seenAcks uint64
	owing    bool
}

// States of a stream, the values of a metric's label.
const (
	connecting  = "connecting"
	open        = "open"
	stalledOpen = "stalled"
)

// errBroken wraps what ended one connection of a stream.
var errBroken = errors.New("stream broken")

func newStream(l *Lane, c comet) *stream {
	return &stream{
		lane: l, hub: l.hub, comet: c, wake: make(chan struct{}, 1), behind: make(chan struct{}, 1), gone: make(chan struct{}), room: make(chan struct{}),
	}
}

// offer puts as many of fs into the window, in order, as there is room for, and returns the rest, which the caller offers
// again when wait is closed or at the time until. Volatile ones that a stalled comet has no room for are dropped, in the place of
// stored ones it is told to resync all. ok is false if the stream has ended: then rest is all that it did not take.
func (s *stream) offer(fs []*flight, now time.Time) (rest []*flight, wait <-chan struct{}, until time.Time, ok bool) {
	var dropped []*flight
	took, owed := 0, false
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fs, nil, time.Time{}, false
	}
	for len(fs) > 0 {
		f := fs[0]
		isFull := s.isFull()
		if isFull && s.full.IsZero() {
			s.becameFull(now)
		}
		switch {
		case !f.item.control() && !s.stalled && isFull && now.Sub(s.full) >= s.hub.cfg.StallAfter:
			s.stall(now)
			continue
		case f.item.volatile() && s.stalled:
			dropped = append(dropped, f)
		case f.item.stored() && s.stalled:
			s.owed = append(s.owed, f)
			owed = true
		case !f.item.control() && isFull:
			until = s.full.Add(s.hub.cfg.StallAfter)
			goto out
		case f.item.control() && s.win.Count() >= s.hub.cfg.WindowCount+s.hub.cfg.Reserve:
			until = now.Add(s.hub.cfg.StallAfter)
			goto out
		default:
			s.win.Push(f, f.size)
			s.count(f, 1)
			took++
			if s.isFull() && s.full.IsZero() {
				s.becameFull(now)
			}
		}
		fs = fs[1:]
	}
out:
	if len(fs) > 0 {
		s.waiters = true
		wait = s.room
	}
	s.mu.Unlock()
	if took > 0 {
		s.lane.meter.Deliveries.Add(float64(took))
		s.nudge()
	}
	if owed {
		signal(s.behind)
	}
	for _, f := range dropped {
		f.release(meter.Stalled)
	}
	return fs, wait, until, true
}

func (s *stream) isFull() bool {
	return s.win.Count() >= s.hub.cfg.WindowCount || s.win.Bytes() >= s.hub.cfg.WindowBytes
}

// becameFull starts the clock of a stall. A comet that was stalled a moment ago is slow rather than hit by a single pause:
// waiting the whole time again and again would have it set the pace of all others.
func (s *stream) becameFull(now time.Time) {
	s.full = now
	if !s.stalledAt.IsZero() && now.Sub(s.stalledAt) < 10*s.hub.cfg.StallAfter {
		s.full = now.Add(-s.hub.cfg.StallAfter)
	}
}

func (s *stream) stall(now time.Time) {
	s.stalled = true
	s.stalledAt = now
	s.lane.meter.Stalls.Inc()
	if s.state == open {
		s.setState(stalledOpen)
	}
}

// eased is called when the window has become smaller: it ends a stall and wakes whoever waits for room. With mu held.
func (s *stream) eased(now time.Time) {
	if s.win.Count() <= s.hub.cfg.WindowCount/2 && s.win.Bytes() <= s.hub.cfg.WindowBytes/2 {
		s.full = time.Time{}
		if s.stalled {
			s.stalled = false
			s.stalledAt = now
			if s.state == stalledOpen {
				s.setState(open)
			}
		}
	}
	s.wakeWaiters()
}

func (s *stream) wakeWaiters() {
	if s.waiters {
		s.waiters = false
		close(s.room)
		s.room = make(chan struct{})
	}
}

func (s *stream) nudge() { signal(s.wake) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *stream) setState(state string) {
	if s.state != "" {
		s.hub.meter.Streams.WithLabelValues(s.lane.name, s.state).Dec()
	}
	if s.state = state; state != "" {
		s.hub.meter.Streams.WithLabelValues(s.lane.name, state).Inc()
	}
}

// close ends the stream for good and returns what it owed, in order. Later calls return nothing.
func (s *stream) close() []*flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeLocked()
}

func (s *stream) closeLocked() []*flight {
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.gone)
	s.setState("")
	if s.hangUp != nil {
		s.hangUp()
	}
	var owed []*flight
	s.win.Drain(func(f *flight) {
		if !f.passed {
			owed = append(owed, f)
		}
	})
	owed = append(owed, s.owed...)
	s.owed = nil
	s.wakeWaiters()
	return owed
}

// closeIdle ends the stream if it owes nothing.
func (s *stream) closeIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.win.Count() > 0 || len(s.owed) > 0 {
		return false
	}
	s.closeLocked()
	return true
}

func (s *stream) ended() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// count keeps count of pushes to all in the window. With mu held.
func (s *stream) count(f *flight, n int) {
	if f.d.GetAll() {
		s.alls += n
	}
}

// owes reports whether comet owes an acknowledgement, and whether it may take its time: comet writes pushes to all at a pace, and
// while its queue of them is full it acknowledges none of the message that brings another.
func (s *stream) owes() (owes, paced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.win.Count() > 0 || len(s.owed) > 0, s.alls > 0
}

// run connects and serves until ctx ends, the stream is closed, its epoch is refused, or it breaks while it owes nothing.
func (s *stream) run(ctx context.Context) {
	defer s.lane.remove(s)
	cc, err := s.hub.dial(s.comet.addr)
	if err != nil {
		// An address that can't be one: no retry makes it better, and the next look-up may give another.
		s.hub.log.Warn("comet's address is no address", "comet", s.comet.name, "epoch", s.comet.epoch, "err", err)
		s.hub.refuse(s.comet.epoch)
		s.lane.lost(s.close())
		return
	}
	defer s.hub.hangUp(s.comet.addr)
	client := halleyv1.NewCometClient(cc)
	resyncing, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { s.resyncs(resyncing, client) })
	defer beside.Wait()
	defer stop()
	retry := backoff.Backoff{Min: s.hub.cfg.RetryMin, Max: s.hub.cfg.RetryMax}
	for {
		before := s.acks.Load()
		err := s.serve(ctx, client)
		switch {
		case ctx.Err() != nil:
			for _, f := range s.close() {
				f.release(meter.HandedOver)
			}
			return
		case s.ended():
			return
		case status.Code(errors.Unwrap(err)) == codes.FailedPrecondition:
			s.hub.log.Info("comet has another epoch", "comet", s.comet.name, "epoch", s.comet.epoch)
			s.hub.refuse(s.comet.epoch)
			s.lane.lost(s.close())
			return
		case s.closeIdle():
			return
		}
		s.lane.meter.Redials.Inc()
		if s.acks.Load() != before {
			s.hub.log.Warn("stream broke", "lane", s.lane.name, "comet", s.comet.name, "epoch", s.comet.epoch, "err", err)
			retry.Reset()
		}
		t := time.NewTimer(retry.Next())
		select {
		case <-t.C:
		case <-s.gone:
		case <-ctx.Done():
		}
		t.Stop()
		// gRPC's own back-off would otherwise run on top of this one.
		cc.ResetConnectBackoff()
	}
}

// serve opens one connection of the stream and uses it until it breaks. It always returns an error, wrapped in
// one that says so; the one inside is gRPC's.
func (s *stream) serve(ctx context.Context, client halleyv1.CometClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errBroken
	}
	s.hangUp = cancel
	s.setState(connecting)
	s.mu.Unlock()

	opening := time.AfterFunc(s.hub.cfg.ConnectTimeout, cancel)
	cs, err := client.Deliver(ctx)
	if err == nil {
		err = cs.Send(&halleyv1.DeliverRequest{Message: &halleyv1.DeliverRequest_Hello{Hello: &halleyv1.DeliverHello{
			Job: s.hub.cfg.Name, Lane: s.lane.lane, Epoch: s.comet.epoch,
		}}})
		if errors.Is(err, io.EOF) {
			_, err = cs.Recv()
		}
	}
	opening.Stop()
	if err != nil {
		return broken(err)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errBroken
	}
	s.win.Rewind()
	if s.stalled {
		s.setState(stalledOpen)
	} else {
		s.setState(open)
	}
	s.mu.Unlock()

	received := make(chan error, 1)
	go func() {
		received <- s.receive(cs)
		cancel() // ends a Send that waits for the peer to read
	}()
	s.send(ctx, cs)
	cancel()
	return broken(<-received)
}

func broken(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		err = status.Error(codes.Unavailable, "comet ended the stream")
	}
	return brokenError{err}
}

type brokenError struct{ err error }

func (e brokenError) Error() string        { return fmt.Sprintf("%v: %v", errBroken, e.err) }
func (e brokenError) Unwrap() error        { return e.err }
func (e brokenError) Is(target error) bool { return target == errBroken }

// send sends what is queued until ctx or the stream ends. A lone delivery goes at once; what has queued up meanwhile
// goes in one message.
func (s *stream) send(ctx context.Context, cs grpc.BidiStreamingClient[halleyv1.DeliverRequest, halleyv1.DeliverResponse]) {
	for {
		batch := s.take()
		if batch == nil {
			select {
			case <-s.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		s.lane.meter.StreamBatch.Observe(float64(len(batch)))
		req := &halleyv1.DeliverRequest{Message: &halleyv1.DeliverRequest_Batch{Batch: &halleyv1.DeliverBatch{Deliveries: batch}}}
		// The error is what Recv tells.
		if err := cs.Send(req); err != nil {
			return
		}
	}
}

// take moves the next message's deliveries to the sent ones; nil if there is none. What belongs to a partition that was
// lost meanwhile is left out, its new owner sends it; and what has become too late in the window.
func (s *stream) take() []*halleyv1.Delivery {
	var batch []*halleyv1.Delivery
	var left, late []*flight
	var bytes int64
	resent := 0
	now := time.Now()
	s.mu.Lock()
	for len(batch) < s.hub.cfg.MessageCount && bytes < s.hub.cfg.MessageBytes {
		f, size, ok := s.win.Peek()
		if !ok {
			break
		}
		if f.passed {
			s.win.Skip()
			s.count(f, -1)
			continue
		}
		if f.item.owner.Lost() {
			s.win.Skip()
			s.count(f, -1)
			left = append(left, f)
			continue
		}
		if f.item.expired(now) {
			s.win.Skip()
			s.count(f, -1)
			late = append(late, f)
			continue
		}
		if batch == nil {
			batch = make([]*halleyv1.Delivery, 0, min(s.win.Unsent(), s.hub.cfg.MessageCount))
		}
		f.d.Number = s.win.Send()
		if f.sent {
			resent++
		}
		f.sent = true
		bytes += size
		batch = append(batch, &f.d)
	}
	if left != nil || late != nil {
		s.eased(now)
	}
	s.mu.Unlock()
	if resent > 0 {
		s.lane.meter.Resent.Add(float64(resent))
	}
	for _, f := range left {
		f.release(meter.HandedOver)
	}
	for _, f := range late {
		f.release(meter.Expired)
	}
	return batch
}

// receive takes acknowledgements until the connection ends.
func (s *stream) receive(cs grpc.BidiStreamingClient[halleyv1.DeliverRequest, halleyv1.DeliverResponse]) error {
	var acked []*flight
	for {
		resp, err := cs.Recv()
		if err != nil {
			return err
		}
		acked = acked[:0]
		n := 0
		s.mu.Lock()
		for _, nh := range resp.GetNotHeld() {
			if f, ok := s.win.At(nh.GetNumber()); ok {
				f.notHeld = append(f.notHeld, nh.GetConnIds()...)
			}
		}
		for _, n := range resp.GetNobody() {
			if f, ok := s.win.At(n); ok {
				f.nobody = true
			}
		}
		err = s.win.Ack(resp.GetAcked(), func(f *flight) {
			s.count(f, -1)
			n++
			f.settled = true
			if !f.passed {
				acked = append(acked, f)
			}
		})
		if n > 0 {
			s.eased(time.Now())
		}
		s.mu.Unlock()
		if err != nil {
			return status.Errorf(codes.Internal, "comet %s: %v", s.comet.name, err)
		}
		if reached := resp.GetReached(); reached > 0 {
			s.lane.meter.Reached.Add(float64(reached))
		}
		if n > 0 {
			s.acks.Add(uint64(n))
			s.hub.acks.Add(uint64(n))
			s.lane.meter.Acked.Add(float64(n))
			s.lane.settle(acked)
			clear(acked)
		}
	}
}
