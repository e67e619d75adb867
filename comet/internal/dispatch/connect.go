package dispatch

import (
	"context"
	"encoding/json"
	"strings"
	"time"
	"unique"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/halley-im/halley/comet/internal/outbox"
	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/comet/internal/table"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// conversation reports whether a room is a conversation's.
func conversation(room string) bool { return name.RoomType(room) == name.RoomTypeConversation }

// connect authenticates a session: logic verifies and registers it, its rooms are stored, the older session of
// the same key gives way, then the auth reply is the first frame that the client sees.
func (d *Dispatcher) connect(ctx context.Context, s *session.Session, f frame.Frame) {
	if s.HungUp() {
		// A comet that stood still finds what came meanwhile, and takes it for new: the log-ins that were given up, too, whose clients have
		// other connections by now. They must not take these ones' place. The reader sees the end next.
		return
	}
	began := session.Now()
	s.Authenticating()
	if !d.cfg.Unsigned && !hasToken(f.Body) {
		d.refuse(s, f, errcode.Proto(errcode.Unauthenticated), nil)
		return
	}
	deadline := time.Now().Add(d.cfg.RequestTimeout)
	comet, epoch := d.Lease.Conn()
	conn := &halleyv1.Conn{Comet: comet, Epoch: epoch, Id: d.Table.ConnID(s)}
	resp, err := d.Logic.Connect(ctx, &halleyv1.ConnectRequest{
		Conn: conn, Auth: f.Body, RemoteAddr: s.Remote, Transport: s.Transport.String(), ConnectedAtMs: s.ConnectedAt,
	})
	if err != nil {
		// Logic may have registered the session all the same. By what names isn't known here: logic takes back what nobody waits for
		// any more, and if it can't the next rewrite does.
		d.refuse(s, f, errcode.Proto(err), nil)
		return
	}
	if e := resp.GetError(); e != nil {
		if gone := resp.GetSession(); gone != nil {
			gone.Conn = conn
			d.Deregister.Add(gone)
		}
		d.refuse(s, f, e, resp.GetReply())
		return
	}
	n := s.SetIdentity(identity(resp.GetSession()), time.Duration(resp.GetIdleTimeoutMs())*time.Millisecond)
	d.Metrics.Messages.WithLabelValues("bulk").Add(float64(n))
	older, ok := d.Table.Bind(s)
	if !ok {
		gone := resp.GetSession()
		gone.Conn = conn
		d.Deregister.Add(gone)
		why := session.Raced
		if !s.Who().Signed {
			why = session.Cause{Code: errcode.Replaced}
		}
		d.refuse(s, f, why.Told(), nil)
		d.replace(s, resp.GetReplaces())
		return
	}
	if older != nil && d.Table.ConnID(older) == resp.GetReplaces().GetId() {
		older = nil // It ends as its client asked for.
	}
	if s.HasEnded() {
		// It ended while logic was asked, when it had no names to be undone.
		if d.Table.Unbind(s) {
			d.deregister(s)
		}
		// Router doesn't find any more what this one was to take the place of.
		if older != nil {
			older.Close(session.Raced)
		}
		d.replace(s, resp.GetReplaces())
		return
	}
	rctx, cancel := context.WithDeadline(ctx, deadline)
	err = d.effects(rctx, s, resp.GetEffects())
	cancel()
	opened := false
	if err == nil {
		s.Reader.Authed = true
		opened = s.Open(outbox.NewReply(f.Ver, frame.OpAuthReply, f.Seq, resp.GetReply()))
	}
	if older != nil {
		// Only now: what was sent to a room of both meanwhile has reached the one or the other, and it is known whether this one came to be.
		why := session.Cause{Code: errcode.Replaced}
		if !opened {
			why = session.Raced
		}
		older.Close(why)
	}
	if err != nil {
		d.refuse(s, f, errcode.Proto(err), nil)
	}
	if !opened {
		d.replace(s, resp.GetReplaces())
		return
	}
	d.Metrics.Handshakes.WithLabelValues("ok").Inc()
	d.Lease.Live(s, epoch, began)
	d.replace(s, resp.GetReplaces())
	if e := resp.GetEffects().GetClose(); e != nil {
		s.Close(session.Cause{Code: errcode.ByName(e.GetCode()), Error: e})
	}
}

// refuse answers an auth frame with an error and closes. goim's clients get no frame: their protocol has none
// for it.
func (d *Dispatcher) refuse(s *session.Session, f frame.Frame, e *halleyv1.Error, reply []byte) {
	code := errcode.ByName(e.GetCode())
	d.Metrics.Handshakes.WithLabelValues(code.Name).Inc()
	if len(reply) == 0 && hasToken(f.Body) {
		reply, _ = protojson.Marshal(&halleyv1.AuthReply{Error: e})
	}
	var m *outbox.Message
	if len(reply) > 0 {
		m = outbox.NewReply(f.Ver, frame.OpAuthReply, f.Seq, reply)
	}
	s.Refuse(m, session.Cause{Code: code})
}

// hasToken reports whether an auth body is of a client that brings a token, which understands an error.
func hasToken(body []byte) bool {
	var auth struct{ Token json.RawMessage }
	return json.Unmarshal(body, &auth) == nil && auth.Token != nil
}

// replace ends the connection that a new one takes over from, on this comet: its outbox is written, then it
// is closed, without a closing event, for its client asked for it. One on another comet is logic's to close. It ends even if the
// new one doesn't come to be: router has given the new one its place.
func (d *Dispatcher) replace(s *session.Session, c *halleyv1.Conn) {
	comet, _ := d.Lease.Conn()
	if c == nil || c.GetComet() != comet {
		return
	}
	old := d.Table.Conn(c.GetId())
	if old == nil || old == s {
		return
	}
	who := old.Live()
	if who == nil || who.Tenant != s.Who().Tenant || who.UIDName != s.Who().UIDName {
		return
	}
	old.Close(resumed)
}

func identity(p *halleyv1.Session) session.Identity {
	tenant := unique.Make(p.GetTenant()).Value()
	who := session.Identity{
		Tenant:   tenant,
		KeyName:  table.Name(tenant, p.GetKey()),
		Device:   strings.Clone(p.GetDeviceId()),
		Platform: unique.Make(p.GetPlatform()).Value(),
		Signed:   p.GetSigned(),
		IssuedAt: p.GetIssuedAtMs(),
	}
	if p.GetUid() != "" {
		who.UIDName = table.Name(tenant, p.GetUid())
	}
	return who
}
