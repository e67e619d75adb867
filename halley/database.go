package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/halley-im/halley/halley/internal/private"
	"github.com/halley-im/halley/store"
)

// allDatabase is the file of halley all's conversations in its data folder.
const allDatabase = "conversations.db"

// openStore opens the database and brings its tables up to date, alone among all processes. It waits for one that is still
// starting. Nil where none is set: there are no conversations then.
func openStore(ctx context.Context, c store.Config, limit time.Duration, m prometheus.Registerer, log *slog.Logger) (*store.Store, error) {
	if c.DSN == "" {
		log.Info("no database is set, so there are no conversations: store.dsn (HALLEY_STORE_DSN) sets one")
		return nil, nil
	}
	end := time.Now().Add(limit)
	for {
		s, err := store.Open(ctx, c, store.Deps{Log: log, Metrics: m})
		if err == nil {
			return s, nil
		}
		// What is wrong with a file stays wrong.
		if c.Driver == store.SQLite || ctx.Err() != nil || time.Now().After(end) {
			return nil, fmt.Errorf("the database can't be used: start it, or set store.dsn (HALLEY_STORE_DSN); `halley doctor` looks closer: %w", err)
		}
		log.Warn("database does not answer yet", "err", err)
		select {
		case <-ctx.Done():
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

func needStore(s *store.Store) private.Check {
	return func(ctx context.Context) error { return s.Ping(ctx) }
}
