// Package conversation takes what users and backends want to be done in conversations: it refuses what has no place in a
// conversation's log (strangers, who is blocked, what is too large, too fast or malformed), and writes the rest to Kafka as
// proposals. It is accepted then; whether it becomes an entry, and which, job decides by the tables. What depends on the
// conversation's state (roles, mutes, time limits, conflicts) is left to job on purpose: whoever repeats a message whose outcome
// he doesn't know must get the first one's outcome, whatever has changed meanwhile. The package also reads: lists, history,
// members, what is new.
//
// That somebody is a member is believed for some seconds, and while the database is away for some minutes; that he
// isn't is never kept. The package starts no goroutines. Safe for concurrent use.
package conversation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/logic/internal/limit"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store"
	entry "github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// Producer writes records to Kafka; kafkaconn.Producer is one.
type Producer interface {
	// Produce returns nil only when all messages are acknowledged. Topics come without prefix.
	Produce(ctx context.Context, msgs ...kafka.Message) error
}

// Store are the questions to the database; store.Store answers them.
type Store interface {
	Conversation(ctx context.Context, tenant, id string) (entry.Conversation, error)
	Groups(ctx context.Context, tenant, after string, limit int) ([]entry.Conversation, error)
	Audit(ctx context.Context, tenant, id string, seq, after int64, limit int) ([]store.Replaced, error)
	Membership(ctx context.Context, tenant, id, uid string) (entry.Conversation, entry.Membership, error)
	Blocked(ctx context.Context, tenant, uid, peer string) (bool, error)
	BlockedBy(ctx context.Context, tenant string, uids []string, peer string) ([]string, error)
	Conversations(ctx context.Context, tenant, uid string, behind store.Cursor, limit int) ([]store.Summary, *store.Cursor, error)
	Stored(ctx context.Context, tenant, id, sender, clientMsgID string) (bool, error)
	Entries(ctx context.Context, tenant, id string, from, to int64, limit int) ([]store.Entry, error)
	EntriesBefore(ctx context.Context, tenant, id string, from, before int64, limit int) ([]store.Entry, error)
	Members(ctx context.Context, tenant, id, after string, limit int) ([]entry.Membership, error)
	Readers(ctx context.Context, tenant, id string, seq int64, after string, limit int) ([]entry.Membership, error)
	Sync(ctx context.Context, tenant, uid string, q store.SyncQuery) (store.SyncPage, error)
	ChangeUsers(ctx context.Context, tenant string, uids []string, change func(*store.User) error) (map[string]store.User, error)
	Users(ctx context.Context, tenant string, uids []string) (map[string]store.User, error)
	SearchUsers(ctx context.Context, tenant, prefix string, limit int) ([]store.User, error)
	Contact(ctx context.Context, tenant, uid, peer string) (store.Contact, error)
	Contacts(ctx context.Context, tenant, uid, after string, limit int) ([]store.Contact, error)
	ContactsAmong(ctx context.Context, tenant, uid string, peers []string) ([]store.Contact, error)
	Blocks(ctx context.Context, tenant, uid, after string, limit int) ([]string, error)
	UserChangeOf(ctx context.Context, tenant, uid, kind, object string) (store.UserChange, error)
	Summaries(ctx context.Context, tenant, uid string, ids []string) ([]store.Summary, error)
	Positions(ctx context.Context, tenant, uid string) (seqs map[string]int64, change int64, err error)
	Pinned(ctx context.Context, tenant, id string, limit int) ([]store.Entry, error)
	Reactors(ctx context.Context, tenant, id string, seq int64, reaction, after string, limit int) ([]string, error)
	Admins(ctx context.Context, tenant, id string, limit int) ([]entry.Membership, error)
}

// Pusher tells those who are connected of what isn't stored; push.Service is one.
type Pusher interface {
	Push(ctx context.Context, r push.Request) (push.Result, error)
	ControlExcept(ctx context.Context, tenant string, targets []*halleyv1.Target, uids []string, c *halleyv1.Control) error
}

// Deps are what a Service works with.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Store may be nil: then there are no conversations, and every call is answered unknown_method.
	Store    Store
	Producer Producer
	// Push tells of typing; nil: nobody is told.
	Push Pusher
	// Limiter counts what a uid sends; nil: no limit.
	Limiter *limit.Limiter
	// Redis holds outcomes, and how far conversations have come, below RedisPrefix; nil: nobody can wait for an outcome, and each
	// cursor is asked of the database.
	Redis       redis.UniversalClient
	RedisPrefix string
	// Rules are the judge's; the zero value: its defaults.
	Rules entry.Rules
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Service is what the rest of logic knows of conversations.
type Service struct {
	cfg     Config
	d       Deps
	members *cache[access]
	blocks  *cache[bool]
	metrics *metrics
}

// New makes a Service.
func New(cfg Config, d Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Rules == (entry.Rules{}) {
		d.Rules = entry.DefaultRules()
	}
	m, err := newMetrics(d.Metrics)
	if err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, d: d, metrics: m, members: newCache[access](&cfg, d.Now), blocks: newCache[bool](&cfg, d.Now)}, nil
}

// BodyBytes is the largest body of a message.
func (s *Service) BodyBytes() int64 { return s.cfg.BodyBytes }

// DurableTargets is the most users of one durable push.
func (s *Service) DurableTargets() int { return s.cfg.DurableTargets }

// Origin is who asks.
type Origin struct {
	// Backend is whether an API key asks, for the system or in a user's name: its own limits hold, not the user's.
	Backend bool
	// Address is the client's.
	Address string
	// Wait is whether the caller will ask Outcomes.
	Wait bool
	// AtMs is when it happened, for history that is imported, milliseconds since 1970; 0: now.
	AtMs int64
}

// Accepted says that a proposal was written: its outcome will be told.
type Accepted struct {
	// ID names the message in all its ways; for markers and user changes it is a random one.
	ID           string
	AcceptedAtMs int64
	Conversation string
}

// Propose checks p and writes it. AcceptedAtMs and Address are set here. Errors carry a code; errcode.Unknown says that it
// may be written all the same, and that the caller repeats it under the same ClientMsgID.
func (s *Service) Propose(ctx context.Context, o Origin, p entry.Proposal) (Accepted, error) {
	a, err := s.propose(ctx, o, &p)
	s.metrics.proposal(p.Kind, err)
	return a, err
}

func (s *Service) propose(ctx context.Context, o Origin, p *entry.Proposal) (Accepted, error) {
	msg, a, err := s.check(ctx, o, p)
	if err != nil {
		return Accepted{}, err
	}
	if o.Wait {
		s.clearOutcomes(ctx, a)
	}
	return a, s.write(ctx, msg)
}

// check refuses what has no place in Kafka, and returns the record of the rest.
func (s *Service) check(ctx context.Context, o Origin, p *entry.Proposal) (kafka.Message, Accepted, error) {
	if err := s.prepare(o, p); err != nil {
		return kafka.Message{}, Accepted{}, err
	}
	if !o.Backend {
		if err := s.admit(ctx, p); err != nil {
			return kafka.Message{}, Accepted{}, err
		}
	}
	if err := s.authorise(ctx, p); err != nil {
		return kafka.Message{}, Accepted{}, err
	}
	return s.record(o, p)
}

// ProposeMany writes several proposals of a backend with one wait for Kafka: all are accepted, or the call is repeated. Those
// of users are left to the judge: the caller has the right to speak for them.
func (s *Service) ProposeMany(ctx context.Context, o Origin, ps []entry.Proposal) ([]Accepted, error) {
	msgs, out := make([]kafka.Message, len(ps)), make([]Accepted, len(ps))
	for i := range ps {
		if err := s.prepare(o, &ps[i]); err != nil {
			return nil, err
		}
		var err error
		if msgs[i], out[i], err = s.record(o, &ps[i]); err != nil {
			return nil, err
		}
	}
	if o.Wait {
		s.clearOutcomes(ctx, out...)
	}
	err := s.write(ctx, msgs...)
	for i := range ps {
		s.metrics.proposal(ps[i].Kind, err)
	}
	return out, err
}

// prepare judges p by itself.
func (s *Service) prepare(o Origin, p *entry.Proposal) error {
	if s.d.Store == nil {
		return errNoStore
	}
	if s.cfg.KeepAddress && len(o.Address) <= entry.MaxAddress {
		p.Address = o.Address
	}
	if p.AcceptedAtMs == 0 {
		p.AcceptedAtMs = o.AtMs
	}
	if p.AcceptedAtMs == 0 {
		p.AcceptedAtMs = s.d.Now().UnixMilli()
	}
	if p.Kind == entry.Message || p.Kind == entry.Edit {
		switch {
		case len(p.Body) == 0:
			return errcode.InvalidRequest.Errorf("body is missing")
		case int64(len(p.Body)) > s.cfg.BodyBytes:
			return errcode.TooLarge.Errorf("body: at most %d bytes", s.cfg.BodyBytes)
		case !utf8.Valid(p.Body):
			return errcode.InvalidRequest.Errorf("body: not UTF-8")
		case depth(p.Body) > maxDepth:
			return errcode.InvalidRequest.Errorf("body: at most %d levels deep", maxDepth)
		}
	}
	return p.Check(&s.d.Rules)
}

// maxDepth is how deep a body's JSON may be nested. Readers give up somewhere: Python's at a thousand levels, Go's at ten
// thousand. Who couldn't read one message could read none of the page that it is in, at any later time either.
const maxDepth = 100

// depth returns how deep JSON is nested.
func depth(b []byte) (deepest int) {
	level, text := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '[' || c == '{':
			level++
			deepest = max(deepest, level)
		case c == ']' || c == '}':
			level--
		}
	}
	return deepest
}

// ahead is how many tokens of a uid a process takes at once: a round trip to Redis for each message would cost more than the check.
const ahead = 20

// admit takes a token of the sender's.
func (s *Service) admit(ctx context.Context, p *entry.Proposal) error {
	if p.Kind == entry.Marker {
		return s.AdmitReader(ctx, p.Tenant, p.Sender)
	}
	return s.take(ctx, "chat", p.Tenant, p.Sender, limit.Rate{PerSecond: s.cfg.Rate, Burst: s.cfg.Burst})
}

// AdmitReader counts a question of a user's; an error of errcode.RateLimited if he asks too often.
func (s *Service) AdmitReader(ctx context.Context, tenant, uid string) error {
	return s.take(ctx, "read", tenant, uid, limit.Rate{PerSecond: s.cfg.ReadRate, Burst: s.cfg.ReadBurst})
}

func (s *Service) take(ctx context.Context, what, tenant, uid string, r limit.Rate) error {
	if s.d.Limiter == nil {
		return nil
	}
	r.Ahead = ahead
	if wait, ok := s.d.Limiter.Allow(ctx, what+":"+tenant+":"+uid, r); !ok {
		return errcode.RateLimited.After(wait)
	}
	return nil
}

// record makes the Kafka record of p.
func (s *Service) record(o Origin, p *entry.Proposal) (kafka.Message, Accepted, error) {
	rec := wire.RecordOf(p, o.Wait)
	if !p.Kind.TakesSeq() {
		// Markers have no id of their own.
		rec.Id = uuid.NewString()
	}
	value, err := proto.Marshal(rec)
	if err != nil {
		// All strings were checked.
		return kafka.Message{}, Accepted{}, fmt.Errorf("encode proposal: %w", err)
	}
	a := Accepted{ID: rec.GetId(), AcceptedAtMs: p.AcceptedAtMs, Conversation: p.Conversation}
	return kafka.Message{Topic: topic.Chat, Key: topic.ConversationKey(p.Tenant, p.Conversation), Value: value}, a, nil
}

// write returns when Kafka has acknowledged all.
func (s *Service) write(ctx context.Context, msgs ...kafka.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	start := s.d.Now()
	err := s.d.Producer.Produce(ctx, msgs...)
	s.metrics.took.Observe(s.d.Now().Sub(start).Seconds())
	if err == nil {
		return nil
	}
	// Kafka being away is the producer's to log, once.
	s.d.Log.DebugContext(ctx, "proposal not accepted", "err", err)
	// A producer that says itself what callers are to be told has written nothing.
	var told *errcode.Error
	if errors.As(err, &told) {
		return err
	}
	unknown := errcode.Unknown.Errorf("not known to be accepted: repeat it with the same client_msg_id")
	unknown.RetryAfter = remote.RetryAfter
	return fmt.Errorf("%w: %w", unknown, err)
}

// access is what logic must know of somebody in a conversation.
type access struct {
	role   entry.Role
	policy entry.JoinPolicy
}

var (
	errNoStore   = errcode.UnknownMethod.Errorf("this server has no conversations")
	errNotListed = fmt.Errorf("%w: not listed yet", errcode.Unavailable.After(remote.RetryAfter))
	errPaused    = errors.New("the database has just failed")
)

// storeError is what a caller is told of an error of the store: the code in it, or that the database can't answer now.
func storeError(err error) error {
	if err == nil || !isAway(err) {
		return err
	}
	return fmt.Errorf("%w: %w", errcode.Unavailable.After(remote.RetryAfter), err)
}

// isAway reports whether an error of the store is the database's own.
func isAway(err error) bool {
	var c *errcode.Code
	return err != nil && !errors.As(err, &c)
}

// authorise refuses who has no business in the conversation, or no longer has, unless what he asks for is stored already: he has gone, or was
// blocked, before he was told, and nothing but his repeat brings him the outcome, which job tells. What he sent before he went is stored by
// now: it was ahead of his going in their partition.
func (s *Service) authorise(ctx context.Context, p *entry.Proposal) error {
	refused := s.mayPropose(ctx, p)
	if !p.Kind.TakesSeq() || !errors.Is(refused, errcode.NotMember) && !errors.Is(refused, errcode.Blocked) {
		return refused
	}
	stored, err := s.d.Store.Stored(ctx, p.Tenant, p.Conversation, p.Sender, p.ClientMsgID)
	switch {
	case err != nil:
		return storeError(err)
	case !stored:
		return refused
	}
	return nil
}

// mayPropose refuses who has no business in the conversation as it is.
func (s *Service) mayPropose(ctx context.Context, p *entry.Proposal) error {
	typ := entry.TypeOf(p.Conversation)
	if p.Sender == "" {
		return nil
	}
	if typ != entry.Group {
		return s.authoriseParty(ctx, p, typ)
	}
	if p.Kind == entry.Created || p.Kind == entry.Joined {
		if err := s.invitable(ctx, p); err != nil || p.Kind == entry.Created {
			return err
		}
	}
	a, err := s.access(ctx, p.Tenant, p.Conversation, p.Sender)
	switch {
	case err != nil:
		return err
	case a.role != entry.None:
		return nil
	case p.Kind == entry.Joined && slices.Equal(p.Detail.Members, []string{p.Sender}):
		if a.policy == entry.JoinOpen {
			return nil
		}
		return errcode.Forbidden.Errorf("the group isn't open: ask a member to add you")
	}
	return errcode.NotMember
}

// invitable refuses to bring somebody into a group who blocks the one who does.
func (s *Service) invitable(ctx context.Context, p *entry.Proposal) error {
	others := slices.DeleteFunc(slices.Clone(p.Detail.Members), func(uid string) bool { return uid == p.Sender })
	if len(others) == 0 {
		return nil
	}
	blocked, err := s.d.Store.BlockedBy(ctx, p.Tenant, others, p.Sender)
	if err != nil {
		return storeError(err)
	}
	if len(blocked) > 0 {
		return errcode.Blocked.Errorf("%s takes no invitations from this user", blocked[0])
	}
	return nil
}

// authoriseParty judges by the id, which names who is in.
func (s *Service) authoriseParty(ctx context.Context, p *entry.Proposal, typ entry.Type) error {
	parties := entry.Parties(p.Conversation)
	if !slices.Contains(parties, p.Sender) {
		return errcode.NotMember
	}
	switch p.Kind {
	case entry.Marker:
		return nil
	case entry.Message, entry.Edit, entry.Reaction, entry.Pin, entry.Recall:
		if typ == entry.Inbox {
			return errcode.Forbidden.Errorf("only the system writes to an inbox")
		}
	default:
		return errcode.Forbidden.Errorf("only groups have that")
	}
	if len(parties) < 2 || p.Kind == entry.Recall {
		return nil
	}
	peer := parties[0]
	if peer == p.Sender {
		peer = parties[1]
	}
	return s.unblocked(ctx, p.Tenant, p.Sender, peer)
}

// access returns what uid may do in a group. Nothing is no error.
func (s *Service) access(ctx context.Context, tenant, id, uid string) (access, error) {
	a, how, err := s.members.get(ctx, tenant+"\x00"+id+"\x00"+uid, func(a access) bool { return a.role != entry.None }, isAway,
		func(ctx context.Context) (access, error) {
			c, m, err := s.d.Store.Membership(ctx, tenant, id, uid)
			return access{m.Role, c.JoinPolicy}, err
		})
	s.metrics.lookup(how)
	return a, storeError(err)
}

// unblocked returns errcode.Blocked if peer takes nothing from uid.
func (s *Service) unblocked(ctx context.Context, tenant, uid, peer string) error {
	blocked, how, err := s.blocks.get(ctx, tenant+"\x00"+peer+"\x00"+uid, func(blocked bool) bool { return !blocked }, isAway,
		func(ctx context.Context) (bool, error) { return s.d.Store.Blocked(ctx, tenant, peer, uid) })
	s.metrics.lookup(how)
	switch {
	case err != nil:
		return storeError(err)
	case blocked:
		return errcode.Blocked
	}
	return nil
}
