package outbox

import (
	"github.com/halley-im/halley/proto/frame"
)

// Queue is the outbox of one session. The zero value is an empty queue. It is not safe for concurrent use: the
// session's lock guards it.
type Queue struct {
	// items in the order of arrival. One slice for all ranks: nearly every queue holds one rank at a time, and
	// "oldest first" is then the slice's own order.
	items []*Message
	// final is written when all else is: closing event and close frame.
	final []*Message
	bytes int32
	reply int32
	// dropped counts volatile messages that were dropped since the last lagged event.
	dropped uint32
	resync  bool
	// unsorted says that a message came in behind one of a higher rank.
	unsorted bool
}

// Dropped is what one Push dropped to make room.
type Dropped struct {
	Volatile, Stored int
}

// Push appends m. When the queue would hold more than limit bytes, volatile messages go, oldest first; if that
// is not enough, all stored ones become one resync. m itself goes if there is still no room and its class
// allows it. A queue that holds nothing takes a message of any size.
func (q *Queue) Push(m *Message, limit int) (d Dropped) {
	size := m.Size()
	if int(q.bytes)+size > limit && q.bytes > 0 {
		d = q.makeRoom(size, limit)
		if int(q.bytes)+size > limit && q.bytes > 0 {
			switch m.class {
			case Volatile:
				d.Volatile++
				q.dropped++
				return d
			case Stored:
				d.Stored++
				q.resync = true
				return d
			}
		}
		// What is stored must not come after the resync that stands for its predecessors.
		if m.class == Stored && q.resync {
			d.Stored++
			return d
		}
	}
	if n := len(q.items); n > 0 && q.items[n-1].rank > m.rank {
		q.unsorted = true
	}
	q.items = append(q.items, m)
	q.bytes += int32(size)
	if m.class == Reply {
		q.reply += int32(size)
	}
	return d
}

// makeRoom drops until size bytes fit, and an eighth of the limit more, so that a full queue is not searched
// again for each message.
func (q *Queue) makeRoom(size, limit int) (d Dropped) {
	goal := max(limit-limit/8-size, 0)
	d.Volatile = q.remove(func(m *Message) bool { return m.class == Volatile && int(q.bytes) > goal })
	q.dropped += uint32(d.Volatile)
	if int(q.bytes)+size > limit {
		if d.Stored = q.remove(func(m *Message) bool { return m.class == Stored }); d.Stored > 0 {
			q.resync = true
		}
	}
	return d
}

// remove drops all messages that drop names, in order of arrival, and returns how many.
func (q *Queue) remove(drop func(*Message) bool) int {
	kept := q.items[:0]
	n := 0
	for _, m := range q.items {
		if drop(m) {
			q.take(m)
			n++
			continue
		}
		kept = append(kept, m)
	}
	clear(q.items[len(kept):])
	q.items = kept
	return n
}

func (q *Queue) take(m *Message) {
	size := int32(m.Size())
	q.bytes -= size
	if m.class == Reply {
		q.reply -= size
	}
}

// Retain drops what a session doesn't get, and returns how many messages that were: for what came in before the session and its
// filter were known.
func (q *Queue) Retain(gets func(*Message) bool) int {
	return q.remove(func(m *Message) bool { return !gets(m) })
}

// Finish sets what is written after everything else, in that order. Nothing is pushed afterwards.
func (q *Queue) Finish(final ...*Message) { q.final = final }

// Empty reports whether nothing is left to write.
func (q *Queue) Empty() bool {
	return len(q.items) == 0 && len(q.final) == 0 && q.dropped == 0 && !q.resync
}

// Len returns the number of messages that wait.
func (q *Queue) Len() int { return len(q.items) }

// Bytes returns the bytes that wait.
func (q *Queue) Bytes() int { return int(q.bytes) }

// ReplyBytes returns the bytes of replies that wait.
func (q *Queue) ReplyBytes() int { return int(q.reply) }

// Trim gives back room that an idle queue holds.
func (q *Queue) Trim() {
	if len(q.items) == 0 && cap(q.items) > 4 {
		q.items = nil
	}
}

// Clear drops everything and returns how many messages that were.
func (q *Queue) Clear() int {
	n := len(q.items)
	*q = Queue{}
	return n
}

// Gap is what a session has to be told before what is left: how many volatile messages were dropped, and
// whether stored ones were.
type Gap struct {
	Dropped uint32
	Resync  bool
}

// Gap returns what was dropped since the last call.
func (q *Queue) Gap() Gap {
	g := Gap{q.dropped, q.resync}
	q.dropped, q.resync = 0, false
	return g
}

// Miss notes what was dropped before it came to the queue.
func (q *Queue) Miss(g Gap) {
	q.dropped += g.Dropped
	q.resync = q.resync || g.Resync
}

// HasGap reports whether Gap has something to tell.
func (q *Queue) HasGap() bool { return q.dropped > 0 || q.resync }

// coalesce bounds the inner bytes of one op 9 frame made of several pushes, so that its length fits the 16 bits of a shorter
// WebSocket header (RFC 6455 section 5.2). No setting: one write of so much costs little by the byte already.
const coalesce = 60 << 10

// Gather takes what comes next, about cap(buf) bytes of it, and returns it in one piece and the number of
// messages in it. The piece is buf, or the shared bytes of a single message: it must be written before the
// next call and never changed. Over WebSocket, pushes that follow each other go into one op 9 frame: it costs
// the client one message instead of many.
func (q *Queue) Gather(buf []byte, ws bool) (out []byte, n int) {
	if len(q.items) == 0 {
		if len(q.final) == 0 {
			return nil, 0
		}
		out = buf[:0]
		for _, m := range q.final {
			out = append(out, m.Bytes(ws)...)
		}
		n = len(q.final)
		q.final = nil
		return out, n
	}
	q.sort()
	first := q.items[0]
	if len(q.items) == 1 || first.Size() > cap(buf) {
		q.shift(1)
		return first.Bytes(ws), 1
	}
	out = buf[:0]
	if !ws {
		for _, m := range q.items {
			b := m.buf[m.bare:]
			if len(out)+len(b) > cap(buf) && n > 0 {
				break
			}
			out = append(out, b...)
			n++
		}
		q.shift(n)
		return out, n
	}
	for n < len(q.items) {
		run, inner := q.run(n, min(coalesce, cap(buf)-len(out)))
		if run < 2 {
			b := q.items[n].buf
			if len(out)+len(b) > cap(buf) && n > 0 {
				break
			}
			out = append(out, b...)
			n++
			continue
		}
		out = appendWSHeader(out, wsBinary, frame.HeaderLen+inner)
		out = frame.AppendBatchHeader(out, inner)
		for _, m := range q.items[n : n+run] {
			out = append(out, m.buf[m.bare:]...)
		}
		n += run
	}
	q.shift(n)
	return out, n
}

// run returns how many pushes from i on may share an op 9 frame within room bytes, and their length.
func (q *Queue) run(i, room int) (n, inner int) {
	room -= maxWSHeader + frame.HeaderLen
	for _, m := range q.items[i:] {
		if !m.batch || inner+m.Size() > room {
			break
		}
		inner += m.Size()
		n++
	}
	return n, inner
}

// sort brings the messages into the order of their ranks, stable within a rank.
func (q *Queue) sort() {
	if !q.unsorted {
		return
	}
	q.unsorted = false
	var count [ranks]int
	for _, m := range q.items {
		count[m.rank]++
	}
	var at [ranks]int
	for r := 1; r < ranks; r++ {
		at[r] = at[r-1] + count[r-1]
	}
	out := make([]*Message, len(q.items))
	for _, m := range q.items {
		out[at[m.rank]] = m
		at[m.rank]++
	}
	q.items = out
}

// shift removes the first n messages.
func (q *Queue) shift(n int) {
	for _, m := range q.items[:n] {
		q.take(m)
	}
	if n == len(q.items) {
		clear(q.items)
		// An array that held a burst is not kept for the session's life.
		if cap(q.items) > 256 {
			q.items = nil
			return
		}
		q.items = q.items[:0]
		return
	}
	left := copy(q.items, q.items[n:])
	clear(q.items[left:])
	q.items = q.items[:left]
}
