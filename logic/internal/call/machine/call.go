// Package machine is what becomes of a call: its states, and what each command and each moment changes in them. It imports no
// network, Redis or Kafka and has no clock: whoever uses it loads a call, takes a step at a time that he names, keeps the
// result by compare-and-set, and then tells what the step says is to be told.
//
// Steps change the call that they are given. Not safe for concurrent use of one Call.
package machine

import (
	"slices"
	"time"
)

// State is a call's.
type State string

// States of a call.
const (
	Inviting     State = "inviting"
	Ringing      State = "ringing"
	Connecting   State = "connecting"
	Active       State = "active"
	Reconnecting State = "reconnecting"
	Ended        State = "ended"
)

// Reason is why a call ended.
type Reason string

// Reasons. Moved and denied are kept for meetings.
const (
	Completed      Reason = "completed"
	Declined       Reason = "declined"
	Busy           Reason = "busy"
	NoAnswer       Reason = "no_answer"
	Cancelled      Reason = "cancelled"
	Unreachable    Reason = "unreachable"
	FailedMedia    Reason = "failed_media"
	ConnectionLost Reason = "connection_lost"
	EndedByHost    Reason = "ended_by_host"
)

// LegState is a leg's.
type LegState string

// States of a leg.
const (
	LegInvited     LegState = "invited"
	LegRinging     LegState = "ringing"
	LegAccepted    LegState = "accepted"
	LegJoined      LegState = "joined"
	LegAway        LegState = "away"
	LegLeft        LegState = "left"
	LegDeclined    LegState = "declined"
	LegBusy        LegState = "busy"
	LegMissed      LegState = "missed"
	LegCancelled   LegState = "cancelled"
	LegUnreachable LegState = "unreachable"
)

// Why a leg left.
const (
	LeftHangup  = "hangup"
	LeftRemoved = "removed"
	LeftLost    = string(ConnectionLost)
	LeftMedia   = string(FailedMedia)
	LeftEnded   = "ended"
)

// States of a branch.
const (
	BranchPending   = "pending"
	BranchDelivered = "delivered"
	BranchRinging   = "ringing"
	BranchWon       = "won"
	BranchStopped   = "stopped"
)

// Why a device must not ring any more.
const (
	StopAnswered  = "answered_elsewhere"
	StopDeclined  = "declined_elsewhere"
	StopCancelled = "cancelled"
	StopTimeout   = "timeout"
	StopRemoved   = "removed"
	StopEnded     = "ended"
	StopTaken     = "taken"
)

// Kinds.
const (
	KindDirect = "direct"
	KindGroup  = "group"
)

// Sends is what a leg sends, and whether its hand is up.
type Sends struct {
	Audio  bool `json:"audio,omitempty"`
	Video  bool `json:"video,omitempty"`
	Screen bool `json:"screen,omitempty"`
	Hand   bool `json:"hand,omitempty"`
}

// Branch is one device of a callee.
type Branch struct {
	Key      string `json:"key"`
	Device   string `json:"device,omitempty"`
	Platform string `json:"platform,omitempty"`
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
}

// Leg is one user's part in a call. Times are Redis' milliseconds since 1970; 0: never.
type Leg struct {
	UID   string   `json:"uid"`
	State LegState `json:"state"`
	// Was is what an away leg comes back as.
	Was    LegState `json:"was,omitempty"`
	Reason string   `json:"reason,omitempty"`
	// Session is the connection that has the leg, Key the key by which it is reached: a device's next connection may have the same.
	Session    string `json:"session,omitempty"`
	Key        string `json:"key,omitempty"`
	Device     string `json:"device,omitempty"`
	Platform   string `json:"platform,omitempty"`
	Generation uint32 `json:"generation,omitempty"`
	// Order is 1 for the caller, and grows with everyone who comes in.
	Order  uint32 `json:"order,omitempty"`
	Sends  Sends  `json:"sends"`
	Joined int64  `json:"joined,omitempty"`
	Left   int64  `json:"left,omitempty"`

	// Silent: the user blocks who asks him. He is asked for show only.
	Silent bool `json:"silent,omitempty"`
	// Removed: he was put out and can't come again.
	Removed bool `json:"removed,omitempty"`
	// Guest: somebody in the call asked him, and he was no member of the group that calls.
	Guest bool `json:"guest,omitempty"`
	// Woken: webhooks were told to wake him.
	Woken bool `json:"woken,omitempty"`
	// Delivered: one of his devices has it.
	Delivered bool     `json:"delivered,omitempty"`
	Branches  []Branch `json:"branches,omitempty"`

	ReachUntil int64 `json:"reach_until,omitempty"`
	RingAt     int64 `json:"ring_at,omitempty"` // silent: when it pretends to
	RingUntil  int64 `json:"ring_until,omitempty"`
	MediaUntil int64 `json:"media_until,omitempty"`
	LeaseUntil int64 `json:"lease_until,omitempty"`
	AwayUntil  int64 `json:"away_until,omitempty"`

	// Commands are the ids of those that the user gave last, so that a repeat has no further effect.
	Commands []string `json:"commands,omitempty"`
}

// Asked reports whether the user may still answer.
func (l *Leg) Asked() bool { return l.State == LegInvited || l.State == LegRinging }

// In reports whether the user is in the call, or away from it for a moment.
func (l *Leg) In() bool { return l.State == LegAccepted || l.State == LegJoined || l.State == LegAway }

// Live reports whether the leg is not over.
func (l *Leg) Live() bool { return l.Asked() || l.In() }

// Holds reports whether the session has the leg.
func (l *Leg) Holds(session string) bool { return l.In() && l.Session == session }

// Of reports whether a connection is of the device that has, or had, the leg.
func (l *Leg) Of(by Who) bool { return l.Device != "" && l.Device == by.Device }

// Call is a call as it is kept.
type Call struct {
	Tenant string `json:"tenant"`
	ID     string `json:"id"`
	// Version grows by 1 with each change that is told.
	Version      int64  `json:"version"`
	Kind         string `json:"kind"`
	Media        string `json:"media"`
	Conversation string `json:"conversation,omitempty"`
	Caller       string `json:"caller"`
	State        State  `json:"state"`
	Reason       Reason `json:"reason,omitempty"`
	Legs         []*Leg `json:"legs"`
	Created      int64  `json:"created"`
	Activated    int64  `json:"activated,omitempty"`
	EndedAt      int64  `json:"ended,omitempty"`
	RingUntil    int64  `json:"ring_until,omitempty"`
	EndsAt       int64  `json:"ends_at,omitempty"`
	NoticeAt     int64  `json:"notice_at,omitempty"`
	EmptyUntil   int64  `json:"empty_until,omitempty"`
	// Ending: it was told that EndsAt is near.
	Ending  bool   `json:"ending,omitempty"`
	Resumed bool   `json:"resumed,omitempty"`
	Orders  uint32 `json:"orders"`
	Limit   int    `json:"limit"`
}

// Clone returns a copy that shares nothing.
func (c *Call) Clone() *Call {
	d := *c
	d.Legs = make([]*Leg, len(c.Legs))
	for i, l := range c.Legs {
		m := *l
		m.Branches, m.Commands = slices.Clone(l.Branches), slices.Clone(l.Commands)
		d.Legs[i] = &m
	}
	return &d
}

// Leg returns uid's, or nil.
func (c *Call) Leg(uid string) *Leg {
	for _, l := range c.Legs {
		if l.UID == uid {
			return l
		}
	}
	return nil
}

// Live reports whether it has not ended.
func (c *Call) Live() bool { return c.State != Ended }

// Duration is from when it was active first to its end.
func (c *Call) Duration() time.Duration {
	if c.Activated == 0 || c.EndedAt == 0 {
		return 0
	}
	return time.Duration(c.EndedAt-c.Activated) * time.Millisecond
}

// Silent reports whether one of uids was asked for show only: nothing of the call is kept where he sees it.
func (c *Call) Silent(uids []string) bool {
	return slices.ContainsFunc(c.Legs, func(l *Leg) bool { return l.Silent && slices.Contains(uids, l.UID) })
}

// Due returns when the call must be looked at next; 0: never.
func (c *Call) Due() int64 {
	if !c.Live() {
		return 0
	}
	var due int64
	add := func(at int64) {
		if at > 0 && (due == 0 || at < due) {
			due = at
		}
	}
	for _, l := range c.Legs {
		switch l.State {
		case LegInvited, LegRinging:
			if !l.Delivered {
				add(l.ReachUntil)
			}
			if l.State == LegInvited {
				add(l.RingAt)
			}
			add(l.RingUntil)
		case LegAccepted:
			add(l.MediaUntil)
			add(l.LeaseUntil)
		case LegJoined:
			add(l.LeaseUntil)
		case LegAway:
			add(l.AwayUntil)
			if l.Was == LegAccepted {
				add(l.MediaUntil)
			}
		}
	}
	add(c.EmptyUntil)
	if c.EndsAt > 0 {
		if !c.Ending {
			add(c.NoticeAt)
		}
		add(c.EndsAt)
	}
	return due
}

// Policy is the times and limits of calls.
type Policy struct {
	Reach, Ring, RingGroup, Media, Lease, Away, Leaving, Empty, Longest, Notice time.Duration
	// PretendAfter is when a blocked caller hears it ring.
	PretendAfter time.Duration
	// Wake: somebody wakes phones by the webhook.
	Wake bool
	// In is the most legs in the call at once, Legs the most at all.
	In, Legs int
}
