// Package idempotency makes a repeated write have no repeated effect: the answer to a request that carries an
// Idempotency-Key is kept in Redis for a day and given again to whoever sends the same request under the same key.
//
// Without Redis a request is carried out unchecked, and a repeated push is delivered twice: its id is made of the key
// (PushID), so that the answers agree, but push ids aren't sent to clients. Only a room's messages carry theirs, as the id
// of the event room.message, by which a client can drop the repeat.
//
// The package starts no goroutines.
package idempotency

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/topic"
)

// Header is the name of the request header.
const Header = "Idempotency-Key"

// MaxKey is the longest key in bytes. The API promises it, so it is no setting.
const MaxKey = 255

//go:embed finish.lua
var finishSource string

var finish = redis.NewScript(finishSource)

// pushSpace is the UUID namespace of push ids that are made of keys.
var pushSpace = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://github.com/halley-im/halley/push"))

// Scope is what a key is unique in.
type Scope struct {
	// Tenant that the request acts for, and id of the API key.
	Tenant, APIKey string
	// Method and Path of the request.
	Method, Path string
}

// PushID returns the id of a push that was sent under a key: the same for each repeat.
func PushID(s Scope, key string) string {
	return uuid.NewSHA1(pushSpace, topic.Join(s.Tenant, s.APIKey, s.Path, key)).String()
}

// CheckKey checks a key: 1 to 255 printable ASCII characters.
func CheckKey(key string) error {
	if len(key) == 0 || len(key) > MaxKey {
		return errcode.InvalidRequest.Errorf("%s: 1 to %d characters", Header, MaxKey)
	}
	for i := range len(key) {
		if c := key[i]; c < 0x20 || c > 0x7e {
			return errcode.InvalidRequest.Errorf("%s: printable ASCII only", Header)
		}
	}
	return nil
}

// Answer is what was answered to a request.
type Answer struct {
	Status int `json:"s"`
	// Header holds what is worth keeping of the header; nothing of the connection's.
	Header http.Header `json:"h,omitempty"`
	Body   []byte      `json:"b,omitempty"`
}

// Final reports whether a repeat would be answered alike for ever: it is what was done, or why it never can be.
func (a *Answer) Final() bool {
	switch a.Status {
	case http.StatusAccepted, http.StatusMultiStatus:
		// Its outcome was not known yet; some of it was not done, and may be now.
		return false
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		// Rights, states and rates change, and what wasn't there may come: a group that was accepted a moment ago.
		return false
	}
	return a.Status >= 200 && a.Status < 500
}

// Store keeps answers. Safe for concurrent use.
type Store struct {
	rdb       redis.UniversalClient
	prefix    string
	cfg       Config
	unchecked prometheus.Counter
	replayed  prometheus.Counter
}

// Config are the times of a Store.
type Config struct {
	// Keep is how long an answer is kept.
	Keep time.Duration `help:"How long the answer to a request with an Idempotency-Key is kept." default:"24h"`
	// Progress is how long a request may be in progress; a repeat meanwhile is refused. A process that dies leaves it so.
	Progress time.Duration `help:"How long a request with an Idempotency-Key may be in progress." default:"30s"`
	// Timeout is how long Redis may take before a request is carried out unchecked.
	Timeout time.Duration `help:"How long Redis may take before a request with an Idempotency-Key is carried out unchecked." default:"200ms"`
}

// Validate checks the times.
func (c Config) Validate() error {
	if c.Keep <= 0 || c.Progress <= 0 || c.Timeout <= 0 {
		return errors.New("idempotency: keep, progress and timeout must be more than 0")
	}
	return nil
}

// New makes a Store whose keys begin with prefix. rdb may be nil: everything is carried out unchecked. reg may be nil.
func New(rdb redis.UniversalClient, prefix string, cfg Config, reg prometheus.Registerer) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Store{
		rdb: rdb, prefix: prefix + ":idem:", cfg: cfg,
		unchecked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_idempotency_unchecked_total", Help: "Requests with an Idempotency-Key carried out unchecked because Redis did not answer.",
		}),
		replayed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "halley_logic_idempotency_replayed_total", Help: "Requests answered by a kept answer.",
		}),
	}
	if reg != nil {
		for _, c := range []prometheus.Collector{s.unchecked, s.replayed} {
			if err := reg.Register(c); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// record is what Redis holds of a request. An Owner has it in progress; else Answer is there.
type record struct {
	Owner  string  `json:"o,omitempty"`
	Print  string  `json:"p"`
	Answer *Answer `json:"a,omitempty"`
}

// Request is one that Begin let through. The zero value is one that isn't checked; its End does nothing.
type Request struct {
	store *Store
	key   string
	value string
	print string
}

// Begin looks a request up. fingerprint is all that makes two requests the same: query and body. It returns
//   - an Answer to give again, or
//   - a Request to be carried out, and then ended, or
//   - errcode.IdempotencyBusy while the same one is in progress, errcode.IdempotencyReuse if the key was used for
//     another, errcode.InvalidRequest for a key that is none.
func (s *Store) Begin(ctx context.Context, scope Scope, key string, fingerprint [sha256.Size]byte) (*Answer, Request, error) {
	if err := CheckKey(key); err != nil {
		return nil, Request{}, err
	}
	if s.rdb == nil {
		s.unchecked.Inc()
		return nil, Request{}, nil
	}
	sum := sha256.Sum256(topic.Join(scope.Tenant, scope.APIKey, scope.Method, scope.Path, key))
	var owner [8]byte
	rand.Read(owner[:])
	rec := record{Owner: hex.EncodeToString(owner[:]), Print: hex.EncodeToString(fingerprint[:16])}
	value, err := json.Marshal(rec)
	if err != nil {
		return nil, Request{}, err
	}
	r := Request{store: s, key: s.prefix + hex.EncodeToString(sum[:16]), value: string(value), print: rec.Print}

	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	old, err := s.rdb.SetArgs(ctx, r.key, r.value, redis.SetArgs{Mode: "NX", Get: true, TTL: s.cfg.Progress}).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, r, nil
	case err != nil:
		s.unchecked.Inc()
		return nil, Request{}, nil
	}
	var found record
	if err := json.Unmarshal([]byte(old), &found); err != nil {
		// Not ours, or of another version.
		s.unchecked.Inc()
		return nil, Request{}, nil
	}
	switch {
	case found.Print != rec.Print:
		return nil, Request{}, errcode.IdempotencyReuse
	case found.Answer == nil:
		// No setting: most requests are over by then, and who comes too early is told the same again.
		return nil, Request{}, errcode.IdempotencyBusy.After(time.Second)
	}
	s.replayed.Inc()
	return found.Answer, Request{}, nil
}

// End keeps the answer if it is final, else forgets the request, so that it may be tried again. a nil forgets it too.
// ctx may be over: what was done is kept all the same.
func (r Request) End(ctx context.Context, a *Answer) {
	if r.store == nil {
		return
	}
	var value []byte
	if a != nil && a.Final() {
		value, _ = json.Marshal(record{Print: r.print, Answer: a}) // of strings and bytes: can't fail
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.store.cfg.Timeout)
	defer cancel()
	// If Redis is away now the record in progress lapses by itself, and a repeat is carried out.
	if err := finish.Run(ctx, r.store.rdb, []string{r.key}, r.value, value, r.store.cfg.Keep.Milliseconds()).Err(); err != nil {
		r.store.unchecked.Inc()
	}
}
