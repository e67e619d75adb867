package router_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/embedded"
	"github.com/halley-im/halley/kit/kafkaconn"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/router"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a Redis, the routers on it, and what they produced.
type world struct {
	t      testing.TB
	cfg    router.Config
	redis  redis.UniversalClient
	prefix string
	kafka  *fakeKafka
}

// newWorld uses the Redis named by HALLEY_TEST_REDIS, a Cluster of one node if HALLEY_TEST_REDIS_CLUSTER is set, else one in
// the process.
func newWorld(t testing.TB, c router.Config) *world {
	w := &world{t: t, cfg: c, kafka: &fakeKafka{}}
	addr := os.Getenv("HALLEY_TEST_REDIS")
	if addr == "" {
		r, err := embedded.StartRedis()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		addr = r.Addr()
	}
	if os.Getenv("HALLEY_TEST_REDIS_CLUSTER") != "" {
		w.redis = redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{addr}, ContextTimeoutEnabled: true, DisableIdentity: true})
	} else {
		w.redis = redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true, MaxRetries: 1, DialerRetries: 1, DisableIdentity: true})
	}
	t.Cleanup(func() { _ = w.redis.Close() })
	var b [6]byte
	_, _ = rand.Read(b[:])
	w.prefix = "test" + hex.EncodeToString(b[:])
	t.Cleanup(func() { w.flush() })
	return w
}

// flush loses all that is under the prefix.
func (w *world) flush() { w.lose(w.prefix + ":*") }

func (w *world) lose(pattern string) {
	ctx := context.Background()
	for {
		keys, err := w.redis.Keys(ctx, pattern).Result()
		if err != nil || len(keys) == 0 {
			return
		}
		for _, k := range keys { // one by one: they lie in many slots of a Cluster
			w.redis.Del(ctx, k)
		}
	}
}

// short are times for tests that wait.
func short() router.Config {
	c := router.Default()
	c.LeaseTTL, c.LeaseCache, c.WarmUp, c.LookGap = time.Minute, 50*time.Millisecond, time.Millisecond, time.Minute
	c.SettleDelay, c.PollInterval, c.ReapInterval = 300*time.Millisecond, 20*time.Millisecond, 50*time.Millisecond
	c.RedisTimeout = 10 * time.Second // machines that run tests are slow
	c.RoomCountDelay, c.ClaimTime, c.SweepInterval = 100*time.Millisecond, time.Second, 500*time.Millisecond
	return c
}

// dying are times for tests in which a comet dies.
func dying() router.Config {
	c := short()
	c.LeaseTTL = 2 * time.Second
	return c
}

// router starts one more router and returns its client.
func (w *world) router() (halleyv1.RouterClient, func()) {
	w.t.Helper()
	r, err := router.New(w.cfg, router.Deps{Redis: w.redis, RedisPrefix: w.prefix, Producer: w.kafka})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx) })
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer()
	r.Register(s)
	wg.Go(func() { _ = s.Serve(l) })
	conn, err := grpc.NewClient("passthrough:///router", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		w.t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		_ = conn.Close()
		s.Stop()
		cancel()
		wg.Wait()
	})
	w.t.Cleanup(stop)
	return halleyv1.NewRouterClient(conn), stop
}

// fakeKafka keeps what was produced.
type fakeKafka struct {
	mu   sync.Mutex
	down bool
	sick string // what has it in its key is not written
	hurt int    // how often that happened
	msgs []kafka.Message
	then func() // called when something is written, before whoever writes it knows
}

func (k *fakeKafka) Produce(_ context.Context, msgs ...kafka.Message) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.down {
		return errors.New("kafka is down")
	}
	each, failed := make(kafkaconn.WriteErrors, len(msgs)), false
	for i, m := range msgs {
		if k.sick != "" && strings.Contains(string(m.Key), k.sick) {
			each[i], failed = kafkaconn.ErrUnavailable, true
			k.hurt++
			continue
		}
		k.msgs = append(k.msgs, m)
	}
	if then := k.then; then != nil {
		k.mu.Unlock()
		then()
		k.mu.Lock()
	}
	switch {
	case !failed:
		return nil
	case len(msgs) == 1:
		return each[0]
	}
	return each
}

// setSick has no record written whose key has name in it; empty: all are.
func (k *fakeKafka) setSick(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sick = name
}

func (k *fakeKafka) refused() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.hurt
}

func (k *fakeKafka) thenDo(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.then = f
}

func (k *fakeKafka) setDown(down bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = down
}

type event struct {
	tenant, room string
	*halleyv1.Event
}

func (k *fakeKafka) events(t testing.TB) []event {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []event
	for _, m := range k.msgs {
		if m.Topic == topic.Hooks {
			continue
		}
		var r halleyv1.PushRecord
		if err := proto.Unmarshal(m.Value, &r); err != nil {
			t.Fatal(err)
		}
		if m.Topic != "halley.push" || r.GetPush().GetOp() != 102 || r.GetClass() != halleyv1.Class_CLASS_VOLATILE || len(r.GetTargets()) != 1 {
			t.Fatalf("record %v to %s isn't an event", &r, m.Topic)
		}
		ev := event{tenant: r.GetTenant(), room: r.GetTargets()[0].GetRoom(), Event: &halleyv1.Event{}}
		if err := protojson.Unmarshal(r.GetPush().GetBody(), ev.Event); err != nil {
			t.Fatal(err)
		}
		out = append(out, ev)
	}
	return out
}

// hooks are what webhooks are told of a uid.
func (k *fakeKafka) hooks(t testing.TB, uid string) []*halleyv1.HookRecord {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []*halleyv1.HookRecord
	for _, m := range k.msgs {
		r := &halleyv1.HookRecord{}
		if m.Topic != topic.Hooks {
			continue
		}
		if err := proto.Unmarshal(m.Value, r); err != nil {
			t.Fatal(err)
		}
		if r.GetKey() == "uid/"+uid {
			out = append(out, r)
		}
	}
	return out
}

func (k *fakeKafka) presence(t testing.TB, uid string) []*halleyv1.Presence {
	t.Helper()
	var out []*halleyv1.Presence
	for _, e := range k.events(t) {
		if p := e.GetPresence(); p.GetUid() == uid {
			out = append(out, p)
		}
	}
	return out
}

func (k *fakeKafka) members(t testing.TB, tenant, room string) []*halleyv1.RoomMember {
	t.Helper()
	var out []*halleyv1.RoomMember
	for _, e := range k.events(t) {
		if p := e.GetRoomMember(); p != nil && p.GetRoom() == room && e.tenant == tenant {
			out = append(out, p)
		}
	}
	return out
}

// comet is what a test has of a comet.
type comet struct {
	t     testing.TB
	r     halleyv1.RouterClient
	info  *halleyv1.CometInfo
	start string
	n     int
	num   uint64
}

func newComet(t testing.TB, r halleyv1.RouterClient, name string) *comet {
	t.Helper()
	var b [8]byte
	_, _ = rand.Read(b[:])
	c := &comet{t: t, r: r, start: hex.EncodeToString(b[:]), info: &halleyv1.CometInfo{
		Comet: name, Epoch: uuid.Must(uuid.NewV7()).String(), Addr: name + ":1", Load: &halleyv1.CometLoad{Capacity: 100, Connections: 10, HandshakeRate: 5},
	}}
	c.enroll()
	return c
}

func ctxFor(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (c *comet) enroll() {
	c.t.Helper()
	res, err := c.r.Enroll(ctxFor(c.t), &halleyv1.EnrollRequest{Info: c.info})
	if err != nil || res.GetStatus() != halleyv1.EpochStatus_EPOCH_STATUS_OK {
		c.t.Fatalf("Enroll: %v %v", res, err)
	}
}

func (c *comet) renew() *halleyv1.RenewResponse {
	c.t.Helper()
	res, err := c.r.Renew(ctxFor(c.t), &halleyv1.RenewRequest{Info: c.info})
	if err != nil {
		c.t.Fatalf("Renew: %v", err)
	}
	return res
}

// keepAlive renews until the test ends or the returned function is called.
func (c *comet) keepAlive(every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				_, _ = c.r.Renew(ctx, &halleyv1.RenewRequest{Info: c.info})
			}
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	c.t.Cleanup(stop)
	return stop
}

func (c *comet) session(tenant, uid, key string) *halleyv1.Session {
	c.n++
	return &halleyv1.Session{
		Tenant: tenant, Uid: uid, Key: key, Signed: true, RemoteAddr: "192.0.2.1", ConnectedAtMs: time.Now().UnixMilli(), IssuedAtMs: 5,
		Conn: &halleyv1.Conn{Comet: c.info.Comet, Epoch: c.info.Epoch, Id: fmt.Sprintf("%s.%d", c.start, c.n)},
	}
}

func (c *comet) register(s *halleyv1.Session, l *halleyv1.Limits) *halleyv1.RegisterResult {
	c.t.Helper()
	return c.registerReplacing(s, l, nil)
}

func (c *comet) registerReplacing(s *halleyv1.Session, l *halleyv1.Limits, old *halleyv1.Conn) *halleyv1.RegisterResult {
	c.t.Helper()
	res, err := c.r.Register(ctxFor(c.t), &halleyv1.RegisterRequest{Sessions: []*halleyv1.Session{s}, Limits: cmp.Or(l, &halleyv1.Limits{}), Replaces: old})
	if err != nil || res.GetStatus() != halleyv1.EpochStatus_EPOCH_STATUS_OK || len(res.GetResults()) != 1 {
		c.t.Fatalf("Register: %v %v", res, err)
	}
	return res.GetResults()[0]
}

func (c *comet) deregister(s ...*halleyv1.Session) {
	c.t.Helper()
	if _, err := c.r.Deregister(ctxFor(c.t), &halleyv1.DeregisterRequest{Sessions: s}); err != nil {
		c.t.Fatalf("Deregister: %v", err)
	}
}

// room changes a room on this comet and returns its sessions over all comets.
func (c *comet) room(tenant, room string, count uint32, joined, left []string) uint32 {
	c.t.Helper()
	c.num++
	res, err := c.r.UpdateRooms(ctxFor(c.t), &halleyv1.UpdateRoomsRequest{Comet: c.info.Comet, Epoch: c.info.Epoch, Changes: []*halleyv1.RoomChange{{
		Tenant: tenant, Room: room, Number: c.num, Count: count, Joined: joined, Left: left, Listed: count <= 200,
	}}})
	if err != nil || res.GetStatus() != halleyv1.EpochStatus_EPOCH_STATUS_OK {
		c.t.Fatalf("UpdateRooms: %v %v", res, err)
	}
	return res.GetCounts()[0]
}

func uidName(tenant, uid string) *halleyv1.Name {
	return &halleyv1.Name{Tenant: tenant, Name: &halleyv1.Name_Uid{Uid: uid}}
}

func keyName(tenant, key string) *halleyv1.Name {
	return &halleyv1.Name{Tenant: tenant, Name: &halleyv1.Name_Key{Key: key}}
}

func roomName(tenant, room string) *halleyv1.Name {
	return &halleyv1.Name{Tenant: tenant, Name: &halleyv1.Name_Room{Room: room}}
}

// locate returns for each name "comet:connection,connection" or "comet:by name" or "comet:", sorted.
func locate(t testing.TB, r halleyv1.RouterClient, names ...*halleyv1.Name) [][]string {
	t.Helper()
	res, err := r.Locate(ctxFor(t), &halleyv1.LocateRequest{Names: names})
	if err != nil {
		t.Fatalf("Locate: %v", err)
	}
	if res.GetUnavailableMs() == 1 {
		time.Sleep(2 * time.Millisecond) // short's whole warm-up
		return locate(t, r, names...)
	}
	if res.GetUnavailableMs() > 0 {
		t.Fatalf("Locate: unavailable for %d ms", res.GetUnavailableMs())
	}
	out := make([][]string, len(names))
	for i, l := range res.GetLocated() {
		for _, p := range l.GetPlaces() {
			s := res.GetComets()[p.GetComet()].GetComet() + ":"
			if p.GetByName() {
				s += "by name"
			}
			slices.Sort(p.GetConnIds())
			for j, id := range p.GetConnIds() {
				if j > 0 {
					s += ","
				}
				s += id
			}
			out[i] = append(out[i], s)
		}
		slices.Sort(out[i])
	}
	return out
}

func at(s ...*halleyv1.Session) []string {
	by := map[string][]string{}
	for _, m := range s {
		by[m.GetConn().GetComet()] = append(by[m.GetConn().GetComet()], m.GetConn().GetId())
	}
	var out []string
	for c, ids := range by {
		slices.Sort(ids)
		x := c + ":"
		for i, id := range ids {
			if i > 0 {
				x += ","
			}
			x += id
		}
		out = append(out, x)
	}
	slices.Sort(out)
	return out
}

func eventually(t testing.TB, f func() bool, what string, args ...any) {
	t.Helper()
	limit := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(limit) {
			t.Fatalf("never: "+what, args...)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
