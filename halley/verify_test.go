package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-im/halley/halley/internal/keys"
	"github.com/halley-im/halley/halley/internal/verify"
	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/proto/frame"
	entry "github.com/halley-im/halley/store/conversation"
)

// shortVerify is a run of some seconds over i, by way of a comet's address. settle is how long it may take until nothing is missing.
func shortVerify(t *testing.T, i *instance, comet string, settle time.Duration, during func(ctx context.Context)) *verify.Report {
	t.Helper()
	key, err := keys.ReadAPI(i.dir)
	if err != nil {
		t.Fatal(err)
	}
	sign, err := token.ParseKey(keys.SigningID + ":HS256:@" + keys.SigningFile(i.dir))
	if err != nil {
		t.Fatal(err)
	}
	// What is planted is planted while people talk; its end is the run's.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	planted := make(chan struct{})
	go func() {
		defer close(planted)
		if during != nil {
			during(ctx)
		}
	}()
	talking, enough := context.WithCancel(ctx)
	defer enough()
	// Connecting and making the conversations takes as long as it takes, and is no traffic.
	sending := make(chan struct{})
	var begun sync.Once
	progress := func(format string, args ...any) {
		if strings.HasPrefix(format, "sending ") {
			begun.Do(func() { close(sending) })
		}
		t.Logf(format, args...)
	}
	go func() {
		<-planted
		select {
		case <-ctx.Done():
		case <-sending:
		}
		// Some more traffic upon what was planted.
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
		enough()
	}()
	r, _, err := verify.Run(talking, verify.Config{
		Comets: []string{comet}, API: verify.API{URLs: []string{"http://" + i.api}, Key: key}, Sign: sign,
		Users: 4, Devices: 2, Direct: 4, Groups: 1, Members: 3, Rate: 60, Changes: .3, Repeats: .1, Disturb: 300 * time.Millisecond,
		Moves: .05, Marks: .1, Flood: 2 * time.Second, Ask: time.Second, Settle: settle, Late: 10 * time.Second, Progress: progress,
	})
	<-planted
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	return r
}

// toldLong is after what time the sender of an entry, and who was there, have been told of it: what is planted before that may be all that
// they ever hear.
const toldLong = 1500 * time.Millisecond

// table is a way to the conversations' tables that is none of Halley's.
type table struct {
	t     *testing.T
	db    *sql.DB
	since int64
}

// plant tries f in a transaction of its own until it says that there was something to do it to.
func (p *table) plant(ctx context.Context, f func(tx *sql.Tx) (bool, error)) {
	for ctx.Err() == nil {
		ok, err := func() (bool, error) {
			tx, err := p.db.BeginTx(ctx, nil)
			if err != nil {
				return false, err
			}
			ok, err := f(tx)
			if err != nil || !ok {
				_ = tx.Rollback()
				return false, err
			}
			return true, tx.Commit()
		}()
		if ok {
			return
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) && ctx.Err() == nil {
			p.t.Errorf("plant: %v", err)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.t.Error("there was nothing to plant it in")
}

func carryOut(tx *sql.Tx, statements ...string) error {
	for _, s := range statements {
		if _, err := tx.Exec(s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// doubled inserts a message once more behind the last entry of its conversation.
func (p *table) doubled(tx *sql.Tx) (bool, error) {
	var conversation string
	err := tx.QueryRow(`SELECT conversation FROM conversations WHERE last_seq >= 6 AND last_msg_seq = last_seq AND created_at >= ?`, p.since).Scan(&conversation)
	if err != nil {
		return false, err
	}
	// What stops a second one stands in its way, as it should.
	return true, carryOut(tx,
		`DROP INDEX IF EXISTS entries_client_msg_id`,
		fmt.Sprintf(`INSERT INTO entries SELECT e.tenant, e.conversation, e.seq + 1, e.kind, e.sender, e.client_msg_id, e.hash, e.msg_no + 1, e.seq + 1, 0, 0,
			e.accepted_at, e.body, e.detail, e.address FROM entries e JOIN conversations c USING (tenant, conversation)
			WHERE e.conversation = '%s' AND e.seq = c.last_seq`, conversation),
		fmt.Sprintf(`UPDATE conversations SET last_seq = last_seq + 1, last_msg_no = last_msg_no + 1, last_msg_seq = last_msg_seq + 1 WHERE conversation = '%s'`, conversation))
}

// swapped has two messages of one sender, one after the other, in each other's place.
func (p *table) swapped(tx *sql.Tx) (bool, error) {
	var conversation string
	var seq int64
	err := tx.QueryRow(`SELECT a.conversation, a.seq FROM entries a JOIN entries b ON b.tenant = a.tenant AND b.conversation = a.conversation
		AND b.seq = a.seq + 1 AND b.sender = a.sender JOIN conversations c ON c.tenant = a.tenant AND c.conversation = a.conversation
		WHERE a.kind = b.kind AND a.body IS NOT NULL AND b.body IS NOT NULL AND a.changed_seq = a.seq AND b.changed_seq = b.seq
		AND a.seq > 2 AND c.created_at >= ? AND b.accepted_at < ? LIMIT 1`, p.since, time.Now().Add(-toldLong).UnixMilli()).Scan(&conversation, &seq)
	if err != nil {
		return false, err
	}
	move := func(from, to int64) string {
		return fmt.Sprintf(`UPDATE entries SET seq = %d, changed_seq = %[1]d WHERE conversation = '%[3]s' AND seq = %[2]d`, to, from, conversation)
	}
	return true, carryOut(tx, move(seq, -1), move(seq+1, seq), move(-1, seq+1))
}

// dropped undoes a recall in the message that it emptied; its entry stays. (A later edit would hide that an edit was undone.)
func (p *table) dropped(tx *sql.Tx) (bool, error) {
	var conversation string
	var seq int64
	err := tx.QueryRow(`SELECT e.conversation, e.target_seq FROM entries e JOIN conversations c USING (tenant, conversation)
		WHERE e.kind = ? AND c.created_at >= ? AND e.accepted_at < ? LIMIT 1`, entry.Recall, p.since, time.Now().Add(-toldLong).UnixMilli()).Scan(&conversation, &seq)
	if err != nil {
		return false, err
	}
	r, err := tx.Exec(`UPDATE entries SET changed_seq = seq, flags = 0, body = (SELECT a.body FROM audit a WHERE a.tenant = entries.tenant AND
		a.conversation = entries.conversation AND a.seq = entries.seq ORDER BY a.changed_seq LIMIT 1) WHERE conversation = ? AND seq = ?`, conversation, seq)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n == 1, err
}

// returned undoes a removal in the list of members; its entry stays.
func (p *table) returned(tx *sql.Tx) (bool, error) {
	var conversation, uid string
	err := tx.QueryRow(`SELECT m.conversation, m.uid FROM members m JOIN conversations c USING (tenant, conversation) WHERE m.role = ? AND c.created_at >= ? LIMIT 1`,
		entry.None, p.since).Scan(&conversation, &uid)
	if err != nil {
		return false, err
	}
	r, err := tx.Exec(`UPDATE members SET role = ? WHERE conversation = ? AND uid = ?`, entry.Member, conversation, uid)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n == 1, err
}

// kicked has the API end the sessions of all who have said something: of one whose devices have just been cut off there may be none.
func (p *table) kicked(tx *sql.Tx, i *instance) (bool, error) {
	rows, err := tx.Query(`SELECT DISTINCT sender FROM entries WHERE kind = ? AND accepted_at >= ?`, entry.Message, p.since)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	var uids []string
	for rows.Next() {
		var uid string
		if err := rows.Scan(&uid); err != nil {
			return false, err
		}
		uids = append(uids, uid)
	}
	if err := rows.Err(); err != nil || len(uids) < 3 {
		return false, err
	}
	key, err := keys.ReadAPI(i.dir)
	if err != nil {
		return false, err
	}
	for _, uid := range uids {
		req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, "http://"+i.api+"/v1/sessions/kick", strings.NewReader(fmt.Sprintf(`{"uid":%q}`, uid)))
		if err != nil {
			return false, err
		}
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, err
		}
		_ = res.Body.Close()
		if res.StatusCode/100 != 2 {
			return false, fmt.Errorf("kick: %s", res.Status)
		}
	}
	return true, nil
}

// swallower stands between the clients and a comet, and has one message vanish: its sender is told that it was accepted, each time that
// it is sent, and nothing ever comes of it, as if job had skipped its offset.
type swallower struct {
	l  net.Listener
	to string

	mu     sync.Mutex
	id     string
	seen   map[string]bool
	gone   chan struct{}
	closed bool
	conns  []net.Conn
	wg     sync.WaitGroup
}

func newSwallower(t *testing.T, to string) *swallower {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &swallower{l: l, to: to, seen: map[string]bool{}, gone: make(chan struct{})}
	s.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.serve(in) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.mu.Lock()
		s.closed = true
		for _, c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		s.wg.Wait()
	})
	return s
}

func (s *swallower) serve(in net.Conn) {
	out, err := net.Dial("tcp", s.to)
	if err != nil {
		_ = in.Close()
		return
	}
	s.mu.Lock()
	s.conns = append(s.conns, in, out)
	if s.closed {
		_, _ = in.Close(), out.Close()
	}
	s.mu.Unlock()
	var writing sync.Mutex // answers of both come to one client
	var back sync.WaitGroup
	back.Go(func() {
		defer in.Close()
		_ = frames(out, func(raw []byte, _ frame.Frame) error {
			writing.Lock()
			defer writing.Unlock()
			_, err := in.Write(raw)
			return err
		})
	})
	_ = frames(in, func(raw []byte, f frame.Frame) error {
		if answer := s.swallow(f); answer != nil {
			writing.Lock()
			defer writing.Unlock()
			_, err := in.Write(answer)
			return err
		}
		_, err := out.Write(raw)
		return err
	})
	_ = out.Close()
	back.Wait()
}

// frames reads frames until there is an end.
func frames(from net.Conn, each func(raw []byte, f frame.Frame) error) error {
	var buf []byte
	chunk := make([]byte, 32<<10)
	for {
		f, n, err := frame.Parse(buf, nil)
		if err == nil {
			if err := each(buf[:n], f); err != nil {
				return err
			}
			buf = slices.Clone(buf[n:])
			continue
		}
		if !errors.Is(err, frame.ErrIncomplete) {
			return err
		}
		got, err := from.Read(chunk)
		if buf = append(buf, chunk[:got]...); err != nil {
			return err
		}
	}
}

// swallow returns what the client is answered in the server's place; nil: the frame goes on.
func (s *swallower) swallow(f frame.Frame) []byte {
	body := string(f.Body)
	if !f.Op.IsRequest() || !strings.Contains(body, `"message.send"`) {
		return nil
	}
	_, rest, _ := strings.Cut(body, `"client_msg_id":"`)
	id, _, _ := strings.Cut(rest, `"`)
	s.mu.Lock()
	defer s.mu.Unlock()
	// Not one of the first, which begin the conversations, and none that is a repeat of what went through.
	if s.id == "" && len(s.seen) > 20 && !s.seen[id] {
		s.id = id
		close(s.gone)
	}
	s.seen[id] = true
	if s.id == "" || id != s.id {
		return nil
	}
	return frame.Append(nil, frame.Frame{Ver: frame.Ver, Op: frame.OpReply, Seq: f.Seq, Body: []byte(`{"message.send":{"id":"6f0c0bb5-0000-5000-8000-000000000000"}}`)})
}

// TestVerifySaysWhatIsBroken plants a defect into a real run, each in its turn, outside of Halley's own code: by a connection's frames or in
// the tables.
func TestVerifySaysWhatIsBroken(t *testing.T) {
	dir := t.TempDir()
	i := startAll(t, dir, "HALLEY_LOGIC_CHAT_RATE=0", "HALLEY_LOGIC_CHAT_READ_RATE=0")
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, allDatabase)+"?_txlock=immediate&_pragma=busy_timeout(30000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	comet := "ws://" + i.ws + "/sub"
	// What is broken may never settle.
	const broken = 10 * time.Second
	inTables := func(t *testing.T, f func(p *table) func(*sql.Tx) (bool, error)) *verify.Report {
		p := &table{t: t, db: db, since: time.Now().UnixMilli()}
		return shortVerify(t, i, comet, broken, func(ctx context.Context) { p.plant(ctx, f(p)) })
	}
	says := func(t *testing.T, r *verify.Report, what int, words string) {
		t.Helper()
		if !r.Broken() || what == 0 || !slices.ContainsFunc(r.Examples, func(e string) bool { return strings.HasPrefix(e, words) }) {
			t.Errorf("got store %+v, handed %+v, examples %q; want it to say: %s", r.Store, r.Handed, r.Examples, words)
		}
	}
	t.Run("nothing", func(t *testing.T) {
		since := time.Now().UnixMilli()
		r := shortVerify(t, i, comet, time.Minute, func(ctx context.Context) {
			// However slow the machine is: enough for all of it to prove something.
			for n := 0; n < 40 && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
				if err := db.QueryRowContext(ctx, `SELECT COUNT(*) FROM entries WHERE accepted_at >= ?`, since).Scan(&n); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
		if r.Broken() || r.Unsettled != "" || len(r.Refused) > 0 || r.Sent < 30 {
			t.Errorf("got store %+v, handed %+v, unsettled %q, refused %v, %d sent: %q", r.Store, r.Handed, r.Unsettled, r.Refused, r.Sent, r.Examples)
		}
	})
	t.Run("a skipped offset", func(t *testing.T) {
		s := newSwallower(t, i.tcp)
		r := shortVerify(t, i, "tcp://"+s.l.Addr().String(), broken, func(ctx context.Context) {
			select {
			case <-s.gone:
			case <-ctx.Done():
			}
		})
		says(t, r, r.Store.Lost, "sent, and neither stored nor refused")
	})
	t.Run("a swapped pair", func(t *testing.T) {
		r := inTables(t, func(p *table) func(*sql.Tx) (bool, error) { return p.swapped })
		says(t, r, r.Store.Reordered, "told to be stored, and elsewhere")
		says(t, r, r.Handed.Reordered, "handed over in another's place")
	})
	t.Run("a dropped change", func(t *testing.T) {
		r := inTables(t, func(p *table) func(*sql.Tx) (bool, error) { return p.dropped })
		says(t, r, r.Store.Lost, "a change that isn't in what is stored")
	})
	t.Run("a dropped removal", func(t *testing.T) {
		r := inTables(t, func(p *table) func(*sql.Tx) (bool, error) { return p.returned })
		says(t, r, r.Store.Lost, "a member that should have gone")
	})
	t.Run("a device closed for good", func(t *testing.T) {
		r := inTables(t, func(p *table) func(*sql.Tx) (bool, error) {
			return func(tx *sql.Tx) (bool, error) { return p.kicked(tx, i) }
		})
		says(t, r, int(r.Closed), "closed for good: ")
	})
	// The last one: it takes away the key that stops it.
	t.Run("a doubled insert", func(t *testing.T) {
		r := inTables(t, func(p *table) func(*sql.Tx) (bool, error) { return p.doubled })
		says(t, r, r.Store.Duplicated, "stored twice")
	})
}
