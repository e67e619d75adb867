package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Limits below which something will go wrong.
const (
	minFiles    = 1024
	fewFiles    = 65536
	minFree     = 256 << 20
	littleFree  = 1 << 30
	fewBacklog  = 1024
	earliestDay = 1735689600 // 2025-01-01: a clock before it was never set
)

// Port looks at whether an address can be listened at, or is already. setting names where it is set.
func Port(addr, setting string) Look {
	return func(ctx context.Context) []Finding {
		name := "port " + addr
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		switch {
		case err == nil:
			l.Close()
			return []Finding{ok(name, "free (%s)", setting)}
		case errors.Is(err, syscall.EADDRINUSE):
			if answers(ctx, addr) {
				return []Finding{ok(name, "served: something listens there, a running Halley if you started one (%s)", setting)}
			}
			return []Finding{fail(name, "taken, but nothing answers", "stop what holds it (`ss -ltnp`), or change "+setting)}
		case errors.Is(err, syscall.EACCES):
			return []Finding{fail(name, "not allowed", "ports below 1024 need a privilege: choose a higher one in "+setting)}
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			return []Finding{fail(name, "this machine has no such address", "change "+setting)}
		}
		return []Finding{fail(name, short(err), "change "+setting)}
	}
}

func answers(ctx context.Context, addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Files looks at how many files, and so connections, a process may have open.
func Files() Look {
	return func(context.Context) []Finding {
		var lim unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
			return []Finding{warn("file limit", short(err), "")}
		}
		// Go raises the soft limit to the hard one at start.
		text := fmt.Sprintf("%d open files: a comet holds somewhat fewer connections", lim.Max)
		remedy := "raise it: `ulimit -n 1048576`, LimitNOFILE= of a systemd unit, or the container's nofile"
		switch {
		case lim.Max < minFiles:
			return []Finding{fail("file limit", text, remedy)}
		case lim.Max < fewFiles:
			return []Finding{warn("file limit", text, remedy)}
		}
		return []Finding{ok("file limit", "%s", text)}
	}
}

// Backlog looks at how many connections may wait to be accepted.
func Backlog() Look {
	return func(context.Context) []Finding {
		b, err := os.ReadFile("/proc/sys/net/core/somaxconn")
		n, convErr := strconv.Atoi(strings.TrimSpace(string(b)))
		switch {
		case err != nil || convErr != nil:
			return []Finding{ok("accept queue", "not told by this system")}
		case n < fewBacklog:
			return []Finding{warn("accept queue", fmt.Sprintf("%d: reconnecting crowds are turned away", n), "`sysctl net.core.somaxconn=4096`")}
		}
		return []Finding{ok("accept queue", "%d", n)}
	}
}

// Disk looks at the space below dir and at whether it can be written.
func Disk(dir string) Look {
	return func(context.Context) []Finding {
		at, err := existing(dir)
		if err != nil {
			return []Finding{fail("disk", short(err), "choose another folder with data_dir (HALLEY_DATA_DIR)")}
		}
		f, err := os.CreateTemp(at, ".halley-doctor-*")
		if err != nil {
			return []Finding{fail("disk", fmt.Sprintf("%s can't be written: %s", at, short(err)), "give this user the folder, or choose another with data_dir (HALLEY_DATA_DIR)")}
		}
		f.Close()
		os.Remove(f.Name())
		var st unix.Statfs_t
		if err := unix.Statfs(at, &st); err != nil {
			return []Finding{warn("disk", short(err), "")}
		}
		free := st.Bavail * uint64(st.Bsize)
		text := fmt.Sprintf("%d MB free at %s", free>>20, at)
		switch {
		case free < minFree:
			return []Finding{fail("disk", text+": pushes are refused below 256 MB", "make room, or choose another folder with data_dir (HALLEY_DATA_DIR)")}
		case free < littleFree:
			return []Finding{warn("disk", text, "pushes are refused below 256 MB: make room")}
		}
		return []Finding{ok("disk", "%s", text)}
	}
}

// existing returns dir, or the nearest folder above it that is there.
func existing(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && info.IsDir():
			return dir, nil
		case err == nil:
			return "", fmt.Errorf("%s is a file", dir)
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}

// Secrets looks at the files of a data folder: they are their owner's alone. files that are not there yet are fine.
func Secrets(files ...string) Look {
	return func(context.Context) []Finding {
		n := 0
		for _, f := range files {
			info, err := os.Stat(f)
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return []Finding{fail("secrets", short(err), "give this user the folder")}
			case info.Mode().Perm()&0o077 != 0:
				return []Finding{fail("secrets", f+" may be read by others", "chmod 600 "+f)}
			default:
				n++
			}
		}
		if n == 0 {
			return []Finding{ok("secrets", "none yet: the first start makes them")}
		}
		return []Finding{ok("secrets", "%d files, readable by their owner alone", n)}
	}
}

// Clock looks at whether this machine's clock was ever set.
func Clock(unixSeconds int64) Look {
	return func(context.Context) []Finding {
		if unixSeconds < earliestDay {
			return []Finding{fail("clock", "it is before 2025: tokens look valid for ever or never", "set it, best by NTP")}
		}
		return []Finding{ok("clock", "set")}
	}
}
