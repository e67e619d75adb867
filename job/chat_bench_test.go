package job_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/job"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/storetest"
	"github.com/halley-im/halley/store/wire"
)

// BenchmarkChat takes messages of 200 pairs that are there already: what a job stores and tells at most. Kafka, Redis, router and
// comet are in this process too, the database is where storetest says.
func BenchmarkChat(b *testing.B) {
	c, s := benchCluster(b)
	cfg := storetest.Config(b)
	st := storetest.Open(b, cfg)
	redis, prefix := kittest.Redis(b)
	s.expect(b.N)
	body := []byte(`{"text":"` + fmt.Sprintf("%0200d", 1) + `"}`)
	for i := 0; i < b.N; i += 1000 {
		var msgs []kafka.Message
		for k := i; k < min(i+1000, b.N); k++ {
			p := conversation.Proposal{
				Tenant: "default", Conversation: conversation.DirectID(fmt.Sprintf("u%d", k%200), fmt.Sprintf("u%d", 500+k%200)), Kind: conversation.Message,
				Sender: fmt.Sprintf("u%d", k%200), ClientMsgID: fmt.Sprint(k), AcceptedAtMs: time.Now().UnixMilli(), Body: body,
			}
			value, err := proto.Marshal(wire.RecordOf(&p, false))
			if err != nil {
				b.Fatal(err)
			}
			msgs = append(msgs, kafka.Message{Topic: topic.Chat, Key: topic.ConversationKey(p.Tenant, p.Conversation), Value: value})
		}
		c.produce(msgs...)
	}
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	jc := benchConfig()
	jc.ChatInFlight, jc.ChatInFlightBytes = 20_000, 64<<20
	r := c.start(jc, func(d *job.Deps) { d.Store, d.Redis, d.RedisPrefix = st, redis, prefix })
	<-s.done
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "messages/s")
	b.StopTimer()
	b.ReportMetric(float64(b.N)/r.count("batch_records", "lane=chat"), "messages/transaction")
}

// BenchmarkChatGroup takes messages of a group of 200, whose members are all at one comet.
func BenchmarkChatGroup(b *testing.B) {
	c, s := benchCluster(b)
	st := storetest.Open(b, storetest.Config(b))
	redis, prefix := kittest.Redis(b)
	id := newGroup()
	made := conversation.Proposal{Tenant: "default", Conversation: id, Kind: conversation.Created, Sender: "u0", ClientMsgID: "made", AcceptedAtMs: time.Now().UnixMilli()}
	for u := 1; u < 200; u++ {
		made.Detail.Members = append(made.Detail.Members, fmt.Sprintf("u%d", u))
	}
	if _, err := st.Append(b.Context(), []conversation.Proposal{made}); err != nil {
		b.Fatal(err)
	}
	s.expect(b.N)
	var msgs []kafka.Message
	for k := range b.N {
		p := conversation.Proposal{
			Tenant: "default", Conversation: id, Kind: conversation.Message, Sender: fmt.Sprintf("u%d", k%200), ClientMsgID: fmt.Sprint(k),
			AcceptedAtMs: time.Now().UnixMilli(), Body: []byte(`{"text":"hello"}`),
		}
		value, err := proto.Marshal(wire.RecordOf(&p, false))
		if err != nil {
			b.Fatal(err)
		}
		msgs = append(msgs, kafka.Message{Topic: topic.Chat, Key: topic.ConversationKey(p.Tenant, p.Conversation), Value: value})
	}
	c.produce(msgs...)
	b.ReportAllocs()
	b.ResetTimer()
	jc := benchConfig()
	jc.ChatInFlight, jc.ChatInFlightBytes = 20_000, 64<<20
	jc.DeliveryConns = 4096
	jc.BatchRecords = 4 // as it comes at some messages a second
	before := cpu(b)
	c.start(jc, func(d *job.Deps) { d.Store, d.Redis, d.RedisPrefix = st, redis, prefix })
	<-s.done
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(200*b.N), "cpu-ns/delivery")
}

// cpu returns what this process has used so far.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
