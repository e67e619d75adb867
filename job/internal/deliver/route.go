package deliver

import (
	"context"
	"errors"
	"time"

	"github.com/halley-im/halley/job/internal/locate"
	"github.com/halley-im/halley/job/internal/meter"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// task is to find and address one target. It holds the target.
type task struct {
	target *Target
	again  bool
	// The part whose epoch was lost, if that is why it is looked up again.
	failed *part
	// When a volatile target that finds only epochs that were given up is dropped, and a connection whose epoch no router
	// knows; not before when it is looked up.
	until, due time.Time
}

// group is what one comet gets of a batch.
type group struct {
	comet   comet
	flights []*flight
	wait    <-chan struct{}
	until   time.Time
}

// Work is a caller's scratch space, kept between calls so that a batch allocates little beside its deliveries. The zero Work is
// ready; it is for one call at a time.
type Work struct {
	tasks  []task
	names  []*halleyv1.Name
	index  map[nameKey]int32
	asked  []int32 // for each task: index of its name; -1: a connection, not looked up
	all    int32   // index of locate.All; -1: not asked
	most   int     // connections in one delivery
	answer *halleyv1.LocateResponse

	groups  []group
	byEpoch map[string]int
	// Of the item that is being routed.
	item  *Item
	open  map[string]*flight // by epoch: the flight that takes further connections
	conns map[string]*flight // by connection id: the flight that names it
	share map[string]uint32  // by epoch: of the item's speed
}

type nameKey struct {
	kind         byte
	tenant, name string
}

// keepTasks bounds what Work keeps between calls: memory of a batch that was larger is given back. No setting: a partition's worker keeps less than 500 KB.
const keepTasks = 4096

func (w *Work) reset() {
	if cap(w.tasks) > keepTasks {
		w.tasks, w.names, w.asked = nil, nil, nil
	}
	clear(w.tasks)
	clear(w.names)
	clear(w.groups)
	w.tasks, w.names, w.asked, w.groups = w.tasks[:0], w.names[:0], w.asked[:0], w.groups[:0]
	clear(w.index)
	clear(w.byEpoch)
	w.newItem(nil)
	w.answer = nil
}

func (w *Work) newItem(it *Item) {
	w.item = it
	clear(w.open)
	clear(w.conns)
	w.share = nil
}

// locate asks for the distinct names of w's tasks. On an error it returns how long router wants to be left alone.
func (w *Work) locate(ctx context.Context, l *Lane) (time.Duration, error) {
	h := l.hub
	if w.index == nil {
		w.index, w.byEpoch = map[nameKey]int32{}, map[string]int{}
		w.open, w.conns = map[string]*flight{}, map[string]*flight{}
	}
	clear(w.index)
	w.names, w.asked, w.all = w.names[:0], w.asked[:0], -1
	for i := range w.tasks {
		t := &w.tasks[i]
		it := t.target.item
		k := nameKey{tenant: it.tenant}
		switch to := t.target.to.GetTarget().(type) {
		case *halleyv1.Target_Uid:
			k.kind, k.name = 'u', to.Uid
		case *halleyv1.Target_Key:
			k.kind, k.name = 'k', to.Key
		case *halleyv1.Target_Room:
			k.kind, k.name = 'r', to.Room
		case *halleyv1.Target_All:
			w.askAll()
			w.asked = append(w.asked, w.all)
			continue
		case *halleyv1.Target_Conn:
			// Where it is, is known; whether that epoch lives and at which address may not be.
			if _, ok := h.knows(to.Conn.GetEpoch()); !ok || t.again {
				w.askAll()
			}
			w.asked = append(w.asked, -1)
			continue
		}
		n, ok := w.index[k]
		if !ok {
			n = int32(len(w.names))
			w.index[k] = n
			name := &halleyv1.Name{Tenant: k.tenant}
			switch k.kind {
			case 'u':
				name.Name = &halleyv1.Name_Uid{Uid: k.name}
			case 'k':
				name.Name = &halleyv1.Name_Key{Key: k.name}
			case 'r':
				name.Name = &halleyv1.Name_Room{Room: k.name}
			}
			w.names = append(w.names, name)
		}
		w.asked = append(w.asked, n)
	}
	if len(w.names) == 0 {
		w.answer = &halleyv1.LocateResponse{}
		return 0, nil
	}
	answer, err := l.joint.Locate(ctx, w.names)
	if err != nil {
		// The question may be under way yet, with others'.
		w.names = nil
		var unknown *locate.UnknownError
		if errors.As(err, &unknown) {
			return unknown.After, err
		}
		return 0, err
	}
	w.answer = answer
	h.learn(answer.GetComets(), w.all >= 0)
	return 0, nil
}

func (w *Work) askAll() {
	if w.all < 0 {
		w.all = int32(len(w.names))
		w.names = append(w.names, locate.All)
	}
}

// route makes flights of w's tasks, grouped by comet, in the order of the tasks. Tasks whose comet was just given up go to
// the second look-up.
func (w *Work) route(l *Lane) {
	now := time.Now()
	w.most = l.hub.cfg.Conns
	for i := range w.tasks {
		t := &w.tasks[i]
		if it := t.target.item; it != w.item {
			w.newItem(it)
		}
		if t.failed != nil {
			t.failed.failed = true
		}
		w.routeTask(l, t, w.asked[i], now)
	}
}

func (w *Work) routeTask(l *Lane, t *task, asked int32, now time.Time) {
	var places []*halleyv1.Place
	reason := meter.NoRecipient
	var byConn [1]*halleyv1.Place
	var connAt comet
	if asked >= 0 {
		places = w.answer.GetLocated()[asked].GetPlaces()
	} else {
		c := t.target.to.GetConn()
		at, ok := l.hub.knows(c.GetEpoch())
		switch {
		case ok:
		case t.until.IsZero():
			// Its comet may have come a moment ago, and the router that was asked not know it yet.
			l.enqueue(task{target: t.target, again: true, until: now.Add(l.hub.cfg.RefusedFor)})
			return
		case now.Before(t.until):
			l.postpone(*t, now)
			return
		default:
			// Its epoch is dead, and the connection with it.
			t.target.release(meter.DeadEpoch)
			return
		}
		connAt = at
		byConn[0] = &halleyv1.Place{ConnIds: []string{c.GetId()}}
		places = byConn[:]
	}
	at := func(p *halleyv1.Place) comet {
		if asked < 0 {
			return connAt
		}
		c := w.answer.GetComets()[p.GetComet()]
		return comet{name: c.GetComet(), epoch: c.GetEpoch(), addr: c.GetAddr()}
	}
	stale := false
	for _, p := range places {
		if l.hub.avoids(at(p).epoch) {
			stale = true
		}
	}
	if stale && t.again {
		// Router has not noticed yet. Volatile targets wait for that only so long; the others until it has.
		if now.Before(t.until) || !t.target.item.volatile() {
			l.postpone(*t, now)
			return
		}
		reason = meter.DeadEpoch
	}
	for _, p := range places {
		c := at(p)
		if stale && l.hub.avoids(c.epoch) {
			continue
		}
		w.address(t, c, p)
	}
	if stale && !t.again {
		l.enqueue(task{target: t.target, again: true, until: now.Add(2 * l.hub.cfg.RefusedFor)})
		return
	}
	t.target.release(reason)
}

// address adds a target's place to the flight for its comet.
func (w *Work) address(t *task, c comet, p *halleyv1.Place) {
	conns := p.GetConnIds()
	byName := p.GetByName() || len(conns) == 0
	if t.again {
		if byName {
			if t.target.tried(c.epoch, "") {
				return
			}
		} else if conns = untried(t.target, conns); len(conns) == 0 {
			return
		}
	}
	it := t.target.item
	pt := &part{target: t.target, epoch: c.epoch}
	if byName {
		f := newFlight(it, t.again)
		switch to := t.target.to.GetTarget().(type) {
		case *halleyv1.Target_Uid:
			f.d.Uids = []string{to.Uid}
		case *halleyv1.Target_Key:
			f.d.Keys = []string{to.Key}
		case *halleyv1.Target_Room:
			f.d.Room = to.Room
		case *halleyv1.Target_All:
			f.d.All = true
			f.d.Speed = w.speed(it, c.epoch)
		}
		f.size += maxName
		// Those that comet holds, but can't find by the name yet. That it holds them no more is then a normal answer, too.
		f.name(conns)
		w.attach(f, pt)
		w.group(c, f)
		return
	}
	pt.conns = conns
	if len(it.targets) == 1 {
		f := newFlight(it, t.again)
		f.name(conns)
		w.attach(f, pt)
		w.group(c, f)
		return
	}
	// A uid and a key of one record may name the same connection: it gets one delivery.
	fresh := conns[:0:0]
	for _, id := range conns {
		if w.conns[id] == nil {
			fresh = append(fresh, id)
		}
	}
	if len(fresh) == 0 {
		w.attach(w.conns[conns[0]], pt)
		return
	}
	f := w.open[c.epoch]
	if f == nil || len(f.d.ConnIds)+len(fresh) > w.most {
		f = newFlight(it, t.again)
		w.open[c.epoch] = f
		w.group(c, f)
	}
	for _, id := range fresh {
		w.conns[id] = f
	}
	f.name(fresh)
	w.attach(f, pt)
}

// maxName is about what a name adds to a delivery's size. An estimate, not a bound.
const maxName = 64

func (w *Work) attach(f *flight, p *part) {
	f.parts = append(f.parts, p)
	p.target.add(p)
	p.target.hold()
}

func (w *Work) group(c comet, f *flight) {
	i, ok := w.byEpoch[c.epoch]
	if !ok {
		i = len(w.groups)
		w.byEpoch[c.epoch] = i
		w.groups = append(w.groups, group{comet: c})
	}
	w.groups[i].flights = append(w.groups[i].flights, f)
}

// speed returns the share of the item's speed that the comet of an epoch has: in proportion to its connections, at least 1. 0: the
// item has none.
func (w *Work) speed(it *Item, epoch string) uint32 {
	if it.speed == 0 {
		return 0
	}
	if w.share == nil {
		w.share = shares(it.speed, w.answer, w.answer.GetLocated()[w.all])
	}
	return w.share[epoch]
}

// shares splits a speed over comets in proportion to their connections, so that all of them are through at about the same
// time. One without connections, as far as router knows, counts as one with one.
func shares(speed uint32, answer *halleyv1.LocateResponse, all *halleyv1.Located) map[string]uint32 {
	sum := uint64(0)
	weight := func(p *halleyv1.Place) uint64 {
		return uint64(max(1, answer.GetComets()[p.GetComet()].GetLoad().GetConnections()))
	}
	for _, p := range all.GetPlaces() {
		sum += weight(p)
	}
	share := make(map[string]uint32, len(all.GetPlaces()))
	for _, p := range all.GetPlaces() {
		share[answer.GetComets()[p.GetComet()].GetEpoch()] = uint32(max(1, uint64(speed)*weight(p)/sum))
	}
	return share
}

// untried returns those of conns that a target was not sent to.
func untried(t *Target, conns []string) []string {
	var left []string
	for _, id := range conns {
		if !t.tried("", id) {
			left = append(left, id)
		}
	}
	return left
}
