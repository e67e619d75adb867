package window

// Offsets tells how far a partition may be committed: records are added in the order of their offsets, end in any
// order, and the partition may be committed up to the first one that has not ended. The zero Offsets is ready.
type Offsets struct {
	open  ring[record]
	first uint64 // sequence number of open's front
	next  int64  // the offset to commit: one behind the last of the ended prefix
	bytes int64
	moved bool
}

type record struct {
	offset int64
	at     int64
	size   int64
	done   bool
}

// Add takes a record in and returns the sequence number by which Done knows it. at is the time when it was accepted,
// in whatever unit the caller likes, for Oldest; size is what Bytes counts.
func (o *Offsets) Add(offset, at, size int64) uint64 {
	o.open.push(record{offset: offset, at: at, size: size})
	o.bytes += size
	return o.first + uint64(o.open.len()) - 1
}

// Done ends a record. Ending one twice, or one that was never added, is harmless.
func (o *Offsets) Done(seq uint64) {
	if seq < o.first || seq-o.first >= uint64(o.open.len()) {
		return
	}
	o.open.at(int(seq - o.first)).done = true
	for o.open.len() > 0 && o.open.at(0).done {
		r := o.open.pop()
		o.next = r.offset + 1
		o.bytes -= r.size
		o.first++
		o.moved = true
	}
}

// Len returns how many records lie between what may be committed and what was added last. Records that have ended behind
// one that has not are counted.
func (o *Offsets) Len() int { return o.open.len() }

// Bytes returns the size of the records that Len counts.
func (o *Offsets) Bytes() int64 { return o.bytes }

// Oldest returns the time of the first record that has not ended.
func (o *Offsets) Oldest() (at int64, ok bool) {
	if o.open.len() == 0 {
		return 0, false
	}
	return o.open.at(0).at, true
}

// Commit returns the offset to commit, that of the next record to read, and whether it has moved since Commit was last
// called. A caller whose commit failed calls Again.
func (o *Offsets) Commit() (offset int64, moved bool) {
	moved, o.moved = o.moved, false
	return o.next, moved
}

// Again has the next Commit report its offset once more.
func (o *Offsets) Again() { o.moved = true }
