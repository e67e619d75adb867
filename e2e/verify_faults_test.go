package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// verified is a cluster under verify.
type verified struct {
	*Cluster
	v *verifier
	// third is a job that comes and goes; nil: it never did.
	third *Node
	// proofs say for each fault how it is known that it had its effect.
	proofs map[string]string
}

func (f *verified) jobs() []*Node {
	if f.third == nil {
		return f.Jobs
	}
	return append(f.Jobs[:len(f.Jobs):len(f.Jobs)], f.third)
}

// flow waits until the jobs have taken so many further records of conversations.
func (f *verified) flow(t *testing.T, more float64) {
	t.Helper()
	count := func() map[string]float64 {
		out := map[string]float64{}
		for _, n := range f.jobs() {
			if n.Running() {
				out[fmt.Sprint(n.Name, n.PID())] = Metric([]*Process{n.Process}, "halley_job_records_total", `lane="chat"`)
			}
		}
		return out
	}
	from := count()
	within(t, 60*time.Second, "conversations go on", func() (bool, string) {
		select {
		case <-f.v.done:
			t.Fatalf("verify has ended:\n%s", f.v.progress())
		default:
		}
		var got float64
		for name, n := range count() {
			got += max(0, n-from[name])
		}
		return got >= more, fmt.Sprintf("%v of %v records", got, more)
	})
}

// pass lets a time pass in which things are away: what is tested is that nothing goes wrong meanwhile.
func (f *verified) pass(t *testing.T, d time.Duration) {
	t.Helper()
	end := time.Now().Add(d)
	within(t, d+5*time.Second, "the time is over", func() (bool, string) { return time.Now().After(end), "" })
}

// fault does something to the cluster, and returns how it is known that it had an effect. Verify is told of its beginning and end; then
// it goes on until there was some traffic upon it, and waits until everybody has everything: nothing of it reaches into the next one.
func (f *verified) fault(t *testing.T, name string, do func(t *testing.T) string) {
	t.Run(name, func(t *testing.T) {
		f.v.say(t, 30*time.Second, "phase "+name, "phase ")
		f.proofs[name] = do(t)
		f.v.say(t, 30*time.Second, "over", "over")
		f.flow(t, 60)
		// As long as verify itself waits, and a little.
		if answer := f.v.say(t, 100*time.Second, "quiet", "quiet after", "not quiet"); strings.Contains(answer, "not quiet") {
			t.Error(answer)
		}
	})
}

// flooded has a device read nothing while more is pushed to it than comet keeps for it.
func (f *verified) flooded(t *testing.T) {
	f.fault(t, "a device floods over", func(t *testing.T) string {
		dropped := func() float64 { return Metric(All(f.Comets), "halley_comet_outbox_dropped_volatile_total") }
		before := dropped()
		// Again if it read before all of it was there: the cluster was slow just then.
		for flood := 1; dropped() == before; flood++ {
			if flood > 3 {
				t.Fatal("no outbox was ever full")
			}
			for try := 0; f.v.say(t, 30*time.Second, "flood", "flooding", "not flooding") != "verify: flooding"; try++ {
				if try == 20 {
					t.Fatal("no device is connected")
				}
			}
			for end := time.Now().Add(10 * time.Second); dropped() == before && time.Now().Before(end); {
				time.Sleep(100 * time.Millisecond)
			}
		}
		return "its outbox dropped what was pushed; verify counts what it was told"
	})
}

func (f *verified) killed(t *testing.T, n *Node) {
	f.fault(t, n.Name+" killed", func(t *testing.T) string {
		pid := n.PID()
		n.Kill()
		f.flow(t, 30)
		f.Restart(n)
		return fmt.Sprintf("process %d is gone, %d in its place", pid, n.PID())
	})
}

// away kills a server and brings it back after a time.
func (f *verified) away(t *testing.T, server string, d time.Duration) {
	f.fault(t, fmt.Sprintf("%s killed, %v away", server, d), func(t *testing.T) string {
		f.Servers.Down(t, server)
		f.pass(t, d)
		f.Servers.Up(t, server)
		return "SIGKILL, started anew"
	})
}

func (f *verified) paused(t *testing.T, server string, d time.Duration) {
	f.fault(t, fmt.Sprintf("%s paused for %v", server, d), func(t *testing.T) string {
		f.Servers.Pause(t, server)
		f.pass(t, d)
		f.Servers.Resume(t, server)
		return "SIGSTOP, SIGCONT"
	})
}

func (f *verified) restarted(t *testing.T, server string) {
	f.fault(t, server+" restarted", func(t *testing.T) string {
		f.Servers.Restart(t, server)
		return "SIGTERM, started anew"
	})
}

// stop stops a process for a time.
func (f *verified) stop(t *testing.T, n *Node, d time.Duration) {
	f.fault(t, fmt.Sprintf("%s stopped for %v", n.Name, d), func(t *testing.T) string {
		n.Signal(syscall.SIGSTOP)
		f.pass(t, d)
		n.Signal(syscall.SIGCONT)
		return "SIGSTOP, SIGCONT"
	})
}

// logged is how often a node's log has a line.
func logged(t *testing.T, n *Node, line string) int {
	t.Helper()
	b, err := os.ReadFile(n.Log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), line)
}

// lease stops a comet for longer than the others believe in it.
func (f *verified) lease(t *testing.T, n *Node) {
	f.fault(t, n.Name+" stopped past its lease", func(t *testing.T) string {
		before := logged(t, n, "epoch taken")
		n.Signal(syscall.SIGSTOP)
		t.Cleanup(func() { n.Signal(syscall.SIGCONT) })
		f.pass(t, leaseTTL+2*time.Second)
		f.flow(t, 20)
		n.Signal(syscall.SIGCONT)
		within(t, 20*time.Second, "it takes a new epoch", func() (bool, string) { return logged(t, n, "epoch taken") > before, n.Tail(3) })
		return "it had to take a new epoch"
	})
}

// generations is how often a job has joined the group.
func generations(n *Node) float64 {
	return Metric([]*Process{n.Process}, "halley_job_rebalances_total", `lane="chat"`)
}

// owns is how many partitions of conversations a job believes to own.
func owns(n *Node) int {
	all, err := n.Metrics()
	if err != nil {
		return 0
	}
	count := 0
	for name := range all {
		if strings.HasPrefix(name, "halley_job_unacknowledged_seconds{") && strings.Contains(name, `topic="halley.chat"`) {
			count++
		}
	}
	return count
}

// again is how often the store met with what had been stored already, or with another writer.
func (f *verified) again() float64 {
	jobs := All(f.jobs())
	return Metric(jobs, "halley_store_proposals_total", `outcome="repeated"`) + Metric(jobs, "halley_store_transactions_total", `result="clash"`) +
		Metric(jobs, "halley_store_transactions_total", `result="deadlock"`)
}

// held holds all batches up in the middle, until release.
func (f *verified) held(t *testing.T) (release func(), waiting int) {
	for try := 1; ; try++ {
		release = f.Servers.Hold(t, f.Prefix)
		// One of each job at least: its partitions share them. A transaction that waits gives up after a while, and begins anew.
		for end := time.Now().Add(7 * time.Second); time.Now().Before(end); {
			if waiting = f.Servers.Waiting(t); waiting >= 2 {
				return release, waiting
			}
		}
		release()
		if try == 3 {
			t.Fatalf("batches of both jobs were never held up in their transactions: %d wait", waiting)
		}
		// The hold itself may have been what gave way to a batch.
		f.flow(t, 20)
	}
}

// rebalance has a third job come, or go, while batches are open.
func (f *verified) rebalance(t *testing.T) {
	move := func(name string, act func(t *testing.T)) {
		f.fault(t, name, func(t *testing.T) string {
			release, waiting := f.held(t)
			before := generations(f.Jobs[0])
			act(t)
			within(t, 20*time.Second, "the partitions have moved", func() (bool, string) {
				now := generations(f.Jobs[0])
				return now > before, fmt.Sprintf("generations %v, was %v", now, before)
			})
			still := f.Servers.Waiting(t)
			release()
			return fmt.Sprintf("%d transactions were open when the group's generation changed, %d afterwards", waiting, still)
		})
	}
	move("a third job comes in the middle of batches", func(t *testing.T) {
		if f.third == nil {
			n := f.node("job", len(f.Jobs))
			f.configure(n)
			f.third = n
		}
		f.Restart(f.third)
	})
	move("a third job goes in the middle of batches", func(t *testing.T) {
		if code := f.third.Stop(20 * time.Second); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
	})
	f.fault(t, "mariadb paused, a third job is killed meanwhile", func(t *testing.T) string {
		f.Restart(f.third)
		f.flow(t, 20)
		before, given := generations(f.Jobs[0]), logged(t, f.Jobs[0], "partitions given back")
		f.Servers.Pause(t, "mariadb")
		f.pass(t, 500*time.Millisecond)
		f.third.Kill()
		// What is under way in a database that answers nothing must not hold up those who are to give their partitions back.
		within(t, 20*time.Second, "the partitions have moved", func() (bool, string) { return generations(f.Jobs[0]) > before, "" })
		f.Servers.Resume(t, "mariadb")
		return fmt.Sprintf("%s gave partitions back %d times while the database answered nothing", f.Jobs[0].Name, logged(t, f.Jobs[0], "partitions given back")-given)
	})
}

// believe has a job be stopped in the middle of batches, whose transactions then hold what they locked, while the other one takes its
// partitions over, reads the same records and wants the same rows. Then both go on.
func (f *verified) believe(t *testing.T, n, other *Node) {
	f.fault(t, fmt.Sprintf("%s stopped in its batches: two jobs believe to own a partition", n.Name), func(t *testing.T) string {
		const given = `msg="partitions given back" component=consume topic=halley.chat`
		again, waits := f.again(), 0
		// Its transactions may just have given up waiting, and begin anew, when it is stopped.
		for try := 0; waits == 0; try++ {
			if try == 6 {
				t.Fatalf("%s never held anything when it was stopped", n.Name)
			}
			within(t, 20*time.Second, "both jobs have partitions", func() (bool, string) {
				return owns(n) > 0 && owns(other) > 0, fmt.Sprintf("%s %d, %s %d", n.Name, owns(n), other.Name, owns(other))
			})
			release, _ := f.held(t)
			before, had := generations(other), logged(t, n, given)
			n.Signal(syscall.SIGSTOP)
			t.Cleanup(func() { n.Signal(syscall.SIGCONT) }) // who is not stopped doesn't mind
			// What it wanted to lock it gets now, and keeps.
			release()
			within(t, 20*time.Second, "the other one has the partitions", func() (bool, string) { return generations(other) > before, "" })
			for end := time.Now().Add(3 * time.Second); waits == 0 && time.Now().Before(end); {
				waits = f.Servers.Waiting(t)
			}
			if now := logged(t, n, given); now != had {
				t.Errorf("%s has given its partitions back: %d times, was %d", n.Name, now, had)
			}
			n.Signal(syscall.SIGCONT)
			f.flow(t, 30)
		}
		return fmt.Sprintf("%s gave nothing back, %d transactions of %s waited for its; met again by the store: %v", n.Name, waits, other.Name, f.again()-again)
	})
}

func (f *verified) bothJobs(t *testing.T) {
	f.fault(t, "both jobs killed at once", func(t *testing.T) string {
		for _, n := range f.Jobs {
			n.Kill()
		}
		f.pass(t, 2*time.Second)
		for _, n := range f.Jobs {
			f.Restart(n)
		}
		return "both processes are gone, two others in their place"
	})
}

// some are the faults of the short run.
func (f *verified) some(t *testing.T) {
	f.flooded(t)
	f.killed(t, f.Jobs[0])
	f.believe(t, f.Jobs[1], f.Jobs[0])
	f.killed(t, f.Comets[0])
	f.away(t, "mariadb", 3*time.Second)
}

// all are all of them.
func (f *verified) all(t *testing.T) {
	f.flooded(t)
	for _, n := range []*Node{f.Jobs[0], f.Jobs[1], f.Comets[0], f.Comets[1], f.Logics[0], f.Logics[1], f.Routers[0], f.Routers[1]} {
		f.killed(t, n)
	}
	f.bothJobs(t)
	f.believe(t, f.Jobs[1], f.Jobs[0])
	f.believe(t, f.Jobs[0], f.Jobs[1])
	f.rebalance(t)
	f.lease(t, f.Comets[1])
	f.stop(t, f.Logics[0], 4*time.Second)
	f.stop(t, f.Routers[0], 4*time.Second)
	for _, server := range []string{"redis", "kafka", "mariadb"} {
		f.away(t, server, 3*time.Second)
		f.paused(t, server, leaseTTL+time.Second)
		f.restarted(t, server)
	}
	f.away(t, "mariadb", 10*time.Second)
	f.flooded(t)
}
