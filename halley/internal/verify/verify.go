// Package verify holds a running cluster to the delivery contract: people with several devices each send numbered messages to each other
// while their connections are cut, slowed down and taken up again, and their devices are started anew; they send things twice, edit, recall,
// react, pin and mark as read, leave groups and come back. In the end what they sent, what they were told and shown, and what is stored are
// held against each other by package check.
//
// It is a client like any other, on package client and the HTTP API; what it knows of the cluster is addresses and keys. Its goroutines are
// the clients', one for each connection's two ways, and the traffic's; Run waits for all of them.
package verify

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/halley/internal/verify/check"
	"github.com/halley-im/halley/kit/token"
)

// Config says against what, how much and for how long. All of it must be set, but for what says otherwise.
type Config struct {
	// Comets are URLs as package client takes them: ws://, wss://, tcp:// or tls://. A device tries them in turn.
	Comets []string
	// TLS is for wss and tls; nil: the system's authorities.
	TLS *tls.Config
	// API reads back what is stored; its key needs the scope read or chat.
	API API
	// Sign makes the devices' tokens.
	Sign   *token.Key
	Tenant string

	// Users have Devices each. Direct is how many conversations of two there are, Groups how many of Members each.
	Users, Devices          int
	Direct, Groups, Members int
	// Rate is how many messages and changes are sent in a second, by all together.
	Rate float64
	// Duration is how long is sent; 0: until the context is done.
	Duration time.Duration
	// Changes is the part of what is sent that changes messages: edits, recalls, reactions, pins. Repeats is the part that is sent once more
	// under the same id, Moves the part that has somebody leave a group, be taken out of it or be brought back, Marks the part that marks
	// as read.
	Changes, Repeats, Moves, Marks float64
	// Flood is the time from one flood of pushes to a device that is held up to the next; 0: none. They are more than its outbox takes.
	Flood time.Duration
	// Commands say what is being done to the cluster; nil: nobody does. "phase NAME" begins it, "over" says that it has ended and the cluster
	// is to recover, "flood" floods a device, "quiet" has the run send nothing until everybody has everything.
	Commands <-chan string
	// Disturb is the time from one disturbance of a device's connection to the next; 0: none.
	Disturb time.Duration
	// Ask is how often a device asks whether it missed something.
	Ask time.Duration
	// Settle is for how long what has not come is waited for, in the end.
	Settle time.Duration
	// Late is when an entry counts as late.
	Late time.Duration
	// Seed of chance; 0: another one each time.
	Seed uint64
	// Progress tells a person what goes on.
	Progress func(format string, args ...any)
}

// Validate reports the first thing that makes no sense.
func (c *Config) Validate() error {
	switch {
	case len(c.Comets) == 0:
		return errors.New("where to? name at least one comet")
	case c.Users < 2 || c.Devices < 1:
		return errors.New("at least two users with a device each")
	case c.Direct < 0 || c.Direct > c.Users*(c.Users-1)/2:
		return fmt.Errorf("%d users have at most %d direct conversations", c.Users, c.Users*(c.Users-1)/2)
	case c.Groups < 0 || c.Groups > 0 && (c.Members < 2 || c.Members > c.Users):
		return errors.New("a group has at least two members, and at most all users")
	case c.Direct+c.Groups == 0:
		return errors.New("at least one conversation")
	case c.Rate <= 0 || min(c.Changes, c.Repeats, c.Moves, c.Marks) < 0 || c.Changes+c.Repeats+c.Moves+c.Marks >= 1:
		return errors.New("the rate must be above 0, and changes, repeats, moves and marks together below all that is sent")
	case c.Ask <= 0 || c.Settle <= 0 || c.Duration < 0 || c.Disturb < 0 || c.Flood < 0:
		return errors.New("times must be above 0")
	}
	return nil
}

// nameServer says whose certificate is expected: connections go through an address of this machine, which tells nothing.
func (c *Config) nameServer() error {
	for _, comet := range c.Comets {
		u, err := url.Parse(comet)
		if err != nil {
			return fmt.Errorf("comet: %w", err)
		}
		if u.Scheme != "wss" && u.Scheme != "tls" {
			continue
		}
		if c.TLS == nil {
			c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if c.TLS.ServerName == "" {
			c.TLS.ServerName = u.Hostname()
		}
		if c.TLS.ServerName != u.Hostname() {
			return errors.New("comets with TLS must have one name")
		}
	}
	return nil
}

// Report is what a run found, and what was done for it.
type Report struct {
	// Run is in the users' names, so that no two runs meet.
	Run           string  `json:"run"`
	Seed          uint64  `json:"seed"`
	Seconds       float64 `json:"seconds"`
	Devices       int     `json:"devices"`
	Conversations int     `json:"conversations"`
	check.Result
	// WireDuplicates are events of entries that a device's connections brought once more.
	WireDuplicates int64 `json:"wire_duplicates"`
	// What was done to the devices, and what came of it.
	Repeats int64 `json:"repeats"`
	Marks   int64 `json:"marks"`
	Floods  int64 `json:"floods"`
	Cuts    int64 `json:"cuts"`
	Slowed  int64 `json:"slowed"`
	Reloads int64 `json:"reloads"`
	// Closed is how often a server ended a device's client for good, without its having done anything for that: it had to be started anew.
	Closed   int64 `json:"closed"`
	Sessions int64 `json:"sessions"`
	Resyncs  int64 `json:"resyncs"`
	// HeldBack is what was not sent since its device had too much without an outcome.
	HeldBack int64 `json:"held_back"`
	// Unsettled is what was still missing when the time was over.
	Unsettled string `json:"unsettled,omitempty"`
}

// Broken is whether the contract is: by what was lost, doubled, out of order or leaked, or by a server that closed a device for good.
func (r *Report) Broken() bool { return r.Result.Broken() || r.Closed > 0 }

// talk is a conversation of the run.
type talk struct {
	id      string
	members []*device
	// people are the members' uids; the first one begins it, and stays.
	people []string
	group  bool

	mu     sync.Mutex
	moving bool // somebody is on his way in or out
	out    map[string]bool
}

// isOut is whether somebody has left, or was taken out, as far as the run knows.
func (t *talk) isOut(uid string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out[uid]
}

type run struct {
	Config
	name    string
	rng     *rand.Rand // of the traffic's goroutine
	start   time.Time
	devices []*device
	talks   []*talk
	// phase is whether something is being done to the cluster.
	phase bool
	moves moves

	wg  sync.WaitGroup
	mu  sync.Mutex
	log []check.Event
	// ends says of the first devices that were closed for good why.
	ends []string

	figures
}

// Run sends for as long as it is told, or until ctx is done, lets everything settle and says what it found. It returns the journal
// too. An error means that there is no result; what is broken is in the report.
func Run(ctx context.Context, cfg Config) (*Report, []check.Event, error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	cfg.API.fill()
	if err := cfg.nameServer(); err != nil {
		return nil, nil, err
	}
	r := &run{
		Config: cfg, name: strconv.FormatInt(time.Now().UnixMilli(), 36), rng: rand.New(rand.NewPCG(cfg.Seed, 1)), start: time.Now(),
		moves: moves{open: map[string]move{}, early: map[string]bool{}},
	}
	// The end of ctx ends the sending; the clients live on until all has settled.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer r.wg.Wait()
	defer cancel()
	if err := r.cast(life); err != nil {
		return nil, nil, err
	}
	r.Progress("%d devices of %d users, %d conversations; seed %d", len(r.devices), r.Users, len(r.talks), r.Seed)
	begin, stop := context.WithTimeout(ctx, r.Settle)
	err := r.begin(begin)
	stop()
	if err != nil {
		return nil, nil, err
	}
	if r.Duration > 0 {
		r.Progress("sending %.4g/s for %s", r.Rate, r.Duration)
	} else {
		r.Progress("sending %.4g/s until interrupted", r.Rate)
	}
	sending := time.Now()
	r.traffic(ctx)
	seconds := time.Since(sending).Seconds()
	r.Progress("waiting until all has settled, %s at most", r.Settle)
	unsettled, err := r.settle(life)
	cancel()
	r.wg.Wait()
	if err != nil {
		return nil, r.log, err
	}
	out := &Report{
		Run: r.name, Seed: r.Seed, Seconds: seconds, Devices: len(r.devices), Conversations: len(r.talks), Result: *check.Check(r.log, r.Late), Unsettled: unsettled,
	}
	r.fill(out)
	return out, r.log, nil
}

// cast makes the devices and connects them.
func (r *run) cast(life context.Context) error {
	for u := range r.Users {
		uid := fmt.Sprintf("v%s.%d", r.name, u)
		for i := range r.Devices {
			d, err := r.newDevice(life, uid, i)
			if err != nil {
				return err
			}
			r.devices = append(r.devices, d)
			d.start()
		}
	}
	return nil
}

func (r *run) devicesOf(u int) []*device { return r.devices[u*r.Devices : (u+1)*r.Devices] }

// begin makes the conversations and waits until every device of every member has their beginning: from here on all that a device
// is told follows what it has.
func (r *run) begin(ctx context.Context) error {
	if err := r.until(ctx, "all devices are connected", func() bool {
		for _, d := range r.devices {
			if !d.online() {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	// All pairs at a distance of 1, then of 2, …: so that the few first ones already link everybody.
	for n, distance := 0, 1; n < r.Direct; distance++ {
		for a := 0; a < r.Users && n < r.Direct; a++ {
			b := (a + distance) % r.Users
			if 2*distance == r.Users && a >= b {
				continue // The same pair from its other end.
			}
			first, second := r.devicesOf(a), r.devicesOf(b)
			t := &talk{id: client.DirectID(first[0].uid, second[0].uid), people: []string{first[0].uid, second[0].uid}}
			t.members = append(append(t.members, first...), second...)
			r.talks = append(r.talks, t)
			n++
		}
	}
	for g := range r.Groups {
		t := &talk{group: true, out: map[string]bool{}}
		for i := range r.Members {
			ds := r.devicesOf((g + i) % r.Users)
			t.members = append(t.members, ds...)
			t.people = append(t.people, ds[0].uid)
		}
		id, err := t.members[0].group(ctx, fmt.Sprintf("verify %s %d", r.name, g), t.people[1:])
		if err != nil {
			return fmt.Errorf("make a group: %w", err)
		}
		t.id = id
		r.talks = append(r.talks, t)
	}
	for _, t := range r.talks {
		for _, d := range t.members {
			d.mu.Lock()
			d.talks = append(d.talks, t)
			d.mu.Unlock()
			if !t.group {
				r.note(check.Event{Kind: check.Member, Device: d.name, UID: d.uid, Conversation: t.id})
			}
		}
		if err := t.members[0].send(t); err != nil {
			return err
		}
	}
	return r.until(ctx, "all devices have the beginning of their conversations", func() bool {
		for _, t := range r.talks {
			for _, d := range t.members {
				if d.last(t.id) == 0 || d.waiting() > 0 {
					return false
				}
			}
		}
		return true
	})
}

func (r *run) until(ctx context.Context, what string, ok func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("not so in time: %s (%w)%s", what, cmp.Or(ctx.Err(), context.Canceled), r.trouble())
		case <-tick.C:
		}
	}
	return nil
}

// trouble is why a device is not connected, if one isn't.
func (r *run) trouble() string {
	for _, d := range r.devices {
		if err := d.why(); err != nil {
			return fmt.Sprintf("; %s: %v", d.name, err)
		}
	}
	return ""
}

// note adds to the journal.
func (r *run) note(e check.Event) {
	if e.At == 0 {
		e.At = r.now()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, e)
}

func (r *run) now() time.Duration { return max(1, time.Since(r.start)) }
