package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/storetest"
)

// door is an address in front of a database, which lets nobody in until it is open.
type door struct {
	net.Listener
	open atomic.Bool
	wg   sync.WaitGroup
}

func newDoor(t *testing.T, to string) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{Listener: l}
	d.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			if !d.open.Load() {
				_ = in.Close()
				continue
			}
			d.wg.Go(func() {
				defer in.Close()
				out, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer out.Close()
				d.wg.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
				_, _ = io.Copy(out, in)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		d.wg.Wait()
	})
	return d
}

// A role starts without its database, and has it as soon as it answers. Needs a MySQL for the second half.
func TestRoleStartsWithoutItsDatabase(t *testing.T) {
	c := storetest.Config(t)
	there := c.Driver == store.MySQL
	if !there {
		c.Driver, c.DSN = store.MySQL, "root@tcp(127.0.0.1:1)/halley"
	}
	before, rest, _ := strings.Cut(c.DSN, "tcp(")
	addr, after, ok := strings.Cut(rest, ")")
	if !ok {
		t.Fatalf("%s: no DSN over TCP", c.DSN)
	}
	d := newDoor(t, addr)
	c.DSN = before + "tcp(" + d.Addr().String() + ")" + after

	p := newProcess(slog.New(slog.DiscardHandler))
	defer p.close()
	s, err := openStore(t.Context(), p, c, 50*time.Millisecond, p.log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Users(t.Context(), "default", []string{"ann"}); err == nil || p.health.Needs["database"](t.Context()) == nil {
		t.Errorf("without a database: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.group.Run(ctx) }()
	if there {
		d.open.Store(true)
		kittest.Eventually(t, 20*time.Second, func() bool { return p.health.Needs["database"](t.Context()) == nil })
		if _, err := s.Users(t.Context(), "default", []string{"ann"}); err != nil {
			t.Error(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDatabaseThatRefusesStopsTheStart(t *testing.T) {
	c := storetest.Config(t)
	if c.Driver != store.MySQL {
		c.DSN = t.TempDir() // no file
	} else {
		c.DSN = c.DSN[:strings.LastIndex(c.DSN, "/")+1] + "no_such_database"
	}
	p := newProcess(slog.New(slog.DiscardHandler))
	defer p.close()
	began := time.Now()
	if _, err := openStore(t.Context(), p, c, time.Minute, p.log); err == nil || !strings.Contains(err.Error(), "can't be used") || time.Since(began) > 30*time.Second {
		t.Errorf("got %v after %s", err, time.Since(began))
	}
}
