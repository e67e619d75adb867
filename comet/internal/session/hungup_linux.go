package session

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// HungUp reports whether the client has ended its side of the connection, even if what it sent before isn't read yet. Where that can't be
// told it is false.
func (s *Session) HungUp() (up bool) {
	sc, ok := s.sock().(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		up = err == nil && n > 0
	})
	return err != nil || up
}
