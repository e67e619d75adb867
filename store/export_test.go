package store

import (
	"context"
	"database/sql"
)

// SetFault lets f fail a transaction after each of its steps: begun, lock, read, judge, entries, rows, commit (before it) and
// committed (after it).
func (s *Store) SetFault(f func(step string) error) { s.fault = f }

// SetRosterPage sets how many members of one conversation are read at once.
func (s *Store) SetRosterPage(n int) { s.rosterPage = n }

// SetTrace lets f see each statement.
func (s *Store) SetTrace(f func(text string, args []any)) { s.trace = f }

// Fill puts rows into a table as fast as can be.
func (s *Store) Fill(ctx context.Context, table string, columns []string, rows [][]any) error {
	return s.transact(ctx, func(ctx context.Context, c *conn) error { return c.insert(ctx, table, columns, rows, "") })
}

// Explain asks the database how it would carry out a statement, and hands each line to f by column.
func (s *Store) Explain(ctx context.Context, text string, args []any, f func(map[string]string)) error {
	explain := "EXPLAIN "
	if s.dialect == &sqliteDialect {
		explain = "EXPLAIN QUERY PLAN "
	}
	rows, err := s.read.QueryContext(ctx, explain+text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	for rows.Next() {
		vals := make([]sql.NullString, len(columns))
		to := make([]any, len(vals))
		for i := range vals {
			to[i] = &vals[i]
		}
		if err := rows.Scan(to...); err != nil {
			return err
		}
		line := map[string]string{}
		for i, c := range columns {
			line[c] = vals[i].String
		}
		f(line)
	}
	return rows.Err()
}

// Count brings the database's statistics up to date.
func (s *Store) Count(ctx context.Context, tables ...string) error {
	for _, t := range tables {
		text := "ANALYZE " + t //nolint:misspell // SQL's word
		if s.dialect == &mysqlDialect {
			text = "ANALYZE TABLE " + t //nolint:misspell // SQL's word
		}
		if _, err := s.write.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// IsRecords reports whether an error is a record's own fault.
func IsRecords(err error) bool { return faultOf(err) == records }

// WaitTimeout returns for how many seconds MySQL waits for the next statement of a connection.
func (s *Store) WaitTimeout(ctx context.Context) (n int, err error) {
	err = s.write.QueryRowContext(ctx, "SELECT @@SESSION.wait_timeout").Scan(&n)
	return n, err
}
