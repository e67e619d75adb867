//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/halley-im/halley/client"
)

// fillConversations writes entries into direct conversations with a user, by the HTTP API.
func (a API) fillConversations(ctx context.Context, uid string, conversations, entries, round int) error {
	const inFlight = 8
	slots := make(chan struct{}, inFlight)
	errs := make([]error, conversations)
	var wg sync.WaitGroup
	for c := range conversations {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return ctx.Err()
		}
		wg.Go(func() {
			defer func() { <-slots }()
			peer := uid + "." + strconv.Itoa(c)
			at := time.Now().Add(-time.Second).UnixMilli()
			type old struct {
				From        string `json:"from"`
				ClientMsgID string `json:"client_msg_id"`
				Body        string `json:"body"`
				AcceptedAt  int64  `json:"accepted_at"`
			}
			var body struct {
				Messages []old `json:"messages"`
			}
			for n := range entries {
				body.Messages = append(body.Messages, old{peer, fmt.Sprintf("%d-%d", round, n), fmt.Sprintf("entry %d of round %d: hello, how are you?", n, round), at})
			}
			errs[c] = a.stored(ctx, client.DirectID(uid, peer), body)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stored imports messages into a conversation and waits until they are stored, or were accepted at least.
func (a API) stored(ctx context.Context, conversation string, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(a.URL, "/")+"/v1/conversations/"+url.PathEscape(conversation)+"/import", bytes.NewReader(raw))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+a.Key)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("import into %s: HTTP %d %.300s", conversation, resp.StatusCode, answer)
	}
	return err
}
