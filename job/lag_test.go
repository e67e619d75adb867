package job_test

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/proto/topic"
)

// sick makes Kafka break off every request of a kind until the returned function is called.
func sick(k *kfake.Cluster, key kmsg.Key) (heal func()) {
	healed := make(chan struct{})
	k.ControlKey(key.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		select {
		case <-healed:
			return nil, nil, false
		default:
		}
		k.KeepControl()
		return nil, errors.New("sick"), true
	})
	return func() { close(healed) }
}

func ownKafka(t *testing.T) *kfake.Cluster {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// lag is by how much the topic of pushes is behind.
func (r *running) lag() (seconds, records float64) {
	return r.count("lag_seconds", "topic="+topic.Push), r.count("behind_records", "topic="+topic.Push)
}

// waitLag waits until the gauges of lag are as ok wants them.
func (r *running) waitLag(what string, ok func(seconds, records float64) bool) {
	r.c.t.Helper()
	kittest.Eventually(r.c.t, patience, func() bool { return ok(r.lag()) }, what)
}

func TestLagGrowsWhileAPartitionCannotBeRead(t *testing.T) {
	k := ownKafka(t)
	c := own(t, k, patience/4)
	defer c.prod.Close()
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	r := c.start(testConfig())
	defer r.stop()
	c.push(topic.Push, numbered("p", 3, toUID("anna"))...)
	c.waitCommitted(topic.Push, 3)
	r.waitLag("lag without anything to do", func(s, n float64) bool { return s == 0 && n == 0 })

	heal := sick(k, kmsg.Fetch)
	c.push(topic.Push, numbered("q", 5, toUID("anna"))...)
	r.waitLag("the records are not seen", func(s, n float64) bool { return s > 0 && n == 5 })
	before, _ := r.lag()
	r.waitLag("lag does not grow", func(s, n float64) bool { return s > before+0.5 && n == 5 })
	c.push(topic.Push, numbered("r", 2, toUID("anna"))...)
	r.waitLag("further records are not seen", func(_, n float64) bool { return n == 7 })
	heal()
	c.waitCommitted(topic.Push, 10)
	r.waitLag("lag stays", func(s, n float64) bool { return s == 0 && n == 0 })
}

func TestLagGrowsWhileNothingIsHeardOfAPartition(t *testing.T) {
	k := ownKafka(t)
	c := own(t, k, patience/4)
	defer c.prod.Close()
	r := c.start(testConfig())
	defer r.stop()
	r.waitLag("lag without anything to do", func(s, _ float64) bool { return s == 0 })
	healFetch, healEnds := sick(k, kmsg.Fetch), sick(k, kmsg.ListOffsets)
	r.waitLag("lag does not grow", func(s, _ float64) bool { return s > 1 })
	if n := r.count("rebalances_total", "lane=push"); n != 1 {
		t.Errorf("joined %v times, want once: the gauges begin anew", n)
	}
	healEnds()
	healFetch()
	r.waitLag("lag stays", func(s, _ float64) bool { return s == 0 })
}

func TestPartitionsThatNobodyReadsAreSeen(t *testing.T) {
	t.Parallel()
	k := ownKafka(t)
	c := own(t, k, 2*time.Second)
	defer c.prod.Close()
	r := c.start(testConfig())
	defer r.stop()
	assigned := func(want float64) func() bool {
		return func() bool { return r.count("partitions", "topic="+topic.Push) == want }
	}
	kittest.Eventually(t, patience, assigned(float64(c.kafka.Partitions)), "it reads all")
	healBeats, healJoins := sick(k, kmsg.Heartbeat), sick(k, kmsg.JoinGroup)
	kittest.Eventually(t, patience, assigned(0), "it was thrown out of the group, which no gauge of lag can show")
	healBeats()
	healJoins()
	kittest.Eventually(t, patience, assigned(float64(c.kafka.Partitions)), "it reads all again")
}

func TestLagGrowsWhileAPartitionCannotBeHandled(t *testing.T) {
	c := newCluster(t)
	a := startComet(t, c.router, "a")
	a.login("default", "anna", conn(1))
	r := c.start(testConfig())
	c.router.with(func() { c.router.away = true })
	c.push(topic.Push, record("p", toUID("anna")))
	r.waitLag("lag does not begin", func(s, _ float64) bool { return s > 0.1 })
	// The first one is in hand; these wait.
	c.push(topic.Push, numbered("q", 5, toUID("anna"))...)
	r.waitLag("lag does not grow", func(s, n float64) bool { return s > 0.6 && n == 5 })
	c.router.with(func() { c.router.away = false })
	c.waitCommitted(topic.Push, 6)
	r.waitLag("lag stays", func(s, n float64) bool { return s == 0 && n == 0 })
}
