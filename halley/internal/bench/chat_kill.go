//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/halley-im/halley/client"
)

// Counted is what the store has, held against what was sent: messages that aren't there, messages that are there twice, seqs that no
// entry has.
type Counted struct {
	Missing int64 `json:"missing"`
	Doubled int64 `json:"doubled"`
	Holes   int64 `json:"holes"`
	Stored  int64 `json:"stored"`
}

// Killed has pairs of users write to each other at a rate while processes of these roles are ended with SIGKILL, one after the other.
// Something else must start them again. The clients send again whatever has no outcome; then what is stored is counted.
func (s *Setup) Killed(ctx context.Context, pairs int, rate float64, kill []string) (*Result, error) {
	pids := make([]int, len(kill))
	for i, role := range kill {
		for _, p := range s.Processes {
			if p.Role == role {
				pids[i] = p.PID
			}
		}
		if pids[i] == 0 {
			return nil, fmt.Errorf("no process to kill is called %s; name it with --pids", role)
		}
	}
	// What dies can't be asked what it has spent.
	s.Processes = nil
	ts, err := s.talkers(ctx, 2*pairs)
	if err != nil {
		return nil, err
	}
	defer ts.close()
	const run = 3
	index := map[string]int{}
	conversations := make([]string, len(ts.people))
	for i, p := range ts.people {
		index[p.uid] = i
		conversations[i] = client.DirectID(p.uid, ts.people[ts.peer(i)].uid)
	}
	b := &books{run: run, next: map[[2]int]int{}}
	ts.listen(func(p *talker, _ string, entries []client.Entry) {
		for i := range entries {
			b.add(index[p.uid], &entries[i])
		}
	})
	sent := make([]int, len(ts.people))
	r, err := ts.measure(ctx, fmt.Sprintf("chat kill, %.4g/s", rate), b, rate, "message", func() (int64, int64, error) {
		errs := make(chan error, 1)
		go func() { errs <- s.killAll(ctx, kill, pids) }()
		err := ts.paced(ctx, rate, s.Duration, func(i int) error {
			sent[i]++
			return ts.sendTo(conversations[i], run, i, sent[i]-1)
		})
		if killed := <-errs; err == nil {
			err = killed
		}
		var n int64
		for _, v := range sent {
			n += int64(v)
		}
		return n, n, err
	})
	if err != nil {
		return nil, err
	}
	s.Progress("counting what is stored")
	r.Store, err = s.API.count(ctx, conversations, run, sent)
	return r, err
}

// killAll ends one process after the other while messages are being sent, the last one long before the end.
func (s *Setup) killAll(ctx context.Context, roles []string, pids []int) error {
	for i, pid := range pids {
		if err := sleep(ctx, s.Duration/time.Duration(len(pids)+2)); err != nil {
			return err
		}
		s.Progress("kill -9 %s (%d)", roles[i], pid)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", roles[i], err)
		}
	}
	return nil
}

// count reads the conversations and holds them against how many messages each person sent in a run; two neighbours share one.
func (a API) count(ctx context.Context, conversations []string, run uint16, sent []int) (*Counted, error) {
	var mu sync.Mutex
	out := &Counted{}
	errs := make(chan error, len(conversations))
	slots := make(chan struct{}, 8) // requests in flight
	var wg sync.WaitGroup
	for i := 0; i < len(conversations); i += 2 {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			c := shelf{run: run, seen: map[[2]int]int{}, ids: map[string]bool{}}
			if err := a.read(ctx, conversations[i], &c); err != nil {
				errs <- err
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out.Stored += c.stored
			out.Holes += c.holes
			out.Doubled += c.doubled
			for _, from := range []int{i, i + 1} {
				for n := range sent[from] {
					if c.seen[[2]int{from, n}] == 0 {
						out.Missing++
					}
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return out, <-errs
}

// shelf is what one conversation has.
type shelf struct {
	run                    uint16
	last                   int64
	seen                   map[[2]int]int // messages of the run by sender and number
	ids                    map[string]bool
	stored, holes, doubled int64
}

// add takes the entries in their order.
func (c *shelf) add(e *client.Entry) {
	if e.Seq > c.last {
		c.holes += e.Seq - c.last - 1
		c.last = e.Seq
	} else {
		c.doubled++ // one place twice
	}
	id := e.From + " " + e.ClientMsgID
	var n note
	_ = json.Unmarshal(e.Body, &n) // what isn't a note is of no run
	again := c.ids[id]
	c.ids[id] = true
	if e.Kind == client.KindMessage && n.Run == c.run {
		c.stored++
		c.seen[[2]int{n.From, n.N}]++
		again = again || c.seen[[2]int{n.From, n.N}] > 1
	}
	if again {
		c.doubled++
	}
}

// end says what the last seq is.
func (c *shelf) end(last int64) { c.holes += max(0, last-c.last) }

// read reads a conversation from its beginning.
func (a API) read(ctx context.Context, conversation string, c *shelf) error {
	path := "/v1/conversations/" + url.PathEscape(conversation)
	var is struct {
		LastSeq int64 `json:"last_seq"`
	}
	if err := a.get(ctx, path, &is); err != nil {
		return err
	}
	for c.last < is.LastSeq {
		var page struct{ Entries []client.Entry }
		if err := a.get(ctx, fmt.Sprintf("%s/entries?limit=200&from=%d", path, c.last+1), &page); err != nil {
			return err
		}
		if len(page.Entries) == 0 {
			break
		}
		for i := range page.Entries {
			c.add(&page.Entries[i])
		}
	}
	c.end(is.LastSeq)
	return nil
}

func (a API) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(a.URL, "/")+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+a.Key)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: HTTP %d %.300s", path, resp.StatusCode, body)
	}
	return json.Unmarshal(body, into)
}
