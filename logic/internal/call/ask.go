package call

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
)

// CallAsk is the type of the request by which the host is asked whether a call may ring. Other than webhooks it waits for what he says.
const CallAsk = "call.ask"

const (
	// askConns is how many questions may be under way at once.
	askConns = 64
	// mostAnswer bounds what is read of an answer, mostReason what the caller is told of it.
	mostAnswer = 16 << 10
	mostReason = 200
)

// asker asks the host.
type asker struct {
	url     string
	secrets hook.Secrets
	client  *http.Client
}

// newAsker returns nil where nobody is asked. Errors repeat neither secret nor URL, which may hold one.
func newAsker(c *Config) (*asker, error) {
	if c.AskURL == "" {
		return nil, nil
	}
	secret := c.AskSecret
	if file, ok := strings.CutPrefix(secret, "@"); ok {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("call: ask-secret: %w", err)
		}
		secret = strings.TrimSpace(string(b))
	}
	secrets, err := hook.ParseSecrets(secret)
	if err != nil {
		return nil, fmt.Errorf("call: ask-%w", err)
	}
	return &asker{url: c.AskURL, secrets: secrets, client: hook.NewClient(askConns)}, nil
}

func checkAskURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.Fragment != "" {
		return errors.New("call: ask-url: want https://host/path")
	}
	return nil
}

// askData is what the host is told of a call that would ring.
type askData struct {
	Call         string   `json:"call"`
	Conversation string   `json:"conversation,omitempty"`
	Kind         string   `json:"kind"`
	Media        string   `json:"media"`
	Caller       string   `json:"caller"`
	UIDs         []string `json:"uids"`
}

type askBody struct {
	Type      string  `json:"type"`
	Timestamp string  `json:"timestamp"`
	Tenant    string  `json:"tenant"`
	Data      askData `json:"data"`
}

// ask asks the host whether somebody may call others. An error of errcode.Forbidden if not; of errcode.Unavailable if he doesn't answer and
// calls aren't let through then.
func (s *Service) ask(ctx context.Context, tenant string, d askData) error {
	if s.asker == nil || len(d.UIDs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AskTimeout)
	defer cancel()
	allow, reason, err := s.asker.post(ctx, tenant, d)
	switch {
	case err != nil:
		s.metrics.asks.WithLabelValues("failed").Inc()
		s.d.Log.WarnContext(ctx, "the host did not say whether a call may ring", "call", d.Call, "err", err)
		if s.cfg.AskOpen {
			return nil
		}
		return fmt.Errorf("%w: %w", errcode.Unavailable.After(remote.RetryAfter), err)
	case !allow:
		s.metrics.asks.WithLabelValues("refused").Inc()
		if reason == "" {
			return errcode.Forbidden.Errorf("the host refuses this call")
		}
		return errcode.Forbidden.Errorf("%s", reason)
	}
	s.metrics.asks.WithLabelValues("allowed").Inc()
	return nil
}

// askSpace is that of the ids' UUIDv5: a question that is repeated has the same.
var askSpace = uuid.MustParse("5a0bb8a6-6f0b-4a35-9d6a-8b1f0c3b7e52")

func (a *asker) post(ctx context.Context, tenant string, d askData) (allow bool, reason string, err error) {
	now := time.Now()
	slices.Sort(d.UIDs)
	body := encode(askBody{CallAsk, now.UTC().Format("2006-01-02T15:04:05.000Z"), tenant, d})
	id := "msg_" + strings.ReplaceAll(uuid.NewSHA1(askSpace, []byte(tenant+" "+d.Call+" "+strings.Join(d.UIDs, " "))).String(), "-", "")
	req, err := a.secrets.NewRequest(ctx, a.url, id, now, body)
	if err != nil {
		return false, "", err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return false, "", hook.Plain(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	switch {
	case err != nil:
		return false, "", hook.Plain(err)
	case resp.StatusCode/100 != 2:
		return false, "", fmt.Errorf("status %d", resp.StatusCode)
	case len(bytes.TrimSpace(answer)) == 0:
		return true, "", nil
	}
	said := struct {
		Allow  *bool  `json:"allow"`
		Reason string `json:"reason"`
	}{}
	if err := json.Unmarshal(answer, &said); err != nil || said.Allow == nil {
		return false, "", errors.New(`the answer is neither empty nor {"allow": …}`)
	}
	return *said.Allow, strings.ToValidUTF8(said.Reason[:min(len(said.Reason), mostReason)], ""), nil
}

// askOf is what the host is asked about an invitation.
func askOf(in *machine.Invite, to []string) askData {
	return askData{Call: in.ID, Conversation: in.Conversation, Kind: in.Kind, Media: in.Media, Caller: in.By.UID, UIDs: slices.Clone(to)}
}
