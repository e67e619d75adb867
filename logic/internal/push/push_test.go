package push_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/logic/internal/fake"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

var now = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func config() push.Config {
	return push.Config{
		UrgentTTL: 30 * time.Second, NormalTTL: time.Minute, BulkTTL: 10 * time.Minute, MaxTTL: time.Hour,
		MaxBodyBytes: 1000, MaxTargets: 3000, RecordTargets: 500, Timeout: time.Second, RetryAfter: 2 * time.Second,
	}
}

func service(t testing.TB) (*push.Service, *fake.Producer) {
	t.Helper()
	p := &fake.Producer{}
	s, err := push.New(config(), push.Deps{Producer: p, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

// name is a target without its kind.
func name(t *halleyv1.Target) string {
	return t.GetUid() + t.GetKey() + t.GetRoom() + t.GetConn().GetId()
}

func TestPushToOneTargetIsOneRecordWithItsKey(t *testing.T) {
	s, p := service(t)
	res, err := s.Push(t.Context(), push.Request{
		Tenant: "acme", ID: "id-1", Op: 1000, Body: []byte("hi"), UIDs: []string{"ann"}, ExcludeKeys: []string{"k1"}, ExcludeUIDs: []string{"bob"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.ID != "id-1" || res.Records != 1 || !res.AcceptedAt.Equal(now) {
		t.Errorf("got %+v", res)
	}
	rs := p.Records(t)
	if len(rs) != 1 {
		t.Fatalf("got %d records, want 1", len(rs))
	}
	r := rs[0]
	if r.Topic != topic.Push || r.Key != "acme\x00uid\x00ann" {
		t.Errorf("got topic %s, key %q", r.Topic, r.Key)
	}
	if r.GetId() != "id-1" || r.GetTenant() != "acme" || r.GetClass() != halleyv1.Class_CLASS_VOLATILE || r.GetPush().GetOp() != 1000 ||
		string(r.GetPush().GetBody()) != "hi" || !slices.Equal(r.GetExcludeKeys(), []string{"k1"}) || !slices.Equal(r.GetExcludeUids(), []string{"bob"}) {
		t.Errorf("got %v", r.PushRecord)
	}
	if r.GetAcceptedAtMs() != now.UnixMilli() || r.GetExpiresAtMs() != now.Add(time.Minute).UnixMilli() {
		t.Errorf("accepted at %d, expires at %d", r.GetAcceptedAtMs(), r.GetExpiresAtMs())
	}
}

func TestPushIsSplitByPartition(t *testing.T) {
	s, p := service(t)
	r := push.Request{Tenant: "default", Op: 1000}
	var want []string
	for i := range 2000 {
		r.UIDs = append(r.UIDs, fmt.Sprintf("u%d", i))
		want = append(want, r.UIDs[i])
	}
	r.Keys, r.Rooms = []string{"key-1", "key-2"}, []string{"chat://a"}
	want = append(want, "key-1", "key-2", "chat://a")
	res, err := s.Push(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	rs := p.Records(t)
	if res.Records != len(rs) || p.Calls() != 1 {
		t.Errorf("%d records said, %d written in %d calls", res.Records, len(rs), p.Calls())
	}
	var got []string
	partitions := map[int]bool{}
	for _, r := range rs {
		if partitions[r.Partition] {
			t.Errorf("partition %d has two records", r.Partition)
		}
		partitions[r.Partition] = true
		if r.GetId() != res.ID || r.GetId() == "" {
			t.Errorf("a record has the id %q, the push %q", r.GetId(), res.ID)
		}
		if k := string(topic.Key("default", r.GetTargets()[0])); r.Key != k {
			t.Errorf("key %q, want the first target's %q", r.Key, k)
		}
		last := -1
		for _, target := range r.GetTargets() {
			if n := p.Partition(topic.Key("default", target)); n != r.Partition {
				t.Errorf("%s is of partition %d, its record of %d", name(target), n, r.Partition)
			}
			i := slices.Index(want, name(target))
			if i <= last {
				t.Errorf("%s is out of order", name(target))
			}
			last = i
			got = append(got, name(target))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("targets: got %d, want %d, each once", len(got), len(want))
	}
}

func TestRecordHoldsNoMoreThanItsMostTargets(t *testing.T) {
	p := &fake.Producer{}
	cfg := config()
	cfg.RecordTargets = 7
	s, err := push.New(cfg, push.Deps{Producer: p})
	if err != nil {
		t.Fatal(err)
	}
	r := push.Request{Tenant: "default", Op: 1000}
	for i := range 300 {
		r.UIDs = append(r.UIDs, fmt.Sprintf("u%d", i))
	}
	if _, err := s.Push(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range p.Records(t) {
		if len(r.GetTargets()) > 7 {
			t.Errorf("a record has %d targets", len(r.GetTargets()))
		}
		n += len(r.GetTargets())
	}
	if n != 300 {
		t.Errorf("got %d targets, want 300", n)
	}
}

func TestTTLAndTopicFollowTheLane(t *testing.T) {
	for _, tt := range []struct {
		name      string
		lane      halleyv1.Lane
		all       bool
		ttl       time.Duration
		wantTopic string
		wantTTL   time.Duration
	}{
		{name: "unspecified", wantTopic: topic.Push, wantTTL: time.Minute},
		{name: "urgent", lane: halleyv1.Lane_LANE_URGENT, wantTopic: topic.Urgent, wantTTL: 30 * time.Second},
		{name: "push", lane: halleyv1.Lane_LANE_PUSH, wantTopic: topic.Push, wantTTL: time.Minute},
		{name: "bulk", lane: halleyv1.Lane_LANE_BULK, wantTopic: topic.Bulk, wantTTL: 10 * time.Minute},
		{name: "all", all: true, wantTopic: topic.Bulk, wantTTL: 10 * time.Minute},
		{name: "all in the urgent lane", lane: halleyv1.Lane_LANE_URGENT, all: true, wantTopic: topic.Bulk, wantTTL: 10 * time.Minute},
		{name: "the caller's", ttl: 5 * time.Second, wantTopic: topic.Push, wantTTL: 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, p := service(t)
			r := push.Request{Tenant: "default", Op: 1000, Lane: tt.lane, TTL: tt.ttl, All: tt.all}
			if !tt.all {
				r.UIDs = []string{"ann"}
			}
			if _, err := s.Push(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			got := p.Records(t)[0]
			if ttl := time.Duration(got.GetExpiresAtMs()-got.GetAcceptedAtMs()) * time.Millisecond; got.Topic != tt.wantTopic || ttl != tt.wantTTL {
				t.Errorf("got %s, %s, want %s, %s", got.Topic, ttl, tt.wantTopic, tt.wantTTL)
			}
		})
	}
}

func TestBadPushIsRefusedAndNothingWritten(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    push.Request
		want *errcode.Code
	}{
		{"tenant", push.Request{Tenant: "Acme", Op: 1000, UIDs: []string{"a"}}, errcode.InvalidRequest},
		{"no tenant", push.Request{Op: 1000, UIDs: []string{"a"}}, errcode.InvalidRequest},
		{"op of a reply", push.Request{Tenant: "t", Op: 101, UIDs: []string{"a"}}, errcode.OpReserved},
		{"op of an event", push.Request{Tenant: "t", Op: 102, UIDs: []string{"a"}}, errcode.OpReserved},
		{"op of goim's", push.Request{Tenant: "t", Op: 8, UIDs: []string{"a"}}, errcode.OpReserved},
		{"negative op", push.Request{Tenant: "t", Op: -1, UIDs: []string{"a"}}, errcode.OpReserved},
		{"uid", push.Request{Tenant: "t", Op: 1000, UIDs: []string{"a", "b c"}}, errcode.InvalidRequest},
		{"empty uid", push.Request{Tenant: "t", Op: 1000, UIDs: []string{""}}, errcode.InvalidRequest},
		{"uid with a NUL", push.Request{Tenant: "t", Op: 1000, UIDs: []string{"a\x00b"}}, errcode.InvalidRequest},
		{"key", push.Request{Tenant: "t", Op: 1000, Keys: []string{strings.Repeat("k", 65)}}, errcode.InvalidRequest},
		{"room", push.Request{Tenant: "t", Op: 1000, Rooms: []string{"lobby"}}, errcode.InvalidRequest},
		{"reserved room", push.Request{Tenant: "t", Op: 1000, Rooms: []string{"presence://ann"}}, errcode.RoomReserved},
		{"excluded uid", push.Request{Tenant: "t", Op: 1000, All: true, ExcludeUIDs: []string{" "}}, errcode.InvalidRequest},
		{"excluded key", push.Request{Tenant: "t", Op: 1000, All: true, ExcludeKeys: []string{" "}}, errcode.InvalidRequest},
		{"all and another", push.Request{Tenant: "t", Op: 1000, All: true, UIDs: []string{"a"}}, errcode.InvalidRequest},
		{"speed without all", push.Request{Tenant: "t", Op: 1000, UIDs: []string{"a"}, Speed: 5}, errcode.InvalidRequest},
		{"body", push.Request{Tenant: "t", Op: 1000, UIDs: []string{"a"}, Body: make([]byte, 1001)}, errcode.TooLarge},
		{"targets", push.Request{Tenant: "t", Op: 1000, UIDs: slices.Repeat([]string{"a"}, 3001)}, errcode.TooLarge},
		{"lane of chat", push.Request{Tenant: "t", Op: 1000, UIDs: []string{"a"}, Lane: halleyv1.Lane_LANE_CHAT}, errcode.InvalidRequest},
		{"ttl too long", push.Request{Tenant: "t", Op: 1000, UIDs: []string{"a"}, TTL: 2 * time.Hour}, errcode.InvalidRequest},
		{"negative ttl", push.Request{Tenant: "t", Op: 1000, UIDs: []string{"a"}, TTL: -1}, errcode.InvalidRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, p := service(t)
			if _, err := s.Push(t.Context(), tt.r); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if p.Calls() != 0 {
				t.Error("something was written")
			}
		})
	}
}

func TestSystemPushMayCarryEventsToReservedRooms(t *testing.T) {
	s, p := service(t)
	if _, err := s.Push(t.Context(), push.Request{Tenant: "t", Op: 102, Rooms: []string{"presence://ann"}, System: true}); err != nil {
		t.Fatal(err)
	}
	if n := len(p.Records(t)); n != 1 {
		t.Errorf("got %d records", n)
	}
}

func TestPushWithoutTargetsIsAcceptedAndBecomesNothing(t *testing.T) {
	s, p := service(t)
	res, err := s.Push(t.Context(), push.Request{Tenant: "t", Op: 1000})
	if err != nil || res.Records != 0 || res.ID == "" || p.Calls() != 0 {
		t.Errorf("got %+v, %v, %d calls", res, err, p.Calls())
	}
}

func TestPushIsUnavailableWhenKafkaIsAway(t *testing.T) {
	s, p := service(t)
	cause := errors.New("no broker")
	p.Fail(cause)
	_, err := s.Push(t.Context(), push.Request{Tenant: "t", Op: 1000, UIDs: []string{"a"}})
	if !errors.Is(err, errcode.Unavailable) || !errors.Is(err, cause) || errcode.From(err).RetryAfter != 2*time.Second {
		t.Errorf("got %v", err)
	}
	if m := errcode.Proto(err).GetMessage(); strings.Contains(m, "broker") {
		t.Errorf("the caller is told %q", m)
	}
}

func TestPushThatKafkaFindsTooLargeIsNotToBeTriedAgain(t *testing.T) {
	s, p := service(t)
	p.Fail(fmt.Errorf("%w: %w", kafkaconn.ErrUnavailable, kafka.MessageSizeTooLarge))
	r := push.Request{Tenant: "acme", Op: 1000, UIDs: []string{"ann"}}
	_, err := s.Push(t.Context(), r)
	for _, err := range []error{err, s.PushMany(t.Context(), []push.Request{r})[0].Err} {
		if !errors.Is(err, errcode.TooLarge) || errcode.From(err).Code.Retry {
			t.Errorf("got %v, want too_large", err)
		}
	}
}

func TestBatchIsOneWriteWithAnOutcomeForEach(t *testing.T) {
	s, p := service(t)
	rs := []push.Request{
		{Tenant: "t", ID: "1", Op: 1000, UIDs: []string{"a"}},
		{Tenant: "t", ID: "2", Op: 8, UIDs: []string{"a"}},
		{Tenant: "t", ID: "3", Op: 1000, UIDs: []string{"a", "b", "c", "d"}},
		{Tenant: "t", ID: "4", Op: 1000},
		{Tenant: "t", ID: "5", Op: 1000, UIDs: []string{"a"}},
	}
	out := s.PushMany(t.Context(), rs)
	if p.Calls() != 1 {
		t.Errorf("got %d writes, want 1", p.Calls())
	}
	for i, o := range out {
		if bad := i == 1; (o.Err != nil) != bad || !bad && o.ID != rs[i].ID {
			t.Errorf("%d: got %+v", i, o)
		}
	}
	if !errors.Is(out[1].Err, errcode.OpReserved) || out[3].Records != 0 {
		t.Errorf("got %+v", out)
	}
	var order []string
	for _, r := range p.Records(t) {
		if slices.ContainsFunc(r.GetTargets(), func(t *halleyv1.Target) bool { return t.GetUid() == "a" }) {
			order = append(order, r.GetId())
		}
	}
	if !slices.Equal(order, []string{"1", "3", "5"}) {
		t.Errorf("pushes to one user: got %v", order)
	}

	p.Fail(errors.New("no broker"))
	for i, o := range s.PushMany(t.Context(), rs) {
		want := errcode.Unavailable
		switch i {
		case 1:
			want = errcode.OpReserved
		case 3:
			// No target, nothing to write.
			if o.Err != nil {
				t.Errorf("push without targets: got %v", o.Err)
			}
			continue
		}
		if !errors.Is(o.Err, want) {
			t.Errorf("%d: got %v, want %v", i, o.Err, want)
		}
	}
}

func TestBatchOfWhichKafkaTakesAPartIsToldApart(t *testing.T) {
	reg := prometheus.NewRegistry()
	p := &fake.Producer{}
	s, err := push.New(config(), push.Deps{Producer: p, Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	bad := p.Partition(topic.Key("t", push.UIDTarget("a")))
	p.Refuse(func(m kafka.Message) bool { return p.Partition(m.Key) == bad })
	var rs []push.Request
	var want []bool
	for i := range 50 {
		uid := fmt.Sprintf("u%d", i)
		rs = append(rs, push.Request{Tenant: "t", Op: 1000, UIDs: []string{uid}})
		want = append(want, p.Partition(topic.Key("t", push.UIDTarget(uid))) != bad)
	}
	// Of one with several records all must be there.
	rs = append(rs, push.Request{Tenant: "t", Op: 1000, UIDs: []string{"u0", "u1", "u2", "a"}})
	want = append(want, false)
	good := 0
	for i, o := range s.PushMany(t.Context(), rs) {
		if (o.Err == nil) != want[i] {
			t.Errorf("%d: got %v, accepted should be %v", i, o.Err, want[i])
		}
		switch {
		case o.Err == nil:
			good++
		case errcode.From(o.Err).Code != errcode.Unavailable || errcode.From(o.Err).RetryAfter != 2*time.Second || o.ID != "":
			t.Errorf("%d: got %+v", i, o)
		}
	}
	if good == 0 || good > 49 {
		t.Fatalf("%d accepted: nothing is shown", good)
	}
	if got := counter(t, reg, "halley_logic_pushes_total"); got != float64(good) {
		t.Errorf("%v pushes counted as accepted, want %d", got, good)
	}
	if got, want := counter(t, reg, "halley_logic_push_records_total"), float64(len(p.Messages())); got != want {
		t.Errorf("%v records counted as acknowledged, want %v", got, want)
	}
}

// counter sums a counter over its labels.
func counter(t testing.TB, reg prometheus.Gatherer, name string) (sum float64) {
	t.Helper()
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fams {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestControlIsUrgentNeverExpiresAndIsSplit(t *testing.T) {
	s, p := service(t)
	c := &halleyv1.Control{Control: &halleyv1.Control_CloseRoom{CloseRoom: &halleyv1.CloseRoom{}}}
	targets := []*halleyv1.Target{push.UIDTarget("a"), push.KeyTarget("k"), push.RoomTarget("chat://r"), push.ConnTarget(&halleyv1.Conn{Id: "1.2"})}
	if err := s.Control(t.Context(), "acme", targets, c); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range p.Records(t) {
		if r.Topic != topic.Urgent || r.GetClass() != halleyv1.Class_CLASS_CONTROL || r.GetExpiresAtMs() != 0 || r.GetTenant() != "acme" ||
			r.GetControl().GetCloseRoom() == nil || r.GetId() == "" {
			t.Errorf("got %v in %s", r.PushRecord, r.Topic)
		}
		for _, target := range r.GetTargets() {
			if n := p.Partition(topic.Key("acme", target)); n != r.Partition {
				t.Errorf("%s in the wrong partition", name(target))
			}
			got = append(got, name(target))
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"1.2", "a", "chat://r", "k"}) {
		t.Errorf("got %v", got)
	}
}

func TestTwoTenantsWithEqualNamesHaveKeysOfTheirOwn(t *testing.T) {
	s, p := service(t)
	for _, tenant := range []string{"red", "blue"} {
		if _, err := s.Push(t.Context(), push.Request{Tenant: tenant, Op: 1000, UIDs: []string{"ann"}}); err != nil {
			t.Fatal(err)
		}
	}
	rs := p.Records(t)
	if rs[0].Key == rs[1].Key || rs[0].GetTenant() != "red" || rs[1].GetTenant() != "blue" {
		t.Errorf("got %q of %s, %q of %s", rs[0].Key, rs[0].GetTenant(), rs[1].Key, rs[1].GetTenant())
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*push.Config){
		"no ttl":             func(c *push.Config) { c.NormalTTL = 0 },
		"default over most":  func(c *push.Config) { c.BulkTTL = 2 * c.MaxTTL },
		"no body":            func(c *push.Config) { c.MaxBodyBytes = 0 },
		"no target a record": func(c *push.Config) { c.RecordTargets = 0 },
		"no timeout":         func(c *push.Config) { c.Timeout = 0 },
	} {
		c := config()
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := config().Validate(); err != nil {
		t.Error(err)
	}
}

// sink is a producer that costs nothing.
type sink struct{ fake.Producer }

func (*sink) Produce(context.Context, ...kafka.Message) error { return nil }

func benchPush(b *testing.B, r push.Request) {
	s, err := push.New(config(), push.Deps{Producer: &sink{}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Push(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPushOne(b *testing.B) {
	benchPush(b, push.Request{Tenant: "default", Op: 1000, Body: make([]byte, 64), UIDs: []string{"ann"}})
}

func BenchmarkPushFifty(b *testing.B) {
	r := push.Request{Tenant: "default", Op: 1000, Body: make([]byte, 64)}
	for i := range 50 {
		r.UIDs = append(r.UIDs, fmt.Sprintf("user-%d", i))
	}
	benchPush(b, r)
}
