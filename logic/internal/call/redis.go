package call

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
)

//go:embed lua/load.lua
var loadSource string

//go:embed lua/save.lua
var saveSource string

//go:embed lua/index.lua
var indexSource string

//go:embed lua/due.lua
var dueSource string

//go:embed lua/claim.lua
var claimSource string

//go:embed lua/lease.lua
var leaseSource string

//go:embed lua/swap.lua
var swapSource string

var (
	loadScript  = redis.NewScript(loadSource)
	saveScript  = redis.NewScript(saveSource)
	indexScript = redis.NewScript(indexSource)
	dueScript   = redis.NewScript(dueSource)
	claimScript = redis.NewScript(claimSource)
	swapScript  = redis.NewScript(swapSource)
)

// timerSlots is how many sets the index of timers has: they are spread over a cluster, and no set gets long.
const timerSlots = 64

// Every key of calls is made here.
//
//	PREFIX:{call:TENANT/ID}        hash: a call, see lua/save.lua
//	PREFIX:{call:TENANT/ID}:q      hash: quality, UID>PEER → JSON
//	PREFIX:{calluser:TENANT/UID}:busy   the call that the user is in: a lease
//	PREFIX:{calluser:TENANT/UID}:live   zset: calls that he may be in or that may ring for him, by their begin
//	PREFIX:{calluser:TENANT/UID}:all    zset: his calls, by their begin
//	PREFIX:{callconv:TENANT/CONV}:live  the conversation's call: of a direct one the pair's
//	PREFIX:{callconv:TENANT/CONV}:all   zset: its calls
//	PREFIX:{callall:TENANT}             zset: the tenant's calls
//	PREFIX:{calltimer:NN}               zset: TENANT/ID by the time of the next look
type keys struct{ prefix string }

func (k keys) call(tenant, id string) string    { return k.prefix + ":{call:" + tenant + "/" + id + "}" }
func (k keys) quality(tenant, id string) string { return k.call(tenant, id) + ":q" }
func (k keys) user(tenant, uid, what string) string {
	return k.prefix + ":{calluser:" + tenant + "/" + uid + "}:" + what
}
func (k keys) conversation(tenant, id, what string) string {
	return k.prefix + ":{callconv:" + tenant + "/" + id + "}:" + what
}
func (k keys) all(tenant string) string { return k.prefix + ":{callall:" + tenant + "}" }

func (k keys) timer(slot int) string { return fmt.Sprintf("%s:{calltimer:%02d}", k.prefix, slot) }

func memberOf(tenant, id string) string { return tenant + "/" + id }

func slotOf(member string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(member))
	return int(h.Sum32() % timerSlots)
}

// loaded is a call as it was read.
type loaded struct {
	*machine.Call
	rev    int64
	now    int64
	last   int64 // number of the last event
	unsent []event
}

// event is a Kafka record that is still to be sent.
type event struct {
	number int64
	record kafka.Message
}

type eventJSON struct {
	Topic string `json:"t"`
	Key   []byte `json:"k"`
	Value []byte `json:"v"`
}

// db is what this package keeps in Redis.
type db struct {
	rdb     redis.UniversalClient
	keys    keys
	timeout time.Duration
}

// away is what a caller is told when Redis doesn't answer.
func away(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errcode.Unavailable.After(remote.RetryAfter), err)
}

// load reads a call. Call is nil if there is none; now is set even so.
func (d *db) load(ctx context.Context, tenant, id string) (*loaded, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	list, err := loadScript.Run(ctx, d.rdb, []string{d.keys.call(tenant, id)}).Slice()
	if err != nil {
		return nil, away(fmt.Errorf("load call: %w", err))
	}
	return parse(list)
}

func parse(list []any) (*loaded, error) {
	l := &loaded{}
	if len(list) == 0 {
		return nil, errors.New("load call: empty answer")
	}
	l.now, _ = list[0].(int64)
	var state string
	for i := 1; i+1 < len(list); i += 2 {
		field, _ := list[i].(string)
		value, _ := list[i+1].(string)
		switch {
		case field == "s":
			state = value
		case field == "r":
			l.rev, _ = strconv.ParseInt(value, 10, 64)
		case field == "n":
			l.last, _ = strconv.ParseInt(value, 10, 64)
		case strings.HasPrefix(field, "e"):
			var e eventJSON
			n, err := strconv.ParseInt(field[1:], 10, 64)
			if err == nil {
				err = json.Unmarshal([]byte(value), &e)
			}
			if err != nil {
				return nil, fmt.Errorf("event of a call: %w", err)
			}
			l.unsent = append(l.unsent, event{n, kafka.Message{Topic: e.Topic, Key: e.Key, Value: e.Value}})
		}
	}
	if state == "" {
		return l, nil
	}
	slices.SortFunc(l.unsent, func(a, b event) int { return int(a.number - b.number) })
	l.Call = &machine.Call{}
	if err := json.Unmarshal([]byte(state), l.Call); err != nil {
		return nil, fmt.Errorf("state of a call: %w", err)
	}
	return l, nil
}

// save writes next in the place of what was read as l, with records still to be sent, and returns them numbered. ok is false if somebody else was first.
func (d *db) save(ctx context.Context, l *loaded, next *machine.Call, records []kafka.Message, keep time.Duration) (unsent []event, ok bool, err error) {
	state, err := json.Marshal(next)
	if err != nil {
		return nil, false, fmt.Errorf("encode call: %w", err)
	}
	due := next.Due()
	if soon := l.now + unsentDue.Milliseconds(); len(l.unsent)+len(records) > 0 && (due == 0 || due > soon) {
		due = soon
	}
	args := []any{l.rev, state, due, keep.Milliseconds(), l.last}
	unsent = slices.Clone(l.unsent)
	for i, r := range records {
		b, err := json.Marshal(eventJSON{r.Topic, r.Key, r.Value})
		if err != nil {
			return nil, false, fmt.Errorf("encode event: %w", err)
		}
		args = append(args, b)
		unsent = append(unsent, event{l.last + int64(i) + 1, r})
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	n, err := saveScript.Run(ctx, d.rdb, []string{d.keys.call(next.Tenant, next.ID)}, args...).Int()
	if err != nil {
		return nil, false, away(fmt.Errorf("save call: %w", err))
	}
	return unsent, n == 1, nil
}

// unsentDue is when a call is looked at again whose events were not all sent.
const unsentDue = time.Second

// sent forgets events that Kafka has, if any, and, in the same trip, has the call looked at when it is due rather than soon. m is where it stands in the
// index; nil: unknown.
func (d *db) sent(ctx context.Context, c *machine.Call, events []event, m *mark, nowMs int64) error {
	fields := make([]string, len(events))
	for i, e := range events {
		fields[i] = "e" + strconv.FormatInt(e.number, 10)
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	pipe := d.rdb.Pipeline()
	if len(fields) > 0 {
		pipe.HDel(ctx, d.keys.call(c.Tenant, c.ID), fields...)
	}
	if m != nil && m.member != "" {
		// As text: a pipeline can't be repeated when Redis doesn't know the script.
		pipe.Eval(ctx, dueSource, []string{d.keys.timer(slotOf(m.member))}, m.member, m.score, next(c.Due(), nowMs))
	}
	_, err := pipe.Exec(ctx)
	return err
}

// mark is where a call stands in the index of timers, as far as whoever has put it there knows.
type mark struct {
	member string
	score  string
}

func score(atMs int64) string { return strconv.FormatInt(atMs*1024+rand.Int64N(1024), 10) }

// index has the call looked at at a time, or before. It comes before the change: whoever dies after it leaves no call that nobody looks at. Who has put
// it there for an earlier change doesn't put it off any more.
func (d *db) index(ctx context.Context, tenant, id string, atMs int64) (mark, error) {
	m := mark{member: memberOf(tenant, id)}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	var err error
	m.score, err = indexScript.Run(ctx, d.rdb, []string{d.keys.timer(slotOf(m.member))}, m.member, score(atMs)).Text()
	return m, away(err)
}

// farthestLook bounds how far away a look may be: were the index lost, or one of its entries, that is the longest that a timer could be late.
const farthestLook = time.Minute

// moveTo has the call looked at when it is due; 0: no more. If somebody else has put it elsewhere meanwhile it stays there, unless that is later.
func (d *db) moveTo(ctx context.Context, m mark, dueMs, nowMs int64) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	return dueScript.Run(ctx, d.rdb, []string{d.keys.timer(slotOf(m.member))}, m.member, m.score, next(dueMs, nowMs)).Err()
}

// next is the score of a look at dueMs; 0: none.
func next(dueMs, nowMs int64) string {
	if dueMs == 0 {
		return "0"
	}
	return score(min(dueMs, nowMs+farthestLook.Milliseconds()))
}

// claim takes up to n calls of a slot whose time has come.
func (d *db) claim(ctx context.Context, slot int, hold time.Duration, n int) ([]mark, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	list, err := claimScript.Run(ctx, d.rdb, []string{d.keys.timer(slot)}, hold.Milliseconds(), n, rand.IntN(1024)).Slice()
	if err != nil || len(list) < 2 {
		return nil, err
	}
	at, _ := list[1].(string)
	marks := make([]mark, 0, len(list)-2)
	for _, v := range list[2:] {
		member, _ := v.(string)
		marks = append(marks, mark{member, at})
	}
	return marks, nil
}

// dueSlots returns the slots in which something is due.
func (d *db) dueSlots(ctx context.Context) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	pipe := d.rdb.Pipeline()
	clock := pipe.Time(ctx)
	var first [timerSlots]*redis.ZSliceCmd
	for i := range first {
		first[i] = pipe.ZRangeWithScores(ctx, d.keys.timer(i), 0, 0)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	now := float64(clock.Val().UnixMilli()+1) * 1024
	var due []int
	for i, cmd := range first {
		if z := cmd.Val(); len(z) > 0 && z[0].Score <= now {
			due = append(due, i)
		}
	}
	return due, nil
}

// swap sets a value if it is have; empty: there is none. It returns what is there then.
func (d *db) swap(ctx context.Context, key, have, want string, keep time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	v, err := swapScript.Run(ctx, d.rdb, []string{key}, have, want, keep.Milliseconds()).Text()
	return v, away(err)
}

// lease is what is to become of one.
type lease struct {
	key string
	// keep is for how long; 0: it is given up. take: also if it is nobody's.
	keep time.Duration
	take bool
}

// lease takes, renews and gives up leases of a call in one trip. The script goes as text: a pipeline can't be repeated when Redis doesn't know it.
func (d *db) lease(ctx context.Context, id string, list []lease) error {
	if len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	pipe := d.rdb.Pipeline()
	for _, l := range list {
		pipe.Eval(ctx, leaseSource, []string{l.key}, id, l.keep.Milliseconds(), l.take)
	}
	_, err := pipe.Exec(ctx)
	return away(err)
}
