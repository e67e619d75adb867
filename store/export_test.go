package store

// SetFault lets f fail a transaction after each of its steps: begun, lock, read, judge, entries, rows, commit (before it) and
// committed (after it).
func (s *Store) SetFault(f func(step string) error) { s.fault = f }
