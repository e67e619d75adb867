package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/halley-im/halley/store/conversation"
)

// Drivers.
const (
	SQLite = "sqlite"
	MySQL  = "mysql"
)

// Config says which database, and what the rules of conversations are.
type Config struct {
	// Driver is sqlite or mysql; MariaDB and what speaks MySQL's protocol are mysql.
	Driver string `help:"Database: sqlite or mysql (MariaDB; of TiDB and Vitess docs/scale.md says what is known)." default:"sqlite"`
	// DSN is a file's path for sqlite, a data source name of go-sql-driver for mysql. It may hold a password. Empty: there is no
	// database.
	DSN string `name:"dsn" help:"Path of the file for sqlite, which is for processes on one machine; user:password@tcp(host:3306)/halley for mysql. Empty: no conversations; halley all has a file in its data folder." default:""`
	// MaxConns is the most connections to MySQL, and the most concurrent readers of SQLite, which has one writer.
	MaxConns int `help:"Most connections to the database." default:"16"`
	// ReadTimeout bounds one read of several statements.
	ReadTimeout time.Duration `help:"Time limit for a read." default:"2s"`
	// WriteTimeout bounds one transaction; waiting for the other writer is in it.
	WriteTimeout time.Duration `help:"Time limit for a transaction." default:"2s"`
	// MigrateTimeout bounds the migrations at start; waiting for another process that migrates is in it.
	MigrateTimeout time.Duration `help:"Time limit for the migrations at start." default:"5m"`
	// Rules are what the judge of entries goes by.
	Rules conversation.Rules `embed:""`
}

// mostNames is how many uids of the longest kind an entry's detail holds, with an announcement beside them: the column takes 64 KiB, and
// what doesn't fit would be refused after it was accepted.
const mostNames = 700

// Default returns what the settings are where nothing is said.
func Default() Config {
	return Config{
		Driver: SQLite, MaxConns: 16, ReadTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second,
		MigrateTimeout: 5 * time.Minute, Rules: conversation.DefaultRules(),
	}
}

// errDSN says nothing of the DSN itself: it may hold a password.
var errDSN = errors.New("store: dsn: not user:password@tcp(host:port)/database")

func isDSN(s string) bool {
	c, err := mysql.ParseDSN(s)
	return err == nil && c.DBName != ""
}

// Validate reports the first setting that can't be.
func (c *Config) Validate() error {
	switch {
	case c.Driver != SQLite && c.Driver != MySQL:
		return fmt.Errorf("store: driver: %q is neither sqlite nor mysql", c.Driver)
	case c.Driver == MySQL && c.DSN != "" && !isDSN(c.DSN):
		return errDSN
	case c.MaxConns < 1:
		return errors.New("store: max-conns: at least 1")
	case c.ReadTimeout <= 0 || c.WriteTimeout <= 0 || c.MigrateTimeout <= 0:
		return errors.New("store: read-timeout, write-timeout and migrate-timeout must be more than 0")
	case c.Rules.EditWithin < 0 || c.Rules.RecallWithin < 0:
		return errors.New("store: edit-within and recall-within must not be less than 0")
	case c.Rules.MaxMembers < 1 || c.Rules.MaxNamed < 1 || c.Rules.MaxMentions < 0:
		return errors.New("store: max-members and max-named must be at least 1, max-mentions at least 0")
	case c.Rules.MaxNamed > mostNames || c.Rules.MaxMentions > mostNames:
		return fmt.Errorf("store: max-named and max-mentions must be at most %d: an entry's row holds no more names", mostNames)
	}
	return nil
}
