package deliver

import (
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/job/internal/meter"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Owner is the partition that an Item comes from.
type Owner interface {
	// Done says that nothing of the record is owed any more: it may be passed by the committed offset.
	Done(seq uint64)
	// Lost reports whether the partition is another job's by now: what was not sent yet need not be.
	Lost() bool
}

// Item is one record on its way: its content and its targets. It ends when each target has ended, and then tells its
// Owner, unless a target was handed over: then the record is to be read again.
type Item struct {
	lane      *meter.Lane
	tenant    string
	id        string
	class     halleyv1.Class
	push      *halleyv1.Delivery_Push
	does      *halleyv1.Delivery_Control
	exUIDs    []string
	exKeys    []string
	speed     uint32
	accepted  int64
	expires   int64
	size      int64
	owner     Owner
	seq       uint64
	targets   []Target
	oneTarget [1]Target
	open      atomic.Int32
	kept      atomic.Bool
}

// NewItem makes an Item of a record, which must have content and at least one target. owner knows it by seq.
func (l *Lane) NewItem(rec *halleyv1.PushRecord, owner Owner, seq uint64) *Item {
	it := &Item{
		lane: l.meter, tenant: rec.GetTenant(), id: rec.GetId(), class: rec.GetClass(),
		exUIDs: rec.GetExcludeUids(), exKeys: rec.GetExcludeKeys(), speed: rec.GetSpeed(),
		accepted: rec.GetAcceptedAtMs(), expires: rec.GetExpiresAtMs(), owner: owner, seq: seq,
	}
	it.size = deliveryOverhead + int64(len(it.tenant)+len(it.id))
	switch {
	case rec.GetPush() != nil:
		it.push = &halleyv1.Delivery_Push{Push: rec.GetPush()}
		it.size += int64(len(rec.GetPush().GetBody()))
	default:
		it.does = &halleyv1.Delivery_Control{Control: rec.GetControl()}
		it.size += int64(proto.Size(rec.GetControl()))
	}
	for _, s := range it.exUIDs {
		it.size += int64(len(s)) + 2
	}
	for _, s := range it.exKeys {
		it.size += int64(len(s)) + 2
	}
	if it.class == halleyv1.Class_CLASS_UNSPECIFIED {
		it.class = halleyv1.Class_CLASS_VOLATILE
		if it.does != nil {
			it.class = halleyv1.Class_CLASS_CONTROL
		}
	}
	n := len(rec.GetTargets())
	it.targets = it.oneTarget[:]
	if n != 1 {
		it.targets = make([]Target, n)
	}
	it.open.Store(int32(n))
	for i, to := range rec.GetTargets() {
		t := &it.targets[i]
		t.item, t.to = it, to
		t.open.Store(1)
	}
	l.meter.Targets.Add(float64(n))
	return it
}

// deliveryOverhead is about what a Delivery costs besides its strings. An estimate, not a bound.
const deliveryOverhead = 64

func (it *Item) volatile() bool { return it.class == halleyv1.Class_CLASS_VOLATILE }

func (it *Item) stored() bool { return it.class == halleyv1.Class_CLASS_STORED }

func (it *Item) control() bool { return it.class == halleyv1.Class_CLASS_CONTROL }

func (it *Item) expired(now time.Time) bool { return it.expires > 0 && now.UnixMilli() >= it.expires }

func (it *Item) release() {
	if it.open.Add(-1) > 0 {
		return
	}
	if it.kept.Load() {
		return
	}
	if it.accepted > 0 {
		it.lane.Age.Observe(max(0, time.Since(time.UnixMilli(it.accepted)).Seconds()))
	}
	it.owner.Done(it.seq)
}

// Target is one addressee of an Item and the account of what became of it. Whoever may still do something for it holds it;
// when the last one lets go it ends and is counted, once.
type Target struct {
	item *Item
	to   *halleyv1.Target
	open atomic.Int32
	got  atomic.Bool
	why  atomic.Uint32
	// Where it was sent. Written by the worker before anything of it is sent, then by the lane's second look-up alone.
	parts   []*part
	onePart [1]*part
}

func (t *Target) hold() { t.open.Add(1) }

// release lets go of the target. r says what the holder could not do; NoReason: it did.
func (t *Target) release(r meter.Reason) {
	for r != meter.NoReason {
		old := t.why.Load()
		if uint32(r) <= old || t.why.CompareAndSwap(old, uint32(r)) {
			break
		}
	}
	if t.open.Add(-1) > 0 {
		return
	}
	why := meter.Reason(t.why.Load())
	if why == meter.HandedOver {
		t.item.kept.Store(true)
	}
	switch {
	case t.got.Load():
		t.item.lane.Delivered.Inc()
		// Nobody there is nothing missed.
		if why != meter.NoReason && why != meter.NoRecipient && why != meter.HandedOver {
			t.item.lane.Missed(why)
		}
	case why == meter.HandedOver:
		t.item.lane.HandOver.Inc()
	case why == meter.NoReason:
		t.item.lane.Dropped(meter.NoRecipient)
	default:
		t.item.lane.Dropped(why)
	}
	t.item.release()
}

// add notes where the target is sent.
func (t *Target) add(p *part) {
	if t.parts == nil {
		t.parts = t.onePart[:0]
	}
	t.parts = append(t.parts, p)
}

// tried reports whether the target was sent to a connection, or by name to an epoch, and that has not failed.
func (t *Target) tried(epoch, conn string) bool {
	for _, p := range t.parts {
		if p.failed {
			continue
		}
		if conn == "" {
			if p.conns == nil && p.epoch == epoch {
				return true
			}
			continue
		}
		for _, c := range p.conns {
			if c == conn {
				return true
			}
		}
	}
	return false
}

// part is what one comet is to do for a target: the target's connections there, or nil where it is named.
type part struct {
	target *Target
	epoch  string
	conns  []string
	failed bool // the epoch died with it; written by the lane's second look-up alone
}

// flight is a Delivery and what it is for.
type flight struct {
	d       halleyv1.Delivery
	item    *Item
	parts   []*part
	onePart [1]*part
	size    int64
	again   bool // made by a second look-up
	sent    bool // on some connection
	// With the stream's mu: acknowledged, or ended by a resync of all, which stands for it.
	settled, passed bool
	notHeld         []string
	nobody          bool
}

func newFlight(it *Item, again bool) *flight {
	f := &flight{item: it, again: again, size: it.size}
	f.d.Class, f.d.Tenant, f.d.Id = it.class, it.tenant, it.id
	f.d.ExcludeUids, f.d.ExcludeKeys = it.exUIDs, it.exKeys
	if it.push != nil {
		f.d.Content = it.push
	} else {
		f.d.Content = it.does
	}
	f.parts = f.onePart[:0]
	return f
}

// name adds connections to those that the delivery is for. It takes conns over.
func (f *flight) name(conns []string) {
	if f.d.ConnIds == nil {
		f.d.ConnIds = conns
	} else {
		f.d.ConnIds = append(f.d.ConnIds, conns...)
	}
	for _, id := range conns {
		f.size += int64(len(id)) + 2
	}
}

func (f *flight) release(r meter.Reason) {
	for _, p := range f.parts {
		p.target.release(r)
	}
}

func (f *flight) missing(conns []string) int {
	n := 0
	for _, c := range conns {
		for _, m := range f.notHeld {
			if c == m {
				n++
				break
			}
		}
	}
	return n
}
