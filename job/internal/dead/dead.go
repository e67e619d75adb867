// Package dead puts records aside that can't be decoded: into the topic of dead letters, as they were, with headers that say
// why and where they were found.
package dead

import (
	"context"
	"errors"
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

// Put writes a record of a partition to the dead letters as it is, and tries until it is stored; false if ctx ended first. A letter
// that Kafka refuses for what it is, as one that the headers made too large, is shortened: it would hold up its partition for ever.
func (l *Letters) Put(ctx context.Context, partition int, m *kafka.Message, reason string) bool {
	log := l.Log.With(logs.Topic, l.Topic, logs.Partition, partition, logs.Offset, m.Offset)
	log.Warn("record not decoded, put aside", "reason", reason)
	letter := kafka.Message{Topic: topic.Dead, Key: m.Key, Value: m.Value, Headers: append(m.Headers[:len(m.Headers):len(m.Headers)],
		kafka.Header{Key: topic.HeaderReason, Value: []byte(reason)},
		kafka.Header{Key: topic.HeaderTopic, Value: []byte(l.Topic)},
		kafka.Header{Key: topic.HeaderPartition, Value: []byte(strconv.Itoa(partition))},
		kafka.Header{Key: topic.HeaderOffset, Value: []byte(strconv.FormatInt(m.Offset, 10))},
	)}
	retry := backoff.Backoff{Min: l.RetryMin, Max: l.RetryMax}
	told, cut := false, false
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, l.Timeout)
		err := l.Producer.Produce(try, letter)
		cancel()
		if err == nil {
			l.Meter.Dead.Inc()
			return true
		}
		l.Meter.DeadFails.Inc()
		if code, ok := refusal(err); ok {
			if !told {
				told = true
				log.Error("dead letter refused, what lies behind it waits", logs.Err, err)
			}
			if !cut && unfit(code) {
				cut = true
				letter = shorten(letter, m)
				continue
			}
		}
		if !retry.Wait(ctx, 0) {
			return false
		}
	}
	return false
}

// What is kept of a record that Kafka refused whole: enough to see what it is, and far below what any broker refuses. No settings: where the whole
// record lies, the letter says.
const (
	cutKeyBytes   = 256
	cutValueBytes = 16 << 10
)

// shorten returns letter with what is needed to find m, and its beginning.
func shorten(letter kafka.Message, m *kafka.Message) kafka.Message {
	size := len(m.Key) + len(m.Value)
	for _, own := range m.Headers {
		size += len(own.Key) + len(own.Value)
	}
	letter.Key = m.Key[:min(len(m.Key), cutKeyBytes)]
	letter.Value = m.Value[:min(len(m.Value), cutValueBytes)]
	letter.Headers = append(letter.Headers[len(m.Headers):], kafka.Header{Key: topic.HeaderCut, Value: []byte(strconv.Itoa(size))})
	return letter
}

// refusal returns the error that Kafka itself answered with, if another try of the same can't be expected to do better.
func refusal(err error) (kafka.Error, bool) {
	var code kafka.Error
	return code, errors.As(err, &code) && !code.Temporary()
}

// unfit reports whether a refusal is about the record, so that a shorter one may pass. Others, such as a missing right, are about
// this job: when they are mended the record is written whole.
func unfit(code kafka.Error) bool {
	switch code {
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidRecord, kafka.PolicyViolation:
		return true
	}
	return false
}
