package push_test

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/push"
)

// BenchmarkPushThroughKafka is 64 callers who push to one user each and wait, on embedded Kafka or on the one that
// HALLEY_TEST_KAFKA names.
func BenchmarkPushThroughKafka(b *testing.B) {
	cfg := kittest.Kafka(b)
	p := kafkaconn.NewProducer(cfg, slog.New(slog.DiscardHandler))
	b.Cleanup(func() { _ = p.Close() })
	s, err := push.New(config(), push.Deps{Producer: p})
	if err != nil {
		b.Fatal(err)
	}
	body := make([]byte, 64)
	var n atomic.Int64
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		uid := fmt.Sprintf("user-%d", n.Add(1))
		for pb.Next() {
			if _, err := s.Push(b.Context(), push.Request{Tenant: "default", Op: 1000, Body: body, UIDs: []string{uid}}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pushes/s")
}
