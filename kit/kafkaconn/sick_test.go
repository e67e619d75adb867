package kafkaconn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
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

// broker is one of its own, whose answers a test can change.
func broker(t *testing.T) (*kfake.Cluster, kafkaconn.Config) {
	t.Helper()
	cfg := kittest.Kafka(t)
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	cfg.Brokers, cfg.WriteTimeout, cfg.MetadataTTL = k.ListenAddrs(), 20*time.Second, 50*time.Millisecond
	if err := kafkaconn.EnsureTopics(t.Context(), cfg, quiet); err != nil {
		t.Fatal(err)
	}
	return k, cfg
}

const produceKey, fetchKey = 0, 1

// answer makes the broker answer writes that have a partition of codes with these codes, and other partitions of the same write with
// one that has them written again. What has none of them is done.
func answer(k *kfake.Cluster, codes func() map[int]kafka.Error) {
	k.ControlKey(produceKey, func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		own, hit := codes(), false
		r := req.(*kmsg.ProduceRequest)
		resp := r.ResponseKind().(*kmsg.ProduceResponse)
		for _, rt := range r.Topics {
			out := kmsg.NewProduceResponseTopic()
			out.Topic, out.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition, p.ErrorCode = rp.Partition, int16(kafka.NotLeaderForPartition)
				if code, ok := own[int(rp.Partition)]; ok {
					p.ErrorCode, hit = int16(code), true
				}
				out.Partitions = append(out.Partitions, p)
			}
			resp.Topics = append(resp.Topics, out)
		}
		return resp, nil, hit
	})
}

func push(key []byte, value string) kafka.Message {
	return kafka.Message{Topic: topic.Push, Key: key, Value: []byte(value)}
}

func TestSickPartitionHoldsUpNoOther(t *testing.T) {
	k, cfg := broker(t)
	cfg.WriteTimeout = time.Minute // the sick one's; all others are written in it
	var log lines
	p := kafkaconn.NewProducer(cfg, slog.New(slog.NewTextHandler(&log, nil)))
	defer p.Close()
	var well atomic.Bool
	answer(k, func() map[int]kafka.Error {
		if well.Load() {
			return nil
		}
		return map[int]kafka.Error{0: kafka.NotEnoughReplicas}
	})
	sick := make(chan error, 1)
	go func() { sick <- p.Produce(t.Context(), push(keyIn(p, 0, 0), "sick")) }()
	kittest.Eventually(t, 10*time.Second, func() bool { return log.count("keep failing") == 1 })
	for i := range 200 {
		if err := p.Produce(t.Context(), push(keyIn(p, 1, 0), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-sick:
		t.Fatalf("writes to a healthy partition waited until those to a sick one had failed: %v", err)
	default:
	}
	well.Store(true)
	if err := <-sick; err != nil {
		t.Error(err)
	}
	kittest.Eventually(t, 10*time.Second, func() bool { return log.count("acknowledged again") == 1 })
	if n := log.count("keep failing"); n != 1 {
		t.Errorf("told %d times that writes fail, want once", n)
	}
}

func TestEachMessageHasItsOwnError(t *testing.T) {
	k, cfg := broker(t)
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	answer(k, func() map[int]kafka.Error { return map[int]kafka.Error{1: kafka.MessageSizeTooLarge} })
	var msgs []kafka.Message
	for i := range cfg.Partitions {
		msgs = append(msgs, push(keyIn(p, i, 0), fmt.Sprint(i)))
	}
	err := p.Produce(t.Context(), msgs...)
	var each kafkaconn.WriteErrors
	if !errors.As(err, &each) || len(each) != len(msgs) || !errors.Is(err, kafkaconn.ErrUnavailable) {
		t.Fatalf("got %v, want an error for each message", err)
	}
	for i, err := range each {
		if want := i == 1; want != (err != nil) {
			t.Errorf("message %d: got %v", i, err)
		}
	}
	if !errors.Is(each[1], kafka.MessageSizeTooLarge) || !errors.Is(each[1], kafkaconn.ErrUnavailable) {
		t.Errorf("got %v", each[1])
	}
	r := &reader{next: map[int]int64{}, keys: map[string][]string{}}
	f := kafkaconn.NewFetcher(cfg, topic.Push, quiet)
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Read(ctx, sources(cfg.Partitions, kafka.FirstOffset, r.take, never))
	kittest.Eventually(t, 10*time.Second, func() bool {
		for i := range cfg.Partitions {
			if want := i != 1; want != (r.at(i) == 1) {
				return false
			}
		}
		return true
	})
}

func TestLargeRecordsGoWholeAndInOrder(t *testing.T) {
	cfg := kittest.Kafka(t)
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	key := keyIn(p, 0, 0)
	var msgs []kafka.Message
	for i := range 8 {
		msgs = append(msgs, push(key, strings.Repeat(fmt.Sprint(i), 300_000)))
	}
	if err := p.Produce(t.Context(), msgs...); err != nil {
		t.Fatal(err)
	}
	r := &reader{next: map[int]int64{}, keys: map[string][]string{}}
	f := kafkaconn.NewFetcher(cfg, topic.Push, quiet)
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Read(ctx, sources(cfg.Partitions, kafka.FirstOffset, r.take, never))
	kittest.Eventually(t, 20*time.Second, func() bool { return r.at(0) == 8 })
	for i, v := range r.keys[string(key)] {
		if v != string(msgs[i].Value) {
			t.Errorf("record %d: %d bytes that begin with %.3q", i, len(v), v)
		}
	}
}

func TestBrokerThatTakesLessGetsLessAtOnce(t *testing.T) {
	const most = 100_000
	k, cfg := broker(t)
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	k.ControlKey(produceKey, func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		resp := r.ResponseKind().(*kmsg.ProduceResponse)
		hit := false
		for _, rt := range r.Topics {
			out := kmsg.NewProduceResponseTopic()
			out.Topic, out.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition = rp.Partition
				if len(rp.Records) > most {
					p.ErrorCode, hit = int16(kafka.MessageSizeTooLarge), true
				}
				out.Partitions = append(out.Partitions, p)
			}
			resp.Topics = append(resp.Topics, out)
		}
		return resp, nil, hit
	})
	key := keyIn(p, 0, 0)
	var msgs []kafka.Message
	for i := range 60 {
		msgs = append(msgs, push(key, strings.Repeat(fmt.Sprint(i%10), 10_000)))
	}
	msgs[30].Value = make([]byte, 2*most)
	err := p.Produce(t.Context(), msgs...)
	var each kafkaconn.WriteErrors
	if !errors.As(err, &each) || !kafkaconn.TooLarge(each[30]) || len(each.Unwrap()) != 1 {
		t.Fatalf("got %v, want one message refused", err)
	}
	r := &reader{next: map[int]int64{}, keys: map[string][]string{}}
	f := kafkaconn.NewFetcher(cfg, topic.Push, quiet)
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Read(ctx, sources(cfg.Partitions, kafka.FirstOffset, r.take, never))
	kittest.Eventually(t, 20*time.Second, func() bool { return r.count() == 59 })
	for i, v := range r.keys[string(key)] {
		if i >= 30 {
			i++
		}
		if v != string(msgs[i].Value) {
			t.Fatalf("record %d begins with %.3q", i, v)
		}
	}
}

func TestCloseUnderLoadEndsEveryCall(t *testing.T) {
	_, cfg := broker(t)
	p := kafkaconn.NewProducer(cfg, quiet)
	var acked atomic.Int64
	var calls sync.WaitGroup
	for i := range 32 {
		calls.Go(func() {
			for {
				err := p.Produce(t.Context(), push(fmt.Append(nil, i), "v"), push(fmt.Append(nil, i), "w"))
				if err != nil {
					if !errors.Is(err, kafkaconn.ErrUnavailable) {
						t.Error(err)
					}
					return
				}
				acked.Add(2)
			}
		})
	}
	kittest.Eventually(t, 10*time.Second, func() bool { return acked.Load() > 500 })
	_ = p.Close()
	calls.Wait()
	r := &reader{next: map[int]int64{}, keys: map[string][]string{}}
	f := kafkaconn.NewFetcher(cfg, topic.Push, quiet)
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Read(ctx, sources(cfg.Partitions, kafka.FirstOffset, r.take, never))
	kittest.Eventually(t, 20*time.Second, func() bool { return r.count() >= int(acked.Load()) })
}

func TestBrokerThatHangsIsUnavailable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := kittest.Kafka(t)
	cfg.Brokers, cfg.WriteTimeout = []string{l.Addr().String()}, 300*time.Millisecond
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	var calls sync.WaitGroup
	for i := range 20 {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := p.Produce(ctx, push(fmt.Append(nil, i), "v")); !errors.Is(err, kafkaconn.ErrUnavailable) || ctx.Err() != nil {
				t.Errorf("got %v, want unavailable by the write timeout", err)
			}
		})
	}
	calls.Wait()
}

func TestAnswersThatLeadNowhereAreNotAskedForWithoutEnd(t *testing.T) {
	k, cfg := broker(t)
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	for i := range 2 {
		if err := p.Produce(t.Context(), push(keyIn(p, i, 0), "v")); err != nil {
			t.Fatal(err)
		}
	}
	var asked atomic.Int32
	k.ControlKey(fetchKey, func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		asked.Add(1)
		// Partition 0 answers with what was read before, whatever was asked for.
		for i, rt := range req.(*kmsg.FetchRequest).Topics {
			for j, rp := range rt.Partitions {
				if rp.Partition == 0 {
					req.(*kmsg.FetchRequest).Topics[i].Partitions[j].FetchOffset = 0
				}
			}
		}
		return nil, nil, false
	})
	var log lines
	r := &reader{next: map[int]int64{}, keys: map[string][]string{}}
	f := kafkaconn.NewFetcher(cfg, topic.Push, slog.New(slog.NewTextHandler(&log, nil)))
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Read(ctx, sources(2, kafka.FirstOffset, r.take, never))
	kittest.Eventually(t, 10*time.Second, func() bool { return log.count("keep failing") == 1 && r.count() == 2 })
	if n := asked.Load(); n > 100 {
		t.Errorf("asked %d times", n)
	}
	if err := p.Produce(t.Context(), push(keyIn(p, 1, 0), "w")); err != nil {
		t.Fatal(err)
	}
	kittest.Eventually(t, 10*time.Second, func() bool { return r.at(1) == 2 }, "it holds up another partition")
}

func TestUndecodableBatchHoldsUpItsPartitionAlone(t *testing.T) {
	k, cfg := broker(t)
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	var broken atomic.Bool
	broken.Store(true)
	k.ControlKey(fetchKey, func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		r := req.(*kmsg.FetchRequest)
		hit := false
		resp := r.ResponseKind().(*kmsg.FetchResponse)
		for _, rt := range r.Topics {
			out := kmsg.NewFetchResponseTopic()
			out.Topic, out.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				part := kmsg.NewFetchResponseTopicPartition()
				part.Partition = rp.Partition
				if rp.Partition == 0 && broken.Load() {
					hit = true
					part.RecordBatches = bytes.Repeat([]byte{7}, 100)
				}
				out.Partitions = append(out.Partitions, part)
			}
			resp.Topics = append(resp.Topics, out)
		}
		return resp, nil, hit
	})
	for i := range cfg.Partitions {
		if err := p.Produce(t.Context(), push(keyIn(p, i, 0), "v")); err != nil {
			t.Fatal(err)
		}
	}
	var log lines
	r := &reader{next: map[int]int64{}, keys: map[string][]string{}}
	f := kafkaconn.NewFetcher(cfg, topic.Push, slog.New(slog.NewTextHandler(&log, nil)))
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Read(ctx, sources(cfg.Partitions, kafka.FirstOffset, r.take, never))
	kittest.Eventually(t, 20*time.Second, func() bool { return r.count() == cfg.Partitions-1 && log.count("keep failing") == 1 })
	broken.Store(false)
	kittest.Eventually(t, 20*time.Second, func() bool { return r.count() == cfg.Partitions && log.count("read again") == 1 })
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}
