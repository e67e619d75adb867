package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/redisconn"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store"
)

// maxClockSkew is how far this machine's clock may be from Redis': leases of 9 s and ttls of 30 s suffer beyond.
const maxClockSkew = time.Second

// Kafka looks at the brokers and at the topics.
func Kafka(c kafkaconn.Config) Look {
	return func(ctx context.Context) []Finding {
		// A transport of its own: the shared one tells what it knew some seconds ago.
		transport := &kafka.Transport{DialTimeout: c.WriteTimeout}
		defer transport.CloseIdleConnections()
		client := &kafka.Client{Addr: kafka.TCP(c.Brokers...), Timeout: c.WriteTimeout, Transport: transport}
		meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Addr: client.Addr})
		where := strings.Join(c.Brokers, ",")
		if err != nil {
			return []Finding{fail("kafka", fmt.Sprintf("no answer at %s: %s", where, short(err)),
				"start Kafka there, or set kafka.brokers (HALLEY_KAFKA_BROKERS) to where it is; `halley all` needs none")}
		}
		out := []Finding{ok("kafka", "%d of its brokers at %s", len(meta.Brokers), where)}
		if len(meta.Brokers) < c.Replication {
			out = append(out, fail("kafka replication", fmt.Sprintf("kafka.replication is %d but there are %d brokers: topics can't be made", c.Replication, len(meta.Brokers)),
				"start more brokers or lower kafka.replication"))
		}
		if len(meta.Brokers) >= 3 && c.Replication < 3 {
			out = append(out, warn("kafka replication", fmt.Sprintf("%d brokers but kafka.replication is %d: the loss of one loses messages", len(meta.Brokers), c.Replication),
				"set kafka.replication to 3 and kafka.min_insync to 2 before the topics are made"))
		}
		return append(out, topics(c, meta)...)
	}
}

func topics(c kafkaconn.Config, meta *kafka.MetadataResponse) []Finding {
	have := map[string]kafka.Topic{}
	for _, t := range meta.Topics {
		have[t.Name] = t
	}
	var missing []string
	var out []Finding
	for _, name := range []string{topic.Urgent, topic.Push, topic.Bulk, topic.Chat, topic.Hooks, topic.Upstream, topic.Revoked, topic.Dead} {
		want := c.Partitions
		if name == topic.Revoked || name == topic.Dead {
			want = 1
		}
		full := c.Topic(name)
		t, there := have[full]
		switch {
		case !there:
			missing = append(missing, full)
		case t.Error != nil:
			out = append(out, fail("kafka topics", fmt.Sprintf("%s: %s", full, short(t.Error)), "look at the brokers' logs"))
		case len(t.Partitions) != want:
			out = append(out, fail("kafka topics", fmt.Sprintf("%s has %d partitions, configured are %d: roles refuse to start", full, len(t.Partitions), want),
				fmt.Sprintf("set kafka.partitions to %d; never grow a topic, that moves keys", len(t.Partitions))))
		default:
			for _, p := range t.Partitions {
				if p.Leader.Host == "" {
					out = append(out, fail("kafka topics", fmt.Sprintf("partition %d of %s has no leader", p.ID, full), "bring back the broker that holds it"))
				}
			}
		}
	}
	switch {
	case len(missing) > 0:
		out = append(out, ok("kafka topics", "%s not there yet: the first role that starts makes them", strings.Join(missing, ", ")))
	case len(out) == 0:
		out = append(out, ok("kafka topics", "all there, %d partitions", c.Partitions))
	}
	return out
}

// minRedis is the oldest Redis that has what router uses.
const minRedis = 7

// Redis looks at the server, its version, its settings and its clock.
func Redis(c redisconn.Config) Look {
	return func(ctx context.Context) []Finding {
		where := strings.Join(c.Addrs, ",")
		client, err := redisconn.Open(c)
		if err != nil {
			return []Finding{fail("redis", short(err), "set redis.addrs (HALLEY_REDIS_ADDRS)")}
		}
		defer client.Close()
		before := time.Now()
		at, err := client.Time(ctx).Result()
		took := time.Since(before)
		if err != nil {
			remedy := "start Redis there, or set redis.addrs (HALLEY_REDIS_ADDRS) to where it is; `halley all` needs none"
			if strings.Contains(err.Error(), "NOAUTH") || strings.Contains(err.Error(), "WRONGPASS") {
				remedy = "set redis.password (HALLEY_REDIS_PASSWORD)"
			}
			return []Finding{fail("redis", fmt.Sprintf("no answer at %s: %s", where, short(err)), remedy)}
		}
		out := []Finding{ok("redis", "answers at %s in %s", where, took.Round(10*time.Microsecond))}
		out = append(out, redisVersion(ctx, client), redisPolicy(ctx, client))
		// The server read its clock somewhere within the round trip.
		if skew := at.Sub(before.Add(took / 2)).Abs(); skew > maxClockSkew+took {
			out = append(out, fail("clock", fmt.Sprintf("%s away from Redis'", skew.Round(time.Millisecond)), "keep all machines' clocks by NTP: leases and ttls compare them"))
		} else {
			out = append(out, ok("clock", "within %s of Redis'", (skew+took/2).Round(time.Millisecond)))
		}
		return out
	}
}

func redisVersion(ctx context.Context, client redis.UniversalClient) Finding {
	info, err := client.Info(ctx, "server").Result()
	if err != nil {
		return warn("redis version", "not told: "+short(err), "allow the user INFO, or make sure by hand that it is 7.0 or later")
	}
	version := field(info, "redis_version")
	major, err := strconv.Atoi(strings.SplitN(version, ".", 2)[0])
	if err != nil {
		return warn("redis version", "not told", "make sure that it is 7.0 or later")
	}
	if major < minRedis {
		return fail("redis version", version+" is too old", "run Redis 7.0 or later")
	}
	return ok("redis version", "%s", version)
}

func redisPolicy(ctx context.Context, client redis.UniversalClient) Finding {
	m, err := client.ConfigGet(ctx, "maxmemory-policy").Result()
	if err != nil {
		return warn("redis eviction", "not told: "+short(err), "make sure that maxmemory-policy is noeviction: presence must not lose keys at random")
	}
	if p := m["maxmemory-policy"]; p != "noeviction" && p != "" {
		return fail("redis eviction", "maxmemory-policy is "+p+": presence loses keys at random when memory is short", "set maxmemory-policy to noeviction")
	}
	return ok("redis eviction", "noeviction")
}

func field(info, name string) string {
	for line := range strings.Lines(info) {
		if v, found := strings.CutPrefix(line, name+":"); found {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// Secret looks at whether the process could listen beyond loopback.
func Secret(secret string, err error) Look {
	return func(context.Context) []Finding {
		switch {
		case err != nil:
			return []Finding{fail("cluster secret", short(err), "put at least 16 random bytes there: `openssl rand -hex 32`")}
		case secret == "":
			return []Finding{warn("cluster secret", "none: roles listen on loopback only", "for a cluster set HALLEY_CLUSTER_SECRET or cluster_secret_file, the same everywhere: `openssl rand -hex 32`")}
		}
		return []Finding{ok("cluster secret", "set")}
	}
}

// minPacketBytes is what the largest statements of job need, with room to spare.
const minPacketBytes = 16 << 20

// Database looks at where conversations are.
func Database(c store.Config) Look {
	const name = "database"
	return func(ctx context.Context) []Finding {
		if c.DSN == "" {
			return []Finding{warn(name, "none: there are no conversations", "set store.driver and store.dsn (HALLEY_STORE_DRIVER, HALLEY_STORE_DSN), the same for all jobs and logics")}
		}
		r, err := store.Examine(ctx, c)
		if err != nil {
			remedy := "start it, or set store.dsn (HALLEY_STORE_DSN) to where it is"
			if c.Driver == store.SQLite {
				remedy = "set store.dsn (HALLEY_STORE_DSN) to a file in a folder that is there and may be written to"
			}
			return []Finding{fail(name, "can't be used: "+short(err), remedy)}
		}
		var out []Finding
		switch {
		case r.Version == "":
			out = append(out, ok(name, "not there yet: the first start makes it"))
		case r.Migrated > r.Latest:
			out = append(out, fail(name, fmt.Sprintf("its tables have version %d, this program knows %d", r.Migrated, r.Latest), "run the newer halley; tables don't go back"))
		case r.Migrated < r.Latest:
			out = append(out, ok(name, "%s answers in %s; the next start brings its tables from version %d to %d", r.Version, r.Took.Round(10*time.Microsecond), r.Migrated, r.Latest))
		default:
			out = append(out, ok(name, "%s answers in %s, tables of version %d", r.Version, r.Took.Round(10*time.Microsecond), r.Migrated))
		}
		if !r.Durable {
			out = append(out, warn(name+" commits", "innodb_flush_log_at_trx_commit is not 1: what was stored may be lost with the machine", "set it to 1"))
		}
		if r.MaxPacketBytes > 0 && r.MaxPacketBytes < minPacketBytes {
			out = append(out, warn(name+" packets", fmt.Sprintf("max_allowed_packet is %d", r.MaxPacketBytes), fmt.Sprintf("set it to %d at least", minPacketBytes)))
		}
		return out
	}
}
