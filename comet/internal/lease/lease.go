// Package lease keeps this comet's place in presence: its epoch, the lease that makes it count as alive, and
// the entries that must be written again when presence lost some. It owns two loops: one renews, one writes.
package lease

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/halley-im/halley/comet/internal/rooms"
	"github.com/halley-im/halley/comet/internal/session"
	"github.com/halley-im/halley/comet/internal/table"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// Config holds the lease's times and paces.
type Config struct {
	Comet     string
	Addr      string
	Endpoints *halleyv1.Endpoints
	// Renew is the time between two renewals, Timeout what a call may take, Retry the pause after one that
	// failed.
	Renew, Timeout, Retry time.Duration
	// RewriteEvery is the time in which each bucket is written again, RewriteRate the entries a second at most, and the rooms and
	// sessions where all are registered in a new epoch.
	RewriteEvery time.Duration
	RewriteRate  int
}

// Hooks are what the lease asks of the rest of comet.
type Hooks struct {
	// Load says what the comet carries.
	Load func() *halleyv1.CometLoad
	// Replaced closes a session whose key a newer registration holds: for good, unless raced.
	Replaced func(s *session.Session, raced bool)
	// NewEpoch is called when another epoch was taken.
	NewEpoch func()
	// Stale is called when the epoch is dead, before and after another one is taken: what the sessions were to be told meanwhile found
	// nobody here.
	Stale func()
	// Resync tells all sessions that something may have been missed.
	Resync func()
}

// Lease is the comet's place in presence. Use New, Enroll, then Run.
type Lease struct {
	cfg    Config
	table  *table.Table
	rooms  *rooms.Store
	router halleyv1.RouterClient
	hooks  Hooks
	log    *slog.Logger

	epoch    atomic.Pointer[string]
	epochs   atomic.Int64
	renewed  atomic.Int64 // session.Now of the last renewal's beginning
	ttl      atomic.Int64
	lapsed   atomic.Bool
	draining atomic.Bool
	spare    atomic.Pointer[Spare]

	dead chan string   // the epoch that was declared dead
	kick chan struct{} // renew now
	work chan struct{} // something to write

	// begun is when each bucket's last rewrite began, in session.Now's nanoseconds.
	begun [name.Buckets]atomic.Int64

	mu    sync.Mutex
	lost  map[uint32]bool
	again []*session.Session
	fresh bool // the epoch is new, and nothing is registered in it
}

// Spare is what the other comets can still take.
type Spare struct {
	Connections   int64
	HandshakeRate float64
}

// New returns a lease; it starts nothing. SetRooms must be called before Enroll.
func New(cfg Config, t *table.Table, router halleyv1.RouterClient, hooks Hooks, log *slog.Logger) *Lease {
	l := &Lease{
		cfg: cfg, table: t, router: router, hooks: hooks, log: log,
		dead: make(chan string, 1), kick: make(chan struct{}, 1), work: make(chan struct{}, 1), lost: make(map[uint32]bool),
	}
	l.epoch.Store(new(string))
	l.spare.Store(&Spare{})
	return l
}

// SetRooms hands over the rooms, which need the lease themselves.
func (l *Lease) SetRooms(st *rooms.Store) { l.rooms = st }

// Conn returns comet's name and epoch.
func (l *Lease) Conn() (comet, epoch string) { return l.cfg.Comet, *l.epoch.Load() }

// Epoch returns the present epoch; empty before Enroll.
func (l *Lease) Epoch() string { return *l.epoch.Load() }

// Epochs returns how many epochs the process has had.
func (l *Lease) Epochs() int64 { return l.epochs.Load() }

// Spare returns what the other comets could take at the last renewal.
func (l *Lease) Spare() Spare { return *l.spare.Load() }

// Lapsed reports whether the lease may be over, by this process' own clock: from then on others may take this
// comet for dead, until a renewal says otherwise.
func (l *Lease) Lapsed() bool {
	ttl := l.ttl.Load()
	return ttl > 0 && session.Now()-l.renewed.Load() > ttl
}

// Dead tells that router declared an epoch dead.
func (l *Lease) Dead(epoch string) {
	if epoch != l.Epoch() {
		return
	}
	select {
	case l.dead <- epoch:
	default:
	}
}

// Lost tells of buckets that have to be written again.
func (l *Lease) Lost(epoch string, buckets []uint32) {
	if epoch != l.Epoch() {
		return
	}
	l.mu.Lock()
	for _, b := range buckets {
		l.lost[b%name.Buckets] = true
	}
	l.mu.Unlock()
	l.signal()
}

// Live tells of a session that became live. logic registered it in an epoch, some time after began, when it could not be part of a
// rewrite yet. It is registered once more if that may be gone: the epoch has ended, or a rewrite of one of its buckets began
// meanwhile, which happens where presence has lost what it held of it.
func (l *Lease) Live(s *session.Session, epoch string, began int64) {
	who := s.Who()
	if epoch == l.Epoch() && l.begun[name.Bucket(who.Tenant, who.Key())].Load() < began &&
		(who.UID() == "" || l.begun[name.Bucket(who.Tenant, who.UID())].Load() < began) {
		return
	}
	l.mu.Lock()
	l.again = append(l.again, s)
	l.mu.Unlock()
	l.signal()
}

func (l *Lease) signal() {
	select {
	case l.work <- struct{}{}:
	default:
	}
}

// Drain marks the lease as draining and renews it at once.
func (l *Lease) Drain() {
	l.draining.Store(true)
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

func (l *Lease) info(epoch string) *halleyv1.CometInfo {
	return &halleyv1.CometInfo{
		Comet: l.cfg.Comet, Epoch: epoch, Addr: l.cfg.Addr, Draining: l.draining.Load(), Load: l.hooks.Load(), Endpoints: l.cfg.Endpoints,
	}
}

// Enroll takes an epoch. It tries until router lets it, or ctx ends.
func (l *Lease) Enroll(ctx context.Context) error {
	epoch := ""
	for wait := l.cfg.Retry; ; wait = min(2*wait, 20*l.cfg.Retry) {
		// The same one after a call that failed: router may have taken it, and another one beside it would be asked for all that is
		// here until its lease is due, in vain.
		if epoch == "" {
			id, err := uuid.NewV7()
			if err != nil {
				return fmt.Errorf("make an epoch: %w", err)
			}
			epoch = id.String()
		}
		begun := session.Now()
		cctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
		resp, err := l.router.Enroll(cctx, &halleyv1.EnrollRequest{Info: l.info(epoch), HoldsSessions: l.epochs.Load() > 0})
		cancel()
		if err == nil && resp.GetStatus() != halleyv1.EpochStatus_EPOCH_STATUS_DEAD {
			l.renewed.Store(begun)
			l.ttl.Store(resp.GetTtlMs() * int64(time.Millisecond))
			l.epoch.Store(&epoch)
			l.epochs.Add(1)
			l.log.Info("epoch taken", "comet", l.cfg.Comet, "epoch", epoch)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			epoch = ""
		}
		l.log.Warn("epoch not taken, trying again", "comet", l.cfg.Comet, "err", err)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// Run renews and writes until ctx ends. Enroll has succeeded before.
func (l *Lease) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { l.rewriting(ctx) })
	timer := time.NewTimer(l.cfg.Renew)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case epoch := <-l.dead:
			if epoch != l.Epoch() {
				continue
			}
			if l.newEpoch(ctx) != nil {
				return
			}
		case <-l.kick:
			l.renew(ctx)
		case <-timer.C:
			l.renew(ctx)
		}
		timer.Reset(l.next())
	}
}

// next returns the time to the next renewal: sooner after one that failed.
func (l *Lease) next() time.Duration {
	since := time.Duration(session.Now() - l.renewed.Load())
	if since < l.cfg.Renew/2 {
		return l.cfg.Renew - since
	}
	return min(l.cfg.Retry, l.cfg.Renew)
}

func (l *Lease) renew(ctx context.Context) {
	epoch := l.Epoch()
	begun := session.Now()
	cctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	resp, err := l.router.Renew(cctx, &halleyv1.RenewRequest{Info: l.info(epoch)})
	cancel()
	if err != nil {
		if l.Lapsed() && !l.lapsed.Swap(true) {
			l.log.Error("lease may be over", "comet", l.cfg.Comet, "epoch", epoch, "err", err)
		}
		return
	}
	if resp.GetStatus() == halleyv1.EpochStatus_EPOCH_STATUS_DEAD {
		l.Dead(epoch)
		// Not by way of next, which would renew a dead epoch: Run takes the new one first.
		l.renewed.Store(begun)
		return
	}
	l.renewed.Store(begun)
	l.ttl.Store(resp.GetTtlMs() * int64(time.Millisecond))
	if l.lapsed.Swap(false) {
		l.log.Info("lease renewed again", "comet", l.cfg.Comet, "epoch", epoch)
	}
	l.spare.Store(&Spare{resp.GetSpareConnections(), resp.GetSpareHandshakeRate()})
	if len(resp.GetLostBuckets()) > 0 {
		l.Lost(epoch, resp.GetLostBuckets())
	}
}

// newEpoch takes a new epoch, since the old one was declared dead. The loop that writes then registers everything in it, and marks the
// buckets by rewriting them: until then router has this comet asked itself, since it doesn't know all that is here.
func (l *Lease) newEpoch(ctx context.Context) error {
	l.log.Warn("epoch declared dead", "comet", l.cfg.Comet, "epoch", l.Epoch())
	l.hooks.Stale()
	if err := l.Enroll(ctx); err != nil {
		return err
	}
	l.hooks.Stale()
	l.lapsed.Store(false)
	l.hooks.NewEpoch()
	l.mu.Lock()
	for b := range uint32(name.Buckets) {
		l.lost[b] = true
	}
	l.fresh = true
	l.mu.Unlock()
	l.signal()
	return nil
}

func (l *Lease) proto(s *session.Session, epoch string) *halleyv1.Session {
	return s.Proto(&halleyv1.Conn{Comet: l.cfg.Comet, Epoch: epoch, Id: l.table.ConnID(s)})
}

// Retire gives the epoch up: the end of a drain.
func (l *Lease) Retire(ctx context.Context) error {
	cctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	comet, epoch := l.Conn()
	if _, err := l.router.Retire(cctx, &halleyv1.RetireRequest{Comet: comet, Epoch: epoch}); err != nil {
		return fmt.Errorf("retire epoch %s: %w", epoch, err)
	}
	return nil
}

// retry calls until the call succeeds; false: ctx ended.
func retry[T any](ctx context.Context, l *Lease, what string, call func(context.Context) (T, error)) (T, bool) {
	for wait := l.cfg.Retry; ; wait = min(2*wait, 20*l.cfg.Retry) {
		cctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
		resp, err := call(cctx)
		cancel()
		if err == nil {
			return resp, true
		}
		if ctx.Err() == nil {
			l.log.Warn(what+" failed, trying again", "comet", l.cfg.Comet, "err", err)
		}
		if sleep(ctx, wait) != nil {
			var none T
			return none, false
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
