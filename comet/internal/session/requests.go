package session

import (
	"sync"

	"github.com/halley-im/halley/proto/frame"
)

// Request is a client's frame that waits for logic. Its body is its own.
type Request struct {
	Op      int32
	Ver     int16
	Seq     int32
	Body    []byte
	Arrived int64
}

// Queue names one of a session's queues of requests.
type Queue uint8

// Queues of requests. Each bounds what waits; ordered ones are worked off one after another.
const (
	Ordered Queue = iota
	Calls
	Unordered

	queues
)

// Requests are the requests of one session that wait or run.
type Requests struct {
	mu      sync.Mutex
	waiting [queues][]Request
	held    [queues]int // waiting or being carried out
	running [queues]int // goroutines
	bytes   int         // of the bodies held, in all queues
}

// maxHeldBytes bounds the bodies of a session's requests that wait or run: a few of the largest. It follows from the largest body,
// which the protocol says; how many small ones may wait is request_queue.
const maxHeldBytes = 4 * frame.MaxRequestBody

// Requests returns the session's queues, which are made when the first request comes.
func (s *Session) Requests() *Requests {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &s.extra().reqs
}

// Put appends r to a queue that holds at most limit, running ones included, and reports whether it did: it doesn't either when
// the session's requests hold as many bytes as they may. run says that the caller must
// start a goroutine that calls Next until there is none.
func (q *Requests) Put(queue Queue, r Request, limit int) (ok, run bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[queue] >= limit || q.bytes+len(r.Body) > maxHeldBytes {
		return false, false
	}
	q.held[queue]++
	q.bytes += len(r.Body)
	q.waiting[queue] = append(q.waiting[queue], r)
	if queue == Unordered || q.running[queue] == 0 {
		q.running[queue]++
		return true, true
	}
	return true, false
}

// Done says that r from Next was carried out.
func (q *Requests) Done(queue Queue, r Request) {
	q.mu.Lock()
	q.held[queue]--
	q.bytes -= len(r.Body)
	q.mu.Unlock()
}

// Next returns the next request of a queue. When there is none, the calling goroutine counts as ended.
func (q *Requests) Next(queue Queue) (Request, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting[queue]) == 0 {
		q.waiting[queue] = nil
		q.running[queue]--
		return Request{}, false
	}
	r := q.waiting[queue][0]
	q.waiting[queue][0] = Request{}
	q.waiting[queue] = q.waiting[queue][1:]
	return r, true
}
