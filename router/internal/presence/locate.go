package presence

import (
	"context"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// lookup is one name of a batch on its way: where its value will be.
type lookup struct {
	read  *bucketRead
	index int
}

// lookups groups names by bucket, so that a batch is one HMGET for each.
type lookups struct {
	open  [name.Buckets]*bucketRead
	reads []*bucketRead
}

func (l *lookups) add(bucket int, field string) lookup {
	r := l.open[bucket]
	if r == nil {
		r = &bucketRead{bucket: bucket}
		l.open[bucket] = r
		l.reads = append(l.reads, r)
	}
	r.fields = append(r.fields, field)
	return lookup{read: r, index: len(r.fields) - 1}
}

func (l lookup) value() string {
	v, _ := l.read.values[l.index].(string)
	return v
}

// Locate answers where the addressees of a whole batch are, in one trip to Redis.
func (s *Store) Locate(ctx context.Context, names []*halleyv1.Name) (res *halleyv1.LocateResponse, err error) {
	err = s.decide(ctx, func(c clock) error {
		res, err = s.locate(ctx, c, names)
		return err
	})
	return res, err
}

func (s *Store) locate(ctx context.Context, c clock, names []*halleyv1.Name) (*halleyv1.LocateResponse, error) {
	if ms := s.unavailable(c); ms > 0 {
		s.metrics.unavailable.Inc()
		return &halleyv1.LocateResponse{UnavailableMs: uint32(ms)}, nil
	}
	var ls lookups
	looks := make([]lookup, len(names))
	var uids, keys, rooms, alls float64
	for i, n := range names {
		t := n.GetTenant()
		switch v := n.GetName().(type) {
		case *halleyv1.Name_Uid:
			uids++
			looks[i] = ls.add(bucketOf(t, v.Uid), userField(t, v.Uid))
		case *halleyv1.Name_Key:
			keys++
			looks[i] = ls.add(bucketOf(t, v.Key), keyField(t, v.Key))
		case *halleyv1.Name_Room:
			rooms++
			looks[i] = ls.add(bucketOf(t, v.Room), roomField(t, v.Room))
		case *halleyv1.Name_All:
			alls++
		}
	}
	s.metrics.countLocated(uids, keys, rooms, alls)
	if err := s.readBuckets(ctx, c, ls.reads); err != nil {
		return nil, err
	}
	a := newAnswer(c)
	located := make([]halleyv1.Located, len(names))
	a.resp.Located = make([]*halleyv1.Located, len(names))
	for i := range names {
		out := &located[i]
		a.resp.Located[i] = out
		l := looks[i]
		if l.read == nil {
			if names[i].GetAll() {
				a.all(out)
			}
			continue
		}
		missing := l.read.state.missing
		if v := l.value(); v != "" {
			switch v2 := l.read.fields[l.index][0]; v2 {
			case kindUser:
				a.user(out, v)
			case kindKey:
				a.key(out, v)
			case kindRoom:
				a.room(out, v)
			}
		}
		a.candidates(out, missing)
	}
	return a.resp, nil
}

// unavailable returns for how many ms nobody may be called absent.
func (s *Store) unavailable(c clock) int64 {
	return max(c.birth+s.opt.WarmUp.Milliseconds()-c.now, 0)
}

// answer collects places; comets get their index when they are first named.
type answer struct {
	c     clock
	resp  *halleyv1.LocateResponse
	index []int32 // by the view's index: 1 + index in the response
}

func newAnswer(c clock) *answer {
	return &answer{c: c, resp: &halleyv1.LocateResponse{}, index: make([]int32, len(c.leases))}
}

// place returns the place at a comet, made if need be.
func (a *answer) place(out *halleyv1.Located, i int) *halleyv1.Place {
	if a.index[i] == 0 {
		a.resp.Comets = append(a.resp.Comets, a.c.leases[i].brief)
		a.index[i] = int32(len(a.resp.Comets))
	}
	n := uint32(a.index[i] - 1)
	for _, p := range out.Places {
		if p.Comet == n {
			return p
		}
	}
	p := &halleyv1.Place{Comet: n}
	out.Places = append(out.Places, p)
	return p
}

func (a *answer) all(out *halleyv1.Located) {
	for i, l := range a.c.leases {
		if l.due > a.c.now {
			a.place(out, i)
		}
	}
}

// user puts the places of a uid's sessions. A comet that may hold more of them than are written here is asked by name as well:
// what is written goes with it, since a session that is just logging in is found by its connection only.
func (a *answer) user(out *halleyv1.Located, v string) {
	r := reader{s: v}
	if r.byte()>>4 != recordForm {
		return
	}
	r.uvarint()
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		r.skip()
	}
	for !r.bad && r.s != "" {
		e, conn, leaving := r.place()
		if leaving || r.bad {
			continue
		}
		if i, ok := a.c.index(e); ok {
			p := a.place(out, i)
			p.ConnIds = append(p.ConnIds, unpackConn(conn))
		}
	}
}

func (a *answer) key(out *halleyv1.Located, v string) {
	k, err := decodeKey(v)
	if err != nil || k == nil {
		return
	}
	if i, ok := a.c.index(k.epoch); ok {
		p := a.place(out, i)
		p.ConnIds = append(p.ConnIds, unpackConn(k.conn))
	}
}

func (a *answer) room(out *halleyv1.Located, v string) {
	r, err := decodeRoom(v)
	if err != nil {
		return
	}
	for _, p := range r {
		if i, ok := a.c.index(p.epoch); ok && p.count > 0 {
			a.place(out, i)
		}
	}
}

// candidates adds the live comets that haven't said that all they hold of this bucket is written here.
func (a *answer) candidates(out *halleyv1.Located, missing []int) {
	for _, i := range missing {
		if a.c.leases[i].due > a.c.now {
			a.place(out, i).ByName = true
		}
	}
}
