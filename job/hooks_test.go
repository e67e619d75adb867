package job_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/job/internal/hook"
	events "github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/store"
)

// TestEventsReachTheirReceiverThroughKafka: two jobs, one database; each event comes, those of a user in order, though one job ends
// in the middle.
func TestEventsReachTheirReceiverThroughKafka(t *testing.T) {
	var mu sync.Mutex
	ids := map[string]int{}
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		ids[r.Header.Get("Webhook-Id")]++
	}))
	defer receiver.Close()
	c := newCluster(t)
	db := store.Default()
	db.DSN = filepath.Join(t.TempDir(), "halley.db")
	cfg := testConfig()
	cfg.Hook = hook.Default()
	cfg.Hook.Endpoints = []string{"a " + receiver.URL + " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw user.online"}
	cfg.Hook.PollInterval, cfg.Hook.RetryMin = ms(50), ms(50)
	var jobs []*running
	for range 2 {
		s, err := store.Open(t.Context(), db, store.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		jobs = append(jobs, c.start(cfg, func(d *job.Deps) { d.Hooks = s }))
		defer jobs[len(jobs)-1].stop()
	}
	const n = 60
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := range n {
		p := events.Presence{Tenant: "default", UID: string(rune('a' + i%7)), Online: true, AtMs: time.Now().UnixMilli(), Mark: time.Duration(i).String()}
		m, err := p.Message()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.prod.Produce(ctx, m); err != nil {
			t.Fatal(err)
		}
		if i == n/2 {
			jobs[0].stop()
		}
	}
	kittest.Eventually(t, patience, func() bool { mu.Lock(); defer mu.Unlock(); return len(ids) == n }, "events missing")
}
