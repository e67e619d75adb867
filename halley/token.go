package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/halley-im/halley/halley/internal/keys"
	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/proto/name"
)

// signing is who signs: the key of a data folder, or one that is named.
type signing struct {
	KeyFile string `name:"key-file" placeholder:"[KID:ALG:]FILE" help:"Key to sign with: a file that holds an HS256 secret, an RSA or an Ed25519 private key in PEM. ALG is HS256, RS256 or EdDSA; default local:HS256. Without it: the key in the data folder."`
}

// key returns the signing key.
func (s signing) key(dataDir string) (*token.Key, error) {
	if s.KeyFile != "" {
		spec := keys.SigningID + ":HS256:@" + s.KeyFile
		if head, file, ok := cutSpec(s.KeyFile); ok {
			spec = head + ":@" + file
		}
		return token.ParseKey(spec)
	}
	k, err := token.ParseKey(keys.SigningID + ":HS256:@" + keys.SigningFile(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no signing key in the data folder %q: start `halley all` there once, or name one with --data-dir or --key-file", dataDir)
	}
	return k, err
}

type tokenCmd struct {
	Data     dataSettings  `embed:""`
	Sign     signing       `embed:""`
	UID      string        `name:"uid" required:"" help:"Whose token: the user's id, 1 to 64 bytes of letters, digits and ._@:-."`
	Tenant   string        `name:"tenant" help:"The user's tenant, on a cluster that several products share."`
	Rooms    []string      `name:"rooms" help:"Rooms that the user may join, type://id or type://*; several with commas."`
	TTL      time.Duration `name:"ttl" help:"How long the token is valid." default:"24h"`
	Device   string        `name:"device" help:"Id of the device: a new session of it takes the place of its old one."`
	Platform string        `name:"platform" help:"Platform of the device, such as web or ios."`
	Accepts  []int32       `name:"accepts" help:"Operations that pushes may have to reach the session; all if left out."`
	Watch    string        `name:"watch" enum:",everyone,nobody" default:"" help:"Whose presence the user may watch, everyone or nobody; as the cluster's rule says if left out."`
}

// Help is the long text of halley token --help.
func (tokenCmd) Help() string {
	return `Prints one token. Your backend does the same with any JWT library, or asks POST /v1/tokens.

  halley token --uid ann
  halley token --uid ann --rooms 'chat://*' --ttl 1h --device phone-1`
}

// Run prints a token.
func (c *tokenCmd) Run(t *terminal) error {
	if err := name.UID(c.UID); err != nil {
		return fmt.Errorf("--uid: %w", err)
	}
	if c.TTL <= 0 {
		return errors.New("--ttl must be more than 0")
	}
	k, err := c.Sign.key(c.Data.DataDir)
	if err != nil {
		return err
	}
	now := time.Now()
	s, err := token.Sign(k, token.Claims{
		UID: c.UID, Tenant: c.Tenant, DeviceID: c.Device, Platform: c.Platform, Rooms: c.Rooms, Accepts: c.Accepts, Watch: c.Watch,
		IssuedAt: now, ExpiresAt: now.Add(c.TTL),
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(t.out, s)
	return err
}

// cutSpec splits KID:ALG:FILE. A name that is a file is a file, whatever it looks like.
func cutSpec(s string) (head, file string, ok bool) {
	if _, err := os.Stat(s); err == nil {
		return "", "", false
	}
	kid, rest, ok1 := strings.Cut(s, ":")
	alg, file, ok2 := strings.Cut(rest, ":")
	return kid + ":" + alg, file, ok1 && ok2
}
