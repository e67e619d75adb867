package call

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
	entry "github.com/halley-im/halley/store/conversation"
)

// Report is a call as backends see it.
type Report struct {
	View
	DurationMs int64 `json:"duration_ms" doc:"From when it was active first to its end."`
	// Branches and Quality are of Get only.
	Branches []DeviceView `json:"branches,omitempty" doc:"The devices of callees: pending, delivered, ringing, won or stopped."`
	Quality  []Quality    `json:"quality,omitempty" doc:"How media flowed, from each leg's own reports."`
}

// DeviceView is one device of a callee.
type DeviceView struct {
	UID      string `json:"uid"`
	Device   string `json:"device,omitempty"`
	Platform string `json:"platform,omitempty"`
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
}

func recordOf(c *machine.Call) Report {
	return Report{View: viewOf(c), DurationMs: c.Duration().Milliseconds()}
}

// Get returns a call with its devices and quality; errcode.CallUnknown if there is none, or no longer.
func (s *Service) Get(ctx context.Context, tenant, id string) (*Report, error) {
	if err := name.Call(id); err != nil {
		return nil, err
	}
	l, err := s.db.load(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	if l.Call == nil {
		return nil, errcode.CallUnknown
	}
	r := recordOf(l.Call)
	for _, leg := range l.Legs {
		for _, b := range leg.Branches {
			r.Branches = append(r.Branches, DeviceView{leg.UID, b.Device, b.Platform, b.State, b.Reason})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RedisTimeout)
	defer cancel()
	quality, err := s.d.Redis.HGetAll(ctx, s.db.keys.quality(tenant, id)).Result()
	if err != nil {
		return nil, away(err)
	}
	for _, text := range quality {
		var q Quality
		if err := json.Unmarshal([]byte(text), &q); err != nil {
			return nil, err
		}
		r.Quality = append(r.Quality, q)
	}
	slices.SortFunc(r.Quality, func(a, b Quality) int { return strings.Compare(a.From+">"+a.To, b.From+">"+b.To) })
	return &r, nil
}

// End ends a call, if it isn't over.
func (s *Service) End(ctx context.Context, tenant, id string) (*Report, error) {
	if err := name.Call(id); err != nil {
		return nil, err
	}
	c, _, err := s.step(ctx, tenant, id, func(c *machine.Call, now int64) (machine.Step, error) {
		return machine.Do(c, &machine.Command{Verb: machine.DoEnd}, now, &s.policy)
	})
	if err != nil {
		return nil, err
	}
	r := recordOf(c)
	return &r, nil
}

// Question is what List looks for.
type Question struct {
	// UID or Conversation, or neither: all of the tenant's.
	UID, Conversation string
	// State is live or ended; empty: both.
	State string
	// Cursor is Reports.Next of the page before.
	Cursor string
	Limit  int
}

// Reports is a part of a list.
type Reports struct {
	Calls []Report `json:"calls"`
	Next  string   `json:"next,omitempty"`
}

// mostScanned bounds what one page looks at.
const mostScanned = 1000

// List returns calls, the newest first. A page may be shorter than asked for while there is more.
func (s *Service) List(ctx context.Context, tenant string, q Question) (*Reports, error) {
	key := s.db.keys.all(tenant)
	switch {
	case q.UID != "" && q.Conversation != "":
		return nil, errcode.InvalidRequest.Errorf("uid or conversation")
	case q.UID != "":
		if err := name.UID(q.UID); err != nil {
			return nil, err
		}
		key = s.db.keys.user(tenant, q.UID, "all")
	case q.Conversation != "":
		if err := entry.CheckID(q.Conversation); err != nil {
			return nil, err
		}
		key = s.db.keys.conversation(tenant, q.Conversation, "all")
	}
	limit := q.Limit
	if limit == 0 {
		limit = 50
	}
	if limit < 1 || limit > 200 {
		return nil, errcode.InvalidRequest.Errorf("limit: 1 to 200")
	}
	below, skip, err := parseCursor(q.Cursor)
	if err != nil {
		return nil, err
	}
	out := &Reports{Calls: []Report{}}
	for scanned := 0; scanned < mostScanned; {
		rctx, cancel := context.WithTimeout(ctx, s.cfg.RedisTimeout)
		list, err := s.d.Redis.ZRevRangeByScoreWithScores(rctx, key, &redis.ZRangeBy{Max: below, Min: "-inf", Offset: int64(skip), Count: int64(limit)}).Result()
		cancel()
		if err != nil {
			return nil, away(err)
		}
		for _, z := range list {
			scanned++
			if at := strconv.FormatInt(int64(z.Score), 10); at == below {
				skip++
			} else {
				below, skip = at, 1
			}
			id, _ := z.Member.(string)
			l, err := s.db.load(ctx, tenant, id)
			if err != nil {
				return nil, err
			}
			if l.Call == nil || q.State == "live" && !l.Live() || q.State == "ended" && l.Live() {
				continue
			}
			if out.Calls = append(out.Calls, recordOf(l.Call)); len(out.Calls) == limit {
				out.Next = below + "." + strconv.Itoa(skip)
				return out, nil
			}
		}
		if len(list) < limit {
			return out, nil
		}
		if scanned >= mostScanned {
			out.Next = below + "." + strconv.Itoa(skip)
		}
	}
	return out, nil
}

// parseCursor reads where a page ended: the time of its last call, and how many of that time were seen.
func parseCursor(text string) (below string, skip int, err error) {
	if text == "" {
		return "+inf", 0, nil
	}
	at, n, ok := strings.Cut(text, ".")
	if ok {
		_, err = strconv.ParseInt(at, 10, 64)
		if err == nil {
			skip, err = strconv.Atoi(n)
		}
	}
	if !ok || err != nil || skip < 0 {
		return "", 0, errors.Join(errcode.InvalidRequest.Errorf("cursor: not one of this list's"))
	}
	return at, skip, nil
}
