package router_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

const statusRaced = halleyv1.RegisterResult_STATUS_RACED

// again is what a comet says by itself of a session that it has: once in a new epoch, and in the rewrites of its buckets. It returns the
// worst answer.
func (c *comet) again(s *halleyv1.Session) halleyv1.RegisterResult_Status {
	c.t.Helper()
	res, err := c.r.Register(ctxFor(c.t), &halleyv1.RegisterRequest{Sessions: []*halleyv1.Session{s}})
	if err != nil || len(res.GetResults()) != 1 {
		c.t.Fatalf("got %v, %v", res, err)
	}
	worst := res.GetResults()[0].GetStatus()
	for _, n := range []string{s.GetKey(), s.GetUid()} {
		c.num++
		res, err := c.r.Rewrite(ctxFor(c.t), &halleyv1.RewriteRequest{
			Comet: c.info.Comet, Epoch: c.info.Epoch, Bucket: name.Bucket(s.GetTenant(), n), Rewrite: c.num, Sessions: []*halleyv1.Session{s}, Last: true,
		})
		switch {
		case err != nil:
			c.t.Fatal(err)
		case slices.Contains(res.GetReplacedConnIds(), s.GetConn().GetId()):
			worst = max(worst, statusReplaced)
		case slices.Contains(res.GetRacedConnIds(), s.GetConn().GetId()):
			worst = max(worst, statusRaced)
		}
	}
	if worst == statusLost {
		return statusOK
	}
	return worst
}

// When presence has lost a session, a log-in of the same device that was given up long ago finds nobody in its way. The session that is there
// must not be closed for good for it.
func TestALateLogInAfterALossDoesNotEndTheNextConnection(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c, other := newComet(t, r, "c1"), newComet(t, r, "c2")
	for _, tt := range []struct {
		name    string
		earlier time.Duration // than the connection that was lost
		want    halleyv1.RegisterResult_Status
	}{
		{"long given up", 3 * time.Second, statusOK},
		{"just given up", time.Second, statusRaced},
		{"at the same time", 0, statusRaced},
		{"newer", -time.Second, statusReplaced},
	} {
		t.Run(tt.name, func(t *testing.T) {
			uid := strings.ReplaceAll(tt.name, " ", "-")
			s, late := c.session("default", uid, "k."+uid), other.session("default", uid, "k."+uid)
			s.DeviceId, late.DeviceId = "d", "d"
			s.ConnectedAtMs -= 10_000
			late.ConnectedAtMs = s.GetConnectedAtMs() - tt.earlier.Milliseconds()
			c.register(s, nil)
			w.flush()
			c.renew()
			other.renew()
			if res := other.register(late, nil); res.GetStatus() != statusLost || len(res.GetDisplaced()) > 0 {
				t.Fatalf("got %v, want it to find nobody", res)
			}
			if got := c.again(s); got != tt.want {
				t.Fatalf("the connection that was lost: got %v, want %v", got, tt.want)
			}
			if tt.want == statusOK {
				if got := locate(t, r, keyName("default", s.GetKey()))[0]; !slices.Contains(got, at(s)[0]) || slices.Contains(got, at(late)[0]) {
					t.Errorf("the key is at %v, want %v", got, at(s))
				}
			}
		})
	}
}

// Within what comets' clocks may differ by a late log-in wins. Whom it throws off may be the one who made both.
func TestWhoGivesWayToAnOlderConnectionMayComeAgain(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c, other := newComet(t, r, "c1"), newComet(t, r, "c2")
	c.keepAlive(time.Second)
	other.keepAlive(time.Second)
	for _, tt := range []struct {
		name, key, device string
		limits            *halleyv1.Limits
		earlier           time.Duration
		raced             bool
	}{
		{"same key", "k", "", nil, time.Second, true},
		{"same device", "other", "d", nil, time.Second, true},
		{"newer", "k", "d", nil, -time.Millisecond, false},
		{"another device, by the limit", "other", "e", &halleyv1.Limits{MaxSessions: 1}, time.Second, true},
		{"newer, by the limit", "other", "e", &halleyv1.Limits{MaxSessions: 1}, -time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			uid := strings.NewReplacer(" ", "-", ",", "").Replace(tt.name)
			s, late := c.session("default", uid, "k."+uid), other.session("default", uid, tt.key+"."+uid)
			s.DeviceId, late.DeviceId = "d", tt.device
			late.ConnectedAtMs = s.GetConnectedAtMs() - tt.earlier.Milliseconds()
			c.register(s, nil)
			for range 2 { // the call may be repeated
				res := other.register(late, tt.limits)
				if res.GetStatus() != statusOK || !slices.Equal(ids(res.GetDisplaced()), []string{s.GetConn().GetId()}) {
					t.Fatalf("got %v, want the other one to give way", res)
				}
				if raced := slices.Contains(res.GetRacedConnIds(), s.GetConn().GetId()); raced != tt.raced {
					t.Errorf("to come again: got %v, want %v", raced, tt.raced)
				}
			}
			// Comet finds it before it is told.
			want := statusReplaced
			if tt.raced {
				want = statusRaced
			}
			if got := c.again(s); got != want {
				t.Errorf("comet's own registration: got %v, want %v", got, want)
			}
		})
	}
}

// A log-in that took a session's place and came to nothing leaves it where it was: nobody may have been left to tell it that it gave way.
func TestWhoGaveWayToNobodyCountsAgain(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c, other := newComet(t, r, "c1"), newComet(t, r, "c2")
	c.keepAlive(time.Second)
	other.keepAlive(time.Second)
	s, phone := c.session("default", "u", "k"), c.session("default", "u", "phone")
	s.DeviceId, phone.DeviceId = "d", "p"
	c.register(s, nil)
	c.register(phone, nil)
	late := other.session("default", "u", "k")
	late.DeviceId, late.ConnectedAtMs = "d", s.GetConnectedAtMs()-1000
	if res := other.register(late, nil); len(res.GetDisplaced()) != 1 {
		t.Fatalf("got %v", res)
	}
	if got := locate(t, r, uidName("default", "u"))[0]; slices.Contains(got, at(s)[0]) {
		t.Fatalf("located %v, with one that gave way", got)
	}
	other.deregister(late)
	if got := c.again(s); got != statusOK {
		t.Fatalf("got %v, want OK", got)
	}
	if got := locate(t, r, uidName("default", "u"), keyName("default", "k")); !slices.Equal(got[0], at(s, phone)) || !slices.Equal(got[1], at(s)) {
		t.Errorf("located %v, want %v", got, at(s, phone))
	}
	// But not who is one too many.
	over := other.session("default", "u", "one-too-many")
	over.ConnectedAtMs += 1000
	if res := other.register(over, &halleyv1.Limits{MaxSessions: 2}); len(res.GetDisplaced()) != 1 {
		t.Fatalf("got %v", res)
	} else if gone := res.GetDisplaced()[0].GetConn().GetId(); gone != s.GetConn().GetId() && gone != phone.GetConn().GetId() {
		t.Fatalf("got %v", res)
	} else if gone == phone.GetConn().GetId() {
		s = phone
	}
	if got := c.again(s); got != statusReplaced {
		t.Errorf("one too many: got %v, want replaced", got)
	}
}
