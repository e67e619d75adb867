package window

import "fmt"

// Window is what one stream owes: a queue of things not yet sent, then, in the same order, those sent and not yet
// acknowledged. Numbers are those of the connection: 1, 2, 3 … in the order of sending, from 1 again after Rewind.
// The zero Window is empty and ready. It sets no bound itself; Count and Bytes are what its user bounds.
type Window[T any] struct {
	sent   ring[sized[T]]
	unsent ring[sized[T]]
	acked  uint64 // on this connection
	bytes  int64
}

type sized[T any] struct {
	v    T
	size int64
}

// Count returns how many things are not acknowledged, sent or not.
func (w *Window[T]) Count() int { return w.sent.len() + w.unsent.len() }

// Bytes returns their size.
func (w *Window[T]) Bytes() int64 { return w.bytes }

// Unsent returns how many are not sent.
func (w *Window[T]) Unsent() int { return w.unsent.len() }

// Push puts v at the end.
func (w *Window[T]) Push(v T, size int64) {
	w.unsent.push(sized[T]{v, size})
	w.bytes += size
}

// Peek returns the next thing to send and its size; false if there is none.
func (w *Window[T]) Peek() (T, int64, bool) {
	if w.unsent.len() == 0 {
		var zero T
		return zero, 0, false
	}
	s := w.unsent.at(0)
	return s.v, s.size, true
}

// Send counts the thing that Peek showed as sent and returns its number.
func (w *Window[T]) Send() uint64 {
	w.sent.push(w.unsent.pop())
	return w.acked + uint64(w.sent.len())
}

// Skip removes the thing that Peek showed without sending it.
func (w *Window[T]) Skip() { w.bytes -= w.unsent.pop().size }

// Sent hands everything that was sent and is not acknowledged to f, in order.
func (w *Window[T]) Sent(f func(T)) {
	for i := range w.sent.len() {
		f(w.sent.at(i).v)
	}
}

// Thin removes from what is not sent all that out says.
func (w *Window[T]) Thin(out func(T) bool) {
	for range w.unsent.len() {
		s := w.unsent.pop()
		if out(s.v) {
			w.bytes -= s.size
			continue
		}
		w.unsent.push(s)
	}
}

// At returns the thing that was sent with that number, if it is not acknowledged.
func (w *Window[T]) At(number uint64) (T, bool) {
	if number <= w.acked || number-w.acked > uint64(w.sent.len()) {
		var zero T
		return zero, false
	}
	return w.sent.at(int(number - w.acked - 1)).v, true
}

// Ack removes everything up to number and hands it to f in order. A number that was acknowledged before is
// harmless; one that was never sent is an error and removes nothing.
func (w *Window[T]) Ack(number uint64, f func(T)) error {
	if number <= w.acked {
		return nil
	}
	if last := w.acked + uint64(w.sent.len()); number > last {
		return fmt.Errorf("acknowledged up to %d, sent were %d", number, last)
	}
	for w.acked < number {
		s := w.sent.pop()
		w.acked++
		w.bytes -= s.size
		f(s.v)
	}
	return nil
}

// Rewind is for a new connection: what was sent and not acknowledged is to be sent again, before the rest, in
// order, with numbers from 1.
func (w *Window[T]) Rewind() {
	for w.sent.len() > 0 {
		w.unsent.unshift(w.sent.popLast())
	}
	w.acked = 0
}

// Drain empties the window and hands everything to f in order.
func (w *Window[T]) Drain(f func(T)) {
	w.Rewind()
	for w.unsent.len() > 0 {
		f(w.unsent.pop().v)
	}
	w.bytes = 0
}
