package sequence

import (
	"context"
	"testing"
	"time"

	"github.com/halley-im/halley/kit/kittest"
)

func TestMain(m *testing.M) { kittest.Main(m) }

// TestWhatWaitsToBeToldIsBoundedByItsTargets: entries of large groups are small on Kafka and large here.
func TestWhatWaitsToBeToldIsBoundedByItsTargets(t *testing.T) {
	q := newQueue(1000)
	ctx := t.Context()
	for range 2 {
		if !q.put(ctx, &round{targets: 5000}) {
			break
		}
		if q.size > 5000 {
			t.Fatalf("%d targets wait", q.size)
		}
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		if q.put(short, &round{targets: 1}) {
			t.Fatal("no bound")
		}
		cancel()
		stored := make(chan bool)
		go func() { stored <- q.put(ctx, &round{targets: 1}) }()
		if r := q.take(ctx, 0); r.targets != 5000 {
			t.Fatalf("got %d", r.targets)
		}
		if !<-stored {
			t.Fatal("not put")
		}
		if r := q.take(ctx, 0); r.targets != 1 || q.size != 0 {
			t.Fatalf("got %d, %d are left", r.targets, q.size)
		}
	}
}
