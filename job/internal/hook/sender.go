package hook

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/halley-im/halley/job/internal/backoff"
	"github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/store"
)

// Run sends what is in the queue until ctx ends; what is in hand then is given back.
func (h *Hooks) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, s := range h.senders {
		all.Go(func() { s.run(ctx) })
	}
	all.Go(func() { h.measure(ctx) })
	h.look(ctx)
	all.Wait()
}

// look wakes senders whose endpoints have something due.
func (h *Hooks) look(ctx context.Context) {
	for {
		queues, err := h.store.HookQueues(ctx)
		if err != nil && ctx.Err() == nil {
			h.databaseFailed("look", err)
		} else if err == nil {
			h.databaseAnswers("look")
		}
		now := time.Now().UnixMilli()
		for _, q := range queues {
			if s := h.senders[q.Endpoint]; s != nil && q.DueMs <= now {
				s.wake(q.Tenant)
			}
		}
		if !backoff.Sleep(ctx, h.cfg.PollInterval) {
			return
		}
	}
}

// sweep drops what has waited too long for an endpoint that this job doesn't know. Another job may know it: while a change of the
// configuration goes from job to job nothing is lost. It reports whether there may be more.
func (h *Hooks) sweep(ctx context.Context, tenant, endpoint string) bool {
	now := time.Now()
	claims, err := h.store.ClaimHooks(ctx, tenant, endpoint, now.UnixMilli(), now.Add(h.cfg.Lease).UnixMilli(), h.cfg.Concurrency, h.cfg.PerClaim)
	if err != nil {
		h.databaseFailed("sweep", err)
		return false
	}
	dropped := 0
	for i := range claims {
		c := &claims[i]
		due := now
		for j := range c.Hooks {
			old := &c.Hooks[j]
			if !h.tooOld(old, now) {
				// Soon again, for who knows the endpoint; not at once, so that the old ones are found.
				due = now.Add(h.cfg.RetryMin)
				break
			}
			if err := h.store.DoneHook(ctx, c, old); err != nil {
				h.databaseFailed("sweep", err)
				return false
			}
			h.log.Error("webhook dropped: its endpoint is not configured", "endpoint", endpoint, logs.Tenant, tenant, "id", old.ID)
			h.metrics.dropped.WithLabelValues(endpoint, noEndpoint).Inc()
			dropped++
		}
		if _, err := h.store.ReleaseHooks(ctx, c, due.UnixMilli(), false); err != nil {
			h.databaseFailed("sweep", err)
			return false
		}
	}
	return dropped > 0
}

func (h *Hooks) tooOld(k *store.Hook, now time.Time) bool {
	return now.Sub(time.UnixMilli(k.CreatedAtMs)) > h.cfg.GiveUpAfter
}

// measure shows the backlogs, and removes what is left of endpoints that are not configured any more.
func (h *Hooks) measure(ctx context.Context) {
	for {
		list, err := h.store.HookBacklogs(ctx)
		if err == nil {
			keys, oldest := map[string]int64{}, map[string]int64{}
			for _, b := range list {
				if h.senders[b.Endpoint] == nil && time.Since(time.UnixMilli(b.OldestMs)) > h.cfg.GiveUpAfter {
					for ctx.Err() == nil && h.sweep(ctx, b.Tenant, b.Endpoint) {
					}
				}
				keys[b.Endpoint] += b.Keys
				if at, ok := oldest[b.Endpoint]; !ok || b.OldestMs < at {
					oldest[b.Endpoint] = b.OldestMs
				}
			}
			for _, e := range h.endpoints {
				age := 0.0
				if at, ok := oldest[e.Name]; ok {
					age = max(0, time.Since(time.UnixMilli(at)).Seconds())
				}
				h.metrics.keys.WithLabelValues(e.Name).Set(float64(keys[e.Name]))
				h.metrics.oldest.WithLabelValues(e.Name).Set(age)
			}
			h.databaseAnswers("measure")
		} else if ctx.Err() == nil {
			h.databaseFailed("measure", err)
		}
		if !backoff.Sleep(ctx, h.cfg.MeasureInterval) {
			return
		}
	}
}

// sender sends the hooks of one endpoint.
type sender struct {
	*Hooks
	endpoint *Endpoint
	log      *slog.Logger
	client   *http.Client
	slots    chan struct{} // holds one for each key in hand
	ready    chan struct{} // has a signal when due is not empty

	mu sync.Mutex
	// due are the tenants of which something may be due, in the order in which they were found.
	due []string
	// failing is whether requests fail, as the log says; told is when it said so.
	failing bool
	told    time.Time
}

func newSender(h *Hooks, e *Endpoint) *sender {
	return &sender{
		Hooks: h, endpoint: e, log: h.log.With("endpoint", e.Name, "host", e.host), client: hook.NewClient(h.cfg.Concurrency),
		slots: make(chan struct{}, h.cfg.Concurrency), ready: make(chan struct{}, 1),
	}
}

// wake says that something of a tenant may be due.
func (s *sender) wake(tenant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.due {
		if t == tenant {
			return
		}
	}
	s.due = append(s.due, tenant)
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// next waits for a tenant; false when ctx has ended.
func (s *sender) next(ctx context.Context) (string, bool) {
	for ctx.Err() == nil {
		s.mu.Lock()
		if len(s.due) > 0 {
			tenant := s.due[0]
			s.due = s.due[1:]
			s.mu.Unlock()
			return tenant, true
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-s.ready:
		}
	}
	return "", false
}

// take waits for a slot, and takes as many as there are.
func (s *sender) take(ctx context.Context) int {
	select {
	case <-ctx.Done():
		return 0
	case s.slots <- struct{}{}:
	}
	for n := 1; ; n++ {
		select {
		case s.slots <- struct{}{}:
		default:
			return n
		}
	}
}

func (s *sender) give(n int) {
	for range n {
		<-s.slots
	}
}

// run sends until ctx ends. Tenants take turns.
func (s *sender) run(ctx context.Context) {
	var sending sync.WaitGroup
	defer s.client.CloseIdleConnections()
	defer sending.Wait()
	retry := backoff.Backoff{Min: s.retryMin, Max: s.retryMax}
	for {
		// First a slot: a tenant that is taken off the list has its turn at once.
		n := s.take(ctx)
		if n == 0 {
			return
		}
		tenant, ok := s.next(ctx)
		if !ok {
			s.give(n)
			return
		}
		now := time.Now()
		claims, err := s.store.ClaimHooks(ctx, tenant, s.endpoint.Name, now.UnixMilli(), now.Add(s.cfg.Lease).UnixMilli(), n, s.cfg.PerClaim)
		s.give(n - len(claims))
		if err != nil {
			if ctx.Err() == nil {
				s.databaseFailed("claim", err)
			}
			s.wake(tenant)
			if !retry.Wait(ctx, 0) {
				return
			}
			continue
		}
		retry.Reset()
		s.databaseAnswers("claim")
		for i := range claims {
			sending.Go(func() {
				defer s.give(1)
				if s.send(ctx, &claims[i]) {
					s.wake(tenant)
				}
			})
		}
		if len(claims) == n {
			s.wake(tenant)
		}
	}
}

// send sends the hooks of a key, and reports whether more of it is due.
func (s *sender) send(ctx context.Context, c *store.HookClaim) (more bool) {
	end := time.UnixMilli(c.UntilMs).Add(-s.cfg.margin())
	attempt := c.Attempts
	for i := range c.Hooks {
		h := &c.Hooks[i]
		// A request must end before somebody else may begin with this key.
		if time.Until(end) < s.cfg.Timeout || ctx.Err() != nil {
			return s.release(ctx, c, time.Now(), false)
		}
		a := s.try(ctx, h)
		now := time.Now()
		switch {
		case a.result == sent:
			s.metrics.seconds.WithLabelValues(s.endpoint.Name).Observe(max(0, now.Sub(time.UnixMilli(h.CreatedAtMs)).Seconds()))
		case ctx.Err() != nil:
			return s.release(ctx, c, now, false)
		case s.tooOld(h, now):
			s.metrics.dropped.WithLabelValues(s.endpoint.Name, tooOld).Inc()
			s.log.Error("webhook dropped: it failed for too long", logs.Tenant, h.Tenant, "key", h.Key, "id", h.ID, "attempts", attempt, logs.Err, a.err)
		default:
			return s.release(ctx, c, now.Add(s.wait(attempt, a)), true)
		}
		if !s.settle(ctx, c, "done", func(ctx context.Context) error { return s.store.DoneHook(ctx, c, h) }) {
			return false
		}
		attempt = 1
	}
	return s.release(ctx, c, time.Now(), false)
}

// try makes one request and counts it.
func (s *sender) try(ctx context.Context, h *store.Hook) answer {
	try, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	a := s.endpoint.post(try, s.client, h)
	if ctx.Err() != nil && a.result != sent {
		return a // our own end is no fault of the receiver's
	}
	s.metrics.requests.WithLabelValues(s.endpoint.Name, string(a.result)).Inc()
	s.tell(a)
	return a
}

// tell says in the log when an endpoint begins to fail and when it takes webhooks again, at most once a minute: one that refuses some
// and takes others would fill it.
func (s *sender) tell(a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	failing := a.result != sent
	if failing == s.failing || time.Since(s.told) < time.Minute {
		return
	}
	s.failing, s.told = failing, time.Now()
	if failing {
		s.log.Warn("endpoint fails, its webhooks wait", "result", string(a.result), logs.Err, a.err)
	} else {
		s.log.Info("endpoint takes webhooks again")
	}
}

// wait is how long to wait after a try: what the schedule says, or the receiver. One that wants no more is asked as rarely as can be:
// its operator may not have meant it, and what waits is kept for a day.
func (s *sender) wait(attempt int, a answer) time.Duration {
	if a.result == gone {
		return s.cfg.RetryMax
	}
	d := s.cfg.RetryMin << min(max(attempt-1, 0), 20)
	if d > s.cfg.RetryMax || d <= 0 {
		d = s.cfg.RetryMax
	}
	// Up to a fifth more, so that what failed together doesn't come back together.
	d += time.Duration(float64(d) * 0.2 * rand.Float64())
	return max(d, min(a.after, s.cfg.RetryMax))
}

// release gives a key back and reports whether more of it is due now.
func (s *sender) release(ctx context.Context, c *store.HookClaim, due time.Time, failed bool) bool {
	left := false
	ok := s.settle(ctx, c, "release", func(ctx context.Context) (err error) {
		left, err = s.store.ReleaseHooks(ctx, c, due.UnixMilli(), failed)
		return err
	})
	return ok && left && !due.After(time.Now())
}

// settle writes what became of a claim, and tries as long as the claim holds; at the end of the process only shortly. False: the
// claim is, or will be, somebody else's, and what was sent and could not be written down will be sent again.
func (s *sender) settle(ctx context.Context, c *store.HookClaim, call string, f func(context.Context) error) bool {
	until := time.UnixMilli(c.UntilMs)
	hold, cancel := context.WithDeadline(context.WithoutCancel(ctx), until)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(min(time.Until(until), endTimeout), cancel) })
	defer stop()
	retry := backoff.Backoff{Min: s.retryMin, Max: s.retryMax}
	for {
		err := f(hold)
		if err == nil {
			s.databaseAnswers(call)
			return true
		}
		if errors.Is(err, store.ErrClaimLost) {
			s.metrics.lost.WithLabelValues(s.endpoint.Name).Inc()
			return false
		}
		s.databaseFailed(call, err)
		if !retry.Wait(hold, 0) {
			s.metrics.lost.WithLabelValues(s.endpoint.Name).Inc()
			return false
		}
	}
}

// endTimeout is how long the end of a process waits for the database.
const endTimeout = time.Second
