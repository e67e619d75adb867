package hook

import (
	"context"
	"net/http"

	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/kit/hook"
)

// Handle gives records of a partition to a handler, and returns how many are done.
func (h *Hooks) Handle(ctx context.Context, msgs ...kafka.Message) int {
	n := 0
	(&handler{Hooks: h, done: func(uint64) { n++ }}).Handle(ctx, 0, msgs)
	return n
}

// Decode reads a record.
func Decode(value []byte) error { _, err := decode(value); return err }

// NewClient is the client of an endpoint.
func NewClient() *http.Client { return hook.NewClient(1) }

// ErrForbiddenAddress is what the client refuses.
var ErrForbiddenAddress = hook.ErrForbiddenAddress
