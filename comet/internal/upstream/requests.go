package upstream

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/grpcconn"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// batchBytes is what a message holds before no more is added to it; mostBytes is the largest request. Both together are less than what
// gRPC takes as one message (kit/grpcconn), and a client's frame is far below either.
const (
	batchBytes = 1 << 20
	mostBytes  = 8 << 20
)

var (
	errNotAsked = status.Error(codes.Unavailable, "logic was not asked in time")
	errEnded    = status.Error(codes.Unavailable, "logic ended the stream")
	// errUnsent says that a request never left: it may go to another logic.
	errUnsent = errors.New("not sent")
)

// requests carries requests to the logics, one stream with each, taking turns. A call of its own for each request cost comet a third of its CPU,
// and logic half.
type requests struct {
	client halleyv1.LogicClient
	cfg    Config
	spread grpcconn.Spread

	mu      sync.Mutex
	streams []*stream // that take requests
	next    int
	away    error         // why there is none; nil: one may come at any moment
	changed chan struct{} // closed when a stream comes or has room again, or away is set; then replaced
	waiting bool          // somebody looks at changed
}

// stream is what one logic has in hand; requests.mu guards it.
type stream struct {
	// Takes Window, as many as may be in hand: it is never full. Closed when the stream takes no more.
	queue   chan *request
	retired bool
	sent    map[uint64]*request
	number  uint64
	count   int // queued and sent
	bytes   int
}

// request is one caller's.
type request struct {
	*halleyv1.SessionRequest
	deadline time.Time
	size     int
	answer   chan outcome // takes one
	// Guarded by requests.mu.
	sent bool
	left bool // nobody waits for it any more
}

type outcome struct {
	resp *halleyv1.SessionResponse
	err  error
}

func newRequests(client halleyv1.LogicClient, cfg Config) *requests {
	return &requests{client: client, cfg: cfg, changed: make(chan struct{})}
}

// do asks a logic. Its errors are gRPC's.
func (r *requests) do(ctx context.Context, req *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
	q := &request{SessionRequest: req, size: proto.Size(req), answer: make(chan outcome, 1)}
	if q.size > mostBytes {
		return nil, status.Error(codes.ResourceExhausted, "request too large")
	}
	q.deadline, _ = ctx.Deadline()
	for {
		if err := r.place(ctx, q); err != nil {
			return nil, err
		}
		select {
		case o := <-q.answer:
			if errors.Is(o.err, errUnsent) {
				continue
			}
			return o.resp, o.err
		case <-ctx.Done():
			if r.leave(q) {
				return nil, status.FromContextError(ctx.Err()).Err()
			}
			return nil, errNotAsked
		}
	}
}

// place gives a request to the next stream that has room. While logics are being connected, or have their hands full, it waits.
func (r *requests) place(ctx context.Context, q *request) error {
	for {
		changed, err := r.put(q)
		if changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errNotAsked
		}
	}
}

// put returns what to wait for if there is no room.
func (r *requests) put(q *request) (changed <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range r.streams {
		r.next = (r.next + 1) % len(r.streams)
		s := r.streams[r.next]
		if s.count > 0 && (s.count >= r.cfg.Window || s.bytes+q.size > r.cfg.WindowBytes) {
			continue
		}
		s.count++
		s.bytes += q.size
		s.queue <- q
		return nil, nil
	}
	if len(r.streams) == 0 && r.away != nil {
		return nil, r.away
	}
	r.waiting = true
	return r.changed, nil
}

// leave says that nobody waits for a request any more, and reports whether it was sent. If so it keeps its place until it is answered: logic has
// it in hand.
func (r *requests) leave(q *request) (sent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q.left = true
	return q.sent
}

func (r *requests) size() (streams, inHand int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.streams {
		inHand += s.count
	}
	return len(r.streams), inHand
}

// tell wakes those who wait for room. With mu held.
func (r *requests) tell() {
	if r.waiting {
		r.waiting = false
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

// run opens a stream with each logic that there is, until ctx ends and all have ended.
func (r *requests) run(ctx context.Context) {
	var streams sync.WaitGroup
	defer streams.Wait()
	ended := make(chan struct{}, 1)
	for ctx.Err() == nil {
		// One call at a time waits for a logic without a stream.
		open, cancel := context.WithCancel(ctx)
		call, seat := r.spread.Seat(open)
		var cs grpc.BidiStreamingClient[halleyv1.RequestBatch, halleyv1.ResponseBatch]
		opened := make(chan error, 1)
		go func() {
			var err error
			cs, err = r.client.Requests(call)
			opened <- err
		}()
		select {
		case err := <-opened:
			if err == nil {
				break
			}
			cancel()
			r.gone(err)
			pause(ctx, r.cfg.Retry)
			continue
		case <-ended:
			// The logic of a stream that has ended may be there yet; who waits isn't told.
			cancel()
			if err := <-opened; err == nil {
				seat.Free()
			}
			continue
		}
		streams.Go(func() {
			defer cancel()
			if !r.serve(open, cancel, cs, seat.Leaving()) {
				// It would be opened again at once, for ever: a logic of another secret.
				pause(ctx, r.cfg.Retry)
			}
			select {
			case ended <- struct{}{}:
			default:
			}
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// gone says that no logic can be had.
func (r *requests) gone(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = status.Error(codes.Unavailable, err.Error())
	r.tell()
}

// serve uses a stream until it ends, and reports whether anything was answered on it.
func (r *requests) serve(ctx context.Context, cancel context.CancelFunc, cs grpc.BidiStreamingClient[halleyv1.RequestBatch, halleyv1.ResponseBatch], leaving <-chan struct{}) (answered bool) {
	s := &stream{queue: make(chan *request, r.cfg.Window), sent: map[uint64]*request{}}
	r.mu.Lock()
	r.streams = append(r.streams, s)
	r.away = nil
	r.tell()
	r.mu.Unlock()

	var sender sync.WaitGroup
	sender.Go(func() { r.send(ctx, s, cs, leaving) })
	answered, err := r.receive(s, cs)
	r.retire(s)
	cancel() // ends a Send that waits for logic to read
	sender.Wait()
	r.fail(s, err)
	return answered
}

// retire takes no more requests for a stream.
func (r *requests) retire(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.retired {
		return
	}
	s.retired = true
	close(s.queue)
	r.streams = slices.DeleteFunc(r.streams, func(o *stream) bool { return o == s })
}

// fail ends what is left of a stream that has ended: what was sent by its error, the rest may go to another.
func (r *requests) fail(s *stream, err error) {
	if errors.Is(err, io.EOF) {
		err = errEnded
	}
	for q := range s.queue {
		q.answer <- outcome{err: errUnsent}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range s.sent {
		q.answer <- outcome{err: err}
	}
}

// send sends what is queued until the stream is retired and nothing is left, or has ended.
func (r *requests) send(ctx context.Context, s *stream, cs grpc.BidiStreamingClient[halleyv1.RequestBatch, halleyv1.ResponseBatch], leaving <-chan struct{}) {
	for {
		select {
		case q, ok := <-s.queue:
			if !ok {
				// Logic answers what it has, then ends the stream.
				_ = cs.CloseSend()
				return
			}
			// What came of an error Recv tells.
			if batch := r.batch(s, q); len(batch.Requests) > 0 && cs.Send(batch) != nil {
				return
			}
		case <-leaving:
			r.retire(s)
			leaving = nil
		case <-ctx.Done():
			return
		}
	}
}

// batch makes a message of a request and of those that wait behind it.
func (r *requests) batch(s *stream, q *request) *halleyv1.RequestBatch {
	batch := &halleyv1.RequestBatch{}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for bytes := 0; ; {
		if q.left {
			r.release(s, q)
		} else {
			s.number++
			q.Number = s.number
			if !q.deadline.IsZero() {
				q.TimeoutMs = uint32(max(q.deadline.Sub(now).Milliseconds(), 1))
			}
			q.sent = true
			s.sent[q.Number] = q
			batch.Requests = append(batch.Requests, q.SessionRequest)
		}
		if bytes += q.size; bytes >= batchBytes {
			return batch
		}
		select {
		case next, ok := <-s.queue:
			if !ok {
				return batch
			}
			q = next
		default:
			return batch
		}
	}
}

// release gives a request's room back. With mu held.
func (r *requests) release(s *stream, q *request) {
	s.count--
	s.bytes -= q.size
	r.tell()
}

// receive takes answers until the stream ends, and reports whether there were any.
func (r *requests) receive(s *stream, cs grpc.BidiStreamingClient[halleyv1.RequestBatch, halleyv1.ResponseBatch]) (answered bool, err error) {
	for {
		batch, err := cs.Recv()
		if err != nil {
			return answered, err
		}
		answered = true
		r.mu.Lock()
		for _, resp := range batch.GetResponses() {
			if q := s.sent[resp.GetNumber()]; q != nil {
				delete(s.sent, resp.GetNumber())
				r.release(s, q)
				q.answer <- outcome{resp: resp}
			}
		}
		r.mu.Unlock()
	}
}
