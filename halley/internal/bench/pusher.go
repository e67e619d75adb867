//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// requestTimeout is how long a push may take to be answered.
const requestTimeout = 10 * time.Second

// API says where pushes go and how they are written.
type API struct {
	// URL is where logic's HTTP API is: http://host:port.
	URL string
	// Key is the API key; empty: none is sent.
	Key string
	// Goim uses goim's paths instead of /v1.
	Goim bool
	// Lane is that of pushes; empty: the API's default. goim's paths have none.
	Lane string
}

// op is the operation of all pushes.
const op = 1000

// appendPush appends a request's path and body for one push to one target.
func (a API) appendPush(path, body []byte, t target, p payload) (pathOut, bodyOut []byte) {
	switch {
	case a.Goim && t.room != "":
		path = append(append(path, "/goim/push/room?operation=1000&type="+roomType+"&room="...), t.room...)
		body = p.append(body)
	case a.Goim:
		path = append(path, "/goim/push/mids?operation=1000"...)
		for _, u := range t.uids {
			path = append(append(path, "&mids="...), u...)
		}
		body = p.append(body)
	default:
		path = append(path, "/v1/push"...)
		body = a.appendJSON(body, t, p)
	}
	return path, body
}

// roomType is the type of the rooms that are pushed to.
const roomType = "bench"

// target is whom a push is for: a room's id, or users.
type target struct {
	room string
	uids []string
}

func (a API) appendJSON(b []byte, t target, p payload) []byte {
	if t.room != "" {
		b = append(append(append(b, `{"rooms":["`+roomType+`://`...), t.room...), `"],"op":1000,"json":`...)
	} else {
		b = append(b, `{"uids":[`...)
		for i, u := range t.uids {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(append(b, '"'), u...), '"')
		}
		b = append(b, `],"op":1000,"json":`...)
	}
	b = p.append(b)
	if a.Lane != "" {
		b = append(append(append(b, `,"lane":"`...), a.Lane...), '"')
	}
	return append(b, '}')
}

// httpConn is one keep-alive connection that does one request at a time, written by hand: net/http's client would
// cost as much as what is measured.
type httpConn struct {
	host string
	key  string
	nc   net.Conn
	r    *bufio.Reader
	out  []byte
	body []byte
}

func (a API) open(ctx context.Context) (*httpConn, error) {
	u, err := url.Parse(a.URL)
	if err != nil || u.Scheme != "http" {
		return nil, fmt.Errorf("address %q: must be http://host:port", a.URL)
	}
	nc, err := (&net.Dialer{Timeout: requestTimeout}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	return &httpConn{host: u.Host, key: a.Key, nc: nc, r: bufio.NewReaderSize(nc, 16<<10)}, nil
}

// post sends a request and returns the answer's status and body, which is good until the next call.
func (h *httpConn) post(path, body []byte) (int, []byte, error) {
	if err := h.nc.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return 0, nil, err
	}
	b := append(h.out[:0], "POST "...)
	b = append(b, path...)
	b = append(append(b, " HTTP/1.1\r\nHost: "...), h.host...)
	if h.key != "" {
		b = append(append(b, "\r\nAuthorization: Bearer "...), h.key...)
	}
	b = append(b, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(append(b, "\r\n\r\n"...), body...)
	h.out = b
	if _, err := h.nc.Write(b); err != nil {
		return 0, nil, err
	}
	return h.answer()
}

func (h *httpConn) answer() (status int, body []byte, err error) {
	line, err := h.r.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 {
		return 0, nil, fmt.Errorf("answer %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("answer %q", line)
	}
	length, chunked := -1, false
	for {
		line, err := h.r.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, nil, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	if chunked {
		err = h.chunks()
		return status, h.body, err
	}
	length = max(length, 0)
	if cap(h.body) < length {
		h.body = make([]byte, length)
	}
	h.body = h.body[:length]
	_, err = io.ReadFull(h.r, h.body)
	return status, h.body, err
}

// chunks reads a body in chunks (RFC 9112 section 7.1): net/http's servers write longer answers so.
func (h *httpConn) chunks() error {
	h.body = h.body[:0]
	for {
		line, err := h.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 31)
		if err != nil {
			return fmt.Errorf("chunk %q", line)
		}
		at := len(h.body)
		h.body = append(h.body, make([]byte, size)...)
		if _, err := io.ReadFull(h.r, h.body[at:]); err != nil {
			return err
		}
		// The line's end after a chunk; after the last one, of which there are no trailers here, that of the body.
		if line, err = h.r.ReadSlice('\n'); err != nil || len(bytes.TrimSpace(line)) > 0 {
			return errors.Join(err, errors.New("a chunk without its end"))
		}
		if size == 0 {
			return nil
		}
	}
}

// accepted reports whether an answer says that the push was taken, in full.
func (a API) accepted(status int, body []byte) bool {
	if a.Goim {
		return status == 200 && bytes.HasPrefix(body, []byte(`{"code":0,`))
	}
	return status == 200 || status == 202
}

// plan is the pushes of a run. Stream s is one connection, which sends push after push and waits for each
// answer: that is what order is promised for.
type plan struct {
	run     uint16
	streams int
	// rate is pushes a second over all streams; 0: as fast as answers come.
	rate float64
	// count is how many in all; 0: until the time is over.
	count    uint32
	duration time.Duration
	// most is the number that seqs stay below, in each target's own counting.
	most uint32
	// batch is how many pushes one request carries; 0 and 1: one, by itself.
	batch int
	// next returns the target of a stream's k-th push, how many sessions get it, and its seq in that target's books.
	next func(stream, k int) (t target, sessions int, seq uint32)
}

// pushed is what became of a plan.
type pushed struct {
	Sent     int64 // pushes
	Refused  int64 // pushes that were answered with an error
	Failed   int64 // pushes whose outcome isn't known
	Expected int64 // deliveries that accepted pushes must make
	Late     int64 // pushes that were sent later than a whole interval after their time
	Took     time.Duration
	first    error
	requests histogram
}

// push carries out a plan and returns when all answers are there.
func (a API) push(ctx context.Context, pl plan) (*pushed, error) {
	conns := make([]*httpConn, pl.streams)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.nc.Close()
			}
		}
	}()
	for i := range conns {
		var err error
		if conns[i], err = a.open(ctx); err != nil {
			return nil, err
		}
	}
	var (
		out   pushed
		mu    sync.Mutex
		wg    sync.WaitGroup
		start = now()
		left  atomic.Int64
	)
	left.Store(int64(pl.count))
	for s := range conns {
		wg.Go(func() {
			w := &pushWorker{api: a, pl: pl, stream: s, conn: conns[s], start: start, left: &left}
			w.run(ctx)
			mu.Lock()
			defer mu.Unlock()
			out.add(&w.pushed)
		})
	}
	wg.Wait()
	out.Took = now() - start
	return &out, out.first
}

func (p *pushed) add(o *pushed) {
	p.Sent += o.Sent
	p.Refused += o.Refused
	p.Failed += o.Failed
	p.Expected += o.Expected
	p.Late += o.Late
	if p.first == nil {
		p.first = o.first
	}
	for i, n := range o.requests.counts {
		p.requests.counts[i] += n
	}
	p.requests.n += o.requests.n
	p.requests.max = max(p.requests.max, o.requests.max)
}

// pushWorker is one stream of a plan.
type pushWorker struct {
	pushed
	api    API
	pl     plan
	stream int
	conn   *httpConn
	start  time.Duration
	left   *atomic.Int64

	path, body []byte
}

func (w *pushWorker) run(ctx context.Context) {
	batch := max(w.pl.batch, 1)
	interval := time.Duration(0)
	if w.pl.rate > 0 {
		interval = time.Duration(float64(time.Second) * float64(w.pl.streams*batch) / w.pl.rate)
	}
	// Streams take turns within an interval.
	due := w.start + interval*time.Duration(w.stream)/time.Duration(w.pl.streams)
	end := w.start + w.pl.duration
	for k := 0; ctx.Err() == nil; k += batch {
		if interval > 0 {
			if wait := due - now(); wait > 0 {
				time.Sleep(wait)
			} else if -wait > interval {
				w.Late += int64(batch)
			}
			due += interval
		}
		if w.pl.duration > 0 && now() >= end {
			return
		}
		if w.pl.count > 0 && w.left.Add(-int64(batch)) < 0 {
			return
		}
		if !w.one(ctx, k, batch) {
			return
		}
	}
}

// one sends one request and books its outcome; false if the stream can't go on.
func (w *pushWorker) one(ctx context.Context, k, batch int) bool {
	w.path, w.body = w.path[:0], w.body[:0]
	deliveries := int64(0)
	sent := now()
	if batch == 1 {
		t, n, seq := w.pl.next(w.stream, k)
		if seq >= w.pl.most {
			return false
		}
		deliveries = int64(n)
		w.path, w.body = w.api.appendPush(w.path, w.body, t, payload{w.pl.run, uint16(w.stream), seq, sent})
	} else {
		w.path = append(w.path, "/v1/push/batch"...)
		w.body = append(w.body, `{"items":[`...)
		for i := range batch {
			t, n, seq := w.pl.next(w.stream, k+i)
			if seq >= w.pl.most {
				return false
			}
			deliveries += int64(n)
			if i > 0 {
				w.body = append(w.body, ',')
			}
			w.body = w.api.appendJSON(w.body, t, payload{w.pl.run, uint16(w.stream), seq, sent})
		}
		w.body = append(w.body, `]}`...)
	}
	w.Sent += int64(batch)
	status, answer, err := w.conn.post(w.path, w.body)
	w.requests.add(now() - sent)
	switch {
	case err != nil:
		w.Failed += int64(batch)
		w.first = fmt.Errorf("push: %w", err)
		return false
	case !w.api.accepted(status, answer), batch > 1 && !bytes.Contains(answer, []byte(`"failed":0`)):
		w.Refused += int64(batch)
		if w.first == nil {
			w.first = fmt.Errorf("push refused: HTTP %d %.300s", status, answer)
		}
		return status != 401 && status != 403 && status != 404 && status != 400
	}
	w.Expected += deliveries
	return true
}
