package job

import (
	"errors"
	"fmt"
	"time"

	"github.com/halley-im/halley/job/internal/hook"
)

// Config is what an operator can set. Zero values are not valid: defaults are those of the tags.
type Config struct {
	// BatchRecords is how many records a partition's worker takes at once at most: what is there, without waiting for more. A
	// batch is one question to router.
	BatchRecords int `help:"Most records that a partition's worker takes at once; a batch is one question to router." default:"500"`
	// BatchBytes ends a batch once it has so many bytes.
	BatchBytes int64 `help:"A batch takes no further record once it has so many bytes." default:"1048576"`
	// InFlight bounds the records of a partition between the committed offset and the one read last.
	InFlight int `help:"Most records of a partition between the committed offset and the one read last; then its worker waits." default:"16384"`
	// ChatInFlight and ChatInFlightBytes are how far storing may be ahead of acknowledgements.
	ChatInFlight      int   `help:"The same for records of conversations: how far storing may run ahead of acknowledgements." default:"20000"`
	ChatInFlightBytes int64 `help:"The same in bytes." default:"67108864"`
	// ChatMembers bounds what a partition remembers of groups; the others are read again.
	ChatMembers int `help:"Most members of groups that a partition remembers; those of others are read from the database." default:"50000"`
	// ChatLarge is from where on entries of a group go to a room.
	ChatLarge int64 `help:"Members above which entries of a group go to a room that all members' sessions are in, instead of to each member; from half of it on they are put there. 0: never." default:"300"`
	// ChatAuditKeep and ChatRejectionsKeep are for how long the database keeps what is of use for a time only.
	ChatAuditKeep      time.Duration `help:"How long the texts that edits and recalls replaced are kept for the audit. 0: for ever." default:"0"`
	ChatRejectionsKeep time.Duration `help:"How long the outcome of a refused message is kept: a repeat gets the same one so long. 0: for ever." default:"2160h"`
	ChatPurgeInterval  time.Duration `help:"Time between two removals of these, ± 50 %." default:"1h"`
	// ChatRoomAfter is how long routers may take to hear of a comet's rooms.
	ChatRoomAfter time.Duration `help:"Time from putting the members' sessions into the room until entries go there alone: routers hear of rooms a moment late." default:"10s"`
	// OutcomeTimeout bounds one write of outcomes and marks to Redis, which deliveries wait for.
	OutcomeTimeout time.Duration `help:"Time limit for writing outcomes to Redis. Whoever waits for one that could not be written is told that it is accepted." default:"250ms"`
	// CommitInterval is how often offsets are committed: what a killed job has delivered since comes again.
	CommitInterval time.Duration `help:"Time between two commits of offsets; what was delivered since comes again after a kill." default:"100ms"`
	// DrainTimeout is how long a rebalance waits for acknowledgements; at most a third of Kafka's session timeout is used.
	DrainTimeout time.Duration `help:"How long a rebalance or the end waits for acknowledgements of what is in flight." default:"2s"`
	// LagInterval is for the gauges of lag: a partition that can't be read tells nothing by itself.
	LagInterval time.Duration `help:"How often Kafka is asked for the end of a partition from which nothing comes, for the gauges of lag." default:"5s"`

	// LocateTimeout bounds one question to router.
	LocateTimeout time.Duration `help:"Time limit of one question to router." default:"2s"`
	// LocateNames is how many names one question carries.
	LocateNames int `help:"Most names in one question to router; more are asked in several." default:"5000"`
	// WaitMax is what a rebalance may have to wait for a worker.
	WaitMax time.Duration `help:"Bound of every wait of a partition's worker, since a rebalance waits as long for it: locate_timeout, drain_timeout, dead_timeout, outcome_timeout and retry_max must not be above." default:"2s"`
	// DeadTimeout bounds one try to write a dead letter; it is tried until it is written.
	DeadTimeout time.Duration `help:"Time limit of one attempt to write a record that can't be decoded to its topic." default:"2s"`
	// RetryMin and RetryMax space retries: of router, of comets, of dead letters.
	RetryMin time.Duration `help:"Shortest wait before a retry; it doubles." default:"50ms"`
	RetryMax time.Duration `help:"Longest wait before a retry." default:"1s"`

	// WindowCount and WindowBytes are when a stream's window is full.
	WindowCount int   `help:"Unacknowledged deliveries at which a stream's window is full." default:"4096"`
	WindowBytes int64 `help:"Unacknowledged bytes at which a stream's window is full." default:"4194304"`
	// WindowReserve is for control and stored deliveries, which are never dropped.
	WindowReserve int `help:"Control and stored deliveries that fit into a stream's window beyond that." default:"4096"`
	// MessageCount and MessageBytes bound one message of a stream.
	MessageCount int   `help:"Most deliveries in one message of a stream." default:"256"`
	MessageBytes int64 `help:"A message of a stream takes no further delivery once it has so many bytes." default:"262144"`
	// DeliveryConns splits a delivery to many.
	DeliveryConns int `help:"Most connections that one delivery names; more are split." default:"4096"`
	// StallAfter is how long a full window may hold up a worker.
	StallAfter time.Duration `help:"How long a stream's window may be full before its comet is stalled: pushes to it are dropped and counted until it acknowledges again." default:"2s"`
	// CondemnAfter is the lease's time to live.
	CondemnAfter time.Duration `help:"After this time without any acknowledgement, while one is owed, a comet's epoch is condemned. The lease's time to live." default:"9s"`
	// CheckInterval is how often silent comets are looked at.
	CheckInterval time.Duration `help:"How often comets that owe acknowledgements are checked against router's list of live ones." default:"1s"`
	// RefusedFor must be longer than routers cache who lives, 1 s.
	RefusedFor time.Duration `help:"How long an epoch that comet or router gave up is avoided; longer than routers cache who lives (1s)." default:"1200ms"`
	// ConnectTimeout bounds opening a stream.
	ConnectTimeout time.Duration `help:"Time limit for opening a stream to a comet." default:"2s"`

	// Hook is about webhooks; it counts where Deps.Store is set.
	Hook hook.Config `embed:"" prefix:"hook-"`
}

// Validate reports the first setting that can't work.
func (c *Config) Validate() error {
	for name, d := range map[string]time.Duration{
		"commit-interval": c.CommitInterval, "lag-interval": c.LagInterval, "locate-timeout": c.LocateTimeout, "retry-min": c.RetryMin, "retry-max": c.RetryMax,
		"stall-after": c.StallAfter, "condemn-after": c.CondemnAfter, "check-interval": c.CheckInterval,
		"refused-for": c.RefusedFor, "wait-max": c.WaitMax, "dead-timeout": c.DeadTimeout, "connect-timeout": c.ConnectTimeout,
		"outcome-timeout": c.OutcomeTimeout, "chat-purge-interval": c.ChatPurgeInterval,
	} {
		if d <= 0 {
			return fmt.Errorf("job: %s must be above 0", name)
		}
	}
	for name, n := range map[string]int64{
		"batch-records": int64(c.BatchRecords), "batch-bytes": c.BatchBytes, "in-flight": int64(c.InFlight),
		"chat-in-flight": int64(c.ChatInFlight), "chat-in-flight-bytes": c.ChatInFlightBytes, "chat-members": int64(c.ChatMembers),
		"locate-names": int64(c.LocateNames), "window-count": int64(c.WindowCount), "window-bytes": c.WindowBytes,
		"message-count": int64(c.MessageCount), "message-bytes": c.MessageBytes, "delivery-conns": int64(c.DeliveryConns),
	} {
		if n <= 0 {
			return fmt.Errorf("job: %s must be above 0", name)
		}
	}
	switch {
	case c.ChatLarge < 0 || c.ChatRoomAfter < 0:
		return errors.New("job: chat-large and chat-room-after must not be negative")
	case c.ChatAuditKeep < 0 || c.ChatRejectionsKeep < 0:
		return errors.New("job: chat-audit-keep and chat-rejections-keep must not be negative")
	case c.WindowReserve < 0:
		return errors.New("job: window-reserve must not be negative")
	case c.DrainTimeout < 0 || c.DrainTimeout > c.WaitMax:
		return errors.New("job: drain-timeout must be at most wait-max")
	case c.LocateTimeout > c.WaitMax || c.DeadTimeout > c.WaitMax || c.OutcomeTimeout > c.WaitMax:
		return errors.New("job: locate-timeout, dead-timeout and outcome-timeout must be at most wait-max")
	case c.RetryMax > c.WaitMax || c.RetryMin > c.RetryMax:
		return errors.New("job: retry-max must be at least retry-min and at most wait-max")
	case c.CondemnAfter <= c.CheckInterval:
		return errors.New("job: condemn-after must be above check-interval")
	}
	return nil
}
