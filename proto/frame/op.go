package frame

import "strconv"

// Op is a frame's operation. Numbers below 1000 belong to the protocol; applications use 1000 and above.
type Op int32

// Operations. 0 to 17 are goim's, 100 and above are Halley's own.
const (
	OpHeartbeat        Op = 2  // client → server; the only op that extends a connection's life besides requests
	OpHeartbeatReply   Op = 3  // server → client; body: int32, the online count of the client's room
	OpSendMsg          Op = 4  // client → server; echoed without a body
	OpMsg              Op = 5  // server → client; a downstream message of the older /1/ API
	OpDisconnectReply  Op = 6  // never sent
	OpAuth             Op = 7  // client → server; body: token
	OpAuthReply        Op = 8  // server → client; the first frame that a client gets
	OpBatch            Op = 9  // server → client, WebSocket only; body: whole frames end to end
	OpChangeRoom       Op = 12 // client → server; body: room key, or empty to leave
	OpChangeRoomReply  Op = 13
	OpSubscribe        Op = 14 // client → server; body: decimal ops, comma-separated
	OpSubscribeReply   Op = 15
	OpUnsubscribe      Op = 16 // client → server; body as OpSubscribe
	OpUnsubscribeReply Op = 17

	OpRequest          Op = 100 // client → server; JSON Request, answered in order
	OpReply            Op = 101 // server → client; JSON Reply, seq of its request
	OpEvent            Op = 102 // server → client; JSON Event
	OpRequestUnordered Op = 103 // client → server; JSON Request that only reads
	OpRequestCall      Op = 104 // client → server; JSON Request, ordered among calls only

	// OpApplication is the first operation that belongs to applications.
	OpApplication Op = 1000
)

// IsRequest reports whether op carries a Request.
func (op Op) IsRequest() bool {
	return op == OpRequest || op == OpRequestUnordered || op == OpRequestCall
}

// Pushable reports whether a backend may push with op. 1–17 except 5 and 100–199 are the protocol's own:
// a backend that could push them could forge replies and events.
func (op Op) Pushable() bool {
	return op == 0 || op == OpMsg || op > 17 && op < 100 || op >= 200
}

// ClientLimit returns the largest body in bytes that an authenticated client may send with op.
func ClientLimit(op Op) int {
	switch {
	case op.IsRequest():
		return MaxRequestBody
	case op == OpAuth:
		return MaxAuthBody
	}
	return MaxBody
}

// HandshakeLimit returns the largest body in bytes that a client may send before authentication.
func HandshakeLimit(Op) int { return MaxAuthBody }

var opNames = map[Op]string{
	OpHeartbeat: "heartbeat", OpHeartbeatReply: "heartbeat_reply", OpSendMsg: "send_msg", OpMsg: "msg",
	OpDisconnectReply: "disconnect_reply", OpAuth: "auth", OpAuthReply: "auth_reply", OpBatch: "batch",
	OpChangeRoom: "change_room", OpChangeRoomReply: "change_room_reply", OpSubscribe: "subscribe",
	OpSubscribeReply: "subscribe_reply", OpUnsubscribe: "unsubscribe", OpUnsubscribeReply: "unsubscribe_reply",
	OpRequest: "request", OpReply: "reply", OpEvent: "event", OpRequestUnordered: "request_unordered",
	OpRequestCall: "request_call",
}

// String returns the operation's name in lower case, or its number.
func (op Op) String() string {
	if s, ok := opNames[op]; ok {
		return s
	}
	return strconv.FormatInt(int64(op), 10)
}
