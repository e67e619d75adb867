package kafkaconn

import (
	"fmt"
	"log/slog"

	"github.com/segmentio/kafka-go"
)

// NewGroup joins the consumer group of one topic. topic and group have no prefix. A group without offsets starts at
// the oldest record. The caller closes it.
func NewGroup(c Config, topic, group string, log *slog.Logger) (*kafka.ConsumerGroup, error) {
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:                c.Group(group),
		Brokers:           c.Brokers,
		Topics:            []string{c.Topic(topic)},
		StartOffset:       kafka.FirstOffset,
		SessionTimeout:    c.SessionTimeout,
		HeartbeatInterval: c.HeartbeatInterval,
		RebalanceTimeout:  c.RebalanceTimeout,
		JoinGroupBackoff:  c.JoinBackoff,
		Timeout:           c.GroupTimeout,
		ErrorLogger: kafka.LoggerFunc(func(format string, args ...any) {
			log.Debug("kafka group", "err", fmt.Sprintf(format, args...))
		}),
	})
	if err != nil {
		return nil, fmt.Errorf("join group %s: %w", group, err)
	}
	return g, nil
}

// NewReader reads one partition of a topic from where SetOffset puts it. A topic that was made anew is an error rather than
// silence. The caller closes it.
func NewReader(c Config, topic string, partition int, log *slog.Logger) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{
		Brokers:   c.Brokers,
		Topic:     c.Topic(topic),
		Partition: partition,
		// One byte: a fetch answers as soon as anything is there.
		MinBytes:              1,
		MaxBytes:              4 << 20,
		MaxWait:               c.MaxWait,
		ReadBackoffMin:        c.RetryMin,
		ReadBackoffMax:        c.RetryMax,
		OffsetOutOfRangeError: true,
		ErrorLogger: kafka.LoggerFunc(func(format string, args ...any) {
			log.Debug("kafka read", "err", fmt.Sprintf(format, args...))
		}),
	})
}
