package comet_test

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
)

// FuzzInbound sends a stranger's bytes on the plain listeners, as the stream of a TCP client, as WebSocket
// frames after an upgrade, and as an upgrade request, before and after authentication; a bystander must go on
// undisturbed and the connection must end in time.
func FuzzInbound(f *testing.F) {
	auth := frame.Append(nil, frame.Frame{Ver: 1, Op: frame.OpAuth, Seq: 1, Body: []byte(`{"token":"a"}`)})
	f.Add(uint8(0), auth)
	f.Add(uint8(0), []byte{})
	f.Add(uint8(0), []byte{0, 0, 0, 16, 0, 16})
	f.Add(uint8(1), frame.Append(nil, frame.Frame{Op: frame.OpSubscribe, Body: []byte("1,2,2147483648")}))
	f.Add(uint8(1), frame.Append(frame.Append(nil, frame.Frame{Op: frame.OpRequest, Body: []byte("{")}), frame.Frame{Op: -5, Seq: -1}))
	f.Add(uint8(1), []byte{0xff, 0xff, 0xff, 0xff, 0, 16, 0, 1, 0, 0, 0, 100, 0, 0, 0, 0})
	f.Add(uint8(2), maskedFrame(0x82, auth))
	f.Add(uint8(2), maskedFrame(0x88, []byte{3, 232}))
	f.Add(uint8(3), maskedFrame(0x82, frame.Append(nil, frame.Frame{Op: frame.OpHeartbeat})))
	f.Add(uint8(3), append(maskedFrame(0x02, []byte("abc")), maskedFrame(0x89, []byte("ping"))...))
	f.Add(uint8(3), []byte{0x82, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Add(uint8(4), []byte("GET /sub HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"))
	f.Add(uint8(4), []byte("GET /sub HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	n := start(f, with(func(c *comet.Config) {
		c.FrameTimeout, c.HandshakeTimeout = 50*time.Millisecond, 5*time.Second // the bystander, and an upgrade, must be through by then
		c.HandshakeRate, c.RequestRate = 0, 0
	}))
	bystander := n.login("tcp", `{"mid":1}`)
	const upgrade = "GET /sub HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	f.Fuzz(func(t *testing.T, way uint8, b []byte) {
		way %= 5
		addr := n.tcp
		if way >= 2 {
			addr = n.ws
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		switch way {
		case 1:
			conn.Write(auth)
		case 2, 3:
			io.WriteString(conn, upgrade)
			readUntil(t, conn, "\r\n\r\n")
			if way == 3 {
				conn.Write(maskedFrame(0x82, auth))
			}
		}
		conn.Write(b)
		conn.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Error("the connection doesn't end")
		}
		seq := int32(binary.BigEndian.Uint32(append([]byte{way, 0, 0}, byte(len(b)))))
		bystander.t = t
		bystander.send(frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: seq})
		if got := bystander.next(); got.Op != frame.OpHeartbeatReply || got.Seq != seq {
			t.Errorf("bystander got op %v seq %d", got.Op, got.Seq)
		}
	})
}

func readUntil(t testing.TB, r io.Reader, end string) {
	t.Helper()
	var got []byte
	one := make([]byte, 1)
	for !strings.HasSuffix(string(got), end) {
		if _, err := r.Read(one); err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, one...)
	}
}
