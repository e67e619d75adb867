package deliver

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/job/internal/backoff"
	"github.com/halley-im/halley/job/internal/meter"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// resyncs has the comet tell all its sessions to resync, on streams of its own, while there are stored deliveries that it had no
// room for. Once that is acknowledged, all stored ones that the stream took before are passed: their sessions ask for what they
// missed. It ends with ctx and with the stream.
func (s *stream) resyncs(ctx context.Context, client halleyv1.CometClient) {
	retry := backoff.Backoff{Min: s.hub.cfg.RetryMin, Max: s.hub.cfg.RetryMax}
	for {
		select {
		case <-s.behind:
		case <-s.gone:
			return
		case <-ctx.Done():
			return
		}
		for {
			owed, sent := s.thin()
			if owed == 0 {
				break
			}
			if err := s.resync(ctx, client); err != nil {
				if !s.pause(ctx, retry.Next()) {
					return
				}
				continue
			}
			retry.Reset()
			s.pass(owed, sent)
			// Comet merges them; there is no hurry for the next.
			if !s.pause(ctx, s.hub.cfg.StallAfter) {
				return
			}
		}
	}
}

// pause waits, and reports false if the stream or ctx ended first.
func (s *stream) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.gone:
	case <-ctx.Done():
	}
	return false
}

// thin moves stored deliveries that are not sent to those that are owed, and returns how many are, and those that are sent.
func (s *stream) thin() (owed int, sent []*flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.owed) == 0 {
		return 0, nil
	}
	s.win.Thin(func(f *flight) bool {
		if !f.item.stored() {
			return false
		}
		if !f.passed {
			s.owed = append(s.owed, f)
		}
		return true
	})
	s.eased(time.Now())
	s.win.Sent(func(f *flight) {
		if f.item.stored() && !f.passed {
			sent = append(sent, f)
		}
	})
	return len(s.owed), sent
}

// pass ends what a resync of all stands for: the first n that are owed, and those that are sent and not acknowledged.
func (s *stream) pass(n int, sent []*flight) {
	s.mu.Lock()
	if s.closed {
		// They were looked up again.
		s.mu.Unlock()
		return
	}
	ended := s.owed[:n:n]
	s.owed = s.owed[n:]
	for _, f := range sent {
		if !f.settled {
			f.passed = true
			ended = append(ended, f)
		}
	}
	s.mu.Unlock()
	s.acks.Add(1)
	s.hub.acks.Add(1)
	s.lane.meter.Resyncs.Inc()
	for _, f := range ended {
		f.release(meter.Stalled)
	}
}

// resync asks for one resync of all and waits for its acknowledgement.
func (s *stream) resync(ctx context.Context, client halleyv1.CometClient) error {
	ctx, cancel := context.WithTimeout(ctx, s.hub.cfg.ConnectTimeout)
	defer cancel()
	cs, err := client.Deliver(ctx)
	if err != nil {
		return err
	}
	if err := cs.Send(&halleyv1.DeliverRequest{Message: &halleyv1.DeliverRequest_Hello{Hello: &halleyv1.DeliverHello{
		Job: s.hub.cfg.Name, Lane: s.lane.lane, Epoch: s.comet.epoch,
	}}}); err != nil {
		_, err = cs.Recv()
		return err
	}
	d := &halleyv1.Delivery{
		Number: 1, Class: halleyv1.Class_CLASS_CONTROL, All: true,
		Content: &halleyv1.Delivery_Control{Control: &halleyv1.Control{Control: &halleyv1.Control_Resync{Resync: &halleyv1.ResyncSession{}}}},
	}
	// The error is what Recv tells.
	_ = cs.Send(&halleyv1.DeliverRequest{Message: &halleyv1.DeliverRequest_Batch{Batch: &halleyv1.DeliverBatch{Deliveries: []*halleyv1.Delivery{d}}}})
	resp, err := cs.Recv()
	if err != nil {
		return err
	}
	if resp.GetAcked() != 1 {
		return status.Error(codes.Internal, "a resync of all is not acknowledged")
	}
	return cs.CloseSend()
}
