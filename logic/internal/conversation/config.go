package conversation

import (
	"errors"
	"fmt"
	"time"
)

// Config is the policy of conversations, as far as it is not the judge's.
type Config struct {
	// BodyBytes is the largest body of a message.
	BodyBytes int64 `help:"Largest body of a message of a conversation, in bytes." default:"32768"`
	// Rate is how many messages and changes a uid may send in a second, over all its sessions and all logics.
	Rate float64 `help:"Messages and changes a second of one user, over all sessions and logic processes; 0: no limit." default:"50"`
	// Burst is how many may come at once; 0: a second's worth.
	Burst int `help:"Messages and changes of one user that may come at once; 0: a second's worth." default:"200"`
	// ReadRate is the same for what only asks, and for read markers.
	ReadRate  float64 `help:"Questions and read markers a second of one user, over all sessions and logic processes; 0: no limit." default:"50"`
	ReadBurst int     `help:"Questions and read markers of one user that may come at once; 0: a second's worth." default:"200"`
	// MembershipTTL is how long it is believed that somebody is a member, or not blocked. That he isn't is never kept.
	MembershipTTL time.Duration `help:"How long it is believed that somebody is a member of a conversation." default:"10s"`
	// MembershipStale is how long the same is believed while the database is away. Job judges every entry again.
	MembershipStale time.Duration `help:"How long it is believed while the database is away; messages are judged again before they are stored." default:"15m"`
	// MembershipCache bounds the memory: about 250 bytes each.
	MembershipCache int `help:"Most memberships that one logic process remembers." default:"100000"`
	// StorePause is how long the database is left alone after it failed, so that requests don't each wait for it.
	StorePause time.Duration `help:"How long the database is left alone after it failed to answer about a membership." default:"500ms"`
	// Timeout is how long Kafka may take; below comet's time limit of a request, so that clients hear why.
	Timeout time.Duration `help:"How long a message waits for Kafka." default:"4s"`
	// OutcomeWait is how long a call of the HTTP API waits for the outcome of what it wrote.
	OutcomeWait time.Duration `help:"How long a call of the HTTP API waits for the outcome of what it wrote." default:"2s"`
	// RedisTimeout is the longest that one question to Redis may take; then it is done without.
	RedisTimeout time.Duration `help:"How long Redis may take for one question about a conversation; then it is done without." default:"200ms"`
	// PageBytes bounds a page of entries; below what comet lets wait for one session (comet.outbox_bytes).
	PageBytes int64 `help:"Most bytes in a page of messages, one message apart." default:"262144"`
	// SyncEntries is the most entries, and the most user changes, in a page of sync.
	SyncEntries int `help:"Most entries in one page of sync." default:"500"`
	// SyncNewest is how many entries a device gets of a conversation that it doesn't have.
	SyncNewest int `help:"Entries that sync brings of a conversation that the device doesn't have." default:"20"`
	// SyncGap is how far a device may be behind to get all that it missed.
	SyncGap int64 `help:"How many entries a device may have missed of a conversation to get them all; else it gets the newest." default:"500"`
	// KeepAddress keeps the address that a message came from, for administrators.
	KeepAddress bool `help:"Keep the address that each message came from."`
	// HostProfiles keeps users from naming themselves.
	HostProfiles bool `help:"Users' names and pictures are the host's: a client that sets its own is refused. Who may see his presence he still says himself."`
	// DurableTargets is the most users of one push with durable: each of them is a record and a row.
	DurableTargets int `help:"Most users of one durable push." default:"1000"`
}

// Validate checks the policy.
func (c Config) Validate() error {
	for _, d := range []struct {
		name string
		v    time.Duration
	}{
		{"membership-ttl", c.MembershipTTL}, {"store-pause", c.StorePause}, {"timeout", c.Timeout}, {"outcome-wait", c.OutcomeWait},
		{"redis-timeout", c.RedisTimeout},
	} {
		if d.v <= 0 {
			return fmt.Errorf("chat: %s must be more than 0", d.name)
		}
	}
	switch {
	case c.Rate < 0 || c.Burst < 0 || c.ReadRate < 0 || c.ReadBurst < 0:
		return errors.New("chat: rate, burst, read-rate and read-burst must not be less than 0")
	case c.MembershipStale < c.MembershipTTL:
		return errors.New("chat: membership-stale must be at least membership-ttl")
	case c.BodyBytes < 1 || c.BodyBytes > maxBody:
		return fmt.Errorf("chat: body-bytes must be 1 to %d", maxBody)
	case c.MembershipCache < 1 || c.PageBytes < 1 || c.SyncEntries < 1 || c.SyncNewest < 1 || c.SyncGap < 0 || c.DurableTargets < 1:
		return errors.New("chat: membership-cache, page-bytes, sync-entries, sync-newest and durable-targets must be at least 1, sync-gap at least 0")
	}
	return nil
}

// maxBody is what a record and a row have room for.
const maxBody = 32 << 10
