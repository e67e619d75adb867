package main

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/halley-im/halley/halley/internal/doctor"
	"github.com/halley-im/halley/halley/internal/keys"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/redisconn"
	"github.com/halley-im/halley/store"
)

type doctorCmd struct {
	Data    dataSettings     `embed:""`
	Common  commonSettings   `embed:""`
	Kafka   kafkaconn.Config `embed:"" prefix:"kafka-" group:"kafka"`
	Redis   redisconn.Config `embed:"" prefix:"redis-" group:"redis"`
	Store   store.Config     `embed:"" prefix:"store-" group:"store"`
	Timeout time.Duration    `name:"timeout" help:"How long all looks together may take." default:"8s"`
	All     bool             `name:"all" help:"Look at what halley all needs: no Kafka and no Redis, but a folder."`
}

// Help is the long text of halley doctor --help.
func (doctorCmd) Help() string {
	return `Looks at the settings as the roles would read them (file, environment, flags): Kafka and its topics, Redis, the database, the ports of the
roles, the file limit, the disk, the clock. Each fault comes with its remedy. The exit code is 1 if something is wrong.

  halley doctor --config halley.yaml
  halley doctor --all`
}

// Run looks at everything and prints what it found.
func (c *doctorCmd) Run(ctx context.Context, t *terminal) error {
	quietRedis(slog.New(slog.DiscardHandler)) // what it would log is what is found
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	looks := []doctor.Look{doctor.Files(), doctor.Backlog()}
	if c.All {
		looks = append(looks, doctor.Disk(c.Data.DataDir), doctor.Database(inFolder(c.Store, c.Data.DataDir)), doctor.Secrets(keys.Files(c.Data.DataDir)...), doctor.Clock(time.Now().Unix()))
	} else {
		secret, err := c.Common.secret()
		looks = append(looks, doctor.Kafka(c.Kafka), doctor.Redis(c.Redis), doctor.Database(c.Store), doctor.Secret(secret, err))
	}
	for _, s := range t.loader.Settings() {
		addr := t.loader.Value(s)
		// What only halley all listens at is of no matter to a cluster, and the other way round.
		other := s.Section == "all"
		if c.All {
			other = !slices.Contains(allAddrs, s.Path())
		}
		if other || !strings.HasSuffix(s.Key, "_addr") {
			continue
		}
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "0" {
			continue
		}
		looks = append(looks, doctor.Port(addr, s.Path()+", "+s.Env))
	}
	worst, err := doctor.Print(t.out, doctor.Examine(ctx, looks))
	if err == nil && worst == doctor.Fail {
		return errSilent
	}
	return err
}

// allAddrs are the addresses that halley all listens at by setting; all its others are free loopback ports.
var allAddrs = []string{"comet.tcp_addr", "comet.ws_addr", "logic.http_addr"}
