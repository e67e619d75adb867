// Package transport accepts connections and turns their bytes into frames: TCP and WebSocket, plain and over
// TLS. It owns reading; a session owns writing.
//
// A connection has one goroutine. While idle it is parked in RawConn.Read with a small stack and no buffer; buffers are
// taken from pools when there is something to read. TLS has no raw reads: its reader blocks with a few bytes.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/halley-im/halley/comet/internal/outbox"
	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Handler is what frames are for.
type Handler interface {
	// Open makes a session of a connection and puts it into the table.
	Open(conn net.Conn, tr session.Transport) *session.Session
	// Frame handles one frame, in the reader's goroutine. The body is valid during the call only. It queues
	// answers; the reader flushes.
	Frame(s *session.Session, f frame.Frame)
	// Refused counts a connection that was turned away.
	Refused(code *errcode.Code)
}

// Config holds what the transports need to know.
type Config struct {
	// Origins that browsers may come from: "*", or hosts with an optional leading "*."; empty: the host asked for.
	Origins []string
	// ThisMachineOnly refuses browsers that asked for another host than this machine, where Origins is empty.
	ThisMachineOnly bool
	// Proxies whose X-Forwarded-For is believed.
	Proxies []netip.Prefix
	// FrameTimeout is how long a frame may take from its first byte to its last.
	FrameTimeout time.Duration
	KeepAlive    time.Duration
	// SendBuffer is the kernel's buffer for what a client hasn't taken yet, in bytes; 0: the kernel's choice.
	SendBuffer int
	TLS        *tls.Config
}

// Server accepts connections. Use New.
type Server struct {
	cfg     Config
	gate    *Gate
	h       Handler
	log     *slog.Logger
	readers sync.WaitGroup
	// refusing bounds the connections that are let in only to be told why they can't stay.
	refusing chan struct{}
}

// maxRefusing is how many of those there may be at once; more are closed without a word. No setting: it is a courtesy, on top of
// max_connections, and must stay small beside it.
const maxRefusing = 256

// New returns a server; it starts nothing.
func New(cfg Config, gate *Gate, h Handler, log *slog.Logger) *Server {
	return &Server{cfg: cfg, gate: gate, h: h, log: log, refusing: make(chan struct{}, maxRefusing)}
}

// Wait returns when no connection has a reader any more.
func (t *Server) Wait() { t.readers.Wait() }

// Serve accepts connections from ln until ln is closed or ctx ends, and closes it. Errors of Accept, such as
// too many open files, are waited out.
func (t *Server) Serve(ctx context.Context, ln net.Listener, tr session.Transport) {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close()
	t.boundSendBuffer(ln)
	// As net/http does it: what is short (file descriptors) is back when somebody leaves.
	const maxWait = time.Second
	wait := 5 * time.Millisecond
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			t.log.Warn("accept failed", "transport", tr.String(), "err", err, "wait", wait)
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = min(2*wait, maxWait)
			continue
		}
		wait = 5 * time.Millisecond
		t.accept(conn, tr)
	}
}

// boundSendBuffer bounds the kernel's send buffer of ln's connections, which inherit it. Left to itself it grows
// to megabytes for each client that doesn't read, and a socket counts as writable only when a third of it is
// free: a slow but steady reader would look like one that makes no progress.
func (t *Server) boundSendBuffer(ln net.Listener) {
	sc, ok := ln.(syscall.Conn)
	if !ok || t.cfg.SendBuffer <= 0 {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		if err := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, t.cfg.SendBuffer); err != nil {
			t.log.Warn("send buffer not set", "err", err)
		}
	})
}

func (t *Server) accept(conn net.Conn, tr session.Transport) {
	code := t.gate.Enter()
	if code != nil {
		t.h.Refused(code)
		select {
		case t.refusing <- struct{}{}:
		default:
			conn.Close()
			return
		}
	}
	if tcp, ok := conn.(*net.TCPConn); ok && t.cfg.KeepAlive > 0 {
		tcp.SetKeepAlivePeriod(t.cfg.KeepAlive)
	}
	if tr.TLS {
		conn = tls.Server(conn, t.cfg.TLS)
	}
	s := t.h.Open(conn, tr)
	s.Entered = code == nil
	t.readers.Add(1)
	go t.begin(s, code)
}

// begin takes a connection to the point where frames can be read. refusal is why it can't stay.
func (t *Server) begin(s *session.Session, refusal *errcode.Code) {
	ctx := context.Background()
	s.Remote = hostOf(s.Conn().RemoteAddr())
	if c, ok := s.Conn().(*tls.Conn); ok {
		// The session's own deadline ends a handshake that hangs.
		if err := c.HandshakeContext(ctx); err != nil {
			t.finished(s, "tls_handshake")
			return
		}
	}
	var wc *wsConn
	if s.Transport.WS {
		var err error
		if wc, err = t.upgrade(s); err != nil {
			t.finished(s, "upgrade")
			return
		}
	}
	if refusal == nil {
		if refusal = t.gate.Admit(s); refusal != nil {
			t.h.Refused(refusal)
		}
	}
	if refusal != nil {
		s.Refuse(outbox.NewPush(frame.OpEvent, closingBody(refusal), outbox.RankUrgent, outbox.Control), session.Cause{Code: refusal})
	}
	// A new goroutine, for the stack of this one has grown.
	if wc != nil {
		go t.serveWS(s, wc)
	} else {
		go t.serveTCP(s)
	}
}

// finished ends a reader.
func (t *Server) finished(s *session.Session, reason string) {
	s.Finished(reason)
	if !s.Entered {
		<-t.refusing
	}
	t.gate.Leave(s)
	t.readers.Done()
}

// fresh is how long a reader must have been parked for its next pause to be worth a fresh stack.
const fresh = int64(time.Second)

// parkAnew reports whether the reader should go on in a new goroutine: what it just did has grown its stack,
// which nothing but the garbage collector would shrink while it is parked. One that is busy keeps it.
func parkAnew(s *session.Session, now int64) bool {
	idle := now - s.Reader.Woke
	s.Reader.Woke = now
	return idle > fresh
}

func closingBody(code *errcode.Code) []byte {
	return session.EventBody(&halleyv1.Event{Event: &halleyv1.Event_Closing{Closing: &halleyv1.Closing{Error: errcode.Proto(code)}}})
}

func hostOf(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().String()
	}
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return host
}
