package transport

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"syscall"

	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
)

// tcpInput is what a reader needs while there is something to read. It holds the largest frame that isn't a request.
type tcpInput struct {
	buf [frame.HeaderLen + frame.MaxBody]byte
}

var tcpInputs = sync.Pool{New: func() any { return new(tcpInput) }}

// limit returns the largest body for an op in the session's state.
func limit(s *session.Session) func(frame.Op) int {
	if s.Reader.Authed {
		return frame.ClientLimit
	}
	return frame.HandshakeLimit
}

// tcpPark waits until a connection can be read and reads into an input that it takes from the pool then.
type tcpPark struct {
	in  *tcpInput
	n   int
	err error
}

func (p *tcpPark) read(fd uintptr) bool {
	if p.in == nil {
		p.in = tcpInputs.Get().(*tcpInput)
	}
	for {
		p.n, p.err = syscall.Read(int(fd), p.in.buf[:])
		if p.err != syscall.EINTR {
			break
		}
	}
	if p.err == syscall.EAGAIN {
		tcpInputs.Put(p.in)
		p.in = nil
		return false
	}
	return true
}

func parkTCP(s *session.Session) (*tcpInput, int, error) {
	raw := s.Raw()
	if raw == nil {
		// No more than a header: what lies decrypted inside the TLS connection wakes nobody, so nothing may be
		// read beyond the frame that is waited for.
		small := make([]byte, frame.HeaderLen)
		n, err := s.Conn().Read(small)
		if err != nil {
			return nil, 0, err
		}
		in := tcpInputs.Get().(*tcpInput)
		copy(in.buf[:], small[:n])
		return in, n, nil
	}
	var p tcpPark
	err := raw.Read(p.read)
	if err == nil {
		err = p.err
	}
	if err == nil && p.n == 0 {
		err = io.EOF
	}
	if err != nil {
		if p.in != nil {
			tcpInputs.Put(p.in)
		}
		return nil, 0, err
	}
	return p.in, p.n, nil
}

// serveTCP reads a session until its end. It ends in a goroutine of its own name when it parks anew.
func (t *Server) serveTCP(s *session.Session) {
	for {
		in, n, err := parkTCP(s)
		if err != nil {
			t.finished(s, reasonOf(err))
			return
		}
		now := session.Now()
		err = t.frames(s, in, n, now)
		tcpInputs.Put(in)
		if err != nil {
			if code := protocolError(err); code != nil {
				s.Close(session.Cause{Code: code, Quiet: true})
				discard(s)
				err = io.EOF
			}
			t.finished(s, reasonOf(err))
			return
		}
		if parkAnew(s, now) {
			go t.serveTCP(s)
			return
		}
	}
}

// frames handles the frames that begin with the first n bytes of in, and returns when nothing of a frame is
// left.
func (t *Server) frames(s *session.Session, in *tcpInput, n int, now int64) error {
	defer s.Flush(nil)
	b := in.buf[:n]
	timed := false
	for {
		for len(b) > 0 {
			f, size, err := frame.Parse(b, limit(s))
			if errors.Is(err, frame.ErrIncomplete) {
				if !timed {
					s.ReadBy(now + int64(t.cfg.FrameTimeout))
					timed = true
				}
				s.Flush(nil)
				if size > len(in.buf) {
					if b, err = t.large(s, in, b, size); err != nil {
						return err
					}
					continue
				}
				break
			}
			if err != nil {
				return err
			}
			t.h.Frame(s, f)
			s.Throttle()
			b = b[size:]
			if timed {
				timed = false
				now = session.Now()
				s.ReadBy(0)
			}
		}
		if len(b) == 0 {
			return nil
		}
		have := copy(in.buf[:], b)
		room := in.buf[have:]
		if s.Raw() == nil {
			room = room[:missing(in.buf[:have])]
		}
		n, err := s.Conn().Read(room)
		if err != nil {
			return err
		}
		b = in.buf[:have+n]
	}
}

// missing returns how many bytes the frame that b begins lacks, or its header.
func missing(b []byte) int {
	_, size, _ := frame.Parse(b, nil)
	if size == 0 {
		return frame.HeaderLen - len(b)
	}
	return size - len(b)
}

// large reads a frame that is larger than an input, handles it, and returns what is left: nothing.
func (t *Server) large(s *session.Session, in *tcpInput, have []byte, size int) ([]byte, error) {
	whole, err := growing(io.MultiReader(bytes.NewReader(have), s.Conn()), size)
	if err != nil {
		return nil, err
	}
	f, _, err := frame.Parse(whole, limit(s))
	if err != nil {
		return nil, err
	}
	t.h.Frame(s, f)
	s.Throttle()
	s.ReadBy(0)
	return nil, nil
}

// discard reads until the client hangs up or the session's grace has passed.
func discard(s *session.Session) {
	s.ReadBy(0)
	in := tcpInputs.Get().(*tcpInput)
	defer tcpInputs.Put(in)
	for {
		if _, err := s.Conn().Read(in.buf[:]); err != nil {
			return
		}
	}
}

// protocolError returns the code of an error that the client made, or nil for one of the connection.
func protocolError(err error) *errcode.Code {
	switch {
	case errors.Is(err, frame.ErrTooLarge):
		return errcode.TooLarge
	case errors.Is(err, frame.ErrHeaderLen), errors.Is(err, frame.ErrPackLen), errors.Is(err, errShort):
		return errcode.InvalidFrame
	}
	return nil
}

func reasonOf(err error) string {
	if errors.Is(err, io.EOF) {
		return "client_closed"
	}
	return "connection_lost"
}
