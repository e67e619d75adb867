package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestPushIsRefusedWhileTheDiskIsNearlyFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	// More than others write meanwhile, less than there is.
	margin := min(int64(st.Bavail)*st.Bsize/4, 1<<30)
	i := startAll(t, dir, fmt.Sprintf("HALLEY_ALL_MIN_FREE_BYTES=%d", int64(st.Bavail)*st.Bsize-margin))
	if code, _, errs := i.tool("push", "--uid", "ann"); code != 0 {
		t.Fatalf("with space: exit code %d, %q", code, errs)
	}
	big, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer big.Close()
	if err := syscall.Fallocate(int(big.Fd()), 0, 0, 2*margin); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := i.tool("push", "--uid", "ann"); code != 1 || !strings.Contains(errs, "unavailable") || !strings.Contains(errs, "503") {
		t.Errorf("without space: got exit code %d, %q, want unavailable", code, errs)
	}
	if got := i.get("http://" + i.api + "/readyz?verbose"); !strings.Contains(got, `"name":"kafka","ok":false`) {
		t.Errorf("/readyz?verbose without space: got %s", got)
	}
	if !strings.Contains(i.log(), "pushes are refused: make space") {
		t.Error("the log does not say that pushes are refused")
	}
	if err := big.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := i.tool("push", "--uid", "ann"); code != 0 {
		t.Errorf("with space again: exit code %d, %q", code, errs)
	}
	if got := i.get("http://" + i.api + "/readyz?verbose"); !strings.Contains(got, `"name":"kafka","ok":true`) {
		t.Errorf("/readyz?verbose with space again: got %s", got)
	}
}

func TestStartOnADiskNearlyFullIsRefused(t *testing.T) {
	t.Parallel()
	i := launch(t, t.TempDir(), "HALLEY_ALL_MIN_FREE_BYTES=4611686018427387904")
	i.begin()
	if code := i.wait(); code != 1 || !strings.Contains(i.log(), "HALLEY_DATA_DIR") {
		t.Errorf("got exit code %d, %q", code, i.log())
	}
}
