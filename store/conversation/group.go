package conversation

import (
	"slices"

	"github.com/halley-im/halley/proto/errcode"
)

// group judges what changes a group and its members.
func (j *judge) group() error {
	if j.s.Conversation.Type != Group {
		return errcode.Forbidden
	}
	switch j.p.Kind {
	case Created:
		return j.created()
	case Joined:
		return j.joined()
	case Left:
		return j.left()
	case Removed:
		return j.removed()
	case RoleChanged:
		return j.roleChanged()
	case Muted:
		return j.muted()
	case InfoChanged:
		if j.rank() < Admin {
			return errcode.Forbidden
		}
		j.p.Detail.Info.apply(&j.v.Next)
		return nil
	case Dissolved:
		if j.rank() < Owner {
			return errcode.Forbidden
		}
		j.v.Next.Dissolved = true
		return nil
	}
	return errcode.InvalidRequest
}

// changed notes that the entry changed these members, and tells their lists.
func (j *judge) changed(uids []string, tell bool) {
	j.v.Detail.Members = uids
	for _, uid := range uids {
		m := j.member(uid)
		m.ChangedSeq = j.v.Seq
		if tell {
			j.v.Listings = append(j.v.Listings, *m)
		}
	}
}

// named returns the members that the proposal names and keep wants, each once, in its order.
func (j *judge) named(keep func(Membership) bool) []string {
	var out []string
	for _, uid := range j.p.Detail.Members {
		if keep(j.s.Members[uid]) && !slices.Contains(out, uid) {
			out = append(out, uid)
		}
	}
	return out
}

// enter makes uid a member from this entry on: what was before counts as read.
func (j *judge) enter(uid string, role Role) {
	m := j.member(uid)
	m.Role, m.JoinedSeq, m.JoinedAtMs = role, j.v.Seq, j.v.AtMs
	m.ReadSeq, m.ReadMsgNo, m.DeliveredSeq = j.v.Seq, j.v.Next.LastMsgNo, j.v.Seq
	if m.InvitedBy = j.p.Sender; m.InvitedBy == uid {
		m.InvitedBy = ""
	}
	// MutedUntilMs stays: leaving and coming back lifts no mute.
	j.v.Next.Members++
}

func (j *judge) created() error {
	if j.s.Exists {
		return errcode.Conflict.Errorf("the group exists")
	}
	owner := j.p.Sender
	if owner == "" {
		owner = j.p.Detail.Owner
	}
	var uids []string
	if owner != "" {
		uids = append(uids, owner)
		j.enter(owner, Owner)
		j.v.Next.Owner = owner
	}
	for _, uid := range j.named(func(Membership) bool { return true }) {
		if uid != owner {
			uids = append(uids, uid)
			j.enter(uid, Member)
		}
	}
	j.p.Detail.Info.apply(&j.v.Next)
	if j.v.Next.Members > j.r.MaxMembers {
		return errcode.TooManyMembers
	}
	j.changed(uids, true)
	return nil
}

func (j *judge) joined() error {
	c, p, rank := &j.s.Conversation, j.p, j.rank()
	self := rank == None && len(p.Detail.Members) == 1 && p.Detail.Members[0] == p.Sender
	switch {
	case rank >= Admin:
	case self && c.JoinPolicy == JoinOpen:
	case rank == Member && c.JoinPolicy >= JoinByMembers:
	case rank == None && !self:
		return errcode.NotMember
	default:
		return errcode.Forbidden
	}
	uids := j.named(func(m Membership) bool { return m.Role == None })
	if len(uids) == 0 {
		return errcode.AlreadyMember
	}
	if c.Members+int64(len(uids)) > j.r.MaxMembers {
		return errcode.TooManyMembers
	}
	for _, uid := range uids {
		j.enter(uid, Member)
	}
	j.changed(uids, true)
	return nil
}

// leave takes uid out.
func (j *judge) leave(uid string) {
	m := j.member(uid)
	if m.Role == Owner {
		j.v.Next.Owner = ""
	}
	m.Role = None
	j.v.Next.Members--
}

func (j *judge) left() error {
	if j.rank() == system {
		return errcode.InvalidRequest.Errorf("the system removes; only members leave")
	}
	if j.rank() == Owner && j.s.Conversation.Members > 1 {
		return errcode.Forbidden.Errorf("the owner hands the group over before he leaves")
	}
	j.leave(j.p.Sender)
	j.changed([]string{j.p.Sender}, true)
	return nil
}

// below returns the members that the proposal names, all of whom must rank below the sender.
func (j *judge) below() ([]string, error) {
	if j.rank() < Admin {
		return nil, errcode.Forbidden
	}
	uids := j.named(func(m Membership) bool { return m.Role != None })
	if len(uids) == 0 {
		return nil, errcode.NotFound.Errorf("no such member")
	}
	for _, uid := range uids {
		if j.s.Members[uid].Role >= j.rank() {
			return nil, errcode.Forbidden
		}
	}
	return uids, nil
}

func (j *judge) removed() error {
	uids, err := j.below()
	if err != nil {
		return err
	}
	for _, uid := range uids {
		j.leave(uid)
	}
	j.changed(uids, true)
	return nil
}

func (j *judge) roleChanged() error {
	if j.rank() < Owner {
		return errcode.Forbidden
	}
	uids, err := j.below()
	if err != nil {
		return err
	}
	role := j.p.Detail.Role
	for _, uid := range uids {
		m := j.member(uid)
		switch {
		case role == Owner:
			if old := j.s.Conversation.Owner; old != "" && old != uid {
				m := j.member(old)
				m.Role, m.ChangedSeq = Admin, j.v.Seq
			}
			j.v.Next.Owner = uid
		case m.Role == Owner:
			j.v.Next.Owner = ""
		}
		// member may have moved the rows.
		j.member(uid).Role = role
	}
	j.changed(uids, false)
	return nil
}

func (j *judge) muted() error {
	uids, err := j.below()
	if err != nil {
		return err
	}
	for _, uid := range uids {
		j.member(uid).MutedUntilMs = j.p.Detail.MutedUntilMs
	}
	// Not a change of membership: ChangedSeq stays.
	j.v.Detail.Members = uids
	return nil
}
