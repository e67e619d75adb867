package hook_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/job/internal/hook"
	events "github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store"
)

func want(t testing.TB, got []int, first, last int) {
	t.Helper()
	var all []int
	for i := first; i <= last; i++ {
		all = append(all, i)
	}
	if !slices.Equal(got, all) {
		t.Errorf("got %v, want %d to %d", got, first, last)
	}
}

func TestHooksAreSignedAndInOrder(t *testing.T) {
	v := receive(t, nil)
	j := start(t, short(line("a", v.url)), database(t)())
	j.happen(0, 20, "x", "y")
	v.await(40)
	want(t, v.seqs("x"), 0, 19)
	want(t, v.seqs("y"), 0, 19)
	e := v.taken[0]
	if e.Type != events.MessageOffline || e.Tenant != tenant || len(e.Data.Users) != 1 || e.Data.Users[0].Unread != 1 || time.Since(e.Timestamp) > time.Minute || e.ID == "" {
		t.Errorf("got %+v", e)
	}
	kittest.Eventually(t, patience, func() bool { return j.metric("hook_requests_total", "sent") == 40 }, "sent")
	kittest.Eventually(t, patience, func() bool { return j.metric("hook_backlog_keys", "") == 0 }, "backlog")
}

func TestWhatFailsHoldsUpItsKeyAlone(t *testing.T) {
	var refused atomic.Int64
	var v *receiver
	v = receive(t, func(w http.ResponseWriter, _ *http.Request, e event) {
		// Four times, and until nothing else is left.
		if e.Data.Conversation == "x" && e.Data.Entry.Seq == 1 && (refused.Load() < 4 || len(v.seqs("y")) < 3) {
			refused.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	j := start(t, short(line("a", v.url)), database(t)())
	j.happen(0, 3, "x", "y")
	v.await(6)
	want(t, v.seqs("x"), 0, 2)
	want(t, v.seqs("y"), 0, 2)
	if got, want := j.metric("hook_requests_total", "refused"), float64(refused.Load()); got != want {
		t.Errorf("got %v refused, want %v", got, want)
	}
}

func TestReceiverThatHangsHoldsUpNobodyElse(t *testing.T) {
	release := make(chan struct{})
	var hangs atomic.Bool
	hangs.Store(true)
	slow := receive(t, func(_ http.ResponseWriter, r *http.Request, _ event) {
		if hangs.Load() {
			select {
			case <-r.Context().Done():
			case <-release:
			}
		}
	})
	defer close(release)
	fast := receive(t, nil)
	cfg := short(line("slow", slow.url), line("fast", fast.url))
	cfg.Timeout, cfg.Lease = 2*time.Second, 20*time.Second // longer than the fast one may stand still
	j := start(t, cfg, database(t)())
	j.happen(0, 5, "a", "b", "c", "d", "e", "f")
	fast.await(30)
	kittest.Eventually(t, patience, func() bool { return j.metric("hook_requests_total", "timeout") >= 4 }, "timeouts")
	hangs.Store(false)
	slow.mu.Lock()
	slow.taken = nil
	slow.mu.Unlock()
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		kittest.Eventually(t, patience, func() bool { s := slow.seqs(key); return len(s) >= 4 && s[len(s)-1] == 4 }, key)
		if got := slow.seqs(key); !slices.IsSorted(got) {
			t.Errorf("%s: got %v", key, got)
		}
	}
}

func TestReceiverThatIsGoneIsAskedRarely(t *testing.T) {
	var back atomic.Bool
	var mu sync.Mutex
	var asked []time.Time
	v := receive(t, func(w http.ResponseWriter, _ *http.Request, _ event) {
		if !back.Load() {
			mu.Lock()
			asked = append(asked, time.Now())
			mu.Unlock()
			w.WriteHeader(http.StatusGone)
		}
	})
	cfg := short(line("a", v.url))
	cfg.RetryMin, cfg.RetryMax = ms(1), ms(400)
	j := start(t, cfg, database(t)())
	j.happen(0, 2, "x")
	kittest.Eventually(t, patience, func() bool { return j.metric("hook_requests_total", "gone") >= 2 }, "asked again")
	back.Store(true)
	mu.Lock()
	if d := asked[1].Sub(asked[0]); d < cfg.RetryMax-ms(50) {
		t.Errorf("asked again after %v, want the longest wait, %v", d, cfg.RetryMax)
	}
	mu.Unlock()
	v.await(2)
	want(t, v.seqs("x"), 0, 1)
}

func TestRetryAfterIsHeeded(t *testing.T) {
	var first, second time.Time
	var n int
	v := receive(t, func(w http.ResponseWriter, _ *http.Request, _ event) {
		n++
		if n == 1 {
			first = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		second = time.Now()
	})
	cfg := short(line("a", v.url))
	cfg.RetryMax = 5 * time.Second
	j := start(t, cfg, database(t)())
	j.happen(0, 1, "x")
	v.await(1)
	if d := second.Sub(first); d < 950*time.Millisecond {
		t.Errorf("came again after %v, want a second", d)
	}
	if j.metric("hook_requests_total", "throttled") != 1 {
		t.Error("not counted as throttled")
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	inner := receive(t, nil)
	var right atomic.Bool
	v := receive(t, func(w http.ResponseWriter, r *http.Request, _ event) {
		if !right.Load() {
			http.Redirect(w, r, inner.url, http.StatusTemporaryRedirect)
		}
	})
	j := start(t, short(line("a", v.url)), database(t)())
	j.happen(0, 1, "x")
	kittest.Eventually(t, patience, func() bool { return j.metric("hook_requests_total", "redirect") >= 2 }, "redirects")
	right.Store(true)
	v.await(1)
	if n := inner.asked.Load(); n != 0 {
		t.Errorf("followed %d times", n)
	}
}

func TestLinkLocalAddressesAreRefused(t *testing.T) {
	c := hook.NewClient()
	defer c.CloseIdleConnections()
	for _, url := range []string{
		"http://169.254.169.254/latest/meta-data/", "http://[fe80::1%25lo]/", "http://[::ffff:169.254.169.254]/", "http://0.0.0.0:1/", "http://[::]:1/", "http://224.0.0.1/",
		"http://[fd00:ec2::254]/latest/meta-data/", "http://100.100.100.200/", "http://192.0.0.192/",
	} {
		resp, err := c.Get(url)
		if err == nil {
			resp.Body.Close()
		}
		if !errors.Is(err, hook.ErrForbiddenAddress) {
			t.Errorf("%s: got %v", url, err)
		}
	}
}

func TestWhatFailsForTooLongIsDroppedAndCounted(t *testing.T) {
	v := receive(t, func(w http.ResponseWriter, _ *http.Request, e event) {
		if e.Data.Entry.Seq == 0 {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	cfg := short(line("a", v.url))
	cfg.GiveUpAfter = ms(300)
	j := start(t, cfg, database(t)())
	j.happen(0, 3, "x")
	v.await(2)
	want(t, v.seqs("x"), 1, 2)
	if got := j.metric("hooks_dropped_total", "too_old"); got != 1 {
		t.Errorf("got %v dropped, want 1", got)
	}
}

func TestManyJobsSendEachHookOnce(t *testing.T) {
	v := receive(t, nil)
	open := database(t)
	cfg := short(line("a", v.url))
	var jobs []*job
	for range 3 {
		jobs = append(jobs, start(t, cfg, open()))
	}
	keys := []string{"a", "b", "c", "d", "e", "f", "g"}
	for i := range 5 {
		jobs[i%3].happen(i*6, 6, keys...)
	}
	v.await(5 * 6 * len(keys))
	for _, k := range keys {
		want(t, v.seqs(k), 0, 29)
	}
	var sent []float64
	for _, j := range jobs {
		j.stop()
		sent = append(sent, j.metric("hook_requests_total", "sent"))
	}
	if sum := sent[0] + sent[1] + sent[2]; sum != float64(5*6*len(keys)) {
		t.Errorf("sent %v", sent)
	}
}

// dying is a store whose job is cut off from it.
type dying struct {
	hook.Store
	dead atomic.Bool
}

var errCutOff = errors.New("cut off")

func (d *dying) DoneHook(ctx context.Context, c *store.HookClaim, h *store.Hook) error {
	if d.dead.Load() {
		return errCutOff
	}
	return d.Store.DoneHook(ctx, c, h)
}

func (d *dying) ReleaseHooks(ctx context.Context, c *store.HookClaim, due int64, failed bool) (bool, error) {
	if d.dead.Load() {
		return false, errCutOff
	}
	return d.Store.ReleaseHooks(ctx, c, due, failed)
}

func (d *dying) ClaimHooks(ctx context.Context, tenant, endpoint string, now, until int64, keys, most int) ([]store.HookClaim, error) {
	if d.dead.Load() {
		return nil, errCutOff
	}
	return d.Store.ClaimHooks(ctx, tenant, endpoint, now, until, keys, most)
}

func TestOrderOutlivesASender(t *testing.T) {
	d := &dying{}
	v := receive(t, func(_ http.ResponseWriter, _ *http.Request, e event) {
		if e.Data.Entry.Seq == 1 {
			d.dead.Store(true) // after it was taken nothing of this job reaches the database
		}
	})
	open := database(t)
	d.Store = open()
	cfg := short(line("a", v.url))
	cfg.Lease, cfg.Timeout = 5*time.Second, 2*time.Second // the receiver may stand still for as long
	first := start(t, cfg, d)
	first.happen(0, 6, "x")
	v.await(2)
	began := time.Now()
	start(t, cfg, open())
	kittest.Eventually(t, patience, func() bool { s := v.seqs("x"); return len(s) > 0 && s[len(s)-1] == 5 }, "the rest")
	if got := v.seqs("x"); !slices.Equal(got, []int{0, 1, 1, 2, 3, 4, 5}) {
		t.Errorf("got %v: what was not written down comes again, nothing else", got)
	}
	if d := time.Since(began); d > patience/2 {
		t.Errorf("took %v", d)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.taken[1].ID != v.taken[2].ID {
		t.Error("the repeat has another id")
	}
}

func TestASenderThatEndsGivesBackWhatItHas(t *testing.T) {
	hanging := make(chan struct{}, 100)
	var hangs atomic.Bool
	hangs.Store(true)
	v := receive(t, func(w http.ResponseWriter, r *http.Request, _ event) {
		if hangs.Load() {
			hanging <- struct{}{}
			<-r.Context().Done()
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	open := database(t)
	cfg := short(line("a", v.url))
	cfg.Timeout, cfg.Lease = 2*patience, time.Hour
	j := start(t, cfg, open())
	j.happen(0, 2, "x", "y")
	<-hanging
	<-hanging
	began := time.Now()
	j.stop()
	if d := time.Since(began); d > patience/2 {
		t.Errorf("the end took %v", d)
	}
	hangs.Store(false)
	start(t, cfg, open())
	v.await(4) // long before the lease ends
	want(t, v.seqs("x"), 0, 1)
}

func TestEndpointThatIsNotConfiguredKeepsItsHooksForADay(t *testing.T) {
	s := database(t)()
	old := build(t, short(line("old", "http://127.0.0.1:1/")), s)
	old.happen(0, 3, "x")
	cfg := short()
	j := start(t, cfg, s)
	kittest.Eventually(t, patience, func() bool { b, err := s.HookBacklogs(t.Context()); return err == nil && len(b) == 1 && b[0].Keys == 1 }, "kept")
	j.stop()
	cfg.GiveUpAfter = ms(1)
	j = start(t, cfg, s)
	kittest.Eventually(t, patience, func() bool { b, err := s.HookBacklogs(t.Context()); return err == nil && len(b) == 0 }, "dropped")
	if got := j.metric("hooks_dropped_total", "no_endpoint"); got != 3 {
		t.Errorf("got %v dropped, want 3", got)
	}
}

// away is a store that fails until it is back.
type away struct {
	hook.Store
	left atomic.Int64
}

func (a *away) PutHooks(ctx context.Context, now int64, hooks []store.Hook) error {
	if a.left.Add(-1) >= 0 {
		return errCutOff
	}
	return a.Store.PutHooks(ctx, now, hooks)
}

func TestNothingIsPassedBeforeItIsInTheDatabase(t *testing.T) {
	v := receive(t, nil)
	a := &away{Store: database(t)()}
	j := start(t, short(line("a", v.url)), a)
	a.left.Store(3)
	j.happen(0, 2, "x")
	v.await(2)
	a.left.Store(1 << 60)
	ctx, cancel := context.WithTimeout(t.Context(), ms(100))
	defer cancel()
	o := events.Offline{Tenant: tenant, Conversation: "x", Seq: 9, Entry: []byte(`{}`), Users: []events.OfflineUser{{UID: "u"}}}
	msgs, err := o.Messages()
	if err != nil {
		t.Fatal(err)
	}
	if n := j.Handle(ctx, msgs...); n != 0 {
		t.Error("a record is done that is nowhere")
	}
}

// slow is a database that gets so many hooks done in the time that it has for a transaction.
type slow struct {
	*store.Store
	most int
}

func (s *slow) PutHooks(ctx context.Context, now int64, hooks []store.Hook) error {
	if len(hooks) > s.most {
		return context.DeadlineExceeded
	}
	return s.Store.PutHooks(ctx, now, hooks)
}

func TestASlowDatabaseIsGivenLessAtOnce(t *testing.T) {
	v := receive(t, nil)
	j := start(t, short(line("a", v.url)), &slow{database(t)(), 3})
	j.happen(0, 20, "x", "y")
	v.await(40)
	want := make([]int, 20)
	for i := range want {
		want[i] = i
	}
	for _, key := range []string{"x", "y"} {
		if got := v.seqs(key); !slices.Equal(got, want) {
			t.Errorf("%s: got %v", key, got)
		}
	}
}

func TestRecordsThatCannotBeAreDeadLetters(t *testing.T) {
	v := receive(t, nil)
	j := start(t, short(line("a", v.url)), database(t)())
	o := events.Offline{Tenant: tenant, Conversation: "x", Seq: 9, Entry: []byte(`{"seq":9}`), Users: []events.OfflineUser{{UID: "u"}}}
	msgs, err := o.Messages()
	if err != nil {
		t.Fatal(err)
	}
	if n := j.Handle(t.Context(), kafka.Message{Value: []byte("no record")}, msgs[0], kafka.Message{}); n != 3 {
		t.Errorf("%d are done", n)
	}
	v.await(1)
	if got := j.producer.written(topic.Dead); len(got) != 2 {
		t.Errorf("got %d dead letters, want 2", len(got))
	}
}

func TestOfflineWaitsForKafka(t *testing.T) {
	j := build(t, short("a http://127.0.0.1:1/ "+secret+" message.offline"), database(t)())
	list := []events.Offline{
		{Tenant: tenant, Conversation: "x", Seq: 1, Entry: []byte(`{}`), Users: []events.OfflineUser{{UID: "u"}}},
		{Tenant: "other", Conversation: "x", Seq: 1, Entry: []byte(`{}`), Users: []events.OfflineUser{{UID: "u"}}},
		{Tenant: tenant, Conversation: "y", Seq: 1, Entry: []byte(`{}`)},
	}
	j.producer.down = true
	ctx, cancel := context.WithTimeout(t.Context(), ms(50))
	defer cancel()
	if j.Offline(ctx, list...) {
		t.Error("passed without Kafka")
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if !j.Offline(t.Context(), list...) {
			t.Error("gave up")
		}
	})
	j.producer.mu.Lock()
	j.producer.down = false
	j.producer.mu.Unlock()
	wg.Wait()
	if got := j.producer.written(topic.Hooks); len(got) != 1 {
		t.Errorf("got %d records, want that of x: nobody wants the other tenant's, and y reached everybody", len(got))
	}
}

func TestOfflineRepeatsNothingThatKafkaHas(t *testing.T) {
	j := build(t, short("a http://127.0.0.1:1/ "+secret+" message.offline"), database(t)())
	tries := 0
	j.producer.bad = func(m kafka.Message) error {
		switch {
		case bytes.HasSuffix(m.Key, []byte("large")):
			return kafka.MessageSizeTooLarge
		case bytes.HasSuffix(m.Key, []byte("sick")):
			if tries++; tries < 3 {
				return kafkaconn.ErrUnavailable
			}
		}
		return nil
	}
	var list []events.Offline
	for _, conv := range []string{"well", "sick", "large"} {
		list = append(list, events.Offline{Tenant: tenant, Conversation: conv, Seq: 1, Entry: []byte(`{}`), Users: []events.OfflineUser{{UID: "u"}}})
	}
	if !j.Offline(t.Context(), list...) {
		t.Error("gave up")
	}
	var keys []string
	for _, m := range j.producer.written(topic.Hooks) {
		keys = append(keys, string(m.Key[bytes.LastIndexByte(m.Key, 0)+1:]))
	}
	if !slices.Equal(keys, []string{"well", "sick"}) {
		t.Errorf("got %v, want each that Kafka takes once", keys)
	}
	if got := j.metric("hook_events_too_large_total", ""); got != 1 {
		t.Errorf("%v are counted as too large, want 1", got)
	}
}

func TestASlowKafkaIsGivenLessAtOnce(t *testing.T) {
	j := build(t, short("a http://127.0.0.1:1/ "+secret+" message.offline"), database(t)())
	j.producer.most = 2 << 20
	var list []events.Offline
	for i := range 200 {
		list = append(list, events.Offline{
			Tenant: tenant, Conversation: "x", Seq: int64(i), Entry: []byte(`"` + strings.Repeat("x", 32<<10) + `"`), Users: []events.OfflineUser{{UID: "u"}},
		})
	}
	if !j.Offline(t.Context(), list...) {
		t.Error("gave up")
	}
	if got := j.producer.written(topic.Hooks); len(got) != len(list) {
		t.Errorf("got %d records, want %d", len(got), len(list))
	}
}

func TestReceiverTakesASignatureByTheNextSecret(t *testing.T) {
	v := receive(t, nil)
	j := start(t, short("a "+v.url+" whsec_"+strings.Repeat("QUJD", 10)+"|"+secret+" message.offline"), database(t)())
	j.happen(0, 1, "x")
	v.await(1)
}

func TestEndpointsThatCannotBe(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"too little", "a https://h/", "want"},
		{"name", "A https://h/ " + secret + " user.online", "name"},
		{"scheme", "a ftp://h/ " + secret + " user.online", "url"},
		{"no host", "a /hooks " + secret + " user.online", "url"},
		{"password", "a https://u:pw@h/ " + secret + " user.online", "url"},
		{"short secret", "a https://h/ whsec_c2hvcnQ= user.online", "secret"},
		{"plain secret", "a https://h/ " + strings.TrimPrefix(secret, "whsec_") + " user.online", "secret"},
		{"event", "a https://h/ " + secret + " user.born", "user.born"},
		{"tenant", "a https://h/ " + secret + " user.online A", "tenant"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := hook.ParseEndpoint(tt.line)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			for _, s := range []string{secret[6:], "c2hvcnQ", "pw@"} {
				if strings.Contains(err.Error(), s) {
					t.Errorf("%v repeats a secret", err)
				}
			}
		})
	}
	e, err := hook.ParseEndpoint("a https://h/ " + secret + " user.online+message.offline *")
	if err != nil || e.Tenant != "*" || len(e.Events) != 2 || strings.Contains(e.String(), secret) {
		t.Errorf("got %+v, %v", e, err)
	}
	cfg := short("a https://h/ "+secret+" user.online", "a https://h/ "+secret+" user.online")
	if err := cfg.Validate(); err == nil {
		t.Error("two endpoints of one name pass")
	}
}

// TestAnswerWithoutEnd: what a receiver says is read up to a bound.
func TestAnswerWithoutEnd(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	j := start(t, short(line("a", s.URL)), database(t)())
	j.happen(0, 2, "x")
	kittest.Eventually(t, patience, func() bool { return j.metric("hook_requests_total", "sent") == 2 }, "sent")
}

func FuzzDecode(f *testing.F) {
	o := events.Offline{Tenant: tenant, Conversation: "x", Seq: 9, Entry: []byte(`{}`), Users: []events.OfflineUser{{UID: "u"}}}
	msgs, err := o.Messages()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msgs[0].Value)
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, b []byte) { _ = hook.Decode(b) })
}
