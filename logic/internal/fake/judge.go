package fake

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// Judge is a Producer that does with records of halley.chat what job does, as far as logic notices: they are judged and stored before
// Produce returns, or when Release is called.
type Judge struct {
	*Producer
	T     testing.TB
	Store *store.Store
	// Redis gets outcomes, below Prefix; nil: none.
	Redis  redis.UniversalClient
	Prefix string

	mu   sync.Mutex
	hold bool
	held []kafka.Message
	seen []*halleyv1.ChatRecord
	// outs are the outcomes of proposals, by the records' ids.
	outs map[string]store.Outcome
}

// Produce implements the producer of logic's packages.
func (j *Judge) Produce(ctx context.Context, msgs ...kafka.Message) error {
	var chat, rest []kafka.Message
	for _, m := range msgs {
		if m.Topic == topic.Chat {
			chat = append(chat, m)
		} else {
			rest = append(rest, m)
		}
	}
	// Also of none: it may be failing.
	if err := j.Producer.Produce(ctx, rest...); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.hold {
		j.held = append(j.held, chat...)
		return nil
	}
	j.judge(chat)
	return nil
}

// Hold keeps what is produced from now on from being judged.
func (j *Judge) Hold() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.hold = true
}

// Release judges what was held, and all that comes at once again.
func (j *Judge) Release() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.hold = false
	j.judge(j.held)
	j.held = nil
}

// Taken returns the records of halley.chat since the last call.
func (j *Judge) Taken() []*halleyv1.ChatRecord {
	j.mu.Lock()
	defer j.mu.Unlock()
	seen := j.seen
	j.seen = nil
	return seen
}

// Outcome returns what became of the proposal of a record; its code is "" if it was stored, "none" if there is no such record.
func (j *Judge) Outcome(id string) (code string, o store.Outcome) {
	j.mu.Lock()
	defer j.mu.Unlock()
	o, ok := j.outs[id]
	switch {
	case !ok:
		return "none", o
	case o.Code != nil:
		return o.Code.Name, o
	}
	return "", o
}

// Judge judges records that came another way than by Produce.
func (j *Judge) Judge(msgs ...kafka.Message) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.judge(msgs)
}

func (j *Judge) judge(msgs []kafka.Message) {
	j.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if j.outs == nil {
		j.outs = map[string]store.Outcome{}
	}
	for _, m := range msgs {
		rec := &halleyv1.ChatRecord{}
		if err := proto.Unmarshal(m.Value, rec); err != nil {
			j.T.Errorf("record: %v", err)
			continue
		}
		j.seen = append(j.seen, rec)
		if rec.GetUserChange() != nil {
			j.change(ctx, m, rec)
			continue
		}
		p, err := wire.ProposalOf(rec)
		if err != nil {
			j.T.Errorf("proposal: %v", err)
			continue
		}
		if want := topic.ConversationKey(p.Tenant, p.Conversation); string(m.Key) != string(want) {
			j.T.Errorf("key: got %q, want %q", m.Key, want)
		}
		outs, err := j.Store.Append(ctx, []conversation.Proposal{p})
		if err == nil {
			_, err = j.Store.PutListings(ctx, outs[0].Listings)
		}
		if err == nil {
			if u, ok := wire.ReadChange(&p, &outs[0]); ok {
				_, err = j.Store.PutUserChanges(ctx, []store.UserChange{u})
			}
		}
		if err != nil {
			j.T.Errorf("append: %v", err)
			continue
		}
		j.outs[rec.GetId()] = outs[0]
		j.tell(ctx, rec, &outs[0])
	}
}

func (j *Judge) change(ctx context.Context, m kafka.Message, rec *halleyv1.ChatRecord) {
	u, err := wire.UserChangeOf(rec)
	if err != nil {
		j.T.Errorf("user change: %v", err)
		return
	}
	if want := topic.UserKey(u.Tenant, u.UID); string(m.Key) != string(want) {
		j.T.Errorf("key: got %q, want %q", m.Key, want)
	}
	outs, err := j.Store.PutUserChanges(ctx, []store.UserChange{u})
	if err != nil || outs[0].Code != nil {
		j.T.Errorf("user change: got %+v, %v", outs, err)
	}
}

// tell writes the outcome to Redis where somebody waits for it.
func (j *Judge) tell(ctx context.Context, rec *halleyv1.ChatRecord, o *store.Outcome) {
	if j.Redis == nil || !rec.GetOutcome() {
		return
	}
	told := &halleyv1.ChatOutcome{Seq: o.Seq, AtMs: o.AtMs}
	if o.Code != nil {
		told.Error = errcode.Proto(o.Err())
	}
	value, err := proto.Marshal(told)
	if err == nil {
		err = j.Redis.Set(ctx, wire.OutcomeKey(j.Prefix, rec.GetId()), value, time.Minute).Err()
	}
	if err != nil {
		j.T.Errorf("outcome: %v", err)
	}
}
