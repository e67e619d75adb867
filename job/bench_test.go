package job_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/job"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

// sink is a comet that acknowledges at once and notes when.
type sink struct {
	halleyv1.UnimplementedCometServer
	mu      sync.Mutex
	n, want int
	took    []time.Duration
	sent    func(id string) time.Time
	done    chan struct{}
}

func (s *sink) Deliver(stream grpc.BidiStreamingServer[halleyv1.DeliverRequest, halleyv1.DeliverResponse]) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		ds := req.GetBatch().GetDeliveries()
		if len(ds) == 0 {
			continue
		}
		now := time.Now()
		s.mu.Lock()
		for _, d := range ds {
			if s.sent != nil {
				s.took = append(s.took, now.Sub(s.sent(d.GetId())))
			}
			if s.n++; s.n == s.want {
				close(s.done)
			}
		}
		s.mu.Unlock()
		if err := stream.Send(&halleyv1.DeliverResponse{Acked: ds[len(ds)-1].GetNumber(), Reached: uint64(len(ds))}); err != nil {
			return err
		}
	}
}

func (s *sink) expect(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n, s.want, s.done = 0, n, make(chan struct{})
}

func benchCluster(b *testing.B) (*cluster, *sink) {
	c := newCluster(b)
	s := &sink{}
	_, addr := serve(b, func(srv *grpc.Server) { halleyv1.RegisterCometServer(srv, s) })
	c.router.with(func() {
		c.router.comets["e"] = &halleyv1.CometInfo{Comet: "sink", Epoch: "e", Addr: addr}
		for u := range 1000 {
			c.router.seats[fmt.Sprintf("default/uid/u%d", u)] = []seat{{"e", conn(u)}}
		}
	})
	return c, s
}

func benchConfig() job.Config {
	cfg := testConfig()
	cfg.BatchRecords, cfg.InFlight, cfg.LocateNames, cfg.CommitInterval = 500, 16384, 5000, ms(100)
	cfg.WindowCount, cfg.WindowBytes, cfg.MessageCount, cfg.MessageBytes, cfg.StallAfter = 4096, 4<<20, 256, 256<<10, 2*time.Second
	return cfg
}

func message(b *testing.B, id string, u int) kafka.Message {
	rec := record(id, toUID(fmt.Sprintf("u%d", u)))
	value, err := proto.Marshal(rec)
	if err != nil {
		b.Fatal(err)
	}
	return kafka.Message{Topic: topic.Push, Key: topic.Key("default", rec.Targets[0]), Value: value}
}

// BenchmarkBacklog takes records to single users that are there already: what a job can take at most. Kafka, router and comet
// are in this process too.
func BenchmarkBacklog(b *testing.B) {
	c, s := benchCluster(b)
	s.expect(b.N)
	for i := 0; i < b.N; i += 1000 {
		var msgs []kafka.Message
		for k := i; k < min(i+1000, b.N); k++ {
			msgs = append(msgs, message(b, "p", k%1000))
		}
		c.produce(msgs...)
	}
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	c.start(benchConfig())
	<-s.done
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "records/s")
	b.StopTimer()
}

// BenchmarkPaced sends single pushes at 2,000/s and reports the time from before Produce to the comet.
func BenchmarkPaced(b *testing.B) {
	c, s := benchCluster(b)
	sent := make([]time.Time, b.N)
	var mu sync.Mutex
	s.sent = func(id string) time.Time {
		var i int
		if _, err := fmt.Sscan(id, &i); err != nil {
			panic(err)
		}
		mu.Lock()
		defer mu.Unlock()
		return sent[i]
	}
	s.expect(b.N)
	r := c.start(benchConfig())
	b.ResetTimer()
	var wg sync.WaitGroup
	next := time.Now()
	for i := range b.N {
		time.Sleep(time.Until(next))
		next = next.Add(500 * time.Microsecond)
		m := message(b, fmt.Sprint(i), i%1000)
		mu.Lock()
		sent[i] = time.Now()
		mu.Unlock()
		wg.Go(func() { c.produce(m) })
	}
	wg.Wait()
	<-s.done
	b.StopTimer()
	slices.Sort(s.took)
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50-ms", .5}, {"p99-ms", .99}, {"max-ms", 1}} {
		b.ReportMetric(float64(s.took[min(len(s.took)-1, int(q.at*float64(len(s.took))))].Microseconds())/1000, q.name)
	}
	b.ReportMetric(r.count("batch_records")/float64(b.N), "batches/record")
	if n := r.count("dropped_total"); n > 0 {
		b.Errorf("dropped %v", n)
	}
}
