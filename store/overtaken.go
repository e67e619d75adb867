package store

import (
	"context"
	"database/sql"
	"errors"
)

// errOvertaken is a clash that no unique key shows.
var errOvertaken = errors.New("another writer was faster")

// overtaken looks for another writer of a conversation that had not begun. There is no row to lock then, so one may begin it while the
// other one rejects something in it: the conversation would not know that there is a rejection, and a repeat of what was rejected would be
// judged anew. Whoever writes one of the two looks for the other one afterwards and waits for its writer; of two that wait for
// each other the database gives up one. SQLite has one writer at a time.
func (b *batch) overtaken(ctx context.Context) error {
	lock := b.c.s.dialect.forUpdate
	if lock == "" {
		return nil
	}
	var began, not [][]any
	rejects := map[convKey]bool{}
	for _, r := range b.rejections {
		rejects[convKey{r[0].(string), r[1].(string)}] = true
	}
	for _, k := range b.keys {
		if _, ok := b.found[k]; ok {
			continue
		}
		switch st := b.states[k]; {
		case st.Exists && st.Conversation.RejectedAtMs == 0:
			began = append(began, []any{k.tenant, k.id})
		case !st.Exists && rejects[k]:
			not = append(not, []any{k.tenant, k.id})
		}
	}
	const match = "tenant = ? AND conversation = ?"
	found := func(*sql.Rows) error { return errOvertaken }
	if err := b.c.each(ctx, "SELECT conversation FROM rejections", match, lock, began, found); err != nil {
		return err
	}
	return b.c.each(ctx, "SELECT conversation FROM conversations", match, lock, not, found)
}
