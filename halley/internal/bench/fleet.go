//go:build linux

package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/halley-im/halley/proto/frame"
)

// FleetConfig says how many sessions there are and how they connect.
type FleetConfig struct {
	// Comets are the servers' addresses; session i connects to the one at i modulo their number.
	Comets []netip.AddrPort
	// WS connects by WebSocket, at Path.
	WS   bool
	Path string
	// Bare connects and says nothing: for the server of --limit.
	Bare bool
	// Sessions is how many.
	Sessions int
	// Sources is how many loopback addresses (127.0.0.2 and up) they come from: one address has some 28,000
	// ports for one server. 0: the system's choice.
	Sources int
	// InFlight is how many are being set up at once.
	InFlight int
	// Auth returns the body of session i's auth frame.
	Auth func(i int) []byte
	// Progress, if not nil, is told a few times a second how many are ready while Connect waits.
	Progress func(done int)
}

// state is how far a session's set-up has come.
type state uint8

const (
	idle       state = iota
	connecting       // connect(2) is under way
	upgrading        // waiting for 101
	loggingIn        // waiting for op 8
	ready
	gone
)

type session struct {
	fd    int32
	state state
	// rest is the beginning of a frame whose end hasn't come, with room for no more.
	rest []byte
	sent time.Duration // when the set-up began
}

// Fleet is many sessions on one loop. Connect, Begin and Close may be called from one other goroutine.
type Fleet struct {
	cfg      FleetConfig
	epfd     int
	wakefd   int
	sessions []session
	buf      []byte
	dests    []unix.SockaddrInet4
	hello    []byte // upgrade request

	next     int // first session that was not begun
	inFlight int
	target   int // how many shall be begun

	tally    *tally
	setup    histogram
	firstErr error

	readyCount atomic.Int64
	goneCount  atomic.Int64

	mu      sync.Mutex
	calls   []func()
	stopped bool
	done    chan struct{}
}

// NewFleet makes a fleet and starts its loop; Close ends it.
func NewFleet(cfg FleetConfig) (*Fleet, error) {
	f := &Fleet{cfg: cfg, sessions: make([]session, cfg.Sessions), buf: make([]byte, 256<<10), done: make(chan struct{})}
	if f.cfg.InFlight <= 0 {
		f.cfg.InFlight = 128
	}
	for _, c := range cfg.Comets {
		if !c.Addr().Unmap().Is4() {
			return nil, fmt.Errorf("comet %s: only IPv4 addresses", c)
		}
		f.dests = append(f.dests, unix.SockaddrInet4{Port: int(c.Port()), Addr: c.Addr().Unmap().As4()})
	}
	if len(f.dests) == 0 {
		return nil, errors.New("no comet to connect to")
	}
	if cfg.WS {
		f.hello = []byte("GET " + cfg.Path + " HTTP/1.1\r\nHost: " + cfg.Comets[0].String() +
			"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	}
	if err := raiseFileLimit(cfg.Sessions + 256); err != nil {
		return nil, err
	}
	var err error
	if f.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if f.wakefd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(f.epfd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if err := unix.EpollCtl(f.epfd, unix.EPOLL_CTL_ADD, f.wakefd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}); err != nil {
		unix.Close(f.epfd)
		unix.Close(f.wakefd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	go f.loop()
	return f, nil
}

// raiseFileLimit lets this process have n files open.
func raiseFileLimit(n int) error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	if lim.Max < uint64(n) {
		return fmt.Errorf("%d connections need as many open files, but the limit is %d: raise it with `ulimit -n`", n, lim.Max)
	}
	lim.Cur = lim.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
}

// call has fn run by the loop and waits for it.
func (f *Fleet) call(fn func()) {
	ran := make(chan struct{})
	f.mu.Lock()
	if f.stopped {
		f.mu.Unlock()
		return
	}
	f.calls = append(f.calls, func() { fn(); close(ran) })
	f.mu.Unlock()
	one := [8]byte{0: 1}
	unix.Write(f.wakefd, one[:])
	<-ran
}

// progressEvery is how often a person is told how far things are.
const progressEvery = 250 * time.Millisecond

// Connect brings the number of sessions to n and waits until they are ready. It returns an error when ctx
// ends first or when one was refused.
func (f *Fleet) Connect(ctx context.Context, n int) error {
	f.call(func() {
		f.target = min(n, len(f.sessions))
		f.begin()
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	told := now()
	for f.readyCount.Load() < int64(n) {
		if f.cfg.Progress != nil && now()-told > progressEvery {
			told = now()
			f.cfg.Progress(int(f.readyCount.Load()))
		}
		if f.goneCount.Load() > 0 {
			var err error
			f.call(func() { err = f.firstErr })
			return fmt.Errorf("after %d sessions one was refused: %w", f.readyCount.Load(), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("only %d of %d sessions got ready: %w", f.readyCount.Load(), n, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// Begin opens a new book; what comes from now on is counted in it.
func (f *Fleet) Begin(t *tally) { f.call(func() { f.tally = t }) }

// Latencies returns the book's histogram as it is now.
func (f *Fleet) Latencies(t *tally) (h histogram) {
	f.call(func() { h = t.lat })
	return h
}

// Setup returns how long set-ups took.
func (f *Fleet) Setup() (h histogram) {
	f.call(func() { h = f.setup })
	return h
}

// Gone returns how many sessions the server has ended.
func (f *Fleet) Gone() int { return int(f.goneCount.Load()) }

// Heartbeat sends op 2 on every session.
func (f *Fleet) Heartbeat() {
	f.call(func() {
		b := f.encode(nil, frame.OpHeartbeat, nil)
		for i := range f.sessions {
			if s := &f.sessions[i]; s.state == ready {
				f.write(i, b)
			}
		}
	})
}

// Close ends the loop and all connections.
func (f *Fleet) Close() {
	f.call(func() { f.stopped = true })
	<-f.done
}

func (f *Fleet) loop() {
	defer close(f.done)
	events := make([]unix.EpollEvent, 1024)
	for !f.stopped {
		n, err := unix.EpollWait(f.epfd, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			f.firstErr = fmt.Errorf("epoll: %w", err)
			break
		}
		for i := range max(n, 0) {
			e := &events[i]
			if e.Fd < 0 {
				f.runCalls()
				continue
			}
			f.event(int(e.Fd), e.Events)
		}
		f.begin()
	}
	f.mu.Lock()
	f.stopped = true
	f.mu.Unlock()
	for i := range f.sessions {
		if s := &f.sessions[i]; s.state != idle && s.state != gone {
			unix.Close(int(s.fd))
		}
	}
	unix.Close(f.epfd)
	unix.Close(f.wakefd)
}

func (f *Fleet) runCalls() {
	var drain [8]byte
	unix.Read(f.wakefd, drain[:])
	f.mu.Lock()
	calls := f.calls
	f.calls = nil
	f.mu.Unlock()
	for _, c := range calls {
		c()
	}
}

// begin starts set-ups until as many are under way as may be.
func (f *Fleet) begin() {
	for f.next < f.target && f.inFlight < f.cfg.InFlight {
		i := f.next
		f.next++
		f.inFlight++
		if err := f.dial(i); err != nil {
			f.lose(i, err)
		}
	}
}

func (f *Fleet) dial(i int) error {
	s := &f.sessions[i]
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	s.fd, s.state, s.sent = int32(fd), connecting, now()
	if f.cfg.Sources > 0 {
		// The port is chosen at connect, when the whole pair is known; else one address would have but 28,000.
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		k := 2 + i%f.cfg.Sources
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, byte(k >> 8), byte(k)}}); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	err = unix.Connect(fd, &f.dests[i%len(f.dests)])
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect: %w", err)
	}
	events := uint32(unix.EPOLLOUT)
	if err == nil {
		if err := f.connected(i); err != nil {
			return err
		}
		events = unix.EPOLLIN | unix.EPOLLRDHUP
	}
	return unix.EpollCtl(f.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(i)})
}

// connected says what comes first on a new connection.
func (f *Fleet) connected(i int) error {
	s := &f.sessions[i]
	switch {
	case f.cfg.Bare:
		f.settle(i)
		return nil
	case f.cfg.WS:
		s.state = upgrading
		return f.write(i, f.hello)
	}
	return f.login(i)
}

func (f *Fleet) login(i int) error {
	f.sessions[i].state = loggingIn
	return f.write(i, f.encode(nil, frame.OpAuth, f.cfg.Auth(i)))
}

// settle books a session as ready.
func (f *Fleet) settle(i int) {
	s := &f.sessions[i]
	s.state = ready
	f.inFlight--
	f.setup.add(now() - s.sent)
	f.readyCount.Add(1)
}

// lose books a session as ended.
func (f *Fleet) lose(i int, err error) {
	s := &f.sessions[i]
	switch s.state {
	case gone:
		return
	case idle:
	default:
		unix.Close(int(s.fd))
	}
	if s.state == ready {
		f.readyCount.Add(-1)
	} else {
		f.inFlight--
	}
	if f.firstErr == nil {
		f.firstErr = err
	}
	s.state, s.rest = gone, nil
	f.goneCount.Add(1)
}

// encode makes a frame as this transport carries it. A WebSocket client masks (RFC 6455 section 5.3); a mask of
// zeros changes nothing and costs nothing.
func (f *Fleet) encode(dst []byte, op frame.Op, body []byte) []byte {
	n := frame.HeaderLen + len(body)
	if f.cfg.WS {
		dst = append(dst, 0x82)
		switch {
		case n < 126:
			dst = append(dst, 0x80|byte(n))
		default:
			dst = append(dst, 0x80|126, byte(n>>8), byte(n))
		}
		dst = append(dst, 0, 0, 0, 0)
	}
	return frame.Append(dst, frame.Frame{Ver: frame.Ver, Op: op, Seq: 1, Body: body})
}

// write writes little to a socket whose buffer is empty: it can't be cut short.
func (f *Fleet) write(i int, b []byte) error {
	n, err := unix.Write(int(f.sessions[i].fd), b)
	if err == nil && n < len(b) {
		err = errors.New("short write")
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func (f *Fleet) event(i int, events uint32) {
	s := &f.sessions[i]
	if s.state == gone {
		return
	}
	if s.state == connecting {
		if code, err := unix.GetsockoptInt(int(s.fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			f.lose(i, fmt.Errorf("connect: %w", syscall.Errno(code)))
			return
		}
		err := unix.EpollCtl(f.epfd, unix.EPOLL_CTL_MOD, int(s.fd), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(i)})
		if err == nil {
			err = f.connected(i)
		}
		if err != nil {
			f.lose(i, err)
		}
		return
	}
	have := copy(f.buf, s.rest)
	// A raw system call: the socket never blocks, so the scheduler need not know of it.
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(s.fd), uintptr(unsafe.Pointer(&f.buf[have])), uintptr(len(f.buf)-have))
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return
	case errno != 0:
		f.lose(i, fmt.Errorf("read: %w", errno))
		return
	case n == 0:
		f.lose(i, errors.New("the server closed the connection"))
		return
	}
	b := f.buf[:have+int(n)]
	used, err := f.parse(i, b)
	if f.tally != nil {
		f.tally.publish()
	}
	if err != nil {
		f.lose(i, err)
		return
	}
	if used == len(b) {
		s.rest = s.rest[:0]
		return
	}
	if len(b)-used > len(f.buf)/2 {
		f.lose(i, errors.New("a frame larger than the buffer"))
		return
	}
	s.rest = append(s.rest[:0], b[used:]...)
}

// parse takes whole messages off b and returns how many bytes they were.
func (f *Fleet) parse(i int, b []byte) (used int, err error) {
	at := now()
	s := &f.sessions[i]
	if s.state == upgrading {
		head, _, found := strings.Cut(string(b), "\r\n\r\n")
		if !found {
			return 0, nil
		}
		if !strings.HasPrefix(head, "HTTP/1.1 101") {
			line, _, _ := strings.Cut(head, "\r\n")
			return 0, errors.New("upgrade refused: " + line)
		}
		used = len(head) + 4
		if err := f.login(i); err != nil {
			return 0, err
		}
	}
	for used < len(b) {
		var n int
		if f.cfg.WS {
			n, err = f.message(i, b[used:], at)
		} else {
			n, err = f.frames(i, b[used:], at)
		}
		if err != nil || n == 0 {
			return used, err
		}
		used += n
	}
	return used, nil
}

// message takes one WebSocket message off b: how many bytes it is, 0 if its end hasn't come.
func (f *Fleet) message(i int, b []byte, at time.Duration) (int, error) {
	if len(b) < 2 {
		return 0, nil
	}
	head, n := 2, int(b[1]&0x7f)
	switch n {
	case 126:
		if len(b) < 4 {
			return 0, nil
		}
		head, n = 4, int(binary.BigEndian.Uint16(b[2:]))
	case 127:
		if len(b) < 10 {
			return 0, nil
		}
		head, n = 10, int(binary.BigEndian.Uint64(b[2:]))
	}
	if len(b) < head+n {
		return 0, nil
	}
	switch b[0] & 0x0f {
	case 2:
		got, err := f.frames(i, b[head:head+n], at)
		if err == nil && got != n {
			err = errors.New("a WebSocket message that isn't whole frames")
		}
		return head + n, err
	case 8:
		return 0, errors.New("the server sent a close frame")
	case 9:
		pong := append([]byte{0x8a, 0x80 | byte(n), 0, 0, 0, 0}, b[head:head+n]...)
		return head + n, f.write(i, pong)
	}
	return head + n, nil
}

// frames takes all whole frames off b and returns how many bytes they were.
func (f *Fleet) frames(i int, b []byte, at time.Duration) (used int, err error) {
	for len(b)-used >= frame.HeaderLen {
		h := b[used:]
		n := int(binary.BigEndian.Uint32(h))
		if n < frame.HeaderLen || n > len(f.buf)/2 {
			return used, fmt.Errorf("a frame of %d bytes", n)
		}
		if n > len(h) {
			return used, nil
		}
		op := frame.Op(binary.BigEndian.Uint32(h[8:]))
		body := h[frame.HeaderLen:n]
		switch {
		case op == frame.OpBatch:
			if _, err := f.frames(i, body, at); err != nil {
				return used, err
			}
		case op >= frame.OpApplication:
			if f.tally != nil {
				if p, ok := parse(body); ok {
					f.tally.add(i, p, at)
				} else {
					f.tally.count.alien++
				}
			}
		case op == frame.OpAuthReply:
			if strings.HasPrefix(string(body), `{"error"`) {
				return used, fmt.Errorf("log-in refused: %s", body)
			}
			f.settle(i)
		}
		used += n
	}
	return used, nil
}
