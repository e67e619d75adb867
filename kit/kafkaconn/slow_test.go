package kafkaconn_test

import (
	"context"
	"fmt"
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

// held is what a broker doesn't answer until the test ends.
type held struct {
	k    *kfake.Cluster
	over chan struct{}
	n    atomic.Int32
}

func hold(t *testing.T, k *kfake.Cluster) *held {
	t.Helper()
	h := &held{k: k, over: make(chan struct{})}
	t.Cleanup(func() {
		close(h.over)
		kittest.Eventually(t, 10*time.Second, func() bool { return h.n.Load() == 0 })
	})
	return h
}

// wait is for a control function: it lets the broker do other things for that time, or until the test ends.
func (h *held) wait(d time.Duration) {
	h.n.Add(1)
	defer h.n.Add(-1)
	h.k.SleepControl(func() {
		select {
		case <-time.After(d):
		case <-h.over:
		}
	})
}

// slow0 makes the broker answer a write that has partition 0 as one whose replicas don't follow there is answered: for all its partitions
// when the time that it may take is over, and a little later. hang has it not answered at all.
func slow0(t *testing.T, k *kfake.Cluster, hang bool) {
	t.Helper()
	h := hold(t, k)
	k.ControlKey(produceKey, func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		resp := r.ResponseKind().(*kmsg.ProduceResponse)
		slow := false
		for _, rt := range r.Topics {
			out := kmsg.NewProduceResponseTopic()
			out.Topic, out.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				if p.Partition = rp.Partition; rp.Partition == 0 {
					slow, p.ErrorCode = true, int16(kafka.RequestTimedOut)
				}
				out.Partitions = append(out.Partitions, p)
			}
			resp.Topics = append(resp.Topics, out)
		}
		if !slow {
			return nil, nil, false
		}
		limit := time.Duration(r.TimeoutMillis)*time.Millisecond + 20*time.Millisecond
		if hang {
			limit = time.Hour
		}
		h.wait(limit)
		return resp, nil, true
	})
}

func TestPartitionWhoseReplicasDoNotFollowHoldsUpNoOther(t *testing.T) {
	for _, hang := range []bool{false, true} {
		t.Run(fmt.Sprintf("hang=%v", hang), func(t *testing.T) {
			k, cfg := broker(t)
			cfg.WriteTimeout = time.Second
			p := kafkaconn.NewProducer(cfg, quiet)
			defer p.Close()
			slow0(t, k, hang)
			ctx, cancel := context.WithCancel(t.Context())
			var writing sync.WaitGroup
			defer writing.Wait()
			defer cancel()
			// Somebody always writes to the sick one, and to another in the same breath.
			var failures atomic.Int32
			writing.Go(func() {
				for ctx.Err() == nil {
					if p.Produce(ctx, push(keyIn(p, 0, 0), "sick"), push(keyIn(p, 1, 0), "beside")) != nil {
						failures.Add(1)
					}
				}
			})
			write := func(i int) error { return p.Produce(t.Context(), push(keyIn(p, 1+i%3, 0), "well")) }
			kittest.Eventually(t, 10*time.Second, func() bool { return failures.Load() > 0 })
			kittest.Eventually(t, 10*time.Second, func() bool { return write(0) == nil }, "one that hangs holds up the others for ever")
			// A pause of the process that is longer than the write timeout, which is short here, fails one that is under way just then; a
			// sick partition that holds up the others fails most.
			failed := 0
			for i := range 100 {
				before := time.Now()
				if err := write(i); err != nil {
					if failed++; failed > 2 {
						t.Fatalf("a write to a healthy partition failed after %v: %v", time.Since(before), err)
					}
				}
				time.Sleep(5 * time.Millisecond) // so that all phases of a sick write are met
			}
		})
	}
}

func TestPartitionWhoseOldestRecordIsNotToldHoldsUpNoOther(t *testing.T) {
	cfg := kittest.Kafka(t)
	k, err := kfake.NewCluster(kfake.NumBrokers(2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	cfg.Brokers = k.ListenAddrs()
	if err := kafkaconn.EnsureTopics(t.Context(), cfg, quiet); err != nil {
		t.Fatal(err)
	}
	for i := range cfg.Partitions {
		if err := k.MoveTopicPartition(cfg.Topic(topic.Push), int32(i), int32(min(i, 1))); err != nil {
			t.Fatal(err)
		}
	}
	p := kafkaconn.NewProducer(cfg, quiet)
	defer p.Close()
	for i := range cfg.Partitions {
		if err := p.Produce(t.Context(), push(keyIn(p, i, 0), "v")); err != nil {
			t.Fatal(err)
		}
	}
	const listOffsetsKey = 2
	h := hold(t, k)
	k.ControlKey(listOffsetsKey, func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		for _, rt := range req.(*kmsg.ListOffsetsRequest).Topics {
			for _, rp := range rt.Partitions {
				if rp.Partition == 0 {
					h.wait(time.Hour)
				}
			}
		}
		return nil, nil, false
	})
	cfg.WriteTimeout = 20 * time.Second
	r := &reader{next: map[int]int64{}, keys: map[string][]string{}}
	f := kafkaconn.NewFetcher(cfg, topic.Push, quiet)
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Read(ctx, sources(cfg.Partitions, kafka.FirstOffset, r.take, never))
	kittest.Eventually(t, 15*time.Second, func() bool { return r.count() == cfg.Partitions-1 }, "partitions of the healthy broker wait for those of the other")
}
