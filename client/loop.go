package client

import (
	"sync"
	"time"
)

// loop runs functions one after the other on one goroutine, which owns all state. post never waits: who feeds it from outside
// bounds itself (link.reader).
type loop struct {
	mu      sync.Mutex
	queue   []func()
	stopped bool
	wake    chan struct{}
	done    chan struct{}
	// idle is called whenever the queue has run empty.
	idle func()
}

func newLoop() *loop {
	return &loop{wake: make(chan struct{}, 1), done: make(chan struct{}), idle: func() {}}
}

// post has f run; false: the loop has ended, f will never run.
func (l *loop) post(f func()) bool {
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return false
	}
	l.queue = append(l.queue, f)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

// stop ends the loop after the functions that are in its queue.
func (l *loop) stop() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run returns after stop.
func (l *loop) run() {
	defer close(l.done)
	for {
		l.mu.Lock()
		batch, stopped := l.queue, l.stopped
		l.queue = nil
		l.mu.Unlock()
		for _, f := range batch {
			f()
		}
		if len(batch) > 0 {
			l.mu.Lock()
			empty := len(l.queue) == 0
			l.mu.Unlock()
			if empty || stopped {
				l.idle()
			}
			continue
		}
		if stopped {
			return
		}
		<-l.wake
	}
}

// timer runs a function on the loop, unless it was stopped before.
type timer struct {
	t    *time.Timer
	dead bool
}

func (l *loop) after(d time.Duration, f func()) *timer {
	t := &timer{}
	t.t = time.AfterFunc(d, func() {
		l.post(func() {
			if !t.dead {
				t.dead = true
				f()
			}
		})
	})
	return t
}

// stop belongs to the loop. A nil timer is stopped.
func (t *timer) stop() {
	if t != nil {
		t.dead = true
		t.t.Stop()
	}
}

// waiting is whether it has still to run.
func (t *timer) waiting() bool { return t != nil && !t.dead }

// sleepers are functions that wait for their time, or to be woken together.
type sleepers struct {
	l   *loop
	all map[*timer]func()
}

func (s *sleepers) sleep(d time.Duration, f func()) {
	if s.all == nil {
		s.all = map[*timer]func(){}
	}
	var t *timer
	t = s.l.after(d, func() {
		delete(s.all, t)
		f()
	})
	s.all[t] = f
}

// wake runs all of them now.
func (s *sleepers) wake() {
	all := s.all
	s.all = nil
	for t, f := range all {
		t.stop()
		f()
	}
}
