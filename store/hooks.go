package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

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
	ID          string
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

type hookKey struct{ tenant, endpoint, key string }

func (h *Hook) of() hookKey { return hookKey{h.Tenant, h.Endpoint, h.Key} }

func (k hookKey) compare(o hookKey) int {
	return cmp.Or(cmp.Compare(k.tenant, o.tenant), cmp.Compare(k.endpoint, o.endpoint), cmp.Compare(k.key, o.key))
}

func (k hookKey) args() []any { return []any{k.tenant, k.endpoint, k.key} }

const ofHookKey = " WHERE tenant = ? AND endpoint = ? AND hook_key = ?"

var (
	hookKeysTable = table{"hook_keys", []string{"tenant", "endpoint", "hook_key", "due", "since", "attempts", "claim"}, 3}
	hooksTable    = table{"hook_queue", []string{"tenant", "endpoint", "hook_key", "number", "id", "created_at", "body"}, 4}
)

// PutHooks puts hooks into the queue, due at nowMs unless others of their key wait. One that is there already stays as it is: a
// repeat does no harm, unless it was sent meanwhile; then it is sent again under the same ID. If another one has its number, which
// is so after Kafka began its offsets anew, it takes the next free one. One that can't be is an error of errcode.InvalidRequest.
func (s *Store) PutHooks(ctx context.Context, nowMs int64, hooks []Hook) error {
	if len(hooks) == 0 {
		return nil
	}
	for i := range hooks {
		h := &hooks[i]
		if len(h.Tenant) > 32 || len(h.Endpoint) > MaxHookEndpoint || len(h.Key) > MaxHookKey || len(h.ID) > MaxHookID || len(h.Body) > MaxHookBody {
			return errcode.InvalidRequest.Errorf("hook: endpoint, key, id or body is too long")
		}
	}
	// In order: two writers that want the same keys wait for each other and don't deadlock.
	hooks = slices.Clone(hooks)
	slices.SortStableFunc(hooks, func(a, b Hook) int { return cmp.Or(a.of().compare(b.of()), cmp.Compare(a.Number, b.Number)) })
	err := s.retry(ctx, func(ctx context.Context, c *conn) error { return putHooks(ctx, c, nowMs, hooks) })
	if err != nil {
		return fmt.Errorf("put hooks: %w", err)
	}
	return nil
}

func putHooks(ctx context.Context, c *conn, nowMs int64, hooks []Hook) error {
	var keys, places [][]any
	for i := range hooks {
		h := &hooks[i]
		if i == 0 || hooks[i-1].of() != h.of() {
			keys = append(keys, []any{h.Tenant, h.Endpoint, h.Key, nowMs, h.CreatedAtMs, 0, 0})
		}
		places = append(places, []any{h.Tenant, h.Endpoint, h.Key, h.Number})
	}
	// Locks the keys that are there, and makes the others.
	t := &hookKeysTable
	if err := c.insert(ctx, t.name, t.columns, keys, c.s.dialect.upsert(t.columns[:t.keys], nil)); err != nil {
		return err
	}
	type place struct {
		hookKey
		number int64
	}
	taken := map[place]string{}
	if err := c.each(ctx, "SELECT tenant, endpoint, hook_key, number, id FROM hook_queue",
		"tenant = ? AND endpoint = ? AND hook_key = ? AND number = ?", "", places, func(r *sql.Rows) error {
			var p place
			var id string
			err := r.Scan(&p.tenant, &p.endpoint, &p.key, &p.number, &id)
			taken[p] = id
			return err
		}); err != nil {
		return err
	}
	var rows [][]any
	var moved []*Hook
	for i := range hooks {
		h := &hooks[i]
		at := place{h.of(), h.Number}
		switch id, ok := taken[at]; {
		case ok && id != h.ID:
			moved = append(moved, h)
		case !ok:
			taken[at] = h.ID
			rows = append(rows, hookRow(h, h.Number))
		}
	}
	if err := hooksTable.add(ctx, c, rows); err != nil {
		return err
	}
	for _, h := range moved {
		var last int64
		var again int
		if err := c.query(ctx, func(r *sql.Rows) error { return r.Scan(&last, &again) },
			"SELECT MAX(number), COALESCE(SUM(CASE WHEN id = ? THEN 1 ELSE 0 END), 0) FROM hook_queue"+ofHookKey, append([]any{h.ID}, h.of().args()...)...); err != nil {
			return err
		}
		if again > 0 {
			continue
		}
		if err := hooksTable.add(ctx, c, [][]any{hookRow(h, last+1)}); err != nil {
			return err
		}
	}
	return nil
}

func hookRow(h *Hook, number int64) []any {
	body := h.Body
	if body == nil {
		body = []byte{}
	}
	return []any{h.Tenant, h.Endpoint, h.Key, number, h.ID, h.CreatedAtMs, body}
}

// HookClaim is a key that somebody has for a time, with the first hooks of it.
type HookClaim struct {
	Tenant   string
	Endpoint string
	Key      string
	// UntilMs is when the key is everybody's again.
	UntilMs int64
	// Attempts is how often the first hook was tried, this time included.
	Attempts int
	// Hooks are in order, the first one first.
	Hooks []Hook

	token int64
}

func (c *HookClaim) of() hookKey { return hookKey{c.Tenant, c.Endpoint, c.Key} }

// ErrClaimLost says that a claim ran out and somebody else has the key, or has sent all of it.
var ErrClaimLost = errors.New("claim lost")

// ClaimHooks takes up to keys keys of an endpoint that are due, the longest due first, each with up to most of its hooks, and
// holds them back from everybody else until untilMs. The caller sends a key's hooks one after the other, says DoneHook after each,
// and ReleaseHooks in the end; if he dies, the key is due again at untilMs.
func (s *Store) ClaimHooks(ctx context.Context, tenant, endpoint string, nowMs, untilMs int64, keys, most int) ([]HookClaim, error) {
	type row struct {
		HookClaim
		due int64
	}
	due, err := func() ([]row, error) {
		ctx, cancel := s.reading(ctx)
		defer cancel()
		var due []row
		// More than are wanted: others read the same ones.
		err := s.reader().query(ctx, func(r *sql.Rows) error {
			v := row{HookClaim: HookClaim{Tenant: tenant, Endpoint: endpoint, UntilMs: untilMs}}
			err := r.Scan(&v.Key, &v.due, &v.Attempts, &v.token)
			due = append(due, v)
			return err
		}, "SELECT hook_key, due, attempts, claim FROM hook_keys WHERE tenant = ? AND endpoint = ? AND due <= ? ORDER BY due LIMIT ?",
			tenant, endpoint, nowMs, 4*keys)
		return due, err
	}()
	if err != nil {
		return nil, fmt.Errorf("read due hooks: %w", err)
	}
	if len(due) == 0 {
		return nil, nil
	}
	if len(due) > keys {
		rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
		due = due[:keys]
	}
	slices.SortFunc(due, func(a, b row) int { return a.of().compare(b.of()) })
	var out []HookClaim
	err = s.retry(ctx, func(ctx context.Context, c *conn) error {
		out = nil
		for _, v := range due {
			token := rand.Int64N(1<<62) + 1
			// By compare and set.
			n, err := c.affected(ctx, "UPDATE hook_keys SET due = ?, attempts = attempts + 1, claim = ?"+ofHookKey+" AND due = ? AND claim = ?",
				untilMs, token, tenant, endpoint, v.Key, v.due, v.token)
			if err != nil {
				return err
			}
			if n == 0 {
				continue
			}
			claim := v.HookClaim
			claim.Attempts++
			claim.token = token
			if err := c.query(ctx, func(r *sql.Rows) error {
				h := Hook{Tenant: tenant, Endpoint: endpoint, Key: v.Key}
				err := r.Scan(&h.Number, &h.ID, &h.CreatedAtMs, &h.Body)
				claim.Hooks = append(claim.Hooks, h)
				return err
			}, "SELECT number, id, created_at, body FROM hook_queue"+ofHookKey+" ORDER BY number LIMIT ?", tenant, endpoint, v.Key, most); err != nil {
				return err
			}
			out = append(out, claim)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("claim hooks: %w", err)
	}
	return out, nil
}

// DoneHook removes a hook of a claim that was sent, or given up: the next of the key begins with its first try. ErrClaimLost if
// the key is somebody else's.
func (s *Store) DoneHook(ctx context.Context, c *HookClaim, h *Hook) error {
	err := s.retry(ctx, func(ctx context.Context, tx *conn) error {
		n, err := tx.affected(ctx, "UPDATE hook_keys SET attempts = 1"+ofHookKey+" AND claim = ?", append(c.of().args(), c.token)...)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrClaimLost
		}
		_, err = tx.exec(ctx, "DELETE FROM hook_queue"+ofHookKey+" AND number = ? AND id = ?", append(c.of().args(), h.Number, h.ID)...)
		return err
	})
	if err != nil {
		return fmt.Errorf("hook done: %w", err)
	}
	return nil
}

// ReleaseHooks gives a key back, due at dueMs if anything of it is left. failed: the first hook's tries count on. It returns
// whether something is left; ErrClaimLost if the key is somebody else's.
func (s *Store) ReleaseHooks(ctx context.Context, c *HookClaim, dueMs int64, failed bool) (left bool, err error) {
	err = s.retry(ctx, func(ctx context.Context, tx *conn) error {
		left = false
		var attempts, since int64
		mine := false
		if err := tx.query(ctx, func(r *sql.Rows) error { mine = true; return r.Scan(&attempts) },
			"SELECT attempts FROM hook_keys"+ofHookKey+" AND claim = ?"+s.dialect.forUpdate, append(c.of().args(), c.token)...); err != nil {
			return err
		}
		if !mine {
			return ErrClaimLost
		}
		// The row is locked: whoever puts a hook in has committed, or waits.
		if err := tx.query(ctx, func(r *sql.Rows) error { left = true; return r.Scan(&since) },
			"SELECT created_at FROM hook_queue"+ofHookKey+" ORDER BY number LIMIT 1", c.of().args()...); err != nil {
			return err
		}
		if !left {
			_, err := tx.exec(ctx, "DELETE FROM hook_keys"+ofHookKey, c.of().args()...)
			return err
		}
		if !failed {
			attempts = 0
		}
		_, err := tx.exec(ctx, "UPDATE hook_keys SET due = ?, since = ?, attempts = ?, claim = 0"+ofHookKey,
			append([]any{dueMs, since, attempts}, c.of().args()...)...)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("release hooks: %w", err)
	}
	return left, nil
}

// affected runs a statement and returns how many rows it met.
func (c *conn) affected(ctx context.Context, text string, args ...any) (int64, error) {
	res, err := c.exec(ctx, text, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// HookQueue is what waits for an endpoint.
type HookQueue struct {
	Tenant   string
	Endpoint string
	// DueMs is when the first of its keys is due, or its claim runs out.
	DueMs int64
}

// HookQueues returns all endpoints for which something waits.
func (s *Store) HookQueues(ctx context.Context) ([]HookQueue, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	var out []HookQueue
	err := s.reader().query(ctx, func(r *sql.Rows) error {
		var q HookQueue
		err := r.Scan(&q.Tenant, &q.Endpoint, &q.DueMs)
		out = append(out, q)
		return err
	}, "SELECT tenant, endpoint, MIN(due) FROM hook_keys GROUP BY tenant, endpoint")
	if err != nil {
		return nil, fmt.Errorf("read hook queues: %w", err)
	}
	return out, nil
}

// HookBacklog is how much of an endpoint's waits.
type HookBacklog struct {
	Tenant   string
	Endpoint string
	// Keys is of how many keys something waits.
	Keys int64
	// OldestMs is when the oldest of their first hooks was put in.
	OldestMs int64
}

// HookBacklogs returns the backlogs of all endpoints for which something waits.
func (s *Store) HookBacklogs(ctx context.Context) ([]HookBacklog, error) {
	ctx, cancel := s.reading(ctx)
	defer cancel()
	var out []HookBacklog
	err := s.reader().query(ctx, func(r *sql.Rows) error {
		var b HookBacklog
		err := r.Scan(&b.Tenant, &b.Endpoint, &b.Keys, &b.OldestMs)
		out = append(out, b)
		return err
	}, "SELECT tenant, endpoint, COUNT(*), MIN(since) FROM hook_keys GROUP BY tenant, endpoint ORDER BY tenant, endpoint")
	if err != nil {
		return nil, fmt.Errorf("read hook backlogs: %w", err)
	}
	return out, nil
}
