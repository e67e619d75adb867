package drain

import (
	"testing"
	"time"

	"github.com/halley-im/halley/comet/internal/lease"
)

func TestPaceIsTheLowerOfTheConfiguredOneAndWhatOthersCanTake(t *testing.T) {
	for _, tt := range []struct{ configured, spare, want float64 }{{1000, 0, 1000}, {1000, 5000, 1000}, {1000, 50, 50}} {
		if got := pace(tt.configured, lease.Spare{HandshakeRate: tt.spare}); got != tt.want {
			t.Errorf("configured %v, spare %v: got %v, want %v", tt.configured, tt.spare, got, tt.want)
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
