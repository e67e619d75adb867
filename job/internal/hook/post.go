package hook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/store"
)

// result is what became of a request; the value of the label.
type result string

const (
	sent      result = "sent"
	refused   result = "refused"   // an answer that is not 2xx
	redirect  result = "redirect"  // it wants us to go elsewhere
	gone      result = "gone"      // 410: it wants no more of them
	throttled result = "throttled" // 429, or 503 with Retry-After
	timeout   result = "timeout"
	broken    result = "broken" // no connection, or no answer
)

var results = []result{sent, refused, redirect, gone, throttled, timeout, broken}

// answer is a request's end.
type answer struct {
	result result
	// status is that of HTTP; 0: there was none.
	status int
	// after is how long the receiver asks us to wait.
	after time.Duration
	err   error
}

// maxAnswer is how much of an answer is read, so that the connection can be used again.
const maxAnswer = 64 << 10

// post sends a hook once, signed by the rules of Standard Webhooks 1.0.0.
func (e *Endpoint) post(ctx context.Context, client *http.Client, h *store.Hook) answer {
	req, err := e.secrets.NewRequest(ctx, e.url, h.ID, time.Now(), h.Body)
	if err != nil {
		return answer{result: broken, err: err}
	}
	resp, err := client.Do(req)
	if err != nil {
		a := answer{result: broken, err: hook.Plain(err)}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			a.result = timeout
		}
		return a
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	a := answer{status: resp.StatusCode}
	switch {
	case a.status/100 == 2:
		a.result = sent
		return a
	case a.status/100 == 3:
		a.result = redirect
	case a.status == http.StatusGone:
		a.result = gone
	case a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable:
		a.result = throttled
		// Seconds alone; a date would need its clock to be ours.
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
			a.after = time.Duration(min(s, 1<<20)) * time.Second
		}
	default:
		a.result = refused
	}
	a.err = fmt.Errorf("status %d", a.status)
	return a
}
