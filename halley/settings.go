package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/halley-im/halley/kit/conf"
	"github.com/halley-im/halley/kit/grpcconn"
	"github.com/halley-im/halley/kit/logs"
)

// sections are the parts of the config file, in the order of the sample.
var sections = []conf.Section{
	{Key: conf.General, Title: "General", Help: "What all roles share. Every process of a cluster should have the same values here."},
	{Key: "log", Title: "Log", Help: "What a process writes to its standard error."},
	{Key: "kafka", Title: "Kafka", Help: "Where messages wait between logic and job. halley all has its own and takes only the times from here."},
	{Key: "redis", Title: "Redis", Help: "Where presence is. halley all has its own."},
	{Key: "store", Title: "Database", Help: "Where conversations are. All jobs and logics of a cluster have the same one."},
	{Key: "all", Title: "All in one", Help: "What only halley all has."},
	{Key: "comet", Title: "Comet", Help: "Holds clients' connections."},
	{Key: "logic", Title: "Logic", Help: "Verifies tokens, carries out requests, serves the HTTP API."},
	{Key: "router", Title: "Router", Help: "Keeps presence."},
	{Key: "job", Title: "Job", Help: "Brings messages from Kafka to the comets."},
}

// logSettings say what is logged, and how.
type logSettings struct {
	// Format is how a line looks.
	Format string `name:"format" enum:"text,json" help:"How a log line looks." default:"text"`
	// Level is the lowest level that is written.
	Level string `name:"level" enum:"debug,info,warn,error" help:"Lowest level that is written." default:"info"`
}

// commonSettings are what every role process of a cluster shares.
type commonSettings struct {
	// ClusterSecret keeps strangers away from the roles' gRPC servers.
	ClusterSecret string `name:"cluster-secret" group:"general" help:"What the roles show each other on every internal call. Without it a process listens on loopback only."`
	// ClusterSecretFile is read where ClusterSecret is empty.
	ClusterSecretFile string `name:"cluster-secret-file" group:"general" help:"File that holds the cluster secret, where cluster_secret itself is empty."`
	// StartTimeout is how long Kafka and the database may take at start.
	StartTimeout time.Duration `name:"start-timeout" group:"general" help:"How long Kafka may take to answer when a role starts, before it gives up; and the database, before the role starts without it." default:"15s"`

	GRPC grpcconn.Config `embed:"" prefix:"grpc-" group:"general"`
	Log  logSettings     `embed:"" prefix:"log-" group:"log"`
}

// minSecretBytes is the shortest cluster secret that is taken: below it, it can be guessed.
const minSecretBytes = 16

// secret returns the cluster secret, empty if there is none.
func (c commonSettings) secret() (string, error) {
	s := c.ClusterSecret
	if s == "" && c.ClusterSecretFile != "" {
		b, err := os.ReadFile(c.ClusterSecretFile)
		if err != nil {
			return "", fmt.Errorf("cluster_secret_file: %w", err)
		}
		if s = strings.TrimSpace(string(b)); s == "" {
			return "", fmt.Errorf("cluster_secret_file: %s is empty", c.ClusterSecretFile)
		}
	}
	if s != "" && len(s) < minSecretBytes {
		return "", fmt.Errorf("cluster_secret has %d bytes: give it at least %d random ones, such as the output of `openssl rand -hex 32`", len(s), minSecretBytes)
	}
	return s, nil
}

// dataSettings say where files are kept; tools find secrets there.
type dataSettings struct {
	// DataDir holds what halley all must not forget, and its secrets.
	DataDir string `name:"data-dir" group:"general" help:"Folder of halley all: its Kafka's records and its secrets. The tools look for keys there." default:"data"`
}

// tlsSettings are the certificate of all that clients and backends reach.
type tlsSettings struct {
	// Cert and Key are PEM files.
	Cert string `name:"tls-cert" group:"general" help:"File with the certificate chain (PEM): halley all then also serves TLS."`
	Key  string `name:"tls-key" group:"general" help:"File with the certificate's private key (PEM)."`
	// SelfSigned makes one.
	SelfSigned bool `name:"tls-self-signed" group:"general" help:"Serve TLS with a certificate of its own making, kept in the data folder."`
}

// Validate checks that the files come in pairs.
func (t tlsSettings) Validate() error {
	if (t.Cert == "") != (t.Key == "") {
		return errors.New("tls_cert and tls_key go together")
	}
	if t.Cert != "" && t.SelfSigned {
		return errors.New("tls_self_signed makes its own certificate: leave out tls_cert and tls_key")
	}
	return nil
}

// routerTarget is where the routers are, for those who call them.
type routerTarget struct {
	// Target is a gRPC target or a list of addresses.
	Target string `name:"target" help:"Where comet, logic and job find the routers: host:port, several with commas, or dns:///name:port." default:"127.0.0.1:3129"`
}

// logicTarget is where the logics are, for comet.
type logicTarget struct {
	// Target is a gRPC target or a list of addresses.
	Target string `name:"target" help:"Where comet finds logic: host:port, several with commas, or dns:///name:port." default:"127.0.0.1:3119"`
}

// knownEnv are variables that begin like settings and are none: arguments of tools.
var knownEnv = []string{"HALLEY_CONFIG", "HALLEY_URL", "HALLEY_API_KEY", "HALLEY_TOKEN"}

// newLog opens the log of a role process, and warns of variables that look like settings but set nothing.
func newLog(t *terminal, s logSettings) (*slog.Logger, error) {
	log, err := logs.New(t.err, s.Format, s.Level)
	if err != nil {
		return nil, err
	}
	unknown := t.loader.UnknownEnv(os.Environ(), knownEnv...)
	for _, name := range slices.Sorted(maps.Keys(unknown)) {
		if strings.HasPrefix(name, "HALLEY_TEST_") || strings.HasPrefix(name, "HALLEY_E2E_") || strings.HasPrefix(name, "HALLEY_BENCH_") {
			continue // of the tests and benchmarks
		}
		log.Warn("variable sets nothing", "name", name, "nearest", unknown[name])
	}
	return log, nil
}
