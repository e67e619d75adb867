package e2e

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
)

// stay is a time in which somebody is a member, by seqs: the first entry he sees and the last one; 0: he still is.
type stay struct{ from, to int64 }

// stays returns who was a member when.
func stays(entries []client.Entry) map[string][]stay {
	out := map[string][]stay{}
	for _, e := range entries {
		in, gone := []string(nil), []string(nil)
		switch e.Kind {
		case client.KindCreated:
			in = append([]string{e.From}, e.Members...)
		case client.KindJoined:
			in = e.Members
		case client.KindRemoved:
			gone = e.Members
		case client.KindLeft:
			gone = []string{e.From}
		}
		for _, uid := range in {
			if l := out[uid]; uid != "" && (len(l) == 0 || l[len(l)-1].to > 0) {
				out[uid] = append(l, stay{from: e.Seq})
			}
		}
		for _, uid := range gone {
			out[uid][len(out[uid])-1].to = e.Seq
		}
	}
	return out
}

// crowd is a group and the devices of all who are in it now and then.
type crowd struct {
	*Cluster
	api     *API
	id      string
	owner   *Talker
	devices []*Talker

	stop    chan struct{}
	talking sync.WaitGroup
}

// of returns the devices of a uid.
func (g *crowd) of(uid string) []*Talker {
	return slices.DeleteFunc(slices.Clone(g.devices), func(p *Talker) bool { return p.UID != uid })
}

// talk has somebody send a message every so often until hush. He waits while too many have no outcome.
func (g *crowd) talk(t *testing.T, p *Talker, every time.Duration) {
	g.talking.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-g.stop:
				return
			case <-tick.C:
			}
			if p.open() > 50 {
				continue
			}
			if _, err := p.Send(g.id, fmt.Sprintf("%s %d", p.UID, n), client.SendOptions{}); err != nil {
				t.Error(err)
				return
			}
		}
	})
}

// hush ends the talking and waits until everything has an outcome.
func (g *crowd) hush(t *testing.T) {
	t.Helper()
	close(g.stop)
	g.talking.Wait()
	within(t, time.Minute, "everything has an outcome", func() (bool, string) {
		for _, p := range g.devices {
			if n := p.open(); n > 0 {
				return false, fmt.Sprintf("%d of %s have none", n, p.UID)
			}
		}
		return true, ""
	})
}

// fanout waits until the group's entries are told in a way: 0 to each member, 1 to its room, 2 to each member while they are put in.
func (g *crowd) fanout(t *testing.T, want string) {
	t.Helper()
	within(t, 30*time.Second, "fanout "+want, func() (bool, string) {
		got := g.Query(t, "SELECT fanout FROM conversations WHERE conversation = '"+g.id+"'")
		return slices.Equal(got, []string{want}), fmt.Sprint(got)
	})
}

func (g *crowd) change(t *testing.T, method string, uids ...string) int64 {
	t.Helper()
	return g.owner.Does(t, method, map[string]any{"conversation": g.id, "members": uids}).Seq
}

// flow waits until all members' devices have been handed something that is said now.
func (g *crowd) flow(t *testing.T) {
	t.Helper()
	seq := g.owner.Says(t, g.id, "now")
	in := stays(g.api.Entries(t, g.id))
	within(t, 30*time.Second, "all members have it", func() (bool, string) {
		for _, p := range g.devices {
			if l := in[p.UID]; len(l) > 0 && l[len(l)-1].to == 0 && p.upTo(g.id) < seq {
				return false, fmt.Sprintf("%s has no %d: %s", p.UID, seq, p.about(g.id))
			}
		}
		return true, ""
	})
}

// check holds what everybody was handed, and what came over the wire, against what is stored.
func (g *crowd) check(t *testing.T) {
	t.Helper()
	truth := g.api.Entries(t, g.id)
	in := stays(truth)
	placed := map[string]string{}
	for _, e := range truth {
		if e.ClientMsgID == "" {
			continue
		}
		key := e.From + " " + e.ClientMsgID
		if placed[key] != "" {
			t.Errorf("%s is stored twice", key)
		}
		placed[key] = string(e.Body)
	}
	for _, p := range g.devices {
		p.fine(t)
		g.checkSent(t, p, truth)
		if last := in[p.UID]; len(last) > 0 && last[len(last)-1].to == 0 {
			within(t, 30*time.Second, p.UID+" has everything", func() (bool, string) {
				return p.upTo(g.id) == int64(len(truth)), p.about(g.id)
			})
		}
		g.checkHanded(t, p, truth, in[p.UID])
	}
}

// checkSent: what one sent and is told to be stored is there, in the order in which he sent it.
func (g *crowd) checkSent(t *testing.T, p *Talker, truth []client.Entry) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var sent []client.Outgoing
	for _, o := range p.outgoing {
		if o.Conversation != g.id {
			continue
		}
		sent = append(sent, o)
		switch {
		case o.Stage == client.Failed && o.Err.Code != "not_member":
			t.Errorf("%s: %s failed: %v", p.UID, o.Method, o.Err)
		case o.Stage == client.Stored && o.Seq > 0 && truth[o.Seq-1].ClientMsgID != o.ID:
			t.Errorf("%s: told that %s is at %d, where %s is", p.UID, o.ID, o.Seq, truth[o.Seq-1].ClientMsgID)
		}
	}
	slices.SortFunc(sent, func(a, b client.Outgoing) int { return a.At.Compare(b.At) })
	var last int64
	for _, o := range sent {
		if o.Stage == client.Stored && o.Method == "message.send" {
			if o.Seq <= last {
				t.Errorf("%s: %s is at %d, the one sent before at %d", p.UID, o.ID, o.Seq, last)
			}
			last = o.Seq
		}
	}
}

func (g *crowd) checkHanded(t *testing.T, p *Talker, truth []client.Entry, in []stay) {
	t.Helper()
	within := func(seq int64) int {
		return slices.IndexFunc(in, func(s stay) bool { return s.from <= seq && (s.to == 0 || seq <= s.to) })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for seq := range p.wire[g.id] {
		if within(seq) < 0 {
			t.Errorf("%s was told %d, a member %v", p.UID, seq, in)
		}
	}
	next := map[int]int64{}
	for _, e := range p.handed[g.id] {
		at := within(e.Seq)
		if at < 0 {
			t.Errorf("%s was handed %d, a member %v", p.UID, e.Seq, in)
			return
		}
		if e.Seq > next[at] && slices.Contains(p.resets[g.id], e.Seq) {
			next[at] = e.Seq
		}
		if want := cmp.Or(next[at], in[at].from); e.Seq != want || e.ClientMsgID != truth[e.Seq-1].ClientMsgID {
			t.Errorf("%s was handed %d %s, want %d %s; a member %v", p.UID, e.Seq, e.ClientMsgID, want, truth[want-1].ClientMsgID, in)
			return
		}
		next[at] = e.Seq + 1
	}
	if n := len(in); n > 0 && in[n-1].to == 0 && next[n-1] != int64(len(truth))+1 {
		t.Errorf("%s was handed all up to %d of %d", p.UID, next[n-1]-1, len(truth))
	}
}

// unread holds everybody's unread count, on the device and at the server, against what is stored. read is how far who has read.
func (g *crowd) unread(t *testing.T, read map[string]int64) {
	t.Helper()
	truth := g.api.Entries(t, g.id)
	in := stays(truth)
	for _, p := range g.devices {
		l := in[p.UID]
		if len(l) == 0 || l[len(l)-1].to > 0 {
			within(t, 20*time.Second, p.UID+", who is no member, has it off his list", func() (bool, string) {
				c, ok := p.Conversation(g.id)
				return !ok || c.Role == "none", fmt.Sprintf("%+v", c)
			})
			continue
		}
		upTo := max(read[p.UID], l[len(l)-1].from)
		for _, e := range truth {
			if e.Kind == client.KindMessage && e.From == p.UID {
				upTo = max(upTo, e.Seq)
			}
		}
		var want int64
		for _, e := range truth[upTo:] {
			if e.Kind == client.KindMessage {
				want++
			}
		}
		within(t, 20*time.Second, fmt.Sprintf("%s has %d unread", p.UID, want), func() (bool, string) {
			var list struct{ Conversations []client.Conversation }
			g.api.Must(t, 200, "GET", "/v1/users/"+p.UID+"/conversations", nil, &list)
			i := slices.IndexFunc(list.Conversations, func(c client.Conversation) bool { return c.ID == g.id })
			mine, ok := p.Conversation(g.id)
			if i < 0 || !ok {
				return false, "not on the list"
			}
			return mine.Unread == want && list.Conversations[i].Unread == want, fmt.Sprintf("device %d, server %d", mine.Unread, list.Conversations[i].Unread)
		})
	}
}

// newCrowd connects devices of n people, every fourth with two, every third by way of a proxy; the group has the first few.
func newCrowd(t *testing.T, c *Cluster, name string, n, first int) (g *crowd, flaky []*Proxy) {
	t.Helper()
	g = &crowd{Cluster: c, api: c.API(), stop: make(chan struct{})}
	for _, comet := range c.Comets {
		flaky = append(flaky, NewProxy(t, comet.TCP))
	}
	var uids []string
	for i := range n {
		uid := fmt.Sprintf("%s%02d", name, i)
		uids = append(uids, uid)
		switch {
		case i%3 == 2:
			g.devices = append(g.devices, NewTalker(t, uid, c.Token(uid, nil), i, "tcp://"+flaky[0].Addr, "tcp://"+flaky[1].Addr))
		default:
			g.devices = append(g.devices, c.Talker(t, uid, i, nil))
		}
		if i%4 == 3 {
			g.devices = append(g.devices, c.Talker(t, uid, i+1, nil))
		}
	}
	for _, p := range g.devices {
		p.online(t)
	}
	g.owner = g.devices[0]
	g.id = g.owner.Does(t, "group.create", map[string]any{"title": name, "members": uids[1:first]}).Conversation
	return g, flaky
}

// testLargeGroup takes a group over the border, and back and over it again, while messages flow, people come, go, lose their
// connections, and each role is killed.
func testLargeGroup(t *testing.T, c *Cluster) {
	g, flaky := newCrowd(t, c, "p", 18, 3)
	uid := func(i int) string { return fmt.Sprintf("p%02d", i) }
	for _, i := range []int{1, 2} {
		g.talk(t, g.of(uid(i))[0], 60*time.Millisecond)
	}
	g.flow(t)
	g.fanout(t, "0")
	g.change(t, "group.add", uid(3), uid(4))
	g.flow(t)
	for i := 5; i < 12; i++ {
		g.change(t, "group.add", uid(i))
		g.talk(t, g.of(uid(i))[0], 300*time.Millisecond)
	}
	g.fanout(t, "1")
	g.flow(t)

	// They come and go.
	for round := range 3 {
		for _, p := range flaky {
			p.Cut()
		}
		g.change(t, "group.remove", uid(5+round), uid(8+round))
		g.change(t, "group.add", uid(12+round), uid(15+round))
		for _, p := range flaky {
			p.Mend()
		}
		g.of(uid(3 + 8*(round%2)))[0].Does(t, "group.leave", map[string]any{"conversation": g.id})
		g.change(t, "group.add", uid(5+round), uid(3+8*(round%2)))
	}
	g.flow(t)
	g.fanout(t, "1")

	// Everything dies once.
	for _, n := range []*Node{g.Jobs[0], g.Comets[0], g.Logics[0], g.Routers[0], g.Jobs[1]} {
		n.Kill()
		g.change(t, "group.remove", uid(12))
		g.change(t, "group.add", uid(8))
		g.Restart(n)
		g.change(t, "group.remove", uid(8))
		g.change(t, "group.add", uid(12))
		g.flow(t)
	}

	// Few again, and many again: who went while it was told by uid is out of the room all the same.
	var many []string
	for i := 3; i < 18; i++ {
		many = append(many, uid(i))
	}
	in := stays(g.api.Entries(t, g.id))
	many = slices.DeleteFunc(many, func(uid string) bool { return len(in[uid]) == 0 || in[uid][len(in[uid])-1].to > 0 })
	g.change(t, "group.remove", many...)
	g.flow(t)
	g.fanout(t, "0")
	g.change(t, "group.remove", uid(2))
	g.change(t, "group.add", many...)
	g.fanout(t, "1")
	g.flow(t)

	g.hush(t)
	g.check(t)
	g.unread(t, nil)
	truth := g.api.Entries(t, g.id)
	half, read := truth[len(truth)-20], map[string]int64{}
	for _, i := range []int{1, 4, 11} {
		for _, p := range g.of(uid(i))[:1] {
			p.MarkRead(g.id, &half)
		}
		read[uid(i)] = half.Seq
	}
	g.unread(t, read)
}

// testGroupOf320 has the border where it is if nobody says otherwise, and a group that is larger.
func testGroupOf320(t *testing.T, c *Cluster) {
	for _, n := range c.Jobs {
		if code := n.Stop(20 * time.Second); code != 0 {
			t.Errorf("%s: exit code %d", n.Name, code)
		}
		delete(n.Env, "HALLEY_JOB_CHAT_LARGE")
		c.Restart(n)
	}
	g, flaky := newCrowd(t, c, "q", 40, 10)
	uid := func(i int) string { return fmt.Sprintf("q%02d", i) }
	var asleep []string
	for i := range 280 {
		asleep = append(asleep, fmt.Sprintf("q-asleep-%03d", i))
	}
	add := func(uids ...string) {
		g.api.Must(t, 200, "POST", conversationPath(g.id)+"/members", map[string]any{"members": uids}, nil)
	}
	for i := range 3 {
		g.talk(t, g.of(uid(i))[0], 100*time.Millisecond)
	}
	g.fanout(t, "0")
	add(asleep...) // 290: more than half
	g.fanout(t, "2")
	for i := 10; i < 40; i += 10 {
		for _, p := range flaky {
			p.Cut()
		}
		add(uid(i), uid(i+1), uid(i+2), uid(i+3), uid(i+4))
		for _, p := range flaky {
			p.Mend()
		}
		add(uid(i+5), uid(i+6), uid(i+7), uid(i+8), uid(i+9))
		g.flow(t)
	}
	g.fanout(t, "1")
	g.Jobs[0].Kill()
	g.change(t, "group.remove", uid(4), uid(14), uid(24), uid(34), asleep[0])
	g.flow(t)
	g.Restart(g.Jobs[0])
	g.change(t, "group.remove", uid(5), uid(15), uid(25), uid(35), asleep[1])
	g.change(t, "group.add", uid(4), uid(14))
	g.flow(t)
	g.hush(t)
	g.check(t)
	g.unread(t, nil)
}
