// Package call carries out what clients and backends want of calls. What becomes of a call package machine decides; here it is kept in
// Redis, by compare-and-set on one key that also holds what is still to be told of it, and told through Kafka. Any logic process may take
// any step: nothing is kept in a process, and whoever touches a call first sends what another one did not come to send.
//
// Who is in which call, and which call a conversation has, are leases in keys of their own: they keep people from being called twice, and
// lapse by themselves. When a call is to be looked at stands in an index, which is written before the call is.
//
// Run is the package's one goroutine and a few workers of it. Safe for concurrent use.
package call

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc"

	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/logic/internal/limit"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	entry "github.com/halley-im/halley/store/conversation"
)

// Producer writes records to Kafka; kafkaconn.Producer is one.
type Producer interface {
	// Produce returns nil only when all messages are acknowledged. Topics come without prefix.
	Produce(ctx context.Context, msgs ...kafka.Message) error
}

// Router knows who has sessions.
type Router interface {
	ListSessions(ctx context.Context, in *halleyv1.ListSessionsRequest, opts ...grpc.CallOption) (*halleyv1.ListSessionsResponse, error)
}

// People knows who may call whom; conversation.Service does.
type People interface {
	// Refusers returns which of uids block from.
	Refusers(ctx context.Context, tenant, from string, uids []string) ([]string, error)
	IsMember(ctx context.Context, tenant, conversation, uid string) (bool, error)
	// IsAdmin reports whether uid is a group's admin or owner.
	IsAdmin(ctx context.Context, tenant, conversation, uid string) (bool, error)
	GroupMembers(ctx context.Context, tenant, conversation string, n int) ([]string, error)
}

// Deps are what a Service works with.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Redis holds the calls, below RedisPrefix.
	Redis       redis.UniversalClient
	RedisPrefix string
	Producer    Producer
	Router      Router
	// RouterTimeout bounds a question to Router.
	RouterTimeout time.Duration
	People        People
	// Entries are the rules of entries; nil: calls leave none.
	Entries *entry.Rules
	// Limiter counts what a session asks; nil: no limit.
	Limiter *limit.Limiter
}

// Service carries out calls.
type Service struct {
	cfg     Config
	d       Deps
	db      db
	policy  machine.Policy
	metrics *metrics
	asker   *asker // nil: nobody is asked
	flights flights
	// hasty is until when nobody is waited for who may be telling something; nil: he is.
	hasty atomic.Pointer[time.Time]
}

// Who asks.
type Who struct {
	Tenant string
	machine.Who
	// RelayOnly: his addresses are not to be passed on.
	RelayOnly bool
}

// New makes a Service.
func New(cfg Config, d Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(d.Metrics)
	if err != nil {
		return nil, err
	}
	ask, err := newAsker(&cfg)
	if err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg, d: d, policy: cfg.policy(), metrics: m, asker: ask, db: db{rdb: d.Redis, keys: keys{d.RedisPrefix}, timeout: cfg.RedisTimeout},
	}, nil
}

// Command carries out a command on a call.
func (s *Service) Command(ctx context.Context, who Who, id string, cmd *machine.Command) (*Reply, error) {
	if err := s.admit(ctx, who, id); err != nil {
		return nil, err
	}
	if cmd.ID != "" || cmd.Verb != machine.DoHeartbeat {
		if err := name.Command(cmd.ID); err != nil {
			return nil, err
		}
	}
	cmd.By = who.Who
	switch cmd.Verb {
	case machine.DoAccept:
		return s.accept(ctx, who, id, cmd)
	case machine.DoAdd:
		if err := s.prepareAdd(ctx, who, id, cmd); err != nil {
			return nil, err
		}
	case machine.DoRemove:
		if err := s.prepareRemove(ctx, who, id, cmd); err != nil {
			return nil, err
		}
	}
	return s.do(ctx, who, id, cmd)
}

func (s *Service) do(ctx context.Context, who Who, id string, cmd *machine.Command) (*Reply, error) {
	c, now, err := s.step(ctx, who.Tenant, id, func(c *machine.Call, now int64) (machine.Step, error) {
		return machine.Do(c, cmd, now, &s.policy)
	})
	if err != nil {
		return nil, err
	}
	return replyTo(c, who.Who, now), nil
}

// admit checks a call's id and counts the request.
func (s *Service) admit(ctx context.Context, who Who, id string) error {
	if err := name.Call(id); err != nil {
		return err
	}
	return s.Admit(ctx, who)
}

// Admit counts a request of a session's; an error of errcode.RateLimited if it asks too often.
func (s *Service) Admit(ctx context.Context, who Who) error {
	return s.count(ctx, "call", who, limit.Rate{PerSecond: s.cfg.SignalRate, Burst: s.cfg.SignalBurst, Ahead: 20})
}

func (s *Service) count(ctx context.Context, what string, who Who, r limit.Rate) error {
	if s.d.Limiter == nil {
		return nil
	}
	if wait, ok := s.d.Limiter.Allow(ctx, what+":"+who.Tenant+":"+who.Key, r); !ok {
		return errcode.RateLimited.After(wait)
	}
	return nil
}

// mostTries bounds how often a step is taken again because somebody else was first: each try means that another step succeeded.
const mostTries = 50

// mostUnsent bounds what waits with a call while Kafka is away: no step is taken then until some of it is told.
const mostUnsent = 256

// step changes a call: it reads it, has do change a copy, keeps that, and tells what is to be told. It returns the call after that, and Redis'
// time. do may be called again.
func (s *Service) step(ctx context.Context, tenant, id string, do func(*machine.Call, int64) (machine.Step, error)) (*machine.Call, int64, error) {
	defer s.flights.hold(memberOf(tenant, id))()
	for try := range mostTries {
		l, err := s.db.load(ctx, tenant, id)
		if err != nil {
			return nil, 0, err
		}
		if l.Call == nil {
			return nil, l.now, errcode.CallUnknown
		}
		if l, err = s.afterOthers(ctx, l); err != nil {
			return nil, 0, err
		}
		if len(l.unsent) >= mostUnsent {
			if try > 0 {
				return nil, l.now, away(errors.New("too much of a call is untold"))
			}
			_ = s.send(ctx, l.Call, l.unsent, nil, l.now)
			continue
		}
		next := l.Clone()
		st, err := do(next, l.now)
		if err != nil || !st.Changed {
			_ = s.send(ctx, l.Call, l.unsent, nil, l.now)
			return l.Call, l.now, err
		}
		ok, err := s.keep(ctx, l, next, &st)
		if err != nil {
			return nil, l.now, err
		}
		if ok {
			return next, l.now, nil
		}
		s.metrics.conflicts.Inc()
		time.Sleep(rand.N(2 * time.Millisecond))
	}
	return nil, 0, away(errors.New("a call changes too fast"))
}

const (
	// patience is how long a step waits for another process to tell what it has to tell.
	patience = 200 * time.Millisecond
	// haste is how long nobody is waited for after somebody was in vain.
	haste = time.Second
)

// afterOthers waits, before a step is taken, for what is unsent of the call: mostly another process is about to tell it, and it would be told twice.
// It returns the call as it is then. Where nothing comes of it that process is dead, or Kafka away.
func (s *Service) afterOthers(ctx context.Context, l *loaded) (*loaded, error) {
	begin := time.Now()
	if t := s.hasty.Load(); t != nil && begin.Before(*t) {
		return l, nil
	}
	// What this process has kept is told by flights, one step after the other.
	if !s.flights.foreign(memberOf(l.Tenant, l.ID), l.unsent) {
		return l, nil
	}
	last := l.unsent[len(l.unsent)-1].number
	for wait := 2 * time.Millisecond; pause(ctx, wait) == nil; wait = min(2*wait, patience/10) {
		next, err := s.db.load(ctx, l.Tenant, l.ID)
		if err != nil {
			return nil, err
		}
		if next.Call == nil {
			return nil, errcode.CallUnknown
		}
		l = next
		if !s.flights.foreign(memberOf(l.Tenant, l.ID), l.unsent) {
			break
		}
		if time.Since(begin) > patience {
			if l.unsent[0].number <= last {
				// By the monotonic clock: it is over in a second, wherever the other one is put.
				until := time.Now().Add(haste)
				s.hasty.Store(&until)
			}
			break
		}
	}
	return l, nil
}

// keep writes next, the call after st, in the place of l, and tells of it. ok is false if somebody else was first.
func (s *Service) keep(ctx context.Context, l *loaded, next *machine.Call, st *machine.Step) (ok bool, err error) {
	records, err := s.tell(next, st, l.now)
	if err != nil {
		return false, err
	}
	at := next.Due()
	if soon := l.now + unsentDue.Milliseconds(); len(records)+len(l.unsent) > 0 && (at == 0 || at > soon) {
		at = soon
	}
	var m mark
	if at > 0 {
		if m, err = s.db.index(ctx, next.Tenant, next.ID, min(at, l.now+farthestLook.Milliseconds())); err != nil {
			return false, err
		}
	}
	call := memberOf(next.Tenant, next.ID)
	defer s.flights.hold(call)()
	unsent, ok, err := s.db.save(ctx, l, next, records, s.kept(next))
	if err != nil || !ok {
		return false, err
	}
	s.flights.keeps(call, unsent, l.last)
	s.leases(ctx, l.Call, next)
	_ = s.send(ctx, next, unsent, &m, l.now)
	if len(unsent) == 0 && l.Call != nil && next.Due() > 0 && next.Due() < l.Call.Due() {
		// Who looked at it since the index was written has moved it to when it was due before.
		if err := s.db.moveTo(context.WithoutCancel(ctx), m, next.Due(), l.now); err != nil {
			s.d.Log.DebugContext(ctx, "call's timer not moved", "call", next.ID, "err", err)
		}
	}
	s.metrics.step(next, st)
	return true, nil
}

// kept is how long Redis keeps the call: a live one until it can't be live any more.
func (s *Service) kept(c *machine.Call) time.Duration {
	if !c.Live() {
		return s.cfg.Keep
	}
	return s.cfg.MaxLength + s.cfg.RingGroup + s.cfg.Keep
}

// send writes what is to be told to Kafka, then forgets it. What could not be sent stays with the call, which is due in a second for that: the error
// is for who has something to tell after it. m is where the call stands in the index for that; nil: unknown.
func (s *Service) send(ctx context.Context, c *machine.Call, unsent []event, m *mark, now int64) error {
	if len(unsent) == 0 {
		return nil
	}
	// The step is taken: that its asker went away is no reason to keep it from the others.
	ctx = context.WithoutCancel(ctx)
	call := memberOf(c.Tenant, c.ID)
	f := s.flights.join(call)
	defer s.flights.leave(call, f)
	wrote, err := s.write(ctx, f, unsent)
	if err != nil {
		s.metrics.late.Add(float64(len(wrote)))
		s.d.Log.DebugContext(ctx, "call's events not sent yet", "call", c.ID, "err", err)
		return err
	}
	s.metrics.sent.Add(float64(len(wrote)))
	defer s.flights.forget(f, unsent)
	// With those that somebody here wrote before: he may not have been able to, and told again they would come after these.
	if err := s.db.sent(ctx, c, unsent, m, now); err != nil {
		// They will be told once more, or it is looked at early: harmless.
		s.d.Log.DebugContext(ctx, "call's events not forgotten", "call", c.ID, "err", err)
	}
	return nil
}

// write writes events to Kafka, but for those that somebody here has written meanwhile. It returns those that it wrote, or would have.
func (s *Service) write(ctx context.Context, f *flight, unsent []event) ([]event, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ProduceTimeout)
	defer cancel()
	if err := f.take(ctx); err != nil {
		return unsent, err
	}
	defer f.give()
	if unsent = f.left(unsent); len(unsent) == 0 {
		return nil, nil
	}
	msgs := make([]kafka.Message, len(unsent))
	for i, e := range unsent {
		msgs[i] = e.record
	}
	if err := s.d.Producer.Produce(ctx, msgs...); err != nil {
		return unsent, err
	}
	f.wrote(unsent)
	return unsent, nil
}

// pairKept is how long a conversation's call is remembered without a heartbeat.
func (s *Service) pairKept() time.Duration {
	return max(s.cfg.Ring, s.cfg.RingGroup) + s.cfg.Away + s.cfg.Lease
}

// leases renews and gives up what keeps people from being called twice, all in one trip. They lapse by themselves, so a failure does no lasting
// harm.
func (s *Service) leases(ctx context.Context, before, after *machine.Call) {
	var list []lease
	k := &s.db.keys
	for _, l := range after.Legs {
		busy := k.user(after.Tenant, l.UID, "busy")
		var was *machine.Leg
		if before != nil {
			was = before.Leg(l.UID)
		}
		switch {
		case l.In() && (was == nil || was.LeaseUntil != l.LeaseUntil):
			list = append(list, lease{key: busy, keep: s.cfg.Lease, take: true})
		case !l.In() && was != nil && was.In():
			list = append(list, lease{key: busy})
		}
	}
	if after.Conversation != "" {
		pair := lease{key: k.conversation(after.Tenant, after.Conversation, "live")}
		if after.Live() {
			pair.keep = s.pairKept()
		}
		list = append(list, pair)
	}
	if err := s.db.lease(context.WithoutCancel(ctx), after.ID, list); err != nil {
		s.d.Log.DebugContext(ctx, "call's leases not kept", "call", after.ID, "err", err)
	}
}

// Current returns what who is in, what rings for him, and the call of a conversation, if one is named.
func (s *Service) Current(ctx context.Context, who Who, conversation string) (*Calls, error) {
	if err := s.Admit(ctx, who); err != nil {
		return nil, err
	}
	live, err := s.liveOf(ctx, who.Tenant, who.UID)
	if err != nil {
		return nil, err
	}
	in, rings := []*Reply{}, []*Reply{}
	seen := map[string]bool{}
	for _, l := range live {
		leg := l.Leg(who.UID)
		if leg == nil || leg.Silent {
			continue
		}
		switch {
		case leg.In():
			in = append(in, replyTo(l.Call, who.Who, l.now))
		case leg.Asked():
			rings = append(rings, replyTo(l.Call, who.Who, l.now))
		default:
			continue
		}
		seen[l.ID] = true
	}
	out := &Calls{Calls: append(in, rings...)}
	if conversation == "" {
		return out, nil
	}
	if err := s.member(ctx, who.Tenant, conversation, who.UID); err != nil {
		return nil, err
	}
	l, err := s.conversationCall(ctx, who.Tenant, conversation)
	if err != nil || l == nil || seen[l.ID] {
		return out, err
	}
	if leg := l.Leg(who.UID); leg != nil && leg.Silent && l.Kind == machine.KindDirect {
		return out, nil
	}
	out.Calls = append(out.Calls, replyTo(l.Call, who.Who, l.now))
	return out, nil
}

// member returns errcode.NotMember for a stranger to a conversation.
func (s *Service) member(ctx context.Context, tenant, conversation, uid string) error {
	if err := entry.CheckID(conversation); err != nil {
		return err
	}
	ok, err := s.d.People.IsMember(ctx, tenant, conversation, uid)
	if err == nil && !ok {
		return errcode.NotMember
	}
	return err
}

// conversationCall returns the live call of a conversation, or nil.
func (s *Service) conversationCall(ctx context.Context, tenant, conversation string) (*loaded, error) {
	gctx, cancel := context.WithTimeout(ctx, s.cfg.RedisTimeout)
	defer cancel()
	id, err := s.d.Redis.Get(gctx, s.db.keys.conversation(tenant, conversation, "live")).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, away(err)
	}
	l, err := s.db.load(ctx, tenant, id)
	if err != nil || l.Call == nil || !l.Live() {
		return nil, err
	}
	return l, nil
}

// sessions returns the devices of a user that have a signed session; known is false if router didn't answer.
func (s *Service) sessions(ctx context.Context, tenant, uid string) (list []machine.Branch, known bool) {
	ctx, cancel := context.WithTimeout(ctx, s.d.RouterTimeout)
	defer cancel()
	res, err := s.d.Router.ListSessions(ctx, &halleyv1.ListSessionsRequest{Tenant: tenant, By: &halleyv1.ListSessionsRequest_Uid{Uid: uid}})
	if err != nil {
		// He is asked all the same, by whoever finds his sessions then.
		s.d.Log.DebugContext(ctx, "a callee's sessions are not known", "err", remote.Error(err))
		return nil, false
	}
	for _, x := range res.GetSessions() {
		if x.GetSigned() {
			list = append(list, machine.Branch{Key: x.GetKey(), Device: x.GetDeviceId(), Platform: x.GetPlatform(), State: machine.BranchPending})
		}
	}
	return list, true
}
