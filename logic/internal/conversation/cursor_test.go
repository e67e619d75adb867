package conversation_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/kit/cursor"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/store"
)

// counted counts the questions to the database.
type counted struct {
	*store.Store
	asked int
}

func (c *counted) Positions(ctx context.Context, tenant, uid string) (map[string]int64, int64, error) {
	c.asked++
	return c.Store.Positions(ctx, tenant, uid)
}

func TestCursorIsAskedOfTheDatabaseOnlyWhereRedisDoesNotKnow(t *testing.T) {
	rdb, prefix := kittest.Redis(t)
	var db *counted
	s, j := newService(t, func(_ *conversation.Config, d *conversation.Deps) {
		db = &counted{Store: d.Store.(*store.Store)}
		d.Store, d.Redis, d.RedisPrefix = db, rdb, prefix
	})
	// What job does after its commit.
	told := func(conv string) {
		t.Helper()
		c, err := j.Store.Conversation(t.Context(), tenant, conv)
		if err != nil {
			t.Fatal(err)
		}
		n, err := j.Store.LastUserChange(t.Context(), tenant, "me")
		if err != nil {
			t.Fatal(err)
		}
		var m cursor.Marks
		m.Seq(tenant, conv, c.LastSeq)
		m.Change(tenant, "me", n)
		if _, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			cursor.Raise(t.Context(), p, prefix, &m)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	say := func(conv string) {
		t.Helper()
		n++
		send(t, s, conv, "me", string(rune('a'+n)), "1")
		told(conv)
	}
	for i, step := range []struct {
		do           func()
		seqs, change int64
		asked        int
	}{
		{nil, 0, 0, 1},
		{nil, 0, 0, 1},
		{func() { say("d/a/me") }, 1, 1, 2}, // a new conversation: the list has changed
		{func() { say("d/a/me") }, 2, 1, 2}, // Redis knows by job
		{func() { say("d/b/me") }, 3, 2, 3},
		{nil, 3, 2, 3},
		{func() { _ = rdb.Del(t.Context(), prefix+":{seq:default/d/a/me}") }, 3, 2, 4}, // a mark has ended
		{nil, 3, 2, 4},
		{func() { _ = rdb.Del(t.Context(), prefix+":{list:default/me}") }, 3, 2, 5},
		{nil, 3, 2, 5},
	} {
		if step.do != nil {
			step.do()
		}
		c, err := s.Cursor(t.Context(), tenant, "me")
		if err != nil {
			t.Fatal(err)
		}
		if c.Seqs != step.seqs || c.UserChange != step.change || db.asked != step.asked {
			t.Fatalf("step %d: got %+v after %d questions, want %d, %d after %d", i, c, db.asked, step.seqs, step.change, step.asked)
		}
	}
}
