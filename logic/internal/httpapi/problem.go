package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/proto/errcode"
)

// Problem is the body of every error of /v1 (RFC 9457).
type Problem struct {
	// RFC 9457 wants a URI; this one leads to the text on this server.
	Type       string    `json:"type" doc:"Where the code is explained, relative to this server." example:"/docs#forbidden"`
	Title      string    `json:"title" doc:"What the code means, for people; may change." example:"not allowed"`
	Status     int       `json:"status" doc:"The HTTP status." example:"403"`
	Detail     string    `json:"detail,omitempty" doc:"What is particular to this case, for people."`
	Code       string    `json:"code" doc:"Stable; programs decide by it." example:"forbidden"`
	Retry      bool      `json:"retry" doc:"Whether the same request may succeed later without being changed."`
	RetryAfter int64     `json:"retry_after_ms,omitempty" doc:"The least time to wait before the next try, in milliseconds."`
	RequestID  string    `json:"request_id,omitempty" doc:"The request's X-Request-Id."`
	Errors     []Invalid `json:"errors,omitempty" doc:"What is wrong with which field."`
}

// Invalid is one fault of a request.
type Invalid struct {
	Location string `json:"location,omitempty" doc:"Path of the field, as body.items[3].op or query.limit."`
	Message  string `json:"message" doc:"What is wrong with it."`
}

// mostInvalid bounds the faults that are told: a batch could have thousands, and nobody reads more. No setting for that reason.
const mostInvalid = 20

// Error makes a Problem an error that handlers return.
func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus is asked by huma.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders is asked by huma.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable || p.RetryAfter > 0 {
		// Whole seconds, rounded up (RFC 9110 section 10.2.3).
		h.Set("Retry-After", strconv.FormatInt(max(1, (p.RetryAfter+999)/1000), 10))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="halley"`)
	}
	return h
}

// ContentType is asked by huma.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func newProblem(e *errcode.Error, requestID string) *Problem {
	return &Problem{
		Type: "/docs#" + e.Code.Name, Title: e.Code.Text, Status: e.Code.HTTP, Detail: e.Detail, Code: e.Code.Name,
		Retry: e.Code.Retry, RetryAfter: e.RetryAfter.Milliseconds(), RequestID: requestID,
	}
}

// defaultRetry is what callers are told to wait if nothing better is known. No setting: it is for what was cut off by request-timeout, where how long
// it takes to do better isn't known to the operator either.
const defaultRetry = time.Second

// problemOf makes what the caller is told of err, and logs what he isn't.
func (a *api) problemOf(ctx context.Context, err error) *Problem {
	e := errcode.From(err)
	switch {
	case e.Code == errcode.Internal && errors.Is(err, context.DeadlineExceeded):
		e = errcode.Unavailable.After(defaultRetry)
	case e.Code == errcode.Internal && errors.Is(err, context.Canceled):
		// The caller hung up; nobody reads this.
		e = errcode.Unavailable.After(defaultRetry)
	case e.Code == errcode.Internal:
		a.log.ErrorContext(ctx, "http request failed", logs.Req, requestID(ctx), logs.Err, err)
	}
	return newProblem(e, requestID(ctx))
}

// write writes the problem where huma isn't in between.
func (p *Problem) write(w http.ResponseWriter) {
	h := w.Header()
	for k, v := range p.GetHeaders() {
		h[k] = v
	}
	b, _ := json.Marshal(p) // strings and numbers: can't fail
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n'))
}

func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	a.problemOf(r.Context(), err).write(w)
}

// init has huma's own errors look like ours. They are package variables of huma's; nothing else in the program uses it.
func init() {
	// A list may be left out, but null is no list.
	huma.DefaultArrayNullable = false
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		id := ""
		if ctx != nil {
			id = requestID(ctx.Context())
		}
		return humaProblem(status, msg, id, errs)
	}
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(status, msg, "", errs)
	}
}

func humaProblem(status int, msg, id string, errs []error) *Problem {
	code := errcode.Internal
	switch {
	case status == http.StatusRequestEntityTooLarge:
		code = errcode.TooLarge
	case status == http.StatusRequestTimeout:
		code, msg = errcode.InvalidRequest, "the body did not arrive in time"
	case status >= 400 && status < 500:
		// Huma's validation is 422, which is the Idempotency-Key's here.
		code = errcode.InvalidRequest
	}
	p := newProblem(&errcode.Error{Code: code, Detail: msg}, id)
	if code == errcode.Internal {
		p.Detail = ""
		return p
	}
	for _, err := range errs {
		if err == nil {
			continue
		}
		if len(p.Errors) == mostInvalid {
			break
		}
		var d huma.ErrorDetailer
		if errors.As(err, &d) {
			// The value isn't echoed: it may be a secret, or large.
			p.Errors = append(p.Errors, Invalid{Location: d.ErrorDetail().Location, Message: d.ErrorDetail().Message})
			continue
		}
		p.Errors = append(p.Errors, Invalid{Message: err.Error()})
	}
	return p
}
