// Package cursor keeps in Redis how far each conversation and each user's own list of changes has come, so that the question
// whether a user has missed anything asks no database: job raises the marks after each commit, logic adds them up, and raises
// those that it had to ask the database for.
//
// A mark that is missing says nothing. One that is there is never above what is stored, and is below it only where job could not
// reach Redis after a commit, for no longer than Life.
package cursor

import (
	"context"
	_ "embed"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Life is how long a mark is kept after it was last raised. Reading it doesn't count, so that a wrong one ends.
const Life = 15 * time.Minute

//go:embed raise.lua
var raise string

// Conversation and User name whose mark it is.
type (
	Conversation struct{ Tenant, ID string }
	User         struct{ Tenant, UID string }
)

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
	life := Life.Milliseconds()
	for k, n := range m.Seqs {
		p.Eval(ctx, raise, []string{seqKey(prefix, k.Tenant, k.ID)}, n, life)
	}
	for k, n := range m.Changes {
		p.Eval(ctx, raise, []string{userKey(prefix, k.Tenant, k.UID)}, n, life)
	}
}

// Read returns the marks of a user and of these conversations, as far as they are there.
func Read(ctx context.Context, c redis.UniversalClient, prefix, tenant, uid string, conversations []string) (Marks, error) {
	// Single GETs: in a Redis Cluster they lie anywhere.
	p := c.Pipeline()
	change := p.Get(ctx, userKey(prefix, tenant, uid))
	seqs := make([]*redis.StringCmd, len(conversations))
	for i, id := range conversations {
		seqs[i] = p.Get(ctx, seqKey(prefix, tenant, id))
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

func number(c *redis.StringCmd) (int64, bool, error) {
	text, err := c.Result()
	if errors.Is(err, redis.Nil) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil, err
}
