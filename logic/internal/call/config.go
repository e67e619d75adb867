package call

import (
	"errors"
	"fmt"
	"time"

	"github.com/halley-im/halley/logic/internal/call/machine"
)

// Config is the policy of calls.
type Config struct {
	// Ring is how long a direct call rings, RingGroup a group's.
	Ring      time.Duration `help:"How long a direct call rings." default:"45s"`
	RingGroup time.Duration `help:"How long a group's call rings." default:"60s"`
	// ReachTimeout is how long a call waits for a device of the callee to say that it has it.
	ReachTimeout time.Duration `help:"How long a call waits for any device of the callee; then he is unreachable, or, with call-wake, woken." default:"10s"`
	// Wake gives a callee without a session all the ring time to come.
	Wake bool `help:"A receiver of the webhook call.incoming wakes phones: wait for a callee without a session as long as it rings."`
	// MediaTimeout is from the answer to the first media.
	MediaTimeout time.Duration `help:"How long after the answer media may take to flow." default:"20s"`
	// Lease is how long a leg lives without a heartbeat; clients send one every 10 s.
	Lease time.Duration `help:"How long a leg of a call lives without a heartbeat; clients send one every 10 s." default:"25s"`
	// Away is how long a leg may be away, Leaving how long after its page said that it goes.
	Away    time.Duration `help:"How long a leg may be away before it has left the call." default:"30s"`
	Leaving time.Duration `help:"The same for one whose page said that it goes: a reload comes back in that time." default:"5s"`
	// Empty is how long a group's call lives with nobody there.
	Empty time.Duration `help:"How long a group's call lives while nobody is there." default:"30s"`
	// MaxLength ends a call; EndingNotice is how long before parties are told.
	MaxLength    time.Duration `help:"Longest call." default:"4h"`
	EndingNotice time.Duration `help:"How long before the end of the longest call its parties are told." default:"60s"`
	// PretendAfter is when a caller whom the callee blocks hears it ring.
	PretendAfter time.Duration `help:"When a caller whom the callee blocks hears that it rings." default:"1s"`
	// Waiting rings for users who are in another call.
	Waiting bool `help:"Let it ring for users who are in another call, instead of answering busy."`
	// Mesh is the most legs that are in a call at once.
	Mesh int `help:"Most parties of a call without a media server: each sends to each." default:"6"`
	// MaxLegs is the most that may be asked to one call.
	MaxLegs int `help:"Most users who may be asked to one call." default:"32"`
	// SignalRate and InviteRate are per session.
	SignalRate  float64 `help:"Requests of calls a second of one session; 0: no limit." default:"100"`
	SignalBurst int     `help:"Requests of calls of one session that may come at once." default:"200"`
	InviteRate  float64 `help:"Invitations a minute of one session; 0: no limit." default:"10"`
	// DescriptionBytes and CandidateBytes bound a signal.
	DescriptionBytes int `help:"Largest session description, in bytes." default:"65536"`
	CandidateBytes   int `help:"Largest batch of candidates, in bytes." default:"16384"`
	// Keep is how long an ended call is kept for the HTTP API.
	Keep time.Duration `help:"How long ended calls are kept for the HTTP API." default:"24h"`
	// KeepMost bounds the list of a tenant's calls.
	KeepMost int `help:"Most calls in the list of a tenant; older ones are found by their users and conversations only." default:"100000"`
	// Hooks tells webhooks of every state of every call.
	Hooks bool `help:"Tell webhooks (job.hook_endpoints) of every state of calls: call.state, call.ended." default:"true"`
	// AskURL is where the host is asked before a call rings.
	AskURL string `name:"ask-url" help:"URL of a backend that is asked before a call rings, and may refuse it; empty: nobody is."`
	// AskSecret signs the questions.
	AskSecret string `help:"Secret that signs those requests: whsec_ and base64 of 24 to 64 random bytes, two with a bar between them, or @FILE."`
	// AskTimeout bounds one, AskOpen says what is done without an answer.
	AskTimeout time.Duration `help:"How long such an answer may take." default:"2s"`
	AskOpen    bool          `help:"Let a call ring when that backend does not answer; else it is refused as unavailable."`
	// Poll is how often each process looks for due calls; Hold is how long it may take for one.
	Poll time.Duration `help:"How often each logic process looks for calls whose time has come." default:"200ms"`
	Hold time.Duration `help:"How long a logic process may take for such a call before another one does." default:"10s"`
	// RedisTimeout bounds one question to Redis.
	RedisTimeout time.Duration `help:"Time limit of one question to Redis about a call." default:"1s"`
	// ProduceTimeout bounds a write to Kafka.
	ProduceTimeout time.Duration `help:"How long what is told of a call waits for Kafka; after that it is sent as soon as Kafka is back." default:"2s"`
	// LostAfter is how long a pair's call may be unknown before another one takes its place.
	LostAfter time.Duration `help:"How long the call that two users are said to have may be unknown before a new one takes its place." default:"500ms"`
}

// Validate checks the policy.
func (c Config) Validate() error {
	for _, d := range []struct {
		name string
		v    time.Duration
	}{
		{"ring", c.Ring}, {"ring-group", c.RingGroup}, {"reach-timeout", c.ReachTimeout}, {"media-timeout", c.MediaTimeout}, {"lease", c.Lease},
		{"away", c.Away}, {"leaving", c.Leaving}, {"empty", c.Empty}, {"max-length", c.MaxLength}, {"pretend-after", c.PretendAfter}, {"keep", c.Keep},
		{"poll", c.Poll}, {"hold", c.Hold}, {"redis-timeout", c.RedisTimeout}, {"produce-timeout", c.ProduceTimeout},
		{"ask-timeout", c.AskTimeout},
	} {
		if d.v < time.Millisecond {
			return fmt.Errorf("call: %s must be at least 1ms", d.name)
		}
	}
	switch {
	case c.EndingNotice < 0 || c.LostAfter < 0 || c.SignalRate < 0 || c.SignalBurst < 0 || c.InviteRate < 0:
		return errors.New("call: ending-notice, lost-after, signal-rate, signal-burst and invite-rate must not be less than 0")
	case c.Mesh < 2 || c.MaxLegs < c.Mesh || c.MaxLegs > mostLegs:
		return fmt.Errorf("call: mesh must be at least 2, max-legs at least mesh and at most %d", mostLegs)
	case c.DescriptionBytes < 1 || c.CandidateBytes < 1 || c.DescriptionBytes+c.CandidateBytes > mostSignal:
		return fmt.Errorf("call: description-bytes and candidate-bytes must be at least 1, together at most %d", mostSignal)
	case c.AskURL != "" && c.AskSecret == "":
		return errors.New("call: ask-url needs ask-secret")
	case c.AskURL != "" && checkAskURL(c.AskURL) != nil:
		return checkAskURL(c.AskURL)
	case c.KeepMost < 1:
		return errors.New("call: keep-most must be at least 1")
	}
	return nil
}

const (
	// mostLegs is what events, entries and hooks have room for.
	mostLegs = 100
	// mostSignal is what a push has room for (push.max-body-bytes).
	mostSignal = 200 << 10
)

func (c *Config) policy() machine.Policy {
	return machine.Policy{
		Reach: c.ReachTimeout, Ring: c.Ring, RingGroup: c.RingGroup, Media: c.MediaTimeout, Lease: c.Lease, Away: c.Away, Leaving: c.Leaving,
		Empty: c.Empty, Longest: c.MaxLength, Notice: c.EndingNotice, PretendAfter: c.PretendAfter, Wake: c.Wake, In: c.Mesh, Legs: c.MaxLegs,
	}
}
