package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Report is what Examine has found.
type Report struct {
	// Version is the database's own word for it.
	Version string
	// Migrated is the version of the tables, 0 where there are none yet; Latest is the one that this program makes.
	Migrated, Latest int64
	// Durable is false where a commit is not on the disk when it returns.
	Durable bool
	// MaxPacketBytes is the longest statement that the server takes; 0: any.
	MaxPacketBytes int64
	// Took is the time of one round trip.
	Took time.Duration
}

// mysqlNoTable is MySQL's number for a table that isn't there.
const mysqlNoTable = 1146

// Examine looks at a database and changes nothing. An error says that it can't be used.
func Examine(ctx context.Context, c Config) (Report, error) {
	var r Report
	if err := c.Validate(); err != nil {
		return r, err
	}
	var err error
	if r.Latest, err = latest(c.Driver); err != nil {
		return r, err
	}
	version, durable := "SELECT VERSION()", "SELECT @@innodb_flush_log_at_trx_commit = 1, @@max_allowed_packet"
	var db *sql.DB
	if c.Driver == MySQL {
		db, err = openMySQL(c, false)
	} else {
		version, durable = "SELECT 'SQLite ' || sqlite_version()", "SELECT 1, 0" // durable is what every connection asks for
		if _, err := os.Stat(c.DSN); errors.Is(err, fs.ErrNotExist) {
			r.Durable = true
			if _, err := os.Stat(filepath.Dir(c.DSN)); err != nil {
				return r, fmt.Errorf("folder of the database: %w", err)
			}
			return r, nil
		}
		db, err = sql.Open("sqlite", sqliteURI(c.DSN, url.Values{"mode": {"ro"}}))
	}
	if err != nil {
		return r, err
	}
	defer db.Close()
	if err := db.QueryRowContext(ctx, version).Scan(&r.Version); err != nil {
		return r, err
	}
	began := time.Now()
	if err := db.QueryRowContext(ctx, durable).Scan(&r.Durable, &r.MaxPacketBytes); err != nil {
		return r, err
	}
	r.Took = time.Since(began)
	err = db.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM "+migrationsTable).Scan(&r.Migrated)
	var m *mysql.MySQLError
	if errors.As(err, &m) && m.Number == mysqlNoTable || err != nil && strings.Contains(err.Error(), "no such table") {
		return r, nil
	}
	return r, err
}

// latest returns the version of the newest migration.
func latest(driver string) (int64, error) {
	files, err := fs.ReadDir(migrations, "migrations/"+driver)
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("no migrations: %w", err)
	}
	number, _, _ := strings.Cut(files[len(files)-1].Name(), "_")
	return strconv.ParseInt(number, 10, 64)
}
