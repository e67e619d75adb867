package job_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/halley-im/halley/kit/kittest"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

// ids returns prefix0, prefix1 … n of them.
func ids(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return out
}

func TestPushesArriveInOrderAndAreCommitted(t *testing.T) {
	c := newCluster(t)
	a, b := startComet(t, c.router, "a"), startComet(t, c.router, "b")
	a.login("default", "anna", conn(1), "chat://1")
	b.login("default", "bert", conn(2), "chat://1")
	r := c.start(testConfig())
	const n = 300
	var recs []*halleyv1.PushRecord
	for i := range n {
		recs = append(recs,
			record(fmt.Sprintf("u%d", i), toUID("anna")), record(fmt.Sprintf("k%d", i), toKey(conn(2))), record(fmt.Sprintf("r%d", i), toRoom("chat://1")))
	}
	c.push(topic.Push, recs...)
	for who, want := range map[*cometServer]string{a: "u", b: "k"} {
		id := map[*cometServer]string{a: conn(1), b: conn(2)}[who]
		kittest.Eventually(t, patience, func() bool { return len(who.bodies(id)) == 2*n }, "not all arrived")
		for _, prefix := range []string{want, "r"} {
			var have []string
			for _, body := range who.bodies(id) {
				if body[:1] == prefix {
					have = append(have, body)
				}
			}
			if !slices.Equal(have, ids(prefix, n)) {
				t.Errorf("comet %s: pushes %q arrived as %v", who.name, prefix, have)
			}
		}
	}
	c.waitCommitted(topic.Push, 3*n)
	balanced(t, r)
	if got := r.count("delivered_total", "lane=push"); got != 3*n {
		t.Errorf("delivered %v, want %d", got, 3*n)
	}
	if locates := c.router.locates; locates >= 3*n {
		t.Errorf("%d look-ups for %d records, want one a batch", locates, 3*n)
	}
}
