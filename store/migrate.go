package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed migrations
var migrations embed.FS

// migrationsTable says which migrations were done.
const migrationsTable = "halley_migrations"

// migrate brings the tables up to date, alone among all processes.
func (s *Store) migrate(ctx context.Context) (err error) {
	unlock, err := s.lockMigrations(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	files, err := fs.Sub(migrations, "migrations/"+s.dialect.name)
	if err != nil {
		return err
	}
	dialect, db := database.DialectSQLite3, s.write
	if s.dialect == &mysqlDialect {
		dialect = database.DialectMySQL
		if db, err = openMySQL(s.cfg, true); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
	}
	p, err := goose.NewProvider(dialect, db, files, goose.WithTableName(migrationsTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	done, err := p.Up(ctx)
	for _, m := range done {
		s.log.Info("tables migrated", "version", m.Source.Version, "took", m.Duration)
	}
	return err
}

// lockMigrations waits until no other process migrates this database, and keeps the others out until unlock. A process that dies
// unlocks by that.
func (s *Store) lockMigrations(ctx context.Context) (unlock func() error, err error) {
	var db *sql.DB
	if s.dialect == &sqliteDialect {
		// Beside the database, since the migration is a transaction of its own in there.
		if db, err = sql.Open("sqlite", sqliteURI(s.cfg.DSN+".lock", url.Values{"_txlock": {"exclusive"}})); err != nil {
			return nil, err
		}
	}
	if s.dialect == &mysqlDialect {
		// A connection of its own: one alone may be allowed, which the migrations need.
		if db, err = openMySQL(s.cfg, true); err != nil {
			return nil, err
		}
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	end := func(err error) error { return errors.Join(err, conn.Close(), db.Close()) }
	if s.dialect == &sqliteDialect {
		for {
			tx, err := conn.BeginTx(ctx, nil)
			if err == nil {
				return func() error { return end(tx.Rollback()) }, nil
			}
			if !busy(err) {
				return nil, end(err)
			}
			select {
			case <-ctx.Done():
				return nil, end(fmt.Errorf("another process migrates: %w", ctx.Err()))
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	// The connection that holds the lock has nothing to say while tables are changed.
	wait := func(ctx context.Context, seconds int) error {
		_, err := conn.ExecContext(ctx, fmt.Sprintf("SET SESSION wait_timeout = %d", seconds))
		return err
	}
	if err := wait(ctx, int(s.cfg.MigrateTimeout.Seconds())+60); err != nil {
		return nil, end(err)
	}
	// Named after the database, for names of locks are the server's.
	const name = "CONCAT('halley.migrate.', SHA1(DATABASE()))"
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK("+name+", ?)", int(s.cfg.MigrateTimeout.Seconds())).Scan(&got); err != nil {
		return nil, end(err)
	}
	if got.Int64 != 1 {
		return nil, end(errors.New("another process migrates"))
	}
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.WriteTimeout)
		defer cancel()
		_, err := conn.ExecContext(ctx, "DO RELEASE_LOCK("+name+")")
		return end(errors.Join(err, wait(ctx, frozenSeconds(s.cfg))))
	}, nil
}
