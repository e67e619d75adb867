package call_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/proto/errcode"
)

const askSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="

// host is a backend that is asked before calls ring. Its answer is a status and a body.
type host struct {
	mu     sync.Mutex
	status int
	answer string
	asked  []string
	ids    []string
	url    string
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{status: 200}
	check, err := standardwebhooks.NewWebhook(askSecret)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := check.Verify(body, r.Header); err != nil {
			t.Errorf("signature: %v", err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.asked, h.ids = append(h.asked, string(body)), append(h.ids, r.Header.Get("webhook-id"))
		w.WriteHeader(h.status)
		_, _ = io.WriteString(w, h.answer)
	}))
	t.Cleanup(s.Close)
	h.url = s.URL
	return h
}

func (h *host) says(status int, answer string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status, h.answer = status, answer
}

func (h *host) settings(c *call.Config) {
	c.AskURL, c.AskSecret, c.AskTimeout = h.url, askSecret, patience
}

func TestTheHostMayRefuseACall(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w, ann, bob := pairOf(t, h.settings)
	h.says(200, `{"allow": false, "reason": "not on Sundays"}`)
	id := uuid.NewString()
	for range 2 {
		_, err := ann.invite(call.Invitation{Call: id, To: []string{"bob"}})
		if wantCode(t, err, errcode.Forbidden); err != nil && !strings.Contains(err.Error(), "not on Sundays") {
			t.Errorf("got %v", err)
		}
	}
	h.mu.Lock()
	if want := `"data":{"call":"` + id + `","conversation":"d/ann/bob","kind":"direct","media":"video","caller":"ann","uids":["bob"]}`; !strings.Contains(h.asked[0], want) ||
		!strings.Contains(h.asked[0], `"type":"call.ask"`) || h.ids[0] != h.ids[1] {
		t.Errorf("asked %s, %s", h.asked, h.ids)
	}
	h.mu.Unlock()
	if bob.count("call.incoming") > 0 || len(ann.current()) > 0 {
		t.Error("it rings all the same")
	}
	w.free()
	// An answer that isn't one lets nobody through.
	for status, answer := range map[int]string{500: "", 200: "yes", 403: `{"allow": true}`, 302: ""} {
		h.says(status, answer)
		_, err := ann.invite(call.Invitation{To: []string{"bob"}})
		wantCode(t, err, errcode.Unavailable)
	}
	h.says(200, `{"allow": true}`)
	id = talk(w, ann, bob)
	cy := w.device("cy", "c1")
	add := machine.Command{Verb: machine.DoAdd, Callees: []machine.Callee{{UID: "cy"}}}
	h.says(200, `{"allow": false}`)
	_, err := ann.try(id, add)
	wantCode(t, err, errcode.Forbidden)
	h.says(204, "")
	ann.do(id, add)
	cy.wait("call.incoming", nil)
}

func TestCallsRingWithoutAHostWhereThatIsWanted(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w, ann, bob := pairOf(t, h.settings, func(c *call.Config) { c.AskOpen = true })
	h.says(503, "")
	talk(w, ann, bob)
}

func TestBadQuestionsAreRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*call.Config){
		"no secret":   func(c *call.Config) { c.AskSecret = "" },
		"bad secret":  func(c *call.Config) { c.AskSecret = "whsec_short" },
		"no file":     func(c *call.Config) { c.AskSecret = "@/nowhere" },
		"no host":     func(c *call.Config) { c.AskURL = "https:///x" },
		"other":       func(c *call.Config) { c.AskURL = "ftp://x" },
		"no patience": func(c *call.Config) { c.AskTimeout = 0 },
	} {
		c := config(t)
		c.AskURL, c.AskSecret = "https://host.example/calls", askSecret
		change(&c)
		if _, err := call.New(c, call.Deps{}); err == nil || !strings.HasPrefix(err.Error(), "call: ") || strings.Contains(err.Error(), "whsec_short") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
