package doctor_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/halley-im/halley/halley/internal/turnprobe"
	"github.com/halley-im/halley/kit/turnrest"
)

// outlived is what a server does when a relay's credential has ended: the code that it answers with, 0 for yes.
type outlived struct {
	// old: the relay is refreshed, and a peer permitted again, with the credential that has ended. renewed: with the same user's next one.
	old, renewed int
}

// TestRelayedFlowOutlivesItsCredential: packets never stop at the credential's end; with the next one, which clients get before, the relay stays.
func TestRelayedFlowOutlivesItsCredential(t *testing.T) {
	t.Parallel()
	certFile, keyFile, _ := turnCertificate(t, time.Hour)
	outlive(t, startPion(t, certFile, keyFile, nil), outlived{old: 401})
}

// TestRelayedFlowOutlivesItsCredentialAtCoturn: coturn knows a relay by the user name that it was made with, and asks for its secret only once. The next
// credential is for the next relay, which is what an ICE restart makes.
func TestRelayedFlowOutlivesItsCredentialAtCoturn(t *testing.T) {
	t.Parallel()
	binary := os.Getenv("HALLEY_TEST_TURNSERVER")
	if binary == "" {
		t.Skip("HALLEY_TEST_TURNSERVER names no coturn")
	}
	certFile, keyFile, _ := turnCertificate(t, time.Hour)
	// In life ten minutes: so that here, too, the credential is shown once more under a new nonce.
	outlive(t, startCoturn(t, binary, certFile, keyFile, "--stale-nonce=1"), outlived{renewed: 441})
}

func outlive(t *testing.T, urls map[string]string, want outlived) {
	t.Helper()
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			const life = 5 * time.Second
			begun := time.Now()
			call := relayFor(t, urls[transport], begun.Add(life))
			flow(t, call, peer)
			for time.Since(begun) < life+2*time.Second { // the user name has whole seconds
				flow(t, call, peer)
			}
			for what, err := range map[string]error{"refresh": call.Refresh(t.Context()), "permission": call.Permit(t.Context(), local)} {
				if got := answer(err); got != want.old {
					t.Errorf("%s with the credential that has ended: got %d (%v), want %d", what, got, err, want.old)
				}
			}
			flow(t, call, peer)

			next := time.Now().Add(time.Hour)
			call.Use(turnrest.Credential([]byte(turnKey), "ann", next))
			if err := call.Refresh(t.Context()); answer(err) != want.renewed {
				t.Errorf("refresh with the next credential: got %v, want %d", err, want.renewed)
			}
			// An ICE restart: beside the relay another one, then over that.
			restarted := relayFor(t, urls[transport], next)
			flow(t, restarted, peer)
			flow(t, call, peer)
			call.Close()
			flow(t, restarted, peer)
		})
	}
}

var local = netip.MustParseAddr("127.0.0.1")

// relayFor gets a relay with a credential of ann's that is good until expires.
func relayFor(t *testing.T, url string, expires time.Time) *turnprobe.Conn {
	t.Helper()
	s, err := turnprobe.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c, err := turnprobe.Dial(t.Context(), s, 5*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	user, password := turnrest.Credential([]byte(turnKey), "ann", expires)
	if err := c.Allocate(t.Context(), user, password); err != nil {
		t.Fatal(err)
	}
	if err := c.Permit(t.Context(), local); err != nil {
		t.Fatal(err)
	}
	return c
}

// flow has a packet go from the peer over the relay to the client, and one back. UDP may lose some.
func flow(t *testing.T, call *turnprobe.Conn, peer net.PacketConn) {
	t.Helper()
	said := fmt.Sprint("packet ", time.Now().UnixNano())
	buf := make([]byte, 1500)
	for range 20 {
		if _, err := peer.WriteTo([]byte(said), net.UDPAddrFromAddrPort(call.Relay)); err != nil {
			t.Fatal(err)
		}
		p, err := call.Receive(time.Now().Add(250 * time.Millisecond))
		if errors.Is(err, turnprobe.ErrSilent) || err == nil && string(p.Data) != said {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := call.Send(p.From, []byte(said)); err != nil {
			t.Fatal(err)
		}
		if err := peer.SetReadDeadline(time.Now().Add(250 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, from, err := peer.ReadFrom(buf); err == nil && string(buf[:n]) == said && from.String() == call.Relay.String() {
			return
		}
	}
	t.Fatal("no packet comes through the relay any more")
}

// answer is the code that a server refused with; 0: it didn't.
func answer(err error) int {
	if r := (*turnprobe.RefusedError)(nil); errors.As(err, &r) {
		return r.Code
	} else if err != nil {
		return -1
	}
	return 0
}
