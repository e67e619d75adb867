package router_test

import (
	"slices"
	"testing"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func TestSessionIsFoundFromRegisterToDeregister(t *testing.T) {
	w := newWorld(t, short())
	r, _ := w.router()
	c := newComet(t, r, "c1")
	s := c.session("default", "alice", "k1")
	if res := c.register(s, nil); res.GetStatus() != halleyv1.RegisterResult_STATUS_OK {
		t.Fatalf("Register: %v", res)
	}
	c.room("default", "live://1", 1, []string{"alice"}, nil)
	got := locate(t, r, uidName("default", "alice"), keyName("default", "k1"), roomName("default", "live://1"), uidName("default", "bob"),
		&halleyv1.Name{Tenant: "default", Name: &halleyv1.Name_All{All: true}})
	want := [][]string{at(s), at(s), {"c1:"}, nil, {"c1:"}}
	for i := range want {
		if !slices.Equal(got[i], want[i]) {
			t.Errorf("name %d: got %v, want %v", i, got[i], want[i])
		}
	}
	c.deregister(s)
	for i, p := range locate(t, r, uidName("default", "alice"), keyName("default", "k1")) {
		if p != nil {
			t.Errorf("after Deregister, name %d: got %v, want nothing", i, p)
		}
	}
	if res := c.register(s, nil); res.GetStatus() != halleyv1.RegisterResult_STATUS_GONE {
		t.Errorf("late Register: got %v, want gone", res.GetStatus())
	}
	list, err := r.ListComets(ctxFor(t), &halleyv1.ListCometsRequest{})
	if err != nil || len(list.GetComets()) != 1 || list.GetComets()[0].GetComet() != "c1" {
		t.Errorf("ListComets: got %v %v, want c1", list, err)
	}
}
