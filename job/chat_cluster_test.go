package job_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/kit/kittest"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/storetest"
	"github.com/halley-im/halley/store/wire"
)

const tenant = "default"

// chat is a cluster with conversations: the real store on SQLite, and Redis.
type chat struct {
	*cluster
	cfg    store.Config
	store  *faultyStore
	redis  redis.UniversalClient
	prefix string

	mu sync.Mutex
	n  int
}

// faultyStore is a store whose database can be away.
type faultyStore struct {
	*store.Store
	mu    sync.Mutex
	fault func(call string) error
	calls map[string]int
	// rosters is the most that it reads in its time; 0: any.
	rosters int
}

func (s *faultyStore) call(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[name]++
	if s.fault == nil {
		return nil
	}
	return s.fault(name)
}

func (s *faultyStore) set(f func(call string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

func (s *faultyStore) count(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[name]
}

func (s *faultyStore) Append(ctx context.Context, ps []conversation.Proposal) ([]store.Outcome, error) {
	if err := s.call("append"); err != nil {
		return nil, err
	}
	out, err := s.Store.Append(ctx, ps)
	if err == nil {
		// Stored, but whoever asked doesn't get to know.
		err = s.call("appended")
	}
	return out, err
}

func (s *faultyStore) PutListings(ctx context.Context, ls []store.Listing) ([]store.ChangeOutcome, error) {
	if err := s.call("listings"); err != nil {
		return nil, err
	}
	return s.Store.PutListings(ctx, ls)
}

func (s *faultyStore) PutUserChanges(ctx context.Context, us []store.UserChange) ([]store.ChangeOutcome, error) {
	if err := s.call("changes"); err != nil {
		return nil, err
	}
	return s.Store.PutUserChanges(ctx, us)
}

func (s *faultyStore) Rosters(ctx context.Context, ids []store.ID) (map[store.ID]store.Roster, error) {
	if err := s.call("rosters"); err != nil {
		return nil, err
	}
	if s.rosters > 0 && len(ids) > s.rosters {
		return nil, context.DeadlineExceeded
	}
	return s.Store.Rosters(ctx, ids)
}

func (s *faultyStore) MembersOf(ctx context.Context, tenant, id string, uids []string) (map[string]conversation.Membership, error) {
	if err := s.call("members"); err != nil {
		return nil, err
	}
	return s.Store.MembersOf(ctx, tenant, id, uids)
}

func newStore(t testing.TB, cfg store.Config) *faultyStore {
	t.Helper()
	return &faultyStore{Store: storetest.Open(t, cfg), calls: map[string]int{}}
}

func newChat(t testing.TB) *chat {
	t.Helper()
	cfg := storetest.Config(t)
	c := &chat{cluster: newCluster(t), cfg: cfg, store: newStore(t, cfg)}
	c.redis, c.prefix = kittest.Redis(t)
	return c
}

func (c *chat) start(cfg job.Config, change ...func(*job.Deps)) *running {
	c.t.Helper()
	return c.cluster.start(cfg, append([]func(*job.Deps){func(d *job.Deps) { d.Store, d.Redis, d.RedisPrefix = c.store, c.redis, c.prefix }}, change...)...)
}

// propose makes a proposal with an id of its own.
func (c *chat) propose(kind conversation.Kind, conv, sender string, change ...func(*conversation.Proposal)) conversation.Proposal {
	c.mu.Lock()
	c.n++
	p := conversation.Proposal{Tenant: tenant, Conversation: conv, Kind: kind, Sender: sender, AcceptedAtMs: time.Now().UnixMilli()}
	if kind.TakesSeq() {
		p.ClientMsgID = fmt.Sprintf("m%d", c.n)
	}
	c.mu.Unlock()
	for _, f := range change {
		f(&p)
	}
	return p
}

func (c *chat) say(conv, sender, text string) conversation.Proposal {
	return c.propose(conversation.Message, conv, sender, func(p *conversation.Proposal) {
		p.Body, _ = json.Marshal(map[string]string{"text": text})
	})
}

func (c *chat) people(kind conversation.Kind, conv, sender string, uids ...string) conversation.Proposal {
	return c.propose(kind, conv, sender, func(p *conversation.Proposal) { p.Detail.Members = uids })
}

func target(seq int64) func(*conversation.Proposal) {
	return func(p *conversation.Proposal) { p.Target = seq }
}

// send writes proposals to the topic, in order, and returns the records.
func (c *chat) send(ps ...conversation.Proposal) []*halleyv1.ChatRecord {
	c.t.Helper()
	var recs []*halleyv1.ChatRecord
	for i := range ps {
		recs = append(recs, wire.RecordOf(&ps[i], true))
	}
	c.sendRecords(recs...)
	return recs
}

func (c *chat) sendRecords(recs ...*halleyv1.ChatRecord) {
	c.t.Helper()
	var msgs []kafka.Message
	for _, rec := range recs {
		value, err := proto.Marshal(rec)
		if err != nil {
			c.t.Fatal(err)
		}
		key := topic.UserKey(rec.GetTenant(), rec.GetUserChange().GetUid())
		if p := rec.GetProposal(); p != nil {
			key = topic.ConversationKey(rec.GetTenant(), p.GetConversation())
		}
		msgs = append(msgs, kafka.Message{Topic: topic.Chat, Key: key, Value: value})
	}
	c.produce(msgs...)
}

// event is an event as a client reads it.
type event struct {
	Stored   *storedEvent `json:"message.stored"`
	Entry    *storedEvent `json:"entry"`
	Rejected *struct {
		Conversation string `json:"conversation"`
		ClientMsgID  string `json:"client_msg_id"`
		Error        struct {
			Code string `json:"code"`
		} `json:"error"`
	} `json:"message.rejected"`
	UserChange *struct {
		Number int64           `json:"number"`
		Kind   string          `json:"kind"`
		Object string          `json:"object"`
		Value  json.RawMessage `json:"value"`
	} `json:"user.change"`
	Marker json.RawMessage `json:"marker"`
}

type storedEvent struct {
	Conversation string         `json:"conversation"`
	Entry        wire.EntryJSON `json:"entry"`
}

// line says what an event is in a few words, for comparing.
func (e *event) line() string {
	entry := func(s *storedEvent) string {
		text := struct{ Text string }{}
		_ = json.Unmarshal(s.Entry.Body, &text)
		line := fmt.Sprintf("%d %s %s", s.Entry.Seq, s.Entry.Kind, s.Entry.From)
		for _, w := range append([]string{text.Text}, s.Entry.Members...) {
			if w != "" {
				line += " " + w
			}
		}
		if s.Entry.Recalled {
			line += " (recalled)"
		}
		return line
	}
	switch {
	case e.Stored != nil:
		return entry(e.Stored)
	case e.Entry != nil:
		return entry(e.Entry)
	case e.Rejected != nil:
		return "rejected " + e.Rejected.ClientMsgID + " " + e.Rejected.Error.Code
	case e.UserChange != nil:
		return fmt.Sprintf("change %d %s %s %s", e.UserChange.Number, e.UserChange.Kind, e.UserChange.Object, e.UserChange.Value)
	case e.Marker != nil:
		return "marker " + string(e.Marker)
	}
	return "nothing"
}

// lines returns what a connection was told, in order; of changes to lists only if lists is set.
func (c *chat) lines(at *cometServer, conn string, lists bool) []string {
	c.t.Helper()
	var out []string
	for _, body := range at.bodies(conn) {
		if body == "" {
			continue // a control delivery
		}
		var e event
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			c.t.Fatalf("%s: %v", body, err)
		}
		if e.UserChange != nil && e.UserChange.Kind == store.ChangeConversation && !lists {
			continue
		}
		out = append(out, e.line())
	}
	return out
}

// told returns the lines of one conversation's entries that a connection was told, in order.
func (c *chat) told(at *cometServer, conn, id string) []string {
	c.t.Helper()
	var out []string
	for _, body := range at.bodies(conn) {
		var e event
		if body != "" && json.Unmarshal([]byte(body), &e) != nil {
			c.t.Fatalf("not an event: %s", body)
		}
		for _, s := range []*storedEvent{e.Stored, e.Entry} {
			if s != nil && s.Conversation == id {
				out = append(out, e.line())
			}
		}
	}
	return out
}

// waitLines waits until a connection was told exactly this.
func (c *chat) waitLines(at *cometServer, conn string, want ...string) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		got := c.lines(at, conn, false)
		if slices.Equal(got, want) {
			return
		}
		if len(got) > len(want) || time.Now().After(deadline) {
			c.t.Fatalf("%s was told\n%q\nwant\n%q", conn, got, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
