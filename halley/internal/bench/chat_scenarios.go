//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/halley-im/halley/client"
)

// Direct has pairs of users write to each other: at a rate of all together, or, at 0, flat out with so many messages of each user that
// haven't come at the other side.
func (s *Setup) Direct(ctx context.Context, pairs int, rate float64, inFlight int) (*Result, error) {
	ts, err := s.talkers(ctx, 2*pairs)
	if err != nil {
		return nil, err
	}
	defer ts.close()
	name := "chat direct, flat out"
	if rate > 0 {
		name = fmt.Sprintf("chat direct, %.4g/s", rate)
	}
	// 0 begins the conversations, 1 warms up.
	for run, d := range []time.Duration{0, s.WarmUp, s.Duration} {
		if run == 1 && d <= 0 {
			continue
		}
		r, err := ts.direct(ctx, name, uint16(run), rate, inFlight, d)
		if err != nil || run == 2 {
			return r, err
		}
	}
	return nil, nil
}

func (ts *talkers) peer(i int) int { return i ^ 1 }

func (ts *talkers) sendTo(conversation string, run uint16, from, n int) error {
	_, err := ts.people[from].chat.Send(conversation, note{Run: run, From: from, N: n, At: now()}, client.SendOptions{})
	return err
}

// direct has everybody send for a time; a time of 0: one message each.
func (ts *talkers) direct(ctx context.Context, name string, run uint16, rate float64, inFlight int, d time.Duration) (*Result, error) {
	b := &books{run: run, next: map[[2]int]int{}}
	index := map[string]int{}
	conversations := make([]string, len(ts.people))
	for i, p := range ts.people {
		index[p.uid] = i
		conversations[i] = client.DirectID(p.uid, ts.people[ts.peer(i)].uid)
	}
	ts.listen(func(p *talker, _ string, entries []client.Entry) {
		for i := range entries {
			b.add(index[p.uid], &entries[i])
		}
	})
	sent := make([]int, len(ts.people))
	send := func(i int) error {
		sent[i]++
		return ts.sendTo(conversations[i], run, i, sent[i]-1)
	}
	work := func() error { return ts.paced(ctx, rate, d, send) }
	switch {
	case d == 0:
		work = func() error {
			for i := range ts.people {
				if err := send(i); err != nil {
					return err
				}
			}
			return nil
		}
	case rate == 0:
		work = func() error { return ts.flatOut(ctx, b, inFlight, d, send) }
	}
	return ts.measure(ctx, name, b, rate, "message", func() (int64, int64, error) {
		err := work()
		var n int64
		for _, v := range sent {
			n += int64(v)
		}
		return n, n, err
	})
}

// paced sends at a rate, one after the other.
func (ts *talkers) paced(ctx context.Context, rate float64, d time.Duration, send func(i int) error) error {
	interval := time.Duration(float64(time.Second) / rate)
	for n, due, end := 0, now(), now()+d; due < end; n, due = n+1, due+interval {
		if wait := due - now(); wait > 0 {
			if err := sleep(ctx, wait); err != nil {
				return err
			}
		}
		if err := send(n % len(ts.people)); err != nil {
			return err
		}
	}
	return nil
}

// flatOut has each person send the next one as soon as one of his has come.
func (ts *talkers) flatOut(ctx context.Context, b *books, inFlight int, d time.Duration, send func(i int) error) error {
	room := make([]chan struct{}, len(ts.people))
	for i := range room {
		room[i] = make(chan struct{}, inFlight)
	}
	b.mu.Lock()
	b.arrive = func(_, from int) {
		select {
		case <-room[from]:
		default:
		}
	}
	b.mu.Unlock()
	over, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	errs := make([]error, len(ts.people))
	var wg sync.WaitGroup
	for i := range ts.people {
		wg.Go(func() {
			for {
				select {
				case <-over.Done():
					return
				case room[i] <- struct{}{}:
				}
				if over.Err() != nil {
					return
				}
				if errs[i] = send(i); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// measure has work done, waits for what it should bring, and makes the row. work returns how many were sent and how many deliveries
// they are.
func (ts *talkers) measure(ctx context.Context, name string, b *books, rate float64, unit string, work func() (sent, expected int64, err error)) (*Result, error) {
	s := ts.s
	stop, err := watch(s.Processes)
	if err != nil {
		return nil, err
	}
	busy0, total0 := machine()
	start := now()
	sent, expected, err := work()
	took := now() - start
	if err != nil {
		return nil, err
	}
	end := now() + drainTimeout
	for b.read().unique < expected && now() < end {
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return nil, err
		}
	}
	c := b.read()
	busy1, total1 := machine()
	units := sent
	if unit == "delivery" {
		units = c.unique
	}
	spent, err := stop(units)
	if err != nil {
		return nil, err
	}
	r := &Result{
		Scenario: name, Transport: s.transport(), Sessions: len(ts.people), Offered: rate, Seconds: took.Seconds(), Pushes: sent,
		Expected: expected, Delivered: c.unique, Lost: max(expected-c.unique, 0), Duplicates: c.duplicates, Disorder: c.disorder,
		Unit: unit, Processes: spent, Busy: (busy1 - busy0) / max(total1-total0, 1),
	}
	if c.lastAt > start {
		// Until the last one has come: what is only on its way is not done.
		r.DeliveredRate = float64(c.unique) / (c.lastAt - start).Seconds()
		r.Rate = float64(sent) / (c.lastAt - start).Seconds()
	}
	b.mu.Lock()
	r.Latency = b.lat.latency()
	b.mu.Unlock()
	return r, ctx.Err()
}

// Group has some of a group's members write to it at a rate.
func (s *Setup) Group(ctx context.Context, members int, rate float64) (*Result, error) {
	ts, err := s.talkers(ctx, members)
	if err != nil {
		return nil, err
	}
	defer ts.close()
	group, err := ts.group(ctx)
	if err != nil {
		return nil, err
	}
	index := map[string]int{}
	for i, p := range ts.people {
		index[p.uid] = i
	}
	for run, d := range []time.Duration{s.WarmUp, s.Duration} {
		if d <= 0 {
			continue
		}
		b := &books{run: uint16(run), next: map[[2]int]int{}}
		ts.listen(func(p *talker, _ string, entries []client.Entry) {
			for i := range entries {
				b.add(index[p.uid], &entries[i])
			}
		})
		s.Progress("%.4g messages/s to %d members for %s", rate, members, d)
		numbers := make([]int, members)
		r, err := ts.measure(ctx, "chat group", b, rate, "delivery", func() (int64, int64, error) {
			err := ts.paced(ctx, rate, d, func(i int) error {
				numbers[i]++
				return ts.sendTo(group, uint16(run), i, numbers[i]-1)
			})
			var n int64
			for _, v := range numbers {
				n += int64(v)
			}
			return n, n * int64(members-1), err
		})
		if err != nil || run == 1 {
			return r, err
		}
	}
	return nil, nil
}

// group makes one of all, and waits until all have heard of it.
func (ts *talkers) group(ctx context.Context) (string, error) {
	owner := ts.people[0]
	var others []string
	for _, p := range ts.people[1:] {
		others = append(others, p.uid)
	}
	const most = 500 // members named at once
	first := others[:min(len(others), most)]
	if _, err := owner.chat.Change("group.create", map[string]any{"title": "bench " + ts.run, "members": first}); err != nil {
		return "", err
	}
	var id string
	if err := ts.until(ctx, "the group is made", func() bool {
		owner.mu.Lock()
		defer owner.mu.Unlock()
		if len(owner.groups) > 0 {
			id = owner.groups[0]
		}
		return id != ""
	}); err != nil {
		return "", err
	}
	for rest := others[len(first):]; len(rest) > 0; rest = rest[min(len(rest), most):] {
		if _, err := owner.chat.Change("group.add", map[string]any{"conversation": id, "members": rest[:min(len(rest), most)]}); err != nil {
			return "", err
		}
	}
	return id, ts.until(ctx, "all members have heard of the group", func() bool {
		for _, p := range ts.people {
			if _, ok := p.chat.Conversation(id); !ok {
				return false
			}
		}
		return true
	})
}

// CatchUp has a device that was away learn of entries in conversations that it knows: from its session's beginning until it has been
// handed all. Each round is one sample.
func (s *Setup) CatchUp(ctx context.Context, conversations, entries, rounds int) (*Result, error) {
	ts, err := s.talkers(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer ts.close()
	p := &talker{uid: "b" + ts.run, memory: &client.Memory{}, of: ts}
	ts.people = []*talker{p}
	var lat histogram
	start := now()
	// The first round gives the device what it knows.
	for round := 0; round <= rounds; round++ {
		s.Progress("round %d of %d: %d entries in each of %d conversations", round, rounds, entries, conversations)
		if err := s.API.fillConversations(ctx, p.uid, conversations, entries, round); err != nil {
			return nil, err
		}
		took, err := ts.catchUp(ctx, p, conversations*entries, round == 0)
		if err != nil {
			return nil, err
		}
		if round > 0 {
			lat.add(took)
		}
	}
	// What the processes spent went into what there is to catch up with.
	return &Result{
		Scenario: "chat catch-up", Transport: s.transport(), Sessions: conversations, Seconds: (now() - start).Seconds(), Latency: lat.latency(),
		Expected: int64(rounds * conversations * entries), Delivered: int64(rounds * conversations * entries), Unit: "catch-up",
	}, nil
}

// catchUp connects the device, and ends it when it has what it missed. A device that knows nothing yet gets what is newest of all, that
// being how many it may.
func (ts *talkers) catchUp(ctx context.Context, p *talker, want int, first bool) (time.Duration, error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer ts.wg.Wait()
	defer cancel()
	var mu sync.Mutex
	got, last, synced := 0, time.Duration(0), false
	p.entries = func(_ string, entries []client.Entry) {
		mu.Lock()
		defer mu.Unlock()
		got += len(entries)
		last = now()
	}
	p.synced = func() {
		mu.Lock()
		defer mu.Unlock()
		synced = true
	}
	if err := p.start(life); err != nil {
		return 0, err
	}
	err := ts.until(ctx, "the device has caught up", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return synced && (first || got >= want)
	})
	if err != nil {
		return 0, err
	}
	mu.Lock()
	defer mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if got > want && !first {
		return 0, fmt.Errorf("the device was handed %d entries, %d were new", got, want)
	}
	return last - p.since, nil
}
