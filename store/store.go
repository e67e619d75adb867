// Package store is the only code that knows the SQL tables: conversations, their members and entries, what concerns one uid
// alone, people, and the queue of webhooks. It runs on SQLite and on MySQL or MariaDB with the same results.
//
// Append is the way of entries into the tables: job gives it a batch, the judge of package conversation decides by what the
// tables hold, and one transaction keeps it. Everything else that logic and job need are methods that read, or write rows of
// one uid. There is no cache in here, and no goroutine: the tables decide.
//
// Two kinds of errors come out of it. A proposal's own fault is in its Outcome. Whatever is returned as an error is the
// database's: nothing is known to have happened, the caller waits and repeats, and a repeat of what was stored after all gets
// the same outcome again.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-im/halley/store/conversation"
)

// Deps is what a store is given.
type Deps struct {
	Log *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
}

// Store is a database that is open and up to date. Safe for concurrent use.
type Store struct {
	cfg     Config
	dialect *dialect
	log     *slog.Logger
	metrics *metrics
	// write has one connection for SQLite; read and write are the same for MySQL.
	write, read *sql.DB
	writeStmts  stmts
	readStmts   stmts
	migrated    atomic.Bool
	// fault is called between the steps of a transaction; tests let it fail there. Nil otherwise.
	fault func(step string) error
	// rosterPage is rosterPage, or less in tests.
	rosterPage int
	// trace is called for each statement; tests ask the database how it carries it out. Nil otherwise.
	trace func(text string, args []any)
}

// Open opens the database and brings its tables up to date. The caller closes the store.
func Open(ctx context.Context, c Config, d Deps) (*Store, error) {
	s, err := New(c, d)
	if err != nil {
		return nil, err
	}
	if err := s.Migrate(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// New returns a store whose database needn't be there yet: until Migrate has succeeded each call fails as it does while the database
// is away. The caller closes it.
func New(c Config, d Deps) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.DSN == "" {
		return nil, errors.New("store: dsn: missing")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: c, log: d.Log, metrics: newMetrics(), rosterPage: rosterPage}
	var err error
	if c.Driver == MySQL {
		s.dialect = &mysqlDialect
		s.write, err = openMySQL(c, false)
		s.read = s.write
	} else {
		s.dialect = &sqliteDialect
		s.write, s.read, err = openSQLite(c)
	}
	if err != nil {
		return nil, err
	}
	s.writeStmts.db, s.readStmts.db = s.write, s.read
	if err := s.metrics.register(d.Metrics); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Migrate brings the tables up to date. Several processes may do so at once: one migrates, the others wait.
func (s *Store) Migrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.MigrateTimeout)
	defer cancel()
	if err := s.migrate(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	s.migrated.Store(true)
	return nil
}

// errNotMigrated is the database's own kind of error: it is waited out.
var errNotMigrated = errors.New("store: the tables aren't known to be up to date yet")

func (s *Store) ready() error {
	if !s.migrated.Load() {
		return errNotMigrated
	}
	return nil
}

// Close closes the database. Nothing may be under way.
func (s *Store) Close() error {
	err := errors.Join(s.writeStmts.close(), s.readStmts.close(), s.write.Close())
	if s.read != s.write {
		err = errors.Join(err, s.read.Close())
	}
	return err
}

// Rules returns what the judge goes by.
func (s *Store) Rules() conversation.Rules { return s.cfg.Rules }

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.ready(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	_, err := s.read.ExecContext(ctx, "SELECT 1")
	return err
}

// step lets a test put a fault here.
func (s *Store) step(name string) error {
	if s.fault == nil {
		return nil
	}
	return s.fault(name)
}

// saw lets a test see a statement.
func (s *Store) saw(text string, args []any) {
	if s.trace != nil {
		s.trace(text, args)
	}
}
