package logic_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic"
	"github.com/halley-im/halley/logic/internal/fake"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

func TestMain(m *testing.M) { kittest.Main(m) }

// defaults is the configuration that nobody touched, as the command line reads it.
func defaults(t *testing.T, args ...string) logic.Config {
	t.Helper()
	var c logic.Config
	p, err := kong.New(&c, kong.Name("logic"), kong.Exit(func(int) { t.Fatal("exit") }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaultsAreValidAndWhatIsPromised(t *testing.T) {
	c := defaults(t)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.GoimCompat != logic.Off || c.Demo != logic.Off {
		t.Errorf("open by default: goim-compat %s, demo %s", c.GoimCompat, c.Demo)
	}
	if c.Push.UrgentTTL != 30*time.Second || c.Push.NormalTTL != time.Minute || c.Push.BulkTTL != 10*time.Minute {
		t.Errorf("ttls: got %+v", c.Push)
	}
	if c.Session.GoimHeartbeat*time.Duration(c.Session.GoimHeartbeatMax) != 8*time.Minute || c.Session.Watch != 50 || c.Session.RoomBodyBytes != 32<<10 {
		t.Errorf("sessions: got %+v", c.Session)
	}
	if c.Token.OptionalExpiry || c.Revoke.Unread {
		t.Error("lenient by default")
	}
}

func TestListsAndSwitchesAreReadFromTheCommandLine(t *testing.T) {
	c := defaults(t, "--room-public", "chat://*,lobby://x", "--session-newest-wins", "ios,android", "--goim-compat", "open", "--token-keys", "k:HS256:x", "--upstream")
	if len(c.Room.Public) != 2 || len(c.Session.NewestWins) != 2 || c.GoimCompat != logic.Open || len(c.Token.Keys) != 1 || !c.Upstream {
		t.Errorf("got %+v", c)
	}
}

func TestBadConfigurationStopsTheStart(t *testing.T) {
	for name, change := range map[string]func(*logic.Config){
		"token key":        func(c *logic.Config) { c.Token.Keys = []string{"k:none:x"} },
		"token key twice":  func(c *logic.Config) { k := "k:HS256:" + strings.Repeat("QUFB", 12); c.Token.Keys = []string{k, k} },
		"signing key":      func(c *logic.Config) { c.Token.SigningKey = "z" },
		"public pattern":   func(c *logic.Config) { c.Room.Public = []string{"presence://*"} },
		"goim-compat":      func(c *logic.Config) { c.GoimCompat = "opn" },
		"platform":         func(c *logic.Config) { c.Session.NewestWins = []string{"i os"} },
		"goim tenant":      func(c *logic.Config) { c.Session.GoimTenant = "Goim" },
		"router timeout":   func(c *logic.Config) { c.RouterTimeout = 0 },
		"heartbeat":        func(c *logic.Config) { c.Session.Heartbeat = c.Session.IdleTimeout },
		"default ttl":      func(c *logic.Config) { c.Token.DefaultTTL = 2 * c.Token.MaxLifetime },
		"revocation retry": func(c *logic.Config) { c.Revoke.Retry = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			c := defaults(t)
			change(&c)
			if _, err := logic.New(c, logic.Deps{Metrics: prometheus.NewRegistry(), Router: (&fake.Router{}).Dial(t), Kafka: &fake.Producer{}}); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestTokensMayNotOutliveTheirRevocations(t *testing.T) {
	for _, tt := range []struct {
		name     string
		forever  bool
		kept     time.Duration
		want     string
		lifetime time.Duration
	}{
		{"as long as tokens live", false, 720 * time.Hour, "", 720 * time.Hour},
		{"shorter", false, 719 * time.Hour, "token-max-lifetime", 720 * time.Hour},
		{"for ever", false, 0, "", 720 * time.Hour},
		{"tokens for ever, revocations not", true, 9600 * time.Hour, "token-optional-expiry", time.Hour},
		{"both for ever", true, 0, "", time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := defaults(t)
			c.Token.OptionalExpiry, c.Token.MaxLifetime = tt.forever, tt.lifetime
			_, err := logic.New(c, logic.Deps{
				Metrics: prometheus.NewRegistry(), Router: (&fake.Router{}).Dial(t), Kafka: &fake.Producer{}, KafkaConfig: kafkaconn.Config{RevokedRetention: tt.kept},
			})
			if tt.want == "" && err != nil {
				t.Errorf("got %v", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "kafka.revoked_retention")) {
				t.Errorf("got %v, want an error that names %s and kafka.revoked_retention", err, tt.want)
			}
		})
	}
}

func TestOpenIsRefusedBeyondLoopbackUnlessToldAnywhere(t *testing.T) {
	tcp := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	local, local6, everywhere, lan, everywhere6 := tcp("127.0.0.1:1"), tcp("[::1]:1"), tcp("0.0.0.0:1"), tcp("192.0.2.1:1"), tcp("[::]:1")
	for _, tt := range []struct {
		name       string
		goim, demo logic.Openness
		addrs      []net.Addr
		wantErr    bool
		warns      int
	}{
		{"off everywhere", logic.Off, logic.Off, []net.Addr{everywhere}, false, 0},
		{"unset", "", "", []net.Addr{everywhere}, false, 0},
		{"goim open on loopback", logic.Open, logic.Off, []net.Addr{local, local6, &net.UnixAddr{Name: "/x"}}, false, 1},
		{"goim open on all addresses", logic.Open, logic.Off, []net.Addr{local, everywhere}, true, 0},
		{"goim open on all IPv6 addresses", logic.Open, logic.Off, []net.Addr{everywhere6}, true, 0},
		{"goim open on the network", logic.Open, logic.Off, []net.Addr{lan}, true, 0},
		{"goim open anywhere", logic.OpenAnywhere, logic.Off, []net.Addr{everywhere, lan}, false, 1},
		{"demo open on the network", logic.Off, logic.Open, []net.Addr{lan}, true, 0},
		{"demo open anywhere, goim not", logic.Open, logic.OpenAnywhere, []net.Addr{lan}, true, 0},
		{"both open on loopback", logic.Open, logic.Open, []net.Addr{local}, false, 2},
		{"typing error", "opne", logic.Off, []net.Addr{local}, true, 0},
		{"an address of no known kind", logic.Open, logic.Off, []net.Addr{strange("somewhere")}, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log strings.Builder
			err := logic.CheckOpen(logic.Config{GoimCompat: tt.goim, Demo: tt.demo}, tt.addrs, slog.New(slog.NewTextHandler(&log, nil)))
			if (err != nil) != tt.wantErr {
				t.Errorf("got %v, want error %t", err, tt.wantErr)
			}
			if n := strings.Count(log.String(), "level=WARN"); err == nil && n != tt.warns {
				t.Errorf("got %d warnings, want %d", n, tt.warns)
			}
		})
	}
}

type strange string

func (strange) Network() string  { return "strange" }
func (s strange) String() string { return string(s) }

// patience is how long is waited for what comes: a process that stands still for seconds, as one among many does, is no failure of what it asks. It is
// below the time limit of a request.
const patience = 15 * time.Second

// node is a Logic that runs on embedded Kafka and Redis, with a fake router.
type node struct {
	*logic.Logic
	rpc    halleyv1.LogicClient
	url    string
	key    *token.Key
	router *fake.Router
	kafka  kafkaconn.Config
}

func start(t *testing.T, change ...func(*logic.Deps)) *node {
	t.Helper()
	key, err := token.NewHS256("k", []byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{key: key, router: &fake.Router{}, kafka: kittest.Kafka(t)}
	n.kafka.WriteTimeout = patience
	redis, prefix := kittest.Redis(t)
	log := slog.New(slog.DiscardHandler)
	producer := kafkaconn.NewProducer(n.kafka, log)
	t.Cleanup(func() { _ = producer.Close() })
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := defaults(t)
	cfg.GoimCompat = logic.Open
	cfg.RouterTimeout, cfg.Push.Timeout, cfg.Revoke.Timeout = patience, patience, patience
	cfg.Chat.Timeout, cfg.Chat.OutcomeWait, cfg.Chat.RedisTimeout = patience, patience, patience
	cfg.HTTP.RateTimeout, cfg.HTTP.Idempotency.Timeout = patience, patience
	deps := logic.Deps{
		Log: log, Metrics: prometheus.NewRegistry(), Router: n.router.Dial(t), Redis: redis, RedisPrefix: prefix, Kafka: producer, KafkaConfig: n.kafka,
		HTTP: web, TokenKeys: []*token.Key{key},
	}
	for _, f := range change {
		f(&deps)
	}
	n.Logic, err = logic.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	n.url = "http://" + web.Addr().String()

	srv := grpc.NewServer()
	n.Register(srv)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l)
	}()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	n.rpc = halleyv1.NewLogicClient(conn)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		_ = conn.Close()
		srv.Stop()
		<-served
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	kittest.Eventually(t, 2*patience, func() bool { return n.Ready(t.Context()) == nil }, "ready")
	return n
}

// request asks on a stream of its own.
func (n *node) request(t *testing.T, req *halleyv1.SessionRequest) *halleyv1.SessionResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	stream, err := n.rpc.Requests(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// What came of an error Recv tells.
	_ = stream.Send(&halleyv1.RequestBatch{Requests: []*halleyv1.SessionRequest{req}})
	res, err := stream.Recv()
	if err != nil || len(res.GetResponses()) != 1 {
		t.Fatalf("got %v, %v", res, err)
	}
	return res.GetResponses()[0]
}

func TestLogsInAndCarriesRequestsOutOverGRPC(t *testing.T) {
	n := start(t)
	s, err := token.Sign(n.key, token.Claims{UID: "ann", Rooms: []string{"chat://*"}, IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := json.Marshal(map[string]any{"token": s, "rooms": []string{"chat://a"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	res, err := n.rpc.Connect(ctx, &halleyv1.ConnectRequest{Conn: &halleyv1.Conn{Comet: "c", Epoch: "e", Id: "a.1"}, Auth: auth})
	if err != nil || res.GetError() != nil {
		t.Fatal(err, res.GetError())
	}
	reply := n.request(t, &halleyv1.SessionRequest{
		Session: res.GetSession(), Rooms: res.GetEffects().GetJoin(), Grants: res.GetEffects().GetGrants(), Op: 100,
		Body: []byte(`{"room.send":{"room":"chat://a","body":"hi"}}`),
	})
	if !strings.Contains(string(reply.GetReply()), `"room.send"`) {
		t.Fatalf("got %v", reply)
	}
	if got := n.written(t, topic.Push, 1); got != 1 {
		t.Errorf("got %d records in Kafka", got)
	}
}

// written waits until a topic holds at least want records and returns how many it holds.
func (n *node) written(t *testing.T, name string, want int) (got int) {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(n.kafka.Brokers...), Timeout: 5 * time.Second}
	kittest.Eventually(t, 2*patience, func() bool {
		got = 0
		var ends []kafka.OffsetRequest
		for p := range n.kafka.Partitions {
			ends = append(ends, kafka.LastOffsetOf(p))
		}
		full := n.kafka.Topic(name)
		resp, err := client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{full: ends}})
		if err != nil {
			return false
		}
		for _, p := range resp.Topics[full] {
			got += int(max(0, p.LastOffset))
		}
		return got >= want
	}, "records in", name)
	return got
}

func TestHTTPAPIServesAndPushes(t *testing.T) {
	n := start(t)
	get, err := http.Get(n.url + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = get.Body.Close()
	if get.StatusCode != http.StatusOK {
		t.Errorf("healthz: got %s", get.Status)
	}
	post, err := http.Post(n.url+"/goim/push/mids?operation=1000&mids=1&mids=2", "text/plain", strings.NewReader("hi"))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(post.Body)
	_ = post.Body.Close()
	if post.StatusCode != http.StatusOK || !strings.Contains(string(b), `"code":0`) {
		t.Errorf("got %s %s", post.Status, b)
	}
	if got := n.written(t, topic.Push, 1); got < 1 {
		t.Errorf("got %d records in Kafka", got)
	}
}
