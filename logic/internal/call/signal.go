package call

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
)

// Signal is what one leg has for another.
type Signal struct {
	Call, To                 string
	Generation, ToGeneration uint32
	Negotiation              uint32
	Description              *Description
	Candidates               []Candidate
	Done                     bool
}

// signalTTL is how long a signal is worth delivering: after that the other side has begun anew.
const signalTTL = 30 * time.Second

// Signal sends a signal on. sent is false if it was thrown away, since one of the generations is an old one or the other is away.
func (s *Service) Signal(ctx context.Context, who Who, g *Signal) (sent bool, err error) {
	what, err := s.signal(ctx, who, g)
	if err != nil {
		what = errcode.From(err).Code.Name
	}
	s.metrics.signals.WithLabelValues(what).Inc()
	return what == signalSent, err
}

// What becomes of signals, in metrics; besides these the code of an error.
const (
	signalSent = "sent"
	signalOld  = "old"
	signalAway = "away"
)

func (s *Service) signal(ctx context.Context, who Who, g *Signal) (string, error) {
	if err := s.admit(ctx, who, g.Call); err != nil {
		return "", err
	}
	if err := s.checkSignal(g); err != nil {
		return "", err
	}
	defer s.flights.hold(memberOf(who.Tenant, g.Call))()
	l, err := s.db.load(ctx, who.Tenant, g.Call)
	if err != nil {
		return "", err
	}
	if l.Call == nil {
		return "", errcode.CallUnknown
	}
	if l, err = s.afterOthers(ctx, l); err != nil {
		return "", err
	}
	// What was to be told before this goes before it.
	if err := s.send(ctx, l.Call, l.unsent, nil, l.now); err != nil {
		return "", away(err)
	}
	from, to := l.Leg(who.UID), l.Leg(g.To)
	switch {
	case from == nil || from.Silent || to == nil || from == to:
		return "", errcode.Forbidden.Errorf("not of this call")
	case !l.Live():
		return signalAway, nil
	case !from.Holds(who.Session):
		return "", errcode.CallTaken
	case g.Generation != from.Generation || g.ToGeneration != to.Generation:
		return signalOld, nil
	case to.State != machine.LegAccepted && to.State != machine.LegJoined:
		return signalAway, nil
	}
	if who.RelayOnly {
		onlyRelays(g)
	}
	m, err := record(l.Call, "call.signal", signalJSON{
		Call: g.Call, From: who.UID, Generation: g.Generation, ToGeneration: g.ToGeneration, Negotiation: g.Negotiation, Description: g.Description,
		Candidates: g.Candidates, Done: g.Done,
	}, l.now, signalTTL, nil, push.KeyTarget(to.Key))
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ProduceTimeout)
	defer cancel()
	if err := s.d.Producer.Produce(ctx, m); err != nil {
		return "", fmt.Errorf("%w: %w", errcode.Unavailable.After(remote.RetryAfter), err)
	}
	return signalSent, nil
}

func (s *Service) checkSignal(g *Signal) error {
	if err := name.UID(g.To); err != nil {
		return err
	}
	if g.Description == nil && len(g.Candidates) == 0 && !g.Done {
		return errcode.InvalidRequest.Errorf("description, candidates or done")
	}
	if d := g.Description; d != nil {
		switch d.Type {
		case "offer", "answer", "pranswer", "rollback":
		default:
			return errcode.InvalidRequest.Errorf("description: type must be offer, answer, pranswer or rollback")
		}
		if len(d.SDP) > s.cfg.DescriptionBytes {
			return errcode.TooLarge.Errorf("description: at most %d bytes", s.cfg.DescriptionBytes)
		}
	}
	n := 0
	for _, c := range g.Candidates {
		n += len(c.Candidate) + candidateOverhead
		for _, p := range []*string{c.SDPMid, c.UsernameFragment} {
			if p != nil {
				n += len(*p)
			}
		}
	}
	if n > s.cfg.CandidateBytes {
		return errcode.TooLarge.Errorf("candidates: at most %d bytes", s.cfg.CandidateBytes)
	}
	return nil
}

// candidateOverhead is what a candidate takes besides its strings: names and quotes.
const candidateOverhead = 16

// onlyRelays takes out of a signal what tells addresses other than a relay's.
func onlyRelays(g *Signal) {
	kept := g.Candidates[:0]
	for _, c := range g.Candidates {
		// Empty: the end of candidates of a generation.
		if c.Candidate == "" || isRelay(c.Candidate) {
			c.Candidate = withoutBase(c.Candidate)
			kept = append(kept, c)
		}
	}
	g.Candidates = kept
	if g.Description == nil {
		return
	}
	lines := strings.SplitAfter(g.Description.SDP, "\n")
	var sdp strings.Builder
	for _, l := range lines {
		if strings.HasPrefix(l, "a=candidate:") {
			if !isRelay(l) {
				continue
			}
			l = withoutBase(l)
		}
		sdp.WriteString(withoutAddress(l))
	}
	g.Description.SDP = sdp.String()
}

// withoutAddress blanks the address in a line of SDP that has one besides candidates: that of the session's origin (o=), and the default candidate's (c=,
// a=rtcp:), which ICE has no use for (RFC 8839 section 4.2.1).
func withoutAddress(line string) string {
	for _, prefix := range []string{"o=", "c=", "a=rtcp:"} {
		if at := strings.LastIndex(line, "IN IP"); at >= 0 && strings.HasPrefix(line, prefix) {
			return line[:at] + "IN IP4 0.0.0.0" + line[len(strings.TrimRight(line, "\r\n")):]
		}
	}
	return line
}

// isRelay reads the type of a candidate (RFC 8839 section 5.1).
func isRelay(candidate string) bool { return strings.Contains(candidate+" ", " typ relay ") }

// withoutBase blanks the related address of a relay's candidate, which is the client's own as the TURN server sees it.
func withoutBase(candidate string) string {
	fields := strings.Split(candidate, " ")
	for i := 0; i+1 < len(fields); i++ {
		switch fields[i] {
		case "raddr":
			fields[i+1] = "0.0.0.0"
		case "rport":
			end := strings.TrimLeft(fields[i+1], "0123456789")
			fields[i+1] = "0" + end
		}
	}
	return strings.Join(fields, " ")
}

// PeerStats is a halleyv1.CallPeerStats.
type PeerStats struct {
	UID             string  `json:"uid"`
	Local           string  `json:"local,omitempty"`
	Remote          string  `json:"remote,omitempty"`
	Protocol        string  `json:"protocol,omitempty"`
	Loss            float64 `json:"loss"`
	JitterMs        float64 `json:"jitter_ms"`
	RoundTripMs     float64 `json:"round_trip_ms"`
	SentBitrate     float64 `json:"sent_bitrate"`
	ReceivedBitrate float64 `json:"received_bitrate"`
	Frames          uint32  `json:"frames"`
	FrozenSeconds   float64 `json:"frozen_seconds"`
}

// Quality is how media flowed from one leg to another, as the receiver saw it.
type Quality struct {
	// From is who reports, To the peer.
	From string `json:"from"`
	To   string `json:"to"`
	// Last is the last report, Mean and Worst are over all: Worst has the most of loss, jitter, round trip and frozen seconds, and the least bitrates.
	Last  PeerStats `json:"last"`
	Mean  PeerStats `json:"mean"`
	Worst PeerStats `json:"worst"`
	// Reports is how many there were.
	Reports int `json:"reports"`
	// Paths are the kinds of path that there were, LOCAL/REMOTE/PROTOCOL.
	Paths []string `json:"paths,omitempty"`
}

// mostPaths bounds the paths that are kept.
const mostPaths = 8

// mostMeasured bounds a number that a client reports: no sum of such comes near what JSON can't tell.
const mostMeasured = 1e12

// sane makes of numbers that can't be ones that can: they are a stranger's, and means are made of them.
func (p *PeerStats) sane() {
	p.Loss = min(max(p.Loss, 0), 1)
	for _, v := range []*float64{&p.JitterMs, &p.RoundTripMs, &p.SentBitrate, &p.ReceivedBitrate, &p.FrozenSeconds} {
		*v = min(max(*v, 0), mostMeasured)
	}
}

func (q *Quality) add(p *PeerStats) {
	q.Last = *p
	n := float64(q.Reports)
	q.Reports++
	mean := func(m *float64, v float64) { *m = (*m*n + v) / (n + 1) }
	m, w := &q.Mean, &q.Worst
	mean(&m.Loss, p.Loss)
	mean(&m.JitterMs, p.JitterMs)
	mean(&m.RoundTripMs, p.RoundTripMs)
	mean(&m.SentBitrate, p.SentBitrate)
	mean(&m.ReceivedBitrate, p.ReceivedBitrate)
	mean(&m.FrozenSeconds, p.FrozenSeconds)
	m.Frames += p.Frames
	w.Loss, w.JitterMs = max(w.Loss, p.Loss), max(w.JitterMs, p.JitterMs)
	w.RoundTripMs, w.FrozenSeconds = max(w.RoundTripMs, p.RoundTripMs), max(w.FrozenSeconds, p.FrozenSeconds)
	if n == 0 {
		w.SentBitrate, w.ReceivedBitrate, w.Frames = p.SentBitrate, p.ReceivedBitrate, p.Frames
	}
	w.SentBitrate, w.ReceivedBitrate, w.Frames = min(w.SentBitrate, p.SentBitrate), min(w.ReceivedBitrate, p.ReceivedBitrate), min(w.Frames, p.Frames)
	path := p.Local + "/" + p.Remote + "/" + p.Protocol
	for _, have := range q.Paths {
		if have == path {
			return
		}
	}
	if len(q.Paths) < mostPaths {
		q.Paths = append(q.Paths, path)
	}
}

// Stats keeps what a leg reports of its media.
func (s *Service) Stats(ctx context.Context, who Who, id string, generation uint32, peers []PeerStats) error {
	if err := s.admit(ctx, who, id); err != nil {
		return err
	}
	if len(peers) > s.cfg.MaxLegs {
		return errcode.TooLarge.Errorf("peers: at most %d", s.cfg.MaxLegs)
	}
	l, err := s.db.load(ctx, who.Tenant, id)
	if err != nil {
		return err
	}
	if l.Call == nil {
		return errcode.CallUnknown
	}
	leg := l.Leg(who.UID)
	switch {
	case leg == nil || leg.Silent:
		return errcode.Forbidden.Errorf("not of this call")
	case !l.Live():
		return nil
	case !leg.Holds(who.Session) || leg.Generation != generation:
		return errcode.CallTaken
	}
	key := s.db.keys.quality(who.Tenant, id)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RedisTimeout)
	defer cancel()
	for i := range peers {
		p := &peers[i]
		if l.Leg(p.UID) == nil || p.UID == who.UID || len(p.Local)+len(p.Remote)+len(p.Protocol) > 32 {
			return errcode.InvalidRequest.Errorf("peers: no such leg, or not a candidate's type")
		}
		p.sane()
		if err := s.addQuality(ctx, key, who.UID, p); err != nil {
			return away(err)
		}
		s.metrics.quality(p)
	}
	if err := s.d.Redis.PExpire(ctx, key, s.kept(l.Call)).Err(); err != nil {
		return away(err)
	}
	return nil
}

// addQuality has one writer, the leg's one session, so it needs no compare.
func (s *Service) addQuality(ctx context.Context, key, uid string, p *PeerStats) error {
	field := uid + ">" + p.UID
	q := &Quality{From: uid, To: p.UID}
	have, err := s.d.Redis.HGet(ctx, key, field).Bytes()
	if err != nil && !isNil(err) {
		return err
	}
	if err == nil && json.Unmarshal(have, q) != nil {
		return errors.New("quality of a call can't be read")
	}
	q.add(p)
	return s.d.Redis.HSet(ctx, key, field, encode(q)).Err()
}
