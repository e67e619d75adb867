package check

import "slices"

// lists looks whether store and devices know the same of who is in what, up to where he has read it, and how much that leaves.
func (c *checker) lists() {
	for _, conversation := range sorted(c.rosters) {
		c.roster(conversation)
	}
	if !c.listing {
		return
	}
	for _, v := range c.views() {
		c.list(v)
	}
}

// roster holds what the store says of who is in a conversation against its entries, and their markers against what they were shown.
func (c *checker) roster(conversation string) {
	says := c.rosters[conversation]
	for _, uid := range sorted(c.stays[conversation]) {
		stays := c.stays[conversation][uid]
		now := stays[len(stays)-1]
		e := says[uid]
		switch {
		case now.to != 0 && e != nil:
			c.found(&c.Store.Lost, 1, "a member that should have gone", "%s of %s, who left at %d", uid, conversation, now.to)
		case now.to == 0 && e == nil:
			c.found(&c.Store.Lost, 1, "a member that isn't in the list", "%s of %s, who came at %d", uid, conversation, now.from)
		case now.to == 0:
			if want := c.read(conversation, uid, now); e.Read < want {
				c.found(&c.Store.Lost, 1, "a read marker that went back", "of %s in %s: at %d, was at %d", uid, conversation, e.Read, want)
			}
		}
	}
	for _, uid := range sorted(says) {
		if c.stays[conversation][uid] == nil {
			c.found(&c.Store.Duplicated, 1, "a member that nobody brought in", "%s of %s", uid, conversation)
		}
	}
}

// read is up to where uid has read at least: what he sent in this stay, and what any of his devices showed.
func (c *checker) read(conversation, uid string, now stay) int64 {
	want := int64(0)
	for _, seq := range c.seqs[conversation] {
		if e := c.at[conversation][seq]; e.Does == Message && e.UID == uid && seq >= now.from {
			want = seq
		}
	}
	for device, of := range c.uids {
		if of == uid {
			want = max(want, c.marked[view{device, conversation}])
		}
	}
	return want
}

// list holds a device's list of conversations against the store.
func (c *checker) list(v view) {
	uid := c.uids[v.device]
	stays, e := c.stays[v.conversation][uid], c.listed[v]
	if len(stays) == 0 {
		return
	}
	member := stays[len(stays)-1].to == 0
	switch {
	case member && e == nil:
		c.found(&c.Handed.Lost, 1, "a conversation that isn't on the list", "%s on %s", v.conversation, v.device)
		return
	case !member && e != nil:
		c.found(&c.Handed.Lost, 1, "a removal that was never told", "%s on %s", v.conversation, v.device)
		return
	case !member:
		return
	}
	all := c.seqs[v.conversation]
	if last := all[len(all)-1]; e.Seq != last {
		c.found(&c.Handed.Lost, 1, "a list that ends too early", "%s on %s at %d of %d", v.conversation, v.device, e.Seq, last)
	}
	says := c.rosters[v.conversation][uid]
	if says == nil {
		return
	}
	if e.Read != says.Read {
		c.found(&c.Handed.Lost, 1, "a read marker that was never told", "%s on %s: at %d, stored is %d", v.conversation, v.device, e.Read, says.Read)
		return
	}
	first, _ := slices.BinarySearch(all, says.Read+1)
	unread := int64(0)
	for _, seq := range all[first:] {
		if c.at[v.conversation][seq].Does == Message {
			unread++
		}
	}
	if e.Unread != unread {
		c.found(&c.Handed.Lost, 1, "a wrong count of unread messages", "%s on %s: %d, and after %d there are %d", v.conversation, v.device, e.Unread, says.Read, unread)
	}
}

// session is one of a device's in which it is flooded.
type session struct{ device, id string }

// Pushes are what became of pushes to devices that read slowly.
type Pushes struct {
	// Sent were accepted; Came of them, Told to be dropped, and Unjudged: the session ended before it could be told.
	Sent     int `json:"sent"`
	Came     int `json:"came"`
	Told     int `json:"told"`
	Unjudged int `json:"unjudged"`
}

// pushes looks whether all that was pushed to a session that stayed came, or was told to be dropped.
func (c *checker) pushes() {
	for s, all := range c.pushed {
		pushed, got := map[int64]bool{}, map[int64]bool{}
		dropped, over, last := 0, false, int64(0)
		for _, e := range all {
			switch e.Kind {
			case Pushed:
				pushed[e.Seq] = true
			case Got:
				switch {
				case got[e.Seq]: // At least once is what is promised.
					continue
				case e.Seq < last:
					c.found(&c.Handed.Reordered, 1, "a push out of order", "%d after %d on %s", e.Seq, last, s.device)
				}
				got[e.Seq] = true
				last = max(last, e.Seq)
			case Dropped:
				dropped += int(min(max(e.Seq, 0), 1<<40))
			case Silence:
				over = true
			}
		}
		came := 0
		for n := range pushed {
			if got[n] {
				came++
			}
		}
		c.Pushes.Sent += len(pushed)
		c.Pushes.Came += came
		c.Pushes.Told += dropped
		switch missing := len(pushed) - came - dropped; {
		case missing <= 0:
		case over:
			c.found(&c.Handed.Lost, missing, "pushes dropped in silence", "%d of %d to %s: %d came, %d were told to be dropped", missing, len(pushed), s.device, came, dropped)
		default:
			c.Pushes.Unjudged += missing
		}
	}
}
