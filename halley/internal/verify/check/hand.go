package check

import "slices"

// stay is a time in a conversation: from the entry that brought somebody in to the one that took him out; to 0: he is still in it.
type stay struct{ from, to int64 }

func (s stay) has(seq int64) bool { return seq >= s.from && (s.to == 0 || seq <= s.to) }

// in returns the stay that an entry lies in; false: he wasn't there.
func in(stays []stay, seq int64) (stay, bool) {
	// The later one: who is taken out and brought in by one entry came in by it.
	for _, s := range slices.Backward(stays) {
		if s.has(seq) {
			return s, true
		}
	}
	return stay{}, false
}

// memberships reads off a conversation's entries who was in it, and when.
func (c *checker) memberships(conversation string) map[string][]stay {
	out := map[string][]stay{}
	if always := c.always[conversation]; always != nil {
		for uid := range always {
			out[uid] = []stay{{from: 1}}
		}
		return out
	}
	enter := func(uid string, seq int64) {
		if all := out[uid]; len(all) == 0 || all[len(all)-1].to != 0 {
			out[uid] = append(all, stay{from: seq})
		}
	}
	leave := func(uid string, seq int64) {
		if all := out[uid]; len(all) > 0 && all[len(all)-1].to == 0 {
			all[len(all)-1].to = seq
		}
	}
	for _, seq := range c.seqs[conversation] {
		e := c.at[conversation][seq]
		switch e.Does {
		case Created:
			if e.UID != "" {
				enter(e.UID, seq)
			}
			fallthrough
		case Joined:
			for _, uid := range e.Members {
				enter(uid, seq)
			}
		case Left:
			leave(e.UID, seq)
		case Removed:
			for _, uid := range e.Members {
				leave(uid, seq)
			}
		default:
			continue
		}
		c.Moves++
	}
	return out
}

// gap is a range of entries that were passed over.
type gap struct {
	from, to int64
	// left: with a word about it.
	left bool
}

// hand looks whether a device was handed every entry of a conversation that its user may see, once, in order, as it is stored.
func (c *checker) hand(v view) {
	uid := c.uids[v.device]
	stays := c.stays[v.conversation][uid]
	var gaps []gap
	var last int64
	skipping := false
	seen := map[int64]bool{}
	shows := map[int64]*message{}
	// owe notes what lies between the last one and seq in this stay, as far as it was to be seen.
	owe := func(s stay, to int64) {
		if from := max(last+1, s.from); from <= to {
			gaps = append(gaps, gap{from, to, skipping})
		}
	}
	for _, e := range c.handed[v] {
		switch {
		case e.Kind == Reset:
			skipping = true
			continue
		case e.Kind == Gone:
			clear(shows)
			continue
		case seen[e.Seq]:
			c.found(&c.Handed.Duplicated, 1, "handed over twice", "%d of %s on %s", e.Seq, v.conversation, v.device)
			continue
		}
		seen[e.Seq] = true
		s, allowed := in(stays, e.Seq)
		switch {
		case !allowed && c.at[v.conversation][e.Seq] != nil:
			c.found(&c.Leaked, 1, "handed to somebody who isn't in the conversation", "%d of %s on %s", e.Seq, v.conversation, v.device)
			continue
		case e.Seq < last:
			c.found(&c.Handed.Reordered, 1, "handed over out of order", "%d after %d of %s on %s", e.Seq, last, v.conversation, v.device)
		default:
			owe(s, e.Seq-1)
			last, skipping = e.Seq, false
		}
		c.same(v, e)
		if e.Does == Message {
			shows[e.Seq] = messageOf(e)
		} else if m := shows[e.Target]; m != nil {
			m.apply(e, e.Body)
		}
	}
	if len(stays) == 0 {
		return
	}
	// Who isn't in it any more may have been told of it before he had all.
	now := stays[len(stays)-1]
	all := c.seqs[v.conversation]
	if now.to == 0 && len(all) > 0 {
		skipping = false
		owe(now, all[len(all)-1])
	}
	left := c.missing(v, gaps, seen)
	for _, seq := range sortedSeqs(shows) {
		// What he saw in an earlier stay isn't his to see any more. What was left out may have been a change: who is told of a reset reads
		// anew what he shows.
		want := c.at[v.conversation][seq]
		if left || now.to != 0 || seq < now.from || want == nil || want.Does != Message {
			continue
		}
		if got, want := shows[seq].String(), messageOf(want).String(); got != want {
			c.found(&c.Handed.Lost, 1, "a change that was never shown", "message %d of %s on %s says %s, stored is %s", seq, v.conversation, v.device, got, want)
		}
	}
}

// missing counts what lies in the gaps and never came. It works on ranges: what a server says of places may be nonsense, and the range
// between two of them larger than any memory. It returns whether anything was left out with a word about it.
func (c *checker) missing(v view, gaps []gap, seen map[int64]bool) (left bool) {
	came := sortedSeqs(seen)
	for _, g := range gaps {
		a, _ := slices.BinarySearch(came, g.from)
		b, _ := slices.BinarySearch(came, g.to+1)
		n := int(g.to-g.from) + 1 - (b - a)
		switch {
		case n <= 0:
		case g.left:
			c.Skipped += n
			left = true
		default:
			c.found(&c.Handed.Lost, n, "never handed over", "%d between %d and %d of %s on %s", n, g.from, g.to, v.conversation, v.device)
		}
	}
	return left
}

// same looks whether what was handed over is what is stored there.
func (c *checker) same(v view, e *Event) {
	is := c.at[v.conversation][e.Seq]
	if is != nil && is.UID == e.UID && is.ID == e.ID && is.Does == e.Does {
		return
	}
	if seq, ok := c.place[name{v.conversation, e.UID, e.ID}]; ok && seq != e.Seq {
		c.found(&c.Handed.Reordered, 1, "handed over in another's place", "%s of %s at %d of %s on %s, where it is %d", e.ID, e.UID, e.Seq, v.conversation, v.device, seq)
		return
	}
	c.found(&c.Store.Lost, 1, "handed over and not stored", "%s of %s, %d of %s on %s", e.ID, e.UID, e.Seq, v.conversation, v.device)
}
