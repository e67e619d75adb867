package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/halley-im/halley/store"
)

// allDatabase is the file of halley all's conversations in its data folder.
const allDatabase = "conversations.db"

// openStore opens the database and brings its tables up to date, alone among all processes. It waits for one that is still
// starting, for limit at most: then p starts without it, and goes on trying. Pushes, rooms and calls need none, and what does is answered
// unavailable. Nil where none is set: there are no conversations then.
func openStore(ctx context.Context, p *process, c store.Config, limit time.Duration, log *slog.Logger) (*store.Store, error) {
	if c.DSN == "" {
		log.Info("no database is set, so there are no conversations: store.dsn (HALLEY_STORE_DSN) sets one")
		return nil, nil
	}
	s, err := store.New(c, store.Deps{Log: log, Metrics: p.metrics})
	if err != nil {
		return nil, err
	}
	p.later(s.Close)
	p.health.Needs["database"] = s.Ping
	bad := func(err error) error {
		return fmt.Errorf("the database can't be used: start it, or set store.dsn (HALLEY_STORE_DSN); `halley doctor` looks closer: %w", err)
	}
	end, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// What is wrong with a file stays wrong.
	err = migrate(end, s, log, func(err error) bool { return c.Driver == store.SQLite || store.Refused(err) })
	switch {
	case err == nil:
		return s, nil
	case c.Driver == store.SQLite || store.Refused(err) || ctx.Err() != nil:
		return nil, bad(err)
	}
	log.Error("database does not answer: started without it, conversations have to wait", "err", err)
	p.group.Add("database", func(ctx context.Context) error {
		err := migrate(ctx, s, log, func(error) bool { return false })
		if ctx.Err() != nil {
			return nil
		}
		log.Info("database answers")
		<-ctx.Done()
		return err
	})
	return s, nil
}

// migrate brings the tables up to date, and tries again until that succeeds, ctx ends, or final says of an error that it always will
// be there. It returns the last error.
func migrate(ctx context.Context, s *store.Store, log *slog.Logger, final func(error) bool) error {
	for {
		err := s.Migrate(ctx)
		if err == nil || final(err) || ctx.Err() != nil {
			return err
		}
		log.Warn("database does not answer yet", "err", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}

// inFolder returns the settings of halley all's own database, unless another one is set.
func inFolder(c store.Config, dir string) store.Config {
	if c.Driver == store.SQLite && c.DSN == "" {
		c.DSN = filepath.Join(dir, allDatabase)
	}
	return c
}
