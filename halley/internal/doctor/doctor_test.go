package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/halley/internal/doctor"
	"github.com/halley-im/halley/kit/embedded"
	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/redisconn"
	"github.com/halley-im/halley/store"
)

// see takes one look and returns its findings as text.
func see(t *testing.T, l doctor.Look) (doctor.State, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var b strings.Builder
	worst, err := doctor.Print(&b, doctor.Examine(ctx, []doctor.Look{l}))
	if err != nil {
		t.Fatal(err)
	}
	return worst, b.String()
}

func want(t *testing.T, l doctor.Look, state doctor.State, texts ...string) {
	t.Helper()
	if wrong := differs(t, l, state, texts...); wrong != "" {
		t.Error(wrong)
	}
}

// differs says what a look finds otherwise than it should; "": nothing.
func differs(t *testing.T, l doctor.Look, state doctor.State, texts ...string) string {
	t.Helper()
	got, text := see(t, l)
	var wrong []string
	if got != state {
		wrong = append(wrong, fmt.Sprintf("got %v, want %v", got, state))
	}
	for _, w := range texts {
		if !strings.Contains(text, w) {
			wrong = append(wrong, fmt.Sprintf("want %q", w))
		}
	}
	if state != doctor.OK && !strings.Contains(text, "→") {
		wrong = append(wrong, "no remedy")
	}
	if len(wrong) == 0 {
		return ""
	}
	return strings.Join(wrong, ", ") + ":\n" + text
}

func closedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestKafkaFaultsAreNamedWithTheirRemedy(t *testing.T) {
	c := kafkaconn.Config{Brokers: []string{nobody()}, Partitions: 4, Replication: 1, MinInsync: 1, WriteTimeout: time.Second, Retention: time.Hour}
	want(t, doctor.Kafka(c), doctor.Fail, "no answer at "+c.Brokers[0], "HALLEY_KAFKA_BROKERS")

	k, err := embedded.StartKafka(embedded.KafkaConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	c.Brokers, c.WriteTimeout = k.Addrs(), 20*time.Second
	want(t, doctor.Kafka(c), doctor.OK, "not there yet")
	if err := kafkaconn.EnsureTopics(t.Context(), c, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	want(t, doctor.Kafka(c), doctor.OK, "all there, 4 partitions")
	c.Partitions = 12
	want(t, doctor.Kafka(c), doctor.Fail, "has 4 partitions, configured are 12", "set kafka.partitions to 4")
	c.Partitions, c.Replication = 4, 3
	want(t, doctor.Kafka(c), doctor.Fail, "kafka.replication is 3 but there are 1 brokers")
}

func TestRedisFaultsAreNamedWithTheirRemedy(t *testing.T) {
	c := redisconn.Config{Addrs: []string{nobody()}, Timeout: time.Second}
	want(t, doctor.Redis(c), doctor.Fail, "no answer at "+c.Addrs[0], "HALLEY_REDIS_ADDRS")

	r, err := embedded.StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Addrs, c.Timeout = []string{r.Addr()}, 20*time.Second
	// The Redis inside tells neither its version nor its settings.
	want(t, doctor.Redis(c), doctor.Warn, "answers at", "7.0", "noeviction")
}

func TestPortIsFreeServedOrImpossible(t *testing.T) {
	free := closedAddr(t)
	want(t, doctor.Port(free, "comet.tcp_addr"), doctor.OK, "free", "comet.tcp_addr")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want(t, doctor.Port(l.Addr().String(), "comet.tcp_addr"), doctor.OK, "served")
	want(t, doctor.Port("192.0.2.1:3101", "comet.tcp_addr"), doctor.Fail, "no such address", "change comet.tcp_addr")
}

func TestDiskAndSecrets(t *testing.T) {
	dir := t.TempDir()
	if got, text := see(t, doctor.Disk(filepath.Join(dir, "not", "yet", "there"))); got == doctor.Fail && !strings.Contains(text, "MB free") || !strings.Contains(text, dir) {
		t.Errorf("a folder to be made: got %v:\n%s", got, text)
	}
	file := filepath.Join(dir, "secret")
	want(t, doctor.Secrets(file), doctor.OK, "none yet")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, doctor.Secrets(file), doctor.OK, "readable by their owner alone")
	want(t, doctor.Disk(filepath.Join(file, "below")), doctor.Fail, "HALLEY_DATA_DIR")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, doctor.Secrets(file), doctor.Fail, "chmod 600")
}

func TestSecretAndClock(t *testing.T) {
	want(t, doctor.Secret("0123456789abcdef", nil), doctor.OK, "set")
	want(t, doctor.Secret("", nil), doctor.Warn, "loopback only")
	want(t, doctor.Secret("", errors.New("too short")), doctor.Fail, "too short")
	want(t, doctor.Clock(0), doctor.Fail, "NTP")
	want(t, doctor.Clock(time.Now().Unix()), doctor.OK)
}

func TestDatabaseFaultsAreNamedWithTheirRemedy(t *testing.T) {
	want(t, doctor.Database(store.Default()), doctor.Warn, "no conversations", "HALLEY_STORE_DSN")

	c := store.Default()
	c.DSN = filepath.Join(t.TempDir(), "none", "x.db")
	want(t, doctor.Database(c), doctor.Fail, "can't be used", "HALLEY_STORE_DSN")
	c.DSN = filepath.Join(t.TempDir(), "x.db")
	want(t, doctor.Database(c), doctor.OK, "not there yet")
	if _, err := os.Stat(c.DSN); err == nil {
		t.Error("looking at it made the database")
	}
	s, err := store.Open(t.Context(), c, store.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, doctor.Database(c), doctor.OK, "SQLite 3", "tables of version")
	if err := os.WriteFile(c.DSN, []byte("this is no database, whatever its name says, and long enough"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, doctor.Database(c), doctor.Fail, "can't be used")

	c.Driver, c.DSN = store.MySQL, "halley:secret-password@tcp("+nobody()+")/halley"
	want(t, doctor.Database(c), doctor.Fail, "can't be used", "start it")
	if _, text := see(t, doctor.Database(c)); strings.Contains(text, "secret-password") {
		t.Errorf("the password is told: %s", text)
	}
}
