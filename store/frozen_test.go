package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

// stuck is a way to MySQL on which what a client says from some words on gets no further, as where a server is frozen or its host
// has lost power: the connection stays open, and nothing comes back.
type stuck struct {
	at    atomic.Pointer[[]byte]
	conns sync.Map
}

func (w *stuck) from(words string) {
	b := []byte(words)
	w.at.Store(&b)
}

// dial returns a connection to address by way of w.
func (w *stuck) dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	w.conns.Store(c, nil)
	w.conns.Store(server, nil)
	go func() { _, _ = io.Copy(server, c) }()
	go func() {
		defer c.Close()
		buf := make([]byte, 1<<20)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			if at := w.at.Load(); at != nil && bytes.Contains(buf[:n], *at) {
				_, _ = io.Copy(io.Discard, server)
				return
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	return client, nil
}

func (w *stuck) close() {
	w.conns.Range(func(c, _ any) bool { return c.(net.Conn).Close() == nil || true })
}

// TestNothingWaitsForADatabaseThatIsFrozen has MariaDB go silent at each point of a transaction.
func TestNothingWaitsForADatabaseThatIsFrozen(t *testing.T) {
	p := mysqlPlace(t)
	p.cfg.WriteTimeout, p.cfg.ReadTimeout = 500*time.Millisecond, 500*time.Millisecond
	w := &stuck{}
	mysql.RegisterDialContext("stuck", func(ctx context.Context, address string) (net.Conn, error) { return w.dial(ctx, address) })
	defer mysql.DeregisterDialContext("stuck")
	m, err := mysql.ParseDSN(p.cfg.DSN)
	if err != nil {
		t.Fatal(err)
	}
	m.Net = "stuck"
	p.cfg.DSN = m.FormatDSN()
	s, err := store.Open(t.Context(), p.cfg, store.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	k := talk{t: t, s: s, id: "d/ann/bob"}
	// The limit is short: what should get through may take a few tries on a slow machine.
	through := func(body string) {
		t.Helper()
		p, deadline := k.say("ann", body), time.Now().Add(patience)
		for {
			out, err := s.Append(t.Context(), []conversation.Proposal{p})
			if err == nil && out[0].Code == nil {
				return
			}
			if err == nil || time.Now().After(deadline) {
				t.Fatalf("%s: got %+v, %v", body, out, err)
			}
		}
	}
	through("one")
	for _, words := range []string{"START TRANSACTION", "FOR UPDATE", "INSERT INTO entries", "\x03COMMIT", "\x03ROLLBACK"} {
		w.from(words)
		if words == "\x03ROLLBACK" {
			s.SetFault(func(step string) error {
				if step == "rows" {
					return errFault
				}
				return nil
			})
		}
		done := make(chan error, 1)
		go func() {
			_, err := s.Append(context.WithoutCancel(t.Context()), []conversation.Proposal{k.say("ann", "two")})
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%q: no error", words)
			}
		case <-time.After(patience):
			t.Errorf("%q: still waiting", words)
			w.close()
			<-done
		}
		s.SetFault(nil)
	}
	// It is itself again.
	w.at.Store(nil)
	through("three")
	if err := s.Close(); err != nil && !errors.Is(err, mysql.ErrInvalidConn) {
		t.Error(err)
	}
}
