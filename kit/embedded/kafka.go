// Package embedded runs Kafka and Redis inside this process, for `halley all` and for tests: the same clients
// speak the same protocols to them, so there is one code path.
package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// KafkaConfig says where and how the broker keeps its records.
type KafkaConfig struct {
	// Dir keeps records, topics and offsets over restarts; empty: in memory.
	Dir string
	// SyncWrites syncs every batch to disk before it is acknowledged.
	SyncWrites bool
	// MinSession is the shortest session that a consumer group may ask for; 0: kfake's own.
	MinSession time.Duration
	// MinFreeBytes is how much of the disk must be free for Writable to let a write pass; 0: not checked.
	MinFreeBytes uint64
}

// Kafka is a broker in this process: kfake, franz-go's in-process Kafka. One process, no replication.
type Kafka struct {
	c   *kfake.Cluster
	cfg KafkaConfig
}

// StartKafka starts a broker on a free loopback port. Topics are made with CreateTopics only: kfake writes
// those to disk at once, but ones made by auto-creation at an orderly end.
func StartKafka(cfg KafkaConfig) (*Kafka, error) {
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.BrokerConfigs(map[string]string{
			// Retention acts on whole segments and on the cleaner's own timer: small segments and a short timer keep a
			// laptop's disk from filling.
			"log.segment.bytes":      strconv.Itoa(16 << 20),
			"log.roll.ms":            strconv.FormatInt((6 * time.Hour).Milliseconds(), 10),
			"log.cleaner.backoff.ms": strconv.FormatInt((5 * time.Minute).Milliseconds(), 10),
		}),
	}
	if cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("data folder: %w", err)
		}
		opts = append(opts, kfake.DataDir(filepath.Clean(cfg.Dir)))
	}
	if cfg.SyncWrites {
		opts = append(opts, kfake.SyncWrites())
	}
	if cfg.MinSession > 0 {
		opts = append(opts, kfake.GroupMinSessionTimeout(cfg.MinSession))
	}
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("in-process kafka: %w", err)
	}
	return &Kafka{c: c, cfg: cfg}, nil
}

// Addrs returns the brokers' host:port.
func (k *Kafka) Addrs() []string { return k.c.ListenAddrs() }

// Writable returns an error while the disk of Dir has less free than MinFreeBytes: kfake only logs a failed
// write, so records must be refused before the disk is full.
func (k *Kafka) Writable() error {
	if k.cfg.Dir == "" || k.cfg.MinFreeBytes == 0 {
		return nil
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(k.cfg.Dir, &st); err != nil {
		return fmt.Errorf("free space of %s: %w", k.cfg.Dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < k.cfg.MinFreeBytes {
		return fmt.Errorf("disk nearly full: %d MB free in %s, %d MB are needed", free>>20, k.cfg.Dir, k.cfg.MinFreeBytes>>20)
	}
	return nil
}

// Close ends the broker.
func (k *Kafka) Close() { k.c.Close() }
