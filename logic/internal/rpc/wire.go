package rpc

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// The JSON of halley/v1/client.proto, written by hand: protojson costs ten times as much, and would take a message's
// body apart into a google.protobuf.Value and lose large numbers and the order of keys. A test holds both against each
// other.

type wireError struct {
	Code         string `json:"code"`
	Message      string `json:"message"`
	Retry        bool   `json:"retry"`
	RetryAfterMs uint32 `json:"retry_after_ms,omitempty"`
}

func errorOf(e *halleyv1.Error) *wireError {
	return &wireError{Code: e.GetCode(), Message: e.GetMessage(), Retry: e.GetRetry(), RetryAfterMs: e.GetRetryAfterMs()}
}

type authReply struct {
	Error       *wireError `json:"error,omitempty"`
	Tenant      string     `json:"tenant,omitempty"`
	UID         string     `json:"uid,omitempty"`
	Key         string     `json:"key,omitempty"`
	Connection  string     `json:"connection,omitempty"`
	Heartbeat   float64    `json:"heartbeat,omitempty"`
	IdleTimeout float64    `json:"idle_timeout,omitempty"`
	ServerTime  float64    `json:"server_time,omitempty"`
	ExpiresAt   float64    `json:"expires_at,omitempty"`
	Rooms       []string   `json:"rooms,omitempty"`
	RoomLimit   int        `json:"room_limit,omitempty"`
}

type roomName struct {
	Room string `json:"room"`
}

type roomSend struct {
	Room string          `json:"room"`
	Body json.RawMessage `json:"body"`
	Echo bool            `json:"echo"`
}

type roomSent struct {
	ID         string  `json:"id"`
	ServerTime float64 `json:"server_time"`
}

type roomMembers struct {
	Room   string `json:"room"`
	Cursor string `json:"cursor"`
	Limit  uint32 `json:"limit"`
}

type roomMemberPage struct {
	UIDs     []string `json:"uids"`
	Next     string   `json:"next"`
	Count    uint32   `json:"count"`
	Complete bool     `json:"complete"`
}

type roomMessage struct {
	ID         string          `json:"id"`
	Room       string          `json:"room"`
	From       string          `json:"from"`
	Body       json.RawMessage `json:"body"`
	ServerTime float64         `json:"server_time"`
}

type sessionRefresh struct {
	Token string `json:"token"`
}

type sessionRefreshed struct {
	ExpiresAt float64 `json:"expires_at"`
}

type uidList struct {
	UIDs []string `json:"uids"`
}

type presence struct {
	UID       string   `json:"uid"`
	Online    bool     `json:"online"`
	Platforms []string `json:"platforms,omitempty"`
	LastSeen  float64  `json:"last_seen,omitempty"`
}

type presenceStates struct {
	States []presence `json:"states"`
}

// encode returns the JSON of v, which is one of the types above: none of them can fail. Characters that only HTML knows
// are left as they are; a message would grow by them.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// parseRequest returns the method and the arguments of a Request. Fields that aren't methods are ignored.
func parseRequest(b []byte, known func(string) bool) (method string, args json.RawMessage, err error) {
	if len(b) > frame.MaxRequestBody {
		return "", nil, errcode.TooLarge
	}
	if !utf8.Valid(b) {
		return "", nil, errcode.InvalidRequest.Errorf("not UTF-8")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil || fields == nil {
		return "", nil, errcode.InvalidRequest.Errorf("must be a JSON object")
	}
	for name, v := range fields {
		if !known(name) || string(v) == "null" {
			continue
		}
		if method != "" {
			return "", nil, errcode.InvalidRequest.Errorf("more than one method")
		}
		method, args = name, v
	}
	if method == "" {
		return "", nil, errcode.UnknownMethod
	}
	return method, args, nil
}
