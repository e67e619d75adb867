package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Times of the clusters under test: everything is short, so that a fault is over in seconds.
const (
	leaseTTL      = 5 * time.Second
	renewInterval = 1500 * time.Millisecond
	groupSession  = 4 * time.Second // what a killed job costs its partitions; one that stands still for longer loses them, and its records come twice
	settleDelay   = time.Second     // from a change of a user's sessions to its presence event
	startLimit    = 40 * time.Second
	presenceLimit = 15 * time.Second // the promise: presence is right within this time of any crash
)

// setup is how a cluster or node is started.
type setup struct {
	env map[string]string
	// of are variables of single processes.
	of map[string]map[string]string
	// proxied are the processes that reach the routers through proxies.
	proxied map[string]bool
	// spareRouters is how many more routers everybody is told of; they are not started.
	spareRouters int
	// conversations gives it a database.
	conversations bool
	dsn           string
}

// Option changes a setup.
type Option func(*setup)

// Setting sets a variable of every process.
func Setting(name, value string) Option { return func(s *setup) { s.env[name] = value } }

// SettingOf sets a variable of one process.
func SettingOf(process, name, value string) Option {
	return func(s *setup) {
		if s.of[process] == nil {
			s.of[process] = map[string]string{}
		}
		s.of[process][name] = value
	}
}

// Open trusts goim's unsigned tokens and lets goim's API in without a key.
func Open() Option { return Setting("HALLEY_GOIM_COMPAT", "open") }

// GoimIdle sets the time after which goim's clients are closed when they send no heartbeat.
func GoimIdle(d time.Duration) Option {
	return func(s *setup) {
		s.env["HALLEY_LOGIC_SESSION_GOIM_HEARTBEAT"] = (d / 2).String()
		s.env["HALLEY_LOGIC_SESSION_GOIM_HEARTBEAT_MAX"] = "2"
	}
}

// RoutersByProxy has a process reach the routers through proxies that a test can cut.
func RoutersByProxy(process string) Option { return func(s *setup) { s.proxied[process] = true } }

// SpareRouters are routers that everybody is told of and that are not started.
func SpareRouters(n int) Option { return func(s *setup) { s.spareRouters = n } }

// Conversations gives the cluster a database of its own, on MariaDB.
func Conversations() Option { return func(s *setup) { s.conversations = true } }

// Secrets are a cluster's keys as its tests know them.
type Secrets struct {
	Kid    string
	Token  []byte // signs users' tokens
	APIKey string // all scopes, all tenants
	// Cluster is what the roles ask of each other.
	Cluster string
}

func newSecrets() Secrets {
	var token [32]byte
	var rest [32]byte
	_, _ = rand.Read(token[:])
	_, _ = rand.Read(rest[:])
	return Secrets{Kid: "test", Token: token[:], APIKey: "hk_test_" + hex.EncodeToString(rest[:16]), Cluster: hex.EncodeToString(rest[16:])}
}

// Node is a process and its addresses; those that its role has not are empty.
type Node struct {
	*Process
	TCP, WS string // host:port
	HTTP    string // base URL
	GRPC    string // host:port
}

// Cluster is some processes of each role on real Kafka and Redis.
type Cluster struct {
	T       testing.TB
	Secrets Secrets
	Servers *Servers
	// Prefix is the first part of all its keys in Redis.
	Prefix string

	Comets, Logics, Routers, Jobs []*Node
	// Spare are routers that are not started; Proxies carry the proxied processes' calls of the routers.
	Spare   []*Node
	Proxies []*Proxy

	dir   string
	setup setup
}

// Size is how many processes of each role a cluster has.
type Size struct{ Comets, Logics, Routers, Jobs int }

// Two is two of each role.
var Two = Size{2, 2, 2, 2}

// logDir makes the folder for a test's logs, emptied of those of the run before.
func logDir(t testing.TB) string {
	dir := cache("logs", strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newSetup(opts []Option) setup {
	s := setup{env: map[string]string{}, of: map[string]map[string]string{}, proxied: map[string]bool{}}
	for _, o := range opts {
		o(&s)
	}
	return s
}

// logicEnv are the settings of whatever process holds a logic.
func (s Secrets) logicEnv() map[string]string {
	sum := sha256.Sum256([]byte(s.APIKey))
	return map[string]string{
		"HALLEY_LOGIC_TOKEN_KEYS":    s.Kid + ":HS256:" + base64.StdEncoding.EncodeToString(s.Token),
		"HALLEY_LOGIC_HTTP_API_KEYS": "test:" + hex.EncodeToString(sum[:]) + ":admin:*",
		"HALLEY_LOGIC_ROOM_PUBLIC":   "public://*",
	}
}

// shortTimes make leases and consumer groups end quickly.
func shortTimes() map[string]string {
	return map[string]string{
		"HALLEY_KAFKA_PARTITIONS":         "4",
		"HALLEY_KAFKA_SESSION_TIMEOUT":    groupSession.String(),
		"HALLEY_KAFKA_HEARTBEAT_INTERVAL": "300ms",
		"HALLEY_KAFKA_JOIN_BACKOFF":       "200ms",
		"HALLEY_ROUTER_LEASE_TTL":         leaseTTL.String(),
		"HALLEY_ROUTER_MARKER_WINDOW":     "6s",
		"HALLEY_ROUTER_SETTLE_DELAY":      settleDelay.String(),
		"HALLEY_ROUTER_CONN_TOMBSTONE":    "5s",
		"HALLEY_ROUTER_ROOM_TOMBSTONE":    "5s",
		"HALLEY_ROUTER_SWEEP_INTERVAL":    "10s",
		"HALLEY_COMET_RENEW_INTERVAL":     renewInterval.String(),
		"HALLEY_COMET_COUNT_INTERVAL":     "2s",
		"HALLEY_COMET_RESYNC_SPREAD":      "2s",
		"HALLEY_COMET_DRAIN_GRACE":        "5s",
		"HALLEY_COMET_DRAIN_RATE":         "50",
		"HALLEY_JOB_CONDEMN_AFTER":        leaseTTL.String(),
		"HALLEY_LOG_LEVEL":                "debug",
		// A killed logic leaves its requests in progress; until this is over their repeats are answered 409. It is more than a request
		// may take, and that is more than a push may wait for Kafka.
		"HALLEY_LOGIC_HTTP_IDEMPOTENCY_PROGRESS": "6s",
		"HALLEY_LOGIC_HTTP_REQUEST_TIMEOUT":      "5500ms",
	}
}

// StartAll starts `halley all` on free ports with a data folder of its own.
func StartAll(t testing.TB, opts ...Option) *Node {
	t.Helper()
	n := newAll(t, t.TempDir(), opts...)
	n.Start()
	n.Ready(startLimit)
	return n
}

// newAll makes the node without starting it.
func newAll(t testing.TB, data string, opts ...Option) *Node {
	t.Helper()
	s := newSetup(opts)
	n := &Node{TCP: freeAddr(t), WS: freeAddr(t), GRPC: ""}
	api := freeAddr(t)
	n.HTTP = "http://" + api
	env := shortTimes()
	maps.Copy(env, map[string]string{
		"HALLEY_DATA_DIR":          data,
		"HALLEY_COMET_TCP_ADDR":    n.TCP,
		"HALLEY_COMET_WS_ADDR":     n.WS,
		"HALLEY_LOGIC_HTTP_ADDR":   api,
		"HALLEY_ALL_PRIVATE_ADDR":  freeAddr(t),
		"HALLEY_ALL_TURN_ADDR":     "127.0.0.1:0",
		"HALLEY_ALL_TURN_TLS_ADDR": "127.0.0.1:0",
	})
	maps.Copy(env, s.env)
	n.Process = &Process{
		Name: "all", Args: []string{"all"}, Env: env, Private: env["HALLEY_ALL_PRIVATE_ADDR"], t: t,
		Log: filepath.Join(logDir(t), "all.log"),
	}
	t.Cleanup(n.end)
	return n
}

// StartCluster starts a cluster and waits until all of it is ready.
func StartCluster(t testing.TB, size Size, opts ...Option) *Cluster {
	t.Helper()
	var suffix [4]byte
	_, _ = rand.Read(suffix[:])
	c := &Cluster{T: t, Secrets: newSecrets(), Servers: RealServers(t), Prefix: "e2e" + hex.EncodeToString(suffix[:]), dir: logDir(t), setup: newSetup(opts)}
	if c.setup.conversations {
		c.setup.dsn = c.Servers.Database(t, c.Prefix)
	}
	// Addresses first: everybody is told of everybody.
	for i := range size.Routers {
		c.Routers = append(c.Routers, c.node("router", i))
	}
	for i := range c.setup.spareRouters {
		c.Spare = append(c.Spare, c.node("router", size.Routers+i))
	}
	for i := range size.Logics {
		c.Logics = append(c.Logics, c.node("logic", i))
	}
	for i := range size.Comets {
		c.Comets = append(c.Comets, c.node("comet", i))
	}
	for i := range size.Jobs {
		c.Jobs = append(c.Jobs, c.node("job", i))
	}
	for _, n := range c.Spare {
		c.configure(n)
	}
	for _, group := range [][]*Node{c.Routers, c.Logics, c.Comets, c.Jobs} {
		for _, n := range group {
			c.configure(n)
			n.Start()
		}
		for _, n := range group {
			n.Ready(startLimit)
		}
	}
	return c
}

// node makes a node of a role with its addresses; it is not configured yet.
func (c *Cluster) node(role string, i int) *Node {
	name := fmt.Sprintf("%s%d", role, i+1)
	n := &Node{Process: &Process{
		Name: name, Args: []string{role}, Private: freeAddr(c.T), t: c.T, Log: filepath.Join(c.dir, name+".log"),
	}}
	switch role {
	case "comet":
		n.TCP, n.WS, n.GRPC = freeAddr(c.T), freeAddr(c.T), freeAddr(c.T)
	case "logic":
		n.HTTP, n.GRPC = "http://"+freeAddr(c.T), freeAddr(c.T)
	case "router":
		n.GRPC = freeAddr(c.T)
	}
	c.T.Cleanup(n.end)
	return n
}

// targets returns the gRPC addresses of nodes as a setting takes them.
func targets(nodes []*Node) string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.GRPC)
	}
	return strings.Join(out, ",")
}

// configure gives a node its settings, by the cluster as it is now.
func (c *Cluster) configure(n *Node) {
	role := n.Args[0]
	env := shortTimes()
	maps.Copy(env, map[string]string{
		"HALLEY_CLUSTER_SECRET": c.Secrets.Cluster,
		"HALLEY_KAFKA_BROKERS":  c.Servers.Kafka,
		"HALLEY_KAFKA_PREFIX":   c.Prefix + ".",
		"HALLEY_REDIS_ADDRS":    c.Servers.Redis,
		"HALLEY_REDIS_PREFIX":   c.Prefix,
		"HALLEY_ROUTER_TARGET":  targets(append(c.Routers[:len(c.Routers):len(c.Routers)], c.Spare...)),
		"HALLEY_LOGIC_TARGET":   targets(c.Logics),
	})
	if c.setup.proxied[n.Name] {
		var via []string
		for _, r := range c.Routers {
			p := NewProxy(c.T, r.GRPC)
			c.Proxies = append(c.Proxies, p)
			via = append(via, p.Addr)
		}
		env["HALLEY_ROUTER_TARGET"] = strings.Join(via, ",")
	}
	env["HALLEY_"+strings.ToUpper(role)+"_PRIVATE_ADDR"] = n.Private
	switch role {
	case "comet":
		env["HALLEY_COMET_NAME"] = n.Name
		env["HALLEY_COMET_TCP_ADDR"], env["HALLEY_COMET_WS_ADDR"], env["HALLEY_COMET_GRPC_ADDR"] = n.TCP, n.WS, n.GRPC
	case "logic":
		env["HALLEY_LOGIC_HTTP_ADDR"], env["HALLEY_LOGIC_GRPC_ADDR"] = strings.TrimPrefix(n.HTTP, "http://"), n.GRPC
		maps.Copy(env, c.Secrets.logicEnv())
	case "router":
		env["HALLEY_ROUTER_GRPC_ADDR"] = n.GRPC
	}
	if c.setup.conversations && (role == "logic" || role == "job") {
		env["HALLEY_STORE_DRIVER"], env["HALLEY_STORE_DSN"] = "mysql", c.setup.dsn
	}
	maps.Copy(env, c.setup.env)
	maps.Copy(env, c.setup.of[n.Name])
	n.Env = env
}

// Restart starts a node that has ended, and waits until it is ready.
func (c *Cluster) Restart(n *Node) {
	c.T.Helper()
	n.Start()
	n.Ready(startLimit)
}

// All returns the processes of nodes.
func All(groups ...[]*Node) []*Process {
	var out []*Process
	for _, g := range groups {
		for _, n := range g {
			out = append(out, n.Process)
		}
	}
	return out
}

// Token signs a token for a user: all rooms of the type "room" and the public ones are his.
func (c *Cluster) Token(uid string, more Claims) string { return c.Secrets.User(uid, more) }

// User signs a token for a user, good for an hour, with further claims.
func (s Secrets) User(uid string, more Claims) string {
	claims := UserClaims(uid, time.Hour)
	maps.Copy(claims, more)
	return Token(s.Kid, s.Token, claims)
}
