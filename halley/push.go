package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/halley-im/halley/halley/internal/keys"
)

// apiFlags say where the HTTP API is and with which key.
type apiFlags struct {
	URL    string `name:"url" env:"HALLEY_URL" help:"Where the HTTP API is." default:"http://127.0.0.1:3111"`
	APIKey string `name:"api-key" env:"HALLEY_API_KEY" help:"API key. Without it: the one in the data folder."`
	Tenant string `name:"tenant" help:"Tenant to act for, with a key of all tenants."`
}

type pushCmd struct {
	Data    dataSettings  `embed:""`
	API     apiFlags      `embed:""`
	UID     []string      `name:"uid" help:"To all sessions of these users; several with commas."`
	Room    []string      `name:"room" help:"To everybody in these rooms, type://id."`
	Key     []string      `name:"key" help:"To the sessions with these keys."`
	All     bool          `name:"all" help:"To every session."`
	Exclude []string      `name:"exclude" help:"Users who get nothing."`
	Op      int32         `name:"op" help:"Operation of the frame; applications use 1000 and above." default:"1000"`
	Body    string        `name:"body" help:"What to send; - reads it from the standard input." default:""`
	Lane    string        `name:"lane" help:"Urgency: urgent, push or bulk; push if left out." enum:",urgent,push,bulk" default:""`
	TTL     time.Duration `name:"ttl" help:"How long the push is worth delivering; the lane's own time if left out."`
	Timeout time.Duration `name:"timeout" help:"How long the API may take to answer." default:"15s"`
	Once    string        `name:"once" placeholder:"KEY" help:"Idempotency-Key: repeating the command with it pushes once."`
}

// Help is the long text of halley push --help.
func (pushCmd) Help() string {
	return `Posts to /v1/push and prints the push's id. Accepted means that it is in Kafka; who is connected gets it, in order.

  halley push --uid ann --body 'hello'
  halley push --room chat://lobby --op 1000 --body '{"text":"hello, room"}'
  date | halley push --all --body -`
}

// Validate checks the targets.
func (c *pushCmd) Validate() error {
	some := len(c.UID)+len(c.Room)+len(c.Key) > 0
	switch {
	case c.All && some:
		return errors.New("--all stands alone: leave out --uid, --room and --key")
	case !c.All && !some:
		return errors.New("to whom? give --uid, --room, --key or --all")
	}
	return nil
}

// pushRequest is the body of POST /v1/push, as docs/api.md has it.
type pushRequest struct {
	UIDs        []string `json:"uids,omitempty"`
	Keys        []string `json:"keys,omitempty"`
	Rooms       []string `json:"rooms,omitempty"`
	All         bool     `json:"all,omitempty"`
	ExcludeUIDs []string `json:"exclude_uids,omitempty"`
	Op          int32    `json:"op"`
	Lane        string   `json:"lane,omitempty"`
	TTL         float64  `json:"ttl,omitempty"`
	Base64      string   `json:"base64,omitempty"`
}

// Run posts the push.
func (c *pushCmd) Run(ctx context.Context, t *terminal) error {
	body := []byte(c.Body)
	if c.Body == "-" {
		var err error
		if body, err = io.ReadAll(os.Stdin); err != nil {
			return fmt.Errorf("read the standard input: %w", err)
		}
	}
	request, err := json.Marshal(pushRequest{
		UIDs: c.UID, Keys: c.Key, Rooms: c.Room, All: c.All, ExcludeUIDs: c.Exclude, Op: c.Op, Lane: c.Lane, TTL: c.TTL.Seconds(),
		Base64: base64.StdEncoding.EncodeToString(body),
	})
	if err != nil {
		return err
	}
	key, err := c.API.key(c.Data.DataDir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(c.API.URL, "/")+"/v1/push", bytes.NewReader(request))
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+key)
	if c.Once != "" {
		r.Header.Set("Idempotency-Key", c.Once)
	}
	if c.API.Tenant != "" {
		r.Header.Set("Halley-Tenant", c.API.Tenant)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("is Halley running at %s? %w", c.API.URL, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return refusal(resp, answer)
	}
	_, err = fmt.Fprintln(t.out, strings.TrimSpace(string(answer)))
	return err
}

// key returns the API key: the one given, or the data folder's.
func (a apiFlags) key(dataDir string) (string, error) {
	if a.APIKey != "" {
		return a.APIKey, nil
	}
	key, err := keys.ReadAPI(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no API key: set HALLEY_API_KEY, or --data-dir to the folder of `halley all` (there is no %s)", keys.APIFile(dataDir))
	}
	return key, err
}

// refusal makes an error of a problem+json answer.
func refusal(resp *http.Response, answer []byte) error {
	var p struct{ Code, Title, Detail string }
	if json.Unmarshal(answer, &p) != nil || p.Code == "" {
		return fmt.Errorf("refused: HTTP %s", resp.Status)
	}
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if after := resp.Header.Get("Retry-After"); after != "" {
		text += ", try again in " + after + " s"
	}
	return fmt.Errorf("refused: %s (%s, HTTP %d)", text, p.Code, resp.StatusCode)
}
