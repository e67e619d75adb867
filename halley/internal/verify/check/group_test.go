package check_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/halley-im/halley/halley/internal/verify/check"
)

// newGroup makes a journal of a group from which people go, and to which they come back. Devices that are away are shown what they may see
// when they come back; cy's is away most of the time.
func newGroup(seed uint64, n int) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 8))}
	for _, d := range devices {
		w.events = append(w.events, check.Event{Kind: check.Device, Device: d, UID: uidOf(d)})
	}
	members, read := map[string]bool{"ann": true, "bob": true, "cy": true}, map[string]int64{}
	w.put(check.Event{Does: check.Created, UID: "ann", Members: []string{"bob", "cy"}})
	w.show(members, "")
	for i := range n {
		e := check.Event{UID: "ann", ID: fmt.Sprint("m", i), Does: check.Message, Body: fmt.Sprint("says ", i)}
		device := "ann/1"
		uid := []string{"bob", "cy"}[w.rng.IntN(2)]
		gone := ""
		switch w.rng.IntN(3) {
		case 0:
			if e.Body = ""; members[uid] {
				gone = uid
				if e.Does, e.Members = check.Removed, []string{uid}; w.rng.IntN(2) == 0 {
					e.Does, e.UID, e.Members, device = check.Left, uid, nil, uid+"/1"
				}
			} else {
				e.Does, e.Members = check.Joined, []string{uid}
				read[uid] = int64(len(w.stored) + 1)
			}
			members[uid] = !members[uid]
		case 1:
			if members[uid] {
				e.UID, device = uid, uid+"/1"
			}
		}
		sent := e
		sent.Kind, sent.Device, sent.Conversation = check.Sent, device, conversation
		w.events = append(w.events, sent)
		w.sent++
		w.put(e)
		told := sent
		if told.Kind, told.Seq = check.Told, int64(len(w.stored)); e.Does == check.Left {
			told.Seq = 0 // Who has left is told no more than that.
		}
		w.events = append(w.events, told)
		if e.Does == check.Message {
			read[e.UID] = int64(len(w.stored))
		}
		w.show(members, gone)
	}
	w.events = append(w.events, w.stored...)
	for uid, in := range members {
		if !in {
			delete(members, uid)
		}
	}
	// Who was away sees what is his to see.
	w.cy(members)
	w.finish(members, read)
	return w
}

func (w *world) put(e check.Event) {
	e.Kind, e.Conversation, e.Seq = check.Stored, conversation, int64(len(w.stored)+1)
	w.stored = append(w.stored, e)
}

// show hands the last entry over, also to who has gone by it; and tells him.
func (w *world) show(members map[string]bool, gone string) {
	for _, d := range devices[:3] {
		if uid := uidOf(d); members[uid] || uid == gone {
			e := w.stored[len(w.stored)-1]
			e.Kind, e.Device = check.Handed, d
			w.events = append(w.events, e)
			if uid == gone {
				w.events = append(w.events, check.Event{Kind: check.Gone, Device: d, Conversation: conversation})
			}
		}
	}
}

func (w *world) cy(members map[string]bool) {
	if !members["cy"] {
		return
	}
	from := 0
	for i, e := range w.stored {
		if (e.Does == check.Joined || e.Does == check.Created) && slices.Contains(e.Members, "cy") {
			from = i
		}
	}
	for _, e := range w.stored[from:] {
		e.Kind, e.Device = check.Handed, "cy/1"
		w.events = append(w.events, e)
	}
}

func TestWhoComesAndGoesSeesWhatIsHis(t *testing.T) {
	moved := 0
	for seed := range uint64(300) {
		w := newGroup(seed, 3+int(seed%40))
		r := check.Check(w.events, 0)
		if r.Broken() || len(r.Refused) > 0 {
			t.Fatalf("seed %d: got %v, %v, refused %v", seed, figures(r), r.Examples, r.Refused)
		}
		moved += r.Moves
	}
	if moved < 1000 {
		t.Errorf("only %d comings and goings", moved)
	}
}

// comings are what may be wrong with them.
var comings = []defect{
	{"shown to who isn't in it", func(w *world) bool {
		i := slices.IndexFunc(w.stored, func(e check.Event) bool {
			return e.Does == check.Removed && e.Members[0] == "bob" || e.Does == check.Left && e.UID == "bob"
		})
		if i < 0 || i+1 == len(w.stored) || w.stored[i+1].Does == check.Joined {
			return false
		}
		e := w.stored[i+1]
		e.Kind, e.Device = check.Handed, "bob/1"
		w.events = append(w.events, e)
		return true
	}, func(r *check.Result) int { return r.Leaked }},
	{"an entry of a stay never came", func(w *world) bool {
		i := w.pick(func(e *check.Event) bool { return e.Kind == check.Handed && e.Device == "ann/2" })
		w.events = slices.Delete(w.events, i, i+1)
		return true
	}, func(r *check.Result) int { return r.Handed.Lost }},
	{"the coming itself never came", func(w *world) bool {
		i := w.pick(func(e *check.Event) bool {
			return e.Kind == check.Handed && e.Device == "bob/1" && e.Does == check.Joined && e.Members[0] == "bob"
		})
		if i < 0 || !slices.ContainsFunc(w.events, func(e check.Event) bool {
			return e.Kind == check.Handed && e.Device == "bob/1" && e.Seq == w.events[i].Seq+1
		}) {
			return false
		}
		w.events = slices.Delete(w.events, i, i+1)
		return true
	}, func(r *check.Result) int { return r.Handed.Lost }},
	{"a removal that was dropped from the rows", func(w *world) bool {
		out := w.away()
		if out == "" {
			return false
		}
		w.events = append(w.events, check.Event{Kind: check.Roster, Conversation: conversation, UID: out})
		return true
	}, func(r *check.Result) int { return r.Store.Lost }},
	{"a removal that its device never heard of", func(w *world) bool {
		out := w.away()
		if out == "" {
			return false
		}
		w.events = append(w.events, check.Event{Kind: check.Listed, Device: out + "/1", Conversation: conversation})
		return true
	}, func(r *check.Result) int { return r.Handed.Lost }},
	{"a stranger in the rows", func(w *world) bool {
		w.events = append(w.events, check.Event{Kind: check.Roster, Conversation: conversation, UID: "eve"})
		return true
	}, func(r *check.Result) int { return r.Store.Duplicated }},
}

// away is who isn't in it in the end.
func (w *world) away() string {
	for _, uid := range []string{"bob", "cy"} {
		if !slices.ContainsFunc(w.events, func(e check.Event) bool { return e.Kind == check.Roster && e.UID == uid }) {
			return uid
		}
	}
	return ""
}

func TestEachDefectOfComingAndGoingIsFound(t *testing.T) { findsEach(t, comings, newGroup) }

func TestRefusalsForWhichThereIsAReasonAreToldApart(t *testing.T) {
	w := newGroup(1, 30)
	refuse := func(uid string, code string, target int64) {
		e := check.Event{Kind: check.Sent, Device: uid + "/1", UID: uid, ID: fmt.Sprint(uid, code), Conversation: conversation, Does: check.Message, Target: target}
		told := e
		told.Kind, told.Code = check.Told, code
		w.events = append(w.events, e, told)
	}
	refuse("ann", "not_member", 0) // She always was one.
	refuse("bob", "not_member", 0)
	refuse("bob", "busy", 0)
	r := check.Check(w.events, 0)
	if r.Broken() || r.Refused["not_member"] != 1 || r.Expected["not_member"] != 1 || r.Refused["busy"] != 1 {
		t.Errorf("got %v, refused %v, rightly %v; want one of ann's, one of bob's that is right, and busy", figures(r), r.Refused, r.Expected)
	}
}

func TestPushesThatVanishInSilenceAreLost(t *testing.T) {
	session := func(id string, dropped int64, over bool) []check.Event {
		var all []check.Event
		for n := range int64(10) {
			all = append(all, check.Event{Kind: check.Pushed, Device: "ann/1", ID: id, Seq: n + 1})
			if n != 4 && n != 5 {
				all = append(all, check.Event{Kind: check.Got, Device: "ann/1", ID: id, Seq: n + 1})
			}
		}
		all = append(all, check.Event{Kind: check.Dropped, Device: "ann/1", ID: id, Seq: dropped})
		if over {
			all = append(all, check.Event{Kind: check.Silence, Device: "ann/1", ID: id})
		}
		return all
	}
	for _, c := range []struct {
		name           string
		dropped        int64
		over           bool
		lost, unjudged int
	}{{"all told", 2, true, 0, 0}, {"one untold", 1, true, 1, 0}, {"a session that ended", 0, false, 0, 2}} {
		r := check.Check(session("1", c.dropped, c.over), 0)
		if r.Handed.Lost != c.lost || r.Pushes.Unjudged != c.unjudged || r.Pushes.Came != 8 {
			t.Errorf("%s: lost %d, %+v; want lost %d, unjudged %d, 8 came", c.name, r.Handed.Lost, r.Pushes, c.lost, c.unjudged)
		}
	}
}

func TestTimesAreThoseOfTheirPhase(t *testing.T) {
	var all []check.Event
	send := func(id int, at, took time.Duration, to string) {
		e := check.Event{Kind: check.Sent, At: at, Device: "ann/1", UID: "ann", ID: fmt.Sprint(id), Conversation: conversation, Does: check.Message}
		got := e
		got.Kind, got.At, got.Device, got.Seq = check.Handed, at+took, to, int64(id)
		all = append(all, e, got)
	}
	for i, d := range []string{"ann/1", "bob/1", "cy/1"} {
		all = append(all, check.Event{Kind: check.Member, Device: d, UID: []string{"ann", "bob", "cy"}[i], Conversation: conversation})
	}
	s := time.Second
	all = append(all, check.Event{Kind: check.Disturbed, At: 10 * s, Until: 20 * s, Device: "cy/1"})
	send(1, 1*s, 9*s, "bob/1") // Before there is any phase.
	all = append(all, check.Event{Kind: check.Phase, At: 11 * s, Body: "first"})
	send(2, 12*s, 6*s, "bob/1") // Late, three seconds after it was over.
	send(3, 12*s, 7*s, "cy/1")  // The run's own doing.
	all = append(all, check.Event{Kind: check.Over, At: 15 * s})
	send(4, 16*s, 8*s, "bob/1") // Late; it was sent afterwards.
	all = append(all, check.Event{Kind: check.Phase, At: 30 * s, Body: "second"}, check.Event{Kind: check.Over, At: 32 * s})
	send(5, 31*s, s/2, "bob/1")
	r := check.Check(all, 5*s)
	if r.Late != 3 || len(r.Phases) != 2 {
		t.Fatalf("%d late, phases %+v; want 3 late, 2 phases", r.Late, r.Phases)
	}
	one, two := r.Phases[0], r.Phases[1]
	if one.Name != "first" || one.Sent != 3 || one.Late != 2 || one.Recovered != 3 || one.Worst != 8000 || one.Seconds != 4 {
		t.Errorf("first: %+v", one)
	}
	if two.Sent != 1 || two.Late != 0 || two.Recovered != 0 || two.Worst != 500 {
		t.Errorf("second: %+v", two)
	}
}
