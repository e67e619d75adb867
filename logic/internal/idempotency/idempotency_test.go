package idempotency_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/idempotency"
	"github.com/halley-im/halley/proto/errcode"
)

var (
	times = idempotency.Config{Keep: 24 * time.Hour, Progress: 30 * time.Second, Timeout: 30 * time.Second}
	scope = idempotency.Scope{Tenant: "default", APIKey: "a", Method: "POST", Path: "/v1/push"}
	body  = sha256.Sum256([]byte("body"))
	other = sha256.Sum256([]byte("other"))
)

func TestMain(m *testing.M) { kittest.Main(m) }

// onRedis returns a Store on Redis, a real one if the environment names it.
func onRedis(t *testing.T) *idempotency.Store {
	t.Helper()
	rdb, prefix := kittest.Redis(t)
	s, err := idempotency.New(rdb, prefix, times, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// open returns a Store on a Redis whose clock and end are the test's.
func open(t *testing.T) (*idempotency.Store, *miniredis.Miniredis) {
	t.Helper()
	mr := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mr.Addr(), MaxRetries: -1, DialerRetries: 1, DialTimeout: times.Timeout, ReadTimeout: times.Timeout, WriteTimeout: times.Timeout})
	t.Cleanup(func() { rdb.Close() })
	s, err := idempotency.New(rdb, "t", times, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, mr
}

func begin(t *testing.T, s *idempotency.Store, sc idempotency.Scope, key string, print [32]byte) (*idempotency.Answer, idempotency.Request) {
	t.Helper()
	a, r, err := s.Begin(t.Context(), sc, key, print)
	if err != nil {
		t.Fatal(err)
	}
	return a, r
}

func TestFinalAnswerIsGivenAgain(t *testing.T) {
	s := onRedis(t)
	a, r := begin(t, s, scope, "k", body)
	if a != nil {
		t.Fatalf("an answer before there was one: %+v", a)
	}
	r.End(t.Context(), &idempotency.Answer{Status: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"id":"1"}`)})
	for range 2 {
		a, _ := begin(t, s, scope, "k", body)
		if a == nil || a.Status != 200 || string(a.Body) != `{"id":"1"}` || a.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("got %+v", a)
		}
	}
}

func TestAnswerIsForgottenAfterADay(t *testing.T) {
	s, mr := open(t)
	_, r := begin(t, s, scope, "k", body)
	r.End(t.Context(), &idempotency.Answer{Status: 200})
	mr.FastForward(24*time.Hour - time.Second)
	if a, _ := begin(t, s, scope, "k", body); a == nil {
		t.Error("the answer is gone before a day")
	}
	mr.FastForward(2 * time.Second)
	if a, _ := begin(t, s, scope, "k", body); a != nil {
		t.Error("the answer is there after a day")
	}
}

func TestOtherBodyIsRefused(t *testing.T) {
	s := onRedis(t)
	_, r := begin(t, s, scope, "k", body)
	if _, _, err := s.Begin(t.Context(), scope, "k", other); !errors.Is(err, errcode.IdempotencyReuse) {
		t.Errorf("in progress: got %v", err)
	}
	r.End(t.Context(), &idempotency.Answer{Status: 200})
	if _, _, err := s.Begin(t.Context(), scope, "k", other); !errors.Is(err, errcode.IdempotencyReuse) {
		t.Errorf("done: got %v", err)
	}
}

func TestInProgressIsRefusedForAWhile(t *testing.T) {
	s, mr := open(t)
	begin(t, s, scope, "k", body)
	if _, _, err := s.Begin(t.Context(), scope, "k", body); !errors.Is(err, errcode.IdempotencyBusy) {
		t.Errorf("got %v", err)
	}
	mr.FastForward(31 * time.Second)
	if a, _ := begin(t, s, scope, "k", body); a != nil {
		t.Errorf("got %+v", a)
	}
}

func TestWhatIsNotFinalIsTriedAgain(t *testing.T) {
	for _, status := range []int{202, 207, 401, 403, 404, 408, 409, 429, 500, 503} {
		s := onRedis(t)
		_, r := begin(t, s, scope, "k", body)
		r.End(t.Context(), &idempotency.Answer{Status: status})
		if a, _ := begin(t, s, scope, "k", body); a != nil {
			t.Errorf("%d was kept", status)
		}
	}
	s := onRedis(t)
	_, r := begin(t, s, scope, "k", body)
	r.End(t.Context(), nil)
	if a, _ := begin(t, s, scope, "k", body); a != nil {
		t.Error("nothing was kept as an answer")
	}
}

func TestScopesDoNotShareKeys(t *testing.T) {
	s := onRedis(t)
	_, r := begin(t, s, scope, "k", body)
	r.End(t.Context(), &idempotency.Answer{Status: 200})
	for name, change := range map[string]func(*idempotency.Scope){
		"tenant": func(s *idempotency.Scope) { s.Tenant = "shop" }, "API key": func(s *idempotency.Scope) { s.APIKey = "b" },
		"method": func(s *idempotency.Scope) { s.Method = "PUT" }, "path": func(s *idempotency.Scope) { s.Path = "/v1/push/batch" },
	} {
		sc := scope
		change(&sc)
		if a, _ := begin(t, s, sc, "k", body); a != nil {
			t.Errorf("another %s got the answer", name)
		}
		if name != "method" && idempotency.PushID(sc, "k") == idempotency.PushID(scope, "k") {
			t.Errorf("another %s got the push id", name)
		}
	}
	if same := scope; idempotency.PushID(scope, "k") != idempotency.PushID(same, "k") || idempotency.PushID(scope, "k") == idempotency.PushID(scope, "l") {
		t.Error("a push id must follow from the key")
	}
}

func TestLateOwnerDoesNotOverwriteTheNext(t *testing.T) {
	s, mr := open(t)
	_, late := begin(t, s, scope, "k", body)
	mr.FastForward(31 * time.Second)
	_, next := begin(t, s, scope, "k", body)
	late.End(t.Context(), &idempotency.Answer{Status: 200, Body: []byte("late")})
	next.End(t.Context(), &idempotency.Answer{Status: 200, Body: []byte("next")})
	if a, _ := begin(t, s, scope, "k", body); a == nil || string(a.Body) != "next" {
		t.Errorf("got %+v, want the next one's", a)
	}
}

func TestOneOfManyIsCarriedOut(t *testing.T) {
	s := onRedis(t)
	var carried, busy atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			_, r, err := s.Begin(context.Background(), scope, "k", body)
			switch {
			case errors.Is(err, errcode.IdempotencyBusy):
				busy.Add(1)
			case err == nil && r != idempotency.Request{}:
				carried.Add(1)
			}
		})
	}
	wg.Wait()
	if carried.Load() != 1 || busy.Load() != 31 {
		t.Errorf("got %d carried out and %d refused, want 1 and 31", carried.Load(), busy.Load())
	}
}

func TestWithoutRedisRequestsAreCarriedOut(t *testing.T) {
	s, mr := open(t)
	mr.Close()
	for range 2 {
		a, r := begin(t, s, scope, "k", body)
		if a != nil {
			t.Fatalf("got %+v", a)
		}
		r.End(t.Context(), &idempotency.Answer{Status: 200})
	}
	s, err := idempotency.New(nil, "t", times, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, r := begin(t, s, scope, "k", body)
	r.End(t.Context(), &idempotency.Answer{Status: 200})
}

func TestForeignValueIsNoAnswer(t *testing.T) {
	s, mr := open(t)
	begin(t, s, scope, "k", body)
	for _, k := range mr.Keys() {
		if !strings.HasPrefix(k, "t:idem:") {
			t.Errorf("key %q is outside the prefix", k)
		}
		if strings.Contains(k, "/v1") {
			t.Errorf("key %q shows the request", k)
		}
		mr.Set(k, "rubbish")
	}
	if a, _ := begin(t, s, scope, "k", body); a != nil {
		t.Errorf("got %+v", a)
	}
}

func TestKeysAreChecked(t *testing.T) {
	s := onRedis(t)
	for _, key := range []string{"", strings.Repeat("k", 256), "a\nb", "ä", "\x7f"} {
		if _, _, err := s.Begin(t.Context(), scope, key, body); !errors.Is(err, errcode.InvalidRequest) {
			t.Errorf("%q: got %v", key, err)
		}
	}
	if err := idempotency.CheckKey(strings.Repeat("k", 255)); err != nil {
		t.Error(err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := idempotency.New(nil, "", idempotency.Config{}, nil); err == nil {
		t.Error("times of 0 were taken")
	}
}
