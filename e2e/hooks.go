package e2e

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
)

// hookData is the data of all webhooks.
type hookData struct {
	Conversation string
	Entry        client.Entry
	Users        []struct {
		UID       string
		Unread    int64
		Mentioned bool
	}
	UID      string
	LastSeen int64 `json:"last_seen"`
	// Of calls.
	Call, Caller, Reason string
	UIDs                 []string
}

// hookReceiver is a backend that gets webhooks and trusts none that isn't signed.
type hookReceiver struct {
	URL    string
	secret []byte

	mu      sync.Mutex
	got     map[string][]hookData // by type
	ids     map[string]bool
	trouble []string
}

// newHookReceiver listens until the test ends.
func newHookReceiver(t testing.TB, secret string) *hookReceiver {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	h := &hookReceiver{secret: key, got: map[string][]hookData{}, ids: map[string]bool{}}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	h.URL = s.URL + "/hooks"
	return h
}

// notToday is how the names of those begin who may not call, if this backend is asked.
const notToday = "nottoday-"

// ServeHTTP takes a webhook, and answers whether a call may ring.
func (h *hookReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = h.take(r.Header, body)
	}
	if bytes.Contains(body, []byte(`"caller":"`+notToday)) && bytes.Contains(body, []byte(`"type":"call.ask"`)) {
		_, _ = io.WriteString(w, `{"allow": false, "reason": "not today"}`)
		return
	}
	if err != nil {
		h.mu.Lock()
		h.trouble = append(h.trouble, err.Error())
		h.mu.Unlock()
		w.WriteHeader(http.StatusBadRequest)
	}
}

func (h *hookReceiver) take(header http.Header, body []byte) error {
	id, at := header.Get("webhook-id"), header.Get("webhook-timestamp")
	mac := hmac.New(sha256.New, h.secret)
	_, _ = fmt.Fprintf(mac, "%s.%s.%s", id, at, body) // a hash takes everything
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); header.Get("webhook-signature") != want {
		return fmt.Errorf("%s is signed %q, want %q", id, header.Get("webhook-signature"), want)
	}
	if s, err := strconv.ParseInt(at, 10, 64); err != nil || math.Abs(time.Since(time.Unix(s, 0)).Seconds()) > 60 {
		return fmt.Errorf("%s: timestamp %q", id, at)
	}
	var e struct {
		Type string
		Data hookData
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ids[id] {
		h.ids[id] = true
		h.got[e.Type] = append(h.got[e.Type], e.Data)
	}
	return nil
}

func (h *hookReceiver) find(event string, want func(hookData) bool) (hookData, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.got[event] {
		if want(d) {
			return d, true
		}
	}
	return hookData{}, false
}

func (h *hookReceiver) any(event string, want func(hookData) bool) bool {
	_, ok := h.find(event, want)
	return ok
}

// await waits for a webhook.
func (h *hookReceiver) await(t testing.TB, event string, want func(hookData) bool) hookData {
	t.Helper()
	var d hookData
	within(t, talkTime, event, func() (ok bool, _ string) {
		d, ok = h.find(event, want)
		h.mu.Lock()
		defer h.mu.Unlock()
		return ok, fmt.Sprintf("%d of them came; %v", len(h.got[event]), h.trouble)
	})
	return d
}

// check fails the test if anything came that was no webhook.
func (h *hookReceiver) check(t testing.TB) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.trouble {
		t.Error(s)
	}
}
