// Package upstream asks logic on behalf of sessions, and tells router of those that ended. It owns a loop that deregisters, one that
// looks for logics, and two for each logic's stream of requests; callers wait in goroutines of their own.
package upstream

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// retryAfter is what clients are told to wait when logic does not answer. They add jitter, and wait longer after each failure:
// it is the least of many waits, and the same for every unavailable (errcode), so it is no setting.
const retryAfter = time.Second

// Config says how logic is asked.
type Config struct {
	// ConnectTimeout bounds Connect.
	ConnectTimeout time.Duration
	// Retry is the wait after a stream that could not be opened.
	Retry time.Duration
	// Window and WindowBytes bound the requests in each logic's hands, those included that wait to be sent there.
	Window      int
	WindowBytes int
}

// Logic asks logic. Use NewLogic, then Run.
type Logic struct {
	client   halleyv1.LogicClient
	cfg      Config
	requests *requests
}

// NewLogic returns a Logic; it starts nothing. The client's connection is one of grpcconn.Dial.
func NewLogic(client halleyv1.LogicClient, cfg Config) *Logic {
	return &Logic{client, cfg, newRequests(client, cfg)}
}

// Run keeps a stream with each logic, for Request, until ctx ends.
func (l *Logic) Run(ctx context.Context) { l.requests.run(ctx) }

// Logics returns how many logics requests go to.
func (l *Logic) Logics() int {
	n, _ := l.requests.size()
	return n
}

// InHand returns how many requests they have in hand, or wait to be sent to them.
func (l *Logic) InHand() int {
	_, n := l.requests.size()
	return n
}

// Connect verifies an auth frame and registers the session. Any error is one of the table's codes.
func (l *Logic) Connect(ctx context.Context, req *halleyv1.ConnectRequest) (*halleyv1.ConnectResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.ConnectTimeout)
	defer cancel()
	resp, err := l.client.Connect(ctx, req)
	if err != nil {
		return nil, errcode.Unavailable.After(retryAfter)
	}
	return resp, nil
}

// Request carries out a client's frame; req is its from now on. Any error is one of the table's codes: a request whose outcome
// isn't known is unknown, unless it only reads.
func (l *Logic) Request(ctx context.Context, req *halleyv1.SessionRequest) (*halleyv1.SessionResponse, error) {
	resp, err := l.requests.do(ctx, req)
	if err == nil {
		return resp, nil
	}
	if frame.Op(req.GetOp()) == frame.OpRequestUnordered {
		return nil, errcode.Unavailable.After(retryAfter)
	}
	switch status.Code(err) {
	case codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal:
		return nil, errcode.Unknown
	}
	return nil, errcode.Unavailable.After(retryAfter)
}

// Lease is what sessions are deregistered from.
type Lease interface {
	Conn() (comet, epoch string)
	Dead(epoch string)
}

// Deregister tells router of sessions that ended: batched, tried again, in a bounded queue. Use NewDeregister,
// then Run.
type Deregister struct {
	router  halleyv1.RouterClient
	lease   Lease
	log     *slog.Logger
	most    int
	batch   int
	timeout time.Duration
	retry   time.Duration
	Dropped atomic.Int64

	mu    sync.Mutex
	queue []*halleyv1.Session
	wake  chan struct{}
}

// NewDeregister returns a queue of at most most sessions.
func NewDeregister(router halleyv1.RouterClient, lease Lease, most, batch int, timeout, retry time.Duration, log *slog.Logger) *Deregister {
	return &Deregister{router: router, lease: lease, most: most, batch: batch, timeout: timeout, retry: retry, log: log, wake: make(chan struct{}, 1)}
}

// Add queues a session; its Conn needs its id only. When the queue is full the session is dropped and counted:
// its entry goes with the next rewrite of its bucket.
func (d *Deregister) Add(s *halleyv1.Session) {
	d.mu.Lock()
	full := len(d.queue) >= d.most
	if !full {
		d.queue = append(d.queue, s)
	}
	d.mu.Unlock()
	if full {
		d.Dropped.Add(1)
		return
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Pending returns how many sessions wait.
func (d *Deregister) Pending() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queue)
}

// Run works until ctx ends.
func (d *Deregister) Run(ctx context.Context) {
	// So that one call that router is slow to answer doesn't hold all; the queue bounds what waits.
	const parallel = 2
	var wg sync.WaitGroup
	defer wg.Wait()
	for range parallel {
		wg.Go(func() { d.work(ctx) })
	}
}

func (d *Deregister) work(ctx context.Context) {
	for {
		d.mu.Lock()
		n := min(len(d.queue), d.batch)
		batch := append([]*halleyv1.Session(nil), d.queue[:n]...)
		clear(d.queue[:n])
		d.queue = d.queue[n:]
		more := len(d.queue) > 0
		d.mu.Unlock()
		if n == 0 {
			select {
			case <-ctx.Done():
				return
			case <-d.wake:
			}
			continue
		}
		if more {
			select {
			case d.wake <- struct{}{}:
			default:
			}
		}
		if !d.send(ctx, batch) {
			return
		}
	}
}

// send tries until router has taken a batch; false: ctx ended.
func (d *Deregister) send(ctx context.Context, batch []*halleyv1.Session) bool {
	for wait := d.retry; ; wait = min(2*wait, 20*d.retry) {
		comet, epoch := d.lease.Conn()
		for _, s := range batch {
			s.Conn.Comet, s.Conn.Epoch = comet, epoch
		}
		cctx, cancel := context.WithTimeout(ctx, d.timeout)
		resp, err := d.router.Deregister(cctx, &halleyv1.DeregisterRequest{Sessions: batch})
		cancel()
		if err == nil && resp.GetStatus() != halleyv1.EpochStatus_EPOCH_STATUS_DEAD {
			return true
		}
		if status.Code(err) == codes.InvalidArgument {
			// It would be refused for ever, and for one session all that are asked for with it.
			if len(batch) == 1 {
				d.Dropped.Add(1)
				d.log.Error("session not deregistered", "session", batch[0].GetConn().GetId(), "err", err)
				return true
			}
			half := len(batch) / 2
			return d.send(ctx, batch[:half]) && d.send(ctx, batch[half:])
		}
		if err == nil {
			// Tried again in the next epoch: a session that ended while all are registered there may be among them.
			d.lease.Dead(epoch)
		} else if ctx.Err() == nil {
			d.log.Warn("sessions not deregistered, trying again", "sessions", len(batch), "err", err)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
	}
}
