// Package dispatch carries out what clients send: a table of operations, the way of an auth frame, the queues
// of requests, and the effects that logic wants. Frames come in their session's reader; requests of signed
// sessions go on in goroutines of their own, which the Dispatcher waits for.
package dispatch

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/halley-im/halley/comet/internal/lease"
	"github.com/halley-im/halley/comet/internal/meter"
	"github.com/halley-im/halley/comet/internal/outbox"
	"github.com/halley-im/halley/comet/internal/rooms"
	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/comet/internal/table"
	"github.com/halley-im/halley/comet/internal/upstream"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Config holds what dispatching needs to know.
type Config struct {
	RequestTimeout time.Duration
	RequestQueue   int
	RequestRate    float64
	RequestBurst   int
	Upstream       bool
	// Unsigned lets auth bodies without a token through to logic.
	Unsigned bool
}

// Parts are what a Dispatcher works with.
type Parts struct {
	Table      *table.Table
	Rooms      *rooms.Store
	Lease      *lease.Lease
	Logic      *upstream.Logic
	Deregister *upstream.Deregister
	Metrics    *meter.Metrics
	Log        *slog.Logger
}

// Dispatcher carries out frames. Use New.
type Dispatcher struct {
	Parts
	cfg Config
	ops map[frame.Op]func(context.Context, *session.Session, frame.Frame)
	ctx context.Context
	end context.CancelFunc
	wg  sync.WaitGroup
}

// New returns a Dispatcher; it starts nothing.
func New(cfg Config, p Parts) *Dispatcher {
	d := &Dispatcher{Parts: p, cfg: cfg}
	d.ctx, d.end = context.WithCancel(context.Background())
	d.ops = map[frame.Op]func(context.Context, *session.Session, frame.Frame){
		frame.OpHeartbeat:        d.heartbeat,
		frame.OpHeartbeatReply:   d.heartbeat, // goim answers it alike
		frame.OpAuth:             d.authAgain,
		frame.OpChangeRoom:       d.changeRoom,
		frame.OpSubscribe:        d.subscribe,
		frame.OpUnsubscribe:      d.unsubscribe,
		frame.OpRequest:          d.request,
		frame.OpRequestUnordered: d.request,
		frame.OpRequestCall:      d.request,
	}
	return d
}

// Cancel ends the calls that are under way.
func (d *Dispatcher) Cancel() { d.end() }

// Wait waits for the goroutines of requests. No session is read from any more.
func (d *Dispatcher) Wait() { d.wg.Wait() }

// Frame handles one frame in the session's reader.
func (d *Dispatcher) Frame(s *session.Session, f frame.Frame) {
	if !d.allowed(s) {
		s.Close(session.Cause{Code: errcode.RateLimited})
		return
	}
	if !s.Reader.Authed {
		// goim: frames before the auth frame are dropped in silence.
		if f.Op == frame.OpAuth {
			// Not on the reader's own stack: the call would grow it to 8 KB, of which 4 stay for as long as the session reads.
			done := make(chan struct{})
			d.wg.Go(func() {
				defer close(done)
				d.connect(d.ctx, s, f)
			})
			<-done
		}
		return
	}
	if h, ok := d.ops[f.Op]; ok {
		h(d.ctx, s, f)
		return
	}
	if f.Op >= frame.OpApplication && d.cfg.Upstream {
		d.forward(d.ctx, s, f)
		return
	}
	s.Reply(outbox.NewReply(f.Ver, f.Op, f.Seq, nil))
}

// allowed takes a token of the session's bucket.
func (d *Dispatcher) allowed(s *session.Session) bool {
	if d.cfg.RequestRate <= 0 {
		return true
	}
	r := &s.Reader
	now := session.Now()
	burst := float32(max(d.cfg.RequestBurst, 1))
	if r.Filled == 0 {
		r.Tokens = burst
	} else {
		r.Tokens = min(r.Tokens+float32(float64(now-r.Filled)/1e9*d.cfg.RequestRate), burst)
	}
	r.Filled = now
	if r.Tokens < 1 {
		return false
	}
	r.Tokens--
	return true
}

// heartbeat answers with the online count of the session's goim room.
func (d *Dispatcher) heartbeat(_ context.Context, s *session.Session, f frame.Frame) {
	if f.Op == frame.OpHeartbeat {
		s.Alive(session.Now())
	}
	var count [4]byte
	if r := s.GoimRoom(); r != nil {
		binary.BigEndian.PutUint32(count[:], r.Count())
	}
	s.Reply(outbox.NewReply(f.Ver, frame.OpHeartbeatReply, f.Seq, count[:]))
}

// authAgain answers a second auth frame as goim does.
func (d *Dispatcher) authAgain(_ context.Context, s *session.Session, f frame.Frame) {
	s.Reply(outbox.NewReply(f.Ver, f.Op, f.Seq, nil))
}

func (d *Dispatcher) subscribe(_ context.Context, s *session.Session, f frame.Frame) {
	if ops, ok := parseOps(f.Body); ok {
		s.Accept(ops, true)
	}
	s.Reply(outbox.NewReply(f.Ver, frame.OpSubscribeReply, f.Seq, f.Body))
}

func (d *Dispatcher) unsubscribe(_ context.Context, s *session.Session, f frame.Frame) {
	if ops, ok := parseOps(f.Body); ok {
		s.Accept(ops, false)
	}
	s.Reply(outbox.NewReply(f.Ver, frame.OpUnsubscribeReply, f.Seq, f.Body))
}

// parseOps reads a list of decimal int32s with commas between, no blanks.
func parseOps(body []byte) ([]int32, bool) {
	if len(body) == 0 {
		return nil, false
	}
	var ops []int32
	for part := range bytes.SplitSeq(body, []byte{','}) {
		n, err := strconv.ParseInt(string(part), 10, 32)
		if err != nil {
			return nil, false
		}
		ops = append(ops, int32(n))
	}
	return ops, true
}

// resumed is how a connection ends that another one took over from: without a closing event, for its client asked for
// it. RFC 6455 section 7.4.1: 1000 is normal.
var resumed = session.Cause{Code: errcode.Replaced, Quiet: true, CloseCode: 1000, Reason: "resumed"}

// maxLinger is the longest time that such a connection lives on: clients keep what comes on the new one back for no longer.
// The protocol's, so no setting.
const maxLinger = 5 * time.Second

// Kick ends a session for the cluster.
func (d *Dispatcher) Kick(s *session.Session, k *halleyv1.Kick) {
	who := s.Who()
	if k.GetDeviceId() != "" && who.Device != k.GetDeviceId() {
		return
	}
	// Only a token has a time of issue; goim's sessions have none to be too old.
	if k.GetIssuedBeforeMs() != 0 && (!who.Signed || who.IssuedAt >= k.GetIssuedBeforeMs()) {
		return
	}
	if linger := time.Duration(k.GetLingerMs()) * time.Millisecond; linger > 0 {
		// A comet that ends meanwhile closes it as well; closing twice is harmless.
		time.AfterFunc(min(linger, maxLinger), func() { s.Close(resumed) })
		return
	}
	code := errcode.Kicked
	if k.GetError() != nil {
		code = errcode.ByName(k.GetError().GetCode())
	}
	s.Close(session.Cause{Code: code, Error: k.GetError()})
}

// ChangeRooms puts a session into rooms and takes it out of others for the cluster. Router is told in its
// own time: the rooms are tried again until it knows.
func (d *Dispatcher) ChangeRooms(s *session.Session, c *halleyv1.RoomsChange) {
	for _, r := range c.GetLeave() {
		d.Rooms.Leave(s, r)
	}
	resync := false
	for _, r := range c.GetJoin() {
		_, fresh, err := d.Rooms.Join(s, r, false)
		if err != nil {
			d.Metrics.Dropped.WithLabelValues("join_refused").Inc()
			continue
		}
		// Who was in it already has missed nothing: job may say it again.
		resync = resync || fresh && conversation(r)
	}
	if resync && s.Who().Signed {
		d.Metrics.Resyncs.Inc()
		s.Send(session.ResyncEvent())
	}
}

// Leave takes a session out of a room for the cluster.
func (d *Dispatcher) Leave(s *session.Session, room string) { d.Rooms.Leave(s, room) }

// Ended undoes what a session was found by. It is called once, when the session stops being addressable.
func (d *Dispatcher) Ended(s *session.Session, reason string) {
	d.Table.Remove(s)
	bound := d.Table.Unbind(s)
	d.Rooms.Left(s.LeaveAll())
	if bound {
		d.Metrics.Ended.WithLabelValues(reason).Inc()
		d.deregister(s)
	}
}

func (d *Dispatcher) deregister(s *session.Session) {
	d.Deregister.Add(s.Proto(&halleyv1.Conn{Id: d.Table.ConnID(s)}))
}
