package sequence

import (
	"testing"
	"time"
)

func TestWhoCameLongAgoIsForgotten(t *testing.T) {
	r := &room{}
	now := time.Now()
	r.note(now, []string{"ann", "bob"}, true).Add(-1)
	late := r.note(now, []string{"cat"}, true)
	r.note(now.Add(fresh), []string{"dan"}, true).Add(-1)
	uids := func(at time.Time) (s string) {
		for _, m := range r.recent(at) {
			s += m.uid + " "
		}
		return s
	}
	for _, tt := range []struct {
		after time.Duration
		want  string
	}{{fresh, "ann bob cat dan "}, {fresh + 1, "cat dan "}} {
		if got := uids(now.Add(tt.after)); got != tt.want {
			t.Errorf("after %v: %s, want %s", tt.after, got, tt.want)
		}
	}
	late.Add(-1)
	if got := uids(now.Add(2*fresh + 1)); got != "" || cap(r.moved) != 0 {
		t.Errorf("%s is remembered, room for %d", got, cap(r.moved))
	}
}
