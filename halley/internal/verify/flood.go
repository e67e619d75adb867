package verify

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/halley/internal/verify/check"
)

const (
	// floodOp and silenceOp are those of a flood's pushes, and of the one that ends it.
	floodOp, silenceOp = 7001, 7002
	// floodSize, floodCalls and floodItems are more than comet keeps for a session with its default settings, three times over.
	floodSize  = 32 << 10
	floodCalls = 5
	floodItems = 12
	floodSlow  = 3 * time.Second
	// floodTTL is longer than what a cluster needs that nobody disturbs.
	floodTTL = 120
)

type pushItem struct {
	UIDs []string `json:"uids"`
	Op   int      `json:"op"`
	TTL  int      `json:"ttl"`
	Text string   `json:"text"`
}

// flood holds a device up and has more pushed to its user than an outbox takes. What doesn't come must have been told to be dropped; the
// last push, once the device reads again, says that all has come that comes. False: the device that chance took has no session.
func (r *run) flood(ctx context.Context) bool {
	d := r.devices[r.rng.IntN(len(r.devices))]
	id := d.beginFlood(fmt.Sprintf("%d", r.floods.Load()+1))
	if id == "" {
		return false
	}
	r.floods.Add(1)
	r.slow(d, floodSlow)
	r.wg.Go(func() {
		defer d.endFlood(id)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		padding := strings.Repeat("~", floodSize)
		for call := range int64(floodCalls) {
			var items []pushItem
			first := call*floodItems + 1
			for i := range int64(floodItems) {
				items = append(items, pushItem{[]string{d.uid}, floodOp, floodTTL, fmt.Sprintf("%s %d %s", id, first+i, padding)})
			}
			if err := r.API.call(ctx, http.MethodPost, r.API.URLs[0], "/v1/push/batch", map[string]any{"items": items}, nil); err != nil {
				r.Progress("a flood ends early: %v", err)
				return
			}
			for i := range int64(floodItems) {
				r.note(check.Event{Kind: check.Pushed, Device: d.name, ID: id, Seq: first + i})
			}
		}
		// From the last one on: a cluster may need its time to take them, and they are to find a device that doesn't read.
		r.slow(d, floodSlow)
		select {
		case <-d.life.Done():
			return
		case <-time.After(floodSlow):
		}
		if err := r.API.call(ctx, http.MethodPost, r.API.URLs[0], "/v1/push", pushItem{[]string{d.uid}, silenceOp, floodTTL, id}, nil); err != nil {
			r.Progress("the end of a flood: %v", err)
			return
		}
		_ = r.until(ctx, "the flood is over", func() bool { return d.flooded() != id || d.life.Err() != nil })
	})
	return true
}

// beginFlood returns the id of a flood to the device's session; "": it has none, or is being flooded.
func (d *device) beginFlood(n string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state.Name != client.Online || d.connection == "" || d.flooding != "" {
		return ""
	}
	d.flooding = d.connection + "/" + n
	return d.flooding
}

func (d *device) endFlood(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flooding == id {
		d.flooding = ""
	}
}

// flooded is the flood that the device's session is in; "": none, or it was another session that was.
func (d *device) flooded() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !strings.HasPrefix(d.flooding, d.connection+"/") {
		return ""
	}
	return d.flooding
}

func (d *device) push(op int32, body []byte) {
	id, rest, _ := strings.Cut(string(body), " ")
	// One of another device of the user's says nothing.
	if id == "" || id != d.flooded() {
		return
	}
	switch op {
	case floodOp:
		var n int64
		if _, err := fmt.Sscan(rest, &n); err == nil {
			d.note(check.Event{Kind: check.Got, Device: d.name, ID: id, Seq: n})
		}
	case silenceOp:
		d.note(check.Event{Kind: check.Silence, Device: d.name, ID: id})
		d.endFlood(id)
	}
}
