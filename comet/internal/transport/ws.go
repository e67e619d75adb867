package transport

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"github.com/halley-im/halley/comet/internal/outbox"
	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/kit/loopback"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
)

var errShort = errors.New("message shorter than its frame")

// wsInput is what a reader needs while there is something to read.
type wsInput struct {
	pre  [512]byte // what was read to find out that there is something
	r, w int
	br   *bufio.Reader
	hdr  [frame.HeaderLen]byte
	body [512]byte
}

var wsInputs = sync.Pool{New: func() any { return &wsInput{br: bufio.NewReaderSize(nil, 1024)} }}

// wsConn is what gorilla/websocket sees of a connection: it reads through it, so that an idle connection needs
// no read buffer, and what it writes on its own is dropped, for frames are the outbox's to write.
type wsConn struct {
	net.Conn
	s  *session.Session
	t  *Server
	in *wsInput
	gc *websocket.Conn
	// br is the reader that gorilla was given. It is empty, without a buffer, while the connection is idle.
	br bufio.Reader
	// upgraded is set once the answer to the upgrade is written.
	upgraded bool
	// inMessage is set between a message's beginning and end; boundary when a control frame outside a message
	// was read and nothing came after it: waiting is then no half frame.
	inMessage, boundary bool
	failed              error // of the connection, not of the protocol
}

func (c *wsConn) Read(p []byte) (int, error) {
	if in := c.in; in.r < in.w {
		n := copy(p, in.pre[in.r:in.w])
		in.r += n
		return n, nil
	}
	if c.boundary {
		c.s.ReadBy(0)
	}
	n, err := c.Conn.Read(p)
	if c.boundary {
		c.boundary = false
		c.s.ReadBy(session.Now() + int64(c.t.cfg.FrameTimeout))
	}
	if err != nil {
		c.failed = err
	}
	return n, err
}

func (c *wsConn) Write(p []byte) (int, error) {
	if c.upgraded {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// Deadlines are the session's: gorilla sets them for writes that it doesn't make.
func (c *wsConn) SetDeadline(time.Time) error      { return nil }
func (c *wsConn) SetWriteDeadline(time.Time) error { return nil }

// attach gives gorilla's reader a buffer; detach takes it away.
func (c *wsConn) attach(in *wsInput) {
	c.in = in
	in.br.Reset(c)
	c.br = *in.br
}

func (c *wsConn) detach() {
	in := c.in
	c.in = nil
	c.br = bufio.Reader{}
	in.br.Reset(nil)
	in.r, in.w = 0, 0
	wsInputs.Put(in)
}

// httpSide is what reading the upgrade request needs.
type httpSide struct {
	lim io.LimitedReader
	br  *bufio.Reader
	bw  *bufio.Writer
}

// maxHeaderBytes bounds the upgrade request. No setting: proxies and browsers keep well below, the usual limit of headers is 8 KB.
const maxHeaderBytes = 16 << 10

var httpSides = sync.Pool{New: func() any {
	return &httpSide{br: bufio.NewReaderSize(nil, 4096), bw: bufio.NewWriterSize(nil, 512)}
}}

var writeBuffers sync.Pool

// upgrade reads the HTTP request and answers it.
func (t *Server) upgrade(s *session.Session) (*wsConn, error) {
	side := httpSides.Get().(*httpSide)
	defer func() {
		side.lim.R = nil
		side.br.Reset(nil)
		side.bw.Reset(nil)
		httpSides.Put(side)
	}()
	side.lim = io.LimitedReader{R: s.Conn(), N: maxHeaderBytes}
	side.br.Reset(&side.lim)
	r, err := http.ReadRequest(side.br)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			refuseHTTP(s.Conn(), http.StatusBadRequest)
		}
		return nil, err
	}
	if r.URL.Path != "/sub" && r.URL.Path != "/" {
		refuseHTTP(s.Conn(), http.StatusNotFound)
		return nil, errors.New("no such path")
	}
	if side.br.Buffered() > 0 {
		refuseHTTP(s.Conn(), http.StatusBadRequest)
		return nil, errors.New("data before the upgrade was answered")
	}
	s.Remote = t.clientAddr(s.Remote, r.Header)

	wc := &wsConn{Conn: s.Conn(), s: s, t: t}
	wc.attach(wsInputs.Get().(*wsInput))
	defer wc.detach()
	u := websocket.Upgrader{
		// With no size of its own, gorilla takes the reader that hijacking hands over: wc.br.
		ReadBufferSize:  0,
		WriteBufferSize: 256,
		WriteBufferPool: &writeBuffers,
		CheckOrigin:     t.originAllowed,
	}
	w := &response{wc: wc, brw: bufio.NewReadWriter(&wc.br, side.bw)}
	gc, err := u.Upgrade(w, r, nil)
	if err != nil {
		return nil, err
	}
	wc.upgraded = true
	wc.gc = gc
	gc.SetPingHandler(func(payload string) error {
		wc.control()
		s.Control(outbox.NewPong([]byte(payload)))
		return nil
	})
	gc.SetPongHandler(func(string) error {
		wc.control()
		return nil
	})
	gc.SetCloseHandler(func(int, string) error { return nil })
	return wc, nil
}

// control notes that a control frame was read.
func (c *wsConn) control() {
	c.boundary = !c.inMessage && c.br.Buffered() == 0 && c.in.r == c.in.w
}

// response lets gorilla answer an upgrade request that was read without net/http's server, whose buffers and
// goroutines a connection would pay for.
type response struct {
	wc     *wsConn
	brw    *bufio.ReadWriter
	header http.Header
	code   int
}

func (w *response) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

func (w *response) WriteHeader(code int) { w.code = code }

func (w *response) Write(p []byte) (int, error) {
	fmt.Fprintf(w.wc.Conn, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: %d\r\n", w.code, http.StatusText(w.code), len(p))
	w.header.Write(w.wc.Conn)
	io.WriteString(w.wc.Conn, "\r\n")
	return w.wc.Conn.Write(p)
}

func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.wc, w.brw, nil }

func refuseHTTP(c net.Conn, code int) {
	text := http.StatusText(code)
	fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s\n", code, text, len(text)+1, text)
}

// originAllowed keeps other sites' pages out: a browser says where the page came from (RFC 6455 section 10.2).
func (t *Server) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	_, host, ok := strings.Cut(origin, "://")
	if !ok {
		host = origin
	}
	if len(t.cfg.Origins) == 0 {
		// A page whose host name was made to lead to this machine is of the host that it asks for.
		if t.cfg.ThisMachineOnly && !loopback.Host(r.Host) {
			return false
		}
		// localhost and 127.0.0.1 are one host, by whichever name the page was opened and comet was found.
		return strings.EqualFold(onlyHost(host), onlyHost(r.Host)) || loopback.Host(host) && loopback.Host(r.Host)
	}
	for _, o := range t.cfg.Origins {
		switch {
		case o == "*", strings.EqualFold(o, origin), strings.EqualFold(o, host):
			return true
		case strings.HasPrefix(o, "*."):
			if h := onlyHost(host); len(h) > len(o)-1 && strings.EqualFold(h[len(h)-len(o)+1:], o[1:]) {
				return true
			}
		}
	}
	return false
}

// onlyHost cuts the port off.
func onlyHost(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return hostport
}

// clientAddr returns the address that the client has: its connection's, or, as far as proxies are trusted, the
// right-most address of X-Forwarded-For that isn't theirs.
func (t *Server) clientAddr(peer string, h http.Header) string {
	if len(t.cfg.Proxies) == 0 || !t.trusted(peer) {
		return peer
	}
	var hops []string
	for _, v := range h.Values("X-Forwarded-For") {
		hops = append(hops, strings.Split(v, ",")...)
	}
	addr := peer
	for i := len(hops) - 1; i >= 0; i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = a.Unmap().String()
		if !t.trusted(addr) {
			break
		}
	}
	return addr
}

func (t *Server) trusted(addr string) bool {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return false
	}
	for _, p := range t.cfg.Proxies {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// wsPark waits until a connection can be read, and reads a little into an input that it takes from the pool then.
type wsPark struct {
	in  *wsInput
	n   int
	err error
}

func (p *wsPark) read(fd uintptr) bool {
	if p.in == nil {
		p.in = wsInputs.Get().(*wsInput)
	}
	for {
		p.n, p.err = syscall.Read(int(fd), p.in.pre[:])
		if p.err != syscall.EINTR {
			break
		}
	}
	if p.err == syscall.EAGAIN {
		wsInputs.Put(p.in)
		p.in = nil
		return false
	}
	return true
}

func parkWS(s *session.Session) (*wsInput, error) {
	raw := s.Raw()
	if raw == nil {
		small := make([]byte, 2)
		n, err := s.Conn().Read(small)
		if err != nil {
			return nil, err
		}
		in := wsInputs.Get().(*wsInput)
		in.r, in.w = 0, copy(in.pre[:], small[:n])
		return in, nil
	}
	var p wsPark
	err := raw.Read(p.read)
	if err == nil {
		err = p.err
	}
	if err == nil && p.n == 0 {
		err = io.EOF
	}
	if err != nil {
		if p.in != nil {
			wsInputs.Put(p.in)
		}
		return nil, err
	}
	p.in.r, p.in.w = 0, p.n
	return p.in, nil
}

// serveWS reads a session until its end. It ends in a goroutine of its own name when it parks anew.
func (t *Server) serveWS(s *session.Session, wc *wsConn) {
	for {
		in, err := parkWS(s)
		if err != nil {
			t.finished(s, reasonOf(err))
			return
		}
		now := session.Now()
		wc.attach(in)
		err = t.messages(s, wc, now)
		wc.detach()
		if err != nil {
			t.endWS(s, wc, err)
			return
		}
		if parkAnew(s, now) {
			go t.serveWS(s, wc)
			return
		}
	}
}

// messages handles messages until nothing is left in the buffer. It never leaves gorilla in the middle of a
// frame: bytes in a buffer wake nobody.
func (t *Server) messages(s *session.Session, wc *wsConn, now int64) error {
	defer s.Flush(nil)
	for {
		s.ReadBy(now + int64(t.cfg.FrameTimeout))
		if err := t.message(s, wc); err != nil {
			return err
		}
		if wc.br.Buffered() == 0 && wc.in.r == wc.in.w {
			s.ReadBy(0)
			return nil
		}
		now = session.Now()
	}
}

// message reads one message: a frame, and whatever is behind it in the message, which is ignored.
func (t *Server) message(s *session.Session, wc *wsConn) error {
	in := wc.in
	lim := limit(s)
	if s.Reader.Authed {
		wc.gc.SetReadLimit(frame.HeaderLen + frame.MaxRequestBody)
	} else {
		wc.gc.SetReadLimit(frame.HeaderLen + frame.MaxAuthBody)
	}
	_, r, err := wc.gc.NextReader()
	if err != nil {
		return err
	}
	wc.inMessage = true
	defer func() { wc.inMessage = false }()
	if err := readFull(r, in.hdr[:]); err != nil {
		return err
	}
	f, size, err := frame.Parse(in.hdr[:], lim)
	if err != nil && !errors.Is(err, frame.ErrIncomplete) {
		return err
	}
	if n := size - frame.HeaderLen; n > 0 {
		if n <= len(in.body) {
			f.Body = in.body[:n:n]
		} else if f.Body, err = growing(r, n); err != nil {
			return err
		}
		if n <= len(in.body) {
			if err := readFull(r, f.Body); err != nil {
				return err
			}
		}
		// Parse leaves these out as long as the body isn't there.
		f.Ver, f.Op, f.Seq = header(in.hdr[:])
	}
	for {
		// To the message's end, so that none of it is left when the reader parks.
		if _, err := r.Read(in.hdr[:]); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	t.h.Frame(s, f)
	s.Throttle()
	return nil
}

// growing reads n bytes without believing that they will come: memory is taken as they do.
func growing(r io.Reader, n int) ([]byte, error) {
	b := make([]byte, min(n, 16<<10))
	have := 0
	for {
		if err := readFull(r, b[have:]); err != nil {
			return nil, err
		}
		if have = len(b); have == n {
			return b, nil
		}
		next := make([]byte, min(n, 4*have))
		copy(next, b)
		b = next
	}
}

// header returns the fields of a frame's header.
func header(h []byte) (ver int16, op frame.Op, seq int32) {
	f, _, _ := frame.Parse([]byte{
		0, 0, 0, frame.HeaderLen, h[4], h[5], h[6], h[7], h[8], h[9], h[10], h[11], h[12], h[13], h[14], h[15],
	}, nil)
	return f.Ver, f.Op, f.Seq
}

// readFull reads the whole of b from a message; one that ends before is errShort.
func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errShort
	}
	return err
}

// endWS ends a session whose reading ended: the client's close frame is answered, its mistakes are named.
func (t *Server) endWS(s *session.Session, wc *wsConn, err error) {
	var ce *websocket.CloseError
	c := session.Cause{Code: errcode.InvalidFrame, Quiet: true}
	reason := "client_closed"
	switch {
	case wc.failed != nil:
		t.finished(s, reasonOf(wc.failed))
		return
	case errors.As(err, &ce):
		// RFC 6455 section 5.5.1: the code comes back.
		c.CloseCode = ce.Code
		if ce.Code == websocket.CloseNoStatusReceived {
			c.CloseCode = -1
		}
		c.Reason = reason
	case errors.Is(err, websocket.ErrReadLimit), errors.Is(err, frame.ErrTooLarge):
		c.Code = errcode.TooLarge
		reason = c.Code.Name
	default:
		reason = c.Code.Name
	}
	s.Close(c)
	discard(s)
	t.finished(s, reason)
}
