package flush

import (
	"testing"
	"time"

	"github.com/halley-im/halley/comet/internal/session"
)

// offer feeds a Flusher with n messages every so often, for a time, on a clock of its own.
func offer(f *Flusher, n int, every, lasting time.Duration) {
	at := f.lastly.Load()
	for end := at + int64(lasting); at < end; {
		at += int64(every)
		f.offered.Add(int64(n))
		f.estimate(at)
	}
}

func TestWindowFollowsWhatIsOffered(t *testing.T) {
	const limit = 100 * time.Millisecond
	for _, x := range []struct {
		name     string
		n        int
		every    time.Duration
		min, max time.Duration
	}{
		{"one push to 10,000 a second", 10000, time.Second, 0, 0},
		{"40 pushes a second to 1,000", 1000, 25 * time.Millisecond, 0, 0},
		{"2,000 single pushes a second", 2, time.Millisecond, 0, 0},
		{"40 pushes a second to 5,000", 5000, 25 * time.Millisecond, 50 * time.Millisecond, limit},
		{"40 pushes a second to 10,000", 10000, 25 * time.Millisecond, limit, limit},
		{"1,000 pushes a second to 10,000", 10000, time.Millisecond, limit, limit},
	} {
		f := New(1, limit)
		offer(f, x.n, x.every, 5*time.Second)
		if got := f.Window(); got < x.min || got > x.max {
			t.Errorf("%s: window %v, want %v to %v", x.name, got, x.min, x.max)
		}
	}
}

func TestWindowRisesFastAndFalls(t *testing.T) {
	f := New(1, 100*time.Millisecond)
	offer(f, 10000, 25*time.Millisecond, 300*time.Millisecond)
	if got := f.Window(); got < 90*time.Millisecond {
		t.Errorf("window %v after 300 ms of a flood", got)
	}
	offer(f, 0, 200*time.Millisecond, 3*time.Second)
	if got := f.Window(); got != 0 {
		t.Errorf("window %v after 3 s of silence", got)
	}
}

func TestWindowIsSteadyUnderASteadyLoad(t *testing.T) {
	f := New(1, 400*time.Millisecond)
	offer(f, 4000, 25*time.Millisecond, 3*time.Second)
	least, most := f.Window(), f.Window()
	for range 100 {
		offer(f, 4000, 25*time.Millisecond, 100*time.Millisecond)
		least, most = min(least, f.Window()), max(most, f.Window())
	}
	if most-least > 40*time.Millisecond {
		t.Errorf("window swings from %v to %v", least, most)
	}
}

func TestWalkersShareTheLoad(t *testing.T) {
	one, two := New(1, 100*time.Millisecond), New(2, 100*time.Millisecond)
	for _, f := range []*Flusher{one, two} {
		offer(f, 4000, 25*time.Millisecond, 3*time.Second)
	}
	if one.Window() <= two.Window() {
		t.Errorf("one walker waits %v, two %v", one.Window(), two.Window())
	}
}

func TestBatchForgetsItsSessions(t *testing.T) {
	f := New(1, 0)
	b := f.Batch()
	b.Begin()
	b.Add(&session.Session{}, session.Gone)
	b.Add(&session.Session{}, session.Unwanted)
	if b.Messages != 0 {
		t.Errorf("%d messages, want none", b.Messages)
	}
	if !b.Add(&session.Session{}, session.Queued) || b.Messages != 1 {
		t.Errorf("%d messages, want 1", b.Messages)
	}
}
