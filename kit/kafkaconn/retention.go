package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/proto/topic"
)

const retentionKey = "retention.ms"

// retentionMs is a retention as Kafka writes it: -1 is for ever.
func retentionMs(d time.Duration) int64 {
	if d == 0 {
		return -1
	}
	return d.Milliseconds()
}

// keepRevocations has a topic of revocations that is there keep its records at least as long as configured: what Kafka
// forgot, a token that still lives makes good again. It is never shortened: another process may be set to longer. Where Kafka
// doesn't let us look or change, the log says so.
func keepRevocations(ctx context.Context, c Config, client *kafka.Client, log *slog.Logger) {
	name := c.Topic(topic.Revoked)
	was, err := retention(ctx, client, name)
	if err != nil {
		log.Warn("how long revocations are kept is not known: see that the topic's retention is long enough", "topic", name, "want", c.RevokedRetention, "err", err)
		return
	}
	want := retentionMs(c.RevokedRetention)
	if was < 0 || want >= 0 && was >= want {
		return
	}
	resp, err := client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Addr: client.Addr, Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: name,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{
				Name: retentionKey, Value: strconv.FormatInt(want, 10), ConfigOperation: kafka.ConfigOperationSet,
			}},
		}},
	})
	if err == nil {
		for _, r := range resp.Resources {
			err = errors.Join(err, r.Error)
		}
	}
	if err != nil {
		log.Warn("revocations are kept for a shorter time than configured: raise the topic's retention.ms", "topic", name, "ms", was, "want_ms", want, "err", err)
		return
	}
	log.Info("revocations are kept longer now", "topic", name, "before_ms", was, "ms", want)
}

// retention returns a topic's retention.ms.
func retention(ctx context.Context, client *kafka.Client, name string) (int64, error) {
	resp, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Addr: client.Addr, Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: name, ConfigNames: []string{retentionKey},
		}},
	})
	if err != nil {
		return 0, err
	}
	for _, r := range resp.Resources {
		if r.Error != nil {
			return 0, r.Error
		}
		for _, e := range r.ConfigEntries {
			if e.ConfigName == retentionKey {
				return strconv.ParseInt(e.ConfigValue, 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("topic %s: no %s", name, retentionKey)
}
