package consume

import (
	"context"
	"sync"

	"github.com/segmentio/kafka-go"
)

// inbox is between a partition's reader and its worker: the worker takes all that is there, without waiting for more, and
// the reader waits when it is full, in count or bytes.
type inbox struct {
	count int
	bytes int64
	ready chan struct{} // has a signal when something was put into an empty inbox, or it was closed
	space chan struct{} // has a signal when it was emptied

	mu     sync.Mutex
	msgs   []kafka.Message
	size   int64
	closed bool
}

func newInbox(count int, bytes int64) *inbox {
	return &inbox{count: count, bytes: bytes, ready: make(chan struct{}, 1), space: make(chan struct{}, 1)}
}

// put waits for space and reports false if ctx ended first.
func (b *inbox) put(ctx context.Context, m kafka.Message) bool {
	for {
		b.mu.Lock()
		if len(b.msgs) < b.count && b.size < b.bytes {
			b.msgs = append(b.msgs, m)
			b.size += int64(len(m.Key) + len(m.Value))
			first := len(b.msgs) == 1
			b.mu.Unlock()
			if first {
				signal(b.ready)
			}
			return true
		}
		b.mu.Unlock()
		select {
		case <-b.space:
		case <-ctx.Done():
			return false
		}
	}
}

// take waits for something and returns all that is there; nothing when ctx has ended or the inbox is closed. old is
// what take returned before: its memory is used again.
func (b *inbox) take(ctx context.Context, old []kafka.Message) []kafka.Message {
	clear(old)
	for ctx.Err() == nil {
		b.mu.Lock()
		msgs, closed := b.msgs, b.closed
		if len(msgs) > 0 {
			b.msgs, b.size = old[:0], 0
			b.mu.Unlock()
			signal(b.space)
			return msgs
		}
		b.mu.Unlock()
		if closed {
			return nil
		}
		select {
		case <-b.ready:
		case <-ctx.Done():
		}
	}
	return nil
}

func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	signal(b.ready)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
