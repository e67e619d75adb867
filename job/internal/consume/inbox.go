package consume

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// inbox is between what reads a partition and its worker. What is read goes in whole; while it is full, in count or bytes, nothing
// more is read. The worker takes what is there, up to the same bounds, without waiting for more.
type inbox struct {
	count int
	bytes int64
	ready chan struct{} // has a signal when something was put into an empty inbox
	eased func()        // called when it was full and is not any more

	mu   sync.Mutex
	msgs []kafka.Message
	size int64
}

func newInbox(count int, bytes int64, eased func()) *inbox {
	return &inbox{count: count, bytes: bytes, ready: make(chan struct{}, 1), eased: eased}
}

func (b *inbox) put(msgs []kafka.Message) {
	b.mu.Lock()
	first := len(b.msgs) == 0
	b.msgs = append(b.msgs, msgs...)
	for i := range msgs {
		b.size += size(&msgs[i])
	}
	b.mu.Unlock()
	if first {
		select {
		case b.ready <- struct{}{}:
		default:
		}
	}
}

func size(m *kafka.Message) int64 { return int64(len(m.Key) + len(m.Value)) }

func (b *inbox) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.isFull()
}

// oldest returns the time of the first record in it; zero: there is none.
func (b *inbox) oldest() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.msgs) == 0 {
		return time.Time{}
	}
	return b.msgs[0].Time
}

func (b *inbox) isFull() bool { return len(b.msgs) >= b.count || b.size >= b.bytes }

// take waits for something and returns a batch of it; nothing when ctx has ended. old is what take returned before: its memory
// is used again.
func (b *inbox) take(ctx context.Context, old []kafka.Message) []kafka.Message {
	clear(old)
	for ctx.Err() == nil {
		if batch := b.batch(old[:0]); len(batch) > 0 {
			return batch
		}
		select {
		case <-b.ready:
		case <-ctx.Done():
		}
	}
	return nil
}

func (b *inbox) batch(batch []kafka.Message) []kafka.Message {
	b.mu.Lock()
	was := b.isFull()
	n, bytes := 0, int64(0)
	for n < len(b.msgs) && n < b.count && bytes < b.bytes {
		bytes += size(&b.msgs[n])
		n++
	}
	batch = append(batch, b.msgs[:n]...)
	b.msgs = slices.Delete(b.msgs, 0, n)
	b.size -= bytes
	eased := was && !b.isFull()
	b.mu.Unlock()
	if eased {
		b.eased()
	}
	return batch
}
