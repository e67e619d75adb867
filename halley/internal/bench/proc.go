//go:build linux

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Process is a server process that is watched.
type Process struct {
	Role string
	PID  int
}

// roles that a halley process can have.
var roles = []string{"comet", "logic", "router", "job", "all"}

// ParseProcesses reads role=pid pairs; "auto" finds every halley process of this machine.
func ParseProcesses(list []string) ([]Process, error) {
	if slices.Equal(list, []string{"auto"}) {
		return findProcesses()
	}
	var out []Process
	for _, s := range list {
		role, pid, _ := strings.Cut(s, "=")
		n, err := strconv.Atoi(pid)
		if err != nil || role == "" {
			return nil, fmt.Errorf("%q: must be role=pid, such as comet=4711, or auto", s)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/stat", n)); err != nil {
			return nil, fmt.Errorf("%s: there is no process %d", role, n)
		}
		out = append(out, Process{role, n})
	}
	return out, nil
}

func findProcesses() ([]Process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var out []Process
	for _, f := range files {
		b, err := os.ReadFile(f)
		args := bytes.Split(b, []byte{0})
		if err != nil || len(args) < 2 || filepath.Base(string(args[0])) != "halley" {
			continue
		}
		for _, a := range args[1:] {
			if i := slices.Index(roles, string(a)); i >= 0 {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
				out = append(out, Process{roles[i], pid})
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b Process) int {
		return slices.Index(roles, a.Role) - slices.Index(roles, b.Role)
	})
	return out, nil
}

// usage is what a process has spent and holds.
type usage struct {
	cpu time.Duration
	rss int64
}

// clockTick is the unit of CPU times in /proc: 10 ms on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

func (p Process) usage() (u usage, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return u, fmt.Errorf("%s has ended: %w", p.Role, err)
	}
	// The name, in parentheses, may hold anything: what follows the last one counts (proc(5)).
	at := bytes.LastIndexByte(b, ')')
	f := bytes.Fields(b[at+1:])
	if at < 0 || len(f) < 22 {
		return u, errors.New("/proc/PID/stat has another form")
	}
	number := func(i int) int64 {
		n, e := strconv.ParseInt(string(f[i]), 10, 64)
		err = errors.Join(err, e)
		return n
	}
	u.cpu = time.Duration(number(11)+number(12)) * clockTick
	u.rss = number(21) * int64(os.Getpagesize())
	return u, err
}

// Spent is what one process spent on a run.
type Spent struct {
	Role string `json:"role"`
	PID  int    `json:"pid"`
	// CPUSeconds is user and system time.
	CPUSeconds float64 `json:"cpu_seconds"`
	// CPUPerUnit is microseconds for each delivery, connection or push, as the scenario says.
	CPUPerUnit float64 `json:"cpu_us_per_unit"`
	RSSBytes   int64   `json:"rss_bytes"`
	// RSSPerConn is bytes that the process has grown by for each connection.
	RSSPerConn float64 `json:"rss_bytes_per_connection,omitempty"`
}

// watch reads all processes now; the returned function reads them again and tells the difference, by units.
func watch(ps []Process) (func(units int64) ([]Spent, error), error) {
	before := make([]usage, len(ps))
	for i, p := range ps {
		var err error
		if before[i], err = p.usage(); err != nil {
			return nil, err
		}
	}
	return func(units int64) ([]Spent, error) {
		out := make([]Spent, len(ps))
		for i, p := range ps {
			u, err := p.usage()
			if err != nil {
				return nil, err
			}
			cpu := u.cpu - before[i].cpu
			out[i] = Spent{Role: p.Role, PID: p.PID, CPUSeconds: cpu.Seconds(), RSSBytes: u.rss}
			if units > 0 {
				out[i].CPUPerUnit = float64(cpu.Microseconds()) / float64(units)
			}
		}
		return out, nil
	}, nil
}

// machine is the CPU time of all processors together: busy and in all.
func machine() (busy, total float64) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, s := range strings.Fields(line)[1:] {
		n, _ := strconv.ParseFloat(s, 64)
		if i >= 8 { // guest times are in user time already
			break
		}
		total += n
		if i != 3 && i != 4 { // idle, iowait
			busy += n
		}
	}
	return busy, total
}
