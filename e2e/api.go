package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// API is a caller of the HTTP API.
type API struct {
	// Base are the URLs of logics; a call that one does not answer goes to the next.
	Base []string
	Key  string
	// Tenant is named in the header Halley-Tenant, if it is set.
	Tenant string

	client *http.Client
}

// Answer is an answer of the HTTP API.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Problem is an error's answer, as far as programs decide by it.
type Problem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
}

// Problem returns the answer as a problem.
func (a Answer) Problem() Problem {
	var p Problem
	_ = json.Unmarshal(a.Body, &p) // what is none has no code
	return p
}

// String prints the status and the body's beginning.
func (a Answer) String() string { return fmt.Sprintf("HTTP %d %.300s", a.Status, a.Body) }

// API returns a caller of all the cluster's logics with its key.
func (c *Cluster) API() *API {
	a := &API{Key: c.Secrets.APIKey}
	for _, l := range c.Logics {
		a.Base = append(a.Base, l.HTTP)
	}
	return a.For("")
}

// For returns the same caller for another tenant.
func (a *API) For(tenant string) *API {
	return &API{Base: a.Base, Key: a.Key, Tenant: tenant, client: &http.Client{
		Timeout: 25 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32},
	}}
}

// Do makes one call, of the first URL that can be reached; header may be nil, body too. It returns an error when none
// answered.
func (a *API) Do(ctx context.Context, method, path string, header http.Header, body any) (Answer, error) {
	var raw []byte
	switch b := body.(type) {
	case nil:
	case []byte:
		raw = b
	default:
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return Answer{}, err
		}
	}
	var last error
	for _, base := range a.Base {
		req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(raw))
		if err != nil {
			return Answer{}, err
		}
		for k, v := range header {
			req.Header[k] = v
		}
		if a.Key != "" && req.Header.Get("Authorization") == "" {
			req.Header.Set("Authorization", "Bearer "+a.Key)
		}
		if a.Tenant != "" {
			req.Header.Set("Halley-Tenant", a.Tenant)
		}
		if body != nil && req.Header.Get("Content-Type") == "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := a.client.Do(req)
		if err != nil {
			last = err
			continue
		}
		answer := Answer{Status: resp.StatusCode, Header: resp.Header}
		answer.Body, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			last = err
			continue
		}
		return answer, nil
	}
	return Answer{}, last
}

// Tester is what helpers need of a test.
type Tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Context() context.Context
}

// Must makes a call that must be answered with the status, and decodes the answer into into unless that is nil.
func (a *API) Must(t Tester, status int, method, path string, body, into any) Answer {
	t.Helper()
	got, err := a.Do(t.Context(), method, path, nil, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if got.Status != status {
		t.Fatalf("%s %s: got %v, want HTTP %d", method, path, got, status)
	}
	if into != nil {
		if err := json.Unmarshal(got.Body, into); err != nil {
			t.Fatalf("%s %s: %s: %v", method, path, got.Body, err)
		}
	}
	return got
}

// Push is the body of POST /v1/push, as far as the tests need it.
type Push struct {
	UIDs        []string `json:"uids,omitempty"`
	Keys        []string `json:"keys,omitempty"`
	Rooms       []string `json:"rooms,omitempty"`
	All         bool     `json:"all,omitempty"`
	ExcludeUIDs []string `json:"exclude_uids,omitempty"`
	ExcludeKeys []string `json:"exclude_keys,omitempty"`
	Op          int32    `json:"op,omitempty"`
	Lane        string   `json:"lane,omitempty"`
	TTL         float64  `json:"ttl,omitempty"`
	Text        string   `json:"text,omitempty"`
}

// Pushed is the answer to a Push.
type Pushed struct {
	ID         string `json:"id"`
	AcceptedAt int64  `json:"accepted_at"` // ms since 1970
}

// Push posts a push, again under the same Idempotency-Key while it is told to come back, until it is accepted.
func (a *API) Push(t Tester, p Push) Pushed {
	t.Helper()
	header := http.Header{"Idempotency-Key": {freshRun()}}
	for end := time.Now().Add(15 * time.Second); ; {
		got, err := a.Do(t.Context(), "POST", "/v1/push", header, p)
		if err == nil && got.Status == http.StatusOK {
			var out Pushed
			if err := json.Unmarshal(got.Body, &out); err != nil {
				t.Fatalf("push: %s: %v", got.Body, err)
			}
			return out
		}
		if err != nil || got.Status != http.StatusServiceUnavailable && got.Status != http.StatusConflict || time.Now().After(end) {
			t.Fatalf("push: got %v, %v", got, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// State is a user's presence.
type State struct {
	UID       string   `json:"uid"`
	Online    bool     `json:"online"`
	Platforms []string `json:"platforms"`
}
