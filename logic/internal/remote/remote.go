// Package remote turns what went wrong with a call of another role into what a caller of logic is told.
package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/halley-im/halley/proto/errcode"
)

// RetryAfter is what callers are told to wait when router or Redis is away. Clients add jitter, and wait longer after each failure, so that a
// setting would change nothing for them. For Kafka, on which backends depend most, there is one, push-retry-after.
const RetryAfter = time.Second

// Error returns an error whose code is errcode.Unavailable if the callee can't answer now, InvalidRequest with its text
// if it found the request wrong, else Internal. It keeps err for logs. nil stays nil.
func Error(err error) error {
	if err == nil {
		return nil
	}
	var known *errcode.Error
	switch code := status.Code(err); {
	case code == codes.Unavailable, code == codes.DeadlineExceeded, code == codes.Canceled, code == codes.ResourceExhausted, code == codes.Aborted,
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		known = errcode.Unavailable.After(RetryAfter)
	case code == codes.InvalidArgument:
		known = errcode.InvalidRequest.Errorf("%s", status.Convert(err).Message())
	default:
		known = &errcode.Error{Code: errcode.Internal}
	}
	return fmt.Errorf("%w: %w", known, err)
}
