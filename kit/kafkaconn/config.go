// Package kafkaconn opens Kafka clients with one set of settings and makes the topics. What a setting does to
// latency and to a rebalance was measured; the reasons stand at the fields.
package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/proto/topic"
)

// ErrUnavailable says that Kafka did not take a write in time: it may or may not be stored.
var ErrUnavailable = errors.New("kafka unavailable")

// Config says where Kafka is and how it is used. All processes of a cluster must agree on Prefix, Partitions.
type Config struct {
	// Brokers are host:port of some brokers.
	Brokers []string `help:"Kafka brokers, host:port." default:"127.0.0.1:9092"`
	// Prefix is put before the name of every topic and group.
	Prefix string `help:"Put before the name of every topic and group, so that several clusters can share one Kafka." default:""`
	// Partitions is the number that topics are made with. A cluster never changes it: that moves keys.
	Partitions int `help:"Partitions of each topic. Never changes in the life of a cluster: growing a topic moves keys." default:"12"`
	// Replication is the replication factor that topics are made with.
	Replication int `help:"Replication factor that topics are made with." default:"1"`
	// MinInsync is min.insync.replicas of the topics.
	MinInsync int `name:"min-insync" help:"min.insync.replicas that topics are made with." default:"1"`
	// Retention is how long records are kept.
	Retention time.Duration `help:"How long records of the push topics are kept; 0: for ever." default:"24h"`
	// ChatRetention is how long a chat may be kept from the database before it is lost.
	ChatRetention time.Duration `help:"How long records of conversations are kept until job has stored them; 0: for ever." default:"168h"`
	// HookRetention is how long webhooks may be kept from the database before they are lost.
	HookRetention time.Duration `help:"How long events for webhooks are kept until job has put them into the database; 0: for ever." default:"168h"`
	// RevokedRetention must not be below the life of tokens: a revocation that Kafka forgot is void.
	RevokedRetention time.Duration `help:"How long revocations of tokens are kept; 0: for ever. Not below logic.token_max_lifetime. A topic that keeps them shorter is changed at start." default:"9600h"`
	// DeadRetention is for people who look into dead letters.
	DeadRetention time.Duration `help:"How long records that could not be decoded are kept; 0: for ever." default:"720h"`
	// WriteTimeout bounds one Produce, retries included.
	WriteTimeout time.Duration `help:"Time limit of a write, retries included; then the push API answers 503." default:"3s"`
	// QueueBytes bounds what waits in this process for Kafka.
	QueueBytes int64 `help:"Most bytes of writes that wait for Kafka; further ones fail at once." default:"67108864"`
	// RetryMin and RetryMax space the tries of a write and of reading.
	RetryMin time.Duration `help:"Shortest wait before a write or read is tried again; it doubles." default:"20ms"`
	RetryMax time.Duration `help:"Longest wait before a write or read is tried again." default:"250ms"`
	// SessionTimeout is what a killed job costs its partitions. Not below the broker's group.min.session.timeout.ms (6 s by default).
	SessionTimeout time.Duration `help:"After this time a killed job's partitions go to others. Not below the broker's group.min.session.timeout.ms." default:"6s"`
	// HeartbeatInterval is how often a group member shows that it lives.
	HeartbeatInterval time.Duration `help:"How often a member of a consumer group shows that it lives." default:"1s"`
	// RebalanceTimeout is how long members may take to join again.
	RebalanceTimeout time.Duration `help:"How long the members of a consumer group may take to join again." default:"10s"`
	// JoinBackoff is the wait after a failed join; kafka-go's own 5 s delays the first start of a cluster.
	JoinBackoff time.Duration `help:"Wait after a failed join of a consumer group." default:"500ms"`
	// MaxWait is how long a broker may hold a fetch that finds nothing: a short one costs requests, a long one delays what a partition
	// that comes to the others is asked for.
	MaxWait time.Duration `help:"How long a broker holds a fetch that finds nothing. Not below 100ms." default:"500ms"`
	// GroupTimeout bounds a request to the group's coordinator; kafka-go's own 5 s would hold a rebalance for as long when a commit meets
	// a broker that is away.
	GroupTimeout time.Duration `help:"Time limit of a request to a consumer group's coordinator, a commit of offsets among them." default:"2s"`
	// MetadataTTL is how late a new leader of a partition is found by those that write and read.
	MetadataTTL time.Duration `name:"metadata-ttl" help:"How old what a writer or reader knows of brokers and leaders may be." default:"2s"`
	// CheckTimeout bounds the question whether Kafka answers, of /readyz?verbose.
	CheckTimeout time.Duration `help:"How long Kafka may take to answer when /readyz?verbose asks." default:"1s"`
}

// Topic returns the name that a topic has in Kafka.
func (c Config) Topic(name string) string { return c.Prefix + name }

// Group returns the name that a consumer group has in Kafka.
func (c Config) Group(name string) string { return c.Prefix + name }

// Validate reports the first setting that can't work.
func (c Config) Validate() error {
	switch {
	case len(c.Brokers) == 0:
		return errors.New("kafka: no broker")
	case c.Partitions < 1:
		return errors.New("kafka: partitions must be at least 1")
	case c.Replication < 1:
		return errors.New("kafka: replication must be at least 1")
	case c.MaxWait < 100*time.Millisecond:
		return errors.New("kafka: max-wait must be at least 100ms")
	case c.Retention < 0 || c.ChatRetention < 0 || c.HookRetention < 0 || c.RevokedRetention < 0 || c.DeadRetention < 0:
		return errors.New("kafka: retention, chat-retention, hook-retention, revoked-retention and dead-retention must not be less than 0")
	case c.WriteTimeout <= 0 || c.GroupTimeout <= 0 || c.CheckTimeout <= 0:
		return errors.New("kafka: write-timeout, group-timeout and check-timeout must be more than 0")
	case c.RetryMin <= 0 || c.RetryMax < c.RetryMin || c.MetadataTTL <= 0:
		return errors.New("kafka: retry-min and metadata-ttl must be more than 0, retry-max not less than retry-min")
	case c.QueueBytes <= 0:
		return errors.New("kafka: queue-bytes must be more than 0")
	case c.HeartbeatInterval >= c.SessionTimeout:
		return errors.New("kafka: heartbeat-interval must be below session-timeout")
	}
	return nil
}

// spec is a topic as it must be.
type spec struct {
	name       string
	partitions int
	retention  time.Duration
}

func (c Config) specs() []spec {
	return []spec{
		{topic.Urgent, c.Partitions, c.Retention},
		{topic.Push, c.Partitions, c.Retention},
		{topic.Bulk, c.Partitions, c.Retention},
		{topic.Chat, c.Partitions, c.ChatRetention},
		{topic.Hooks, c.Partitions, c.HookRetention},
		{topic.Upstream, c.Partitions, c.Retention},
		// One partition: every logic reads it whole and in order. Its records are kept as long as tokens may live.
		{topic.Revoked, 1, c.RevokedRetention},
		{topic.Dead, 1, c.DeadRetention},
	}
}

// topics returns the full names of our topics.
func (c Config) topics() []string {
	var names []string
	for _, s := range c.specs() {
		names = append(names, c.Topic(s.name))
	}
	return names
}

// EnsureTopics makes the topics that are missing and checks those that are there. A topic with another number
// of partitions is an error: keys would move. One of revocations that keeps them for less time than configured is changed. ctx
// bounds it.
func EnsureTopics(ctx context.Context, c Config, log *slog.Logger) error {
	client := newClient(c)
	defer closeClient(client)
	have, err := counts(ctx, c, client)
	if err != nil {
		return fmt.Errorf("kafka at %s: %w", strings.Join(c.Brokers, ","), err)
	}
	req := &kafka.CreateTopicsRequest{Addr: client.Addr}
	for _, s := range c.specs() {
		name := c.Topic(s.name)
		switch n := have[name]; {
		case n == 0:
			req.Topics = append(req.Topics, kafka.TopicConfig{
				Topic: name, NumPartitions: s.partitions, ReplicationFactor: c.Replication,
				ConfigEntries: []kafka.ConfigEntry{
					{ConfigName: retentionKey, ConfigValue: strconv.FormatInt(retentionMs(s.retention), 10)},
					// A cluster may be set to compact topics where nothing is said: that keeps the last record of a key.
					{ConfigName: "cleanup.policy", ConfigValue: "delete"},
					{ConfigName: "min.insync.replicas", ConfigValue: strconv.Itoa(c.MinInsync)},
				},
			})
		case n != s.partitions:
			return fmt.Errorf("topic %s has %d partitions, configured are %d: set kafka.partitions to %d (growing a topic moves keys)",
				name, n, s.partitions, n)
		}
	}
	if have[c.Topic(topic.Revoked)] != 0 {
		keepRevocations(ctx, c, client, log)
	}
	if len(req.Topics) == 0 {
		return nil
	}
	resp, err := client.CreateTopics(ctx, req)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	for name, err := range resp.Errors {
		// Another process that starts at the same time made it.
		if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", name, err)
		}
	}
	log.Info("topics made", "count", len(req.Topics))
	return waitForTopics(ctx, c, client)
}

// waitForTopics waits until every topic is there with all its partitions: a broker answers CreateTopics before
// its metadata knows them.
func waitForTopics(ctx context.Context, c Config, client *kafka.Client) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		have, err := counts(ctx, c, client)
		if err == nil {
			missing := false
			for _, s := range c.specs() {
				n := have[c.Topic(s.name)]
				if n != 0 && n != s.partitions {
					return fmt.Errorf("topic %s has %d partitions, configured are %d", c.Topic(s.name), n, s.partitions)
				}
				missing = missing || n == 0
			}
			if !missing {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for topics: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// counts returns the number of partitions of each of our topics that the brokers know.
func counts(ctx context.Context, c Config, client *kafka.Client) (map[string]int, error) {
	// All topics, not ours by name: asking by name would make them where the broker allows auto-creation.
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Addr: client.Addr})
	if err != nil {
		return nil, err
	}
	have := map[string]int{}
	for _, t := range meta.Topics {
		if t.Error == nil && strings.HasPrefix(t.Name, c.Prefix) {
			have[t.Name] = len(t.Partitions)
		}
	}
	return have, nil
}

// IsAnswer reports whether err is what a broker answered.
func IsAnswer(err error) bool {
	var code kafka.Error
	return errors.As(err, &code)
}

// IsConnErr reports whether err is a matter of the connection rather than of what was asked.
func IsConnErr(err error) bool {
	var ne net.Error
	if IsAnswer(err) {
		return false // kafka-go's codes look like errors of a network
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &ne)
}
