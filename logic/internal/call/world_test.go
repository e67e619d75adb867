package call_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/logic/internal/call"
	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/logic/internal/limit"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
	entry "github.com/halley-im/halley/store/conversation"
)

func TestMain(m *testing.M) { kittest.Main(m) }

// patience is how long is waited for what comes: a process that stands still for seconds, as one among many does, is no failure. It is shorter than the times
// that docs/calls.md tells of legs, so that what a test shortens is seen not to work.
const patience = 20 * time.Second

// config has the times that docs/calls.md tells: a test shortens the one that it is about, so that no other one gets in its way on a slow machine.
func config(t testing.TB) call.Config {
	t.Helper()
	var c call.Config
	p, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(nil); err != nil {
		t.Fatal(err)
	}
	c.Poll, c.InviteRate, c.SignalRate = 10*time.Millisecond, 0, 0
	c.RedisTimeout, c.ProduceTimeout, c.LostAfter = patience, patience, patience
	return c
}

// event is one that a device got.
type event struct {
	Name string
	Body struct {
		Call         json.RawMessage   `json:"call"`
		Version      int64             `json:"version"`
		Reason       string            `json:"reason"`
		Resumed      bool              `json:"resumed"`
		Leg          *call.LegView     `json:"leg"`
		From         string            `json:"from"`
		Generation   uint32            `json:"generation"`
		ToGeneration uint32            `json:"to_generation"`
		Negotiation  uint32            `json:"negotiation"`
		Description  *call.Description `json:"description"`
		Candidates   []call.Candidate  `json:"candidates"`
		Done         bool              `json:"done"`
	}
}

// view is the call that the event tells of; nil where it tells its id alone.
func (e *event) view() *call.View {
	v := &call.View{}
	if json.Unmarshal(e.Body.Call, v) != nil {
		return nil
	}
	return v
}

func (e *event) id() string {
	if v := e.view(); v != nil {
		return v.Call
	}
	var id string
	_ = json.Unmarshal(e.Body.Call, &id)
	return id
}

// hooked is a record for webhooks.
type hooked struct {
	ID   string
	Type string
	Key  string
	Data map[string]any
}

// world is Kafka, router, people and devices, around two logic processes' services on one Redis.
type world struct {
	t      testing.TB
	redis  redis.UniversalClient
	prefix string
	cfg    call.Config
	nodes  []*node

	mu      sync.Mutex
	devices []*device
	hooks   []hooked
	entries map[string]json.RawMessage // by client_msg_id
	told    int
	slowest time.Duration      // of what was asked of logic
	blocks  map[[2]string]bool // who blocks whom
	groups  map[string][]string
}

// node is one logic process' part.
type node struct {
	*call.Service
	w *world
	// dead: it writes nothing to Kafka any more, and does nothing that is due.
	dead   atomic.Bool
	broken atomic.Bool  // Kafka is away, for this one
	slow   atomic.Int64 // what Kafka takes to answer it, in ns
	// writes is asked before Kafka takes anything; its error is Kafka's.
	writes atomic.Pointer[func() error]
	stop   context.CancelFunc
	done   chan struct{}
}

func newWorld(t testing.TB, change ...func(*call.Config)) *world {
	t.Helper()
	w := &world{t: t, cfg: config(t), entries: map[string]json.RawMessage{}, blocks: map[[2]string]bool{}, groups: map[string][]string{}}
	for _, c := range change {
		c(&w.cfg)
	}
	w.redis, w.prefix = kittest.Redis(t)
	if addr := os.Getenv(kittest.EnvRedis); addr != "" && os.Getenv("HALLEY_TEST_REDIS_CLUSTER") != "" {
		// It refuses whatever touches two slots.
		c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{addr}})
		t.Cleanup(func() { _ = c.Close() })
		w.redis = c
	}
	for range 2 {
		w.start()
	}
	return w
}

// start adds a logic process.
func (w *world) start() *node {
	n := w.newNode(w.redis)
	w.nodes = append(w.nodes, n)
	return n
}

func (w *world) newNode(rdb redis.UniversalClient) *node {
	n := &node{w: w, done: make(chan struct{})}
	rules := entry.DefaultRules()
	s, err := call.New(w.cfg, call.Deps{
		Redis: rdb, RedisPrefix: w.prefix, Producer: n, Router: w, RouterTimeout: patience, People: w, Entries: &rules,
		Limiter: limit.New(w.redis, w.prefix, patience, nil),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	n.Service = s
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	go func() {
		defer close(n.done)
		_ = s.Run(ctx)
	}()
	w.t.Cleanup(n.kill)
	return n
}

// kill ends a process at once: what it has under way is not written any more.
func (n *node) kill() {
	n.dead.Store(true)
	n.stop()
	<-n.done
}

var errGone = errors.New("kafka does not answer")

// Produce delivers records as job and comet would, in their order, and fails for who is dead.
func (n *node) Produce(_ context.Context, msgs ...kafka.Message) error {
	if n.dead.Load() || n.broken.Load() {
		return errGone
	}
	if f := n.writes.Load(); f != nil {
		if err := (*f)(); err != nil {
			return err
		}
	}
	time.Sleep(time.Duration(n.slow.Load()))
	w := n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range msgs {
		w.told++
		switch m.Topic {
		case topic.Urgent:
			w.deliver(m)
		case topic.Hooks:
			r := &halleyv1.HookRecord{}
			if err := proto.Unmarshal(m.Value, r); err != nil {
				w.t.Errorf("hook: %v", err)
			}
			h := hooked{ID: r.GetId(), Type: r.GetType(), Key: r.GetKey()}
			if err := json.Unmarshal(r.GetData(), &h.Data); err != nil {
				w.t.Errorf("hook: %v", err)
			}
			// It may come twice, and receivers know it by its id.
			if !slices.ContainsFunc(w.hooks, func(have hooked) bool { return have.ID == h.ID }) {
				w.hooks = append(w.hooks, h)
			}
		case topic.Chat:
			r := &halleyv1.ChatRecord{}
			if err := proto.Unmarshal(m.Value, r); err != nil {
				w.t.Errorf("entry: %v", err)
			}
			p := r.GetProposal()
			if have, ok := w.entries[p.GetClientMsgId()]; ok && string(have) != string(p.GetBody()) {
				w.t.Errorf("entry %s: %s and %s: that would be a conflict", p.GetClientMsgId(), have, p.GetBody())
			}
			w.entries[p.GetClientMsgId()] = p.GetBody()
		default:
			w.t.Errorf("record in %s", m.Topic)
		}
	}
	return nil
}

// loseRedis loses all that is kept.
func (w *world) loseRedis() {
	w.t.Helper()
	ctx := context.Background()
	keys, err := w.redis.Keys(ctx, w.prefix+":*").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, k := range keys { // one by one: they lie in many slots of a Cluster
		if err := w.redis.Del(ctx, k).Err(); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) deliver(m kafka.Message) {
	r := &halleyv1.PushRecord{}
	if err := proto.Unmarshal(m.Value, r); err != nil {
		w.t.Errorf("push: %v", err)
		return
	}
	if r.GetClass() != halleyv1.Class_CLASS_STORED || r.GetPush().GetOp() != 102 {
		w.t.Errorf("push of class %v, op %d", r.GetClass(), r.GetPush().GetOp())
	}
	var named map[string]json.RawMessage
	if err := json.Unmarshal(r.GetPush().GetBody(), &named); err != nil || len(named) != 1 {
		w.t.Errorf("event %s: %v", r.GetPush().GetBody(), err)
	}
	for name, body := range named {
		e := event{Name: name}
		if err := json.Unmarshal(body, &e.Body); err != nil {
			w.t.Errorf("event %s: %v", name, err)
		}
		if want := string(topic.CallKey("default", e.id())); string(m.Key) != want {
			w.t.Errorf("%s has the key %q, want %q", name, m.Key, want)
		}
		for _, d := range w.devices {
			for _, t := range r.GetTargets() {
				if d.online && (t.GetUid() == d.UID || t.GetKey() == d.Key) && !slices.Contains(r.GetExcludeKeys(), d.Key) {
					d.got = append(d.got, e)
					break
				}
			}
		}
	}
}

// ListSessions is router's answer.
func (w *world) ListSessions(_ context.Context, in *halleyv1.ListSessionsRequest, _ ...grpc.CallOption) (*halleyv1.ListSessionsResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := &halleyv1.ListSessionsResponse{}
	for _, d := range w.devices {
		if d.UID == in.GetUid() && d.online {
			out.Sessions = append(out.Sessions, &halleyv1.Session{Tenant: "default", Uid: d.UID, Key: d.Key, DeviceId: d.Device, Platform: "web", Signed: true})
		}
	}
	return out, nil
}

// Refusers implements call.People.
func (w *world) Refusers(_ context.Context, _, from string, uids []string) (out []string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, uid := range uids {
		if w.blocks[[2]string{uid, from}] {
			out = append(out, uid)
		}
	}
	return out, nil
}

// IsMember implements call.People.
func (w *world) IsMember(_ context.Context, _, id, uid string) (bool, error) {
	if entry.TypeOf(id) != entry.Group {
		return slices.Contains(entry.Parties(id), uid), nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.groups[id], uid), nil
}

// IsAdmin implements call.People: of every group the second one is.
func (w *world) IsAdmin(_ context.Context, _, id, uid string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.groups[id]) > 1 && w.groups[id][1] == uid, nil
}

// GroupMembers implements call.People.
func (w *world) GroupMembers(_ context.Context, _, id string, n int) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.groups[id]
	return slices.Clone(list[:min(n, len(list))]), nil
}

const tea = "g/11111111-1111-1111-1111-111111111111"

// device is a client's session.
type device struct {
	machine.Who
	w      *world
	online bool
	got    []event // under w.mu
	// node is the process that its requests go to.
	node *node
}

func (w *world) device(uid, name string) *device {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := &device{
		Who: machine.Who{UID: uid, Session: uuid.NewString(), Key: "key-" + uid + "-" + name, Device: name, Platform: "web"}, w: w, online: true, node: w.nodes[len(w.devices)%len(w.nodes)],
	}
	w.devices = append(w.devices, d)
	return d
}

// gone is what a killed comet, or a lost network, makes of a device.
func (d *device) gone() {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.online = false
}

// again is the same device with a new session.
func (d *device) again() *device {
	d.gone()
	return d.w.device(d.UID, d.Device)
}

// took notes how long logic took for what was begun then.
func (w *world) took(begun time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slowest = max(w.slowest, time.Since(begun))
}

func (d *device) who() call.Who { return call.Who{Tenant: "default", Who: d.Who} }

func (d *device) try(id string, cmd machine.Command) (*call.Reply, error) {
	if cmd.Verb != machine.DoHeartbeat && cmd.ID == "" {
		cmd.ID = uuid.NewString()
	}
	defer d.w.took(time.Now())
	return d.node.Command(context.Background(), d.who(), id, &cmd)
}

func (d *device) do(id string, cmd machine.Command) *call.Reply {
	d.w.t.Helper()
	r, err := d.try(id, cmd)
	if err != nil {
		d.w.t.Fatalf("%s does %d: %v", d.UID, cmd.Verb, err)
	}
	return r
}

func (d *device) verb(id string, v machine.Verb) *call.Reply {
	d.w.t.Helper()
	return d.do(id, machine.Command{Verb: v})
}

func (d *device) accept(id string) *call.Reply {
	d.w.t.Helper()
	return d.do(id, machine.Command{Verb: machine.DoAccept, Sends: machine.Sends{Audio: true}})
}

func (d *device) connected(id string, generation uint32) *call.Reply {
	d.w.t.Helper()
	return d.do(id, machine.Command{Verb: machine.DoConnected, Generation: generation})
}

func (d *device) beat(id string, generation uint32) {
	_, _ = d.try(id, machine.Command{Verb: machine.DoHeartbeat, Generation: generation})
}

func (d *device) invite(a call.Invitation) (*call.Reply, error) {
	if a.Call == "" {
		a.Call = uuid.NewString()
	}
	if a.Media == "" {
		a.Media = "video"
	}
	defer d.w.took(time.Now())
	return d.node.Invite(context.Background(), d.who(), &a)
}

// call calls somebody and returns the call's id.
func (d *device) call(to ...string) string {
	d.w.t.Helper()
	r, err := d.invite(call.Invitation{To: to})
	if err != nil {
		d.w.t.Fatalf("%s calls %v: %v", d.UID, to, err)
	}
	return r.Call.Call
}

func (d *device) events() []event {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	return slices.Clone(d.got)
}

// count returns how many events of a name it got.
func (d *device) count(name string) int {
	n := 0
	for _, e := range d.events() {
		if e.Name == name {
			n++
		}
	}
	return n
}

// wait waits for an event, within limit, and returns it.
func (d *device) wait(name string, good func(*event) bool) *event {
	d.w.t.Helper()
	var found *event
	kittest.Eventually(d.w.t, patience, func() bool {
		for _, e := range d.events() {
			if e.Name == name && (good == nil || good(&e)) {
				found = &e
				return true
			}
		}
		return false
	}, d.UID, "never got", name)
	return found
}

func (d *device) waitState(id string, s machine.State) *call.View {
	d.w.t.Helper()
	name := "call.state"
	if s == machine.Ended {
		name = "call.ended"
	}
	return d.wait(name, func(e *event) bool { v := e.view(); return v != nil && v.Call == id && v.State == s }).view()
}

func (d *device) waitEnd(id string, reason machine.Reason) *call.View {
	d.w.t.Helper()
	v := d.waitState(id, machine.Ended)
	if v.Reason != reason {
		d.w.t.Errorf("ended as %s, want %s", v.Reason, reason)
	}
	return v
}

func (d *device) waitStop(reason string) {
	d.w.t.Helper()
	d.wait("call.stop", func(e *event) bool { return e.Body.Reason == reason })
}

func (d *device) current() []*call.Reply {
	d.w.t.Helper()
	r, err := d.node.Current(context.Background(), d.who(), "")
	if err != nil {
		d.w.t.Fatal(err)
	}
	return r.Calls
}

// beats keeps legs alive until the test ends or stop is called.
func (w *world) beats(id string, of ...*device) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, d := range of {
		wg.Go(func() {
			for ctx.Err() == nil {
				if r, err := d.node.Get(ctx, "default", id); err == nil {
					for _, l := range r.Legs {
						if l.UID == d.UID {
							d.beat(id, l.Generation)
						}
					}
				}
				select {
				case <-ctx.Done():
				case <-time.After(w.cfg.Lease / 6):
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	w.t.Cleanup(stop)
	return stop
}

func (w *world) get(id string) *call.Report {
	w.t.Helper()
	for _, n := range w.nodes {
		if n.dead.Load() {
			continue
		}
		r, err := n.Get(context.Background(), "default", id)
		if err != nil {
			w.t.Fatal(err)
		}
		return r
	}
	w.t.Fatal("nobody lives")
	return nil
}

func (w *world) leg(id, uid string) call.LegView {
	w.t.Helper()
	for _, l := range w.get(id).Legs {
		if l.UID == uid {
			return l
		}
	}
	w.t.Fatalf("%s has no leg", uid)
	return call.LegView{}
}

func (w *world) waitLeg(id, uid string, s machine.LegState) {
	w.t.Helper()
	kittest.Eventually(w.t, patience, func() bool { return w.leg(id, uid).State == s }, uid, "is never", s)
}

// entry returns what the call left in its conversation: empty for nothing.
func (w *world) entry(id string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.entries["call:"+id])
}

func (w *world) hooked(kind string) (out []hooked) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.hooks {
		if h.Type == kind {
			out = append(out, h)
		}
	}
	return out
}

// free checks that nobody is busy any more.
func (w *world) free() {
	w.t.Helper()
	kittest.Eventually(w.t, patience, func() bool {
		keys, err := w.redis.Keys(context.Background(), w.prefix+":{calluser:*}:busy").Result()
		return err == nil && len(keys) == 0
	}, "somebody stays busy")
}

func wantCode(t testing.TB, err error, want *errcode.Code) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %s", err, want.Name)
	}
}
