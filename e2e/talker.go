package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
)

// Talker is one device of somebody who talks in conversations, by the Go client, with an account of all that it was handed.
type Talker struct {
	*client.Chat
	UID string

	mu       sync.Mutex
	handed   map[string][]client.Entry
	wire     map[string]map[int64]bool // entries that came live, whatever the client made of them
	resets   map[string][]int64        // first entries that don't follow those before: History has what lies between
	outgoing map[string]client.Outgoing
	rejected map[string]string // codes of message.rejected by client_msg_id
	sessions int
	trouble  []string
	end      func()
}

// NewTalker connects a device. It goes on to the next of urls when one fails, and begins with the one of index at.
func NewTalker(t testing.TB, uid, token string, at int, urls ...string) *Talker {
	t.Helper()
	p := &Talker{
		UID: uid, handed: map[string][]client.Entry{}, wire: map[string]map[int64]bool{}, resets: map[string][]int64{}, outgoing: map[string]client.Outgoing{},
		rejected: map[string]string{},
	}
	chat, err := client.NewChat(client.ChatOptions{
		Options: client.Options{
			Where:   func(_ context.Context, attempt int) (string, error) { return urls[(at+attempt)%len(urls)], nil },
			Token:   func(context.Context, client.TokenReason) (string, error) { return token, nil },
			Backoff: client.Backoff{Base: 100 * time.Millisecond, Max: 500 * time.Millisecond},
			OnSession: func(client.Session, bool) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.sessions++
			},
			OnEvent: p.event,
		},
		OnEntries: func(id string, entries []client.Entry, reset bool) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if reset && len(entries) > 0 {
				p.resets[id] = append(p.resets[id], entries[0].Seq)
			}
			p.handed[id] = append(p.handed[id], entries...)
		},
		OnOutgoing: func(o client.Outgoing) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.outgoing[o.ID] = o
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Chat = chat
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		if err := chat.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.trouble = append(p.trouble, "ended: "+err.Error())
		}
	}()
	p.end = sync.OnceFunc(func() {
		cancel()
		<-chat.Done()
	})
	t.Cleanup(p.end)
	return p
}

// Talker connects a device of a user, to the comet of an index at first; every other one by WebSocket.
func (c *Cluster) Talker(t testing.TB, uid string, at int, claims Claims) *Talker {
	t.Helper()
	var urls []string
	for i, n := range c.Comets {
		if (at/len(c.Comets)+i)%2 == 0 {
			urls = append(urls, "tcp://"+n.TCP)
		} else {
			urls = append(urls, "ws://"+n.WS+"/sub")
		}
	}
	return NewTalker(t, uid, c.Token(uid, claims), at, urls...)
}

func (p *Talker) event(name string, body json.RawMessage) {
	if name == "message.rejected" {
		var r struct {
			ClientMsgID string `json:"client_msg_id"`
			Error       struct{ Code string }
		}
		_ = json.Unmarshal(body, &r) // what can't be read has no id that anybody waits for
		p.mu.Lock()
		p.rejected[r.ClientMsgID] = r.Error.Code
		p.mu.Unlock()
	}
	if name != "message.stored" && name != "entry" {
		return
	}
	var e struct {
		Conversation string
		Entry        client.Entry
	}
	err := json.Unmarshal(body, &e)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.trouble = append(p.trouble, fmt.Sprintf("event %s: %v", body, err))
		return
	}
	if p.wire[e.Conversation] == nil {
		p.wire[e.Conversation] = map[int64]bool{}
	}
	p.wire[e.Conversation][e.Entry.Seq] = true
}

// Handed returns what it was handed of a conversation.
func (p *Talker) Handed(conversation string) []client.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]client.Entry(nil), p.handed[conversation]...)
}

// upTo returns the last entry of a conversation that it was handed.
func (p *Talker) upTo(conversation string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if list := p.handed[conversation]; len(list) > 0 {
		return list[len(list)-1].Seq
	}
	return 0
}

// about says how it is with a conversation, for who looks for what went wrong.
func (p *Talker) about(conversation string) string {
	c, ok := p.Conversation(conversation)
	last := p.upTo(conversation)
	p.mu.Lock()
	defer p.mu.Unlock()
	var live int64
	for seq := range p.wire[conversation] {
		live = max(live, seq)
	}
	return fmt.Sprintf("handed up to %d, told up to %d, %d sessions, listed %v: last_seq %d, role %s", last, live, p.sessions, ok, c.LastSeq, c.Role)
}

// online waits until it has had a session.
func (p *Talker) online(t testing.TB) {
	t.Helper()
	within(t, waitTime, p.UID+" is online", func() (bool, string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.sessions > 0, fmt.Sprint(p.trouble)
	})
}

// open returns how many that it sent have no outcome.
func (p *Talker) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, o := range p.outgoing {
		if o.Stage == client.Sending || o.Stage == client.Accepted {
			n++
		}
	}
	return n
}

// stage returns what has become of something that was sent.
func (p *Talker) stage(id string) client.Outgoing {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outgoing[id]
}

// settled waits for the outcome of something that was sent.
func (p *Talker) settled(t testing.TB, id string, limit time.Duration) client.Outgoing {
	t.Helper()
	var o client.Outgoing
	within(t, limit, "outcome of what "+p.UID+" sent", func() (bool, string) {
		o = p.stage(id)
		return o.Stage != "" && o.Stage != client.Sending && o.Stage != client.Accepted, fmt.Sprint(o.Method, " ", o.Stage, " ", o.Err)
	})
	return o
}

// Does has a change stored and returns its outcome.
func (p *Talker) Does(t testing.TB, method string, params map[string]any) client.Outgoing {
	t.Helper()
	id, err := p.Change(method, params)
	if err != nil {
		t.Fatal(err)
	}
	o := p.settled(t, id, 30*time.Second)
	if o.Stage == client.Failed {
		t.Fatalf("%s of %s: %v", method, p.UID, o.Err)
	}
	return o
}

// Says has a message stored and returns its seq.
func (p *Talker) Says(t testing.TB, conversation, text string) int64 {
	t.Helper()
	return p.Does(t, "message.send", map[string]any{"conversation": conversation, "body": text}).Seq
}

// fine fails the test if the client was in trouble that has no excuse.
func (p *Talker) fine(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.trouble {
		t.Errorf("%s: %s", p.UID, s)
	}
}

// conversationPath is a conversation's path in the HTTP API.
func conversationPath(id string) string { return "/v1/conversations/" + url.PathEscape(id) }

// Entries reads a conversation from its beginning, as the system.
func (a *API) Entries(t Tester, id string) []client.Entry {
	t.Helper()
	var all []client.Entry
	for {
		var page struct{ Entries []client.Entry }
		a.Must(t, 200, "GET", conversationPath(id)+"/entries?limit=200&from="+strconv.Itoa(len(all)+1), nil, &page)
		if len(page.Entries) == 0 {
			return all
		}
		for _, e := range page.Entries {
			if e.Seq != int64(len(all))+1 {
				t.Fatalf("%s: entry %d in place %d", id, e.Seq, len(all)+1)
			}
			all = append(all, e)
		}
	}
}

// Query asks MariaDB and returns the lines that it prints.
func (c *Cluster) Query(t testing.TB, query string) []string {
	t.Helper()
	addr, name, _ := strings.Cut(strings.TrimPrefix(c.setup.dsn, "root@tcp("), ")/")
	host, port, _ := strings.Cut(addr, ":")
	cmd := exec.Command("mariadb", "--no-defaults", "-h", host, "-P", port, "-u", "root", "-N", "-B", "-e", query, name)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", query, err, out)
	}
	return strings.Fields(string(out))
}
