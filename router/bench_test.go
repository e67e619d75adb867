package router_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/router"
)

// benchWorld has comets with sessions, one for each uid. Run it with HALLEY_TEST_REDIS: on the Redis in the process the
// figures are that one's.
func benchWorld(b *testing.B, sessions int) (*world, *comet) {
	cfg := router.Default()
	cfg.LeaseTTL, cfg.WarmUp, cfg.RedisTimeout = time.Hour, time.Millisecond, 10*time.Second
	w := newWorld(b, cfg)
	r, _ := w.router()
	var c *comet
	for i := range 10 {
		c = newComet(b, r, fmt.Sprintf("c%d", i))
	}
	for i := 0; i < sessions; i += 1000 {
		req := &halleyv1.RegisterRequest{}
		for j := i; j < i+1000 && j < sessions; j++ {
			s := c.session("default", strconv.Itoa(1_000_000+j), uuid.NewString())
			s.Platform = "web"
			req.Sessions = append(req.Sessions, s)
		}
		if _, err := r.Register(context.Background(), req); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(5 * time.Millisecond)
	return w, c
}

func BenchmarkLocate(b *testing.B) {
	const sessions = 20_000
	w, c := benchWorld(b, sessions)
	_ = w
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			req := &halleyv1.LocateRequest{}
			for i := range n {
				req.Names = append(req.Names, uidName("default", strconv.Itoa(1_000_000+i*7919%sessions)))
			}
			b.ReportAllocs()
			for b.Loop() {
				res, err := c.r.Locate(context.Background(), req)
				if err != nil || len(res.GetLocated()[n-1].GetPlaces()) != 1 {
					b.Fatal(res, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/name")
		})
	}
}

func BenchmarkRegisterDeregister(b *testing.B) {
	_, c := benchWorld(b, 0)
	limits := &halleyv1.Limits{MaxSessions: 10}
	b.Run("register", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			s := c.session("default", fmt.Sprintf("n%d-%d", b.N, c.n), fmt.Sprintf("k%d", c.n))
			if _, err := c.r.Register(context.Background(), &halleyv1.RegisterRequest{Sessions: []*halleyv1.Session{s}, Limits: limits}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("both", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s := c.session("default", "u", "k")
			if _, err := c.r.Register(context.Background(), &halleyv1.RegisterRequest{Sessions: []*halleyv1.Session{s}, Limits: limits}); err != nil {
				b.Fatal(err)
			}
			if _, err := c.r.Deregister(context.Background(), &halleyv1.DeregisterRequest{Sessions: []*halleyv1.Session{s}}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkMemory reports what a session takes in Redis; it needs a real one that nobody else uses.
func BenchmarkMemory(b *testing.B) {
	w, c := benchWorld(b, 0)
	if os.Getenv("HALLEY_TEST_REDIS") == "" {
		b.Skip("needs HALLEY_TEST_REDIS")
	}
	used := func() float64 {
		info, err := w.redis.Info(context.Background(), "memory").Result()
		if err != nil {
			b.Fatal(err)
		}
		s := bufio.NewScanner(strings.NewReader(info))
		for s.Scan() {
			if v, ok := strings.CutPrefix(s.Text(), "used_memory_dataset:"); ok {
				f, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
				return f
			}
		}
		return 0
	}
	const sessions = 100_000
	for b.Loop() {
		before := used()
		for i := 0; i < sessions; i += 1000 {
			req := &halleyv1.RegisterRequest{}
			for j := i; j < i+1000; j++ {
				s := c.session("default", strconv.Itoa(1_000_000+j), uuid.NewString())
				s.Platform = "web"
				req.Sessions = append(req.Sessions, s)
			}
			if _, err := c.r.Register(context.Background(), req); err != nil {
				b.Fatal(err)
			}
		}
		eventually(b, func() bool { // the settle set is empty again
			k, err := w.redis.Keys(context.Background(), w.prefix+":{p*}:due").Result()
			return err == nil && len(k) == 0
		}, "settled")
		b.ReportMetric((used()-before)/sessions, "redis-B/session")
		w.flush()
	}
}
