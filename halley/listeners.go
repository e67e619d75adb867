package main

import (
	"net"
	"sync"
)

// bothListener hands out what two listeners accept: one HTTP server then serves HTTP and HTTPS. Its address is
// the first one's.
type bothListener struct {
	first, second net.Listener
	accepted      chan acceptance
	closed        chan struct{}
	once          sync.Once
	wg            sync.WaitGroup
}

type acceptance struct {
	c   net.Conn
	err error
}

// both joins two listeners. Closing it closes them and ends its two goroutines.
func both(first, second net.Listener) net.Listener {
	b := &bothListener{first: first, second: second, accepted: make(chan acceptance), closed: make(chan struct{})}
	for _, l := range []net.Listener{first, second} {
		b.wg.Go(func() { b.pump(l) })
	}
	return b
}

// pump accepts until l is closed. A passing error, such as too many open files, is the server's to wait out.
func (b *bothListener) pump(l net.Listener) {
	for {
		c, err := l.Accept()
		select {
		case b.accepted <- acceptance{c, err}:
		case <-b.closed:
			if c != nil {
				c.Close()
			}
			return
		}
	}
}

func (b *bothListener) Accept() (net.Conn, error) {
	select {
	case a := <-b.accepted:
		return a.c, a.err
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

func (b *bothListener) Addr() net.Addr { return b.first.Addr() }

func (b *bothListener) Close() error {
	err := net.ErrClosed
	b.once.Do(func() {
		close(b.closed)
		err = b.first.Close()
		if e := b.second.Close(); err == nil {
			err = e
		}
		b.wg.Wait()
	})
	return err
}
