package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

func TestManyMayStartAtOnce(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		var wg sync.WaitGroup
		stores := make([]*store.Store, 4)
		for i := range stores {
			wg.Go(func() {
				var err error
				if stores[i], err = store.Open(t.Context(), p.cfg, store.Deps{Metrics: prometheus.NewRegistry()}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, s := range stores {
			if s == nil {
				continue
			}
			if err := s.Ping(t.Context()); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestOneConnectionIsEnough(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		p.cfg.MaxConns, p.cfg.MigrateTimeout = 1, 20*time.Second
		s := p.open(t)
		k := direct(t, s, "a", "b")
		k.must(k.say("a", "hi"))
		if _, err := s.Sync(t.Context(), tenant, "a", store.SyncQuery{Limit: 10, Newest: 5, MaxGap: 5}); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatIsStoredOutlivesTheProcess(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s, err := store.Open(t.Context(), p.cfg, store.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		k := direct(t, s, "a", "b")
		k.must(k.say("a", "hi"))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		k.s = p.open(t)
		if list := k.entries(1, 9); len(list) != 1 || string(list[0].Body) != "hi" {
			t.Fatalf("got %+v", list)
		}
	})
}

func TestSQLiteIsDurable(t *testing.T) {
	p := sqlitePlace(t)
	p.open(t)
	for _, suffix := range []string{"", "-wal"} {
		if _, err := os.Stat(p.cfg.DSN + suffix); err != nil {
			t.Errorf("no WAL at work: %v", err)
		}
	}
}

// TestAnErrorOfTheDatabaseIsNobodysFault holds the write lock: the batch is not judged, and is through once it is free.
func TestAnErrorOfTheDatabaseIsNobodysFault(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		k := direct(t, p.open(t), "a", "b")
		p.cfg.WriteTimeout = 1500 * time.Millisecond
		hasty := p.open(t)
		k.must(k.say("a", "hi"))
		driver, dsn := "mysql", p.cfg.DSN
		if p.cfg.Driver == store.SQLite {
			driver, dsn = "sqlite", "file:"+p.cfg.DSN+"?_txlock=immediate"
		}
		db, err := sql.Open(driver, dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), "UPDATE conversations SET last_at = last_at + 1"); err != nil {
			t.Fatal(err)
		}
		msg := k.say("b", "hello")
		began := time.Now()
		out, err := hasty.Append(t.Context(), []conversation.Proposal{msg})
		if err == nil || out != nil {
			t.Fatalf("got %+v, want an error", out)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Fatalf("waited %v", took)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if o := k.must(msg)[0]; o.Seq != 2 || o.Repeated {
			t.Fatalf("got %+v", o)
		}
	})
}

func TestWhoseFaultAnErrorOfMySQLIs(t *testing.T) {
	for _, tt := range []struct {
		number  uint16
		state   string
		records bool
	}{{1406, "22001", true}, {1264, "22003", true}, {1048, "23000", true}, {1366, "HY000", true}, {1366, "22007", true},
		{1062, "23000", false}, {1213, "40001", false}, {1205, "HY000", false}, {1114, "HY000", false}, {1290, "HY000", false}, {1146, "42S02", false}} {
		err := fmt.Errorf("entries: %w", &mysql.MySQLError{Number: tt.number, SQLState: [5]byte([]byte(tt.state))})
		if got := store.IsRecords(err); got != tt.records {
			t.Errorf("%d %s: got %v", tt.number, tt.state, got)
		}
	}
}

func TestACallersEndIsAnEnd(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.open(t)
		k := direct(t, s, "a", "b")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Append(ctx, []conversation.Proposal{k.say("a", "hi")}); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		k.must(k.say("a", "hi"))
	})
}

func TestConfigIsChecked(t *testing.T) {
	for name, f := range map[string]func(*store.Config){
		"driver": func(c *store.Config) { c.Driver = "postgres" }, "dsn": func(c *store.Config) { c.DSN = "" }, "conns": func(c *store.Config) { c.MaxConns = 0 },
		"named": func(c *store.Config) { c.Rules.MaxNamed = 1000 }, "mentions": func(c *store.Config) { c.Rules.MaxMentions = 1000 },
		"timeout": func(c *store.Config) { c.WriteTimeout = 0 }, "rules": func(c *store.Config) { c.Rules.MaxMembers = 0 },
		"parameters": func(c *store.Config) { c.DSN = "x.db?mode=memory" },
		"mysql":      func(c *store.Config) { c.Driver, c.DSN = store.MySQL, "user:hunter2@nowhere" },
		"folder":     func(c *store.Config) { c.DSN = filepath.Join(t.TempDir(), "no", "such", "x.db") },
	} {
		cfg := store.Default()
		cfg.DSN = filepath.Join(t.TempDir(), "x.db")
		f(&cfg)
		s, err := store.Open(t.Context(), cfg, store.Deps{})
		if err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells the password", name)
		}
	}
}

// TestAFrozenWriterLosesItsLocks freezes nobody: it sees that the server was told how long it may last.
func TestAFrozenWriterLosesItsLocks(t *testing.T) {
	p := mysqlPlace(t)
	p.cfg.WriteTimeout = 3 * time.Second
	s := p.open(t)
	if n, err := s.WaitTimeout(t.Context()); err != nil || n != 15 {
		t.Errorf("the server waits %d s for a connection, %v, want 15", n, err)
	}
}
