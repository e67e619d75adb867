package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

// envMySQL names a MySQL or MariaDB server by a DSN without database, of a user who may create databases:
// root@tcp(127.0.0.1:3306)/
const envMySQL = "HALLEY_TEST_MYSQL"

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// patience is the time limit of a read and of a transaction, where a test isn't about that limit: a process that stands still for seconds, as one among
// many does, is no failure of the database.
const patience = 30 * time.Second

func settings() store.Config {
	cfg := store.Default()
	cfg.ReadTimeout, cfg.WriteTimeout = patience, patience
	return cfg
}

// place is a database of a test's own.
type place struct{ cfg store.Config }

// open opens the database; as often as a test wants.
func (p *place) open(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), p.cfg, store.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func sqlitePlace(t testing.TB) *place {
	cfg := settings()
	cfg.DSN = filepath.Join(t.TempDir(), "chat ü.db")
	return &place{cfg}
}

func mysqlPlace(t testing.TB) *place {
	t.Helper()
	dsn := os.Getenv(envMySQL)
	if dsn == "" {
		t.Skipf("%s is not set; make test sets it", envMySQL)
	}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("halley_test_%x", rand.Uint64())
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.ExecContext(context.Background(), "DROP DATABASE "+name); err != nil {
			t.Error(err)
		}
		db.Close()
	})
	cfg := settings()
	cfg.Driver, cfg.DSN, cfg.MaxConns = store.MySQL, dsn+name, 4
	return &place{cfg}
}

// both runs a test on SQLite and on MySQL.
func both(t *testing.T, f func(t *testing.T, p *place)) {
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); f(t, sqlitePlace(t)) })
	t.Run("mysql", func(t *testing.T) { t.Parallel(); f(t, mysqlPlace(t)) })
}

const tenant = "default"

// clock is the time of the next proposal.
const start = int64(1_700_000_000_000)

// talk makes proposals with ids and times of their own.
type talk struct {
	t   testing.TB
	s   *store.Store
	id  string
	now int64
	n   int
}

func (k *talk) make(kind conversation.Kind, sender string, f func(*conversation.Proposal)) conversation.Proposal {
	k.n++
	if k.now == 0 {
		k.now = start
	}
	k.now += 10
	p := conversation.Proposal{Tenant: tenant, Conversation: k.id, Kind: kind, Sender: sender, AcceptedAtMs: k.now}
	if kind.TakesSeq() {
		p.ClientMsgID = fmt.Sprintf("m%d", k.n)
	}
	if f != nil {
		f(&p)
	}
	return p
}

func (k *talk) say(sender, body string) conversation.Proposal {
	return k.make(conversation.Message, sender, func(p *conversation.Proposal) { p.Body = []byte(body) })
}

func (k *talk) change(kind conversation.Kind, sender string, target int64) conversation.Proposal {
	return k.make(kind, sender, func(p *conversation.Proposal) { p.Target = target })
}

func (k *talk) people(kind conversation.Kind, sender string, members ...string) conversation.Proposal {
	return k.make(kind, sender, func(p *conversation.Proposal) { p.Detail.Members = members })
}

func (k *talk) read(uid string, seq int64) conversation.Proposal {
	return k.make(conversation.Marker, uid, func(p *conversation.Proposal) { p.ReadSeq = seq })
}

// append stores all of it and the lists that follow from it, as job does.
func (k *talk) append(ps ...conversation.Proposal) []store.Outcome {
	k.t.Helper()
	out, err := k.s.Append(k.t.Context(), ps)
	if err != nil {
		k.t.Fatal(err)
	}
	var lists []store.Listing
	for _, o := range out {
		lists = append(lists, o.Listings...)
	}
	if _, err := k.s.PutListings(k.t.Context(), lists); err != nil {
		k.t.Fatal(err)
	}
	return out
}

// must is append where nothing may be rejected.
func (k *talk) must(ps ...conversation.Proposal) []store.Outcome {
	k.t.Helper()
	out := k.append(ps...)
	for i := range out {
		if err := out[i].Err(); err != nil {
			k.t.Fatalf("proposal %d: %v", i, err)
		}
	}
	return out
}

func (k *talk) entries(from, to int64) []store.Entry {
	k.t.Helper()
	list, err := k.s.Entries(k.t.Context(), tenant, k.id, from, to, 10_000)
	if err != nil {
		k.t.Fatal(err)
	}
	return list
}

func group(t testing.TB, s *store.Store) *talk {
	t.Helper()
	return &talk{t: t, s: s, id: conversation.GroupID(tenant, t.Name(), uuid.NewString())}
}

func direct(t testing.TB, s *store.Store, a, b string) *talk {
	return &talk{t: t, s: s, id: conversation.DirectID(a, b)}
}

func wantCode(t testing.TB, o store.Outcome, want *errcode.Code) {
	t.Helper()
	if o.Code != want {
		t.Fatalf("got %v (%s), want %v", o.Code, o.Reason, want)
	}
}

var errFault = errors.New("planted")
