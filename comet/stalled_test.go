package comet_test

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/halley-im/halley/comet"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// body4k is a numbered body of 4 KiB.
func body4k(i int) string { return fmt.Sprintf("%06d", i) + strings.Repeat("x", 4090) }

// stuff pushes until a client that doesn't read has its outbox full, and returns how many it pushed.
func stuff(j *job, uid string, megabytes int) int {
	total := megabytes * 256
	for i := 0; i < total; i += 16 {
		var ds []*halleyv1.Delivery
		for k := range 16 {
			ds = append(ds, &halleyv1.Delivery{Uids: []string{uid}, Content: push(1000, body4k(i+k))})
		}
		j.send(ds...)
	}
	return total
}

func TestStalledClientHarmsItselfOnly(t *testing.T) {
	opts := []option{with(func(c *comet.Config) { c.WriteTimeout = time.Minute })}
	onAll(t, opts, func(t *testing.T, n *node, tr string) {
		n.login(tr, `{"token":"stalled-`+tr+`","rooms":["live://s"]}`) // never reads
		good := n.login(tr, `{"token":"good-`+tr+`","rooms":["live://s"]}`)
		j := n.job(halleyv1.Lane_LANE_PUSH)
		stuff(j, "stalled-"+tr, 12)
		for i := range 300 {
			begun := time.Now()
			j.send(&halleyv1.Delivery{Room: "live://s", Content: push(1000, strconv.Itoa(i))})
			good.expect(1000, strconv.Itoa(i))
			if took := time.Since(begun); took > 20*time.Second { // the stalled one is given a minute
				t.Fatalf("a push beside a stalled client took %v", took)
			}
		}
	})
}

func TestSlowReaderIsToldWhatItMissed(t *testing.T) {
	opts := []option{with(func(c *comet.Config) { c.WriteTimeout = time.Minute })}
	onAll(t, opts, func(t *testing.T, n *node, tr string) {
		c := n.login(tr, `{"token":"slow-`+tr+`"}`)
		j := n.job(halleyv1.Lane_LANE_PUSH)
		total := stuff(j, "slow-"+tr, 16)
		got, dropped, last := 0, 0, -1
		for got+dropped < total {
			f := c.next()
			if f.Op == frame.OpEvent {
				var d int
				if _, err := fmt.Sscanf(strings.ReplaceAll(string(f.Body), " ", ""), `{"lagged":{"dropped":%d}}`, &d); err != nil {
					t.Fatalf("event %s", f.Body)
				}
				dropped += d
				continue
			}
			i, _ := strconv.Atoi(string(f.Body[:6]))
			if i <= last {
				t.Fatalf("push %d after %d", i, last)
			}
			if string(f.Body) != body4k(i) {
				t.Fatalf("push %d is torn", i)
			}
			last = i
			got++
		}
		if dropped == 0 || last != total-1 {
			t.Errorf("dropped %d, last %d of %d", dropped, last, total)
		}
		if n.metric("halley_comet_outbox_dropped_volatile_total") < float64(dropped) {
			t.Error("not all drops are counted")
		}
		c.barrier()
	})
}

func TestStoredPushesThatAreDroppedBecomeAResync(t *testing.T) {
	n := start(t, with(func(c *comet.Config) { c.WriteTimeout = time.Minute }))
	c := n.login("tcp", `{"token":"slow"}`)
	j := n.job(halleyv1.Lane_LANE_CHAT)
	const total = 16 * 256
	for i := range total {
		j.send(&halleyv1.Delivery{Class: halleyv1.Class_CLASS_STORED, Uids: []string{"slow"}, Content: push(102, body4k(i))})
	}
	j.send(&halleyv1.Delivery{Class: halleyv1.Class_CLASS_CONTROL, Uids: []string{"slow"}, Content: kick("kicked")})
	resyncs, got := 0, 0
	for {
		f := c.next()
		if strings.Contains(string(f.Body), `"resync"`) {
			resyncs++
			continue
		}
		if strings.Contains(string(f.Body), `"closing"`) {
			break
		}
		got++
	}
	if resyncs == 0 || got == total {
		t.Errorf("%d of %d arrived and %d resyncs", got, total, resyncs)
	}
	c.closed()
}

func TestUnsignedClientThatLagsIsClosedAfterAPrefix(t *testing.T) {
	opts := []option{with(func(c *comet.Config) { c.WriteTimeout = time.Minute })}
	onAll(t, opts, func(t *testing.T, n *node, tr string) {
		c := n.login(tr, `{"mid":77,"key":"lag-`+tr+`","accepts":[1000]}`)
		j := n.job(halleyv1.Lane_LANE_PUSH)
		stuff(j, "77", 16)
		for i := 0; ; i++ {
			f, err := c.read(patience)
			if err != nil {
				if i == 0 {
					t.Error("nothing arrived")
				}
				break
			}
			if string(f.Body) != body4k(i) {
				t.Fatalf("push %d is %.6s: not a prefix in order", i, f.Body)
			}
		}
	})
}

func TestWriteWithoutProgressClosesTheConnection(t *testing.T) {
	t.Parallel()
	opts := []option{with(func(c *comet.Config) { c.WriteTimeout = time.Second })}
	onAll(t, opts, func(t *testing.T, n *node, tr string) {
		n.login(tr, `{"token":"stuck-`+tr+`"}`)
		j := n.job(halleyv1.Lane_LANE_PUSH)
		before := n.metric("halley_comet_sessions_ended_total", "reason", "slow_consumer")
		stuff(j, "stuck-"+tr, 12)
		eventually(t, func() bool {
			return n.metric("halley_comet_sessions_ended_total", "reason", "slow_consumer") == before+1
		}, "the slow consumer is closed")
	})
}

func TestSlowButSteadyReaderIsKept(t *testing.T) {
	t.Parallel()
	n := start(t, with(func(c *comet.Config) { c.WriteTimeout = 3 * time.Second })) // it may stand still for as long
	c := n.login("tcp", `{"token":"steady"}`)
	c.conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	j := n.job(halleyv1.Lane_LANE_PUSH)
	// Always more than it takes.
	stop := make(chan struct{})
	var pusher sync.WaitGroup
	pusher.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				stuff(j, "steady", 1)
			}
		}
	})
	// Several timeouts long, some bytes in each of them.
	end := time.Now().Add(7 * time.Second)
	for time.Now().Before(end) {
		for range 40 {
			c.next()
		}
		time.Sleep(50 * time.Millisecond)
	}
	close(stop)
	pusher.Wait()
	c.send(frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: 5})
	for c.next().Op != frame.OpHeartbeatReply {
	}
}

func TestClientThatResetsIsForgotten(t *testing.T) {
	opts := []option{with(func(c *comet.Config) { c.WriteTimeout = time.Minute })}
	onAll(t, opts, func(t *testing.T, n *node, tr string) {
		c := n.login(tr, `{"token":"reset-`+tr+`"}`)
		j := n.job(halleyv1.Lane_LANE_PUSH)
		stuff(j, "reset-"+tr, 8)
		if tcp, ok := c.conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		c.conn.Close()
		eventually(t, func() bool { return n.metric("halley_comet_connections") == 0 }, "connection is gone")
		if resp := j.send(&halleyv1.Delivery{Uids: []string{"reset-" + tr}, Content: push(1000, "x")}); resp.GetReached() != 0 {
			t.Errorf("reached %d", resp.GetReached())
		}
	})
}

func TestClientThatReadsNoRepliesIsNotReadFrom(t *testing.T) {
	t.Parallel()
	n := start(t, withTLS, with(func(c *comet.Config) {
		c.OutboxBytes, c.RequestRate, c.WriteTimeout = 64<<10, 0, time.Minute
	}))
	for _, tr := range transports {
		t.Run(tr, func(t *testing.T) {
			sub := *n
			sub.t = t
			c := sub.login(tr, `{}`)
			body := []byte(strings.Repeat("1", 4000))
			sent := 0
			// Until the server's windows are full: it has stopped reading.
			for {
				c.conn.SetWriteDeadline(time.Now().Add(700 * time.Millisecond))
				if c.ws != nil {
					c.ws.SetWriteDeadline(time.Now().Add(700 * time.Millisecond))
				}
				if c.trySend(frame.Frame{Ver: 1, Op: frame.OpSubscribe, Seq: int32(sent), Body: body}) != nil {
					break
				}
				if sent++; sent > 20000 {
					t.Fatal("80 MB of requests were read though no reply was")
				}
			}
			if n.metric("halley_comet_connections") == 0 {
				t.Error("the connection was closed")
			}
			c.conn.Close()
			eventually(t, func() bool { return n.metric("halley_comet_connections") == 0 }, "connection is gone")
		})
	}
}

func TestFramesAreNotTornByPingsAndReplies(t *testing.T) {
	opts := []option{with(func(c *comet.Config) { c.RequestRate, c.FlushMax = 0, 20*time.Millisecond })}
	onAll(t, opts, func(t *testing.T, n *node, tr string) {
		c := n.login(tr, `{"token":"torn-`+tr+`","rooms":["live://t"]}`)
		const total = 4000
		var wg sync.WaitGroup
		for _, lane := range []halleyv1.Lane{halleyv1.Lane_LANE_PUSH, halleyv1.Lane_LANE_URGENT} {
			j := n.job(lane)
			wg.Go(func() {
				for i := 0; i < total; i += 8 {
					var ds []*halleyv1.Delivery
					for k := range 8 {
						ds = append(ds, &halleyv1.Delivery{Room: "live://t", Content: push(1000+int32(lane), strconv.Itoa(i+k))})
					}
					j.send(ds...)
				}
			})
		}
		wg.Go(func() {
			for i := range 500 {
				c.trySend(frame.Frame{Ver: 1, Op: frame.OpHeartbeat, Seq: int32(i)})
				if c.ws != nil {
					c.ws.WriteControl(websocket.PingMessage, []byte("p"), time.Now().Add(patience))
				}
			}
		})
		next := map[frame.Op]int{}
		for next[1001] < total || next[1002] < total || next[frame.OpHeartbeatReply] < 500 {
			f := c.next()
			if f.Op == frame.OpHeartbeatReply {
				if int(f.Seq) != next[f.Op] {
					t.Fatalf("heartbeat %d, want %d", f.Seq, next[f.Op])
				}
			} else if string(f.Body) != strconv.Itoa(next[f.Op]) {
				t.Fatalf("op %v: got %.40q, want %d", f.Op, f.Body, next[f.Op])
			}
			next[f.Op]++
		}
		wg.Wait()
	})
}
