package store

import "context"

// SetFault lets f fail a transaction after each of its steps: begun, lock, read, judge, entries, rows, commit (before it) and
// committed (after it).
func (s *Store) SetFault(f func(step string) error) { s.fault = f }

// WaitTimeout returns for how many seconds MySQL waits for the next statement of a connection.
func (s *Store) WaitTimeout(ctx context.Context) (n int, err error) {
	err = s.write.QueryRowContext(ctx, "SELECT @@SESSION.wait_timeout").Scan(&n)
	return n, err
}
