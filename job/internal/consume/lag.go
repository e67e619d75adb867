package consume

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/kit/logs"
)

// lag is how far a partition's worker is behind. What is known of it is told by what is read and handled, and for a partition from which nothing
// comes by Kafka itself, which is asked for its end beside the reading: else one that can't be read would look like one with nothing in it.
type lag struct {
	mu    sync.Mutex
	read  int64 // one behind the last record read; unknown until something is, where nothing was ever committed
	taken int64 // the same, of those that the worker took
	end   int64 // the partition's, as far as Kafka told
	// short is since when there has been something to read up to want, and it hasn't come; zero: there is nothing that is known of.
	short time.Time
	want  int64
	// told is when the end was told last; deaf: the last question for it failed.
	told time.Time
	deaf bool
	// inHand is the time of the oldest record that the worker has in hand; zero: it has none.
	inHand time.Time
	// most is the greatest age of a record when it was taken, since measure.
	most time.Duration
}

const unknown = -1

func newLag(offset int64, now time.Time) *lag {
	offset = max(offset, unknown) // kafka-go has several words for an offset that isn't one
	return &lag{read: offset, taken: offset, told: now}
}

// reset forgets where the partition was: its offsets are others now.
func (l *lag) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read, l.taken, l.end, l.short = unknown, unknown, 0, time.Time{}
}

// arrived tells that records were read.
func (l *lag) arrived(last *kafka.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read = last.Offset + 1
	l.learn(last.HighWaterMark, time.Now())
	if l.read >= l.want {
		l.short = time.Time{}
	}
}

// learn takes in a partition's end. With mu held.
func (l *lag) learn(end int64, now time.Time) {
	l.end, l.told, l.deaf = max(l.end, end), now, false
}

// begin tells that the worker took records, and finish that it is ready for more.
func (l *lag) begin(first, last *kafka.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = last.Offset + 1
	if l.inHand = first.Time; !first.Time.IsZero() {
		l.most = max(l.most, time.Since(first.Time))
	}
}

func (l *lag) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inHand = time.Time{}
}

// answered tells what Kafka says of the partition.
func (l *lag) answered(first, end int64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.read < 0 {
		l.read, l.taken = first, first
	}
	l.learn(end, now)
	switch {
	case end <= l.read:
		l.short = time.Time{}
	case l.short.IsZero():
		l.short, l.want = now, end
	}
}

// unanswered tells that it says nothing.
func (l *lag) unanswered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = true
}

// quiet reports whether nothing has been heard of the partition's end since then, and whether its beginning is known.
func (l *lag) quiet(since time.Time) (quiet, begun bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deaf || l.told.Before(since), l.read >= 0
}

// measure returns by how much time and by how many records the worker is behind. next is the time of the first record that waits for it; zero:
// none does.
func (l *lag) measure(now, next time.Time) (behind time.Duration, records int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	behind, l.most = l.most, 0
	since := func(t time.Time) {
		if !t.IsZero() {
			behind = max(behind, now.Sub(t))
		}
	}
	since(l.inHand)
	since(next)
	since(l.short)
	if l.deaf {
		since(l.told)
	}
	if l.taken >= 0 {
		records = max(0, l.end-l.taken)
	}
	return behind, records
}

// ask asks Kafka for the ends of partitions from which nothing comes, until ctx ends: of one after the other, so that one connection to each
// broker is enough.
func (c *Consumer) ask(ctx context.Context, client *kafka.Client, name string, parts []*Partition) {
	tick := time.NewTicker(c.cfg.LagInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		since := time.Now().Add(-c.cfg.LagInterval)
		for _, p := range parts {
			quiet, begun := p.lag.quiet(since)
			if !quiet {
				continue
			}
			first, end, err := bounds(ctx, client, name, p.ID, !begun, c.kafka.GroupTimeout)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				p.lag.unanswered()
				c.log.Debug("end of partition not known", logs.Partition, p.ID, logs.Err, err)
			default:
				p.lag.answered(first, end, time.Now())
			}
		}
	}
}

// bounds returns a partition's end, and its first offset if that is wanted.
func bounds(ctx context.Context, client *kafka.Client, name string, partition int, begin bool, limit time.Duration) (first, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ask := []kafka.OffsetRequest{kafka.LastOffsetOf(partition)}
	if begin {
		ask = append(ask, kafka.FirstOffsetOf(partition))
	}
	resp, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{name: ask}})
	if err != nil {
		return 0, 0, err
	}
	for _, p := range resp.Topics[name] {
		if p.Error != nil {
			return 0, 0, p.Error
		}
		if p.Partition == partition {
			return max(p.FirstOffset, 0), p.LastOffset, nil
		}
	}
	return 0, 0, fmt.Errorf("partition %d of %s: no answer", partition, name)
}
