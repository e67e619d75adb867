package dead_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/job/internal/dead"
	"github.com/halley-im/halley/job/internal/meter"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

// stub takes dead letters that its judge has nothing against.
type stub struct {
	mu    sync.Mutex
	judge func(try int, m kafka.Message) error
	tries int
	taken []kafka.Message
}

func (d *stub) Produce(_ context.Context, msgs ...kafka.Message) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tries++
	if err := d.judge(d.tries, msgs[0]); err != nil {
		return fmt.Errorf("not written: %w", err)
	}
	d.taken = append(d.taken, msgs...)
	return nil
}

// aside has one record put aside and returns the letter and the log.
func aside(t *testing.T, d *stub, m kafka.Message) (kafka.Message, string) {
	t.Helper()
	lane := halleyv1.Lane_LANE_PUSH
	mt, err := meter.New(prometheus.NewRegistry(), []halleyv1.Lane{lane})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	l := &dead.Letters{
		Topic: topic.Push, Meter: mt.Lanes[lane], Producer: d, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Timeout: time.Second, RetryMin: time.Millisecond, RetryMax: time.Millisecond,
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l.Put(ctx, 3, &m, "malformed")
	if len(d.taken) != 1 {
		t.Fatalf("%d letters stored after %d tries, want 1", len(d.taken), d.tries)
	}
	return d.taken[0], log.String()
}

func header(m kafka.Message, key string) string {
	for _, h := range m.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func tooLarge(_ int, m kafka.Message) error {
	n := len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value)
	}
	if n > 20_000 {
		return kafka.MessageSizeTooLarge
	}
	return nil
}

func TestLetterThatIsTooLargeIsShortened(t *testing.T) {
	value := bytes.Repeat([]byte{0xff}, 100_000)
	own := []kafka.Header{{Key: "own", Value: bytes.Repeat([]byte("h"), 50_000)}}
	d := &stub{judge: tooLarge}
	letter, log := aside(t, d, kafka.Message{Key: bytes.Repeat([]byte("k"), 30_000), Value: value, Headers: own, Offset: 7})
	if d.tries != 2 {
		t.Errorf("%d tries, want 2", d.tries)
	}
	if len(letter.Value) == 0 || !bytes.HasPrefix(value, letter.Value) || len(letter.Key) == 0 {
		t.Errorf("got %d bytes of key and %d of value, want the record's beginning", len(letter.Key), len(letter.Value))
	}
	for key, want := range map[string]string{
		topic.HeaderCut: "180003", topic.HeaderReason: "malformed", topic.HeaderTopic: topic.Push, topic.HeaderPartition: "3", topic.HeaderOffset: "7", "own": "",
	} {
		if got := header(letter, key); got != want {
			t.Errorf("header %s: got %q, want %q", key, got, want)
		}
	}
	if n := strings.Count(log, "refused"); n != 1 {
		t.Errorf("the refusal was logged %d times, want once:\n%s", n, log)
	}
}

func TestLetterStaysWholeWhereThatIsNotTheReason(t *testing.T) {
	for _, tt := range []struct {
		err  error
		logs int
	}{
		{kafka.NotLeaderForPartition, 0}, {context.DeadlineExceeded, 0}, {kafka.TopicAuthorizationFailed, 1},
	} {
		d := &stub{judge: func(try int, _ kafka.Message) error {
			if try < 4 {
				return tt.err
			}
			return nil
		}}
		letter, log := aside(t, d, kafka.Message{Key: []byte("k"), Value: []byte{0xff, 1}})
		if string(letter.Value) != "\xff\x01" || header(letter, topic.HeaderCut) != "" {
			t.Errorf("%v: the letter was changed: %q", tt.err, letter.Value)
		}
		if n := strings.Count(log, "refused"); n != tt.logs {
			t.Errorf("%v: the refusal was logged %d times, want %d:\n%s", tt.err, n, tt.logs, log)
		}
	}
}
