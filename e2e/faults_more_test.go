package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// jsonInto decodes body into v; further arguments are what the caller returns of it.
func jsonInto(body []byte, v any, _ ...any) error { return json.Unmarshal(body, v) }

func asRefused(err error, into **RefusedError) bool { return errors.As(err, into) }

// clientStops has a session stop reading for some seconds under more pushes than its outbox holds. What it gets afterwards,
// and what it is told was dropped, is all that was sent; nobody else notices.
func (f *faults) clientStops(t *testing.T) {
	s := f.begin(t)
	for _, transport := range []string{"tcp", "ws"} {
		t.Run(transport, func(t *testing.T) {
			uid := "slow-" + transport
			c, err := f.Comets[0].Dial(transport)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Raw.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
				t.Fatal(err)
			}
			slow, err := Authenticate(c, &halleyv1.Auth{Token: f.Token(uid, nil), Accepts: []int32{7002, 7003}})
			if err != nil {
				t.Fatal(err)
			}
			// As much as the kernel and the outbox take, and then some: how much that is, only the counter knows.
			const perBatch, most = 500, 60_000
			counter := func() float64 { return Metric(All(f.Comets), "halley_comet_outbox_dropped_volatile_total") }
			before, sent := counter(), 0
			padding := strings.Repeat("x", 1000)
			for counter() == before {
				if sent >= most {
					t.Fatalf("%d pushes of 1 KB, and no outbox was ever full", sent)
				}
				var items []Push
				for range perBatch {
					sent++
					items = append(items, Push{UIDs: []string{uid}, Op: 7002, Text: fmt.Sprintf("slow %d %s", sent, padding)})
				}
				f.api.Must(t, 200, "POST", "/v1/push/batch", map[string]any{"items": items}, nil)
			}
			// By the same key and lane: when it comes, all the others have been dealt with.
			f.api.Push(t, Push{UIDs: []string{uid}, Op: 7003, Text: "the end"})
			got, dropped, last := 0, 0, 0
			for over := false; !over; {
				fr, err := slow.Conn.Next(30 * time.Second)
				if err != nil {
					t.Fatalf("after %d pushes and %d dropped: %v", got, dropped, err)
				}
				switch {
				case fr.Op == frame.OpEvent:
					e, err := ParseEvent(fr.Body)
					if err != nil {
						t.Fatal(err)
					}
					dropped += int(e.GetLagged().GetDropped())
				case fr.Op == 7002:
					var n int
					if _, err := fmt.Sscanf(string(fr.Body), "slow %d", &n); err != nil {
						t.Fatal(err)
					}
					if n <= last {
						t.Fatalf("push %d after %d", n, last)
					}
					last = n
					got++
				case fr.Op == 7003:
					over = true
				}
			}
			t.Logf("%d came, %d dropped, %d sent", got, dropped, sent)
			if got+dropped != sent || dropped == 0 {
				t.Errorf("%d came and %d were told to be dropped, %d were sent", got, dropped, sent)
			}
		})
	}
	s.end(t, nil)
}

// moveTo has the user go to the comet of an index when its connection ends next.
func (u *User) moveTo(comet int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	// The end of a connection moves the user on by one.
	u.at = (comet + len(u.comets) - 1) % len(u.comets)
}

// nothingLeft ends everything in order, and finds nothing in Redis but what is meant to be remembered.
func (f *faults) nothingLeft(t *testing.T) {
	within(t, presenceLimit, "all users are offline", func() (bool, string) {
		for _, u := range f.stream.Users {
			got, err := states(t.Context(), f.api, u.UID)
			if err != nil || got[u.UID].Online {
				return false, fmt.Sprint(got, err)
			}
		}
		return true, ""
	})
	for _, n := range f.Comets {
		if code := n.Stop(30 * time.Second); code != 0 {
			t.Errorf("%s: exit code %d, want 0", n.Name, code)
		}
	}
	r := redis.NewClient(&redis.Options{Addr: f.Servers.Redis})
	defer r.Close()
	// Tombstones of connections and rooms are kept for 5 s here, then swept.
	within(t, 60*time.Second, "Redis is empty", func() (bool, string) {
		left := leftOver(t, r, f.Prefix)
		return len(left) == 0, fmt.Sprintf("%d left over: %q", len(left), left[:min(len(left), 10)])
	})
	for _, n := range append(append(append([]*Node{}, f.Jobs...), f.Logics...), f.Routers...) {
		if code := n.Stop(20 * time.Second); code != 0 {
			t.Errorf("%s: exit code %d, want 0", n.Name, code)
		}
	}
}

// leftOver lists what is in Redis and should not be once all comets have gone. Remembered on purpose: dead epochs, when
// users were last seen, the leases' own state, and whatever expires by itself (limits, kept answers).
func leftOver(t *testing.T, r *redis.Client, prefix string) []string {
	ctx := t.Context()
	var left []string
	keys := r.Scan(ctx, 0, prefix+":*", 1000).Iterator()
	for keys.Next(ctx) {
		key := keys.Val()
		rest := strings.TrimPrefix(key, prefix+":")
		switch {
		case strings.HasPrefix(rest, "{lease}:"):
			if rest == "{lease}:due" || rest == "{lease}:info" || rest == "{lease}:reap" {
				left = append(left, rest)
			}
		case strings.HasSuffix(rest, "}:dead"):
		case strings.HasSuffix(rest, "}:b"):
			fields, err := r.HKeys(ctx, key).Result()
			if err != nil {
				t.Fatal(err)
			}
			for _, field := range fields {
				if field != "v" && !strings.HasPrefix(field, "u") {
					left = append(left, rest+" "+field)
				}
			}
		default:
			if ttl, err := r.TTL(ctx, key).Result(); err != nil || ttl <= 0 {
				left = append(left, rest)
			}
		}
	}
	if err := keys.Err(); err != nil {
		t.Fatal(err)
	}
	return left
}
