package hook_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/segmentio/kafka-go"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/halley-im/halley/job/internal/dead"
	"github.com/halley-im/halley/job/internal/hook"
	"github.com/halley-im/halley/job/internal/meter"
	events "github.com/halley-im/halley/kit/hook"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store"
)

func TestMain(m *testing.M) { kittest.Main(m) }

const (
	patience = time.Minute
	tenant   = "default"
	secret   = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// short are settings with short waits. What a receiver answers late it answers in time: who wants that to be too late says so.
func short(endpoints ...string) hook.Config {
	return hook.Config{
		Endpoints: endpoints, Concurrency: 4, PerClaim: 3, Timeout: patience / 4, Lease: patience, RetryMin: ms(20), RetryMax: ms(200),
		GiveUpAfter: time.Hour, PollInterval: ms(20), MeasureInterval: ms(50),
	}
}

func line(name, url string) string {
	return name + " " + url + " " + secret + " message.offline+user.online+user.offline"
}

// database is a place for stores.
func database(t testing.TB) func() *store.Store {
	cfg := store.Default()
	cfg.DSN = filepath.Join(t.TempDir(), "halley.db")
	return func() *store.Store {
		s, err := store.Open(t.Context(), cfg, store.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
}

// producer takes what is written to Kafka, unless it is down.
type producer struct {
	mu   sync.Mutex
	msgs []kafka.Message
	down bool
	bad  func(kafka.Message) error // what it returns of a message; nil: it is written
	// most is how many bytes it gets written in time; 0: any.
	most int
}

func (p *producer) Produce(_ context.Context, msgs ...kafka.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	bytes := 0
	for i := range msgs {
		bytes += len(msgs[i].Value)
	}
	if p.down || p.most > 0 && bytes > p.most {
		return errors.New("down")
	}
	each, failed := make(kafkaconn.WriteErrors, len(msgs)), false
	for i, m := range msgs {
		if p.bad != nil {
			each[i] = p.bad(m)
		}
		if each[i] == nil {
			p.msgs = append(p.msgs, m)
		}
		failed = failed || each[i] != nil
	}
	if failed {
		return each
	}
	return nil
}

func (p *producer) written(name string) []kafka.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []kafka.Message
	for _, m := range p.msgs {
		if m.Topic == name {
			out = append(out, m)
		}
	}
	return out
}

// job is the hooks of one job.
type job struct {
	*hook.Hooks
	t        testing.TB
	reg      *prometheus.Registry
	producer *producer
	stop     func()
}

// start runs hooks until the test ends or stop is called.
func start(t testing.TB, cfg hook.Config, s hook.Store) *job {
	t.Helper()
	j := build(t, cfg, s)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { j.Run(ctx) })
	j.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(j.stop)
	return j
}

func build(t testing.TB, cfg hook.Config, s hook.Store) *job {
	t.Helper()
	j := &job{t: t, reg: prometheus.NewRegistry(), producer: &producer{}}
	m, err := meter.New(j.reg, nil)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if j.Hooks, err = hook.New(cfg, hook.Deps{
		Log: log, Metrics: j.reg, Meter: m.Hooks, Store: s, Producer: j.producer, WriteTimeout: patience / 4, RetryMin: ms(5), RetryMax: ms(50),
		Dead: &dead.Letters{Topic: topic.Hooks, Meter: m.Hooks, Producer: j.producer, Log: log, Timeout: patience / 4, RetryMin: ms(5), RetryMax: ms(50)},
	}); err != nil {
		t.Fatal(err)
	}
	return j
}

// metric returns the sum of a counter or gauge over all labels that contain value.
func (j *job) metric(name, value string) float64 {
	j.t.Helper()
	list, err := j.reg.Gather()
	if err != nil {
		j.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range list {
		if f.GetName() != "halley_job_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			if value == "" || has(m, value) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func has(m *dto.Metric, value string) bool {
	for _, l := range m.GetLabel() {
		if l.GetValue() == value {
			return true
		}
	}
	return false
}

// happen hands n events of each key to a job, in turns, numbered from first.
func (j *job) happen(first, n int, keys ...string) {
	j.t.Helper()
	var msgs []kafka.Message
	for i := first; i < first+n; i++ {
		for k, key := range keys {
			o := events.Offline{
				Tenant: tenant, Conversation: key, Seq: int64(i), AtMs: time.Now().UnixMilli(), Entry: json.RawMessage(fmt.Sprintf(`{"seq":%d}`, i)),
				Users: []events.OfflineUser{{UID: "u", Unread: 1}},
			}
			made, err := o.Messages()
			if err != nil {
				j.t.Fatal(err)
			}
			made[0].Offset = int64(i*len(keys) + k)
			msgs = append(msgs, made...)
		}
	}
	if got := j.Handle(j.t.Context(), msgs...); got != len(msgs) {
		j.t.Fatalf("%d of %d records are done", got, len(msgs))
	}
}

// event is what a receiver was sent.
type event struct {
	ID, Type, Tenant string
	Timestamp        time.Time
	Data             struct {
		Conversation string
		Entry        struct{ Seq int }
		Users        []events.OfflineUser
	}
}

// receiver is the host's backend.
type receiver struct {
	t   testing.TB
	url string
	// answer decides; it is called before the event counts as taken. Nil: 204.
	answer func(w http.ResponseWriter, r *http.Request, e event)

	busy sync.Map // of *request, by key

	mu    sync.Mutex
	taken []event
	asked atomic.Int64
}

func receive(t testing.TB, answer func(http.ResponseWriter, *http.Request, event)) *receiver {
	t.Helper()
	v := &receiver{t: t, answer: answer}
	s := httptest.NewServer(v)
	t.Cleanup(s.Close)
	v.url = s.URL + "/hooks"
	return v
}

// ServeHTTP takes what is signed well. A key must never come twice at once.
func (v *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.asked.Add(1)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	wh, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		v.t.Error(err)
		return
	}
	if err := wh.Verify(body, r.Header); err != nil {
		v.t.Errorf("signature: %v", err)
	}
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		v.t.Errorf("body %s: %v", body, err)
	}
	e.ID = r.Header.Get("Webhook-Id")
	mine := &request{ended: make(chan struct{})}
	for {
		other, twice := v.busy.LoadOrStore(e.Data.Conversation, mine)
		if !twice {
			break
		}
		// One that the sender has given up may not have noticed yet.
		earlier := other.(*request)
		<-earlier.ended
		if !earlier.left {
			v.t.Errorf("two requests of %s at once", e.Data.Conversation)
			break
		}
	}
	defer func() {
		mine.left = r.Context().Err() != nil
		v.busy.CompareAndDelete(e.Data.Conversation, mine)
		close(mine.ended)
	}()
	status := &recorder{ResponseWriter: w, status: http.StatusNoContent}
	if v.answer != nil {
		v.answer(status, r, e)
	}
	if !status.wrote {
		w.WriteHeader(status.status)
	}
	if status.status/100 == 2 {
		v.mu.Lock()
		v.taken = append(v.taken, e)
		v.mu.Unlock()
	}
}

// request is one that is being answered. left is set, before ended is closed, if its sender did not wait for the end.
type request struct {
	ended chan struct{}
	left  bool
}

type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (r *recorder) WriteHeader(status int) {
	r.status, r.wrote = status, true
	r.ResponseWriter.WriteHeader(status)
}

// seqs returns what was taken of a key.
func (v *receiver) seqs(key string) []int {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []int
	for _, e := range v.taken {
		if e.Data.Conversation == key {
			out = append(out, e.Data.Entry.Seq)
		}
	}
	return out
}

func (v *receiver) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.taken)
}

// await waits until n events were taken.
func (v *receiver) await(n int) {
	v.t.Helper()
	kittest.Eventually(v.t, patience, func() bool { return v.count() >= n }, "receiver has too few")
}
