package router_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// pages reads all of a tenant's users who are online, limit at a time.
func pages(t *testing.T, r halleyv1.RouterClient, tenant string, limit uint32) []*halleyv1.Online {
	t.Helper()
	var out []*halleyv1.Online
	for next := ""; ; {
		res, err := r.ListOnline(ctxFor(t), &halleyv1.ListOnlineRequest{Tenant: tenant, Cursor: next, Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(res.GetUsers()); n > int(limit) || n < int(limit) && res.GetNext() != "" {
			t.Fatalf("a page of %d with next %q, want %d", n, res.GetNext(), limit)
		}
		out = append(out, res.GetUsers()...)
		if next = res.GetNext(); next == "" {
			return out
		}
	}
}

func TestAllWhoAreOnlineAreListedOnceInPages(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	c.keepAlive(time.Second)
	var want []string
	for i := range 90 {
		uid := fmt.Sprintf("u.%d", i)
		if i%10 == 0 {
			uid = fmt.Sprintf("00000000-0000-4000-8000-%012d", i) // stored in a form of its own
		}
		s := c.session("default", uid, fmt.Sprintf("k%d", i))
		s.Platform = "web"
		c.register(s, nil)
		if i%3 == 0 {
			c.deregister(s) // remembered, but not there
			continue
		}
		want = append(want, uid)
	}
	again := c.session("default", "u.1", "second")
	again.Platform, again.ConnectedAtMs = "ios", 1000
	c.register(again, nil)
	c.register(c.session("shop", "eve", "k"), nil)
	slices.Sort(want)
	for _, limit := range []uint32{1, 7, 1000} {
		all := pages(t, r, "default", limit)
		var got []string
		for _, u := range all {
			got = append(got, u.GetUid())
			if u.GetUid() == "u.1" && (u.GetSessions() != 2 || !slices.Equal(u.GetPlatforms(), []string{"ios", "web"}) || u.GetSinceMs() != 1000) {
				t.Errorf("got %v, want two sessions since 1000", u)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: got %d users, want %d", limit, len(got), len(want))
		}
	}
	if got := pages(t, r, "shop", 10); len(got) != 1 || got[0].GetUid() != "eve" {
		t.Errorf("got %v, want eve alone", got)
	}
	if got := pages(t, r, "none", 10); len(got) != 0 {
		t.Errorf("got %v of a tenant that nobody is in", got)
	}
	for _, q := range []*halleyv1.ListOnlineRequest{
		{Tenant: "default"}, {Tenant: "default", Limit: 1001}, {Tenant: "default", Limit: 1, Cursor: "x"}, {Tenant: "default", Limit: 1, Cursor: "256.0."},
		{Tenant: "default", Limit: 1, Cursor: "-1.0."}, {Tenant: "default", Limit: 1, Cursor: "1.-1."}, {Tenant: "default", Limit: 1, Cursor: "1.1"},
	} {
		if _, err := r.ListOnline(ctxFor(t), q); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: got %v, want InvalidArgument", q, err)
		}
	}
}

func TestWhoseCometDiedIsNotListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dying())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	stop := c.keepAlive(100 * time.Millisecond)
	c.register(c.session("default", "alice", "k1"), nil)
	eventually(t, func() bool { return len(pages(t, r, "default", 10)) == 1 }, "alice")
	stop()
	eventually(t, func() bool { return len(pages(t, r, "default", 10)) == 0 }, "nobody")
}
