package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/halley/internal/doctor"
	"github.com/halley-im/halley/halley/internal/keys"
	"github.com/halley-im/halley/halley/internal/relay"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/redisconn"
	"github.com/halley-im/halley/logic"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/store"
)

type doctorCmd struct {
	Machine doctorMachineCmd `cmd:"" default:"withargs" help:"Look at this machine, its settings, and what they name: what halley doctor does by itself."`
	TURN    doctorTURNCmd    `cmd:"" name:"turn" help:"Look at the TURN servers as clients see them."`
}

// Help is the long text of halley doctor --help.
func (doctorCmd) Help() string {
	return `Looks at the settings as the roles would read them (file, environment, flags): Kafka and its topics, Redis, the database, the ports of the
roles, the file limit, the disk, the clock. Each fault comes with its remedy. The exit code is 1 if something is wrong.

  halley doctor --config halley.yaml
  halley doctor --all
  halley doctor turn --config halley.yaml      whether calls get through; best run from where clients are`
}

type doctorMachineCmd struct {
	Data    dataSettings     `embed:""`
	Common  commonSettings   `embed:""`
	Kafka   kafkaconn.Config `embed:"" prefix:"kafka-" group:"kafka"`
	Redis   redisconn.Config `embed:"" prefix:"redis-" group:"redis"`
	Store   store.Config     `embed:"" prefix:"store-" group:"store"`
	Timeout time.Duration    `name:"timeout" help:"How long all looks together may take." default:"8s"`
	All     bool             `name:"all" help:"Look at what halley all needs: no Kafka and no Redis, but a folder."`
}

// Run looks at everything and prints what it found.
func (c *doctorMachineCmd) Run(ctx context.Context, t *terminal) error {
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
	return tellFindings(t, doctor.Examine(ctx, looks))
}

// tellFindings prints what was found; an error without words if something is wrong.
func tellFindings(t *terminal, found []doctor.Finding) error {
	worst, err := doctor.Print(t.out, found)
	if err == nil && worst == doctor.Fail {
		return errSilent
	}
	return err
}

// allAddrs are the addresses that halley all listens at by setting; all its others are free loopback ports.
var allAddrs = []string{"comet.tcp_addr", "comet.ws_addr", "logic.http_addr", "all.turn_addr"}

type doctorTURNCmd struct {
	Data    dataSettings  `embed:""`
	TLS     tlsSettings   `embed:""`
	Logic   logic.Config  `embed:"" prefix:"logic-" group:"logic"`
	TURN    relay.Config  `embed:"" prefix:"all-turn-" group:"all"`
	Comet   string        `name:"comet" placeholder:"URL" help:"Log in there (ws://, wss://, tcp://, tls://) and look at what clients are told, with a client's credential, instead of at settings."`
	Token   string        `name:"token" env:"HALLEY_TOKEN" help:"Token to log in with."`
	All     bool          `name:"all" help:"Look at the relay of a halley all that runs on this machine with these settings."`
	CA      string        `name:"ca" placeholder:"FILE" help:"Certificates (PEM) to trust, in place of this machine's. Browsers trust their own."`
	Wait    time.Duration `name:"wait" help:"How long an answer may take." default:"2s"`
	Timeout time.Duration `name:"timeout" help:"How long all looks together may take." default:"30s"`
}

// Help is the long text of halley doctor turn --help.
func (doctorTURNCmd) Help() string {
	return `Gets a relay over each transport that clients are told of, with a credential as they get it, and relays a packet there and back. It names what
is wrong: the server, UDP or TCP blocked, the secret, the clock, the external address, the relay ports, forbidden peers, the certificate.

  halley doctor turn --config halley.yaml
  halley doctor turn --comet wss://im.example.com/sub --token "$TOKEN"
  halley doctor turn --all --data-dir data
  HALLEY_LOGIC_TURN_SECRET=@secret halley doctor turn --logic-turn-urls turn:turn.example.com:3478?transport=udp`
}

// Run looks at every TURN server and prints what it found.
func (c *doctorTURNCmd) Run(ctx context.Context, t *terminal) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	look := doctor.TURNConfig{URLs: c.Logic.Turn.URLs, Life: c.Logic.Call.MaxLength + c.Logic.Turn.Extra, Wait: c.Wait}
	secret := c.Logic.Turn.Secret
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return err
		}
		if look.Roots = x509.NewCertPool(); !look.Roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s holds no certificate (PEM)", c.CA)
		}
	}
	switch {
	case c.Comet != "":
		given, err := c.asClient(ctx, look.Roots)
		if err != nil {
			return err
		}
		look.URLs = nil
		for _, s := range given.GetServers() {
			if s.GetUsername() != "" {
				look.URLs, look.Username, look.Password = s.GetUrls(), s.GetUsername(), s.GetCredential()
			}
		}
	case c.All && len(look.URLs) == 0 && c.TURN.Addr != "":
		var err error
		if look.URLs, err = relayURLs(ctx, c.TURN, c.TLS.Cert != "" || c.TLS.SelfSigned); err != nil {
			return err
		}
		if secret == "" {
			if secret, err = keys.ReadTURN(c.Data.DataDir); err != nil {
				return fmt.Errorf("the relay's secret: %w: start halley all once, or name its folder with --data-dir", err)
			}
		}
	}
	var err error
	if look.Secret, err = turnSecret(secret); err != nil {
		return err
	}
	return tellFindings(t, doctor.Examine(ctx, []doctor.Look{doctor.TURN(look)}))
}

// asClient asks for the servers as a client does.
func (c *doctorTURNCmd) asClient(ctx context.Context, roots *x509.CertPool) (*halleyv1.IceServerList, error) {
	conn, err := client.Dial(ctx, c.Comet, &halleyv1.Auth{Token: c.Token}, client.DialOptions{TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}})
	if err != nil {
		return nil, fmt.Errorf("log in at %s: %w", c.Comet, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	seq, err := conn.Request(&halleyv1.Request{Method: &halleyv1.Request_IceServers{IceServers: &halleyv1.IceServers{}}})
	if err != nil {
		return nil, fmt.Errorf("ask %s for ice.servers: %w", c.Comet, err)
	}
	for {
		f, err := conn.Read()
		if err != nil {
			return nil, fmt.Errorf("ask %s for ice.servers: %w", c.Comet, err)
		}
		if f.Op != frame.OpReply || f.Seq != seq {
			continue
		}
		var r halleyv1.Reply
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(f.Body, &r); err != nil {
			return nil, fmt.Errorf("answer of %s: %w", c.Comet, err)
		}
		if e := r.GetError(); e != nil {
			return nil, fmt.Errorf("%s answers ice.servers with %s (%s)", c.Comet, e.GetMessage(), e.GetCode())
		}
		return r.GetIceServers(), nil
	}
}
