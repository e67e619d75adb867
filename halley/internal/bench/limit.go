//go:build linux

package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halley-im/halley/proto/frame"
)

// LimitServer is this machine's bare limit: it accepts connections, reads nothing, and for each body that comes on
// in it writes one ready-made message to every connection in turn, with a bare write(2). Whatever a real
// server does comes on top of that. It prints its address on out first, and ends with in.
func LimitServer(in io.Reader, out io.Writer, ws bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return err
	}
	if err := raiseFileLimit(1024); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "127.0.0.1:%d\n", name.(*unix.SockaddrInet4).Port)

	var mu sync.Mutex
	var members []int
	go func() {
		// Ends with the process: nothing outlives it.
		for {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
				continue
			}
			if err != nil {
				return
			}
			unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			mu.Lock()
			members = append(members, c)
			mu.Unlock()
		}
	}()
	r := bufio.NewReader(in)
	var body []byte
	for {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		body = append(body[:0], make([]byte, binary.BigEndian.Uint16(head[:]))...)
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		message := wireMessage(ws, body)
		mu.Lock()
		now := members
		mu.Unlock()
		for _, c := range now {
			if _, err := unix.Write(c, message); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				return fmt.Errorf("write: %w", err)
			}
		}
	}
}

// wireMessage returns a pushed body as it is on the wire.
func wireMessage(ws bool, body []byte) []byte {
	inner := frame.Frame{Ver: frame.Ver, Op: op, Body: body}
	if !ws {
		return frame.Append(nil, inner)
	}
	batch := frame.AppendBatch(nil, inner)
	return append([]byte{0x82, byte(len(batch))}, batch...)
}

// limit is the server of LimitServer in a process of its own.
type limit struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	addr netip.AddrPort
}

// startLimit starts this program again as the limit's server.
func startLimit(ctx context.Context, ws bool) (*limit, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"bench", "limit-server"}
	if ws {
		args = append(args, "--ws")
	}
	l := &limit{cmd: exec.CommandContext(ctx, self, args...)}
	l.cmd.Stderr = os.Stderr
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		l.addr, err = netip.ParseAddrPort(strings.TrimSpace(line))
	}
	if err != nil {
		l.stop()
		return nil, fmt.Errorf("the limit's server did not start: %w", err)
	}
	return l, nil
}

func (l *limit) stop() {
	l.in.Close()
	l.cmd.Wait()
}

// push sends bodies at a rate for a time and returns how many.
func (l *limit) push(ctx context.Context, run uint16, rate float64, duration time.Duration) (int64, error) {
	interval := time.Duration(float64(time.Second) / rate)
	due := now()
	end := due + duration
	var b []byte
	for n := uint32(0); ; n++ {
		if ctx.Err() != nil || due >= end {
			return int64(n), ctx.Err()
		}
		if wait := due - now(); wait > 0 {
			time.Sleep(wait)
		}
		due += interval
		b = binary.BigEndian.AppendUint16(b[:0], payloadLen)
		b = payload{run: run, seq: n, sent: now()}.append(b)
		if _, err := l.in.Write(b); err != nil {
			return int64(n), fmt.Errorf("the limit's server has ended: %w", err)
		}
	}
}
