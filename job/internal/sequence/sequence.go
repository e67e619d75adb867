// Package sequence is the worker of halley.chat: it has what was accepted judged and stored, in the order of the partition, and
// then tells who has to know. A batch is one transaction of the store, which alone decides; what is remembered here (who is
// in a group) is checked against what the store answers.
//
// Each partition has two goroutines, and a third one where webhooks want to know whom a message did not reach. The one that reads
// stores: it repeats what the database fails at until it succeeds or the generation ends, so that a database that is away holds a
// partition up and loses nothing of it. The other one follows: outcomes and marks to Redis, then deliveries. So storing goes on
// while a comet or router is slow, ahead by as many records as the consumer lets be in flight. A record is done, and may be passed
// by the committed offset, when all that it makes be told is.
//
// Whoever had the partition before may have died between any two of these steps. His records come again then, the store answers
// with their first outcomes, and all that follows from them is done again.
package sequence

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/job/internal/backoff"
	"github.com/halley-im/halley/job/internal/consume"
	"github.com/halley-im/halley/job/internal/dead"
	"github.com/halley-im/halley/job/internal/deliver"
	"github.com/halley-im/halley/job/internal/meter"
	"github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

// Store is where conversations are kept; store.Store is one. An error is the database's own: the same is asked again.
type Store interface {
	Append(ctx context.Context, ps []conversation.Proposal) ([]store.Outcome, error)
	PutListings(ctx context.Context, ls []store.Listing) ([]store.ChangeOutcome, error)
	PutUserChanges(ctx context.Context, us []store.UserChange) ([]store.ChangeOutcome, error)
	Entries(ctx context.Context, tenant, id string, from, to int64, limit int) ([]store.Entry, error)
	Rosters(ctx context.Context, ids []store.ID) (map[store.ID]store.Roster, error)
	Muters(ctx context.Context, tenant, id string, uids []string) (map[string]bool, error)
	MembersOf(ctx context.Context, tenant, id string, uids []string) (map[string]conversation.Membership, error)
}

// Hooks tells the host's backend; hook.Hooks are one.
type Hooks interface {
	// Wanted reports whether anybody wants to be told of an event.
	Wanted(tenant, event string) bool
	// Offline has it told, and tries until that is sure; false if ctx ended first.
	Offline(ctx context.Context, list ...hook.Offline) bool
}

// Handlers makes the handlers of the topic's partitions.
type Handlers struct {
	Lane  *deliver.Lane
	Meter *meter.Meter
	// Records is the lane's counter of what was decoded.
	Records *meter.Lane
	Dead    *dead.Letters
	Store   Store
	// Appender joins what the partitions store.
	Appender *Appender
	// Hooks are told of messages that did not reach somebody. Nil: nobody wants to know.
	Hooks Hooks
	// Redis takes outcomes and marks, below Prefix, in RedisTimeout. Nil: nobody waits for outcomes, and there are no marks.
	Redis        redis.UniversalClient
	Prefix       string
	RedisTimeout time.Duration
	Log          *slog.Logger
	// RetryMin and RetryMax space the tries of the database.
	RetryMin, RetryMax time.Duration
	// Members is how many members of groups a partition remembers.
	Members int
	// Large is the number of members above which a group's entries go to a room; 0: never.
	Large int64
	// RoomAfter is for how long its members were put into the room before that.
	RoomAfter time.Duration
}

// New returns the handler of a partition.
func (h *Handlers) New(p *consume.Partition) consume.Handler {
	return &handler{
		Handlers: h, owner: p, partition: p.ID, members: newMembers(h.Members), rooms: map[store.ID]*room{}, queue: newQueue(mostQueued), absent: newAbsences(),
		log: h.Log.With(logs.Partition, p.ID),
	}
}

type handler struct {
	*Handlers
	owner     deliver.Owner
	partition int
	log       *slog.Logger
	members   *members // Handle's
	rooms     map[store.ID]*room
	queue     *queue
	absent    *absences
}

// Handle stores records and queues what is to be told of them. One that can't be decoded goes to the dead letters.
func (h *handler) Handle(ctx context.Context, first uint64, msgs []kafka.Message) {
	var b batch
	for i := range msgs {
		b.add(first+uint64(i), &msgs[i])
	}
	h.Records.Records.Add(float64(len(b.proposals) + len(b.changes)))
	// Entries are told before the changes of single users are stored, some of which follow from the batch's markers.
	if len(b.proposals) > 0 && !h.keep(ctx, &b, h.keepProposals) {
		return
	}
	if len(b.changes) > 0 && !h.keep(ctx, &b, h.keepChanges) {
		return
	}
	for _, l := range b.letters {
		if !h.Dead.Put(ctx, h.partition, l.msg, l.reason) {
			return
		}
		h.owner.Done(l.seq)
	}
}

// keep stores a part of a batch by f and queues what is to be told of it; false if ctx ended first.
func (h *handler) keep(ctx context.Context, b *batch, f func(context.Context, *batch, *round) bool) bool {
	r := &round{}
	return f(ctx, b, r) && h.queue.put(ctx, r)
}

func (h *handler) keepProposals(ctx context.Context, b *batch, r *round) bool {
	outcomes, ok := h.append(ctx, b.proposals)
	if !ok {
		return false
	}
	now := time.Now().UnixMilli()
	var listings []store.Listing
	for i := range outcomes {
		listings = append(listings, outcomes[i].Listings...)
		h.Meter.Chat.Stored.Observe(max(0, float64(now-b.proposals[i].AcceptedAtMs)/1000))
	}
	// Now, and not with the entries: the lists lie with their users, who may be anywhere.
	listed, ok := inParts(ctx, h, "listings", listings, h.Store.PutListings)
	if !ok {
		return false
	}
	rows, ok := h.rows(ctx, b, outcomes)
	if !ok {
		return false
	}
	who, ok := h.audience(ctx, b, outcomes)
	if !ok {
		return false
	}
	standing, ok := h.standing(ctx, b, outcomes, rows)
	if !ok {
		return false
	}
	t := teller{h: h, r: r, b: b, rows: rows, who: who, standing: standing}
	for i := range outcomes {
		n := len(outcomes[i].Listings)
		t.proposal(&b.sources[i], &b.proposals[i], &outcomes[i], listed[:n])
		listed = listed[n:]
	}
	if !h.turn(ctx, b, outcomes, &t) {
		return false
	}
	h.members.shrink()
	return true
}

// append stores proposals, together with those of other partitions; what the database failed at alone, and in parts.
func (h *handler) append(ctx context.Context, ps []conversation.Proposal) ([]store.Outcome, bool) {
	joined := true
	return inParts(ctx, h, "append", ps, func(ctx context.Context, ps []conversation.Proposal) ([]store.Outcome, error) {
		if !joined {
			return h.Store.Append(ctx, ps)
		}
		out, err := h.Appender.Append(ctx, ps)
		joined = err == nil
		return out, err
	})
}

func (h *handler) keepChanges(ctx context.Context, b *batch, r *round) bool {
	outcomes, ok := inParts(ctx, h, "user_changes", b.changes, h.Store.PutUserChanges)
	if !ok {
		return false
	}
	t := teller{h: h, r: r}
	for i := range outcomes {
		t.userChange(&b.changers[i], &b.changes[i], &outcomes[i])
	}
	return true
}

// Run tells what Handle queues, in its order, until ctx ends; then it hands the rest over.
func (h *handler) Run(ctx context.Context) {
	if h.Hooks != nil {
		var beside sync.WaitGroup
		beside.Go(func() { h.tellAbsent(ctx) })
		defer beside.Wait()
	}
	var w deliver.Work
	var n notes
	for {
		r := h.queue.take(ctx, n.retryAfter(h))
		if r == nil {
			if ctx.Err() != nil {
				// Whoever has the partition next knows nothing of what is owed of records that are passed.
				n.write(context.WithoutCancel(ctx), h, nil)
				return
			}
			n.write(ctx, h, nil)
			continue
		}
		if ctx.Err() == nil {
			n.write(ctx, h, r)
			for _, seq := range r.done {
				h.owner.Done(seq)
			}
		}
		if len(r.items) > 0 {
			h.Lane.Deliver(ctx, r.items, &w)
		}
	}
}

// mostRows is the most of anything that goes into one transaction.
const mostRows = 500

// inParts hands items to f in their order, as many at a time as one transaction takes, and returns what f returns for them; false
// if ctx ended first. What fails is repeated until it succeeds, in smaller parts: a database that is too slow for many at once
// would else never get them done.
func inParts[T, O any](ctx context.Context, h *handler, step string, items []T, f func(context.Context, []T) ([]O, error)) ([]O, bool) {
	var out []O
	for size := mostRows; len(items) > 0; {
		n := min(size, len(items))
		part, ok := insist(ctx, h, step, func(ctx context.Context) ([]O, error) {
			n = min(size, len(items))
			size = max(1, n/2)
			return f(ctx, items[:n])
		})
		if !ok {
			return nil, false
		}
		size = min(mostRows, 4*size)
		if out == nil && n == len(items) {
			return part, true
		}
		out = append(out, part...)
		items = items[n:]
	}
	return out, true
}

// insist calls f until it succeeds; false if ctx ended first.
func insist[O any](ctx context.Context, h *handler, step string, f func(context.Context) (O, error)) (O, bool) {
	retry := backoff.Backoff{Min: h.RetryMin, Max: h.RetryMax}
	var away time.Time
	for {
		v, err := f(ctx)
		if err == nil {
			if !away.IsZero() {
				h.log.Info("database answers again", "step", step, logs.Took, time.Since(away))
			}
			return v, true
		}
		if ctx.Err() == nil {
			h.Meter.Chat.StoreFails.WithLabelValues(step).Inc()
			if away.IsZero() {
				away = time.Now()
				h.log.Warn("database fails, what is in the partition waits", "step", step, logs.Err, err)
			}
		}
		if !retry.Wait(ctx, 0) {
			return v, false
		}
	}
}
