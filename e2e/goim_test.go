package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/halley-im/halley/proto/frame"
)

// The cases of goim's conformance list, by their ids: F frames, W WebSocket, P pushes, S sessions and rooms,
// O online counts, N nodes, C two comets, L the older API. All of them run on one node and on two comets, where a case's
// connections go to the one and the other in turn. Each has connections, mids, keys and rooms of its own, so
// all run at once.
//
// HALLEY_E2E_TCP, HALLEY_E2E_WS (host:port, comma-separated for several comets) and HALLEY_E2E_HTTP (URL) point
// the cases at a server that runs already, goim itself for instance; HALLEY_E2E_IDLE is the time in seconds
// after which it closes silent connections, without which F19 is left out.

// quietTime is how long nothing must come for a connection to count as quiet; closeTime is how soon the server
// must close one.
const (
	quietTime = 2500 * time.Millisecond
	// Below the handshake timeout, which closes whatever has not logged in.
	closeTime = 6 * time.Second
)

// site is where the cases run.
type site struct {
	tcp, ws []string // one address a comet
	http    string   // base URL of the push API
}

// goimCase is one row of the list. on says over what: T, W, or - for cases that choose themselves.
type goimCase struct {
	id, claim string
	on        string
	run       func(g *goim)
}

// goim is one case at work.
type goim struct {
	*testing.T
	site      site
	transport string
	// dials counts the case's connections.
	dials int
}

// start returns a case's beginnings; cases differ in the comet of their first connection.
func start(t *testing.T, s site, transport string) *goim {
	return &goim{T: t, site: s, transport: transport, dials: int(fresh())}
}

// siteFromEnv returns the server that the environment names.
func siteFromEnv() (site, bool) {
	base := os.Getenv("HALLEY_E2E_HTTP")
	if base == "" {
		return site{}, false
	}
	return site{
		tcp:  strings.Split(os.Getenv("HALLEY_E2E_TCP"), ","),
		ws:   strings.Split(os.Getenv("HALLEY_E2E_WS"), ","),
		http: strings.TrimSuffix(base, "/"),
	}, true
}

// goimSite returns the server of the environment, or starts one.
func goimSite(t *testing.T, comets int) site {
	t.Helper()
	if s, ok := siteFromEnv(); ok {
		if len(s.tcp) < comets || len(s.ws) < comets {
			t.Skipf("HALLEY_E2E_TCP and HALLEY_E2E_WS name fewer than %d comets", comets)
		}
		return s
	}
	if comets == 1 {
		n := StartAll(t, Open())
		return site{tcp: []string{n.TCP}, ws: []string{n.WS}, http: n.HTTP}
	}
	s := StartCluster(t, Size{Comets: comets, Logics: 1, Routers: 1, Jobs: 1}, Open()).site()
	// A new cluster holds pushes back until it knows who is there: the backlog of a case's 300 pushes of 4 KB, let go in
	// one burst, is more than an outbox takes.
	start(t, s, "tcp").roundTrip([]byte("known"))
	return s
}

// site returns where a cluster's cases run.
func (c *Cluster) site() site {
	s := site{http: c.Logics[0].HTTP}
	for _, n := range c.Comets {
		s.tcp = append(s.tcp, n.TCP)
		s.ws = append(s.ws, n.WS)
	}
	return s
}

// runGoim runs cases as parallel subtests named "F01 claim/tcp".
func runGoim(t *testing.T, s site, cases ...[]goimCase) {
	t.Run("cases", func(t *testing.T) {
		for _, table := range cases {
			for _, c := range table {
				t.Run(c.id+" "+c.claim, func(t *testing.T) {
					t.Parallel()
					if c.on == "-" {
						c.run(start(t, s, "tcp"))
						return
					}
					for _, on := range c.on {
						transport := map[rune]string{'T': "tcp", 'W': "ws"}[on]
						t.Run(transport, func(t *testing.T) {
							t.Parallel()
							c.run(start(t, s, transport))
						})
					}
				})
			}
		}
	})
}

func TestGoimOneNode(t *testing.T) {
	s := goimSite(t, 1)
	idleRoom(t, s)
	runGoim(t, s, frameCases, webSocketCases, pushCases, sessionCases, onlineCases, oldAPICases)
}

func TestGoimTwoComets(t *testing.T) {
	s := goimSite(t, 2)
	idleRoom(t, s)
	runGoim(t, s, twoCometCases, frameCases, webSocketCases, pushCases, sessionCases, onlineCases, oldAPICases)
}

// idleRoom is case P26: before the others and alone, since it measures a time. A member at each comet hears the push.
func idleRoom(t *testing.T, s site) {
	t.Run("P26 a push to an idle room arrives within 300 ms", func(t *testing.T) {
		for _, transport := range []string{"tcp", "ws"} {
			t.Run(transport, func(t *testing.T) {
				g := start(t, s, transport)
				id := freshName()
				var conns []*Conn
				for range s.tcp {
					conns = append(conns, g.login(tok{"mid": fresh(), "room_id": "live://" + id}))
				}
				// One of them at least: a machine that does something else just then makes one late, and not the server.
				var took time.Duration
				for range 5 {
					g.quiet(conns...)
					begin := time.Now()
					g.pushRoom(1000, []byte("now"), "live", id)
					for _, c := range conns {
						g.hears(c, 1000, []byte("now"))
					}
					if took = time.Since(begin); took <= 300*time.Millisecond {
						return
					}
				}
				t.Errorf("came after %v", took)
			})
		}
	})
}

var unique atomic.Int64

func init() { unique.Store(time.Now().UnixNano() / 1000 % 1e9) }

// fresh returns a number that no other case uses; it is a mid, and the end of names.
func fresh() int64 { return unique.Add(1) }

func freshKey() string  { return fmt.Sprintf("key-%d", fresh()) }
func freshName() string { return fmt.Sprintf("n%d", fresh()) }

// freshOp returns an application op of the case's own.
func freshOp() frame.Op { return frame.Op(100_000 + fresh()%1_000_000_000) }

// tok is goim's token.
type tok map[string]any

// nextComet returns the comets in turn.
func (g *goim) nextComet() int {
	g.dials++
	return g.dials % len(g.site.tcp)
}

// dial connects over the case's transport to the next comet.
func (g *goim) dial() *Conn { return g.dialTo(g.nextComet(), g.transport) }

func (g *goim) dialTo(comet int, transport string) *Conn {
	g.Helper()
	var c *Conn
	var err error
	if transport == "ws" {
		c, err = DialWS(g.site.ws[comet], "/sub", nil)
	} else {
		c, err = DialTCP(g.site.tcp[comet])
	}
	if err != nil {
		g.Fatalf("connect over %s: %v", transport, err)
	}
	g.Cleanup(c.Close)
	return c
}

// login connects with a token over the case's transport to the next comet.
func (g *goim) login(token tok) *Conn { return g.loginOver(g.transport, token) }

func (g *goim) loginOver(transport string, token tok) *Conn {
	g.Helper()
	return g.loginTo(g.nextComet(), transport, token)
}

func (g *goim) loginTo(comet int, transport string, token tok) *Conn {
	g.Helper()
	c := g.dialTo(comet, transport)
	g.auth(c, token)
	return c
}

func (g *goim) auth(c *Conn, token tok) {
	g.Helper()
	g.send(c, frame.OpAuth, 1, jsonBytes(token))
	g.expect(c, frame.OpAuthReply, 1)
}

func jsonBytes(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only plain values are given
	}
	return b
}

func (g *goim) send(c *Conn, op frame.Op, seq int32, body []byte) {
	g.Helper()
	if err := c.Send(op, seq, body); err != nil {
		g.Fatalf("send op %d: %v", op, err)
	}
}

// next returns the next frame, which must come.
func (g *goim) next(c *Conn) Frame {
	g.Helper()
	f, err := c.Next(waitTime)
	if err != nil {
		g.Fatalf("waiting for a frame over %s: %v (control frames %v)", c.Transport, err, c.Control)
	}
	if f.Text {
		g.Fatalf("got a text message: %v", f)
	}
	return f
}

// expect returns the next frame, which must be a reply of op with seq: over WebSocket not in a batch.
func (g *goim) expect(c *Conn, op frame.Op, seq int32) Frame {
	g.Helper()
	f := g.next(c)
	if f.Op != op || f.Seq != seq || f.Wrapped {
		g.Fatalf("got %v (wrapped %v), want op %d seq %d", f, f.Wrapped, op, seq)
	}
	return f
}

// hears returns the next frame, which must be a push of op with this body, wrapped over WebSocket only.
func (g *goim) hears(c *Conn, op frame.Op, body []byte) {
	g.Helper()
	f := g.next(c)
	g.isPush(c, f, op)
	if !bytes.Equal(f.Body, body) {
		g.Fatalf("got %v, want op %d with a body of %d bytes %.60q", f, op, len(body), body)
	}
}

func (g *goim) isPush(c *Conn, f Frame, op frame.Op) {
	g.Helper()
	if f.Op != op || f.Ver != 1 || f.Seq != 0 {
		g.Fatalf("got %v, want a push of op %d, ver 1, seq 0", f, op)
	}
	if want := c.Transport == "ws"; f.Wrapped != want {
		g.Fatalf("push in a batch: got %v, want %v", f.Wrapped, want)
	}
	if f.Wrapped && (f.BatchVer != 1 || f.BatchSeq != 0) {
		g.Fatalf("batch header: got ver %d seq %d, want 1 and 0", f.BatchVer, f.BatchSeq)
	}
}

// quiet checks that nothing comes to any of the connections, and that they live.
func (g *goim) quiet(conns ...*Conn) {
	g.Helper()
	end := time.Now().Add(quietTime)
	for _, c := range conns {
		if f, err := c.Next(max(time.Until(end), 10*time.Millisecond)); !errors.Is(err, ErrTimeout) {
			g.Fatalf("got %v, %v; want no frame", f, err)
		}
	}
	for _, c := range conns {
		g.alive(c)
	}
}

// alive checks that a heartbeat is answered, and returns the count that the answer carries.
func (g *goim) alive(c *Conn) int32 {
	g.Helper()
	seq := c.NextSeq() + 1000
	g.send(c, frame.OpHeartbeat, seq, nil)
	return online(g, g.expect(c, frame.OpHeartbeatReply, seq))
}

func online(g *goim, f Frame) int32 {
	g.Helper()
	if len(f.Body) != 4 {
		g.Fatalf("heartbeat reply: got %v, want a body of 4 bytes", f)
	}
	return int32(uint32(f.Body[0])<<24 | uint32(f.Body[1])<<16 | uint32(f.Body[2])<<8 | uint32(f.Body[3]))
}

// closed checks that the server closes the connection without a frame.
func (g *goim) closed(c *Conn) { g.Helper(); g.closedWithin(c, closeTime) }

func (g *goim) closedWithin(c *Conn, limit time.Duration) {
	g.Helper()
	f, err := c.Next(limit)
	switch {
	case err == nil:
		g.Fatalf("got %v, want the connection closed without a frame", f)
	case errors.Is(err, ErrTimeout):
		g.Fatalf("not closed within %v", limit)
	case !Closed(err):
		g.Fatalf("not closed in an orderly way: %v", err)
	}
}

// answer is an answer of goim's API.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	Code    *int            `json:"code"`
	Message *string         `json:"message"`
	Data    json.RawMessage `json:"data"`
	Ret     *int            `json:"ret"`
}

var goimHTTP = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// call makes a request of the API.
func (g *goim) call(method, path string, query url.Values, contentType string, body []byte) answer {
	g.Helper()
	a, err := g.tryCall(method, path, query, contentType, body)
	if err != nil {
		g.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// tryCall is call for goroutines, which may not end the test.
func (g *goim) tryCall(method, path string, query url.Values, contentType string, body []byte) (answer, error) {
	target := g.site.http + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(g.Context(), method, target, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := goimHTTP.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		return answer{}, err
	}
	_ = json.Unmarshal(a.body, &a) // plain text is checked by those who expect it
	return a, nil
}

// done checks the answer of a push that went well.
func (g *goim) done(a answer) {
	g.Helper()
	if a.status != 200 || a.Code == nil || *a.Code != 0 || a.Message == nil || *a.Message != "" || a.Data != nil {
		g.Fatalf(`got HTTP %d %s, want 200 {"code":0,"message":""}`, a.status, a.body)
	}
}

// refused checks the answer to a missing or malformed parameter.
func (g *goim) refused(what string, a answer) {
	g.Helper()
	if a.status != 400 || a.Code == nil || *a.Code != -400 || a.Message == nil || *a.Message == "" {
		g.Errorf("%s: got HTTP %d %s, want 400 with code -400 and a message", what, a.status, a.body)
	}
}

func (g *goim) pushKeys(op frame.Op, body []byte, keys ...string) {
	g.Helper()
	g.done(g.call("POST", "/goim/push/keys", url.Values{"operation": {opText(op)}, "keys": keys}, "", body))
}

func (g *goim) pushMids(op frame.Op, body []byte, mids ...int64) {
	g.Helper()
	q := url.Values{"operation": {opText(op)}}
	for _, m := range mids {
		q.Add("mids", strconv.FormatInt(m, 10))
	}
	g.done(g.call("POST", "/goim/push/mids", q, "", body))
}

func roomQuery(op frame.Op, typ, id string) url.Values {
	return url.Values{"operation": {opText(op)}, "type": {typ}, "room": {id}}
}

func (g *goim) pushRoom(op frame.Op, body []byte, typ, id string) {
	g.Helper()
	g.done(g.call("POST", "/goim/push/room", roomQuery(op, typ, id), "", body))
}

func opText(op frame.Op) string { return strconv.Itoa(int(op)) }

// within asks until ok says yes.
func (g *goim) within(limit time.Duration, what string, ok func() bool) {
	g.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			g.Fatalf("not within %v: %s", limit, what)
		}
	}
}
