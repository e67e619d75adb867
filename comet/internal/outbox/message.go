// Package outbox holds what waits to be written to one session: messages encoded once for all sessions that
// get them, and a queue bounded in bytes that knows what may be dropped. It reads and writes no socket, takes
// no lock and starts no goroutine: a session owns its queue and guards it.
package outbox

import (
	"encoding/binary"

	"github.com/halley-im/halley/proto/frame"
)

// Rank is a message's place in a queue: lower ranks are written first.
type Rank uint8

// Ranks. Answers never wait behind pushes; the lanes follow by urgency.
const (
	RankReply Rank = iota
	RankUrgent
	RankPush
	RankChat
	RankBulk

	ranks = int(RankBulk) + 1
)

// Class says what a full queue may do with a message.
type Class uint8

const (
	// Reply is never dropped: a session whose replies fill its queue is not read from.
	Reply Class = iota
	// Volatile is dropped, oldest first, counted and told.
	Volatile
	// Stored is replaced by one resync.
	Stored
	// Control is never dropped: closing events, go-away.
	Control
)

// Message is one frame, encoded once for both forms and shared, read-only, by all queues that hold it. The
// bytes are laid out so that the form for TCP is the tail of the form for WebSocket:
//
//	[WebSocket header][op 9 header, pushes only][frame]
type Message struct {
	buf   []byte
	bare  int32
	rank  Rank
	class Class
	batch bool
	// Filtered says that sessions get it only if they accept the op.
	Filtered bool
	// Tenant is whose sessions get it, all of them; empty: whoever has found the session knows that it is meant.
	Tenant string
	// Except is who doesn't get it; nil: nobody.
	Except *Except
	op     frame.Op
}

// Except names who doesn't get a message, by names without tenant.
type Except struct{ UIDs, Keys map[string]bool }

// Has reports whether a session is left out.
func (e *Except) Has(uid, key string) bool {
	return e != nil && (uid != "" && e.UIDs[uid] || e.Keys[key])
}

// largest WebSocket header of a server: 2 bytes and a 64-bit length.
const maxWSHeader = 10

// NewPush encodes a push or event: bare over TCP, inside an op 9 frame over WebSocket. body is copied.
func NewPush(op frame.Op, body []byte, rank Rank, class Class) *Message {
	n := frame.HeaderLen + len(body)
	buf := make([]byte, 0, maxWSHeader+frame.HeaderLen+n)
	buf = appendWSHeader(buf, wsBinary, frame.HeaderLen+n)
	buf = frame.AppendBatchHeader(buf, n)
	bare := len(buf)
	buf = frame.Append(buf, frame.Frame{Ver: frame.Ver, Op: op, Body: body})
	return &Message{buf: buf, bare: int32(bare), rank: rank, class: class, batch: true, op: op}
}

// NewReply encodes an answer, which stands alone in its WebSocket message. body is copied.
func NewReply(ver int16, op frame.Op, seq int32, body []byte) *Message {
	n := frame.HeaderLen + len(body)
	buf := make([]byte, 0, 4+n)
	buf = appendWSHeader(buf, wsBinary, n)
	bare := len(buf)
	buf = frame.Append(buf, frame.Frame{Ver: ver, Op: op, Seq: seq, Body: body})
	return &Message{buf: buf, bare: int32(bare), rank: RankReply, class: Reply, op: op}
}

// NewPong encodes a WebSocket pong. RFC 6455 section 5.5.3: the payload of the ping comes back.
func NewPong(payload []byte) *Message { return newControl(wsPong, payload) }

// NewClose encodes a WebSocket close frame; reason is cut to what a control frame may carry. A code of 0 makes
// a frame without a body (RFC 6455 section 5.5.1).
func NewClose(code int, reason string) *Message {
	if code == 0 {
		return newControl(wsClose, nil)
	}
	const most = 123
	if len(reason) > most {
		reason = reason[:most]
	}
	p := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(reason)), uint16(code))
	return newControl(wsClose, append(p, reason...))
}

// NewRaw wraps bytes that are whole WebSocket frames already.
func NewRaw(b []byte) *Message {
	buf := append([]byte(nil), b...)
	return &Message{buf: buf, bare: int32(len(buf)), rank: RankReply, class: Reply}
}

func newControl(opcode byte, payload []byte) *Message {
	buf := appendWSHeader(make([]byte, 0, 2+len(payload)), opcode, len(payload))
	buf = append(buf, payload...)
	return &Message{buf: buf, bare: int32(len(buf)), rank: RankReply, class: Reply}
}

// Op returns the frame's operation; 0 for WebSocket control frames.
func (m *Message) Op() frame.Op { return m.op }

// Class returns the message's class.
func (m *Message) Class() Class { return m.class }

// Rank returns the message's rank.
func (m *Message) Rank() Rank { return m.rank }

// Size returns what the message counts against a queue's bound: the bytes of its frame.
func (m *Message) Size() int { return len(m.buf) - int(m.bare) }

// Bytes returns the encoded form for the transport. The caller must not change it.
func (m *Message) Bytes(ws bool) []byte {
	if ws {
		return m.buf
	}
	return m.buf[m.bare:]
}

// WebSocket opcodes (RFC 6455 section 5.2).
const (
	wsBinary = 2
	wsClose  = 8
	wsPong   = 10
)

// appendWSHeader appends the header of an unfragmented, unmasked frame.
func appendWSHeader(dst []byte, opcode byte, n int) []byte {
	const fin = 0x80
	dst = append(dst, fin|opcode)
	switch {
	case n < 126:
		return append(dst, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
}
