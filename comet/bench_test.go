package comet_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/halley-im/halley/comet"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// BenchmarkFanOut pushes to a room whose members are real connections of this process, and waits until all
// bytes have arrived. ns/delivery includes the reading side.
func BenchmarkFanOut(b *testing.B) {
	for _, tr := range []string{"tcp", "ws"} {
		for _, members := range []int{10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/members=%d", tr, members), func(b *testing.B) {
				n := start(b, with(func(c *comet.Config) { c.DrainRate = 1e6 }))
				const body = "0123456789012345678901234567890123456"
				var got atomic.Int64
				for range members {
					c := n.login(tr, `{"room_id":"live://bench"}`)
					go func() {
						buf := make([]byte, 64<<10)
						for {
							k, err := c.conn.Read(buf)
							got.Add(int64(k))
							if err != nil {
								return
							}
						}
					}()
				}
				j := n.job(halleyv1.Lane_LANE_PUSH)
				// What comes over WebSocket has headers that depend on what was put together: at least this much.
				want := int64(0)
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					j.send(&halleyv1.Delivery{Room: "live://bench", Content: push(1000, body)})
					want += int64(members) * int64(16+len(body))
				}
				for got.Load() < want {
					time.Sleep(100 * time.Microsecond)
				}
				b.StopTimer()
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(members), "ns/delivery")
			})
		}
	}
}
