package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/halley-im/halley/halley/internal/verify"
	"github.com/halley-im/halley/halley/internal/verify/check"
)

type verifyCmd struct {
	Data  dataSettings `embed:""`
	Sign  signing      `embed:""`
	API   apiFlags     `embed:""`
	Comet []string     `name:"comet" help:"Where devices connect: ws://, wss://, tcp:// or tls://; several with commas are tried in turn." default:"ws://127.0.0.1:3102/sub" placeholder:"URL"`
	// More are further logics, which are asked where the first doesn't answer.
	More     []string `name:"more-urls" placeholder:"URL" help:"Further addresses of the HTTP API, for when the first doesn't answer."`
	Insecure bool     `name:"insecure" help:"Don't check the servers' certificates: for self-signed ones."`

	Users    int           `name:"users" help:"Users." default:"12"`
	Devices  int           `name:"devices" help:"Devices of each user." default:"2"`
	Direct   int           `name:"direct" help:"Conversations of two." default:"12"`
	Groups   int           `name:"groups" help:"Groups." default:"2"`
	Members  int           `name:"members" help:"Members of each group." default:"8"`
	Rate     float64       `name:"rate" help:"Messages and changes a second, of all together." default:"40"`
	Duration time.Duration `name:"duration" help:"How long is sent; 0: until it is interrupted (Ctrl-C), which ends it in order." default:"30s"`
	Changes  float64       `name:"changes" help:"Part of what is sent that changes messages: edits, recalls, reactions, pins." default:"0.2"`
	Repeats  float64       `name:"repeats" help:"Part of what is sent that is sent once more under the same id." default:"0.1"`
	Moves    float64       `name:"moves" help:"Part of what is sent that has somebody leave a group, be taken out of it or be brought back." default:"0.03"`
	Marks    float64       `name:"marks" help:"Part of what is done that marks as read." default:"0.1"`
	Flood    time.Duration `name:"flood" help:"Time from one flood to the next: a device is held up for 3s while more is pushed to it than comet keeps for it; 0: none. The key needs the scope push." default:"10s"`
	Disturb  time.Duration `name:"disturb" help:"Time from one disturbance to the next: a connection cut, or held up for up to 3s, or a device started anew; 0: none." default:"500ms"`
	Ask      time.Duration `name:"ask" help:"How often a device asks whether it missed something, more or less by half." default:"10s"`
	Settle   time.Duration `name:"settle" help:"How long is waited in the end for what has not come." default:"60s"`
	Late     time.Duration `name:"late" help:"From when on an entry counts as late." default:"5s"`
	Phases   bool          `name:"phases" help:"Read from standard input what you do to the cluster: phase NAME, over, quiet; the report then tells each one's times."`
	Seed     uint64        `name:"seed" help:"Seed of chance; 0: another one each time."`
	JSON     bool          `name:"json" help:"Print the report as JSON."`
	Journal  string        `name:"journal" placeholder:"FILE" help:"Write all events there, one JSON object a line."`
	Quiet    bool          `name:"quiet" short:"q" help:"Don't tell what goes on."`
}

// Help is the long text of halley verify --help.
func (verifyCmd) Help() string {
	return `Has people talk over a running cluster while their connections are cut and held up, their devices started anew and their messages sent twice.
They edit, recall, react, pin, mark as read, leave groups and come back. In the end it holds what they sent, what they were told and shown,
and what is stored against each other, for each device. Whatever you do to the cluster meanwhile, nothing may be lost, come twice, come out
of order or come to somebody who is not in the conversation; the exit code is 1 if something did.

  halley verify --duration 1m
  halley verify --comet ws://c1:3102/sub,ws://c2:3102/sub --url http://l1:3111 --rate 200 --users 50

With --phases, say on standard input what you do to the cluster, and the report has a line for it with what was late and how long it took
until everybody had everything again, measured on devices that the run itself left alone:

  phase one job killed      from here on the cluster is disturbed
  over                      it is not any more
  flood                     flood a device now; by itself that happens between phases only
  quiet                     send nothing until everybody has everything, so that nothing of this reaches into the next phase

It makes users and conversations of its own, which stay: their names begin with "v" and the run's number.`
}

// Run runs it and prints the report.
func (c *verifyCmd) Run(ctx context.Context, t *terminal) error {
	cfg := verify.Config{
		Comets: c.Comet, API: verify.API{URLs: append([]string{c.API.URL}, c.More...), Tenant: c.API.Tenant}, Tenant: c.API.Tenant,
		Users: c.Users, Devices: c.Devices, Direct: c.Direct, Groups: c.Groups, Members: c.Members, Rate: c.Rate, Duration: c.Duration,
		Changes: c.Changes, Repeats: c.Repeats, Moves: c.Moves, Marks: c.Marks, Flood: c.Flood, Disturb: c.Disturb, Ask: c.Ask, Settle: c.Settle, Late: c.Late, Seed: c.Seed,
		Progress: func(format string, args ...any) {
			if !c.Quiet {
				fmt.Fprintf(t.err, "verify: "+format+"\n", args...)
			}
		},
	}
	if c.Phases {
		cfg.Commands = lines(ctx, os.Stdin)
	}
	if c.Insecure {
		cfg.TLS = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	}
	var err error
	if cfg.API.Key, err = c.API.key(c.Data.DataDir); err != nil {
		return err
	}
	if cfg.Sign, err = c.Sign.key(c.Data.DataDir); err != nil {
		return err
	}
	r, journal, err := verify.Run(ctx, cfg)
	if c.Journal != "" {
		err = errors.Join(err, writeJournal(c.Journal, journal))
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = json.NewEncoder(t.out).Encode(r)
	} else {
		err = r.Print(t.out)
	}
	if err == nil && r.Broken() {
		err = fmt.Errorf("the delivery contract is broken: lost %d, duplicated %d, reordered %d in the store; lost %d, duplicated %d, reordered %d, leaked %d handed to applications; %d times a device closed for good",
			r.Store.Lost, r.Store.Duplicated, r.Store.Reordered, r.Handed.Lost, r.Handed.Duplicated, r.Handed.Reordered, r.Leaked, r.Closed)
	}
	return err
}

// lines hands on what is read, until its end or that of ctx. A read from a terminal can't be interrupted: its goroutine ends with the process.
func lines(ctx context.Context, from io.Reader) <-chan string {
	out := make(chan string)
	go func() {
		defer close(out)
		for s := bufio.NewScanner(from); s.Scan(); {
			select {
			case out <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func writeJournal(name string, events []check.Event) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(check.Write(f, events), f.Close())
}
