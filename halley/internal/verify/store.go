package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
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

// readAll reads all conversations as they are stored.
func (r *run) readAll(ctx context.Context) (map[string][]client.Entry, error) {
	out := make(map[string][]client.Entry, len(r.talks))
	for _, t := range r.talks {
		for from := int64(1); ; {
			page, err := r.page(ctx, t.id, from)
			if err != nil {
				return nil, fmt.Errorf("read %s from %d: %w", t.id, from, err)
			}
			if len(page) == 0 {
				break
			}
			out[t.id] = append(out[t.id], page...)
			last := from
			for _, e := range page {
				last = max(last, e.Seq)
			}
			from = last + 1
		}
	}
	return out, nil
}

// page reads until somebody answers.
func (r *run) page(ctx context.Context, conversation string, from int64) ([]client.Entry, error) {
	for try := 0; ; try++ {
		list, err := r.API.entries(ctx, r.API.URLs[try%len(r.API.URLs)], conversation, from)
		if err == nil {
			return list, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (a *API) entries(ctx context.Context, base, conversation string, from int64) ([]client.Entry, error) {
	q := url.Values{"from": {strconv.FormatInt(from, 10)}, "limit": {strconv.Itoa(pageSize)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(base, "/")+"/v1/conversations/"+url.PathEscape(conversation)+"/entries?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.Key)
	if a.Tenant != "" {
		req.Header.Set("Halley-Tenant", a.Tenant)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP %d %.200s", resp.StatusCode, body)
	}
	var page struct {
		Entries []client.Entry `json:"entries"`
	}
	return page.Entries, json.Unmarshal(body, &page)
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
func (r *run) behind(stored map[string][]client.Entry) string {
	for _, t := range r.talks {
		last := int64(0)
		for _, e := range stored[t.id] {
			last = max(last, e.Seq)
		}
		for _, d := range t.members {
			if has := d.last(t.id); has < last {
				return fmt.Sprintf("%s has %s up to %d of %d", d.name, t.id, has, last)
			}
		}
	}
	return ""
}

// fill puts the figures in.
func (r *run) fill(out *Report) {
	out.WireDuplicates, out.Repeats, out.Cuts, out.Slowed = r.wireDuplicates.Load(), r.repeats.Load(), r.cuts.Load(), r.slowed.Load()
	out.Reloads, out.Sessions, out.Resyncs, out.HeldBack = r.reloads.Load(), r.sessions.Load(), r.resyncs.Load(), r.heldBack.Load()
	out.P50, out.P99 = latencies(r.log)
}

// latencies returns quantiles of the time from sending to another's device.
func latencies(log []check.Event) (p50, p99 float64) {
	type name struct{ conversation, uid, id string }
	at := map[name]time.Duration{}
	by := map[name]string{}
	var all []float64
	for i := range log {
		e := &log[i]
		n := name{e.Conversation, e.UID, e.ID}
		switch e.Kind {
		case check.Sent:
			at[n], by[n] = e.At, e.Device
		case check.Handed:
			if sent, ok := at[n]; ok && by[n] != e.Device {
				all = append(all, float64((e.At-sent).Microseconds())/1000)
			}
		}
	}
	return quantile(all, .5), quantile(all, .99)
}

// quantile sorts all.
func quantile(all []float64, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, int(math.Ceil(q*float64(len(all))))-1)]
}
