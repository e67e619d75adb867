package presence

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// onlineAtOnce is how many buckets are looked at in one trip: many while they are small, one while one has further steps. onlineStep is
// about how many fields each step looks at, onlineTrips the most trips of a page: the users without session lie among the others, and there may be
// millions of them. No settings: they bound how long a step holds up Redis, and a page its caller.
const (
	onlineAtOnce = 32
	onlineStep   = 500
	onlineTrips  = 64
)

// onlineCursor is where a page ended: in a step of a bucket's scan, behind the uid after.
type onlineCursor struct {
	bucket int
	scan   uint64
	after  string
}

func (c onlineCursor) String() string {
	return strconv.Itoa(c.bucket) + "." + strconv.FormatUint(c.scan, 10) + "." + c.after
}

// parseOnlineCursor reads what String wrote; an empty text is the beginning.
func parseOnlineCursor(s string) (c onlineCursor, err error) {
	if s == "" {
		return c, nil
	}
	bucket, rest, _ := strings.Cut(s, ".")
	scan, after, ok := strings.Cut(rest, ".")
	if c.bucket, err = strconv.Atoi(bucket); err == nil {
		c.scan, err = strconv.ParseUint(scan, 10, 64)
	}
	if !ok || err != nil || c.bucket < 0 || c.bucket >= name.Buckets {
		return c, fmt.Errorf("cursor: %w", ErrInvalid)
	}
	c.after = after
	return c, nil
}

// Online lists a tenant's users who have a session, from cursor on, exactly limit of them unless it is the last page. Redis goes through a
// bucket in steps of its own, so there is no order, and who comes or goes meanwhile may be missing or be in two pages.
func (s *Store) Online(ctx context.Context, tenant, cursor string, limit int) (out *halleyv1.ListOnlineResponse, err error) {
	at, err := parseOnlineCursor(cursor)
	if err != nil {
		return nil, err
	}
	err = s.decide(ctx, func(c clock) error {
		out, err = s.online(ctx, c, tenant, at, limit)
		return err
	})
	return out, err
}

func (s *Store) online(ctx context.Context, c clock, tenant string, at onlineCursor, limit int) (*halleyv1.ListOnlineResponse, error) {
	out := &halleyv1.ListOnlineResponse{}
	for trip := 0; at.bucket < name.Buckets; trip++ {
		if trip == onlineTrips {
			out.Next = at.String()
			break
		}
		steps, err := s.onlineSteps(ctx, at)
		if err != nil {
			return nil, err
		}
		for _, step := range steps {
			fields, next := step.Val()
			users := s.onlineOf(c, tenant, fields)
			if at.after != "" {
				users = slices.DeleteFunc(users, func(u *halleyv1.Online) bool { return u.GetUid() <= at.after })
			}
			if room := limit - len(out.GetUsers()); len(users) > room {
				if room > 0 {
					at.after = users[room-1].GetUid()
				}
				out.Users = append(out.Users, users[:room]...)
				out.Next = at.String()
				return out, nil
			}
			out.Users = append(out.Users, users...)
			if next != 0 {
				// The rest of this bucket comes before what the trip brought of others.
				at = onlineCursor{bucket: at.bucket, scan: next}
				break
			}
			at = onlineCursor{bucket: at.bucket + 1}
		}
	}
	return out, nil
}

// onlineSteps takes the next step in the bucket of the cursor, and the first ones in those after it.
func (s *Store) onlineSteps(ctx context.Context, at onlineCursor) ([]*redis.ScanCmd, error) {
	n := 1
	if at.scan == 0 && at.after == "" {
		n = min(onlineAtOnce, name.Buckets-at.bucket)
	}
	steps := make([]*redis.ScanCmd, n)
	_, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range steps {
			scan := at.scan
			if i > 0 {
				scan = 0
			}
			steps[i] = p.HScan(ctx, s.keys.bucket[at.bucket+i].main, scan, "u*", onlineStep)
		}
		return nil
	})
	return steps, err
}

// onlineOf returns the tenant's users with a live session among the fields and values of a step, by uid.
func (s *Store) onlineOf(c clock, tenant string, fields []string) []*halleyv1.Online {
	var out []*halleyv1.Online
	for i := 0; i+1 < len(fields); i += 2 {
		kind, t, uid := splitField(fields[i])
		if kind != kindUser || t != tenant {
			continue
		}
		u := s.user(fields[i+1])
		online, platforms := u.state(c.live)
		if !online {
			continue
		}
		o := &halleyv1.Online{Uid: uid, Platforms: platforms}
		for i := range u.sessions {
			if one := &u.sessions[i]; !one.leaving && c.live(one.epoch) {
				o.Sessions++
				if o.GetSinceMs() == 0 || one.connected < o.GetSinceMs() {
					o.SinceMs = one.connected
				}
			}
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b *halleyv1.Online) int { return cmp.Compare(a.GetUid(), b.GetUid()) })
	// A step may bring a field twice while Redis grows the hash.
	return slices.CompactFunc(out, func(a, b *halleyv1.Online) bool { return a.GetUid() == b.GetUid() })
}
