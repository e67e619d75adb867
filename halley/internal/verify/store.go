package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/halley/internal/verify/check"
)

// API is where and how the HTTP API is asked.
type API struct {
	// URLs are asked in turn until one answers.
	URLs []string
	Key  string
	// Tenant goes with a key of all tenants.
	Tenant string

	client *http.Client
}

func (a *API) fill() {
	a.client = &http.Client{Timeout: 10 * time.Second}
}

// pageSize is the most that the API gives at once.
const pageSize = 200

// member is one of a conversation, as the API tells it.
type member struct {
	UID  string `json:"uid"`
	Read int64  `json:"read_seq"`
}

// state is what is stored.
type state struct {
	entries map[string][]client.Entry
	members map[string][]member
}

// last is a conversation's last entry.
func (s *state) last(conversation string) int64 {
	last := int64(0)
	for i := range s.entries[conversation] {
		last = max(last, s.entries[conversation][i].Seq)
	}
	return last
}

// readAll reads all conversations as they are stored.
func (r *run) readAll(ctx context.Context) (*state, error) {
	s := &state{map[string][]client.Entry{}, map[string][]member{}}
	for _, t := range r.talks {
		for from := int64(1); ; {
			var page struct {
				Entries []client.Entry `json:"entries"`
			}
			q := url.Values{"from": {strconv.FormatInt(from, 10)}, "limit": {strconv.Itoa(pageSize)}}
			if err := r.read(ctx, t.id, "entries", q, &page); err != nil {
				return nil, fmt.Errorf("read %s from %d: %w", t.id, from, err)
			}
			if len(page.Entries) == 0 {
				break
			}
			s.entries[t.id] = append(s.entries[t.id], page.Entries...)
			from = s.last(t.id) + 1
		}
		for cursor := ""; ; {
			var page struct {
				Members []member `json:"members"`
				Next    string   `json:"next"`
			}
			q := url.Values{"limit": {strconv.Itoa(pageSize)}}
			if cursor != "" {
				q.Set("cursor", cursor)
			}
			if err := r.read(ctx, t.id, "members", q, &page); err != nil {
				return nil, fmt.Errorf("read the members of %s: %w", t.id, err)
			}
			s.members[t.id] = append(s.members[t.id], page.Members...)
			if cursor = page.Next; cursor == "" {
				break
			}
		}
	}
	return s, nil
}

// read reads something of a conversation until somebody answers.
func (r *run) read(ctx context.Context, conversation, what string, q url.Values, into any) error {
	path := "/v1/conversations/" + url.PathEscape(conversation) + "/" + what + "?" + q.Encode()
	for try := 0; ; try++ {
		err := r.API.call(ctx, http.MethodGet, r.API.URLs[try%len(r.API.URLs)], path, nil, into)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// call makes one call.
func (a *API) call(ctx context.Context, method, base, path string, body, into any) error {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(base, "/")+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.Key)
	if a.Tenant != "" {
		req.Header.Set("Halley-Tenant", a.Tenant)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d %.200s", resp.StatusCode, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// open is what has no outcome yet; "": nothing.
func (r *run) open() string {
	n, who := 0, ""
	for _, d := range r.devices {
		if w := d.waiting(); w > 0 {
			n += w
			who = d.name
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d without an outcome, some of %s", n, who)
}

// behind is which device hasn't got what is stored; "": none.
func (r *run) behind(s *state) string {
	for _, t := range r.talks {
		last, read := s.last(t.id), map[string]int64{}
		for _, m := range s.members[t.id] {
			read[m.UID] = m.Read
		}
		for _, d := range t.members {
			has, listed := d.current().Conversation(t.id)
			want, member := read[d.uid]
			switch {
			case member != listed:
				return fmt.Sprintf("%s is in %s: %v, and has it on the list: %v", d.name, t.id, member, listed)
			case !member:
			case d.last(t.id) < last:
				return fmt.Sprintf("%s has %s up to %d of %d", d.name, t.id, d.last(t.id), last)
			case has.ReadSeq != want:
				return fmt.Sprintf("%s has read %s up to %d, stored is %d", d.name, t.id, has.ReadSeq, want)
			}
		}
	}
	return ""
}

// noteState puts what is stored, and what the devices have on their lists, into the journal.
func (r *run) noteState(s *state) {
	for _, t := range r.talks {
		for i := range s.entries[t.id] {
			r.note(entryEvent(check.Stored, t.id, &s.entries[t.id][i]))
		}
		for _, m := range s.members[t.id] {
			r.note(check.Event{Kind: check.Roster, Conversation: t.id, UID: m.UID, Read: m.Read})
		}
	}
	for _, d := range r.devices {
		for _, c := range d.current().Conversations() {
			r.note(check.Event{Kind: check.Listed, Device: d.name, Conversation: c.ID, Seq: c.LastSeq, Read: c.ReadSeq, Unread: c.Unread})
		}
	}
}

// fill puts the figures in.
func (r *run) fill(out *Report) {
	out.Marks, out.Floods, out.Closed = r.marks.Load(), r.floods.Load(), r.closed.Load()
	out.WireDuplicates, out.Repeats, out.Cuts, out.Slowed = r.wireDuplicates.Load(), r.repeats.Load(), r.cuts.Load(), r.slowed.Load()
	r.mu.Lock()
	out.Examples = append(out.Examples, r.ends...)
	r.mu.Unlock()
	out.Reloads, out.Sessions, out.Resyncs, out.HeldBack = r.reloads.Load(), r.sessions.Load(), r.resyncs.Load(), r.heldBack.Load()
}
