//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/kit/token"
)

// talkers are clients of conversations in this process, as an application has them: outbox, order, gaps and all.
type talkers struct {
	s      *Setup
	run    string
	cancel context.CancelFunc
	wg     sync.WaitGroup
	people []*talker
}

// talker is one of them.
type talker struct {
	uid    string
	chat   *client.Chat
	memory *client.Memory
	of     *talkers

	mu      sync.Mutex
	err     error
	online  bool
	since   time.Duration
	groups  []string
	entries func(conversation string, entries []client.Entry)
	synced  func()
}

// talkers makes n of them and connects them. Their names are of this run alone.
func (s *Setup) talkers(ctx context.Context, n int) (*talkers, error) {
	if s.Sign == nil {
		return nil, errors.New("conversations are for signed sessions: not with --goim")
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ts := &talkers{s: s, run: roomID(), cancel: cancel}
	s.Progress("connecting %d clients over %s", n, s.transport())
	for i := range n {
		p := &talker{uid: fmt.Sprintf("b%s.%d", ts.run, i), memory: &client.Memory{}, of: ts}
		ts.people = append(ts.people, p)
		if err := p.start(life); err != nil {
			ts.close()
			return nil, err
		}
		// The handshakes of some at a time: a storm is another scenario's.
		if i%50 == 49 {
			if err := ts.until(ctx, "clients are connected", ts.allOnline); err != nil {
				ts.close()
				return nil, err
			}
		}
	}
	if err := ts.until(ctx, "clients are connected", ts.allOnline); err != nil {
		ts.close()
		return nil, err
	}
	return ts, nil
}

// url is where clients connect.
func (s *Setup) url() string {
	if s.WS {
		return "ws://" + s.Comets[0].String() + s.Path
	}
	return "tcp://" + s.Comets[0].String()
}

// start connects it with what it kept. The returned talker is the same; life ends it.
func (p *talker) start(life context.Context) error {
	at := time.Now()
	jwt, err := token.Sign(p.of.s.Sign, token.Claims{UID: p.uid, DeviceID: "bench", IssuedAt: at, ExpiresAt: at.Add(tokenTTL)})
	if err != nil {
		return err
	}
	p.chat, err = client.NewChat(client.ChatOptions{
		Options: client.Options{
			URL: p.of.s.url(), Token: func(context.Context, client.TokenReason) (string, error) { return jwt, nil },
			OnState: func(s client.State) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.online, p.err = s.Name == client.Online, s.Err
			},
			OnSession: func(client.Session, bool) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.since = now()
			},
		},
		Storage: p.memory, DeliveredAfter: -1,
		OnEntries: func(conversation string, entries []client.Entry, _ bool) {
			p.mu.Lock()
			f := p.entries
			p.mu.Unlock()
			if f != nil {
				f(conversation, entries)
			}
		},
		OnOutgoing: func(o client.Outgoing) {
			p.mu.Lock()
			defer p.mu.Unlock()
			switch {
			case o.Stage == client.Failed:
				p.err = fmt.Errorf("%s of %s: %w", o.Method, p.uid, o.Err)
			case o.Method == "group.create" && o.Stage == client.Stored:
				p.groups = append(p.groups, o.Conversation)
			}
		},
		OnSynced: func() {
			p.mu.Lock()
			f := p.synced
			p.mu.Unlock()
			if f != nil {
				f()
			}
		},
	})
	if err != nil {
		return err
	}
	chat := p.chat
	p.of.wg.Go(func() {
		if err := chat.Run(life); err != nil && !errors.Is(err, context.Canceled) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.err = err
		}
	})
	return nil
}

func (ts *talkers) allOnline() bool {
	for _, p := range ts.people {
		p.mu.Lock()
		online := p.online
		p.mu.Unlock()
		if !online {
			return false
		}
	}
	return true
}

func (ts *talkers) listen(f func(p *talker, conversation string, entries []client.Entry)) {
	for _, p := range ts.people {
		p.mu.Lock()
		p.entries = func(conversation string, entries []client.Entry) { f(p, conversation, entries) }
		p.mu.Unlock()
	}
}

// until waits; what goes wrong with a client ends it.
func (ts *talkers) until(ctx context.Context, what string, ok func() bool) error {
	end := time.Now().Add(time.Minute)
	for !ok() {
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return err
		}
		if time.Now().After(end) {
			for _, p := range ts.people {
				p.mu.Lock()
				err := p.err
				p.mu.Unlock()
				if err != nil {
					return fmt.Errorf("not in time: %s; %s: %w", what, p.uid, err)
				}
			}
			return fmt.Errorf("not in time: %s", what)
		}
	}
	return nil
}

func (ts *talkers) close() {
	ts.cancel()
	ts.wg.Wait()
}

// note is what the body of a benchmark's message says.
type note struct {
	Run uint16 `json:"r"`
	// From is who sent it, To whom; -1: all others.
	From int `json:"f"`
	N    int `json:"n"`
	// At is when it was sent, by this process' clock.
	At time.Duration `json:"t"`
}

// books count what comes.
type books struct {
	mu     sync.Mutex
	run    uint16
	next   map[[2]int]int // by receiver and sender
	lat    histogram
	count  counts
	arrive func(to, from int)
}

// add books an entry that was handed to somebody.
func (b *books) add(to int, e *client.Entry) {
	var n note
	if e.Kind != client.KindMessage || json.Unmarshal(e.Body, &n) != nil || n.From == to {
		return
	}
	at := now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if n.Run != b.run {
		return
	}
	way := [2]int{to, n.From}
	switch want := b.next[way]; {
	case n.N == want:
		b.next[way]++
	case n.N < want:
		b.count.duplicates++
		return
	default:
		// What comes later than it should is out of order; what never comes shows in the sum.
		b.count.disorder++
		b.next[way] = n.N + 1
	}
	b.count.unique++
	b.count.lastAt = at
	b.lat.add(at - n.At)
	if b.arrive != nil {
		b.arrive(to, n.From)
	}
}

func (b *books) read() counts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}
