// Package dead puts records aside that can't be decoded: into the topic of dead letters, as they were, with headers that say
// why and where they were found.
package dead

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/job/internal/backoff"
	"github.com/halley-im/halley/job/internal/meter"
	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/proto/topic"
)

// Producer writes dead letters.
type Producer interface {
	// Produce returns nil when all messages are stored. ctx has a deadline.
	Produce(ctx context.Context, msgs ...kafka.Message) error
}

// Letters is the way of one topic's records to the dead letters. Safe for concurrent use.
type Letters struct {
	Topic    string
	Meter    *meter.Lane
	Producer Producer
	Log      *slog.Logger
	// Timeout bounds one write; RetryMin and RetryMax space the next tries.
	Timeout, RetryMin, RetryMax time.Duration
}

// Put writes a record of a partition to the dead letters, and tries until it is stored; false if ctx ended first.
func (l *Letters) Put(ctx context.Context, partition int, m *kafka.Message, reason string) bool {
	l.Log.Warn("record not decoded, put aside", logs.Topic, l.Topic, logs.Partition, partition, logs.Offset, m.Offset, "reason", reason)
	letter := kafka.Message{Topic: topic.Dead, Key: m.Key, Value: m.Value, Headers: append(m.Headers[:len(m.Headers):len(m.Headers)],
		kafka.Header{Key: topic.HeaderReason, Value: []byte(reason)},
		kafka.Header{Key: topic.HeaderTopic, Value: []byte(l.Topic)},
		kafka.Header{Key: topic.HeaderPartition, Value: []byte(strconv.Itoa(partition))},
		kafka.Header{Key: topic.HeaderOffset, Value: []byte(strconv.FormatInt(m.Offset, 10))},
	)}
	retry := backoff.Backoff{Min: l.RetryMin, Max: l.RetryMax}
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, l.Timeout)
		err := l.Producer.Produce(try, letter)
		cancel()
		if err == nil {
			l.Meter.Dead.Inc()
			return true
		}
		l.Meter.DeadFails.Inc()
		if !retry.Wait(ctx, 0) {
			return false
		}
	}
	return false
}
