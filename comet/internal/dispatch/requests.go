package dispatch

import (
	"bytes"
	"context"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/halley-im/halley/comet/internal/outbox"
	"github.com/halley-im/halley/comet/internal/rooms"
	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// request queues ops 100, 103 and 104 of a signed session. Unsigned ones have no requests: the ops are unknown
// to them.
func (d *Dispatcher) request(ctx context.Context, s *session.Session, f frame.Frame) {
	if !s.Who().Signed {
		s.Reply(outbox.NewReply(f.Ver, f.Op, f.Seq, nil))
		return
	}
	s.Alive(session.Now())
	queue := session.Ordered
	switch f.Op {
	case frame.OpRequestUnordered:
		queue = session.Unordered
	case frame.OpRequestCall:
		queue = session.Calls
	}
	d.enqueue(s, queue, f)
}

// changeRoom carries out goim's op 12. Unsigned sessions get their answers in the order of their requests,
// whatever these are, so theirs is carried out here, in the reader.
func (d *Dispatcher) changeRoom(ctx context.Context, s *session.Session, f frame.Frame) {
	d.inOrder(ctx, s, f)
}

// forward hands an application's frame to logic, in order as changeRoom does.
func (d *Dispatcher) forward(ctx context.Context, s *session.Session, f frame.Frame) {
	d.inOrder(ctx, s, f)
}

func (d *Dispatcher) inOrder(ctx context.Context, s *session.Session, f frame.Frame) {
	if s.Who().Signed {
		d.enqueue(s, session.Ordered, f)
		return
	}
	// What was answered before doesn't wait for logic.
	s.Flush(nil)
	d.carryOut(ctx, s, take(f))
}

// take copies a frame that outlives the reader's buffer.
func take(f frame.Frame) session.Request {
	return session.Request{Op: int32(f.Op), Ver: f.Ver, Seq: f.Seq, Body: bytes.Clone(f.Body), Arrived: session.Now()}
}

func (d *Dispatcher) enqueue(s *session.Session, queue session.Queue, f frame.Frame) {
	r := take(f)
	q := s.Requests()
	ok, run := q.Put(queue, r, d.cfg.RequestQueue)
	if !ok {
		d.answer(s, r, nil, errcode.Busy)
		return
	}
	if !run {
		return
	}
	d.wg.Add(1)
	go func() {
		defer d.wg.Done()
		// Ends when the queue is empty.
		for {
			r, ok := q.Next(queue)
			if !ok {
				return
			}
			d.carryOut(d.ctx, s, r)
			q.Done(queue, r)
			s.Flush(nil)
		}
	}()
}

// carryOut asks logic, carries out the effects and answers.
func (d *Dispatcher) carryOut(ctx context.Context, s *session.Session, r session.Request) {
	left := d.cfg.RequestTimeout - time.Duration(session.Now()-r.Arrived)
	if left <= 0 {
		d.answer(s, r, nil, errcode.Busy)
		return
	}
	if s.HasEnded() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	resp, err := d.ask(ctx, s, r)
	if err == nil && resp.GetAgain() {
		// Now that the effects are stored logic sees what they changed.
		resp, err = d.ask(ctx, s, r)
	}
	d.answer(s, r, resp, err)
	if e := resp.GetEffects().GetClose(); e != nil {
		s.Close(session.Cause{Code: errcode.ByName(e.GetCode()), Error: e})
	}
}

// ask asks logic about a request and carries out the effects of its answer. The answer is not nil if logic gave
// one.
func (d *Dispatcher) ask(ctx context.Context, s *session.Session, r session.Request) (*halleyv1.SessionResponse, error) {
	comet, epoch := d.Lease.Conn()
	resp, err := d.Logic.Request(ctx, &halleyv1.SessionRequest{
		Session: s.Proto(&halleyv1.Conn{Comet: comet, Epoch: epoch, Id: d.Table.ConnID(s)}),
		Rooms:   s.Rooms(), Grants: s.Grants(), Op: r.Op, Body: r.Body,
	})
	if err == nil && resp.GetError() != nil {
		err = errcode.FromProto(resp.GetError())
	}
	if err == nil {
		err = d.effects(ctx, s, resp.GetEffects())
	}
	return resp, err
}

// answer queues the answer to a request.
func (d *Dispatcher) answer(s *session.Session, r session.Request, resp *halleyv1.SessionResponse, err error) {
	op := frame.Op(r.Op)
	result := "ok"
	if err != nil {
		result = errcode.From(err).Code.Name
	}
	d.Metrics.Requests.WithLabelValues(opLabel(op), result).Inc()
	switch {
	case op == frame.OpChangeRoom:
		// goim echoes it also when it could not be carried out.
		s.Reply(outbox.NewReply(r.Ver, frame.OpChangeRoomReply, r.Seq, r.Body))
	case !op.IsRequest() && (err == nil || !s.Who().Signed):
		s.Reply(outbox.NewReply(r.Ver, op, r.Seq, nil))
	case err != nil:
		body, merr := protojson.Marshal(&halleyv1.Reply{Result: &halleyv1.Reply_Error{Error: errcode.Proto(err)}})
		if merr != nil {
			body, _ = protojson.Marshal(&halleyv1.Reply{Result: &halleyv1.Reply_Error{Error: errcode.Proto(errcode.Internal)}})
		}
		s.Reply(outbox.NewReply(r.Ver, frame.OpReply, r.Seq, body))
	default:
		s.Reply(outbox.NewReply(r.Ver, frame.OpReply, r.Seq, resp.GetReply()))
	}
}

// opLabel keeps the number of label values small.
func opLabel(op frame.Op) string {
	if op >= frame.OpApplication {
		return "application"
	}
	return op.String()
}

// effects does to a session what logic wants, and returns when router knows of its rooms. If one fails, the
// rooms that were joined are left again.
func (d *Dispatcher) effects(ctx context.Context, s *session.Session, e *halleyv1.Effects) error {
	if e == nil {
		return nil
	}
	if a := e.GetAccepts(); a != nil {
		s.SetAccepts(a.GetAll(), a.GetOps())
	}
	if e.ExpiresAtMs != nil {
		s.SetExpiry(e.GetExpiresAtMs())
	}
	if e.Grants != nil {
		s.SetGrants(e.GetGrants())
	}
	var stored []*rooms.Ticket
	var joined []string
	var failed error
	for _, r := range e.GetLeave() {
		stored = append(stored, d.Rooms.Leave(s, r))
	}
	if e.ChangeRoom != nil {
		next := e.GetChangeRoom()
		if old := s.GoimRoom(); old != nil && old.Name() != next {
			stored = append(stored, d.Rooms.Leave(s, old.Name()))
		}
		if next != "" {
			t, _, err := d.Rooms.Join(s, next, true)
			failed = err
			stored = append(stored, t)
		}
	}
	for _, r := range e.GetJoin() {
		if failed != nil {
			break
		}
		t, fresh, err := d.Rooms.Join(s, r, false)
		if err != nil {
			failed = err
			break
		}
		stored = append(stored, t)
		if fresh {
			joined = append(joined, r)
		}
	}
	for _, t := range stored {
		if failed != nil {
			break
		}
		failed = t.Wait(ctx)
	}
	if failed == nil {
		return nil
	}
	for _, r := range joined {
		d.Rooms.Leave(s, r)
	}
	return failed
}
