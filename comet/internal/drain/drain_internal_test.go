package drain

import (
	"testing"
	"time"
)

func TestPaceIsTheLowerOfTheConfiguredOneAndWhatOthersCanTake(t *testing.T) {
	for _, tt := range []struct {
		configured, spare float64
		draining          int
		want              float64
	}{{1000, 0, 1, 1000}, {1000, 5000, 1, 1000}, {1000, 50, 1, 50}, {1000, 1500, 3, 500}} {
		p := newPlan()
		p.update(Others{Rate: tt.spare, Draining: tt.draining}, 0)
		if got := p.pace(tt.configured); got != tt.want {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
}

func TestRoomIsSharedByThoseWhoLeave(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Others
		want int
	}{
		{"nobody else: all of them", Others{}, 500},
		{"others are full", Others{Rate: 100}, 0},
		{"more than enough", Others{Rate: 100, Room: 9999}, 500},
		{"too little", Others{Rate: 100, Room: 99}, 99},
		{"two leave", Others{Rate: 100, Room: 99, Draining: 2}, 49},
	} {
		p := newPlan()
		p.update(tt.o, 0)
		if got := p.room(500); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestTooShortATimeoutIsSharedEvenly(t *testing.T) {
	if got := need(250_000, 50*time.Second); got != 5000 {
		t.Errorf("got %v, want 5000", got)
	}
	if got := need(10, -time.Second); got != 100 {
		t.Errorf("the time is over: got %v, want all within a moment", got)
	}
}
