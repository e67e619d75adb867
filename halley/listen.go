package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

type listenCmd struct {
	Data     dataSettings `embed:""`
	Sign     signing      `embed:""`
	Comet    string       `name:"comet" help:"Where to connect: ws://, wss://, tcp:// or tls://." default:"ws://127.0.0.1:3102/sub" placeholder:"URL"`
	Token    string       `name:"token" env:"HALLEY_TOKEN" help:"Token to log in with. Without it, and with --uid, one is made as halley token does."`
	UID      string       `name:"uid" help:"User to make a token for."`
	Room     []string     `name:"room" help:"Rooms to join, type://id; several with commas."`
	Accepts  []int32      `name:"accepts" help:"Operations that pushes may have to be shown; all if left out."`
	Insecure bool         `name:"insecure" help:"Don't check the server's certificate: for self-signed ones."`
	JSON     bool         `name:"json" help:"Print one JSON object a line."`
	Count    int          `name:"count" help:"End after so many pushes and events; 0: never."`
}

// Help is the long text of halley listen --help.
func (listenCmd) Help() string {
	return `Prints the session once it stands, then every push, event and change of rooms, until Ctrl-C.

  halley listen --uid ann --room chat://lobby
  halley listen --comet tcp://127.0.0.1:3101 --token "$TOKEN"`
}

// Run connects and prints until ctx is done, the server ends the connection, or Count is reached.
func (c *listenCmd) Run(ctx context.Context, t *terminal) error {
	jwt, err := c.jwt()
	if err != nil {
		return err
	}
	opts := client.DialOptions{}
	if c.Insecure {
		opts.TLS = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	}
	conn, err := client.Dial(ctx, c.Comet, &halleyv1.Auth{Token: jwt, Rooms: c.Room, Accepts: c.Accepts}, opts)
	if err != nil {
		return fmt.Errorf("log in at %s: %w", c.Comet, err)
	}
	defer conn.Close()
	// Closing the connection is what ends the read below.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	r := conn.Reply
	c.print(t, "session", map[string]any{"uid": r.GetUid(), "key": r.GetKey(), "rooms": r.GetRooms(), "connection": r.GetConnection()})
	for seen := 0; c.Count == 0 || seen < c.Count; {
		f, err := conn.Read()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the connection ended: %w", err)
		}
		switch {
		case f.Op == frame.OpEvent:
			c.print(t, "event", json.RawMessage(bytes.Clone(f.Body)))
			seen++
			if gone := closing(f.Body); gone != nil {
				return gone
			}
		case f.Op == frame.OpReply:
			c.print(t, "reply", json.RawMessage(bytes.Clone(f.Body)))
		case f.Op.Pushable():
			c.print(t, "push", map[string]any{"op": int32(f.Op), "body": readable(f.Body)})
			seen++
		}
	}
	return nil
}

// jwt returns the token to log in with.
func (c *listenCmd) jwt() (string, error) {
	switch {
	case c.Token != "":
		return c.Token, nil
	case c.UID == "":
		return "", errors.New("who are you? give --token or --uid")
	}
	k, err := c.Sign.key(c.Data.DataDir)
	if err != nil {
		return "", err
	}
	now := time.Now()
	return token.Sign(k, token.Claims{
		UID: c.UID, Platform: "terminal", Rooms: c.Room, IssuedAt: now, ExpiresAt: now.Add(24 * time.Hour),
	})
}

// print writes one line: the time, what it is, and the rest as JSON.
func (c *listenCmd) print(t *terminal, kind string, v any) {
	at := time.Now()
	b, err := json.Marshal(v)
	if err != nil {
		b = []byte(fmt.Sprintf("%q", err.Error()))
	}
	if c.JSON {
		fmt.Fprintf(t.out, `{"time":%d,"kind":%q,"data":%s}`+"\n", at.UnixMilli(), kind, b)
		return
	}
	fmt.Fprintf(t.out, "%s %-7s %s\n", at.Format("15:04:05.000"), kind, b)
}

// readable returns a body as JSON if it is, else as text.
func readable(body []byte) any {
	if json.Valid(body) {
		return json.RawMessage(bytes.Clone(body))
	}
	return string(body)
}

// closing returns why the server is about to end the session, or nil.
func closing(event []byte) error {
	var e halleyv1.Event
	if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(event, &e) != nil || e.GetClosing() == nil {
		return nil
	}
	why := e.GetClosing().GetError()
	return fmt.Errorf("the server ends the session: %s (%s)", why.GetMessage(), why.GetCode())
}
