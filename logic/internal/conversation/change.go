package conversation

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/cursor"
	"github.com/halley-im/halley/logic/internal/limit"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store"
	entry "github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// Values of user changes.
type (
	onValue struct {
		On bool `json:"on"`
	}
	seqValue struct {
		Seq int64 `json:"seq"`
	}
	textValue struct {
		Text string `json:"text"`
	}
)

// jsonOf is the JSON of one of the values of this package: strings, numbers and bools can't fail.
func jsonOf(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}

// maxDraft is the longest draft in bytes.
const maxDraft = 4096

// Settings are what concerns one member alone; nil leaves it.
type Settings struct {
	Mute, Pin, Hide *bool
	Draft           *string
	Clear           *int64
}

// Set changes what concerns uid alone of a conversation: each setting is a user change of its own kind, so that two devices that change
// different ones don't undo each other's.
func (s *Service) Set(ctx context.Context, o Origin, tenant, uid, id string, v Settings) (Accepted, error) {
	if err := s.own(ctx, o, tenant, uid, id); err != nil {
		return Accepted{}, err
	}
	at := s.d.Now().UnixMilli()
	var changes []store.UserChange
	add := func(kind string, guard int64, value any) {
		changes = append(changes, store.UserChange{Tenant: tenant, UID: uid, Kind: kind, Object: id, Guard: guard, AtMs: at, Value: jsonOf(value)})
	}
	replace := func(kind string, value any) {
		// Another logic, whose clock is ahead, may have written the one before.
		guard, err := s.after(ctx, tenant, kind, uid, id)
		if err != nil {
			guard = at
		}
		add(kind, guard, value)
	}
	if v.Mute != nil {
		replace(store.ChangeMute, onValue{*v.Mute})
	}
	if v.Pin != nil {
		replace(store.ChangePin, onValue{*v.Pin})
	}
	if v.Hide != nil {
		replace(store.ChangeHide, onValue{*v.Hide})
	}
	if v.Draft != nil {
		if len(*v.Draft) > maxDraft || !utf8.ValidString(*v.Draft) {
			return Accepted{}, errcode.InvalidRequest.Errorf("draft: at most %d bytes", maxDraft)
		}
		replace(store.ChangeDraft, textValue{*v.Draft})
	}
	if v.Clear != nil {
		if err := s.reached(ctx, tenant, id, "clear", *v.Clear); err != nil {
			return Accepted{}, err
		}
		// What was cleared stays cleared.
		add(store.ChangeClear, *v.Clear, seqValue{*v.Clear})
	}
	if len(changes) == 0 {
		return Accepted{}, errcode.InvalidRequest.Errorf("mute, pin, hide, draft or clear")
	}
	return s.change(ctx, id, changes...)
}

// Delete hides one message from uid.
func (s *Service) Delete(ctx context.Context, o Origin, tenant, uid, id string, seq int64) (Accepted, error) {
	if err := s.own(ctx, o, tenant, uid, id); err != nil {
		return Accepted{}, err
	}
	if seq == 0 {
		return Accepted{}, errcode.InvalidRequest.Errorf("seq: of a message")
	}
	if err := s.reached(ctx, tenant, id, "seq", seq); err != nil {
		return Accepted{}, err
	}
	return s.change(ctx, id, store.UserChange{
		Tenant: tenant, UID: uid, Kind: store.ChangeDelete, Object: id + "/" + strconv.FormatInt(seq, 10), Guard: 1, AtMs: s.d.Now().UnixMilli(),
		Value: jsonOf(onValue{true}),
	})
}

// own lets in who changes something of his own in a conversation that he is in.
func (s *Service) own(ctx context.Context, o Origin, tenant, uid, id string) error {
	if s.d.Store == nil {
		return errNoStore
	}
	if err := s.admitUser(ctx, o, tenant, uid); err != nil {
		return err
	}
	return s.inside(ctx, tenant, uid, id)
}

// inside returns nil for whom the conversation is one of his own.
func (s *Service) inside(ctx context.Context, tenant, uid, id string) error {
	if err := entry.CheckID(id); err != nil {
		return err
	}
	return s.authorise(ctx, &entry.Proposal{Tenant: tenant, Conversation: id, Kind: entry.Marker, Sender: uid})
}

// admitUser takes a token of uid's for a change, unless a backend asks.
func (s *Service) admitUser(ctx context.Context, o Origin, tenant, uid string) error {
	if o.Backend {
		return nil
	}
	return s.take(ctx, "chat", tenant, uid, limit.Rate{PerSecond: s.cfg.Rate, Burst: s.cfg.Burst})
}

// change writes user changes with one wait for Kafka.
func (s *Service) change(ctx context.Context, id string, changes ...store.UserChange) (Accepted, error) {
	msgs := make([]kafka.Message, len(changes))
	for i := range changes {
		var err error
		if msgs[i], err = s.changeRecord(&changes[i]); err != nil {
			return Accepted{}, err
		}
	}
	err := s.write(ctx, msgs...)
	for i := range changes {
		s.metrics.change(changes[i].Kind, err)
	}
	if err != nil {
		return Accepted{}, err
	}
	return Accepted{ID: uuid.NewString(), AcceptedAtMs: changes[0].AtMs, Conversation: id}, nil
}

func (s *Service) changeRecord(u *store.UserChange) (kafka.Message, error) {
	value, err := proto.Marshal(wire.UserChangeRecord(uuid.NewString(), u))
	if err != nil {
		return kafka.Message{}, fmt.Errorf("encode user change: %w", err)
	}
	return kafka.Message{Topic: topic.Chat, Key: topic.UserKey(u.Tenant, u.UID), Value: value}, nil
}

// Read raises uid's markers; 0 leaves one. Job tells his other devices and the other members, once it is stored.
func (s *Service) Read(ctx context.Context, o Origin, tenant, uid, id string, read, delivered int64) (Accepted, error) {
	if err := checkSeq("read_seq", read); err != nil {
		return Accepted{}, err
	}
	if err := checkSeq("delivered_seq", delivered); err != nil {
		return Accepted{}, err
	}
	if read == 0 && delivered == 0 {
		return Accepted{}, errcode.InvalidRequest.Errorf("read_seq or delivered_seq")
	}
	return s.Propose(ctx, o, entry.Proposal{Tenant: tenant, Conversation: id, Kind: entry.Marker, Sender: uid, ReadSeq: read, DeliveredSeq: delivered})
}

func checkSeq(what string, seq int64) error {
	if seq < 0 || seq > maxSeq {
		return errcode.InvalidRequest.Errorf("%s: a seq, or 0", what)
	}
	return nil
}

// reached returns nil if a conversation has come to seq, or if nobody can say now how far it is.
func (s *Service) reached(ctx context.Context, tenant, id, what string, seq int64) error {
	if err := checkSeq(what, seq); err != nil || seq == 0 {
		return err
	}
	if s.d.Redis != nil {
		// What is there is never too high, and is there for what was written in the last minutes.
		rctx, cancel := context.WithTimeout(ctx, s.cfg.RedisTimeout)
		last, err := cursor.Seq(rctx, s.d.Redis, s.d.RedisPrefix, tenant, id)
		cancel()
		if err == nil && seq <= last {
			return nil
		}
	}
	c, err := s.d.Store.Conversation(ctx, tenant, id)
	if isAway(err) || err == nil && seq <= c.LastSeq {
		return nil
	}
	return errcode.InvalidRequest.Errorf("%s: the conversation has not come so far", what)
}
