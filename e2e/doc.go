// Package e2e tests Halley from outside: the real binary as processes, over sockets and HTTP. It imports
// nothing of Halley's but proto; what it knows of a role is its addresses, its metrics and its protocol.
//
// The harness is in the plain files: processes and their signals (cluster.go, process.go), the frame protocol
// over TCP and WebSocket written for testing, with every way of misusing it (client.go, websocket.go), tokens
// that may be wrong on purpose (token.go), the push API (api.go), and a stream of numbered pushes with a
// checker for loss, repeats and order (stream.go).
//
// The commands of README.md are typed as they stand (readme_test.go); these need the default ports.
//
// The tests need scripts/install.sh to have been run for Redis and Kafka. HALLEY_E2E_RACE=1 builds the binary
// with the race detector.
package e2e
