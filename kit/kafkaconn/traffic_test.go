package kafkaconn_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/proto/topic"
)

// reader collects what a Fetcher reads of all partitions.
type reader struct {
	mu   sync.Mutex
	next map[int]int64
	keys map[string][]string // values by key, in the order in which they came
	n    int
	bad  string
}

func (r *reader) take(ms []kafka.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range ms {
		if m.Offset != r.next[m.Partition] && r.bad == "" {
			r.bad = fmt.Sprintf("partition %d: got offset %d, want %d", m.Partition, m.Offset, r.next[m.Partition])
		}
		r.next[m.Partition] = m.Offset + 1
		r.keys[string(m.Key)] = append(r.keys[string(m.Key)], string(m.Value))
		r.n++
	}
}

func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

func (r *reader) at(partition int) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next[partition]
}

func sources(n int, from int64, take func([]kafka.Message), full func() bool) []kafkaconn.Source {
	ss := make([]kafkaconn.Source, n)
	for i := range ss {
		ss[i] = kafkaconn.Source{Partition: i, Offset: from, Take: take, Full: full, OutOfRange: func(int64) {}}
	}
	return ss
}

func never() bool { return false }

// numbered writes 0, 1, 2 … under key until stop, one after the other, and returns how many were acknowledged.
func numbered(ctx context.Context, p *kafkaconn.Producer, key string, stop *atomic.Bool) (int, error) {
	for n := 0; ; n++ {
		if stop.Load() {
			return n, nil
		}
		if err := p.Produce(ctx, kafka.Message{Topic: topic.Push, Key: []byte(key), Value: fmt.Append(nil, n)}); err != nil {
			return n, err
		}
	}
}

// keyIn returns key number n of a partition.
func keyIn(p *kafkaconn.Producer, partition, n int) []byte {
	for i := 0; ; i++ {
		if key := fmt.Appendf(nil, "key-%d-%d", n, i); p.Partition(key) == partition {
			return key
		}
	}
}

// firsts leaves out what came again.
func firsts(vs []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, v := range vs {
		if !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
	}
	return out
}

func TestLeadersMoveWithoutLossOrDisorder(t *testing.T) {
	const keys, moves = 12, 60
	cfg := kittest.Kafka(t)
	k, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	cfg.Brokers, cfg.Partitions, cfg.MetadataTTL = k.ListenAddrs(), 6, 50*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := kafkaconn.EnsureTopics(ctx, cfg, quiet); err != nil {
		t.Fatal(err)
	}
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	f := kafkaconn.NewFetcher(cfg, topic.Push, quiet)
	defer f.Close()
	reading, end := context.WithCancel(ctx)
	defer end()
	r := &reader{next: map[int]int64{}, keys: map[string][]string{}}
	f.Read(reading, sources(cfg.Partitions, kafka.FirstOffset, r.take, never))

	name := func(i int) string { return string(keyIn(p, i%cfg.Partitions, i)) }
	var stop atomic.Bool
	var acked [keys]int
	var writing sync.WaitGroup
	for i := range keys {
		writing.Go(func() {
			n, err := numbered(ctx, p, name(i), &stop)
			if err != nil {
				t.Error(err)
			}
			acked[i] = n
		})
	}
	for i := range moves {
		if err := k.MoveTopicPartition(cfg.Topic(topic.Push), int32(i%cfg.Partitions), int32((i/cfg.Partitions+i)%3)); err != nil {
			t.Error(err)
		}
		before := r.at(i % cfg.Partitions)
		kittest.Eventually(t, 20*time.Second, func() bool { return r.at(i%cfg.Partitions) > before })
	}
	stop.Store(true)
	writing.Wait()
	total := 0
	for _, n := range acked {
		total += n
	}
	kittest.Eventually(t, 20*time.Second, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		n := 0
		for _, vs := range r.keys {
			n += len(firsts(vs))
		}
		return n >= total
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bad != "" {
		t.Error(r.bad)
	}
	for i, n := range acked {
		for j, v := range firsts(r.keys[name(i)]) {
			if v != fmt.Sprint(j) {
				t.Fatalf("key %d: got %s as number %d of %d", i, v, j, n)
			}
		}
	}
}

func TestFullSourceIsLeftOutUntilItIsWoken(t *testing.T) {
	cfg := kittest.Kafka(t)
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	full, other := p.Partition([]byte("full")), -1
	var free []byte
	for i := 0; other < 0; i++ {
		free = fmt.Appendf(nil, "free-%d", i)
		if n := p.Partition(free); n != full {
			other = n
		}
	}
	f := kafkaconn.NewFetcher(cfg, topic.Push, quiet)
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var isFull atomic.Bool
	isFull.Store(true)
	var got [2]atomic.Int64
	read := f.Read(ctx, []kafkaconn.Source{
		{Partition: full, Offset: kafka.FirstOffset, Full: isFull.Load, OutOfRange: func(int64) {}, Take: func(ms []kafka.Message) {
			if isFull.Load() {
				t.Error("a full source was given records")
			}
			got[0].Add(int64(len(ms)))
		}},
		{Partition: other, Offset: kafka.FirstOffset, Full: never, OutOfRange: func(int64) {}, Take: func(ms []kafka.Message) { got[1].Add(int64(len(ms))) }},
	})
	for i := range 20 {
		for _, key := range [][]byte{[]byte("full"), free} {
			if err := p.Produce(t.Context(), kafka.Message{Topic: topic.Push, Key: key, Value: []byte{byte(i)}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	kittest.Eventually(t, 10*time.Second, func() bool { return got[1].Load() == 20 })
	isFull.Store(false)
	read.Wake()
	kittest.Eventually(t, 10*time.Second, func() bool { return got[0].Load() == 20 })
}

func TestOffsetOutOfRangeIsToldAndReadFromTheOldest(t *testing.T) {
	cfg := kittest.Kafka(t)
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	key := []byte("k")
	if err := p.Produce(t.Context(), kafka.Message{Topic: topic.Push, Key: key, Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	f := kafkaconn.NewFetcher(cfg, topic.Push, quiet)
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var told, got atomic.Int64
	f.Read(ctx, []kafkaconn.Source{{
		Partition: p.Partition(key), Offset: 4711, Full: never,
		OutOfRange: func(at int64) { told.Store(at) }, Take: func(ms []kafka.Message) { got.Add(int64(len(ms))) },
	}})
	kittest.Eventually(t, 10*time.Second, func() bool { return got.Load() == 1 && told.Load() == 4711 })
}

func TestProducerRefusesWhatItsQueueHasNoRoomFor(t *testing.T) {
	cfg := kittest.Kafka(t)
	// Whoever is refused by then is refused for want of room.
	cfg.QueueBytes, cfg.WriteTimeout = 1<<16, time.Minute
	blocked := make(chan struct{})
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	cfg.Brokers = k.ListenAddrs()
	if err := kafkaconn.EnsureTopics(t.Context(), cfg, quiet); err != nil {
		t.Fatal(err)
	}
	k.ControlKey(0, func(kmsg.Request) (kmsg.Response, error, bool) { <-blocked; return nil, nil, false })
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	defer close(blocked)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	refused := make(chan struct{}, 64)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 16 {
		waiting.Go(func() {
			err := p.Produce(ctx, kafka.Message{Topic: topic.Push, Key: []byte("k"), Value: make([]byte, 8<<10)})
			if err != nil && ctx.Err() == nil {
				refused <- struct{}{}
			}
		})
	}
	select {
	case <-refused:
	case <-time.After(20 * time.Second):
		t.Fatal("64 KB have room for 16 × 8 KB")
	}
	cancel()
}

func TestPartitionWithoutLeaderIsWrittenOnceItHasOne(t *testing.T) {
	cfg := kittest.Kafka(t)
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	cfg.Brokers, cfg.MetadataTTL, cfg.WriteTimeout = k.ListenAddrs(), 50*time.Millisecond, 30*time.Second
	if err := kafkaconn.EnsureTopics(t.Context(), cfg, quiet); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(cfg.Brokers[0])
	if err != nil {
		t.Fatal(err)
	}
	portNumber, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	var leaderless atomic.Bool
	leaderless.Store(true)
	var asked atomic.Int64
	k.ControlKey(3, func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if !leaderless.Load() {
			return nil, nil, false
		}
		asked.Add(1)
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		resp.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 0, Host: host, Port: int32(portNumber)}}
		name := cfg.Topic(topic.Push)
		all := kmsg.MetadataResponseTopic{Topic: &name}
		for i := range cfg.Partitions {
			all.Partitions = append(all.Partitions, kmsg.MetadataResponseTopicPartition{
				ErrorCode: int16(kafka.LeaderNotAvailable), Partition: int32(i), Leader: -1,
			})
		}
		resp.Topics = append(resp.Topics, all)
		return resp, nil, true
	})
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	done := make(chan error, 1)
	go func() {
		done <- p.Produce(t.Context(), kafka.Message{Topic: topic.Push, Key: []byte("k"), Value: []byte("v")})
	}()
	kittest.Eventually(t, 10*time.Second, func() bool { return asked.Load() >= 3 })
	select {
	case err := <-done:
		t.Fatalf("got %v before there was a leader", err)
	default:
	}
	leaderless.Store(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	f := kafkaconn.NewFetcher(cfg, topic.Push, quiet)
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got atomic.Int64
	f.Read(ctx, sources(cfg.Partitions, kafka.FirstOffset, func(ms []kafka.Message) { got.Add(int64(len(ms))) }, never))
	kittest.Eventually(t, 10*time.Second, func() bool { return got.Load() == 1 })
}
