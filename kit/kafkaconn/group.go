package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/segmentio/kafka-go"
)

// NewGroup joins the consumer group of one topic. topic and group have no prefix. A group without offsets starts at
// the oldest record. The caller closes it.
func NewGroup(c Config, topic, group string, log *slog.Logger) (*kafka.ConsumerGroup, error) {
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:                c.Group(group),
		Brokers:           []string{anyBroker},
		Dialer:            groupDialer(c),
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

// anyBroker stands for one of the configured brokers, where a group asks for its coordinator. kafka-go would ask the first of them that takes
// a connection, each time anew, and one that hangs takes connections.
const anyBroker = "any:0"

// groupDialer dials brokers, for anyBroker each time another one first.
func groupDialer(c Config) *kafka.Dialer {
	var turn atomic.Uint32
	dial := (&net.Dialer{}).DialContext
	return &kafka.Dialer{Timeout: c.GroupTimeout, DialFunc: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr != anyBroker {
			return dial(ctx, network, addr)
		}
		first := int(turn.Add(1) - 1)
		var failed []error
		for i := range c.Brokers {
			conn, err := dial(ctx, network, c.Brokers[(first+i)%len(c.Brokers)])
			if err == nil {
				return conn, nil
			}
			failed = append(failed, err)
		}
		return nil, errors.Join(failed...)
	}}
}
