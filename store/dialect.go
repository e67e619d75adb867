package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// dialect is where the databases differ.
type dialect struct {
	name string
	// many is whether one INSERT of many rows is faster than many prepared ones: over a network it is, in SQLite a prepared
	// statement of one row beats it.
	many bool
	// lookUp returns a statement that runs sel for all keys, which fill the placeholders of match.
	lookUp func(sel, match string, keys [][]any) (string, []any, error)
	// forUpdate ends a SELECT whose rows are to be locked. In SQLite the transaction has locked everything.
	forUpdate string
	// upsert returns the end of an INSERT that overwrites the columns of a row that has these keys.
	upsert func(keys, set []string) string
}

var mysqlDialect = dialect{
	name: MySQL, many: true, forUpdate: " FOR UPDATE", lookUp: mysqlLookUp,
	upsert: func(keys, set []string) string {
		if len(set) == 0 {
			// Nothing to overwrite: a no-op on the key, since IGNORE would hide other faults too.
			return " ON DUPLICATE KEY UPDATE " + keys[0] + " = " + keys[0]
		}
		parts := make([]string, len(set))
		for i, c := range set {
			// VALUES() is deprecated in MySQL 8, but its successor is unknown to MariaDB.
			parts[i] = c + " = VALUES(" + c + ")"
		}
		return " ON DUPLICATE KEY UPDATE " + strings.Join(parts, ", ")
	},
}

var sqliteDialect = dialect{
	name: SQLite, lookUp: sqliteLookUp,
	upsert: func(keys, set []string) string {
		on := " ON CONFLICT (" + strings.Join(keys, ", ") + ") DO "
		if len(set) == 0 {
			return on + "NOTHING"
		}
		parts := make([]string, len(set))
		for i, c := range set {
			parts[i] = c + " = excluded." + c
		}
		return on + "UPDATE SET " + strings.Join(parts, ", ")
	},
}

// mysqlLookUp asks by IN where the keys differ in one column alone, which is twice as fast as the join.
func mysqlLookUp(sel, match string, keys [][]any) (string, []any, error) {
	if len(keys) == 1 {
		return sel + " WHERE " + match, keys[0], nil
	}
	if text, args := in(match, keys); text != "" {
		return sel + " WHERE " + text, args, nil
	}
	one := "SELECT ? AS c0"
	for i := 1; i < len(keys[0]); i++ {
		one += fmt.Sprintf(", ? AS c%d", i)
	}
	args := make([]any, 0, len(keys)*len(keys[0]))
	for _, k := range keys {
		for _, v := range k {
			if s, ok := v.(string); ok {
				// As bytes, which the columns are: a text would have to be converted, and no index is used then.
				v = []byte(s)
			}
			args = append(args, v)
		}
	}
	return joined(sel, one+strings.Repeat(" UNION ALL "+one, len(keys)-1), "STRAIGHT_JOIN", match), args, nil
}

// in returns the match by IN; empty where that isn't possible.
func in(match string, keys [][]any) (string, []any) {
	parts := strings.Split(match, " AND ")
	if len(parts) != len(keys[0]) {
		return "", nil
	}
	varies := -1
	for i, part := range parts {
		if !strings.HasSuffix(part, " = ?") {
			return "", nil
		}
		for _, k := range keys {
			if k[i] != keys[0][i] {
				if varies >= 0 {
					return "", nil
				}
				varies = i
				break
			}
		}
	}
	if varies < 0 {
		return match, keys[0]
	}
	var args []any
	for i := range parts {
		if i != varies {
			args = append(args, keys[0][i])
			continue
		}
		parts[i] = strings.TrimSuffix(parts[i], "= ?") + "IN (?" + strings.Repeat(", ?", len(keys)-1) + ")"
		for _, k := range keys {
			args = append(args, k[i])
		}
	}
	return strings.Join(parts, " AND "), args
}

// sqliteLookUp gives the keys as one JSON array, so that the text is the same for any number of them and stays prepared.
func sqliteLookUp(sel, match string, keys [][]any) (string, []any, error) {
	if len(keys) == 1 {
		return sel + " WHERE " + match, keys[0], nil
	}
	list, err := json.Marshal(keys)
	if err != nil {
		return "", nil, err
	}
	columns := "value ->> 0 AS c0"
	for i := 1; i < len(keys[0]); i++ {
		columns += fmt.Sprintf(", value ->> %d AS c%d", i, i)
	}
	return joined(sel, "SELECT "+columns+" FROM json_each(?)", "CROSS JOIN", match), []any{string(list)}, nil
}

// openMySQL returns connections to MySQL. patient ones wait for an answer as long as it takes: changing a large table does.
func openMySQL(c Config, patient bool) (*sql.DB, error) {
	m, err := mysql.ParseDSN(c.DSN)
	if err != nil {
		// The driver's text may repeat the DSN.
		return nil, errDSN
	}
	// One round trip for a statement, none for preparing it.
	m.InterpolateParams = true
	// A primary that has become a replica refuses writes, by an error of its own: its connections are given up, so that the name
	// leads to the new one.
	m.RejectReadOnly = true
	// Each row that matches counts, also where nothing changes in it.
	m.ClientFoundRows = true
	if m.Timeout == 0 {
		m.Timeout = c.WriteTimeout
	}
	// COMMIT and ROLLBACK heed no context: of a server that has gone silent they would wait until TCP gives up, for ever if it is
	// frozen, and the partition, and with it the consumer group, would wait for them.
	limit := max(c.ReadTimeout, c.WriteTimeout)
	if m.ReadTimeout == 0 {
		m.ReadTimeout = limit
	}
	if m.WriteTimeout == 0 {
		m.WriteTimeout = limit
	}
	if patient {
		m.ReadTimeout, m.WriteTimeout = 0, 0
	}
	// What it says it returns, too; by itself it would write to the log past ours.
	m.Logger = &mysql.NopLogger{}
	if m.Params == nil {
		m.Params = map[string]string{}
	}
	// Strict: what doesn't fit is an error and never cut.
	m.Params["sql_mode"] = "'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"
	// A writer that is frozen in the middle of a transaction would keep its locks, and with them its conversations, for hours.
	m.Params["wait_timeout"] = fmt.Sprint(frozenSeconds(c))
	m.Params["innodb_lock_wait_timeout"] = fmt.Sprint(max(1, int(c.WriteTimeout.Seconds())))
	connector, err := mysql.NewConnector(m)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	db := sql.OpenDB(readCommitted{connector})
	db.SetMaxOpenConns(c.MaxConns)
	db.SetMaxIdleConns(c.MaxConns)
	// Before a server or a proxy between ends them, and so that they spread over servers that were added.
	db.SetConnMaxLifetime(connLife)
	// Before the server ends them for it.
	db.SetConnMaxIdleTime(time.Duration(frozenSeconds(c)) * time.Second / 2)
	return db, nil
}

// connLife is how old a connection to MySQL gets.
const connLife = 5 * time.Minute

// frozenSeconds is how long MySQL waits for a connection's next statement: far longer than any transaction may take.
func frozenSeconds(c Config) int { return max(5, int(5*c.WriteTimeout/time.Second)) }

// readCommitted sets the isolation of each new connection. As a parameter of the DSN it would need the name of a variable
// that MySQL and MariaDB spell differently; in BeginTx it would cost a round trip each time.
type readCommitted struct{ driver.Connector }

// Connect opens a connection.
func (r readCommitted) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := r.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	x, ok := conn.(driver.ExecerContext)
	if !ok {
		return nil, errors.Join(errors.New("store: the driver can't set the isolation"), conn.Close())
	}
	if _, err := x.ExecContext(ctx, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", nil); err != nil {
		return nil, errors.Join(fmt.Errorf("set isolation: %w", err), conn.Close())
	}
	return conn, nil
}

func openSQLite(c Config) (write, read *sql.DB, err error) {
	if strings.ContainsAny(c.DSN, "?#") {
		return nil, nil, errors.New("store: dsn: a file's path, without parameters")
	}
	pragmas := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", c.WriteTimeout.Milliseconds()),
		"journal_mode(WAL)",
		// A commit is on the disk when it returns.
		"synchronous(FULL)",
		"cache_size(-16384)",
		// A WAL that a burst made large is cut back.
		"journal_size_limit(67108864)",
	}}
	open := func(extra url.Values, conns int) (*sql.DB, error) {
		for k, v := range pragmas {
			extra[k] = append(extra[k], v...)
		}
		db, err := sql.Open("sqlite", sqliteURI(c.DSN, extra))
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		db.SetMaxOpenConns(conns)
		db.SetMaxIdleConns(conns)
		return db, nil
	}
	// IMMEDIATE: a transaction that began by reading could not become a writer once another one has written.
	if write, err = open(url.Values{"_txlock": {"immediate"}}, 1); err != nil {
		return nil, nil, err
	}
	if read, err = open(url.Values{"_pragma": {"query_only(1)"}}, min(c.MaxConns, max(4, runtime.GOMAXPROCS(0)))); err != nil {
		return nil, nil, errors.Join(err, write.Close())
	}
	return write, read, nil
}

func sqliteURI(path string, params url.Values) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + params.Encode()
}
