package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/halley-im/halley/proto/errcode"
)

// Error is what a server said, or what the client itself says in its words. errors.Is(err, errcode.X) works for codes of the
// table; a code that is newer than this client is none of them.
type Error struct {
	// Code is stable.
	Code string
	// Message is for people.
	Message string
	// Retry is whether the same may succeed later without being changed.
	Retry bool
	// RetryAfter is the least time to wait before the next try; 0: one's own back-off.
	RetryAfter time.Duration
}

// ErrClosed ends what was under way when the client was closed.
var ErrClosed = errors.New("closed")

// Error returns code and message.
func (e *Error) Error() string {
	if e.Message == "" || e.Message == e.Code {
		return e.Code
	}
	return e.Code + ": " + e.Message
}

// Unwrap makes errors.Is work with the table.
func (e *Error) Unwrap() error {
	if c := errcode.ByName(e.Code); c.Name == e.Code {
		return c
	}
	return nil
}

// ofToken is whether a newer token is the remedy.
func (e *Error) ofToken() bool {
	switch e.Code {
	case errcode.TokenExpired.Name, errcode.TokenRevoked.Name, errcode.Unauthenticated.Name:
		return true
	}
	return false
}

func errorOf(c *errcode.Code, format string, args ...any) *Error {
	return &Error{Code: c.Name, Message: fmt.Sprintf(format, args...), Retry: c.Retry}
}

// wireError is halleyv1.Error in JSON.
type wireError struct {
	Code         string  `json:"code"`
	Message      string  `json:"message"`
	Retry        bool    `json:"retry"`
	RetryAfterMs float64 `json:"retry_after_ms"`
}

func (w *wireError) err() *Error {
	return &Error{Code: w.Code, Message: w.Message, Retry: w.Retry, RetryAfter: time.Duration(w.RetryAfterMs * float64(time.Millisecond))}
}

// asError makes one of any error: what isn't a server's word is the network's fault.
func asError(err error) *Error {
	var (
		own    *Error
		coded  *errcode.Error
		closed *CloseError
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &coded):
		return &Error{Code: coded.Code.Name, Message: coded.Detail, Retry: coded.Code.Retry, RetryAfter: coded.RetryAfter}
	case errors.As(err, &closed):
		return closed.err()
	}
	return &Error{Code: errcode.Unavailable.Name, Message: err.Error(), Retry: true}
}

// err says by the close code whether to come back.
func (e *CloseError) err() *Error {
	if c := errcode.ByName(e.Reason); c.Name == e.Reason {
		return errorOf(c, "%s", e.Error())
	}
	for _, c := range errcode.All() {
		if c.Close == e.Code {
			return errorOf(c, "%s", e.Error())
		}
	}
	// A code of the table's ranges that is newer than this client.
	permanent := e.Code >= 4000 && e.Code < 4500
	name := errcode.Unavailable.Name
	if permanent {
		name = errcode.Internal.Name
	}
	return &Error{Code: name, Message: e.Error(), Retry: !permanent}
}

// parseReply returns what a reply says of method.
func parseReply(method string, body []byte) (json.RawMessage, error) {
	name, raw, err := only(body)
	switch {
	case err != nil:
		return nil, errorOf(errcode.Internal, "the reply is no JSON")
	case name == "error":
		var w wireError
		if err := json.Unmarshal(raw, &w); err != nil {
			return nil, errorOf(errcode.Internal, "the reply's error can't be read")
		}
		return nil, w.err()
	case name != method:
		return nil, errorOf(errcode.Internal, "the reply is none to %s", method)
	}
	return raw, nil
}

// only returns the name and value of an object that has one field, as replies and events do: by where they lie. That the value is JSON
// shows when it is read: to read it twice would be half of what an entry costs. raw is a part of body.
func only(body []byte) (name string, raw json.RawMessage, err error) {
	b := bytes.TrimSpace(body)
	if len(b) > 1 && b[0] == '{' && b[len(b)-1] == '}' {
		b = bytes.TrimSpace(b[1 : len(b)-1])
		if len(b) > 0 && b[0] == '"' {
			end := bytes.IndexByte(b[1:], '"') + 1
			rest := bytes.TrimLeft(b[max(end, 0)+1:], " \t\r\n")
			if end > 0 && bytes.IndexByte(b[:end], '\\') < 0 && len(rest) > 1 && rest[0] == ':' {
				return string(b[1:end]), bytes.TrimSpace(rest[1:]), nil
			}
		}
	}
	return "", nil, errors.New("not an object with one field")
}
