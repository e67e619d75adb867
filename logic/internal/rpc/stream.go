package rpc

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Bounds of a stream. They are no settings: comets have fewer requests on a stream than window, and answers are bounded where they are made.
const (
	// window is how many requests of a stream are carried out at once; then it isn't read.
	window = 4096
	// batchBytes is what a message holds before no more is added to it; mostBytes is the largest answer. Both together are less than what
	// gRPC takes as one message (kit/grpcconn).
	batchBytes = 1 << 20
	mostBytes  = 8 << 20
)

// Requests serves a comet's stream. Each request is carried out in a goroutine of its own: a slow one holds up no other. The stream ends when comet
// has ended its side and all is answered, or when it breaks; then what is under way is cancelled.
func (s *Server) Requests(ss grpc.BidiStreamingServer[halleyv1.RequestBatch, halleyv1.ResponseBatch]) error {
	answers := make(chan *halleyv1.SessionResponse, window)
	sent := make(chan error, 1)
	go func() { sent <- s.answer(ss, answers) }()
	err := s.carryOut(ss, answers)
	close(answers)
	if serr := <-sent; err == nil {
		err = serr
	}
	return err
}

// carryOut takes requests until there are no more and all have been answered.
func (s *Server) carryOut(ss grpc.BidiStreamingServer[halleyv1.RequestBatch, halleyv1.ResponseBatch], answers chan<- *halleyv1.SessionResponse) error {
	var (
		workers sync.WaitGroup
		work    = make(chan *halleyv1.SessionRequest)
		slots   = make(chan struct{}, window) // one for each worker
		// So many stay when there is nothing to do: a new goroutine for each request would grow its stack anew.
		stay = 4 * runtime.GOMAXPROCS(0)
	)
	defer workers.Wait()
	defer close(work)
	worker := func(req *halleyv1.SessionRequest) {
		defer func() { <-slots }()
		for ok := true; ok; req, ok = <-work {
			answers <- s.carryOutOne(ss.Context(), req)
			if len(slots) > stay {
				return
			}
		}
	}
	for {
		batch, err := ss.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, req := range batch.GetRequests() {
			select {
			case work <- req:
				continue
			default:
			}
			select {
			case work <- req:
			case slots <- struct{}{}:
				workers.Go(func() { worker(req) })
			case <-ss.Context().Done():
				return ss.Context().Err()
			}
		}
	}
}

func (s *Server) carryOutOne(ctx context.Context, req *halleyv1.SessionRequest) *halleyv1.SessionResponse {
	if ms := req.GetTimeoutMs(); ms > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
		defer cancel()
	}
	res := s.Request(ctx, req)
	res.Number = req.GetNumber()
	return res
}

// answer sends answers, those that wait together, until there are no more. After an error it drops them: comet knows that the stream has ended.
func (s *Server) answer(ss grpc.BidiStreamingServer[halleyv1.RequestBatch, halleyv1.ResponseBatch], answers <-chan *halleyv1.SessionResponse) (err error) {
	for res := range answers {
		batch := &halleyv1.ResponseBatch{}
		for bytes := 0; res != nil; {
			size := proto.Size(res)
			if size > mostBytes {
				// By itself, or all others on the stream would fail with it.
				s.d.Log.ErrorContext(ss.Context(), "answer too large", "bytes", size)
				res = &halleyv1.SessionResponse{Number: res.GetNumber(), Error: errcode.Proto(errcode.Internal)}
			}
			batch.Responses = append(batch.Responses, res)
			res = nil
			if bytes += size; bytes < batchBytes {
				select {
				case res = <-answers: // nil when there are no more
				default:
				}
			}
		}
		if err == nil {
			err = ss.Send(batch)
		}
	}
	return err
}
