package kafkaconn

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// noLeader stands for the leader of partitions that have none now.
const noLeader = -1

// idleTimeout is after how long an idle connection to a broker is closed. No setting: one costs a descriptor, a new one a few milliseconds.
const idleTimeout = time.Minute

// newClient returns a client with connections and knowledge of the cluster of its own: of these topics, or of all, which may be many that
// are not ours.
func newClient(c Config, topics ...string) *kafka.Client {
	return &kafka.Client{
		Addr: kafka.TCP(c.Brokers...), Timeout: c.WriteTimeout,
		Transport: &kafka.Transport{DialTimeout: c.WriteTimeout, IdleTimeout: idleTimeout, MetadataTTL: c.MetadataTTL, MetadataTopics: topics},
	}
}

func closeClient(c *kafka.Client) { c.Transport.(*kafka.Transport).CloseIdleConnections() }

// leaders returns the leader of each partition of a topic, from the transport's knowledge of the cluster, which it
// renews by itself.
func leaders(ctx context.Context, client *kafka.Client, topic string) ([]int, error) {
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil, err
	}
	for _, t := range meta.Topics {
		if t.Name != topic {
			continue
		}
		if t.Error != nil {
			return nil, fmt.Errorf("topic %s: %w", topic, t.Error)
		}
		ids := make([]int, len(t.Partitions))
		for i := range ids {
			ids[i] = noLeader
		}
		for _, part := range t.Partitions {
			if part.ID < len(ids) && part.Error == nil && part.Leader.Host != "" {
				ids[part.ID] = part.Leader.ID
			}
		}
		if len(ids) > 0 {
			return ids, nil
		}
	}
	return nil, fmt.Errorf("topic %s is not there", topic)
}

// sleep waits and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
