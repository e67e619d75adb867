package call

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/logic/internal/limit"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
	entry "github.com/halley-im/halley/store/conversation"
)

// Invitation is what call.invite asks for.
type Invitation struct {
	Call, Conversation string
	To                 []string
	Media              string
	Sends              machine.Sends
	Resumed            bool
}

// Invite makes a call, or finds that there is one that is meant.
func (s *Service) Invite(ctx context.Context, who Who, a *Invitation) (*Reply, error) {
	if err := s.admit(ctx, who, a.Call); err != nil {
		return nil, err
	}
	if err := s.countInvite(ctx, who); err != nil {
		return nil, err
	}
	if a.Media != "audio" && a.Media != "video" {
		return nil, errcode.InvalidRequest.Errorf("media: audio or video")
	}
	have, err := s.db.load(ctx, who.Tenant, a.Call)
	if err != nil {
		return nil, err
	}
	if have.Call != nil {
		return s.invited(ctx, who, have, a)
	}
	in := &machine.Invite{
		Tenant: who.Tenant, ID: a.Call, Media: a.Media, By: who.Who, Sends: a.Sends, Resumed: a.Resumed,
	}
	to, err := s.callees(ctx, who, a, in)
	if err != nil {
		return nil, err
	}
	if err := s.ask(ctx, who.Tenant, askOf(in, to)); err != nil {
		return nil, err
	}
	if in.Callees, err = s.prepare(ctx, who.Tenant, who.UID, a.Call, to); err != nil {
		return nil, err
	}
	if a.Resumed {
		if err := s.markGuests(ctx, who.Tenant, in.Conversation, in.Callees); err != nil {
			return nil, err
		}
	}
	silent := in.Kind == machine.KindDirect && in.Callees[0].Silent
	if in.Conversation != "" && !silent {
		other, err := s.pair(ctx, who.Tenant, in.Conversation, a.Call)
		if err != nil {
			return nil, err
		}
		if other != nil {
			return s.invited(ctx, who, other, a)
		}
	}
	if err := s.busy(ctx, who, a.Call); err != nil {
		s.forget(ctx, in)
		return nil, err
	}
	return s.create(ctx, who, in, a)
}

// countInvite counts what makes other people's devices ring: call.invite and call.add.
func (s *Service) countInvite(ctx context.Context, who Who) error {
	return s.count(ctx, "invite", who, limit.Rate{PerSecond: s.cfg.InviteRate / 60, Burst: int(s.cfg.InviteRate)})
}

// invited answers an invitation where there is a call already: the asker's own, one that rings for him, or his group's.
func (s *Service) invited(ctx context.Context, who Who, have *loaded, a *Invitation) (*Reply, error) {
	leg := have.Leg(who.UID)
	own := leg != nil && !leg.Silent && (leg.In() || !have.Live())
	// The device that has the leg, by another connection, is given it: its answer, or its page, was lost.
	if own && !(have.Live() && !leg.Holds(who.Session) && leg.Of(who.Who)) {
		// A step without a change: somebody may be telling what is untold.
		c, now, err := s.step(ctx, who.Tenant, have.ID, func(*machine.Call, int64) (machine.Step, error) { return machine.Step{}, nil })
		if err != nil {
			return nil, err
		}
		return replyTo(c, who.Who, now), nil
	}
	if (leg == nil || leg.Silent) && (have.Kind != machine.KindGroup || have.Conversation == "") {
		return nil, errcode.Conflict.Errorf("this call is somebody else's")
	}
	// The command's id is made of the call's and the asked one's, so that a repeat of the invitation is one of it.
	return s.accept(ctx, who, have.ID, &machine.Command{Verb: machine.DoAccept, ID: "i" + a.Call, By: who.Who, Sends: a.Sends})
}

// callees says whom a is for, and sets the kind and the conversation of in.
func (s *Service) callees(ctx context.Context, who Who, a *Invitation, in *machine.Invite) ([]string, error) {
	to := slices.Clone(a.To)
	slices.Sort(to)
	to = slices.Compact(to)
	for _, uid := range to {
		if err := name.UID(uid); err != nil {
			return nil, err
		}
		if uid == who.UID {
			return nil, errcode.Forbidden.Errorf("nobody calls himself")
		}
	}
	if len(to) >= s.cfg.MaxLegs {
		return nil, errcode.TooManyMembers
	}
	in.Conversation = a.Conversation
	if in.Conversation == "" {
		switch len(to) {
		case 0:
			return nil, errcode.InvalidRequest.Errorf("conversation or to")
		case 1:
			in.Conversation = entry.DirectID(who.UID, to[0])
		default:
			in.Kind = machine.KindGroup
			return to, nil
		}
	}
	if err := s.member(ctx, who.Tenant, in.Conversation, who.UID); err != nil {
		return nil, err
	}
	switch entry.TypeOf(in.Conversation) {
	case entry.Direct:
		in.Kind = machine.KindDirect
		peer := slices.DeleteFunc(slices.Clone(entry.Parties(in.Conversation)), func(uid string) bool { return uid == who.UID })
		if len(peer) != 1 {
			return nil, errcode.Forbidden.Errorf("nobody calls himself")
		}
		if a.Resumed && len(to) > 1 {
			// It had become a group's before it was lost. Where the other party blocks who asks, nothing of it is for him.
			in.Kind = machine.KindGroup
			refuse, err := s.d.People.Refusers(ctx, who.Tenant, who.UID, peer)
			if err == nil && len(refuse) > 0 {
				in.Conversation = ""
			}
			return to, err
		}
		if len(to) > 0 && !slices.Equal(to, peer) {
			return nil, errcode.InvalidRequest.Errorf("to: not of this conversation")
		}
		return peer, nil
	case entry.Group:
		in.Kind = machine.KindGroup
		if a.Resumed && len(to) > 0 {
			// Guests were in it before it was lost: markGuests says who they are.
			return to, nil
		}
		return s.groupCallees(ctx, who, in.Conversation, to)
	}
	return nil, errcode.Forbidden.Errorf("an inbox has no calls")
}

func (s *Service) groupCallees(ctx context.Context, who Who, id string, to []string) ([]string, error) {
	if len(to) > 0 {
		for _, uid := range to {
			if err := s.member(ctx, who.Tenant, id, uid); err != nil {
				return nil, err
			}
		}
		return to, nil
	}
	// One more than there may be, to see that there are more.
	all, err := s.d.People.GroupMembers(ctx, who.Tenant, id, s.cfg.MaxLegs+1)
	if err != nil {
		return nil, err
	}
	if len(all) > s.cfg.MaxLegs {
		return nil, errcode.TooManyMembers.Errorf("say whom of the group to call: at most %d", s.cfg.MaxLegs-1)
	}
	if all = slices.DeleteFunc(all, func(uid string) bool { return uid == who.UID }); len(all) == 0 {
		return nil, errcode.InvalidRequest.Errorf("nobody else is in this group")
	}
	return all, nil
}

// prepare finds out who can be asked, and how.
func (s *Service) prepare(ctx context.Context, tenant, from, id string, to []string) ([]machine.Callee, error) {
	refuse, err := s.d.People.Refusers(ctx, tenant, from, to)
	if err != nil {
		return nil, err
	}
	out := make([]machine.Callee, len(to))
	errs := make([]error, len(to))
	var wg sync.WaitGroup
	for i, uid := range to {
		e := &out[i]
		e.UID = uid
		if e.Silent = slices.Contains(refuse, uid); e.Silent {
			continue
		}
		wg.Go(func() {
			if !s.cfg.Waiting {
				other, err := s.callOf(ctx, tenant, uid, id)
				if err != nil {
					errs[i] = err
					return
				}
				e.Busy = other != nil
			}
			var known bool
			e.Branches, known = s.sessions(ctx, tenant, uid)
			e.Offline = known && len(e.Branches) == 0
		})
	}
	wg.Wait()
	return out, errors.Join(errs...)
}

// markGuests finds out who of those asked is no member of the group that calls.
func (s *Service) markGuests(ctx context.Context, tenant, conversation string, callees []machine.Callee) error {
	if entry.TypeOf(conversation) != entry.Group {
		return nil
	}
	for i := range callees {
		member, err := s.d.People.IsMember(ctx, tenant, conversation, callees[i].UID)
		if err != nil {
			return err
		}
		callees[i].Guest = !member
	}
	return nil
}

// callOf returns the live call, other than id, that a user is in; nil: none.
func (s *Service) callOf(ctx context.Context, tenant, uid, id string) (*loaded, error) {
	gctx, cancel := context.WithTimeout(ctx, s.cfg.RedisTimeout)
	defer cancel()
	other, err := s.d.Redis.Get(gctx, s.db.keys.user(tenant, uid, "busy")).Result()
	if errors.Is(err, redis.Nil) || err == nil && other == id {
		return nil, nil
	}
	if err != nil {
		return nil, away(err)
	}
	return s.inCall(ctx, tenant, uid, other)
}

// inCall returns a call if uid is in it, else nil.
func (s *Service) inCall(ctx context.Context, tenant, uid, id string) (*loaded, error) {
	l, err := s.db.load(ctx, tenant, id)
	if err != nil || l.Call == nil || !l.Live() {
		return nil, err
	}
	if leg := l.Leg(uid); leg == nil || !leg.In() {
		return nil, nil
	}
	return l, nil
}

// claimTries bounds how often a lease is tried for that others take and give up at the same time.
const claimTries = 5

// busy takes the user's lease for a call; an error of errcode.InCall if he is in another one.
func (s *Service) busy(ctx context.Context, who Who, id string) error {
	key, have := s.db.keys.user(who.Tenant, who.UID, "busy"), ""
	for range claimTries {
		got, err := s.db.swap(ctx, key, have, id, s.cfg.Lease)
		if err != nil || got == id {
			return err
		}
		other, err := s.inCall(ctx, who.Tenant, who.UID, got)
		if err != nil {
			return err
		}
		if other != nil {
			return errcode.InCall
		}
		have = got
	}
	return errcode.InCall
}

// pair makes id the conversation's call, or returns the one that it has. One that is unknown gets a moment: whoever makes it may be about to.
func (s *Service) pair(ctx context.Context, tenant, conversation, id string) (*loaded, error) {
	key, have := s.db.keys.conversation(tenant, conversation, "live"), ""
	for range claimTries {
		got, err := s.db.swap(ctx, key, have, id, s.pairKept())
		if err != nil || got == id {
			return nil, err
		}
		deadline := time.Now().Add(s.cfg.LostAfter)
		for {
			l, err := s.db.load(ctx, tenant, got)
			if err != nil {
				return nil, err
			}
			if l.Call != nil && l.Live() {
				return l, nil
			}
			if l.Call != nil || time.Now().After(deadline) {
				break
			}
			if err := pause(ctx, pairPoll); err != nil {
				return nil, away(err)
			}
		}
		have = got
	}
	return nil, away(errors.New("a conversation's call changes too fast"))
}

// pairPoll is how often it is asked whether the other side's call is there.
const pairPoll = 20 * time.Millisecond

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget gives up the pair's lease of a call that came to nothing.
func (s *Service) forget(ctx context.Context, in *machine.Invite) {
	if in.Conversation != "" {
		_, _ = s.db.swap(context.WithoutCancel(ctx), s.db.keys.conversation(in.Tenant, in.Conversation, "live"), in.ID, "", 0)
	}
}

// create keeps a new call and asks the callees.
func (s *Service) create(ctx context.Context, who Who, in *machine.Invite, a *Invitation) (*Reply, error) {
	if err := s.list(ctx, in); err != nil {
		return nil, err
	}
	l, err := s.db.load(ctx, in.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	if l.Call != nil {
		return s.invited(ctx, who, l, a)
	}
	c, st := machine.New(in, l.now, &s.policy)
	ok, err := s.keep(ctx, l, c, &st)
	if err != nil {
		return nil, err
	}
	if ok {
		s.metrics.made(c)
		return replyTo(c, who.Who, l.now), nil
	}
	if l, err = s.db.load(ctx, in.Tenant, in.ID); err != nil {
		return nil, err
	}
	if l.Call == nil {
		return nil, errcode.CallUnknown
	}
	return s.invited(ctx, who, l, a)
}

// list writes a call into the lists in which it is found: before it is made, for a list with an unknown call does no harm.
func (s *Service) list(ctx context.Context, in *machine.Invite) error {
	uids := []string{in.By.UID}
	for i := range in.Callees {
		uids = append(uids, in.Callees[i].UID)
	}
	return s.listFor(ctx, in.Tenant, in.ID, in.Conversation, uids, true)
}

func (s *Service) listFor(ctx context.Context, tenant, id, conversation string, uids []string, fresh bool) error {
	k, now := &s.db.keys, time.Now().UnixMilli()
	keep := s.cfg.MaxLength + s.cfg.Keep
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RedisTimeout)
	defer cancel()
	pipe := s.d.Redis.Pipeline()
	add := func(key string, most int64) {
		pipe.ZAddNX(ctx, key, redis.Z{Score: float64(now), Member: id})
		pipe.ZRemRangeByScore(ctx, key, "-inf", "("+strconv.FormatInt(now-keep.Milliseconds(), 10))
		pipe.ZRemRangeByRank(ctx, key, 0, -most-1)
		pipe.PExpire(ctx, key, keep)
	}
	for _, uid := range uids {
		add(k.user(tenant, uid, "live"), mostLive)
		add(k.user(tenant, uid, "all"), mostListed)
	}
	if fresh {
		add(k.all(tenant), int64(s.cfg.KeepMost))
		if conversation != "" {
			add(k.conversation(tenant, conversation, "all"), mostListed)
		}
	}
	_, err := pipe.Exec(ctx)
	return away(err)
}

const (
	// mostLive bounds the calls that may ring for one user, mostListed those that are kept of a user or a conversation.
	mostLive   = 50
	mostListed = 1000
	// freshFor is how long a listed call may be unknown before it is taken off the list.
	freshFor = 10 * time.Second
)

// liveOf returns the live calls in a user's list, the newest first, and takes off it what is over.
func (s *Service) liveOf(ctx context.Context, tenant, uid string) ([]*loaded, error) {
	rctx, cancel := context.WithTimeout(ctx, s.cfg.RedisTimeout)
	defer cancel()
	key := s.db.keys.user(tenant, uid, "live")
	ids, err := s.d.Redis.ZRevRangeWithScores(rctx, key, 0, mostLive-1).Result()
	if err != nil {
		return nil, away(err)
	}
	// However many have called since: the call that he is in is one of them.
	busy, err := s.d.Redis.Get(rctx, s.db.keys.user(tenant, uid, "busy")).Result()
	if err != nil && !isNil(err) {
		return nil, away(err)
	}
	if busy != "" && !slices.ContainsFunc(ids, func(z redis.Z) bool { return z.Member == busy }) {
		ids = append(ids, redis.Z{Member: busy, Score: float64(time.Now().UnixMilli())})
	}
	var (
		out  []*loaded
		over []any
	)
	for _, z := range ids {
		id, _ := z.Member.(string)
		l, err := s.db.load(ctx, tenant, id)
		switch {
		case err != nil:
			return nil, err
		case l.Call != nil && l.Live():
			out = append(out, l)
		case l.Call != nil || time.Since(time.UnixMilli(int64(z.Score))) > freshFor:
			over = append(over, id)
		}
	}
	if len(over) > 0 {
		if err := s.d.Redis.ZRem(rctx, key, over...).Err(); err != nil {
			s.d.Log.DebugContext(ctx, "ended calls not taken off a list", "err", err)
		}
	}
	return out, nil
}

// accept takes the leg; first the user's lease, so that he isn't in two calls.
func (s *Service) accept(ctx context.Context, who Who, id string, cmd *machine.Command) (*Reply, error) {
	l, err := s.db.load(ctx, who.Tenant, id)
	if err != nil {
		return nil, err
	}
	if l.Call == nil {
		return nil, errcode.CallUnknown
	}
	leg := l.Leg(who.UID)
	if l.Kind == machine.KindGroup && entry.TypeOf(l.Conversation) == entry.Group && (leg == nil || !leg.Holds(who.Session)) {
		cmd.Member, err = s.d.People.IsMember(ctx, who.Tenant, l.Conversation, who.UID)
		if err != nil && (leg == nil || leg.Silent || !leg.Live()) {
			return nil, err
		}
		// Whoever was put out of the group since he was asked stays out of its call as well.
		cmd.Stranger = err == nil && !cmd.Member
		if cmd.Member && l.Live() && (leg == nil || leg.Silent) {
			if err := s.listFor(ctx, who.Tenant, id, l.Conversation, []string{who.UID}, false); err != nil {
				return nil, err
			}
		}
	}
	if !l.Live() || leg == nil && !cmd.Member || leg != nil && leg.In() {
		return s.do(ctx, who, id, cmd)
	}
	if err := s.busy(ctx, who, id); err != nil {
		return nil, err
	}
	reply, err := s.do(ctx, who, id, cmd)
	if err != nil || !isIn(reply, who.UID) {
		_, _ = s.db.swap(context.WithoutCancel(ctx), s.db.keys.user(who.Tenant, who.UID, "busy"), id, "", 0)
	}
	return reply, err
}

// isIn reports whether the user is in the call after all, by this device or another.
func isIn(r *Reply, uid string) bool {
	return slices.ContainsFunc(r.Call.Legs, func(l LegView) bool {
		return l.UID == uid && (l.State == machine.LegAccepted || l.State == machine.LegJoined || l.State == machine.LegAway)
	})
}

// prepareAdd finds out how those can be asked whom a leg wants in the call.
func (s *Service) prepareAdd(ctx context.Context, who Who, id string, cmd *machine.Command) error {
	l, err := s.db.load(ctx, who.Tenant, id)
	if err != nil {
		return err
	}
	if l.Call == nil {
		return errcode.CallUnknown
	}
	leg := l.Leg(who.UID)
	if leg == nil || leg.Silent || !l.Live() || !leg.Holds(who.Session) {
		// The machine says what is wrong; nothing is found out for a stranger.
		cmd.Callees = nil
		return nil
	}
	if err := s.countInvite(ctx, who); err != nil {
		return err
	}
	if len(cmd.Callees) > s.cfg.MaxLegs {
		return errcode.TooManyMembers
	}
	uids := make([]string, 0, len(cmd.Callees))
	for _, e := range cmd.Callees {
		if err := name.UID(e.UID); err != nil {
			return err
		}
		if o := l.Leg(e.UID); !slices.Contains(uids, e.UID) && (o == nil || !o.Live()) {
			uids = append(uids, e.UID)
		}
	}
	if err := s.ask(ctx, who.Tenant, askData{
		Call: id, Conversation: l.Conversation, Kind: machine.KindGroup, Media: l.Media, Caller: who.UID, UIDs: slices.Clone(uids),
	}); err != nil {
		return err
	}
	if cmd.Callees, err = s.prepare(ctx, who.Tenant, who.UID, id, uids); err != nil {
		return err
	}
	if err := s.markGuests(ctx, who.Tenant, l.Conversation, cmd.Callees); err != nil {
		return err
	}
	return s.listFor(ctx, who.Tenant, id, "", uids, false)
}

// prepareRemove finds out whether somebody other than the caller may remove others.
func (s *Service) prepareRemove(ctx context.Context, who Who, id string, cmd *machine.Command) error {
	l, err := s.db.load(ctx, who.Tenant, id)
	switch {
	case err != nil:
		return err
	case l.Call == nil:
		return errcode.CallUnknown
	case l.Caller == who.UID || l.Leg(who.UID) == nil || entry.TypeOf(l.Conversation) != entry.Group:
		return nil
	}
	cmd.Admin, err = s.d.People.IsAdmin(ctx, who.Tenant, l.Conversation, who.UID)
	return err
}
