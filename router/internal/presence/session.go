package presence

import (
	"context"
	"errors"
	"fmt"
	"slices"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// registration is one session on its way into presence.
type registration struct {
	m      *halleyv1.Session
	conn   string
	result *halleyv1.RegisterResult
	// claim: logic asks, for a new connection, which takes the place of others. Otherwise comet asks, for one that it has, which
	// gives way to newer ones.
	claim    bool
	limits   *halleyv1.Limits
	replaces string
	// prior is what the key's entry was before, by its stored form.
	prior     string
	displaced []*halleyv1.Session
}

func (r *registration) ok() bool {
	return r.result.Status == halleyv1.RegisterResult_STATUS_OK || r.result.Status == halleyv1.RegisterResult_STATUS_BUCKET_LOST
}

// Register writes sessions, all of one comet and epoch: first the entry of each key, then that of the uid. With limits (one
// session, which logic asks for) others give way, or it is refused. Every step may be repeated: a repeated call
// names the same displaced sessions again until they are deregistered.
func (s *Store) Register(ctx context.Context, req *halleyv1.RegisterRequest) ([]*halleyv1.RegisterResult, error) {
	if len(req.GetSessions()) == 0 {
		return nil, nil
	}
	if req.GetLimits() != nil && len(req.GetSessions()) != 1 {
		return nil, fmt.Errorf("%w: limits are for one session", ErrInvalid)
	}
	e, err := needEpoch(req.GetSessions()[0].GetConn().GetEpoch())
	if err != nil {
		return nil, err
	}
	regs := make([]*registration, len(req.GetSessions()))
	results := make([]*halleyv1.RegisterResult, len(regs))
	for i, m := range req.GetSessions() {
		if err := checkSession(m); err != nil {
			return nil, err
		}
		if m.GetConn().GetEpoch() != e.String() {
			return nil, fmt.Errorf("%w: sessions of several epochs", ErrInvalid)
		}
		results[i] = &halleyv1.RegisterResult{Status: halleyv1.RegisterResult_STATUS_OK}
		regs[i] = &registration{
			m: m, conn: packConn(m.GetConn().GetId()), result: results[i], claim: req.GetLimits() != nil, limits: req.GetLimits(),
		}
		if id := req.GetReplaces().GetId(); id != "" && len(regs) == 1 {
			regs[i].replaces = packConn(id)
		}
	}
	var c clock
	err = s.decide(ctx, func(now clock) error {
		c = now
		for _, r := range regs {
			r.result.Reset()
			r.result.Status = halleyv1.RegisterResult_STATUS_OK
		}
		if err := s.registerStep(ctx, c, e, regs, s.keyEdit); err != nil {
			return err
		}
		return s.registerStep(ctx, c, e, regs, s.userEdit)
	})
	if err != nil {
		return nil, err
	}
	for _, r := range regs {
		switch r.result.Status {
		case halleyv1.RegisterResult_STATUS_TOO_MANY, halleyv1.RegisterResult_STATUS_REPLACED, halleyv1.RegisterResult_STATUS_RACED:
			if err := s.unregisterKey(ctx, e, r); err != nil {
				return nil, err
			}
			r.displaced = nil
		}
		r.finish(c)
		s.metrics.registrations.WithLabelValues(r.result.Status.String()[len("STATUS_"):]).Inc()
		s.metrics.displaced.Add(float64(len(r.result.Displaced)))
	}
	return results, nil
}

// finish puts what gave way into the result: each connection once, the one that Resume named apart.
func (r *registration) finish(c clock) {
	seen := map[string]bool{}
	for _, d := range r.displaced {
		id := d.GetConn().GetId()
		if seen[id] || packConn(id) == r.conn {
			continue
		}
		seen[id] = true
		if r.replaces != "" && packConn(id) == r.replaces && d.GetUid() == r.m.GetUid() {
			r.result.Replaced = d
			continue
		}
		r.result.Displaced = append(r.result.Displaced, d)
		if gaveWay(d.GetConnectedAtMs(), r.m.GetConnectedAtMs()) == halleyv1.RegisterResult_STATUS_RACED {
			r.result.RacedConnIds = append(r.result.RacedConnIds, id)
		}
	}
}

func checkSession(m *halleyv1.Session) error {
	err := errors.Join(name.Tenant(m.GetTenant()), name.Key(m.GetKey()), name.Device("device_id", m.GetDeviceId()), name.Device("platform", m.GetPlatform()))
	if m.GetUid() != "" {
		err = errors.Join(err, name.UID(m.GetUid()))
	}
	if id := m.GetConn().GetId(); id == "" || len(id) > 64 {
		err = errors.Join(err, errors.New("connection id: 1 to 64 bytes"))
	}
	if err != nil {
		return fmt.Errorf("%w: session: %w", ErrInvalid, err)
	}
	return nil
}

// registerStep writes one entry for each registration that still stands; those of the same entry in one edit.
func (s *Store) registerStep(ctx context.Context, c clock, e epoch, regs []*registration, make1 func(clock, epoch, []*registration) *edit) error {
	var edits []*edit
	groups := make(map[string][]*registration, len(regs))
	var order []string
	for _, r := range regs {
		if !r.ok() {
			continue
		}
		ed := make1(c, e, []*registration{r})
		if ed == nil {
			continue
		}
		if _, ok := groups[ed.field]; !ok {
			order = append(order, ed.field)
		}
		groups[ed.field] = append(groups[ed.field], r)
	}
	for _, f := range order {
		ed := make1(c, e, groups[f])
		// A new session's entries are mostly absent: nothing is read then.
		ed.blind = len(regs) == 1
		edits = append(edits, ed)
	}
	lost, err := s.apply(ctx, guard{epoch: e, mode: modeWrite}, edits)
	if err != nil {
		return err
	}
	for i, ed := range edits {
		g := groups[order[i]]
		if ed.gone && len(g) > 1 {
			// One of them is gone; which one shows when they are written one by one.
			for _, r := range g {
				if err := s.registerStep(ctx, c, e, []*registration{r}, make1); err != nil {
					return err
				}
			}
			continue
		}
		for _, r := range g {
			if ed.gone {
				r.result.Status = halleyv1.RegisterResult_STATUS_GONE
			}
			if r.ok() && slices.Contains(lost, uint32(ed.bucket)) {
				r.result.Status = halleyv1.RegisterResult_STATUS_BUCKET_LOST
				r.result.LostBuckets = append(r.result.LostBuckets, uint32(ed.bucket))
			}
		}
	}
	return nil
}

func (s *Store) keyEdit(c clock, e epoch, regs []*registration) *edit {
	tenant, key := regs[0].m.GetTenant(), regs[0].m.GetKey()
	field := keyField(tenant, key)
	return &edit{bucket: bucketOf(tenant, key), field: field, plan: func(old string, it *item) error {
		cur, err := decodeKey(old)
		if err != nil {
			s.metrics.badRecords.Inc()
			cur = nil // what can't be read is no one's
		}
		for _, r := range regs {
			if cur == nil || cur.conn != r.conn {
				// Otherwise it was written before, and what gave way then still stands in r.
				r.prior, r.displaced = "", nil
			}
			r.result.Status = halleyv1.RegisterResult_STATUS_OK
			rec := newKeyRecord(r.m, e, c.now)
			if !r.claim {
				rec.setSince(r.m.GetConnectedAtMs())
			}
			if cur != nil {
				if cur.conn == r.conn {
					rec.setSince(cur.since)
				} else if status := cur.judge(c, r.m, r.claim); status != halleyv1.RegisterResult_STATUS_OK {
					r.result.Status = status
					continue
				} else {
					r.prior = old
					if c.live(cur.epoch) {
						r.displaced = append(r.displaced, cur.proto(tenant, key, c.comet(cur.epoch)))
					}
				}
			}
			it.notGone(r.conn)
			cur = rec
		}
		if *c.stale {
			return errStale
		}
		if cur == nil || cur.epoch != e {
			it.skip()
			return nil
		}
		if v := cur.encode(); v != old {
			it.set(field, v)
		}
		it.list(field)
		return nil
	}}
}

func newKeyRecord(m *halleyv1.Session, e epoch, since int64) *keyRecord {
	full := newSession(m, e, since)
	return &keyRecord{epoch: e, conn: full.conn, since: since, connected: full.connected, uid: m.GetUid(), signed: full.signed, full: full}
}

func (k *keyRecord) setSince(t int64) { k.since, k.full.since = t, t }

func (k *keyRecord) proto(tenant, key, comet string) *halleyv1.Session {
	if k.uid == "" {
		return k.full.proto(tenant, "", comet)
	}
	return &halleyv1.Session{
		Tenant: tenant, Uid: k.uid, Key: key,
		Conn: &halleyv1.Conn{Comet: comet, Epoch: k.epoch.String(), Id: unpackConn(k.conn)}, ConnectedAtMs: k.connected,
	}
}

// unregisterKey takes back what the key's step wrote for a session that was refused.
func (s *Store) unregisterKey(ctx context.Context, e epoch, r *registration) error {
	field := keyField(r.m.GetTenant(), r.m.GetKey())
	_, err := s.apply(ctx, guard{epoch: e, mode: modeLeave}, []*edit{{
		bucket: bucketOf(r.m.GetTenant(), r.m.GetKey()), field: field, plan: func(old string, it *item) error {
			cur, err := decodeKey(old)
			if err != nil || cur == nil || cur.conn != r.conn {
				it.skip()
				return nil
			}
			it.set(field, r.prior)
			if prior, err := decodeKey(r.prior); err != nil || prior == nil || prior.epoch != e {
				it.unlist(field)
			}
			return nil
		},
	}})
	if errors.Is(err, ErrDead) {
		return nil
	}
	return err
}

func (s *Store) userEdit(c clock, e epoch, regs []*registration) *edit {
	tenant, uid := regs[0].m.GetTenant(), regs[0].m.GetUid()
	if uid == "" {
		return nil
	}
	field := userField(tenant, uid)
	keep := make([][]*halleyv1.Session, len(regs))
	for i, r := range regs {
		keep[i] = r.displaced // what the key's step found
	}
	return &edit{bucket: bucketOf(tenant, uid), field: field, plan: func(old string, it *item) error {
		u := s.user(old)
		wasOnline, was := u.state(nil)
		changed := false
		for i, r := range regs {
			r.displaced = slices.Clone(keep[i])
			if r.result.Status != halleyv1.RegisterResult_STATUS_BUCKET_LOST {
				r.result.Status = halleyv1.RegisterResult_STATUS_OK
			}
			if r.add(c, e, u) {
				it.notGone(r.conn)
				changed = true
			}
			for j := range u.sessions {
				if o := &u.sessions[j]; r.ok() && r.claim && o.leaving && o.conn != r.conn && c.live(o.epoch) {
					r.displaced = append([]*halleyv1.Session{o.proto(tenant, uid, c.comet(o.epoch))}, r.displaced...)
				}
			}
		}
		if *c.stale {
			return errStale
		}
		if !changed {
			it.skip()
			return nil
		}
		it.set(field, u.encode())
		it.list(field)
		if online, now := u.state(nil); online != wasOnline || !slices.Equal(now, was) {
			it.dueIn(field, s.opt.SettleDelay)
		}
		return nil
	}}
}

// user reads a uid's entry; one that can't be read is counted, and as good as none.
func (s *Store) user(v string) *userRecord {
	u, err := decodeUser(v)
	if err != nil {
		s.metrics.badRecords.Inc()
		return &userRecord{}
	}
	return u
}

// add puts the session among the uid's others, as the limits say, and reports whether anything changed.
func (r *registration) add(c clock, e epoch, u *userRecord) bool {
	since := r.m.GetConnectedAtMs()
	if r.claim {
		since = c.now
	}
	n := newSession(r.m, e, since)
	if i := u.find(r.conn); i >= 0 {
		cur := &u.sessions[i]
		if cur.leaving {
			status := halleyv1.RegisterResult_STATUS_REPLACED
			if !r.claim {
				status = u.stands(c, i)
			}
			if status != halleyv1.RegisterResult_STATUS_OK {
				r.result.Status = status
				return false
			}
		} else if cur.same(&n) {
			return false
		}
		n.since = cur.since
		*cur = n
		return true
	}
	if r.claim {
		if r.late(c, u) {
			r.result.Status = halleyv1.RegisterResult_STATUS_REPLACED
			return false
		}
		if !r.makeRoom(c, u) {
			r.result.Status = halleyv1.RegisterResult_STATUS_TOO_MANY
			return false
		}
	}
	u.lastSeen = 0
	u.sessions = append(u.sessions, n)
	return true
}

// late reports whether the same device has come again meanwhile: this log-in took longer than that of a connection made after it.
func (r *registration) late(c clock, u *userRecord) bool {
	for i := range u.sessions {
		o := &u.sessions[i]
		if o.leaving || !c.live(o.epoch) || o.signed != r.m.GetSigned() || o.connected <= r.m.GetConnectedAtMs()+clockSkew {
			continue
		}
		if o.rivals(r.m.GetKey(), r.m.GetDeviceId()) {
			return true
		}
	}
	return false
}

// makeRoom marks those that give way to r as leaving, or reports that r is refused, and then marks none.
func (r *registration) makeRoom(c clock, u *userRecord) bool {
	l := r.limits
	var leave, stay []*session
	for i := range u.sessions {
		o := &u.sessions[i]
		if o.leaving || !c.live(o.epoch) {
			continue
		}
		switch {
		case o.signed && !r.m.GetSigned():
			// It is not displaced, even where its key's entry was lost.
			stay = append(stay, o)
		case o.conn == r.replaces, o.rivals(r.m.GetKey(), r.m.GetDeviceId()):
			leave = append(leave, o)
		case l.GetNewestWinsPlatform() && o.platform != "" && o.platform == r.m.GetPlatform():
			o.over = true
			leave = append(leave, o)
		case r.m.GetSigned() && !o.signed:
			// Whoever comes without a token may name any uid: he takes up nobody's place.
		default:
			stay = append(stay, o)
		}
	}
	if most := int(l.GetMaxSessions()); most > 0 && len(stay) >= most {
		if l.GetRefuse() {
			return false
		}
		slices.SortStableFunc(stay, func(a, b *session) int { return int(a.since - b.since) })
		for _, o := range stay[:len(stay)-most+1] {
			o.over = true
			leave = append(leave, o)
		}
	}
	for _, o := range leave {
		o.leaving = true
	}
	return true
}

// Deregister removes sessions where the entries still name their connections, and leaves the connections' tombstones. It
// returns ErrDead, having done it, if an epoch is dead.
func (s *Store) Deregister(ctx context.Context, sessions []*halleyv1.Session) error {
	byEpoch := map[epoch][]*halleyv1.Session{}
	for _, m := range sessions {
		if err := checkSession(m); err != nil {
			return err
		}
		e, err := needEpoch(m.GetConn().GetEpoch())
		if err != nil {
			return err
		}
		byEpoch[e] = append(byEpoch[e], m)
	}
	if len(sessions) == 0 {
		return nil
	}
	c, err := s.leases.at(ctx)
	if err != nil {
		return err
	}
	var dead error
	for e, ms := range byEpoch {
		var edits []*edit
		fields := map[string]*[]string{}
		for _, m := range ms {
			conn := packConn(m.GetConn().GetId())
			for _, kind := range []byte{kindKey, kindUser} {
				n, field := m.GetKey(), keyField(m.GetTenant(), m.GetKey())
				if kind == kindUser {
					n, field = m.GetUid(), userField(m.GetTenant(), m.GetUid())
				}
				if n == "" {
					continue
				}
				if conns := fields[field]; conns != nil {
					*conns = append(*conns, conn)
					continue
				}
				conns := &[]string{conn}
				fields[field] = conns
				ed := &edit{bucket: bucketOf(m.GetTenant(), n), field: field}
				if kind == kindUser {
					ed.plan = s.leaveUser(c, e, field, conns)
				} else {
					ed.plan = s.leaveKey(e, field, conns)
				}
				edits = append(edits, ed)
			}
		}
		_, err := s.apply(ctx, guard{epoch: e, mode: modeLeave}, edits)
		if errors.Is(err, ErrDead) {
			dead = err
		} else if err != nil {
			return err
		}
	}
	return dead
}

func (s *Store) leaveKey(e epoch, field string, conns *[]string) func(string, *item) error {
	return func(old string, it *item) error {
		for _, conn := range *conns {
			it.bury(conn)
		}
		cur, err := decodeKey(old)
		switch {
		case err != nil || cur == nil:
			it.unlist(field)
		case slices.Contains(*conns, cur.conn):
			it.set(field, "")
			it.unlist(field)
		case cur.epoch != e:
			it.unlist(field)
		}
		return nil
	}
}

func (s *Store) leaveUser(c clock, e epoch, field string, conns *[]string) func(string, *item) error {
	return func(old string, it *item) error {
		for _, conn := range *conns {
			it.bury(conn)
		}
		s.removeSessions(c.now, field, old, it, func(o *session) bool { return slices.Contains(*conns, o.conn) }, e)
		return nil
	}
}

// removeSessions takes sessions out of a uid's entry, puts the uid into the settle set if that changes what is said of it,
// and reports whether any was there.
func (s *Store) removeSessions(now int64, field, old string, it *item, which func(*session) bool, e epoch) bool {
	u := s.user(old)
	wasOnline, was := u.state(nil)
	n := len(u.sessions)
	u.sessions = slices.DeleteFunc(u.sessions, func(o session) bool { return which(&o) })
	removed := len(u.sessions) != n
	if removed {
		online, left := u.state(nil)
		if !online && wasOnline {
			u.lastSeen = now
		}
		it.set(field, u.encode())
		if online != wasOnline || !slices.Equal(left, was) {
			it.dueIn(field, s.opt.SettleDelay)
		}
	}
	if !u.holds(e) {
		it.unlist(field)
	}
	return removed
}
