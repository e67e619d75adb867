package verify

import (
	"slices"
	"sync"

	"github.com/halley-im/halley/halley/internal/verify/check"
)

// moves are comings and goings whose outcome isn't known yet. In each group there is one at a time: the check reads off the entries who was
// in it, and this one only says who is to speak.
type moves struct {
	mu   sync.Mutex
	open map[string]move // by id
	// early are outcomes that were faster than the note of the sending.
	early map[string]bool
}

type move struct {
	t   *talk
	uid string
	out bool
}

// move has somebody leave a group, be taken out by its owner, or be brought back; false: there is none in which that can be now.
func (r *run) move() bool {
	var groups []*talk
	for _, t := range r.talks {
		if t.group && len(t.people) > 2 {
			groups = append(groups, t)
		}
	}
	if len(groups) == 0 {
		return false
	}
	t := groups[r.rng.IntN(len(groups))]
	t.mu.Lock()
	if t.moving {
		t.mu.Unlock()
		return false
	}
	t.moving = true
	var in, out []string
	for _, uid := range t.people[1:] {
		if t.out[uid] {
			out = append(out, uid)
		} else {
			in = append(in, uid)
		}
	}
	t.mu.Unlock()

	owner := t.members[r.rng.IntN(r.Devices)]
	e := check.Event{Kind: check.Sent, Conversation: t.id}
	var m move
	var by *device
	switch back := len(out) > 0 && (len(out) >= len(t.people)/2 || r.rng.IntN(2) == 0); {
	case back:
		m = move{t, out[r.rng.IntN(len(out))], false}
		by, e.Does = owner, check.Joined
	case r.rng.IntN(3) == 0:
		m = move{t, in[r.rng.IntN(len(in))], true}
		i := slices.IndexFunc(t.members, func(d *device) bool { return d.uid == m.uid })
		by, e.Does = t.members[i+r.rng.IntN(r.Devices)], check.Left
	default:
		m = move{t, in[r.rng.IntN(len(in))], true}
		by, e.Does = owner, check.Removed
	}
	r.complain(by, by.move(e, m))
	return true
}

// move sends one.
func (d *device) move(e check.Event, m move) error {
	d.sending.Lock()
	defer d.sending.Unlock()
	method, p := "group.leave", map[string]any{"conversation": m.t.id}
	if e.Does != check.Left {
		e.Members = []string{m.uid}
		p["members"] = e.Members
		if method = "group.add"; e.Does == check.Removed {
			method = "group.remove"
		}
	}
	e.At = d.now()
	id, err := d.current().Change(method, p)
	if err != nil {
		m.t.moved(m, false)
		return err
	}
	e.ID = id
	d.left(e)
	d.moves.mu.Lock()
	stored, early := d.moves.early[id]
	delete(d.moves.early, id)
	if !early {
		d.moves.open[id] = m
	}
	d.moves.mu.Unlock()
	if early {
		m.t.moved(m, stored)
	}
	return nil
}

// moved is told what became of anything that was sent.
func (r *run) moved(id string, stored bool) {
	r.moves.mu.Lock()
	m, ok := r.moves.open[id]
	delete(r.moves.open, id)
	if !ok {
		r.moves.early[id] = stored
	}
	r.moves.mu.Unlock()
	if ok {
		m.t.moved(m, stored)
	}
}

func (t *talk) moved(m move, stored bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.moving = false
	if stored {
		t.out[m.uid] = m.out
	}
}
