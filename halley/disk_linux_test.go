package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/halley-im/halley/client"
	"github.com/halley-im/halley/proto/errcode"
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
	i.shows("http://"+i.api+"/readyz?verbose", `"name":"kafka","ok":false`)
	// What it logs comes by a pipe.
	waitFor(t, "the log says that pushes are refused", func() bool { return strings.Contains(i.log(), "pushes are refused: make space") })
	if err := big.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := i.tool("push", "--uid", "ann"); code != 0 {
		t.Errorf("with space again: exit code %d, %q", code, errs)
	}
	i.shows("http://"+i.api+"/readyz?verbose", `"name":"kafka","ok":true`)
}

func TestStartOnADiskNearlyFullIsRefused(t *testing.T) {
	t.Parallel()
	i := launch(t, t.TempDir(), "HALLEY_ALL_MIN_FREE_BYTES=4611686018427387904")
	i.begin()
	if code := i.wait(); code != 1 || !strings.Contains(i.log(), "HALLEY_DATA_DIR") {
		t.Errorf("got exit code %d, %q", code, i.log())
	}
}

// smallDisk mounts a file system of so many MB; without the right to do that there is no disk to be filled.
func smallDisk(t *testing.T, mb int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mb)); err != nil {
		t.Skip("may not mount: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all the room that there is.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// TestConversationsOnAFullDisk fills the disk to the last byte while two people talk, and kills the process on top of that: senders are
// told, what is stored can be read, and when there is space again all is stored in order.
func TestConversationsOnAFullDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, 96)
	data, rest := filepath.Join(dir, "data"), filepath.Join(dir, "rest")
	i := startAll(t, data, "HALLEY_ALL_MIN_FREE_BYTES=8388608")
	var mu sync.Mutex
	url := "ws://" + i.ws + "/sub"
	where := func() string {
		mu.Lock()
		defer mu.Unlock()
		return url
	}
	people := []*talker{newTalker(t, "ann", i.mustTool("token", "--uid", "ann"), where), newTalker(t, "bob", i.mustTool("token", "--uid", "bob"), where)}
	direct := client.DirectID("ann", "bob")
	const before, during, full, after = 20, 100, 10, 20
	// The first one by itself: of a conversation that a device has never heard of it gets the newest entries only, by a reset.
	people[0].say(t, direct, 1)
	waitFor(t, "both know the conversation", func() bool { return people[0].has(direct) == 1 && people[1].has(direct) == 1 })
	people[0].say(t, direct, before-1)
	waitFor(t, "bob has the first ones", func() bool { return people[1].has(direct) == before })

	var talking sync.WaitGroup
	for _, p := range people {
		talking.Go(func() { p.say(t, direct, during) })
	}
	fill(t, rest)
	talking.Wait()
	// All of the others may have been stored before the last byte was taken; none of these can be.
	for _, p := range people {
		p.say(t, direct, full)
	}
	// A client and a backend are told the same, and reading goes on.
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err := people[0].chat.Request(ctx, "message.send", map[string]any{"conversation": direct, "client_msg_id": "no", "body": "no"}, nil)
	if !errors.Is(err, errcode.Unavailable) || !strings.Contains(err.Error(), "disk") {
		t.Errorf("client: got %v, want unavailable and why", err)
	}
	code, body := i.post(t, "/v1/conversations/d%2Fann%2Fbob/messages", `{"from":"ann","client_msg_id":"no","body":"no"}`)
	if code != http.StatusServiceUnavailable || !strings.Contains(body, `"unavailable"`) || !strings.Contains(body, "disk") {
		t.Errorf("backend: got %d %s, want 503 unavailable and why", code, body)
	}
	if got := everything(t, people[0], direct); len(got) < before {
		t.Errorf("%d can be read, want at least %d", len(got), before)
	}
	for _, p := range people {
		if n := p.open(); n < full {
			t.Errorf("%s: %d have no outcome, want at least the %d sent on a full disk", p.uid, n, full)
		}
	}

	i.signal(syscall.SIGKILL)
	if err := os.Remove(rest); err != nil {
		t.Fatal(err)
	}
	i = startAll(t, data, "HALLEY_ALL_MIN_FREE_BYTES=8388608")
	mu.Lock()
	url = "ws://" + i.ws + "/sub"
	mu.Unlock()
	for _, p := range people {
		waitFor(t, "all that "+p.uid+" sent has an outcome", func() bool { return p.open() == 0 })
	}
	people[1].say(t, direct, after)
	const all = before + 2*during + 2*full + after
	for _, p := range people {
		waitFor(t, p.uid+" has all", func() bool { return p.has(direct) == all })
	}
	truth := everything(t, people[0], direct)
	for _, p := range people {
		p.check(t, direct, truth)
	}
	if code := i.signal(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	sound(t, filepath.Join(data, allDatabase))
}

// sound holds a database against itself.
func sound(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var said string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&said); err != nil || said != "ok" {
		t.Errorf("%s: %s, %v", path, said, err)
	}
	var n int
	if err := db.QueryRow("SELECT COUNT(*) FROM entries").Scan(&n); err != nil || n == 0 {
		t.Errorf("%s: %d entries, %v", path, n, err)
	}
}

// post makes a call of the HTTP API with the instance's own key.
func (i *instance) post(t *testing.T, path, body string) (status int, answer string) {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(i.dir, "api-key"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+i.api+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(key)))
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b strings.Builder
	if _, err := io.Copy(&b, res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, b.String()
}
