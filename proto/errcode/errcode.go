// Package errcode is the one table of the errors that Halley tells its callers: a stable code, a text for
// people, the HTTP status and gRPC code that carry it, the WebSocket close code where a connection ends with
// it, and whether trying again makes sense. docs/protocol.md and docs/api.md print it.
package errcode

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Code is a row of the table. Compare by identity: errors.Is(err, errcode.Forbidden).
type Code struct {
	// Name is stable: lower case with underscores.
	Name string
	// Text is for people and may change.
	Text string
	// HTTP is the status of an answer of the HTTP API.
	HTTP int
	// GRPC is the status code between the roles.
	GRPC codes.Code
	// Close is the WebSocket close code, 4000 and above (RFC 6455 section 7.4.2: private use), or a registered
	// one.
	Close int
	// Retry says whether the same request may succeed later without being changed.
	Retry bool
}

// Error makes a Code usable as a sentinel.
func (c *Code) Error() string { return c.Name }

// The table. Close codes from 4000 are permanent (the client must not come back unchanged), from 4500 on it
// may come back.
var (
	InvalidRequest   = row("invalid_request", "the request is malformed", http.StatusBadRequest, codes.InvalidArgument, 4000, false)
	UnknownMethod    = row("unknown_method", "no such method", http.StatusNotFound, codes.Unimplemented, 4000, false)
	InvalidFrame     = row("invalid_frame", "the frame is malformed", http.StatusBadRequest, codes.InvalidArgument, 1002, false)
	TooLarge         = row("too_large", "the request is larger than allowed", http.StatusRequestEntityTooLarge, codes.InvalidArgument, 1009, false)
	Unauthenticated  = row("unauthenticated", "a valid token or API key is required", http.StatusUnauthorized, codes.Unauthenticated, 4001, false)
	TokenExpired     = row("token_expired", "the token has expired", http.StatusUnauthorized, codes.Unauthenticated, 4002, false)
	TokenRevoked     = row("token_revoked", "the token has been revoked", http.StatusUnauthorized, codes.Unauthenticated, 4003, false)
	Forbidden        = row("forbidden", "not allowed", http.StatusForbidden, codes.PermissionDenied, 4004, false)
	NotFound         = row("not_found", "no such thing", http.StatusNotFound, codes.NotFound, 4005, false)
	MethodNotAllowed = row("method_not_allowed", "the path has no such method", http.StatusMethodNotAllowed, codes.Unimplemented, 4000, false)
	OpReserved       = row("op_reserved", "the operation belongs to the protocol", http.StatusBadRequest, codes.InvalidArgument, 4000, false)
	RoomReserved     = row("room_reserved", "the room type belongs to the system", http.StatusForbidden, codes.PermissionDenied, 4004, false)
	TooManyRooms     = row("too_many_rooms", "the session is in as many rooms as it may be", http.StatusForbidden, codes.ResourceExhausted, 4004, false)
	TooManyWatched   = row("too_many_watched", "the session watches as many users as it may", http.StatusForbidden, codes.ResourceExhausted, 4004, false)
	TooManySessions  = row("too_many_sessions", "the user has as many sessions as allowed", http.StatusForbidden, codes.ResourceExhausted, 4006, false)
	Replaced         = row("replaced", "another session took this one's place", http.StatusConflict, codes.Aborted, 4007, false)
	Kicked           = row("kicked", "the session was ended by the operator", http.StatusForbidden, codes.Aborted, 4008, false)
	NotMember        = row("not_member", "not a member of the conversation", http.StatusForbidden, codes.PermissionDenied, 4004, false)
	AlreadyMember    = row("already_member", "all of them are members already", http.StatusConflict, codes.AlreadyExists, 4000, false)
	TooManyMembers   = row("too_many_members", "the group has as many members as it may", http.StatusForbidden, codes.ResourceExhausted, 4004, false)
	Muted            = row("muted", "sending here is forbidden for now", http.StatusForbidden, codes.PermissionDenied, 4004, false)
	Blocked          = row("blocked", "the other side takes no messages from this user", http.StatusForbidden, codes.PermissionDenied, 4004, false)
	Conflict         = row("conflict", "this id was used for something else", http.StatusConflict, codes.AlreadyExists, 4000, false)
	TooLate          = row("too_late", "the time for this change is over", http.StatusConflict, codes.FailedPrecondition, 4000, false)
	Recalled         = row("recalled", "the message was recalled", http.StatusConflict, codes.FailedPrecondition, 4000, false)
	Dissolved        = row("dissolved", "the group was dissolved", http.StatusGone, codes.FailedPrecondition, 4005, false)
	CallUnknown      = row("call_unknown", "the server does not know this call", http.StatusNotFound, codes.NotFound, 4005, false)
	CallFull         = row("call_full", "as many are in the call as may be", http.StatusForbidden, codes.ResourceExhausted, 4004, false)
	CallTaken        = row("call_taken", "another device has the user's part in the call", http.StatusConflict, codes.FailedPrecondition, 4000, false)
	InCall           = row("in_call", "the user is in another call", http.StatusConflict, codes.FailedPrecondition, 4000, false)
	IdempotencyBusy  = row("idempotency_in_progress", "a request with this Idempotency-Key is in progress", http.StatusConflict, codes.Aborted, 4000, true)
	IdempotencyReuse = row("idempotency_mismatch", "this Idempotency-Key was used with another body", http.StatusUnprocessableEntity, codes.InvalidArgument, 4000, false)

	RateLimited        = row("rate_limited", "too many requests", http.StatusTooManyRequests, codes.ResourceExhausted, 4501, true)
	Busy               = row("busy", "too many requests of this session are waiting", http.StatusTooManyRequests, codes.ResourceExhausted, 4502, true)
	TooManyConnections = row("too_many_connections", "the server has as many connections as it takes", http.StatusServiceUnavailable, codes.ResourceExhausted, 4503, true)
	HandshakeTimeout   = row("handshake_timeout", "no authentication in time", http.StatusRequestTimeout, codes.DeadlineExceeded, 4504, true)
	IdleTimeout        = row("idle_timeout", "no heartbeat in time", http.StatusRequestTimeout, codes.DeadlineExceeded, 4505, true)
	SlowConsumer       = row("slow_consumer", "the client reads too slowly", http.StatusRequestTimeout, codes.ResourceExhausted, 4506, true)
	GoingAway          = row("going_away", "the server is leaving", http.StatusServiceUnavailable, codes.Unavailable, 1001, true)
	Unavailable        = row("unavailable", "the service can't answer now", http.StatusServiceUnavailable, codes.Unavailable, 4507, true)
	Unknown            = row("unknown", "the outcome is not known; repeat with the same id", http.StatusServiceUnavailable, codes.Unknown, 4508, true)
	Internal           = row("internal", "something went wrong on our side", http.StatusInternalServerError, codes.Internal, 1011, true)
)

var table []*Code

func row(name, text string, status int, grpcCode codes.Code, closeCode int, retry bool) *Code {
	c := &Code{Name: name, Text: text, HTTP: status, GRPC: grpcCode, Close: closeCode, Retry: retry}
	table = append(table, c)
	return c
}

// All returns the table in its order. The caller must not change it.
func All() []*Code { return table }

// ByName returns the row with that name, or Internal.
func ByName(name string) *Code {
	for _, c := range table {
		if c.Name == name {
			return c
		}
	}
	return Internal
}

// Error is a code with what is particular to the case.
type Error struct {
	Code *Code
	// Detail replaces the row's text, if not empty. It is told to the caller: no secrets.
	Detail string
	// RetryAfter is the least time to wait before the next try; 0: the caller's own back-off.
	RetryAfter time.Duration
}

// Errorf makes an Error whose detail is formatted.
func (c *Code) Errorf(format string, args ...any) *Error {
	return &Error{Code: c, Detail: fmt.Sprintf(format, args...)}
}

// After makes an Error that says when to try again.
func (c *Code) After(d time.Duration) *Error { return &Error{Code: c, RetryAfter: d} }

// Error returns the code's name and the detail.
func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Code.Name
	}
	return e.Code.Name + ": " + e.Detail
}

// Unwrap makes errors.Is(err, errcode.X) work.
func (e *Error) Unwrap() error { return e.Code }

// Proto returns what a caller is told of err. Only Codes and Errors show themselves; any other error is
// Internal, without its text.
func Proto(err error) *halleyv1.Error {
	e := From(err)
	text := e.Detail
	if text == "" {
		text = e.Code.Text
	}
	return &halleyv1.Error{
		Code: e.Code.Name, Message: text, Retry: e.Code.Retry, RetryAfterMs: uint32(e.RetryAfter.Milliseconds()),
	}
}

// FromProto returns the Error that p tells of; nil for nil.
func FromProto(p *halleyv1.Error) *Error {
	if p == nil {
		return nil
	}
	return &Error{Code: ByName(p.GetCode()), Detail: p.GetMessage(), RetryAfter: time.Duration(p.GetRetryAfterMs()) * time.Millisecond}
}

// unavailableAfter is when to come back where nobody said.
const unavailableAfter = time.Second

// From finds the Error in err; an err that has none is Internal. Unavailable always says when to try again.
func From(err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		var c *Code
		if !errors.As(err, &c) {
			return &Error{Code: Internal}
		}
		e = &Error{Code: c}
	}
	if e.Code == Unavailable && e.RetryAfter == 0 {
		told := *e
		told.RetryAfter = unavailableAfter
		return &told
	}
	return e
}
