package job_test

import (
	"fmt"
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
