package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/halley-im/halley/proto/frame"
)

// WebSocket opcodes (RFC 6455 section 5.2).
const (
	wsContinuation = 0
	wsText         = 1
	wsBinary       = 2
	wsClose        = 8
	wsPing         = 9
	wsPong         = 10
)

// UpgradeError is a server's refusal of the upgrade.
type UpgradeError struct{ Status int }

// Error names the status.
func (e *UpgradeError) Error() string {
	return fmt.Sprintf("upgrade refused with HTTP status %d", e.Status)
}

// DialWS connects to a comet's WebSocket listener and upgrades at path. The masking and framing are its own, so
// that a test may get them wrong.
func DialWS(addr, path string, header http.Header) (*Conn, error) {
	raw, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	c, err := upgrade(raw, addr, path, header)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c, nil
}

func upgrade(raw net.Conn, addr, path string, header http.Header) (*Conn, error) {
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce)
	key := base64.StdEncoding.EncodeToString(nonce)
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n", path, addr, key)
	if err := header.Write(&b); err != nil {
		return nil, err
	}
	b.WriteString("\r\n")
	if err := raw.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := raw.Write(b.Bytes()); err != nil {
		return nil, err
	}
	r := bufio.NewReader(raw)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		_ = resp.Body.Close()
		return nil, &UpgradeError{Status: resp.StatusCode}
	}
	// RFC 6455 section 4.2.2: proves that the server read this very request.
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if want := base64.StdEncoding.EncodeToString(sum[:]); resp.Header.Get("Sec-WebSocket-Accept") != want {
		return nil, fmt.Errorf("Sec-WebSocket-Accept: got %q, want %q", resp.Header.Get("Sec-WebSocket-Accept"), want)
	}
	c := &Conn{Transport: "ws", Raw: raw}
	early, err := r.Peek(r.Buffered())
	if err != nil {
		return nil, err
	}
	c.buf = bytes.Clone(early)
	return c, raw.SetDeadline(time.Time{})
}

// WriteMessage writes one whole WebSocket message or control frame, masked.
func (c *Conn) WriteMessage(opcode byte, payload []byte) error {
	return c.write(wsFrame(true, opcode, payload))
}

// WriteFragments writes a binary message in fragments of size bytes.
func (c *Conn) WriteFragments(payload []byte, size int) error {
	opcode := byte(wsBinary)
	for {
		n := min(size, len(payload))
		if err := c.write(wsFrame(n == len(payload), opcode, payload[:n])); err != nil {
			return err
		}
		payload = payload[n:]
		opcode = wsContinuation
		if len(payload) == 0 {
			return nil
		}
	}
}

// wsFrame encodes a masked WebSocket frame (RFC 6455 section 5.2).
func wsFrame(fin bool, opcode byte, payload []byte) []byte {
	var b []byte
	if fin {
		opcode |= 0x80
	}
	b = append(b, opcode)
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, mask[:]...)
	for i, p := range payload {
		b = append(b, p^mask[i%4])
	}
	return b
}

// parseWS moves the frames of whole WebSocket messages from buf to ready, and control frames to Control. Pings
// are answered.
func (c *Conn) parseWS() error {
	for {
		fin, opcode, payload, n, err := cutWSFrame(c.buf)
		if err != nil || n == 0 {
			return err
		}
		payload = bytes.Clone(payload)
		c.buf = c.buf[n:]
		if opcode >= wsClose {
			c.Control = append(c.Control, Control{Op: opcode, Body: payload})
			if opcode == wsPing {
				_ = c.WriteMessage(wsPong, payload)
			}
			continue
		}
		if opcode != wsContinuation {
			c.partial, c.partialOp = nil, opcode
		}
		c.partial = append(c.partial, payload...)
		if !fin {
			continue
		}
		message, text := c.partial, c.partialOp == wsText
		c.partial = nil
		if err := c.parseMessage(message, text); err != nil {
			return err
		}
	}
}

// parseMessage takes apart one message, which must be exactly one outer frame.
func (c *Conn) parseMessage(message []byte, text bool) error {
	outer, n, err := frame.Parse(message, nil)
	if err != nil {
		return fmt.Errorf("the server's message is no frame: %w", err)
	}
	if n != len(message) {
		return fmt.Errorf("the server's message has %d bytes, its frame %d", len(message), n)
	}
	if outer.Op != frame.OpBatch {
		c.ready = append(c.ready, Frame{Frame: outer, Text: text})
		return nil
	}
	if len(outer.Body) == 0 {
		c.ready = append(c.ready, Frame{Frame: outer, Text: text})
	}
	return frame.ParseBatch(outer.Body, func(f frame.Frame) bool {
		c.ready = append(c.ready, Frame{Frame: f, Wrapped: true, Text: text, BatchVer: outer.Ver, BatchSeq: outer.Seq})
		return true
	})
}

// cutWSFrame reads one unmasked WebSocket frame; n is 0 when it isn't whole yet.
func cutWSFrame(b []byte) (fin bool, opcode byte, payload []byte, n int, err error) {
	if len(b) < 2 {
		return false, 0, nil, 0, nil
	}
	if b[0]&0x70 != 0 {
		return false, 0, nil, 0, errors.New("the server set a reserved WebSocket bit")
	}
	if b[1]&0x80 != 0 {
		return false, 0, nil, 0, errors.New("the server masked a WebSocket frame")
	}
	size, at := uint64(b[1]), 2
	switch size {
	case 126:
		if len(b) < 4 {
			return false, 0, nil, 0, nil
		}
		size, at = uint64(binary.BigEndian.Uint16(b[2:])), 4
	case 127:
		if len(b) < 10 {
			return false, 0, nil, 0, nil
		}
		size, at = binary.BigEndian.Uint64(b[2:]), 10
	}
	if uint64(len(b)-at) < size {
		return false, 0, nil, 0, nil
	}
	end := at + int(size)
	return b[0]&0x80 != 0, b[0] & 0x0f, b[at:end], end, nil
}

// CloseCode returns the code of the close frame that came, or 0.
func (c *Conn) CloseCode() int {
	for _, f := range c.Control {
		if f.Op == wsClose && len(f.Body) >= 2 {
			return int(binary.BigEndian.Uint16(f.Body))
		}
	}
	return 0
}

// Got reports whether a control frame with that opcode came.
func (c *Conn) Got(opcode byte) bool {
	for _, f := range c.Control {
		if f.Op == opcode {
			return true
		}
	}
	return false
}
