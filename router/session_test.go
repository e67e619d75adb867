package router_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

const (
	statusOK       = halleyv1.RegisterResult_STATUS_OK
	statusTooMany  = halleyv1.RegisterResult_STATUS_TOO_MANY
	statusGone     = halleyv1.RegisterResult_STATUS_GONE
	statusReplaced = halleyv1.RegisterResult_STATUS_REPLACED
	statusLost     = halleyv1.RegisterResult_STATUS_BUCKET_LOST
)

func ids(ss []*halleyv1.Session) []string {
	var out []string
	for _, s := range ss {
		out = append(out, s.GetConn().GetId())
	}
	slices.Sort(out)
	return out
}

func TestRegisterLimits(t *testing.T) {
	type sess struct{ key, device, platform string }
	for _, tt := range []struct {
		name   string
		limits *halleyv1.Limits
		before []sess
		new    sess
		status halleyv1.RegisterResult_Status
		// displaced are indices of before.
		displaced []int
	}{
		{"no limit", &halleyv1.Limits{}, []sess{{"a", "", ""}, {"b", "", ""}}, sess{"c", "", ""}, statusOK, nil},
		{"oldest gives way", &halleyv1.Limits{MaxSessions: 2}, []sess{{"a", "", ""}, {"b", "", ""}}, sess{"c", "", ""}, statusOK, []int{0}},
		{"one only", &halleyv1.Limits{MaxSessions: 1}, []sess{{"a", "", ""}, {"b", "", ""}}, sess{"c", "", ""}, statusOK, []int{0, 1}},
		{"refused", &halleyv1.Limits{MaxSessions: 2, Refuse: true}, []sess{{"a", "", ""}, {"b", "", ""}}, sess{"c", "", ""}, statusTooMany, nil},
		{"same device", &halleyv1.Limits{}, []sess{{"a", "d1", ""}, {"b", "d2", ""}}, sess{"c", "d2", ""}, statusOK, []int{1}},
		{"same device isn't refused", &halleyv1.Limits{MaxSessions: 1, Refuse: true}, []sess{{"a", "d1", ""}}, sess{"c", "d1", ""}, statusOK, []int{0}},
		{"same key", &halleyv1.Limits{}, []sess{{"a", "", ""}, {"b", "", ""}}, sess{"a", "", ""}, statusOK, []int{0}},
		{"newest of platform", &halleyv1.Limits{NewestWinsPlatform: true}, []sess{{"a", "", "ios"}, {"b", "", "web"}, {"d", "", "ios"}}, sess{"c", "", "ios"}, statusOK, []int{0, 2}},
		{"no platform, no rival", &halleyv1.Limits{NewestWinsPlatform: true}, []sess{{"a", "", ""}}, sess{"c", "", ""}, statusOK, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, short())
			r, _ := w.router()
			c := newComet(t, r, "c1")
			c.keepAlive(time.Second)
			make1 := func(x sess) *halleyv1.Session {
				s := c.session("default", "u", x.key)
				s.DeviceId, s.Platform = x.device, x.platform
				return s
			}
			var old []*halleyv1.Session
			for _, b := range tt.before {
				s := make1(b)
				c.register(s, nil)
				old = append(old, s)
				time.Sleep(2 * time.Millisecond) // order of registration is by milliseconds
			}
			s := make1(tt.new)
			res := c.register(s, tt.limits)
			if res.GetStatus() != tt.status {
				t.Fatalf("status: got %v, want %v", res.GetStatus(), tt.status)
			}
			var want []string
			var stay []*halleyv1.Session
			for i, o := range old {
				if slices.Contains(tt.displaced, i) {
					want = append(want, o.GetConn().GetId())
				} else {
					stay = append(stay, o)
				}
			}
			slices.Sort(want)
			if got := ids(res.GetDisplaced()); !slices.Equal(got, want) {
				t.Errorf("displaced: got %v, want %v", got, want)
			}
			if tt.status == statusOK {
				stay = append(stay, s)
				if got := ids(c.register(s, tt.limits).GetDisplaced()); !slices.Equal(got, want) {
					t.Errorf("displaced by the repeated call: got %v, want %v", got, want)
				}
			} else if got := locate(t, r, keyName("default", tt.new.key)); got[0] != nil {
				t.Errorf("refused session's key: got %v, want nothing", got[0])
			}
			if got := locate(t, r, uidName("default", "u")); !slices.Equal(got[0], at(stay...)) {
				t.Errorf("located: got %v, want %v", got[0], at(stay...))
			}
			// What gave way is closed, and its end takes nothing of the others.
			for _, i := range tt.displaced {
				c.deregister(old[i])
			}
			got, err := r.ListSessions(ctxFor(t), &halleyv1.ListSessionsRequest{Tenant: "default", By: &halleyv1.ListSessionsRequest_Uid{Uid: "u"}})
			if err != nil || !slices.Equal(ids(got.GetSessions()), ids(stay)) {
				t.Errorf("sessions: got %v %v, want %v", ids(got.GetSessions()), err, ids(stay))
			}
		})
	}
}

func TestRefusedSessionGivesTheKeyBack(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	other := c.session("default", "other", "k")
	c.register(other, nil)
	c.register(c.session("default", "u", "k1"), nil)
	if got := c.register(c.session("default", "u", "k"), &halleyv1.Limits{MaxSessions: 1, Refuse: true}).GetStatus(); got != statusTooMany {
		t.Fatalf("status: got %v, want too many", got)
	}
	if got := locate(t, r, keyName("default", "k")); !slices.Equal(got[0], at(other)) {
		t.Errorf("key: got %v, want %v", got[0], at(other))
	}
}

func TestReplacedByResumeIsNotCounted(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	old, stranger := c.session("default", "u", "k1"), c.session("default", "v", "k2")
	c.register(old, nil)
	c.register(stranger, nil)
	s := c.session("default", "u", "k3")
	for range 2 {
		res := c.registerReplacing(s, &halleyv1.Limits{MaxSessions: 1, Refuse: true}, old.GetConn())
		if res.GetStatus() != statusOK || res.GetReplaced().GetConn().GetId() != old.GetConn().GetId() || len(res.GetDisplaced()) != 0 {
			t.Fatalf("got %v, want OK, replaced %s", res, old.GetConn().GetId())
		}
	}
	if got := locate(t, r, uidName("default", "u"))[0]; !slices.Equal(got, at(s)) {
		t.Errorf("located: got %v, want only the new one", got)
	}
	res := c.registerReplacing(c.session("default", "u", "k4"), nil, stranger.GetConn())
	if res.GetStatus() != statusOK || res.GetReplaced() != nil {
		t.Errorf("another user's connection: got %v, want it ignored", res)
	}
	if got := locate(t, r, uidName("default", "v"))[0]; !slices.Equal(got, at(stranger)) {
		t.Errorf("the stranger: got %v, want %v", got, at(stranger))
	}
}

func TestSessionsOfDeadCometsDoNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dying())
	r, _ := w.router()
	dead := newComet(t, r, "dead")
	die := dead.keepAlive(100 * time.Millisecond)
	c := newComet(t, r, "c1")
	c.keepAlive(100 * time.Millisecond)
	dead.register(dead.session("default", "u", "k1"), nil)
	die()
	eventually(t, func() bool { return locate(t, r, uidName("default", "u"))[0] == nil }, "lease is due")
	if got := c.register(c.session("default", "u", "k2"), &halleyv1.Limits{MaxSessions: 1, Refuse: true}); got.GetStatus() != statusOK || got.GetDisplaced() != nil {
		t.Errorf("got %v, want OK", got)
	}
}

func TestOldEndDoesNotRemoveNewSession(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	a, b := newComet(t, r, "a"), newComet(t, r, "b")
	old := a.session("default", "u", "k")
	a.register(old, nil)
	s := b.session("default", "u", "k")
	if got := b.register(s, nil).GetDisplaced(); !slices.Equal(ids(got), ids([]*halleyv1.Session{old})) {
		t.Fatalf("displaced: got %v, want the old one", got)
	}
	a.deregister(old)
	for _, n := range []*halleyv1.Name{uidName("default", "u"), keyName("default", "k")} {
		if got := locate(t, r, n)[0]; !slices.Equal(got, at(s)) {
			t.Errorf("%v: got %v, want %v", n, got, at(s))
		}
	}
}

func TestCometsOwnRegistrationGivesWayToNewer(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	a, b := newComet(t, r, "a"), newComet(t, r, "b")
	old := a.session("default", "u", "k")
	old.ConnectedAtMs -= 60_000
	a.register(old, nil)
	s := b.session("default", "u", "k")
	b.register(s, nil)
	other := a.session("default", "u", "k2")
	res, err := r.Register(ctxFor(t), &halleyv1.RegisterRequest{Sessions: []*halleyv1.Session{old, other}})
	if err != nil || res.GetResults()[0].GetStatus() != statusReplaced || res.GetResults()[1].GetStatus() != statusOK {
		t.Fatalf("got %v %v, want replaced, OK", res, err)
	}
	if got := locate(t, r, keyName("default", "k"))[0]; !slices.Equal(got, at(s)) {
		t.Errorf("key: got %v, want %v", got, at(s))
	}
	if got := locate(t, r, uidName("default", "u"))[0]; !slices.Equal(got, at(s, other)) {
		t.Errorf("uid: got %v, want %v", got, at(s, other))
	}
}

// A client that gave a log-in up and made another connection must not be thrown off it by the first one's coming through in the end.
func TestALateLogInDoesNotThrowOffTheNextConnection(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c, other := newComet(t, r, "c1"), newComet(t, r, "c2")
	c.keepAlive(time.Second)
	other.keepAlive(time.Second)
	for _, tt := range []struct {
		name, key, device string
		earlier           time.Duration // than the other connection
		want              halleyv1.RegisterResult_Status
	}{
		{"same key", "k", "", 3 * time.Second, statusReplaced},
		{"same device", "other", "d", 3 * time.Second, statusReplaced},
		{"another device", "other", "e", 3 * time.Second, statusOK},
		{"clocks differ", "k", "", time.Second, statusOK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			uid := strings.ReplaceAll(tt.name, " ", "-")
			s := c.session("default", uid, "k."+uid)
			s.DeviceId = "d"
			if res := c.register(s, &halleyv1.Limits{}); res.GetStatus() != statusOK {
				t.Fatalf("got %v", res.GetStatus())
			}
			late := other.session("default", uid, tt.key+"."+uid)
			late.DeviceId = tt.device
			late.ConnectedAtMs = s.GetConnectedAtMs() - tt.earlier.Milliseconds()
			if res := other.register(late, &halleyv1.Limits{}); res.GetStatus() != tt.want {
				t.Fatalf("got %v, want %v", res.GetStatus(), tt.want)
			}
			if tt.want != statusReplaced {
				return
			}
			if got := locate(t, r, uidName("default", uid), keyName("default", s.GetKey())); !slices.Equal(got[0], at(s)) || !slices.Equal(got[1], at(s)) {
				t.Errorf("located %v, want %v", got, at(s))
			}
			if got := locate(t, r, keyName("default", late.GetKey())); late.GetKey() != s.GetKey() && len(got[0]) > 0 {
				t.Errorf("the late one's key is at %v", got[0])
			}
		})
	}
}

func TestUnsignedSessionNeverTakesASignedOnesKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dying())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	c.keepAlive(100 * time.Millisecond)
	other := newComet(t, r, "c2")
	stop := other.keepAlive(100 * time.Millisecond)
	// again is what comet says by itself, after its epoch was lost.
	again := func(s *halleyv1.Session) halleyv1.RegisterResult_Status {
		t.Helper()
		res, err := r.Register(ctxFor(t), &halleyv1.RegisterRequest{Sessions: []*halleyv1.Session{s}})
		if err != nil || len(res.GetResults()) != 1 {
			t.Fatalf("got %v, %v", res, err)
		}
		return res.GetResults()[0].GetStatus()
	}
	unsigned := func(c *comet, uid string) *halleyv1.Session {
		s := c.session("default", uid, "k")
		s.Signed, s.IssuedAtMs = false, 0
		s.ConnectedAtMs += 1000 // as new as can be
		return s
	}
	want := func(what string, s *halleyv1.Session) {
		t.Helper()
		if got := locate(t, r, keyName("default", "k")); !slices.Equal(got[0], at(s)) {
			t.Errorf("%s: the key is at %v, want %v", what, got[0], at(s))
		}
	}
	first := unsigned(other, "41")
	if res := other.register(first, &halleyv1.Limits{}); res.GetStatus() != statusOK {
		t.Fatalf("got %v", res.GetStatus())
	}
	signed := c.session("default", "ann", "k")
	signed.ConnectedAtMs -= 1000
	if res := c.register(signed, &halleyv1.Limits{}); res.GetStatus() != statusOK || !slices.Equal(ids(res.GetDisplaced()), ids([]*halleyv1.Session{first})) {
		t.Fatalf("signed after unsigned: got %v, displaced %v, want the unsigned one to give way", res.GetStatus(), ids(res.GetDisplaced()))
	}
	want("signed after unsigned", signed)
	for _, uid := range []string{"41", "ann", ""} {
		late := unsigned(other, uid)
		if res := other.register(late, &halleyv1.Limits{}); res.GetStatus() != statusReplaced || len(res.GetDisplaced()) != 0 {
			t.Errorf("log-in of uid %q: got %v, displaced %v, want replaced", uid, res.GetStatus(), ids(res.GetDisplaced()))
		}
		if got := again(late); got != statusReplaced {
			t.Errorf("comet's own registration of uid %q: got %v, want replaced", uid, got)
		}
		want("uid "+uid, signed)
	}
	// The same way round: signed over unsigned, whichever is newer.
	c.deregister(signed)
	held := unsigned(other, "41")
	if res := other.register(held, &halleyv1.Limits{}); res.GetStatus() != statusOK {
		t.Fatalf("the key is free: got %v", res.GetStatus())
	}
	old := c.session("default", "ann", "k")
	old.ConnectedAtMs -= 60_000
	if got := again(old); got != statusOK {
		t.Errorf("comet's own registration of an older signed session: got %v", got)
	}
	want("older signed session", old)
	// A dead comet's session keeps nobody out.
	c.deregister(old)
	dead := other.session("default", "bob", "k")
	if res := other.register(dead, &halleyv1.Limits{}); res.GetStatus() != statusOK {
		t.Fatalf("got %v", res.GetStatus())
	}
	stop()
	eventually(t, func() bool {
		return c.register(unsigned(c, "41"), &halleyv1.Limits{}).GetStatus() == statusOK
	}, "the key of a dead comet's signed session stays taken")
}

// TestUnsignedSessionsTakeUpNoSignedOnesPlace: anybody may name any uid, and as often as he likes.
func TestUnsignedSessionsTakeUpNoSignedOnesPlace(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	older := c.session("default", "41", "k0")
	if res := c.register(older, &halleyv1.Limits{MaxSessions: 2}); res.GetStatus() != statusOK {
		t.Fatalf("got %v", res.GetStatus())
	}
	for i := range 5 {
		s := c.session("default", "41", fmt.Sprint("u", i))
		s.Signed = false
		c.register(s, &halleyv1.Limits{})
	}
	if res := c.register(c.session("default", "41", "k1"), &halleyv1.Limits{MaxSessions: 2}); res.GetStatus() != statusOK || len(res.GetDisplaced()) != 0 {
		t.Errorf("second of two: got %v, displaced %v", res.GetStatus(), ids(res.GetDisplaced()))
	}
	if res := c.register(c.session("default", "41", "k2"), &halleyv1.Limits{MaxSessions: 2, Refuse: true}); res.GetStatus() != statusTooMany {
		t.Errorf("third of two: got %v", res.GetStatus())
	}
	if res := c.register(c.session("default", "41", "k3"), &halleyv1.Limits{MaxSessions: 2}); !slices.Equal(ids(res.GetDisplaced()), ids([]*halleyv1.Session{older})) {
		t.Errorf("third of two: displaced %v, want the oldest that came with a token", ids(res.GetDisplaced()))
	}
	c.deregister(older)
	// Nor does he displace one whose key was lost.
	bucket := name.Bucket("default", "k1")
	if bucket == name.Bucket("default", "41") {
		t.Fatal("the test needs a key whose bucket is another one")
	}
	w.lose(fmt.Sprintf("%s:{p%03d}:*", w.prefix, bucket))
	s := c.session("default", "41", "k1")
	s.Signed = false
	if res := c.register(s, &halleyv1.Limits{}); len(res.GetDisplaced()) != 0 {
		t.Errorf("its key was lost: displaced %v", ids(res.GetDisplaced()))
	}
}

func TestSessionsComeBackAsTheyWere(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	for i, s := range []*halleyv1.Session{
		{Uid: "u1", Key: "0f8fad5b-d9cb-469f-a165-70867728950e", DeviceId: "7c9e6679-7425-40de-944b-e07fc1f90ae7", Platform: "web", RemoteAddr: "2001:db8::1", Signed: true, IssuedAtMs: 17},
		{Uid: "", Key: "anonymous", Platform: "ios", RemoteAddr: "192.0.2.7"},
		{Uid: "0f8fad5b-d9cb-469f-a165-70867728950e", Key: "0F8FAD5B-D9CB-469F-A165-70867728950E", RemoteAddr: "not an address"},
	} {
		m := c.session("default", s.Uid, s.Key)
		m.DeviceId, m.Platform, m.RemoteAddr, m.Signed, m.IssuedAtMs = s.DeviceId, s.Platform, s.RemoteAddr, s.Signed, s.IssuedAtMs
		if i == 2 {
			m.Conn.Id = "odd connection"
		}
		c.register(m, nil)
		got, err := r.ListSessions(ctxFor(t), &halleyv1.ListSessionsRequest{Tenant: "default", By: &halleyv1.ListSessionsRequest_Key{Key: m.Key}})
		if err != nil || len(got.GetSessions()) != 1 || got.GetSessions()[0].String() != m.String() {
			t.Errorf("by key: got %v %v, want %v", got, err, m)
		}
		if m.Uid == "" {
			continue
		}
		got, err = r.ListSessions(ctxFor(t), &halleyv1.ListSessionsRequest{Tenant: "default", By: &halleyv1.ListSessionsRequest_Uid{Uid: m.Uid}})
		if err != nil || len(got.GetSessions()) != 1 || got.GetSessions()[0].String() != m.String() {
			t.Errorf("by uid: got %v %v, want %v", got, err, m)
		}
	}
}

func TestManySessionsOfOneUserInOneCall(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	c.keepAlive(time.Second)
	req := &halleyv1.RegisterRequest{}
	for i := range 300 {
		req.Sessions = append(req.Sessions, c.session("default", fmt.Sprintf("u%d", i%3), fmt.Sprintf("k%d", i)))
	}
	gone := req.Sessions[6]
	c.deregister(gone)
	res, err := r.Register(ctxFor(t), req)
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range res.GetResults() {
		want := statusOK
		if i == 6 {
			want = statusGone
		}
		if x.GetStatus() != want {
			t.Errorf("session %d: got %v, want %v", i, x.GetStatus(), want)
		}
	}
	var want []*halleyv1.Session
	for i, s := range req.Sessions {
		if i%3 == 0 && i != 6 {
			want = append(want, s)
		}
	}
	if got := locate(t, r, uidName("default", "u0"))[0]; !slices.Equal(got, at(want...)) {
		t.Errorf("u0: got %v, want 99 sessions", got)
	}
	c.deregister(req.Sessions...)
	for i := range 3 {
		if got := locate(t, r, uidName("default", fmt.Sprintf("u%d", i)))[0]; got != nil {
			t.Errorf("u%d: got %v, want nothing", i, got)
		}
	}
}

func TestTenantsNeverSeeEachOther(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	c.keepAlive(time.Second)
	tenants := []string{"default", "acme"}
	var ss []*halleyv1.Session
	for i, tenant := range tenants {
		s := c.session(tenant, "u", "k")
		s.Platform = []string{"web", "ios"}[i]
		if res := c.register(s, &halleyv1.Limits{MaxSessions: 1}); res.GetStatus() != statusOK || res.GetDisplaced() != nil {
			t.Fatalf("%s: got %v, want OK", tenant, res)
		}
		if got := c.room(tenant, "live://1", uint32(i+1), []string{fmt.Sprintf("u%d", i)}, nil); got != uint32(i+1) {
			t.Errorf("%s: count %d, want %d", tenant, got, i+1)
		}
		ss = append(ss, s)
	}
	for i, tenant := range tenants {
		got := locate(t, r, uidName(tenant, "u"), keyName(tenant, "k"))
		if !slices.Equal(got[0], at(ss[i])) || !slices.Equal(got[1], at(ss[i])) {
			t.Errorf("%s: got %v, want %v", tenant, got, at(ss[i]))
		}
		p, err := r.GetPresence(ctxFor(t), &halleyv1.GetPresenceRequest{Tenant: tenant, Uids: []string{"u"}})
		if err != nil || !slices.Equal(p.GetStates()[0].GetPlatforms(), []string{ss[i].Platform}) {
			t.Errorf("%s: presence %v %v, want %s", tenant, p, err, ss[i].Platform)
		}
		m, err := r.ListMembers(ctxFor(t), &halleyv1.ListMembersRequest{Tenant: tenant, Room: "live://1"})
		if err != nil || !slices.Equal(m.GetUids(), []string{fmt.Sprintf("u%d", i)}) || m.GetCount() != uint32(i+1) {
			t.Errorf("%s: members %v %v", tenant, m, err)
		}
		top, err := r.TopRooms(ctxFor(t), &halleyv1.TopRoomsRequest{Tenant: tenant, Type: "live", Limit: 5})
		if err != nil || len(top.GetRooms()) != 1 || top.GetRooms()[0].GetCount() != uint32(i+1) {
			t.Errorf("%s: top %v %v", tenant, top, err)
		}
	}
	c.deregister(ss[0])
	if got := locate(t, r, uidName("acme", "u"), uidName("default", "u")); !slices.Equal(got[0], at(ss[1])) || got[1] != nil {
		t.Errorf("after one's end: got %v", got)
	}
	eventually(t, func() bool { return len(w.kafka.events(t)) == 2 }, "two events")
	for _, e := range w.kafka.events(t) {
		want := map[string]string{"default": "u0", "acme": "u1"}[e.tenant]
		if !slices.Equal(e.GetRoomMember().GetJoined(), []string{want}) {
			t.Errorf("%s: event %v, want joined %s", e.tenant, e, want)
		}
	}
}

func TestPresenceOfThousands(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	c.keepAlive(time.Second)
	var uids []string
	req := &halleyv1.RegisterRequest{}
	for i := range 3000 {
		uids = append(uids, fmt.Sprintf("u%d", i))
		if i%10 == 0 {
			s := c.session("default", uids[i], "k"+uids[i])
			s.Platform = "web"
			req.Sessions = append(req.Sessions, s)
		}
	}
	if _, err := r.Register(ctxFor(t), req); err != nil {
		t.Fatal(err)
	}
	res, err := r.GetPresence(ctxFor(t), &halleyv1.GetPresenceRequest{Tenant: "default", Uids: uids})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range res.GetStates() {
		if p.GetUid() != uids[i] || p.GetOnline() != (i%10 == 0) {
			t.Fatalf("state %d: got %v", i, p)
		}
	}
}

func TestBadRequestsAreTold(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	good := func() *halleyv1.Session { return c.session("default", "u", "k") }
	for name, f := range map[string]func(*halleyv1.Session){
		"no tenant":    func(s *halleyv1.Session) { s.Tenant = "" },
		"no key":       func(s *halleyv1.Session) { s.Key = "" },
		"bad uid":      func(s *halleyv1.Session) { s.Uid = "a\x00b" },
		"odd epoch":    func(s *halleyv1.Session) { s.Conn.Epoch = "one" },
		"no id":        func(s *halleyv1.Session) { s.Conn.Id = "" },
		"bad device":   func(s *halleyv1.Session) { s.DeviceId = "\x01" },
		"bad platform": func(s *halleyv1.Session) { s.Platform = "ä" },
	} {
		s := good()
		f(s)
		if _, err := r.Register(ctxFor(t), &halleyv1.RegisterRequest{Sessions: []*halleyv1.Session{s}}); code(err) != "InvalidArgument" {
			t.Errorf("%s: got %v, want InvalidArgument", name, err)
		}
	}
}
