package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/halley-im/halley/proto/errcode"
)

// Hook is a webhook on its way to an endpoint.
type Hook struct {
	Tenant   string
	Endpoint string
	// Key is what it is in order with: of one key, one is sent after the other.
	Key string
	// Number is its place in that order, given by the caller: the record's offset.
	Number int64
	// ID is the same at every try.
	ID string
	// DueMs is when it may be sent, Attempts how often that was tried.
	DueMs       int64
	Attempts    int
	CreatedAtMs int64
	Body        []byte
}

// Longest parts of a hook in bytes.
const (
	MaxHookEndpoint = 64
	MaxHookKey      = 160
	MaxHookID       = 64
	MaxHookBody     = 1<<24 - 1
)

var hooksTable = table{"hook_queue", []string{
	"tenant", "endpoint", "hook_key", "number", "id", "due", "attempts", "created_at", "body",
}, 4}

// PutHooks puts hooks into the queue. One that is there already stays as it is: a repeat does no harm, unless it was sent
// meanwhile; then it is sent again under the same ID. One that can't be is an error of errcode.InvalidRequest.
func (s *Store) PutHooks(ctx context.Context, hooks []Hook) error {
	rows := make([][]any, len(hooks))
	for i := range hooks {
		h := &hooks[i]
		if len(h.Tenant) > 32 || len(h.Endpoint) > MaxHookEndpoint || len(h.Key) > MaxHookKey || len(h.ID) > MaxHookID || len(h.Body) > MaxHookBody {
			return errcode.InvalidRequest.Errorf("hook: endpoint, key, id or body is too long")
		}
		body := h.Body
		if body == nil {
			body = []byte{}
		}
		rows[i] = []any{h.Tenant, h.Endpoint, h.Key, h.Number, h.ID, h.DueMs, h.Attempts, h.CreatedAtMs, body}
	}
	err := s.retry(ctx, func(ctx context.Context, c *conn) error {
		return c.insert(ctx, hooksTable.name, hooksTable.columns, rows, s.dialect.upsert(hooksTable.columns[:hooksTable.keys], nil))
	})
	if err != nil {
		return fmt.Errorf("put hooks: %w", err)
	}
	return nil
}

// ClaimHooks takes up to limit hooks of an endpoint that are due, the first of each key alone, the longest due first, and holds
// them back from everybody else until leaseMs. Attempts counts this one. The caller sends them and says DoneHook or RetryHook;
// if he dies, they are due again at leaseMs.
func (s *Store) ClaimHooks(ctx context.Context, tenant, endpoint string, nowMs, leaseMs int64, limit int) ([]Hook, error) {
	var out []Hook
	err := s.retry(ctx, func(ctx context.Context, c *conn) error {
		out = nil
		var due []Hook
		if err := c.query(ctx, func(r *sql.Rows) error {
			var h Hook
			err := r.Scan(&h.Tenant, &h.Endpoint, &h.Key, &h.Number, &h.ID, &h.DueMs, &h.Attempts, &h.CreatedAtMs, &h.Body)
			due = append(due, h)
			return err
		}, "SELECT tenant, endpoint, hook_key, number, id, due, attempts, created_at, body FROM hook_queue q"+
			" WHERE tenant = ? AND endpoint = ? AND due <= ? AND NOT EXISTS (SELECT 1 FROM hook_queue f"+
			" WHERE f.tenant = q.tenant AND f.endpoint = q.endpoint AND f.hook_key = q.hook_key AND f.number < q.number)"+
			" ORDER BY due, hook_key LIMIT ?", tenant, endpoint, nowMs, limit); err != nil {
			return err
		}
		for _, h := range due {
			// By compare and set: another process may have read the same rows.
			res, err := c.exec(ctx, "UPDATE hook_queue SET due = ?, attempts = attempts + 1 WHERE tenant = ? AND endpoint = ? AND hook_key = ?"+
				" AND number = ? AND due = ?", leaseMs, h.Tenant, h.Endpoint, h.Key, h.Number, h.DueMs)
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil {
				return err
			} else if n == 1 {
				h.DueMs = leaseMs
				h.Attempts++
				out = append(out, h)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("claim hooks: %w", err)
	}
	return out, nil
}

// DoneHook removes a hook that was sent, or given up; then the next of its key is due. It does nothing if the claim has run out
// and somebody else has it.
func (s *Store) DoneHook(ctx context.Context, h Hook) error {
	return s.settleHook(ctx, h, "DELETE FROM hook_queue")
}

// RetryHook gives a claimed hook back, to be sent at dueMs. The others of its key wait for it. It does nothing if the claim has
// run out and somebody else has it.
func (s *Store) RetryHook(ctx context.Context, h Hook, dueMs int64) error {
	return s.settleHook(ctx, h, "UPDATE hook_queue SET due = ?", dueMs)
}

func (s *Store) settleHook(ctx context.Context, h Hook, text string, args ...any) error {
	err := s.retry(ctx, func(ctx context.Context, c *conn) error {
		_, err := c.exec(ctx, text+" WHERE tenant = ? AND endpoint = ? AND hook_key = ? AND number = ? AND due = ? AND attempts = ?",
			append(args, h.Tenant, h.Endpoint, h.Key, h.Number, h.DueMs, h.Attempts)...)
		return err
	})
	if err != nil {
		return fmt.Errorf("settle hook: %w", err)
	}
	return nil
}

// HookBacklog is how much of an endpoint's waits.
type HookBacklog struct {
	Tenant   string
	Endpoint string
	Hooks    int64
	// OldestMs is when the oldest of them was put in.
	OldestMs int64
}

// HookBacklogs returns all endpoints for which something waits.
func (s *Store) HookBacklogs(ctx context.Context) ([]HookBacklog, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	var out []HookBacklog
	err := s.reader().query(ctx, func(r *sql.Rows) error {
		var b HookBacklog
		err := r.Scan(&b.Tenant, &b.Endpoint, &b.Hooks, &b.OldestMs)
		out = append(out, b)
		return err
	}, "SELECT tenant, endpoint, COUNT(*), MIN(created_at) FROM hook_queue GROUP BY tenant, endpoint ORDER BY tenant, endpoint")
	if err != nil {
		return nil, fmt.Errorf("read hook backlogs: %w", err)
	}
	return out, nil
}
