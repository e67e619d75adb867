package check_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/halley-im/halley/halley/internal/verify/check"
)

// world makes journals of a service that keeps its promises.
type world struct {
	rng    *rand.Rand
	events []check.Event
	stored []check.Event
	sent   int
}

const conversation = "g/tea"

var devices = []string{"ann/1", "ann/2", "bob/1", "cy/1"}

func uidOf(device string) string { return device[:len(device)-2] }

// newWorld has people send n messages and changes, all of which are stored, in some order that keeps each device's.
func newWorld(seed uint64, n int) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 7))}
	for _, d := range devices {
		w.events = append(w.events, check.Event{Kind: check.Member, Device: d, UID: uidOf(d), Conversation: conversation})
	}
	says, changed, recalled := map[int64]string{}, map[int64]int64{}, map[int64]bool{}
	pinned, reacted, read := map[int64]bool{}, map[int64][]string{}, map[string]int64{}
	var messages []int64
	for i := range n {
		seq := int64(i + 1)
		d := devices[w.rng.IntN(len(devices))]
		e := check.Event{
			Kind: check.Sent, At: time.Duration(i) * time.Second, Device: d, Conversation: conversation, UID: uidOf(d), ID: fmt.Sprint("m", i), Does: check.Message,
			Body: fmt.Sprint(d, " says ", i),
		}
		if len(messages) > 0 && w.rng.IntN(4) == 0 {
			target := messages[w.rng.IntN(len(messages))]
			if !recalled[target] {
				e.Target, changed[target] = target, seq
				switch w.rng.IntN(4) {
				case 0:
					e.Does, says[target] = check.Edit, e.Body
				case 1:
					e.Does, e.Body, says[target], recalled[target], pinned[target], reacted[target] = check.Recall, "", "", true, false, nil
				case 2:
					e.Does, e.Body, e.Off = check.Pin, "", w.rng.IntN(2) == 0
					pinned[target] = !e.Off
				case 3:
					e.Does, e.Body, e.Reaction, e.Off = check.Reaction, "", "+", w.rng.IntN(2) == 0
					by := "+ " + e.UID
					reacted[target] = slices.DeleteFunc(slices.Clone(reacted[target]), func(s string) bool { return s == by })
					if !e.Off {
						reacted[target] = append(reacted[target], by)
					}
				}
			}
		}
		w.events = append(w.events, e)
		w.sent++
		if e.Does == check.Message {
			messages = append(messages, seq)
			says[seq], changed[seq], read[e.UID] = e.Body, seq, seq
		}
		told := e
		told.Kind, told.Code, told.Seq = check.Told, "", seq
		w.events = append(w.events, told)
		s := e
		s.Kind, s.Device, s.Seq, s.Body = check.Stored, "", seq, ""
		w.stored = append(w.stored, s)
	}
	// A device gets each entry live, as it was then, or later, as it is by then.
	for _, d := range devices {
		for _, s := range w.stored {
			h := s
			h.Kind, h.Device, h.At = check.Handed, d, time.Duration(s.Seq)*time.Second
			live := w.rng.IntN(2) == 0
			switch {
			case h.Does == check.Message && live:
				h.Body, h.Changed = w.said(h.ID), h.Seq
			case h.Does == check.Message:
				h.Body, h.Changed, h.Pinned, h.Reactions = says[h.Seq], changed[h.Seq], pinned[h.Seq], reacted[h.Seq]
			case h.Does == check.Edit && live:
				h.Body = w.said(h.ID)
			case h.Does == check.Edit:
				h.Body = says[h.Target]
			}
			w.events = append(w.events, h)
		}
	}
	for i := range w.stored {
		if s := &w.stored[i]; s.Does == check.Message {
			s.Body, s.Changed, s.Pinned, s.Reactions = says[s.Seq], changed[s.Seq], pinned[s.Seq], reacted[s.Seq]
		}
	}
	w.events = append(w.events, w.stored...)
	w.finish(map[string]bool{"ann": true, "bob": true, "cy": true}, read)
	return w
}

// finish says what the lists are in the end.
func (w *world) finish(members map[string]bool, read map[string]int64) {
	for _, uid := range slices.Sorted(maps.Keys(members)) {
		w.events = append(w.events, check.Event{Kind: check.Roster, Conversation: conversation, UID: uid, Read: read[uid]})
	}
	for _, d := range devices {
		uid, unread := uidOf(d), int64(0)
		if !members[uid] {
			continue
		}
		for _, s := range w.stored {
			if s.Does == check.Message && s.Seq > read[uid] {
				unread++
			}
		}
		w.events = append(w.events, check.Event{
			Kind: check.Listed, Device: d, Conversation: conversation, Seq: int64(len(w.stored)), Read: read[uid], Unread: unread,
		})
	}
}

func (w *world) said(id string) string {
	i := slices.IndexFunc(w.events, func(e check.Event) bool { return e.Kind == check.Sent && e.ID == id })
	return w.events[i].Body
}

// pick returns the index of some event.
func (w *world) pick(ok func(e *check.Event) bool) int {
	var all []int
	for i := range w.events {
		if ok(&w.events[i]) {
			all = append(all, i)
		}
	}
	if len(all) == 0 {
		return -1
	}
	return all[w.rng.IntN(len(all))]
}

func is(k check.Kind) func(*check.Event) bool {
	return func(e *check.Event) bool { return e.Kind == k }
}

func figures(r *check.Result) [7]int {
	return [7]int{r.Store.Lost, r.Store.Duplicated, r.Store.Reordered, r.Handed.Lost, r.Handed.Duplicated, r.Handed.Reordered, r.Leaked}
}

func TestNothingIsFoundWhereNothingIsBroken(t *testing.T) {
	for seed := range uint64(300) {
		w := newWorld(seed, 5+int(seed%60))
		r := check.Check(w.events, 0)
		if r.Broken() {
			t.Fatalf("seed %d: got %v, %v", seed, figures(r), r.Examples)
		}
		if r.Sent != w.sent || r.Stored != len(w.stored) || r.Shown != len(w.stored)*len(devices) {
			t.Fatalf("seed %d: counted %d sent, %d stored, %d shown", seed, r.Sent, r.Stored, r.Shown)
		}
	}
}

// defects are what may be wrong with a journal, each with where the damage must be seen: in one of these figures at least.
// defect is one that a journal can have; plant is false where there is no room for it.
type defect struct {
	name  string
	plant func(w *world) bool
	shows func(*check.Result) int
}

var defects = []defect{
	{"the last entry was never stored, whatever its sender was told", func(w *world) bool {
		id := w.stored[len(w.stored)-1].ID
		w.drop(func(e *check.Event) bool { return e.ID == id && e.Kind != check.Sent && e.Kind != check.Told })
		return true
	}, func(r *check.Result) int { return r.Store.Lost }},
	{"skipped: nobody ever heard of it again", func(w *world) bool {
		id := w.stored[len(w.stored)-1].ID
		w.drop(func(e *check.Event) bool { return e.ID == id && e.Kind != check.Sent })
		return true
	}, func(r *check.Result) int { return r.Store.Lost }},
	{"a row was deleted", func(w *world) bool {
		i := w.pick(is(check.Stored))
		w.events = slices.Delete(w.events, i, i+1)
		return true
	}, func(r *check.Result) int { return r.Store.Lost }},
	{"inserted twice", func(w *world) bool {
		e := w.events[w.pick(is(check.Stored))]
		e.Seq = int64(len(w.stored)) + 1
		w.events = append(w.events, e)
		for _, d := range devices {
			e.Kind, e.Device = check.Handed, d
			w.events = append(w.events, e)
		}
		return true
	}, func(r *check.Result) int { return r.Store.Duplicated }},
	{"a place taken twice", func(w *world) bool {
		e := w.events[w.pick(is(check.Stored))]
		w.events = append(w.events, e)
		return true
	}, func(r *check.Result) int { return r.Store.Duplicated }},
	{"an entry that nobody sent", func(w *world) bool {
		i := w.pick(func(e *check.Event) bool { return e.Kind == check.Stored && e.Does == check.Message })
		if i < 0 {
			return false
		}
		w.events[i].ID = "of nobody"
		return true
	}, func(r *check.Result) int { return r.Store.Duplicated }},
	{"a pair swapped before anybody saw it", func(w *world) bool {
		// Of one sender: of others' order nothing is promised.
		for i := range w.stored[1:] {
			a, b := w.stored[i], w.stored[i+1]
			if a.Does == check.Message && b.Does == check.Message && w.device(a.ID) == w.device(b.ID) {
				w.swap(a, b)
				return true
			}
		}
		return false
	}, func(r *check.Result) int { return r.Store.Reordered }},
	{"a pair swapped in the store afterwards", func(w *world) bool {
		i := w.pick(func(e *check.Event) bool { return e.Kind == check.Stored && e.Seq > 1 })
		j := slices.IndexFunc(w.events, func(e check.Event) bool { return e.Kind == check.Stored && e.Seq == w.events[i].Seq-1 })
		a, b := &w.events[i], &w.events[j]
		a.ID, b.ID, a.UID, b.UID = b.ID, a.ID, b.UID, a.UID
		return true
	}, func(r *check.Result) int { return r.Store.Reordered }},
	{"a message says something else", func(w *world) bool {
		i := w.pick(func(e *check.Event) bool { return e.Kind == check.Stored && e.Does == check.Message })
		if i < 0 {
			return false
		}
		w.events[i].Body += "!"
		return true
	}, func(r *check.Result) int { return r.Store.Lost }},
	{"a change was dropped from the store", func(w *world) bool {
		i := w.pick(func(e *check.Event) bool {
			return e.Kind == check.Stored && e.Does == check.Message && e.Changed > e.Seq && (e.Body != w.said(e.ID) || e.Pinned || len(e.Reactions) > 0)
		})
		if i < 0 {
			return false
		}
		w.events[i].Body, w.events[i].Changed, w.events[i].Pinned, w.events[i].Reactions = w.said(w.events[i].ID), w.events[i].Seq, false, nil
		return true
	}, func(r *check.Result) int { return r.Store.Lost }},
	{"a change was never shown", func(w *world) bool {
		i := w.pick(func(e *check.Event) bool { return e.Kind == check.Handed && e.Does != check.Message })
		if i < 0 {
			return false
		}
		w.events = slices.Delete(w.events, i, i+1)
		return true
	}, func(r *check.Result) int { return r.Handed.Lost }},
	{"never handed over", func(w *world) bool {
		i := w.pick(is(check.Handed))
		w.events = slices.Delete(w.events, i, i+1)
		return true
	}, func(r *check.Result) int { return r.Handed.Lost }},
	{"handed over twice", func(w *world) bool {
		w.events = append(w.events, w.events[w.pick(is(check.Handed))])
		return true
	}, func(r *check.Result) int { return r.Handed.Duplicated }},
	{"handed over out of order", func(w *world) bool {
		i := w.pick(func(e *check.Event) bool { return e.Kind == check.Handed && e.Seq > 1 })
		w.events[i], w.events[i-1] = w.events[i-1], w.events[i]
		return true
	}, func(r *check.Result) int { return r.Handed.Reordered }},
	{"handed over in another's place", func(w *world) bool {
		i := w.pick(func(e *check.Event) bool { return e.Kind == check.Handed && e.Seq > 1 })
		a, b := &w.events[i], &w.events[i-1]
		a.ID, b.ID, a.UID, b.UID = b.ID, a.ID, b.UID, a.UID
		return true
	}, func(r *check.Result) int { return r.Handed.Reordered }},
	{"no outcome", func(w *world) bool {
		i := w.pick(is(check.Told))
		id := w.events[i].ID
		w.drop(func(e *check.Event) bool { return e.Kind == check.Told && e.ID == id })
		return true
	}, func(r *check.Result) int { return r.Handed.Lost }},
	{"refused and stored", func(w *world) bool {
		i := w.pick(is(check.Told))
		w.events[i].Code, w.events[i].Seq = "muted", 0
		return true
	}, func(r *check.Result) int { return r.Store.Duplicated }},
	{"a read marker went back", func(w *world) bool {
		i := w.pick(func(e *check.Event) bool { return e.Kind == check.Roster && e.Read > 0 })
		w.events[i].Read--
		return true
	}, func(r *check.Result) int { return r.Store.Lost }},
	{"a marker never came", func(w *world) bool {
		i := w.pick(func(e *check.Event) bool { return e.Kind == check.Listed && e.Read > 0 })
		w.events[i].Read--
		return true
	}, func(r *check.Result) int { return r.Handed.Lost }},
	{"unread miscounted", func(w *world) bool {
		w.events[w.pick(is(check.Listed))].Unread++
		return true
	}, func(r *check.Result) int { return r.Handed.Lost }},
	{"off the list", func(w *world) bool {
		i := w.pick(is(check.Listed))
		w.events = slices.Delete(w.events, i, i+1)
		return true
	}, func(r *check.Result) int { return r.Handed.Lost }},
	{"somebody was forgotten", func(w *world) bool {
		i := w.pick(is(check.Roster))
		w.events = slices.Delete(w.events, i, i+1)
		return true
	}, func(r *check.Result) int { return r.Store.Lost }},
	{"a device that was handed nothing at all", func(w *world) bool {
		w.drop(func(e *check.Event) bool { return e.Kind == check.Handed && e.Device == "cy/1" })
		return true
	}, func(r *check.Result) int { return r.Handed.Lost }},
}

func (w *world) drop(f func(*check.Event) bool) {
	w.events = slices.DeleteFunc(w.events, func(e check.Event) bool { return f(&e) })
}

func (w *world) device(id string) string {
	i := slices.IndexFunc(w.events, func(e check.Event) bool { return e.Kind == check.Sent && e.ID == id })
	return w.events[i].Device
}

// swap has two entries everywhere in each other's place.
func (w *world) swap(a, b check.Event) {
	for i := range w.events {
		e := &w.events[i]
		if e.Kind != check.Stored && e.Kind != check.Handed {
			continue
		}
		switch e.ID {
		case a.ID:
			e.ID = b.ID
		case b.ID:
			e.ID = a.ID
		}
	}
}

func TestEachDefectIsFoundWhereItIs(t *testing.T) { findsEach(t, defects, newWorld) }

// findsEach plants each defect in journals that were well.
func findsEach(t *testing.T, defects []defect, journal func(seed uint64, n int) *world) {
	t.Helper()
	for _, d := range defects {
		t.Run(d.name, func(t *testing.T) {
			planted := 0
			for seed := range uint64(60) {
				w := journal(seed, 20)
				if !d.plant(w) {
					continue
				}
				planted++
				r := check.Check(w.events, 0)
				if !r.Broken() || d.shows(r) == 0 || len(r.Examples) == 0 {
					t.Errorf("seed %d: got %v, examples %v", seed, figures(r), r.Examples)
				}
			}
			if planted < 10 {
				t.Errorf("only %d journals had room for it", planted)
			}
		})
	}
}

func TestWhatWasLeftOutWithAWordIsNotLost(t *testing.T) {
	w := newWorld(1, 30)
	w.drop(func(e *check.Event) bool {
		return e.Kind == check.Handed && e.Device == "cy/1" && e.Seq >= 10 && e.Seq < 20
	})
	i := slices.IndexFunc(w.events, func(e check.Event) bool { return e.Kind == check.Handed && e.Device == "cy/1" && e.Seq == 20 })
	w.events = slices.Insert(w.events, i, check.Event{Kind: check.Reset, Device: "cy/1", Conversation: conversation})
	r := check.Check(w.events, 0)
	if r.Broken() || r.Skipped != 10 {
		t.Errorf("got %v, %d left out, %v; want nothing, 10", figures(r), r.Skipped, r.Examples)
	}
}

func TestLateIsToldAndBreaksNothing(t *testing.T) {
	w := newWorld(1, 30)
	i := w.pick(is(check.Handed))
	w.events[i].At += time.Hour
	r := check.Check(w.events, time.Minute)
	if r.Broken() || r.Late != 1 {
		t.Errorf("got %v, %d late; want nothing, 1", figures(r), r.Late)
	}
}

func TestJournalsAreReadAsTheyWereWritten(t *testing.T) {
	w := newWorld(3, 40)
	var b bytes.Buffer
	if err := check.Write(&b, w.events); err != nil {
		t.Fatal(err)
	}
	got, err := check.Read(&b)
	if err != nil || !reflect.DeepEqual(got, w.events) {
		t.Errorf("got %d events, %v; want the %d that were written", len(got), err, len(w.events))
	}
}

// FuzzCheck: whatever a journal holds, Check comes to an end, counts nothing below 0, and has an example for whatever it finds.
func FuzzCheck(f *testing.F) {
	for seed := range uint64(3) {
		for _, w := range []*world{newWorld(seed, 2), newGroup(seed, 2)} {
			var b bytes.Buffer
			if err := check.Write(&b, w.events); err != nil {
				f.Fatal(err)
			}
			f.Add(b.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		// Longer ones are slow to decode, and say nothing that shorter ones don't.
		if len(raw) > 8<<10 {
			t.Skip()
		}
		events, err := check.Read(bytes.NewReader(raw))
		if err != nil {
			t.Skip()
		}
		for i := range events {
			// Sums of more than 2⁶³ entries mean nothing.
			events[i].Seq = min(max(events[i].Seq, -5), 1<<40)
		}
		r := check.Check(events, time.Second)
		for _, n := range figures(r) {
			if n < 0 {
				t.Fatalf("a count below nothing: %v", figures(r))
			}
		}
		if r.Broken() != (len(r.Examples) > 0) {
			t.Fatalf("broken: %v, with the examples %v", r.Broken(), r.Examples)
		}
	})
}

// Places are what a server says: two of them that lie far apart must cost no more than two that don't.
func TestFarPlacesCostNothing(t *testing.T) {
	var events []check.Event
	for i := range int64(1000) {
		events = append(events, check.Event{Kind: check.Handed, Device: "ann/1", Conversation: conversation, UID: "bob", ID: fmt.Sprint(i), Seq: i << 30})
	}
	events = append(events, check.Event{Kind: check.Member, Device: "ann/1", UID: "ann", Conversation: conversation},
		check.Event{Kind: check.Stored, Conversation: conversation, UID: "bob", ID: "x", Seq: 1 << 40})
	var r *check.Result
	took := testing.AllocsPerRun(1, func() { r = check.Check(events, 0) })
	if took > 100_000 || !r.Broken() {
		t.Errorf("%v allocations for 1000 entries, broken: %v", took, r.Broken())
	}
}
