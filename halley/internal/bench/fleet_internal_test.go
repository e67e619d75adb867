//go:build linux

package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/halley-im/halley/proto/frame"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire returns count pushes as they come from a comet, in batches of several over WebSocket.
func wire(ws bool, count int) []byte {
	var b []byte
	for n := 0; n < count; {
		var frames []frame.Frame
		for range 1 + rand.IntN(5) {
			if n == count {
				break
			}
			frames = append(frames, frame.Frame{Ver: frame.Ver, Op: op, Body: payload{run: 1, seq: uint32(n), sent: now()}.append(nil)})
			n++
		}
		if !ws {
			for _, f := range frames {
				b = frame.Append(b, f)
			}
			continue
		}
		batch := frame.AppendBatch(nil, frames...)
		if len(batch) < 126 {
			b = append(b, 0x82, byte(len(batch)))
		} else {
			b = append(b, 0x82, 126, byte(len(batch)>>8), byte(len(batch)))
		}
		b = append(b, batch...)
	}
	return b
}

func TestFleetReadsFramesHoweverTheyAreCut(t *testing.T) {
	for name, ws := range map[string]bool{"tcp": false, "ws": true} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			f, err := NewFleet(FleetConfig{Comets: []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}, WS: ws, Bare: true, Sessions: 1, Sources: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := f.Connect(ctx, 1); err != nil {
				t.Fatal(err)
			}
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			const count = 500
			ty := newTally(1, 1, 1, count)
			f.Begin(ty)
			for b := wire(ws, count); len(b) > 0; {
				n := min(1+rand.IntN(200), len(b))
				if _, err := c.Write(b[:n]); err != nil {
					t.Fatal(err)
				}
				b = b[n:]
			}
			if got := drain(ctx, ty, count); got.unique != count || got.disorder != 0 || got.duplicates != 0 || got.alien != 0 {
				t.Errorf("got %+v, want %d in order", got, count)
			}
		})
	}
}

func TestFleetTellsOfARefusedSession(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	f, err := NewFleet(FleetConfig{
		Comets: []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}, Sessions: 3, Auth: func(int) []byte { return []byte("{}") },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Connect(t.Context(), 3); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want an error that says why", err)
	}
	f.Close()
	l.Close()
	<-done
}
