// Package storetest gives the tests of other modules a database of their own.
package storetest

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // the driver "mysql"

	"github.com/halley-im/halley/store"
)

// EnvMySQL names a MySQL or MariaDB server by a DSN without database, of a user who may create databases:
// root@tcp(127.0.0.1:3306)/
const EnvMySQL = "HALLEY_TEST_MYSQL"

// patience is the time limit of a statement and of a transaction: a process that stands still for seconds, as one among many does, is no failure of the
// database.
const patience = 30 * time.Second

// Config returns the settings of an empty database that goes away with the test: on the server that EnvMySQL names, else a file.
func Config(t testing.TB) store.Config {
	t.Helper()
	cfg := store.Default()
	cfg.ReadTimeout, cfg.WriteTimeout = patience, patience
	dsn := os.Getenv(EnvMySQL)
	if dsn == "" {
		cfg.DSN = filepath.Join(t.TempDir(), "halley.db")
		return cfg
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
		_ = db.Close()
	})
	cfg.Driver, cfg.DSN, cfg.MaxConns = store.MySQL, dsn+name, 8
	return cfg
}

// Open opens a database until the test ends. Several may be opened by the same settings.
func Open(t testing.TB, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), cfg, store.Deps{})
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
