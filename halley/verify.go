package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
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
	Changes  float64       `name:"changes" help:"Part of what is sent that edits or recalls." default:"0.15"`
	Repeats  float64       `name:"repeats" help:"Part of what is sent that is sent once more under the same id." default:"0.1"`
	Disturb  time.Duration `name:"disturb" help:"Time from one disturbance to the next: a connection cut, or held up for up to 3s, or a device started anew; 0: none." default:"500ms"`
	Ask      time.Duration `name:"ask" help:"How often a device asks whether it missed something, more or less by half." default:"10s"`
	Settle   time.Duration `name:"settle" help:"How long is waited in the end for what has not come." default:"60s"`
	Late     time.Duration `name:"late" help:"From when on an entry counts as late." default:"5s"`
	Seed     uint64        `name:"seed" help:"Seed of chance; 0: another one each time."`
	JSON     bool          `name:"json" help:"Print the report as JSON."`
	Journal  string        `name:"journal" placeholder:"FILE" help:"Write all events there, one JSON object a line."`
	Quiet    bool          `name:"quiet" short:"q" help:"Don't tell what goes on."`
}

// Help is the long text of halley verify --help.
func (verifyCmd) Help() string {
	return `Has people talk over a running cluster while their connections are cut and held up, their devices started anew and their messages sent twice.
In the end it holds what they sent, what they were told and shown, and what is stored against each other. Whatever you do to the
cluster meanwhile, nothing may be lost, come twice or come out of order; the exit code is 1 if something did.

  halley verify --duration 1m
  halley verify --comet ws://c1:3102/sub,ws://c2:3102/sub --url http://l1:3111 --rate 200 --users 50

It makes users and conversations of its own, which stay: their names begin with "v" and the run's number.`
}

// Run runs it and prints the report.
func (c *verifyCmd) Run(ctx context.Context, t *terminal) error {
	cfg := verify.Config{
		Comets: c.Comet, API: verify.API{URLs: append([]string{c.API.URL}, c.More...), Tenant: c.API.Tenant}, Tenant: c.API.Tenant,
		Users: c.Users, Devices: c.Devices, Direct: c.Direct, Groups: c.Groups, Members: c.Members, Rate: c.Rate, Duration: c.Duration,
		Changes: c.Changes, Repeats: c.Repeats, Disturb: c.Disturb, Ask: c.Ask, Settle: c.Settle, Late: c.Late, Seed: c.Seed,
		Progress: func(format string, args ...any) {
			if !c.Quiet {
				fmt.Fprintf(t.err, "verify: "+format+"\n", args...)
			}
		},
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
		err = fmt.Errorf("the delivery contract is broken: lost %d, duplicated %d, reordered %d in the store; lost %d, duplicated %d, reordered %d handed to applications",
			r.Store.Lost, r.Store.Duplicated, r.Store.Reordered, r.Handed.Lost, r.Handed.Duplicated, r.Handed.Reordered)
	}
	return err
}

func writeJournal(name string, events []check.Event) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(check.Write(f, events), f.Close())
}
