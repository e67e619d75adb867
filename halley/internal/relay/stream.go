package relay

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// maxFrame is the largest message of TURN that is read from a stream, one byte below the buffer that pion reads into.
const maxFrame = inboundMTU - 1

const inboundMTU = 1600

// acceptPause is how long to wait when connections can't be accepted, as while there are no files left.
const acceptPause = 100 * time.Millisecond

var errFrame = errors.New("not TURN")

// listener hands pion the connections of a stream listener, bounds how many there are and closes them at the end: pion gives a listener up at its first
// error, and leaves connections as they are when it is closed.
type listener struct {
	net.Listener
	s      *Server
	closed chan struct{}
	once   sync.Once
}

func (s *Server) listener(l net.Listener) *listener {
	return &listener{Listener: l, s: s, closed: make(chan struct{})}
}

// Accept returns the next connection; an error only when the listener was closed.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil:
			l.s.log.Warn("accept", "err", err)
			select {
			case <-l.closed:
				return nil, net.ErrClosed
			case <-time.After(acceptPause):
			}
			continue
		}
		if st := l.s.adopt(c); st != nil {
			return st, nil
		}
		l.s.metrics.refused.WithLabelValues("connections").Inc()
		c.Close()
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// stream is a TCP or TLS connection. Each Read returns one whole message, so that whoever sends byte by byte keeps only this buffer busy.
type stream struct {
	net.Conn
	s      *Server
	r      *bufio.Reader
	login  atomic.Int64 // until when it must have a relay, in Unix nanoseconds
	relays atomic.Int32 // that it has
	once   sync.Once
}

// adopt takes a connection on; nil if there are too many, or the server stops.
func (s *Server) adopt(c net.Conn) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || len(s.streams) >= s.cfg.MaxConnections {
		return nil
	}
	st := &stream{Conn: c, s: s, r: bufio.NewReaderSize(c, inboundMTU)}
	st.login.Store(time.Now().Add(s.cfg.LoginTimeout).UnixNano())
	s.streams[place(c.RemoteAddr())+" "+c.LocalAddr().String()] = st
	s.wg.Add(1)
	s.metrics.connections.Inc()
	return st
}

// Read reads the next message: STUN (RFC 8489 section 5) or channel data, padded to four bytes as on every stream (RFC 8656 section 12.5).
func (st *stream) Read(p []byte) (int, error) {
	deadline := time.Unix(0, st.login.Load())
	if st.relays.Load() > 0 {
		deadline = time.Now().Add(st.s.cfg.IdleTimeout)
	}
	if err := st.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	head, err := st.r.Peek(4)
	if err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(head[2:]))
	switch head[0] >> 6 {
	case 0:
		n += 20
	case 1:
		n = (n+3)&^3 + 4
	default:
		return 0, errFrame
	}
	if n > maxFrame || n > len(p) {
		return 0, errFrame
	}
	return io.ReadFull(st.r, p[:n])
}

// Write writes one message. A connection that takes none, or a part, is closed: nobody could tell where the next one begins.
func (st *stream) Write(p []byte) (int, error) {
	if err := st.SetWriteDeadline(time.Now().Add(st.s.cfg.WriteTimeout)); err != nil {
		return 0, err
	}
	n, err := st.Conn.Write(p)
	if err != nil {
		st.cut()
	}
	return n, err
}

// cut ends the connection at once. TLS would say so first, and wait for who doesn't listen.
func (st *stream) cut() {
	if t, ok := st.Conn.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	st.Conn.Close()
}

// Close is pion's last word on a connection: it has ended what it started for it.
func (st *stream) Close() error {
	st.once.Do(func() {
		st.s.mu.Lock()
		delete(st.s.streams, place(st.RemoteAddr())+" "+st.LocalAddr().String())
		st.s.mu.Unlock()
		st.s.metrics.connections.Dec()
		st.s.wg.Done()
	})
	return st.Conn.Close()
}

// packets is the UDP listener: an error that isn't its end must not end pion's only reader.
type packets struct{ net.PacketConn }

func (c packets) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(p)
		if err == nil || errors.Is(err, net.ErrClosed) {
			return n, from, err
		}
		time.Sleep(acceptPause / 100)
	}
}
