package router

import (
	"errors"
	"fmt"
	"time"
)

// Config is how a router behaves. All routers on one Redis must have the same.
type Config struct {
	// LeaseTTL is the time from a comet's renewal until it counts as dead. Comets renew three times in it.
	LeaseTTL time.Duration `name:"lease-ttl" help:"Time from a comet's renewal until it counts as dead; comets renew three times in it." default:"9s"`
	// LeaseCache is how old this router's copy of the leases may be.
	LeaseCache time.Duration `help:"How old a router's copy of the leases may be; at most 1s." default:"1s"`
	// WarmUp is how long after a loss of the leases, and after a start with an empty Redis, look-ups answer that presence isn't known yet.
	// 0: a third of the lease's TTL and a second.
	WarmUp time.Duration `help:"How long after the leases were lost, or first made, look-ups answer that presence is not known yet; 0: a third of lease-ttl, and a second." default:"0s"`
	// LookGap is for how long no router may have looked at the leases until they count as lost: comets could not renew them.
	// 0: a third of the lease's TTL.
	LookGap time.Duration `help:"For how long no router may have reached Redis until the leases count as lost, since comets could not renew them; 0: a third of lease-ttl." default:"0s"`
	// MarkerWindow is the time in which a comet's renewals look at all its markers.
	MarkerWindow time.Duration `help:"Time in which a comet's renewals find out whether any part of its presence was lost." default:"30s"`
	// EpochTombstone is how long a dead epoch is remembered.
	EpochTombstone time.Duration `help:"How long a comet's dead epoch is remembered." default:"24h"`
	// ConnTombstone is how long an ended connection is remembered, so that a late registration is void.
	ConnTombstone time.Duration `help:"How long an ended connection is remembered, so that its late registration is void." default:"60s"`
	// RoomTombstone is how long it is remembered that a comet has left a room, so that a late change is ignored.
	RoomTombstone time.Duration `help:"How long it is remembered that a comet left a room, so that a late change is ignored." default:"60s"`
	// GhostAge is how old an entry must be to be removed by a rewrite that doesn't name it.
	GhostAge time.Duration `help:"How old an entry must be to be removed by a rewrite that does not name it." default:"60s"`
	// SettleDelay is the time from a change of a user's sessions to the presence event.
	SettleDelay time.Duration `help:"Time from the last change of a user's sessions to the presence event." default:"3s"`
	// RoomCountDelay is the least time between two room.member events of a room that is too large to be listed, for each 1,000 sessions in it.
	RoomCountDelay time.Duration `help:"Least time between two room.member events of a room too large to be listed, for each 1,000 sessions in it." default:"1s"`
	// RoomListMax is the most sessions of a room whose members are listed, in events and in pages.
	RoomListMax int `help:"Most sessions of a room whose members are listed." default:"200"`
	// PresenceHooks tells webhooks of every user who comes or goes.
	PresenceHooks bool `help:"Tell webhooks (job.hook_endpoints) of every user who comes online or goes offline: user.online, user.offline." default:"false"`
	// LastSeenFor is how long a user without session is remembered.
	LastSeenFor time.Duration `help:"How long it is remembered when a user was last seen." default:"720h"`
	// PollInterval is the time between two looks for presence events that are due.
	PollInterval time.Duration `help:"Time between two looks for presence events that are due." default:"500ms"`
	// ReapInterval is the time between two looks for dead comets.
	ReapInterval time.Duration `help:"Time between two looks for dead comets." default:"1s"`
	// ClaimTime is how long work that a router has taken is held back from the others.
	ClaimTime time.Duration `help:"How long work that one router has taken is held back from the others." default:"10s"`
	// SweepInterval is the time in which all of presence is searched for what belongs to no comet.
	SweepInterval time.Duration `help:"Time in which presence is searched for what belongs to no comet." default:"60s"`
	// OrphanAge is how long a comet must have had no lease to be swept. 0: four times the lease's TTL.
	OrphanAge time.Duration `help:"How long a comet must have had no lease to be swept; 0: four times lease-ttl." default:"0s"`
	// RedisTimeout bounds how long a request waits for Redis.
	RedisTimeout time.Duration `help:"How long a request waits for Redis at most." default:"1s"`
	// ProduceTimeout bounds a write of events to Kafka.
	ProduceTimeout time.Duration `help:"How long a write of events to Kafka may take." default:"5s"`
	// MaxNames bounds how many names one request may carry.
	MaxNames int `help:"Most names, sessions or rooms in one request." default:"100000"`
}

// Default returns what the settings are where nothing is said.
func Default() Config {
	return Config{
		LeaseTTL: 9 * time.Second, LeaseCache: time.Second, MarkerWindow: 30 * time.Second, EpochTombstone: 24 * time.Hour,
		ConnTombstone: time.Minute, RoomTombstone: time.Minute, GhostAge: time.Minute, SettleDelay: 3 * time.Second,
		RoomCountDelay: time.Second, RoomListMax: 200, LastSeenFor: 720 * time.Hour, PollInterval: 500 * time.Millisecond,
		ReapInterval: time.Second, ClaimTime: 10 * time.Second, SweepInterval: time.Minute, RedisTimeout: time.Second,
		ProduceTimeout: 5 * time.Second, MaxNames: 100_000,
	}
}

// Validate reports the first setting that can't be.
func (c *Config) Validate() error {
	for _, d := range []struct {
		name string
		v    time.Duration
	}{
		{"lease-ttl", c.LeaseTTL}, {"lease-cache", c.LeaseCache}, {"marker-window", c.MarkerWindow}, {"epoch-tombstone", c.EpochTombstone},
		{"conn-tombstone", c.ConnTombstone}, {"room-tombstone", c.RoomTombstone}, {"ghost-age", c.GhostAge}, {"settle-delay", c.SettleDelay},
		{"room-count-delay", c.RoomCountDelay}, {"last-seen-for", c.LastSeenFor}, {"poll-interval", c.PollInterval},
		{"reap-interval", c.ReapInterval}, {"claim-time", c.ClaimTime}, {"sweep-interval", c.SweepInterval},
		{"redis-timeout", c.RedisTimeout}, {"produce-timeout", c.ProduceTimeout},
	} {
		if d.v < time.Millisecond {
			return fmt.Errorf("router: %s must be at least 1ms", d.name)
		}
	}
	switch {
	case c.LeaseCache > time.Second:
		return errors.New("router: lease-cache must be at most 1s: from its due time on, a dead comet is left out")
	case c.LeaseTTL < 10*time.Millisecond:
		return errors.New("router: lease-ttl must be at least 10ms")
	case c.WarmUp < 0 || c.LookGap < 0 || c.OrphanAge < 0:
		return errors.New("router: warm-up, look-gap and orphan-age must not be negative")
	case c.RoomListMax < 1 || c.MaxNames < 1:
		return errors.New("router: room-list-max and max-names must be at least 1")
	}
	return nil
}
