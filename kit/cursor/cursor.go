// Package cursor keeps in Redis how far each conversation and each user's own list of changes has come, so that the question
// whether a user has missed anything asks no database: job raises the marks after each commit, logic adds them up, and raises
// those that it had to ask the database for.
//
// A mark that is missing says nothing. One that is there is never above what is stored, and is below it only where job could not
// reach Redis after a commit: until it can again, which it tries once more when it ends; if it is killed before, or owes too many,
// for no longer than Life.
package cursor

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// Life is how long a mark is kept after it was last raised. Reading it doesn't count, so that a wrong one ends.
const Life = 15 * time.Minute

// member is the only member of a mark's sorted set: its score is the mark. A set, since ZADD GT raises without a script.
const member = "n"

// Conversation names a conversation whose mark it is.
type Conversation struct{ Tenant, ID string }

// User names a user whose mark it is.
type User struct{ Tenant, UID string }

// Marks are the last seqs of conversations and the numbers of users' newest changes.
type Marks struct {
	Seqs    map[Conversation]int64
	Changes map[User]int64
}

// Len returns how many there are.
func (m *Marks) Len() int { return len(m.Seqs) + len(m.Changes) }

// Seq raises a conversation's mark.
func (m *Marks) Seq(tenant, conversation string, seq int64) {
	if m.Seqs == nil {
		m.Seqs = map[Conversation]int64{}
	}
	k := Conversation{tenant, conversation}
	m.Seqs[k] = max(m.Seqs[k], seq)
}

// Change raises a user's mark.
func (m *Marks) Change(tenant, uid string, number int64) {
	if m.Changes == nil {
		m.Changes = map[User]int64{}
	}
	k := User{tenant, uid}
	m.Changes[k] = max(m.Changes[k], number)
}

// Add raises m's marks by o's.
func (m *Marks) Add(o *Marks) {
	for k, n := range o.Seqs {
		m.Seq(k.Tenant, k.ID, n)
	}
	for k, n := range o.Changes {
		m.Change(k.Tenant, k.UID, n)
	}
}

// Reset removes all marks and keeps the memory.
func (m *Marks) Reset() {
	clear(m.Seqs)
	clear(m.Changes)
}

func seqKey(prefix, tenant, id string) string { return prefix + ":{seq:" + tenant + "/" + id + "}" }
func userKey(prefix, tenant, uid string) string {
	return prefix + ":{change:" + tenant + "/" + uid + "}"
}

// Raise queues commands that raise the marks in Redis, below prefix. Repeating them is harmless.
func Raise(ctx context.Context, p redis.Pipeliner, prefix string, m *Marks) {
	put := func(key string, n int64) {
		p.ZAddArgs(ctx, key, redis.ZAddArgs{GT: true, Members: []redis.Z{{Score: float64(n), Member: member}}})
		p.PExpire(ctx, key, Life)
	}
	for k, n := range m.Seqs {
		put(seqKey(prefix, k.Tenant, k.ID), n)
	}
	for k, n := range m.Changes {
		put(userKey(prefix, k.Tenant, k.UID), n)
	}
}

// Read returns the marks of a user and of these conversations, as far as they are there.
func Read(ctx context.Context, c redis.UniversalClient, prefix, tenant, uid string, conversations []string) (Marks, error) {
	// One by one: in a Redis Cluster they lie anywhere.
	p := c.Pipeline()
	change := p.ZScore(ctx, userKey(prefix, tenant, uid), member)
	seqs := make([]*redis.FloatCmd, len(conversations))
	for i, id := range conversations {
		seqs[i] = p.ZScore(ctx, seqKey(prefix, tenant, id), member)
	}
	if _, err := p.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return Marks{}, err
	}
	var m Marks
	if n, ok, err := number(change); err != nil {
		return Marks{}, err
	} else if ok {
		m.Change(tenant, uid, n)
	}
	for i, id := range conversations {
		if n, ok, err := number(seqs[i]); err != nil {
			return Marks{}, err
		} else if ok {
			m.Seq(tenant, id, n)
		}
	}
	return m, nil
}

// Seq returns a conversation's mark; 0 if it isn't there.
func Seq(ctx context.Context, c redis.UniversalClient, prefix, tenant, id string) (int64, error) {
	n, _, err := number(c.ZScore(ctx, seqKey(prefix, tenant, id), member))
	return n, err
}

func number(c *redis.FloatCmd) (int64, bool, error) {
	n, err := c.Result()
	if errors.Is(err, redis.Nil) {
		return 0, false, nil
	}
	return int64(n), err == nil, err
}
