//go:build !linux

package session

// HungUp reports whether the client has ended its side of the connection. Here that can't be told before all that it sent was read.
func (s *Session) HungUp() bool { return false }
